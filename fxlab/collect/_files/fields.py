"""Field rules: a file's column validated into a table's, with refusals by line and value.

A file's column is text (CSV) or typed (Parquet); either way a `Field` says how to read it and which
rule each value keeps, so that nothing is guessed, rounded away or replaced by null. Rules are
Polars expressions, so a million rows are judged in a few milliseconds; only when one is broken is
the row looked up, and the error names its file, its line, its value and the rule.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Final, NoReturn

import polars as pl

from fxlab._times import to_micros
from fxlab.errors import ImportRefused
from fxlab.schema import DOTS, SIDES, SYMBOL, UTC_MICROS, is_symbol

ROW: Final = "row"
"""A row's place in its source, counted from zero."""
VENUE_SEQ: Final = "venue_seq"
"""The venue's number of a row, if it gave one: the wish for `seq`, granted by the importer."""
RAW: Final = "raw:"
"""Prefix of the file's own columns in the frame that rules look at."""

EARLIEST: Final = datetime(1990, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)

_TIME_RULE: Final = "a time is ISO 8601 text or seconds since 1970, UTC, from 1990 to 2099"
_UNITS: Final = (
    (1e11, 1e14, "milliseconds", 1_000),
    (1e14, 1e17, "microseconds", 1_000_000),
    (1e17, 1e20, "nanoseconds", 1_000_000_000),
)
"""Sizes that only times since 1970 in these units have."""
_EXPONENT: Final = r"[eE][+-]?\d"
_FINE_LENGTH: Final = len("631152000.0000001")
_SUB_MICROS: Final = r"\.\d{6}\d*[1-9]"
_LOST_ID: Final = r"^\d(?:\.\d+)?[eE]\+\d+$|^\d+\.0$"
_ID_RULE: Final = (
    "an id is written out in full (an exponent or '.0' is what a spreadsheet or a float made of "
    "it, and digits are lost: export it again from the source, ids as text)"
)
_ISO: Final = "%Y-%m-%d %H:%M:%S%.f%z"
_OFFSET: Final = r"\d[+-]\d\d:?\d\d$"
_FLAGS: Final = {"true": True, "false": False, "1": True, "0": False}


@dataclass(frozen=True, slots=True)
class Field:
    """One column on its way into a table.

    Attributes
    ----------
    target, source
        Its name in the table and in the file.
    value
        What becomes of the file's column; None for a rule between columns that are read already.
    holds
        What must be true in each row; it sees the targets, and the file's columns under `RAW`.
    rule
        The same in words.
    beside
        Further columns of the file that an error shows.
    hint
        What a value that breaks the rule says about its cause, if anything.
    ruins
        Which rows that break the rule make the whole file wrong: digits are lost, units mixed.
    """

    target: str
    source: str
    value: pl.Expr | None
    holds: pl.Expr
    rule: str
    beside: tuple[str, ...] = ()
    hint: Callable[[object], str] | None = None
    ruins: Callable[[object], bool] | None = None

    def or_nothing(self) -> Field:
        """Return the field with empty cells allowed; they become null."""
        empty = pl.col(RAW + self.source).is_null()
        return replace(self, holds=self.holds.fill_null(value=False) | empty)


def price(target: str, source: str) -> Field:
    """Return a field of prices."""
    value = pl.col(target)
    holds = value.is_finite() & (value > 0)
    rule = "a price is a finite number above zero"
    return Field(target, source, number(source), holds, rule, hint=_number_hint)


def quantity(target: str, source: str) -> Field:
    """Return a field of volumes or sizes."""
    value = pl.col(target)
    holds = value.is_finite() & (value >= 0)
    rule = "a quantity is a finite number, zero or above"
    return Field(target, source, number(source), holds, rule, hint=_number_hint)


def _number_hint(value: object) -> str:
    """Return what is wrong with a value that is no number, as far as its look says it."""
    decimal_comma = re.fullmatch(r"-?\d+,\d+", str(value))
    return "write its decimals with a point, not a comma" if decimal_comma else ""


