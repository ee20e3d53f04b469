"""Binance spot and USD-M futures: connection plan, REST history, and the feed of trades and books.

Spot streams (``trade``, ``depth@100ms``, ``bookTicker``) and requests:
https://developers.binance.com/docs/binance-spot-api-docs/web-socket-streams
https://developers.binance.com/docs/binance-spot-api-docs/rest-api/market-data-endpoints
https://developers.binance.com/docs/binance-spot-api-docs/rest-api/general-endpoints
https://developers.binance.com/docs/binance-spot-api-docs/rest-api/limits
Futures (perpetual contracts):
https://developers.binance.com/docs/derivatives/usds-margined-futures/websocket-market-streams
https://developers.binance.com/docs/derivatives/usds-margined-futures/market-data/rest-api

Streams go over as few connections as Binance's limits allow. A local book follows the rule under
"How to manage a local order book correctly": changes are buffered, a snapshot is fetched, changes
up to its ``lastUpdateId`` are dropped, and from then on each change's ``U`` is one more than the
``u`` before it; on futures its ``pu`` is the ``u`` before it. Spot's ``bookTicker`` and depth
snapshots carry no time: quotes get their arrival, a snapshot the time of the last change in it, or
that of the next one if it is newer.

Spot's past trades come by their id, without a key, from ``historicalTrades`` ("Old trade lookup",
1,000 at a time). Futures trades are the documented ``aggTrade``: what one order took at one price
is one trade, and its ids rise by one without gaps. The undocumented ``trade`` stream is finer, but
spends ids on records that are no trades (price 0, ``X`` = "NA"), which a recorder would have to
report as gaps; and its history needs a key, while ``aggTrades`` serves everybody by id. Futures
books come from ``/public`` and trades from ``/market`` since April 2026 ("Important WebSocket
Change Notice"), and so do mark prices and liquidations: ``markPrice@1s`` tells mark and index
price, the estimated settlement price, the next funding's rate as it is now, and its time, each
second; ``forceOrder`` at most the last liquidation of a second ("Liquidation Order Streams"). Open
interest (``openInterest``) and what was charged as funding (``fundingRate``, 500 questions in five
minutes) are asked for.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Collection, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any, ClassVar, Final

from fxlab._ticks import instrument_terms
from fxlab.collect.feed import (
    Address,
    BookSnapshot,
    ChannelRow,
    Event,
    Gap,
    Instrument,
    Message,
    Quote,
    Subscription,
    Trade,
    listed,
    native_of,
)
from fxlab.collect.venues._binance_messages import (
    SHUTDOWN,
    funding,
    open_interest,
    parse,
    past_trade,
    snapshot,
)
from fxlab.collect.venues._book_sync import Diff, QuoteStream, SyncedBook
from fxlab.collect.venues._rest import NEWEST, History, HistoryPage, RestFeed
from fxlab.collect.venues._snapshot_run import SnapshotRun
from fxlab.collect.venues._websocket import (
    ConnectionClosed,
    ConnectionOpened,
    Frame,
    ReconnectingWebSocket,
)
from fxlab.errors import VenueError, VenueRefused, VenueUnavailable
from fxlab.schema import CHANNELS, is_symbol

QUOTES, DEPTH = BOOK_STREAMS = "bookTicker", "depth@100ms"
CHANNEL_STREAMS: Final = {"mark": "markPrice@1s", "liquidations": "forceOrder"}
ASKED_EVERY: Final = {"open_interest": 10.0, "funding": 300.0}
"""Seconds between two rounds of questions about what no stream tells."""
MOST_STREAMS: Final = 1024
"""Of one connection, as documented."""
STREAMS_AT_ONCE: Final = 256


@dataclass(slots=True)
class StreamGroup:
    """One connection and what it carries."""

    path: str
    streams: list[str]
    quotes: list[QuoteStream] = field(default_factory=list)
    books: list[SyncedBook] = field(default_factory=list)
    channels: list[tuple[str, str]] = field(default_factory=list)
    """Symbol and name of what else it carries."""
    lost_at: int = 0
    opened: bool = False
    lost: str | None = None
    """Why it was lost, until it is open again."""


def plan(feed: Binance, wanted: Subscription) -> list[StreamGroup]:
    """Return the connections for a subscription."""
    lines: list[StreamGroup] = []
    for one in wanted.instruments:
        name = one.native.lower()
        if wanted.trades:
            _line(lines, feed.TRADE_PATH, f"{name}@{feed.TRADE_STREAM}")
        if wanted.book_depth == 1:
            line = _line(lines, feed.BOOK_PATH, f"{name}@{QUOTES}")
            line.quotes.append(QuoteStream(one.symbol))
        elif wanted.book_depth:
            line = _line(lines, feed.BOOK_PATH, f"{name}@{DEPTH}")
            book = SyncedBook(one.symbol, timed=feed.TIMED_SNAPSHOTS, depth=wanted.book_depth)
            line.books.append(book)
        for channel in wanted.channels:
            if stream := CHANNEL_STREAMS.get(channel):
                line = _line(lines, feed.TRADE_PATH, f"{name}@{stream}")
                line.channels.append((one.symbol, channel))
    return lines


def _line(lines: list[StreamGroup], path: str, stream: str) -> StreamGroup:
    """Return the connection that carries a stream from now on."""
    for line in lines:
        if line.path == path and len(line.streams) < MOST_STREAMS:
            line.streams.append(stream)
            return line
    lines.append(StreamGroup(path, [stream]))
    return lines[-1]


def subscriptions(streams: list[str]) -> list[str]:
    """Return the requests for streams, few enough for the venue's limit of messages a second."""
    parts = range(0, len(streams), STREAMS_AT_ONCE)
    return [
        json.dumps(
            {"method": "SUBSCRIBE", "params": streams[at : at + STREAMS_AT_ONCE], "id": number}
        )
        for number, at in enumerate(parts, start=1)
    ]


