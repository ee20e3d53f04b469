"""Kraken's feed: what frames mean, how books prove themselves, and what REST is asked."""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
import re
import zlib
from dataclasses import replace
from functools import partial

import feed_tap
import pytest
from feed_tap import Heard, check_pairs, mutations, places, rebuilt, standing, told, tops

from fxlab.collect.feed import (
    Address,
    BookDelta,
    BookSnapshot,
    Event,
    Gap,
    Instrument,
    Quote,
    Subscription,
    Trade,
)
from fxlab.collect.venues._book_sync import BestPrices
from fxlab.collect.venues._kraken import ChecksummedBook, Kraken
from fxlab.collect.venues._kraken_messages import (
    BookFrame,
    CheckedBook,
    PrintedLevel,
    TradesFrame,
    digits,
    parse,
)
from fxlab.errors import VenueRefused, VenueUnavailable
from fxlab.mock import Faults, MockVenue
from fxlab.mock._protocols.kraken import KrakenProtocol as MockKraken

START = 1_700_000_000_000_000
BTC = Instrument("BTC_USD", "BTC/USD", 1, detail={"rest": "XXBTZUSD", "quantity_decimals": 8})
KNOWN = {"BTC/USD": BTC}
NOW = 1_700_000_000_000_000

# The example of the venue's own guide to the checksum, with the checksum it gives there.
GUIDE_BIDS = (
    "45283.5 0.10000000 45283.4 1.54582015 45282.1 0.10000000 45281.0 0.10000000 "
    "45280.3 1.54592586 45279.0 0.07990000 45277.6 0.03310103 45277.5 0.30000000 "
    "45277.3 1.54602737 45276.6 0.15445238"
)
GUIDE_ASKS = (
    "45285.2 0.00100000 45286.4 1.54571953 45286.6 1.54571109 45289.6 1.54560911 "
    "45290.2 0.15890660 45291.8 1.54553491 45294.7 0.04454749 45296.1 0.35380000 "
    "45297.5 0.09945542 45299.5 0.18772827"
)
GUIDE_CHECKSUM = 3310070434


def pairs(text: str) -> list[tuple[str, str]]:
    words = text.split()
    return list(zip(words[::2], words[1::2], strict=True))


def side(levels: list[tuple[str, str]]) -> str:
    return ",".join(f'{{"price":{price},"qty":{qty}}}' for price, qty in levels)


def book(kind, bids, asks, checksum, *, symbol="BTC/USD", stamp="2023-10-06T17:35:55.440295Z"):
    when = f',"timestamp":"{stamp}"' if stamp else ""
    return (
        f'{{"channel":"book","type":"{kind}","data":[{{"symbol":"{symbol}","bids":[{side(bids)}],'
        f'"asks":[{side(asks)}],"checksum":{checksum}{when}}}]}}'
    )


def trade(**changes) -> dict:
    return {
        "symbol": "BTC/USD",
        "side": "sell",
        "price": 45283.5,
        "qty": 0.5,
        "ord_type": "market",
        "trade_id": 4665906,
        "timestamp": "2023-09-25T07:49:37.708706Z",
    } | changes


def trades(*entries: dict, kind: str = "update") -> str:
    return json.dumps({"channel": "trade", "type": kind, "data": list(entries)})


def instruments(*states: tuple[str, str]) -> str:
    entries = [{"symbol": symbol, "status": status} for symbol, status in states]
    data = {"assets": [], "pairs": entries}
    return json.dumps({"channel": "instrument", "type": "update", "data": data})


GUIDE = book("snapshot", pairs(GUIDE_BIDS), pairs(GUIDE_ASKS), GUIDE_CHECKSUM, stamp=None)


