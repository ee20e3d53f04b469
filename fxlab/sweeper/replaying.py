"""Many points over few reads: groups of points go through the ticks side by side, on threads.

The kernel and Polars work without Python's lock, so a thread pool uses all cores. A group is as
large as can be replayed in about a second; one that grows beyond its memory puts half of its points
back. While threads work, the one that waits for them asks several times a second whether to go on;
if not, each thread ends with the point at hand, and nobody waits for it.
"""

from __future__ import annotations

import threading
import time
from collections import defaultdict, deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Executor, Future, ThreadPoolExecutor, wait
from functools import partial
from itertools import islice
from typing import Final, TypeVar

import polars as pl

from fxlab.backtester.result import seal
from fxlab.errors import InvalidParameter
from fxlab.sweeper.lane import Lane, Outcome
from fxlab.sweeper.space import Point
from fxlab.sweeper.studies import Study

QUICK_SECONDS: Final = 1.0
"""How long a group should take if reading costs nothing: results come often, and are kept."""

STREAMED_SECONDS: Final = 20.0
"""How long, if the ticks have to be read again for each group."""

MOST_POINTS: Final = 1024
LANES_BYTES: Final = 32 << 20
"""What the points of a group may keep between two chunks, together."""

PULSE_SECONDS: Final = 0.1
"""How often whoever waits for threads asks whether to go on."""

SLICES: Final = 4  # a worker: small enough that none waits long for the last

Item = TypeVar("Item")
Made = TypeVar("Made")
Tick = Callable[[float], None]
"""Told how many points' worth of work is under way; it may raise `Cancelled`."""


def outcomes(
    study: Study,
    points: Iterable[Point],
    pool: Executor,
    workers: int,
    tick: Tick,
    *,
    size: int | None = None,
) -> Iterator[list[Outcome]]:
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
        lanes, known = _open(study, group)
        for alike in _alike(lanes):
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


def _open(study: Study, points: Sequence[Point]) -> tuple[list[Lane], list[Outcome]]:
    """Return a lane for each point, and the outcome of those that need none."""
    lanes, known = [], []
    for point in points:
        try:
            lanes.append(study.lane(point))
        except InvalidParameter as refusal:
            known.append(Outcome.skipped(point.number, refusal))
        except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 - a strategy's
            known.append(Outcome.failed(point.number, error))
    return lanes, known


def _alike(lanes: Iterable[Lane]) -> list[list[Lane]]:
    """Return the lanes grouped by what they read: the hash of the rows depends on it."""
    groups = defaultdict(list)
    for lane in lanes:
        groups[lane.signals.roots, lane.signals.lookback is None].append(lane)
    return list(groups.values())


def _replay(
    study: Study, lanes: list[Lane], pool: Executor, workers: int, tick: Tick
) -> tuple[list[Outcome], list[Point]]:
    """Take lanes through all ticks; return the outcomes, and the points that had to wait."""
    put_back: list[Point] = []
    reading = study.read([lane.signals for lane in lanes])
    under_way = 0.0

    def pulse() -> None:
        tick(under_way)

    for chunk in ahead(reading.chunks(), pulse):
        _each(lanes, partial(Lane.advance, chunk=chunk), pool, workers, pulse)
        while len(lanes) > 1 and sum(lane.size for lane in lanes) > LANES_BYTES:
            half = len(lanes) // 2
            put_back = [lane.point for lane in lanes[half:]] + put_back
            lanes = lanes[:half]
        under_way = len(lanes) * study.share(int(chunk.market.time[-1]))
        tick(under_way)
    finish = partial(Lane.finish, seal=partial(seal, reading.ingredients))
    return _each(lanes, finish, pool, workers, pulse), put_back


def _each(
    lanes: Sequence[Lane],
    work: Callable[[Lane], Made],
    pool: Executor,
    workers: int,
    pulse: Callable[[], None],
) -> list[Made]:
    """Return what the work makes of each lane, slice by slice on the pool's threads."""
    step = -(-len(lanes) // (workers * SLICES)) if workers > 1 else len(lanes)
    slices = [lanes[first : first + step] for first in range(0, len(lanes), step)]
    stopped = threading.Event()

    def some(part: Sequence[Lane]) -> list[Made]:
        return [work(lane) for lane in part if not stopped.is_set()]

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
