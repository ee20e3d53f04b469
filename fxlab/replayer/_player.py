"""Replay player: a cursor over the ticks, batches of rows that are due, commands of other threads.

What comes next is a batch, a wait, or the end. A batch holds some ticks, the market time they
belong to, and the state of the run. The engine merges arrays of times and prices; a batch also
shows volumes, sides and sequence numbers. Both come from the same chunk, so nothing is read twice,
and no more than a chunk of each symbol is held.

The player is polled by one reader at a time. Commands of other threads are left in it, wake the
reader, and are followed at its next poll.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, Final

import numpy as np
import polars as pl

from fxlab._ticks import PRICE_TICKS
from fxlab._times import (
    Duration,
    Time,
    from_micros,
    integer,
    parse_duration,
    parse_range,
    parse_time,
    required,
)
from fxlab.backtester._feeds import SymbolChunk
from fxlab.backtester._kernel.records import MarketArrays
from fxlab.backtester._market_arrays import part
from fxlab.backtester._source import TickSource
from fxlab.backtester.engine import Job, backtest, prepare
from fxlab.backtester.options import RunOptions
from fxlab.backtester.result import Result, fills_table
from fxlab.backtester.strategy.strategy import Strategy, StrategyFunction
from fxlab.errors import InvalidInput, InvalidParameter, InvalidTimeRange
from fxlab.replayer._clock import ReplayClock, TimeSource
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
    decisions: np.ndarray | None  # None where nobody trades
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
        self._ended = [symbol for symbol, count in totals.items() if not count]
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

    def new_ended(self) -> tuple[str, ...]:
        """Return the symbols whose last tick was passed since the last call."""
        ended, self._ended = self._ended, []
        return tuple(ended)

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
                self._ended.append(symbol)


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


SHORTEST: Final = 1_000
"""Microseconds of the shortest interval."""

PAUSED: Final = 1.0
"""Seconds until a paused player is asked again, if nothing wakes its reader."""


class Player:
    """The state of a replay; `look` moves it on.

    Parameters
    ----------
    source, strategy, parameters, options
        What a backtest of the same would be given.
    trading
        Whether the strategy counts, or only the ticks.
    speed, batch_size, interval, clock
        As `fxlab.replay` takes them.
    """

    def __init__(
        self,
        source: TickSource,
        strategy: str | Strategy | StrategyFunction,
        parameters: Mapping[str, object] | None,
        options: RunOptions,
        *,
        trading: bool,
        speed: float,
        batch_size: int,
        interval: Duration,
        clock: TimeSource,
    ) -> None:
        self._asked = source, strategy, parameters
        self._options = options
        self._trading = trading
        self._size = _check_size(batch_size)
        self._interval = _check_interval(interval)
        self.clock = clock
        self.pace = ReplayClock(speed, clock, self._interval)
        self.woken = threading.Event()
        self.held: ReplayBatch | None = None  # computed, and not yet taken by the reader
        self._targets: deque[int] = deque(maxlen=1)  # where the latest seek wants to be
        self._stopping = False
        self._covered: int | None = None  # the end of what a stopped replay has replayed
        job = prepare(*self._asked, options, trading=trading)
        self.bounds, self.symbols = job.bounds, job.symbols
        self._totals = _count_ticks(job)
        self._number = 0
        self._begin(job)

    def _begin(self, job: Job) -> None:
        self._cursor = TickCursor(job, self._totals, trading=self._trading)
        self._fills = 0
        self._no_fills = fills_table(job.state.new_fills(), self.symbols)
        self._result: Result | None = None
        self._started = self._over = False
        self._looked = -float("inf")  # wall time of the last batch
        self.position = self.bounds[0]
        self.ended: dict[str, int] = {}

    @property
    def strategy(self) -> str | None:
        """Return the name of the strategy, if there is one."""
        return self._cursor.job.run.strategy.name if self._trading else None

    @property
    def title(self) -> str:
        """Return what is replayed, in words."""
        source = self._cursor.job.run.source.id
        return f"{self.strategy} on {source}" if self._trading else source

    @property
    def total(self) -> int:
        """Return how many ticks there are."""
        return sum(self._totals.values())

    @property
    def progress(self) -> float:
        """Return the share of the ticks that is over."""
        return min(1.0, self._cursor.ticks / self.total)

    @property
    def time_progress(self) -> float:
        """Return the share of the time range that is over; after the last tick all of it is."""
        return 1.0 if self._over else max(0.0, self._cursor.job.share(self.position))

    @property
    def state(self) -> str:
        """Return ready, running, paused, finished or stopped."""
        if self._stopping or self._over:
            return "finished" if self._over else "stopped"
        if self.pace.paused:
            return "paused"
        return "running" if self._started else "ready"

    def seek(self, time: Time) -> None:
        """Note where the next look goes on."""
        target = parse_time(time, "time")
        first, last = self.bounds
        if not first <= target <= last:
            raise InvalidTimeRange(
                f"{from_micros(target)} is outside of this replay; seek a time from "
                f"{from_micros(first)} to {from_micros(last)}"
            )
        if self._stopping:
            raise InvalidInput("this replay was stopped; start another one with fxlab.replay")
        self._targets.append(target)
        self.woken.set()

    def stop(self) -> None:
        """Note that the next look ends the replay."""
        self._stopping = True
        self.woken.set()

    def close(self) -> None:
        """Stop reading the source."""
        self._cursor.close()

    def look(self) -> ReplayBatch | float | None:
        """Return the next batch, or the seconds to wait for it, or None at the end."""
        self.woken.clear()
        if self._targets and not self._stopping:
            self.held = self._jump()
        if self._stopping:
            self.close()
            return None
        if self.held is None and not self._over:
            return self._go_on()
        return self.held

    def result(self) -> Result:
        """Return the result of what was replayed."""
        if not self._trading:
            raise InvalidInput(
                "a replay without a strategy has no result; name one: "
                "fxlab.replay(session, strategy='sma_cross')"
            )
        if self._result is None:
            self._result = self._cursor.job.finish() if self._over else self._result_so_far()
        return self._result

    def _result_so_far(self) -> Result:
        """Run up to the last tick that was replayed: a run's digest covers whole chunks."""
        if not self._stopping:
            raise InvalidInput(
                f"the replay is at {self.progress:.1%}; its result is there after the last batch, "
                "or after stop()"
            )
        if self._covered is None:
            raise InvalidInput("the replay was stopped before its first tick: it has no result")
        low, _ = parse_range(self._options.start, None)
        start = None if low is None else from_micros(low)  # aware, as the end is
        end = from_micros(self._covered)
        options = self._options.keywords() | {"start": start, "end": end}
        return backtest(*self._asked, **options)

    def _go_on(self) -> ReplayBatch | float | None:
        if self.pace.paused:
            return PAUSED
        if not self._cursor.load():
            self._finish()
            return None
        wait = self._seconds_to_wait()
        if wait > 0:
            return wait
        self.held = self._next()
        return self.held

    def _seconds_to_wait(self) -> float:
        """Return the time until a batch is full, or the interval is over."""
        if not self._started:
            self.pace.jump(self._cursor.due_at(1))
        full = self.pace.seconds_until(self._cursor.due_at(self._size))
        return min(full, self._looked + self._interval - self.clock.now())

    def _next(self) -> ReplayBatch:
        """Return the batch of what is due."""
        now, full = self.pace.now(), self._cursor.due_at(self._size)
        # Two ways to the same moment may differ by a rounding: a full batch is due as a whole.
        if self.pace.seconds_until(full) <= 0:
            now = max(now, full)
        frame = self._cursor.take(now, self._size)
        self._covered = self._cursor.passed + 1
        if self._cursor.ticks >= self.total and not self._cursor.load():
            self._finish()
        ahead = self._cursor.next_at()
        kept_up = ahead is not None and ahead > now
        at = now if kept_up else self._cursor.passed
        if not self._started:  # what the first rows took, compiling perhaps, is not market time
            self._started = True
            self.pace.jump(at)
        return self._batch(frame, at=at, lag=0.0 if kept_up else self.pace.behind(at))

    def _jump(self) -> ReplayBatch:
        """Go where the latest seek wants to be; all ticks before it are run through."""
        while self._targets and not self._stopping:
            target = self._covered = self._targets.pop()
            if self._over or self._cursor.passed >= target:
                self.close()
                self._begin(prepare(*self._asked, self._options, trading=self._trading))
            self._cursor.skip(target, lambda: not (self._stopping or self._targets))
        self._started = True
        self.pace.jump(target)
        return self._batch(self._cursor.nothing(), at=target, sought=True)

    def _batch(
        self, frame: pl.DataFrame, *, at: int, lag: float = 0.0, sought: bool = False
    ) -> ReplayBatch:
        self._looked = self.clock.now()
        self.position = at
        self.pace.reached(at)
        ended, prices = self._cursor.new_ended(), self._cursor.prices
        self.ended.update(dict.fromkeys(ended, at))
        self._number += 1
        return ReplayBatch(
            number=self._number - 1,
            timestamp=from_micros(at),
            frame=frame,
            progress=self.progress,
            time_progress=self.time_progress,
            lag=lag,
            prices={name: prices[name] for name in self.symbols if name in prices},
            ended=ended,
            sought=sought,
            **self._standing(),
        )

    def _standing(self) -> dict[str, Any]:
        """Return how the strategy stands, if there is one."""
        if not self._trading:
            return {}
        state = self._cursor.job.state
        fills = state.new_fills()
        self._fills += len(fills)
        return {
            "equity": state.equity,
            "positions": dict(zip(self.symbols, state.positions.tolist(), strict=True)),
            "fills": fills_table(fills, self.symbols) if len(fills) else self._no_fills,
            "fills_count": self._fills,
        }

    def _finish(self) -> None:
        self._over = True
        self.close()


def _check_size(batch_size: object) -> int:
    return required(
        integer(batch_size, 1),
        f"batch_size={batch_size!r:.80} is not a number of ticks; give 1 or more",
    )


def _check_interval(interval: Duration) -> float:
    micros = parse_duration(interval, "interval")
    if micros < SHORTEST:
        raise InvalidParameter(
            f"interval={interval!r} would hand out batches without end; give '1ms' or more"
        )
    return micros / 1_000_000


def _count_ticks(job: Job) -> dict[str, int]:
    """Return how many ticks of each symbol the job will read."""
    run = job.run
    totals = {
        symbol: run.source.count_ticks(symbol, start=run.start, end=run.end)
        for symbol in job.symbols
    }
    if not any(totals.values()):
        job.finish()  # says that there is nothing, and from when to when there is something
    return totals
