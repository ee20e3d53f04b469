"""Formats: whose tick file it is, by header and content, and its rows under fxlab's names.

`of_text` and `of_columns` look at the first rows and return a `Format`, or refuse the file as a
whole: candles, decimal commas, dates that may be day first, ids and times that a spreadsheet has
cut. `Format.canonical` then turns each block of rows into columns that `parsing` knows, with the
same number of rows; `BookChanges` makes books of those that are changes of one. Whatever was
assumed is in `Format.assumed`, to be said and kept.
"""

from __future__ import annotations

import re
from bisect import bisect_left, insort
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePath
from typing import Any, Final, NoReturn

import polars as pl

from fxlab.collect._files import csv, vendors
from fxlab.collect._files.fields import EARLIEST, LATEST, ROW, SourceLocation, first_value
from fxlab.collect._files.parsing import SHAPES
from fxlab.collect._files.quarantine import BadRow, Quarantine
from fxlab.collect._files.vendors import VENDORS, Vendor
from fxlab.errors import InvalidInput, did_you_mean
from fxlab.schema import BOOK_DEPTH, UTC_MICROS, is_symbol

SAMPLE: Final = 20
"""So many rows decide."""

_KNOWN: Final = frozenset(name for shape in SHAPES for name in shape.known)
_TARGETS: Final = (*sorted(_KNOWN), "maker_side")
_TIMES: Final = ("timestamp", "received_at")
_UNITS: Final = {1: "seconds", 1_000: "milliseconds", 10**6: "microseconds", 10**9: "nanoseconds"}
_NUMBER: Final = re.compile(r"[+-]?\d*\.?\d[\d.:eE+ -]*")
_WHOLE: Final = re.compile(r"\d{9,19}")
_ZONED: Final = re.compile(r"(?:[zZ]|\d[+-]\d\d:?\d\d)$")
_DAY_FIRST: Final = re.compile(r"\d{1,2}[./-]\d{1,2}[./-]\d{2,4}\b")
_MANGLED: Final = re.compile(r"\d(?:\.\d+)?E\+\d+")
_COIN_M: Final = re.compile(r"usd_(?:perp|\d{6})-")
_ANY_SYMBOL: Final = r"([A-Z0-9]{5,24})-(?:trades|aggTrades|bookTicker)-\d{4}"


@dataclass(slots=True)
class Format:
    """How one file is read; made anew for each file, as it remembers what the last block said.

    Attributes
    ----------
    name
        The vendor's, in words.
    separator, names
        Of text: what parts its fields, and the columns if it has no header, else None.
    symbol
        From the file's name, if no column and no option says it.
    assumed
        What was not said by the file.
    changes
        Makes books of rows that are changes of one.
    """

    name: str
    separator: str = ","
    names: tuple[str, ...] | None = None
    symbol: str | None = None
    assumed: tuple[str, ...] = ()
    changes: BookChanges | None = None
    _columns: Mapping[str, str] = field(default_factory=dict)
    _vendor: Vendor | None = None
    _units: dict[str, int] = field(default_factory=dict)
    _memory: dict[str, Any] = field(default_factory=dict)

    def canonical(
        self, place: SourceLocation, raw: pl.DataFrame, numbers: pl.Series | None = None
    ) -> pl.DataFrame:
        """Return a block's rows, as many as there are, under the names that `parsing` knows.

        Parameters
        ----------
        place, raw
            The file, for errors; the rows as they are in it.
        numbers
            The places of the rows in the file, unless they are all of it.

        Raises
        ------
        ImportRefused
            If its times are in another unit than those of the first rows.
        """
        block = raw
        if self._vendor is not None:
            block = raw.rename({name: name.strip().lower() for name in raw.columns})
            block = block.with_columns(self._vendor.expressions)
            if self._vendor.convert is not None:
                block = self._vendor.convert(block, self._memory)
        chosen = {name: self._columns.get(name, name) for name in block.columns}
        block = block.select(pl.col(name).alias(ours) for name, ours in chosen.items() if ours)
        if "maker_side" in block.columns:
            turned = pl.col("maker_side").cast(pl.String).str.to_lowercase()
            block = block.with_columns(
                turned.replace({"buy": "sell", "sell": "buy"}).alias("side")
            ).drop("maker_side")
        return block.with_columns(
            _in_unit(place, block[name], unit, numbers)
            for name, unit in self._units.items()
            if name in block.columns
        )


