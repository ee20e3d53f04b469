"""Decimals of prices: the smallest number that writes all of them, and prices as whole ticks."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from fxlab.backtester.decimals import exact_ticks, find_decimals, with_price_ticks


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=50), st.integers(0, 8))
def test_decimals_write_every_price_exactly(whole, decimals):
    prices = pl.Series(np.array(whole) / 10.0**decimals)
    found = find_decimals(prices)
    assert found is not None
    assert found <= decimals
    ticks = with_price_ticks(pl.DataFrame({"price": prices}), found)["price_ticks"]
    assert (ticks.to_numpy() / 10.0**found == prices.to_numpy()).all()


def test_decimals_look_beyond_the_first_rows():
    prices = pl.Series([1.0] * 5_000 + [1.25])
    assert find_decimals(prices) == 2


def test_prices_on_no_grid_have_none():
    prices = pl.Series(np.random.default_rng(1).normal(100, 1, 50))
    assert find_decimals(prices) is None
    assert exact_ticks(prices) is None


@given(st.lists(st.integers(1, 10**7), min_size=1, max_size=50), st.integers(0, 8))
def test_one_pass_finds_decimals_and_ticks(whole, decimals):
    prices = pl.Series(np.array(whole) / 10.0**decimals)
    found = exact_ticks(prices)
    assert found is not None
    assert found[0] == find_decimals(prices)
    ticks = with_price_ticks(pl.DataFrame({"price": prices}), found[0])["price_ticks"]
    assert found[1].tolist() == ticks.to_list()


def test_one_pass_looks_beyond_the_first_rows_and_over_holes():
    found = exact_ticks(pl.Series([1.0] * 5_000 + [None, 1.25]))
    assert found is not None
    assert (found[0], found[1][-1]) == (2, 125)
    assert exact_ticks(pl.Series([1.0] * 5_000 + [np.pi])) is None


def test_ticks_that_are_there_are_kept():
    frame = pl.DataFrame({"price": [1.5], "price_ticks": [7]})
    assert with_price_ticks(frame, 1)["price_ticks"].to_list() == [7]
    assert "price_ticks" not in with_price_ticks(frame.select("price"), None).columns
