"""MEXC's futures: deals as they are pushed, books by versions from a REST snapshot on.

Deals of MEXC cannot be counted by their ids, nor asked for later, so each lost connection leaves a
hole in the prices, which is told. Unmerged pushes are asked for: merged ones would leave out deals.

The protocol: the pages named in `mexc_frames` and `mexc_rest`.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Sequence
from typing import ClassVar

from fxlab.collect.address import Address
from fxlab.collect.clock import Clock
from fxlab.collect.feed import Feed, Instrument, Message, Subscription
from fxlab.collect.venues.mexc_rest import MexcRest
from fxlab.collect.venues.mexc_run import MexcRun


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
