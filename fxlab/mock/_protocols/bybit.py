"""Mock protocol of Bybit, version 5: trades, books of 1, 50 and 200 levels, and REST.

A book's topic begins with a snapshot for who subscribes; its changes carry update ids that rise by
one and levels inside the topic's depth only: one that falls out of it is taken away. Spot's trades
have their number as id, those of contracts a UUID, whose end is the number.

https://bybit-exchange.github.io/docs/v5/ws/connect
https://bybit-exchange.github.io/docs/v5/websocket/public/orderbook
https://bybit-exchange.github.io/docs/v5/websocket/public/trade
https://bybit-exchange.github.io/docs/v5/market/instrument
https://bybit-exchange.github.io/docs/v5/market/recent-trade
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final

from fxlab.mock._market import BookChange, Change, Listing, MarketEvent, MarketTrade
from fxlab.mock._protocols import (
    Answer,
    Protocol,
    Query,
    Socket,
    World,
    changed_levels,
    compact,
)

DEPTHS: Final = (1, 50, 200)
FIRST_UPDATE: Final = 1_000
MOST_TOPICS: Final = 10
_ROOT: Final = "/v5/market/"
_UUID: Final = "5b1f0c9e-28d4-5c3a-9f10-{:012x}"

Sides = tuple[list[Change], list[Change]]


class BybitProtocol(Protocol):
    """Bybit's public topics ``publicTrade`` and ``orderbook`` of spot."""

    name: ClassVar[str] = "bybit"
    sockets: ClassVar[tuple[str, ...]] = ("/v5/public/spot",)
    category: ClassVar[str] = "spot"
    newest: ClassVar[int] = 60
    """Trades that ``recent-trade`` tells at most."""

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._natives = {one.base + one.quote: one for one in world.listings.values()}
        self._known: dict[str, tuple[Sides, int]] = {}

    # The stream

    def heard(self, session: Socket, text: str) -> None:
        """Subscribe, unsubscribe, or answer a ping."""
        try:
            request = json.loads(text)
            operation, number = request["op"], request.get("req_id", "")
            if operation == "ping":
                self._tell(session, "ping", number, "pong")
                return
            topics = request["args"]
            if operation not in {"subscribe", "unsubscribe"} or not isinstance(topics, list):
                self._tell(session, operation, number, "error:unknown op", success=False)
                return
            wrong = next((one for one in topics if self._listing(one) is None), None)
            if wrong is not None or len(topics) > MOST_TOPICS:
                said = f"error:handler not found,topic:{wrong}" if wrong else "args size >10"
                self._tell(session, operation, number, said, success=False)
                return
            self._tell(session, operation, number, operation)
            for topic in topics:
                self._act(session, operation, topic)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self._tell(session, "", "", "error:bad request", success=False)

    def _act(self, session: Socket, operation: str, topic: str) -> None:
        listing = self._listing(topic)
        assert listing is not None  # noqa: S101 - `heard` saw to it
        if operation == "unsubscribe":
            session.unsubscribe(topic)
            return
        if topic.startswith("orderbook."):
            sides, number = self._state(topic, listing)
            time = self.world.truth.books[listing.symbol].time or self.world.now()
            session.send(self._book(topic, "snapshot", listing, sides, number=number, time=time))
        session.subscribe(topic, listing.symbol)

    def _listing(self, topic: str) -> Listing | None:
        """Return whose topic it is; None for one that the venue does not have."""
        kind, _, rest = topic.partition(".")
        depth, _, native = rest.rpartition(".")
        known = kind == "publicTrade" and not depth
        known = known or (kind == "orderbook" and depth in map(str, DEPTHS))
        listing = self._natives.get(native) if known else None
        return None if listing is None or listing.symbol in self.world.delisted else listing

    def _tell(
        self, session: Socket, operation: str, number: str, said: str, *, success: bool = True
    ) -> None:
        told = {"success": success, "ret_msg": said, "conn_id": "mock", "op": operation}
        session.send(compact({**told, "req_id": number}))

    def encode(self, event: MarketEvent) -> Iterable[tuple[str, bytes]]:
        """Return the frames about a trade or a change of a book."""
        listing = self.world.listings[event.symbol]
        if isinstance(event, MarketTrade):
            topic = f"publicTrade.{_native(listing)}"
            if topic in self.listened:
                yield topic, self._trade(topic, event, listing)
        elif isinstance(event, BookChange):
            yield from self._changes(event, listing)

    def _trade(self, topic: str, deal: MarketTrade, listing: Listing) -> bytes:
        time = deal.time // 1_000
        entry = {
            "T": time,
            "s": _native(listing),
            "S": "Buy" if deal.bought else "Sell",
            "v": listing.quantity(deal.quantity),
            "p": listing.price(deal.price),
            "L": "PlusTick",
            "i": self.identity(deal.id),
            "BT": False,
            "seq": deal.id,
        }
        return compact({"topic": topic, "type": "snapshot", "ts": time, "data": [entry]})

    def identity(self, number: int) -> str:
        """Return a trade's id as the market has it."""
        return str(number)

    def _changes(self, change: BookChange, listing: Listing) -> Iterator[tuple[str, bytes]]:
        for depth in DEPTHS:
            topic = f"orderbook.{depth}.{_native(listing)}"
            if topic not in self.listened:
                continue
            before, last = self._known[topic]
            after, number = self._state(topic, listing)
            if number == last:
                continue
            bids, asks = (changed_levels(*sides) for sides in zip(before, after, strict=True))
            yield (
                topic,
                self._book(topic, "delta", listing, (bids, asks), number=number, time=change.time),
            )

    def _state(self, topic: str, listing: Listing) -> tuple[Sides, int]:
        """Return a topic's levels and their update id, which rises when they have changed."""
        sides = self.world.truth.books[listing.symbol].top(int(topic.split(".")[1]))
        before, number = self._known.get(topic, (sides, FIRST_UPDATE))
        self._known[topic] = sides, number + (sides != before)
        return self._known[topic]

    def _book(
        self, topic: str, kind: str, listing: Listing, sides: Sides, *, number: int, time: int
    ) -> bytes:
        data = {"s": _native(listing), **_sides(sides, listing), "u": number, "seq": number}
        ms = time // 1_000
        return compact({"topic": topic, "type": kind, "ts": ms, "data": data, "cts": ms})

    def describe(self, frame: bytes) -> dict[str, Any]:
        """Return the id of a trade, or the update id of a book."""
        data = json.loads(frame)["data"]
        entry = data[0] if isinstance(data, list) else data
        return {name: entry[name] for name in ("i", "u") if name in entry}

    # REST

    def answer(self, path: str, query: Query) -> Answer | None:
        """Answer time, instruments-info, recent-trade and orderbook."""
        what = path.removeprefix(_ROOT)
        if what == "time":
            now = self.world.now()
            return self._result({"timeSecond": str(now // 1_000_000), "timeNano": f"{now}000"})
        if what not in {"instruments-info", "recent-trade", "orderbook"} or what == path:
            return None
        if query.get("category") != self.category:
            return self._error(10001, "params error: Category is invalid")
        if what == "instruments-info":
            return self._page(query)
        listing = self._natives.get(query.get("symbol", ""))
        if listing is None:
            return self._error(10001, "Not supported symbols")
        limit = int(query.get("limit", "0"))
        return self._newest(listing, limit) if what == "recent-trade" else self._top(listing, limit)

    def _page(self, query: Query) -> Answer:
        """Return the listings: all of spot, of contracts those after a cursor."""
        traded = [one for one in self._natives.values() if one.symbol not in self.world.delisted]
        found = {"category": self.category, "list": [self.listing(one) for one in traded]}
        if self.category == "spot":
            return self._result(found)
        limit, cursor = int(query.get("limit", "500")), query.get("cursor", "")
        first = int(cursor.removeprefix("after=")) if cursor else 0
        more = f"after%3D{first + limit}" if first + limit < len(traded) else ""
        page = found["list"][first : first + limit]
        return self._result({**found, "list": page, "nextPageCursor": more})

    def listing(self, listing: Listing) -> dict[str, Any]:
        """Return what the venue says of a pair."""
        return {
            "symbol": _native(listing),
            "baseCoin": listing.base,
            "quoteCoin": listing.quote,
            "innovation": "0",
            "status": "Trading",
            "lotSizeFilter": {
                "basePrecision": listing.quantity(1),
                "minOrderQty": listing.quantity(1),
                "minOrderAmt": "5",
            },
            "priceFilter": {"tickSize": listing.price(1)},
        }

    def _newest(self, listing: Listing, limit: int) -> Answer:
        deals = self.world.truth.deals[listing.symbol].last(min(limit or 60, self.newest))
        entries = [
            {
                "execId": self.identity(deal.id),
                "symbol": _native(listing),
                "price": listing.price(deal.price),
                "size": listing.quantity(deal.quantity),
                "side": "Buy" if deal.bought else "Sell",
                "time": str(deal.time // 1_000),
                "isBlockTrade": False,
            }
            for deal in reversed(self.world.past(deals))
        ]
        return self._result({"category": self.category, "list": entries})

    def _top(self, listing: Listing, limit: int) -> Answer:
        book = self.world.book(listing.symbol)
        told = {"s": _native(listing), **_sides(book.top(limit or 1), listing), "u": book.id}
        now = self.world.now() // 1_000
        return self._result({**told, "ts": now, "seq": book.id, "cts": book.time // 1_000})

    def _result(self, result: dict[str, Any]) -> Answer:
        told = {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}}
        return Answer.of({**told, "time": self.world.now() // 1_000})

    def _error(self, code: int, words: str) -> Answer:
        told = {"retCode": code, "retMsg": words, "result": {}, "retExtInfo": {}}
        return Answer.of({**told, "time": self.world.now() // 1_000})


class BybitLinearProtocol(BybitProtocol):
    """The same of its perpetual contracts."""

    name: ClassVar[str] = "bybit_linear"
    sockets: ClassVar[tuple[str, ...]] = ("/v5/public/linear",)
    category: ClassVar[str] = "linear"
    newest: ClassVar[int] = 1_000

    def identity(self, number: int) -> str:
        """Return a UUID, as contracts have."""
        return _UUID.format(number)

    def listing(self, listing: Listing) -> dict[str, Any]:
        """Return what the venue says of a contract."""
        told = super().listing(listing)
        del told["innovation"]
        least = {"minOrderQty": listing.quantity(1), "minNotionalValue": "5"}
        quantity = {"qtyStep": listing.quantity(1), **least}
        kind = {"contractType": "LinearPerpetual", "settleCoin": listing.quote}
        return {**told, **kind, "lotSizeFilter": quantity}


def _native(listing: Listing) -> str:
    return listing.base + listing.quote


def _sides(sides: Sides, listing: Listing) -> dict[str, list[list[str]]]:
    return {
        name: [
            [listing.price(price), listing.quantity(quantity) if quantity else "0"]
            for price, quantity in side
        ]
        for name, side in zip(("b", "a"), sides, strict=True)
    }
