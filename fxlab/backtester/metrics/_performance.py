"""Performance metrics of a run: returns, drawdown, ratios, round trips, costs; names and formulas.

One table decides what a metric is called, in which unit it is shown and in which order it stands;
reports, comparisons and saved runs read it here. Each has its formula, its basis, and the reason
where there is none.

Returns are simple returns of equity on a fixed wall-clock grid; drawdown is followed at every tick.
Annualised metrics are only given for runs of 30 days or more: a Sharpe ratio of ten minutes,
annualised, is noise times 700.

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

Conventions, where the field has several: the Sharpe ratio, volatility and the downside deviation of
the Sortino ratio are vectorbt's and empyrical's (arithmetic mean, ``ddof=1``, downside over all
returns), and so is omega; Calmar is annual return over the deepest drawdown, as in backtesting.py;
win rate, profit factor and expectancy are money over *closed* trades net of fees, as in vectorbt,
not periods as in quantstats nor percentages as in backtesting.py; the tail ratio is empyrical's;
exposure is a share of time, where the others count rows.

Metrics of fills and round trips are computed over a few plain columns of the kernel's records: a
sweep has thousands of points, and keeps no more of each between two chunks.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from fxlab.backtester.metrics._analysis import NO_EVENTS, NO_TIME
from fxlab.backtester.metrics._ratios import (
    ROUNDING,
    Moments,
    moments,
    omega,
    probabilistic_sharpe,
    quantiles,
    ratio,
    tail_ratio,
)

# metric -> (unit, formula). The order is the order of every table.
METRICS: Final[dict[str, tuple[str, str]]] = {
    "final_equity": ("money", "equity marked at the last tick"),
    "total_return": ("fraction", "final equity / capital - 1"),
    "annual_return": ("fraction", "(1 + total return) ** (year / elapsed) - 1"),
    "max_drawdown": ("fraction", "min over ticks of equity / peak so far - 1"),
    "max_drawdown_duration": (
        "seconds",
        "longest time from the first tick at a peak to the last tick below it: flat at it counts",
    ),
    "ruined_after": ("seconds", "time from the first tick until equity was at or below zero"),
    "volatility": ("fraction", "std(r, ddof=1) * sqrt(A)"),
    "sharpe": ("ratio", "mean(r) / std(r, ddof=1) * sqrt(A), Sharpe (1994), riskless return 0"),
    "sharpe_per_period": ("ratio", "mean(r) / std(r, ddof=1), not annualised"),
    "sortino": ("ratio", "mean(r) / sqrt(mean(min(r, 0)**2)) * sqrt(A), Sortino (1991), target 0"),
    "sortino_per_period": ("ratio", "mean(r) / sqrt(mean(min(r, 0)**2)), not annualised"),
    "omega": (
        "ratio",
        "sum of r above 0 / |sum of r below 0|, Keating & Shadwick (2002), threshold 0",
    ),
    "calmar": ("ratio", "annual return / |max drawdown|, Young (1991)"),
    "probabilistic_sharpe": (
        "probability",
        "P(true Sharpe > 0), Bailey & Lopez de Prado (2012), The Sharpe Ratio Efficient Frontier",
    ),
    "skew": ("number", "mean(((r - mean) / std)**3), population moments"),
    "kurtosis": ("number", "mean(((r - mean) / std)**4), population moments; 3 if normal"),
    "tail_ratio": ("ratio", "|95th percentile of r| / |5th percentile of r|"),
    "exposure": ("fraction", "share of time with a position"),
    "turnover": ("ratio", "sum |qty * price| over fills / capital"),
    "fees": ("money", "sum over fills"),
    "break_even_bps": (
        "bps",
        "(profit + fees) / sum |qty * price|: the fee at which the same fills earn nothing",
    ),
    "funding": ("money", "sum of funding and swap paid; below zero was received"),
    "fills_count": ("count", "executions"),
    "maker_share": ("fraction", "fills of resting orders / fills"),
    "orders_unfilled": ("count", "orders that ended with nothing executed, whatever the reason"),
    "trades_count": ("count", "closed round trips"),
    "win_rate": ("fraction", "closed trades with pnl > 0 / closed trades"),
    "profit_factor": ("ratio", "sum of winning pnl / |sum of losing pnl|, closed trades, net"),
    "expectancy": ("money", "mean pnl of a closed trade, net of fees"),
    "expectancy_bps": ("bps", "sum of pnl / sum of entry notional * 10,000, closed trades"),
    "average_win": ("money", "mean pnl of winning closed trades"),
    "average_loss": ("money", "mean pnl of losing closed trades"),
    "median_trade_duration": ("seconds", "median time from entry to exit, closed trades"),
    "longest_trade_duration": ("seconds", "longest time from entry to exit, closed trades"),
    "blind_time": ("seconds", "time of the run inside gaps of the recording"),
    "blind_share": ("fraction", "time in gaps / elapsed time"),
}

LESS_IS_BETTER: Final = frozenset(
    {
        *("max_drawdown_duration", "volatility", "exposure", "turnover", "fees"),
        *("funding", "orders_unfilled", "blind_time", "blind_share"),
    }
)
"""Metrics of which a smaller one is better; of all others more is (a drawdown is below zero)."""

NEITHER: Final = frozenset(
    {
        *("exposure", "turnover", "fills_count", "trades_count", "maker_share", "ruined_after"),
        *("median_trade_duration", "longest_trade_duration", "skew", "kurtosis"),
    }
)
"""Metrics that describe a run: no value of them makes one run better than another."""


class Metrics(Mapping[str, float]):
    """The metrics of one run by name; ``nan`` where there is none, and `notes` says why.

    See Also
    --------
    Metrics.table : name, value, unit and note of every metric.

    Examples
    --------
    >>> metrics = fxlab.backtest(ticks, "sma_cross", {"fast": 5, "slow": 20}).metrics
    >>> round(metrics["total_return"], 6)
    -0.050599
    """

    def __init__(self, values: Mapping[str, float], notes: Mapping[str, str]) -> None:
        self._values = {name: float(values.get(name, math.nan)) for name in METRICS}
        self.notes = dict(notes)

    def __getitem__(self, name: str) -> float:
        """Return a metric."""
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in table order."""
        return iter(self._values)

    def __len__(self) -> int:
        """Return how many metrics there are."""
        return len(self._values)

    def table(self) -> pl.DataFrame:
        """Return one row a metric: metric, value, unit, note (basis, or why it is nan)."""
        return pl.DataFrame(
            {
                "metric": list(self._values),
                "value": list(self._values.values()),
                "unit": [METRICS[name][0] for name in self._values],
                "note": [self.notes.get(name, METRICS[name][1]) for name in self._values],
            },
            schema_overrides={"value": pl.Float64},
        )

    def __repr__(self) -> str:
        """Show the metrics that exist, one a line."""
        lines = (
            f"{name:>22} {value:,.6g}"
            for name, value in self._values.items()
            if not math.isnan(value)
        )
        return "\n".join(lines)


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
    """What the metrics are computed from, beside returns, fills and trades.

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
    gap_us : int or None
        Time inside gaps of the recording (`gap_micros`); None where gaps were not recorded.
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
    gap_us: int | None = None


def compute(
    returns: np.ndarray, facts: Facts, executed: Executed, closed: RoundTrips, unfilled: int
) -> Metrics:
    """Return all metrics of a run.

    Parameters
    ----------
    returns
        Float64, shape (n,), simple returns of equity on the grid, in time order.
    facts
        Capital, elapsed time and what was followed at every tick.
    executed, closed
        The few columns of the fills and trades that matter.
    unfilled
        Orders that ended with nothing executed.
    """
    notes: dict[str, str] = {}
    values = {
        "final_equity": facts.final_equity,
        "total_return": facts.final_equity / facts.capital - 1,
        "max_drawdown": facts.max_drawdown,
        "max_drawdown_duration": facts.max_drawdown_us / 1e6,
        "ruined_after": math.nan if facts.ruined_us is None else facts.ruined_us / 1e6,
        "funding": facts.funding,
        "orders_unfilled": float(unfilled),
        **_return_metrics(returns, facts, notes),
        **trade_metrics(closed, notes),
        **cost_metrics(executed, facts.capital, notes),
        **_time_metrics(facts, notes),
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


def _return_metrics(returns: np.ndarray, facts: Facts, notes: dict[str, str]) -> dict[str, float]:
    basis = describe_basis(facts, len(returns))
    found = moments(returns)
    root = math.sqrt(_periods(facts))
    annual = _annual_return(facts)
    values = {
        "annual_return": annual,
        "volatility": found.spread * root,
        "sharpe": found.sharpe * root,
        "sortino": found.sortino * root,
        "omega": omega(returns),
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
    if name.startswith("sortino") or name == "omega":
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


def _time_metrics(facts: Facts, notes: dict[str, str]) -> dict[str, float]:
    elapsed = float(facts.elapsed_us)
    if not elapsed:
        notes["exposure"] = notes["blind_share"] = NO_TIME
    in_gaps = math.nan if facts.gap_us is None else float(facts.gap_us)
    if facts.gap_us is None:
        notes["blind_time"] = notes["blind_share"] = NO_EVENTS
    return {
        "exposure": ratio(float(facts.exposed_us), elapsed),
        "blind_time": in_gaps / 1e6,
        "blind_share": ratio(in_gaps, elapsed),
    }


TRADE_METRICS: Final = (
    "win_rate",
    "profit_factor",
    "expectancy",
    "expectancy_bps",
    "average_win",
    "average_loss",
    "median_trade_duration",
    "longest_trade_duration",
)


class Executed(NamedTuple):
    """The executions, one value a fill: notional and fee (quote), whether the order had rested."""

    notional: np.ndarray
    fees: np.ndarray
    maker: np.ndarray


class RoundTrips(NamedTuple):
    """The closed round trips, one value a trade: pnl and entry notional (quote), seconds held."""

    pnl: np.ndarray
    notional: np.ndarray
    seconds: np.ndarray


def columns_of(
    orders: np.ndarray, fills: np.ndarray, trades: np.ndarray
) -> tuple[Executed, RoundTrips, int]:
    """Read the kernel's records: the fills, the closed trades, how many orders were not filled."""
    from fxlab.backtester._kernel.columns import condense

    executed = Executed(np.empty(len(fills)), np.empty(len(fills)), np.empty(len(fills), np.bool_))
    closed = RoundTrips(*(np.empty(len(trades)) for _ in range(3)))
    unfilled, count = condense(orders, fills, trades, *executed, *closed)
    return executed, RoundTrips(*(column[:count] for column in closed)), unfilled


