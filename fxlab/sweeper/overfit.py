"""What a sweep's best point is worth once it is known that it was chosen: the guards, together.

The probability of overfitting asks how often the best on one half of the time is below the median
on the other; the deflated Sharpe ratio asks whether the best is above what chance alone reaches in
so many trials. Both are computed from the sweep's own matrix of returns.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from fxlab import html
from fxlab.backtester.deflation import deflate, effective_trials
from fxlab.backtester.overfitting import Overfitting, probability_of_overfitting

if TYPE_CHECKING:
    from fxlab.sweeper.sweep import Sweep


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SweepOverfitting:
    """The guards' figures for one sweep.

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
        ``reason`` (why figures are nan); the highest Sharpe ratio first.
    splits : Overfitting
        Every way to halve the time.
    notes : dict
        Why a figure is nan.
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
        notes = "".join(f"<p>{html.escape(f'{k}: {v}')}</p>" for k, v in self.notes.items())
        return f"<p>{html.escape(self)}</p>{notes}{html.table(self.table, limit=10)}"


def judge(sweep: Sweep, blocks: int, tried: int) -> SweepOverfitting:
    """Return the guards' figures; `tried` counts the points of earlier nights too."""
    numbers, returns = sweep.returns()
    splits = probability_of_overfitting(returns, blocks)
    own = effective_trials(returns)
    # Earlier trials were as much alike as these are.
    trials = own.count * max(1.0, tried / max(1, len(numbers)))
    deflation = deflate(returns, trials=None if math.isnan(trials) else max(1.0, trials))
    points = pl.Series(numbers, dtype=pl.Int64)  # typed, also where no point is done
    order = pl.DataFrame({"trial": np.arange(len(numbers)), "point": points})
    judged = deflation.table.join(order, on="trial", how="left").drop("trial")
    table = sweep.parameters.join(judged, on="point", how="inner", maintain_order="left")
    return SweepOverfitting(
        pbo=splits.pbo,
        tried=max(tried, len(numbers)),
        trials=trials,
        expected_maximum=deflation.expected_maximum,
        table=table.sort(
            pl.col("sharpe").fill_nan(None), "point", descending=[True, False], nulls_last=True
        ),
        splits=splits,
        notes=splits.notes | ({"trials": own.reason} if own.reason else {}),
    )
