"""Searches of the fast path against numpy and against the plain reading of what they look for."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxlab.backtester._kernel import fast_path

ROWS = 300

search = settings(max_examples=200, deadline=None)
prices = st.integers(0, 2**32 - 1).map(
    lambda seed: 100.0 + np.random.default_rng(seed).integers(-20, 21, ROWS) / 8
)
stretches = st.tuples(st.integers(0, ROWS - 1), st.integers(1, ROWS)).map(
    lambda pair: (pair[0], min(pair[0] + pair[1], ROWS))
)


@search
@given(prices=prices, stretch=stretches, scale=st.sampled_from([1e-100, 1e-9, 1.0, 1e9, 1e97]))
def test_extremes_of_a_stretch_are_those_of_its_rows(prices, stretch, scale):
    begin, end = stretch
    prices = prices * scale
    ranges = np.zeros((2, -(-ROWS // fast_path.PIECE)), np.int64)
    fast_path.find_ranges(prices, ranges)
    wanted = prices[begin:end].min(), prices[begin:end].max()
    assert fast_path.stretch_extremes(prices, ranges, begin, end) == wanted


@search
@given(
    steps=st.lists(st.integers(0, 3), min_size=1, max_size=80),
    moment=st.integers(-1, 250),
    data=st.data(),
)
def test_the_first_row_at_a_moment_is_found(steps, moment, data):
    time = np.cumsum(steps).astype(np.int64)
    begin = data.draw(st.integers(0, len(time) - 1))
    end = data.draw(st.integers(begin + 1, len(time)))
    wanted = min(max(int(np.searchsorted(time, moment)), begin), end)
    starts = time[:: fast_path.PIECE].copy()
    assert fast_path.first_at(time, starts, moment, begin, end) == wanted
    assert fast_path.first_at.py_func(time, starts, moment, begin, end) == wanted
    assert fast_path.first_at(time, starts, moment, end, end) == end


@search
@given(
    prices=prices,
    stretch=stretches,
    share=st.sampled_from([1.0, -0.7, 1e-9, 1e-14, 1e-16, -1e-15]),
    fallen=st.sampled_from([1.0, 0.9, 0.02]),
)
def test_the_first_row_of_the_deepest_drawdown_is_found(prices, stretch, share, fallen):
    # A position worth a tiny share of the account: many equities are one float, or have one
    # drawdown, and the first of them counts.
    begin, end = stretch
    capital = 1e6
    qty = capital * share / 100.0
    cash = capital * fallen - qty * prices[0]
    peak = capital * 1.1
    totals = 0.0 + (cash + qty * prices[begin:end])
    drawdowns = totals / peak - 1.0
    wanted = begin + int(drawdowns.argmin())
    given_ = (prices, begin, end, 0.0, cash, qty, peak, totals.min())
    assert fast_path.first_as_deep(*given_) == wanted
    assert fast_path.first_as_deep.py_func(*given_) == wanted


@pytest.mark.parametrize("bits", [1, 2**62, 2**63 - 2**52])
def test_a_float_of_the_same_bits(bits):
    from fxlab.backtester._kernel.compiled import float_of

    assert float_of(bits) == np.array([bits]).view(np.float64)[0]
