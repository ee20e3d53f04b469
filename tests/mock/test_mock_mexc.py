"""The mock's MEXC, as a plain client of the documented protocol sees it."""

from __future__ import annotations

import json

import pytest
from mock_client import ask, converse

from fxlab.mock import Faults, MockVenue, generated


def venue(*, speed="max", faults=None, trades=400, **pace):
    market = generated(["BTC_USDT", "ETH_USDT"], rate=2_000, book_rate=400, trades=trades)
    return MockVenue(market, venues=["mexc"], speed=speed, faults=faults, **pace)


def subscribe(channel, symbol="BTC_USDT"):
    return {"method": f"sub.{channel}", "param": {"symbol": symbol, "compress": False}}


def said(frames, channel):
    return [one for one in map(json.loads, frames) if one["channel"] == channel]


def count(number, channel):
    return lambda frames: len(said(frames, channel)) >= number


def test_deals_are_those_of_the_ledger_in_whole_contracts():
    with venue() as mock:
        frames = converse(mock, "/mexc/edge", [subscribe("deal")], count(400, "push.deal"))
        rows = mock.truth.deals["BTC_USDT"].frame().rows()
        (terms,) = [
            one
            for one in ask(mock, "/mexc/api/v1/contract/detail")["data"]
            if one["symbol"] == "BTC_USDT"
        ]
    entries = [entry for one in said(frames, "push.deal") for entry in one["data"]]
    assert all(type(one["v"]) is int for one in entries)
    assert [
        (
            int(one["i"]),
            one["t"] * 1_000,
            one["p"],
            round(one["v"] * terms["contractSize"], 5),
            one["T"] == 1,
        )
        for one in entries
    ] == rows
    assert (terms["priceScale"], terms["state"], terms["settleCoin"]) == (2, 0, "USDT")


def test_versions_leave_no_hole_and_fit_the_snapshot():
    # About 400 changes in all, of which the venue keeps 1,000: none is too old to be asked for.
    with venue(trades=2_000, until=0.5) as mock:
        snapshots = []

        def enough(frames):
            heard = said(frames, "push.depth")
            if len(heard) > 50 and not snapshots:
                snapshots.append(ask(mock, "/mexc/api/v1/contract/depth/BTC_USDT", limit=1_000))
                mock.go_on()
            return snapshots and heard[-1]["data"]["version"] > snapshots[0]["data"]["version"] + 50

        frames = converse(mock, "/mexc/edge", [subscribe("depth")], enough)
        commits = ask(mock, "/mexc/api/v1/contract/depth_commits/BTC_USDT/1000")["data"]
    changes = [one["data"] for one in said(frames, "push.depth")]
    versions = [one["version"] for one in changes]
    assert versions == list(range(versions[0], versions[0] + len(versions)))
    book = snapshots[0]["data"]
    assert versions[0] <= book["version"] < versions[-1]
    sides = {name: {level[0]: level[1] for level in book[name]} for name in ("bids", "asks")}
    for change in changes:
        if change["version"] <= book["version"]:
            continue
        for name, side in sides.items():
            for price, contracts, _ in change[name]:
                side[price] = contracts
                if not contracts:
                    del side[price]
        assert max(sides["bids"]) < min(sides["asks"])
    kept = {one["version"]: one for one in commits}
    assert all(kept[one["version"]] == one for one in changes)


def test_a_book_that_changed_unheard_has_a_later_version():
    path = "/mexc/api/v1/contract/depth/BTC_USDT"
    with venue(speed=1.0, trades=None) as mock:
        first = converse(mock, "/mexc/edge", [subscribe("depth")], count(3, "push.depth"))
        # Deals alone: the book goes on without a listener.
        converse(mock, "/mexc/edge", [subscribe("deal")], count(100, "push.deal"))
        between = ask(mock, path)["data"]["version"]
        second = converse(mock, "/mexc/edge", [subscribe("depth")], count(3, "push.depth"))
    last = said(first, "push.depth")[-1]["data"]["version"]
    again = said(second, "push.depth")[0]["data"]["version"]
    assert last < between < again


@pytest.mark.parametrize(
    "request_",
    [
        subscribe("deal", "XYZ_USDT"),
        subscribe("candles"),
        {"method": "dance.deal", "param": {"symbol": "BTC_USDT"}},
        {"method": 17},
        {"method": "sub.deal", "param": {}},
        "no JSON",
        "[]",
    ],
)
def test_wrong_requests_get_the_venues_error(request_):
    with venue() as mock:
        frames = converse(mock, "/mexc/edge", [request_], count(1, "rs.error"))
    assert len(frames) == 1


def test_it_acknowledges_and_answers_a_ping():
    requests = [{"method": "ping"}, subscribe("deal"), subscribe("depth")]
    with venue() as mock:
        frames = converse(mock, "/mexc/edge", requests, count(1, "rs.sub.depth"))
        now = ask(mock, "/mexc/api/v1/contract/ping")["data"]
    assert said(frames, "rs.sub.deal")[0]["data"] == "success"
    assert said(frames, "pong")[0]["data"] <= now


def test_who_unsubscribes_hears_no_more():
    leave = {"method": "unsub.deal", "param": {"symbol": "BTC_USDT"}}
    requests = [subscribe("deal"), leave, subscribe("depth")]
    with venue(speed=1.0, trades=None) as mock:
        frames = converse(mock, "/mexc/edge", requests, count(20, "push.depth"))
    place = next(at for at, one in enumerate(frames) if "rs.unsub.deal" in one)
    assert not said(frames[place:], "push.deal")


def test_old_snapshots_are_older_than_any_change():
    path = "/mexc/api/v1/contract/depth/BTC_USDT"
    with venue(faults=Faults(stale_snapshots=1)) as mock:
        old, new = (ask(mock, path, limit=5)["data"] for _ in range(2))
    assert new["version"] - old["version"] == 1_000
    assert len(new["bids"]) == len(new["asks"]) == 5


def test_a_delisted_contract_is_offline():
    with venue(faults=Faults(delist=("ETH_USDT", 0.05)), speed=1.0, trades=None) as mock:
        converse(mock, "/mexc/edge", [subscribe("deal")], count(300, "push.deal"))
        states = {
            one["symbol"]: one["state"] for one in ask(mock, "/mexc/api/v1/contract/detail")["data"]
        }
        refused = converse(
            mock, "/mexc/edge", [subscribe("deal", "ETH_USDT")], count(1, "rs.error")
        )
    assert states == {"BTC_USDT": 0, "ETH_USDT": 3}
    assert "ETH_USDT" in said(refused, "rs.error")[0]["data"]


def test_the_newest_deals_by_rest():
    with venue() as mock:
        converse(mock, "/mexc/edge", [subscribe("deal")], count(400, "push.deal"))
        found = ask(mock, "/mexc/api/v1/contract/deals/BTC_USDT", limit=30)["data"]
        last = mock.ledger()["symbols"]["BTC_USDT"]["last_id"]
        unknown = ask(mock, "/mexc/api/v1/contract/deals/XYZ_USDT")
    assert [int(one["i"]) for one in found] == list(range(last, last - 30, -1))
    assert unknown["code"] == 1001
