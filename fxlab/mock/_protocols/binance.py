"""Mock protocols of Binance spot and USD-M futures: market streams and REST answers.

The frames are made by hand instead of by a JSON library, because the mock must never be what a
collector under test waits for.

Sources: https://github.com/binance/binance-spot-api-docs (web-socket-streams.md, rest-api.md) and
https://developers.binance.com/docs/derivatives/usds-margined-futures
(websocket market streams, market data). Spot prices and quantities have eight decimals, those of
futures as many as the symbol. A stream is known by its name on combined connections, and by a /
before it on raw ones.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Final

from fxlab.mock._market import (
    Book,
    BookChange,
    Change,
    Listing,
    MarketEvent,
    MarketTrade,
    decimal_text,
)
from fxlab.mock._protocols import (
    LIQUIDATED,
    Answer,
    Protocol,
    Query,
    Socket,
    World,
    compact,
    funded,
    funding_rate,
    next_funding,
)

SPOT_DECIMALS: Final = 8
_WINDOWS: Final = {"depth@100ms": 100_000, "depth": 1_000_000}
_FUTURES_WINDOWS: Final = {"depth@100ms": 100_000, "depth": 250_000, "depth@500ms": 500_000}


class BookWindow:
    """Changes of a book that are gathered until their interval is over."""

    def __init__(self, interval_us: int) -> None:
        self.interval = interval_us
        self.number = -1
        self.first_id = self.id = 0
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}

    def gather(self, change: BookChange) -> None:
        """Add a change."""
        if self.number < 0:
            self.number, self.first_id = change.time // self.interval, change.first_id
        self.id = change.id
        self.bids.update(change.bids)
        self.asks.update(change.asks)

    def over(self, time: int) -> bool:
        """Return whether something was gathered before the interval that `time` is in."""
        return 0 <= self.number < time // self.interval

    @property
    def end_ms(self) -> int:
        """Return the end of the interval."""
        return (self.number + 1) * self.interval // 1_000

    def clear(self) -> None:
        """Begin again."""
        self.number = -1
        self.bids, self.asks = {}, {}


class Frames:
    """The frames of one symbol.

    Attributes
    ----------
    stream
        Its name in front of the @ of its streams: btcusdt.
    deal_keys
        Of the streams of trades and of aggregates.
    ticker_key
        Of the stream of best prices.
    windows, gathering
        Of its diff streams, by the part behind the @; whether any of them ever gathered.
    kept
        Names of streams that are sent as they were recorded.
    """

    def __init__(self, listing: Listing, *, futures: bool) -> None:
        self.native = listing.native or listing.base + listing.quote
        self.stream = self.native.lower()
        self.deal_keys = (f"{self.stream}@trade", f"{self.stream}@aggTrade")
        self.ticker_key = f"{self.stream}@bookTicker"
        self.mark_key, self.liquidation_key = (
            f"{self.stream}@{name}" for name in ("markPrice@1s", "forceOrder")
        )
        self.last_price = 1
        self.marked = 0  # the last second whose mark price was told
        self.gathering = False
        self.listing = listing
        self.decimals = None if futures else SPOT_DECIMALS
        intervals = _FUTURES_WINDOWS if futures else _WINDOWS
        self.windows = {name: BookWindow(every) for name, every in intervals.items()}
        self.kept = listing.streams
        if listing.futures != futures:  # those of another market's form are made anew
            made = {f"{self.stream}@{name}" for name in self.windows}
            self.kept -= {*made, *self.deal_keys, self.ticker_key}
        self._futures = futures
        self._price_unit, price = self._number(listing.price_decimals)
        self._quantity_unit, quantity = self._number(listing.quantity_decimals)
        head, tail = ('"T":%d,', ',"X":"MARKET"') if futures else ("", "")
        self._trade = (
            f'{{"e":"trade","E":%d,{head}"s":"{self.native}","t":%d,"p":"{price}","q":"{quantity}"'
            + (f'{tail},"m":%s}}' if futures else ',"T":%d,"m":%s,"M":true}')
        )
        self._aggregate = (
            f'{{"e":"aggTrade","E":%d,"s":"{self.native}","a":%d,"p":"{price}","q":"{quantity}",'
            '"f":%d,"l":%d,"T":%d,"m":%s' + ("}" if futures else ',"M":true}')
        )

    def _number(self, decimals: int) -> tuple[int, str]:
        zeros = "0" * ((self.decimals or decimals) - decimals)
        return 10**decimals, f"%d.%0{decimals}d{zeros}"

    def trade(self, deal: MarketTrade) -> bytes:
        """Return the data of a trade."""
        time, numbers, maker = self._said(deal)
        if self._futures:
            return (self._trade % (time, time, deal.id, *numbers, maker)).encode()
        return (self._trade % (time, deal.id, *numbers, time, maker)).encode()

    def aggregate(self, deal: MarketTrade) -> bytes:
        """Return the data of a trade as an aggregate of one."""
        time, numbers, maker = self._said(deal)
        values = (time, deal.id, *numbers, deal.id, deal.id, time, maker)
        return (self._aggregate % values).encode()

    def _said(self, deal: MarketTrade) -> tuple[int, tuple[int, ...], str]:
        """Return a trade's milliseconds, the parts of its two numbers, and "buyer is maker"."""
        numbers = *divmod(deal.price, self._price_unit), *divmod(deal.quantity, self._quantity_unit)
        return deal.time // 1_000, numbers, "false" if deal.bought else "true"

    def depth(self, window: BookWindow) -> bytes:
        """Return the data of a diff."""
        time, previous = window.end_ms, window.first_id - 1
        times = f'"E":{time},"T":{time}' if self._futures else f'"E":{time}'
        follows = f',"pu":{previous}' if self._futures else ""
        return (
            f'{{"e":"depthUpdate",{times},"s":"{self.native}","U":{window.first_id},'
            f'"u":{window.id}{follows},'
            f'"b":{self.levels(window.bids.items())},"a":{self.levels(window.asks.items())}}}'
        ).encode()

    def ticker(self, book: Book) -> bytes:
        """Return the data of the best bid and ask."""
        bid, ask = max(book.bids), min(book.asks)
        time = book.time // 1_000
        head = f'"e":"bookTicker","E":{time},"T":{time},' if self._futures else ""
        return (
            f'{{{head}"u":{book.id},"s":"{self.native}",'
            f'"b":"{self.price(bid)}","B":"{self.quantity(book.bids[bid])}",'
            f'"a":"{self.price(ask)}","A":"{self.quantity(book.asks[ask])}"}}'
        ).encode()

    def levels(self, levels: Iterable[Change]) -> str:
        """Return levels as JSON."""
        return f"[{','.join(self._level(price, quantity) for price, quantity in levels)}]"

    def _level(self, price: int, quantity: int) -> str:
        return f'["{self.price(price)}","{self.quantity(quantity)}"]'

    def price(self, units: int) -> str:
        """Return the text of a price."""
        return decimal_text(units, self.listing.price_decimals, self.decimals)

    def quantity(self, units: int) -> str:
        """Return the text of a quantity."""
        return decimal_text(units, self.listing.quantity_decimals, self.decimals)

    def worth(self, deal: MarketTrade) -> str:
        """Return the text of price times quantity."""
        decimals = self.listing.price_decimals + self.listing.quantity_decimals
        return decimal_text(deal.price * deal.quantity, decimals, self.decimals)


