"""Guards of a sweep: PBO, deflated Sharpe ratio, purged cross-validation, other costs and latency.

They say what a sweep's best point is worth once it is known that it was chosen. The probability of
overfitting (PBO) asks how often the best on one half of the time is below the median on the other;
the deflated Sharpe ratio asks whether the best is above what chance alone reaches in so many
trials. Cross-validation chooses on most of the time and tests on the rest. All use the sweep's own
matrix of returns: the decisions of a point depend on its parameters only, not on what was trained
on, so one replay gives its returns in every fold, and nothing is replayed again.

Other costs and latencies are replayed: all of them in one pass, on the same decisions.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from fxlab import _html
from fxlab._progress import shown
from fxlab._times import Duration
from fxlab.backtester.execution import DELAYS, Execution, Latency
from fxlab.backtester.metrics._overfitting import (
    LOST,
    Overfitting,
    column_moments,
    deflate,
    effective_trials,
    probability_of_overfitting,
)
from fxlab.backtester.metrics._performance import METRICS
from fxlab.backtester.metrics._validation import Fold, purged_kfold
from fxlab.errors import FxlabError, InvalidParameter
from fxlab.schema import UTC_MICROS
from fxlab.sweeper._executors import replay_scenarios
from fxlab.sweeper._results import check_objective

if TYPE_CHECKING:
    from fxlab.sweeper.sweep import Sweep


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SweepOverfitting:
    """The guards' numbers for one sweep.

    Attributes
    ----------
    pbo : float
        Probability of backtest overfitting; 0.5 is what noise has, nan with a reason in `notes`.
    tried : int
        Different points of this strategy on these sessions that were ever kept, of all nights.
    trials : float
        As how many independent ones they count.
    expected_maximum : float
        Sharpe ratio per period that the best of so many reaches without any skill.
    table : polars.DataFrame
        One row a point: ``point``, the parameters, ``sharpe`` per period, ``skew``, ``kurtosis``,
        ``probabilistic_sharpe``, ``deflated_sharpe``, ``minimum_track_record`` (periods),
        ``reason`` (why metrics are nan); the highest Sharpe ratio first.
    splits : Overfitting
        Every way to halve the time.
    notes : dict
        Why a number is nan.

    Examples
    --------
    >>> sweep = fxlab.sweep(
    ...     ticks, "sma_cross", {"fast": [3, 5], "slow": [20, 30]}, return_interval="1s"
    ... )
    >>> round(sweep.overfitting().trials, 2)
    1.49
    """

    pbo: float
    tried: int
    trials: float
    expected_maximum: float
    table: pl.DataFrame
    splits: Overfitting
    notes: dict[str, str]

    def __str__(self) -> str:
        """Say it in two sentences."""
        best = self.table.row(0, named=True) if self.table.height else {}
        deflated = best.get("deflated_sharpe", math.nan)
        count = f"{self.table.height:,} point{'s' * (self.table.height != 1)}"
        splits = (
            f"Whether the best of {count} was chosen by luck cannot be told: {self.notes['pbo']}."
            if math.isnan(self.pbo)
            else f"The best of {count} is below the median out of sample in {self.pbo:.0%} of the "
            "splits."
        )
        tried = f"After {self.tried:,} point{'s' * (self.tried != 1)} tried"
        if math.isnan(deflated):
            why = best.get("reason") or self.notes.get("trials") or "no point is done"
            return f"{splits} {tried} its Sharpe ratio cannot be deflated: {why}."
        return (
            f"{splits} {tried} ({self.trials:.1f} independent ones) its Sharpe ratio is above "
            f"chance with a probability of {deflated:.0%}."
        )

    __repr__ = __str__

    def _repr_html_(self) -> str:
        notes = (f"{name}: {why}" for name, why in self.notes.items())
        return _html.paragraphs([self, *notes]) + _html.table(self.table, limit=10)


def verdict(sweep: Sweep) -> str:
    """Return in words what the guards say of the best point, or why they cannot."""
    try:
        return str(sweep.overfitting())
    except FxlabError as error:
        return str(error)


def assess_overfitting(sweep: Sweep, blocks: int, tried: int) -> SweepOverfitting:
    """Return the guards' numbers; `tried` counts the points of earlier nights too."""
    numbers, returns = sweep.returns()
    splits = probability_of_overfitting(returns, blocks)
    own, why = effective_trials(returns)
    # Earlier trials were as much alike as these are.
    trials = own * max(1.0, tried / max(1, len(numbers)))
    expected_maximum, deflated = deflate(returns, trials)
    points = pl.Series(numbers, dtype=pl.Int64)  # typed, also where no point is done
    order = pl.DataFrame({"trial": np.arange(len(numbers)), "point": points})
    judged = deflated.join(order, on="trial", how="left").drop("trial")
    table = sweep.parameters.join(judged, on="point", how="inner", maintain_order="left")
    return SweepOverfitting(
        pbo=splits.pbo,
        tried=max(tried, len(numbers)),
        trials=trials,
        expected_maximum=expected_maximum,
        table=table.sort(
            pl.col("sharpe").fill_nan(None), "point", descending=[True, False], nulls_last=True
        ),
        splits=splits,
        notes=splits.notes | ({"trials": why} if why else {}),
    )


