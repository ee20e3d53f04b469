"""Groups of points over other processes, and several sessions at once over those of this machine.

Threads share all that is worth sharing for one session; for several, processes also share the work
of strategies that hold Python's lock.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, ThreadPoolExecutor, wait
from typing import Final

from fxlab import child_process
from fxlab.errors import WorkerLost
from fxlab.sweeper import estimate
from fxlab.sweeper.lane import Outcome
from fxlab.sweeper.replaying import MOST_POINTS, PULSE_SECONDS, Tick, next_size, outcomes
from fxlab.sweeper.shipping import Parcel, load, pickled
from fxlab.sweeper.space import Point
from fxlab.sweeper.studies import Study

WORTH_SECONDS: Final = 20.0
"""Work of one core from which on starting processes pays."""

Waiting = dict[int, list[Point]]
"""Number of a study to its points that nobody has yet."""

Answer = tuple[int, list[Outcome]]
"""How many points to take next, and what became of these."""

Sent = tuple["Future[Answer]", int, list[Point]]

_opened: dict[str, Study] = {}
"""The studies that this process has opened for others; its threads share them."""

_lock = threading.Lock()


def replay_group(key: str, parcel: bytes | None, points: list[Point], threads: int) -> Answer:
    """Replay some points in the process that this runs in."""
    with _lock:
        if key not in _opened and parcel is not None:
            _opened[key] = load(parcel).opened()
        study = _opened[key]
    began = time.monotonic()
    with ThreadPoolExecutor(threads) as pool:
        groups = outcomes(study, points, pool, threads, _unheard, size=len(points))
        found = [one for group in groups for one in group]
    size = next_size(len(points), time.monotonic() - began, quick=study.is_quick)
    return min(MOST_POINTS, size), found


def _unheard(under_way: float) -> None:
    """Tell nobody: a group is short."""


def forget(keys: Sequence[str]) -> int:
    """Free the studies of this process; return how many others it has opened."""
    with _lock:
        for key in keys:
            _opened.pop(key, None)
        return len(_opened)


class Spread:
    """Points in groups over other processes; who those are is for those who inherit it."""

    def __init__(self) -> None:
        self._sizes: dict[int, int] = {}
        self._under_way: dict[Future[Answer], tuple[int, list[Point]]] = {}

    def run(
        self, work: Sequence[Sequence[Point]], tick: Tick
    ) -> Iterator[tuple[int, list[Outcome]]]:
        """Yield outcomes of all sessions as they come."""
        waiting = {number: list(points) for number, points in enumerate(work) if points}
        under_way = self._under_way
        try:
            while waiting or under_way:
                while waiting and (sent := self._send(waiting)) is not None:
                    under_way[sent[0]] = sent[1:]
                for future in wait(under_way, PULSE_SECONDS, FIRST_COMPLETED).done:
                    number, points = under_way.pop(future)
                    try:
                        self._sizes[number], found = future.result()
                    except Exception as error:  # noqa: BLE001 - whoever inherits this raises it
                        self._failed(number, points, error)
                        waiting[number] = points + waiting.get(number, [])
                        continue
                    yield number, found
                tick(0.0)
        finally:
            for future in under_way:
                future.cancel()
            under_way.clear()

    def _take(self, waiting: Waiting, number: int) -> list[Point]:
        """Take points of a study out of those that wait, as many as are a second's work."""
        points, size = waiting.pop(number), self._sizes.get(number, 1)
        if points[size:]:
            waiting[number] = points[size:]
        return points[:size]

    def _send(self, waiting: Waiting) -> Sent | None:
        """Give points to somebody who is free; None if nobody is."""
        raise NotImplementedError

    def _failed(self, number: int, points: list[Point], error: Exception) -> None:
        """Raise the error of a group, unless it should be tried again."""
        raise NotImplementedError


def worth(studies: Sequence[Study], points: int, workers: int) -> list[bytes] | None:
    """Return the studies as bytes if processes are worth it and possible, else None."""
    if len(studies) < 2 or workers < 2:
        return None
    if estimate.seconds_a_point(studies[0]) * points * len(studies) < WORTH_SECONDS:
        return None
    parcels = [Parcel.of(study, passwords=True) for study in studies]
    made = [pickled(parcel) for parcel in parcels if parcel is not None]
    whole = [one for one in made if one is not None]
    return whole if len(whole) == len(studies) else None


class Processes(Spread):
    """Sessions over processes of this machine; each session is read by one of them only."""

    def __init__(self, studies: Sequence[Study], parcels: Sequence[bytes], workers: int) -> None:
        super().__init__()
        self._names = [study.session for study in studies]
        self._parcels = parcels
        count = min(workers, len(parcels))
        self._threads = max(1, workers // count)
        self._pools = [child_process.start() for _ in range(count)]
        self._busy: dict[int, Future[Answer]] = {}
        self._owners: dict[int, int] = {}

    def close(self) -> None:
        """End the processes, whatever they do."""
        for pool in self._pools:
            child_process.end(pool)

    def _send(self, waiting: Waiting) -> Sent | None:
        """Give a free process points of a session: one that it has read already, if there is."""
        for place, pool in enumerate(self._pools):
            if place in self._busy and not self._busy[place].done():
                continue
            numbers = [n for n in waiting if self._owners.get(n, place) == place]
            if not numbers:
                continue
            number = min(numbers, key=lambda n: (n not in self._owners, n))
            parcel = None if number in self._owners else self._parcels[number]
            self._owners[number] = place
            points = self._take(waiting, number)
            try:
                future = pool.submit(replay_group, str(number), parcel, points, self._threads)
            except BrokenExecutor as error:  # it was lost while it had nothing to do
                self._failed(number, points, error)
                raise
            self._busy[place] = future
            return future, number, points
        return None

    def _failed(self, number: int, points: list[Point], error: Exception) -> None:
        if not isinstance(error, BrokenExecutor):
            raise error
        raise WorkerLost(
            f"the process that replayed {len(points)} points of session {self._names[number]} "
            f"ended with code {child_process.exit_code(error)}: it was killed, or had too little "
            "memory; with lab=... the same call goes on from what is stored; workers=1 uses no "
            "other process"
        ) from error
