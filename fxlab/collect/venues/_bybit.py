"""Bybit spot and linear perpetuals: trades as they are pushed, books whose updates rise by one.

A book's subscription brings its 50 best levels and then changes, whose update ids rise by exactly
one. One that does not follow begins a gap; that book is subscribed again, alone. A snapshot that
nobody asked for (the venue's service began anew, mostly with update id 1) replaces the book, and
what lies before it is a gap, too. Levels beyond the 50 best are cut off on this side as well, so
that none stays that the venue speaks of no more.

Trades have ids that do not rise by one (numbers on spot, UUIDs on contracts), and the venue's
history is its newest trades (60 of spot, 1,000 of contracts), not by time or id. So each lost
connection is a gap in the prices. It is filled where the history has both the last trade before it
and the first one after it, which proves what lies between. Block trades are among the public
trades, and recorded.

The protocol (version 5):
https://bybit-exchange.github.io/docs/v5/ws/connect
https://bybit-exchange.github.io/docs/v5/websocket/public/orderbook
https://bybit-exchange.github.io/docs/v5/websocket/public/trade
https://bybit-exchange.github.io/docs/v5/market/instrument
https://bybit-exchange.github.io/docs/v5/market/recent-trade
https://bybit-exchange.github.io/docs/v5/market/orderbook
https://bybit-exchange.github.io/docs/v5/rate-limit
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from functools import partial
from json.decoder import JSONDecoder
from typing import Any, ClassVar, Final
from urllib.parse import unquote

from fxlab._ticks import instrument_terms
from fxlab.collect._live.trades import MOST_ID
from fxlab.collect.feed import (
    NOT_AS_DOCUMENTED,
    Address,
    BookSnapshot,
    Event,
    Instrument,
    Level,
    Message,
    Subscription,
    Trade,
    cause_of,
    frame_text,
    listed,
    native_of,
    no_constant,
    positive,
    quantity_of,
    quarantine,
    read_each,
)
from fxlab.collect.venues._book_sync import TradeGapTracker
from fxlab.collect.venues._rest import NEWEST, HistoryPage, RestFeed
from fxlab.collect.venues._snapshot_run import BookUpdate, SequencedBook, SubscribedRun
from fxlab.collect.venues._websocket import Frame
from fxlab.errors import VenueError
from fxlab.schema import is_symbol

DEPTH: Final = 50
"""Levels of each side that a subscription tells of."""
FIRST_ID: Final = 1
"""Update id of the snapshot with which the venue's service begins anew."""

_SIDES: Final = {"Buy": "buy", "Sell": "sell"}


Parsed = Trade | BookUpdate | Event
_Reader = Callable[[Mapping[str, Any], int, Mapping[str, Instrument]], list[Parsed]]


def parse(frame: str | bytes, received: int, instruments: Mapping[str, Instrument]) -> list[Parsed]:
    """Return what a frame says; nothing for pongs and acknowledgements.

    Parameters
    ----------
    frame
        As it came from the socket.
    received
        When, in microseconds.
    instruments
        By the venue's names.
    """
    try:
        message = _decode(frame_text(frame))
        if "topic" not in message:
            return _answer(message, received)
        kind = message["topic"].partition(".")[0]
        if kind in _TOPICS:
            return _TOPICS[kind](message, received, instruments)
        raise ValueError(f"unknown topic {message['topic']!r:.40}")
    except NOT_AS_DOCUMENTED as error:
        return [quarantine(cause_of(error), frame, received)]


_decode: Final[Callable[[str], Any]] = JSONDecoder(parse_constant=no_constant).decode


def _answer(message: Mapping[str, Any], received: int) -> list[Parsed]:
    if message["op"] == "pong" or message["success"] is True:
        return []
    return [Event("venue_error", None, received, 1, str(message["ret_msg"])[:300])]


def _trades(
    message: Mapping[str, Any], received: int, instruments: Mapping[str, Instrument]
) -> list[Parsed]:
    instrument = instruments[message["topic"].partition(".")[2]]
    found, bad = read_each(
        listed(message["data"]),
        lambda entry: _trade(entry, _PUSHED, received, instrument),
        received,
        lambda _: instrument.symbol,
    )
    return [*found, *bad]


_PUSHED: Final = ("s", "i", "S", "p", "v", "T")
_ASKED: Final = ("symbol", "execId", "side", "price", "size", "time")
"""Names of a trade's fields in the stream, and in answers of REST."""


