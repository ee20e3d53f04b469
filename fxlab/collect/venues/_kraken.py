"""Kraken spot feed: trades counted by ids, books proved by the venue's checksum, REST backfill.

One WebSocket (v2) carries all symbols. An update that does not lead to the venue's checksum is not
passed on: a gap begins, and lasts until a snapshot comes that proves itself. That book is
subscribed again, alone; other symbols are not touched.

REST gives the pairs with their decimals, the time, and past trades. These can only be asked for by
time, a thousand at a time, oldest first. Which time an id had is found from the pace of the trades
that are already known.

The protocol (see also `_kraken_messages`):
https://docs.kraken.com/exchange/guides/websockets/introduction
https://docs.kraken.com/api-reference/market-data/get-recent-trades
https://docs.kraken.com/api-reference/market-data/get-tradable-asset-pairs
"""

from __future__ import annotations

import asyncio
import contextlib
import json
from collections.abc import AsyncGenerator, Collection, Mapping, Sequence
from decimal import Decimal
from typing import Any, ClassVar, Final, NamedTuple

from fxlab._ticks import instrument_terms
from fxlab.collect.feed import (
    NOT_AS_DOCUMENTED,
    Address,
    BookDelta,
    BookSnapshot,
    Event,
    Instrument,
    Message,
    Subscription,
    Trade,
    listed,
    positive,
)
from fxlab.collect.venues._book_sync import BestPrices, Resubscriptions, SubscribedBook
from fxlab.collect.venues._kraken_messages import (
    CHECKED,
    BookFrame,
    CheckedBook,
    Parsed,
    TradesFrame,
    parse,
)
from fxlab.collect.venues._rest import NEWEST, History, HistoryPage, RestFeed
from fxlab.collect.venues._websocket import (
    Arrival,
    ConnectionClosed,
    ConnectionOpened,
    Frame,
    ReconnectingWebSocket,
)

STEPS_BACK: Final = 12

_NEW_NAMES: Final = {"XBT": "BTC", "XDG": "DOGE"}
_SIDES: Final = {"b": "buy", "s": "sell"}
_LIMITS: Final = ("Rate limit", "Too many requests")


