"""Rows of single symbols become one market: their order, and what a run reads of them."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxlab import errors
from fxlab.backtester._feeds import Needs, SymbolChunk
from fxlab.backtester._kernel.records import BOOK
from fxlab.backtester._market_arrays import merged
from fxlab.backtester.execution import Latency

UTC = pl.Datetime("us", "UTC")
PLAIN = Needs(lookback=0, columns=frozenset())


def piece(times, leg=0, *, first=0, quotes=False, **columns):
    """Return rows of one leg; a price says whose row it is and which."""
    count = len(times)
    prices = [100.0 * (leg + 1) + number for number in range(count)]
    frame = pl.DataFrame(
        {
            "timestamp": pl.Series(times, dtype=pl.Int64).cast(UTC),
            "seq": pl.Series(range(count), dtype=pl.Int64),
            "price": pl.Series(prices, dtype=pl.Float64),
            **columns,
        }
    )
    return SymbolChunk(f"S{leg}", leg, frame, first, 0, quotes)


def books(times):
    found = np.zeros(len(times), BOOK)
    found["time"] = times
    found["bid_price"][:, 0] = np.arange(len(times)) + 0.5
    return found


moments = st.lists(st.integers(0, 9), max_size=12).map(sorted)


@settings(deadline=None)
@given(ticks=st.lists(moments, min_size=1, max_size=3), shown=st.lists(moments, max_size=3))
def test_rows_stand_in_the_order_of_time_leg_and_kind(ticks, shown):
    legs = 3
    pieces = [piece(times, leg) for leg, times in enumerate(ticks)]
    beside = [(leg, books(times)) for leg, times in enumerate(shown)]
    market = merged(legs, pieces, beside, PLAIN)
    plain = [
        (t, leg, 0, 100.0 * (leg + 1) + n) for leg, ts in enumerate(ticks) for n, t in enumerate(ts)
    ]
    plain += [(t, leg, 1, n) for leg, times in enumerate(shown) for n, t in enumerate(times)]
    plain.sort()
    assert market.time.tolist() == [row[0] for row in plain]
    assert market.leg.tolist() == [row[1] for row in plain]
    for i, (time, _, kind, number) in enumerate(plain):
        if kind == 0:
            assert market.price[i] == number
            assert not len(market.book) or market.book[i] == -1
        else:
            assert np.isnan(market.price[i])
            book = market.books[market.book[i]]
            assert (book["time"], book["bid_price"][0]) == (time, number + 0.5)
    for each in pieces:
        assert market.price[each.place].tolist() == each.own["price"].to_list()


def test_one_piece_is_the_market_and_is_not_copied():
    only = piece([1, 2, 3])
    market = merged(1, [only], [], PLAIN)
    assert only.place is None
    assert np.shares_memory(market.price, only.frame["price"].to_numpy())
    assert market.leg.tolist() == [0, 0, 0]


def test_rows_in_front_are_looked_back_on_only():
    market = merged(2, [piece([1, 2, 3], first=2), piece([0, 5], 1, first=1)], [], PLAIN)
    assert market.time.tolist() == [3, 5]
    assert market.price.tolist() == [102.0, 201.0]


@pytest.mark.parametrize("legs", [1, 2])
def test_a_run_carries_only_what_it_reads(legs):
    columns = {
        "volume": [1.0, None],
        "side": ["buy", None],
        "received_at": pl.Series([5, 9]).cast(UTC),
        "bid_price_1": [1.0, 2.0],
    }
    pieces = [piece([1, 2], leg, **columns) for leg in range(legs)]
    nothing = merged(legs, pieces, [], PLAIN)
    for name in ("book", "volume", "taker", "delay"):
        assert not len(getattr(nothing, name)), name
    queue = merged(legs, pieces, [], Needs(0, frozenset(), books=True, queue=True))
    assert queue.volume.tolist() == [1.0] * legs + [0.0] * legs
    assert queue.taker.tolist() == [1] * legs + [0] * legs
    assert not len(queue.delay)
    assert not len(queue.book)  # these are trades: the book in their rows is the one before
    measured = merged(legs, pieces, [], Needs(0, frozenset(), latency=Latency.measured("1us")))
    assert measured.delay.tolist() == [5] * legs + [8] * legs
    assert not len(measured.volume)


def test_takers_are_known_by_the_side_if_there_is_one():
    needs = Needs(0, frozenset(), books=True, queue=True)
    volume = [1.0] * 4
    sides = pl.Series(["sell", "buy", None, "?"])
    for kind in (pl.String, pl.Categorical):
        found = merged(1, [piece([1, 2, 3, 4], volume=volume, side=sides.cast(kind))], [], needs)
        assert found.taker.tolist() == [-1, 1, 0, 0]
    assert merged(1, [piece([1], volume=[2])], [], needs).taker.tolist() == [0]


@pytest.mark.parametrize("legs", [1, 2])
def test_quotes_bring_a_book_in_each_row(legs):
    pieces = [
        piece([1, 2], leg, quotes=True, bid_price_1=[leg + 0.25, leg + 0.75], volume=[1.0, 1.0])
        for leg in range(legs)
    ]
    market = merged(legs, pieces, [], Needs(0, frozenset(), books=True, queue=True))
    for leg in range(legs):
        own = market.book[market.leg == leg]
        assert market.books["bid_price"][own, 0].tolist() == [leg + 0.25, leg + 0.75]
        assert market.books["time"][own].tolist() == [1, 2]
    assert not len(market.volume)  # a quote is no trade
    ignored = merged(legs, pieces, [], PLAIN)
    assert not len(ignored.book)


def test_quotes_and_trades_with_books_stand_side_by_side():
    quotes = piece([1, 2], 0, quotes=True, bid_price_1=[7.0, 8.0])
    trades = piece([1, 2], 1, volume=[3.0, 4.0])
    needs = Needs(0, frozenset(), books=True, queue=True)
    market = merged(2, [quotes, trades], [(1, books([1]))], needs)
    assert market.time.tolist() == [1, 1, 1, 2, 2]
    assert market.leg.tolist() == [0, 1, 1, 0, 1]
    assert market.volume.tolist() == [0.0, 3.0, 0.0, 0.0, 4.0]
    shown = [market.books["bid_price"][book, 0] if book >= 0 else None for book in market.book]
    assert shown == [7.0, None, 0.5, 8.0, None]


@pytest.mark.parametrize(
    ("columns", "offset", "words"),
    [
        ({}, "0s", "S0 has ticks without received_at.*give a fixed latency"),
        ({"received_at": pl.Series([5, None]).cast(UTC)}, "0s", "without received_at"),
        ({"received_at": pl.Series([9, 1]).cast(UTC)}, "0s", "S0: 1 of 2 ticks were received"),
        ({"received_at": pl.Series([0, 0]).cast(UTC)}, "1us", "clock_offset"),
    ],
)
def test_a_latency_that_was_not_measured_is_refused(columns, offset, words):
    needs = Needs(0, frozenset(), latency=Latency.measured(offset))
    with pytest.raises(errors.InvalidParameter, match=words):
        merged(1, [piece([1, 2], **columns)], [], needs)


def test_a_clock_that_was_behind_can_be_mended():
    needs = Needs(0, frozenset(), latency=Latency.measured("2us"))
    late = piece([1, 2], received_at=pl.Series([0, 0]).cast(UTC))
    assert merged(1, [late], [], needs).delay.tolist() == [1, 0]


def test_everything_that_can_change_a_result_is_hashed():
    assert Needs(0, None, queue=True).hashed is None
    assert Needs(0, frozenset({"x"})).hashed == {"x"}
    measured = Needs(0, frozenset({"x"}), latency=Latency.measured())
    assert measured.hashed == {"x", "received_at"}
    queue = Needs(0, frozenset(), books=True, queue=True)
    assert {"volume", "side", "bid_price_1", "ask_qty_10"} <= queue.hashed
