"""Replay cursor and batches: the ticks of a job in the order of the market, passed bit by bit.

A batch holds some ticks, the market time they belong to, and the state of the run. The engine
merges arrays of times and prices; a batch also shows volumes, sides and sequence numbers. Both come
from the same chunk, so nothing is read twice, and no more than a chunk of each symbol is held.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl

from fxlab._ticks import PRICE_TICKS
from fxlab.backtester._feeds import SymbolChunk
from fxlab.backtester._kernel.records import MarketArrays
from fxlab.backtester._market_arrays import part
from fxlab.backtester.engine import Job
from fxlab.schema import UTC_MICROS

COLUMNS: Final = {
    "timestamp": UTC_MICROS,
    "symbol": pl.String(),
    "seq": pl.Int64(),
    "price": pl.Float64(),
}
"""What the ticks of every source have, in this order; what else they have comes after."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Merged rows, which of them are ticks (others are books), and the ticks as a frame."""

    market: MarketArrays
    decisions: np.ndarray | None  # None without a strategy
    ticks: np.ndarray
    frame: pl.DataFrame

    def __len__(self) -> int:
        return len(self.market.time)


class TickCursor:
    """A cursor over the rows of a job. What it has passed was fed to the job's kernel state.

    Parameters
    ----------
    job
        A fresh job: its rows can be read once.
    totals
        How many ticks each symbol has.
    trading
        Whether the kernel replays the rows; without it they are only looked at.

    Attributes
    ----------
    ticks : int
        Ticks passed.
    passed : int
        Time of the last row passed (microseconds); before the first, a time before the range.
    prices : dict[str, float]
        Each symbol's last price passed.
    """

    def __init__(self, job: Job, totals: Mapping[str, int], *, trading: bool) -> None:
        self.job = job
        self.ticks = 0
        self.passed = job.bounds[0] - 1
        self.prices: dict[str, float] = {}
        self._left = dict(totals)
        self._ended = {symbol: job.bounds[0] for symbol, count in totals.items() if not count}
        self._stretches = _stretches(job, trading=trading)
        self._stretch: _Stretch | None = None
        self._row = self._tick = 0

    def load(self) -> bool:
        """Make sure that there is a row to pass, reading on if need be; False at the end."""
        while self.next_at() is None:
            self._stretch = next(self._stretches, None)
            self._row = self._tick = 0
            if self._stretch is None:
                return False
        return True

    def next_at(self) -> int | None:
        """Return the time of the next row; None if it is not loaded."""
        if self._stretch is None or self._row == len(self._stretch):
            return None
        return int(self._stretch.market.time[self._row])

    def due_at(self, size: int) -> int:
        """Return the time at which the next `size` ticks, or all that are loaded, are there."""
        return int(self._loaded.market.time[self._stop(size) - 1])

    def take(self, now: int, size: int) -> pl.DataFrame:
        """Pass the rows up to a time, at most `size` ticks of them, and return the ticks."""
        due = int(np.searchsorted(self._loaded.market.time, now, side="right"))
        return self._pass(min(due, self._stop(size)))

    def skip(self, until: int, going_on: Callable[[], bool]) -> None:
        """Pass all rows before a time, at full speed; stop early where `going_on` says no."""
        while going_on() and self.load():
            before = int(np.searchsorted(self._loaded.market.time, until, side="left"))
            if before <= self._row:
                return
            self._pass(before)

    def nothing(self) -> pl.DataFrame:
        """Return no ticks, with the columns that they have here."""
        if self._stretch is None:
            return pl.DataFrame(schema=COLUMNS)
        return self._stretch.frame.clear()

    def new_ended(self) -> dict[str, int]:
        """Return the symbols whose last tick was passed since the last call, and its time."""
        ended, self._ended = self._ended, {}
        return ended

    def close(self) -> None:
        """Stop reading."""
        self._stretches.close()

    @property
    def _loaded(self) -> _Stretch:
        if self._stretch is None:
            raise RuntimeError("load() comes first")
        return self._stretch

    def _stop(self, size: int) -> int:
        """Return the row after the next `size` ticks, or the end of what is loaded."""
        ticks, last = self._loaded.ticks, self._tick + size - 1
        return len(self._loaded) if last >= len(ticks) - 1 else int(ticks[last]) + 1

    def _pass(self, stop: int) -> pl.DataFrame:
        stretch, first, tick = self._loaded, self._row, self._tick
        if stop > first:
            if stretch.decisions is not None:
                rows = part(stretch.market, stretch.decisions, first, stop)
                self.job.state.replay(*rows)
            self.passed = int(stretch.market.time[stop - 1])
            self._row = stop
            self._tick = int(np.searchsorted(stretch.ticks, stop))
            self._note(stretch.market, stretch.ticks[tick : self._tick])
        return stretch.frame.slice(tick, self._tick - tick)

    def _note(self, market: MarketArrays, ticks: np.ndarray) -> None:
        """Remember the last price of each symbol, and who has no tick left."""
        self.ticks += len(ticks)
        legs, prices = market.leg[ticks][::-1], market.price[ticks][::-1]
        seen, last, counts = np.unique(legs, return_index=True, return_counts=True)
        for leg, at, count in zip(seen.tolist(), last.tolist(), counts.tolist(), strict=True):
            symbol = self.job.symbols[leg]
            self.prices[symbol] = float(prices[at])
            self._left[symbol] -= count
            if not self._left[symbol]:
                self._ended[symbol] = int(market.time[ticks[::-1][at]])


