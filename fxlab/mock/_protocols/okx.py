"""Mock protocol of OKX, version 5: ``trades-all``, ``trades``, books of 400 levels, and REST.

A book's channel begins with a snapshot for who subscribes. Its changes come at once here, and not
every 100 ms; each names the one before it, and its number leaps by one to seven. Its levels are the
400 best ones: one that falls out of them is taken away. Quantities of swaps are contracts, of a
hundredth of the base coin.

Each under https://www.okx.com/docs-v5/en/:
#overview-websocket-connect, #overview-websocket-subscribe, #overview-websocket-notification
#order-book-trading-market-data-ws-order-book-channel
#order-book-trading-market-data-ws-all-trades-channel
#order-book-trading-market-data-ws-trades-channel
#order-book-trading-market-data-get-order-book
#order-book-trading-market-data-get-trades, #order-book-trading-market-data-get-trades-history
#public-data-rest-api-get-instruments, #public-data-rest-api-get-system-time, #error-code
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
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

PUBLIC, BUSINESS = "/ws/v5/public", "/ws/v5/business"
PATHS: Final = {"books": PUBLIC, "trades": PUBLIC, "trades-all": BUSINESS}
"""Where each channel is."""
DEPTH: Final = 400
FIRST_SEQUENCE: Final = 1_000
MOST_BYTES: Final = 64 * 1024
"""Of a request's channels."""
NEWEST, PAGE = 500, 100
"""Trades that ``trades`` and ``history-trades`` tell at most."""
_ROOT: Final = "/api/v5/"

Sides = tuple[list[Change], list[Change]]