@dataclass(slots=True)
class _Levels:
    """One side of a book: its prices, the best first, and the text of price and amount of each."""

    sign: int
    order: list[float] = field(default_factory=list)
    texts: dict[float, tuple[str, str]] = field(default_factory=dict)

    def change(self, price: float, amount: float, texts: tuple[str, str]) -> None:
        key = self.sign * price
        if not amount:
            if self.texts.pop(key, None) is not None:
                del self.order[bisect_left(self.order, key)]
            return
        if key not in self.texts:
            insort(self.order, key)
        self.texts[key] = texts

    def best(self) -> list[str | None]:
        """Return price and amount of the levels that are stored; None where there is none."""
        there = [text for key in self.order[:BOOK_DEPTH] for text in self.texts[key]]
        return [*there, *[None] * (2 * BOOK_DEPTH - len(there))]


@dataclass(slots=True)
class _Book:
    bids: _Levels = field(default_factory=lambda: _Levels(-1))
    asks: _Levels = field(default_factory=lambda: _Levels(1))
    is_known: bool = False
    in_snapshot: bool = False
    shown: list[str | None] = field(default_factory=list)


_CHANGE: Final = {
    "timestamp": pl.Int64(), "received_at": pl.Int64(), "symbol": pl.String(),
    "is_snapshot": pl.Boolean(), "side": pl.String(), "price": pl.String(),
    "amount": pl.String(), "price_number": pl.Float64(), "amount_number": pl.Float64(),
    "rule": pl.String(), ROW: pl.Int64(),
}  # fmt: skip
_BOOKS: Final = {
    "timestamp": pl.Int64(), "received_at": pl.Int64(), "symbol": pl.String(),
    **{
        f"{side}_{what}_{level}": pl.String()
        for side in ("bid", "ask")
        for level in range(1, BOOK_DEPTH + 1)
        for what in ("price", "qty")
    },
    ROW: pl.Int64(),
}  # fmt: skip
_MOST_IN_MESSAGE: Final = 1_000_000


class BookChanges:
    """Order books rebuilt from changes of their levels, a message at a time.

    Lines that follow each other with one symbol and one time of arrival are one message: together
    they make one book, which is a row if it differs in the levels that are stored. A snapshot
    begins a book anew. Before the first one, and after a line that is no change, no book is known:
    such lines are bad ones, too.
    """

    def __init__(self) -> None:
        self._books: dict[str, _Book] = {}
        self._held = pl.DataFrame(schema=_CHANGE)  # the last message, which may go on
        self._texts: dict[int, str] = {}
        self._lines = self._made = 0

    @property
    def assumed(self) -> tuple[str, ...]:
        """Return what became of the lines."""
        told = f"{self._lines:,} changes of single levels make {self._made:,} books of up to "
        return (f"{told}{BOOK_DEPTH} levels; what changes none of these makes no row",)

    def books(
        self, rows: pl.DataFrame, numbers: pl.Series | None, bad: Quarantine
    ) -> tuple[pl.DataFrame, pl.Series]:
        """Return the books after the messages that end in a block, and the place of each.

        Without `numbers` the block is the end of the file.
        """
        held, of_block = self._texts, bad.text
        bad.text = lambda row: held[row] if row in held else of_block(row)
        if numbers is not None:
            rows = pl.concat([self._held, _change_of(rows, numbers)])
        key = rows.select(pl.struct("symbol", "received_at").rle_id()).to_series()
        last = key.len() if numbers is None else int((key != key[-1]).sum()) if key.len() else 0
        self._held = rows[last:]
        if self._held.height > _MOST_IN_MESSAGE:
            bad.place.refuse(
                f"more than {_MOST_IN_MESSAGE:,} lines have one time of arrival, and lines of one "
                "time are one message; split the file",
                int(self._held[ROW][0]),
            )
        made = list(self._after_messages(rows[:last], key[:last], bad))
        self._texts = {row: bad.text(row) for row in self._held[ROW]}
        self._made += len(made)
        found = pl.DataFrame(made, schema=_BOOKS, orient="row")
        return found.drop(ROW).with_columns(pl.col(*_TIMES).cast(UTC_MICROS)), found[ROW]

    def rest(self, bad: Quarantine) -> tuple[pl.DataFrame, pl.Series]:
        """Return the book after the last message."""
        return self.books(self._held, None, bad)

    def _after_messages(
        self, rows: pl.DataFrame, key: pl.Series, bad: Quarantine
    ) -> Iterator[tuple[Any, ...]]:
        ends = key.diff(null_behavior="ignore").shift(-1).fill_null(1) != 0
        for line, is_end in zip(rows.iter_rows(), ends, strict=True):
            at, arrived, symbol, is_snapshot, side, price, amount, number, size, rule, row = line
            book = self._books.setdefault(symbol, _Book())
            if rule is None and is_snapshot and not book.in_snapshot:
                book.bids, book.asks, book.is_known = _Levels(-1), _Levels(1), True
            book.in_snapshot = bool(is_snapshot) and rule is None
            if rule is not None or not book.is_known:
                book.is_known = False
                why = rule or "no book is known before a snapshot that follows"
                bad.add([BadRow(row, why, why, "; mend or remove it", is_counted=True)])
            else:
                self._lines += 1
                levels = book.bids if side == "bid" else book.asks
                levels.change(number, size, (price, amount))
            if is_end and book.is_known:
                shown = [*book.bids.best(), *book.asks.best()]
                if shown != book.shown:
                    book.shown = shown
                    yield (at, arrived, symbol, *shown, row)


