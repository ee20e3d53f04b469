"""The barest kernel that does the work: one pass, two running sums, cash and units.

It makes no fills, no trades, no equity curve and no metrics; it is the floor that the engine is
measured against, and a second opinion on trades and final equity.
"""

from __future__ import annotations

from numba import njit


@njit(cache=True)
def run_sma_cross(ticks, prices, fast, slow, fee, capital):  # noqa: PLR0917 - as numba likes it
    """Return closed trades and final equity of a long-only crossover with next-tick fills."""
    sum_fast = sum_slow = before = wish = trades = 0
    cash, units = capital, 0.0
    for i in range(len(ticks)):
        if wish == 1 and units == 0.0:
            units, cash = cash / (prices[i] * (1.0 + fee)), 0.0
        elif wish == -1 and units > 0.0:
            cash, units = units * prices[i] * (1.0 - fee), 0.0
            trades += 1
        wish = 0
        sum_fast += ticks[i]
        sum_slow += ticks[i]
        if i >= fast:
            sum_fast -= ticks[i - fast]
        if i >= slow:
            sum_slow -= ticks[i - slow]
        if i >= slow - 1:
            now = sum_fast * slow - sum_slow * fast
            if i >= slow:
                if now > 0 and before <= 0:
                    wish = 1
                elif now < 0 and before >= 0:
                    wish = -1
            before = now
    return trades, cash + units * prices[-1]