_NO_SYMBOL: Final = Answer.of({"code": -1121, "msg": "Invalid symbol."}, 400)
_NO_KEY: Final = Answer.of({"code": -2014, "msg": "API-key format invalid."}, 401)
_MOST: Final = 1_000


class BinanceRest:
    """Answers for spot under /api/v3, for futures under /fapi/v1."""

    def __init__(self, world: World, frames: Mapping[str, Frames], *, futures: bool) -> None:
        self._world = world
        self._frames = {one.native: one for one in frames.values()}
        self._futures = futures
        self._root = "/fapi/v1" if futures else "/api/v3"
        self._general: dict[str, Callable[[Query], Answer]] = {
            "/ping": lambda _: Answer.of({}),
            "/time": lambda _: Answer.of({"serverTime": self._now_ms()}),
            "/exchangeInfo": self._instruments,
        }
        self._of_symbol: dict[str, Callable[[Frames, Query], Answer]] = {
            "/depth": self._depth,
            "/trades": self._trades,
            "/historicalTrades": self._historical,
            "/aggTrades": self._aggregates,
        }
        if futures:
            self._of_symbol |= {"/openInterest": self._interest, "/fundingRate": self._funding}

    def answer(self, path: str, query: Query) -> Answer | None:
        """Return the answer, None for an unknown path."""
        if not path.startswith(f"{self._root}/"):
            return None
        name = path.removeprefix(self._root)
        if general := self._general.get(name):
            return general(query)
        if (about := self._of_symbol.get(name)) is None:
            return None
        frames = self._frames.get(query.get("symbol", ""))
        try:
            return _NO_SYMBOL if frames is None else about(frames, query)
        except ValueError:
            return Answer.of(
                {"code": -1100, "msg": "Illegal characters found in a parameter."}, 400
            )

    def _now_ms(self) -> int:
        return self._world.now() // 1_000

    def _instruments(self, query: Query) -> Answer:
        names = list(self._frames)
        if not self._futures and "symbol" in query:
            names = [query["symbol"]]
        elif not self._futures and "symbols" in query:
            names = json.loads(query["symbols"])
        if any(name not in self._frames for name in names):
            return _NO_SYMBOL
        symbols = [self._instrument(self._frames[name]) for name in names]
        return Answer.of({"timezone": "UTC", "serverTime": self._now_ms(), "symbols": symbols})

    def _instrument(self, frames: Frames) -> dict[str, Any]:
        listing = frames.listing
        trading = listing.symbol not in self._world.delisted
        detail = _futures_detail(listing) if self._futures else _SPOT_DETAIL
        return {
            "symbol": frames.native,
            "status": "TRADING" if trading else "SETTLING" if self._futures else "BREAK",
            "baseAsset": listing.base,
            "quoteAsset": listing.quote,
            **detail,
            "filters": [
                {"filterType": "PRICE_FILTER", "tickSize": frames.price(1)},
                {
                    "filterType": "LOT_SIZE",
                    "stepSize": frames.quantity(1),
                    "minQty": frames.quantity(1),
                },
                {"filterType": "MIN_NOTIONAL", "notional": "5"}
                if self._futures
                else {"filterType": "NOTIONAL", "minNotional": "5.00000000"},
            ],
        }

    def _depth(self, frames: Frames, query: Query) -> Answer:
        limit = int(query.get("limit", "500" if self._futures else "100"))
        book = self._world.book(frames.listing.symbol)
        bids, asks = book.top(min(limit, 1_000 if self._futures else 5_000))
        time = book.time // 1_000
        times = f'"E":{time},"T":{time},' if self._futures else ""
        text = (
            f'{{"lastUpdateId":{book.id},{times}'
            f'"bids":{frames.levels(bids)},"asks":{frames.levels(asks)}}}'
        )
        return Answer(text.encode())

    def _interest(self, frames: Frames, query: Query) -> Answer:  # noqa: ARG002 - as the others
        symbol, time = frames.listing.symbol, self._now_ms()
        told = frames.quantity(1_000_000 + time % 1_000_000)
        self._world.truth.tell("open_interest", symbol, time * 1_000, open_interest=told)
        return Answer.of({"openInterest": told, "symbol": frames.native, "time": time})

    def _funding(self, frames: Frames, query: Query) -> Answer:
        """Answer with what was charged from ``startTime`` on, the oldest first."""
        times = funded(int(query.get("startTime", "0")) * 1_000, self._world.now(), _MOST)
        return Answer.of(
            [
                {
                    "symbol": frames.native,
                    "fundingTime": time // 1_000,
                    "fundingRate": funding_rate(time),
                    "markPrice": frames.price(frames.last_price),
                }
                for time in times[: _limit(query)]
            ]
        )

    def _trades(self, frames: Frames, query: Query) -> Answer:
        deals = self._world.truth.deals[frames.listing.symbol].last(_limit(query))
        return Answer.of([self._row(frames, deal) for deal in self._world.past(deals)])

    def _historical(self, frames: Frames, query: Query) -> Answer:
        # On futures it is documented as MARKET_DATA: it wants a key in a header.
        if self._futures:
            return _NO_KEY
        return Answer.of([self._row(frames, deal) for deal in self._asked(frames, query)])

    def _aggregates(self, frames: Frames, query: Query) -> Answer:
        return Answer.of([self._aggregate(frames, deal) for deal in self._asked(frames, query)])

    def _asked(self, frames: Frames, query: Query) -> list[MarketTrade]:
        deals, limit = self._world.truth.deals[frames.listing.symbol], _limit(query)
        if "fromId" in query:
            return self._world.past(deals.from_id(int(query["fromId"]), limit))
        if "startTime" in query:
            return self._world.past(deals.after(int(query["startTime"]) * 1_000 - 1, limit))
        return self._world.past(deals.last(limit))

    def _row(self, frames: Frames, deal: MarketTrade) -> dict[str, Any]:
        row = {
            "id": deal.id,
            "price": frames.price(deal.price),
            "qty": frames.quantity(deal.quantity),
            "quoteQty": frames.worth(deal),
            "time": deal.time // 1_000,
            "isBuyerMaker": not deal.bought,
        }
        return row if self._futures else {**row, "isBestMatch": True}

    def _aggregate(self, frames: Frames, deal: MarketTrade) -> dict[str, Any]:
        row = {
            "a": deal.id,
            "p": frames.price(deal.price),
            "q": frames.quantity(deal.quantity),
            "f": deal.id,
            "l": deal.id,
            "T": deal.time // 1_000,
            "m": not deal.bought,
        }
        return row if self._futures else {**row, "M": True}


