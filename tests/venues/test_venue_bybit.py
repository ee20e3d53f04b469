"""Bybit's feed: what frames mean, books whose updates rise by one, and what REST answers."""

from __future__ import annotations

import asyncio
import json
from dataclasses import replace
from functools import partial

import feed_tap
import pytest
from feed_tap import Heard, check_pairs, mutations, places, rebuilt, standing, told, tops

from fxlab.collect.feed import (
    Address,
    BookDelta,
    BookSnapshot,
    Clock,
    Event,
    Gap,
    Instrument,
    Subscription,
    Trade,
)
from fxlab.collect.venues import _bybit
from fxlab.collect.venues._book_sync import TradeGapTracker
from fxlab.collect.venues._bybit import (
    DEPTH,
    Bybit,
    BybitLinear,
    BybitRun,
    between,
    parse,
    subscriptions,
)
from fxlab.collect.venues._rest import HistoryPage
from fxlab.collect.venues._snapshot_run import BookUpdate, SequencedBook
from fxlab.errors import VenueRefused, VenueUnavailable
from fxlab.mock import Faults, MockVenue

NOW = 1_700_000_000_000_000
MS = 1_672_304_486_868
BTC = Instrument("BTC_USDT", "BTCUSDT", 2)
KNOWN = {"BTCUSDT": BTC}
UUID = "20f43950-d8dd-5b31-9112-a178eb6023af"


def deal(**changes) -> dict:
    fields = {
        "T": MS, "s": "BTCUSDT", "S": "Buy", "v": "0.001", "p": "16578.50", "L": "PlusTick",
        "i": UUID, "BT": False, "seq": 1783284617,
    }  # fmt: skip
    return {name: value for name, value in (fields | changes).items() if value is not ...}


def pushed(data, topic="publicTrade.BTCUSDT", kind="snapshot", **more) -> str:
    return json.dumps({"topic": topic, "type": kind, "ts": MS, "data": data} | more)


def change(kind="delta", topic="orderbook.50.BTCUSDT", cts=MS - 20, **changes) -> str:
    data = {"s": "BTCUSDT", "b": [["16493.50", "0"]], "a": [["16611.00", "0.029"]], "u": 18521288}
    return pushed(data | changes, topic, kind, cts=cts)


# Frames


def test_a_trade_is_read():
    (found,) = parse(pushed([deal()]), NOW, KNOWN)
    assert found == Trade("BTC_USDT", UUID, "buy", 16578.5, 0.001, MS * 1_000, NOW)


@pytest.mark.parametrize(
    ("told", "identity"),
    [("2290000000067766825", 2290000000067766825), (UUID, UUID), ("9" * 40, "9" * 40)],
)
def test_ids_of_spot_are_numbers_and_those_of_contracts_texts(told, identity):
    (found,) = parse(pushed([deal(i=told, S="Sell")]), NOW, KNOWN)
    assert (found.id, found.side) == (identity, "sell")


def test_a_change_of_a_book_has_the_matching_engines_time():
    (found,) = parse(change(), NOW, KNOWN)
    assert found == BookUpdate(
        "BTC_USDT", "BTCUSDT", False, 18521287, 18521288, [(16493.5, 0.0)], [(16611.0, 0.029)],
        (MS - 20) * 1_000, NOW,
    )  # fmt: skip
    older = json.loads(change())
    del older["cts"]
    (found,) = parse(json.dumps(older), NOW, KNOWN)
    assert found.time == MS * 1_000


def test_update_id_1_is_a_snapshot_whatever_it_calls_itself():
    assert parse(change(u=1), NOW, KNOWN)[0].snapshot
    assert parse(change("snapshot"), NOW, KNOWN)[0].snapshot
    assert not parse(change(), NOW, KNOWN)[0].snapshot


