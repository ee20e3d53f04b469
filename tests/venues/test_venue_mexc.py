"""MEXC's feed: what frames mean, books by versions, and holes that nobody can fill."""

from __future__ import annotations

import asyncio
import json
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
    Quote,
    Trade,
)
from fxlab.collect.venues import _rest
from fxlab.collect.venues._book_sync import BestPrices, Diff, TradeGapTracker
from fxlab.collect.venues._mexc import Mexc, base_units, parse
from fxlab.errors import VenueRefused, VenueUnavailable
from fxlab.mock import Faults, MockVenue

NOW = 1_700_000_000_000_000
TERMS = {"contract_size": 0.0001, "quantity_decimals": 4, "inverse": False}
BTC = Instrument("BTC_USDT", "BTC_USDT", 1, detail=TERMS)
KNOWN = {"BTC_USDT": BTC}


def deal(**changes) -> dict:
    fields = {"p": 115309.8, "v": 55, "T": 2, "O": 3, "M": 1, "t": 1755487578276}
    return {name: value for name, value in (fields | changes).items() if value is not ...}


def pushed(channel: str, data, symbol="BTC_USDT", ts=1755487578276) -> str:
    return json.dumps({"symbol": symbol, "data": data, "channel": channel, "ts": ts})


def depth(**changes) -> str:
    data = {"asks": [[6859.5, 3251, 1]], "bids": [[6859, 0, 0]], "version": 96801927}
    return pushed("push.depth", data | changes)


# Frames


def test_deals_are_read_in_base_units():
    (found,) = parse(pushed("push.deal", [deal()]), NOW, KNOWN)
    assert found == Trade("BTC_USDT", None, "sell", 115309.8, 0.0055, 1755487578276000, NOW)


@pytest.mark.parametrize(
    ("told", "identity"),
    [("14537542858", 14537542858), (7, 7), ("abc-1", "abc-1"), ("9" * 40, "9" * 40)],
)
def test_a_deal_may_carry_an_id(told, identity):
    (found,) = parse(pushed("push.deal", [deal(i=told)]), NOW, KNOWN)
    assert found.id == identity


def test_a_deal_alone_comes_without_a_list():
    (found,) = parse(pushed("push.deal", deal(T=1)), NOW, KNOWN)
    assert found.side == "buy"


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        ([deal(t=1755487578276), deal(t=1755487578275)], [1755487578275, 1755487578276]),
        ([deal(t=1755487578275), deal(t=1755487578276)], [1755487578275, 1755487578276]),
    ],
)
def test_deals_told_newest_first_are_turned_round(entries, expected):
    found = parse(pushed("push.deal", entries), NOW, KNOWN)
    assert [one.time // 1_000 for one in found] == expected


def test_ids_tell_the_order_of_one_millisecond():
    found = parse(pushed("push.deal", [deal(i="9"), deal(i="8")]), NOW, KNOWN)
    assert [one.id for one in found] == [8, 9]


def test_changes_of_a_book_are_read():
    (found,) = parse(depth(), NOW, KNOWN)
    assert found == Diff(
        "BTC_USDT",
        96801926,
        96801927,
        96801927,
        [(6859.0, 0.0)],
        [(6859.5, 0.3251)],
        1755487578276000,
        NOW,
    )


def test_merged_changes_say_where_they_begin():
    (found,) = parse(depth(begin=96801920, end=96801927), NOW, KNOWN)
    assert (found.previous, found.first, found.last) == (96801919, 96801920, 96801927)


def test_inverse_contracts_are_worth_quote_units():
    inverse = Instrument("BTC_USD", "BTC_USD", 1, detail=TERMS | {"inverse": True})
    assert base_units(50.0, 10.0, inverse) == pytest.approx(0.0005)


@pytest.mark.parametrize(
    ("contracts", "size", "decimals", "expected"),
    [
        (3.0, 0.1, 1, 0.3),
        (0.5, 0.0001, 4, 0.00005),
        (1.5, 0.0001, 4, 0.00015),
        (0.1, 3.0, 0, 0.3),
        (1e-7, 0.1, 1, 1e-8),
        (123_456_789.0, 0.0001, 4, 12_345.6789),
    ],
)
def test_parts_of_a_contract_are_no_whole_ones(contracts, size, decimals, expected):
    instrument = Instrument(
        "BTC_USDT", "BTC_USDT", 1,
        detail={"contract_size": size, "quantity_decimals": decimals, "inverse": False},
    )  # fmt: skip
    assert base_units(contracts, 10.0, instrument) == expected


@pytest.mark.parametrize(
    "text",
    [
        '{"channel":"pong","data":1587453241453}',
        '{"channel":"rs.sub.deal","data":"success","ts":1587442022003}',
    ],
)
def test_control_frames_are_silent(text):
    assert parse(text, NOW, KNOWN) == []


def test_an_error_of_the_venue_is_told():
    text = '{"channel":"rs.error","data":"Contract [XYZ] doesn\'t exist!","ts":1587442022003}'
    (event,) = parse(text, NOW, KNOWN)
    assert event == Event("venue_error", None, NOW, 1, "Contract [XYZ] doesn't exist!")


BAD_DEALS = [
    deal(p="115309.8"),
    deal(p=0),
    deal(p=-1.0),
    deal(p=None),
    deal(p=True),
    deal(p=10**400),
    deal(v=0),
    deal(v=...),
    deal(T=3),
    deal(T=[1]),
    deal(t="1755487578276"),
    deal(t=-5),
    deal(t=1.5),
    deal(i=""),
    deal(i=1.5),
    None,
    "text",
    [],
]


@pytest.mark.parametrize("entry", BAD_DEALS)
def test_a_bad_deal_is_set_aside_and_its_neighbours_stay(entry):
    found = parse(pushed("push.deal", [deal(i=1), entry, deal(i=2)]), NOW, KNOWN)
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
        pushed("push.deal", "abc"),
        pushed("push.deal", None),
        pushed("push.candles", []),
        pushed("push.deal", [], symbol="XYZ_USDT"),
        pushed("push.deal", [], symbol={}),
        pushed("push.deal", [deal()]).replace("115309.8", "NaN"),
        pushed("push.deal", [deal()])[:-30],
        depth(version="96801927"),
        depth(version=True),
        depth(version=-1),
        depth(bids=None),
        depth(bids=[[6859.0]]),
        depth(bids=[["6859.0", 1, 1]]),
        depth(bids=[[6859.0, -1, 1]]),
        depth(bids=[[0, 1, 1]]),
        depth(asks={"6859": 1}),
        depth().replace("1755487578276", '"now"'),
        '{"channel":' + "[" * 100_000,
        '{"channel":17}',
        b"\xff\xfe",
        "x" * 1_000_000,
    ],
)
def test_frames_that_are_not_as_documented_are_set_aside(frame):
    (event,) = parse(frame, NOW, KNOWN)
    assert event.kind == "quarantine"
    assert len(event.detail) < 500


