"""Frame source: a frame of ticks (Polars, pandas, Arrow), checked, in the shape of a session.

A lazy frame, a pandas frame, an Arrow table are ticks too: turned into Polars exactly, and checked
before anything is replayed. What would be guessed or cut (text for a price, a seq of 1.5, a missing
time) is refused by column, row and rule. The engine then knows one kind of source.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from decimal import Decimal
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl

from fxlab._ticks import (
    BEST,
    GAPS,
    LARGEST_TICKS,
    MAX_DECIMALS,
    PRICE_TICKS,
    ROUNDING,
    find_decimals,
    instruments_frame,
    listed_instruments,
    merged_by_symbol,
    mid_decimals,
    with_mid_price,
)
from fxlab._times import Time, from_micros, parse_range
from fxlab.errors import InvalidTicks, some
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
        If it is no frame, or its library cannot hand it over.
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
    if name == "timestamp":  # a gap may be open at one end
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
    lowest = column.min()
    if isinstance(lowest, int | float | Decimal) and lowest < 0:
        row = _first(column < 0)
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


CHUNK_ROWS: Final = 1 << 21
"""Rows at a time: a reader may want to stop in between."""

ONE_SYMBOL: Final = "TICKS"  # the symbol of a frame that names none


class FrameSource:
    """A frame of ticks, in the shape of a session.

    Parameters
    ----------
    frame
        Of Polars (lazy too) or pandas, or an Arrow table. Trades: columns ``timestamp`` (Datetime;
        naive means UTC), ``price`` (a number) and, if there are any, ``seq`` (whole numbers),
        ``symbol`` (text), ``volume`` and others. Or quotes: ``timestamp``, ``bid_price_1``,
        ``ask_price_1`` and further levels, and no ``price``: the mid is the price then, and rows
        that have none (a side is empty, or they cross) are left out. Rows of a symbol are ordered
        by (timestamp, seq); without ``seq`` the order of the rows is theirs.
    id
        The name that results are kept under.
    books
        Order books beside trades: ``timestamp``, level columns such as ``bid_price_1`` and
        ``bid_qty_1``, and, if there are any, ``seq`` and ``symbol``.
    gaps
        Known gaps: ``from_time``, ``to_time`` and, if they concern one symbol, ``symbol``.
    instruments
        Sizes and fees of the symbols, as `Session.instruments` has them.

    Raises
    ------
    InvalidTicks
        If a required column is missing, has another type or holds what cannot be a tick's:
        text for a price, no time, a fraction for a seq, no symbol, a volume below zero.

    Examples
    --------
    >>> source = fxlab.FrameSource(ticks)
    >>> source.symbols, source.price_decimals
    (('TICKS',), {'TICKS': 2})
    """

    def __init__(
        self,
        frame: Any,  # noqa: ANN401 - of any library; refused by name otherwise
        id: str = "frame",  # noqa: A002 - as sessions call it
        *,
        books: Any = None,  # noqa: ANN401
        gaps: Any = None,  # noqa: ANN401
        instruments: pl.DataFrame | None = None,
    ) -> None:
        ticks = as_frame(frame, "the frame")
        self.id = id
        self.quotes = "price" not in ticks.columns and set(BEST) <= set(ticks.columns)
        needed = ("timestamp",) if self.quotes else ("timestamp", "price")
        self.frame = check_ticks(ticks, "the frame", needed)
        self.books = _checked(books, "the frame of books", ("timestamp", *BEST))
        self.known_gaps = _checked(gaps, "the frame of gaps", tuple(GAPS), spans=True)
        self._listed = {} if instruments is None else listed_instruments(instruments)
        self._ready: dict[str, tuple[pl.DataFrame, int | None]] = {}

    def __repr__(self) -> str:
        """Show what is in it on one line."""
        kind = "quotes" if self.quotes else "ticks"
        return f"<FrameSource {self.id}: {self.frame.height:,} {kind} of {some(self.symbols)}>"

    def instruments(self) -> pl.DataFrame:
        """Return sizes and fees of the symbols, as far as they were given."""
        return instruments_frame(self._listed)

    @cached_property
    def symbols(self) -> tuple[str, ...]:
        """Return the symbols in order of appearance."""
        if "symbol" not in self.frame.columns:
            return (ONE_SYMBOL,)
        names = self.frame["symbol"].cast(pl.String)
        if len(names) and (names == names[0]).all():  # four times as fast as to look for others
            return (str(names[0]),)
        return tuple(names.unique(maintain_order=True).to_list())

    @property
    def price_decimals(self) -> dict[str, int]:
        """Return the decimals of each symbol's prices, found from the data."""
        found = {symbol: self._ticks(symbol)[1] for symbol in self.symbols}
        return {symbol: decimals for symbol, decimals in found.items() if decimals is not None}

    @property
    def started(self) -> object:
        """Return the first timestamp."""
        times = self.frame["timestamp"]
        return times.min() if "symbol" in self.frame.columns else times.first()

    @property
    def ended(self) -> object:
        """Return the last timestamp."""
        times = self.frame["timestamp"]
        return times.max() if "symbol" in self.frame.columns else times.last()

    def scan_ticks(
        self,
        symbol: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        chunk_rows: int | None = None,
        received: bool = False,
    ) -> Iterator[pl.DataFrame]:
        """Yield slices of the frame with all its columns and `price_ticks`."""
        rows = self._ticks(symbol)[0]
        if received and "received_at" not in rows.columns:
            rows = rows.with_columns(received_at=pl.lit(None, UTC_MICROS))
        yield from slices(rows, start, end, chunk_rows)

    def count_ticks(
        self, symbol: str, *, start: Time | None = None, end: Time | None = None
    ) -> int:
        """Return how many ticks `scan_ticks` yields."""
        return sum(chunk.height for chunk in self.scan_ticks(symbol, start=start, end=end))

    def scan_books(
        self,
        symbol: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        chunk_rows: int | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Yield the symbol's books: ``timestamp``, ``seq`` and all level columns, in order."""
        if not self.has_books(symbol):
            return
        rows = self._quotes(symbol) if self.books is None else self._books(symbol, self.books)
        levels = [
            pl.col(name).cast(pl.Float64) if name in rows.columns else pl.lit(None, pl.Float64)
            for name in book_levels()
        ]
        named = [level.alias(name) for level, name in zip(levels, book_levels(), strict=True)]
        yield from slices(rows.select("timestamp", "seq", *named), start, end, chunk_rows)

    def has_books(self, symbol: str) -> bool:
        """Return whether there are books or quotes of the symbol."""
        if self.books is None:
            return self.quotes
        named = "symbol" in self.books.columns and "symbol" in self.frame.columns
        return not named or bool((self.books["symbol"].cast(pl.String) == symbol).any())

    def has_trades(self, symbol: str) -> bool:  # noqa: ARG002 - a frame has one kind of rows
        """Return whether the frame holds trades, not quotes."""
        return not self.quotes

    def gaps(self, symbol: str) -> pl.DataFrame:
        """Return the known gaps of the symbol: ``from_time``, ``to_time``, in order."""
        return self.gaps_by_symbol([symbol])[symbol]

    def gaps_by_symbol(self, symbols: Iterable[str]) -> dict[str, pl.DataFrame]:
        """Return the `gaps` of each symbol."""
        if self.known_gaps is None:
            return dict.fromkeys(symbols, pl.DataFrame(schema=GAPS))
        gaps = self.known_gaps.with_columns(utc(self.known_gaps, name) for name in GAPS)
        if "symbol" not in gaps.columns:
            gaps = gaps.with_columns(symbol=pl.lit(None, pl.String))
        return merged_by_symbol(gaps, symbols)

    def _ticks(self, symbol: str) -> tuple[pl.DataFrame, int | None]:
        """Return the symbol's rows as the engine takes them, and the decimals of its prices."""
        if symbol not in self._ready:
            self._ready[symbol] = self._prepared(symbol)
        return self._ready[symbol]

    def _prepared(self, symbol: str) -> tuple[pl.DataFrame, int | None]:
        rows = self._quotes(symbol)
        if self.quotes:
            rows = with_mid_price(rows, mid_decimals(rows))
        rows = rows.with_columns(pl.col("price").cast(pl.Float64))
        found = exact_ticks(rows["price"])
        if found is None:
            return rows.drop(PRICE_TICKS, strict=False), None
        decimals, ticks = found
        return rows.with_columns(pl.Series(PRICE_TICKS, ticks)), decimals

    def _quotes(self, symbol: str) -> pl.DataFrame:
        """Return the symbol's rows of the frame, with normal times and seq."""
        if "symbol" not in self.frame.columns:
            return _normalised(self.frame)
        if len(self.symbols) == 1:
            return _normalised(self.frame.drop("symbol"))
        own = self.frame.filter(pl.col("symbol").cast(pl.String) == symbol)
        return _normalised(own.drop("symbol"))

    def _books(self, symbol: str, books: pl.DataFrame) -> pl.DataFrame:
        if "symbol" in books.columns:
            if "symbol" in self.frame.columns:
                books = books.filter(pl.col("symbol").cast(pl.String) == symbol)
        elif len(self.symbols) > 1:
            raise InvalidTicks(
                "the frame of books has no column 'symbol', and the ticks have several symbols: "
                f"{some(self.symbols)}; add the column so that each book is where it belongs"
            )
        rows = _normalised(books)
        if not rows["timestamp"].is_sorted():
            raise InvalidTicks(
                f"the books of {symbol} are not in the order of time; sort them by timestamp, seq"
            )
        return rows


def _checked(
    frame: object, what: str, required: tuple[str, ...], *, spans: bool = False
) -> pl.DataFrame | None:
    """Return a frame beside the ticks, if there is one; a gap may be one of all symbols."""
    if frame is None:
        return None
    found = as_frame(frame, what)
    if spans and "symbol" in found.columns:
        named = check_ticks(found.drop("symbol"), what, required)
        return named.with_columns(found["symbol"])
    return check_ticks(found, what, required)


def _normalised(frame: pl.DataFrame) -> pl.DataFrame:
    """Give a user's frame the engine's types: UTC microseconds, Int64 seq."""
    times = [name for name in ("timestamp", "received_at") if name in frame.columns]
    columns = [utc(frame, name) for name in times]
    if "seq" in frame.columns:
        columns.append(pl.col("seq").cast(pl.Int64))
    else:
        columns.append(pl.int_range(pl.len(), dtype=pl.Int64).alias("seq"))
    return frame.with_columns(columns)


def slices(
    rows: pl.DataFrame, start: Time | None, end: Time | None, chunk_rows: int | None
) -> Iterator[pl.DataFrame]:
    """Yield the rows of a time range, so many at a time."""
    low, high = parse_range(start, end)
    if low is not None:
        rows = rows.filter(pl.col("timestamp") >= from_micros(low))
    if high is not None:
        rows = rows.filter(pl.col("timestamp") < from_micros(high))
    step = chunk_rows or CHUNK_ROWS
    for offset in range(0, rows.height, step):
        yield rows.slice(offset, step)


def exact_ticks(prices: pl.Series) -> tuple[int, np.ndarray] | None:
    """Return the decimals of prices, and the prices in units of the last one (int64), or None.

    The rules are those of `find_decimals`, in one compiled pass that does both.
    """
    from fxlab.backtester._kernel.columns import fit_ticks

    values = prices.to_numpy()
    guess = find_decimals(prices.head(1000))
    ticks = np.empty(len(values), np.int64)
    for decimals in range(guess or 0, MAX_DECIMALS + 1) if guess is not None else ():
        if fit_ticks(values, 10.0**decimals, ROUNDING, LARGEST_TICKS, ticks):
            return decimals, ticks
    return None
