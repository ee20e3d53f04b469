"""ccxt feed: exchanges that fxlab does not speak to itself, ``ccxt:bitget``, ``ccxt:gate``, ...

ccxt knows how to reach, subscribe and parse; but its queues lose. What ``watch_trades`` hands out
comes from a ring of 1,000 trades, and ``watch_order_book`` hands out a state that may have changed
many times meanwhile: a program that only awaits them loses data without a word. Inside, however,
each trade is appended to a cache and each applied change of a book is resolved. Both are tapped
there, by a subclass of the exchange, for this instance alone (`tapped`). These two places are no
public interface of ccxt: its minor version is pinned, and ``tests/venues/test_ccxt_bridge.py``
holds that they are there.

A recording is kept subscribed, and what the tap sees becomes messages; books that ccxt keeps become
snapshots and the changes between their states. ccxt does not say which trades a lost connection
cost, and cannot be slowed down: trades may have gaps, which are reported. An exchange that bypasses
the tap is best effort: then `Feed.lossless` is False, and an event says so. Books are best effort
from the start: whether an update was missed is known to ccxt's exchange at most, and many of those
do not look.
"""

from __future__ import annotations

import asyncio
import contextlib
import sys
from collections.abc import AsyncGenerator, Awaitable, Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from itertools import islice
from typing import Any, ClassVar, Final, cast

from fxlab._network import proxy_for, wait_before
from fxlab._ticks import instrument_terms
from fxlab.collect.feed import (
    NOT_AS_DOCUMENTED,
    Address,
    BookDelta,
    BookSnapshot,
    Clock,
    Event,
    Feed,
    Instrument,
    Level,
    Message,
    Quote,
    Subscription,
    Trade,
    cause_of,
    positive,
    quantity_of,
    quarantine,
)
from fxlab.collect.venues._book_sync import GapRecord, TradeGapTracker
from fxlab.errors import (
    CollectionFailed,
    InvalidParameter,
    VenueNotFound,
    VenueRefused,
    VenueUnavailable,
)
from fxlab.schema import BOOK_DEPTH, is_symbol

RING: Final = 1_000

Raw = dict[str, Any]


def load(exchange: str) -> Any:  # noqa: ANN401 - ccxt is typed by half
    """Return ccxt's class of an exchange.

    Raises
    ------
    InvalidParameter
        Without ccxt.
    VenueNotFound
        If ccxt has no streams of that exchange.
    """
    try:
        import ccxt.pro
    except ImportError as error:
        raise InvalidParameter(
            f"venue 'ccxt:{exchange}' needs the package ccxt; install it with: "
            "pip install 'fxlab[ccxt]'"
        ) from error
    if exchange not in ccxt.pro.exchanges:
        raise VenueNotFound.named(f"ccxt:{exchange}", [f"ccxt:{one}" for one in ccxt.pro.exchanges])
    return getattr(sys.modules["ccxt.pro"], exchange)


def tapped(kind: Any, on_trade: Callable[[Raw], None], on_book: Callable[[Raw], None]) -> Any:  # noqa: ANN401
    """Return a subclass of an exchange that tells each trade and each state of a book.

    Parameters
    ----------
    kind
        ccxt's class.
    on_trade
        Gets each parsed trade, in the order in which ccxt parsed them.
    on_book
        Gets a book after each change that was applied; it must be read at once, as it goes on.
    """
    from ccxt.async_support.base.ws.cache import ArrayCache
    from ccxt.async_support.base.ws.order_book import OrderBook

    class TapCache(ArrayCache):  # type: ignore[misc]
        def append(self, item: Raw) -> None:
            on_trade(item)
            super().append(item)

    class Tapped(kind):  # type: ignore[misc]
        def client(self, url: str) -> Any:  # noqa: ANN401
            client = super().client(url)
            if "resolve" not in vars(client):
                client.resolve = _overheard(client.resolve, on_book, OrderBook)
            return client

        def tap_trades(self, symbol: str) -> None:
            """Put our cache where ccxt would put its own."""
            self.trades[symbol] = TapCache(RING)

        def holds_tap(self, symbol: str) -> bool:
            """Return whether ccxt still uses our cache."""
            return isinstance(self.trades.get(symbol), TapCache)

    return Tapped


def _overheard(
    resolve: Callable[[Any, Any], Any], on_book: Callable[[Raw], None], book_type: type
) -> Callable[[Any, Any], Any]:
    def overheard(result: Any, message_hash: Any = None) -> Any:  # noqa: ANN401 - as ccxt's
        if isinstance(result, book_type):
            on_book(cast("Raw", result))
        return resolve(result, message_hash)

    return overheard