def test_no_mutation_of_a_good_frame_raises():
    for text in mutations(depth(), pushed("push.deal", [deal(i="1"), deal()])):
        for found in parse(text, NOW, KNOWN):
            assert isinstance(found, Trade | Diff | Event)


# What the venue does not say itself


def trade(time: int, symbol="BTC_USDT") -> Trade:
    return Trade(symbol, None, "buy", 1.0, 1.0, time, NOW)


def test_a_lost_connection_leaves_a_hole_until_the_next_deal():
    holes = TradeGapTracker()
    assert holes.take(trade(5)) == [trade(5)]
    gap = Gap("BTC_USDT", "prices", 5, None, None, "cut")
    assert holes.lose("cut") == [gap]
    assert holes.lose("cut again") == []
    assert holes.take(trade(3, "ETH_USDT")) == [trade(3, "ETH_USDT")]
    assert holes.take(trade(5)) == [trade(5)]
    assert holes.take(trade(9)) == [gap._replace(to_time=9), trade(9)]
    assert holes.take(trade(10)) == [trade(10)]
    assert [one.symbol for one in holes.lose("cut", ["ETH_USDT"])] == ["ETH_USDT"]


def test_a_cut_before_the_first_deal_is_a_hole_too():
    holes = TradeGapTracker()
    holes.listen(["BTC_USDT", "ETH_USDT"], 5)
    assert holes.take(trade(8)) == [trade(8)]
    holes.listen(["BTC_USDT", "ETH_USDT"], 9)
    gaps = [
        Gap("BTC_USDT", "prices", 8, None, None, "cut"),
        Gap("ETH_USDT", "prices", 5, None, None, "cut"),
    ]
    assert holes.lose("cut") == gaps
    first = trade(12, "ETH_USDT")
    assert holes.take(first) == [gaps[1]._replace(to_time=12), first]


def test_best_prices_come_when_they_change():
    best = BestPrices()
    first = BookSnapshot("BTC_USDT", 7, [(10.0, 1.0), (9.0, 2.0)], [(11.0, 3.0)], 100, 101)
    assert best.of([first]) == [Quote("BTC_USDT", 10.0, 1.0, 11.0, 3.0, 7, 100, 101)]
    calm = BookDelta("BTC_USDT", 8, 8, [(9.0, 5.0)], [], 102, 103)
    moved = BookDelta("BTC_USDT", 9, 9, [(10.0, 0.0)], [], 104, 105)
    empty = BookDelta("BTC_USDT", 10, 10, [], [(11.0, 0.0)], 106, 107)
    gap = Gap("BTC_USDT", "orderbook", 1, None, None, "cut")
    assert best.of([calm, gap, moved, empty]) == [
        gap,
        Quote("BTC_USDT", 9.0, 5.0, 11.0, 3.0, 9, 104, 105),
    ]


