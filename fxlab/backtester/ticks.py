"""Ticks as the engine takes them: from a session or from a frame, checked, on an integer grid."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import numpy as np
import polars as pl

from fxlab.backtester.indicators import PRICE_TICKS
from fxlab.errors import EmptySession, InvalidParameter, InvalidTicks, SymbolNotFound
from fxlab.schema import UTC_MICROS
from fxlab.times import Time, from_micros, parse_range, to_micros

MAX_DECIMALS: Final = 12
LARGEST_TICKS: Final = 1e14  # beyond, neighbouring ticks come close to a float's own spacing
BLOCK_ROWS: Final = 16_384  # a block and its temporaries stay in the cache
ROUNDING: Final = 4 * 2.0**-53  # a few units in the last place
REQUIRED: Final = ("timestamp", "price")
ONE_SYMBOL: Final = "TICKS"  # the symbol of a frame that names none


class TickSource(Protocol):
    """What a backtest replays: a session, or a frame behind `FrameSource`."""

    @property
    def id(self) -> str:
        """Return the name the run is saved under."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the symbols that have ticks."""

    @property
    def price_decimals(self) -> Mapping[str, int]:
        """Return the decimals of each symbol's prices."""

    @property
    def started(self) -> object:
        """Return the time of the first tick (an aware datetime, or None)."""

    @property
    def ended(self) -> object:
        """Return the time of the last tick (an aware datetime, or None)."""

    def scan_ticks(
        self,
        symbol: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        chunk_rows: int = 1_000_000,
    ) -> Iterator[pl.DataFrame]:
        """Yield the symbol's ticks in (timestamp, seq) order."""


