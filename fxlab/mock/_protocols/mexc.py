"""Mock protocol of MEXC futures: trades ("deals"), depth by version, and REST snapshots.

One contract is one unit of a symbol's last quantity decimal, so that whatever happens can be sent
in whole contracts.

https://www.mexc.com/api-docs/futures/websocket-api
https://www.mexc.com/api-docs/futures/market-endpoints
https://www.mexc.com/api-docs/futures/websocket-api/incremental-order-book-maintenance-mechanism
"""

from __future__ import annotations

import json
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any, ClassVar, Final

from fxlab.mock._market import BookChange, Change, Listing, MarketEvent, MarketTrade
from fxlab.mock._protocols import Answer, Protocol, Query, Socket, World, compact

COMMITS: Final = 1_000
FIRST_VERSION: Final = 1_000_000
DEALS: Final = 100
_ROOT: Final = "/api/v1/contract/"
_CHANNELS: Final = ("deal", "depth")


class MexcProtocol(Protocol):
    """MEXC's public channels ``deal`` and ``depth``."""

    name: ClassVar[str] = "mexc"
    sockets: ClassVar[tuple[str, ...]] = ("/edge",)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._commits: dict[str, deque[BookChange]] = {
            symbol: deque(maxlen=COMMITS) for symbol in world.listings
        }
        self._seen = {
            symbol: (book.id, FIRST_VERSION) for symbol, book in world.truth.books.items()
        }

    # The stream

    def heard(self, session: Socket, text: str) -> None:
        """Subscribe, unsubscribe, or answer a ping."""
        try:
            request = json.loads(text)
            method, parameters = request["method"], request.get("param", {})
            if method == "ping":
                self._tell(session, "pong", self.world.now() // 1_000)
                return
            action, _, channel = method.partition(".")
            if action not in {"sub", "unsub"} or channel not in _CHANNELS:
                self._tell(session, "rs.error", f"no such method: {method}")
                return
            self._act(session, action, channel, parameters["symbol"])
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self._tell(session, "rs.error", "Request params not valid")

    def _act(self, session: Socket, action: str, channel: str, symbol: str) -> None:
        if symbol not in self.world.listings or symbol in self.world.delisted:
            self._tell(session, "rs.error", f"Contract [{symbol}] doesn't exist!")
            return
        stream = f"{channel}:{symbol}"
        if action == "unsub":
            session.unsubscribe(stream)
        self._tell(session, f"rs.{action}.{channel}", "success")
        if action == "sub":
            session.subscribe(stream, symbol)

    def _tell(self, session: Socket, channel: str, data: Any) -> None:  # noqa: ANN401 - any JSON
        session.send(compact({"channel": channel, "data": data, "ts": self.world.now() // 1_000}))

    def encode(self, event: MarketEvent) -> Iterable[tuple[str, bytes]]:
        """Return the frame about a deal or a change of a book."""
        listing = self.world.listings[event.symbol]
        if isinstance(event, MarketTrade):
            stream = f"deal:{listing.symbol}"
            if stream in self.listened:
                told = _pushed("deal", f"[{_deal(event, listing)}]", listing, event.time)
                yield stream, told
        elif isinstance(event, BookChange):
            yield from self._depth(event, listing)

    def _depth(self, change: BookChange, listing: Listing) -> Iterator[tuple[str, bytes]]:
        if change.id < self.world.truth.books[listing.symbol].id:
            return  # the opening book of a recording has it
        before = max(change.first_id - 1, self._seen[listing.symbol][0])
        version = self._version(listing.symbol, before) + 1
        self._seen[listing.symbol] = (change.id, version)
        self._commits[listing.symbol].append(change._replace(id=version))
        stream = f"depth:{listing.symbol}"
        if stream in self.listened:
            data = f'{{{_sides(change.bids, change.asks, listing)},"version":{version}}}'
            yield stream, _pushed("depth", data, listing, change.time)

    def _version(self, symbol: str, book_id: int) -> int:
        """Return the version of a book; without merging, each change has the next one."""
        seen, version = self._seen[symbol]
        if seen != book_id:
            # It changed without a listener.
            version += 1
            self._seen[symbol] = (book_id, version)
        return version

    def describe(self, frame: bytes) -> dict[str, Any]:
        """Return the id of a deal, or the version of a change."""
        data = json.loads(frame)["data"]
        entry = data[0] if isinstance(data, list) else data
        return {name: entry[name] for name in ("i", "version") if name in entry}

    # REST

    def answer(self, path: str, query: Query) -> Answer | None:
        """Answer ping, detail, depth, depth_commits and deals."""
        if not path.startswith(_ROOT):
            return None
        what, _, rest = path.removeprefix(_ROOT).partition("/")
        symbol, _, limit = rest.partition("/")
        if what == "ping":
            return _success(str(self.world.now() // 1_000))
        if what == "detail":
            contracts = [self._contract(one) for one in self.world.listings.values()]
            return _success(json.dumps(contracts))
        if what not in {"depth", "depth_commits", "deals"}:
            return None
        listing = self.world.listings.get(symbol)
        if listing is None:
            return Answer.of({"success": False, "code": 1001, "message": "Contract does not exist"})
        limit = limit or query.get("limit", "")
        count = int(limit) if limit.isdecimal() else None
        return _success(
            {"depth": self._book, "deals": self._deals}.get(what, self._kept)(listing, count)
        )

    def _contract(self, listing: Listing) -> dict[str, Any]:
        return {
            "symbol": listing.symbol,
            "displayNameEn": f"{listing.symbol} PERPETUAL",
            "baseCoin": listing.base,
            "quoteCoin": listing.quote,
            "settleCoin": listing.quote,
            "contractSize": float(listing.quantity(1)),
            "priceScale": listing.price_decimals,
            "volScale": 0,
            "priceUnit": float(listing.price(1)),
            "volUnit": 1,
            "minVol": 1,
            "takerFeeRate": 0.0004,
            "makerFeeRate": 0.0001,
            "state": 3 if listing.symbol in self.world.delisted else 0,
        }

    def _book(self, listing: Listing, limit: int | None) -> str:
        newest, book = self.world.truth.books[listing.symbol], self.world.book(listing.symbol)
        version = self._version(listing.symbol, newest.id)
        if book is not newest:
            version -= COMMITS
        sides, now = _sides(*book.top(limit), listing), self.world.now() // 1_000
        return f'{{{sides},"version":{version},"timestamp":{now}}}'

    def _kept(self, listing: Listing, limit: int | None) -> str:
        kept = list(self._commits[listing.symbol])[-(limit or COMMITS) :]
        told = [f'{{{_sides(one.bids, one.asks, listing)},"version":{one.id}}}' for one in kept]
        return f"[{','.join(told)}]"

    def _deals(self, listing: Listing, limit: int | None) -> str:
        newest = self.world.truth.deals[listing.symbol].last(min(limit or DEALS, DEALS))
        told = [_deal(deal, listing) for deal in reversed(self.world.past(newest))]
        return f"[{','.join(told)}]"


def _deal(deal: MarketTrade, listing: Listing) -> str:
    side = 1 if deal.bought else 2
    return (
        f'{{"p":{listing.price(deal.price)},"v":{deal.quantity},"T":{side},"O":3,"M":2,'
        f'"t":{deal.time // 1_000},"i":"{deal.id}"}}'
    )


def _sides(bids: Iterable[Change], asks: Iterable[Change], listing: Listing) -> str:
    return f'"asks":{_levels(asks, listing)},"bids":{_levels(bids, listing)}'


def _levels(changes: Iterable[Change], listing: Listing) -> str:
    levels = (
        f"[{listing.price(price)},{contracts},{1 if contracts else 0}]"
        for price, contracts in changes
    )
    return f"[{','.join(levels)}]"


def _pushed(channel: str, data: str, listing: Listing, time: int) -> bytes:
    return (
        f'{{"symbol":"{listing.symbol}","data":{data},"channel":"push.{channel}",'
        f'"ts":{time // 1_000}}}'
    ).encode()


def _success(data: str) -> Answer:
    return Answer(f'{{"success":true,"code":0,"data":{data}}}'.encode())
