"""What every venue's feed promises, tried on each of them against the venue in the box."""

from __future__ import annotations

import asyncio

import feed_tap
import pytest
from feed_tap import Heard, check_pairs, places, rebuilt, standing, told, tops

from fxlab.collect.feed import BookSnapshot, Event, Instrument
from fxlab.collect.venues import open_feed
from fxlab.mock import Faults, MockVenue

SYMBOLS = ["BTC_USDT", "ETH_USDT"]


@pytest.fixture(
    params=[
        "binance",
        "binance_futures",
        "bybit",
        "bybit_linear",
        "kraken",
        "mexc",
        "okx",
        "okx_swap",
    ]
)
def name(request) -> str:
    """Return the name of a venue that both the collector and the mock speak."""
    return request.param


PERPETUAL = {"kind": "perpetual", "settle": "USDT", "contract_size": 1.0}
LISTED = {
    "binance": {"kind": "spot", "min_notional": 5.0},
    "binance_futures": {**PERPETUAL, "min_notional": 5.0},
    "bybit": {"kind": "spot", "min_notional": 5.0},
    "bybit_linear": {**PERPETUAL, "min_notional": 5.0},
    "kraken": {
        "kind": "spot", "min_notional": 0.5, "taker_bps": 40.0, "maker_bps": 25.0,
        "fee_tiers": [[0.0, 40.0, 25.0], [10_000.0, 35.0, 20.0]],
    },
    "mexc": {**PERPETUAL, "contract_size": 1e-05, "taker_bps": 4.0, "maker_bps": 1.0},
    "okx": {"kind": "spot"},
    "okx_swap": {**PERPETUAL, "contract_size": 0.01},
}  # fmt: skip
"""What a venue lists beside the sizes and currencies of an instrument."""


def venue(name: str, faults: Faults | None = None, *, trades: int | None = None) -> MockVenue:
    """Return a mock with a busy market; one without an end goes at its own pace."""
    speed = 1.0 if trades is None else "max"
    return feed_tap.venue(name, trades=trades, faults=faults, speed=speed)[0]


def hear(mock: MockVenue, name: str, enough, **wanted) -> Heard:
    """Return what the feed says until it is enough."""

    def feed(mock: MockVenue):
        return open_feed(name, url=mock.url)

    return feed_tap.hear(mock, feed, enough, symbols=SYMBOLS, **wanted)


def both_books(heard: Heard) -> bool:
    return len(heard.of(BookSnapshot)) >= 2


def busy(heard: Heard) -> bool:
    return len(heard.trades()) > 400 and all(len(heard.books(symbol)) > 3 for symbol in SYMBOLS)


def test_what_is_sent_arrives_once_in_its_order(name):
    mock = venue(name)
    with mock:
        until = feed_tap.all_trades(mock, name, books=2)
        heard = hear(mock, name, until, meanwhile=standing(mock, busy))
        for symbol in SYMBOLS:
            assert told(heard.trades(symbol)) == feed_tap.truth_of(mock, name, symbol)
            seen = places(rebuilt(heard.books(symbol)), tops(mock, symbol))
            assert seen == sorted(seen)
            feed_tap.check_follows(heard.books(symbol))
            if not name.startswith("binance"):
                # Nothing is merged: each state in its turn; changes below the best ten repeat one.
                assert sorted(set(seen)) == list(range(seen[0], seen[-1] + 1))
    assert heard.gaps() == []
    assert heard.of(Event) == []


def test_arrivals_never_run_backward_and_times_are_the_venues(name):
    mock = venue(name, trades=300)
    with mock:
        heard = hear(mock, name, feed_tap.all_trades(mock, name), book_depth=0)
    arrivals = [one.received for one in heard.trades()]
    assert arrivals == sorted(arrivals)
    for symbol in SYMBOLS:
        times = [one.time for one in heard.trades(symbol)]
        assert times == sorted(times)


def test_a_network_that_doubles_swaps_delays_and_cuts_leaves_nothing_untrue(name):
    faults = Faults(
        seed=9, drop=0.01, duplicate=0.1, swap=0.03, delay=0.03, delay_seconds=0.2, cut_every=1_500
    )
    mock = venue(name, faults)
    with mock:
        heard = hear(
            mock,
            name,
            lambda said: said.events("reconnect") and len(said.events("resync")) > 4,
        )
        for symbol in SYMBOLS:
            truth = feed_tap.truth_of(mock, name, symbol)
            assert set(told(heard.trades(symbol))) <= set(truth)
            places(rebuilt(heard.books(symbol)), tops(mock, symbol))
            for what in ("orderbook", "prices"):
                check_pairs([one for one in heard.gaps(symbol) if one.what == what])
    assert heard.events("reconnect")
    assert len(heard.events("resync")) > 2


def test_changes_of_a_book_that_are_lost_open_a_gap_that_a_snapshot_closes(name):
    mock = venue(name, Faults(seed=5, drop=0.03))
    with mock:
        lost = standing(mock, lambda heard: both_books(heard) and len(heard.gaps()) > 5)
        heard = hear(
            mock, name, lambda said: both_books(said) and len(said.gaps()) > 5, meanwhile=lost
        )
        for symbol in SYMBOLS:
            seen = places(rebuilt(heard.books(symbol)), tops(mock, symbol))
            assert seen == sorted(seen)
            check_pairs([one for one in heard.gaps(symbol) if one.what == "orderbook"])
    assert len(heard.events("resync")) >= 1


def test_garbage_is_set_aside_and_costs_no_trade(name):
    mock = venue(name, Faults(seed=2, garbage=0.1), trades=600)
    with mock:
        heard = hear(mock, name, feed_tap.all_trades(mock, name), book_depth=0)
        for symbol in SYMBOLS:
            truth = feed_tap.truth_of(mock, name, symbol)
            assert set(truth) <= set(told(heard.trades(symbol)))
    assert len(heard.events("quarantine")) > 20


def test_instruments_and_the_clock_are_known_before_anything_is_heard(name):
    mock = venue(name)

    async def ask() -> tuple[dict[str, Instrument], int | None]:
        async with open_feed(name, url=mock.url) as feed:
            return await feed.instruments(), await feed.server_time()

    with mock:
        known, now = asyncio.run(ask())
    assert set(SYMBOLS) <= set(known)
    for symbol in SYMBOLS:
        terms, base = dict(known[symbol].terms), symbol.removesuffix("_USDT")
        sizes = [terms.pop(size) for size in ("tick_size", "lot_size", "min_qty")]
        assert sizes == [0.01, 1e-05, 1e-05]
        assert (terms.pop("base"), terms.pop("quote")) == (base, "USDT")
        assert terms == LISTED[name]
    assert now is None or now > 1_500_000_000_000_000