class Twin:
    """A book as the guide tells it, with dictionaries and texts: slow, and plainly right."""

    def __init__(self, depth=10):
        self.depth = depth
        self.sides = ({}, {})

    def apply(self, bids, asks):  # noqa: D102
        for side, levels in zip(self.sides, (bids, asks), strict=True):
            for price, qty in levels:
                if float(qty) == 0:
                    side.pop(price, None)
                else:
                    side[price] = qty
        for side, worst in zip(self.sides, (min, max), strict=True):
            while len(side) > self.depth:
                del side[worst(side, key=float)]

    @property
    def checksum(self):  # noqa: D102
        asks = sorted(self.sides[1].items(), key=lambda level: float(level[0]))[:10]
        bids = sorted(self.sides[0].items(), key=lambda level: -float(level[0]))[:10]
        words = [word.replace(".", "").lstrip("0") for level in asks + bids for word in level]
        return zlib.crc32("".join(words).encode())


# Frames


def test_a_trade_is_read():
    assert parse(trades(trade()), NOW, KNOWN) == [
        Trade("BTC_USD", 4665906, "sell", 45283.5, 0.5, 1695628177708706, NOW)
    ]


def test_whole_numbers_are_numbers_too():
    (found,) = parse(trades(trade(price=45283, qty=2)), NOW, KNOWN)
    assert (found.price, found.volume) == (45283.0, 2.0)


def test_trades_sent_first_are_backfill():
    (found,) = parse(trades(trade(), kind="snapshot"), NOW, KNOWN)
    assert isinstance(found, TradesFrame)
    assert [one.origin for one in found.trades] == ["backfill"]


@pytest.mark.parametrize(
    "text",
    [
        '{"channel":"heartbeat"}',
        '{"channel":"status","type":"update","data":[{"system":"online"}]}',
        '{"method":"subscribe","result":{"channel":"trade","symbol":"BTC/USD"},"success":true}',
        '{"method":"pong","time_in":"2023-10-06T17:35:55.440295Z"}',
        instruments(("BTC/USD", "limit_only"), ("X/Y", "delisted")),
    ],
)
def test_control_frames_are_silent(text):
    assert parse(text, NOW, KNOWN) == []


@pytest.mark.parametrize(
    ("text", "kind", "symbol", "detail"),
    [
        (
            '{"error":"Currency pair not supported","success":false,"symbol":"BTC/USD"}',
            "venue_error",
            "BTC_USD",
            "Currency pair not supported",
        ),
        (
            '{"channel":"status","type":"update","data":[{"system":"maintenance"}]}',
            "venue_error",
            None,
            "the venue says of itself: maintenance",
        ),
        (
            instruments(("BTC/USD", "delisted")),
            "delisted",
            "BTC_USD",
            "status delisted",
        ),
    ],
)
def test_bad_news_is_told(text, kind, symbol, detail):
    (event,) = parse(text, NOW, KNOWN)
    assert event == Event(kind, symbol, NOW, 1, event.detail)
    assert detail in event.detail


BAD_TRADES = [
    trade(price="45283.5"),
    trade(price=0.0),
    trade(price=-1.5),
    trade(price=None),
    trade(price=True),
    trade(price=10**400),
    trade(qty=0.0),
    trade(qty=[1.0]),
    trade(qty=1e999),
    trade(trade_id="4665906"),
    trade(trade_id=True),
    trade(trade_id=1.5),
    trade(side="hold"),
    trade(side=["buy"]),
    trade(timestamp=1695628177),
    trade(timestamp="yesterday"),
    trade(symbol="ETH/USD"),
    trade(symbol={}),
    {},
    None,
    "text",
]


@pytest.mark.parametrize("entry", BAD_TRADES)
def test_a_bad_trade_is_set_aside_and_its_neighbours_stay(entry):
    text = json.dumps(
        {
            "channel": "trade",
            "type": "update",
            "data": [trade(trade_id=1), entry, trade(trade_id=2)],
        }
    ).replace("Infinity", "1e999")
    found = parse(text, NOW, KNOWN)
    assert [one.id for one in found if isinstance(one, Trade)] == [1, 2]
    (event,) = [one for one in found if not isinstance(one, Trade)]
    assert event.kind == "quarantine"
    assert event.amount == 1
    assert ": " in event.detail


