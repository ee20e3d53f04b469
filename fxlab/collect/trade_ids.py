"""Which trades of a symbol were seen: by their ids doubles are known, and holes.

On venues whose ids rise by one, the ids seen are a few ranges, and what lies between them is
missing. A hole may fill by itself (frames overtake each other), so it counts as a gap only after a
while. An id that was seen, with a time later than all others, means that the venue began to count
anew: such trades are no doubles.
"""

from __future__ import annotations

import itertools
from bisect import bisect_right
from collections.abc import Sequence
from dataclasses import astuple, dataclass, field, replace
from typing import Any, Final, Self

RECENT: Final = 16_384
"""Trades whose times are remembered, to tell a double from an id that is used again."""


@dataclass(slots=True)
class Hole:
    """Ids that were leapt over.

    Attributes
    ----------
    first, last
        Both ends included.
    from_time, to_time
        The venue's times of the trades beside it (microseconds).
    seen
        When it was noticed: arrival time of the trade after it.
    count
        In which count of the venue: its `TradeIds.restarts`.
    """

    first: int
    last: int
    from_time: int
    to_time: int
    seen: int
    count: int = 0


class Recent:
    """Ids and times of the last trades."""

    def __init__(self) -> None:
        self._times: dict[Any, int] = {}

    def add(self, ids: Sequence[Any], times: Sequence[int]) -> None:
        """Remember trades, and forget the oldest ones."""
        self._times.update(zip(ids, times, strict=True))
        excess = len(self._times) - 2 * RECENT
        if excess > 0:
            self._times = dict(itertools.islice(self._times.items(), excess + RECENT, None))

    def time_of(self, identity: Any) -> int | None:  # noqa: ANN401 - a number or a text
        """Return the time that a trade had, if it is remembered."""
        return self._times.get(identity)


@dataclass(slots=True)
class TradeIds:
    """The ids of one symbol, on a venue that counts by one.

    Attributes
    ----------
    spans
        Ranges of ids that were seen, in order, both ends included; of the present count only.
    newest
        The latest venue time seen.
    restarts
        How often the venue began to count anew.
    """

    spans: list[list[int]] = field(default_factory=list)
    newest: int = 0
    restarts: int = 0
    missed_before: int = 0
    """Ids that were missing when a count ended."""
    holes: list[Hole] = field(default_factory=list)
    recent: Recent = field(default_factory=Recent)

    @property
    def missing(self) -> int:
        """Return how many ids lie between those that were seen."""
        between = sum(b[0] - a[1] - 1 for a, b in itertools.pairwise(self.spans))
        return self.missed_before + between

    def add_run(self, ids: Sequence[int], times: Sequence[int]) -> bool:
        """Take trades that continue the last span without a hole; False if they do not."""
        first, last = ids[0], ids[-1]
        if (
            not self.spans
            or first != self.spans[-1][1] + 1
            or list(ids) != [*range(first, last + 1)]
        ):
            return False
        self.spans[-1][1] = last
        self.newest = max(self.newest, *times)
        self.recent.add(ids, times)
        return True

    def add(self, identity: int, time: int, received: int) -> str:
        """Take one trade and return what it is.

        Returns
        -------
        str
            "new"; "restart", which is new and the first of a new count; "double"; or "conflict",
            a trade just seen that has another time now. Only the first two are taken.
        """
        verdict = self._judge(identity, time)
        if verdict in ("new", "restart"):
            self._insert(identity, time, received)
            self.recent.add((identity,), (time,))
            self.newest = max(self.newest, time)
        return verdict

    def _judge(self, identity: int, time: int) -> str:
        if not self.spans or identity > self.spans[-1][1]:
            return "new"
        if self._has(identity):
            before = self.recent.time_of(identity)
            if before is not None:
                return "double" if before == time else "conflict"
            return self._restart() if time > self.newest else "double"
        if identity < self.spans[0][0] and time > self.newest:
            return self._restart()
        return "new"

    def _restart(self) -> str:
        self.missed_before = self.missing
        self.holes = [part for hole in self.holes for part in self.rest_of(hole)]
        self.restarts += 1
        self.spans = []
        self.recent = Recent()
        return "restart"

    def _has(self, identity: int) -> bool:
        place = bisect_right(self.spans, identity, key=lambda span: span[0]) - 1
        return place >= 0 and identity <= self.spans[place][1]

    def _insert(self, identity: int, time: int, received: int) -> None:
        place = bisect_right(self.spans, identity, key=lambda span: span[0])
        before = self.spans[place - 1] if place else None
        after = self.spans[place] if place < len(self.spans) else None
        self._note_hole(identity, time, received, before, after)
        joins_before = before is not None and before[1] == identity - 1
        joins_after = after is not None and after[0] == identity + 1
        if joins_before and joins_after:
            before[1] = after[1]  # type: ignore[index]  # both are there
            del self.spans[place]
        elif joins_before:
            before[1] = identity  # type: ignore[index]
        elif joins_after:
            after[0] = identity  # type: ignore[index]
        else:
            self.spans.insert(place, [identity, identity])

    def _note_hole(
        self,
        identity: int,
        time: int,
        received: int,
        before: list[int] | None,
        after: list[int] | None,
    ) -> None:
        """Remember ids that this trade leaps over, at either end of what was seen."""
        if after is None and before is not None and identity > before[1] + 1:
            first, last, times = before[1] + 1, identity - 1, (self.newest, time)
        elif before is None and after is not None and identity < after[0] - 1:
            first, last, times = identity + 1, after[0] - 1, (time, self.newest)
        else:
            return
        self.holes.append(Hole(first, last, *times, received, self.restarts))

    def settled(self, until: int) -> list[Hole]:
        """Return what is still missing of the holes noticed up to a time, and forget those."""
        ripe = [hole for hole in self.holes if hole.seen <= until]
        self.holes = [hole for hole in self.holes if hole.seen > until]
        return [part for hole in ripe for part in self.rest_of(hole)]

    def rest_of(self, hole: Hole) -> list[Hole]:
        """Return the parts of a hole that are still missing; of an earlier count none fill."""
        if hole.count != self.restarts:
            return [hole]
        parts = []
        start = hole.first
        for first, last in self.spans:
            if last >= start and first <= hole.last:
                if first > start:
                    parts.append((start, first - 1))
                start = last + 1
        if start <= hole.last:
            parts.append((start, hole.last))
        return [replace(hole, first=a, last=b) for a, b in parts]

    def to_json(self) -> dict[str, Any]:
        """Return what a later collector needs to go on."""
        return {
            "spans": self.spans,
            "newest": self.newest,
            "restarts": self.restarts,
            "missed_before": self.missed_before,
            "holes": [astuple(hole) for hole in self.holes],
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Return the ids that `to_json` described."""
        return cls(
            spans=[list(span) for span in found["spans"]],
            newest=found["newest"],
            restarts=found["restarts"],
            missed_before=found["missed_before"],
            holes=[Hole(*values) for values in found["holes"]],
        )
