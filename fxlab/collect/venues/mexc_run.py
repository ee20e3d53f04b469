"""One recording from MEXC: one connection, books by versions, deals without numbers."""

from __future__ import annotations

import json
import random
from collections.abc import Collection
from typing import Final

from fxlab.collect.book_sync import Diff, SyncedBook
from fxlab.collect.clock import Clock
from fxlab.collect.feed import BookSnapshot, Event, Instrument, Message, Subscription, Trade
from fxlab.collect.venues.best_prices import BestPrices
from fxlab.collect.venues.mexc_frames import parse
from fxlab.collect.venues.mexc_rest import MexcRest
from fxlab.collect.venues.price_holes import PriceHoles
from fxlab.collect.venues.snapshot_run import Fetched, SnapshotRun
from fxlab.collect.wire import Closed, Frame, Opened, Wire

HEARTBEAT: Final = ('{"method":"ping"}', 15.0)
"""Without a ping within a minute the venue closes; ten to twenty seconds are advised."""


class MexcRun(SnapshotRun[None]):
    """Runs one subscription; `close` it in the end.

    Parameters
    ----------
    url
        Of the socket.
    rest
        Gives snapshots and states.
    clock
        Stamps arrivals.
    wanted
        What to record.
    rng
        Draws the jitter of repeated snapshots.
    """

    def __init__(
        self,
        url: str,
        rest: MexcRest,
        clock: Clock,
        wanted: Subscription,
        rng: random.Random | None = None,
    ) -> None:
        self._instruments = {one.symbol: one for one in wanted.instruments}
        booked = self._instruments if wanted.book_depth else ()
        super().__init__(
            clock, self._instruments, {symbol: SyncedBook(symbol) for symbol in booked}, rng
        )
        self._url, self._rest, self._wanted = url, rest, wanted
        self._by_native = wanted.by_native
        self._best = BestPrices() if wanted.book_depth == 1 else None
        self._holes = PriceHoles()
        self._lost: str | None = None

    def connections(self) -> list[tuple[None, Wire]]:
        """Return the one socket."""
        return [
            (None, Wire(self._url, clock=self._clock, opening=self._opening, heartbeat=HEARTBEAT))
        ]

    def _opening(self) -> list[str]:
        channels = ["sub.deal"] if self._wanted.trades else []
        channels += ["sub.depth"] if self._wanted.book_depth else []
        return [
            json.dumps({"method": channel, "param": {"symbol": native, "compress": False}})
            for native in self._by_native
            for channel in channels
        ]

    async def snapshot(self, symbol: str) -> BookSnapshot:
        """Return a book as the venue gives it now."""
        return await self._rest.snapshot(self._instruments[symbol])

    async def listed(self, symbols: Collection[str]) -> dict[str, Instrument]:  # noqa: ARG002
        """Return what the venue says of its contracts: it tells of all at once."""
        return await self._rest.instruments()

    def frames(self, frames: list[Frame]) -> list[Message]:
        """Return what frames mean."""
        messages: list[Message] = []
        holes, instruments = self._holes, self._by_native
        for payload, received in frames:
            for found in parse(payload, received, instruments):
                if type(found) is Trade:
                    messages += holes.take(found)
                elif type(found) is Diff:
                    messages += self._shown(self.change(found))
                elif isinstance(found, Event):
                    messages.append(found)
        return messages

    def _offered(self, fetched: Fetched) -> list[Message]:
        return self._shown(super()._offered(fetched))

    def _shown(self, messages: list[Message]) -> list[Message]:
        return messages if self._best is None else self._best.of(messages)

    def opened(self, connection: None, opened: Opened) -> list[Message]:  # noqa: ARG002
        """Tell of a reconnect, and ask for the snapshots of all books."""
        for symbol in self._books:
            self.synchronise(symbol)
        reason, self._lost = self._lost, None
        if reason is None or opened.number == 1:
            return []
        return [Event("reconnect", None, opened.time, 1, reason)]

    def closed(self, connection: None, closed: Closed) -> list[Message]:  # noqa: ARG002
        """Tell what is lost until the connection stands again."""
        if self._lost is not None:
            return []
        self._lost = closed.reason
        for symbol in self._books:
            self.abandon(symbol)
        lost = [gap for book in self._books.values() for gap in book.lose(closed.reason)]
        return lost + self._holes.lose(closed.reason)
