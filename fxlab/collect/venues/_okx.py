"""OKX spot and linear perpetuals: trades counted by ids, books whose updates name the one before.

The channel ``trades-all`` tells each trade by itself. Its ids rise by one: the documents say of an
aggregated trade that id 123 with a count of 3 is the trades 123, 122 and 121. What the stream
skipped is asked for by its ids, a hundred trades at a time; the venue keeps them for three months.

The channel ``books`` brings the 400 best levels and then changes, each with the ``prevSeqId`` of
the one before it. One that does not follow begins a gap; that book is subscribed again, alone.
Numbers leap, so nobody can say how many updates are missing. An update that names itself
(``prevSeqId`` is ``seqId``) and has no levels says that nothing has changed. After a maintenance
numbers may begin anew: that update follows, but has a smaller number, and the ledger says so as an
"id_restart". The field ``checksum`` is deprecated (0 since 2026-06-23), so nothing is made of it.

Quantities of swaps are contracts there; here they are units of the base coin, as everywhere in
fxlab. Inverse contracts, which are worth quote units, are left out.

Of perpetuals there is more, over connections of its own: mark prices (five a second, with the last
announced rate of the funding to come), open interest, liquidations (not all of them, as the
documents say), and, asked by REST, the funding that was charged.

Where the venue announces a service upgrade (64008), an event tells it; the connections are made
again when they end.

The protocol (version 5), each under https://www.okx.com/docs-v5/en/:
#overview-websocket-connect, #overview-websocket-subscribe, #overview-websocket-notification
#order-book-trading-market-data-ws-order-book-channel
#order-book-trading-market-data-ws-all-trades-channel
#order-book-trading-market-data-ws-trades-channel
#order-book-trading-market-data-get-order-book
#order-book-trading-market-data-get-trades, #order-book-trading-market-data-get-trades-history
#public-data-rest-api-get-instruments, #public-data-rest-api-get-system-time
#public-data-websocket-mark-price-channel, #public-data-websocket-funding-rate-channel
#public-data-websocket-open-interest-channel, #public-data-websocket-liquidation-orders-channel
#public-data-rest-api-get-funding-rate-history
https://www.okx.com/help/okx-order-book-channels-checksum-field-deprecation
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncGenerator, Callable, Mapping, Sequence
from decimal import Decimal
from functools import partial
from json.decoder import JSONDecoder
from typing import Any, ClassVar, Final, NamedTuple

from fxlab._ticks import instrument_terms
from fxlab.collect._live.trades import MOST_ID
from fxlab.collect.feed import (
    NOT_AS_DOCUMENTED,
    Address,
    BookSnapshot,
    ChannelRow,
    Event,
    Instrument,
    Level,
    Message,
    Subscription,
    Trade,
    cause_of,
    frame_text,
    listed,
    no_constant,
    positive,
    quantity_of,
    quarantine,
    read_each,
)
from fxlab.collect.venues._rest import NEWEST, History, HistoryPage, RestFeed
from fxlab.collect.venues._snapshot_run import (
    BookUpdate,
    SequencedBook,
    SubscribedRun,
    TopicGroup,
)
from fxlab.collect.venues._websocket import Frame, ReconnectingWebSocket
from fxlab.errors import VenueError
from fxlab.schema import BOOK_DEPTH, CHANNELS, is_symbol

TRADES, BOOKS = "trades-all", "books"
LIQUIDATIONS: Final = "liquidation-orders"
STREAMS: Final = {
    "mark": ("mark-price", "funding-rate"),
    "open_interest": ("open-interest",),
    "liquidations": (LIQUIDATIONS,),
}
"""What is subscribed for each of fxlab's channels; funding is asked for."""
DEPTH: Final = 400
"""Levels of each side that ``books`` tells of."""

_SIDES: Final = ("buy", "sell")


class FundingAnnounced(NamedTuple):
    """What a mark price says of the funding to come, until the next announcement."""

    symbol: str
    values: Mapping[str, float | int]


Parsed = Trade | BookUpdate | ChannelRow | FundingAnnounced | Event
_Reader = Callable[[Mapping[str, Any], int, Instrument], Sequence[Parsed]]


