"""Row parser: a file's columns to those of the tick tables, losing and inventing nothing.

Three shapes are known by their columns: trades, quotes (best bid and ask) and books (up to ten
levels). A column that has no place in the tables is refused, not dropped. Rows alike in all but
their ids are kept: most are real trades of the same millisecond.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime
from itertools import pairwise
from typing import Final

import polars as pl
import polars.selectors as cs

from fxlab._ticks import level_columns
from fxlab.collect._files import csv, fields
from fxlab.collect._files.fields import ROW, VENUE_SEQ, Field, SourceLocation
from fxlab.collect._files.quarantine import BadRow, Quarantine
from fxlab.schema import BOOK_DEPTH, ORDERBOOK, PRICES, Table

_VOLUMES: Final = ("volume", "qty", "amount")
_HEAD: Final = ("symbol", "recv_ns", "received_at", "seq")
_OWN: Final = ("session_id", "origin")  # of an exported frame; the new session has its own
_DERIVED: Final = ("best_bid", "best_ask", "spread", "mid")  # follow from the levels
_TIMES: Final = ("timestamp", "received_at")
WORDS: Final = ("symbol", "side", "buyer_is_maker", "is_snapshot", "trade_id", *_OWN)
"""Columns whose values are text; all others are numbers or times."""
_WHOLE: Final = ("seq", "first_update_id", "last_update_id", "recv_ns")
_ONE_OF: Final = (_VOLUMES, ("recv_ns", "received_at"), ("side", "buyer_is_maker"))


@dataclass(frozen=True, slots=True)
class RowFormat:
    """One known set of columns."""

    name: str
    data_type: str
    table: Table
    needed: tuple[str, ...]
    optional: tuple[str, ...]

    @property
    def known(self) -> tuple[str, ...]:
        """Return all column names that have a meaning here."""
        return (*self.needed, *self.optional, *_HEAD, *_OWN)


TRADES: Final = RowFormat(
    "trades",
    "prices",
    PRICES,
    ("timestamp", "price"),
    (*_VOLUMES, "quote_volume", "trade_id", "side", "buyer_is_maker"),
)
BOOKS: Final = RowFormat(
    "books",
    "orderbook",
    ORDERBOOK,
    ("timestamp", "bid_price_1", "ask_price_1"),
    (*level_columns(), "first_update_id", "last_update_id", "is_snapshot", *_DERIVED),
)
QUOTES: Final = RowFormat(
    "quotes", "orderbook", ORDERBOOK, ("timestamp", "bid", "ask"), ("bid_size", "ask_size", "mid")
)
SHAPES: Final = (TRADES, BOOKS, QUOTES)


def parse_rows(
    raw: pl.DataFrame,
    symbol: str | None,
    bad: Quarantine,
    numbers: pl.Series | None = None,
    looks: dict[str, bool] | None = None,
) -> tuple[RowFormat, pl.DataFrame]:
    """Return the shape of a file's rows, and the rows with the columns of its table.

    Parameters
    ----------
    raw
        Columns as in the file: text (CSV) or typed (Parquet).
    symbol
        For a file without a symbol column.
    bad
        Takes the rows that are no ticks: a missing or odd number, a price not above zero, a
        negative quantity, a time that is none, an unknown side.
    numbers
        The places of the rows in the source, unless they are all there.
    looks
        What `fxlab.collect._files.fields.moment` remembers between the blocks of a file.

    Returns
    -------
    (Shape, polars.DataFrame)
        The frame has `ROW`, `VENUE_SEQ` and the table's columns but ``session_id``, ``origin`` and
        ``seq``; the rows are in the file's order.

    Raises
    ------
    ImportRefused
        For unknown columns, and for a row that shows that the whole file is wrong.
    """
    place = bad.place
    shape = row_format_of(place, raw, symbol)
    raw = raw.with_columns(cs.decimal().cast(pl.String))  # its text is exact, and read as a file's
    if numbers is None:
        numbers = pl.int_range(raw.height, dtype=pl.Int64, eager=True)
    _refuse_odd_types(place, raw, numbers)
    if "symbol" in raw.columns and symbol is not None:
        place.refuse(f"it has a column symbol, so symbol={symbol!r} cannot be given too")
    named = raw if symbol is None else raw.with_columns(pl.lit(symbol).alias("symbol"))
    wanted = [*_head(named, {} if looks is None else looks), *_BODIES[shape.name](named)]
    rows = named.select(f.value.alias(f.target) for f in wanted if f.value is not None)
    numbers = numbers.alias(ROW)
    found = fields.broken(named, rows, wanted)
    if found:
        _quarantine(named, found, numbers, bad)
        good = numbers.is_in([int(numbers[row]) for row, _, _ in found]).not_()
        named, rows, numbers = named.filter(good), rows.filter(good), numbers.filter(good)
    return shape, _completed(shape, named, rows).with_columns(numbers)


def _quarantine(
    named: pl.DataFrame, found: list[tuple[int, Field, str]], numbers: pl.Series, bad: Quarantine
) -> None:
    """Put the rows that break a rule into quarantine, or refuse the file for what they show."""
    ruined = [
        (int(numbers[row]), words)
        for row, one, words in found
        if one.ruins is not None and one.ruins(fields.value_at(named[one.source], row))
    ]
    if ruined and not bad.strict:
        row, words = ruined[0]
        more = f" ({len(ruined):,} rows are so)" if len(ruined) > 1 else ""
        bad.place.refuse(f"{words}{more}", row)
    bad.add(
        [
            BadRow(int(numbers[row]), one.rule, words, "; mend or remove it", is_counted=True)
            for row, one, words in found
        ]
    )


def row_format_of(place: SourceLocation, raw: pl.DataFrame, symbol: str | None) -> RowFormat:
    """Return the shape that the columns have, or refuse them with all that has to change."""
    csv.refuse_bars(place, raw.columns)
    known = {name for shape in SHAPES for name in shape.known}
    meant = csv.meanings(raw.columns, known)
    called = [meant.get(name, name) for name in raw.columns]
    shape = next((shape for shape in SHAPES if set(shape.needed) <= set(called)), None)
    if shape is None:
        kinds = "; ".join(f"{shape.name} have {', '.join(shape.needed)}" for shape in SHAPES)
        reason = f"the columns {csv.listed(raw.columns)} are of no kind that fxlab knows"
        place.refuse("; ".join([f"{reason} ({kinds})", *csv.renaming(meant)]))
    wrong = csv.wrong(raw.columns, meant, shape.known, shape.name, _ONE_OF)
    if shape is TRADES and not set(_VOLUMES) & set(called):
        wrong.append(f"trades need one of the columns {', '.join(_VOLUMES)}")
    if "symbol" not in called and symbol is None:
        wrong.append("it has no column symbol; say which it is: symbol='BTC_USDT'")
    if wrong:
        time = fields.first_value(raw[raw.columns[called.index("timestamp")]])
        hint = fields.time_hint(time) if not isinstance(time, datetime) else ""
        if hint and not hint.startswith("such"):
            wrong.append(f"its times, such as {time}: {hint}")
        place.refuse("; ".join(wrong))
    return shape


def _refuse_odd_types(place: SourceLocation, raw: pl.DataFrame, numbers: pl.Series) -> None:
    """Refuse a typed column that Polars would turn into a number, and that is none."""
    for name, kind in raw.schema.items():
        if name in WORDS:
            fits = kind.is_integer() or isinstance(kind, pl.Boolean | pl.Categorical | pl.Enum)
        elif name in _WHOLE:
            fits = kind.is_integer()
        else:
            fits = kind.is_numeric() or (name in _TIMES and isinstance(kind, pl.Datetime))
        if not fits and kind not in (pl.String, pl.Null):
            place.refuse(f"column {name!r} is {kind}, not {_wanted(name)}; cast it before")
        if kind in (pl.Float32, pl.Float16):
            _refuse_lost_digits(place, raw[name], numbers)


def _wanted(name: str) -> str:
    if name in WORDS:
        return "text"
    return "a time" if name in _TIMES else "a whole number" if name in _WHOLE else "a number"


def _refuse_lost_digits(place: SourceLocation, column: pl.Series, numbers: pl.Series) -> None:
    """Refuse short floats that are not what they were written as: 50000.1 is 50000.1015625."""
    held = column.cast(pl.Float64)
    lost = (held != column.cast(pl.String).cast(pl.Float64, strict=False)).arg_true()
    if lost.len():
        row = int(lost[0])
        place.refuse(
            f"{column.name} is {column.dtype}, which holds about 7 digits: "
            f"{column.cast(pl.String)[row]} is {held[row]!r} in it, and digits beyond are lost; "
            "write it as Float64 or Decimal at the source, or, if 7 digits are all there were, "
            f"pl.col({column.name!r}).cast(pl.String).cast(pl.Float64)",
            int(numbers[row]),
        )


def _head(raw: pl.DataFrame, looks: dict[str, bool]) -> list[Field]:
    """Return what all shapes have: times, symbol, and the venue's number of the row."""
    found = [fields.moment("timestamp", raw["timestamp"], looks), fields.symbol()]
    if "received_at" in raw.columns:
        found.append(fields.moment("received_at", raw["received_at"], looks).or_nothing())
    if "recv_ns" in raw.columns:
        found.append(fields.nanoseconds("received_at", "recv_ns").or_nothing())
    if "seq" in raw.columns:  # the identity of each row: none may lack it
        found.append(fields.whole(VENUE_SEQ, "seq"))
    elif "last_update_id" in raw.columns:
        found.append(fields.whole(VENUE_SEQ, "last_update_id").or_nothing())
    return found


