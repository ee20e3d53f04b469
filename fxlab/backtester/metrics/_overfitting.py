"""Overfitting: probability of backtest overfitting (PBO), deflated Sharpe ratio, effective trials.

The probability of overfitting asks, of all ways to halve the time, whether the trial that looks
best on one half would also be good on the other. Nothing here reads data or knows what the trials
were.

A sweep of 100 worthless strategies has a best one, and its Sharpe ratio is about 2.5 standard
deviations above zero. So the benchmark of a chosen trial is not zero but the maximum that chance
alone would reach, and the track record must be long enough to tell the two apart.

The returns of all trials are one matrix, checked once and read in pieces that fit the cache:
100,000 periods of 1,000 trials are 800 MB, which no step may copy whole.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, field
from itertools import chain, combinations
from statistics import NormalDist
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from fxlab._times import integer
from fxlab.backtester.metrics._ratios import ROUNDING, Moments, moments, probabilistic_sharpe
from fxlab.errors import InvalidInput, InvalidParameter, did_you_mean

Picks = npt.NDArray[np.int64]

MOST_BLOCKS: Final = 20  # 184,756 splits; two blocks more are 705,432

NO_SPREAD: Final = (
    "a chosen trial had the same return in every period of a half, or lost everything"
)
EQUALLY_GOOD: Final = "the chosen trials are equally good in every half"

STANDS_STILL: Final = 1e-13
"""Share of a sum of squares left about the mean, at or below which it is rounding alone."""


@dataclass(frozen=True, slots=True)
class _Blocks:
    """Of each block: its periods, and of each trial in it the sums and how often all was lost."""

    counts: Floats
    sums: Floats
    squares: Floats
    lost: Floats
    """Total losses up to the end of the block: who is ruined stays so."""


_LINE: Final = ("slope", "intercept", "r_squared")
_SPLITS: Final = {
    "trial": pl.Int64,
    "in_sample": pl.Float64,
    "out_of_sample": pl.Float64,
    "relative_rank": pl.Float64,
    "logit": pl.Float64,
}


@dataclass(frozen=True, slots=True, eq=False)
class Overfitting:
    """What choosing the best trial in sample was worth out of sample, over all splits.

    `splits` has one row a split: `trial` (column that was best in sample), `in_sample` and
    `out_of_sample` (its metric on either half, per period), `relative_rank` (its rank out of
    sample / (trials + 1), 1 the best; ties share their mean rank), `logit` (of that rank).
    A number that does not exist is nan, and `notes` says why.

    Examples
    --------
    >>> sweep = fxlab.sweep(
    ...     ticks, "sma_cross", {"fast": [3, 5], "slow": [20, 30]}, return_interval="1s"
    ... )
    >>> splits = sweep.overfitting().splits
    >>> splits.trials
    4
    """

    pbo: float
    slope: float
    intercept: float
    r_squared: float
    probability_of_loss: float
    metric: str
    rows: int
    trials: int
    blocks: int
    splits: pl.DataFrame = field(repr=False)
    notes: dict[str, str]

    @property
    def logits(self) -> Floats:
        """Logit of the relative rank, one a split; at or below 0 is overfit."""
        return self.splits["logit"].to_numpy()


def probability_of_overfitting(
    returns: npt.ArrayLike | pl.DataFrame,
    blocks: int = 16,
    metric: Literal["sharpe", "mean"] = "sharpe",
) -> Overfitting:
    """Return how often the trial that is best in sample is below the median out of sample.

    Combinatorially symmetric cross-validation: Bailey, Borwein, Lopez de Prado and Zhu (2017),
    "The Probability of Backtest Overfitting", Journal of Computational Finance 20(4). Time is cut
    into `blocks`; each half of the blocks is once the sample in which the best trial is chosen,
    the other half the test. ``pbo = share of splits with logit <= 0``: noise gives 1/2 (a little
    more for an odd number of trials, as the median counts as overfit), trials all alike give 1.

    Every split is scored from sums and squares of the blocks, so work memory is a few megabytes
    whatever the number of rows and splits. Equal trials get equal bits, so ties are real ties.

    Parameters
    ----------
    returns
        Float64 (T, N): one row a period of the common grid, one column a trial.
    blocks
        Even, 2 to 20; 16 give 12,870 splits. T need not be a multiple of it.
    metric
        "sharpe" is mean / std (ddof 1) of a half, "mean" its mean return. A trial that stands
        still in a half has 0 there, between those that won and those that lost; one that is ruined
        (a return of -1) is below all others in every half with a block from the ruin on.

    Returns
    -------
    Overfitting
        With `slope` and `intercept` of out-of-sample on in-sample metrics of the chosen trials
        (performance degradation), and the share of splits in which the chosen one lost money.

    Raises
    ------
    InvalidParameter
        `blocks` or `metric` out of range.
    InvalidInput
        Not a matrix, or a value that is not finite.
    """
    blocks = _check_blocks(blocks)
    if metric not in {"sharpe", "mean"}:
        near = did_you_mean(str(metric), ["sharpe", "mean"]) or "give 'sharpe' or 'mean'"
        raise InvalidParameter(f"metric={metric!r} is not known; {near}")
    matrix = as_matrix(returns)
    rows, trials = matrix.shape
    why = _too_small(matrix, blocks)
    splits = pl.DataFrame(schema=_SPLITS) if why else _split_all(matrix, blocks, metric)
    numbers, notes = _summarise(splits, why)
    return Overfitting(
        **numbers,
        metric=metric,
        rows=rows,
        trials=trials,
        blocks=blocks,
        splits=splits,
        notes=notes,
    )


def _check_blocks(given: int) -> int:
    blocks = integer(given, 2)
    if blocks is None or blocks % 2:
        raise InvalidParameter(
            f"blocks={given!r} must be an even number, as half of the blocks are in sample; "
            "give 16, or fewer for a short run"
        )
    if blocks > MOST_BLOCKS:
        raise InvalidParameter(
            f"blocks={blocks} give {math.comb(blocks, blocks // 2):,} splits; the most is "
            f"{MOST_BLOCKS} blocks with {math.comb(MOST_BLOCKS, MOST_BLOCKS // 2):,}; give 16"
        )
    return blocks


def _too_small(matrix: Floats, blocks: int) -> str:
    rows, trials = matrix.shape
    if trials < 2:
        return f"{trials} trials: nothing was chosen, so nothing can be overfit by choosing"
    if rows < 2 * blocks:
        return f"{rows} returns are fewer than two a block ({blocks} blocks); give fewer blocks"
    if not any(chunk.any() for chunk in row_chunks(matrix)):
        return "no trial ever moved"
    return ""


def _split_all(matrix: Floats, blocks: int, metric: str) -> pl.DataFrame:
    """Return one row a split, in the order of `itertools.combinations` of the sample's blocks."""
    half = blocks // 2
    picked = chain.from_iterable(combinations(range(blocks), half))
    picks = np.fromiter(picked, dtype=np.int64).reshape(-1, half)
    moments = _block_moments(matrix, blocks)
    total, trials = len(picks), matrix.shape[1]
    best = np.empty(total, dtype=np.int64)
    inside, outside, rank = np.empty((3, total))
    step = max(1, CELLS // trials)
    for first in range(0, total // 2, step):
        rows = np.arange(first, min(first + step, total // 2))
        others = total - 1 - rows  # in this order a split's complement is as far from the end
        scores = _scores(moments, picks[rows], metric)
        mirror = _scores(moments, picks[others], metric)
        for at, sample, test in ((rows, scores, mirror), (others, mirror, scores)):
            best[at], inside[at], outside[at], rank[at] = _choose(sample, test)
    relative = rank / (trials + 1)
    columns = (best, inside, outside, relative, np.log(relative / (1 - relative)))
    return pl.DataFrame(dict(zip(_SPLITS, columns, strict=True)), schema=_SPLITS)


def _block_moments(matrix: Floats, blocks: int) -> _Blocks:
    edges = len(matrix) * np.arange(blocks + 1) // blocks
    sums, squares, lost = np.zeros((3, blocks, matrix.shape[1]))
    for block in range(blocks):
        for chunk in row_chunks(matrix[edges[block] : edges[block + 1]]):
            sums[block] += chunk.sum(axis=0)
            squares[block] += np.square(chunk).sum(axis=0)
            lost[block] += np.count_nonzero(chunk == LOST, axis=0)
    return _Blocks(np.diff(edges).astype(np.float64), sums, squares, np.cumsum(lost, axis=0))


def _scores(blocks: _Blocks, picks: Picks, metric: str) -> Floats:
    """Return the metric of unions of blocks: one row a union, one column a trial."""
    count = blocks.counts[picks].sum(axis=1)[:, None]
    mean: Floats = _union(blocks.sums, picks) / count
    score = mean if metric == "mean" else _sharpe(mean, _union(blocks.squares, picks), count)
    if blocks.lost.any():
        score[_union(blocks.lost, picks) > 0] = -np.inf
    return score


def _sharpe(mean: Floats, square: Floats, count: Floats) -> Floats:
    about_mean = square - count * mean**2
    still = about_mean <= STANDS_STILL * square
    nothing = square <= count * ROUNDING**2
    np.copyto(about_mean, 1.0, where=still | nothing)
    score: Floats = mean / np.sqrt(about_mean / (count - 1))
    score[still] = np.copysign(np.inf, mean[still])
    score[nothing] = 0.0
    return score


def _union(values: Floats, picks: Picks) -> Floats:
    """Add up blocks one by one: a matrix product may round equal columns differently.

    Unions in a row that begin with the same blocks share what these come to.
    """
    if picks.shape[1] == 1:
        return values[picks[:, 0]]
    heads = picks[:, :-1]
    fresh = np.append(True, (heads[1:] != heads[:-1]).any(axis=1))
    total: Floats = _union(values, heads[fresh])[np.cumsum(fresh) - 1]
    total += values[picks[:, -1]]
    return total


def _choose(sample: Floats, test: Floats) -> tuple[Picks, Floats, Floats, Floats]:
    best = sample.argmax(axis=1)
    rows = np.arange(len(best))
    reached = test[rows, best]
    below = np.count_nonzero(test < reached[:, None], axis=1)
    equal = np.count_nonzero(test == reached[:, None], axis=1)
    return best, sample[rows, best], reached, below + (equal + 1) / 2


def _summarise(splits: pl.DataFrame, why: str) -> tuple[dict[str, float], dict[str, str]]:
    names = ("pbo", *_LINE, "probability_of_loss")
    if why:
        return dict.fromkeys(names, math.nan), dict.fromkeys(names, why)
    inside, outside = splits["in_sample"].to_numpy(), splits["out_of_sample"].to_numpy()
    pbo = float(np.mean(splits["logit"].to_numpy() <= 0))
    line, notes = _fit(inside, outside)
    values = (pbo, *line, float(np.mean(outside < 0)))
    return dict(zip(names, values, strict=True)), notes


def _fit(x: Floats, y: Floats) -> tuple[tuple[float, float, float], dict[str, str]]:
    """Return slope, intercept and R squared of least squares, and why one of them is nan."""
    nothing = (math.nan, math.nan, math.nan)
    if not (np.isfinite(x).all() and np.isfinite(y).all()):
        return nothing, dict.fromkeys(_LINE, NO_SPREAD)
    across, along = x - x.mean(), y - y.mean()
    xx, yy = float(np.sum(across**2)), float(np.sum(along**2))
    if xx <= STANDS_STILL * float(np.sum(x**2)):
        return nothing, dict.fromkeys(_LINE, EQUALLY_GOOD)
    slope = float(np.sum(across * along)) / xx
    line = (slope, float(y.mean()) - slope * float(x.mean()))
    if yy <= STANDS_STILL * float(np.sum(y**2)):
        return (*line, math.nan), {"r_squared": EQUALLY_GOOD}
    return (*line, slope**2 * xx / yy), {}


CONFIDENCE: Final = 0.95
TOO_FEW: Final = "fewer than two returns"
NEVER_MOVED: Final = "the trial never moved, or by the same return in every period"
RUINED: Final = "the trial lost everything: there is no return on nothing"
NO_VARIANCE: Final = "fewer than two trials have no variance among them"
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


def minimum_track_record(
    sharpe: float, skew: float, kurtosis: float, benchmark: float = 0.0
) -> float:
    """Return how many returns are needed to trust by 95 % that a Sharpe ratio is above `benchmark`.

    ``1 + (1 - skew * S + (kurtosis - 1) / 4 * S**2) * (Z(0.95) / (S - benchmark))**2``:
    Bailey and Lopez de Prado (2012), "The Sharpe Ratio Efficient Frontier", Journal of Risk
    15(2). Infinite where S is not above the benchmark: no length would do.

    Parameters
    ----------
    sharpe, benchmark
        Per period, not annualised; the result counts the same periods.
    skew, kurtosis
        Of the returns; plain kurtosis, 3 for a normal distribution.
    """
    variance = 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2
    if math.isnan(sharpe - benchmark) or not variance > 0:
        return math.nan
    if sharpe <= benchmark:
        return math.inf
    return 1 + variance * (NormalDist().inv_cdf(CONFIDENCE) / (sharpe - benchmark)) ** 2


def effective_trials(returns: npt.ArrayLike | pl.DataFrame) -> tuple[float, str]:
    """Return how many independent trials correlated ones are worth, or nan and why.

    ``c + (1 - c) * N``, c the average correlation: Bailey and Lopez de Prado (2014), appendix 3.
    It lies between 1 and the number of trials that moved; the plain number of trials is the
    strictest choice.

    Parameters
    ----------
    returns
        Float64 (T, N): one row a period, one column a trial. Trials that never move are not
        counted: nothing was tried there.
    """
    matrix = as_matrix(returns)
    shapes = column_moments(matrix)
    moving = [trial for trial, shape in enumerate(shapes) if shape.spread > 0]
    if not moving:
        return math.nan, TOO_FEW if len(matrix) < 2 else "no trial ever moved"
    if len(moving) == 1:
        return 1.0, ""
    average = _average_correlation(matrix, shapes, moving)
    count = average + (1 - average) * len(moving)
    return min(max(count, 1.0), float(len(moving))), ""


def _average_correlation(matrix: Floats, shapes: list[Moments], moving: list[int]) -> float:
    """Average the pairs by one sum a row: the square of a sum holds every product once."""
    sums = [chunk.sum(axis=1) for chunk in _standard(matrix, shapes, moving)]
    total = sum(float(np.square(part).sum()) for part in sums) / len(matrix)
    return (total - len(moving)) / (len(moving) * (len(moving) - 1))


def _standard(matrix: Floats, shapes: list[Moments], moving: list[int]) -> Iterator[Floats]:
    """Yield the trials that move, scaled to mean 0 and mean square 1."""
    mean = np.array([shapes[trial].mean for trial in moving])
    scale = np.array([shapes[trial].spread for trial in moving])
    scale *= math.sqrt((len(matrix) - 1) / len(matrix))
    for chunk in row_chunks(matrix):
        yield (chunk[:, moving] - mean) / scale


def deflate(returns: npt.ArrayLike | pl.DataFrame, trials: float) -> tuple[float, pl.DataFrame]:
    """Return the Sharpe ratio that chance alone reaches, and each trial of a matrix against it.

    Parameters
    ----------
    returns
        Float64 (T, N): one row a period of the common grid, one column a trial.
    trials
        Independent trials behind the choice, those of earlier nights too; nan if not known.

    Returns
    -------
    float
        The expected maximum per period.
    polars.DataFrame
        One row a trial: `trial` (its column), `sharpe` (per period), `skew`, `kurtosis`,
        `probabilistic_sharpe` (true ratio above 0), `deflated_sharpe` (above the expected
        maximum), `minimum_track_record` (returns needed to trust that it is above the expected
        maximum; infinite where it is not), `reason` (why metrics are nan).
    """
    shapes = column_moments(as_matrix(returns))
    ratios = [shape.sharpe for shape in shapes if not math.isnan(shape.sharpe)]
    among = float(np.var(ratios, ddof=1)) if len(ratios) > 1 else math.nan
    bar = math.nan if math.isnan(trials) else expected_maximum_sharpe(trials, among)
    return bar, _judge(shapes, bar)


def _judge(shapes: list[Moments], bar: float) -> pl.DataFrame:
    rows = [
        (
            trial,
            shape.sharpe,
            shape.skew,
            shape.kurtosis,
            _trust(shape, 0.0),
            _trust(shape, bar),
            minimum_track_record(shape.sharpe, shape.skew, shape.kurtosis, bar),
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


Floats = npt.NDArray[np.float64]

LOST: Final = -1.0
"""The return of the period in which a trial is ruined; those after it are 0."""

CELLS: Final = 1 << 18
"""Numbers in one work array: 2 MB, so that a few of them stay in the cache."""

_COLUMNS: Final = 8  # of a row lie in one cache line, so they are copied together


def as_matrix(returns: npt.ArrayLike | pl.DataFrame) -> Floats:
    """Return checked returns as Float64 (T, N): one row a period, one column a trial.

    Raises
    ------
    InvalidInput
        Not numbers, not a matrix, or a value that is not finite.
    """
    values = returns.to_numpy() if isinstance(returns, pl.DataFrame) else returns
    try:
        matrix = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the returns are not numbers ({error}); give floats (T, N)") from error
    if matrix.ndim != 2:
        raise InvalidInput(
            f"the returns have the shape {matrix.shape}; give a matrix (T, N) with one row a "
            "period and one column a trial"
        )
    _check_finite(matrix)
    return matrix


def _check_finite(matrix: Floats) -> None:
    first = 0
    for chunk in row_chunks(matrix):
        bad = np.argwhere(~np.isfinite(chunk))
        if len(bad):
            row, trial = (int(place) for place in bad[0])
            raise InvalidInput(
                f"return {chunk[row, trial]} of trial {trial} in row {first + row} is not finite; "
                "leave out trials that failed, and put 0 where nothing was held"
            )
        first += len(chunk)


def row_chunks(matrix: Floats) -> Iterator[Floats]:
    """Yield the matrix in runs of whole rows of about `CELLS` numbers, each in C order."""
    step = max(1, CELLS // max(1, matrix.shape[1]))
    for first in range(0, len(matrix), step):
        yield np.ascontiguousarray(matrix[first : first + step])


def column_moments(matrix: Floats) -> list[Moments]:
    """Return the moments of each column: the same bits as of that trial's returns alone."""
    found = []
    for first in range(0, matrix.shape[1], _COLUMNS):
        found += [moments(trial) for trial in matrix[:, first : first + _COLUMNS].T.copy(order="C")]
    return found
