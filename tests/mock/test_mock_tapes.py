"""A recorded tape on every protocol: a recorder ends with what the tape says, spot or futures."""

from __future__ import annotations

import itertools
import json

import pytest
from collect_processes import eventually
from feed_tap import number_of
from mock_client import ask, converse
from test_mock_books import Kept

from fxlab import schema
from fxlab.mock import MockVenue, generated, recorded
from fxlab.mock._market import BookChange, MarketTrade, Truth

NOON = 1_735_732_800_000_000
SECONDS = 3
MERGED = 3
"""Changes that are one diff."""
SNAPSHOT_AT = 5
"""Diff in the middle of which the tape's snapshot was taken."""
VENUES = (
    "binance", "binance_futures", "bybit", "bybit_linear", "kraken", "mexc", "okx", "okx_swap",
)  # fmt: skip


def written(native, *, futures):
    """Return the lines of a tape, as Binance's spot or futures write them."""
    market = generated(["BTC_USDT"], seed=7, rate=60, book_rate=60, start=NOON)
    listing, truth = market.listings["BTC_USDT"], Truth(market)
    stream, scale = native.lower(), 3 if futures else 1  # futures leave out ids between diffs
    events = itertools.takewhile(
        lambda event: event.time < NOON + SECONDS * 1_000_000, market.events(NOON)
    )
    lines, waiting, diffs = [], [], 0
    shown = None if futures else 8  # decimals, zeros and all

    def levels(changes):
        return [[listing.price(price, shown), listing.quantity(qty, shown)]
                for price, qty in changes]  # fmt: skip

    def line(name, data):
        text = json.dumps({"stream": f"{stream}@{name}", "data": data}, separators=(",", ":"))
        lines.append(f"{len(lines)} {text}")

    for event in events:
        truth.add(event)
        ms = event.time // 1_000
        if isinstance(event, MarketTrade):
            ((price, quantity),) = levels([(event.price, event.quantity)])
            data = {"e": "trade", "E": ms, "T": ms, "s": native, "t": event.id, "p": price,
                    "q": quantity,                    "m": not event.bought}  # fmt: skip
            line("trade", data | ({"X": "MARKET"} if futures else {"M": True}))
        elif isinstance(event, BookChange):
            waiting.append(event)
            if diffs == SNAPSHOT_AT and len(waiting) == 1:
                bids, asks = truth.books["BTC_USDT"].top()
                data = {"lastUpdateId": event.id * scale, "bids": levels(bids),
                        "asks": levels(asks)}  # fmt: skip
                lines.append(f"{len(lines)} {json.dumps(data)}")
            if len(waiting) == MERGED:
                sides = [dict(itertools.chain(*(getattr(one, side) for one in waiting))).items()
                         for side in ("bids", "asks")]  # fmt: skip
                data = {"e": "depthUpdate", "E": ms, "s": native,
                        "U": waiting[0].first_id * scale, "u": event.id * scale,
                        "b": levels(sides[0]), "a": levels(sides[1])}  # fmt: skip
                more = {"T": ms, "pu": (waiting[0].first_id - 1) * scale} if futures else {}
                line("depth@0ms" if futures else "depth@100ms", data | more)
                waiting, diffs = [], diffs + 1
    return "\n".join(lines)


@pytest.fixture(scope="module", params=["spot", "futures"])
def tape(request, tmp_path_factory):
    path = tmp_path_factory.mktemp("tapes") / f"{request.param}.jsonl"
    futures = request.param == "futures"
    path.write_text(written("ETHUSD_PERP" if futures else "ETHUSDT", futures=futures))
    return path