GOOD_UPDATE = book("update", [("45283.5", "0.20000000")], [], 1)


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "null",
        "[]",
        "17",
        '"text"',
        trades(trade())[:60],
        trades(trade()).replace("45283.5", "NaN"),
        '{"channel":"trade","type":"update","data":"abc"}',
        '{"channel":"trade"}',
        '{"channel":"candles","data":[]}',
        '{"channel":{},"data":[]}',
        '{"channel":"trade","data":' + "[" * 100_000,
        '{"channel":"book","type":"update","data":[]}',
        '{"channel":"status","data":{}}',
        '{"channel":"instrument","data":[]}',
        '{"method":"subscribe"}',
        GOOD_UPDATE.replace('"checksum":1', '"checksum":"1"'),
        GOOD_UPDATE.replace('"update"', '"change"'),
        GOOD_UPDATE.replace("0.20000000", "-0.2"),
        GOOD_UPDATE.replace("0.20000000", '"0.2"'),
        GOOD_UPDATE.replace("45283.5", "0"),
        GOOD_UPDATE.replace('"asks":[]', '"asks":null'),
        GOOD_UPDATE.replace("BTC/USD", "LTC/USD"),
        b"\xff\xfe\x00",
        "x" * 1_000_000,
    ],
)
def test_frames_that_are_not_as_documented_are_set_aside(frame):
    (event,) = parse(frame, NOW, KNOWN)
    assert event.kind == "quarantine"
    assert event.time == NOW
    assert len(event.detail) < 500


def test_no_mutation_of_a_good_frame_raises():
    for text in mutations(GUIDE, GOOD_UPDATE, trades(trade(), trade())):
        for found in parse(text, NOW, KNOWN):
            assert isinstance(found, Trade | BookFrame | TradesFrame | Event)


# The checksum


def test_the_checksum_of_the_venues_guide():
    (frame,) = parse(GUIDE, NOW, KNOWN)
    checked = CheckedBook()
    checked.reset(frame.bids, frame.asks)
    assert checked.checksum == frame.checksum == GUIDE_CHECKSUM
    assert [side[0] for side in checked.levels] == [(45283.5, 0.1), (45285.2, 0.001)]


@pytest.mark.parametrize(
    ("number", "decimals", "expected"),
    [
        ("45285.2", 1, "452852"),
        ("0.00100000", 8, "100000"),
        ("0.05000", 5, "5000"),
        ("0.566", 4, "5660"),
        ("18097", 4, "180970000"),
        ("18097", None, "18097"),
        ("5e-06", 8, "500"),
        ("0.0", 4, ""),
    ],
)
def test_digits_of_a_number(number, decimals, expected):
    assert digits(number, decimals) == expected


def walk(rng: random.Random, steps: int):
    """Yield (bids, asks) as the venue prints them, around a price that moves."""
    middle = 45_283
    for _ in range(steps):
        middle += rng.randint(-2, 2)
        change = []
        for sign in (-1, 1):
            prices = [f"{middle + sign * rng.randint(1, 16)}.{rng.randint(0, 1)}" for _ in range(3)]
            change.append([(price, f"{rng.choice((0, 0, 1, 7)) / 16:.8f}") for price in prices])
        yield change


def printed(levels):
    return [PrintedLevel(float(p), float(q), digits(p, 1) + digits(q, 8)) for p, q in levels]


def test_books_equal_a_plain_twin_after_each_update():
    rng = random.Random(11)
    twin, checked, told = Twin(), CheckedBook(), ({}, {})
    for bids, asks in walk(rng, 2_000):
        twin.apply(bids, asks)
        changes = checked.apply(printed(bids), printed(asks))
        assert checked.checksum == twin.checksum
        # Who only follows what is told must hold the same levels, without knowing the depth.
        for levels, change in zip(told, changes, strict=True):
            for price, quantity in change:
                levels[price] = quantity
                if not quantity:
                    del levels[price]
        for ours, theirs, levels in zip(told, twin.sides, checked.levels, strict=True):
            assert ours == {float(price): float(qty) for price, qty in theirs.items()}
            assert dict(levels) == ours


