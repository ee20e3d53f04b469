"""MEXC futures feed: trades as they are pushed, books by version from a REST snapshot on.

Trades of MEXC ("deals") cannot be counted by their ids, nor asked for later, so each lost
connection leaves a gap in the prices, which is reported. Unmerged pushes are asked for: merged ones
would leave out deals. REST gives contracts, time and snapshots of books.

The protocol (see also `_mexc_messages`):
https://www.mexc.com/api-docs/futures/market-endpoints
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final

from fxlab.collect.feed import (
    Address,
    BookSnapshot,
    Event,
    Instrument,
    Message,
    Subscription,
    Trade,
    listed,
    positive,
)
from fxlab.collect.venues._book_sync import BestPrices, Diff, SyncedBook, TradeGapTracker
from fxlab.collect.venues._mexc_messages import deal_of, levels_of, parse, version_of
from fxlab.collect.venues._rest import NEWEST, HistoryPage, RestFeed
from fxlab.collect.venues._snapshot_run import Fetch, SnapshotRun
from fxlab.collect.venues._websocket import (
    ConnectionClosed,
    ConnectionOpened,
    Frame,
    ReconnectingWebSocket,
)

SNAPSHOT_LEVELS: Final = 1_000

_STATES: Final = {0: "trading", 1: "delivery", 2: "delivered", 3: "offline", 4: "paused"}
_TOO_OFTEN: Final = 510


class Mexc(RestFeed):
    """Trades, quotes and books of MEXC's perpetual contracts, in units of the base coin."""

    venue: ClassVar[str] = "mexc"
    ADDRESS: ClassVar[Address] = Address("https://api.mexc.com", "wss://contract.mexc.com")
    LIMIT: ClassVar[tuple[float, float] | None] = (18, 2.0)  # 20 are allowed

    def messages(self, wanted: Subscription) -> AsyncGenerator[Sequence[Message], None]:
        """Yield trades, quotes or books as they come; see `Feed.messages`."""
        self._run = MexcRun(self, wanted)
        return self._run.batches()

    def reconnect(self, symbol: str, data_type: str, reason: str) -> None:
        """Break the connection, so that it is made again."""
        self._run.reconnect(symbol, data_type, reason)

    async def latest(self, instrument: Instrument, data_type: str) -> Trade | BookSnapshot | None:
        """Return the newest trade, or the best levels of the book, as the venue has it now."""
        if data_type == "orderbook":
            return await self.snapshot(instrument, limit=5)
        what = f"deals/{instrument.native}"
        found = await self._ask(what, limit=NEWEST)
        received = self.clock.now()
        with self._documented(what):
            page = HistoryPage.read(
                what,
                listed(found),
                lambda entry: deal_of(entry, received, instrument),
                lambda entry: entry["i"],
            )
        newest = self._newest(what, page, first=True)
        return None if newest is None else newest._replace(origin="backfill")

    async def server_time(self) -> int:
        """Return the venue's clock in microseconds; it tells milliseconds."""
        found = await self._ask("ping")
        with self._documented("ping"):
            return int(positive(found, "time")) * 1_000

    async def instruments(self) -> dict[str, Instrument]:
        """Return the contracts, by fxlab's symbol, which is the venue's own."""
        found = await self._ask("detail")
        with self._documented("detail"):
            entries = [found] if isinstance(found, dict) else listed(found)
        return self._listings("detail", entries, _instrument, _names)

    async def snapshot(self, instrument: Instrument, limit: int) -> BookSnapshot:
        """Return a contract's book, so many levels of each side."""
        what = f"depth/{instrument.native}"
        found = await self._ask(what, limit=limit)
        received = self.clock.now()
        with self._documented(what):
            return BookSnapshot(
                instrument.symbol,
                version_of(found["version"]),
                levels_of(found["bids"], instrument),
                levels_of(found["asks"], instrument),
                int(positive(found["timestamp"], "timestamp")) * 1_000,
                received,
            )

    async def _ask(self, what: str, **parameters: str | float) -> Any:  # noqa: ANN401 - any JSON
        answer = await self._rest.get(f"/api/v1/contract/{what}", **parameters)
        told = answer if isinstance(answer, dict) else {}
        if told.get("success") is True and "data" in told:
            return told["data"]
        raise self._refusal(what, answer, too_often=told.get("code") == _TOO_OFTEN)