@pytest.mark.parametrize(
    "text",
    [
        '{"success":true,"ret_msg":"pong","conn_id":"0970e817","req_id":"","op":"ping"}',
        '{"success":true,"ret_msg":"subscribe","conn_id":"2324d924","op":"subscribe"}',
        '{"args":["1672916271846"],"op":"pong"}',
    ],
)
def test_control_frames_are_silent(text):
    assert parse(text, NOW, KNOWN) == []


def test_an_error_of_the_venue_is_told():
    said = "error:handler not found,topic:publicTrade.XYZ"
    text = json.dumps({"success": False, "ret_msg": said, "conn_id": "x", "op": "subscribe"})
    assert parse(text, NOW, KNOWN) == [Event("venue_error", None, NOW, 1, said)]


BAD_TRADES = [
    deal(p=16578.5),
    deal(p="0"),
    deal(p="-1"),
    deal(p="nan"),
    deal(p=None),
    deal(v="0"),
    deal(v=...),
    deal(S="buy"),
    deal(S=[1]),
    deal(T=-5),
    deal(T=None),
    deal(s="ETHUSDT"),
    deal(i=""),
    deal(i=17),
    None,
    "text",
    [],
]


@pytest.mark.parametrize("entry", BAD_TRADES)
def test_a_bad_trade_is_set_aside_and_its_neighbours_stay(entry):
    found = parse(pushed([deal(i="1"), entry, deal(i="2")]), NOW, KNOWN)
    assert [one.id for one in found if isinstance(one, Trade)] == [1, 2]
    (event,) = [one for one in found if isinstance(one, Event)]
    assert (event.kind, event.symbol, event.amount) == ("quarantine", "BTC_USDT", 1)


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "null",
        "[]",
        "{}",
        '"text"',
        pushed("abc"),
        pushed(None),
        pushed([], topic="tickers.BTCUSDT"),
        pushed([], topic="publicTrade.XYZUSDT"),
        pushed([], topic=17),
        pushed([deal()])[:-30],
        change("update"),
        change(s="XYZUSDT"),
        change(u="18521288"),
        change(u=True),
        change(u=-1),
        change(b=None),
        change(b=[["16493.50"]]),
        change(b=[[16493.5, 1]]),
        change(b=[["16493.50", "-1"]]),
        change(b=[["0", "1"]]),
        change(a={"16611": "1"}),
        change(cts="now"),
        '{"topic":' + "[" * 100_000,
        b"\xff\xfe",
        "x" * 1_000_000,
    ],
)
def test_frames_that_are_not_as_documented_are_set_aside(frame):
    (event,) = parse(frame, NOW, KNOWN)
    assert event.kind == "quarantine"
    assert len(event.detail) < 500


def test_no_mutation_of_a_good_frame_raises():
    for text in mutations(change(), change("snapshot"), pushed([deal(i="1"), deal()])):
        for found in parse(text, NOW, KNOWN):
            assert isinstance(found, Trade | BookUpdate | Event)


def test_a_request_has_ten_topics_at_most():
    topics = [f"publicTrade.S{number}" for number in range(23)]
    requests = [json.loads(text) for text in subscriptions(topics)]
    assert [len(one["args"]) for one in requests] == [10, 10, 3]
    assert [topic for one in requests for topic in one["args"]] == topics
    assert {one["op"] for one in requests} == {"subscribe"}


def test_topics_that_are_too_long_for_one_connection_get_another(monkeypatch):
    monkeypatch.setattr(_bybit, "MOST_CHARACTERS", 100)
    some = tuple(Instrument(f"S{number}_USDT", f"S{number}USDT") for number in range(5))
    run = BybitRun(Bybit(), Subscription(some, book_depth=10))
    groups = [group for group, _ in run.connections()]
    assert [list(one.symbols.values()) for one in groups] == [
        ["S0USDT", "S1USDT"], ["S2USDT", "S3USDT"], ["S4USDT"],
    ]  # fmt: skip
    assert all(len(json.dumps(one.topics)) <= 100 for one in groups)
    assert run.carries(groups[1], "S2_USDT", "prices")
    assert not run.carries(groups[0], "S2_USDT", "prices")