def _trade(
    entry: Mapping[str, Any],
    names: tuple[str, ...],
    received: int,
    instrument: Instrument,
    origin: str = "live",
) -> Trade:
    native, identity, side, price, quantity, time = (entry[name] for name in names)
    if native != instrument.native:
        raise ValueError(f"{native!r:.40} in the stream of {instrument.native}")
    return Trade(
        instrument.symbol,
        _identity(identity),
        _SIDES[side],
        positive(_text(price), "price"),
        positive(_text(quantity), "size"),
        _micros(time),
        received,
        origin,
    )


def _identity(value: object) -> int | str:
    """Return a trade's id: spot's are numbers in a text, those of contracts are UUIDs."""
    if not isinstance(value, str) or not 0 < len(value) <= 64:
        raise ValueError(f"{value!r:.40} is no id of a trade")
    if value.isdecimal() and (number := int(value)) < MOST_ID:
        return number
    return value


def _book(
    message: Mapping[str, Any], received: int, instruments: Mapping[str, Instrument]
) -> list[Parsed]:
    data, kind = message["data"], message["type"]
    instrument = instruments[data["s"]]
    number = data["u"]
    if kind not in {"snapshot", "delta"} or type(number) is not int or number < 0:
        raise ValueError("a book must be a snapshot or a delta, with a whole number as u")
    return [
        BookUpdate(
            instrument.symbol,
            instrument.native,
            kind == "snapshot" or number == FIRST_ID,
            number - 1,
            number,
            levels_of(data["b"]),
            levels_of(data["a"]),
            # The matching engine's time is that of trades; older servers tell only their own.
            _micros(message.get("cts", message["ts"])),
            received,
        )
    ]


_TOPICS: Final[Mapping[str, _Reader]] = {"publicTrade": _trades, "orderbook": _book}


def levels_of(entries: object) -> list[Level]:
    """Return levels of a book; each is a list of price and size, 0 where it is gone.

    Raises
    ------
    ValueError, TypeError, LookupError
        If they are none.
    """
    found = []
    for entry in listed(entries):
        price, quantity = listed(entry)
        found.append((positive(_text(price), "price"), quantity_of(_text(quantity), "size")))
    return found


def _text(number: object) -> str:
    if not isinstance(number, str):
        raise TypeError(f"{number!r:.40} is no number in a text")
    return number


def _micros(milliseconds: str | int) -> int:
    return int(positive(milliseconds, "time")) * 1_000


TOPICS_AT_ONCE: Final = 10
"""Of one request, as documented for spot."""
MOST_CHARACTERS: Final = 20_000
"""Of all topics of one connection; 21,000 are documented."""
HEARTBEAT: Final = ('{"op":"ping"}', 20.0)
"""As advised; an answer shows that a quiet market is no dead connection."""
ASKED_AFTER: Final = (0.5, 0.5, 2.0)
"""Seconds before each question for the trades in a gap: the history may be behind the stream."""
TOO_OFTEN: Final = (10006, 10018)
"""Codes of answers: of an endpoint's limit, and of the address'."""


