"""The mock's Bybit, as a plain client of the documented protocol sees it."""

from __future__ import annotations

import json

import pytest
from mock_client import ask, converse

from fxlab.mock import Faults, MockVenue, generated

SPOT, LINEAR = "/bybit/v5/public/spot", "/bybit_linear/v5/public/linear"
TRADES, BOOK = "publicTrade.BTCUSDT", "orderbook.50.BTCUSDT"


def venue(*, speed="max", faults=None, trades=400, **pace):
    market = generated(["BTC_USDT", "ETH_USDT"], rate=2_000, book_rate=400, trades=trades)
    names = ["bybit", "bybit_linear"]
    return MockVenue(market, venues=names, speed=speed, faults=faults, **pace)


def request(*topics, op="subscribe"):
    return {"op": op, "args": list(topics), "req_id": "7"}


def pushed(frames, topic):
    return [one for one in map(json.loads, frames) if one.get("topic") == topic]


def answers(frames):
    return [one for one in map(json.loads, frames) if "op" in one]


def count(number, topic):
    return lambda frames: len(pushed(frames, topic)) >= number


@pytest.mark.parametrize(("path", "uuid"), [(SPOT, False), (LINEAR, True)])
def test_trades_are_those_of_the_ledger(path, uuid):
    with venue() as mock:
        frames = converse(mock, path, [request(TRADES)], count(400, TRADES))
        rows = mock.truth.deals["BTC_USDT"].frame().rows()
    entries = [entry for one in pushed(frames, TRADES) for entry in one["data"]]
    ids = [int(one["i"][-12:], 16) if uuid else int(one["i"]) for one in entries]
    assert {len(one["i"]) == 36 for one in entries} == {uuid}
    assert [
        (number, one["T"] * 1_000, float(one["p"]), float(one["v"]), one["S"] == "Buy")
        for number, one in zip(ids, entries, strict=True)
    ] == rows


def test_update_ids_rise_by_one_and_lead_from_book_to_book():
    with venue() as mock:
        frames = converse(mock, SPOT, [request(BOOK)], count(60, BOOK))
    first, *changes = pushed(frames, BOOK)
    assert (first["type"], {one["type"] for one in changes}) == ("snapshot", {"delta"})
    numbers = [one["data"]["u"] for one in (first, *changes)]
    assert numbers == list(range(numbers[0], numbers[0] + len(numbers)))
    sides = {name: dict(first["data"][name]) for name in "ba"}
    for change in changes:
        assert change["data"]["b"] or change["data"]["a"]
        for name, side in sides.items():
            for price, size in change["data"][name]:
                side[price] = size
                if size == "0":
                    del side[price]
            assert len(side) <= 50
        assert max(map(float, sides["b"])) < min(map(float, sides["a"]))


def test_who_subscribes_later_gets_the_state_of_that_moment():
    with venue(speed=1.0, trades=None) as mock:
        first = converse(mock, SPOT, [request(BOOK)], count(5, BOOK))
        second = converse(mock, SPOT, [request(BOOK)], count(2, BOOK))
    last, snapshot, change = pushed(first, BOOK)[-1], *pushed(second, BOOK)[:2]
    assert snapshot["type"] == "snapshot"
    assert last["data"]["u"] <= snapshot["data"]["u"] == change["data"]["u"] - 1


def test_a_new_subscription_of_one_topic_brings_a_snapshot_again():
    requests = [request(BOOK, TRADES), request(BOOK, op="unsubscribe"), request(BOOK)]

    def enough(frames):
        kinds = [one["type"] for one in pushed(frames, BOOK)]
        return kinds.count("snapshot") == 2 and kinds[-1] == "delta"

    with venue(speed=1.0, trades=None) as mock:
        frames = converse(mock, SPOT, requests, enough)
    assert [one["op"] for one in answers(frames)] == ["subscribe", "unsubscribe", "subscribe"]


@pytest.mark.parametrize(
    "wrong",
    [
        request("publicTrade.XYZUSDT"),
        request("tickers.BTCUSDT"),
        request("orderbook.7.BTCUSDT"),
        request(*[TRADES] * 11),
        request(TRADES, op="dance"),
        {"op": "subscribe", "args": TRADES},
        {"op": "subscribe"},
        "no JSON",
        "[]",
    ],
)
def test_wrong_requests_get_the_venues_error(wrong):
    with venue() as mock:
        frames = converse(mock, SPOT, [wrong], lambda frames: len(frames) == 1)
    (told,) = answers(frames)
    assert told["success"] is False
    assert told["ret_msg"]


def test_it_acknowledges_and_answers_a_ping():
    with venue() as mock:
        frames = converse(
            mock, SPOT, [{"op": "ping"}, request(BOOK)], lambda said: len(answers(said)) == 2
        )
        now = ask(mock, "/bybit/v5/market/time")["result"]
    assert [(one["op"], one["ret_msg"]) for one in answers(frames)] == [
        ("ping", "pong"),
        ("subscribe", "subscribe"),
    ]
    assert now["timeNano"].startswith(now["timeSecond"])


def test_a_pair_that_ends_is_listed_no_more():
    with venue(faults=Faults(delist=("ETH_USDT", 0.05)), speed=1.0, trades=None) as mock:
        converse(mock, SPOT, [request(TRADES)], count(300, TRADES))
        found = ask(mock, "/bybit/v5/market/instruments-info", category="spot")["result"]["list"]
        refused = converse(mock, SPOT, [request("publicTrade.ETHUSDT")], answers)
    assert [one["symbol"] for one in found] == ["BTCUSDT"]
    assert "ETHUSDT" in answers(refused)[0]["ret_msg"]


def test_contracts_are_listed_in_pages():
    path, cursor, seen = "/bybit_linear/v5/market/instruments-info", None, []
    with venue() as mock:
        while cursor != "":
            more = {"cursor": cursor.replace("%3D", "=")} if cursor else {}
            page = ask(mock, path, category="linear", limit=1, **more)["result"]
            cursor = page["nextPageCursor"]
            seen += [(one["symbol"], one["contractType"]) for one in page["list"]]
    assert seen == [("BTCUSDT", "LinearPerpetual"), ("ETHUSDT", "LinearPerpetual")]


def test_the_newest_trades_and_the_book_by_rest():
    market = "/bybit/v5/market"
    with venue() as mock:
        converse(mock, SPOT, [request(TRADES)], count(400, TRADES))
        asked = {"category": "spot", "symbol": "BTCUSDT"}
        found = ask(mock, f"{market}/recent-trade", limit=100, **asked)["result"]["list"]
        book = ask(mock, f"{market}/orderbook", limit=5, **asked)["result"]
        last = mock.ledger()["symbols"]["BTC_USDT"]["last_id"]
        unknown = ask(mock, f"{market}/recent-trade", category="spot", symbol="XYZUSDT")
        other = ask(mock, f"{market}/recent-trade", category="linear", symbol="BTCUSDT")
    assert [int(one["execId"]) for one in found] == list(range(last, last - 60, -1))
    assert len(book["b"]) == len(book["a"]) == 5
    assert (unknown["retCode"], other["retCode"]) == (10001, 10001)
