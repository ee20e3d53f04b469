"""OKX's feed: what frames mean, books whose updates name the one before, and what REST answers."""

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
    ChannelRow,
    Clock,
    Event,
    Gap,
    Instrument,
    Subscription,
    Trade,
)
from fxlab.collect.venues import _okx
from fxlab.collect.venues._okx import DEPTH, FundingAnnounced, Okx, OkxRun, OkxSwap, parse
from fxlab.collect.venues._snapshot_run import BookUpdate, SequencedBook
from fxlab.errors import VenueRefused, VenueUnavailable
from fxlab.mock import Faults, MockVenue

NOW = 1_700_000_000_000_000
MS = 1_630_048_897_897
BTC = Instrument("BTC_USDT", "BTC-USDT", 1, detail={"quantity_decimals": 8})
SWAP = Instrument("ETH_USDT", "ETH-USDT-SWAP", 2, detail={"contract_size": 0.1})
KNOWN = {one.native: one for one in (BTC, SWAP)}


def deal(**changes) -> dict:
    fields = {
        "instId": "BTC-USDT", "tradeId": "130639474", "px": "42219.9", "sz": "0.12060306",
        "side": "buy", "source": "0", "ts": str(MS),
    }  # fmt: skip
    return {name: value for name, value in (fields | changes).items() if value is not ...}


def pushed(*data, channel="trades-all", native="BTC-USDT", **more) -> str:
    return json.dumps({"arg": {"channel": channel, "instId": native}, **more, "data": [*data]})


def change(action="update", native="BTC-USDT", **changes) -> str:
    entry = {
        "asks": [["8476.98", "415", "0", "13"]], "bids": [["8475.55", "0", "0", "0"]],
        "ts": str(MS), "checksum": 0, "prevSeqId": 123456, "seqId": 123460,
    }  # fmt: skip
    return pushed(entry | changes, channel="books", native=native, action=action)


# Frames


def test_a_trade_is_read():
    (found,) = parse(pushed(deal()), NOW, KNOWN)
    assert found == Trade("BTC_USDT", 130639474, "buy", 42219.9, 0.12060306, MS * 1_000, NOW)


def test_a_swaps_contracts_are_base_units():
    one = deal(instId="ETH-USDT-SWAP", sz="3", side="sell")
    (found,) = parse(pushed(one, native="ETH-USDT-SWAP"), NOW, KNOWN)
    assert (found.symbol, found.side, found.volume) == ("ETH_USDT", "sell", 0.3)
    (found,) = parse(change(native="ETH-USDT-SWAP"), NOW, KNOWN)
    assert (found.asks, found.bids) == ([(8476.98, 41.5)], [(8475.55, 0.0)])


def test_a_change_of_a_book_is_read():
    (found,) = parse(change(), NOW, KNOWN)
    assert found == BookUpdate(
        "BTC_USDT", "BTC-USDT", False, 123456, 123460, [(8475.55, 0.0)], [(8476.98, 415.0)],
        MS * 1_000, NOW,
    )  # fmt: skip
    (found,) = parse(change("snapshot", prevSeqId=-1), NOW, KNOWN)
    assert (found.snapshot, found.previous) == (True, -1)


@pytest.mark.parametrize(
    "text",
    [
        "pong",
        '{"event":"subscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a4d3ae55"}',
        '{"event":"unsubscribe","arg":{"channel":"books","instId":"BTC-USDT"},"connId":"a4d"}',
    ],
)
def test_control_frames_are_silent(text):
    assert parse(text, NOW, KNOWN) == []


@pytest.mark.parametrize(
    ("event", "code", "said"),
    [
        ("error", "60012", "Invalid request: {}"),
        ("notice", "64008", "The connection will soon be closed for a service upgrade."),
    ],
)
def test_errors_and_notices_of_the_venue_are_told(event, code, said):
    text = json.dumps({"event": event, "code": code, "msg": said, "connId": "a4d3ae55"})
    assert parse(text, NOW, KNOWN) == [Event("venue_error", None, NOW, 1, f"{code}: {said}")]


BAD_TRADES = [
    deal(px=42219.9),
    deal(px="0"),
    deal(px="-1"),
    deal(px="nan"),
    deal(px=None),
    deal(sz="0"),
    deal(sz="Infinity"),
    deal(sz=...),
    deal(side="Buy"),
    deal(side=[1]),
    deal(ts=MS),
    deal(ts="-5"),
    deal(instId="ETH-USDT-SWAP"),
    deal(tradeId=""),
    deal(tradeId="x17"),
    deal(tradeId="9" * 40),
    deal(tradeId=17),
    None,
    "text",
    [],
]


