"""One recording from Binance: several connections, books and best quotes on each."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import Any, Final, Protocol

from fxlab.collect.address import Address
from fxlab.collect.book_sync import Diff
from fxlab.collect.clock import Clock
from fxlab.collect.feed import BookSnapshot, Event, Instrument, Message, Quote, Subscription, Trade
from fxlab.collect.venues.binance_frames import parse, snapshot
from fxlab.collect.venues.binance_plan import Line, Terms, plan, subscriptions
from fxlab.collect.venues.snapshot_run import SnapshotRun
from fxlab.collect.wire import Closed, Frame, Opened, Wire

SILENCE: Final = 30.0
HEARTBEAT: Final = ('{"method":"LIST_SUBSCRIPTIONS","id":0}', 10.0)
"""Answered by the streams' own server, so that a quiet market is not taken for a dead one."""
MANY, LEVELS_OF_MANY = 20, 1000
"""From so many books on, snapshots are smaller: large ones use up the venue's limit of requests."""


class Asker(Protocol):
    """What a run needs of its feed."""

    address: Address
    clock: Clock

    async def ask(self, question: str, **parameters: str | int) -> Any:  # noqa: ANN401 - JSON
        """Return what the venue answers to a request."""

    async def listed(self, natives: Sequence[str]) -> dict[str, Instrument]:
        """Return what is known of some of the venue's symbols, by fxlab's names."""


class BinanceRun(SnapshotRun[Line]):
    """Runs one subscription; `close` it in the end.

    Parameters
    ----------
    asker
        The feed.
    terms
        Of its market.
    wanted
        What to record.
    """

    def __init__(self, asker: Asker, terms: Terms, wanted: Subscription) -> None:
        self._lines = plan(terms, wanted)
        books = {one.symbol: one for line in self._lines for one in line.books}
        self._natives = {one.symbol: one.native for one in wanted.instruments}
        super().__init__(asker.clock, self._natives, books)
        self._asker = asker
        self._symbols = {one.native: one.symbol for one in wanted.instruments}
        self._quotes = {one.symbol: one for line in self._lines for one in line.quotes}
        self._levels = terms.snapshot_levels if len(books) <= MANY else LEVELS_OF_MANY

    def connections(self) -> list[tuple[Line, Wire]]:
        """Return a socket for each line of the plan."""
        return [(line, self._wire(line)) for line in self._lines]

    def _wire(self, line: Line) -> Wire:
        return Wire(
            f"{self._asker.address.stream}{line.path}?streams={line.streams[0]}",
            clock=self._clock,
            opening=lambda: subscriptions(line.streams[1:]),
            silence=SILENCE,
            heartbeat=HEARTBEAT,
        )

    async def snapshot(self, symbol: str) -> BookSnapshot:
        """Return a book as the venue gives it now."""
        answer = await self._asker.ask("depth", symbol=self._natives[symbol], limit=self._levels)
        return snapshot(answer, symbol, self._clock.now())

    async def listed(self, symbols: Collection[str]) -> dict[str, Instrument]:
        """Return what the venue says of symbols."""
        return await self._asker.listed([self._natives[one] for one in symbols])

    def frames(self, frames: list[Frame]) -> list[Message]:
        """Return what frames mean."""
        messages: list[Message] = []
        symbols = self._symbols
        for payload, received in frames:
            found = parse(payload, received, symbols)
            if type(found) is Trade or type(found) is Event:
                messages.append(found)
            elif type(found) is Diff:
                messages += self.change(found)
            elif type(found) is Quote and found.symbol in self._quotes:
                messages += self._quotes[found.symbol].take(found)
        return messages

    def opened(self, connection: Line, opened: Opened) -> list[Message]:
        """Tell of a reconnect, and ask for the snapshots of its books."""
        line, messages = connection, list[Message]()
        if line.lost is not None and line.opened:
            messages.append(Event("reconnect", None, opened.time, 1, line.lost))
        line.opened, line.lost = True, None
        for book in line.books:
            self.synchronise(book.symbol)
        return messages

    def closed(self, connection: Line, closed: Closed) -> list[Message]:
        """Tell what is lost until the connection stands again."""
        line, messages = connection, list[Message]()
        if not line.opened and line.lost != closed.reason:
            detail = f"{line.path}: {closed.reason}"
            messages.append(Event("venue_error", None, closed.time, 1, detail))
        if line.lost is None or not line.opened:
            line.lost = closed.reason
        for one in line.keepers:
            messages += one.lose(closed.reason)
            self.abandon(one.symbol)
        return messages
