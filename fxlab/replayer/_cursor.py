"""Replay cursor and clock: the ticks of a job in the order of the market, and when each is due.

A batch holds some ticks, the market time they belong to, and the state of the run. The engine
merges arrays of times and prices; a batch also shows volumes, sides and sequence numbers. Both come
from the same chunk, so nothing is read twice, and no more than a chunk of each symbol is held.

The clock says what is due now, and how long until the next row is. The schedule is absolute. Market
time is computed from one anchor and never summed up from sleeps, so what single waits are late by
does not add up. A change of speed, a pause and a seek each set a new anchor.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from typing import Final, Protocol

import numpy as np
import polars as pl

from fxlab._ticks import PRICE_TICKS
from fxlab._times import number
from fxlab.backtester._feeds import SymbolChunk
from fxlab.backtester._kernel.records import MarketArrays
from fxlab.backtester._market_arrays import part
from fxlab.backtester.engine import Job
from fxlab.errors import InvalidParameter
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


FOREVER: Final = 2**62
"""A market time after all others, in microseconds."""

HEARD_WITHIN: Final = 0.02
"""Seconds that one wait lasts at most: so soon a click in another thread is heard."""


class TimeSource(Protocol):
    """What a replay knows of time; tests bring one that only moves when it is waited for.

    Examples
    --------
    >>> class Hurried:
    ...     seconds = 0.0
    ...
    ...     def now(self):
    ...         return self.seconds
    ...
    ...     def wait(self, seconds, woken):
    ...         self.seconds += seconds
    ...
    ...     async def sleep(self, seconds, woken):
    ...         self.seconds += seconds
    >>> sum(batch.frame.height for batch in fxlab.replay(ticks, speed=10.0, clock=Hurried()))
    1500
    """

    def now(self) -> float:
        """Return seconds that never run backward."""

    def wait(self, seconds: float, woken: threading.Event) -> None:
        """Let time pass, up to so many seconds, or until the event is set."""

    async def sleep(self, seconds: float, woken: threading.Event) -> None:
        """Let time pass as `wait` does, while the event loop goes on."""


class WallClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Return seconds since some moment in the past."""
        return time.monotonic()

    def wait(self, seconds: float, woken: threading.Event) -> None:
        """Wait a short while at most: on some systems a longer wait cannot be interrupted."""
        woken.wait(min(seconds, HEARD_WITHIN))

    async def sleep(self, seconds: float, woken: threading.Event) -> None:
        """Sleep in short pieces until the time is over or the event is set."""
        end = self.now() + seconds
        while not woken.is_set() and (left := end - self.now()) > 0:  # noqa: ASYNC110 - by threads
            await asyncio.sleep(min(left, HEARD_WITHIN))


@dataclass(frozen=True, slots=True)
class _Anchor:
    """One moment of which both times are known, and how they go on from there."""

    wall: float
    market: int
    speed: float
    paused: bool


class ReplayClock:
    """Turns wall time into market time; safe to use from several threads.

    Parameters
    ----------
    speed
        Market seconds a wall second, above zero; ``inf`` makes everything due at once.
    clock
        Where wall time comes from.
    slack
        Wall seconds between two looks of a reader that keeps up: what became due since the last
        one is not late.

    Notes
    -----
    A reader that cannot keep up falls behind the schedule and catches up when it can. A change of
    speed or a pause forgives what it is behind: the new speed holds from what was delivered.
    """

    def __init__(self, speed: float, clock: TimeSource, slack: float) -> None:
        self._clock = clock
        self._slack = slack
        self._lock = threading.Lock()
        self._reached = 0
        self._anchor = _Anchor(clock.now(), 0, check_speed(speed), paused=False)

    @property
    def speed(self) -> float:
        """Return market seconds a wall second."""
        return self._anchor.speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self._change(speed=check_speed(speed))

    @property
    def paused(self) -> bool:
        """Return whether market time stands still."""
        return self._anchor.paused

    def pause(self) -> None:
        """Stop market time where it is."""
        self._change(paused=True)

    def resume(self) -> None:
        """Let market time go on from where it stands."""
        self._change(paused=False)

    def jump(self, market: int) -> None:
        """Make it this market time now (microseconds)."""
        with self._lock:
            self._reached = market
            self._anchor = replace(self._anchor, wall=self._clock.now(), market=market)

    def reached(self, market: int) -> None:
        """Note that everything up to this market time was delivered."""
        self._reached = market

    def now(self) -> int:
        """Return the market time in microseconds; `FOREVER` at infinite speed, and never more."""
        anchor = self._anchor
        if anchor.paused:
            return anchor.market
        if math.isinf(anchor.speed):
            return FOREVER
        passed = (self._clock.now() - anchor.wall) * anchor.speed * 1_000_000
        return min(anchor.market + round(min(passed, FOREVER)), FOREVER)

    def seconds_until(self, market: int) -> float:
        """Return the wall seconds until a market time; zero or less if it is due."""
        anchor = self._anchor
        if anchor.paused:
            return math.inf if market > anchor.market else 0.0
        ahead = (market - anchor.market) / 1_000_000 / anchor.speed
        return anchor.wall + ahead - self._clock.now()

    def behind(self, market: int) -> float:
        """Return the wall seconds since a market time was due, or zero."""
        if self._anchor.paused or math.isinf(self._anchor.speed):
            return 0.0
        return max(0.0, -self.seconds_until(market))

    def _change(self, **fields: float) -> None:
        with self._lock:
            old = self._anchor
            market = self._reached if math.isinf(old.speed) else self._forgiven(old)
            moved = replace(old, wall=self._clock.now(), market=market)
            self._anchor = replace(moved, **fields)  # type: ignore[arg-type]

    def _forgiven(self, old: _Anchor) -> int:
        """Return the market time, without what a slow reader is behind it."""
        return min(self.now(), self._reached + round(self._slack * old.speed * 1_000_000))


def check_speed(speed: object) -> float:
    """Return a usable speed.

    Raises
    ------
    InvalidParameter
        If it is no number above zero.
    """
    found = number(speed)
    if found is None or not found > 0:
        raise InvalidParameter(
            f"speed={speed!r:.80} is not a speed; give market seconds a second, above 0: 1 is as "
            "it was, 100 is a hundred times as fast, float('inf') waits for nothing"
        )
    return float(found)
