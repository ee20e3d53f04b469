"""How one column of a file becomes one column of a table, and what must be true of it.

A file's column is text (CSV) or typed (Parquet); either way a `Field` says how to read it and
which rule each value keeps, so that nothing is guessed, rounded away or replaced by null.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Final

import polars as pl

from fxlab.identifiers import SYMBOL
from fxlab.schema import SIDES, UTC_MICROS
from fxlab.times import to_micros

RAW: Final = "raw:"
"""Prefix of the file's own columns in the frame that rules look at."""

EARLIEST: Final = datetime(1990, 1, 1, tzinfo=UTC)
LATEST: Final = datetime(2100, 1, 1, tzinfo=UTC)

_TIME_RULE: Final = (
    "a time is ISO 8601 text or seconds since 1970, UTC, from 1990 to 2099 "
    "(milliseconds must be divided by 1000)"
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
        What becomes of the file's column.
    holds
        What must be true in each row; it sees the targets, and the file's columns under `RAW`.
    rule
        The same in words.
    """

    target: str
    source: str
    value: pl.Expr
    holds: pl.Expr
    rule: str

    def or_nothing(self) -> Field:
        """Return the field with empty cells allowed; they become null."""
        empty = pl.col(RAW + self.source).is_null()
        return Field(
            self.target,
            self.source,
            self.value,
            self.holds.fill_null(value=False) | empty,
            self.rule,
        )


def price(target: str, source: str) -> Field:
    """Return a field of prices."""
    value = pl.col(target)
    holds = value.is_finite() & (value > 0)
    return Field(target, source, number(source), holds, "a price is a finite number above zero")


def quantity(target: str, source: str) -> Field:
    """Return a field of volumes or sizes."""
    value = pl.col(target)
    holds = value.is_finite() & (value >= 0)
    rule = "a quantity is a finite number, zero or above"
    return Field(target, source, number(source), holds, rule)


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
        pl.col("symbol").str.contains(f"^(?:{SYMBOL.pattern})$"),
        "a symbol has capital letters, digits and _ . / : - (32 at most)",
    )


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


def moment(target: str, source: str, kind: pl.DataType, sample: object) -> Field:
    """Return a field of times; text is ISO 8601 or epoch seconds, as the first value shows."""
    if isinstance(kind, pl.Datetime):
        column = pl.col(source)
        value = column.dt.replace_time_zone("UTC") if kind.time_zone is None else column
        value = value.cast(UTC_MICROS)
    elif kind == pl.String and not _is_number(sample):
        value = _iso(pl.col(source))
    else:
        # Rounded, not cut: 1723161255.342 is stored as ...341999769, and a third of the ticks
        # would end up a microsecond early.
        value = (number(source) * 1e6).round().cast(pl.Int64, strict=False).cast(UTC_MICROS)
    return Field(target, source, value, _plausible(target), _TIME_RULE)


def nanoseconds(target: str, source: str) -> Field:
    """Return a field of times given as whole nanoseconds since 1970; they are cut to us."""
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


def first_value(raw: pl.DataFrame, source: str) -> object:
    """Return the first value that is there."""
    filled: Sequence[object] = raw[source].drop_nulls().head(1).to_list()
    return filled[0] if filled else None


def _is_number(sample: object) -> bool:
    try:
        float(str(sample))
    except ValueError:
        return False
    return True


def _iso(text: pl.Expr) -> pl.Expr:
    """Return ISO 8601 text as UTC; without an offset it is UTC already."""
    spaced = text.str.replace("T", " ", literal=True).str.replace(r"[zZ]$", "+00:00")
    zoned = pl.when(spaced.str.contains(_OFFSET)).then(spaced).otherwise(spaced + "+00:00")
    return zoned.str.to_datetime(_ISO, time_unit="us", time_zone="UTC", strict=False)


def _plausible(target: str) -> pl.Expr:
    micros = pl.col(target).to_physical()
    return micros.is_between(to_micros(EARLIEST), to_micros(LATEST), closed="left")
