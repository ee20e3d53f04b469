"""Binance's feeds against the real recording, and against a small venue that misbehaves."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import json
import random
from dataclasses import replace
from types import SimpleNamespace

import polars as pl
import pytest
from small_venue import page_route, serving, socket_route

from fxlab.collect._config import resolve_instruments
from fxlab.collect._live.books import OrderBook
from fxlab.collect.feed import (
    Address,
    BookDelta,
    BookSnapshot,
    Clock,
    Event,
    Gap,
    Instrument,
    Quote,
    Subscription,
    Trade,
)
from fxlab.collect.venues import VENUES, _binance, _rest, _snapshot_run, open_feed
from fxlab.collect.venues._binance import Binance, BinanceFutures
from fxlab.collect.venues._binance_messages import parse, snapshot
from fxlab.collect.venues._book_sync import Diff, QuoteStream, SyncedBook
from fxlab.errors import VenueError, VenueNotFound, VenueRefused, VenueUnavailable

SYMBOLS = {"BTCUSDT": "BTC_USDT", "ETHUSDT": "ETH_USDT"}
BTC = Instrument("BTC_USDT", "BTCUSDT")
ETH = Instrument("ETH_USDT", "ETHUSDT")
START = 1_723_161_255_000


# The real recording.


class Tape:
    """What the recorded frames become."""

    def __init__(self, path):
        self.trades, self.quotes, self.tops, self.others = [], {}, {}, []
        book, sync, quotes = OrderBook(), SyncedBook("BTC_USDT"), QuoteStream("BTC_USDT")
        with gzip.open(path) as lines:
            for line in lines:
                nanos, text = line.decode().split(" ", 1)
                received = int(nanos) // 1_000
                if text.startswith('{"lastUpdateId"'):
                    held = sync.held
                    messages = sync.offer(snapshot(json.loads(text), "BTC_USDT", received))
                    self.early = held - (len(messages) - 1)
                else:
                    found = parse(text, received, SYMBOLS)
                    messages = sync.take(found) if type(found) is Diff else [found]
                for message in messages:
                    self.see(message, book, quotes)

    def see(self, message, book, quotes):
        """Sort a message."""
        if type(message) is Trade:
            self.trades.append(message)
        elif type(message) is Quote:
            assert quotes.take(message) == [message]
            self.quotes[message.update_id] = message
        elif type(message) in {BookSnapshot, BookDelta}:
            change = book.reset if type(message) is BookSnapshot else book.apply
            change(message.bids, message.asks)
            assert not book.crossed
            self.tops[message.update_id] = book.top(10), message.time
        else:
            self.others.append(message)


@pytest.fixture(scope="module")
def recording(shared_data):
    return shared_data / "binance_spot_btcusdt_20240808"


@pytest.fixture(scope="module")
def tape(recording):
    return Tape(recording / "frames.jsonl.gz")


def test_the_recorded_book_follows_without_a_gap(tape):
    assert tape.others == []
    assert tape.early == 2
    assert len(tape.tops) == 3_450


def test_top_of_book_equals_the_ticker_wherever_ids_match(tape, recording):
    both = sorted(tape.tops.keys() & tape.quotes.keys())
    for update_id in both:
        bid, bid_qty = tape.tops[update_id][0][:2]
        ask, ask_qty = tape.tops[update_id][0][20:22]
        quote = tape.quotes[update_id]
        assert (bid, bid_qty, ask, ask_qty) == (quote.bid, quote.bid_qty, quote.ask, quote.ask_qty)
    # The frames end at midnight; the tables go on, to 1,072 pairs.
    tickers = pl.read_parquet(recording / "book_ticker.parquet")["update_id"]
    books = pl.read_parquet(recording / "book10.parquet")["last_update_id"]
    pairs = books.filter(books.is_in(tickers.implode()))
    assert len(pairs) == 1_072
    assert both == pairs.filter(pairs <= max(tape.tops)).to_list()
    assert len(both) == 564


def test_all_ten_levels_equal_the_table(tape, recording):
    table = pl.read_parquet(recording / "book10.parquet")
    table = table.filter(pl.col("last_update_id") <= max(tape.tops))
    names = [
        f"{side}_{field}_{level}"
        for side in ("bid", "ask")
        for level in range(1, 11)
        for field in ("price", "qty")
    ]
    times = table["timestamp"].dt.epoch("us")
    rows = zip(table["last_update_id"], times, table.select(names).iter_rows(), strict=True)
    compared = 0
    for update_id, time, levels in rows:
        assert tape.tops[update_id] == (levels, time)
        compared += 1
    assert compared >= 3_400


def test_trades_equal_the_table(tape, recording):
    table = pl.read_parquet(recording / "trades.parquet")
    table = table.head(len(tape.trades))
    assert [t.id for t in tape.trades] == table["trade_id"].to_list()
    assert [t.price for t in tape.trades] == table["price"].to_list()
    assert [t.volume for t in tape.trades] == table["qty"].to_list()
    assert [t.time for t in tape.trades] == table["timestamp"].dt.epoch("us").to_list()
    assert [t.side == "sell" for t in tape.trades] == table["buyer_is_maker"].to_list()
    assert [t.received for t in tape.trades] == (table["recv_ns"] // 1_000).to_list()


# Frames.


def trade(number, native="BTCUSDT", **changes):
    time = START + number if type(number) is int else START
    data = {"e": "trade", "E": START, "s": native, "t": number, "p": "61837.63", "q": "0.02",
            "T": time, "m": True, "M": True}  # fmt: skip
    return stream(f"{native.lower()}@trade", data | changes)


def depth(first, last, native="BTCUSDT", **changes):
    time = START + last if type(last) is int else START
    data = {"e": "depthUpdate", "E": time, "s": native, "U": first, "u": last,
            "b": [["100.0", str(last)]], "a": [["101.0", "0.00"]]}  # fmt: skip
    return stream(f"{native.lower()}@depth@100ms", data | changes)


def ticker(number, native="BTCUSDT", **changes):
    data = {"u": number, "s": native, "b": "100.0", "B": "1", "a": "101.0", "A": "2"}
    return stream(f"{native.lower()}@bookTicker", data | changes)


def stream(name, data):
    return json.dumps({"stream": name, "data": data}, separators=(",", ":"))


def test_a_trade():
    expected = ("BTC_USDT", 7, "sell", 61837.63, 0.02, (START + 7) * 1_000, 5, "live")
    assert parse(trade(7), 5, SYMBOLS) == expected
    assert parse(trade(7, m=False), 5, SYMBOLS).side == "buy"
    aggregate = stream("btcusdt@aggTrade", {
        "e": "aggTrade", "E": START, "s": "BTCUSDT", "a": 26129, "p": "0.1", "q": "4.7",
        "f": 27781, "l": 27785, "T": START, "m": True, "nq": "4.7"})  # fmt: skip
    assert parse(aggregate, 5, SYMBOLS).id == 26129


def test_a_change_and_a_quote():
    found = parse(depth(5, 9), 3, SYMBOLS)
    assert found == Diff(
        "BTC_USDT", 4, 5, 9, [(100.0, 9.0)], [(101.0, 0.0)], (START + 9) * 1_000, 3
    )
    assert parse(depth(5, 9, pu=2, T=START), 3, SYMBOLS)[1] == 2
    assert parse(depth(5, 9, pu=2, T=START), 3, SYMBOLS).time == START * 1_000
    assert parse(ticker(8), 3, SYMBOLS) == ("BTC_USDT", 100.0, 1.0, 101.0, 2.0, 8, 3, 3)
    timed = parse(ticker(8, e="bookTicker", T=START, E=START), 3, SYMBOLS)
    assert (timed.time, timed.received) == (START * 1_000, 3)


def test_answers_are_silent_unless_they_are_errors():
    assert parse('{"result":null,"id":1}', 0, SYMBOLS) is None
    assert parse('{"result":["btcusdt@trade"],"id":0}', 0, SYMBOLS) is None
    refused = parse('{"error":{"code":2,"msg":"Invalid request"},"id":1}', 9, SYMBOLS)
    assert (refused.kind, refused.time) == ("venue_error", 9)
    assert "Invalid request" in refused.detail
    assert parse('{"code":3,"msg":"Invalid JSON"}', 9, SYMBOLS).kind == "venue_error"


BAD = [
    "", "null", "[]", "7", '"text"', "{", "{}", '{"data":null}', '{"data":[]}', '{"data":{}}',
    '{"data":"x"}', '{"result":null}', "[" * 100_000, '{"a":' * 100_000, trade(7)[:-9],
    trade(7, p="NaN"), trade(7, p="inf"), trade(7, p="-1"), trade(7, p="0"), trade(7, p=None),
    trade(7, p=5.0), trade(7, p=True), trade(7, p="x" * 1_000_000), trade(7, p=["1"]),
    trade(7, q="0"), trade(7, q="-0.5"), trade(7, q="1e999"), trade(7, q={}),
    trade("7"), trade(7.0), trade(True), trade(-1), trade(None), trade(10**30),
    trade(7, T="now"), trade(7, T=0), trade(7, T=10**15), trade(7, T=1.5), trade(7, m="true"),
    trade(7, m=1), trade(7, m=None), trade(7, s="DOGEUSDT"), trade(7, s=None), trade(7, s=[]),
    trade(7, e="outcry"), trade(7, e=["trade"]), trade(7, p="0", q="0", X="NA"),
    depth(9, 5), depth("5", 9), depth(5, None), depth(5, 9, b=None), depth(5, 9, b=[["1"]]),
    depth(5, 9, b=[["1", "NaN"]]), depth(5, 9, b=[["0", "1"]]), depth(5, 9, a=[["1", "-1"]]),
    depth(5, 9, a=[[1, 2]]), depth(5, 9, a="ab"), depth(5, 9, a=["ab"]), depth(5, 9, E="x"),
    depth(5, 9, pu=9), depth(5, 9, pu=None), depth(5, 9, s="X"), ticker("8"), ticker(8, b="nan"),
    ticker(8, A=None), ticker(8, s=4), ticker(8, T="soon"), b"\x00\x01",
]  # fmt: skip


@pytest.mark.parametrize("number", range(len(BAD)))
def test_what_is_not_as_documented_is_set_aside(number):
    found = parse(BAD[number], 11, SYMBOLS)
    assert type(found) is Event
    assert (found.kind, found.time, found.amount) == ("quarantine", 11, 1)
    cause, _, beginning = found.detail.partition(": ")
    assert cause
    assert len(found.detail) < 500
    if isinstance(BAD[number], str):
        assert BAD[number][:100] in found.detail
    assert beginning or not BAD[number]


def test_a_damaged_frame_keeps_its_symbol():
    assert parse(trade(7, p="NaN"), 0, SYMBOLS).symbol == "BTC_USDT"
    assert parse(trade(7)[:-9], 0, SYMBOLS).symbol == "BTC_USDT"
    assert parse("garbage", 0, SYMBOLS).symbol is None


def test_a_thousand_mutations_never_raise():
    rng = random.Random(5)
    frames = [trade(7), depth(5, 9), ticker(8), depth(5, 9, pu=3)]
    kinds = set()
    for _ in range(1_000):
        data = bytearray(rng.choice(frames).encode())
        for _ in range(rng.randint(1, 4)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        text = bytes(data[: rng.choice([len(data), rng.randrange(len(data))])])
        found = parse(text.decode("utf-8", "replace"), 0, SYMBOLS)
        kinds.add(type(found))
        if type(found) is Trade:
            assert found.price > 0
            assert found.volume > 0
    assert Event in kinds


@pytest.mark.parametrize(
    "answer",
    [
        None, [], {}, "text", {"lastUpdateId": 5, "bids": [["1", "1"]]},
        {"lastUpdateId": "5", "bids": [], "asks": []},
        {"lastUpdateId": 5, "bids": [["1", "0"]], "asks": []},
        {"lastUpdateId": 5, "bids": {"1": "1"}, "asks": []},
        {"lastUpdateId": 5, "bids": [["NaN", "1"]], "asks": []},
        {"code": -1003, "msg": "Too many requests"},
    ],
)  # fmt: skip
def test_a_malformed_snapshot_is_refused(answer):
    with pytest.raises((ValueError, TypeError, LookupError, AttributeError)):
        snapshot(answer, "BTC_USDT", 0)


# A venue of a few lines.


class Venue:
    """A book of one level whose changes the test sends, and answers that it may spoil."""

    def __init__(self, api="/api/v3"):
        self.api = api
        self.update_id = 100
        self.sockets, self.asked, self.spoiled, self.delay_ids = [], [], [], []
        self.statuses = {"BTCUSDT": "TRADING", "ETHUSDT": "TRADING"}

    def answer(self, request):
        """Answer a request."""
        question = request.path.removeprefix(self.api).strip("/")
        self.asked.append((question, {k: v[0].decode() for k, v in request.arguments.items()}))
        if self.spoiled and question == "depth":
            return self.spoiled.pop(0)
        return 200, {}, json.dumps(getattr(self, question)())

    def depth(self):
        """Answer with the book, or an old one."""
        update_id = self.delay_ids.pop(0) if self.delay_ids else self.update_id
        return {"lastUpdateId": update_id, "bids": [["99.0", "1"]], "asks": [["102.0", "1"]]}

    def exchangeInfo(self):  # noqa: N802 - the venue's word
        """List what is traded."""
        rule = {"filterType": "PRICE_FILTER", "tickSize": "0.01000000"}
        quarterly = {"symbol": "X_2612", "baseAsset": "X", "quoteAsset": "Y", "status": "TRADING",
                     "filters": [], "contractType": "CURRENT_QUARTER"}  # fmt: skip
        return {"symbols": [
            {"symbol": native, "status": status, "baseAsset": native[:3], "quoteAsset": native[3:],
             "filters": [rule], "contractType": "PERPETUAL"}
            for native, status in self.statuses.items()
        ] + [quarterly] * (self.api != "/api/v3")}  # fmt: skip

    def time(self):
        """Tell the time."""
        return {"serverTime": START}

    def historicalTrades(self):  # noqa: N802 - the venue's word
        """List up to a thousand trades from an id on."""
        first = int(self.asked[-1][1]["fromId"])
        return [
            {"id": n, "price": "1.5", "qty": "2", "time": START + n, "isBuyerMaker": n % 2 == 0}
            for n in range(first, min(first + 1_000, 3_000))
        ]

    def aggTrades(self):  # noqa: N802 - the venue's word
        """List up to a thousand trades from an id on."""
        rows = self.historicalTrades()
        names = {"id": "a", "price": "p", "qty": "q", "time": "T", "isBuyerMaker": "m"}
        return [{names[name]: value for name, value in row.items()} for row in rows]

    def next(self, count=1, **changes):
        """Return the next change."""
        first, self.update_id = self.update_id + 1, self.update_id + count
        return depth(first, self.update_id, **changes)


@pytest.fixture
def hurried(monkeypatch):
    """Make the feed impatient, so that tests are short."""
    monkeypatch.setattr(_snapshot_run, "RETRY", (0.01, 0.02))
    monkeypatch.setitem(_rest.PAUSES, 403, (0.01, 0.01))
    monkeypatch.setattr(_snapshot_run, "FIRST_CHANGE", 5.0)
    monkeypatch.setattr("fxlab.collect.venues._websocket.FIRST_WAIT", 0.01)


def record(venue, script, until, *, kind=Binance, instruments=(BTC,), **wanted):
    """Return the messages of a feed on a venue until `until` says so of them."""

    async def story():
        log = venue.sockets
        paths = [kind.TRADE_PATH, kind.BOOK_PATH]
        routes = [socket_route(path, script, log) for path in dict.fromkeys(paths)]
        async with serving(*routes, page_route(f"{venue.api}/.*", venue.answer)) as host:
            address = Address(f"http://{host}", f"ws://{host}")
            async with kind(address=address, clock=Clock()) as feed:
                feed._rest._patience = 0.001
                found = []
                messages = feed.messages(Subscription(instruments, **wanted))
                async with contextlib.aclosing(messages), asyncio.timeout(60):
                    async for batch in messages:
                        found += batch
                        if until(found):
                            break
                return found

    return asyncio.run(story())


def books(found, symbol="BTC_USDT"):
    return [m for m in found if type(m) in {BookSnapshot, BookDelta} and m.symbol == symbol]


def gaps(found):
    return [m for m in found if type(m) is Gap]


def events(found, kind):
    return [m for m in found if type(m) is Event and m.kind == kind]


def check_books_follow(found):
    """Every delta follows what came before it, and no book is told inside a gap."""
    known, open_gap = {}, set()
    for one in found:
        if type(one) is Gap:
            (open_gap.add if one.to_time is None else open_gap.discard)(one.symbol)
        elif type(one) is BookSnapshot:
            assert one.symbol not in open_gap
            known[one.symbol] = one.update_id
        elif type(one) is BookDelta:
            assert one.symbol not in open_gap
            assert one.first_update_id <= known[one.symbol] + 1 <= one.update_id
            known[one.symbol] = one.update_id


async def send(socket, *frames):
    for frame in frames:
        await socket.write_message(frame)


def test_trades_and_book_from_the_beginning(hurried):
    venue = Venue()

    async def script(socket, _number):
        await send(socket, venue.next(), trade(1), "garbage", trade(2))
        while not venue.asked:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await send(socket, venue.next(2), venue.next(), '{"result":null,"id":1}')

    found = record(venue, script, lambda f: len(books(f)) >= 3, book_depth=10)
    check_books_follow(found)
    assert books(found)[0].bids == [(99.0, 1.0)]
    assert [m.update_id for m in books(found)][-2:] == [103, 104]
    assert [m.id for m in found if type(m) is Trade] == [1, 2]
    assert gaps(found) == []
    assert [e.detail.rpartition(": ")[2] for e in events(found, "quarantine")] == ["garbage"]
    assert venue.asked[0] == ("depth", {"symbol": "BTCUSDT", "limit": "1000"})


def test_what_is_subscribed_to(hurried):
    venue, heard = Venue(), []

    async def script(socket, _number):
        heard.append(socket.request.arguments["streams"][0].decode())
        while not socket.heard:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        heard.extend(json.loads(socket.heard[0])["params"])
        await send(socket, ticker(5), ticker(5), ticker(4), ticker(6, "ETHUSDT"))

    found = record(
        venue,
        script,
        lambda f: len(f) >= 2,
        instruments=(BTC, ETH),
        book_depth=1,
    )
    assert heard == ["btcusdt@trade", "btcusdt@bookTicker", "ethusdt@trade", "ethusdt@bookTicker"]
    assert [(m.symbol, m.update_id) for m in found] == [("BTC_USDT", 5), ("ETH_USDT", 6)]


def test_a_hole_resyncs_one_symbol_only(hurried):
    venue = Venue()

    async def script(socket, _number):
        await send(socket, venue.next(), depth(7, 7, "ETHUSDT"))
        while len(venue.asked) < 2:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await send(socket, venue.next(), depth(101, 110, "ETHUSDT"))
        venue.next(3)
        await send(socket, venue.next(), depth(111, 120, "ETHUSDT"))
        while len(venue.asked) < 3:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await send(socket, venue.next(), depth(121, 130, "ETHUSDT"))

    def until(found):
        return len(books(found, "ETH_USDT")) >= 4 and len(gaps(found)) >= 2 and (
            books(found)[-1].update_id >= 107
        )  # fmt: skip

    found = record(venue, script, until, instruments=(BTC, ETH), trades=False, book_depth=5)
    check_books_follow(found)
    opened, closed = gaps(found)
    assert opened.symbol == "BTC_USDT"
    assert (opened.missing, opened.to_time) == (3, None)
    assert opened.from_time == (START + 102) * 1_000
    assert closed == opened._replace(to_time=closed.to_time)
    assert closed.to_time >= (START + 106) * 1_000
    assert [e.symbol for e in events(found, "resync")] == ["BTC_USDT"]


def test_stale_malformed_and_refused_snapshots_are_asked_for_again(hurried):
    venue = Venue()
    venue.spoiled = [
        (200, {}, "<html>"),
        (403, {}, "no"),
        (200, {}, '{"lastUpdateId":"x","bids":[],"asks":[]}'),
        *[(503, {}, "busy")] * 2,
    ]
    venue.delay_ids = [50, 60]

    async def script(socket, _number):
        await send(socket, venue.next(), trade(1))
        while len(venue.asked) < 8:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await send(socket, venue.next())

    found = record(venue, script, lambda f: len(books(f)) >= 2, book_depth=10)
    check_books_follow(found)
    causes = [event.detail for event in events(found, "venue_error")]
    assert len(causes) == 3
    for cause, words in zip(causes, ("not JSON", "HTTP 403", "malformed"), strict=True):
        assert words in cause
    assert books(found)[0].update_id == 101
    assert gaps(found) == []


def test_a_cut_is_told_and_mended(hurried):
    venue = Venue()

    async def script(socket, number):
        await send(socket, venue.next(), trade(number))
        while len(venue.asked) < number:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await send(socket, venue.next())
        if number == 1:
            await asyncio.sleep(0.1)
            venue.next(5)
            socket.cut()

    def until(found):
        return len(gaps(found)) == 2 and books(found)[-1].update_id >= 109

    found = record(venue, script, until, book_depth=10)
    check_books_follow(found)
    opened, closed = gaps(found)
    assert opened.cause == "cut by the venue: code 1006"
    assert (opened.from_time, opened.missing) == ((START + 102) * 1_000, None)
    assert closed.to_time == (START + 108) * 1_000
    (reconnect,) = events(found, "reconnect")
    assert reconnect.detail == "cut by the venue: code 1006"
    kinds = [type(m).__name__ if type(m) is not Event else m.kind for m in found]
    order = [k for k in kinds if k in {"Gap", "reconnect", "resync"}]
    assert order == ["Gap", "reconnect", "Gap", "resync"]
    assert [m.id for m in found if type(m) is Trade] == [1, 2]


def test_a_silent_socket_is_left(hurried, monkeypatch):
    monkeypatch.setattr(_binance, "SILENCE", 1.0)
    venue = Venue()

    async def script(socket, number):
        await send(socket, ticker(number), trade(number))

    found = record(venue, script, lambda f: len(gaps(f)) >= 2, book_depth=1)
    opened, closed = gaps(found)
    assert opened.cause == "silent for 1 s"
    assert closed.to_time > opened.from_time
    assert events(found, "reconnect")[0].detail == "silent for 1 s"


def test_a_symbol_that_is_no_longer_traded(hurried, monkeypatch):
    monkeypatch.setattr(_snapshot_run, "STATUS_EVERY", 0.02)
    venue = Venue()

    async def script(socket, _number):
        await send(socket, trade(1))
        venue.statuses["BTCUSDT"] = "BREAK"
        while venue.statuses["BTCUSDT"] == "BREAK":
            await asyncio.sleep(0.02)
            await send(socket, trade(2, "ETHUSDT"))

    def until(found):
        return any(type(m) is Trade and m.symbol == "ETH_USDT" for m in after(found, "delisted"))

    def after(found, kind):
        places = [n for n, m in enumerate(found) if type(m) is Event and m.kind == kind]
        return found[places[0] :] if places else []

    found = record(venue, script, until, instruments=(BTC, ETH))
    (event,) = events(found, "delisted")
    assert (event.symbol, event.detail) == ("BTC_USDT", "status: break")


def test_a_venue_that_cannot_be_reached_says_so_once(hurried):
    venue = Venue()

    async def story():
        async with serving(page_route("/stream", lambda _: (403, {}, "blocked"))) as host:
            address = Address(f"http://{host}", f"ws://{host}")
            messages = Binance(address=address).messages(Subscription((BTC,)))
            async with contextlib.aclosing(messages):
                first = await anext(messages)
                with pytest.raises(TimeoutError):
                    await asyncio.wait_for(anext(messages), 0.2)
                return first

    (event,) = asyncio.run(story())
    assert event.kind == "venue_error"
    assert "refused with HTTP 403" in event.detail
    assert venue.asked == []


def test_futures_take_books_and_trades_from_two_connections(hurried):
    venue = Venue("/fapi/v1")

    async def script(socket, _number):
        if socket.request.path == "/market/stream":
            names = {"e": "aggTrade", "a": 7, "f": 1, "l": 3}
            await send(socket, trade(0, **names))
            return
        assert socket.request.path == "/public/stream"
        await send(socket, depth(90, 101, pu=80), depth(140, 150, pu=101))
        while not venue.asked:  # noqa: ASYNC110
            await asyncio.sleep(0.005)
        await send(socket, depth(170, 180, pu=150))
        await send(socket, depth(300, 310, pu=290))

    found = record(
        venue,
        script,
        lambda f: gaps(f) and any(type(m) is Trade for m in f),
        kind=BinanceFutures,
        book_depth=10,
    )
    assert [m.update_id for m in books(found)] == [100, 101, 150, 180]
    assert gaps(found)[0].missing == 110
    assert [m.id for m in found if type(m) is Trade] == [7]
    assert venue.asked[0] == ("depth", {"symbol": "BTCUSDT", "limit": "1000"})


def asking(venue, question, kind=Binance):
    """Return what a feed answers."""

    async def story():
        async with (
            serving(page_route(f"{venue.api}/.*", venue.answer)) as host,
            kind(address=Address(f"http://{host}", "ws://unused")) as feed,
        ):
            feed._rest._patience = 0.001
            return await question(feed)

    return asyncio.run(story())


@pytest.mark.parametrize(("kind", "api"), [(Binance, "/api/v3"), (BinanceFutures, "/fapi/v1")])
def test_instruments_time_and_past_trades(kind, api):
    venue = Venue(api)
    venue.statuses["ETHUSDT"] = "BREAK"
    known = asking(venue, lambda feed: feed.instruments(), kind)
    assert known["BTC_USDT"].terms["tick_size"] == 0.01
    assert {name: replace(one, terms={}) for name, one in known.items()} == {
        "BTC_USDT": Instrument("BTC_USDT", "BTCUSDT", 2),
        "ETH_USDT": Instrument("ETH_USDT", "ETHUSDT", 2, "break"),
    }
    assert asking(venue, lambda feed: feed.server_time(), kind) == START * 1_000
    found = asking(venue, lambda feed: feed.trades(BTC, 10, 2_005), kind)
    assert [t.id for t in found] == list(range(10, 2_006))
    assert {t.origin for t in found} == {"backfill"}
    assert found[0][2:6] == ("sell", 1.5, 2.0, (START + 10) * 1_000)
    beyond = asking(venue, lambda feed: feed.trades(BTC, 2_990, 5_000), kind)
    assert [t.id for t in beyond] == list(range(2_990, 3_000))
    assert asking(venue, lambda feed: feed.trades(BTC, 7_000, 7_001), kind) == []


def test_answers_that_are_not_as_documented():
    venue = Venue()
    for spoiled in (None, {}, {"symbols": {}}, {"symbols": []}, {"symbols": [{"symbol": "X"}]}):
        venue.exchangeInfo = lambda spoiled=spoiled: spoiled
        with pytest.raises(VenueUnavailable, match="exchangeInfo"):
            asking(venue, lambda feed: feed.instruments())
    venue.historicalTrades = lambda: {"id": 5}
    with pytest.raises(VenueUnavailable, match="historicalTrades"):
        asking(venue, lambda feed: feed.trades(BTC, 1, 9))
    venue.time = lambda: {"serverTime": "late"}
    with pytest.raises(VenueUnavailable, match="time"):
        asking(venue, lambda feed: feed.server_time())
    venue.answer = lambda _request: (400, {}, '{"code":-1121,"msg":"Invalid symbol."}')
    with pytest.raises(VenueRefused, match="Invalid symbol"):
        asking(venue, lambda feed: feed.trades(BTC, 1, 9))


ODD = (
    {"symbol": "XAUUSDT", "baseAsset": "XAU", "quoteAsset": "USDT"},
    {"symbol": "ETHUSDT_X", "baseAsset": "ETH", "quoteAsset": "USDT"},  # the name of a good one
    {"symbol": 7},
    None,
)


@pytest.mark.parametrize(("kind", "api"), [(Binance, "/api/v3"), (BinanceFutures, "/fapi/v1")])
def test_an_odd_listing_costs_no_other_and_says_why_it_cannot_be_recorded(kind, api):
    venue = Venue(api)
    good = asking(venue, lambda feed: feed.instruments(), kind)
    plain = venue.exchangeInfo
    venue.exchangeInfo = lambda: {"symbols": [*ODD[:2], *plain()["symbols"], *ODD[2:]]}
    found = asking(venue, lambda feed: feed.instruments(), kind)
    odd = found.pop("XAU_USDT")
    assert found == good
    assert odd.status.startswith("its listing is not as documented: missing or unknown ")
    plan = SimpleNamespace(symbols=["XAU_USDT"], trades=True, book_depth=0, channels=())
    with pytest.raises(VenueError, match=r"XAU_USDT is not traded .* missing or unknown"):
        asking(venue, lambda feed: resolve_instruments(feed, plan), kind)


SPOILED = ({"price": "0", "qty": "0"}, {"price": "NaN"}, {"qty": 2}, {"time": None}, {"id": "x"})


@pytest.mark.parametrize("change", SPOILED, ids=str)
@pytest.mark.parametrize(("kind", "api"), [(Binance, "/api/v3"), (BinanceFutures, "/fapi/v1")])
def test_a_bad_entry_of_a_page_costs_no_other(kind, api, change):
    venue = Venue(api)
    plain = venue.historicalTrades

    def spoiled():
        return [row | (change if row["id"] in (7, 1_500) else {}) for row in plain()]

    venue.historicalTrades = spoiled
    found = asking(venue, lambda feed: feed.trades(BTC, 5, 1_999), kind)
    trades = [one for one in found if isinstance(one, Trade)]
    assert [one.id for one in trades] == [n for n in range(5, 2_000) if n not in (7, 1_500)]
    told = found[len(trades) :]
    assert {(one.kind, one.symbol, one.amount) for one in told} == {("quarantine", "BTC_USDT", 1)}
    assert len(told) == 2
    assert all(one.detail.startswith(kind.HISTORY) and one.time > 0 for one in told)


def test_a_page_of_bad_entries_only_is_told_and_passed():
    venue = Venue()
    plain = venue.historicalTrades
    venue.historicalTrades = lambda: [
        row | ({"price": "0.0"} if row["id"] <= 1_000 else {}) for row in plain()
    ]
    found = asking(venue, lambda feed: feed.trades(BTC, 1, 1_200))
    assert [one.id for one in found if isinstance(one, Trade)] == [*range(1_001, 1_201)]
    assert len([one for one in found if isinstance(one, Event)]) == 1_000
    assert [one[1]["fromId"] for one in venue.asked] == ["1", "1001"]
    # Bad entries outside of what is asked for are none of the answer.
    assert all(
        isinstance(one, Trade) for one in asking(venue, lambda f: f.trades(BTC, 1_001, 1_005))
    )


def test_entries_that_come_twice_are_one_and_contradictions_are_kept():
    venue = Venue()
    plain = venue.historicalTrades
    venue.historicalTrades = lambda: [
        one
        for row in plain()
        for one in ([row, row | {"price": "9"}, row, row | {"price": "0"}] * 2)
    ]
    found = asking(venue, lambda feed: feed.trades(BTC, 2_998, 2_999))
    assert [getattr(one, "id", None) for one in found] == [2_998, 2_998, 2_999, 2_999, None, None]
    assert {one.price for one in found[:2]} == {1.5, 9.0}


def test_the_newest_trade_is_the_newest_good_one():
    venue = Venue()
    rows = [
        {"id": n, "price": "1", "qty": "2", "time": START, "isBuyerMaker": True} for n in (1, 2)
    ]
    venue.trades = lambda: [rows[0], rows[1] | {"qty": "0"}]
    found = asking(venue, lambda feed: feed.latest(BTC, "prices"))
    assert (found.id, found.origin) == (1, "backfill")
    venue.trades = lambda: [rows[1] | {"qty": "0"}]
    with pytest.raises(VenueUnavailable, match="trades not as documented"):
        asking(venue, lambda feed: feed.latest(BTC, "prices"))
    venue.trades = list
    assert asking(venue, lambda feed: feed.latest(BTC, "prices")) is None


def test_connections_stay_within_the_venues_limits():
    many = tuple(Instrument(f"A{n}_B", f"A{n}B") for n in range(900))
    lines = _binance.plan(Binance(), Subscription(many, book_depth=10))
    assert [len(line.streams) for line in lines] == [1_024, 776]
    assert sum(len(line.books) for line in lines) == 900
    asked = [json.loads(text) for text in _binance.subscriptions(lines[0].streams[1:])]
    assert len(asked) <= 5
    assert [name for one in asked for name in one["params"]] == lines[0].streams[1:]


def test_venues_by_name():
    for name in ("binance", "binance_futures"):
        assert open_feed(name, clock=Clock()).venue == name
    feed = open_feed("binance_futures", url="http://127.0.0.1:1", clock=Clock())
    assert feed.address == Address(
        "http://127.0.0.1:1/binance_futures", "ws://127.0.0.1:1/binance_futures"
    )
    assert set(VENUES) == {
        "binance", "binance_futures", "bybit", "bybit_linear", "kraken", "mexc", "okx", "okx_swap",
    }  # fmt: skip
    with pytest.raises(VenueNotFound, match="did you mean 'binance'"):
        open_feed("binence")