# Books


def update(number, bids=(), asks=(), *, snapshot=False, time=None) -> BookUpdate:
    moment = NOW + number * 1_000 if time is None else time
    return BookUpdate(
        "BTC_USDT", "BTCUSDT", snapshot, number - 1, number, list(bids), list(asks), moment, moment
    )


def known() -> SequencedBook:
    book = SequencedBook("BTC_USDT", DEPTH)
    (snapshot,) = book.take(update(7, [(100.0, 1.0)], [(101.0, 2.0)], snapshot=True))
    assert isinstance(snapshot, BookSnapshot)
    assert (snapshot.update_id, snapshot.bids, snapshot.time) == (7, [(100.0, 1.0)], NOW + 7_000)
    return book


def test_changes_follow_by_one():
    book = known()
    (delta,) = book.take(update(8, [(100.0, 0.0), (99.0, 3.0)]))
    assert delta == BookDelta(
        "BTC_USDT", 8, 8, [(100.0, 0.0), (99.0, 3.0)], [], NOW + 8_000, NOW + 8_000
    )
    assert book.take(update(8, [(100.0, 5.0)])) == []  # it came twice
    assert book.take(update(7, [(100.0, 5.0)])) == []  # late
    assert not book.broken


def test_a_hole_is_a_gap_until_the_next_snapshot():
    book = known()
    (gap,) = book.take(update(10, [(100.0, 4.0)]))
    assert gap == Gap(
        "BTC_USDT", "orderbook", NOW + 7_000, None, 2, "2 update ids after 7 are missing"
    )
    assert (book.synced, book.broken) == (False, True)
    book.expect_snapshot()
    assert book.take(update(11, [(100.0, 4.0)])) == []
    closing, resync, snapshot = book.take(update(12, [(100.0, 9.0)], snapshot=True))
    assert closing == gap._replace(to_time=NOW + 12_000)
    assert (resync.kind, resync.detail) == ("resync", gap.cause)
    assert (snapshot.update_id, snapshot.asks) == (12, [])
    assert len(book.take(update(13, [(100.0, 1.0)]))) == 1


def test_a_service_that_begins_anew_replaces_the_book_and_is_a_gap():
    book = known()
    book.take(update(8, [(99.0, 3.0)]))
    later = NOW + 50_000
    gap, closing, resync, snapshot = book.take(
        update(1, [(98.0, 1.0)], [(99.0, 1.0)], snapshot=True, time=later)
    )
    assert (gap.from_time, gap.to_time, closing.to_time) == (NOW + 8_000, None, later)
    assert "anew at update 1" in resync.detail
    assert (snapshot.update_id, snapshot.bids) == (1, [(98.0, 1.0)])
    (delta,) = book.take(update(2, [(97.0, 1.0)], time=later + 1_000))
    assert delta.update_id == 2
    assert not book.broken


def test_a_snapshot_of_the_state_that_is_known_is_no_gap():
    book = known()
    (again,) = book.take(update(7, [(100.0, 1.0)], [(101.0, 2.0)], snapshot=True))
    assert isinstance(again, BookSnapshot)


def test_ids_that_go_back_without_a_snapshot_are_a_gap():
    book = SequencedBook("BTC_USDT", DEPTH)
    book.take(update(5_000_000, [(100.0, 1.0)], snapshot=True, time=NOW))
    (gap,) = book.take(update(12, time=NOW + 1_000))
    assert "went back from 5000000 to 12" in gap.cause
    assert book.broken


def test_levels_beyond_the_depth_are_taken_away():
    book = SequencedBook("BTC_USDT", DEPTH)
    bids = [(100.0 - place, 1.0) for place in range(50)]
    book.take(update(1, bids, [(101.0, 1.0)], snapshot=True))
    (delta,) = book.take(update(2, [(100.5, 2.0)]))
    assert delta.bids == [(100.5, 2.0), (51.0, 0.0)]
    (delta,) = book.take(update(3, [(100.5, 0.0), (51.0, 1.0)]))
    assert delta.bids == [(100.5, 0.0), (51.0, 1.0)]  # the venue tells it again