# Books on their way out


def proven():
    book_ = ChecksummedBook("BTC_USD")
    (frame,) = parse(GUIDE, NOW, KNOWN)
    return book_, book_.take(frame)


def update(twin: Twin, bids, asks, *, error=0, stamp="2023-10-06T17:35:55.440295Z") -> BookFrame:
    twin.apply(bids, asks)
    text = book("update", bids, asks, twin.checksum + error, stamp=stamp)
    (frame,) = parse(text, NOW, KNOWN)
    return frame


def guide_twin() -> Twin:
    twin = Twin()
    twin.apply(pairs(GUIDE_BIDS), pairs(GUIDE_ASKS))
    return twin


def test_a_snapshot_and_its_updates_are_numbered():
    book_, (snapshot,) = proven()
    assert isinstance(snapshot, BookSnapshot)
    assert (snapshot.update_id, snapshot.time, len(snapshot.bids)) == (1, NOW, 10)
    twin = guide_twin()
    (delta,) = book_.take(update(twin, [("45283.5", "0.20000000")], [("45285.2", "0.00000000")]))
    assert delta == BookDelta(
        "BTC_USD", 2, 2, [(45283.5, 0.2)], [(45285.2, 0.0)], 1696613755440295, NOW
    )


def test_a_wrong_level_opens_a_gap_that_a_proven_snapshot_closes():
    book_, _ = proven()
    twin = guide_twin()
    (good,) = book_.take(update(twin, [("45283.5", "0.20000000")], []))
    (gap,) = book_.take(update(twin, [("45283.5", "0.30000000")], [], error=1))
    assert gap == Gap("BTC_USD", "orderbook", good.time, None, None, gap.cause)
    assert "checksum" in gap.cause
    assert (book_.synced, book_.broken) == (False, True)
    book_.expect_snapshot()
    assert book_.take(update(twin, [("45283.5", "0.40000000")], [])) == []
    (again,) = parse(GUIDE, good.time + 5_000_000, KNOWN)
    closing, resync, snapshot = book_.take(again)
    assert closing == gap._replace(to_time=good.time + 5_000_000)
    assert (resync.kind, resync.symbol, resync.detail) == ("resync", "BTC_USD", gap.cause)
    assert isinstance(snapshot, BookSnapshot)
    assert snapshot.update_id > good.update_id
    assert book_.synced


def test_a_snapshot_that_does_not_prove_itself_is_asked_for_again():
    book_ = ChecksummedBook("BTC_USD")
    (frame,) = parse(GUIDE.replace("1.54582015", "1.54582016"), NOW, KNOWN)
    (event,) = book_.take(frame)
    assert event.kind == "venue_error"
    assert (book_.synced, book_.broken) == (False, True)


def test_an_update_without_a_snapshot_asks_for_one():
    book_ = ChecksummedBook("BTC_USD")
    assert book_.take(update(Twin(), [("45283.5", "0.20000000")], [])) == []
    assert book_.broken


def test_quotes_come_when_the_best_changes():
    book_, messages = proven()
    best = BestPrices()
    (first,) = best.of(messages)
    assert first == Quote("BTC_USD", 45283.5, 0.1, 45285.2, 0.001, 1, NOW, NOW)
    twin = guide_twin()
    assert best.of(book_.take(update(twin, [("45283.4", "0.20000000")], []))) == []
    (second,) = best.of(book_.take(update(twin, [("45283.5", "0.30000000")], [])))
    assert (second.bid_qty, second.ask, second.update_id) == (0.3, 45285.2, 3)


# The feed against the mock venue


venue = partial(feed_tap.venue, "kraken")


def feed_of(mock: MockVenue) -> Kraken:
    return Kraken(address=Address.under(mock.url, "kraken"))


def hear(mock: MockVenue, enough, **wanted) -> Heard:
    return feed_tap.hear(mock, feed_of, enough, **wanted)


def all_trades(mock: MockVenue):
    return feed_tap.all_trades(mock, "kraken")


