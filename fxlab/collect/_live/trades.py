"""Trade deduplication and gap detection by ids, and the `seq` of each recorded trade.

On venues whose ids rise by one, the ids seen are a few ranges, and what lies between them is a gap.
It may fill by itself (frames overtake each other), so it is reported only after a while. An id that
was seen, with a time later than all others, means that the venue restarted its numbering: such
trades are no duplicates.
"""

from __future__ import annotations

import itertools
import math
from bisect import bisect_right
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import astuple, dataclass, field, replace
from numbers import Integral, Real
from operator import index
from typing import Any, Final, Self

from fxlab.collect._live.checksum import SIDE_CODES
from fxlab.collect.feed import ChannelRow, Trade
from fxlab.schema import CHANNELS, ORIGINS

RECENT_ROWS: Final = 256
"""Liquidations of a symbol that are remembered: two connections may tell the same for a while."""
RECENT: Final = 16_384
"""Trades whose times are remembered, to tell a duplicate from an id that is used again."""


@dataclass(slots=True)
class IdGap:
    """Ids that were skipped.

    Attributes
    ----------
    first, last
        Both ends included.
    from_time, to_time
        The venue's times of the trades beside it (microseconds).
    seen
        When it was noticed: arrival time of the trade after it.
    count
        In which count of the venue: its `IdRanges.restarts`.
    since
        Arrival of the last trade before it that came by itself.
    """

    first: int
    last: int
    from_time: int
    to_time: int
    seen: int
    count: int = 0
    since: int = 0


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
class IdRanges:
    """The ids of one symbol, on a venue that counts by one.

    Attributes
    ----------
    spans
        Ranges of ids that were seen, in order, both ends included; of the present count only.
    newest
        The latest venue time seen.
    restarts
        How often the venue restarted its numbering.
    arrived
        When the last trade came that nobody had asked for.
    """

    spans: list[list[int]] = field(default_factory=list)
    newest: int = 0
    restarts: int = 0
    missed_before: int = 0
    """Ids that were missing when a count ended."""
    gaps: list[IdGap] = field(default_factory=list)
    recent: Recent = field(default_factory=Recent)
    arrived: int = 0

    @property
    def missing(self) -> int:
        """Return how many ids lie between those that were seen."""
        between = sum(b[0] - a[1] - 1 for a, b in itertools.pairwise(self.spans))
        return self.missed_before + between

    def add_run(self, ids: Sequence[int], times: Sequence[int]) -> bool:
        """Take trades that continue the last span without a gap; False if they do not."""
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
            "new"; "restart", which is new and the first of a new count; "duplicate"; or "conflict",
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
                return "duplicate" if before == time else "conflict"
            return self._restart() if time > self.newest else "duplicate"
        if identity < self.spans[0][0] and time > self.newest:
            return self._restart()
        return "new"

    def _restart(self) -> str:
        self.missed_before = self.missing
        self.gaps = [part for gap in self.gaps for part in self.rest_of(gap)]
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
        self._note_gap(identity, time, received, before, after)
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

    def _note_gap(
        self,
        identity: int,
        time: int,
        received: int,
        before: list[int] | None,
        after: list[int] | None,
    ) -> None:
        """Remember ids that this trade skips, at either end of what was seen."""
        if after is None and before is not None and identity > before[1] + 1:
            first, last, times = before[1] + 1, identity - 1, (self.newest, time)
        elif before is None and after is not None and identity < after[0] - 1:
            first, last, times = identity + 1, after[0] - 1, (time, self.newest)
        else:
            return
        self.gaps.append(IdGap(first, last, *times, received, self.restarts, self.arrived))

    def settled(self, until: int) -> list[IdGap]:
        """Return what is left of the gaps noticed up to a time, and forget those."""
        ripe = [gap for gap in self.gaps if gap.seen <= until]
        self.gaps = [gap for gap in self.gaps if gap.seen > until]
        return [part for gap in ripe for part in self.rest_of(gap)]

    def rest_of(self, gap: IdGap) -> list[IdGap]:
        """Return the parts of a gap that are still open; of an earlier count none fill."""
        if gap.count != self.restarts:
            return [gap]
        parts = []
        start = gap.first
        for first, last in self.spans:
            if last >= start and first <= gap.last:
                if first > start:
                    parts.append((start, first - 1))
                start = last + 1
        if start <= gap.last:
            parts.append((start, gap.last))
        return [replace(gap, first=a, last=b) for a, b in parts]

    def to_json(self) -> dict[str, Any]:
        """Return what a later collector needs to go on."""
        return {
            "spans": self.spans,
            "newest": self.newest,
            "restarts": self.restarts,
            "missed_before": self.missed_before,
            "holes": [astuple(gap) for gap in self.gaps],
            "arrived": self.arrived,
        }

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Return the ids that `to_json` described."""
        return cls(
            spans=[list(span) for span in found["spans"]],
            newest=found["newest"],
            restarts=found["restarts"],
            missed_before=found["missed_before"],
            gaps=[IdGap(*values) for values in found["holes"]],
            arrived=found.get("arrived", 0),
        )


EARLIEST_US: Final = 946_684_800_000_000
LATEST_US: Final = 4_102_444_800_000_000
"""The years 2000 to 2099: a time outside is no trade's."""

