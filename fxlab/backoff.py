"""How long to wait before something is tried again: longer each time, and never all at once."""

from __future__ import annotations

import random
from collections.abc import Iterator

_SHARED = random.Random()  # noqa: S311 - jitter, no secret


def wait_before(attempt: int, first: float, longest: float, rng: random.Random = _SHARED) -> float:
    """Return the seconds to wait after a failed attempt, the first of which is number 0.

    They double up to `longest`; at random up to half of them is taken off, so that those who
    failed together do not come back together.
    """
    return min(longest, first * 2.0 ** min(attempt, 64)) * rng.uniform(0.5, 1.0)


def waits(attempts: int, first: float, longest: float) -> Iterator[float]:
    """Yield the seconds to wait before each further attempt."""
    return (wait_before(attempt, first, longest) for attempt in range(attempts))