def parse(
    frame: str | bytes, received: int, instruments: Mapping[str, Instrument]
) -> Sequence[Parsed]:
    """Return what a frame says; nothing for pongs and acknowledgements.

    Parameters
    ----------
    frame
        As it came from the socket.
    received
        When, in microseconds.
    instruments
        By the venue's names; `Instrument.detail` as `Okx.instruments` makes it.
    """
    try:
        text = frame_text(frame)
        if text == HEARTBEAT_ANSWER:
            return []
        message = _decode(text)
        if "event" in message:
            return _answer(message, received)
        channel = message["arg"]["channel"]
        if channel == LIQUIDATIONS:
            return _liquidations(message, received, instruments)
        if channel not in _CHANNELS:
            raise ValueError(f"unknown channel {channel!r:.40}")
        return _CHANNELS[channel](message, received, instruments[message["arg"]["instId"]])
    except NOT_AS_DOCUMENTED as error:
        return [quarantine(cause_of(error), frame, received)]


_decode: Final[Callable[[str], Any]] = JSONDecoder(parse_constant=no_constant).decode


def _answer(message: Mapping[str, Any], received: int) -> list[Event]:
    if message["event"] in {"error", "notice"}:
        said = f"{message['code']}: {message['msg']}"
        return [Event("venue_error", None, received, 1, said[:300])]
    return []


def _trades(message: Mapping[str, Any], received: int, instrument: Instrument) -> list[Parsed]:
    found, bad = read_each(
        listed(message["data"]),
        lambda entry: trade_of(entry, received, instrument),
        received,
        lambda _: instrument.symbol,
    )
    return [*found, *bad]


def trade_of(
    entry: Mapping[str, Any], received: int, instrument: Instrument, origin: str = "live"
) -> Trade:
    """Return an entry of the stream, or of the past, as a trade.

    Raises
    ------
    ValueError, TypeError, LookupError, ArithmeticError
        If it is none.
    """
    if entry["instId"] != instrument.native:
        raise ValueError(f"{entry['instId']!r:.40} among the trades of {instrument.native}")
    if entry["side"] not in _SIDES:
        raise ValueError(f"side {entry['side']!r:.40} is neither buy nor sell")
    return Trade(
        instrument.symbol,
        _identity(entry["tradeId"]),
        entry["side"],
        positive(_text(entry["px"]), "px"),
        positive(_base_units(_text(entry["sz"]), instrument), "sz"),
        _micros(entry["ts"]),
        received,
        origin,
    )


def _identity(value: object) -> int:
    if not isinstance(value, str) or not value.isdecimal() or (number := int(value)) >= MOST_ID:
        raise ValueError(f"tradeId {value!r:.40} is no number of a trade")
    return number


def _books(message: Mapping[str, Any], received: int, instrument: Instrument) -> list[Parsed]:
    action = message["action"]
    if action not in {"snapshot", "update"}:
        raise ValueError(f"action {action!r:.40} is neither snapshot nor update")
    return [
        BookUpdate(
            instrument.symbol,
            instrument.native,
            action == "snapshot",
            _sequence(entry["prevSeqId"], -1),
            _sequence(entry["seqId"], 0),
            levels_of(entry["bids"], instrument),
            levels_of(entry["asks"], instrument),
            _micros(entry["ts"]),
            received,
        )
        for entry in listed(message["data"])
    ]


def _sequence(value: object, least: int) -> int:
    if type(value) is not int or not least <= value < MOST_ID:
        raise ValueError(f"{value!r:.40} is no number of an update")
    return value


def _marks(message: Mapping[str, Any], received: int, instrument: Instrument) -> list[Parsed]:
    return [
        ChannelRow(
            instrument.symbol,
            "mark",
            {"mark_price": positive(_text(entry["markPx"]), "markPx")},
            _micros(entry["ts"]),
            received,
        )
        for entry in listed(message["data"])
    ]


def _announced(message: Mapping[str, Any], received: int, instrument: Instrument) -> list[Parsed]:
    del received
    return [
        FundingAnnounced(
            instrument.symbol,
            {
                "funding_rate": _rate(entry["fundingRate"]),
                "next_funding": _micros(entry["fundingTime"]),
            },
        )
        for entry in listed(message["data"])
    ]


def _interest(message: Mapping[str, Any], received: int, instrument: Instrument) -> list[Parsed]:
    return [
        ChannelRow(
            instrument.symbol,
            "open_interest",
            {"open_interest": quantity_of(_base_units(_text(entry["oi"]), instrument), "oi")},
            _micros(entry["ts"]),
            received,
        )
        for entry in listed(message["data"])
    ]


def _liquidations(
    message: Mapping[str, Any], received: int, instruments: Mapping[str, Instrument]
) -> list[Parsed]:
    """Return those of the instruments that are recorded: the channel is of all contracts."""
    return [
        _liquidation(detail, received, instruments[entry["instId"]])
        for entry in listed(message["data"])
        if entry["instId"] in instruments
        for detail in listed(entry["details"])
    ]


