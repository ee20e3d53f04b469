"""Mock protocol of Kraken spot: WebSocket v2 with checksummed books, and REST.

Names, times and numbers with all their zeros are written as Kraken does. Books are sent as their
subscribers may know them: only levels inside the subscribed depth, no word about those that fall
out of it, and with each update the CRC-32 of the ten best levels.

https://docs.kraken.com/exchange/api-reference/spot-websocket-v2/book
https://docs.kraken.com/exchange/api-reference/spot-websocket-v2/trade
https://docs.kraken.com/exchange/guides/websockets/book-checksum-v2
https://docs.kraken.com/api-reference/market-data/get-recent-trades
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Iterator
from datetime import UTC, datetime
from functools import lru_cache
from typing import Any, ClassVar, Final

from fxlab.mock._market import BookChange, Change, Listing, MarketEvent, MarketTrade
from fxlab.mock._protocols import Answer, Protocol, Query, Socket, World, compact

Sides = tuple[list[Change], list[Change]]
"""Bids and asks, best first."""

OLD_NAMES: Final = {"BTC": "XBT", "DOGE": "XDG"}
_CHECKED: Final = 10


def native(listing: Listing) -> str:
    """Return the name of a pair in WebSocket v2: BTC/USD."""
    return f"{listing.base}/{listing.quote}"


def key(listing: Listing) -> str:
    """Return the name of a pair in REST, which keeps the old names: XBTUSD."""
    return "".join(OLD_NAMES.get(one, one) for one in (listing.base, listing.quote))


def checksum(sides: Sides) -> int:
    """Return the CRC-32 of the ten best asks and bids.

    Prices and quantities are whole numbers of their last decimals, which is what the documented
    text of a level is: its digits without point and leading zeros.
    """
    bids, asks = sides
    levels = [*asks[:_CHECKED], *bids[:_CHECKED]]
    return zlib.crc32("".join(f"{price}{quantity}" for price, quantity in levels).encode())


def stamp(micros: int) -> str:
    """Return a time as the venue prints it: 2023-10-06T17:35:55.440295Z."""
    seconds, part = divmod(micros, 1_000_000)
    return f"{_second(seconds)}.{part:06d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    return datetime.fromtimestamp(seconds, UTC).strftime("%Y-%m-%dT%H:%M:%S")


def trade_text(deal: MarketTrade, listing: Listing) -> str:
    """Return a trade as an entry of the channel ``trade``."""
    return (
        f'{{"symbol":"{native(listing)}","side":"{"buy" if deal.bought else "sell"}",'
        f'"price":{listing.price(deal.price)},"qty":{listing.quantity(deal.quantity)},'
        f'"ord_type":"market","trade_id":{deal.id},"timestamp":"{stamp(deal.time)}"}}'
    )


def book_text(kind: str, listing: Listing, sides: Sides, check: int, time: int | None) -> str:
    """Return a frame of the channel ``book``."""
    bids, asks = (",".join(_level(listing, change) for change in side) for side in sides)
    when = "" if time is None else f',"timestamp":"{stamp(time)}"'
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{native(listing)}",'
        f'"bids":[{bids}],"asks":[{asks}],"checksum":{check}{when}}}]}}'
    )


def _level(listing: Listing, change: Change) -> str:
    price, quantity = change
    return f'{{"price":{listing.price(price)},"qty":{listing.quantity(quantity)}}}'


DEPTHS: Final = (10, 25, 100, 500, 1000)
SNAPSHOT_TRADES: Final = 50
PAGE: Final = 1000
_INSTRUMENTS: Final = "instrument"


class KrakenProtocol(Protocol):
    """Kraken's public channels ``trade``, ``book`` and ``instrument``."""

    name: ClassVar[str] = "kraken"
    sockets: ClassVar[tuple[str, ...]] = ("/v2",)

    def __init__(self, world: World) -> None:
        super().__init__(world)
        self._natives = {native(one): one for one in world.listings.values()}
        self._known: dict[str, Sides] = {}

    # The stream

    def opened(self, session: Socket, path: str, query: Query) -> None:
        """Say that the venue is online."""
        del path, query
        state = {"system": "online", "api_version": "v2", "connection_id": 1, "version": "2.0.10"}
        session.send(compact({"channel": "status", "type": "update", "data": [state]}))

    def heard(self, session: Socket, text: str) -> None:
        """Subscribe, unsubscribe, or answer a ping."""
        try:
            request = json.loads(text)
            method, params = request["method"], request.get("params", {})
            react = {"subscribe": self._subscribe, "unsubscribe": self._unsubscribe}.get(method)
            if react is not None:
                react(session, params)
            elif method == "ping":
                session.send(compact({"method": "pong", **self._times()}))
            else:
                self._refuse(session, "Unsupported method", method)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
            self._refuse(session, "Malformed request", None)

    def _subscribe(self, session: Socket, params: dict[str, Any]) -> None:
        channel, first = params["channel"], bool(params.get("snapshot", True))
        if channel == _INSTRUMENTS:
            self._acknowledge(session, "subscribe", {"channel": channel, "snapshot": first})
            self._subscribe_instruments(session, whole=first)
            return
        for name in params["symbol"]:
            listing = self._natives.get(name)
            if listing is None or listing.symbol in self.world.delisted:
                self._refuse(session, f"Currency pair not supported {name}", "subscribe", name)
            elif channel == "trade":
                self._subscribe_trades(session, listing, snapshot=params.get("snapshot", False))
            elif channel == "book" and params.get("depth", 10) in DEPTHS:
                self._subscribe_book(session, listing, params.get("depth", 10), snapshot=first)
            else:
                self._refuse(session, "Subscription depth not supported", "subscribe", name)

    def _subscribe_instruments(self, session: Socket, *, whole: bool) -> None:
        for listing in self._natives.values():
            session.subscribe(_INSTRUMENTS, listing.symbol)
        if whole:
            pairs = [self._pair(listing, "online") for listing in self._natives.values()]
            session.send(_instruments("snapshot", pairs))

    def _subscribe_trades(self, session: Socket, listing: Listing, *, snapshot: bool) -> None:
        name = native(listing)
        told = {"channel": "trade", "snapshot": snapshot, "symbol": name}
        self._acknowledge(session, "subscribe", told)
        if snapshot:
            deals = self.world.truth.deals[listing.symbol].last(SNAPSHOT_TRADES)
            entries = ",".join(trade_text(deal, listing) for deal in deals)
            session.send(f'{{"channel":"trade","type":"snapshot","data":[{entries}]}}')
        session.subscribe(_stream("trade", name), listing.symbol)

    def _subscribe_book(
        self, session: Socket, listing: Listing, depth: int, *, snapshot: bool
    ) -> None:
        name = native(listing)
        told = {"channel": "book", "depth": depth, "snapshot": snapshot, "symbol": name}
        self._acknowledge(session, "subscribe", told)
        stream = _stream("book", name, depth)
        sides = self.world.truth.books[listing.symbol].top(depth)
        self._known[stream] = sides
        if snapshot:
            session.send(book_text("snapshot", listing, sides, checksum(sides), None))
        session.subscribe(stream, listing.symbol)

    def _unsubscribe(self, session: Socket, params: dict[str, Any]) -> None:
        channel, depth = params["channel"], params.get("depth", 10)
        for name in params["symbol"]:
            stream = _stream(channel, name, depth if channel == "book" else None)
            if stream in session.streams:
                session.unsubscribe(stream)
                self._acknowledge(session, "unsubscribe", {"channel": channel, "symbol": name})
            else:
                self._refuse(session, "Subscription Not Found", "unsubscribe", name)

    def _acknowledge(self, session: Socket, method: str, result: dict[str, Any]) -> None:
        session.send(
            compact({"method": method, "result": result, "success": True, **self._times()})
        )

    def _refuse(
        self, session: Socket, error: str, method: str | None, symbol: str | None = None
    ) -> None:
        told = {"error": error, "method": method, "success": False, **self._times()}
        session.send(compact(told if symbol is None else {**told, "symbol": symbol}))

    def _times(self) -> dict[str, str]:
        now = stamp(self.world.now())
        return {"time_in": now, "time_out": now}

    def encode(self, event: MarketEvent) -> Iterable[tuple[str, bytes]]:
        """Return the frames about a trade or a change of a book."""
        listing = self.world.listings[event.symbol]
        if isinstance(event, MarketTrade):
            stream = _stream("trade", native(listing))
            if stream in self.listened:
                entry = trade_text(event, listing)
                yield stream, f'{{"channel":"trade","type":"update","data":[{entry}]}}'.encode()
        elif isinstance(event, BookChange):
            yield from self._book_frames(event, listing)

    def _book_frames(self, change: BookChange, listing: Listing) -> Iterator[tuple[str, bytes]]:
        for depth in DEPTHS:
            stream = _stream("book", native(listing), depth)
            if stream not in self.listened:
                continue
            after = self.world.truth.books[listing.symbol].top(depth)
            before = self._known.get(stream, ([], []))
            self._known[stream] = after
            changes = (
                _changes(before[0], after[0], depth, -1),
                _changes(before[1], after[1], depth, 1),
            )
            if any(changes):
                told = book_text("update", listing, changes, checksum(after), change.time)
                yield stream, told.encode()

    def describe(self, frame: bytes) -> dict[str, Any]:
        """Return the id of a trade, or the checksum of a book."""
        entry = json.loads(frame)["data"][0]
        return {name: entry[name] for name in ("trade_id", "checksum") if name in entry}

    def delist(self, symbol: str) -> Iterable[tuple[str, bytes]]:
        """Tell the listeners of ``instrument`` that a pair is delisted."""
        pair = self._pair(self.world.listings[symbol], "delisted")
        yield _INSTRUMENTS, _instruments("update", [pair])

    def _pair(self, listing: Listing, status: str) -> dict[str, Any]:
        return {
            "symbol": native(listing),
            "base": listing.base,
            "quote": listing.quote,
            "status": status,
            "qty_precision": listing.quantity_decimals,
            "price_precision": listing.price_decimals,
        }

    # REST

    def answer(self, path: str, query: Query) -> Answer | None:
        """Answer Time, AssetPairs, Trades and Depth."""
        if path == "/0/public/Time":
            return _result({"unixtime": self.world.now() // 1_000_000})
        if path == "/0/public/AssetPairs":
            return _result({key(one): self._asset_pair(one) for one in self._natives.values()})
        if path == "/0/public/Trades":
            return self._recent_trades(query)
        if path == "/0/public/Depth":
            return self._depth(query)
        return None

    def _asset_pair(self, listing: Listing) -> dict[str, Any]:
        base, quote = (OLD_NAMES.get(one, one) for one in (listing.base, listing.quote))
        return {
            "altname": key(listing),
            "wsname": f"{base}/{quote}",
            "base": base,
            "quote": quote,
            "pair_decimals": listing.price_decimals,
            "lot_decimals": listing.quantity_decimals,
            "tick_size": listing.price(1),
            "ordermin": listing.quantity(1),
            "costmin": "0.5",
            "fees": [[0, 0.4], [10_000, 0.35]],
            "fees_maker": [[0, 0.25], [10_000, 0.2]],
            "status": "delisted" if listing.symbol in self.world.delisted else "online",
        }

    def _asked(self, query: Query) -> Listing | None:
        pair = query.get("pair", "")
        return next((one for one in self._natives.values() if key(one) == pair), None)

    def _depth(self, query: Query) -> Answer:
        listing = self._asked(query)
        if listing is None:
            return _UNKNOWN_PAIR
        book = self.world.truth.books[listing.symbol]
        bids, asks = (
            [
                [listing.price(price), listing.quantity(qty), book.time // 1_000_000]
                for price, qty in side
            ]
            for side in book.top(int(query.get("count", "100")))
        )
        return _result({key(listing): {"asks": asks, "bids": bids}})

    def _recent_trades(self, query: Query) -> Answer:
        pair, count = query.get("pair", ""), min(int(query.get("count", PAGE)), PAGE)
        listing = self._asked(query)
        if listing is None:
            return _UNKNOWN_PAIR
        deals = self.world.truth.deals[listing.symbol]
        since = query.get("since")
        # The documents leave open whether `since` itself is included; it is in nanoseconds.
        found = deals.last(count) if since is None else deals.after(int(since) // 1_000, count)
        last = f"{found[-1].time}000" if found else since or "0"
        rows = [_row(deal, listing) for deal in self.world.past(found)]
        return _result({pair: rows, "last": last})


_UNKNOWN_PAIR: Final = Answer.of({"error": ["EQuery:Unknown asset pair"]})


def _stream(channel: str, name: str, depth: int | None = None) -> str:
    return f"{channel}:{name}" if depth is None else f"{channel}-{depth}:{name}"


def _changes(before: list[Change], after: list[Change], depth: int, sign: int) -> list[Change]:
    """Return what is sent to a subscriber; sign -1 for bids, whose best is the highest."""
    old, new = dict(before), dict(after)
    # A client with a full side drops what is worse than its last level by itself.
    last = sign * after[-1][0] if len(after) == depth else float("inf")
    told = [(price, 0) for price in old if price not in new and sign * price < last]
    return told + [change for change in after if old.get(change[0]) != change[1]]


def _row(deal: MarketTrade, listing: Listing) -> list[Any]:
    price, quantity = listing.price(deal.price), listing.quantity(deal.quantity)
    side = "b" if deal.bought else "s"
    return [price, quantity, deal.time / 1_000_000, side, "m", "", deal.id]


def _instruments(kind: str, pairs: list[dict[str, Any]]) -> bytes:
    return compact({"channel": _INSTRUMENTS, "type": kind, "data": {"assets": [], "pairs": pairs}})


def _result(value: Any) -> Answer:  # noqa: ANN401 - any JSON
    return Answer.of({"error": [], "result": value})