def _change_of(rows: pl.DataFrame, numbers: pl.Series) -> pl.DataFrame:
    """Return changes with their numbers read, and the rule that a line breaks, if any."""
    price, amount = (pl.col(name).cast(pl.Float64, strict=False) for name in ("price", "amount"))
    flag = pl.col("is_snapshot").cast(pl.String).str.to_lowercase()
    times = [pl.col(name) for name in _TIMES if isinstance(rows[name].dtype, pl.Datetime)]
    are_times = pl.all_horizontal(time.is_not_null() for time in times)
    rules = {
        "a time is microseconds since 1970": are_times if len(times) == 2 else pl.lit(value=False),
        "is_snapshot is true or false": flag.is_in(["true", "false"]),
        "a side is bid or ask": pl.col("side").is_in(["bid", "ask"]),
        "a price is a finite number above zero": price.is_finite() & (price > 0),
        "an amount is a finite number, zero or above": amount.is_finite() & (amount >= 0),
    }
    broken = [
        pl.when(~holds.fill_null(value=False)).then(pl.lit(rule)) for rule, holds in rules.items()
    ]
    own = {
        **{name: pl.col(name).cast(pl.Int64, strict=False) for name in _TIMES},
        "is_snapshot": flag == "true",
        "price_number": price,
        "amount_number": amount,
        "rule": pl.coalesce(broken),
        ROW: pl.lit(numbers),
    }
    return rows.select(
        own.get(name, pl.col(name)).cast(kind).alias(name) for name, kind in _CHANGE.items()
    )


def of_text(
    place: SourceLocation,
    lines: Sequence[str],
    *,
    columns: Mapping[str, str] | None = None,
    symbol: str | None = None,
) -> Format:
    """Return the format of a text file by its first lines.

    Parameters
    ----------
    place
        The file, by its name.
    lines
        The first lines, whole ones.
    columns
        What the user said: our name to theirs, or to the number of a field, counted from 1.
    symbol
        What the user said, if anything.

    Raises
    ------
    ImportRefused
        If it holds no ticks, or ticks that something has damaged, with what to do.
    """
    first = lines[0] if lines else ""
    separator = "\t" if "\t" in first and "," not in first else ","
    rows = [[value.strip() for value in line.split(separator)] for line in lines[: SAMPLE + 1]]
    names: tuple[str, ...] | None = None
    vendor: Vendor | None = None
    if rows and any(_NUMBER.fullmatch(value) for value in rows[0]):
        names, vendor = _without_header(place, rows, columns)
    if not first:
        return Format("unknown")  # the reader of text says what is wrong
    header = list(names) if names is not None else csv.header_of(place, first, separator)
    body = rows if names is not None else rows[1:]
    fitting = [[value or None for value in row] for row in body if len(row) == len(header)]
    head = pl.DataFrame(fitting, schema=dict.fromkeys(header, pl.String), orient="row")
    found = _format(place, head, columns, symbol, vendor)
    said = [*found.assumed]
    if separator != ",":
        said.insert(0, "fields are separated by tabs")
    found.separator, found.names, found.assumed = separator, names, tuple(said)
    return found


