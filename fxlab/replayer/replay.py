"""Replay of a session at market speed, with a strategy running on it.

Rows, kernel state and result are those of a backtest. Only the moments at which rows are fed
differ, and no result depends on those: what a replay shows is what the backtest computes.
"""

from __future__ import annotations

import asyncio
import threading
from collections import deque
from collections.abc import Iterator, Mapping
from contextlib import ExitStack
from datetime import datetime
from typing import Any, Final, Self, Unpack

import polars as pl

from fxlab._progress import Advance, Progress, chosen
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
from fxlab.backtester._source import TickSource, as_source
from fxlab.backtester.engine import Job, backtest, prepare
from fxlab.backtester.options import Options, RunOptions, takes_run_options
from fxlab.backtester.result import Result, fills_table
from fxlab.backtester.strategy.signals import Signals
from fxlab.backtester.strategy.strategy import Strategy, StrategyFunction
from fxlab.errors import InvalidInput, InvalidParameter, InvalidTimeRange, some
from fxlab.replayer._cursor import ReplayBatch, ReplayClock, TickCursor, TimeSource, WallClock

CHUNK_ROWS: Final = 65_536
"""Rows of a symbol read at a time: the first batch comes soon, and a jump can be stopped."""

SHORTEST: Final = 1_000
"""Microseconds of the shortest interval."""

PAUSED: Final = 1.0
"""Seconds until a paused replay is asked again, if nothing wakes its reader."""


@takes_run_options
def replay(
    source: Any,  # noqa: ANN401 - a Session or a frame; refused by name otherwise
    *,
    speed: float = 1.0,
    batch_size: int = 100,
    strategy: str | Strategy | StrategyFunction | None = None,
    parameters: Mapping[str, object] | None = None,
    interval: Duration = "100ms",
    clock: TimeSource | None = None,
    progress: Progress = None,
    **options: Unpack[Options],
) -> Replay:
    """Play the ticks of a session back in their own time, merged over the symbols.

    Parameters
    ----------
    source
        A `Session`, or a Polars frame of ticks (see `FrameSource`).
    speed
        Market seconds a second: 1 as it was, 100 a hundred times as fast, ``inf`` without waiting.
    batch_size
        Ticks in a batch, at most.
    strategy, parameters
        A strategy to run on the ticks, as in `fxlab.backtest`. Without one there are only ticks.
    interval
        Wall time after which what is due is handed out, though no batch is full: the clock ticks
        in a quiet market, too.
    clock
        Where time comes from; the machine's clock unless given.
    progress
        As `fxlab.backtest` takes it; called with each batch.
    symbols, start, end, execution, capital, return_interval, days_per_year, chunk_rows
        As in `fxlab.backtest`; `chunk_rows` is 65,536 unless given.

    Returns
    -------
    Replay
        Iterate it with ``for`` or ``async for``; each step is a `Batch`.

    Raises
    ------
    InvalidParameter, StrategyNotFound, SymbolNotFound, InvalidTimeRange, EmptySession
        Before the first batch, naming the value, the rule and the next step. Ticks that are out
        of order are found when they are read: `InvalidTicks` while iterating.

    Examples
    --------
    >>> for batch in fxlab.replay(
    ...     ticks, speed=1e9, strategy="sma_cross", parameters={"fast": 5, "slow": 20}
    ... ):
    ...     equity = batch.equity
    >>> equity > 0
    True
    """
    if strategy is None and (parameters is not None or options.get("execution") is not None):
        raise InvalidParameter(
            "parameters and execution belong to a strategy; name it as well, for example "
            "strategy='sma_cross'"
        )
    options.setdefault("chunk_rows", CHUNK_ROWS)
    return Replay(
        as_source(source),
        _idle if strategy is None else strategy,
        parameters,
        RunOptions.of(options),
        trading=strategy is not None,
        speed=speed,
        batch_size=batch_size,
        interval=interval,
        clock=clock or WallClock(),
        progress=progress,
    )