def truth_of(mock: MockVenue, symbol: str) -> list[tuple]:
    return feed_tap.truth_of(mock, "kraken", symbol)


def test_everything_that_is_sent_arrives_once():
    mock, market = venue()
    with mock:
        heard = hear(mock, all_trades(mock))
        for symbol in market.listings:
            assert told(heard.trades(symbol)) == truth_of(mock, symbol)
            states = tops(mock, symbol)
            seen = places(rebuilt(heard.books(symbol)), states)
            # Each change of the ten best levels is told, from the snapshot on.
            assert seen == list(range(seen[0], seen[0] + len(seen)))
            ids = [one.update_id for one in heard.books(symbol)]
            assert ids == list(range(1, len(ids) + 1))
    assert heard.gaps() == []
    assert heard.of(Event) == []


def test_best_prices_alone():
    mock, _ = venue(speed=1.0, trades=None)
    with mock:
        heard = hear(mock, lambda said: len(said.quotes("BTC_USDT")) > 40, book_depth=1)
    states = [(*bids[0], *asks[0]) for bids, asks in tops(mock, "BTC_USDT", 1)]
    found = [one[1:5] for one in heard.quotes("BTC_USDT")]
    assert len(found) > 20
    assert not heard.of((BookSnapshot, BookDelta))
    # Quotes are a run of the states of the best level, each one that came once.
    assert states[states.index(found[0]) :][: len(found)] == found


def test_lost_updates_are_found_and_every_state_told_was_true():
    mock, market = venue(faults=Faults(seed=5, drop=0.03), speed=1.0, trades=None)

    def lost(heard: Heard) -> bool:
        return all(len(heard.gaps(one)) > 5 for one in market.listings)

    with mock:
        heard = hear(mock, all_trades(mock), meanwhile=standing(mock, lost))
        dropped = [one for one in mock.ledger()["faults"] if one["stream"].startswith("book")]
    for symbol in market.listings:
        books = heard.books(symbol)
        seen = places(rebuilt(books), tops(mock, symbol))
        assert seen == sorted(seen)
        # A slow answer makes the feed ask again: only what it gets then may repeat a state.
        changes = [at for at, one in zip(seen, books, strict=True) if isinstance(one, BookDelta)]
        assert changes == sorted(set(changes))
        gaps = heard.gaps(symbol)
        assert 1 <= len([one for one in gaps if one.to_time is None]) <= len(dropped)
        check_pairs(gaps)
    assert all(one.missing is None and "checksum" in one.cause for one in heard.gaps())


def test_a_planted_wrong_level_resyncs_that_symbol_only(monkeypatch):
    honest, planted = MockKraken.encode, []

    def encode(self, event):
        for stream, frame in honest(self, event):
            if stream == "book-10:BTC/USDT" and event.time > START + 200_000 and not planted:
                entry = re.search(rb'"qty":(\d+\.\d*[1-9])', frame)
                planted.append(entry[0])
                yield stream, frame.replace(entry[0], b'"qty":77.00001', 1)
            else:
                yield stream, frame

    monkeypatch.setattr(MockKraken, "encode", encode)
    mock, market = venue(speed=1.0, trades=None)
    market.start = START
    with mock:
        heard = hear(mock, lambda said: len(said.books("BTC_USDT")) > 250)
    assert len(planted) == 1
    opened, closed = heard.gaps()
    assert (opened.symbol, opened.to_time) == ("BTC_USDT", None)
    assert closed.to_time is not None
    assert [one.symbol for one in heard.events("resync")] == ["BTC_USDT"]
    assert len(heard.of(BookSnapshot, "BTC_USDT")) == 2
    assert len(heard.of(BookSnapshot, "ETH_USDT")) == 1
    for symbol in market.listings:
        places(rebuilt(heard.books(symbol)), tops(mock, symbol))