def of_columns(
    place: SourceLocation,
    head: pl.DataFrame,
    *,
    columns: Mapping[str, str] | None = None,
    symbol: str | None = None,
) -> Format:
    """Return the format of rows that have names (Parquet, Arrow, JSON lines); as `of_text`."""
    return _format(place, head.head(SAMPLE), columns, symbol, None)


def _without_header(
    place: SourceLocation, rows: Sequence[Sequence[str]], columns: Mapping[str, str] | None
) -> tuple[tuple[str, ...] | None, Vendor | None]:
    """Return the columns of a file without a header and whose they are, by its fields' look."""
    if columns and all(number.isdigit() for number in columns.values()):
        return tuple(str(number + 1) for number in range(len(rows[0]))), None
    stem = PurePath(place.file).name.split(".csv")[0]
    if vendors.HALF_OF_LOBSTER.search(stem):
        place.refuse(vendors.HALF)
    pasted = (len(rows[0]) - 6) // 4
    candidates = [*VENDORS, vendors.lobster(pasted)] if pasted > 0 else VENDORS
    for vendor in candidates:
        if vendor.fields and _fits(vendor, rows):
            if vendor.refused:
                _refuse(place, vendor)
            return tuple(vendor.columns)[: len(vendor.fields)], vendor
    return None, None


def _fits(vendor: Vendor, rows: Sequence[Sequence[str]]) -> bool:
    """Return whether the first line and most of the others look like a vendor's."""

    def alike(row: Sequence[str]) -> bool:
        return len(row) == len(vendor.fields) and all(
            re.fullmatch(f"(?:{pattern})", value)
            for pattern, value in zip(vendor.fields, row, strict=True)
        )

    return alike(rows[0]) and 2 * sum(map(alike, rows)) > len(rows)


def _refuse(place: SourceLocation, vendor: Vendor) -> None:
    if vendor.refused == "candles":
        csv.refuse_bars(place, csv.BARS, vendor.name)
    place.refuse(f"{vendor.name}: {vendor.refused}")


def _format(
    place: SourceLocation,
    head: pl.DataFrame,
    columns: Mapping[str, str] | None,
    symbol: str | None,
    vendor: Vendor | None,
) -> Format:
    csv.refuse_bars(place, [name.strip("<>") for name in head.columns])
    if columns:
        found = _by_mapping(place, head.columns, columns)
    else:
        found = _by_vendor(place, head, vendor) or _by_meaning(place, head.columns)
    if found.name == vendors.LOBSTER:
        found._memory["day"] = _day(place)  # noqa: SLF001 - of this module
    rows = found.canonical(place, head)
    said = [*found.assumed]
    for name in _TIMES:
        if name in rows.columns:
            said += _time_unit(place, rows[name], found)
    _refuse_mangled_ids(place, rows)
    if "symbol" not in rows.columns and symbol is None:
        named = found._vendor.named if found._vendor else _ANY_SYMBOL  # noqa: SLF001
        found.symbol = _symbol_of(place, named)
        if found.symbol:
            as_named = found.symbol in PurePath(place.file).name
            told = "" if as_named else ", in capital letters"
            said.append(f"symbol {found.symbol} from the file's name{told}")
    found._memory = {k: v for k, v in found._memory.items() if k in ("day", "raw")}  # noqa: SLF001
    found.assumed = tuple(said)
    return found