def whole(target: str, source: str) -> Field:
    """Return a field of whole numbers."""
    value = pl.col(source).cast(pl.Int64, strict=False)
    return Field(target, source, value, pl.col(target).is_not_null(), "it is a whole number")


def symbol() -> Field:
    """Return the field of symbols."""
    return Field(
        "symbol",
        "symbol",
        pl.col("symbol").cast(pl.String),
        pl.col("symbol").str.contains(f"^(?:{SYMBOL.pattern})$")
        & ~pl.col("symbol").str.contains(DOTS.pattern),
        "a symbol has capital letters, digits and _ . / : - (32 at most)",
        hint=_symbol_hint,
    )


def _symbol_hint(value: object) -> str:
    """Return what to write instead of lower case, which might be another symbol's."""
    capitals = str(value).upper()
    known = str(value).isascii() and is_symbol(capitals)
    return f"write {capitals} in the file" if known else ""


def side() -> Field:
    """Return the field of the taker's side, from its name."""
    value = pl.col("side").cast(pl.String).str.to_lowercase()
    return Field("side", "side", value, pl.col("side").is_in(SIDES), "a side is buy or sell")


def side_of_maker() -> Field:
    """Return the field of the taker's side, from whether the buyer was the maker."""
    value = flag("buyer_is_maker")
    taker = pl.when(value).then(pl.lit("sell")).when(~value).then(pl.lit("buy"))
    holds = pl.col("side").is_not_null()
    return Field("side", "buyer_is_maker", taker, holds, "it is true or false")


def trade_id(column: pl.Series) -> Field:
    """Return the field of the venue's ids, as text."""
    value = pl.col("trade_id").cast(pl.String)
    holds = pl.lit(value=True)
    if (
        column.dtype == pl.String
        and (column.str.contains("+", literal=True) | column.str.ends_with(".0")).any()
    ):  # cheaper than the pattern, and seldom there
        holds = ~pl.col("trade_id").str.contains(_LOST_ID)
    return Field("trade_id", "trade_id", value, holds, _ID_RULE, ruins=lambda _: True)


def falling(better: str, worse: str, *, sign: int) -> Field:
    """Return the rule that a level is worse than the one before it, and has one before it."""
    before, after = pl.col(better).fill_null(0), pl.col(worse).fill_null(0)
    holds = (after == 0) | ((before > 0) & (sign * before > sign * after))
    rule = "bids fall and asks rise from level to level, and no level is missing between two"
    return Field("", better, None, holds, rule, (worse,))


def uncrossed(bid: str, ask: str, *, locked: bool) -> Field:
    """Return the rule that bid and ask do not cross; a level of 0 or null is not there.

    An order book whose best prices are equal would have traded them away: its updates are damaged.
    Quotes put together from many banks are equal now and then (`locked`).
    """
    low, high = pl.col("bid_price_1").fill_null(0), pl.col("ask_price_1").fill_null(0)
    apart = low <= high if locked else low < high
    word = "not above" if locked else "below"
    rule = f"the best bid is {word} the best ask (a book that crosses is no state of a market)"
    return Field("", bid, None, apart | (low == 0) | (high == 0), rule, (ask,))