def test_a_change_before_the_snapshot_asks_for_one():
    book = SequencedBook("BTC_USDT", DEPTH)
    assert book.take(update(8, [(100.0, 1.0)])) == []
    assert book.broken


# The feed against the mock venue


venue = partial(feed_tap.venue, "bybit")


def hear(mock: MockVenue, enough, **wanted) -> Heard:
    def feed(mock: MockVenue) -> Bybit:
        return Bybit(address=Address.under(mock.url, "bybit"))

    return feed_tap.hear(mock, feed, enough, **wanted)


def test_one_book_with_a_hole_is_subscribed_again_and_the_connection_stays():
    mock, market = venue(trades=None, speed=1.0, faults=Faults(seed=5, drop=0.03))
    with mock:
        enough = lambda said: len(said.events("resync")) > 2  # noqa: E731
        heard = hear(mock, enough, trades=False, meanwhile=standing(mock, enough))
        for symbol in market.listings:
            seen = places(rebuilt(heard.books(symbol)), tops(mock, symbol))
            assert seen == sorted(seen)
            check_pairs(heard.gaps(symbol))
    assert all("update ids after" in one.cause for one in heard.gaps())
    assert heard.events("reconnect") == []


def test_a_cut_is_told_for_books_and_for_prices():
    mock, market = venue(trades=None, speed=1.0)
    cut: list[bool] = []

    def meanwhile(heard: Heard) -> None:
        busy = all(len(heard.trades(one)) > 20 for one in market.listings)
        if busy and not cut and len(heard.of(BookSnapshot)) == 2:
            cut.append(True)
            mock.cut()

    def enough(heard: Heard) -> bool:
        return len([one for one in heard.gaps() if one.to_time is not None]) == 4

    with mock:
        heard = hear(mock, enough, meanwhile=meanwhile)
        for symbol in market.listings:
            truth = feed_tap.truth_of(mock, "bybit", symbol)
            assert set(told(heard.trades(symbol))) <= set(truth)
            for what in ("orderbook", "prices"):
                gaps = [one for one in heard.gaps(symbol) if one.what == what]
                assert [one.to_time is None for one in gaps] == [True, False]
                check_pairs(gaps)
    assert len(heard.events("reconnect")) == 1


def test_trades_of_a_cut_are_found_where_the_history_reaches_back():
    mock, market = feed_tap.venue("bybit_linear", trades=None, speed=1.0, rate=60.0)
    cut: list[bool] = []

    def meanwhile(heard: Heard) -> None:
        if not cut and all(len(heard.trades(one)) > 20 for one in market.listings):
            cut.append(True)
            mock.cut()

    def over(heard: Heard) -> bool:
        return len([one for one in heard.gaps() if one.to_time is not None]) == 2

    def feed(mock: MockVenue) -> BybitLinear:
        return BybitLinear(address=Address.under(mock.url, "bybit_linear"))

    with mock:
        heard = feed_tap.hear(mock, feed, over, book_depth=0, meanwhile=meanwhile)
        for symbol in market.listings:
            opened, closed = heard.gaps(symbol)
            assert (opened.missing, closed.missing) == (None, 0)
            found = {number: one for number, *one in told(heard.trades(symbol))}
            truth = {
                number: one for number, *one in feed_tap.truth_of(mock, "bybit_linear", symbol)
            }
            assert (
                found.items()
                >= {
                    number: one
                    for number, one in truth.items()
                    if opened.from_time <= one[0] <= closed.to_time
                }.items()
            )
            assert all(truth[number] == one for number, one in found.items())
    assert {one.origin for one in heard.trades()} == {"live", "backfill"}


def traded(number, time=NOW) -> Trade:
    return Trade("BTC_USDT", number, "buy", 1.0, 1.0, time, NOW)