class Kraken(RestFeed):
    """Trades, quotes and books of Kraken's spot pairs.

    Attributes
    ----------
    pause
        Seconds between two questions about past trades: about one a second is allowed.
    """

    venue: ClassVar[str] = "kraken"
    counts_trades: ClassVar[bool] = True
    ADDRESS: ClassVar[Address] = Address("https://api.kraken.com", "wss://ws.kraken.com")
    pause = 1.0

    async def messages(self, wanted: Subscription) -> AsyncGenerator[Sequence[Message], None]:
        """Yield trades, quotes or books as they come; see `Feed.messages`."""
        listener = _Listener(wanted)
        self._wire = wire = ReconnectingWebSocket(
            f"{self.address.stream}/v2", clock=self.clock, opening=listener.opening
        )
        resyncs = Resubscriptions(wire.send, _again)
        try:
            async with contextlib.aclosing(wire.arrivals()) as arrivals:
                async for arrival in arrivals:
                    if isinstance(arrival, ConnectionClosed):
                        await resyncs.stop()
                    batch = listener.take(arrival)
                    resyncs.mend(listener.books())
                    if batch:
                        yield batch
        finally:
            await resyncs.stop()

    def reconnect(self, symbol: str, data_type: str, reason: str) -> None:  # noqa: ARG002 - of all
        """Break the connection, so that it is made again."""
        self._wire.drop(reason)

    async def latest(self, instrument: Instrument, data_type: str) -> Trade | BookSnapshot | None:
        """Return the newest trade, or when the book last changed, as the venue has it now."""
        if data_type == "prices":
            return self._newest("Trades", (await self._page(instrument, count=str(NEWEST))).history)
        key = instrument.detail["rest"]
        found = await self._ask("Depth", pair=key, count=str(CHECKED))
        received = self.clock.now()
        with self._documented("Depth"):
            times = [level[2] for side in ("bids", "asks") for level in found[key][side]]
            changed = int(max(times, default=0)) * 1_000_000
            return BookSnapshot(instrument.symbol, 0, [], [], changed, received)

    async def server_time(self) -> int:
        """Return the venue's clock in microseconds: the middle of the second that it tells."""
        found = await self._ask("Time")
        with self._documented("Time"):
            return int(found["unixtime"]) * 1_000_000 + 500_000

    async def instruments(self) -> dict[str, Instrument]:
        """Return the pairs that have a stream, by fxlab's symbol: BTC_USD, not REST's XBT."""
        pairs = await self._ask("AssetPairs")
        with self._documented("AssetPairs"):
            entries = [*pairs.items()]
        return self._listings("AssetPairs", entries, lambda entry: _instrument(*entry), _names)

    async def trades(
        self, instrument: Instrument, first_id: int, last_id: int
    ) -> list[Trade | Event]:
        """Return the trades with these ids, both included, as far as the venue still has them."""
        history = History(instrument.symbol, first_id, last_id, self.clock)
        page = await self._page_with(instrument, first_id)
        while page.rows:
            history.add(page.history)
            if page.newest >= last_id:
                break
            # Trades of one microsecond may lie on both sides of a page's end.
            after = await self._next_page(instrument, page.end - 1)
            if after.newest == page.newest and after.end <= page.end:
                break
            page = after
        return history.found

    async def _page_with(self, instrument: Instrument, first_id: int) -> _Page:
        """Return trades that begin at or before an id, if there are any so old."""
        page = await self._page(instrument)
        reach = 1.5
        for _ in range(STEPS_BACK):
            trades = page.history.trades
            if not trades or _id(trades[0]) <= first_id:
                break
            since = trades[0].time - int(reach * _distance(trades, first_id))
            earlier = await self._next_page(instrument, max(since, 0))
            if not earlier.history.trades or since <= 0:
                return earlier if earlier.rows else page
            reach = reach * 2 if _id(earlier.history.trades[0]) >= _id(trades[0]) else 1.5
            page = earlier
        return page

    async def _next_page(self, instrument: Instrument, since: int) -> _Page:
        await asyncio.sleep(self.pause)
        return await self._page(instrument, since=str(since * 1_000))

    async def _page(self, instrument: Instrument, **parameters: str) -> _Page:
        key = instrument.detail["rest"]
        found = await self._ask("Trades", pair=key, **parameters)
        received = self.clock.now()
        with self._documented("Trades"):
            rows = listed(found[key])
            history = HistoryPage.read(
                "Trades",
                rows,
                lambda row: _trade(row, instrument.symbol, received),
                lambda row: row[-1],
            )
            trades = history.trades
            # Its end is the last trade's, or what the venue calls so where that one is bad.
            end = trades[-1].time if trades else 0
            return _Page(
                history, len(rows), max(end, int(found["last"]) // 1_000) if history.bad else end
            )

    async def _ask(self, what: str, **parameters: str) -> Any:  # noqa: ANN401 - any JSON
        answer = await self._rest.get(f"/0/public/{what}", **parameters)
        errors = answer.get("error") if isinstance(answer, dict) else ["no JSON object"]
        if not errors:
            return answer.get("result")
        raise self._refusal(what, errors, too_often=any(one in str(errors) for one in _LIMITS))


class _Page(NamedTuple):
    """One answer of ``Trades``.

    Attributes
    ----------
    rows
        How many entries it has, bad ones included.
    end
        Time of the last one, in microseconds.
    """

    history: HistoryPage
    rows: int
    end: int

    @property
    def newest(self) -> int:
        """Return the last id that was understood."""
        return _id(self.history.trades[-1]) if self.history.trades else -1


def _names(entry: tuple[str, Mapping[str, Any]]) -> tuple[str, str]:
    """Return fxlab's name of a pair, and the stream's."""
    parts = [_NEW_NAMES.get(name, name) for name in entry[1]["wsname"].split("/")]
    base, quote = parts
    return f"{base}_{quote}".upper(), f"{base}/{quote}"


def _instrument(key: str, pair: Mapping[str, Any]) -> Instrument | None:
    """Return a pair; None for one that has no stream."""
    if "wsname" not in pair:
        return None
    symbol, native = _names((key, pair))
    status = pair.get("status", "online")
    return Instrument(
        symbol,
        native,
        int(pair["pair_decimals"]),
        "trading" if status == "online" else str(status),
        {"rest": key, "quantity_decimals": int(pair["lot_decimals"])},
        _terms(pair, *native.split("/")),
    )


def _terms(pair: Mapping[str, Any], base: str, quote: str) -> dict[str, Any]:
    """Return sizes and fees of a pair: percents, by the volume of 30 days."""
    try:
        taker, maker = (
            {float(volume): float(Decimal(str(fee)) * 100) for volume, fee in pair.get(name) or ()}
            for name in ("fees", "fees_maker")
        )
    except NOT_AS_DOCUMENTED:  # sizes are known all the same
        taker = maker = {}
    return instrument_terms(
        kind="spot",
        base=base,
        quote=quote,
        tick_size=pair.get("tick_size"),
        lot_size=Decimal(1).scaleb(-int(pair["lot_decimals"])),
        min_qty=pair.get("ordermin"),
        min_notional=pair.get("costmin"),
        taker_bps=taker.get(0.0),
        maker_bps=maker.get(0.0),
        fee_tiers=[[each, taker[each], maker[each]] for each in sorted(taker.keys() & maker)],
    )


def _trade(row: Sequence[Any], symbol: str, received: int) -> Trade:
    price, volume, time, side, *_, number = row
    if type(number) is not int:
        raise TypeError(f"trade id {number!r:.40} is no whole number")
    return Trade(
        symbol,
        number,
        _SIDES[side],
        positive(price, "price"),
        positive(volume, "volume"),
        _micros(time),
        received,
        "backfill",
    )


def _micros(seconds: float) -> int:
    """Return microseconds as the stream prints them: cut off, never rounded up."""
    whole, _, part = repr(float(seconds)).partition(".")
    return int(whole) * 1_000_000 + int(part[:6].ljust(6, "0"))


def _distance(page: list[Trade], first_id: int) -> float:
    """Return how many microseconds before a page an id must lie, by the pace of the page."""
    pace = (page[-1].time - page[0].time + 1_000) / len(page)
    return (_id(page[0]) - first_id + 1) * pace + 1_000_000


def _id(trade: Trade) -> int:
    assert isinstance(trade.id, int)  # noqa: S101 - `_trade` saw to it
    return trade.id


class ChecksummedBook(SubscribedBook):
    """One symbol's book, proven by the venue's checksum.

    Kraken gives its updates no numbers, so they are counted here, through all reconnects.
    """

    def __init__(self, symbol: str) -> None:
        super().__init__(symbol)
        self._book = CheckedBook()
        self._count = 0

    def take(self, frame: BookFrame) -> list[Message]:
        """Return what a frame means for the record: nothing while the book is not known."""
        if frame.snapshot:
            return self._begin(frame)
        if not self.synced:
            self.broken = True
            return []
        bids, asks = self._book.apply(frame.bids, frame.asks)
        if self._book.checksum != frame.checksum:
            return self.lose(self._difference(frame))
        self._count += 1
        self._last_time = frame.time
        return [
            BookDelta(self.symbol, self._count, self._count, bids, asks, frame.time, frame.received)
        ]

    def _begin(self, frame: BookFrame) -> list[Message]:
        self._book.reset(frame.bids, frame.asks)
        if self._book.checksum != frame.checksum:
            cause = self._difference(frame)
            error = Event("venue_error", self.symbol, frame.received, 1, f"snapshot: {cause}")
            return [*self.lose(cause), error]
        self._count += 1
        # A snapshot has no time; that of its arrival may lie before the last update.
        time = max(frame.time, self._last_time or 0)
        book = BookSnapshot(self.symbol, self._count, *self._book.levels, time, frame.received)
        return [*self._begun(time), book]

    def _difference(self, frame: BookFrame) -> str:
        return f"checksum {frame.checksum} of the venue, {self._book.checksum} of the book here"


class _Listener:
    """What arrives, as messages."""

    def __init__(self, wanted: Subscription) -> None:
        self._wanted = wanted
        self._instruments = wanted.by_native
        self._best = BestPrices() if wanted.book_depth == 1 else None
        self._books = {
            one.symbol: (one.native, ChecksummedBook(one.symbol))
            for one in wanted.instruments
            if wanted.book_depth
        }
        self._last: dict[str, Trade] = {}
        self._began: int | None = None
        self._lost: str | None = None

    def opening(self) -> list[str]:
        """Return the subscriptions; after the first time with the last trades before them."""
        names = list(self._instruments)
        texts = [_request("subscribe", channel="instrument", snapshot=False)]
        if self._wanted.trades:
            again = self._began is not None
            texts.append(_request("subscribe", channel="trade", symbol=names, snapshot=again))
        if self._books:
            texts.append(_request("subscribe", **_book(names)))
        return texts

    def take(self, arrival: Arrival) -> list[Message]:
        """Return what a frame, or the state of the connection, means."""
        if isinstance(arrival, list):
            return self._take_frames(arrival)
        if isinstance(arrival, ConnectionClosed):
            return self._closed(arrival)
        return self._opened(arrival)

    def books(self) -> Collection[tuple[str, ChecksummedBook]]:
        """Return the books, each after the venue's name."""
        return self._books.values()

    def _take_frames(self, frames: list[Frame]) -> list[Message]:
        instruments = self._instruments
        batch: list[Message] = []
        for text, received in frames:
            for parsed in parse(text, received, instruments):
                if type(parsed) is Trade:
                    self._last[parsed.symbol] = parsed
                    batch.append(parsed)
                else:
                    batch.extend(self._rarer(parsed))
        return batch

    def _rarer(self, parsed: Parsed) -> Sequence[Message]:
        if isinstance(parsed, BookFrame):
            if parsed.symbol not in self._books:
                return ()
            messages = self._books[parsed.symbol][1].take(parsed)
            return messages if self._best is None else self._best.of(messages)
        if isinstance(parsed, TradesFrame):
            missed = [trade for trade in parsed.trades if self._missed(trade)]
            self._last.update((trade.symbol, trade) for trade in missed)
            return missed
        return (parsed,)

    def _missed(self, trade: Trade) -> bool:
        """Return whether a trade of a snapshot is later than those that came before."""
        last = self._last.get(trade.symbol)
        if last is None:
            return self._began is not None and trade.time >= self._began
        if trade.time == last.time:
            return trade.id > last.id  # type: ignore[operator]  # whole numbers, both
        return trade.time > last.time

    def _closed(self, closed: ConnectionClosed) -> list[Message]:
        if self._lost is None:
            self._lost = closed.reason
        gaps = [gap for _, book in self._books.values() for gap in book.lose(closed.reason)]
        for _, book in self._books.values():
            book.expect_snapshot()
        return gaps

    def _opened(self, opened: ConnectionOpened) -> list[Message]:
        reason, self._lost = self._lost, None
        if self._began is None:
            self._began = opened.time
            return []
        return [Event("reconnect", None, opened.time, 1, reason or "")]


def _book(names: list[str], *, snapshot: bool | None = True) -> dict[str, object]:
    wanted: dict[str, object] = {"channel": "book", "symbol": names, "depth": CHECKED}
    return wanted if snapshot is None else {**wanted, "snapshot": snapshot}


def _again(native: str) -> tuple[str, str]:
    return (
        _request("unsubscribe", **_book([native], snapshot=None)),
        _request("subscribe", **_book([native])),
    )


def _request(method: str, **params: object) -> str:
    return json.dumps({"method": method, "params": params})
