"""The mock's OKX, as a plain client of the documented protocol sees it."""

from __future__ import annotations

import json
from decimal import Decimal

import pytest
from mock_client import ask, converse

from fxlab.mock import Faults, MockVenue, _protocols, generated

PUBLIC, BUSINESS = "/okx/ws/v5/public", "/okx/ws/v5/business"
BOOK = {"channel": "books", "instId": "BTC-USDT"}
TRADES = {"channel": "trades-all", "instId": "BTC-USDT"}


def venue(*, speed="max", faults=None, trades=400, **pace):
    market = generated(["BTC_USDT", "ETH_USDT"], rate=2_000, book_rate=400, trades=trades)
    return MockVenue(market, venues=["okx", "okx_swap"], speed=speed, faults=faults, **pace)


def request(*topics, op="subscribe"):
    return {"op": op, "args": list(topics)}


def pushed(frames, topic):
    return [one for one in map(json.loads, frames) if "data" in one and one["arg"] == topic]


def answers(frames):
    return [one for one in map(json.loads, frames) if "event" in one]


def count(number, topic):
    return lambda frames: len(pushed(frames, topic)) >= number


@pytest.mark.parametrize(
    ("path", "native", "channel", "size"),
    [
        (BUSINESS, "BTC-USDT", "trades-all", "1"),
        (PUBLIC, "BTC-USDT", "trades", "1"),
        ("/okx_swap/ws/v5/business", "BTC-USDT-SWAP", "trades-all", "0.01"),
    ],
)
def test_trades_are_those_of_the_ledger(path, native, channel, size):
    topic = {"channel": channel, "instId": native}
    with venue() as mock:
        frames = converse(mock, path, [request(topic)], count(400, topic))
        rows = mock.truth.deals["BTC_USDT"].frame().rows()
    entries = [entry for one in pushed(frames, topic) for entry in one["data"]]
    assert {entry["instId"] for entry in entries} == {native}
    assert {entry.get("count") for entry in entries} == ({"1"} if channel == "trades" else {None})
    assert [
        (
            int(one["tradeId"]),
            int(one["ts"]) * 1_000,
            float(one["px"]),
            float(Decimal(one["sz"]) * Decimal(size)),
            one["side"] == "buy",
        )
        for one in entries
    ] == rows


def test_each_update_names_the_one_before_and_leads_from_book_to_book():
    with venue() as mock:
        frames = converse(mock, PUBLIC, [request(BOOK)], count(60, BOOK))
    first, *changes = pushed(frames, BOOK)
    assert (first["action"], {one["action"] for one in changes}) == ("snapshot", {"update"})
    told = [one["data"][0] for one in (first, *changes)]
    assert told[0]["prevSeqId"] == -1
    assert [one["prevSeqId"] for one in told[1:]] == [one["seqId"] for one in told[:-1]]
    leaps = {one["seqId"] - one["prevSeqId"] for one in told[1:]}
    assert len(leaps) > 2
    assert min(leaps) > 0
    sides = {name: {one[0]: one[1] for one in told[0][name]} for name in ("bids", "asks")}
    for change in told[1:]:
        assert change["bids"] or change["asks"]
        for name, side in sides.items():
            for price, size, *_ in change[name]:
                side[price] = size
                if size == "0":
                    del side[price]
            assert len(side) <= 400
        assert max(map(float, sides["bids"])) < min(map(float, sides["asks"]))


def test_a_new_subscription_of_one_book_brings_a_snapshot_again():
    requests = [request(BOOK), request(BOOK, op="unsubscribe"), request(BOOK)]

    def enough(frames):
        kinds = [one["action"] for one in pushed(frames, BOOK)]
        return kinds.count("snapshot") == 2 and kinds[-1] == "update"

    with venue(speed=1.0, trades=None) as mock:
        frames = converse(mock, PUBLIC, requests, enough)
    assert [one["event"] for one in answers(frames)] == ["subscribe", "unsubscribe", "subscribe"]
    assert all(one["arg"] == BOOK for one in answers(frames))


@pytest.mark.parametrize(
    ("wrong", "code"),
    [
        (request({"channel": "books", "instId": "XYZ-USDT"}), "60018"),
        (request({"channel": "tickers", "instId": "BTC-USDT"}), "60018"),
        (request(TRADES), "60018"),  # it is on the other path
        (request(BOOK, op="dance"), "60012"),
        (request({"channel": "books"}), "60012"),
        (request("books"), "60012"),
        (request(*[BOOK] * 2_000), "60012"),
        ({"op": "subscribe", "args": BOOK}, "60012"),
        ({"op": "subscribe"}, "60012"),
        ("no JSON", "60012"),
        ("[]", "60012"),
    ],
)
def test_wrong_requests_get_the_venues_error(wrong, code):
    with venue() as mock:
        frames = converse(mock, PUBLIC, [wrong], lambda frames: len(frames) == 1)
    (told,) = answers(frames)
    assert (told["event"], told["code"]) == ("error", code)
    assert told["msg"]


