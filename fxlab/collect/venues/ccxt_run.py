"""One recording by way of ccxt: it is kept subscribed, and what the tap hears becomes messages."""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, Final

from fxlab.backoff import wait_before
from fxlab.collect.clock import Clock
from fxlab.collect.feed import Event, Instrument, Message, Subscription, Trade
from fxlab.collect.quarantine import quarantine
from fxlab.collect.venues.ccxt_books import WatchedBook, base_units
from fxlab.collect.venues.price_holes import PriceHoles
from fxlab.collect.venues.suspects import NOT_AS_DOCUMENTED, cause_of, positive
from fxlab.errors import CollectionFailed, VenueRefused

MOST_WAITING: Final = 500_000
"""Messages that may wait for the recorder; ccxt cannot be told to stop reading."""
RETRY: Final = (0.1, 10.0)
"""First and longest wait in seconds before a subscription is tried again."""

Raw = dict[str, Any]


class CcxtRun:
    """Runs one subscription; `close` it in the end.

    Parameters
    ----------
    exchange
        Of `ccxt_tap.tapped`, with its markets loaded.
    clock
        Stamps arrivals.
    wanted
        What to record.

    Attributes
    ----------
    lossless
        Whether ccxt still uses the tap.
    """

    def __init__(self, exchange: Any, clock: Clock, wanted: Subscription) -> None:  # noqa: ANN401
        self._exchange, self._clock, self._wanted = exchange, clock, wanted
        self._by_native = wanted.by_native
        self._books = {
            one.native: WatchedBook(one, quotes=wanted.book_depth == 1)
            for one in wanted.instruments
            if wanted.book_depth
        }
        self.lossless = True
        self._holes = PriceHoles()
        self._rng = random.Random()  # noqa: S311 - jitter, no secret
        self._waiting: list[Message] = []
        self._news = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def batches(self) -> AsyncGenerator[list[Message], None]:
        """Yield messages until nothing is left to watch.

        Raises
        ------
        VenueRefused
            When the exchange refuses all that was wanted.
        CollectionFailed
            When the recorder stays behind for too long.
        """
        self._tasks = [asyncio.ensure_future(work) for work in self._plan()]
        for task in self._tasks:
            task.add_done_callback(lambda _: self._news.set())
        while True:
            await self._news.wait()
            self._news.clear()
            batch, self._waiting = self._waiting, []
            if len(batch) > MOST_WAITING:
                raise CollectionFailed(
                    f"{len(batch):,} messages waited for the recorder, and ccxt cannot be slowed "
                    "down; record fewer symbols, or a venue that fxlab speaks to itself"
                )
            if batch:
                yield batch
            self._look_after_tasks()

    async def close(self) -> None:
        """End what is under way."""
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    # What the tap hears

    def on_trade(self, raw: Raw) -> None:
        """Take a trade that ccxt has parsed."""
        received = self._clock.now()
        instrument = self._by_native.get(raw.get("symbol", ""))
        if instrument is None or not self._wanted.trades:
            return
        try:
            self._tell(self._holes.take(_trade(raw, instrument, received)))
        except NOT_AS_DOCUMENTED as error:
            shown = str(raw.get("info"))
            self._tell([quarantine(cause_of(error), shown, received, instrument.symbol)])

    def on_book(self, raw: Raw) -> None:
        """Take a book that ccxt has changed."""
        received = self._clock.now()
        book = self._books.get(raw.get("symbol") or "")
        if book is None:
            return
        try:
            self._tell(book.take(raw, received))
        except NOT_AS_DOCUMENTED as error:
            self._tell([quarantine(cause_of(error), "a book", received, book.symbol)])
            self._tell(book.lose("ccxt gave a book that cannot be read"))

    def _tell(self, messages: list[Message]) -> None:
        if messages:
            self._waiting += messages
            self._news.set()

    # What keeps ccxt going

    def _plan(self) -> list[Awaitable[None]]:
        works: list[Awaitable[None]] = []
        for one in self._wanted.instruments:
            if self._wanted.trades:
                self._exchange.tap_trades(one.native)
                works.append(self._keep(one, self._exchange.watch_trades, self._lose_prices))
            if one.native in self._books:
                works.append(self._keep(one, self._exchange.watch_order_book, self._lose_book))
        return works

    async def _keep(
        self,
        one: Instrument,
        watch: Callable[[str], Awaitable[Any]],
        lose: Callable[[Instrument, str], list[Message]],
    ) -> None:
        """Await ccxt only to be subscribed, to be connected again, and to hear of errors."""
        import ccxt

        failures, lost = 0, False
        while True:
            try:
                await watch(one.native)
            except (ccxt.AuthenticationError, ccxt.NotSupported, ccxt.BadRequest) as error:
                self._tell([*lose(one, words(error)), self._trouble(one, f"given up: {error}")])
                return
            except ccxt.BaseError as error:
                cause = words(error)
                if not failures:
                    self._tell([*lose(one, cause), self._trouble(one, cause)])
                failures += 1
                # A book out of step is a NetworkError to ccxt, yet the connection stands.
                lost |= isinstance(error, ccxt.NetworkError) and not isinstance(
                    error, ccxt.InvalidNonce
                )
                await asyncio.sleep(self._back_off(failures))
            else:
                if lost:
                    now = self._clock.now()
                    self._tell([Event("reconnect", one.symbol, now, failures, "by ccxt")])
                failures, lost = 0, False
                self._check_tap(one)

    def _check_tap(self, one: Instrument) -> None:
        """Say it, once more each time, when ccxt has put a cache of its own in place of ours."""
        if self._wanted.trades and not self._exchange.holds_tap(one.native):
            self.lossless = False
            self._exchange.tap_trades(one.native)
            detail = "ccxt left the tap aside: trades may have been missed (best effort)"
            self._tell([*self._lose_prices(one, detail), self._trouble(one, detail)])

    def _lose_prices(self, one: Instrument, cause: str) -> list[Message]:
        return self._holes.lose(cause, [one.symbol])

    def _lose_book(self, one: Instrument, cause: str) -> list[Message]:
        return self._books[one.native].lose(cause)

    def _trouble(self, one: Instrument, detail: str) -> Event:
        return Event("venue_error", one.symbol, self._clock.now(), 1, detail[:300])

    def _back_off(self, failures: int) -> float:
        return wait_before(failures - 1, *RETRY, self._rng)

    def _look_after_tasks(self) -> None:
        """Raise what nobody expected; end when nothing is watched any more."""
        done = [task for task in self._tasks if task.done()]
        for task in done:
            task.result()
        if len(done) == len(self._tasks) and not self._waiting:
            raise VenueRefused(
                f"{self._exchange.id} gives nothing of what is wanted (see the session's events); "
                "choose other symbols, or another venue"
            )


def words(error: BaseException) -> str:
    """Return an error of ccxt in one line."""
    text = " ".join(str(error).split())[:120]
    return f"{type(error).__name__}: {text}" if text else type(error).__name__


def _trade(raw: Raw, instrument: Instrument, received: int) -> Trade:
    price = positive(raw["price"], "price")
    time = raw.get("timestamp")
    return Trade(
        instrument.symbol,
        _identity(raw.get("id")),
        raw.get("side"),
        price,
        base_units(positive(raw["amount"], "amount"), price, instrument),
        received if time is None else int(time) * 1_000,
        received,
    )


def _identity(identity: Any) -> int | str | None:  # noqa: ANN401 - whatever ccxt found
    """Return a trade's number if it is one."""
    if isinstance(identity, str) and identity.isdecimal() and len(identity) < 19:
        return int(identity)
    return None if identity is None else str(identity)
