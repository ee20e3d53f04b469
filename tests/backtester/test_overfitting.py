"""The probability of overfitting: published values, closed forms, a plain twin, edges."""

from __future__ import annotations

import math
import tracemalloc
from itertools import combinations
from statistics import NormalDist, fmean, stdev

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab.backtester.metrics import _overfitting
from fxlab.backtester.metrics._overfitting import probability_of_overfitting
from fxlab.errors import InvalidInput, InvalidParameter


def r_normals(seed, count):
    """Return what R's ``set.seed(seed); rnorm(count)`` returns (Mersenne Twister, inversion).

    R fills the generator's state with a linear congruential sequence after 50 warming steps, and
    turns two 32-bit draws into one normal: R-core, src/main/RNG.c and src/nmath/snorm.c.
    """
    state, word = [], seed
    for step in range(50 + 625):
        word = (69069 * word + 1) % 2**32
        if step >= 51:
            state.append(word)
    twister = np.random.MT19937()
    inner = {"key": np.array(state, dtype=np.uint32), "pos": 624}
    twister.state = {"bit_generator": "MT19937", "state": inner}
    draws = twister.random_raw(2 * count) * 2.3283064365386963e-10
    uniform = (np.floor(2**27 * draws[::2]) + draws[1::2]) / 2**27
    return np.array([NormalDist().inv_cdf(value) for value in uniform])


def test_the_published_generator_is_reproduced():
    # set.seed(42); rnorm(3), as printed in countless R tutorials
    assert r_normals(42, 3) == pytest.approx([1.37095845, -0.56469817, 0.36312841], abs=1e-8)


def reversed_line(found):
    """Return intercept and adjusted R squared of in-sample on out-of-sample, as R's lm(pairs)."""
    inside, outside = found.splits["in_sample"].to_numpy(), found.splits["out_of_sample"].to_numpy()
    _slope, intercept = np.polyfit(outside, inside, 1)
    count = len(inside)
    return intercept, 1 - (1 - found.r_squared) * (count - 1) / (count - 2)


def test_the_vignette_of_the_r_package_pbo_to_its_printed_digits():
    # CRAN package pbo 1.3.5 (M. Barry), vignette "Using the PBO package": 100 trials of 2,400
    # returns, all with mean 0, 8 blocks, Sharpe ratio over a risk-free 3 % a year. It prints
    #   p_bo 1.0000000   slope -0.0030456   ar^2 0.9700000   p_loss 1.0000000
    # where its "slope" is the first coefficient, the intercept, of in-sample on out-of-sample.
    returns = r_normals(765, 100 * 2_400).reshape(100, 2_400).T
    returns = returns * (252**-0.5 / returns.std(axis=0, ddof=1))
    returns -= returns.mean(axis=0)
    found = probability_of_overfitting(returns - 0.03 / 252, blocks=8)
    intercept, adjusted = reversed_line(found)
    assert found.pbo == 1.0
    assert found.probability_of_loss == 1.0
    assert f"{intercept:.7f}" == "-0.0030456"
    assert f"{adjusted:.2f}" == "0.97"
    assert found.slope == pytest.approx(-0.998, abs=5e-4)


def test_the_unit_test_of_the_r_package_pbo():
    # tests/testthat/test_pbo_function.R of the same package: set.seed(852), 40 trials of 200
    # returns, 4 blocks; phi in (0.49, 0.51), "slope" in (0.19, 0.20), ar2 in (-0.24, -0.22),
    # below_threshold in (0.49, 0.51), 6 splits.
    returns = r_normals(852, 40 * 200).reshape(200, 40)
    found = probability_of_overfitting(returns - 0.03 / 252, blocks=4)
    intercept, adjusted = reversed_line(found)
    assert found.splits.height == 6
    assert found.pbo == 0.5
    assert 0.19 < intercept < 0.20
    assert -0.24 < adjusted < -0.22
    assert found.probability_of_loss == 0.5