MOST_ID: Final = 2**63
LONGEST_ID: Final = 200


@dataclass(slots=True)
class NumberedTrade:
    """Trades that are new, and the identity of each row."""

    trades: list[Trade] = field(default_factory=list)
    seqs: list[int] = field(default_factory=list)
    refused: list[tuple[Trade, str]] = field(default_factory=list)
    """Trades that are none, and why."""
    restarted: list[Trade] = field(default_factory=list)
    """The first trades of a new count of ids."""

    def take(self, trade: Trade, seq: int) -> None:
        """Add one that is new."""
        self.trades.append(trade)
        self.seqs.append(seq)


@dataclass(slots=True)
class TradeDeduplicator:
    """What is known of a symbol's trades.

    Attributes
    ----------
    ids
        The ranges of ids that were seen, on a venue that counts by one; else None.
    doubles
        Trades that came again.
    counter
        The last `seq` given to a trade without a number.
    """

    ids: IdRanges | None
    recent: Recent = field(default_factory=Recent)
    doubles: int = 0
    counter: int = 0

    def take(self, trades: Sequence[Trade]) -> NumberedTrade:
        """Return the new ones among trades of this symbol, in the order they came."""
        found = NumberedTrade()
        good = _checked(trades, found)
        if not good:
            return found
        if self.ids is None:
            self._take_plain(good, found)
        else:
            self._take_counted(self.ids, good, found)
        return found

    def _take_counted(self, ids: IdRanges, trades: list[Trade], found: NumberedTrade) -> None:
        numbers = [trade.id for trade in trades]
        if ids.add_run(numbers, [trade.time for trade in trades]):  # type: ignore[arg-type]
            found.trades, found.seqs = trades, numbers  # type: ignore[assignment]  # checked
            if trades[-1].origin == "live":
                ids.arrived = trades[-1].received
            return
        for trade in trades:
            if not isinstance(trade.id, int):
                found.refused.append((trade, f"id {trade.id!r} is not a whole number"))
                continue
            verdict = ids.add(trade.id, trade.time, trade.received)
            if trade.origin == "live":
                ids.arrived = trade.received
            if verdict in ("new", "restart"):
                found.take(trade, trade.id)
            if verdict == "restart":
                found.restarted.append(trade)
            elif verdict == "duplicate":
                self.doubles += 1
            elif verdict == "conflict":
                found.refused.append((trade, f"id {trade.id} came before with another time"))

    def _take_plain(self, trades: Iterable[Trade], found: NumberedTrade) -> None:
        """Take trades whose ids show no gaps; one with an id that comes twice is still known."""
        for trade in trades:
            if trade.id is not None:
                identity = str(trade.id)
                if self.recent.time_of(identity) == trade.time:
                    self.doubles += 1
                    continue
                self.recent.add((identity,), (trade.time,))
            if isinstance(trade.id, int):
                found.take(trade, trade.id)
            else:
                self.counter += 1
                found.take(trade, self.counter)

    def to_json(self) -> dict[str, Any]:
        """Return what a later collector needs to go on."""
        ids = self.ids.to_json() if self.ids is not None else None
        return {"ids": ids, "doubles": self.doubles, "counter": self.counter}

    @classmethod
    def from_json(cls, found: dict[str, Any]) -> Self:
        """Return what `to_json` described."""
        ids = IdRanges.from_json(found["ids"]) if found["ids"] is not None else None
        track = cls(ids, doubles=found["doubles"], counter=found["counter"])
        track.recent.add(*found.get("recent", ((), ())))
        return track