@pytest.mark.parametrize("entry", BAD_TRADES)
def test_a_bad_trade_is_set_aside_and_its_neighbours_stay(entry):
    found = parse(pushed(deal(tradeId="1"), entry, deal(tradeId="2")), NOW, KNOWN)
    assert [one.id for one in found if isinstance(one, Trade)] == [1, 2]
    (event,) = [one for one in found if isinstance(one, Event)]
    assert (event.kind, event.symbol, event.amount) == ("quarantine", "BTC_USDT", 1)


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "ping",
        "null",
        "[]",
        "{}",
        '"text"',
        '{"event":"error"}',
        pushed(channel="tickers"),
        pushed(native="XYZ-USDT"),
        pushed(channel=17),
        pushed(deal())[:-30],
        json.dumps({"arg": {"channel": "trades-all", "instId": "BTC-USDT"}, "data": "abc"}),
        change("delta"),
        change(seqId="123460"),
        change(seqId=True),
        change(seqId=-1),
        change(prevSeqId=-2),
        change(prevSeqId=None),
        change(bids=None),
        change(bids=[["8475.55"]]),
        change(bids=[[8475.55, 1]]),
        change(bids=[["8475.55", "-1", "0", "1"]]),
        change(bids=[["0", "1", "0", "1"]]),
        change(asks={"8476": "1"}),
        change(ts="now"),
        '{"arg":' + "[" * 100_000,
        b"\xff\xfe",
        "x" * 1_000_000,
    ],
)
def test_frames_that_are_not_as_documented_are_set_aside(frame):
    (event,) = parse(frame, NOW, KNOWN)
    assert event.kind == "quarantine"
    assert len(event.detail) < 500


def test_no_mutation_of_a_good_frame_raises():
    good = (change(), change("snapshot"), change(native="ETH-USDT-SWAP"), pushed(deal(), deal()))
    due = {"fundingRate": "0.0001", "fundingTime": str(MS)}
    order = {"side": "buy", "bkPx": "9.5", "sz": "1", "ts": str(MS)}
    good += (
        pushed({"markPx": "42310.6", "ts": str(MS)}, channel="mark-price"),
        pushed(due, channel="funding-rate"),
        pushed({"oi": "1741921", "ts": str(MS)}, channel="open-interest"),
        pushed({"instId": "BTC-USDT", "details": [order]}, channel="liquidation-orders"),
    )
    known = Trade | BookUpdate | ChannelRow | FundingAnnounced | Event
    assert all(type(parse(text, NOW, KNOWN)[0]) is not Event for text in good)
    for text in mutations(*good):
        for found in parse(text, NOW, KNOWN):
            assert isinstance(found, known)


def test_trades_and_books_have_connections_of_their_own(monkeypatch):
    monkeypatch.setattr(_okx, "MOST_BOOKS", 2)
    some = tuple(Instrument(f"S{number}_USDT", f"S{number}-USDT") for number in range(3))
    run = OkxRun(Okx(), Subscription(some, book_depth=10))
    groups = [(group, wire.url) for group, wire in run.connections()]
    assert [(list(one.symbols.values()), url[-9:]) for one, url in groups] == [
        (["S0-USDT", "S1-USDT", "S2-USDT"], "/business"),
        (["S0-USDT", "S1-USDT"], "v5/public"),
        (["S2-USDT"], "v5/public"),
    ]
    trades, first, second = (one for one, _ in groups)
    assert trades.topics[1] == {"channel": "trades-all", "instId": "S1-USDT"}
    assert second.topics == [{"channel": "books", "instId": "S2-USDT"}]
    assert [run.carries(one, "S2_USDT", "prices") for one in (trades, first, second)] == [1, 0, 0]
    assert [run.carries(one, "S2_USDT", "orderbook") for one in (trades, first, second)] == [
        0, 0, 1,
    ]  # fmt: skip
    (request,) = _okx.subscriptions(trades.topics)
    assert json.loads(request) == {"op": "subscribe", "args": trades.topics}
    only = OkxRun(Okx(), Subscription(some, trades=False, book_depth=1))
    assert all(one.data_types == {"orderbook"} for one, _ in only.connections())


# Books


def update(previous, number, bids=(), asks=(), *, time=None) -> BookUpdate:
    moment = NOW + number * 1_000 if time is None else time
    return BookUpdate(
        "BTC_USDT", "BTC-USDT", previous < 0, previous, number, [*bids], [*asks], moment, moment
    )