def _stretches(job: Job, *, trading: bool) -> Generator[_Stretch, None, None]:
    """Yield the job's market, each stretch with the frame of its ticks."""
    layout = pl.DataFrame(schema=COLUMNS)
    for market, chunks in job.market():
        frame = _merged(chunks, layout)
        layout = frame.clear()  # a column that was there once stays, null for other symbols
        decisions = job.decisions(chunks) if trading else None
        yield _Stretch(market, decisions, np.flatnonzero(np.isfinite(market.price)), frame)


def _merged(chunks: list[SymbolChunk], layout: pl.DataFrame) -> pl.DataFrame:
    """Return the ticks of all symbols in the order of the market."""
    parts = [_named(chunk) for chunk in chunks]
    frame = pl.concat([layout, *parts], how="diagonal_relaxed", rechunk=True)
    places = [chunk.place for chunk in chunks if chunk.place is not None]
    return frame[np.argsort(np.concatenate(places))] if len(parts) > 1 else frame


def _named(chunk: SymbolChunk) -> pl.DataFrame:
    own = chunk.own
    others = [name for name in own.columns if name not in COLUMNS and name != PRICE_TICKS]
    return own.select("timestamp", pl.lit(chunk.symbol).alias("symbol"), "seq", "price", *others)


@dataclass(frozen=True, slots=True, kw_only=True)
class ReplayBatch:
    """The ticks of one moment of a replay; none where the market was quiet.

    Attributes
    ----------
    number : int
        Batches before this one.
    timestamp : datetime.datetime
        Market time (UTC): every tick up to it was delivered.
    frame : polars.DataFrame
        ``timestamp``, ``symbol``, ``seq``, ``price`` and what else the ticks have (``volume``,
        ``quote_volume``, ``side``), merged over the symbols by time.
    progress, time_progress : float
        Share of the ticks, and of the time range, that is over: 0 to 1.
    lag : float
        Wall seconds that the replay is behind its schedule; zero while its reader keeps up.
    prices : dict[str, float]
        Last price of each symbol so far.
    ended : tuple[str, ...]
        Symbols whose last tick is in this batch; the others go on without them.
    sought : bool
        True for the batch that answers a `Replay.seek`: it has no ticks, and what was drawn of
        later times, or of times before the jump, no longer holds.
    equity : float or None
        Money of the running strategy; None without one.
    positions : dict[str, float] or None
        Base units held of each symbol.
    fills : polars.DataFrame or None
        What the strategy bought and sold since the last batch, as `Result.fills` has it; after a
        jump backward, since the start of the run. What ``close_at_end`` sells after the last tick
        is in the result only.
    fills_count : int or None
        All fills of the run so far.

    Examples
    --------
    >>> *_, last = fxlab.replay(ticks, speed=1e9)
    >>> last.progress
    1.0
    """

    number: int
    timestamp: datetime
    frame: pl.DataFrame = field(repr=False)
    progress: float
    time_progress: float
    lag: float
    prices: dict[str, float]
    ended: tuple[str, ...] = ()
    sought: bool = False
    equity: float | None = None
    positions: dict[str, float] | None = None
    fills: pl.DataFrame | None = field(default=None, repr=False)
    fills_count: int | None = None
