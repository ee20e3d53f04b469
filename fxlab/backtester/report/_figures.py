"""Charts of one run, by name: what a notebook shows and a report embeds.

The charts know frames only; here a `Result` is turned into the frames that each of them draws.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import numpy as np
import polars as pl

from fxlab._times import to_micros
from fxlab.backtester.metrics._analysis import period_returns, returns_histogram, weekday_returns
from fxlab.backtester.metrics._exposure import exposure_over_time
from fxlab.backtester.metrics._ratios import quantiles
from fxlab.schema import UTC_MICROS

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab.backtester.result import Result

INTERVALS: Final = 600
"""Intervals of the exposure chart, at most."""

_SECONDS: Final = (1, 5, 15, 60, 300, 900, 3_600, 14_400, 86_400, 7 * 86_400, 30 * 86_400)


def result_figures(result: Result) -> dict[str, go.Figure]:
    """Return every figure of a run by name, in reading order.

    Returns
    -------
    dict
        ``run`` (price with fills, equity, drawdown), ``equity`` (its drawdowns shaded),
        ``returns``, ``months``, ``hours``, ``weekdays``, ``trades``, ``exposure``.
    """
    from fxlab import charts

    equity, trades = result.equity, result.trades
    weekdays = weekday_returns(equity, trades)
    return {
        "run": run_figure(result),
        "equity": charts.equity_chart(equity, "Equity", drawdowns=result.drawdowns),
        "returns": returns_figure(result),
        "months": charts.monthly_chart(result.monthly_returns, "Returns by month"),
        "hours": charts.profile_chart(result.hourly_returns, "Returns by hour of the day"),
        "weekdays": charts.profile_chart(weekdays, "Returns by day of the week"),
        "trades": charts.trades_chart(trades, "Trades"),
        "exposure": charts.exposure_chart(exposure(result), "Exposure"),
    }


def run_figure(result: Result) -> go.Figure:
    """Return price with fills, equity and drawdown; gaps of the recording are shaded."""
    from fxlab.charts import result_chart

    return result_chart(
        result.prices,
        result.fills,
        result.equity,
        title=result.title,
        ticks=result.ticks,
        gaps=known_gaps(result).unique(["from_time", "to_time"]),
    )


def returns_figure(result: Result) -> go.Figure:
    """Return the distribution of the returns on the grid that the ratios are computed on."""
    from fxlab.charts import distribution_chart

    grid_us = result.run.grid_us
    moved, count = interval_returns(result)
    returns = np.concatenate((moved, np.zeros(count - len(moved))))
    marks = {}
    if len(returns) > 1:
        low, high = quantiles(returns, (0.05, 0.95))
        marks = {"5th percentile": low, "mean": float(returns.mean()), "95th percentile": high}
    return distribution_chart(
        returns_histogram(moved),
        "Returns",
        label=f"return of {_length(grid_us / 1e6)}",
        marks=marks,
        text=f"{len(moved):,} of {count:,} intervals moved equity; the others are not drawn"
        if len(moved)
        else "",
    )


def interval_returns(result: Result) -> tuple[np.ndarray, int]:
    """Return the returns on the grid that are not zero, and how many intervals there are."""
    grid_us = result.run.grid_us
    found = period_returns(result.equity, f"{grid_us}us")["return"].drop_nulls()
    returns = found.to_numpy()
    first, last = to_micros(result.first), to_micros(result.last)
    return returns[returns != 0.0], last // grid_us - first // grid_us + 1


def exposure(result: Result) -> pl.DataFrame:
    """Return the exposure of a run over time, on a grid of at most `INTERVALS` intervals."""
    elapsed = (to_micros(result.last) - to_micros(result.first)) / 1e6
    step = next((step for step in _SECONDS if elapsed / step < INTERVALS), elapsed / INTERVALS)
    return exposure_over_time(result.trades, float(step), result.first, result.last)


def known_gaps(result: Result) -> pl.DataFrame:
    """Return the gaps of the recording inside a run: symbol (null: all), from_time, to_time."""
    gaps = result.run.gaps
    if gaps is None:
        times = dict.fromkeys(("from_time", "to_time"), UTC_MICROS)
        return pl.DataFrame(schema={"symbol": pl.String(), **times})
    inside = (pl.col("to_time") > result.first) & (pl.col("from_time") < result.last)
    return gaps.filter(inside).select("symbol", "from_time", "to_time")


def _length(seconds: float) -> str:
    """Return a length of time in its largest whole unit: ``1 min``, ``15 min``, ``90 s``."""
    for size, unit in ((86_400, "d"), (3_600, "h"), (60, "min")):
        if seconds % size == 0:
            return f"{seconds / size:g} {unit}"
    return f"{seconds:g} s"
