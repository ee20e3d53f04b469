"""The formulas of a return series against published values and against numpy."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab.backtester.metrics._ratios import (
    ROUNDING,
    moments,
    probabilistic_sharpe,
    quantiles,
    tail_ratio,
)

# The series of empyrical's own regression tests (quantopian/empyrical, tests/test_stats.py), in
# percent, and the values that they state for 252 periods a year.
MIXED = np.array([1.0, 10.0, -4.0, 2.0, 3.0, 2.0, 1.0, -10.0]) / 100
POSITIVE = np.array([1.0, 2.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0, 1.0]) / 100
NEGATIVE = np.array([0.0, -6.0, -7.0, -1.0, -9.0, -2.0, -6.0, -8.0, -5.0]) / 100
YEAR = math.sqrt(252)

returns = st.lists(
    st.floats(-0.5, 0.5, allow_subnormal=False).filter(lambda r: r == 0 or abs(r) > 1e-9),
    min_size=2,
    max_size=60,
).map(np.array)


@pytest.mark.parametrize(
    ("series", "sharpe", "sortino"),
    [
        (MIXED, 1.7238613961706866, 2.605531251673693),
        (POSITIVE, 52.915026221291804, math.nan),  # empyrical says inf: nothing was lost
        (NEGATIVE, -24.406808633910085, -13.532743075043401),
    ],
)
def test_sharpe_and_sortino_are_those_that_empyrical_states(series, sharpe, sortino):
    found = moments(series)
    assert found.sharpe * YEAR == pytest.approx(sharpe, rel=1e-12)
    assert found.sortino * YEAR == pytest.approx(sortino, rel=1e-12, nan_ok=True)


@given(returns)
def test_moments_are_the_textbook_ones(series):
    found = moments(series)
    if np.ptp(series) <= 2 * ROUNDING:
        assert found.spread <= 2 * ROUNDING
        return
    assert found.mean == pytest.approx(np.mean(series), abs=1e-15)
    assert found.spread == pytest.approx(np.std(series, ddof=1), rel=1e-9)
    if np.ptp(series) < 1e-6:
        return  # cubes of differences that are themselves roundings
    z = (series - series.mean()) / series.std()
    assert found.skew == pytest.approx(np.mean(z**3), rel=1e-6, abs=1e-9)
    assert found.kurtosis == pytest.approx(np.mean(z**4), rel=1e-6)


@pytest.mark.parametrize("value", [0.01, -0.01, 0.1 + 0.2, 1e-12])
@pytest.mark.parametrize("count", [2, 3, 10, 1_441])
def test_equal_returns_have_no_spread_whatever_their_mean_rounds_to(value, count):
    found = moments(np.full(count, value))
    assert found.spread == 0.0
    assert math.isnan(found.sharpe)
    assert found.downside == pytest.approx(max(-value, 0.0))


@pytest.mark.parametrize("growth", [1e-3, -1e-3, 1e-9, 0.0, 0.2])
@pytest.mark.parametrize("leverage", [1e-3, 1.0, 50.0])
@pytest.mark.parametrize("price", [1e-9, 100.0, 1e9])
def test_returns_that_differ_by_roundings_have_no_ratio(growth, leverage, price):
    # Equity grows by the same share each period; only floats make its returns differ.
    prices = price * (1 + growth) ** np.arange(1, 201)
    cash = 1e4 * (1 - leverage) * (1 + growth) ** np.arange(1, 201)
    equity = cash + 1e4 * leverage / price * prices
    series = equity[1:] / equity[:-1] - 1
    found = moments(series)
    assert found.spread == 0.0
    assert math.isnan(found.sharpe)
    assert math.isnan(found.skew)
    if growth >= 0:
        assert math.isnan(found.sortino)
        assert math.isnan(tail_ratio(series)) or growth > 0


def test_a_loss_that_is_a_rounding_is_no_loss():
    assert math.isnan(moments(np.array([0.01, 0.02, -1.1e-16])).sortino)
    assert moments(np.array([0.01, 0.02, -1e-9])).sortino == pytest.approx(0.01 / 1e-9 * 3**0.5)
    assert math.isnan(tail_ratio(np.array([-1.1e-16] * 20 + [0.01] * 20)))


def test_small_deviations_that_are_real_keep_their_ratio():
    found = moments(np.array([1e-3, 1e-3 + 1e-11, 1e-3 - 1e-11]))
    assert found.sharpe == pytest.approx(1e8, rel=1e-4)


@pytest.mark.parametrize("count", [0, 1])
def test_fewer_than_two_returns_have_no_moments(count):
    found = moments(np.full(count, 0.01))
    assert found.count == count
    assert all(math.isnan(x) for x in (found.mean, found.spread, found.skew, found.sortino))


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=80).map(np.array))
def test_quantiles_are_numpys(values):
    shares = (0.0, 0.05, 0.5, 0.95, 1.0)
    assert quantiles(values, shares) == pytest.approx(np.quantile(values, shares), abs=1e-9)


def test_tail_ratio_by_hand():
    assert tail_ratio(np.linspace(-0.02, 0.04, 21)) == pytest.approx(0.037 / 0.017)
    assert math.isnan(tail_ratio(np.zeros(10)))


def test_normal_moments_have_skew_zero_and_kurtosis_three():
    found = moments(np.random.default_rng(1).normal(size=200_000))
    assert (found.skew, found.kurtosis) == (pytest.approx(0, abs=0.03), pytest.approx(3, abs=0.06))


def test_probabilistic_sharpe_is_one_half_at_its_benchmark():
    assert probabilistic_sharpe(0.3, 100, -1.0, 6.0, benchmark=0.3) == 0.5
    assert math.isnan(probabilistic_sharpe(1.0, 100, 3.0, 3.0))  # no variance is below zero
