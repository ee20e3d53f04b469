"""Exchanges that fxlab does not speak to itself, by way of ccxt: ``ccxt:okx``, ``ccxt:bybit``, ...

ccxt knows how to reach, subscribe and parse; what it parsed is overheard at its source (see
`ccxt_tap`), because its own queues lose. It does not say which trades a lost connection cost, and
cannot be slowed down: prices may have holes, which are told. An exchange is best effort as soon
as it leaves the tap aside: then `Feed.lossless` is False, and the ledger says so.
"""

from __future__ import annotations

import contextlib
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, ClassVar

from fxlab.collect.address import Address
from fxlab.collect.clock import Clock
from fxlab.collect.feed import Feed, Instrument, Message, Subscription
from fxlab.collect.venues.ccxt_run import CcxtRun, words
from fxlab.collect.venues.ccxt_tap import instrument_of, load, redirect, tapped
from fxlab.errors import VenueRefused, VenueUnavailable
from fxlab.proxy import proxy_for


class CcxtFeed(Feed):
    """Trades, quotes and books of an exchange that ccxt knows.

    Parameters
    ----------
    exchange
        ccxt's name of it: "okx".
    address
        A mock or a proxy to use in place of the exchange.
    clock
        Stamps arrivals, which is when ccxt has parsed them.
    options
        ccxt's own options, such as ``{"defaultType": "swap"}``.

    Raises
    ------
    InvalidParameter
        Without the package ccxt.
    VenueNotFound
        If ccxt does not know the exchange.
    """

    venue: ClassVar[str] = "ccxt"
    counts_trades: ClassVar[bool] = False

    def __init__(
        self,
        exchange: str,
        *,
        address: Address | None = None,
        clock: Clock | None = None,
        options: Mapping[str, Any] | None = None,
    ) -> None:
        self.venue = f"ccxt:{exchange}"  # type: ignore[misc]  # one class for all of them
        self.exchange = exchange
        self._kind = load(exchange)
        self._address = address
        self._clock = clock or Clock()
        self._options = dict(options or {})
        self._open: Any = None
        self._run: CcxtRun | None = None

    async def instruments(self) -> dict[str, Instrument]:
        """Return the markets, by fxlab's symbol; contracts as BTC_USDT:USDT."""
        import ccxt

        exchange = self._opened()
        try:
            markets = await exchange.load_markets()
        except (ccxt.AuthenticationError, ccxt.RateLimitExceeded, ccxt.DDoSProtection) as error:
            raise VenueRefused(
                f"{self.venue} refuses: {words(error)}; wait, or choose another venue"
            ) from error
        except ccxt.BaseError as error:
            raise VenueUnavailable(
                f"{self.venue} is not available: {words(error)}; check the connection, or try "
                "again later"
            ) from error
        ticks = exchange.precisionMode == ccxt.TICK_SIZE
        found = [instrument_of(market, ticks) for market in markets.values()]
        return {one.symbol: one for one in found if one is not None}

    async def messages(self, wanted: Subscription) -> AsyncGenerator[Sequence[Message], None]:
        """Yield trades, quotes or books as ccxt parses them; see `Feed.messages`."""
        await self.instruments()
        run = CcxtRun(self._opened(), self._clock, wanted)
        self._run = run
        try:
            async with contextlib.aclosing(run.batches()) as batches:
                async for batch in batches:
                    self.lossless = run.lossless
                    yield batch
        finally:
            self._run = None
            await run.close()
            await self.close()

    async def server_time(self) -> int | None:
        """Return the exchange's clock in microseconds, or None if ccxt cannot ask for it."""
        import ccxt

        exchange = self._opened()
        if not exchange.has.get("fetchTime"):
            return None
        try:
            return int(await exchange.fetch_time()) * 1_000
        except ccxt.BaseError as error:
            raise VenueUnavailable(
                f"{self.venue} does not tell its time: {words(error)}; try again later"
            ) from error

    async def close(self) -> None:
        """Close ccxt's connections; the next question opens them again."""
        exchange, self._open = self._open, None
        if exchange is not None:
            await exchange.close()

    def _opened(self) -> Any:  # noqa: ANN401 - ccxt is typed by half
        if self._open is None:
            kind = tapped(self._kind, self._on_trade, self._on_book)
            proxy = None if self._address else proxy_for(f"https://{self.exchange}")
            proxies = {"httpsProxy": proxy, "wssProxy": proxy} if proxy else {}
            self._open = kind({"newUpdates": True, "options": self._options, **proxies})
            if self._address is not None:
                redirect(self._open.urls["api"], self._address)
        return self._open

    def _on_trade(self, trade: dict[str, Any]) -> None:
        if self._run is not None:
            self._run.on_trade(trade)

    def _on_book(self, book: dict[str, Any]) -> None:
        if self._run is not None:
            self._run.on_book(book)