def _listing(entry: Any, contract: str | None) -> Instrument | None:  # noqa: ANN401 - JSON
    """Return an entry of ``exchangeInfo``; None for a name that fxlab's symbols cannot spell.

    Parameters
    ----------
    entry
        As it came.
    contract
        The only ``contractType`` to keep; None on markets without contracts.
    """
    if contract is not None and entry["contractType"] != contract:
        return None
    symbol, native = _names(entry)
    if not is_symbol(symbol):
        return None
    status = entry["status"]
    return Instrument(
        symbol,
        native,
        price_decimals=_decimals(entry),
        status="trading" if status == "TRADING" else str(status).lower(),
        terms=_terms(entry, "spot" if contract is None else "perpetual"),
    )


def _terms(entry: Any, kind: str) -> dict[str, Any]:  # noqa: ANN401 - JSON
    """Return the filters of an entry; the least notional has another name in each market."""
    rules = {rule.get("filterType"): rule for rule in listed(entry.get("filters", []))}
    lot = rules.get("LOT_SIZE", {})
    least = rules.get("NOTIONAL") or rules.get("MIN_NOTIONAL") or {}
    return instrument_terms(
        kind=kind,
        base=entry["baseAsset"],
        quote=entry["quoteAsset"],
        settle=entry.get("marginAsset"),
        contract_size=None if kind == "spot" else 1,
        tick_size=rules.get("PRICE_FILTER", {}).get("tickSize"),
        lot_size=lot.get("stepSize"),
        min_qty=lot.get("minQty"),
        min_notional=least.get("minNotional") or least.get("notional"),
    )


def _names(entry: Any) -> tuple[str, str]:  # noqa: ANN401 - JSON
    """Return fxlab's name of an entry, and the venue's."""
    return f"{entry['baseAsset']}_{entry['quoteAsset']}", native_of(entry)


def _decimals(entry: Any) -> int | None:  # noqa: ANN401 - JSON
    """Return the decimals of a symbol's tick size, such as 2 for "0.01000000"."""
    for rule in listed(entry.get("filters", [])):
        if rule.get("filterType") == "PRICE_FILTER":
            return len(str(rule["tickSize"]).rstrip("0").partition(".")[2])
    return None


LIFETIME: Final = 24 * 3600.0 - 600.0
"""Seconds; a connection is ended by the venue after a day."""
SILENCE: Final = 30.0
HEARTBEAT: Final = ('{"method":"LIST_SUBSCRIPTIONS","id":0}', 10.0)
"""Answered by the streams' own server, so that a quiet market is not taken for a dead one."""
SPARING: Final = 20
"""A round of snapshots costs at most this part of what is left of the rate limit.

After many cuts snapshots become smaller instead of late; a book asks for a larger one when its
price comes near the end of a small one.
"""