def test_a_cut_is_told_and_the_last_trades_come_again():
    mock, market = venue(speed=1.0, trades=None, rate=200, book_rate=100)
    cuts: list[int] = []

    def cut_once(heard: Heard) -> None:
        if not cuts and len(heard.trades()) > 60:
            cuts.append(len(heard))
            mock.cut()

    def enough(heard: Heard) -> bool:
        after = Heard(heard[cuts[0] :]) if cuts else Heard()
        return all(len(after.of(BookDelta, one)) > 5 for one in market.listings) and all(
            len(after.trades(one)) > 60 for one in market.listings
        )

    with mock:
        heard = hear(mock, enough, meanwhile=cut_once)
        for symbol in market.listings:
            ids = [one.id for one in heard.trades(symbol)]
            assert len(set(ids)) == len(ids)
            seen = {one.id: one for one in heard.trades(symbol)}
            for number, time, price, quantity, bought in truth_of(mock, symbol):
                if number in seen:
                    side = "buy" if bought else "sell"
                    assert seen[number][2:6] == (side, price, quantity, time)
            places(rebuilt(heard.books(symbol)), tops(mock, symbol))
            check_pairs(heard.gaps(symbol))
            assert [one.to_time is None for one in heard.gaps(symbol)] == [True, False]
    (event,) = heard.events("reconnect")
    assert event.detail
    again = [one for one in heard.trades() if one.origin == "backfill"]
    assert again
    assert {one.kind for one in heard.of(Event)} == {"reconnect", "resync"}


def test_a_pair_that_is_delisted_is_told_and_the_others_go_on():
    mock, _ = venue(faults=Faults(delist=("ETH_USDT", 0.1)), speed=1.0, trades=None, listeners=4)

    def some_after(heard: Heard) -> bool:
        told = heard.events("delisted")
        return bool(told) and len(Heard(heard[heard.index(told[0]) :]).trades("BTC_USDT")) > 50

    with mock:
        heard = hear(mock, some_after)
    (event,) = heard.events("delisted")
    assert event.symbol == "ETH_USDT"
    at = heard.index(event)
    assert Heard(heard[at:]).trades("BTC_USDT")
    assert not Heard(heard[at:]).trades("ETH_USDT")


def test_an_unknown_pair_is_the_venues_error():
    mock, _ = venue(speed=1.0, rate=50)
    strange = Instrument("XYZ_USD", "XYZ/USD", 2, detail={"rest": "XYZUSD"})

    async def run():
        async with feed_of(mock) as feed:
            wanted = Subscription((strange,), trades=True, book_depth=10)
            async with contextlib.aclosing(feed.messages(wanted)) as batches:
                return await anext(batches)

    with mock:
        (event, *_) = asyncio.run(run())
    assert (event.kind, event.symbol) == ("venue_error", "XYZ_USD")
    assert "not supported" in event.detail


# REST


def test_instruments_keep_the_names_of_the_stream():
    mock, _ = venue()
    with mock:
        found = asyncio.run(_asked(mock, lambda feed: feed.instruments()))
        clock = asyncio.run(_asked(mock, lambda feed: feed.server_time()))
    assert replace(found["BTC_USDT"], terms={}) == Instrument(
        "BTC_USDT", "BTC/USDT", 2, detail={"rest": "XBTUSDT", "quantity_decimals": 5}
    )
    assert clock % 1_000_000 == 500_000


async def _asked(mock: MockVenue, question):
    async with feed_of(mock) as feed:
        return await question(feed)


def test_trades_of_the_past_by_their_ids():
    mock, _ = venue(trades=3_500, book_rate=0)
    with mock:
        hear(mock, all_trades(mock), book_depth=0)
        rows = mock.truth.deals["BTC_USDT"].frame().rows()

        async def ask(first: int, last: int) -> list[Trade]:
            async with feed_of(mock) as feed:
                feed.pause = 0
                instrument = (await feed.instruments())["BTC_USDT"]
                return await feed.trades(instrument, rows[first][0], rows[last][0])

        for first, last in ((0, 3_499), (10, 10), (1_200, 2_600), (3_400, 3_499), (0, 5)):
            found = asyncio.run(ask(first, last))
            assert told(found) == rows[first : last + 1]
            assert {one.origin for one in found} == {"backfill"}