@dataclass(frozen=True)
class FrameSource:
    """A Polars frame of ticks, in the shape of a session.

    Parameters
    ----------
    frame
        Columns ``timestamp`` (Datetime; naive means UTC), ``price`` (Float64) and, if there are
        any, ``seq`` (Int64), ``symbol`` (String), ``volume`` and book columns. Rows of a symbol
        are ordered by (timestamp, seq); without ``seq`` the order of the rows is theirs.

    Raises
    ------
    InvalidTicks
        If a required column is missing or has another type.
    """

    frame: pl.DataFrame
    id: str = "frame"

    def __post_init__(self) -> None:
        missing = [name for name in REQUIRED if name not in self.frame.columns]
        if missing:
            raise InvalidTicks(
                f"the frame has no column {missing[0]!r}; ticks need timestamp and price "
                f"(and seq, symbol where they exist); it has: {', '.join(self.frame.columns)}"
            )
        kind = self.frame.schema["timestamp"]
        if not isinstance(kind, pl.Datetime):
            raise InvalidTicks(
                f"column timestamp is {kind}, not a Datetime; cast it, for example "
                "pl.col('timestamp').cast(pl.Datetime('us', 'UTC'))"
            )
        if kind.time_unit == "ns":
            raise InvalidTicks(
                "column timestamp has nanoseconds; fxlab keeps microseconds: "
                "cast it with .dt.cast_time_unit('us')"
            )

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the symbols in order of appearance."""
        if "symbol" not in self.frame.columns:
            return (ONE_SYMBOL,)
        return tuple(self.frame["symbol"].cast(pl.String).unique(maintain_order=True).to_list())

    @property
    def price_decimals(self) -> dict[str, int]:
        """Return the decimals of each symbol's prices, found from the data."""
        return {
            symbol: found
            for symbol in self.symbols
            if (found := find_decimals(self._rows(symbol)["price"])) is not None
        }

    @property
    def started(self) -> object:
        """Return the first timestamp."""
        return self.frame["timestamp"].min()

    @property
    def ended(self) -> object:
        """Return the last timestamp."""
        return self.frame["timestamp"].max()

    def scan_ticks(
        self,
        symbol: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        chunk_rows: int | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Yield slices of the frame, or all of it; nothing is copied."""
        rows = _normalised(self._rows(symbol))
        low, high = parse_range(start, end)
        if low is not None:
            rows = rows.filter(pl.col("timestamp") >= from_micros(low))
        if high is not None:
            rows = rows.filter(pl.col("timestamp") < from_micros(high))
        step = chunk_rows or max(1, rows.height)
        for offset in range(0, rows.height, step):
            yield rows.slice(offset, step)

    def _rows(self, symbol: str) -> pl.DataFrame:
        if "symbol" not in self.frame.columns:
            return self.frame
        if self.frame["symbol"].n_unique() == 1:
            return self.frame.drop("symbol")
        return self.frame.filter(pl.col("symbol").cast(pl.String) == symbol).drop("symbol")


def as_source(source: object) -> TickSource:
    """Return a session as it is, a frame behind `FrameSource`; refuse everything else."""
    if isinstance(source, pl.DataFrame):
        return FrameSource(source)
    if hasattr(source, "scan_ticks"):
        return source  # type: ignore[return-value]  # the protocol, by its one method
    raise InvalidParameter(
        f"session_id is required: a backtest runs on a session or a frame of ticks, not on "
        f"{source!r:.80}; list sessions with lab.sessions() and pass lab.session(session_id)"
    )


def choose_symbols(source: TickSource, wanted: str | list[str] | tuple[str, ...]) -> list[str]:
    """Return the symbols to replay: ``"ALL"``, one, or several without repeats."""
    if wanted == "ALL":
        chosen = list(source.symbols)
    else:
        chosen = [wanted] if isinstance(wanted, str) else list(dict.fromkeys(wanted))
    for symbol in chosen:
        if symbol not in source.symbols:
            raise SymbolNotFound.named(str(symbol), source.symbols)
    if not chosen:
        raise EmptySession(f"session {source.id!r} has no symbols; choose another session")
    return chosen


def span(source: TickSource, start: Time | None, end: Time | None) -> tuple[int, int]:
    """Return first and last microsecond of what will be replayed, from the source's own bounds."""
    low, high = parse_range(start, end)
    first, last = source.started, source.ended
    if first is None or last is None:
        raise EmptySession(f"session {source.id!r} has no ticks; choose another session")
    first_us, last_us = to_micros(first), to_micros(last)  # type: ignore[arg-type]
    return max(first_us, low or first_us), min(last_us, (high or last_us + 1) - 1)


def find_decimals(prices: pl.Series) -> int | None:
    """Return the smallest number of decimals that writes all prices, or None.

    A price has d decimals if it is the double nearest to such a number, or within a few units in
    the last place of it: a mid of two quotes, or a price after an addition, is off by one or two.
    None if no number of decimals fits that 64-bit floats can still tell apart.
    """
    values = prices.drop_nulls().to_numpy()
    largest = float(values.max(initial=1.0))
    start = 0
    # A small sample rules out most candidates; one full pass confirms the survivor.
    for some in (values[:1000], values):
        for decimals in range(start, MAX_DECIMALS + 1):
            if largest * 10.0**decimals > LARGEST_TICKS:
                return None
            if _has_decimals(some, decimals):
                start = decimals
                break
        else:
            return None
    return start


def _has_decimals(values: np.ndarray, decimals: int) -> bool:
    scale = 10.0**decimals
    for start in range(0, len(values), BLOCK_ROWS):
        block = values[start : start + BLOCK_ROWS]
        off = np.abs(np.rint(block * scale) / scale - block)
        if not (off <= ROUNDING * block).all():
            return False
    return True


def with_price_ticks(frame: pl.DataFrame, decimals: int | None) -> pl.DataFrame:
    """Add `price_ticks` (Int64): the price in units of its last decimal. Not without decimals."""
    if decimals is None:
        return frame
    from fxlab.backtester.kernel import to_ticks

    ticks = np.empty(frame.height, np.int64)
    to_ticks(frame["price"].to_numpy(), 10.0**decimals, ticks)
    return frame.with_columns(pl.Series(PRICE_TICKS, ticks))


@dataclass
class OrderCheck:
    """Checks chunk by chunk that rows are ticks in order; remembers the last row."""

    symbol: str
    time: int = -(2**63)
    seq: int = -(2**63)
    rows: int = 0

    def check(self, time: np.ndarray, seq: np.ndarray, price: np.ndarray) -> None:
        """Raise `InvalidTicks` at the first row that is out of order or not a price."""
        from fxlab.backtester.kernel import first_bad_row

        bad = first_bad_row(time, seq, price, self.time, self.seq)
        if bad >= 0:
            raise InvalidTicks(self._describe(bad, time, seq, price))
        self.time, self.seq = int(time[-1]), int(seq[-1])
        self.rows += len(time)

    def _describe(self, bad: int, time: np.ndarray, seq: np.ndarray, price: np.ndarray) -> str:
        row = self.rows + bad
        if not (np.isfinite(price[bad]) and price[bad] > 0):
            return (
                f"{self.symbol}: price {price[bad]} in row {row} is not a price; prices are finite "
                "and above zero: filter or mend the row first"
            )
        return (
            f"{self.symbol}: row {row} at {from_micros(int(time[bad]))} (seq {seq[bad]}) does not "
            "come after the row before it; sort the frame by timestamp, seq (seq may not repeat)"
        )


def _normalised(frame: pl.DataFrame) -> pl.DataFrame:
    """Give a user's frame the engine's types: UTC microseconds, Float64 price, Int64 seq."""
    kind = frame.schema["timestamp"]
    time = pl.col("timestamp")
    if isinstance(kind, pl.Datetime) and kind.time_zone is None:
        time = time.dt.replace_time_zone("UTC")
    columns = [time.cast(UTC_MICROS), pl.col("price").cast(pl.Float64)]
    if "seq" not in frame.columns:
        columns.append(pl.int_range(pl.len(), dtype=pl.Int64).alias("seq"))
    return frame.with_columns(columns)