# The feed against the mock venue


venue = partial(feed_tap.venue, "mexc")


def feed_of(mock: MockVenue) -> Mexc:
    return Mexc(address=Address.under(mock.url, "mexc"))


def hear(mock: MockVenue, enough, **wanted) -> Heard:
    return feed_tap.hear(
        mock, lambda venue: Mexc(address=Address.under(venue.url, "mexc")), enough, **wanted
    )


def all_trades(mock: MockVenue, books: int = 0):
    return feed_tap.all_trades(mock, "mexc", books)


def truth_of(mock: MockVenue, symbol: str) -> list[tuple]:
    return feed_tap.truth_of(mock, "mexc", symbol)


def test_everything_that_is_sent_arrives_once():
    mock, market = venue(speed=1.0, trades=None)

    def ready(heard: Heard) -> bool:
        return len(heard.of(BookSnapshot)) == 2 and len(heard.trades()) > 400

    with mock:
        heard = hear(mock, all_trades(mock, books=2), meanwhile=standing(mock, ready))
        for symbol in market.listings:
            assert told(heard.trades(symbol)) == truth_of(mock, symbol)
            seen = places(rebuilt(heard.books(symbol)), tops(mock, symbol))
            # From the snapshot on, each state in its turn; changes below the best ten repeat one.
            assert sorted(set(seen)) == list(range(seen[0], seen[-1] + 1))
            assert seen == sorted(seen)
            ids = [one.update_id for one in heard.books(symbol)]
            assert ids == list(range(ids[0], ids[0] + len(ids)))
    assert heard.gaps() == []
    assert heard.of(Event) == []


def test_lost_changes_are_found_and_every_state_told_was_true():
    mock, market = venue(faults=Faults(seed=5, drop=0.03), speed=1.0, trades=None)

    def lost(heard: Heard) -> bool:
        return len(heard.of(BookSnapshot)) >= 2 and len(heard.gaps()) > 5

    with mock:
        heard = hear(mock, all_trades(mock, books=2), meanwhile=standing(mock, lost))
        dropped = {
            one["version"] for one in mock.ledger()["faults"] if one["stream"].startswith("depth")
        }
    begun = [one for one in heard.gaps() if one.to_time is None]
    assert 1 <= len(begun) <= len(dropped)
    assert all(one.missing >= 1 for one in begun)
    for symbol in market.listings:
        seen = places(rebuilt(heard.books(symbol)), tops(mock, symbol))
        assert seen == sorted(seen)
        check_pairs(heard.gaps(symbol))


def test_old_snapshots_and_refusals_cost_time_and_nothing_else(monkeypatch):
    monkeypatch.setitem(_rest.PAUSES, 403, (0.2, 0.2))
    faults = Faults(
        stale_snapshots=2, rest_errors={"503 /depth/": 1, "malformed /depth/": 1, "403 /depth/": 1}
    )
    mock, market = venue(faults=faults, speed=1.0, trades=None, rate=1_000, book_rate=50)
    with mock:
        heard = hear(mock, lambda said: all(len(said.books(one)) > 20 for one in market.listings))
    errors = heard.events("venue_error")
    assert 2 <= len(errors) <= 3, "a retry may meet the closed gate"
    assert any("403" in one.detail for one in errors)
    assert any("not JSON" in one.detail for one in errors)
    for symbol in market.listings:
        assert len(heard.of(BookSnapshot, symbol)) == 1
        places(rebuilt(heard.books(symbol)), tops(mock, symbol))


def test_a_cut_is_told_for_books_and_for_prices():
    mock, market = venue(speed=1.0, trades=None, rate=200, book_rate=100)
    cuts: list[int] = []

    def cut_once(heard: Heard) -> None:
        if not cuts and len(heard.trades()) > 60 and len(heard.of(BookSnapshot)) == 2:
            cuts.append(len(heard))
            mock.cut()

    def enough(heard: Heard) -> bool:
        after = Heard(heard[cuts[0] :]) if cuts else Heard()
        return len(after.trades()) > 60 and all(
            len(after.of(BookDelta, one)) > 5 for one in market.listings
        )

    with mock:
        heard = hear(mock, enough, meanwhile=cut_once)
        for symbol in market.listings:
            assert set(told(heard.trades(symbol))) <= set(truth_of(mock, symbol))
            places(rebuilt(heard.books(symbol)), tops(mock, symbol))
            for what in ("orderbook", "prices"):
                gaps = [one for one in heard.gaps(symbol) if one.what == what]
                assert [one.to_time is None for one in gaps] == [True, False]
                check_pairs(gaps)
    assert len(heard.events("reconnect")) == 1


