"""Sharpe ratios after many trials, against the examples printed in the papers."""

from __future__ import annotations

import math
from statistics import fmean

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab.backtester.metrics import _overfitting
from fxlab.backtester.metrics._overfitting import (
    NEVER_MOVED,
    NO_ROOM,
    NO_VARIANCE,
    deflate,
    effective_trials,
    expected_maximum_sharpe,
    minimum_track_record,
)
from fxlab.backtester.metrics._ratios import Moments, moments, probabilistic_sharpe
from fxlab.errors import InvalidInput, InvalidParameter

# Bailey and Lopez de Prado (2014), "The Deflated Sharpe Ratio", the numerical example: daily
# returns of five years (250 a year, 1,250 in all), an annualised Sharpe ratio of 2.5, and an
# annualised variance of 1/2 among the trials.
DAILY, AMONG = 2.5 / math.sqrt(250), 0.5 / 250


def deflated_sharpe(skew, kurtosis, trials):
    return probabilistic_sharpe(
        DAILY, 1_250, skew, kurtosis, expected_maximum_sharpe(trials, AMONG)
    )


def test_the_deflated_sharpe_ratio_of_the_paper():
    assert expected_maximum_sharpe(100, AMONG) == pytest.approx(0.1132, abs=5e-5)
    found = deflated_sharpe(-3, 10, trials=100)
    assert found == pytest.approx(0.9004, abs=5e-5)
    # to full precision, as the unit test of the package pypbo (github.com/esvhd/pypbo) has it
    assert found == pytest.approx(0.90039683444939034, rel=1e-12)
    assert expected_maximum_sharpe(100, 1) == pytest.approx(2.5306028932016846, rel=1e-12)


def test_how_many_trials_the_paper_would_have_forgiven():
    # ibid.: with 46 trials, or with 88 of normal returns, the ratio would have been 0.9505
    few = deflated_sharpe(-3, 10, trials=46)
    normal = deflated_sharpe(0, 3, trials=88)
    assert few == pytest.approx(0.9505, abs=5e-5)
    assert normal == pytest.approx(0.9505, abs=5e-5)


def test_the_minimum_track_records_of_the_paper():
    # Bailey and Lopez de Prado (2012), "The Sharpe Ratio Efficient Frontier": to trust at 95 %
    # that an annualised ratio of 2 is above 1 takes 2.73 years of daily normal returns, 2.83 of
    # weekly, 3.24 of monthly ones, and 4.99 of monthly hedge fund returns (skew -0.72, kurtosis
    # 5.78).
    def years(periods, skew=0.0, kurtosis=3.0, sharpe=2.0, benchmark=1.0):
        root = math.sqrt(periods)
        return minimum_track_record(sharpe / root, skew, kurtosis, benchmark / root) / periods

    assert [round(years(periods), 2) for periods in (250, 52, 12)] == [2.73, 2.83, 3.24]
    assert round(years(12, -0.72, 5.78), 2) == 4.99
    # to full precision, as the unit test of pypbo has them
    assert years(250) == pytest.approx(2.7311878017281761, rel=1e-12)
    assert years(52) == pytest.approx(2.8288335869452368, rel=1e-12)
    assert years(12, -0.72, 5.78, 3.0, 2.5) == pytest.approx(27.352920196040301, rel=1e-12)


def test_the_track_record_of_the_paper_s_hedge_fund():
    # ibid.: 24 monthly returns, Sharpe ratio 0.458, skew -2.448, kurtosis 10.164: 0.982 if they
    # were normal, 0.913 as they are; the 95 % that it takes are reached within three years.
    assert round(probabilistic_sharpe(0.458, 24, 0, 3), 3) == 0.982
    assert round(probabilistic_sharpe(0.458, 24, -2.448, 10.164), 3) == 0.913
    assert 24 < minimum_track_record(0.458, -2.448, 10.164) < 36


@given(
    st.floats(0.01, 2.0),
    st.floats(-0.5, 0.5),
    st.floats(3.0, 9.0),
    st.floats(0.0, 0.9),
)
def test_at_the_minimum_track_record_the_probability_is_the_confidence(s, skew, kurt, share):
    benchmark = share * s
    count = minimum_track_record(s, skew, kurt, benchmark)
    assert probabilistic_sharpe(s, count, skew, kurt, benchmark) == pytest.approx(0.95, abs=1e-9)


def test_no_track_record_is_long_enough_for_too_low_a_ratio():
    assert minimum_track_record(0.1, 0, 3, 0.1) == math.inf
    assert minimum_track_record(-0.1, 0, 3) == math.inf
    assert math.isnan(minimum_track_record(math.nan, 0, 3))
    assert math.isnan(minimum_track_record(0.1, 0, 3, math.nan))
    assert math.isnan(minimum_track_record(2.0, 1.0, 2.0, 0.5))  # 1 - 2 + 4 / 4: no room