def trade_metrics(closed: RoundTrips, notes: dict[str, str]) -> dict[str, float]:
    """Return the metrics of the closed trades; `notes` gets the reason of each nan."""
    pnl = closed.pnl
    if not len(pnl):
        notes.update(dict.fromkeys(TRADE_METRICS, "no closed trades"))
        return {"trades_count": 0.0, **dict.fromkeys(TRADE_METRICS, math.nan)}
    # A trade that came out even may miss zero by a rounding of the money that it moved.
    rounding = ROUNDING * np.abs(closed.notional)
    wins, losses = pnl[pnl > rounding], pnl[pnl < -rounding]
    if not len(losses):
        notes.update(dict.fromkeys(("profit_factor", "average_loss"), "no losing trades"))
    if not len(wins):
        notes["average_win"] = "no winning trades"
    total, won, lost = float(pnl.sum()), float(wins.sum()), float(losses.sum())
    return {
        "trades_count": float(len(pnl)),
        "win_rate": len(wins) / len(pnl),
        "profit_factor": ratio(won, -lost),
        "expectancy": total / len(pnl),
        "expectancy_bps": ratio(total, float(closed.notional.sum())) * 10_000,
        "average_win": ratio(won, len(wins)),
        "average_loss": ratio(lost, len(losses)),
        "median_trade_duration": quantiles(closed.seconds, (0.5,))[0],
        "longest_trade_duration": float(closed.seconds.max()),
    }


def cost_metrics(executed: Executed, capital: float, notes: dict[str, str]) -> dict[str, float]:
    """Return the metrics of the fills; `notes` gets the reason of each nan."""
    count = len(executed.fees)
    if not count:
        notes["maker_share"] = "no fills"
    return {
        "fees": float(executed.fees.sum()),
        "fills_count": float(count),
        "turnover": float(executed.notional.sum()) / capital,
        "maker_share": ratio(float(np.count_nonzero(executed.maker)), count),
    }
