"""Performance figures, each with its formula, its basis, and the reason where there is none.

Returns are simple returns of equity on a fixed wall-clock grid; drawdown is followed at every
tick. Annualised ratios use ``A = days_per_year * 24 h / grid`` periods a year and are only given
for runs of 30 days or more: a Sharpe ratio of ten minutes, annualised, is noise times 700.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np
import polars as pl

DAY_US: Final = 86_400_000_000
MINIMUM_DAYS: Final = 30

# metric -> (unit, formula). The order is the order of every table.
METRICS: Final[dict[str, tuple[str, str]]] = {
    "final_equity": ("money", "equity marked at the last tick"),
    "total_return": ("fraction", "final equity / capital - 1"),
    "annual_return": ("fraction", "(1 + total return) ** (year / elapsed) - 1"),
    "max_drawdown": ("fraction", "min over ticks of equity / peak so far - 1"),
    "max_drawdown_duration": ("seconds", "longest time from a peak to the last tick below it"),
    "volatility": ("fraction", "std(r, ddof=1) * sqrt(A)"),
    "sharpe": ("ratio", "mean(r) / std(r, ddof=1) * sqrt(A)"),
    "sharpe_per_period": ("ratio", "mean(r) / std(r, ddof=1), not annualised"),
    "sortino": ("ratio", "mean(r) / sqrt(mean(min(r, 0)**2)) * sqrt(A)"),
    "sortino_per_period": ("ratio", "mean(r) / sqrt(mean(min(r, 0)**2)), not annualised"),
    "calmar": ("ratio", "annual return / |max drawdown|"),
    "probabilistic_sharpe": (
        "probability",
        "P(true Sharpe > 0), Bailey & Lopez de Prado (2012), The Sharpe Ratio Efficient Frontier",
    ),
    "skew": ("number", "mean(((r - mean) / std)**3), population moments"),
    "tail_ratio": ("ratio", "|95th percentile of r| / |5th percentile of r|"),
    "exposure": ("fraction", "share of time with a position"),
    "turnover": ("ratio", "sum |qty * price| over fills / capital"),
    "fees": ("money", "sum over fills"),
    "fills_count": ("count", "executions"),
    "trades_count": ("count", "closed round trips"),
    "win_rate": ("fraction", "closed trades with pnl > 0 / closed trades"),
    "profit_factor": ("ratio", "sum of winning pnl / |sum of losing pnl|, closed trades, net"),
    "expectancy": ("money", "mean pnl of a closed trade, net of fees"),
    "expectancy_bps": ("bps", "sum of pnl / sum of entry notional * 10,000, closed trades"),
    "average_win": ("money", "mean pnl of winning closed trades"),
    "average_loss": ("money", "mean pnl of losing closed trades"),
}

TOO_SHORT: Final = "too short to annualise"
NO_TRADES: Final = "no closed trades"


class Metrics(Mapping[str, float]):
    """The figures of one run by name; ``nan`` where there is none, and `notes` says why.

    See Also
    --------
    Metrics.table : name, value, unit and note of every figure.
    """

    def __init__(self, values: Mapping[str, float], notes: Mapping[str, str]) -> None:
        self._values = {name: float(values.get(name, math.nan)) for name in METRICS}
        self.notes = dict(notes)

    def __getitem__(self, name: str) -> float:
        """Return a figure."""
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        """Iterate over the names in table order."""
        return iter(self._values)

    def __len__(self) -> int:
        """Return how many figures there are."""
        return len(self._values)

    def table(self) -> pl.DataFrame:
        """Return one row a figure: metric, value, unit, note (basis, or why it is nan)."""
        return pl.DataFrame(
            {
                "metric": list(self._values),
                "value": list(self._values.values()),
                "unit": [METRICS[name][0] for name in self._values],
                "note": [self.notes.get(name, METRICS[name][1]) for name in self._values],
            },
            schema={
                "metric": pl.String,
                "value": pl.Float64,
                "unit": pl.String,
                "note": pl.String,
            },
        )

    def __repr__(self) -> str:
        """Show the figures that exist, one a line."""
        lines = (
            f"{name:>22} {value:,.6g}"
            for name, value in self._values.items()
            if not math.isnan(value)
        )
        return "\n".join(lines)


@dataclass(frozen=True, slots=True)
class Facts:
    """What the figures are computed from, beside returns and trades."""

    capital: float
    final_equity: float
    max_drawdown: float
    max_drawdown_us: int
    elapsed_us: int
    exposed_us: int
    grid_us: int
    days_per_year: float


def compute(
    returns: np.ndarray, facts: Facts, fills: pl.DataFrame, trades: pl.DataFrame
) -> Metrics:
    """Return all figures of a run.

    Parameters
    ----------
    returns
        Float64, simple returns of equity on the grid, in time order.
    facts
        Capital, elapsed time and what was followed at every tick.
    fills, trades
        As in `Result`.
    """
    notes: dict[str, str] = {}
    values = {
        "final_equity": facts.final_equity,
        "total_return": facts.final_equity / facts.capital - 1,
        "max_drawdown": facts.max_drawdown,
        "max_drawdown_duration": facts.max_drawdown_us / 1e6,
        **_return_figures(returns, facts, notes),
        **_trade_figures(trades, notes),
        **_cost_figures(facts, fills, notes),
    }
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
    mean, spread, downside = _moments(returns)
    sharpe, sortino = _ratio(mean, spread), _ratio(mean, downside)
    growth = facts.final_equity / facts.capital
    year_share = facts.elapsed_us / (facts.days_per_year * DAY_US)
    annual = growth ** (1 / year_share) - 1 if growth > 0 and _is_long(facts) else math.nan
    root = math.sqrt(_periods(facts))
    values = {
        "annual_return": annual,
        "volatility": spread * root,
        "sharpe": sharpe * root,
        "sortino": sortino * root,
        "calmar": _ratio(annual, abs(facts.max_drawdown)),
        "sharpe_per_period": sharpe,
        "sortino_per_period": sortino,
        "probabilistic_sharpe": _probabilistic_sharpe(returns),
        "skew": _skew(returns),
        "tail_ratio": _tail_ratio(returns),
    }
    notes.update({name: basis for name in values if name != "annual_return"})
    if not _is_long(facts):
        days = facts.elapsed_us / DAY_US
        why = f"{TOO_SHORT}: {days:.3g} days of {MINIMUM_DAYS}; {basis}"
        for name in ("annual_return", "volatility", "sharpe", "sortino", "calmar"):
            values[name], notes[name] = math.nan, why
    for name, value in values.items():
        if math.isnan(value) and TOO_SHORT not in notes.get(name, ""):
            notes[name] = f"{_why_undefined(returns)}; {basis}"
    return values


def _is_long(facts: Facts) -> bool:
    return facts.elapsed_us >= MINIMUM_DAYS * DAY_US


def _why_undefined(returns: np.ndarray) -> str:
    if len(returns) < 2:
        return "fewer than two returns"
    return "equity never moved" if not returns.any() else "no spread in the returns it needs"


def _moments(returns: np.ndarray) -> tuple[float, float, float]:
    if len(returns) < 2:
        return math.nan, math.nan, math.nan
    downside = math.sqrt(float(np.mean(np.minimum(returns, 0.0) ** 2)))
    return float(returns.mean()), float(returns.std(ddof=1)), downside


def _ratio(above: float, below: float) -> float:
    return above / below if below > 0 else math.nan


def _skew(returns: np.ndarray) -> float:
    spread = float(returns.std()) if len(returns) > 1 else 0.0
    return float(np.mean(((returns - returns.mean()) / spread) ** 3)) if spread > 0 else math.nan


def probabilistic_sharpe(
    sharpe: float, count: int, skew: float, kurtosis: float, benchmark: float = 0.0
) -> float:
    """Return the probability that the true Sharpe ratio is above `benchmark`.

    ``Phi((S - b) * sqrt(n - 1) / sqrt(1 - skew * S + (kurtosis - 1) / 4 * S**2))``: Bailey and
    Lopez de Prado (2012), "The Sharpe Ratio Efficient Frontier", Journal of Risk 15(2).

    Parameters
    ----------
    sharpe, benchmark
        Per period, not annualised.
    count
        Number of returns.
    skew, kurtosis
        Of the returns; plain kurtosis, 3 for a normal distribution.
    """
    variance = 1 - skew * sharpe + (kurtosis - 1) / 4 * sharpe**2
    if not variance > 0:
        return math.nan
    return NormalDist().cdf((sharpe - benchmark) * math.sqrt((count - 1) / variance))


def _probabilistic_sharpe(returns: np.ndarray) -> float:
    spread = float(returns.std(ddof=1)) if len(returns) > 1 else 0.0
    if not spread > 0:
        return math.nan
    standard = (returns - returns.mean()) / returns.std()
    moments = float(np.mean(standard**3)), float(np.mean(standard**4))
    return probabilistic_sharpe(float(returns.mean()) / spread, len(returns), *moments)


def _tail_ratio(returns: np.ndarray) -> float:
    if len(returns) < 2:
        return math.nan
    low, high = np.quantile(returns, [0.05, 0.95])
    return _ratio(abs(float(high)), abs(float(low)))


def _trade_figures(trades: pl.DataFrame, notes: dict[str, str]) -> dict[str, float]:
    closed = trades.filter(pl.col("exited_at").is_not_null())
    pnl = closed["pnl"].to_numpy()
    wins, losses = pnl[pnl > 0], pnl[pnl < 0]
    notional = float((closed["qty"] * closed["entry_price"]).sum())
    names = (
        "win_rate",
        "profit_factor",
        "expectancy",
        "expectancy_bps",
        "average_win",
        "average_loss",
    )
    if not len(pnl):
        notes.update(dict.fromkeys(names, NO_TRADES))
        return {"trades_count": 0.0, **dict.fromkeys(names, math.nan)}
    if not len(losses):
        notes.update(dict.fromkeys(("profit_factor", "average_loss"), "no losing trades"))
    if not len(wins):
        notes["average_win"] = "no winning trades"
    return {
        "trades_count": float(len(pnl)),
        "win_rate": len(wins) / len(pnl),
        "profit_factor": _ratio(float(wins.sum()), -float(losses.sum())),
        "expectancy": float(pnl.mean()),
        "expectancy_bps": float(pnl.sum()) / notional * 10_000,
        "average_win": float(wins.mean()) if len(wins) else math.nan,
        "average_loss": float(losses.mean()) if len(losses) else math.nan,
    }


def _cost_figures(facts: Facts, fills: pl.DataFrame, notes: dict[str, str]) -> dict[str, float]:
    traded = float((fills["qty"].abs() * fills["price"]).sum())
    if not facts.elapsed_us:
        notes["exposure"] = "no time passed"
    return {
        "fees": float(fills["fee"].sum()),
        "fills_count": float(fills.height),
        "turnover": traded / facts.capital,
        "exposure": _ratio(float(facts.exposed_us), float(facts.elapsed_us)),
    }