def known() -> SequencedBook:
    book = SequencedBook("BTC_USDT", DEPTH, counted=False)
    (snapshot,) = book.take(update(-1, 10, [(100.0, 1.0)], [(101.0, 2.0)]))
    assert isinstance(snapshot, BookSnapshot)
    assert (snapshot.update_id, snapshot.bids, snapshot.time) == (10, [(100.0, 1.0)], NOW + 10_000)
    return book


def test_changes_follow_by_the_number_that_they_name():
    book = known()
    (delta,) = book.take(update(10, 15, [(100.0, 0.0), (99.0, 3.0)]))
    assert delta == BookDelta(
        "BTC_USDT", 11, 15, [(100.0, 0.0), (99.0, 3.0)], [], NOW + 15_000, NOW + 15_000
    )
    assert book.take(update(10, 15, [(100.0, 5.0)])) == []  # it came twice
    (delta,) = book.take(update(15, 16, [(98.0, 5.0)]))
    assert book.take(update(10, 15, [(100.0, 5.0)])) == []  # late
    assert not book.broken


def test_an_update_without_changes_says_nothing_new():
    book = known()
    assert book.take(update(10, 10, time=NOW + 70_000_000)) == []
    (delta,) = book.take(update(10, 12, [(99.0, 1.0)]))
    assert (delta.first_update_id, delta.update_id) == (11, 12)


def test_a_hole_is_a_gap_until_the_next_snapshot():
    book = known()
    (gap,) = book.take(update(12, 17, [(100.0, 4.0)]))
    cause = "updates after 10 are missing, up to 12"
    assert gap == Gap("BTC_USDT", "orderbook", NOW + 10_000, None, None, cause)
    assert (book.synced, book.broken) == (False, True)
    book.expect_snapshot()
    assert book.take(update(17, 18, [(100.0, 4.0)])) == []
    closing, resync, snapshot = book.take(update(-1, 20, [(100.0, 9.0)]))
    assert closing == gap._replace(to_time=NOW + 20_000)
    assert (resync.kind, resync.detail) == ("resync", gap.cause)
    assert (snapshot.update_id, snapshot.asks) == (20, [])
    assert len(book.take(update(20, 23, [(100.0, 1.0)]))) == 1


def test_a_sign_of_life_after_lost_updates_is_a_gap():
    (gap,) = known().take(update(12, 12))
    assert gap.cause == "updates after 10 are missing, up to 12"


def test_numbers_that_begin_anew_are_told_and_lose_nothing():
    book = known()
    book.take(update(10, 15, [(99.0, 3.0)]))
    later = NOW + 50_000
    restart, snapshot = book.take(update(15, 3, [(98.0, 1.0)], time=later))
    assert (restart.kind, restart.symbol) == ("id_restart", "BTC_USDT")
    assert restart.detail == "ids of the book's updates begin anew at 3 after 15"
    assert snapshot == BookSnapshot(
        "BTC_USDT", 3, [(100.0, 1.0), (99.0, 3.0), (98.0, 1.0)], [(101.0, 2.0)], later, later
    )
    (delta,) = book.take(update(3, 5, [(98.0, 0.0)], time=later + 1))
    assert (delta.first_update_id, delta.update_id) == (4, 5)
    assert book.take(update(15, 3, [(98.0, 1.0)], time=later)) == []  # it came twice


def test_smaller_numbers_that_do_not_follow_are_a_gap():
    (gap,) = known().take(update(4, 6, [(98.0, 1.0)], time=NOW + 60_000))
    assert "went back from 10 to 6" in gap.cause


def test_levels_beyond_the_depth_are_taken_away():
    book = SequencedBook("BTC_USDT", DEPTH, counted=False)
    bids = [(1_000.0 - place, 1.0) for place in range(DEPTH)]
    book.take(update(-1, 1, bids, [(1_001.0, 1.0)]))
    (delta,) = book.take(update(1, 4, [(1_000.5, 2.0)]))
    assert delta.bids == [(1_000.5, 2.0), (601.0, 0.0)]


# The feed against the mock venue


venue = partial(feed_tap.venue, "okx")
ENDS = ("first_id", "last_id")


def hear(mock: MockVenue, enough, **wanted) -> Heard:
    def feed(mock: MockVenue) -> Okx:
        return Okx(address=Address.under(mock.url, "okx"))

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
    assert all("updates after" in one.cause for one in heard.gaps())
    assert heard.events("reconnect") == []