def test_three_trials_by_hand():
    # Means of the four blocks: A 4 4 0 0, B 0 0 4 4, C 1 1 1 1. Sample {1, 2} chooses A, which is
    # last of three in {3, 4}: rank 1 / 4; {3, 4} chooses B likewise. In the four other samples A
    # and B tie at 2; A comes first and shares ranks 2 and 3 out of sample: 2.5 / 4.
    blocks = np.array([[4, 0, 1], [4, 0, 1], [0, 4, 1], [0, 4, 1]], dtype=float)
    found = probability_of_overfitting(np.repeat(blocks, 2, axis=0), blocks=4, metric="mean")
    assert found.splits["trial"].to_list() == [0, 0, 0, 0, 0, 1]
    assert found.splits["relative_rank"].to_list() == [0.25, *[0.625] * 4, 0.25]
    assert found.logits == pytest.approx(
        [math.log(r / (1 - r)) for r in (0.25, *[0.625] * 4, 0.25)]
    )
    assert found.pbo == pytest.approx(2 / 6)
    assert found.splits["in_sample"].to_list() == [4, 2, 2, 2, 2, 4]
    assert found.splits["out_of_sample"].to_list() == [0, 2, 2, 2, 2, 0]
    assert (found.slope, found.intercept) == pytest.approx((-1, 4))
    assert found.r_squared == pytest.approx(1)
    assert found.probability_of_loss == 0


def test_what_is_won_in_sample_is_lost_outside_where_all_means_are_zero():
    # The compensation effect of Bailey et al. (2014), "Pseudo-Mathematics and Financial
    # Charlatanism": if every trial's whole mean is 0, one half is minus the other.
    returns = np.random.default_rng(1).integers(-999, 1_000, (64, 30)).astype(float)
    returns -= returns.mean(axis=0)
    found = probability_of_overfitting(returns, blocks=8, metric="mean")
    assert found.pbo == found.probability_of_loss == 1
    assert (found.slope, found.intercept) == pytest.approx((-1, 0), abs=1e-9)


@pytest.mark.parametrize("edge", [0.0, 0.3, 0.8])
def test_two_trials_have_a_closed_form(edge):
    # One trial is better by `edge` on average. Each half of T rows picks it with probability
    # p = Phi(edge * sqrt(T) / 2), the halves are independent: expected PBO = 2 p (1 - p).
    # 1,500 matrices; the standard error is 0.01 at most, the tolerance four of them.
    rng = np.random.default_rng(7)
    rows, values = 8, []
    for _ in range(1_500):
        returns = rng.normal([0, edge], size=(rows, 2))
        values.append(probability_of_overfitting(returns, blocks=4, metric="mean").pbo)
    p = NormalDist().cdf(edge * math.sqrt(rows) / 2)
    assert fmean(values) == pytest.approx(2 * p * (1 - p), abs=0.04)


def test_noise_is_a_coin_toss():
    # 80 matrices of an even number of trials: expected value exactly 1/2; the values spread by
    # about 0.2, so the mean of 80 has a standard error of 0.025; the tolerance is four of them.
    rng = np.random.default_rng(11)
    values = [
        probability_of_overfitting(rng.normal(size=(160, 20)), blocks=8).pbo for _ in range(80)
    ]
    assert stdev(values) < 0.3
    assert fmean(values) == pytest.approx(0.5, abs=0.1)


def test_a_truly_better_trial_is_found():
    returns = np.random.default_rng(3).normal(size=(1_440, 100))
    returns[:, 42] += 0.2
    found = probability_of_overfitting(returns)
    assert found.splits.height == math.comb(16, 8) == 12_870
    assert found.pbo < 0.01
    assert found.probability_of_loss < 0.01
    assert (found.splits["trial"] == 42).mean() > 0.9


# The plain twin: lists, one split at a time, the formulas as the paper writes them.


def twin_score(values, metric):
    if metric == "mean":
        return fmean(values)
    if len(set(values)) == 1:
        return math.copysign(math.inf, values[0]) if values[0] else 0.0
    return fmean(values) / stdev(values)