def _liquidation(detail: Mapping[str, Any], received: int, instrument: Instrument) -> ChannelRow:
    if detail["side"] not in _SIDES:
        raise ValueError(f"side {detail['side']!r:.40} is neither buy nor sell")
    values = {
        "side": detail["side"],
        "price": positive(_text(detail["bkPx"]), "bkPx"),
        "volume": positive(_base_units(_text(detail["sz"]), instrument), "sz"),
    }
    return ChannelRow(instrument.symbol, "liquidations", values, _micros(detail["ts"]), received)


def charged(entry: Mapping[str, Any], received: int, instrument: Instrument) -> ChannelRow:
    """Return a funding of the past; raises what `trade_of` raises."""
    values = {"rate": _rate(entry["realizedRate"])}
    time = _micros(entry["fundingTime"])
    return ChannelRow(instrument.symbol, "funding", values, time, received, "backfill")


def _rate(text: object) -> float:
    rate = float(_text(text))
    if not -1.0 < rate < 1.0:
        raise ValueError(f"{text!s:.40} is no rate of a funding")
    return rate


_CHANNELS: Final[Mapping[str, _Reader]] = {
    TRADES: _trades,
    BOOKS: _books,
    "mark-price": _marks,
    "funding-rate": _announced,
    "open-interest": _interest,
}


def levels_of(entries: object, instrument: Instrument) -> list[Level]:
    """Return levels of a book: each a list of price, size (0 where it is gone), and two more.

    Raises
    ------
    ValueError, TypeError, LookupError, ArithmeticError
        If they are none.
    """
    found = []
    for entry in listed(entries):
        price, size, *_ = listed(entry)
        units = _base_units(_text(size), instrument)
        found.append((positive(_text(price), "price"), quantity_of(units, "size")))
    return found


def _base_units(size: str, instrument: Instrument) -> float:
    """Return a size in units of the base coin: swaps' are contracts."""
    contract = instrument.detail.get("contract_size")
    # As decimal numbers, so that 3 contracts of 0.1 are 0.3.
    return float(size if contract is None else Decimal(size) * Decimal(repr(contract)))


def _text(number: object) -> str:
    if not isinstance(number, str):
        raise TypeError(f"{number!r:.40} is no number in a text")
    return number


def _micros(milliseconds: object) -> int:
    return int(positive(_text(milliseconds), "ts")) * 1_000


HEARTBEAT: Final = ("ping", 20.0)
"""The venue ends a connection over which nothing went for 30 s."""
HEARTBEAT_ANSWER: Final = "pong"
MOST_BOOKS: Final = 25
"""Books of one connection; less than 30 are advised."""
MOST_TOPICS: Final = 500
"""Other channels of one connection; all may have 64 KB together."""
FUNDING_EVERY: Final = 300.0
"""Seconds between two rounds of questions about what was charged."""
BETWEEN_CONNECTIONS: Final = 0.4
"""Seconds between the beginnings of two connections; 3 a second are allowed."""
PAGE: Final = 100
"""Trades of the past that an answer has at most."""
TOO_OFTEN: Final = "50011"


