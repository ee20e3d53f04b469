"""Exact rolling values against plain arithmetic."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin import cross_targets

from fxlab import errors, indicators

ticks = st.lists(st.integers(6_000_000, 6_000_003), min_size=1, max_size=80)


@settings(max_examples=100, deadline=None)
@given(values=ticks, window=st.integers(1, 12))
def test_rolling_sum_is_exact(values, window):
    frame = pl.DataFrame({"price_ticks": values})
    got = frame.select(indicators.rolling_sum(window)).to_series().to_list()
    plain = [
        None if i < window - 1 else sum(values[i - window + 1 : i + 1]) for i in range(len(values))
    ]
    assert got == plain


@settings(max_examples=200, deadline=None)
@given(values=ticks, fast=st.integers(1, 6), extra=st.integers(1, 8))
def test_mean_cross_is_the_contract(values, fast, extra):
    frame = pl.DataFrame({"price_ticks": values})
    cross = indicators.mean_cross(fast, fast + extra, golden=1.0, death=0.0)
    got = frame.select(cross).to_series().to_list()
    assert got == cross_targets(values, fast, fast + extra)


def test_windows_whose_sums_would_overflow_are_refused():
    frame = pl.DataFrame({"price_ticks": [6_000_000_000_000_000] * 4})
    with pytest.raises(errors.InvalidParameter, match="64-bit"):
        frame.select(indicators.mean_cross(1_000_000, 2_000_000))
