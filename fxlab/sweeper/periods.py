"""The returns that a sweep keeps of each point: few, and over the same periods for all of them.

Overfitting is judged by comparing points period by period. A month has 43,200 minutes, and a
sweep may have 100,000 points; so neighbours on the grid are compounded until few are left.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Self

import numpy as np

KEPT: Final = 256


@dataclass(frozen=True, slots=True)
class Periods:
    """Equal periods of time that begin at a multiple of the grid.

    Attributes
    ----------
    start : int
        Where the first begins, UTC µs.
    grid : int
        Spacing of a run's returns, µs.
    steps : int
        How many of them lie in the time range.
    """

    start: int
    grid: int
    steps: int

    @classmethod
    def of(cls, bounds: tuple[int, int], grid: int) -> Self:
        """Return the periods of the time from the first to the last tick."""
        first, last = (moment // grid for moment in bounds)
        return cls(first * grid, grid, last - first + 1)

    @property
    def together(self) -> int:
        """Return how many steps of the grid make one period."""
        return -(-self.steps // KEPT)

    @property
    def edges(self) -> np.ndarray:
        """Return where the periods begin, and where the last one ends (int64 µs)."""
        begins = np.arange(0, self.steps, self.together, dtype=np.int64)
        return self.start + np.append(begins, self.steps) * self.grid

    def coarse(self, returns: np.ndarray, first: int) -> np.ndarray:
        """Return one return a period, of those on the grid from the time `first` on.

        A ruined account has -1 in the period of the ruin, and 0 after it.
        """
        whole = np.zeros(self.steps)
        offset = first // self.grid - self.start // self.grid
        whole[offset : offset + len(returns)] = returns
        if self.together == 1:
            return whole
        begins = np.arange(0, self.steps, self.together)
        compounded: np.ndarray = np.multiply.reduceat(1.0 + whole, begins) - 1.0
        return compounded