def test_the_expected_maximum_is_what_simulation_gives():
    # The theorem is an approximation for many trials: within 1.5 % of the simulated mean.
    draws = np.random.default_rng(4).normal(0, 0.3, (4_000, 500)).max(axis=1)
    assert expected_maximum_sharpe(500, 0.09) == pytest.approx(draws.mean(), rel=0.015)


def test_one_trial_expects_nothing_and_more_expect_more():
    assert expected_maximum_sharpe(1, math.nan) == 0
    assert expected_maximum_sharpe(1, 4.0) == 0
    values = [expected_maximum_sharpe(1 + step / 10, 1.0) for step in range(200)]
    assert values == sorted(values)
    assert values[0] == 0
    assert math.isnan(expected_maximum_sharpe(5, math.nan))
    assert expected_maximum_sharpe(5, 0.0) == 0


@pytest.mark.parametrize("trials", [0, 0.99, -1, math.nan, math.inf])
def test_fewer_than_one_trial_is_refused(trials):
    with pytest.raises(InvalidParameter, match="1 or more; count every variant"):
        expected_maximum_sharpe(trials, 1.0)


def test_other_impossible_numbers_are_refused():
    with pytest.raises(InvalidParameter, match=r"variance=-0.1 is negative"):
        expected_maximum_sharpe(10, -0.1)
    with pytest.raises(InvalidInput, match="not finite"):
        deflate([[1.0, math.nan], [1.0, 2.0]], 2.0)


# Four columns without any correlation: a Hadamard matrix.
APART = np.array([[1, 1, 1], [-1, 1, -1], [1, -1, -1], [-1, -1, 1]], dtype=float)


def test_uncorrelated_trials_count_in_full_and_equal_ones_once():
    assert effective_trials(APART) == (pytest.approx(3), "")
    same = np.repeat(APART[:, :1], 5, axis=1) * [1, 2, 3, 4, 5]
    assert effective_trials(same) == (pytest.approx(1), "")


def test_two_pairs_of_equal_trials_by_hand():
    # correlations: 2 of 6 pairs are 1, so c = 1/3 and c + (1 - c) * 4 = 3
    returns = APART[:, [0, 0, 1, 1]] + 0.5
    assert effective_trials(returns) == (pytest.approx(3), "")


@given(st.integers(0, 2**32 - 1), st.integers(2, 30), st.integers(2, 9))
def test_effective_trials_agree_with_the_correlation_matrix(seed, rows, trials):
    rng = np.random.default_rng(seed)
    returns = rng.normal(size=(rows, trials)) + rng.normal(size=(rows, 1))
    matrix = np.corrcoef(returns.T)
    mean = matrix[np.triu_indices(trials, 1)].mean()
    expected = min(max(mean + (1 - mean) * trials, 1), trials)
    assert effective_trials(returns) == (pytest.approx(expected, abs=1e-9), "")


def test_trials_that_never_moved_were_not_tried():
    returns = np.column_stack([np.zeros(4), APART, np.full(4, 0.1)])
    assert effective_trials(returns) == (pytest.approx(3), "")
    assert effective_trials(returns[:, :2]) == (1.0, "")


def test_a_constant_return_is_no_movement_whatever_its_rounding():
    returns = np.column_stack([np.full(1_001, 0.1), np.resize(APART[:, 0] / 2, 1_001)])
    assert returns[:, 0].std() > 0  # the mean of equal numbers is not exact
    assert effective_trials(returns) == (1.0, "")
    assert deflate(returns, 1.0)[1]["reason"].to_list() == [NEVER_MOVED, ""]


@pytest.mark.parametrize(
    ("returns", "why"),
    [
        (np.zeros((9, 3)), "no trial ever moved"),
        (np.zeros((9, 0)), "no trial ever moved"),
        (np.ones((1, 3)), "fewer than two returns"),
        (np.ones((0, 3)), "fewer than two returns"),
    ],
)
def test_nothing_to_count_gives_nan_and_the_reason(returns, why):
    count, reason = effective_trials(returns)
    assert math.isnan(count)
    assert reason == why


@pytest.fixture
def returns():
    """Return 300 returns of 12 trials that share a part; the last never traded."""
    rng = np.random.default_rng(12)
    values = rng.standard_t(5, (300, 12)) * 0.01 + rng.normal(0, 0.005, (300, 1)) + 0.001
    values[:, -1] = 0.0
    return values


def plain_shape(values):
    mean = fmean(values)
    moments = [fmean((value - mean) ** power for value in values) for power in (2, 3, 4)]
    sharpe = mean / math.sqrt(moments[0] * len(values) / (len(values) - 1))
    return sharpe, moments[1] / moments[0] ** 1.5, moments[2] / moments[0] ** 2