@pytest.mark.parametrize("venue", VENUES)
def test_a_recorder_ends_with_what_the_tape_says(venue, tape, lab, unique):
    market = recorded(tape, retime=True)
    (symbol,) = market.listings
    assert symbol == ("ETHUSD_PERP" if tape.stem == "futures" else "ETH_USDT")
    with MockVenue(market, venues=[venue], listeners=2) as mock:
        collector = lab.collect(
            venue, symbol, url=mock.url, book_depth=10, settle=0.2, session_id=unique("tape")
        )
        assert mock.wait(120)
        truth, listing = mock.truth, market.listings[symbol]
        deals = truth.deals[symbol].frame()
        scales = 10**listing.price_decimals, 10**listing.quantity_decimals
        best = tuple(
            (price / scales[0], qty / scales[1])
            for side in truth.books[symbol].top(10)
            for price, qty in side
        )

        record = collector._watch._recorder.symbols[symbol]

        def known():
            book = record.book.book
            return tuple(book.bids.best(10) + book.asks.best(10))

        eventually(lambda: collector.status().trades == deals.height, "all trades came")
        eventually(lambda: known() == best, "the last diff came")
        session = collector.stop(120)
    assert (session.errors_count, session.gaps_count) == (0, 0)
    assert set(session.events()["event"]) == set()
    assert lab.verify(session.id).whole
    prices = session.prices(symbol, columns=["seq", "price", "volume", "trade_id"]).sort("trade_id")
    assert prices["price"].to_list() == deals["price"].to_list()
    assert prices["volume"].to_list() == deals["quantity"].to_list()
    assert sorted(map(number_of, prices["trade_id"])) == deals["id"].to_list()
    rows = session.orderbook(symbol)
    names = schema.book_levels()
    last = rows.select(names).row(-1)
    assert last == tuple(itertools.chain(*best))


@pytest.mark.parametrize(("venue", "api"), [("binance", "api/v3"), ("binance_futures", "fapi/v1")])
def test_the_diffs_of_a_tape_follow_its_snapshot_by_the_documented_rule(venue, api, tape):
    market = recorded(tape)
    (listing,) = market.listings.values()
    last = [one.id for one in market.events(market.start) if isinstance(one, BookChange)][-1]
    with MockVenue(market, venues=[venue], speed="max") as mock:
        snapshot = ask(mock, f"/{venue}/{api}/depth", symbol=listing.native, limit=1_000)
        path = f"/{venue}/stream?streams={listing.native.lower()}@depth@100ms"
        frames = converse(mock, path, [], lambda found: found and data(found[-1])["u"] == last)
        bids, asks = mock.truth.books[listing.symbol].top(1)
    book, diffs = Kept(snapshot, futures=venue == "binance_futures"), [*map(data, frames)]
    assert diffs[0]["u"] < snapshot["lastUpdateId"] < diffs[-1]["u"]
    assert {one["s"] for one in diffs} == {listing.native}
    for diff in diffs:
        book.follow(diff)
    best = [text for price, qty in (*bids, *asks)
            for text in (listing.price(price), listing.quantity(qty))]  # fmt: skip
    assert [float(one) for one in book.best] == [float(one) for one in best]


def test_a_stream_of_a_tape_is_sent_as_it_is_and_aggregates_are_made(tape):
    market = recorded(tape)
    (listing,) = market.listings.values()
    (depth,) = (one for one in listing.streams if "@depth" in one)
    venue = "binance_futures" if listing.futures else "binance"
    lines = tape.read_text().splitlines()
    wanted = [line.partition(" ")[2] for line in lines if f'"{depth}"' in line]
    with MockVenue(market, venues=[venue], speed="max") as mock:
        path = f"/{venue}/stream?streams={depth}"
        found = converse(mock, path, [], lambda frames: len(frames) == len(wanted))
    assert found == wanted
    ids = [one.id for one in market.events(market.start) if isinstance(one, MarketTrade)]
    with MockVenue(market, venues=[venue], speed="max") as mock:
        path = f"/{venue}/stream?streams={listing.native.lower()}@aggTrade"
        found = converse(mock, path, [], lambda frames: len(frames) == len(ids))
    assert [data(frame)["a"] for frame in found] == ids


def data(frame):
    return json.loads(frame)["data"]
