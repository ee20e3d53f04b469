"""The barest kernels that do the work: one pass, two running sums, cash and units.

They make no fills, no trades, no equity curve and no metrics; they are the floor that the engine
is measured against, and a second opinion on trades and final equity.
"""

from __future__ import annotations

from numba import njit, prange


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


@njit(cache=True, parallel=True)
def run_pairs(ticks, prices, fasts, slows, fee, capital, trades, equities):  # noqa: PLR0917
    """Fill `trades` and `equities` with one crossover for each pair of windows, on all threads."""
    for k in prange(len(fasts)):
        found, equity = run_sma_cross(ticks, prices, fasts[k], slows[k], fee, capital)
        trades[k] = found
        equities[k] = equity


@njit(cache=True)
def run_exits_at_print(ticks, prices, fast, slow, fee, capital, take, stop):  # noqa: PLR0917
    """Return trades, winners and final equity where both exits fill at the print that touches.

    This is what vectorbt does with ``stop_exit_price="close"``: the print that triggers an exit
    is also its price, which no order sent after seeing it could get.
    """
    sum_fast = sum_slow = before = trades = winners = 0
    wish = False
    cash, units, entry = capital, 0.0, 0.0
    for i in range(len(ticks)):
        price = prices[i]
        if wish:
            units, cash, entry = cash / (price * (1.0 + fee)), 0.0, price
            wish = False
        elif units > 0.0 and (price >= entry * (1.0 + take) or price <= entry * (1.0 - stop)):
            cash, units = units * price * (1.0 - fee), 0.0
            trades += 1
            winners += price > entry
        sum_fast += ticks[i]
        sum_slow += ticks[i]
        if i >= fast:
            sum_fast -= ticks[i - fast]
        if i >= slow:
            sum_slow -= ticks[i - slow]
        if i >= slow - 1:
            now = sum_fast * slow - sum_slow * fast
            wish = i >= slow and now > 0 and before <= 0 and units == 0.0
            before = now
    return trades, winners, cash + units * prices[-1]


@njit(cache=True)
def run_exits(ticks, prices, fast, slow, fee, capital, take, stop):  # noqa: PLR0917
    """Return trades, winners and final equity under fxlab's own rule.

    The take-profit is a resting limit order: filled at its own price once a print goes through
    it. The stop-loss is a market order sent at the print that touches it: filled at the next.
    """
    sum_fast = sum_slow = before = trades = winners = 0
    wish = stopped = False
    cash, units, upper, lower, entry = capital, 0.0, 0.0, 0.0, 0.0
    for i in range(len(ticks)):
        price = prices[i]
        if wish:
            units, cash, entry = cash / (price * (1.0 + fee)), 0.0, price
            upper, lower = price * (1.0 + take), price * (1.0 - stop)
            wish = False
        elif units > 0.0:
            if stopped or price > upper:
                at = price if stopped else upper
                cash, units = units * at * (1.0 - fee), 0.0
                trades += 1
                winners += at > entry
                stopped = False
            elif price <= lower:
                stopped = True
        sum_fast += ticks[i]
        sum_slow += ticks[i]
        if i >= fast:
            sum_fast -= ticks[i - fast]
        if i >= slow:
            sum_slow -= ticks[i - slow]
        if i >= slow - 1:
            now = sum_fast * slow - sum_slow * fast
            wish = i >= slow and now > 0 and before <= 0 and units == 0.0
            before = now
    return trades, winners, cash + units * prices[-1]
