"""Binance spot: trades, order books and best quotes, with nothing missed that is not told.

Streams (``trade``, ``depth@100ms``, ``bookTicker``) and requests:
https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints
https://developers.binance.com/docs/binance-spot-api-docs/rest-api/general-endpoints

A local book follows the rule under "How to manage a local order book correctly" there: changes are
held, a snapshot is fetched, changes up to its ``lastUpdateId`` are dropped, and from then on each
change's ``U`` is one more than the ``u`` before it. Trades of the past come by their id, without a
key, from ``historicalTrades`` ("Old trade lookup", 1,000 at a time).

Spot's ``bookTicker`` and depth snapshots carry no time: quotes get their arrival, a snapshot the
time of the last change in it.
"""

from __future__ import annotations

import json
from collections.abc import AsyncGenerator, Sequence
from typing import Any, ClassVar

from fxlab.collect.address import Address
from fxlab.collect.clock import Clock
from fxlab.collect.feed import Feed, Instrument, Message, Subscription, Trade
from fxlab.collect.rest import Rest
from fxlab.collect.venues import binance_rest
from fxlab.collect.venues.binance_frames import past_trade
from fxlab.collect.venues.binance_plan import Terms
from fxlab.collect.venues.binance_run import BinanceRun
from fxlab.collect.venues.suspects import NOT_AS_DOCUMENTED, listed
from fxlab.errors import VenueError, VenueRefused, VenueUnavailable


class Binance(Feed):
    """Binance spot.

    Parameters
    ----------
    address
        Where it lives; `ADDRESS` by default.
    clock
        Stamps arrivals.
    """

    venue: ClassVar[str] = "binance"
    counts_trades: ClassVar[bool] = True

    ADDRESS: ClassVar[Address] = Address(
        rest="https://api.binance.com", stream="wss://stream.binance.com:9443"
    )
    API: ClassVar[str] = "/api/v3"
    TERMS: ClassVar[Terms] = Terms(
        trade_stream="trade", trade_path="/stream", book_path="/stream", snapshot_levels=5000
    )
    CONTRACT: ClassVar[str | None] = None
    HISTORY: ClassVar[str] = "historicalTrades"
    PAST_NAMES: ClassVar[tuple[str, ...]] = ("id", "price", "qty", "time", "isBuyerMaker")

    def __init__(self, *, address: Address | None = None, clock: Clock | None = None) -> None:
        self.address = address or self.ADDRESS
        self.clock = clock or Clock()
        self._rest = Rest(self.address.rest, clock=self.clock)

    async def instruments(self) -> dict[str, Instrument]:
        """Return what is traded, by fxlab's symbol."""
        answer = await self.ask("exchangeInfo")
        return binance_rest.instruments(answer, self.CONTRACT)

    async def listed(self, natives: Sequence[str]) -> dict[str, Instrument]:
        """Return what is known of some of the venue's symbols, by fxlab's names."""
        few = len(natives) <= 100 and self.CONTRACT is None
        asked = {"symbols": json.dumps(natives, separators=(",", ":"))} if few else {}
        try:
            answer = await self.ask("exchangeInfo", **asked)
        except VenueRefused:
            if not asked:
                raise
            # One name that is gone makes the venue refuse the question for all.
            answer = await self.ask("exchangeInfo")
        return binance_rest.instruments(answer, self.CONTRACT)

    async def messages(self, wanted: Subscription) -> AsyncGenerator[Sequence[Message], None]:
        """Yield messages in the order of their arrival, several at a time."""
        run = BinanceRun(self, self.TERMS, wanted)
        try:
            async for batch in run.batches():
                yield batch
        finally:
            await run.close()

    async def trades(self, instrument: Instrument, first_id: int, last_id: int) -> list[Trade]:
        """Return trades by id, both ends included, as far as the venue has them.

        Raises
        ------
        VenueUnavailable, VenueRefused
            When not even the first thousand could be had.
        """
        found: list[Trade] = []
        while first_id <= last_id:
            try:
                page = await self._page(instrument, first_id)
            except VenueError:
                if found:
                    break
                raise
            found += [trade for trade in page if first_id <= _number(trade) <= last_id]
            newest = max((_number(trade) for trade in page), default=-1)
            if newest < first_id:
                break
            first_id = newest + 1
        return found

    async def server_time(self) -> int | None:
        """Return the venue's clock in microseconds."""
        answer = await self.ask("time")
        try:
            return int(answer["serverTime"]) * 1000
        except NOT_AS_DOCUMENTED as error:
            raise VenueUnavailable(
                f"time is not as documented ({error!r:.200}); try again, then report this"
            ) from error

    async def close(self) -> None:
        """Close connections."""
        await self._rest.close()

    async def ask(self, question: str, **parameters: str | int) -> Any:  # noqa: ANN401 - JSON
        """Return what the venue answers to a request."""
        return await self._rest.get(f"{self.API}/{question}", **parameters)

    async def _page(self, instrument: Instrument, first_id: int) -> list[Trade]:
        answer = await self.ask(self.HISTORY, symbol=instrument.native, fromId=first_id, limit=1000)
        received = self.clock.now()
        try:
            return [
                past_trade(entry, self.PAST_NAMES, instrument.symbol, received)
                for entry in listed(answer)
            ]
        except NOT_AS_DOCUMENTED as error:
            raise VenueUnavailable(
                f"{self.HISTORY} is not as documented ({error!r:.200}); try again, then report this"
            ) from error


def _number(trade: Trade) -> int:
    return int(trade.id or 0)
