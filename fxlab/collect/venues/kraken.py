"""Kraken spot: trades counted by their ids, books checked by the venue's own checksum.

One WebSocket (v2) carries all symbols. A book that fails its checksum is subscribed again, alone.
REST gives the pairs with their decimals, and trades of the past.

The protocol: https://docs.kraken.com/exchange/guides/websockets/introduction and the pages named
in `kraken_frames`; https://docs.kraken.com/api-reference/market-data/get-tradable-asset-pairs
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncGenerator, Sequence
from typing import ClassVar, Final

from fxlab.collect.address import Address
from fxlab.collect.clock import Clock
from fxlab.collect.feed import Event, Feed, Instrument, Message, Subscription, Trade
from fxlab.collect.venues.kraken_books import ProvenBook
from fxlab.collect.venues.kraken_checksum import CHECKED
from fxlab.collect.venues.kraken_frames import BookFrame, Parsed, TradesFrame, parse
from fxlab.collect.venues.kraken_rest import KrakenRest
from fxlab.collect.wire import Arrival, Closed, Frame, Opened, Wire

PATIENCE: Final = 5.0
"""Seconds that a snapshot may take before it is asked for again."""
LONGEST_PATIENCE: Final = 60.0


class Kraken(Feed):
    """Trades, quotes and books of Kraken's spot pairs.

    Parameters
    ----------
    address
        Where the venue is; its public hosts by default.
    clock
        Stamps arrivals.
    rng
        Draws the jitter of repeated subscriptions.
    """

    venue: ClassVar[str] = "kraken"
    counts_trades: ClassVar[bool] = True
    ADDRESS: ClassVar[Address] = Address("https://api.kraken.com", "wss://ws.kraken.com")

    def __init__(
        self,
        *,
        address: Address | None = None,
        clock: Clock | None = None,
        rng: random.Random | None = None,
    ) -> None:
        self._address = address or self.ADDRESS
        self._clock = clock or Clock()
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._rest = KrakenRest(self._address.rest, self._clock)

    async def instruments(self) -> dict[str, Instrument]:
        """Return the pairs, by fxlab's symbol: BTC_USD, where REST still says XBT."""
        return await self._rest.instruments()

    async def trades(self, instrument: Instrument, first_id: int, last_id: int) -> list[Trade]:
        """Return trades of the past; REST is asked by time, a thousand trades at a time."""
        return await self._rest.trades(instrument, first_id, last_id)

    async def server_time(self) -> int:
        """Return the venue's clock; REST tells whole seconds, so the middle of one is returned."""
        return await self._rest.server_time()

    async def close(self) -> None:
        """Close the connections of REST; the stream closes with `messages`."""
        await self._rest.close()

    async def messages(self, wanted: Subscription) -> AsyncGenerator[Sequence[Message], None]:
        """Yield trades, quotes or books as they come; see `Feed.messages`."""
        listener = _Listener(wanted)
        wire = Wire(f"{self._address.stream}/v2", clock=self._clock, opening=listener.opening)
        resyncs = _Resyncs(wire, self._rng)
        try:
            async with contextlib.aclosing(wire.arrivals()) as arrivals:
                async for arrival in arrivals:
                    if isinstance(arrival, Closed):
                        await resyncs.stop()
                    batch = listener.take(arrival)
                    resyncs.mend(listener.broken())
                    if batch:
                        yield batch
        finally:
            await resyncs.stop()