def test_a_cut_is_a_gap_of_books_and_trades_are_counted():
    mock, market = venue(trades=None, speed=1.0)
    cut: list[bool] = []

    def meanwhile(heard: Heard) -> None:
        busy = all(len(heard.trades(one)) > 20 for one in market.listings)
        if busy and not cut and len(heard.of(BookSnapshot)) == 2:
            cut.append(True)
            mock.cut()

    def enough(heard: Heard) -> bool:
        closed = [one for one in heard.gaps() if one.to_time is not None]
        return len(closed) == 2 and len(heard.events("reconnect")) == 2

    with mock:
        heard = hear(mock, enough, meanwhile=meanwhile)
        for symbol in market.listings:
            truth = feed_tap.truth_of(mock, "okx", symbol)
            assert set(told(heard.trades(symbol))) <= set(truth)
            check_pairs(heard.gaps(symbol))
    assert {one.what for one in heard.gaps()} == {"orderbook"}


@pytest.mark.parametrize("kind", [Okx, OkxSwap])
def test_trades_of_the_past_come_by_their_ids(kind):
    mock, _ = feed_tap.venue(kind.venue, trades=700)

    async def ask():
        async with kind(address=Address.under(mock.url, kind.venue)) as feed:
            known = await feed.instruments()
            enough = feed_tap.all_trades(mock, kind.venue)
            await feed_tap.listen(feed, enough, symbols=["BTC_USDT"], book_depth=0)
            one = known["BTC_USDT"]
            first, last = (mock.ledger()["symbols"]["BTC_USDT"][end] for end in ENDS)
            return (
                await feed.trades(one, first + 50, first + 399),
                await feed.trades(one, last + 1, last + 5),
                await feed.latest(one, "prices"),
                last,
            )

    with mock:
        found, none, newest, last = asyncio.run(ask())
        truth = mock.truth.deals["BTC_USDT"].frame().rows()
    assert told(found) == truth[50:400]
    assert {one.origin for one in found} == {"backfill"}
    assert none == []
    assert newest.id == last


def test_bad_entries_of_the_past_cost_no_other():
    mock, _ = venue(trades=400, faults=Faults(bad_history=7))

    async def ask():
        async with Okx(address=Address.under(mock.url, "okx")) as feed:
            known = await feed.instruments()
            enough = feed_tap.all_trades(mock, "okx")
            await feed_tap.listen(feed, enough, symbols=["BTC_USDT"], book_depth=0)
            first, last = (mock.ledger()["symbols"]["BTC_USDT"][end] for end in ENDS)
            return [*range(first, last + 1)], await feed.trades(known["BTC_USDT"], first, last)

    with mock:
        ids, found = asyncio.run(ask())
    trades = [one for one in found if isinstance(one, Trade)]
    bad = [one for one in found if isinstance(one, Event)]
    assert [one.id for one in trades] == [number for number in ids if number % 7]
    assert len(bad) == len(ids) - len(trades) > 50
    assert {one.kind for one in bad} == {"quarantine"}


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

    host = "www.okx.com"

    def __init__(self, *answers):
        self.answers, self.asked = [*answers], []
        self.slow_down = [].append

    async def get(self, path, **parameters):  # noqa: D102
        self.asked.append((path, parameters))
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]


def ok(*data) -> dict:
    return {"code": "0", "msg": "", "data": [*data]}


def listing(native="BTC-USDT", **changes) -> dict:
    return {
        "instType": "SPOT", "instId": native, "tickSz": "0.1", "lotSz": "0.00000001",
        "ctType": "", "ctVal": "", "ctMult": "", "state": "live",
    } | changes  # fmt: skip


def swap(native="BTC-USDT-SWAP", **changes) -> dict:
    one = {"instType": "SWAP", "ctType": "linear", "ctVal": "0.01", "ctMult": "1", "lotSz": "0.01"}
    return listing(native, **one | changes)


def asked(feed: Okx, question, *answers):
    feed._rest = Answers(*answers)
    return asyncio.run(question(feed))


@pytest.mark.parametrize("kind", [Okx, OkxSwap])
def test_instruments_and_time(kind):
    mock, _ = feed_tap.venue(kind.venue)

    async def ask():
        async with kind(address=Address.under(mock.url, kind.venue)) as feed:
            return await feed.instruments(), await feed.server_time()

    with mock:
        found, clock = asyncio.run(ask())
    native, detail = "BTC-USDT", {"quantity_decimals": 5}
    if kind is OkxSwap:
        native, detail = f"{native}-SWAP", detail | {"contract_size": 0.01}
    assert replace(found["BTC_USDT"], terms={}) == Instrument("BTC_USDT", native, 2, detail=detail)
    assert abs(clock - Clock().now()) < 60_000_000