def moment(target: str, column: pl.Series, looks: dict[str, bool] | None = None) -> Field:
    """Return a field of times; text is ISO 8601 or epoch seconds, as the first value shows.

    Whatever it is written in, an instant between two microseconds becomes the nearer one.

    Parameters
    ----------
    target, column
        Its name in the table; the file's column.
    looks
        What the first value has shown, by column: remembered between the blocks of a file.
    """
    source, kind, holds = column.name, column.dtype, _plausible(target)
    if isinstance(kind, pl.Datetime):
        value = pl.col(source)
        value = value.dt.replace_time_zone("UTC") if kind.time_zone is None else value
        fine = kind.time_unit == "ns"
        value = _nearest(value.to_physical()) if fine else value.cast(UTC_MICROS)
    elif kind == pl.String and not _looks_like_number(column, {} if looks is None else looks):
        value = _nearest(_iso(pl.col(source)).to_physical())
    else:
        # Rounded, not cut: 1723161255.342 is stored as ...341999769, and a third of the ticks
        # would end up a microsecond early.
        value = (number(source) * 1e6).round().cast(pl.Int64, strict=False).cast(UTC_MICROS)
        if kind == pl.String and finer_than_micros(column):
            between = pl.col(source).str.contains(_SUB_MICROS)
            exact = _nearest(_text_nanoseconds(pl.col(source)))
            value = pl.when(between).then(exact).otherwise(value)
    if kind == pl.String and any(column.str.contains(e, literal=True).any() for e in "eE"):
        holds &= ~pl.col(RAW + source).str.contains(_EXPONENT)  # a few digits only were kept
    return Field(target, source, value, holds, _TIME_RULE, hint=time_hint, ruins=_is_other_time)


def time_hint(value: object) -> str:
    """Return what is wrong with a value that is no time, as far as its look says it."""
    text = str(value)
    if re.search(_EXPONENT, text):
        return "its exponent has cost digits, as in a spreadsheet: export it again from the source"
    if _is_number(text):
        size = abs(float(text))
        for low, high, unit, divisor in _UNITS:
            if low <= size < high:
                return f"these are {unit}: divide them by {divisor:,}"
        return ""
    return "" if value is None else "such as 2024-08-08T23:54:15.342Z"


def _is_other_time(value: object) -> bool:
    """Return whether a time has lost digits, or is in another unit than the file's."""
    return time_hint(value).startswith(("its exponent", "these are"))


def finer_than_micros(column: pl.Series) -> int:
    """Return how many times of a column lie between two microseconds."""
    if isinstance(column.dtype, pl.Datetime):
        fine = column.dtype.time_unit == "ns"
        return int((column.to_physical() % 1_000 != 0).sum()) if fine else 0
    if column.dtype.is_integer() and column.name == "recv_ns":
        return int((column % 1_000 != 0).sum())
    if column.dtype != pl.String:
        return 0
    if column.name == "recv_ns":
        return int((~column.str.ends_with("000")).sum())
    longest: int = column.str.len_bytes().max() or 0  # type: ignore[assignment]  # of integers
    return int(column.str.contains(_SUB_MICROS).sum()) if longest >= _FINE_LENGTH else 0