class OkxProtocol(Protocol):
    """OKX's public channels and questions about spot pairs."""

    name: ClassVar[str] = "okx"
    sockets: ClassVar[tuple[str, ...]] = (PUBLIC, BUSINESS)
    notice: ClassVar[bytes] = (
        b'{"event":"notice","code":"64008","msg":"The connection will soon be closed for a service '
        b'upgrade. Please reconnect.","connId":"mock"}'
    )
    kind: ClassVar[str] = "SPOT"

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._natives = {self.native(one): one for one in world.listings.values()}
        self._known: dict[str, tuple[Sides, int]] = {}

    def native(self, listing: Listing) -> str:
        """Return the venue's name of a pair."""
        return f"{listing.base}-{listing.quote}"

    def size(self, listing: Listing, quantity: int) -> str:
        """Return a quantity as the venue counts it."""
        return listing.quantity(quantity) if quantity else "0"

    # The stream

    def opened(self, session: Socket, path: str, query: Query) -> None:
        """Take note of the path, which has channels of its own."""
        del query
        session.notes["path"] = path

    def heard(self, session: Socket, text: str) -> None:
        """Subscribe, unsubscribe, or answer a ping."""
        if text == "ping":
            session.send("pong")
            return
        try:
            request = json.loads(text)
            operation, topics = request["op"], request["args"]
            known = operation in {"subscribe", "unsubscribe"} and isinstance(topics, list)
            if not known or len(compact(topics)) > MOST_BYTES:
                self._refuse(session, "60012", f"Invalid request: {text[:200]}")
                return
            for topic in topics:
                self._act(session, operation, topic)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self._refuse(session, "60012", f"Invalid request: {text[:200]}")

    def _act(self, session: Socket, operation: str, topic: Mapping[str, str]) -> None:
        channel, listing = topic["channel"], self._natives.get(topic["instId"])
        gone = listing is None or listing.symbol in self.world.delisted
        if listing is None or gone or PATHS.get(channel) != session.notes["path"]:
            wrong = f"Wrong URL or channel:{channel},instId:{topic['instId']} doesn't exist."
            self._refuse(session, "60018", wrong)
            return
        session.send(compact({"event": operation, "arg": topic, "connId": "mock"}))
        stream = f"{channel}:{topic['instId']}"
        if operation == "unsubscribe":
            session.unsubscribe(stream)
            return
        if channel == "books":
            sides, number = self._state(stream, listing)
            time = self.world.truth.books[listing.symbol].time or self.world.now()
            data = self._levels(sides, listing, time, previous=-1, number=number)
            session.send(_pushed(channel, topic["instId"], data, action="snapshot"))
        session.subscribe(stream, listing.symbol)

    def _refuse(self, session: Socket, code: str, said: str) -> None:
        session.send(compact({"event": "error", "code": code, "msg": said, "connId": "mock"}))

    def encode(self, event: MarketEvent) -> Iterable[tuple[str, bytes]]:
        """Return the frames about a trade or a change of a book."""
        listing = self.world.listings[event.symbol]
        if isinstance(event, MarketTrade):
            yield from self._deal(event, listing)
        elif isinstance(event, BookChange):
            yield from self._change(event, listing)

    def _deal(self, deal: MarketTrade, listing: Listing) -> Iterator[tuple[str, bytes]]:
        native, entry = self.native(listing), self._trade(deal, listing)
        if (stream := f"trades-all:{native}") in self.listened:
            yield stream, _pushed("trades-all", native, entry)
        if (stream := f"trades:{native}") in self.listened:
            yield stream, _pushed("trades", native, {**entry, "count": "1", "seqId": deal.id})

    def _trade(self, deal: MarketTrade, listing: Listing) -> dict[str, Any]:
        return {
            "instId": self.native(listing),
            "tradeId": str(deal.id),
            "px": listing.price(deal.price),
            "sz": self.size(listing, deal.quantity),
            "side": "buy" if deal.bought else "sell",
            "source": "0",
            "ts": str(deal.time // 1_000),
        }

    def _change(self, change: BookChange, listing: Listing) -> Iterator[tuple[str, bytes]]:
        native = self.native(listing)
        stream = f"books:{native}"
        if stream not in self.listened:
            return
        before, last = self._known[stream]
        after, number = self._state(stream, listing)
        if number == last:
            return
        changed = changed_levels(before[0], after[0]), changed_levels(before[1], after[1])
        data = self._levels(changed, listing, change.time, previous=last, number=number)
        yield stream, _pushed("books", native, data, action="update")

    def _state(self, stream: str, listing: Listing) -> tuple[Sides, int]:
        """Return a channel's levels and their number, which rises when they have changed."""
        book = self.world.truth.books[listing.symbol]
        sides = book.top(DEPTH)
        before, number = self._known.get(stream, (sides, FIRST_SEQUENCE))
        leap = 1 + book.id % 7 if sides != before else 0
        self._known[stream] = sides, number + leap
        return self._known[stream]

    def _levels(
        self, sides: Sides, listing: Listing, time: int, *, previous: int, number: int
    ) -> dict[str, Any]:
        ms = str(time // 1_000)
        told = {"ts": ms, "checksum": 0, "prevSeqId": previous, "seqId": number}
        return {**self._sides(sides, listing), **told}

    def _sides(self, sides: Sides, listing: Listing) -> dict[str, list[list[str]]]:
        return {
            name: [
                [listing.price(price), self.size(listing, quantity), "0", "1" if quantity else "0"]
                for price, quantity in side
            ]
            for name, side in zip(("bids", "asks"), sides, strict=True)
        }

    def describe(self, frame: bytes) -> dict[str, Any]:
        """Return the id of a trade, or the numbers of an update."""
        (entry,) = json.loads(frame)["data"]
        return {name: entry[name] for name in ("tradeId", "prevSeqId", "seqId") if name in entry}

    # REST

    def answer(self, path: str, query: Query) -> Answer | None:
        """Answer time, instruments, books, trades and history-trades."""
        what = path.removeprefix(_ROOT)
        if what == "public/time":
            return _result([{"ts": str(self.world.now() // 1_000)}])
        if what == "public/instruments":
            return self._listed(query)
        if what not in {"market/books", "market/trades", "market/history-trades"}:
            return None
        listing = self._natives.get(query.get("instId", ""))
        if listing is None:
            return _error("51001", "Instrument ID doesn't exist")
        if what == "market/books":
            return self._top(listing, int(query.get("sz", "1")))
        return _result([self._trade(deal, listing) for deal in self._past(what, listing, query)])

    def _listed(self, query: Query) -> Answer:
        if query.get("instType") != self.kind:
            return _error("51000", "Parameter instType error")
        every, gone = self.world.listings.values(), self.world.delisted
        return _result([self.listing(one) for one in every if one.symbol not in gone])

    def listing(self, listing: Listing) -> dict[str, Any]:
        """Return what the venue says of an instrument."""
        return {
            "instType": self.kind,
            "instId": self.native(listing),
            "baseCcy": listing.base,
            "quoteCcy": listing.quote,
            "ctType": "",
            "ctVal": "",
            "ctMult": "",
            "tickSz": listing.price(1),
            "lotSz": self.size(listing, 1),
            "minSz": self.size(listing, 1),
            "state": "live",
        }

    def _past(self, what: str, listing: Listing, query: Query) -> list[MarketTrade]:
        """Return past trades, newest first: the newest ones, or those before an id."""
        deals, limit = self.world.truth.deals[listing.symbol], int(query.get("limit", PAGE))
        if what == "market/trades" or "after" not in query:
            found = deals.last(min(limit, NEWEST if what == "market/trades" else PAGE))
        else:
            end, limit = int(query["after"]), min(limit, PAGE)
            found = deals.from_id(max(end - limit, 0), limit)
            found = [deal for deal in found if deal.id < end]
        return self.world.past(found)[::-1]

    def _top(self, listing: Listing, depth: int) -> Answer:
        book = self.world.book(listing.symbol)
        sides = self._sides(book.top(min(depth, DEPTH)), listing)
        return _result([{**sides, "ts": str(self.world.now() // 1_000), "seqId": book.id}])


class OkxSwapProtocol(OkxProtocol):
    """The same of linear perpetual contracts, which are counted in contracts."""

    name: ClassVar[str] = "okx_swap"
    kind: ClassVar[str] = "SWAP"

    def native(self, listing: Listing) -> str:
        """Return the venue's name of a contract."""
        return f"{super().native(listing)}-SWAP"

    def size(self, listing: Listing, quantity: int) -> str:
        """Return a quantity in contracts, of a hundredth of the base coin."""
        return super().size(listing, quantity * 100)

    def listing(self, listing: Listing) -> dict[str, Any]:
        """Return what the venue says of a contract."""
        names = {"baseCcy": "", "quoteCcy": "", "settleCcy": listing.quote}
        contract = {"ctType": "linear", "ctVal": "0.01", "ctMult": "1", "ctValCcy": listing.base}
        return {**super().listing(listing), **names, **contract}


def _pushed(channel: str, native: str, entry: Mapping[str, Any], **more: str) -> bytes:
    told = {"arg": {"channel": channel, "instId": native}, **more, "data": [entry]}
    return compact(told)


def _result(data: list[dict[str, Any]]) -> Answer:
    return Answer.of({"code": "0", "msg": "", "data": data})


def _error(code: str, words: str) -> Answer:
    return Answer.of({"code": code, "msg": words, "data": []})