def cross_validate(
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
        and the embargo; see `fxlab.backtester.metrics._validation.purged_kfold`.

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


def ladder(
    sweep: Sweep, executions: Mapping[str, Execution] | None, metric: str | None
) -> pl.DataFrame:
    """Return each point's metric under other assumptions; see `Sweep.ladder`."""
    from fxlab.backtester.compare import scenarios_of

    goal = check_objective(metric or sweep.metric)
    asked = sweep.studies[0].terms.options.execution
    fees = {(one.run.execution.taker_bps, one.run.execution.maker_bps) for one in sweep.studies}
    if len(fees) == 1:  # as listed, where they are not said
        taker, maker = fees.pop()
        asked = replace(asked, taker_bps=taker, maker_bps=maker)
    scenarios = scenarios_of(executions, asked)
    return _with(sweep.parameters, _under(sweep, scenarios, goal))


def break_even(sweep: Sweep, delays: Sequence[Duration]) -> pl.DataFrame:
    """Return the fee and the latency at which each point earns nothing; see `Sweep.break_even`."""
    asked = sweep.studies[0].terms.options.execution
    seconds = [Latency.fixed(delay).values[0] / 1e6 for delay in delays]
    if len(seconds) < 2 or any(early >= late for early, late in pairwise(seconds)):
        raise InvalidParameter(
            f"delays={list(delays)!r:.80} are not two or more rising latencies; give for example "
            f"{list(DELAYS)}"
        )
    scenarios = {f"latency {delay}": replace(asked, latency=delay) for delay in delays}
    fees = sweep.table.group_by("point").agg(pl.col("break_even_bps").mean())
    found = _with(_with(sweep.parameters, fees), _under(sweep, scenarios, "total_return"))
    returns = found.select(pl.col(*scenarios).fill_null(math.nan)).to_numpy()
    latency, notes = break_even_latency(seconds, returns)
    return found.with_columns(
        pl.Series("break_even_latency", latency).fill_nan(None), pl.Series("note", notes, pl.String)
    )


def break_even_latency(
    seconds: Sequence[float], returns: np.ndarray
) -> tuple[np.ndarray, list[str]]:
    """Return the latency from which on each point earns nothing; nan where a note says why not.

    It is where a straight line meets zero: between the first of the latencies at which the point
    has no gain, and the one before.

    Parameters
    ----------
    seconds
        The latencies, rising.
    returns
        Total returns, float64 (points, latencies).
    """
    earns, unknown = returns > 0.0, np.isnan(returns).any(axis=1)
    rows, after = np.arange(len(returns)), np.argmin(earns, axis=1)
    known = ~unknown & earns[:, 0] & ~earns.all(axis=1)
    at, before = np.array(seconds), np.maximum(after - 1, 0)
    high, low = returns[rows, before], returns[rows, after]
    share = high / np.where(known, high - low, 1.0)
    found = np.where(known, at[before] + (at[after] - at[before]) * share, np.nan)
    notes = np.full(len(returns), f"still earns at {seconds[-1]:g} s", object)
    notes[~earns[:, 0]] = f"earns nothing at {seconds[0]:g} s"
    notes[unknown] = "has no total return"
    notes[known] = ""
    return found, notes.tolist()


def _under(sweep: Sweep, scenarios: Mapping[str, Execution], metric: str) -> pl.DataFrame:
    """Return each point's metric under other assumptions, the mean over the sessions."""
    with shown(None, "ladder") as advance:
        points = list(sweep.points.values())
        found = replay_scenarios(sweep.studies, points, scenarios, advance)
    place = list(METRICS).index(metric)
    rows = [
        {"point": number, **{name: float(values[place]) for name, values in under.items()}}
        for outcomes in found
        for number, under in outcomes.items()
    ]
    kinds = {"point": pl.Int64, **dict.fromkeys(scenarios, pl.Float64)}
    means = pl.col(*scenarios).fill_nan(None).mean()
    return pl.DataFrame(rows, schema=kinds).group_by("point", maintain_order=True).agg(means)


def _with(points: pl.DataFrame, values: pl.DataFrame) -> pl.DataFrame:
    return points.join(values, on="point", how="left", maintain_order="left")


def sharpe(returns: np.ndarray) -> np.ndarray:
    """Return mean / std (ddof 1) of each column; 0 where there is no such ratio."""
    return np.nan_to_num([found.sharpe for found in column_moments(returns)], nan=0.0)