def nanoseconds(target: str, source: str) -> Field:
    """Return a field of arrival times given as whole nanoseconds since 1970.

    They are cut to microseconds, as the recorder cuts its own clock: both measure the same latency.
    """
    value = (pl.col(source).cast(pl.Int64, strict=False) // 1_000).cast(UTC_MICROS)
    rule = "it is a number of nanoseconds since 1970, from 1990 to 2099"
    return Field(target, source, value, _plausible(target), rule)


def number(source: str) -> pl.Expr:
    """Return a column as Float64; null where it is not a number."""
    return pl.col(source).cast(pl.Float64, strict=False)


def flag(source: str) -> pl.Expr:
    """Return a column as Boolean; null where it is neither true nor false."""
    words = pl.col(source).cast(pl.String).str.to_lowercase()
    return words.replace_strict(_FLAGS, default=None, return_dtype=pl.Boolean)


def first_value(column: pl.Series) -> object:
    """Return the first value that is there."""
    filled = column.drop_nulls().head(1)
    return value_at(filled, 0) if len(filled) else None


def value_at(column: pl.Series, row: int) -> object:
    """Return a value; of a time that no calendar of Python's has, its number in words."""
    kind = column.dtype
    number = column.to_physical()[row] if kind.is_temporal() else None
    if isinstance(kind, pl.Datetime) and number is not None:
        second = 1_000 ** ("ms", "us", "ns").index(kind.time_unit) * 1_000
        if not _YEAR_1 <= number // second < _YEAR_10000:  # Polars would panic
            return f"{number} {kind.time_unit} since 1970"
    return column[row]


_YEAR_1, _YEAR_10000 = -62_135_596_800, 253_402_300_800


def _looks_like_number(column: pl.Series, looks: dict[str, bool]) -> bool:
    first = first_value(column)
    if first is not None:
        looks.setdefault(column.name, _is_number(first))
    return looks.get(column.name, False)


def _is_number(sample: object) -> bool:
    try:
        float(str(sample))
    except ValueError:
        return False
    return True


def _nearest(nanoseconds: pl.Expr) -> pl.Expr:
    return ((nanoseconds + 500) // 1_000).cast(UTC_MICROS)


def _text_nanoseconds(text: pl.Expr) -> pl.Expr:
    """Return epoch seconds in nanoseconds, which a float of seconds cannot tell apart."""
    whole = text.str.extract(r"^(\d{1,10})(?:\.\d*)?$").cast(pl.Int64, strict=False)
    digits = text.str.extract(r"\.(\d{1,9})").fill_null("0").str.pad_end(9, "0")
    return whole * 1_000_000_000 + digits.cast(pl.Int64, strict=False)


def _iso(text: pl.Expr) -> pl.Expr:
    """Return ISO 8601 text as UTC; without an offset it is UTC already."""
    spaced = text.str.replace("T", " ", literal=True).str.replace(r"[zZ]$", "+00:00")
    zoned = pl.when(spaced.str.contains(_OFFSET)).then(spaced).otherwise(spaced + "+00:00")
    return zoned.str.to_datetime(_ISO, time_unit="ns", time_zone="UTC", strict=False)


def _plausible(target: str) -> pl.Expr:
    micros = pl.col(target).to_physical()
    return micros.is_between(to_micros(EARLIEST), to_micros(LATEST), closed="left")


@dataclass(frozen=True, slots=True)
class SourceLocation:
    """Where rows came from, in the user's words.

    Attributes
    ----------
    file
        What the user calls it.
    word, first
        "line" and 2 for CSV (its first line is the header), "row" and 1 elsewhere.
    """

    file: str
    word: str = "row"
    first: int = 1

    def refuse(self, reason: str, row: int | None = None) -> NoReturn:
        """Raise `ImportRefused` for the whole file or one of its rows, counted from zero."""
        where = self.file if row is None else f"{self.file}, {self.word} {self.first + row}"
        raise ImportRefused(f"{where}: {reason}; nothing was imported")


def broken(
    raw: pl.DataFrame, rows: pl.DataFrame, wanted: Sequence[Field]
) -> list[tuple[int, Field, str]]:
    """Return each row in which a field breaks its rule: its place, the field, the rule in words.

    Parameters
    ----------
    raw, rows
        The rows as the file has them, and as they were understood.
    wanted
        The fields, each with its rule.
    """
    both = rows.hstack(raw.select(pl.all().name.prefix(RAW)).get_columns())
    holds = both.select(
        field.holds.fill_null(value=False).alias(str(number)) for number, field in enumerate(wanted)
    )
    first: dict[int, int] = {}
    for number, held in enumerate(holds):
        if not held.all():
            for row in held.not_().arg_true():
                first.setdefault(row, number)
    return [
        (row, wanted[number], _in_words(raw, row, wanted[number]))
        for row, number in sorted(first.items())
    ]


def _in_words(raw: pl.DataFrame, row: int, field: Field) -> str:
    shown = " and ".join(
        f"{name}={_short(value_at(raw[name], row))}" for name in (field.source, *field.beside)
    )
    hint = field.hint(value_at(raw[field.source], row)) if field.hint is not None else ""
    rule = f"{field.rule}; {hint}" if hint else field.rule
    return f"{shown}, but {rule}"


def _short(value: object) -> str:
    shown = repr(value)
    return shown if len(shown) <= 80 else f"{shown[:77]}..."
