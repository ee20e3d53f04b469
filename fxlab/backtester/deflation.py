"""Sharpe ratios after many trials: the best of pure noise is already good.

A sweep of 100 worthless strategies has a best one, and its Sharpe ratio is about 2.5 standard
deviations above zero. So the benchmark of a chosen trial is not zero but the maximum that chance
alone would reach, and the track record must be long enough to tell the two apart.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from fxlab.backtester.ratios import Moments, probabilistic_sharpe
from fxlab.backtester.trial_returns import Floats, as_matrix, column_moments, row_chunks
from fxlab.errors import InvalidParameter, did_you_mean

METHODS: Final = ("correlation", "eigenvalues")
TOO_FEW: Final = "fewer than two returns"
NEVER_MOVED: Final = "the trial never moved, or by the same return in every period"
RUINED: Final = "the trial lost everything: there is no return on nothing"
NO_VARIANCE: Final = "fewer than two trials have no variance among them; give variance="
NO_ROOM: Final = "two values only: the error of this Sharpe ratio is not defined"

_TABLE: Final = {
    "trial": pl.Int64,
    "sharpe": pl.Float64,
    "skew": pl.Float64,
    "kurtosis": pl.Float64,
    "probabilistic_sharpe": pl.Float64,
    "deflated_sharpe": pl.Float64,
    "minimum_track_record": pl.Float64,
    "reason": pl.String,
}


def expected_maximum_sharpe(trials: float, variance: float) -> float:
    """Return the Sharpe ratio that the best of `trials` without skill is expected to reach.

    ``sqrt(V) * ((1 - g) * Z(1 - 1 / N) + g * Z(1 - 1 / (N * e)))``, g = 0.5772..., Z the quantile
    function of the normal distribution: the False Strategy Theorem of Bailey and Lopez de Prado
    (2014), "The Deflated Sharpe Ratio", Journal of Portfolio Management 40(5). It is meant for
    many trials; 0 for one, whose expected maximum is its mean, and never below that.

    Parameters
    ----------
    trials
        Number of independent trials, 1 or more; fractions are fine (`effective_trials`).
    variance
        Of the trials' Sharpe ratios, in the units of the result: per period gives per period.
        nan (one trial has none) gives nan, except for `trials` = 1.
    """
    if not trials >= 1 or math.isinf(trials):
        raise InvalidParameter(
            f"trials={trials!r} must be 1 or more; count every variant that was ever looked at"
        )
    if variance < 0:
        raise InvalidParameter(
            f"variance={variance!r} is negative; give the variance of the trials' Sharpe ratios"
        )
    if trials == 1:
        return 0.0
    quantile, euler = NormalDist().inv_cdf, float(np.euler_gamma)
    best = (1 - euler) * quantile(1 - 1 / trials) + euler * quantile(1 - 1 / (trials * math.e))
    return math.sqrt(variance) * max(best, 0.0)


def deflated_sharpe(
    sharpe: float, count: int, skew: float, kurtosis: float, *, trials: float, variance: float
) -> float:
    """Return the probability that a chosen trial's true Sharpe ratio is above chance's best.

    `probabilistic_sharpe` with `expected_maximum_sharpe` as its benchmark: Bailey and Lopez de
    Prado (2014). nan for fewer than two returns.

    Parameters
    ----------
    sharpe, variance
        Per period, not annualised: of the chosen trial, and among all trials.
    count, skew, kurtosis
        Of the chosen trial's returns; plain kurtosis, 3 for a normal distribution.
    trials
        Number of independent trials among which it was chosen.
    """
    benchmark = expected_maximum_sharpe(trials, variance)
    if count < 2:
        return math.nan
    return probabilistic_sharpe(sharpe, count, skew, kurtosis, benchmark)


def minimum_track_record(
    sharpe: float,
    skew: float,
    kurtosis: float,
    benchmark: float = 0.0,
    confidence: float = 0.95,
) -> float:
    """Return how many returns are needed to trust that the Sharpe ratio is above `benchmark`.

    ``1 + (1 - skew * S + (kurtosis - 1) / 4 * S**2) * (Z(confidence) / (S - benchmark))**2``:
    Bailey and Lopez de Prado (2012), "The Sharpe Ratio Efficient Frontier", Journal of Risk
    15(2). Infinite where S is not above the benchmark: no length would do.

    Parameters
    ----------
    sharpe, benchmark
        Per period, not annualised; the result counts the same periods.
    skew, kurtosis
        Of the returns; plain kurtosis, 3 for a normal distribution.
    confidence
        Probability between 0.5 and 1, both excluded.
    """
    if not 0.5 < confidence < 1:
        raise InvalidParameter(
            f"confidence={confidence!r} must lie between 0.5 and 1; 0.95 is usual"
        )
    variance = 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2
    if math.isnan(sharpe - benchmark) or not variance > 0:
        return math.nan
    if sharpe <= benchmark:
        return math.inf
    return 1 + variance * (NormalDist().inv_cdf(confidence) / (sharpe - benchmark)) ** 2


@dataclass(frozen=True, slots=True)
class EffectiveTrials:
    """How many independent trials a matrix of returns is worth; nan with a `reason` if none."""

    count: float
    trials: int
    never_moved: int
    average_correlation: float
    method: str
    reason: str


def effective_trials(
    returns: npt.ArrayLike | pl.DataFrame,
    method: Literal["correlation", "eigenvalues"] = "correlation",
) -> EffectiveTrials:
    """Return how many independent trials correlated ones are worth.

    "correlation": ``c + (1 - c) * N``, c the average correlation: Bailey and Lopez de Prado
    (2014), appendix 3. "eigenvalues": ``sum(l)**2 / sum(l**2)`` of the correlation matrix, as
    Bretherton et al. (1999), "The Effective Number of Spatial Degrees of Freedom of a
    Time-Varying Field", Journal of Climate 12. The second is much smaller where trials share a
    common part, and about N / (1 + N / T) even where they do not, so it deflates less, and its
    last digits depend on the machine; when in doubt take the first. The plain number of trials is
    the strictest choice.

    Parameters
    ----------
    returns
        Float64 (T, N): one row a period, one column a trial. Trials that never move are not
        counted: nothing was tried there.

    Returns
    -------
    EffectiveTrials
        `count` lies between 1 and the number of trials that moved.
    """
    if method not in METHODS:
        near = did_you_mean(str(method), METHODS) or f"give one of {', '.join(METHODS)}"
        raise InvalidParameter(f"method={method!r} is not known; {near}")
    matrix = as_matrix(returns)
    return _count_effective(matrix, column_moments(matrix), method)


def _count_effective(matrix: Floats, shapes: list[Moments], method: str) -> EffectiveTrials:
    moving = [trial for trial, shape in enumerate(shapes) if shape.spread > 0]
    trials, known = len(shapes), len(moving)
    average, count, why = math.nan, 1.0, ""
    if not known:
        why = TOO_FEW if len(matrix) < 2 else "no trial ever moved"
        count = math.nan
    elif known > 1:
        average = _average_correlation(matrix, shapes, moving)
        count = average + (1 - average) * known
        if method == "eigenvalues":
            count = known**2 / _squared_correlations(matrix, shapes, moving)
        count = min(max(count, 1.0), float(known))
    return EffectiveTrials(count, trials, trials - known, average, method, why)


def _average_correlation(matrix: Floats, shapes: list[Moments], moving: list[int]) -> float:
    """Average the pairs by one sum a row: the square of a sum holds every product once."""
    sums = [chunk.sum(axis=1) for chunk in _standard(matrix, shapes, moving)]
    total = sum(float(np.square(part).sum()) for part in sums) / len(matrix)
    return (total - len(moving)) / (len(moving) * (len(moving) - 1))


def _squared_correlations(matrix: Floats, shapes: list[Moments], moving: list[int]) -> float:
    """Return the sum of squared correlations, which is the sum of squared eigenvalues."""
    products = np.zeros((len(moving), len(moving)))
    for chunk in _standard(matrix, shapes, moving):
        products += chunk.T @ chunk
    return float(np.square(products / len(matrix)).sum())


def _standard(matrix: Floats, shapes: list[Moments], moving: list[int]) -> Iterator[Floats]:
    """Yield the trials that move, scaled to mean 0 and mean square 1."""
    mean = np.array([shapes[trial].mean for trial in moving])
    scale = np.array([shapes[trial].spread for trial in moving])
    scale *= math.sqrt((len(matrix) - 1) / len(matrix))
    for chunk in row_chunks(matrix):
        yield (chunk[:, moving] - mean) / scale


@dataclass(frozen=True, slots=True, eq=False)
class Deflation:
    """Every trial's Sharpe ratio against the best that chance would reach among all of them.

    `table` has one row a trial: `trial` (its column), `sharpe` (per period), `skew`, `kurtosis`,
    `probabilistic_sharpe` (true ratio above 0), `deflated_sharpe` (above `expected_maximum`),
    `minimum_track_record` (returns needed to trust that it is above `expected_maximum`; infinite
    where it is not), `reason` (why figures are nan). `rows` is the number of returns of each.
    """

    rows: int
    trials: float
    variance: float
    expected_maximum: float
    table: pl.DataFrame = field(repr=False)


def deflate(
    returns: npt.ArrayLike | pl.DataFrame,
    *,
    trials: float | None = None,
    variance: float | None = None,
    confidence: float = 0.95,
) -> Deflation:
    """Return the deflated Sharpe ratio of each trial of a matrix of returns.

    Parameters
    ----------
    returns
        Float64 (T, N): one row a period of the common grid, one column a trial.
    trials
        Independent trials behind the choice, those of earlier nights too;
        `effective_trials` of this matrix unless told.
    variance
        Of the Sharpe ratios per period among all trials; of this matrix (ddof 1) unless told.
    """
    matrix = as_matrix(returns)
    shapes = column_moments(matrix)
    ratios = [shape.sharpe for shape in shapes if not math.isnan(shape.sharpe)]
    found = _count_effective(matrix, shapes, METHODS[0]).count if trials is None else trials
    among = _variance(ratios) if variance is None else variance
    bar = math.nan if math.isnan(found) else expected_maximum_sharpe(found, among)
    return Deflation(len(matrix), found, among, bar, _judge(shapes, bar, confidence))


def _variance(values: list[float]) -> float:
    return float(np.var(values, ddof=1)) if len(values) > 1 else math.nan


def _judge(shapes: list[Moments], bar: float, confidence: float) -> pl.DataFrame:
    rows = [
        (
            trial,
            shape.sharpe,
            shape.skew,
            shape.kurtosis,
            _trust(shape, 0.0),
            _trust(shape, bar),
            minimum_track_record(shape.sharpe, shape.skew, shape.kurtosis, bar, confidence),
            _why_unknown(shape, bar),
        )
        for trial, shape in enumerate(shapes)
    ]
    return pl.DataFrame(rows, schema=_TABLE, orient="row")


def _trust(shape: Moments, benchmark: float) -> float:
    count = max(shape.count, 1)
    return probabilistic_sharpe(shape.sharpe, count, shape.skew, shape.kurtosis, benchmark)


def _why_unknown(shape: Moments, bar: float) -> str:
    if shape.count < 2:
        return TOO_FEW
    if shape.ruined:
        return RUINED
    if math.isnan(shape.kurtosis):
        return NEVER_MOVED
    if math.isnan(_trust(shape, 0.0)):
        return NO_ROOM
    return NO_VARIANCE if math.isnan(bar) else ""
