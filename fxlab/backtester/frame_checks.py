"""Frames as users hold them: turned into Polars exactly, and checked before anything is replayed.

A lazy frame, a pandas frame, an Arrow table are ticks too. What would be guessed or cut (text for a
price, a seq of 1.5, a missing time) is refused by column, row and rule.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import polars as pl

from fxlab.backtester.quotes import BEST
from fxlab.errors import InvalidTicks
from fxlab.schema import UTC_MICROS, book_levels

_MICRO: Final = 1_000  # nanoseconds


def is_frame(value: object) -> bool:
    """Return whether something is a frame: of Polars, lazy too, of pandas, or an Arrow table."""
    return isinstance(value, pl.DataFrame | pl.LazyFrame) or hasattr(value, "__arrow_c_stream__")


def as_frame(value: Any, what: str) -> pl.DataFrame:  # noqa: ANN401 - of any library
    """Return a frame as Polars', no value changed.

    Raises
    ------
    InvalidTicks
        If it is none, or its library cannot hand it over.
    """
    if isinstance(value, pl.DataFrame):
        return value
    if isinstance(value, pl.LazyFrame):
        return value.collect()
    if not is_frame(value):
        raise InvalidTicks(
            f"{what} is {type(value).__name__}, not a frame; give a Polars frame (lazy too), a "
            "pandas frame or an Arrow table"
        )
    try:
        if type(value).__module__.partition(".")[0] == "pandas":
            return pl.from_pandas(value)
        return pl.DataFrame(value)
    except (TypeError, ValueError, pl.exceptions.PolarsError) as error:
        raise InvalidTicks(
            f"{what} cannot be read as columns ({error}); give each column one type"
        ) from error


def check_ticks(frame: pl.DataFrame, what: str, required: tuple[str, ...]) -> pl.DataFrame:
    """Return a frame whose columns mean what their names say, or refuse it.

    Times are in microseconds then; all else is as it was.
    """
    for name in required:
        if name not in frame.columns:
            raise InvalidTicks(
                f"{what} has no column {name!r}; ticks need timestamp and price (and seq, symbol "
                "where they exist), quotes timestamp, bid_price_1 and ask_price_1; it has: "
                f"{', '.join(frame.columns)}"
            )
    for name in frame.columns:
        if name == "timestamp" or (name.endswith("_time") and name in required):
            frame = _timed(frame, what, name)
        elif name in _CHECKS:
            _CHECKS[name](frame[name], what)
    return frame


def _timed(frame: pl.DataFrame, what: str, name: str) -> pl.DataFrame:
    """Refuse times that are none; turn nanoseconds into microseconds where nothing is lost."""
    column = frame[name]
    if not isinstance(column.dtype, pl.Datetime):
        raise InvalidTicks(
            f"column {name} of {what} is {column.dtype}, not a Datetime; cast it, for example "
            f"pl.col({name!r}).cast(pl.Datetime('us', 'UTC'))"
        )
    if name == "timestamp":  # a hole may be open at one end
        _no_nulls(column, what, "a tick has a time: fill it in, or leave the row out")
    if column.dtype.time_unit != "ns":
        return frame
    finer = column.to_physical() % _MICRO
    if finer.fill_null(0).cast(pl.Boolean).any():
        row = _first(finer != 0)
        raise InvalidTicks(
            f"column {name} of {what} has nanoseconds ({finer[row]} beside whole microseconds in "
            f"row {row}); fxlab keeps microseconds: round it, for example "
            f"pl.col({name!r}).dt.round('1us')"
        )
    return frame.with_columns(pl.col(name).dt.cast_time_unit("us"))


def _first(mask: pl.Series) -> int:
    return int(mask.arg_true()[0])


def _no_nulls(column: pl.Series, what: str, rule: str) -> None:
    if column.null_count():
        row = _first(column.is_null())
        raise InvalidTicks(f"column {column.name} of {what} is null in row {row}; {rule}")


def _is_money(column: pl.Series, what: str) -> None:
    """Refuse what is no number, or one whose digits are lost already."""
    kind = column.dtype
    if not kind.is_numeric():
        raise InvalidTicks(
            f"column {column.name} of {what} is {kind}, not a number; cast it, for example "
            f"pl.col({column.name!r}).cast(pl.Float64)"
        )
    if kind in (pl.Float32, pl.Float16):
        raise InvalidTicks(
            f"column {column.name} of {what} is {kind}, which holds about 7 digits: 50000.1 is "
            "50000.1015625 in it; give Float64 or Decimal from the source, or round and cast, for "
            f"example pl.col({column.name!r}).cast(pl.Float64).round(2)"
        )


def _is_volume(column: pl.Series, what: str) -> None:
    if not column.dtype.is_numeric():
        _is_money(column, what)
    negative = column < 0
    if negative.any():
        row = _first(negative)
        raise InvalidTicks(
            f"column {column.name} of {what} is {column[row]} in row {row}; a volume is not below "
            "zero: put the side into a column of its own"
        )


def _is_seq(column: pl.Series, what: str) -> None:
    rule = "seq numbers the rows of one time: give whole numbers, or leave the column out"
    if not column.dtype.is_integer():
        raise InvalidTicks(f"column seq of {what} is {column.dtype}, not an integer; {rule}")
    _no_nulls(column, what, rule)
    wide = column > 2**63 - 1 if column.dtype == pl.UInt64 else pl.Series([False])
    if wide.any():
        raise InvalidTicks(
            f"column seq of {what} is {column[_first(wide)]} in row {_first(wide)}, beyond 64 bits "
            f"with a sign; {rule}"
        )


def _is_symbol(column: pl.Series, what: str) -> None:
    if column.dtype not in (pl.String, pl.Categorical, pl.Enum):
        raise InvalidTicks(
            f"column symbol of {what} is {column.dtype}, not text; cast it, for example "
            "pl.col('symbol').cast(pl.String)"
        )
    _no_nulls(column, what, "each tick belongs to a symbol: fill it in, or leave the row out")


_CHECKS: Final[dict[str, Callable[[pl.Series, str], None]]] = {
    **dict.fromkeys(("price", *BEST, *book_levels()), _is_money),
    "volume": _is_volume,
    "seq": _is_seq,
    "symbol": _is_symbol,
}


def utc(frame: pl.DataFrame, name: str) -> pl.Expr:
    """Return a column of times as UTC microseconds; naive times mean UTC."""
    kind = frame.schema[name]
    time = pl.col(name)
    if isinstance(kind, pl.Datetime) and kind.time_zone is None:
        time = time.dt.replace_time_zone("UTC")
    return time.cast(UTC_MICROS)
