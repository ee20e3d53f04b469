"""How long a sweep will take, said before it is too late."""

from __future__ import annotations

import time
from collections.abc import Sequence

from fxlab.errors import InvalidParameter
from fxlab.sweeper.space import Space
from fxlab.sweeper.studies import Study


def refuse_if_too_many(
    space: Space, studies: Sequence[Study], workers: int, points_limit: int
) -> None:
    """Raise `InvalidParameter` for a grid beyond the limit, with the time it would take."""
    if space.count <= points_limit:
        return
    seconds = sum(map(seconds_a_point, studies)) * space.count / workers
    sizes = " x ".join(f"{len(axis):,} {axis.name}" for axis in space.axes)
    raise InvalidParameter(
        f"the grid has {space.count:,} points ({sizes}), about {duration_words(seconds)} on "
        f"{workers} core{'s' * (workers > 1)}; use search='random', points=500, or give "
        f"points_limit={space.count} if you mean it"
    )


def seconds_a_point(study: Study) -> float:
    """Return about how long one point of a study takes on one core, from its first chunk."""
    lanes = [study.lane(study.example) for _ in range(2)]
    chunk = next(study.read([lanes[0].signals]).chunks())
    lanes[0].advance(chunk)  # compiles
    began = time.perf_counter()
    lanes[1].advance(chunk)
    spent = time.perf_counter() - began
    return spent / max(1e-6, study.share(int(chunk.market.time[-1])))


def duration_words(seconds: float) -> str:
    """Return a duration as people say it: ``12 s``, ``3 min``, ``5 h``, ``12 days``."""
    for unit, size, until in (("s", 1, 120), ("min", 60, 7_200), ("h", 3_600, 172_800)):
        if seconds < until:
            return f"{max(1, round(seconds / size)):,} {unit}"
    return f"{round(seconds / 86_400):,} days"