def _by_vendor(
    place: SourceLocation, head: pl.DataFrame, by_fields: Vendor | None
) -> Format | None:
    """Return the vendor's format whose columns are there, the most telling first."""
    names = [name.strip().lower() for name in head.columns]
    stem = PurePath(place.file).name.lower()
    told = set(names)
    only_trades = "action" in told and set(head[head.columns[names.index("action")]]) == {"T"}
    if vendors.TBBO in stem or (only_trades and "mbp" not in stem):
        told.add(vendors.TBBO)
    vendor = by_fields or next((each for each in VENDORS if each.key <= told), None)
    if vendor is None or len(told) < len(names):
        return None
    if vendor.refused:
        _refuse(place, vendor)
    if vendor.name.startswith("Binance") and _COIN_M.search(stem) and "base_qty" not in told:
        place.refuse(
            "COIN-M quantities are contracts, and nothing in this file says their worth; take "
            "the trades of the same days with their header (id,price,qty,base_qty,time,...)"
        )
    if "tardis" in vendor.name.lower() and "liquidations" in stem:
        place.refuse("it holds liquidations, not trades; take Tardis' trades of the same days")
    given = {ours for ours in vendor.columns.values() if ours}
    mapping = {
        name: vendor.columns.get(name, name if name in _KNOWN and name not in given else "")
        for name in names
    }
    lost = [
        real for real, name in zip(head.columns, names, strict=True)
        if not mapping[name] and name not in ("<time>", "amount")
    ]  # fmt: skip
    ours = head.rename(dict(zip(head.columns, names, strict=True)))
    said = [
        f"{vendor.name}, by its {'fields: no header' if by_fields else 'header'}",
        *vendor.said,
        *(vendor.says(ours) if vendor.says else ()),
        *([f"not stored: {csv.listed(lost)}"] if lost else []),
    ]
    made = Format(vendor.name, assumed=tuple(said), _columns=mapping, _vendor=vendor)
    made.changes = BookChanges() if vendor.is_changes else None
    return made


def _by_meaning(place: SourceLocation, names: Sequence[str]) -> Format:
    """Return the format of columns that are ours, or mean ours; what is left is refused later."""
    meant = csv.meanings(names, _KNOWN)
    called = [meant.get(name, name) for name in names]
    if len(set(called)) < len(called):
        return Format("unknown")
    fits = any(set(shape.needed) <= set(called) for shape in SHAPES)
    if not fits:
        _refuse_unknown(place, names, meant)
    if not meant:
        return Format("fxlab columns")
    said = [f"{name} is taken for {ours}" for name, ours in meant.items()]
    if meant.get("side") is None and "side" in called and "trade_id" in called:
        said.append("side is taken for the taker's (the maker's: columns maker_side=side)")
    return Format("columns by their names", assumed=tuple(said), _columns=meant)


def _by_mapping(place: SourceLocation, names: Sequence[str], columns: Mapping[str, str]) -> Format:
    """Return the format that the user has said: our name to theirs."""
    for ours, theirs in columns.items():
        if ours not in _TARGETS:
            hint = did_you_mean(ours, _TARGETS) or "give timestamp, price, volume and the like"
            raise InvalidInput(f"columns: {ours!r} is no column of fxlab; {hint}")
        if theirs not in names:
            hint = did_you_mean(theirs, names) or f"it has {csv.listed(names)}"
            place.refuse(f"columns {ours}={theirs}: the file has no column {theirs!r}; {hint}")
    back = {theirs: ours for ours, theirs in columns.items()}
    mapping = {
        name: back.get(name, name if name in _KNOWN and name not in columns else "")
        for name in names
    }
    lost = [name for name in names if not mapping[name]]
    said = [f"columns as given: {', '.join(f'{a}={b}' for a, b in columns.items())}"]
    said += [f"not stored: {csv.listed(lost)}"] if lost else []
    return Format("columns as given", assumed=tuple(said), _columns=mapping)


def _time_unit(place: SourceLocation, column: pl.Series, found: Format) -> list[str]:
    """Find the unit of a column of times; refuse what is no time that can be read one way only."""
    value = first_value(column)
    text = str(value)
    if isinstance(value, str) and _DAY_FIRST.match(text):
        place.refuse(
            f"its times, such as {text!r:.60}, may be day first or month first; write them as "
            "2024-08-08T23:54:15.342Z, or as seconds since 1970"
        )
    if isinstance(value, str) and _MANGLED.fullmatch(text):
        place.refuse(
            f"{column.name}={text!r}: its exponent has cost digits, as in a spreadsheet: export it "
            "again from the source",
            0,
        )
    number = text.partition(".")[0] if isinstance(value, int | float) else text
    if not _WHOLE.fullmatch(number):
        local = found._vendor is None and not _ZONED.search(text)  # noqa: SLF001 - of this module
        local &= value is not None and not text.replace(".", "", 1).isdigit()
        return [f"{column.name} has no offset and is taken for UTC"] if local else []
    unit = next((unit for unit in _UNITS if _plausible(int(number), unit)), 1)
    if unit == 1:
        return []
    found._units[column.name] = unit  # noqa: SLF001 - of this module
    return [f"{column.name} is in {_UNITS[unit]}"]