class Replay:
    """A running replay: an iterator and an asynchronous iterator of `Batch`.

    Made by `fxlab.replay`. `pause`, `resume`, `seek`, `stop` and `speed` may be used from any
    thread, and from inside the loop; they are heard within 50 ms.

    The schedule is absolute: a reader that is slow for a while catches up, and one that is always
    slow sees by `Batch.lag` how far it is behind. Time goes on while nothing is read: `pause`
    before you leave the loop for long.

    **With a strategy**, whatever was paused, sped up or sought on the way, `result` is what
    `fxlab.backtest` gives for the same arguments, bit by bit. A jump leaves out no tick: those
    before the new place are run through at full speed, in a new run from the start if it lies
    behind.

    An error while reading stops the replay.

    Examples
    --------
    >>> player = fxlab.replay(ticks, speed=1e9)
    >>> sum(batch.frame.height for batch in player)
    1500
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
        progress: Progress = None,
    ) -> None:
        self._asked = source, strategy, parameters
        self._options, self._trading = options, trading
        self._size, self._interval = _check_size(batch_size), _check_interval(interval)
        self._clock = clock
        self._pace = ReplayClock(speed, clock, self._interval)
        self._progress = progress
        self._advance: Advance | None = None
        self._bar = ExitStack()
        # One reader at a time. Commands of other threads do not wait for it: they are noted, wake
        # it, and are followed at its next poll.
        self._turn = threading.Lock()
        self._woken = threading.Event()
        self._targets: deque[int] = deque(maxlen=1)  # where the latest seek wants to be
        self._stopping = False
        self._held: ReplayBatch | None = None  # computed, and not yet taken by the reader
        self._covered: int | None = None  # the end of what a stopped replay has replayed
        job = prepare(*self._asked, options, trading=trading)
        self._bounds, self._totals = job.bounds, _count_ticks(job)
        self._number = 0
        self._begin(job)

    def _begin(self, job: Job) -> None:
        self._cursor = TickCursor(job, self._totals, trading=self._trading)
        self._fills = 0
        self._no_fills = fills_table(job.state.new_fills(), self.symbols)
        self._result: Result | None = None
        self._started = self._over = False
        self._looked = -float("inf")  # wall time of the last batch
        self._at = self._bounds[0]
        self._ended: dict[str, int] = {}

    @property
    def speed(self) -> float:
        """Return market seconds a second; may be set while the replay runs."""
        return self._pace.speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self._pace.speed = speed
        self._woken.set()

    def pause(self) -> None:
        """Let market time stand still until `resume`; the loop waits meanwhile."""
        self._pace.pause()
        self._woken.set()

    def resume(self) -> None:
        """Go on from where `pause` stopped."""
        self._pace.resume()
        self._woken.set()

    def seek(self, time: Time) -> None:
        """Go on from another time, forward or back; also after the end, and while paused.

        The next batch has no ticks: it shows prices, equity and positions as of the new place.

        Raises
        ------
        InvalidTimeRange
            If it is no time, or lies outside of what is replayed.
        InvalidInput
            After `stop`.
        """
        target = parse_time(time, "time")
        first, last = self._bounds
        if not first <= target <= last:
            raise InvalidTimeRange(
                f"{from_micros(target)} is outside of this replay; seek a time from "
                f"{from_micros(first)} to {from_micros(last)}"
            )
        if self._stopping:
            raise InvalidInput("this replay was stopped; start another one with fxlab.replay")
        self._targets.append(target)
        self._woken.set()

    def stop(self) -> None:
        """End the replay for good; the loop ends, and `result` covers what was replayed."""
        self._stopping = True
        self._woken.set()
        self._close_bar()
        if self._turn.acquire(blocking=False):  # else the reader itself closes, in a moment
            try:
                self._cursor.close()
            finally:
                self._turn.release()

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return what is replayed."""
        return self._cursor.job.symbols

    @property
    def strategy(self) -> str | None:
        """Return the name of the strategy that runs on it, if there is one."""
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
    def bounds(self) -> tuple[datetime, datetime]:
        """Return the first and the last moment of what is replayed."""
        first, last = self._bounds
        return from_micros(first), from_micros(last)

    @property
    def position(self) -> datetime:
        """Return the market time of the last batch."""
        return from_micros(self._at)

    @property
    def progress(self) -> float:
        """Return the share of the ticks that is over, 0 to 1."""
        return min(1.0, self._cursor.ticks / self.total)

    @property
    def time_progress(self) -> float:
        """Return the share of the time range that is over: after the last tick all of it."""
        return 1.0 if self._over else max(0.0, self._cursor.job.share(self._at))

    @property
    def ended(self) -> dict[str, datetime]:
        """Return the symbols that have no tick left, with the time of their last one.

        Of one that has none at all it is the beginning of the range.
        """
        return {symbol: from_micros(at) for symbol, at in self._ended.items()}

    @property
    def state(self) -> str:
        """Return ready, running, paused, finished or stopped."""
        if self._stopping or self._over:
            return "finished" if self._over else "stopped"
        if self._pace.paused:
            return "paused"
        return "running" if self._started else "ready"

    @property
    def result(self) -> Result:
        """Return the result of the run, once it is finished or stopped.

        After `stop` it is `fxlab.backtest` of the same arguments, with `end` just after the last
        tick that was replayed, or at the place of a jump; it is computed when it is asked for.

        Raises
        ------
        InvalidInput
            Without a strategy, before the end, or if nothing was replayed.
        """
        with self._turn:
            if not self._trading:
                raise InvalidInput(
                    "a replay without a strategy has no result; name one: "
                    "fxlab.replay(session, strategy='sma_cross')"
                )
            if self._result is None:
                self._result = self._cursor.job.finish() if self._over else self._result_so_far()
            return self._result

    def __repr__(self) -> str:
        """Show what is replayed, how far it is and how fast it goes."""
        return (
            f"<Replay of {self.title}: {some(self.symbols)}; {self.state} at "
            f"{self.position:%Y-%m-%d %H:%M:%S} UTC, {self.progress:.1%} of "
            f"{self.total:,} ticks, speed {self.speed:g}>"
        )

    def __enter__(self) -> Self:
        """Return the replay; leaving the block stops it, unless it is finished."""
        return self

    def __exit__(self, *_: object) -> None:
        if self.state != "finished":
            self.stop()

    def __iter__(self) -> Iterator[ReplayBatch]:
        return self

    def __next__(self) -> ReplayBatch:
        while isinstance(found := self._poll(), float):
            self._clock.wait(found, self._woken)
        if found is None:
            self._close_bar()
            raise StopIteration
        return self._handed_out(found)

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> ReplayBatch:
        # A cancelled task loses nothing: what its thread computed is held for the next one.
        while isinstance(found := await asyncio.to_thread(self._poll), float):
            await self._clock.sleep(found, self._woken)
        if found is None:
            self._close_bar()
            raise StopAsyncIteration
        return self._handed_out(found)

    def _handed_out(self, batch: ReplayBatch) -> ReplayBatch:
        """Return a batch to the reader, in whose thread a bar shows how far it is."""
        if self._advance is None:
            self._advance = self._bar.enter_context(chosen(self._progress, "replay"))
        self._advance(batch.progress, f"{batch.timestamp:%Y-%m-%d %H:%M:%S} UTC")
        self._held = None
        return batch

    def _close_bar(self) -> None:
        self._bar.close()
        self._advance = None

    def _poll(self) -> ReplayBatch | float | None:
        with self._turn:
            try:
                return self._look()
            except BaseException:
                self._stopping = True  # rows that are read half cannot be gone on with
                raise

    def _look(self) -> ReplayBatch | float | None:
        """Return the next batch, or the seconds to wait for it, or None at the end."""
        self._woken.clear()
        if self._targets and not self._stopping:
            self._held = self._jump()
        if self._stopping:
            self._cursor.close()
            return None
        if self._held is None and not self._over:
            return self._go_on()
        return self._held

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
        if self._pace.paused:
            return PAUSED
        if not self._cursor.load():
            self._finish()
            return None
        wait = self._seconds_to_wait()
        if wait > 0:
            return wait
        self._held = self._next()
        return self._held

    def _seconds_to_wait(self) -> float:
        """Return the time until a batch is full, or the interval is over."""
        if not self._started:
            self._pace.jump(self._cursor.due_at(1))
        full = self._pace.seconds_until(self._cursor.due_at(self._size))
        return min(full, self._looked + self._interval - self._clock.now())

    def _next(self) -> ReplayBatch:
        """Return the batch of what is due."""
        now, full = self._pace.now(), self._cursor.due_at(self._size)
        # Two ways to the same moment may differ by a rounding: a full batch is due as a whole.
        if self._pace.seconds_until(full) <= 0:
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
            self._pace.jump(at)
        return self._batch(frame, at=at, lag=0.0 if kept_up else self._pace.behind(at))

    def _jump(self) -> ReplayBatch:
        """Go where the latest seek wants to be; all ticks before it are run through."""
        while self._targets and not self._stopping:
            target = self._covered = self._targets.pop()
            if self._over or self._cursor.passed >= target:
                self._cursor.close()
                self._begin(prepare(*self._asked, self._options, trading=self._trading))
            self._cursor.skip(target, lambda: not (self._stopping or self._targets))
        self._started = True
        self._pace.jump(target)
        return self._batch(self._cursor.nothing(), at=target, sought=True)

    def _batch(
        self, frame: pl.DataFrame, *, at: int, lag: float = 0.0, sought: bool = False
    ) -> ReplayBatch:
        self._looked = self._clock.now()
        self._at = at
        self._pace.reached(at)
        ended, prices = self._cursor.new_ended(), self._cursor.prices
        self._ended.update(ended)
        self._number += 1
        return ReplayBatch(
            number=self._number - 1,
            timestamp=from_micros(at),
            frame=frame,
            progress=self.progress,
            time_progress=self.time_progress,
            lag=lag,
            prices={name: prices[name] for name in self.symbols if name in prices},
            ended=tuple(ended),
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
        self._cursor.close()


def _idle() -> Signals:
    """Never want anything: the strategy of a replay that has none."""
    return Signals(target=pl.lit(None, dtype=pl.Float64), lookback=0)


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