class BinanceRun(SnapshotRun[StreamGroup]):
    """Runs one subscription.

    Parameters
    ----------
    feed
        Whose it is.
    wanted
        What to record.
    """

    def __init__(self, feed: Binance, wanted: Subscription) -> None:
        self._lines = plan(feed, wanted)
        books = {one.symbol: one for line in self._lines for one in line.books}
        self._natives = {one.symbol: one.native for one in wanted.instruments}
        super().__init__(feed, self._natives, books)
        self._feed = feed
        self._symbols = {one.native: one.symbol for one in wanted.instruments}
        self._quotes = {one.symbol: one for line in self._lines for one in line.quotes}
        self._asked = {name: 0.0 for name in wanted.channels if name in ASKED_EVERY}
        """What is asked for, and when next."""

    def connections(self) -> list[tuple[StreamGroup, ReconnectingWebSocket]]:
        """Return a socket for each line of the plan."""
        return [(line, self._wire(line)) for line in self._lines]

    def _wire(self, line: StreamGroup) -> ReconnectingWebSocket:
        return ReconnectingWebSocket(
            f"{self._feed.address.stream}{line.path}?streams={line.streams[0]}",
            clock=self._clock,
            opening=lambda: subscriptions(line.streams[1:]),
            silence=SILENCE,
            heartbeat=HEARTBEAT,
            lifetime=LIFETIME,
        )

    def carries(self, connection: StreamGroup, symbol: str, data_type: str) -> bool:
        """Return whether a stream comes over a connection."""
        own = {"prices": self._feed.TRADE_STREAM, **CHANNEL_STREAMS}.get(data_type)
        names = BOOK_STREAMS if own is None else (own,)
        native = self._natives[symbol].lower()
        return any(f"{native}@{name}" in connection.streams for name in names)

    def levels(self, waiting: int) -> tuple[int, float]:
        """Return how many levels a snapshot should have while so many are wanted, and its cost."""
        share = self._feed.allowance() / SPARING
        sizes = self._feed.SNAPSHOT_COSTS
        fitting = [size for size, cost in sizes.items() if cost * waiting <= share]
        levels = max(fitting, default=min(sizes))
        return levels, sizes[levels]

    async def snapshot(self, symbol: str, levels: int) -> BookSnapshot:
        """Return a book as the venue gives it now."""
        native, cost = self._natives[symbol], self._feed.SNAPSHOT_COSTS[levels]
        answer = await self._feed.ask("depth", cost, symbol=native, limit=levels)
        return snapshot(answer, symbol, self._clock.now())

    async def poll(self) -> None:
        """Ask for what no stream tells, one question after the other."""
        loop, since = asyncio.get_running_loop(), self._clock.now()
        while self._asked:
            channel = min(self._asked, key=lambda name: self._asked[name])
            await asyncio.sleep(max(0.0, self._asked[channel] - loop.time()))
            self._asked[channel] = loop.time() + ASKED_EVERY[channel]
            for symbol, native in self._natives.items():
                await self._allowed()
                try:
                    rows = await self._feed.asked(channel, symbol, native, since)
                except VenueError as error:
                    await self._tell("venue_error", symbol, f"{channel}: {error}")
                else:
                    await self._queue.put(partial(list, rows))

    async def listed(self, symbols: Collection[str]) -> dict[str, Instrument]:
        """Return what the venue says of symbols."""
        return await self._feed.listed([self._natives[one] for one in symbols])

    def frames(self, frames: list[Frame]) -> list[Message]:
        """Return what frames mean."""
        messages: list[Message] = []
        symbols = self._symbols
        for payload, received in frames:
            found = parse(payload, received, symbols)
            if type(found) is Trade or type(found) is Event or type(found) is ChannelRow:
                messages.append(found)
                if type(found) is Event and found.detail == SHUTDOWN.detail:
                    self.renew()
            elif type(found) is Diff:
                messages += self.change(found)
            elif type(found) is Quote and found.symbol in self._quotes:
                messages += self._quotes[found.symbol].take(found)
        return messages

    def opened(self, connection: StreamGroup, opened: ConnectionOpened) -> list[Message]:
        """Tell of a reconnect, and ask for the snapshots of its books."""
        line, messages = connection, list[Message]()
        if line.lost is not None and line.opened:
            messages.append(Event("reconnect", None, opened.time, 1, line.lost))
            messages += [
                Gap(*key, line.lost_at, opened.time, None, line.lost) for key in line.channels
            ]
        line.opened, line.lost = True, None
        for book in line.books:
            self.synchronise(book.symbol)
        return messages

    def closed(self, connection: StreamGroup, closed: ConnectionClosed) -> list[Message]:
        """Tell what is lost until the connection stands again."""
        line, messages = connection, list[Message]()
        if not line.opened and line.lost != closed.reason:
            detail = f"{line.path}: {closed.reason}"
            messages.append(Event("venue_error", None, closed.time, 1, detail))
        if line.lost is None and line.opened:
            line.lost_at = closed.time
            messages += [Gap(*key, closed.time, None, None, closed.reason) for key in line.channels]
        if line.lost is None or not line.opened:
            line.lost = closed.reason
        for one in (*line.books, *line.quotes):
            messages += one.lose(closed.reason)
            self.abandon(one.symbol)
        return messages