class _Listener:
    """What arrives, as messages."""

    def __init__(self, wanted: Subscription) -> None:
        self._wanted = wanted
        self._instruments = wanted.by_native
        quotes = wanted.book_depth == 1
        self._books = {
            one.symbol: (one.native, ProvenBook(one.symbol, quotes=quotes))
            for one in wanted.instruments
            if wanted.book_depth
        }
        self._last: dict[str, Trade] = {}
        self._began: int | None = None
        self._lost: str | None = None

    def opening(self) -> list[str]:
        """Return the subscriptions; after the first time with the last trades before them."""
        names = list(self._instruments)
        texts = [_request("subscribe", channel="instrument", snapshot=False)]
        if self._wanted.trades:
            again = self._began is not None
            texts.append(_request("subscribe", channel="trade", symbol=names, snapshot=again))
        if self._books:
            texts.append(_request("subscribe", **_book(names)))
        return texts

    def take(self, arrival: Arrival) -> list[Message]:
        """Return what a frame, or the state of the connection, means."""
        if isinstance(arrival, list):
            return self._take_frames(arrival)
        if isinstance(arrival, Closed):
            return self._closed(arrival)
        return self._opened(arrival)

    def broken(self) -> list[tuple[str, ProvenBook]]:
        """Return the books that need a new subscription, and the venue's names of them."""
        return [(native, book) for native, book in self._books.values() if book.broken]

    def _take_frames(self, frames: list[Frame]) -> list[Message]:
        instruments = self._instruments
        batch: list[Message] = []
        for text, received in frames:
            for parsed in parse(text, received, instruments):
                if type(parsed) is Trade:
                    self._last[parsed.symbol] = parsed
                    batch.append(parsed)
                else:
                    batch.extend(self._rarer(parsed))
        return batch

    def _rarer(self, parsed: Parsed) -> Sequence[Message]:
        if isinstance(parsed, BookFrame):
            known = self._books.get(parsed.symbol)
            return known[1].take(parsed) if known else ()
        if isinstance(parsed, TradesFrame):
            missed = [trade for trade in parsed.trades if self._missed(trade)]
            self._last.update((trade.symbol, trade) for trade in missed)
            return missed
        return (parsed,)

    def _missed(self, trade: Trade) -> bool:
        """Return whether a trade of a snapshot is later than those that came before."""
        last = self._last.get(trade.symbol)
        if last is None:
            return self._began is not None and trade.time >= self._began
        if trade.time == last.time:
            return trade.id > last.id  # type: ignore[operator]  # whole numbers, both
        return trade.time > last.time

    def _closed(self, closed: Closed) -> list[Message]:
        if self._lost is None:
            self._lost = closed.reason
        gaps = [gap for _, book in self._books.values() for gap in book.lose(closed.reason)]
        for _, book in self._books.values():
            book.expect_snapshot()
        return gaps

    def _opened(self, opened: Opened) -> list[Message]:
        reason, self._lost = self._lost, None
        if self._began is None:
            self._began = opened.time
            return []
        return [Event("reconnect", None, opened.time, 1, reason or "")]


class _Resyncs:
    """New subscriptions of single books, repeated until they are known again."""

    def __init__(self, wire: Wire, rng: random.Random) -> None:
        self._wire = wire
        self._rng = rng
        self._tasks: dict[str, tuple[asyncio.Task[None], int]] = {}

    def mend(self, broken: list[tuple[str, ProvenBook]]) -> None:
        """Begin with those that are not being mended yet."""
        for native, book in broken:
            book.expect_snapshot()
            task, proofs = self._tasks.get(native, (None, 0))
            if task is not None and proofs == book.proofs and not task.done():
                # Its snapshot did not prove itself: the next attempt must wait.
                continue
            if task is not None:
                task.cancel()
            mending = asyncio.create_task(self._mend(native, book, book.proofs))
            self._tasks[native] = (mending, book.proofs)

    async def stop(self) -> None:
        """Forget them all: the connection is gone."""
        tasks = [task for task, _ in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _mend(self, native: str, book: ProvenBook, proofs: int) -> None:
        patience = PATIENCE
        while book.proofs == proofs:
            await self._wire.send(_request("unsubscribe", **_book([native], snapshot=None)))
            await self._wire.send(_request("subscribe", **_book([native])))
            await asyncio.sleep(patience * self._rng.uniform(0.5, 1.0))
            patience = min(2 * patience, LONGEST_PATIENCE)


def _book(names: list[str], *, snapshot: bool | None = True) -> dict[str, object]:
    wanted: dict[str, object] = {"channel": "book", "symbol": names, "depth": CHECKED}
    return wanted if snapshot is None else {**wanted, "snapshot": snapshot}


def _request(method: str, **params: object) -> str:
    return json.dumps({"method": method, "params": params})
