"""Event table of a recording: gaps and other events, as numbered rows written again when closed.

A gap is written when it is seen and written again, over the same row, when more is known of it:
filled by the venue's history, or over. So a recorder killed in between leaves a gap, never silence.

`StreamAge` says when a stream has been silent for so long that it may become an event; a
`BackfillRequest` is a gap that the venue's history may fill.
"""

from __future__ import annotations

import json
import logging
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass, field
from time import time_ns
from typing import Any, Final

from fxlab.collect._live.trades import IdGap, is_time
from fxlab.collect.feed import Event, Trade
from fxlab.schema import EVENT_KINDS

_log: Final = logging.getLogger(__name__)

LONGEST_DETAIL: Final = 2_000
LONGEST_WORDS: Final = 500
ERRORS: Final = ("quarantine", "crossed_book", "venue_error")

OPEN: Final = "open"
"""State of a gap in which something is missing, or that lasts."""
FILLED: Final = "filled"
RESYNCED: Final = "resynced"
"""State of a book's gap that a snapshot ended: the book is known again, its updates are lost."""


@dataclass(slots=True)
class GapRow:
    """A gap's row and what it says now."""

    number: int
    symbol: str
    what: str
    from_time: int
    to_time: int | None
    missing: int | None
    detail: dict[str, Any] = field(default_factory=dict)


@dataclass(slots=True)
class EventRows:
    """Rows of `fxlab.schema.EVENTS` for one session.

    Attributes
    ----------
    number
        Of the last event.
    errors
        How many things were quarantined or refused.
    open_gaps
        Gaps of books that last, by symbol and kind of data.
    newest
        What was written last, for status and panels.
    """

    session_id: str
    number: int = 0
    errors: int = 0
    gaps: dict[int, str] = field(default_factory=dict)
    """Number and symbol of each gap that is open."""
    resynced: Counter[str] = field(default_factory=Counter)
    """How many gaps of each symbol's book a snapshot has ended."""
    open_gaps: dict[tuple[str, str], GapRow] = field(default_factory=dict)
    newest: Event | None = None
    _rows: dict[int, dict[str, Any]] = field(default_factory=dict)
    _alike: dict[tuple[str, str | None, str], int] = field(default_factory=dict)

    def add(
        self,
        kind: str,
        symbol: str | None,
        time: int,
        *,
        amount: int | None = None,
        detail: str = "",
    ) -> None:
        """Write an event; those alike within a batch become one row with their number."""
        time = time if is_time(time) else time_ns() // 1_000
        amount = amount if type(amount) is int else None
        if kind not in EVENT_KINDS:
            kind, detail = "venue_error", f"unknown event {kind!r}: {detail}"
        detail = _encodable(detail)
        self.errors += (amount or 1) if kind in ERRORS else 0
        self.newest = Event(kind, symbol, time, amount, detail)
        alike = (kind, symbol, detail.partition(":")[0])
        known = self._alike.get(alike)
        if known is not None:
            row = self._rows[known]
            row["count"] = (row["count"] or 1) + (amount or 1)
            row["to_time"] = time
            return
        _log.info("%s of %s: %s", kind, symbol or self.session_id, detail[:LONGEST_DETAIL])
        self.number += 1
        self._alike[alike] = self.number
        self._put(
            self.number,
            symbol=symbol,
            event=kind,
            from_time=time,
            to_time=time,
            count=amount,
            detail=detail[:LONGEST_DETAIL],
        )

    def _put(self, number: int, **columns: Any) -> None:  # noqa: ANN401 - of the table
        about = {"session_id": self.session_id, "seq": number, "timestamp": columns["from_time"]}
        self._rows[number] = about | columns

    def open_gap(
        self,
        symbol: str,
        what: str,
        from_time: int,
        to_time: int | None,
        missing: int | None,
        **detail: Any,  # noqa: ANN401 - what JSON can hold
    ) -> GapRow:
        """Write a gap and return it, to be written again."""
        self.number += 1
        gap = GapRow(self.number, symbol, what, from_time, to_time, missing, detail)
        self.write(gap)
        return gap

    def write(self, gap: GapRow) -> None:
        """Write a gap over its own row."""
        self._put(
            gap.number,
            symbol=gap.symbol,
            event="gap",
            from_time=gap.from_time,
            to_time=gap.to_time,
            count=gap.missing,
            detail=json.dumps({"what": gap.what, **_short(gap.detail)}),
        )
        self.newest = Event("gap", gap.symbol, gap.from_time, gap.missing, gap.what)
        _log.info("gap of %s in %s: %s missing", gap.symbol, gap.what, gap.missing)
        resynced = gap.detail.get("state") == RESYNCED
        if resynced:
            self.resynced[gap.symbol] += 1
        if gap.missing == 0 or resynced:
            self.gaps.pop(gap.number, None)
        else:
            self.gaps[gap.number] = gap.symbol

    def take(self) -> list[dict[str, Any]]:
        """Return the rows written since the last call."""
        rows, self._rows, self._alike = list(self._rows.values()), {}, {}
        return rows

    def to_json(self) -> dict[str, Any]:
        """Return what a later collector needs to go on."""
        gaps = {str(number): symbol for number, symbol in self.gaps.items()}
        lasting = [asdict(gap) for gap in self.open_gaps.values()]
        counts = {"number": self.number, "errors": self.errors, "resynced": dict(self.resynced)}
        return {**counts, "gaps": gaps, "lasting": lasting}

    def load(self, found: dict[str, Any]) -> None:
        """Go on after what `to_json` described."""
        self.number, self.errors = found["number"], found["errors"]
        self.gaps = {int(number): symbol for number, symbol in found["gaps"].items()}
        self.resynced = Counter(found.get("resynced", {}))
        lasting = [GapRow(**values) for values in found.get("lasting", ())]
        self.open_gaps = {(gap.symbol, gap.what): gap for gap in lasting}


