"""The mock's Kraken, as a plain client of the documented protocol sees it."""

from __future__ import annotations

import json
import zlib

import pytest
from mock_client import ask, converse

from fxlab.mock import Faults, MockVenue, generated
from fxlab.mock._protocols.kraken import checksum, stamp


def venue(*, speed="max", faults=None, trades=400, **pace):
    market = generated(["BTC_USDT", "DOGE_USD"], rate=2_000, book_rate=400, trades=trades)
    return MockVenue(market, venues=["kraken"], speed=speed, faults=faults, **pace)


def subscribe(channel, *symbols, **params):
    return {
        "method": "subscribe",
        "params": {"channel": channel, "symbol": list(symbols), **params},
    }


def said(frames, **fields):
    """Return the frames that have these fields, with numbers as they were printed."""
    found = [json.loads(frame, parse_float=str, parse_int=str) for frame in frames]
    return [one for one in found if all(one.get(name) == value for name, value in fields.items())]


def count(number, **fields):
    return lambda frames: len(said(frames, **fields)) >= number


def crc(bids, asks):
    """Compute the checksum as the venue's guide says, from printed numbers."""
    best = sorted(asks.items(), key=lambda one: float(one[0]))[:10]
    best += sorted(bids.items(), key=lambda one: -float(one[0]))[:10]
    digits = [word.replace(".", "").lstrip("0") for level in best for word in level]
    return str(zlib.crc32("".join(digits).encode()))


def follow(sides, entry, depth):
    for name, worst in (("bids", min), ("asks", max)):
        side = sides.setdefault(name, {})
        for level in entry[name]:
            if float(level["qty"]):
                side[level["price"]] = level["qty"]
            else:
                # A level that the subscriber cannot know must not be taken away.
                del side[level["price"]]
        while len(side) > depth:
            del side[worst(side, key=float)]


@pytest.mark.parametrize("depth", [10, 25])
def test_books_prove_themselves_at_each_depth(depth):
    with venue() as mock:
        frames = converse(
            mock,
            "/kraken/v2",
            [subscribe("book", "BTC/USDT", depth=depth)],
            count(40, channel="book", type="update"),
        )
    (snapshot,) = said(frames, channel="book", type="snapshot")
    sides = {}
    for told in [snapshot, *said(frames, channel="book", type="update")]:
        (entry,) = told["data"]
        assert entry["symbol"] == "BTC/USDT"
        follow(sides, entry, depth)
        assert len(sides["bids"]) == len(sides["asks"]) == depth
        assert entry["checksum"] == crc(sides["bids"], sides["asks"])
        best = max(map(float, sides["bids"])), min(map(float, sides["asks"]))
        assert best[0] < best[1]


def test_a_new_subscription_begins_with_a_snapshot_that_fits():
    again = [
        subscribe("book", "BTC/USDT", depth=10),
        {"method": "unsubscribe", "params": {"channel": "book", "symbol": ["BTC/USDT"]}},
        subscribe("book", "BTC/USDT", depth=10),
    ]
    with venue(trades=4_000, until=0.1) as mock:
        # The market stands still until the second snapshot is there.
        def enough(frames):
            if len(said(frames, channel="book", type="snapshot")) < 2:
                return False
            mock.go_on()
            return len(said(frames[-20:], channel="book", type="update")) == 20

        frames = converse(
            mock,
            "/kraken/v2",
            again,
            enough,
        )
    books = said(frames, channel="book")
    starts = [place for place, one in enumerate(books) if one["type"] == "snapshot"]
    assert len(starts) == 2
    sides = {}
    for told in books[starts[1] :]:
        follow(sides, told["data"][0], 10)
        assert told["data"][0]["checksum"] == crc(sides["bids"], sides["asks"])
    (left,) = said(frames, method="unsubscribe")
    assert left["success"] is True


def test_trades_are_those_of_the_ledger():
    with venue() as mock:
        frames = converse(
            mock,
            "/kraken/v2",
            [subscribe("trade", "BTC/USDT")],
            count(400, channel="trade", type="update"),
        )
        rows = mock.truth.deals["BTC_USDT"].frame().rows()
    entries = [one["data"][0] for one in said(frames, channel="trade", type="update")]
    assert [
        (
            int(one["trade_id"]),
            one["timestamp"],
            float(one["price"]),
            float(one["qty"]),
            one["side"] == "buy",
        )
        for one in entries
    ] == [(number, stamp(time), *rest) for number, time, *rest in rows]
    assert {len(one["qty"].partition(".")[2]) for one in entries} == {5}


