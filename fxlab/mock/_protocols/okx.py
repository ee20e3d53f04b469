"""Mock protocol of OKX, version 5: trades, books of 400 levels, what perpetuals have, and REST.

A book's channel begins with a snapshot for who subscribes. Its changes come at once here, and not
every 100 ms; each names the one before it, and its number leaps by one to seven. Its levels are the
400 best ones: one that falls out of them is taken away. Quantities of swaps are contracts, of a
hundredth of the base coin. They have mark prices, each second and with the announced funding before
it, open interest with them, and liquidations: every so many trades, one is told as one.

Each under https://www.okx.com/docs-v5/en/:
#overview-websocket-connect, #overview-websocket-subscribe, #overview-websocket-notification
#order-book-trading-market-data-ws-order-book-channel
#order-book-trading-market-data-ws-all-trades-channel
#order-book-trading-market-data-ws-trades-channel
#order-book-trading-market-data-get-order-book
#order-book-trading-market-data-get-trades, #order-book-trading-market-data-get-trades-history
#public-data-websocket-mark-price-channel, #public-data-websocket-funding-rate-channel
#public-data-websocket-open-interest-channel, #public-data-websocket-liquidation-orders-channel
#public-data-rest-api-get-funding-rate-history
#public-data-rest-api-get-instruments, #public-data-rest-api-get-system-time, #error-code
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Final

from fxlab.mock._market import BookChange, Change, Listing, MarketEvent, MarketTrade
from fxlab.mock._protocols import (
    LIQUIDATED,
    Answer,
    Protocol,
    Query,
    Socket,
    World,
    changed_levels,
    compact,
    funded,
    funding_rate,
    next_funding,
)

PUBLIC, BUSINESS = "/ws/v5/public", "/ws/v5/business"
LIQUIDATIONS: Final = "liquidation-orders"
DEPTH: Final = 400
FIRST_SEQUENCE: Final = 1_000
MOST_BYTES: Final = 64 * 1024
"""Of a request's channels."""
NEWEST, PAGE, FUNDINGS = 500, 100, 400
"""What ``trades``, ``history-trades`` and ``funding-rate-history`` tell at most."""
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
    paths: ClassVar[Mapping[str, str]] = {
        "books": PUBLIC, "trades": PUBLIC, "trades-all": BUSINESS,
    }  # fmt: skip
    """Where each channel is."""

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
        channel, every = topic["channel"], topic["channel"] == LIQUIDATIONS
        named = topic["instType" if every else "instId"]
        listing = next(iter(self._natives.values())) if every else self._natives.get(named)
        gone = listing is None or (not every and listing.symbol in self.world.delisted)
        if listing is None or gone or self.paths.get(channel) != session.notes["path"]:
            wrong = f"Wrong URL or channel:{channel},instId:{named} doesn't exist."
            self._refuse(session, "60018", wrong)
            return
        session.send(compact({"event": operation, "arg": topic, "connId": "mock"}))
        stream = f"{channel}:{named}"
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
    paths: ClassVar[Mapping[str, str]] = {
        **OkxProtocol.paths, "mark-price": PUBLIC, "funding-rate": PUBLIC, "open-interest": PUBLIC,
        LIQUIDATIONS: PUBLIC,
    }  # fmt: skip

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._marked: dict[str, int] = {}

    def encode(self, event: MarketEvent) -> Iterable[tuple[str, bytes]]:
        """Return also what perpetuals have: each second, and every so many trades."""
        yield from super().encode(event)
        if not isinstance(event, MarketTrade):
            return
        listing, second = self.world.listings[event.symbol], event.time // 1_000_000
        if second > self._marked.get(event.symbol, 0):
            self._marked[event.symbol] = second
            yield from self._states(event, listing)
        stream = f"{LIQUIDATIONS}:{self.kind}"
        if event.id % LIQUIDATED == 0 and stream in self.listened:
            yield stream, self._liquidation(event, listing)

    def _states(self, deal: MarketTrade, listing: Listing) -> Iterator[tuple[str, bytes]]:
        """Return the announced funding, the mark price and the open interest, as listened to."""
        native, ms, tell = self.native(listing), deal.time // 1_000, self.world.truth.tell
        about = {"instType": self.kind, "instId": native, "ts": str(ms)}
        due = next_funding(deal.time)
        rate = {"fundingRate": funding_rate(due), "fundingTime": str(due // 1_000)}
        told = {"funding-rate": rate, "mark-price": {"markPx": listing.price(deal.price)}}
        contracts = 1_000_000 + ms % 1_000_000
        told["open-interest"] = {"oi": str(contracts), "oiCcy": f"{contracts / 100:.2f}"}
        for channel, values in told.items():
            if (stream := f"{channel}:{native}") in self.listened:
                yield stream, _pushed(channel, native, {**about, **values})
                if channel == "mark-price":
                    tell("mark", listing.symbol, ms * 1_000, mark_price=values["markPx"])
                elif channel == "open-interest":
                    oi = values["oiCcy"]
                    tell("open_interest", listing.symbol, ms * 1_000, open_interest=oi)

    def _liquidation(self, deal: MarketTrade, listing: Listing) -> bytes:
        price, size = listing.price(deal.price), self.size(listing, deal.quantity)
        side, ms = "buy" if deal.bought else "sell", deal.time // 1_000
        detail = {"side": side, "posSide": "net", "bkPx": price, "sz": size, "bkLoss": "0"}
        entry: dict[str, Any] = {"instType": self.kind, "instId": self.native(listing)}
        entry["details"] = [{**detail, "ccy": "", "ts": str(ms)}]
        volume = listing.quantity(deal.quantity)
        values = {"side": side, "price": price, "volume": volume}
        self.world.truth.tell("liquidations", listing.symbol, ms * 1_000, **values)
        arg = {"channel": LIQUIDATIONS, "instType": self.kind}
        return compact({"arg": arg, "data": [entry]})

    def answer(self, path: str, query: Query) -> Answer | None:
        """Answer also funding-rate-history."""
        if path == f"{_ROOT}public/funding-rate-history":
            return self._charged(query)
        return super().answer(path, query)

    def _charged(self, query: Query) -> Answer:
        """Answer with what was charged after ``before``, the newest first."""
        since = int(query.get("before", "0")) * 1_000 + 1
        return _result(
            [
                {
                    "instType": self.kind,
                    "instId": query.get("instId", ""),
                    "fundingRate": funding_rate(time),
                    "realizedRate": funding_rate(time),
                    "fundingTime": str(time // 1_000),
                    "method": "current_period",
                }
                for time in reversed(funded(since, self.world.now(), FUNDINGS))
            ]
        )

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
