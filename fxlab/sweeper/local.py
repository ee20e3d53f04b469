"""The default executor: one process, as many threads as there are cores."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import Protocol

from fxlab.errors import InvalidParameter
from fxlab.numbers import integer
from fxlab.sweeper.lane import Outcome
from fxlab.sweeper.replaying import Tick, outcomes
from fxlab.sweeper.space import Point
from fxlab.sweeper.studies import Study


class Executor(Protocol):
    """Whatever can replay points."""

    def run(
        self, work: Sequence[Sequence[Point]], tick: Tick
    ) -> Iterator[tuple[int, list[Outcome]]]:
        """Yield outcomes as they come, with the number of their study; `work` has points of each.

        `tick` hears how many points' worth of work is under way; what it raises ends the work.
        """

    def close(self) -> None:
        """Stop what runs and free what is held."""


class Threads:
    """Session after session, the points of each on threads of this process."""

    def __init__(self, studies: Sequence[Study], workers: int) -> None:
        self._studies = studies
        self._workers = workers
        self._pool = ThreadPoolExecutor(workers, "fxlab-sweep")

    def run(
        self, work: Sequence[Sequence[Point]], tick: Tick
    ) -> Iterator[tuple[int, list[Outcome]]]:
        """Yield the outcomes of one session after the other."""
        for number, (study, points) in enumerate(zip(self._studies, work, strict=True)):
            for some in outcomes(study, points, self._pool, self._workers, tick):
                yield number, some

    def close(self) -> None:
        """Forget the points that have not begun; those at hand end by themselves."""
        self._pool.shutdown(wait=False, cancel_futures=True)


def check_workers(workers: int | None) -> int:
    """Return a number of workers: as many as this process may use cores, unless given."""
    if workers is None:
        return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else _cores()
    count = integer(workers, 1, 1024)
    if count is None:
        raise InvalidParameter(
            f"workers={workers!r:.80} is not a number of workers; give 1 or more, or leave it out "
            "to use every core"
        )
    return count


def _cores() -> int:
    return os.cpu_count() or 1
