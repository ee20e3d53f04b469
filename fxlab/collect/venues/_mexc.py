"""MEXC futures feed: trades as they are pushed, books by version from a REST snapshot on.

Trades of MEXC ("deals") cannot be counted by their ids, nor asked for later, so each lost
connection leaves a gap in the prices, which is reported. Unmerged pushes are asked for: merged ones
would leave out deals. REST gives contracts, time and snapshots of books.

The protocol (see also `_mexc_messages`):
https://www.mexc.com/api-docs/futures/market-endpoints
"""

from __future__ import annotations

import contextlib
import json
import random
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final

from fxlab.collect.feed import (
    NOT_AS_DOCUMENTED,
    Address,
    BookSnapshot,
    Clock,
    Event,
    Feed,
    Instrument,
    Message,
    Subscription,
    Trade,
    cause_of,
    listed,
    positive,
)
from fxlab.collect.venues._book_sync import BestPrices, Diff, SyncedBook, TradeGapTracker
from fxlab.collect.venues._mexc_messages import levels_of, parse, version_of
from fxlab.collect.venues._rest import Rest
from fxlab.collect.venues._snapshot_run import Fetched, SnapshotRun
from fxlab.collect.venues._websocket import (
    ConnectionClosed,
    ConnectionOpened,
    Frame,
    ReconnectingWebSocket,
)
from fxlab.errors import VenueRefused, VenueUnavailable

SNAPSHOT_LEVELS: Final = 1_000

_STATES: Final = {0: "trading", 1: "delivery", 2: "delivered", 3: "offline", 4: "paused"}
_TOO_OFTEN: Final = 510


class MexcRest:
    """MEXC's public questions.

    Parameters
    ----------
    base_url
        Without a slash at the end.
    clock
        Stamps arrivals.
    """

    def __init__(self, base_url: str, clock: Clock) -> None:
        self._rest = Rest(base_url, clock=clock)
        self._clock = clock

    async def close(self) -> None:
        """Close the connections."""
        await self._rest.close()

    async def server_time(self) -> int:
        """Return the venue's clock in microseconds; it tells milliseconds."""
        found = await self._ask("ping")
        try:
            return int(positive(found, "time")) * 1_000
        except NOT_AS_DOCUMENTED as error:
            raise self._odd("ping", error) from error

    async def instruments(self) -> dict[str, Instrument]:
        """Return the contracts, by fxlab's symbol, which is the venue's own."""
        found = await self._ask("detail")
        try:
            entries = [found] if isinstance(found, dict) else listed(found)
            return {one.symbol: one for one in map(_instrument, entries)}
        except NOT_AS_DOCUMENTED as error:
            raise self._odd("detail", error) from error

    async def snapshot(self, instrument: Instrument) -> BookSnapshot:
        """Return a contract's book."""
        what = f"depth/{instrument.native}"
        found = await self._ask(what, limit=SNAPSHOT_LEVELS)
        received = self._clock.now()
        try:
            return BookSnapshot(
                instrument.symbol,
                version_of(found["version"]),
                levels_of(found["bids"], instrument),
                levels_of(found["asks"], instrument),
                int(positive(found["timestamp"], "timestamp")) * 1_000,
                received,
            )
        except NOT_AS_DOCUMENTED as error:
            raise self._odd(what, error) from error

    async def _ask(self, what: str, **parameters: str | float) -> Any:  # noqa: ANN401 - any JSON
        answer = await self._rest.get(f"/api/v1/contract/{what}", **parameters)
        if isinstance(answer, dict) and answer.get("success") is True and "data" in answer:
            return answer["data"]
        said = f"{self._rest.host} answers {what} with {answer!r:.200}"
        if isinstance(answer, dict) and answer.get("code") == _TOO_OFTEN:
            raise VenueRefused(f"{said}; wait a minute, and run fewer collectors")
        raise VenueUnavailable(f"{said}; try again later")

    def _odd(self, what: str, error: Exception) -> VenueUnavailable:
        return VenueUnavailable(
            f"{self._rest.host} answers {what} not as documented ({cause_of(error)}); "
            "try again later, and report it if it stays"
        )


def _instrument(entry: Mapping[str, Any]) -> Instrument:
    size = Decimal(str(entry["contractSize"]))
    positive(float(size), "contractSize")
    return Instrument(
        str(entry["symbol"]).upper(),
        entry["symbol"],
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
        self._trade_gaps = TradeGapTracker()
        self._lost: str | None = None

    def connections(self) -> list[tuple[None, ReconnectingWebSocket]]:
        """Return the one socket."""
        return [
            (
                None,
                ReconnectingWebSocket(
                    self._url, clock=self._clock, opening=self._opening, heartbeat=HEARTBEAT
                ),
            )
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

    def _offered(self, fetched: Fetched) -> list[Message]:
        return self._shown(super()._offered(fetched))

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


class Mexc(Feed):
    """Trades, quotes and books of MEXC's perpetual contracts, in units of the base coin.

    Parameters
    ----------
    address
        Where the venue is; its public hosts by default.
    clock
        Stamps arrivals.
    """

    venue: ClassVar[str] = "mexc"
    counts_trades: ClassVar[bool] = False
    ADDRESS: ClassVar[Address] = Address("https://api.mexc.com", "wss://contract.mexc.com")

    def __init__(self, *, address: Address | None = None, clock: Clock | None = None) -> None:
        self._address = address or self.ADDRESS
        self._clock = clock or Clock()
        self._rest = MexcRest(self._address.rest, self._clock)

    async def instruments(self) -> dict[str, Instrument]:
        """Return the contracts, by fxlab's symbol."""
        return await self._rest.instruments()

    async def server_time(self) -> int:
        """Return the venue's clock in microseconds."""
        return await self._rest.server_time()

    async def close(self) -> None:
        """Close the connections of REST; the stream closes with `messages`."""
        await self._rest.close()

    async def messages(self, wanted: Subscription) -> AsyncGenerator[Sequence[Message], None]:
        """Yield trades, quotes or books as they come; see `Feed.messages`."""
        run = MexcRun(f"{self._address.stream}/edge", self._rest, self._clock, wanted)
        try:
            async with contextlib.aclosing(run.batches()) as batches:
                async for batch in batches:
                    yield batch
        finally:
            await run.close()
