"""How much of a sweep's best result is chance: the probability of backtest overfitting.

Would the trial that looks best on one half of the time also be good on the other half? This asks
it of all ways to halve the time. Whether a Sharpe ratio is above what so many trials reach by
luck is the question of `deflation`. Neither reads data or knows what the trials were.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from itertools import chain, combinations
from typing import Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from fxlab.backtester.ratios import ROUNDING
from fxlab.backtester.trial_returns import CELLS, LOST, Floats, as_matrix, row_chunks
from fxlab.errors import InvalidParameter, did_you_mean
from fxlab.numbers import integer

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
    A figure that does not exist is nan, and `notes` says why.
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
        With `slope` and `intercept` of out-of-sample on in-sample figures of the chosen trials
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
    figures, notes = _summarise(splits, why)
    return Overfitting(
        **figures,
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
    """Add up blocks one by one: a matrix product may round equal columns differently."""
    total = values[picks[:, 0]]
    for column in picks.T[1:]:
        total += values[column]
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