def _trades(raw: pl.DataFrame) -> list[Field]:
    volume = next(name for name in _VOLUMES if name in raw.columns)
    found = [fields.price("price", "price"), fields.quantity("volume", volume)]
    if "quote_volume" in raw.columns:
        found.append(fields.quantity("quote_volume", "quote_volume").or_nothing())
    else:
        product = fields.number("price") * fields.number(volume)
        finite = pl.col("quote_volume").is_finite()
        found.append(Field("quote_volume", "price", product, finite, "price * volume is finite"))
    if "trade_id" in raw.columns:
        found.append(fields.trade_id(raw["trade_id"]).or_nothing())
    if "side" in raw.columns:
        found.append(fields.side().or_nothing())
    if "buyer_is_maker" in raw.columns:
        found.append(fields.side_of_maker().or_nothing())
    return found


def _quotes(raw: pl.DataFrame) -> list[Field]:
    found = [fields.price("bid_price_1", "bid"), fields.price("ask_price_1", "ask")]
    sizes = [
        fields.quantity(f"{side}_qty_1", f"{side}_size").or_nothing()
        for side in ("bid", "ask")
        if f"{side}_size" in raw.columns
    ]
    return [*found, *sizes, fields.uncrossed("bid", "ask", locked=True)]


def _books(raw: pl.DataFrame) -> list[Field]:
    found = [
        field
        for side in ("bid", "ask")
        for level in range(1, BOOK_DEPTH + 1)
        for field in _level(raw, f"{side}_price_{level}", f"{side}_qty_{level}")
    ]
    if "first_update_id" in raw.columns:
        found.append(fields.whole("first_update_id", "first_update_id").or_nothing())
    for side, sign in (("bid", 1), ("ask", -1)):
        prices = [f"{side}_price_{level}" for level in range(1, BOOK_DEPTH + 1)]
        there = [name for name in prices if name in raw.columns]
        found += [fields.falling(*pair, sign=sign) for pair in pairwise(there)]
    return [*found, fields.uncrossed("bid_price_1", "ask_price_1", locked=False)]