def redirect(urls: Raw, address: Address) -> None:
    """Point all addresses of an exchange to a mock or a proxy; their paths stay."""
    for name, value in urls.items():
        if isinstance(value, dict):
            redirect(value, address)
        elif isinstance(value, str) and "://" in value:
            scheme, _, rest = value.partition("://")
            base = address.stream if scheme.startswith("ws") else address.rest
            slash, path = rest.partition("/")[1:]
            urls[name] = f"{base}{slash}{path}"


def instrument_of(market: Mapping[str, Any], precision_is_tick: bool) -> Instrument | None:  # noqa: FBT001
    """Return a market as an instrument, or None if it has no name that fxlab can keep.

    A contract keeps what it settles in: BTC/USDT:USDT is BTC_USDT:USDT.
    """
    symbol = str(market["symbol"]).replace("/", "_").upper()
    if not is_symbol(symbol):
        return None
    precision = (market.get("precision") or {}).get("price")
    return Instrument(
        symbol,
        market["symbol"],
        _decimals(precision, precision_is_tick),
        "inactive" if market.get("active") is False else "trading",
        {
            "contract_size": float(market.get("contractSize") or 1.0),
            "inverse": market.get("inverse") is True,
        },
        _terms(market, precision_is_tick),
    )


_KINDS: Final = {"spot": "spot", "swap": "perpetual", "future": "future", "option": "option"}


def _terms(market: Mapping[str, Any], precision_is_tick: bool) -> dict[str, Any]:  # noqa: FBT001
    """Return a market's sizes; no fees: ccxt does not tell whether they are listed or its own."""
    size = market.get("contractSize") if market.get("contract") else None
    limits, expiry = market.get("limits") or {}, market.get("expiry")
    steps: dict[str, Any] = dict.fromkeys(("price", "amount"))
    for name, step in (market.get("precision") or {}).items():
        if name in steps and step is not None:
            steps[name] = step if precision_is_tick else Decimal(1).scaleb(-int(step))
    sizes = {} if market.get("inverse") else {"lot_size": steps["amount"]}
    return instrument_terms(
        contract=size or 1,
        kind=_KINDS.get(str(market.get("type"))),
        base=market.get("base"),
        quote=market.get("quote"),
        settle=market.get("settle"),
        contract_size=size,
        tick_size=steps["price"],
        **sizes,
        min_qty=sizes and (limits.get("amount") or {}).get("min"),
        min_notional=(limits.get("cost") or {}).get("min"),
        expiry=int(expiry) * 1_000 if expiry else None,
    )


def _decimals(precision: float | None, precision_is_tick: bool) -> int | None:  # noqa: FBT001
    if precision is None:
        return None
    if not precision_is_tick:
        return int(precision)
    exponent = Decimal(str(precision)).normalize().as_tuple().exponent
    return max(0, -exponent) if isinstance(exponent, int) else None


Sides = tuple[list[Level], list[Level]]


class WatchedBook(GapRecord):
    """The best levels of one symbol's book, as ccxt shows them after each change.

    Parameters
    ----------
    instrument
        Whose book it is.
    quotes
        Whether only the best bid and ask are wanted.
    """

    def __init__(self, instrument: Instrument, *, quotes: bool) -> None:
        super().__init__(instrument.symbol)
        self._instrument = instrument
        self._depth = 1 if quotes else BOOK_DEPTH
        self._quotes = quotes
        self._sides: Sides | None = None
        self._update = 0

    def take(self, raw: dict[str, Any], received: int) -> list[Message]:
        """Return what a state means: a snapshot, or what changed since the last one.

        Raises
        ------
        ValueError, TypeError, LookupError, ArithmeticError
            If it is no book.
        """
        sides = self._levels(raw["bids"]), self._levels(raw["asks"])
        if sides == self._sides or not any(sides):
            return []
        first, self._update = self._update + 1, self._number(raw.get("nonce"))
        stamp = raw.get("timestamp")
        time = max(received if stamp is None else int(stamp) * 1_000, self._last_time or 0)
        before, self._sides = self._sides, sides
        return [*self._known(time), *self._told(before, sides, first, time, received)]

    def _told(
        self, before: Sides | None, now: Sides, first: int, time: int, received: int
    ) -> list[Message]:
        symbol, update = self.symbol, self._update
        if self._quotes:
            return self._quote(now, time, received)
        if before is None:
            return [BookSnapshot(symbol, update, *now, time, received)]
        bids, asks = (_changes(old, new) for old, new in zip(before, now, strict=True))
        return [BookDelta(symbol, first, update, bids, asks, time, received)]

    def lose(self, cause: str, missing: int | None = None) -> list[Message]:
        """Forget the book; return the gap that begins, if none has begun already."""
        self._sides = None
        return super().lose(cause, missing)

    def _number(self, nonce: object) -> int:
        """Return the exchange's number of the state if it rises, else the next one."""
        return nonce if type(nonce) is int and nonce > self._update else self._update + 1

    def _quote(self, sides: Sides, time: int, received: int) -> list[Message]:
        if not all(sides):
            return []
        (bid, *_), (ask, *_) = sides
        return [Quote(self.symbol, *bid, *ask, self._update, time, received)]

    def _levels(self, levels: Any) -> list[Level]:  # noqa: ANN401 - ccxt's sides are lists, nearly
        found = []
        for level in islice(iter(levels), self._depth):
            price = positive(level[0], "price")
            amount = quantity_of(level[1], "quantity")
            found.append((price, base_units(amount, price, self._instrument)))
        return found


