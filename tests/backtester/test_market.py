"""Slices of a market, and the extremes of its blocks that the kernel leaps by."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from kernel_cases import KINDS, make

from fxlab.backtester._kernel import records
from fxlab.backtester._kernel.fast_path import BLOCK, PIECE
from fxlab.backtester._market_arrays import market_arrays, part

ROW_ARRAYS = ("time", "leg", "price", "book", "volume", "taker", "delay")


def one_leg(prices):
    count = len(prices)
    return market_arrays(1, np.arange(count), np.zeros(count, np.int64), np.array(prices, float))


def plainly(market):
    """Return (block, leg) -> low, high, last, bid, ask, book, worked out one row at a time."""
    found = {}
    for i in range(len(market.time)):
        low, high, last, bid, ask, book = found.get(
            (i // BLOCK, market.leg[i]), (np.inf, -np.inf, None, -np.inf, np.inf, -1)
        )
        price = market.price[i]
        number = market.book[i] if len(market.book) else -1
        if number >= 0:
            book = number
        if not np.isnan(price):
            alone = number < 0 or market.books["bad"][number]  # no book, or none to be trusted
            best_bid = price if alone else market.books["bid_price"][number][0]
            best_ask = price if alone else market.books["ask_price"][number][0]
            low, high, last = min(low, price), max(high, price), price
            bid, ask = np.fmax(bid, best_bid), np.fmin(ask, best_ask)
        found[i // BLOCK, market.leg[i]] = low, high, last, bid, ask, book
    return found


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**32 - 1),
    kind=st.sampled_from(KINDS),
    legs=st.integers(1, 3),
    rows=st.integers(1, 300),
)
def test_extremes_are_those_of_each_block_and_leg(seed, kind, legs, rows):
    market = make(seed, kind, legs, rows).rows.market
    blocks = 0 if legs == 1 and not len(market.book) else -(-rows // BLOCK)
    assert market.extremes.shape == (blocks, legs)
    plain = plainly(market)
    for block in range(len(market.extremes)):
        for leg in range(legs):
            found = market.extremes[block, leg]
            low, high, last, bid, ask, book = plain.get(
                (block, leg), (np.inf, -np.inf, None, -np.inf, np.inf, -1)
            )
            assert (found["low"], found["high"], found["book"]) == (low, high, book)
            if last is not None:
                assert (found["last"], found["bid"], found["ask"]) == (last, bid, ask)


@pytest.mark.parametrize("rows", [1, 2, 15, 16, 17, 127, 128, 129])
def test_ranges_of_one_leg_of_prices(rows):
    prices = np.random.default_rng(rows).permutation(rows) + 1.0
    market = one_leg(prices)
    assert market.ranges.shape == (2, -(-rows // PIECE))
    for number, (low, high) in enumerate(market.ranges.view(float).T):
        own = prices[number * PIECE : (number + 1) * PIECE]
        assert (low, high) == (own.min(), own.max())
    assert market.starts.tolist() == market.time[::PIECE].tolist()


def test_an_empty_market_has_extremes_too():
    assert one_leg([]).extremes.shape == (0, 1)
    assert one_leg([]).ranges.shape == (2, 0)


@pytest.mark.parametrize("kind", KINDS)
def test_a_part_shares_the_memory_and_the_books(kind):
    market = make(3, kind, 2, 200).rows.market
    some, _ = part(market, np.empty(0, records.DECISION), 40, 160)
    assert len(some.time) == 120
    assert some.books is market.books
    for name in ROW_ARRAYS:
        whole, own = getattr(market, name), getattr(some, name)
        assert own.tobytes() == whole[40:160].tobytes()
        assert not len(whole) or np.shares_memory(whole, own)


def test_rows_are_not_copied_and_there_is_always_a_book():
    prices = np.array([1.0, 2.0])
    market = market_arrays(1, np.arange(2), np.zeros(2, np.int64), prices)
    assert market.price is prices
    assert len(market.books) == 1  # so that the kernel may name the first


def test_rows_are_cut_with_their_decisions():
    decisions = np.zeros(4, records.DECISION)
    decisions["row"] = [0, 3, 4, 9]
    decisions["target"] = [0.1, 0.2, 0.3, 0.4]
    market = one_leg(np.arange(10) + 1.0)
    some, found = part(market, decisions, 3, 9)
    assert some.price.tolist() == [4.0, 5.0, 6.0, 7.0, 8.0, 9.0]
    assert found["row"].tolist() == [0, 1]
    assert found["target"].tolist() == [0.2, 0.3]
    assert part(market, decisions, 9, 10)[1]["row"].tolist() == [0]
    assert not len(part(market, decisions, 5, 5)[0].time)
    assert decisions["row"].tolist() == [0, 3, 4, 9]  # untouched