class Okx(RestFeed):
    """Trades, quotes and books of OKX's spot pairs."""

    venue: ClassVar[str] = "okx"
    counts_trades: ClassVar[bool] = True
    ADDRESS: ClassVar[Address] = Address("https://www.okx.com", "wss://ws.okx.com:8443")
    LIMIT: ClassVar[tuple[float, float] | None] = (18, 2.0)
    """20 are allowed of most questions, each counted by itself; 10 of the time."""
    KIND: ClassVar[str] = "SPOT"
    """The ``instType`` of its instruments."""

    _run: OkxRun | None = None

    def messages(self, wanted: Subscription) -> AsyncGenerator[Sequence[Message], None]:
        """Yield trades, quotes or books as they come; see `Feed.messages`."""
        self._run = OkxRun(self, wanted)
        return self._run.batches()

    def reconnect(self, symbol: str, data_type: str, reason: str) -> None:
        """Break the connection that carries a stream, so that it is made again."""
        if self._run is not None:
            self._run.reconnect(symbol, data_type, reason)

    async def latest(self, instrument: Instrument, data_type: str) -> Trade | BookSnapshot | None:
        """Return the newest trade, or the best levels of the book, as the venue has it now.

        A book with the levels of the one here has the time of its last change: the venue's time is
        that of the answer.
        """
        self.doubted.set()
        if data_type == "orderbook":
            return await self._newest_book(instrument)
        what = "market/trades"
        page = await self._past(what, instrument, limit=NEWEST)
        page.trades.sort(key=_number)
        return self._newest(what, page)

    async def _newest_book(self, instrument: Instrument) -> BookSnapshot:
        what = "market/books"
        found = await self._ask(what, instId=instrument.native, sz=BOOK_DEPTH)
        received = self.clock.now()
        with self._documented(what):
            (book,) = listed(found)
            bids, asks = (levels_of(book[side], instrument) for side in ("bids", "asks"))
            time = _micros(book["ts"])
        if self._run is not None and (known := self._run.books.get(instrument.native)):
            time = known.time_of(bids, asks, time)
        return BookSnapshot(instrument.symbol, 0, bids, asks, time, received)

    async def trades(
        self, instrument: Instrument, first_id: int, last_id: int
    ) -> list[Trade | Event]:
        """Return trades by id, both ends included, as far as the venue has them.

        Raises
        ------
        VenueUnavailable, VenueRefused
            When not even the last hundred could be had.
        """
        history = History(instrument.symbol, first_id, last_id, self.clock)
        before = last_id + 1
        while before > first_id:
            try:
                # Its "after" is how far into the past: the page ends before that id.
                asked = {"type": 1, "after": before, "limit": PAGE}
                page = await self._past("market/history-trades", instrument, **asked)
            except VenueError:
                if history.found:
                    break
                raise
            if not history.add(page):
                break
            # The ids of bad entries may be wrong; that they are so many is certain.
            before = min(map(_number, page.trades), default=before - len(page.bad))
        # Pages come newest first.
        return sorted(history.found, key=_number)

    async def charged(self, instrument: Instrument, since: int) -> list[ChannelRow]:
        """Return the funding that was charged since a time (us), the oldest first."""
        what = "public/funding-rate-history"
        found = await self._ask(what, instId=instrument.native, before=since // 1_000)
        received = self.clock.now()
        with self._documented(what):
            rows = [charged(entry, received, instrument) for entry in listed(found)]
        return sorted(rows, key=lambda row: row.time)

    async def server_time(self) -> int:
        """Return the venue's clock in microseconds; it tells milliseconds."""
        found = await self._ask("public/time")
        with self._documented("public/time"):
            return _micros(listed(found)[0]["ts"])

    async def instruments(self) -> dict[str, Instrument]:
        """Return what is traded, by fxlab's symbol: BTC_USDT for BTC-USDT and BTC-USDT-SWAP."""
        what = "public/instruments"
        found = await self._ask(what, instType=self.KIND)
        with self._documented(what):
            entries = listed(found)
        return self._listings(what, entries, _instrument, _names)

    async def _past(self, what: str, instrument: Instrument, **asked: int) -> HistoryPage:
        found = await self._ask(what, instId=instrument.native, **asked)
        received = self.clock.now()
        with self._documented(what):
            return HistoryPage.read(
                what,
                listed(found),
                lambda entry: trade_of(entry, received, instrument, "backfill"),
                lambda entry: _identity(entry["tradeId"]),
            )

    async def _ask(self, what: str, **parameters: str | float) -> Any:  # noqa: ANN401 - any JSON
        answer = await self._rest.get(f"/api/v5/{what}", **parameters)
        told = answer if isinstance(answer, dict) else {}
        if told.get("code") == "0" and "data" in told:
            return told["data"]
        raise self._refusal(what, answer, too_often=told.get("code") == TOO_OFTEN)


class OkxSwap(Okx):
    """The same of OKX's linear perpetual contracts, in units of the base coin."""

    venue: ClassVar[str] = "okx_swap"
    channels: ClassVar[tuple[str, ...]] = tuple(CHANNELS)
    KIND: ClassVar[str] = "SWAP"


def _number(found: Trade | Event) -> int:
    """Return a trade's id; events come after all."""
    return int(found.id or 0) if isinstance(found, Trade) else MOST_ID


def _names(entry: Mapping[str, Any]) -> tuple[str, str]:
    """Return fxlab's name of a listing, and the venue's; a listing to come has no other names."""
    native = _text(entry["instId"])
    base, quote = native.split("-")[:2]
    return f"{base}_{quote}".upper(), native


def _instrument(entry: Mapping[str, Any]) -> Instrument | None:
    """Return a listing; None for an inverse contract, or a name that fxlab cannot spell."""
    symbol, native = _names(entry)
    swap = entry["instType"] == "SWAP"
    if (swap and entry["ctType"] != "linear") or not is_symbol(symbol):
        return None
    tick, lot = (Decimal(_text(entry[name])) for name in ("tickSz", "lotSz"))
    positive(float(tick), "tickSz")
    size = Decimal(entry["ctVal"]) * Decimal(entry["ctMult"]) if swap else Decimal(1)
    positive(float(lot * size), "lotSz")
    detail: dict[str, Any] = {"quantity_decimals": _decimals(lot * size)}
    return Instrument(
        symbol,
        native,
        _decimals(tick),
        "trading" if entry["state"] == "live" else str(entry["state"]),
        detail | ({"contract_size": float(size)} if swap else {}),
        instrument_terms(
            contract=size,
            kind="perpetual" if swap else "spot",
            base=symbol.partition("_")[0],
            quote=symbol.partition("_")[2],
            settle=entry.get("settleCcy"),
            contract_size=size if swap else None,
            tick_size=tick,
            lot_size=lot,
            min_qty=entry.get("minSz"),
        ),
    )


def _decimals(number: Decimal) -> int:
    return len(f"{number.normalize():f}".partition(".")[2])


class OkxRun(SubscribedRun):
    """Runs one subscription: trades over connections of their own, for their path is another.

    Parameters
    ----------
    feed
        Whose it is.
    wanted
        What to record.
    """

    def __init__(self, feed: Okx, wanted: Subscription) -> None:
        booked = wanted.instruments if wanted.book_depth else ()
        books = {one.native: SequencedBook(one.symbol, DEPTH, counted=False) for one in booked}
        super().__init__(feed, wanted, books)
        self._feed, self._wanted = feed, wanted
        self._announced: dict[str, Mapping[str, float | int]] = {}
        public, business = "/ws/v5/public", "/ws/v5/business"
        if wanted.trades:
            self._gather({"prices"}, business, [TRADES], MOST_TOPICS)
        if wanted.book_depth:
            self._gather({"orderbook"}, public, [BOOKS], MOST_BOOKS)
        streamed = {name: STREAMS[name] for name in wanted.channels if name in STREAMS}
        if streamed:
            every = [one for names in streamed.values() for one in names]
            self._gather(set(streamed), public, every, MOST_TOPICS // len(every))

    def _gather(self, kinds: set[str], path: str, channels: Sequence[str], most: int) -> None:
        """Share the instruments out among connections, so many to each."""
        ones = self._wanted.instruments
        for at in range(0, len(ones), most):
            self._group(kinds, path, HEARTBEAT, subscriptions, _again)
            group = self._groups[-1]
            for one in ones[at : at + most]:
                own = (name for name in channels if name != LIQUIDATIONS)
                group.topics += [_topic(name, one.native) for name in own]
                group.symbols[one.symbol] = one.native
            if LIQUIDATIONS in channels:
                group.topics.append({"channel": LIQUIDATIONS, "instType": self._feed.KIND})

    async def _read(self, connection: TopicGroup, wire: ReconnectingWebSocket) -> None:
        await asyncio.sleep(BETWEEN_CONNECTIONS * self._groups.index(connection))
        await super()._read(connection, wire)

    async def poll(self) -> None:
        """Ask for the funding that was charged, one contract after the other."""
        since = self._clock.now()
        while "funding" in self._wanted.channels:
            for one in self._wanted.instruments:
                await self._allowed()
                try:
                    rows = await self._feed.charged(one, since)
                except VenueError as error:
                    await self._tell("venue_error", one.symbol, f"funding: {error}")
                else:
                    await self._queue.put(partial(list, rows))
            await asyncio.sleep(FUNDING_EVERY)

    def frames(self, frames: list[Frame]) -> list[Message]:
        """Return what frames mean."""
        messages: list[Message] = []
        instruments = self._by_native
        for payload, received in frames:
            for found in parse(payload, received, instruments):
                if isinstance(found, BookUpdate):
                    messages += self.booked(found)
                elif isinstance(found, FundingAnnounced):
                    self._announced[found.symbol] = found.values
                elif isinstance(found, ChannelRow) and found.channel == "mark":
                    known = self._announced.get(found.symbol, {})
                    messages.append(found._replace(values={**found.values, **known}))
                else:
                    messages.append(found)
        return messages


def subscriptions(topics: Sequence[Mapping[str, str]]) -> list[str]:
    """Return the request for topics."""
    return [_request("subscribe", topics)]


def _again(native: str) -> tuple[str, str]:
    topics = [_topic(BOOKS, native)]
    return _request("unsubscribe", topics), _request("subscribe", topics)


def _topic(channel: str, native: str) -> dict[str, str]:
    return {"channel": channel, "instId": native}


def _request(operation: str, topics: Sequence[Mapping[str, str]]) -> str:
    return json.dumps({"op": operation, "args": topics})
