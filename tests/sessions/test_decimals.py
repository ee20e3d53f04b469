"""Decimals of prices: the smallest number that writes all of them, and prices as whole ticks."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab import errors
from fxlab._ticks import advice, find_decimals
from fxlab.backtester._frame_source import exact_ticks
from fxlab.backtester._source import with_price_ticks


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


@pytest.mark.parametrize("decimals", range(23))
def test_every_unit_of_price_has_its_grid(decimals):
    units = [12_345 + (k * 7) % 23 for k in range(400)]
    prices = pl.Series([float(f"{unit}e-{decimals}") for unit in units])
    found = exact_ticks(prices)
    assert found is not None
    assert found[0] == find_decimals(prices) == decimals
    assert found[1].tolist() == units
    assert (
        with_price_ticks(pl.DataFrame({"price": prices}), decimals)["price_ticks"].to_list()
        == units
    )
    mids = prices + float(f"5e-{decimals + 1}")
    if decimals < 22:
        assert find_decimals(mids) == decimals + 1


@pytest.mark.parametrize(
    "prices",
    [
        [np.pi, 2 * np.pi, 100 * np.e],
        [np.pi * 1e-9, np.e * 1e-9],
        [np.pi * 1e-40, np.e * 1e-40],
        [np.pi * 1e15, np.e * 1e17],
        [1.23456789012345e-25, 2.5e-25],
        [0.1, 123_456.789012345],
    ],
)
def test_the_advice_for_prices_on_no_grid_is_worked_out_from_them_and_holds(prices):
    series = pl.Series("price", prices)
    assert find_decimals(series) is None
    code = re.search(r"(\(?pl\.col.*\)\.round\(\d+\)|pl\.col.*\.round\(\d+\))", advice(series))
    assert code is not None, advice(series)
    mended = series.to_frame().select(eval(code[1], {"pl": pl}))["price"]  # noqa: S307 - our own words
    assert find_decimals(mended) is not None
    ratios = (mended / mended[0]) / (series / series[0])
    assert ratios.to_list() == pytest.approx([1.0] * len(prices), rel=1e-6)


def test_prices_too_far_apart_for_one_grid_are_told_so():
    assert "too far apart" in advice(pl.Series("price", [np.pi * 1e-9, np.e * 1e9]))


def test_units_that_floats_cannot_tell_apart_are_refused():
    frame = pl.DataFrame({"price": [1e9, 1e-9]})
    with pytest.raises(errors.InvalidTicks, match="2\\^53"):
        with_price_ticks(frame, 12)