def _level(raw: pl.DataFrame, price: str, qty: str) -> list[Field]:
    """Return price and quantity of a level; both 0 or both empty where the level is missing."""
    if price not in raw.columns:
        return []
    value = pl.col(price)
    holds = value.is_finite() & (value >= 0)
    rule = "a price is a finite number above zero, or 0 where the level is missing"
    found = [Field(price, price, fields.number(price), holds, rule).or_nothing()]
    if qty in raw.columns:
        size = fields.quantity(qty, qty).or_nothing()
        of_a_level = (value > 0).fill_null(value=False) | (pl.col(qty).fill_null(0) == 0)
        rule = f"{size.rule}, and belongs to a price"
        found.append(Field(qty, qty, size.value, size.holds & of_a_level, rule))
    return found


_BODIES: Final = {"trades": _trades, "quotes": _quotes, "books": _books}


def _completed(shape: RowFormat, raw: pl.DataFrame, rows: pl.DataFrame) -> pl.DataFrame:
    """Add what follows from the columns, null for what the file does not say, in table order."""
    extra: list[pl.Series] = []
    if "trade_id" in rows.columns and VENUE_SEQ not in rows.columns:
        extra.append(rows["trade_id"].cast(pl.Int64, strict=False).alias(VENUE_SEQ))
    if shape.table is ORDERBOOK:
        extra.append(_is_snapshot(raw))
        rows = _without_missing_levels(rows)
    rows = rows.with_columns(extra)
    types = {**shape.table.frame, VENUE_SEQ: pl.Int64()}
    kept = [name for name in types if name not in (*_OWN, "seq")]
    blank = [pl.lit(None, types[name]).alias(name) for name in kept if name not in rows.columns]
    return rows.with_columns(blank).select(kept)


def _is_snapshot(raw: pl.DataFrame) -> pl.Series:
    """Return whether each row stands alone: all do, unless they count the venue's updates."""
    if "is_snapshot" in raw.columns:
        return raw.select(fields.flag("is_snapshot").fill_null(value=False)).to_series()
    alone = "last_update_id" not in raw.columns
    return pl.repeat(alone, raw.height, dtype=pl.Boolean, eager=True).alias("is_snapshot")


def _without_missing_levels(rows: pl.DataFrame) -> pl.DataFrame:
    """Turn the 0 that the older system wrote for a missing level into null."""
    prices = [name for name in rows.columns if "_price_" in name]
    sizes = [name for name in rows.columns if "_qty_" in name]
    there = {name: pl.col(name) > 0 for name in prices}
    return rows.with_columns(
        *(pl.when(there[name]).then(pl.col(name)) for name in prices),
        *(pl.when(there[name.replace("qty", "price")]).then(pl.col(name)) for name in sizes),
    )