def _names(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return fxlab's name of a contract, and the venue's."""
    native = entry["symbol"]
    if type(native) is not str:
        raise TypeError(f"symbol {native!r:.40} is no text")
    return native.upper(), native


def _instrument(entry: Mapping[str, Any]) -> Instrument:
    size = Decimal(str(entry["contractSize"]))
    positive(float(size), "contractSize")
    return Instrument(
        *_names(entry),
        int(entry["priceScale"]),
        _STATES.get(entry["state"], f"state {entry['state']}"),
        {
            "contract_size": float(size),
            "quantity_decimals": _decimals(size) + int(entry.get("volScale", 0)),
            "inverse": entry.get("settleCoin") == entry["baseCoin"],
        },
    )


def _decimals(number: Decimal) -> int:
    exponent = number.normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else 0


HEARTBEAT: Final = ('{"method":"ping"}', 15.0)
"""Without a ping within a minute the venue closes; ten to twenty seconds are advised."""


class MexcRun(SnapshotRun[None]):
    """Runs one subscription; `close` it in the end.

    Parameters
    ----------
    feed
        Gives snapshots and states.
    wanted
        What to record.
    """

    def __init__(self, feed: Mexc, wanted: Subscription) -> None:
        self._instruments = {one.symbol: one for one in wanted.instruments}
        booked = self._instruments if wanted.book_depth else ()
        depth = wanted.book_depth
        books = {symbol: SyncedBook(symbol, depth=depth) for symbol in booked}
        super().__init__(feed, self._instruments, books)
        self._feed, self._wanted = feed, wanted
        self._by_native = wanted.by_native
        self._best = BestPrices() if wanted.book_depth == 1 else None
        self._trade_gaps = TradeGapTracker()
        self._lost: str | None = None

    def connections(self) -> list[tuple[None, ReconnectingWebSocket]]:
        """Return the one socket."""
        url = f"{self._feed.address.stream}/edge"
        wire = ReconnectingWebSocket(
            url, clock=self._clock, opening=self._opening, heartbeat=HEARTBEAT
        )
        return [(None, wire)]

    def _opening(self) -> list[str]:
        channels = ["sub.deal"] if self._wanted.trades else []
        channels += ["sub.depth"] if self._wanted.book_depth else []
        return [
            json.dumps({"method": channel, "param": {"symbol": native, "compress": False}})
            for native in self._by_native
            for channel in channels
        ]

    def levels(self, waiting: int) -> tuple[int, float]:  # noqa: ARG002 - all cost the same
        """Return how many levels a snapshot should have, and its cost."""
        return SNAPSHOT_LEVELS, 1

    async def snapshot(self, symbol: str, levels: int) -> BookSnapshot:
        """Return a book as the venue gives it now."""
        return await self._feed.snapshot(self._instruments[symbol], levels)

    async def listed(self, symbols: Collection[str]) -> dict[str, Instrument]:  # noqa: ARG002
        """Return what the venue says of its contracts: it tells of all at once."""
        return await self._feed.instruments()

    def frames(self, frames: list[Frame]) -> list[Message]:
        """Return what frames mean."""
        messages: list[Message] = []
        gaps, instruments = self._trade_gaps, self._by_native
        for payload, received in frames:
            for found in parse(payload, received, instruments):
                if type(found) is Trade:
                    messages += gaps.take(found)
                elif type(found) is Diff:
                    messages += self._shown(self.change(found))
                elif isinstance(found, Event):
                    messages.append(found)
        return messages

    def offered(self, snapshot: BookSnapshot, fetch: Fetch, levels: int) -> list[Message]:
        """Return what a snapshot means."""
        return self._shown(super().offered(snapshot, fetch, levels))

    def _shown(self, messages: list[Message]) -> list[Message]:
        return messages if self._best is None else self._best.of(messages)

    def opened(self, connection: None, opened: ConnectionOpened) -> list[Message]:  # noqa: ARG002
        """Tell of a reconnect, and ask for the snapshots of all books."""
        for symbol in self._books:
            self.synchronise(symbol)
        reason, self._lost = self._lost, None
        if reason is None or opened.number == 1:
            return []
        return [Event("reconnect", None, opened.time, 1, reason)]

    def closed(self, connection: None, closed: ConnectionClosed) -> list[Message]:  # noqa: ARG002
        """Tell what is lost until the connection stands again."""
        if self._lost is not None:
            return []
        self._lost = closed.reason
        for symbol in self._books:
            self.abandon(symbol)
        lost = [gap for book in self._books.values() for gap in book.lose(closed.reason)]
        return lost + self._trade_gaps.lose(closed.reason)
