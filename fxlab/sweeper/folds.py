"""Choose on most of the time, test on the rest: purged folds over the returns that a sweep keeps.

The decisions of a point depend on its parameters only, not on what was trained on; so one replay
gives its returns in every fold, and nothing is replayed again.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from fxlab.backtester.splits import Fold, purged_kfold
from fxlab.backtester.trial_returns import LOST, column_moments
from fxlab.errors import InvalidParameter
from fxlab.schema import UTC_MICROS
from fxlab.times import Duration

if TYPE_CHECKING:
    from fxlab.sweeper.sweep import Sweep


def validate(
    sweep: Sweep, folds: int, *, purge: Duration = 0, embargo: Duration = 0
) -> pl.DataFrame:
    """Return one row a session and fold: the best point of its training, and how it tested.

    Parameters
    ----------
    sweep
        At least two points that are done on all sessions.
    folds
        Equal tests that cover all time.
    purge, embargo
        Time that is kept out of training: before a test the longest holding time, after it that
        and the embargo; see `fxlab.backtester.splits.purged_kfold`.

    Returns
    -------
    polars.DataFrame
        ``session``, ``fold``, ``test_start``, ``test_end``, ``point``, the parameters,
        ``train_sharpe`` and ``test_sharpe`` (mean / std, ddof 1, per period kept; 0 where a point
        stood still or had equal returns, minus infinity from its ruin on), ``test_rank`` (1 is
        the best of all points in the test), ``points``.

    Raises
    ------
    InvalidParameter
        If there is nothing to choose from, or a fold is too short for two periods.
    """
    numbers, returns = sweep.returns()
    if len(numbers) < 2:
        raise InvalidParameter(
            f"{len(numbers)} points are done on all sessions: there is nothing to choose from"
        )
    rows: list[dict[str, Any]] = []
    begin = 0
    for study in sweep.studies:
        edges = study.periods.edges
        part = returns[begin : begin + len(edges) - 1]
        begin += len(part)
        made = purged_kfold(
            int(edges[0]), int(edges[-1]), folds=folds, embargo=embargo, purge=purge
        )
        for number, fold in enumerate(made, 1):
            found = _tested(part, edges, fold, numbers)
            rows.append({"session": study.session, "fold": number, **found})
    frame = pl.DataFrame(rows).with_columns(pl.col("test_start", "test_end").cast(UTC_MICROS))
    joined = frame.join(sweep.parameters, on="point", how="left", maintain_order="left")
    names = [name for name in sweep.parameters.columns if name != "point"]
    head = ("session", "fold", "test_start", "test_end", "point")
    return joined.select(*head, *names, "train_sharpe", "test_sharpe", "test_rank", "points")


def _tested(
    returns: np.ndarray, edges: np.ndarray, fold: Fold, numbers: Sequence[int]
) -> dict[str, Any]:
    """Return what was chosen outside of a fold, and what it did inside."""
    test = (edges[:-1] >= fold.test_start) & (edges[:-1] < fold.test_end)
    train = np.zeros(len(returns), bool)
    for first, last in fold.train:
        train |= (edges[:-1] >= first) & (edges[1:] <= last)
    if test.sum() < 2 or train.sum() < 2:
        raise InvalidParameter(
            f"a fold has {test.sum()} periods to test on and {train.sum()} to train on, of "
            f"{len(returns)}; give fewer folds, a shorter purge or embargo, or a finer grid"
        )
    lost = np.logical_or.accumulate(returns == LOST, axis=0)
    inside, outside = (
        np.where(lost[part].any(axis=0), -np.inf, sharpe(returns[part])) for part in (train, test)
    )
    best = int(inside.argmax())
    return {
        "test_start": fold.test_start,
        "test_end": fold.test_end,
        "point": numbers[best],
        "train_sharpe": float(inside[best]),
        "test_sharpe": float(outside[best]),
        "test_rank": int((outside > outside[best]).sum()) + 1,
        "points": len(numbers),
    }


def sharpe(returns: np.ndarray) -> np.ndarray:
    """Return mean / std (ddof 1) of each column; 0 where there is no such ratio."""
    return np.nan_to_num([found.sharpe for found in column_moments(returns)], nan=0.0)