_SPOT_DETAIL: Final = {
    "baseAssetPrecision": 8,
    "quotePrecision": 8,
    "quoteAssetPrecision": 8,
    "isSpotTradingAllowed": True,
    "isMarginTradingAllowed": False,
    "permissions": [],
    "permissionSets": [["SPOT"]],
}


def _futures_detail(listing: Listing) -> dict[str, Any]:
    return {
        "pair": listing.base + listing.quote,
        "contractType": "PERPETUAL",
        "marginAsset": listing.quote,
        "pricePrecision": listing.price_decimals,
        "quantityPrecision": listing.quantity_decimals,
    }


def _limit(query: Query) -> int:
    return max(1, min(int(query.get("limit", "500")), _MOST))


_WEIGHTS: Final = (
    {"exchangeInfo": 20, "trades": 25, "historicalTrades": 25, "aggTrades": 4},
    {"trades": 5, "historicalTrades": 20, "aggTrades": 20},
)
_DEPTH_WEIGHTS: Final = (
    ((100, 5), (500, 25), (1_000, 50), (5_000, 250)),
    ((50, 2), (100, 5), (500, 10), (1_000, 20)),
)


class BinanceProtocol(Protocol):
    """Binance spot."""

    name: ClassVar[str] = "binance"
    used: ClassVar[str] = "X-MBX-USED-WEIGHT-1M"
    notice: ClassVar[bytes] = b'{"e":"serverShutdown","E":1770123456789}'
    sockets: ClassVar[tuple[str, ...]] = ("/stream", "/ws", "/ws/*")
    futures: ClassVar[bool] = False

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._frames = {
            symbol: Frames(listing, futures=self.futures)
            for symbol, listing in world.listings.items()
        }
        self._symbols = {frames.stream: symbol for symbol, frames in self._frames.items()}
        self._rest = BinanceRest(world, self._frames, futures=self.futures)

    def cost(self, path: str, query: Query) -> float:
        """Return the documented weight of a question, as far as fxlab asks it."""
        name = path.rpartition("/")[2]
        if name != "depth":
            return _WEIGHTS[self.futures].get(name, 1)
        levels = int(query.get("limit", "100"))
        return next(weight for most, weight in _DEPTH_WEIGHTS[self.futures] if levels <= most)

    def encode(self, event: MarketEvent) -> Sequence[tuple[str, bytes]]:
        """Return frames of trades, diffs of the book and best prices."""
        frames = self._frames[event.symbol]
        told = self._due(frames, event.time) if frames.gathering else []
        if event.frame is not None and event.frame[0] in frames.kept:
            told += self._recorded(*event.frame)
        if isinstance(event, MarketTrade):
            told += self._deal(frames, event)
        elif isinstance(event, BookChange):
            self._gather(frames, event)
            key, book = frames.ticker_key, self.world.truth.books[event.symbol]
            if self._made(frames, key) and book.bids and book.asks:
                told += self._both(key, frames.ticker(book))
        return told

    def _deal(self, frames: Frames, deal: MarketTrade) -> list[tuple[str, bytes]]:
        told: list[tuple[str, bytes]] = []
        trade, aggregate = frames.deal_keys
        # A recorded trade whose id was changed has no frame any more.
        if self._made(frames, trade) or (deal.frame is None and self._wanted(trade)):
            told += self._both(trade, frames.trade(deal))
        if self._made(frames, aggregate) or (deal.frame is None and self._wanted(aggregate)):
            told += self._both(aggregate, frames.aggregate(deal))
        return told

    def _gather(self, frames: Frames, change: BookChange) -> None:
        for name, window in frames.windows.items():
            if self._made(frames, f"{frames.stream}@{name}"):
                window.gather(change)
                frames.gathering = True
            else:
                window.clear()

    def _due(self, frames: Frames, time: int) -> list[tuple[str, bytes]]:
        told = []
        for name, window in frames.windows.items():
            if window.over(time):
                told += self._both(f"{frames.stream}@{name}", frames.depth(window))
                window.clear()
        return told

    def begin(self, stream: str, symbol: str) -> None:
        """Forget what was gathered for those who left before it was sent."""
        key = stream.lstrip("/")
        window = self._frames[symbol].windows.get(key.partition("@")[2])
        if window is not None and not self._wanted(key):
            window.clear()

    def finish(self) -> Iterator[tuple[str, bytes]]:
        """Return the diffs that were being gathered."""
        for frames in self._frames.values():
            yield from self._due(frames, 1 << 62)

    def _made(self, frames: Frames, key: str) -> bool:
        """Return whether frames of a stream are wanted that no recording has."""
        return key not in frames.kept and self._wanted(key)

    def _wanted(self, key: str) -> bool:
        return key in self.listened or f"/{key}" in self.listened

    def _both(self, key: str, data: bytes) -> list[tuple[str, bytes]]:
        told = []
        if key in self.listened:
            told.append((key, b'{"stream":"%b","data":%b}' % (key.encode(), data)))
        if f"/{key}" in self.listened:
            told.append((f"/{key}", data))
        return told

    def _recorded(self, key: str, frame: bytes) -> list[tuple[str, bytes]]:
        told = [(key, frame)] if key in self.listened else []
        if f"/{key}" in self.listened:
            told.append((f"/{key}", frame[frame.index(b'"data":') + 7 : -1]))
        return told

    def describe(self, frame: bytes) -> dict[str, Any]:
        """Return the ids of a frame: t or a of trades, U and u of diffs."""
        message = json.loads(frame)
        data = message.get("data", message)
        return {name: data[name] for name in ("t", "a", "U", "u") if name in data and "s" in data}

    def opened(self, session: Socket, path: str, query: Query) -> None:
        """Subscribe to the streams that the address names."""
        combined = path.endswith("/stream")
        session.notes["combined"] = combined
        named = query.get("streams", "") if combined else path.rpartition("/ws")[2]
        self._subscribe(session, [name for name in named.strip("/").split("/") if name])

    def heard(self, session: Socket, text: str) -> None:
        """Obey SUBSCRIBE, UNSUBSCRIBE and LIST_SUBSCRIPTIONS."""
        try:
            request = json.loads(text)
            number, method = request.get("id"), request["method"]
            streams = [str(one) for one in request.get("params", ())]
        except (ValueError, KeyError, TypeError, AttributeError, RecursionError):
            error = {"code": 2, "msg": "Invalid request: request must be a JSON object"}
            session.send(compact({"error": error, "id": None}))
            return
        session.send(compact(self._obey(session, method, streams) | {"id": number}))

    def _obey(self, session: Socket, method: str, streams: Sequence[str]) -> dict[str, Any]:
        if method == "SUBSCRIBE":
            self._subscribe(session, streams)
        elif method == "UNSUBSCRIBE":
            for name in streams:
                session.unsubscribe(_key(session, name))
        elif method == "LIST_SUBSCRIPTIONS":
            return {"result": [key.lstrip("/") for key in session.streams]}
        else:
            return {"error": {"code": 2, "msg": f"Invalid request: unknown variant {method}"}}
        return {"result": None}

    def _subscribe(self, session: Socket, streams: Sequence[str]) -> None:
        # An unknown stream is accepted and stays silent, as on the venue.
        for name in streams:
            symbol = self._symbols.get(name.partition("@")[0])
            if symbol is not None:
                session.subscribe(_key(session, name), symbol)

    def answer(self, path: str, query: Query) -> Answer | None:
        """Return an answer of the public market data API."""
        return self._rest.answer(path, query)