class Bybit(RestFeed):
    """Trades, quotes and books of Bybit's spot pairs."""

    venue: ClassVar[str] = "bybit"
    ADDRESS: ClassVar[Address] = Address("https://api.bybit.com", "wss://stream.bybit.com")
    LIMIT: ClassVar[tuple[float, float] | None] = (500, 5.0)  # 600 are allowed
    CATEGORY: ClassVar[str] = "spot"
    CONTRACT: ClassVar[str | None] = None
    """The only ``contractType`` to keep; None on markets without contracts."""
    PAGED: ClassVar[Mapping[str, int]] = {}
    """What is asked for so that a list comes in pages; spot's has none."""
    RECENT: ClassVar[int] = 60
    """Trades of the past that the venue tells at most."""

    _run: BybitRun | None = None

    def messages(self, wanted: Subscription) -> AsyncGenerator[Sequence[Message], None]:
        """Yield trades, quotes or books as they come; see `Feed.messages`."""
        self._run = BybitRun(self, wanted)
        return self._run.batches()

    def reconnect(self, symbol: str, data_type: str, reason: str) -> None:
        """Break the connection that carries a symbol, so that it is made again."""
        if self._run is not None:
            self._run.reconnect(symbol, data_type, reason)

    async def latest(self, instrument: Instrument, data_type: str) -> Trade | BookSnapshot | None:
        """Return the newest trade, or the best levels of the book, as the venue has it now.

        Update ids of REST are those of another depth. So a book with the levels of the one here
        has the time of its last change; another one has the venue's.
        """
        self.doubted.set()
        if data_type == "orderbook":
            return await self._newest_book(instrument)
        return self._newest("recent-trade", await self.recent(instrument, NEWEST))

    async def recent(self, instrument: Instrument, limit: int) -> HistoryPage:
        """Return so many of the newest trades, the newest one last, as "backfill"."""
        found = await self._ask("recent-trade", symbol=instrument.native, limit=limit)
        received = self.clock.now()
        with self._documented("recent-trade"):
            page = HistoryPage.read(
                "recent-trade",
                listed(found["list"]),
                lambda entry: _trade(entry, _ASKED, received, instrument, "backfill"),
                lambda entry: _identity(entry["execId"]),
            )
        # Their order is not documented; it is newest first.
        if page.trades and page.trades[0].time >= page.trades[-1].time:
            page.trades.reverse()
        return page

    async def _newest_book(self, instrument: Instrument) -> BookSnapshot:
        found = await self._ask("orderbook", symbol=instrument.native, limit=DEPTH)
        received = self.clock.now()
        with self._documented("orderbook"):
            bids, asks = levels_of(found["b"]), levels_of(found["a"])
            time = _micros(found.get("cts", found["ts"]))
        if self._run is not None and (book := self._run.books.get(instrument.native)):
            time = book.time_of(bids, asks, time)
        return BookSnapshot(instrument.symbol, 0, bids, asks, time, received)

    async def server_time(self) -> int:
        """Return the venue's clock in microseconds."""
        found = await self._ask("time")
        with self._documented("time"):
            return int(found["timeNano"]) // 1_000

    async def instruments(self) -> dict[str, Instrument]:
        """Return what is traded, by fxlab's symbol: BTC_USDT for BTCUSDT."""
        entries: list[Any] = []
        cursors: list[str] = [""]
        while cursors[-1] not in cursors[:-1]:
            page = {"cursor": cursors[-1]} if cursors[-1] else {}
            found = await self._ask("instruments-info", **self.PAGED, **page)
            with self._documented("instruments-info"):
                entries += listed(found["list"])
                # It comes percent-encoded, and is encoded again on its way back.
                cursors.append(unquote(found.get("nextPageCursor") or ""))
        return self._listings("instruments-info", entries, self._instrument, _names)

    def _instrument(self, entry: Mapping[str, Any]) -> Instrument | None:
        """Return a listing; None for a delivery, or a name that fxlab's symbols cannot spell."""
        if self.CONTRACT is not None and entry["contractType"] != self.CONTRACT:
            return None
        symbol, native = _names(entry)
        if not is_symbol(symbol):
            return None
        tick = str(entry["priceFilter"]["tickSize"])
        positive(tick, "tickSize")
        decimals = len(tick.rstrip("0").partition(".")[2])
        status = str(entry["status"]).lower()
        return Instrument(symbol, native, decimals, status, terms=self._terms(entry, tick))

    def _terms(self, entry: Mapping[str, Any], tick: str) -> dict[str, Any]:
        """Return a listing's sizes; those of orders have other names for spot and contracts."""
        spot, rules = self.CONTRACT is None, entry.get("lotSizeFilter") or {}
        return instrument_terms(
            kind="spot" if spot else "perpetual",
            base=entry["baseCoin"],
            quote=entry["quoteCoin"],
            settle=entry.get("settleCoin"),
            contract_size=None if spot else 1,
            tick_size=tick,
            lot_size=rules.get("basePrecision" if spot else "qtyStep"),
            min_qty=rules.get("minOrderQty"),
            min_notional=rules.get("minOrderAmt" if spot else "minNotionalValue"),
        )

    async def _ask(self, what: str, **parameters: str | float) -> Any:  # noqa: ANN401 - any JSON
        if what != "time":
            parameters["category"] = self.CATEGORY
        answer = await self._rest.get(f"/v5/market/{what}", **parameters)
        told = answer if isinstance(answer, dict) else {}
        if told.get("retCode") == 0 and "result" in told:
            return told["result"]
        raise self._refusal(what, answer, too_often=told.get("retCode") in TOO_OFTEN)


