"""Ratios of a return series (Sharpe, Sortino, omega, tail), quantiles and moments, as formulas.

Plain arrays in, plain numbers out, `nan` where there is none. They stand apart from the table of
metrics because sweeps, walk-forward and overfitting guards need the same numbers of other series,
and a formula that is written twice drifts.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from statistics import NormalDist
from typing import Final

import numpy as np

ROUNDING: Final = 1e-13
"""What floats may add to a return of an account, as a fraction: 450 times their last digit.

A return is a quotient of two sums of money near each other, so it is right to a few last digits of
1, whatever its own size; leverage makes that the notional's last digits. Deviations below are no
deviations: dividing by one gives a ratio of rounding errors.
"""


@dataclass(frozen=True, slots=True)
class Moments:
    """What the ratios are made of; every number is per period, not annualised.

    Attributes
    ----------
    count : int
        Number of returns.
    mean, spread : float
        Arithmetic mean; standard deviation with ``ddof=1``, exactly zero for returns that are
        equal but for `ROUNDING`.
    downside : float
        ``sqrt(mean(min(r, 0)**2))`` over all returns: Sortino and van der Meer (1991), target 0;
        exactly zero if no loss is larger than `ROUNDING`.
    skew, kurtosis : float
        Population moments ``mean(z**3)`` and ``mean(z**4)``, z = (r - mean) / std(ddof=0); the
        kurtosis of a normal distribution is 3 (not "excess").
    ruined : bool
        Whether the worst return is -1: everything was lost, and no ratio of these returns exists.
    """

    count: int
    mean: float
    spread: float
    downside: float
    skew: float
    kurtosis: float
    ruined: bool = False

    @property
    def sharpe(self) -> float:
        """Return ``mean / spread``: Sharpe (1994), against a riskless return of zero."""
        return math.nan if self.ruined else ratio(self.mean, self.spread)

    @property
    def sortino(self) -> float:
        """Return ``mean / downside``."""
        return math.nan if self.ruined else ratio(self.mean, self.downside)


def moments(returns: np.ndarray) -> Moments:
    """Return the moments of a series; all are nan for fewer than two returns.

    Parameters
    ----------
    returns
        Float64, shape (n,), simple returns in time order; finite.
    """
    count = len(returns)
    if count < 2:
        nothing = math.nan
        return Moments(count, nothing, nothing, nothing, nothing, nothing)
    mean, low, high = float(returns.mean()), float(returns.min()), float(returns.max())
    losses = np.minimum(returns, 0.0)
    # Sums, not np.dot: BLAS may add in another order on another machine or thread count.
    downside = math.sqrt(float((losses * losses).sum()) / count) if low < -ROUNDING else 0.0
    if high - low <= ROUNDING * (1.0 + max(abs(low), abs(high))):
        return Moments(count, mean, 0.0, downside, math.nan, math.nan)
    centred = returns - mean
    squares = centred * centred
    total = float(squares.sum())
    variance = total / count
    return Moments(
        count=count,
        mean=mean,
        spread=math.sqrt(total / (count - 1)),
        downside=downside,
        skew=float((squares * centred).sum()) / count / variance**1.5,
        kurtosis=float((squares * squares).sum()) / count / variance**2,
        ruined=low == -1.0,
    )


def ratio(above: float, below: float) -> float:
    """Return ``above / below``, or nan where there is nothing to divide by."""
    return above / below if below > 0 else math.nan


def quantiles(values: np.ndarray, shares: tuple[float, ...]) -> list[float]:
    """Return quantiles by linear interpolation (type 7 of Hyndman and Fan 1996, numpy's default).

    Parameters
    ----------
    values
        Float64, shape (n,), finite, in any order; one or more.
    shares
        From 0 to 1.
    """
    last = len(values) - 1
    places = [share * last for share in shares]
    lower = [math.floor(place) for place in places]
    upper = [min(low + 1, last) for low in lower]
    ordered = np.partition(values, sorted({*lower, *upper}))
    return [
        float(ordered[low] + (ordered[high] - ordered[low]) * (place - low))
        for place, low, high in zip(places, lower, upper, strict=True)
    ]


def omega(returns: np.ndarray) -> float:
    """Return the sum of gains over the sum of losses: Keating and Shadwick (2002), threshold 0.

    nan if no loss is larger than `ROUNDING`.
    """
    losses = -float(np.minimum(returns, 0.0).sum())
    if len(returns) < 2 or float(returns.min()) >= -ROUNDING:
        return math.nan
    return float(np.maximum(returns, 0.0).sum()) / losses


def tail_ratio(returns: np.ndarray) -> float:
    """Return ``|95th percentile| / |5th percentile|`` of the returns, as empyrical defines it.

    nan where the 5th percentile is zero but for `ROUNDING`.
    """
    if len(returns) < 2:
        return math.nan
    low, high = quantiles(returns, (0.05, 0.95))
    return ratio(abs(high), abs(low)) if abs(low) > ROUNDING else math.nan


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