class Answers:
    """Stands in for REST with answers that the mock would not give."""

    host = "api.kraken.com"

    def __init__(self, answer):
        self.answer = answer
        self.slow_down = [].append

    async def get(self, path, **parameters):  # noqa: D102
        del path, parameters
        return self.answer


def feed_with(answer) -> Kraken:
    feed = Kraken()
    feed._rest = Answers(answer)
    return feed


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ({"error": ["EGeneral:Too many requests"]}, VenueRefused, "fewer collectors"),
        ({"error": ["EService:Unavailable"]}, VenueUnavailable, "EService:Unavailable"),
        ([], VenueUnavailable, "no JSON object"),
        ({"error": [], "result": {"XBTUSD": {"wsname": "XBT"}}}, VenueUnavailable, "documented"),
        ({"error": [], "result": None}, VenueUnavailable, "not as documented"),
    ],
)
def test_refusals_and_odd_answers_are_errors_in_words(answer, error, words):
    with pytest.raises(error, match=words):
        asyncio.run(feed_with(answer).instruments())


@pytest.mark.parametrize(
    ("seconds", "micros"),
    [(1688669597.8277369, 1688669597827736), (1688669597, 1688669597000000), (1.000001, 1000001)],
)
def test_times_of_rest_are_those_of_the_stream(seconds, micros):
    row = ["30243.4", "0.3", seconds, "b", "m", "", 7]
    found = asyncio.run(
        feed_with({"error": [], "result": {"XXBTZUSD": [row], "last": "0"}}).trades(BTC, 7, 7)
    )
    assert [one.time for one in found] == [micros]


ROW = ["30243.4", "0.3", 1688669597.5, "b", "m", "", 7]


def _rows(*rows, last="1688669597500000000"):
    return feed_with({"error": [], "result": {"XXBTZUSD": list(rows), "last": last}})


@pytest.mark.parametrize(
    "bad",
    [
        ["0", "0", 1688669597.5, "b", "m", "", 8],
        ["1", "1", 1688669597.5, "x", "m", "", 8],
        ["1", "1", 1688669597.5, "b", "m", "", "8"],
        [],
        None,
    ],
    ids=str,
)
def test_a_bad_entry_of_a_page_costs_no_other(bad):
    feed = _rows(ROW, bad, [*ROW[:-1], 9])
    feed.pause = 0
    *found, event = asyncio.run(feed.trades(BTC, 7, 9))
    assert [one.id for one in found] == [7, 9]
    assert (event.kind, event.symbol) == ("quarantine", BTC.symbol)
    assert event.detail.startswith("Trades: ")


def test_a_page_of_bad_entries_only_is_told():
    feed = _rows([*ROW[:-1], "7"], ["0", *ROW[1:]])
    feed.pause = 0
    found = asyncio.run(feed.trades(BTC, 7, 9))
    assert [one.kind for one in found] == ["quarantine"] * 2
    assert asyncio.run(feed.trades(BTC, 8, 9))[0].detail == found[0].detail


def test_the_newest_trade_is_the_newest_good_one():
    assert asyncio.run(_rows(ROW, ["0", *ROW[1:-1], 8]).latest(BTC, "prices")).id == 7
    with pytest.raises(VenueUnavailable, match="Trades not as documented"):
        asyncio.run(_rows(["0", *ROW[1:]]).latest(BTC, "prices"))


def test_an_odd_listing_costs_no_other_and_says_why_it_cannot_be_recorded():
    good = {"wsname": "XBT/USD", "pair_decimals": 1, "lot_decimals": 8}
    pairs = {
        "XBTUSD": good,
        "ETHUSD": {"wsname": "ETH/USD"},
        "A": {"wsname": "A"},
        "B": {"wsname": 7},
        "C": None,
        "D": {},
    }
    found = asyncio.run(feed_with({"error": [], "result": pairs}).instruments())
    assert {symbol: one.status for symbol, one in found.items()} == {
        "BTC_USD": "trading",
        "ETH_USD": "its listing is not as documented: missing or unknown 'pair_decimals'",
    }
