"""Performance figures, each with its formula, its basis, and the reason where there is none.

Returns are simple returns of equity on a fixed wall-clock grid; drawdown is followed at every
tick. Annualised figures are only given for runs of 30 days or more: a Sharpe ratio of ten
minutes, annualised, is noise times 700.

A year is one thing for all of them, the calendar year of 365.25 days, whatever the market: the
annual return (and Calmar) compounds by elapsed calendar time, so that over a year it is the total
return; ratios and volatility are scaled by the root of ``A = days_per_year * 24 h / grid`` (Lo
2002, "The Statistics of Sharpe Ratios", Financial Analysts Journal 58(4), for returns without
serial correlation). Hours without ticks, a weekend say, are intervals of the grid too, with a
return of zero, so the mean and the variance of a year are A times those of an interval also for
markets that close; 260 days would count the closed ones in the series and leave them out of the
year.

An account whose equity was once at or below zero is ruined: the interval of the ruin returns -1,
those after it 0, and no ratio exists.

Conventions, where the field has several: the Sharpe ratio, volatility and the downside deviation
of the Sortino ratio are vectorbt's and empyrical's (arithmetic mean, ``ddof=1``, downside over
all returns); Calmar is annual return over the deepest drawdown, as in backtesting.py; win rate,
profit factor and expectancy are money over *closed* trades net of fees, as in vectorbt, not
periods as in quantstats nor percentages as in backtesting.py; the tail ratio is empyrical's;
exposure is a share of time, where the others count rows.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from fxlab.backtester.metric_table import METRICS, Metrics
from fxlab.backtester.ratios import (
    ROUNDING,
    Moments,
    moments,
    probabilistic_sharpe,
    ratio,
    tail_ratio,
)
from fxlab.backtester.time_held import NO_LEDGER, NO_TIME
from fxlab.backtester.trade_figures import Closed, Executed, cost_figures, trade_figures

__all__ = [
    "METRICS",
    "Facts",
    "Metrics",
    "compute",
    "compute_columns",
    "compute_records",
    "describe_basis",
    "probabilistic_sharpe",
]

DAY_US: Final = 86_400_000_000
YEAR_DAYS: Final = 365.25
"""Days of a calendar year, leap years included."""

MINIMUM_DAYS: Final = 30

RUINED: Final = "the account was ruined"
NOT_RUINED: Final = "equity was never at or below zero"
TOO_SHORT: Final = "too short to annualise"
ANNUALISED: Final = ("annual_return", "volatility", "sharpe", "sortino", "calmar")


@dataclass(frozen=True, slots=True)
class Facts:
    """What the figures are computed from, beside returns, fills and trades.

    Attributes
    ----------
    capital, final_equity, funding : float
        Money; funding is what was paid less what was received, swap included, over the run.
    max_drawdown : float
        Fraction of the peak, at or below zero, over all ticks.
    max_drawdown_us, elapsed_us, exposed_us : int
        Longest time under water, time from first to last tick, time with a position; µs.
    grid_us, days_per_year
        Spacing of the returns in µs, and how many days' worth of them the ratios take for a year.
    ruined_us : int or None
        Time from the first tick until equity was at or below zero; None if it never was.
    blind_us : int or None
        Time inside holes of the gap ledger (`time_held.blind_micros`); None without a ledger.
    """

    capital: float
    final_equity: float
    max_drawdown: float
    max_drawdown_us: int
    elapsed_us: int
    exposed_us: int
    grid_us: int
    days_per_year: float
    funding: float = 0.0
    ruined_us: int | None = None
    blind_us: int | None = None


def compute(
    returns: np.ndarray,
    facts: Facts,
    fills: pl.DataFrame,
    trades: pl.DataFrame,
    orders: pl.DataFrame | None = None,
) -> Metrics:
    """Return all figures of a run, from its frames.

    Parameters
    ----------
    returns
        Float64, shape (n,), simple returns of equity on the grid, in time order.
    facts
        Capital, elapsed time and what was followed at every tick.
    fills, trades, orders
        As in `Result`. Without `orders`, `orders_unfilled` is nan; without a column
        `liquidity` of the fills, `maker_share` is.

    See Also
    --------
    compute_records : The same figures, bit by bit, from the kernel's records.
    """
    executed, closed = Executed.of_frames(fills, orders), Closed.of_frame(trades)
    return compute_columns(returns, facts, executed, closed)


def compute_records(
    returns: np.ndarray, facts: Facts, fills: np.ndarray, trades: np.ndarray, orders: np.ndarray
) -> Metrics:
    """Return all figures of a run, from the kernel's records: no frame is built.

    Parameters
    ----------
    returns, facts
        As `compute` takes them.
    fills, trades, orders
        `records.FILL`, `records.TRADE` and `records.ORDER` arrays.
    """
    executed, closed = Executed.of_records(fills, orders), Closed.of_records(trades)
    return compute_columns(returns, facts, executed, closed)


def compute_columns(
    returns: np.ndarray, facts: Facts, executed: Executed, closed: Closed
) -> Metrics:
    """Return all figures of a run, from the few columns of its fills and trades that matter."""
    notes: dict[str, str] = {}
    values = {
        "final_equity": facts.final_equity,
        "total_return": facts.final_equity / facts.capital - 1,
        "max_drawdown": facts.max_drawdown,
        "max_drawdown_duration": facts.max_drawdown_us / 1e6,
        "ruined_after": math.nan if facts.ruined_us is None else facts.ruined_us / 1e6,
        "funding": facts.funding,
        **_return_figures(returns, facts, notes),
        **trade_figures(closed, notes),
        **cost_figures(executed, facts.capital, notes),
        **_time_figures(facts, notes),
    }
    values["break_even_bps"] = _break_even(facts, values, notes)
    if facts.ruined_us is None:
        notes["ruined_after"] = NOT_RUINED
    else:
        notes["final_equity"] = f"{RUINED} {facts.ruined_us / 1e6:,.6g} s after the first tick"
    for name, value in values.items():
        if math.isnan(value):
            notes.setdefault(name, "not defined")
    return Metrics(values, notes)


def describe_basis(facts: Facts, count: int) -> str:
    """Return the basis that stands beside each ratio: grid, periods a year, number of returns."""
    return f"grid {facts.grid_us / 1e6:g} s, A = {_periods(facts):,.0f}, n = {count:,}"


def _periods(facts: Facts) -> float:
    return facts.days_per_year * DAY_US / facts.grid_us


def _return_figures(returns: np.ndarray, facts: Facts, notes: dict[str, str]) -> dict[str, float]:
    basis = describe_basis(facts, len(returns))
    found = moments(returns)
    root = math.sqrt(_periods(facts))
    annual = _annual_return(facts)
    values = {
        "annual_return": annual,
        "volatility": found.spread * root,
        "sharpe": found.sharpe * root,
        "sortino": found.sortino * root,
        "calmar": ratio(annual, _deepest(facts)),
        "sharpe_per_period": found.sharpe,
        "sortino_per_period": found.sortino,
        "probabilistic_sharpe": probabilistic_sharpe(
            found.sharpe, found.count, found.skew, found.kurtosis
        ),
        "skew": found.skew,
        "kurtosis": found.kurtosis,
        "tail_ratio": tail_ratio(returns),
    }
    notes.update({name: basis for name in values if name != "annual_return"})
    _explain(values, found, returns, facts, notes)
    return values


def _annual_return(facts: Facts) -> float:
    growth = facts.final_equity / facts.capital
    if growth <= 0 or not _is_long(facts):
        return math.nan
    return float(growth ** (YEAR_DAYS * DAY_US / facts.elapsed_us) - 1)


def _deepest(facts: Facts) -> float:
    """Return the depth of the deepest drawdown; 0 for one that is a rounding."""
    depth = abs(facts.max_drawdown)
    return depth if depth > ROUNDING else 0.0


def _is_long(facts: Facts) -> bool:
    return facts.elapsed_us >= MINIMUM_DAYS * DAY_US


def _explain(
    values: dict[str, float],
    found: Moments,
    returns: np.ndarray,
    facts: Facts,
    notes: dict[str, str],
) -> None:
    """Take back what is too short to annualise, and say of each nan why it is one."""
    basis = describe_basis(facts, found.count)
    ruined = facts.ruined_us is not None or bool((returns <= -1.0).any())
    for name, value in values.items():
        if ruined:
            values[name] = math.nan
            notes[name] = f"{RUINED}: there is no return on nothing; {basis}"
        elif math.isnan(value):
            notes[name] = f"{_why_undefined(name, found, returns, facts)}; {basis}"
    if not _is_long(facts) and not ruined:
        days = facts.elapsed_us / DAY_US
        for name in ANNUALISED:
            values[name] = math.nan
            notes[name] = f"{TOO_SHORT}: {days:.3g} days of {MINIMUM_DAYS}; {basis}"


def _why_undefined(name: str, found: Moments, returns: np.ndarray, facts: Facts) -> str:
    if name in {"annual_return", "calmar"}:
        return "nothing is left of the capital" if facts.final_equity <= 0 else "no drawdown"
    if found.count < 2:
        return "fewer than two returns"
    if not (np.abs(returns) > ROUNDING).any():
        return "equity never moved"
    if name.startswith("sortino"):
        return "no losing return"
    if name == "tail_ratio":
        return "the 5th percentile of the returns is zero"
    return "the returns are equal, or too near to it: no spread"


def _break_even(facts: Facts, values: dict[str, float], notes: dict[str, str]) -> float:
    """Return the fee of each fill at which these fills would have earned nothing."""
    traded = values["turnover"] * facts.capital
    if not traded > 0:
        notes["break_even_bps"] = "nothing was traded"
    before_fees = facts.final_equity - facts.capital + values["fees"]
    return ratio(before_fees, traded) * 10_000


def _time_figures(facts: Facts, notes: dict[str, str]) -> dict[str, float]:
    elapsed = float(facts.elapsed_us)
    if not elapsed:
        notes["exposure"] = notes["blind_share"] = NO_TIME
    blind = math.nan if facts.blind_us is None else float(facts.blind_us)
    if facts.blind_us is None:
        notes["blind_time"] = notes["blind_share"] = NO_LEDGER
    return {
        "exposure": ratio(float(facts.exposed_us), elapsed),
        "blind_time": blind / 1e6,
        "blind_share": ratio(blind, elapsed),
    }