def _short(detail: dict[str, Any]) -> dict[str, Any]:
    """Return a gap's detail that stays within a row, as whole JSON."""
    return {
        name: _encodable(value)[:LONGEST_WORDS] if isinstance(value, str) else value
        for name, value in detail.items()
    }


def _encodable(text: object) -> str:
    """Return a text without halves of characters, which JSON can hold and the database cannot."""
    return str(text).encode("utf-8", "backslashreplace").decode()


QUIET_SECONDS: Final = 20.0
"""A stream is asked about after so long a silence, however fast it was before."""
QUIET_INTERVALS: Final = 30
"""Of its mean intervals, a slow stream may be silent."""
QUIET_AFTER_RECONNECT: Final = 5.0
LONGEST_QUIET: Final = 600.0


@dataclass(slots=True)
class StreamAge:
    """How long one stream of one symbol has been silent, in seconds of monotonic time.

    Attributes
    ----------
    began, heard
        When the watch began, and when something came last.
    mark
        What changes with each message.
    rows
        Rows until now.
    asked
        Questions since something came last; each doubles the time until the next.
    suspected
        When a connection was made again, if nothing came since.
    """

    began: float
    heard: float
    mark: object = None
    rows: int = 0
    asked: int = 0
    suspected: float | None = None

    def look(self, mark: object, rows: int, now: float) -> None:
        """Take note of the present state."""
        if mark != self.mark:
            self.mark, self.rows = mark, rows
            self.heard, self.asked, self.suspected = now, 0, None

    def usual(self) -> float:
        """Return the mean seconds between two rows; 0 while there were none."""
        return (self.heard - self.began) / self.rows if self.rows else 0.0

    def is_overdue(self, now: float) -> bool:
        """Return whether it is silent for longer than its rate lets expect."""
        return now - self.heard > max(1.0, QUIET_INTERVALS * self.usual())

    def due(self) -> float:
        """Return when the venue is to be asked about the stream."""
        quiet = max(QUIET_SECONDS, QUIET_INTERVALS * self.usual())
        since = self.heard
        if self.suspected is not None and self.suspected + QUIET_AFTER_RECONNECT < since + quiet:
            since, quiet = self.suspected, QUIET_AFTER_RECONNECT
        return since + min(quiet * 2.0**self.asked, LONGEST_QUIET)


@dataclass(slots=True)
class BackfillRequest:
    """A gap in a symbol's trades that the venue's history may fill."""

    symbol: str
    ids: IdGap
    gap: GapRow


@dataclass(frozen=True, slots=True)
class BackfillResult:
    """What follows the trades that were asked for: how that ended."""

    request: BackfillRequest
    outcome: str


MOST_IDS: Final = 1_000
"""Ids from the first to the last that one question covers."""


def neighbours(found: Sequence[BackfillRequest]) -> list[list[BackfillRequest]]:
    """Return gaps in groups that one question covers: of one symbol, and close by their ids."""
    groups: list[list[BackfillRequest]] = []
    for one in sorted(found, key=lambda each: (each.symbol, each.ids.first)):
        first = groups[-1][0] if groups else None
        if (
            first is not None
            and first.symbol == one.symbol
            and one.ids.last - first.ids.first < MOST_IDS
        ):
            groups[-1].append(one)
        else:
            groups.append([one])
    return groups


def pieces(group: Sequence[BackfillRequest]) -> Iterator[tuple[int, int]]:
    """Yield the ids from the first to the last of a group, so many at a time as are asked for.

    A garbled id can make a gap of any size, of which the first answer is empty.
    """
    first, last = group[0].ids.first, group[-1].ids.last
    for at in range(first, last + 1, MOST_IDS):
        yield at, min(at + MOST_IDS - 1, last)


def is_wanted(trade: Trade, group: Sequence[BackfillRequest]) -> bool:
    """Return whether a trade lies in a gap: a venue's answer covers what is between them too."""
    return isinstance(trade.id, int) and any(
        one.ids.first <= trade.id <= one.ids.last for one in group
    )
