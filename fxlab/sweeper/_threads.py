"""Thread executor, the default: groups of points replayed side by side over few reads.

One process has as many threads as there are cores: the kernel and Polars work without Python's
lock. A group is as large as can be replayed in about a second; one that grows beyond its memory
puts half of its points back. While threads work, the one that waits for them asks several times a
second whether to go on; if not, each thread ends with the point at hand, and nothing waits for it.
"""

from __future__ import annotations

import os
import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from typing import Final, TypeVar

import polars as pl

from fxlab._times import integer, required
from fxlab.backtester._source import share_before
from fxlab.backtester.result import sealing
from fxlab.errors import InvalidParameter
from fxlab.sweeper._space import Point
from fxlab.sweeper._study import Reading, SweepStudy
from fxlab.sweeper._trial import Trial, TrialResult


class Threads:
    """Session after session, the points of each on threads of this process."""

    def __init__(self, studies: Sequence[SweepStudy], workers: int) -> None:
        self._studies = studies
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, "fxlab-sweep")

    def run(
        self, work: Sequence[Sequence[Point]], tick: Tick
    ) -> Iterator[tuple[int, list[TrialResult]]]:
        """Yield outcomes as they come, with the number of their study; `work` has points of each.

        `tick` hears how many points' worth of work is under way; what it raises ends the work.
        """
        for number, (study, points) in enumerate(zip(self._studies, work, strict=True)):
            for some in run_trials(study, points, self._pool, self._workers, tick):
                yield number, some

    def close(self) -> None:
        """Forget the points that have not begun; those at hand end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def check_workers(workers: int | None) -> int:
    """Return a number of workers: as many as this process may use cores, unless given."""
    if workers is None:
        has_mask = hasattr(os, "sched_getaffinity")
        return len(os.sched_getaffinity(0)) if has_mask else os.cpu_count() or 1
    return required(
        integer(workers, 1, 1024),
        f"workers={workers!r:.80} is not a number of workers; give 1 or more, or leave it out "
        "to use every core",
    )


QUICK_SECONDS: Final = 1.0
"""How long a group should take if reading costs nothing: results come often, and are kept."""

STREAMED_SECONDS: Final = 20.0
"""How long, if the ticks have to be read again for each group."""

MOST_POINTS: Final = 1024
TRIALS_BYTES: Final = 32 << 20
"""What the points of a group may keep between two chunks, together."""

PULSE_SECONDS: Final = 0.1
"""How often the thread that waits for the others asks whether to go on."""

SLICES: Final = 4  # a worker: small enough that none waits long for the last

Item = TypeVar("Item")
Made = TypeVar("Made")
Tick = Callable[[float], None]
"""Told how many points' worth of work is under way; it may raise `Cancelled`."""


def run_trials(
    study: SweepStudy,
    points: Iterable[Point],
    pool: Executor,
    workers: int,
    tick: Tick,
    *,
    size: int | None = None,
) -> Iterator[list[TrialResult]]:
    """Yield what became of the points, group by group, in no promised order.

    The first group has `size` points, or what is right if nothing is known of them.
    """
    waiting, coming = deque[Point](), iter(points)
    size, most = size or SLICES * workers, MOST_POINTS
    while True:
        waiting.extend(islice(coming, max(0, size - len(waiting))))
        if not waiting:
            return
        began = time.monotonic()
        group = [waiting.popleft() for _ in range(min(size, len(waiting)))]
        trials, known = _open(study, group)
        for alike in _alike(trials):
            finished, put_back = _replay(study, alike, pool, workers, tick)
            if put_back:
                waiting.extendleft(reversed(put_back))
                most = max(1, len(finished))
            known += finished
        seconds = time.monotonic() - began
        yield known
        size = min(most, next_size(len(group), seconds, quick=study.is_quick))


def next_size(size: int, seconds: float, *, quick: bool) -> int:
    """Return how many points to take next, so that they take a while but not long."""
    wanted = size * (QUICK_SECONDS if quick else STREAMED_SECONDS) / max(seconds, 1e-3)
    return max(1, min(int(wanted), 4 * size))


def _open(study: SweepStudy, points: Sequence[Point]) -> tuple[list[Trial], list[TrialResult]]:
    """Return a trial for each point, and the result of those that need none."""
    trials, known = [], []
    for point in points:
        try:
            trials.append(study.trial(point))
        except InvalidParameter as refusal:
            known.append(TrialResult.skipped(point.number, refusal))
        except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 - a strategy's
            known.append(TrialResult.failed(point.number, error))
    return trials, known


def _alike(trials: Iterable[Trial]) -> list[list[Trial]]:
    """Return the trials grouped by what they read: the hash of the rows depends on it."""
    groups = defaultdict(list)
    for trial in trials:
        groups[trial.signals.roots, trial.signals.lookback is None].append(trial)
    return list(groups.values())


def _replay(
    study: SweepStudy, trials: list[Trial], pool: Executor, workers: int, tick: Tick
) -> tuple[list[TrialResult], list[Point]]:
    """Take trials through all ticks; return the results, and the points that had to wait."""
    put_back: list[Point] = []
    reading = Reading(study, [trial.signals for trial in trials])
    under_way = 0.0

    def pulse() -> None:
        tick(under_way)

    for market, chunks in ahead(reading.market(), pulse):
        advance = partial(Trial.advance, market=market, chunks=chunks)
        _each(trials, advance, pool, workers, pulse)
        while len(trials) > 1 and sum(trial.size for trial in trials) > TRIALS_BYTES:
            half = len(trials) // 2
            put_back = [trial.point for trial in trials[half:]] + put_back
            trials = trials[:half]
        under_way = len(trials) * share_before(study.bounds, int(market.time[-1]))
        tick(under_way)
    finish = partial(Trial.finish, seal=sealing(reading.ingredients))
    return _each(trials, finish, pool, workers, pulse), put_back


def _each(
    trials: Sequence[Trial],
    work: Callable[[Trial], Made],
    pool: Executor,
    workers: int,
    pulse: Callable[[], None],
) -> list[Made]:
    """Return what the work makes of each trial, slice by slice on the pool's threads."""
    step = -(-len(trials) // (workers * SLICES)) if workers > 1 else len(trials)
    slices = [trials[first : first + step] for first in range(0, len(trials), step)]
    stopped = threading.Event()

    def some(part: Sequence[Trial]) -> list[Made]:
        return [work(trial) for trial in part if not stopped.is_set()]

    working = [pool.submit(some, part) for part in slices]
    try:
        return [one for future in working for one in awaited(future, pulse)]
    except BaseException:
        stopped.set()
        raise


def awaited(future: Future[Made], pulse: Callable[[], None]) -> Made:
    """Return a future's result; until it is there, ask now and then whether to go on."""
    while not wait([future], PULSE_SECONDS).done:
        pulse()
    return future.result()


def ahead(items: Iterator[Item], pulse: Callable[[], None]) -> Iterator[Item]:
    """Yield the items; each next one is made on a thread while the one before is used."""
    reader = ThreadPoolExecutor(1, "fxlab-read")
    try:
        nothing = object()
        coming = reader.submit(next, items, nothing)
        while (item := awaited(coming, pulse)) is not nothing:
            coming = reader.submit(next, items, nothing)
            yield item  # type: ignore[misc]
    finally:
        reader.shutdown(wait=False, cancel_futures=True)