def _plausible(value: int, unit: int) -> bool:
    return EARLIEST.timestamp() * unit <= value < LATEST.timestamp() * unit


def _in_unit(
    place: SourceLocation, column: pl.Series, unit: int, numbers: pl.Series | None = None
) -> pl.Series:
    """Return epoch times of one unit as times, or as text of seconds where some are no numbers."""
    if isinstance(column.dtype, pl.Datetime):
        return column
    if column.dtype.is_float():
        micros = (column * (10**6 / unit)).round()
        return micros.cast(pl.Int64, strict=False).cast(UTC_MICROS)
    whole = column.cast(pl.Int64, strict=False)
    low, high = whole.min(), whole.max()
    if not all(isinstance(edge, int) and _plausible(edge, unit) for edge in (low, high)):
        others = [other for other in _UNITS if other != unit]
        edges = ((int(EARLIEST.timestamp()) * o, int(LATEST.timestamp()) * o - 1) for o in others)
        wrong = pl.any_horizontal(*(pl.lit(whole).is_between(*edge) for edge in edges))
        rows = pl.select(wrong.arg_true()).to_series()
        if rows.len():
            place.refuse(
                f"{column.name}={column[rows[0]]} is not in {_UNITS[unit]} as the times before: a "
                "file has one unit; split it where the unit changes",
                int(rows[0] if numbers is None else numbers[rows[0]]),
            )
    if whole.null_count() == column.null_count():
        step = {1_000: "ms", 10**6: "us", 10**9: "ns"}[unit]
        return whole.cast(pl.Datetime(step, "UTC"))  # type: ignore[arg-type]  # a literal
    digits = len(str(unit)) - 1
    seconds = pl.col(column.name).str.head(-digits) + "." + pl.col(column.name).str.tail(digits)
    is_number = pl.lit(whole.is_not_null())
    return column.to_frame().select(
        pl.when(is_number).then(seconds).otherwise(pl.col(column.name)).alias(column.name)
    ).to_series()  # fmt: skip


def _refuse_mangled_ids(place: SourceLocation, rows: pl.DataFrame) -> None:
    value = first_value(rows["trade_id"]) if "trade_id" in rows.columns else None
    if isinstance(value, str) and _MANGLED.fullmatch(value):
        place.refuse(
            f"trade_id={value!r}, but an id is written out in full (an exponent is what a "
            "spreadsheet made of it, and digits are lost: export it again from the source)",
            0,
        )


def _symbol_of(place: SourceLocation, pattern: str) -> str | None:
    stem = re.sub(r"\.[a-z.]+$", "", PurePath(place.file).name)
    found = re.search(pattern, stem)
    name = found[1].upper() if found else ""
    return name if is_symbol(name) else None


def _day(place: SourceLocation) -> str:
    found = re.search(r"\d{4}-\d\d-\d\d", PurePath(place.file).name)
    if found is None:
        place.refuse("LOBSTER's times are seconds of a day: name the file SYMBOL_2012-06-21_….csv")
    return found[0]


def _refuse_unknown(
    place: SourceLocation, names: Sequence[str], meant: Mapping[str, str]
) -> NoReturn:
    """Refuse columns that are of no kind: what was found, what is needed, what is nearest."""
    kinds = "; ".join(f"{shape.name} have {', '.join(shape.needed)}" for shape in SHAPES)
    have = {name.strip().lower() for name in names}
    near = max(VENDORS, key=lambda each: len(each.key & have))
    parts = [f"the columns {csv.listed(names)} are of no kind that fxlab knows ({kinds})"]
    parts += [f"{name!r} would be {ours}" for name, ours in meant.items()]
    if len(near.key & have) > 1:
        missing = ", ".join(sorted(near.key - have))
        parts.append(f"the nearest is {near.name}, which would have {missing} too")
    parts.append("say which column is which: columns={'timestamp': 'THEIRS', 'price': 'THEIRS'}")
    place.refuse("; ".join(parts))
