"""The names of all figures, with unit and formula, and the mapping that carries their values.

One table decides what a figure is called, in which unit it is shown and in which order it stands;
reports, comparisons and saved runs read it here.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Final

import polars as pl

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
    "blind_time": ("seconds", "time of the run inside holes of the gap ledger"),
    "blind_share": ("fraction", "blind time / elapsed time"),
}

LESS_IS_BETTER: Final = frozenset(
    {
        *("max_drawdown_duration", "volatility", "exposure", "turnover", "fees"),
        *("funding", "orders_unfilled", "blind_time", "blind_share"),
    }
)
"""Figures of which a smaller one is better; of all others more is (a drawdown is below zero)."""

NEITHER: Final = frozenset(
    {
        *("exposure", "turnover", "fills_count", "trades_count", "maker_share", "ruined_after"),
        *("median_trade_duration", "longest_trade_duration", "skew", "kurtosis"),
    }
)
"""Figures that describe a run: no value of them makes one run better than another."""


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