def test_a_contract_says_how_much_of_the_base_coin_it_is():
    found = asked(OkxSwap(), OkxSwap.instruments, ok(swap(ctVal="0.001", ctMult="10")))
    terms = found["BTC_USDT"].terms
    assert found["BTC_USDT"] == Instrument(
        "BTC_USDT",
        "BTC-USDT-SWAP",
        1,
        detail={"quantity_decimals": 4, "contract_size": 0.01},
        terms=terms,
    )
    assert (terms["contract_size"], terms["lot_size"]) == (0.01, 0.0001)


def test_inverse_contracts_are_left_out_and_odd_listings_cost_no_other():
    entries = [
        swap(),
        swap("BTC-USD-SWAP", ctType="inverse", ctVal="100"),
        swap("SOL-USDT-SWAP", state="preopen"),
        swap("XRP-USDT-SWAP", tickSz=""),
        swap("DOGE-USDT-SWAP", ctVal="0"),
        swap("ADA-USDT-SWAP", ctVal=...),
        7,
    ]
    found = asked(OkxSwap(), OkxSwap.instruments, ok(*entries))
    odd = {name: found.pop(name).status for name in ("XRP_USDT", "DOGE_USDT", "ADA_USDT")}
    assert {one.symbol: one.status for one in found.values()} == {
        "BTC_USDT": "trading", "SOL_USDT": "preopen",
    }  # fmt: skip
    assert all(one.startswith("its listing is not as documented: ") for one in odd.values())


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ({"code": "50011", "msg": "Rate limit reached", "data": []}, VenueRefused, "fewer"),
        ({"code": "51000", "msg": "Parameter error", "data": []}, VenueUnavailable, "Parameter"),
        ([], VenueUnavailable, "answers public/instruments"),
        (ok({"instId": "BTC-USDT"}), VenueUnavailable, "documented"),
        ({"code": "0", "data": 7}, VenueUnavailable, "not as documented"),
    ],
)
def test_refusals_and_odd_answers_are_errors_in_words(answer, error, words):
    with pytest.raises(error, match=words):
        asked(Okx(), Okx.instruments, answer)


@pytest.mark.parametrize("turned", [False, True])
def test_the_newest_trade_is_the_newest_good_one(turned):
    entries = [deal(px="0"), deal(tradeId="7"), deal(tradeId="6")]
    entries = entries[::-1] if turned else entries

    async def latest(feed: Okx):
        return await feed.latest(BTC, "prices")

    found = asked(Okx(), latest, ok(*entries))
    assert (found.id, found.origin, found.time) == (7, "backfill", MS * 1_000)
    with pytest.raises(VenueUnavailable, match="market/trades not as documented"):
        asked(Okx(), latest, ok(deal(px="0")))
    assert asked(Okx(), latest, ok()) is None


def test_the_past_is_asked_for_page_by_page_and_what_came_before_an_error_is_kept():
    async def trades(feed: Okx):
        return await feed.trades(BTC, 5, 9)

    first = ok(*[deal(tradeId=str(number)) for number in (9, 8, 7)])
    second = ok(*[deal(tradeId=str(number)) for number in (6, 5, 4)])
    feed = Okx()
    assert [one.id for one in asked(feed, trades, first, second)] == [5, 6, 7, 8, 9]
    assert [one["after"] for _, one in feed._rest.asked] == [10, 7]
    busy = {"code": "50013", "msg": "Systems are busy", "data": []}
    assert [one.id for one in asked(feed, trades, first, busy)] == [7, 8, 9]
    with pytest.raises(VenueUnavailable, match="busy"):
        asked(feed, trades, busy)
    assert asked(feed, trades, ok(deal(tradeId="3"))) == []  # the history does not reach so far
    assert len(feed._rest.asked) == 1


def test_a_book_that_rest_has_too_is_as_old_as_its_last_change():
    feed = Okx()
    feed._run = run = OkxRun(feed, Subscription((BTC,), book_depth=10))
    run.books["BTC-USDT"] = known()

    async def latest(feed: Okx):
        return await feed.latest(BTC, "orderbook")

    later = NOW // 1_000 + 9_000
    same = {
        "bids": [["100.0", "1", "0", "1"]], "asks": [["101", "2", "0", "1"]], "ts": str(later),
        "seqId": 15,
    }  # fmt: skip
    found = asked(feed, latest, ok(same))
    assert (found.update_id, found.time) == (0, NOW + 10_000)
    found = asked(feed, latest, ok(same | {"asks": [["101", "3", "0", "1"]]}))
    assert found.time == later * 1_000