@dataclass(slots=True)
class ChannelDeduplicator:
    """What is known of one channel of a symbol: its rows are numbered as they come.

    Liquidations are told apart by all they say. Everything else is a state, of which only what is
    newer than the last one is new: so answers that repeat it, and a second connection, add nothing.

    Attributes
    ----------
    doubles
        Rows that came again, or late.
    counter
        The last `seq`.
    newest
        Time of the newest row, in microseconds.
    """

    channel: str
    doubles: int = 0
    counter: int = 0
    newest: int = 0
    _recent: deque[tuple[Any, ...]] = field(default_factory=lambda: deque(maxlen=RECENT_ROWS))

    def take(self, row: ChannelRow) -> int | None:
        """Return the `seq` of a new row, None for one that came before.

        Raises
        ------
        ValueError
            If it cannot be stored.
        """
        _check_row(row)
        if self.channel == "liquidations":
            said = (row.time, *sorted(row.values.items(), key=lambda one: one[0]))
            is_new = said not in self._recent
            self._recent.append(said)
        else:
            is_new = row.time > self.newest
        if not is_new:
            self.doubles += 1
            return None
        self.newest = max(self.newest, row.time)
        self.counter += 1
        return self.counter

    def to_json(self) -> dict[str, int]:
        """Return what a later collector needs to go on."""
        return {"doubles": self.doubles, "counter": self.counter, "newest": self.newest}

    @classmethod
    def from_json(cls, channel: str, found: dict[str, int]) -> Self:
        """Return what `to_json` described."""
        return cls(channel, found["doubles"], found["counter"], found["newest"])


def _check_row(row: ChannelRow) -> None:
    kinds = CHANNELS[row.channel].columns
    for name, value in row.values.items():
        kind = kinds.get(name)
        if kind == "DOUBLE":
            fits = value is None or (type(value) is float and math.isfinite(value))
        elif kind == "TIMESTAMP":
            fits = value is None or is_time(value)
        else:
            fits = kind == "SYMBOL" and value in SIDE_CODES
        if not fits or name in ("symbol", "origin", "session_id"):
            raise ValueError(f"{row.channel} has {name}={value!r:.60}, which cannot be stored")
    if not is_time(row.time) or not is_time(row.received) or not row.values:
        raise ValueError(f"{row.channel} has no values, or no time: {row!r:.200}")
    if row.origin not in ORIGINS:
        raise ValueError(f"{row.channel} has the origin {row.origin!r:.40}, which is none")


def is_time(value: object) -> bool:
    """Return whether a number is a time that can be stored: whole microseconds of this century."""
    return type(value) is int and EARLIEST_US <= value < LATEST_US


def _checked(trades: Sequence[Trade], found: NumberedTrade) -> list[Trade]:
    """Return those that can be stored; NaN and infinity would become null in the database."""
    good = []
    for trade in trades:
        _, identity, side, price, volume, time, received, _ = trade
        try:
            if type(price) is type(volume) is float and type(time) is type(received) is int:
                plain = trade
            else:
                plain = _made_plain(trade)
                _, identity, side, price, volume, time, received, _ = plain
            fits = (
                0.0 < price < math.inf
                and 0.0 <= volume < math.inf
                and EARLIEST_US <= time < LATEST_US
                and EARLIEST_US <= received < LATEST_US
                and side in SIDE_CODES
                and (0 <= identity < MOST_ID if type(identity) is int else _is_text(identity))
            )
        except (TypeError, OverflowError):
            fits = False
        if fits:
            good.append(plain)
        else:
            found.refused.append((trade, "id, side, price, volume or time is invalid"))
    return good


def _made_plain(trade: Trade) -> Trade:
    """Return a trade of a feed that has whole prices or numpy's numbers."""
    numbers: tuple[Any, ...] = (trade.price, trade.volume)
    for value in numbers:
        if isinstance(value, bool) or not isinstance(value, Real):
            raise TypeError
    identity = index(trade.id) if isinstance(trade.id, Integral) else trade.id
    return trade._replace(
        id=identity,
        price=float(trade.price),
        volume=float(trade.volume),
        time=index(trade.time),
        received=index(trade.received),
    )


def _is_text(identity: object) -> bool:
    """Return whether an id that is no number is missing, or a text without control characters."""
    if isinstance(identity, str):
        return len(identity) <= LONGEST_ID and identity.isprintable()
    return identity is None