def base_units(amount: float, price: float, instrument: Instrument) -> float:
    """Return an amount, which ccxt gives in contracts, in units of the base coin."""
    size = float(instrument.detail["contract_size"])
    if instrument.detail["inverse"]:
        return amount * size / price
    return amount if size == 1.0 else round(amount * size, 12)


def _changes(before: list[Level], after: list[Level]) -> list[Level]:
    """Return what leads from some best levels to others; those that fell out are taken away."""
    old, new = dict(before), dict(after)
    gone = [(price, 0.0) for price in old if price not in new]
    return gone + [(price, quantity) for price, quantity in after if old.get(price) != quantity]


MOST_WAITING: Final = 500_000
"""Messages that may wait for the recorder; ccxt cannot be paused."""
RETRY: Final = (0.1, 10.0)
"""First and longest wait in seconds before a subscription is tried again."""


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
        Whether everything that is wanted comes through a tap that ccxt still uses: trades do, but
        of books nobody here sees whether an update is missing.
    """

    def __init__(self, exchange: Any, clock: Clock, wanted: Subscription) -> None:  # noqa: ANN401
        self._exchange, self._clock, self._wanted = exchange, clock, wanted
        self._by_native = wanted.by_native
        self._books = {
            one.native: WatchedBook(one, quotes=wanted.book_depth == 1)
            for one in wanted.instruments
            if wanted.book_depth
        }
        self.lossless = not self._books
        self._trade_gaps = TradeGapTracker()
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
            self._tell(self._trade_gaps.take(_trade(raw, instrument, received)))
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
        exchange, works = self._exchange, list[Awaitable[None]]()
        for one in self._wanted.instruments:
            if self._wanted.trades:
                exchange.tap_trades(one.native)
                lose = partial(self._lose_prices, one)
                works.append(self._keep(one, exchange.watch_trades, lose))
            if book := self._books.get(one.native):
                works.append(self._keep(one, exchange.watch_order_book, book.lose))
        return works

    async def _keep(
        self,
        one: Instrument,
        watch: Callable[[str], Awaitable[Any]],
        lose: Callable[[str], list[Message]],
    ) -> None:
        """Await ccxt only to be subscribed, to be connected again, and to hear of errors."""
        import ccxt

        failures, lost = 0, False
        while True:
            try:
                await watch(one.native)
            except (ccxt.AuthenticationError, ccxt.NotSupported, ccxt.BadRequest) as error:
                self._tell([*lose(words(error)), self._trouble(one, f"given up: {error}")])
                return
            except ccxt.BaseError as error:
                cause = words(error)
                if not failures:
                    self._tell([*lose(cause), self._trouble(one, cause)])
                failures += 1
                # A book out of step is a NetworkError to ccxt, yet the connection stands.
                lost |= isinstance(error, ccxt.NetworkError) and not isinstance(
                    error, ccxt.InvalidNonce
                )
                await asyncio.sleep(wait_before(failures - 1, *RETRY))
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
        return self._trade_gaps.lose(cause, [one.symbol])

    def _trouble(self, one: Instrument, detail: str) -> Event:
        return Event("venue_error", one.symbol, self._clock.now(), 1, detail[:300])

    def _look_after_tasks(self) -> None:
        """Raise unexpected errors; end when nothing is watched any more."""
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


class CcxtFeed(Feed):
    """Trades, quotes and books of an exchange that ccxt knows.

    Parameters
    ----------
    exchange
        ccxt's name of it: "bitget".
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