class BybitLinear(Bybit):
    """The same of Bybit's perpetual contracts that settle in USDT or USDC, in the base coin."""

    venue: ClassVar[str] = "bybit_linear"
    CATEGORY: ClassVar[str] = "linear"
    CONTRACT: ClassVar[str | None] = "LinearPerpetual"
    PAGED: ClassVar[Mapping[str, int]] = {"limit": 1_000}
    RECENT: ClassVar[int] = 1_000


def _names(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return fxlab's name of a listing, and the venue's."""
    return f"{entry['baseCoin']}_{entry['quoteCoin']}".upper(), native_of(entry)


class BybitRun(SubscribedRun):
    """Runs one subscription.

    Parameters
    ----------
    feed
        Whose it is.
    wanted
        What to record.
    """

    def __init__(self, feed: Bybit, wanted: Subscription) -> None:
        booked = wanted.instruments if wanted.book_depth else ()
        books = {one.native: SequencedBook(one.symbol, DEPTH) for one in booked}
        self._trade_gaps = TradeGapTracker(history=True)
        super().__init__(feed, wanted, books, self._trade_gaps if wanted.trades else None)
        self._feed, self._wanted = feed, wanted
        self._natives = {one.symbol: one.native for one in wanted.instruments}
        self._last: dict[str, Trade] = {}
        self._gather()

    def _gather(self) -> None:
        """Share the topics out among connections."""
        wanted, length = self._wanted, MOST_CHARACTERS
        kinds = {"prices"} if wanted.trades else set()
        kinds |= {"orderbook"} if wanted.book_depth else set()
        path = f"/v5/public/{self._feed.CATEGORY}"
        for one in wanted.instruments:
            topics = [f"publicTrade.{one.native}"] if wanted.trades else []
            topics += [_book_topic(one.native)] if wanted.book_depth else []
            needed = len(json.dumps(topics))
            if length + needed > MOST_CHARACTERS:
                self._group(kinds, path, HEARTBEAT, subscriptions, _again)
                length = 0
            length += needed
            self._groups[-1].topics += topics
            self._groups[-1].symbols[one.symbol] = one.native

    def frames(self, frames: list[Frame]) -> list[Message]:
        """Return what frames mean."""
        messages: list[Message] = []
        gaps, instruments = self._trade_gaps, self._by_native
        for payload, received in frames:
            for found in parse(payload, received, instruments):
                if type(found) is Trade:
                    messages += gaps.take(found)
                    if gaps.after.get(found.symbol) is found:
                        last = self._last.get(found.symbol)
                        self._start(partial(self._fill, last, found))
                    self._last[found.symbol] = found
                elif type(found) is BookUpdate:
                    messages += self.booked(found)
                elif isinstance(found, Event):
                    messages.append(found)
        return messages

    async def _fill(self, last: Trade | None, first: Trade) -> None:
        """Ask for the trades between the last one before a gap and the first one after it."""
        found: list[Trade] | None = None
        instrument = self._by_native[self._natives[first.symbol]]
        for seconds in ASKED_AFTER if last is not None else ():
            await asyncio.sleep(seconds)
            await self._allowed()
            try:
                page = await self._feed.recent(instrument, self._feed.RECENT)
            except VenueError as error:
                await self._tell("venue_error", first.symbol, f"trades of a gap: {error}")
                continue
            found = between(page, last, first)
            if found is not None:
                break
        await self._queue.put(partial(self._filled, first, found))

    def _filled(self, first: Trade, found: list[Trade] | None) -> list[Message]:
        return [*(found or ()), *self._trade_gaps.end(first, filled=found is not None)]


def between(page: HistoryPage, last: Trade | None, first: Trade) -> list[Trade] | None:
    """Return the trades between two; None if the page cannot prove that these are all."""
    places = {trade.id: place for place, trade in enumerate(page.trades)}
    if page.bad or last is None or last.id not in places or first.id not in places:
        return None
    return page.trades[places[last.id] + 1 : places[first.id]]


def subscriptions(topics: Sequence[str]) -> list[str]:
    """Return the requests for topics, as many at once as the venue takes."""
    return [
        _request("subscribe", *topics[at : at + TOPICS_AT_ONCE])
        for at in range(0, len(topics), TOPICS_AT_ONCE)
    ]


def _again(native: str) -> tuple[str, str]:
    topic = _book_topic(native)
    return _request("unsubscribe", topic), _request("subscribe", topic)


def _book_topic(native: str) -> str:
    return f"orderbook.{DEPTH}.{native}"


def _request(operation: str, *topics: str) -> str:
    return json.dumps({"op": operation, "args": topics})