class BinanceFuturesProtocol(BinanceProtocol):
    """Binance USD-M perpetuals."""

    name: ClassVar[str] = "binance_futures"
    sockets: ClassVar[tuple[str, ...]] = tuple(
        f"{entry}{path}" for entry in ("", "/public", "/market") for path in BinanceProtocol.sockets
    )
    futures: ClassVar[bool] = True

    def encode(self, event: MarketEvent) -> Sequence[tuple[str, bytes]]:
        """Return also a mark price each second, and liquidations."""
        told = [*super().encode(event)]
        frames, truth = self._frames[event.symbol], self.world.truth
        if not isinstance(event, MarketTrade):
            return told
        frames.last_price = event.price
        if event.time // 1_000_000 > frames.marked and self._made(frames, frames.mark_key):
            frames.marked = event.time // 1_000_000
            told += self._both(frames.mark_key, self._mark(frames, event.time // 1_000))
        if event.id % LIQUIDATED == 0 and self._made(frames, frames.liquidation_key):
            side, time = "BUY" if event.bought else "SELL", event.time // 1_000
            price, quantity = frames.price(event.price), frames.quantity(event.quantity)
            order = {"s": frames.native, "S": side, "o": "LIMIT", "f": "IOC", "X": "FILLED"}
            order |= {"q": quantity, "p": price, "ap": price, "l": quantity, "z": quantity}
            data = {"e": "forceOrder", "E": time, "o": {**order, "T": time}}
            told += self._both(frames.liquidation_key, compact(data))
            values = {"side": side.lower(), "price": price, "volume": quantity}
            truth.tell("liquidations", event.symbol, time * 1_000, **values)
        return told

    def _mark(self, frames: Frames, time: int) -> bytes:
        due = next_funding(time * 1_000)
        prices = {name: frames.price(frames.last_price + add) for name, add in _OFFSETS.items()}
        values = {**prices, "funding_rate": funding_rate(due), "next_funding": due}
        self.world.truth.tell("mark", frames.listing.symbol, time * 1_000, **values)
        data = {"e": "markPriceUpdate", "E": time, "s": frames.native}
        data |= {key: prices[name] for key, name in zip("piP", _OFFSETS, strict=True)}
        return compact({**data, "r": values["funding_rate"], "T": due // 1_000})


_OFFSETS: Final = {"mark_price": 0, "index_price": 1, "settle_price": 2}
"""Of the last price, in units of its last decimal."""


def _key(session: Socket, name: str) -> str:
    return name if session.notes["combined"] else f"/{name}"