def test_only_a_page_with_both_ends_proves_what_lies_between():
    trades = [traded(number) for number in range(3, 9)]
    page = HistoryPage(trades, [])
    assert between(page, traded(4), traded(7)) == [traded(5), traded(6)]
    assert between(page, traded(4), traded(5)) == []
    assert between(page, traded(2), traded(7)) is None
    assert between(page, traded(4), traded(9)) is None
    assert between(page, None, traded(7)) is None
    bad = [(None, Event("quarantine", None, NOW, 1, "odd"))]
    assert between(HistoryPage(trades, bad), traded(4), traded(7)) is None


def test_a_gap_that_is_asked_about_ends_when_it_is_answered_or_the_next_begins():
    gaps = TradeGapTracker(history=True)
    gaps.take(traded(1, 5))
    (gap,) = gaps.lose("cut")
    first = traded(2, 9)
    assert gaps.take(first) == [first]
    assert gaps.after == {"BTC_USDT": first}
    assert gaps.take(traded(3, 10)) == [traded(3, 10)]
    assert gaps.end(first, filled=True) == [gap._replace(to_time=9, missing=0)]
    assert gaps.end(first, filled=True) == []
    (second,) = gaps.lose("cut again")
    gaps.take(traded(5, 12))
    closed, third = gaps.lose("and again")
    assert closed == second._replace(to_time=12)
    assert (third.from_time, third.cause) == (12, "and again")
    assert gaps.end(traded(5, 12), filled=True) == []


def test_best_prices_alone():
    mock, _ = venue(trades=None, speed=1.0)
    with mock:
        heard = hear(mock, lambda said: len(said.quotes("BTC_USDT")) > 20, book_depth=1)
    assert all(one.bid < one.ask for one in heard.quotes("BTC_USDT"))
    assert heard.of((BookSnapshot, BookDelta)) == []


def test_a_pair_that_ends_is_told(monkeypatch):
    monkeypatch.setattr("fxlab.collect.venues._snapshot_run.STATUS_EVERY", 0.05)
    mock, _ = venue(faults=Faults(delist=("ETH_USDT", 0.1)), speed=1.0, trades=None)
    with mock:
        heard = hear(mock, lambda said: bool(said.events("delisted")))
    (event,) = heard.events("delisted")
    assert (event.symbol, event.detail) == ("ETH_USDT", "status: not listed any more")


# REST


class Answers:
    """Stands in for REST with answers that the mock would not give, the last one for ever."""

    host = "api.bybit.com"

    def __init__(self, *answers):
        self.answers, self.asked = [*answers], []
        self.slow_down = [].append

    async def get(self, path, **parameters):  # noqa: D102
        self.asked.append((path, parameters))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def ok(**result) -> dict:
    return {"retCode": 0, "retMsg": "OK", "result": result, "retExtInfo": {}, "time": MS}


def listing(base="BTC", **changes) -> dict:
    return {
        "symbol": f"{base}USDT", "baseCoin": base, "quoteCoin": "USDT", "status": "Trading",
        "contractType": "LinearPerpetual", "priceFilter": {"tickSize": "0.10"},
    } | changes  # fmt: skip


def asked(feed: Bybit, question, *answers):
    feed._rest = Answers(*answers)
    return asyncio.run(question(feed))


@pytest.mark.parametrize("kind", [Bybit, BybitLinear])
def test_instruments_and_time(kind):
    mock, _ = feed_tap.venue(kind.venue)

    async def ask():
        async with kind(address=Address.under(mock.url, kind.venue)) as feed:
            return await feed.instruments(), await feed.server_time()

    with mock:
        found, clock = asyncio.run(ask())
    assert replace(found["BTC_USDT"], terms={}) == Instrument("BTC_USDT", "BTCUSDT", 2)
    assert abs(clock - Clock().now()) < 60_000_000