def test_the_last_trades_come_first_if_asked_for():
    with venue() as mock:
        trades = [subscribe("trade", "BTC/USDT")]
        converse(mock, "/kraken/v2", trades, count(400, channel="trade", type="update"))
        frames = converse(
            mock,
            "/kraken/v2",
            [subscribe("trade", "BTC/USDT", snapshot=True)],
            count(1, channel="trade", type="snapshot"),
        )
        last = mock.ledger()["symbols"]["BTC_USDT"]["last_id"]
    (told,) = said(frames, channel="trade")
    assert [int(one["trade_id"]) for one in told["data"]] == list(range(last - 49, last + 1))


@pytest.mark.parametrize(
    ("request_", "error"),
    [
        (subscribe("trade", "XYZ/USD"), "Currency pair not supported XYZ/USD"),
        (subscribe("book", "BTC/USDT", depth=11), "Subscription depth not supported"),
        (subscribe("trade", 17), "Currency pair not supported 17"),
        ({"method": "dance"}, "Unsupported method"),
        ({"method": "subscribe", "params": {}}, "Malformed request"),
        (
            {"method": "unsubscribe", "params": {"channel": "book", "symbol": ["BTC/USDT"]}},
            "Subscription Not Found",
        ),
        ("no JSON", "Malformed request"),
        ("[]", "Malformed request"),
    ],
)
def test_wrong_requests_get_the_venues_error(request_, error):
    with venue() as mock:
        frames = converse(mock, "/kraken/v2", [request_], count(1, success=False))
    (told,) = said(frames, success=False)
    assert told["error"] == error


def test_it_greets_and_answers_a_ping():
    with venue() as mock:
        frames = converse(mock, "/kraken/v2", [{"method": "ping"}], count(1, method="pong"))
    (status,) = said(frames, channel="status")
    assert status["data"][0]["system"] == "online"


def test_a_delisted_pair_is_told_and_cannot_be_subscribed():
    faults = Faults(delist=("DOGE_USD", 0.05))
    instruments = {"method": "subscribe", "params": {"channel": "instrument"}}
    with venue(faults=faults, speed=1.0, trades=None) as mock:
        frames = converse(
            mock,
            "/kraken/v2",
            [instruments, subscribe("trade", "DOGE/USD")],
            count(1, channel="instrument", type="update"),
        )
        refused = converse(
            mock, "/kraken/v2", [subscribe("trade", "DOGE/USD")], count(1, success=False)
        )
        pairs = ask(mock, "/kraken/0/public/AssetPairs")["result"]
    (snapshot,) = said(frames, channel="instrument", type="snapshot")
    assert {one["status"] for one in snapshot["data"]["pairs"]} == {"online"}
    (update,) = said(frames, channel="instrument", type="update")
    assert [(one["symbol"], one["status"]) for one in update["data"]["pairs"]] == [
        ("DOGE/USD", "delisted")
    ]
    assert said(refused, success=False)
    assert pairs["XDGUSD"]["status"] == "delisted"
    assert pairs["XDGUSD"]["wsname"] == "XDG/USD"
    assert pairs["XBTUSDT"]["status"] == "online"


def test_trades_of_the_past_are_paged_by_time():
    with venue() as mock:
        trades = [subscribe("trade", "BTC/USDT")]
        converse(mock, "/kraken/v2", trades, count(400, channel="trade", type="update"))
        rows = mock.truth.deals["BTC_USDT"].frame().rows()
        since = rows[100][1]
        path, pair = "/kraken/0/public/Trades", {"pair": "XBTUSDT"}
        newest = ask(mock, path, **pair, count=20)["result"]
        later = ask(mock, path, **pair, since=since * 1_000)["result"]
        unknown = ask(mock, path, pair="XYZ")
        second = ask(mock, "/kraken/0/public/Time")["result"]["unixtime"]
    assert [row[-1] for row in newest["XBTUSDT"]] == [row[0] for row in rows[-20:]]
    assert [row[-1] for row in later["XBTUSDT"]] == [row[0] for row in rows if row[1] > since]
    assert later["last"] == f"{rows[-1][1]}000"
    assert unknown["error"] == ["EQuery:Unknown asset pair"]
    assert rows[0][1] // 1_000_000 <= second <= rows[-1][1] // 1_000_000 + 60


def test_the_checksum_is_that_of_the_venues_guide():
    bids = [(452835, 10000000), (452834, 154582015), (452821, 10000000), (452810, 10000000)]
    bids += [(452803, 154592586), (452790, 7990000), (452776, 3310103), (452775, 30000000)]
    bids += [(452773, 154602737), (452766, 15445238)]
    asks = [(452852, 100000), (452864, 154571953), (452866, 154571109), (452896, 154560911)]
    asks += [(452902, 15890660), (452918, 154553491), (452947, 4454749), (452961, 35380000)]
    asks += [(452975, 9945542), (452995, 18772827)]
    assert checksum((bids, asks)) == 3310070434
