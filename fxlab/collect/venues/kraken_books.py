"""Kraken's books on their way out: checked, numbered, and with every hole told.

An update that does not lead to the venue's checksum is not passed on: a gap begins, and lasts
until a snapshot comes that proves itself. Other symbols are not touched by it.
"""

from __future__ import annotations

from fxlab.collect.feed import BookDelta, BookSnapshot, Event, Gap, Level, Message, Quote
from fxlab.collect.venues.kraken_checksum import CheckedBook
from fxlab.collect.venues.kraken_frames import BookFrame


class ProvenBook:
    """One symbol's book.

    Kraken gives its updates no numbers, so they are counted here, through all reconnects.

    Parameters
    ----------
    symbol
        fxlab's name.
    quotes
        Whether only the best bid and ask are wanted.

    Attributes
    ----------
    synced
        Whether the book is known and proven.
    broken
        Whether it takes a new subscription to know it again.
    proofs
        How many snapshots proved themselves.
    """

    def __init__(self, symbol: str, *, quotes: bool) -> None:
        self.symbol = symbol
        self.synced = False
        self.broken = False
        self.proofs = 0
        self._quotes = quotes
        self._book = CheckedBook()
        self._count = 0
        self._last_time: int | None = None
        self._gap: Gap | None = None
        self._told: tuple[Level, Level] | None = None

    def take(self, frame: BookFrame) -> list[Message]:
        """Return what a frame means for the record: nothing while the book is not known."""
        if frame.snapshot:
            return self._begin(frame)
        if not self.synced:
            self.broken = True
            return []
        bids, asks = self._book.apply(frame.bids, frame.asks)
        if self._book.checksum != frame.checksum:
            return self.lose(self._difference(frame))
        self._count += 1
        self._last_time = frame.time
        if self._quotes:
            return self._quote(frame)
        return [
            BookDelta(self.symbol, self._count, self._count, bids, asks, frame.time, frame.received)
        ]

    def lose(self, cause: str) -> list[Message]:
        """Forget the book; return the gap that begins, if none has begun already."""
        self.synced, self.broken = False, True
        if self._gap is not None or self._last_time is None:
            return []
        self._gap = Gap(self.symbol, "orderbook", self._last_time, None, None, cause)
        return [self._gap]

    def expect_snapshot(self) -> None:
        """Take note that a new subscription is under way."""
        self.broken = False

    def _begin(self, frame: BookFrame) -> list[Message]:
        self._book.reset(frame.bids, frame.asks)
        if self._book.checksum != frame.checksum:
            cause = self._difference(frame)
            error = Event("venue_error", self.symbol, frame.received, 1, f"snapshot: {cause}")
            return [*self.lose(cause), error]
        self.synced, self.broken = True, False
        self.proofs += 1
        self._count += 1
        self._told = None
        if self._last_time is not None:
            # A snapshot has no time; that of its arrival may lie before the last update.
            frame = frame._replace(time=max(frame.time, self._last_time))
        return [*self._end_gap(frame), *self._snapshot(frame)]

    def _end_gap(self, frame: BookFrame) -> list[Message]:
        gap, self._gap = self._gap, None
        self._last_time = frame.time
        if gap is None:
            return []
        ended = gap._replace(to_time=frame.time)
        return [ended, Event("resync", self.symbol, frame.time, 1, gap.cause)]

    def _snapshot(self, frame: BookFrame) -> list[Message]:
        if self._quotes:
            return self._quote(frame)
        bids, asks = self._book.levels
        return [BookSnapshot(self.symbol, self._count, bids, asks, frame.time, frame.received)]

    def _quote(self, frame: BookFrame) -> list[Message]:
        best = self._book.best
        if best is None or best == self._told:
            return []
        self._told = best
        return [Quote(self.symbol, *best[0], *best[1], self._count, frame.time, frame.received)]

    def _difference(self, frame: BookFrame) -> str:
        return f"checksum {frame.checksum} of the venue, {self._book.checksum} of the book here"
