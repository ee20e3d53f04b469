"""How points are compared: by one figure, of which more is better unless it is one that costs."""

from __future__ import annotations

from fxlab.backtester.metric_table import LESS_IS_BETTER, METRICS, NEITHER
from fxlab.errors import InvalidParameter, did_you_mean


def check_metric(metric: str) -> str:
    """Return the name of a figure, or raise `InvalidParameter` with those that are near."""
    if metric not in METRICS:
        hint = did_you_mean(str(metric), METRICS) or f"known: {', '.join(METRICS)}"
        raise InvalidParameter(f"metric={metric!r:.80} is not a figure of a run; {hint}")
    return metric


def check_goal(metric: str) -> str:
    """Return the name of a figure that makes one run better than another."""
    if check_metric(metric) in NEITHER:
        raise InvalidParameter(
            f"metric={metric!r} describes a run; no value of it makes one better than another; "
            "choose for example sharpe_per_period, total_return or profit_factor"
        )
    return metric


def sign(metric: str) -> float:
    """Return 1 if more of a figure is better, else -1."""
    return -1.0 if metric in LESS_IS_BETTER else 1.0
