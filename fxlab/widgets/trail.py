"""A line that grows for hours and stays small enough to be sent several times a second."""

from __future__ import annotations

import numpy as np

from fxlab.sampling import Floats, rows_to_draw


class Trail:
    """Points in the order of time, at most twice `limit` of them; spikes and gaps are kept.

    Parameters
    ----------
    limit
        Points that are left each time the line is thinned, eight or more.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.clear()

    def clear(self) -> None:
        """Begin an empty line."""
        self.x: Floats = np.empty(0)
        self.y: Floats = np.empty(0)

    def add(self, x: Floats, y: Floats) -> None:
        """Append finite points that come after all others."""
        self.x, self.y = np.concatenate((self.x, x)), np.concatenate((self.y, y))
        if len(self.x) > 2 * self._limit:
            rows = rows_to_draw(self.x, self.y, self._limit)
            self.x, self.y = self.x[rows], self.y[rows]