def test_contracts_come_in_pages():
    pages = [
        ok(list=[listing()], nextPageCursor="first%3DBTCUSDT%26n%3D1"),
        ok(list=[listing("ETH")], nextPageCursor=""),
    ]
    feed = BybitLinear()
    assert set(asked(feed, BybitLinear.instruments, *pages)) == {"BTC_USDT", "ETH_USDT"}
    wanted = {"category": "linear", "limit": 1_000}
    assert [one for _, one in feed._rest.asked] == [
        wanted,
        wanted | {"cursor": "first=BTCUSDT&n=1"},
    ]


def test_a_cursor_that_comes_again_ends_the_pages():
    page = ok(list=[listing()], nextPageCursor="same")
    feed = BybitLinear()
    assert set(asked(feed, BybitLinear.instruments, page)) == {"BTC_USDT"}
    assert len(feed._rest.asked) == 2


def test_deliveries_are_left_out_and_odd_listings_cost_no_other():
    entries = [
        listing(),
        listing("ETH", contractType="LinearFutures", symbol="ETHUSDT-27MAR26"),
        listing("SOL", status="PreLaunch"),
        listing("XRP", priceFilter={}),
        7,
    ]
    found = asked(BybitLinear(), BybitLinear.instruments, ok(list=entries))
    assert {one.symbol: one.status for one in found.values()} == {
        "BTC_USDT": "trading",
        "SOL_USDT": "prelaunch",
        "XRP_USDT": found["XRP_USDT"].status,
    }
    assert found["BTC_USDT"].price_decimals == 1
    assert found["XRP_USDT"].status.startswith("its listing is not as documented: ")


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ({"retCode": 10006, "retMsg": "Too many visits!"}, VenueRefused, "fewer"),
        ({"retCode": 10001, "retMsg": "params error"}, VenueUnavailable, "params error"),
        ([], VenueUnavailable, "answers instruments-info"),
        (ok(list=[{"symbol": "BTCUSDT"}]), VenueUnavailable, "documented"),
        (ok(list=7), VenueUnavailable, "not as documented"),
    ],
)
def test_refusals_and_odd_answers_are_errors_in_words(answer, error, words):
    with pytest.raises(error, match=words):
        asked(Bybit(), Bybit.instruments, answer)


def entry(**changes) -> dict:
    return {
        "execId": UUID, "symbol": "BTCUSDT", "price": "16618.49", "size": "0.00012",
        "side": "Buy", "time": str(MS), "isBlockTrade": False,
    } | changes  # fmt: skip


@pytest.mark.parametrize("turned", [False, True])
def test_the_newest_trade_is_the_newest_good_one(turned):
    entries = [entry(price="0"), entry(execId="7"), entry(execId="6", time=str(MS - 1))]
    entries = entries[::-1] if turned else entries

    async def latest(feed: Bybit):
        return await feed.latest(BTC, "prices")

    found = asked(Bybit(), latest, ok(list=entries))
    assert (found.id, found.origin, found.time) == (7, "backfill", MS * 1_000)
    with pytest.raises(VenueUnavailable, match="recent-trade not as documented"):
        asked(Bybit(), latest, ok(list=[entry(price="0")]))
    assert asked(Bybit(), latest, ok(list=[])) is None


def test_a_book_that_rest_has_too_is_as_old_as_its_last_change():
    feed = Bybit()
    feed._run = run = BybitRun(feed, Subscription((BTC,), book_depth=10))
    run.books["BTCUSDT"] = known()

    async def latest(feed: Bybit):
        return await feed.latest(BTC, "orderbook")

    same = {"s": "BTCUSDT", "b": [["100.0", "1"]], "a": [["101", "2"]], "ts": MS, "u": 5}
    later = NOW // 1_000 + 9_000
    found = asked(feed, latest, ok(**same, cts=later))
    assert (found.update_id, found.time) == (0, NOW + 7_000)
    found = asked(feed, latest, ok(**same | {"a": [["101", "3"]]}, cts=later))
    assert found.time == later * 1_000
