"""Arithmetic of spans of time: what is covered, where two coverings overlap.

Positions, holes of a recording and the intervals of a chart are all spans; asking how much of one
lies in another is one question, answered once, exactly, in whole microseconds.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Self

import numpy as np
import numpy.typing as npt

Micros = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True)
class Spans:
    """Half-open spans ``[start, end)`` in µs, rising, none touching another.

    Build them with `of`, which sorts, merges, and drops what is empty.
    """

    starts: Micros
    ends: Micros

    @classmethod
    def of(cls, starts: Micros, ends: Micros) -> Self:
        """Return the union of spans in any order; those that overlap or touch become one."""
        real = ends > starts
        order = np.argsort(starts[real], kind="stable")
        starts, ends = starts[real][order], ends[real][order]
        reach = np.maximum.accumulate(ends)
        fresh = np.ones(len(starts), dtype=bool)
        fresh[1:] = starts[1:] > reach[:-1]
        last = np.append(fresh[1:], True) if len(starts) else fresh
        return cls(starts[fresh], reach[last])

    @property
    def total(self) -> int:
        """Return the time covered, in µs."""
        return int((self.ends - self.starts).sum())

    def union(self, other: Spans) -> Spans:
        """Return what either covers."""
        return Spans.of(
            np.concatenate((self.starts, other.starts)), np.concatenate((self.ends, other.ends))
        )

    def before(self, times: Micros) -> Micros:
        """Return how much is covered before each time, in µs."""
        lengths = np.concatenate(([0], np.cumsum(self.ends - self.starts)))
        count = np.searchsorted(self.starts, times, side="right")
        ends = np.concatenate(([np.iinfo(np.int64).min // 2], self.ends))
        return np.asarray(lengths[count] - np.maximum(0, ends[count] - times), dtype=np.int64)

    def inside(self, starts: Micros, ends: Micros) -> Micros:
        """Return how much of each of the given spans is covered, in µs."""
        return self.before(ends) - self.before(starts)

    def overlap(self, other: Spans) -> Spans:
        """Return what both cover."""
        edges = np.unique(np.concatenate((self.starts, self.ends, other.starts, other.ends)))
        starts, ends = edges[:-1], edges[1:]
        both = (self.inside(starts, ends) > 0) & (other.inside(starts, ends) > 0)
        return Spans.of(starts[both], ends[both])

    def within(self, first: int, last: int) -> Spans:
        """Return the part between two times."""
        return Spans.of(np.clip(self.starts, first, last), np.clip(self.ends, first, last))
