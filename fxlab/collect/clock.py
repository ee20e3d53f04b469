"""When a frame arrived: wall time that never jumps by itself.

Arrival times come from the wall clock once and from the monotonic clock after that, so that no
duration is ever negative. Somebody who sets the wall clock is noticed by `step`, which the
collector writes into the ledger before times follow it.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final

STEP_US: Final = 500_000
"""From this difference on, the wall clock was set; below it, it was only steered."""


class Clock:
    """Microseconds since the epoch.

    Parameters
    ----------
    wall, monotonic
        Nanosecond clocks.
    """

    def __init__(
        self,
        wall: Callable[[], int] = time.time_ns,
        monotonic: Callable[[], int] = time.monotonic_ns,
    ) -> None:
        self._wall = wall
        self._monotonic = monotonic
        self._offset = wall() - monotonic()

    def now(self) -> int:
        """Return the time, in microseconds since the epoch (UTC)."""
        return (self._monotonic() + self._offset) // 1_000

    def step(self) -> int:
        """Return by how many microseconds the wall clock was set since the last look, mostly 0.

        Steps below `STEP_US` are steering, which is followed without a word.
        """
        before = self._offset
        self._offset = self._wall() - self._monotonic()
        moved = (self._offset - before) // 1_000
        return moved if abs(moved) >= STEP_US else 0