def test_a_contract_that_ends_is_told(monkeypatch):
    monkeypatch.setattr("fxlab.collect.venues._snapshot_run.STATUS_EVERY", 0.05)
    mock, _ = venue(faults=Faults(delist=("ETH_USDT", 0.1)), speed=1.0, trades=None)
    with mock:
        heard = hear(mock, lambda said: bool(said.events("delisted")))
    (event,) = heard.events("delisted")
    assert (event.symbol, event.detail) == ("ETH_USDT", "status: offline")


# REST


def test_instruments_and_time():
    mock, _ = venue()

    async def ask():
        async with Mexc(address=Address.under(mock.url, "mexc")) as feed:
            return await feed.instruments(), await feed.server_time()

    with mock:
        found, clock = asyncio.run(ask())
    assert found["BTC_USDT"].price_decimals == 2
    assert found["BTC_USDT"].detail == {
        "contract_size": 1e-05,
        "quantity_decimals": 5,
        "inverse": False,
    }
    assert abs(clock - Clock().now()) < 60_000_000


class Answers:
    """Stands in for REST with answers that the mock would not give."""

    host = "api.mexc.com"

    def __init__(self, answer):
        self.answer = answer
        self.slow_down = [].append

    async def get(self, path, **parameters):  # noqa: D102
        del path, parameters
        return self.answer


@pytest.mark.parametrize(
    ("answer", "error", "words"),
    [
        ({"success": False, "code": 510, "message": "too frequent"}, VenueRefused, "fewer"),
        ({"success": False, "code": 500}, VenueUnavailable, "500"),
        ([], VenueUnavailable, "answers detail"),
        ({"success": True, "data": [{"symbol": "BTC_USDT"}]}, VenueUnavailable, "documented"),
        ({"success": True, "data": 7}, VenueUnavailable, "not as documented"),
    ],
)
def test_refusals_and_odd_answers_are_errors_in_words(answer, error, words):
    rest = Mexc()
    rest._rest = Answers(answer)
    with pytest.raises(error, match=words):
        asyncio.run(rest.instruments())


def test_an_inverse_contract_is_known_by_what_it_settles_in():
    rest = Mexc()
    entry = {
        "symbol": "BTC_USD",
        "baseCoin": "BTC",
        "quoteCoin": "USD",
        "settleCoin": "BTC",
        "contractSize": 100,
        "priceScale": 1,
        "volScale": 0,
        "state": 4,
    }
    rest._rest = Answers({"success": True, "data": [entry]})
    found = asyncio.run(rest.instruments())["BTC_USD"]
    assert found.status == "paused"
    assert found.detail == {"contract_size": 100.0, "quantity_decimals": 0, "inverse": True}


def test_the_newest_deal_is_the_newest_good_one():
    good = {"p": 1.5, "v": 2, "T": 1, "t": 1_700_000_000_000, "i": "7"}
    feed = Mexc()
    detail = {"contract_size": 1.0, "quantity_decimals": 0, "inverse": False}
    contract = Instrument("BTC_USDT", "BTC_USDT", 2, detail=detail)
    feed._rest = Answers({"success": True, "data": [good | {"v": 0}, good]})
    found = asyncio.run(feed.latest(contract, "prices"))
    assert (found.id, found.origin) == (7, "backfill")
    feed._rest = Answers({"success": True, "data": [good | {"v": 0}]})
    with pytest.raises(VenueUnavailable, match="deals/BTC_USDT not as documented"):
        asyncio.run(feed.latest(contract, "prices"))


def test_an_odd_listing_costs_no_other_and_says_why_it_cannot_be_recorded():
    good = {
        "symbol": "BTC_USDT", "baseCoin": "BTC", "quoteCoin": "USDT", "settleCoin": "USDT",
        "contractSize": 1, "priceScale": 1, "volScale": 0, "state": 0,
    }  # fmt: skip
    stateless = {key: value for key, value in good.items() if key != "state"}
    odd = [
        good | {"symbol": "ETH_USDT", "contractSize": 0},
        stateless | {"symbol": "SOL_USDT"},
        good | {"symbol": None},
        7,
    ]
    feed = Mexc()
    feed._rest = Answers({"success": True, "data": [odd[0], good, *odd[1:]]})
    found = asyncio.run(feed.instruments())
    reason = "its listing is not as documented: "
    assert {symbol: one.status for symbol, one in found.items()} == {
        "BTC_USDT": "trading",
        "ETH_USDT": f"{reason}contractSize 0.0 is not a positive number",
        "SOL_USDT": f"{reason}missing or unknown 'state'",
    }