def test_it_answers_a_ping_and_tells_the_time():
    with venue() as mock:
        frames = converse(mock, PUBLIC, ["ping"], bool)
        (now,) = ask(mock, "/okx/api/v5/public/time")["data"]
    assert frames == ["pong"]
    assert int(now["ts"]) > 1_500_000_000_000


def test_a_pair_that_ends_is_listed_no_more():
    ended = {"channel": "trades-all", "instId": "ETH-USDT"}
    with venue(faults=Faults(delist=("ETH_USDT", 0.05)), speed=1.0, trades=None) as mock:
        converse(mock, BUSINESS, [request(TRADES)], count(300, TRADES))
        found = ask(mock, "/okx/api/v5/public/instruments", instType="SPOT")["data"]
        refused = converse(mock, BUSINESS, [request(ended)], answers)
    assert [one["instId"] for one in found] == ["BTC-USDT"]
    assert "ETH-USDT" in answers(refused)[0]["msg"]


def test_swaps_are_listed_with_the_size_of_their_contract():
    with venue() as mock:
        found = ask(mock, "/okx_swap/api/v5/public/instruments", instType="SWAP")["data"]
        wrong = ask(mock, "/okx_swap/api/v5/public/instruments", instType="SPOT")
    assert [(one["instId"], one["ctType"], one["ctVal"], one["ctMult"]) for one in found] == [
        ("BTC-USDT-SWAP", "linear", "0.01", "1"),
        ("ETH-USDT-SWAP", "linear", "0.01", "1"),
    ]
    assert wrong["code"] == "51000"


def test_swaps_have_marks_with_their_funding_open_interest_and_liquidations(monkeypatch):
    monkeypatch.setattr(_protocols, "FUNDING_US", 1_000_000)
    path, native = "/okx_swap/ws/v5/public", "BTC-USDT-SWAP"
    topics = [
        {"channel": name, "instId": native}
        for name in ("mark-price", "funding-rate", "open-interest")
    ]
    orders = {"channel": "liquidation-orders", "instType": "SWAP"}

    def enough(frames):
        return pushed(frames, orders) and all(len(pushed(frames, one)) > 1 for one in topics)

    with venue(speed=1.0, trades=None) as mock:
        frames = converse(mock, path, [request(*topics, orders)], enough)
        charged = ask(mock, "/okx_swap/api/v5/public/funding-rate-history", instId=native, before=0)
        told = {name: rows[0][2] for name, rows in mock.truth.channels.items()}
        spot = converse(mock, PUBLIC, [request(orders)], answers)
    marks, fundings, interest = ([one["data"][0] for one in pushed(frames, t)] for t in topics)
    assert marks[0]["markPx"] == told["mark"]["mark_price"]
    assert int(fundings[0]["fundingTime"]) > int(fundings[0]["ts"]) == int(marks[0]["ts"])
    assert interest[0]["oiCcy"] == told["open_interest"]["open_interest"]
    assert Decimal(interest[0]["oi"]) / 100 == Decimal(interest[0]["oiCcy"])
    times = [int(one["fundingTime"]) for one in charged["data"]]
    assert times == sorted(times, reverse=True)
    rates = {int(one["fundingTime"]): one["realizedRate"] for one in charged["data"]}
    first = fundings[0]
    assert rates.get(int(first["fundingTime"]), first["fundingRate"]) == first["fundingRate"]
    detail = pushed(frames, orders)[0]["data"][0]["details"][0]
    assert (detail["side"], detail["bkPx"]) == tuple(
        told["liquidations"][name] for name in ("side", "price")
    )
    assert answers(spot)[0]["code"] == "60018"


def test_trades_of_the_past_and_the_book_by_rest():
    market = "/okx/api/v5/market"
    with venue() as mock:
        converse(mock, BUSINESS, [request(TRADES)], count(400, TRADES))
        asked = {"instId": "BTC-USDT"}
        newest = ask(mock, f"{market}/trades", limit=20, **asked)["data"]
        last = mock.ledger()["symbols"]["BTC_USDT"]["last_id"]
        past = ask(mock, f"{market}/history-trades", type=1, after=last - 9, limit=500, **asked)
        (book,) = ask(mock, f"{market}/books", sz=5, **asked)["data"]
        unknown = ask(mock, f"{market}/trades", instId="XYZ-USDT")
    assert [int(one["tradeId"]) for one in newest] == list(range(last, last - 20, -1))
    assert [int(one["tradeId"]) for one in past["data"]] == list(range(last - 10, last - 110, -1))
    assert len(book["bids"]) == len(book["asks"]) == 5
    assert unknown["code"] == "51001"