def twin(returns, blocks, metric):
    rows, trials = len(returns), len(returns[0])
    edges = [rows * block // blocks for block in range(blocks + 1)]
    found = []
    for sample in combinations(range(blocks), blocks // 2):
        halves = ([], [])
        for block in range(blocks):
            halves[block not in sample].extend(returns[edges[block] : edges[block + 1]])
        inside, outside = (
            [twin_score([row[trial] for row in half], metric) for trial in range(trials)]
            for half in halves
        )
        best = max(range(trials), key=lambda trial, scores=inside: scores[trial])
        below = sum(score < outside[best] - 1e-9 for score in outside)
        equal = sum(
            abs(score - outside[best]) <= 1e-9 or score == outside[best] for score in outside
        )
        rank = (below + (equal + 1) / 2) / (trials + 1)
        found.append((best, inside[best], outside[best], rank, math.log(rank / (1 - rank))))
    return found


@st.composite
def matrices(draw):
    """Small matrices with trials that stand still, wholly or for a while, and equal trials."""
    blocks = draw(st.sampled_from([2, 4, 6]))
    rows = draw(st.integers(2 * blocks, 3 * blocks + 1))
    trials = draw(st.integers(2, 6))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    returns = rng.normal(0.0, 0.01, (rows, trials))
    returns[:, draw(st.integers(0, trials - 1))] = returns[:, 0]
    quiet = draw(st.integers(0, trials - 1))
    returns[: draw(st.integers(0, rows)), quiet] = 0.0
    returns[0, (quiet + 1) % trials] = 0.03  # something always moves
    return returns, blocks


@given(matrices(), st.sampled_from(["sharpe", "mean"]))
def test_the_fast_way_agrees_with_the_plain_twin(case, metric):
    returns, blocks = case
    found = probability_of_overfitting(returns, blocks, metric)
    expected = twin(returns.tolist(), blocks, metric)
    for row, other in zip(found.splits.iter_rows(), expected, strict=True):
        assert row[1:4] == pytest.approx(other[1:4], rel=1e-9, abs=1e-12)
        assert row[4] == pytest.approx(other[4], rel=1e-9, abs=1e-12)
    logits = [row[4] for row in expected]
    assert found.pbo == pytest.approx(fmean(logit <= 1e-12 for logit in logits))
    assert found.probability_of_loss == pytest.approx(fmean(row[2] < 0 for row in expected))


def test_the_same_bits_for_any_piece_size_order_in_memory_and_frame(monkeypatch):
    returns = np.random.default_rng(5).normal(size=(50, 12))
    whole = probability_of_overfitting(returns, blocks=8).splits
    for other in (np.asfortranarray(returns), returns.tolist(), pl.DataFrame(returns)):
        assert probability_of_overfitting(other, blocks=8).splits.equals(whole)
    for cells in (1, 12 * 7):
        monkeypatch.setattr(_overfitting, "CELLS", cells)
        assert probability_of_overfitting(returns, blocks=8).splits.equals(whole)


def test_neither_the_order_nor_the_size_of_the_trials_matters():
    rng = np.random.default_rng(6)
    returns = rng.normal(size=(64, 9))
    order = rng.permutation(9)
    plain = probability_of_overfitting(returns, blocks=8)
    mixed = probability_of_overfitting(returns[:, order] * 4, blocks=8)
    assert [int(order[trial]) for trial in mixed.splits["trial"]] == plain.splits["trial"].to_list()
    assert (mixed.pbo, mixed.slope) == pytest.approx((plain.pbo, plain.slope))


def test_work_memory_does_not_grow_with_rows_or_splits():
    returns = np.random.default_rng(8).normal(size=(40_000, 50))  # 16 MB
    tracemalloc.start()
    try:
        probability_of_overfitting(returns)
        assert tracemalloc.get_traced_memory()[1] < 32 * 2**20
    finally:
        tracemalloc.stop()


def test_equal_trials_tell_nothing_apart():
    returns = np.repeat(np.random.default_rng(9).normal(size=(48, 1)), 37, axis=1)
    found = probability_of_overfitting(returns, blocks=6)
    assert set(found.logits) == {0.0}
    assert found.pbo == 1


def test_a_trial_that_rests_ranks_between_winners_and_losers():
    returns = np.zeros((8, 3))
    returns[:, 1] = [1, 2, 1, 2, 1, 2, 1, 2]
    returns[:, 2] = -returns[:, 1]
    found = probability_of_overfitting(returns[:, [0, 2]], blocks=4)
    assert found.splits["trial"].to_list() == [0] * 6  # not trading is better than losing
    assert found.splits["out_of_sample"].to_list() == [0.0] * 6
    assert set(probability_of_overfitting(returns, blocks=4).splits["trial"]) == {1}


def test_a_half_without_any_spread_leaves_no_line_and_says_so():
    returns = np.random.default_rng(2).normal(size=(8, 2))
    returns[:, 1] = 0.1
    found = probability_of_overfitting(returns, blocks=4)
    assert found.pbo == 0
    assert math.isnan(found.slope)
    assert found.notes["slope"] == _overfitting.NO_SPREAD


@pytest.mark.parametrize("metric", ["sharpe", "mean"])
def test_a_ruined_trial_is_never_chosen_from_its_ruin_on(metric):
    returns = np.full((16, 2), -0.01) * np.array([[1.0, 1.0], [2.0, 1.0]] * 8)
    returns[:8, 1] = 9.0, 8.0, 9.0, 8.0, 9.0, 8.0, 9.0, 8.0
    returns[8:, 1] = -1.0, *[0.0] * 7  # won a lot, lost it all, and no loss shows after that
    splits = probability_of_overfitting(returns, blocks=4, metric=metric).splits
    # Blocks 0 and 1 alone do not know of the ruin; every other half does.
    assert splits["trial"].to_list() == [1, 0, 0, 0, 0, 0]
    assert splits["out_of_sample"][0] == -math.inf


def test_a_trial_that_moves_by_roundings_stands_still():
    noise = np.random.default_rng(3).choice([-1.1e-16, 0.0, 1.1e-16], size=(64, 1))
    returns = np.hstack([noise, np.random.default_rng(4).normal(-0.01, 0.001, size=(64, 1))])
    splits = probability_of_overfitting(returns, blocks=4).splits
    assert splits["in_sample"].to_list() == [0.0] * 6


def test_equally_good_choices_leave_no_line_and_say_so():
    found = probability_of_overfitting(np.tile([[1.0, 0.0], [2.0, 1.0]], (8, 1)), blocks=8)
    assert found.pbo == 0
    assert math.isnan(found.slope)
    assert found.notes["intercept"] == _overfitting.EQUALLY_GOOD


def test_a_line_without_anything_to_explain_has_no_r_squared():
    # The sample with the good first block chooses trial 0, the other trial 1; both then reach 0.
    found = probability_of_overfitting([[2.0, 0], [4, 0], [0, 1], [0, 2]], blocks=2, metric="mean")
    assert (found.slope, found.intercept) == (0, 0)
    assert math.isnan(found.r_squared)
    assert found.notes == {"r_squared": _overfitting.EQUALLY_GOOD}


@pytest.mark.parametrize(
    ("returns", "why"),
    [
        (np.ones((100, 1)), "1 trials: nothing was chosen"),
        (np.ones((100, 0)), "0 trials: nothing was chosen"),
        (np.ones((31, 3)), "31 returns are fewer than two a block (16 blocks)"),
        (np.zeros((100, 3)), "no trial ever moved"),
    ],
)
def test_too_little_gives_nan_and_the_reason(returns, why):
    found = probability_of_overfitting(returns)
    names = ("pbo", "slope", "intercept", "r_squared", "probability_of_loss")
    assert all(math.isnan(getattr(found, name)) for name in names)
    assert all(found.notes[name].startswith(why) for name in names)
    assert found.splits.height == len(found.logits) == 0


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"blocks": 7}, "blocks=7 must be an even number"),
        ({"blocks": 1}, "blocks=1 must be an even number"),
        ({"blocks": 0}, "blocks=0 must be an even number"),
        ({"blocks": True}, "blocks=True must be an even number"),
        ({"blocks": 24}, "blocks=24 give 2,704,156 splits"),
        ({"metric": "sharp"}, "did you mean 'sharpe'"),
        ({"metric": "x"}, "give 'sharpe' or 'mean'"),
    ],
)
def test_options_out_of_range_are_refused(options, why):
    with pytest.raises(InvalidParameter, match=why):
        probability_of_overfitting(np.ones((64, 3)), **options)


def test_what_is_no_matrix_of_numbers_is_refused():
    with pytest.raises(InvalidInput, match=r"shape \(5,\)"):
        probability_of_overfitting(np.ones(5))
    with pytest.raises(InvalidInput, match="not numbers"):
        probability_of_overfitting([["a", "b"]])
    for bad in (math.nan, math.inf):
        returns = np.ones((70_000, 4))
        returns[69_999, 2] = bad
        with pytest.raises(InvalidInput, match=f"return {bad} of trial 2 in row 69999"):
            probability_of_overfitting(returns)