def test_every_trial_is_deflated_by_the_formulas(returns):
    trials, _ = effective_trials(returns)
    maximum, table = deflate(returns, trials)
    shapes = [plain_shape(column) for column in returns.T[:-1].tolist()]
    among = np.var([shape[0] for shape in shapes], ddof=1)
    bar = expected_maximum_sharpe(trials, among)
    assert maximum == pytest.approx(bar)
    for row, (sharpe, skew, kurtosis) in zip(table.iter_rows(named=True), shapes, strict=False):
        shape = (row["sharpe"], row["skew"], row["kurtosis"])
        assert shape == pytest.approx((sharpe, skew, kurtosis))
        plain = probabilistic_sharpe(sharpe, 300, skew, kurtosis)
        assert row["probabilistic_sharpe"] == pytest.approx(plain)
        assert row["deflated_sharpe"] == pytest.approx(
            probabilistic_sharpe(sharpe, 300, skew, kurtosis, bar)
        )
        assert row["minimum_track_record"] == pytest.approx(
            minimum_track_record(sharpe, skew, kurtosis, bar)
        )
        assert not row["reason"]


def test_a_trial_of_many_has_the_same_bits_as_alone(returns):
    table = deflate(returns, 12)[1]
    for trial in range(11):
        alone = moments(returns[:, trial].copy())
        row = table.row(trial, named=True)
        assert (row["sharpe"], row["skew"], row["kurtosis"]) == (
            alone.sharpe,
            alone.skew,
            alone.kurtosis,
        )


def test_a_trial_that_never_moved_has_no_ratio_and_says_why(returns):
    row = deflate(returns, 11)[1].row(-1, named=True)
    assert row.pop("trial") == 11
    assert row.pop("reason") == NEVER_MOVED
    assert all(math.isnan(value) for value in row.values())


def test_the_trials_of_earlier_nights_deflate_more(returns):
    tonight, year = (deflate(returns, trials)[1] for trials in (12, 12 * 365))
    best = tonight["sharpe"].fill_nan(-1).arg_max()
    columns = ["deflated_sharpe", "minimum_track_record"]
    now, then = (table[columns].row(best) for table in (tonight, year))
    assert now[0] > then[0]
    assert now[1] < then[1]
    alike = np.repeat(returns[:, :1], 3, axis=1)  # no variance among them
    assert deflate(alike, 3)[0] == 0


def test_the_best_of_noise_is_seen_through():
    # 100 worthless trials: the best looks 99 % sure on its own, and is a coin toss after all.
    rng = np.random.default_rng(14)
    naive, deflated = [], []
    for _ in range(40):
        noise = rng.normal(size=(250, 100))
        table = deflate(noise, effective_trials(noise)[0])[1]
        best = table["sharpe"].arg_max()
        naive.append(table["probabilistic_sharpe"][best])
        deflated.append(table["deflated_sharpe"][best])
    assert fmean(naive) > 0.98
    assert fmean(deflated) == pytest.approx(0.5, abs=0.1)
    assert fmean(value > 0.95 for value in deflated) <= 0.05


def test_one_trial_alone_is_not_deflated_and_cannot_stand_for_others(returns):
    maximum, alone = deflate(returns[:, :1], 1)
    assert maximum == 0
    row = alone.row(0, named=True)
    assert row["deflated_sharpe"] == row["probabilistic_sharpe"]
    maximum, unknown = deflate(returns[:, :1], trials=50)
    assert math.isnan(maximum)
    assert unknown["reason"].to_list() == [NO_VARIANCE]
    assert unknown["probabilistic_sharpe"].is_not_nan().all()


def test_short_and_empty_matrices_say_why():
    _, short = deflate(np.ones((1, 2)), math.nan)
    assert short["reason"].to_list() == ["fewer than two returns"] * 2
    assert short["sharpe"].is_nan().all()
    maximum, empty = deflate(np.ones((5, 0)), math.nan)
    assert empty.height == 0
    assert math.isnan(maximum)


def test_a_shape_without_room_for_error_says_so():
    # 1 - skew * S + (kurtosis - 1) / 4 * S**2 = 1 - 2 + 1
    shape = Moments(9, 2.0, 1.0, 0.1, skew=1.0, kurtosis=2.0)
    row = _overfitting._judge([shape], 0.5).row(0, named=True)
    assert row["reason"] == NO_ROOM
    assert math.isnan(row["deflated_sharpe"])


def test_pieces_of_any_size_give_the_same_figures(returns, monkeypatch):
    _, whole = deflate(returns, 12)
    monkeypatch.setattr(_overfitting, "CELLS", 7)
    _, pieces = deflate(pl.DataFrame(returns), 12)
    for name in whole.columns:
        if name != "reason":
            left, right = (found[name].to_numpy() for found in (whole, pieces))
            assert left == pytest.approx(right, rel=1e-12, nan_ok=True)
