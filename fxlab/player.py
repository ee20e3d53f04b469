"""What comes next in a replay: a batch, a wait, or the end.

The player is asked by one reader at a time. Commands of other threads leave a note here, wake the
reader, and are followed at its next look.
"""

from __future__ import annotations

import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import Any, Final

import polars as pl

from fxlab.backtester.engine import Job, backtest, prepare
from fxlab.backtester.result import Result
from fxlab.backtester.run_options import RunOptions
from fxlab.backtester.strategy import Signals, Strategy
from fxlab.backtester.tables import fills_table
from fxlab.backtester.ticks import TickSource
from fxlab.batches import Batch
from fxlab.errors import InvalidInput, InvalidParameter, InvalidTimeRange
from fxlab.numbers import integer
from fxlab.pacing import Clock, Pace
from fxlab.reel import Reel
from fxlab.times import Duration, Time, from_micros, parse_duration, parse_range, parse_time

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
        strategy: str | Strategy | Callable[..., Signals],
        parameters: Mapping[str, object] | None,
        options: RunOptions,
        *,
        trading: bool,
        speed: float,
        batch_size: int,
        interval: Duration,
        clock: Clock,
    ) -> None:
        self._asked = source, strategy, parameters
        self._options = options
        self._trading = trading
        self._size = _check_size(batch_size)
        self._interval = _check_interval(interval)
        self.clock = clock
        self.pace = Pace(speed, clock, self._interval)
        self.woken = threading.Event()
        self.held: Batch | None = None  # computed, and not yet taken by the reader
        self._targets: deque[int] = deque(maxlen=1)  # where the latest seek wants to be
        self._stopping = False
        self._covered: int | None = None  # the end of what a stopped replay has replayed
        job = prepare(*self._asked, options, trading=trading)
        self.bounds, self.symbols = job.bounds, job.symbols
        self._totals = _count_ticks(job)
        self._number = 0
        self._begin(job)

    def _begin(self, job: Job) -> None:
        self._reel = Reel(job, self._totals, trading=self._trading)
        self._fills = 0
        self._no_fills = fills_table(job.ledger.new_fills(), self.symbols)
        self._result: Result | None = None
        self._started = self._over = False
        self._looked = -float("inf")  # wall time of the last batch
        self.position = self.bounds[0]
        self.ended: dict[str, int] = {}

    @property
    def strategy(self) -> str | None:
        """Return the name of the strategy, if there is one."""
        return self._reel.job.run.strategy.name if self._trading else None

    @property
    def title(self) -> str:
        """Return what is replayed, in words."""
        source = self._reel.job.run.source.id
        return f"{self.strategy} on {source}" if self._trading else source

    @property
    def total(self) -> int:
        """Return how many ticks there are."""
        return sum(self._totals.values())

    @property
    def progress(self) -> float:
        """Return the share of the ticks that is over."""
        return min(1.0, self._reel.ticks / self.total)

    @property
    def time_progress(self) -> float:
        """Return the share of the time range that is over; after the last tick all of it is."""
        return 1.0 if self._over else max(0.0, self._reel.job.share(self.position))

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
        self._reel.close()

    def look(self) -> Batch | float | None:
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
            self._result = self._reel.job.finish() if self._over else self._result_so_far()
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

    def _go_on(self) -> Batch | float | None:
        if self.pace.paused:
            return PAUSED
        if not self._reel.load():
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
            self.pace.jump(self._reel.due_at(1))
        full = self.pace.seconds_until(self._reel.due_at(self._size))
        return min(full, self._looked + self._interval - self.clock.now())

    def _next(self) -> Batch:
        """Return the batch of what is due."""
        now, full = self.pace.now(), self._reel.due_at(self._size)
        # Two ways to the same moment may differ by a rounding: a full batch is due as a whole.
        if self.pace.seconds_until(full) <= 0:
            now = max(now, full)
        frame = self._reel.take(now, self._size)
        self._covered = self._reel.passed + 1
        if self._reel.ticks >= self.total and not self._reel.load():
            self._finish()
        ahead = self._reel.next_at()
        kept_up = ahead is not None and ahead > now
        at = now if kept_up else self._reel.passed
        if not self._started:  # what the first rows took, compiling perhaps, is not market time
            self._started = True
            self.pace.jump(at)
        return self._batch(frame, at=at, lag=0.0 if kept_up else self.pace.behind(at))

    def _jump(self) -> Batch:
        """Go where the latest seek wants to be; all ticks before it are run through."""
        while self._targets and not self._stopping:
            target = self._covered = self._targets.pop()
            if self._over or self._reel.passed >= target:
                self.close()
                self._begin(prepare(*self._asked, self._options, trading=self._trading))
            self._reel.skip(target, lambda: not (self._stopping or self._targets))
        self._started = True
        self.pace.jump(target)
        return self._batch(self._reel.nothing(), at=target, sought=True)

    def _batch(
        self, frame: pl.DataFrame, *, at: int, lag: float = 0.0, sought: bool = False
    ) -> Batch:
        self._looked = self.clock.now()
        self.position = at
        self.pace.reached(at)
        ended, prices = self._reel.new_ended(), self._reel.prices
        self.ended.update(dict.fromkeys(ended, at))
        self._number += 1
        return Batch(
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
        ledger = self._reel.job.ledger
        fills = ledger.new_fills()
        self._fills += len(fills)
        return {
            "equity": ledger.equity,
            "positions": dict(zip(self.symbols, ledger.positions.tolist(), strict=True)),
            "fills": fills_table(fills, self.symbols) if len(fills) else self._no_fills,
            "fills_count": self._fills,
        }

    def _finish(self) -> None:
        self._over = True
        self.close()


def _check_size(batch_size: object) -> int:
    size = integer(batch_size, 1)
    if size is None:
        raise InvalidParameter(
            f"batch_size={batch_size!r:.80} is not a number of ticks; give 1 or more"
        )
    return size


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