class Binance(RestFeed):
    """Binance spot.

    Attributes
    ----------
    TRADE_STREAM
        Name of the stream of trades.
    TRADE_PATH, BOOK_PATH
        Paths of the sockets.
    SNAPSHOT_COSTS
        How many levels a snapshot may have, and what it costs of the rate limit.
    COSTS
        What other questions cost, where it is not 1.
    TIMED_SNAPSHOTS
        Whether a snapshot says which time it is of.
    CONTRACT
        The only ``contractType`` of instruments; None on markets without contracts.
    HISTORY, RECENT, PAST_NAMES
        The questions for past trades and for the newest, and how `past_trade` finds their values.
    """

    venue: ClassVar[str] = "binance"
    counts_trades: ClassVar[bool] = True

    ADDRESS: ClassVar[Address] = Address(
        rest="https://api.binance.com", stream="wss://stream.binance.com:9443"
    )
    API: ClassVar[str] = "/api/v3"
    TRADE_STREAM: ClassVar[str] = "trade"
    TRADE_PATH: ClassVar[str] = "/stream"
    BOOK_PATH: ClassVar[str] = "/stream"
    LIMIT: ClassVar[tuple[float, float] | None] = (5_400, 60.0)  # 6,000 are allowed
    USED: ClassVar[str] = "X-MBX-USED-WEIGHT-1M"
    SNAPSHOT_COSTS: ClassVar[dict[int, int]] = {100: 5, 500: 25, 1000: 50}
    COSTS: ClassVar[dict[str, int]] = {"exchangeInfo": 20, "trades": 25, "historicalTrades": 25}
    TIMED_SNAPSHOTS: ClassVar[bool] = False
    CONTRACT: ClassVar[str | None] = None
    HISTORY: ClassVar[str] = "historicalTrades"
    RECENT: ClassVar[str] = "trades"
    PAST_NAMES: ClassVar[tuple[str, ...]] = ("id", "price", "qty", "time", "isBuyerMaker")

    async def instruments(self, **asked: str) -> dict[str, Instrument]:
        """Return what is traded, or what of it is asked for, by fxlab's symbol."""
        answer = await self.ask("exchangeInfo", **asked)
        with self._documented("exchangeInfo"):
            entries = listed(answer["symbols"])
        found = self._listings(
            "exchangeInfo", entries, lambda entry: _listing(entry, self.CONTRACT), _names
        )
        if not found:
            raise VenueUnavailable("exchangeInfo lists no symbols; try again later")
        return found

    async def listed(self, natives: Sequence[str]) -> dict[str, Instrument]:
        """Return what is known of some of the venue's symbols, by fxlab's names."""
        if len(natives) <= 100 and self.CONTRACT is None:
            # One name that is gone makes the venue refuse the question for all.
            with contextlib.suppress(VenueRefused):
                return await self.instruments(symbols=json.dumps(natives, separators=(",", ":")))
        return await self.instruments()

    def messages(self, wanted: Subscription) -> AsyncGenerator[Sequence[Message], None]:
        """Yield messages in the order of their arrival, several at a time."""
        self._run = BinanceRun(self, wanted)
        return self._run.batches()

    def reconnect(self, symbol: str, data_type: str, reason: str) -> None:
        """Break the connection that carries a stream, so that it is made again."""
        self._run.reconnect(symbol, data_type, reason)

    async def latest(self, instrument: Instrument, data_type: str) -> Trade | BookSnapshot | None:
        """Return the newest trade, or the best levels of the book, as the venue has it now."""
        self.doubted.set()
        if data_type == "orderbook":
            cost = min(self.SNAPSHOT_COSTS.values())
            answer = await self.ask("depth", cost, symbol=instrument.native, limit=5)
            with self._documented("depth"):
                return snapshot(answer, instrument.symbol, self.clock.now())
        page = await self._past(self.RECENT, instrument, limit=NEWEST)
        return self._newest(self.RECENT, page)

    async def trades(
        self, instrument: Instrument, first_id: int, last_id: int
    ) -> list[Trade | Event]:
        """Return trades by id, both ends included, as far as the venue has them.

        Raises
        ------
        VenueUnavailable, VenueRefused
            When not even the first thousand could be had.
        """
        history = History(instrument.symbol, first_id, last_id, self.clock)
        while first_id <= last_id:
            try:
                page = await self._past(self.HISTORY, instrument, fromId=first_id, limit=1000)
            except VenueError:
                if history.found:
                    break
                raise
            if not history.add(page):
                break
            # The ids of bad entries may be wrong; that they are so many is certain.
            by_count = first_id + len(page.bad) - 1
            first_id = max(map(_number, page.trades), default=by_count) + 1
        return history.found

    async def server_time(self) -> int | None:
        """Return the venue's clock in microseconds."""
        answer = await self.ask("time")
        with self._documented("time"):
            return int(answer["serverTime"]) * 1000

    async def ask(self, question: str, cost: int | None = None, /, **parameters: str | int) -> Any:  # noqa: ANN401 - JSON
        """Return what the venue answers to a request."""
        cost = cost or self.COSTS.get(question, 1)
        return await self._rest.get(f"{self.API}/{question}", cost, **parameters)

    async def asked(self, channel: str, symbol: str, native: str, since: int) -> list[ChannelRow]:
        """Return what the venue answers about a channel: of funding, what was charged since (us).

        Raises
        ------
        VenueUnavailable, VenueRefused
            With the reason in words.
        """
        if channel == "open_interest":
            answer = await self.ask("openInterest", symbol=native)
            with self._documented("openInterest"):
                return [open_interest(answer, symbol, self.clock.now())]
        answer = await self.ask("fundingRate", symbol=native, startTime=since // 1000, limit=1000)
        with self._documented("fundingRate"):
            return [funding(entry, symbol, self.clock.now()) for entry in listed(answer)]

    async def _past(self, question: str, instrument: Instrument, **asked: int) -> HistoryPage:
        answer = await self.ask(question, symbol=instrument.native, **asked)
        received, names = self.clock.now(), self.PAST_NAMES
        with self._documented(question):
            return HistoryPage.read(
                question,
                listed(answer),
                lambda entry: past_trade(entry, names, instrument.symbol, received),
                lambda entry: entry[names[0]],
            )


def _number(trade: Trade) -> int:
    return int(trade.id or 0)


class BinanceFutures(Binance):
    """Binance USD-M perpetual futures."""

    venue: ClassVar[str] = "binance_futures"
    channels: ClassVar[tuple[str, ...]] = tuple(CHANNELS)

    ADDRESS: ClassVar[Address] = Address(
        rest="https://fapi.binance.com", stream="wss://fstream.binance.com"
    )
    API: ClassVar[str] = "/fapi/v1"
    TRADE_STREAM: ClassVar[str] = "aggTrade"
    TRADE_PATH: ClassVar[str] = "/market/stream"
    BOOK_PATH: ClassVar[str] = "/public/stream"
    LIMIT: ClassVar[tuple[float, float] | None] = (2_160, 60.0)  # 2,400 are allowed
    SNAPSHOT_COSTS: ClassVar[dict[int, int]] = {100: 5, 500: 10, 1000: 20}
    COSTS: ClassVar[dict[str, int]] = {"aggTrades": 20}
    TIMED_SNAPSHOTS: ClassVar[bool] = True
    CONTRACT: ClassVar[str | None] = "PERPETUAL"
    HISTORY: ClassVar[str] = "aggTrades"
    RECENT: ClassVar[str] = "aggTrades"
    PAST_NAMES: ClassVar[tuple[str, ...]] = ("a", "p", "q", "T", "m")
