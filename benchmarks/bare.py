"""The barest kernels that do the work, with nothing of an engine around them.

A crossover is run by events: signs of window sums over blocks of one prefix sum, an account that is
touched at crosses alone, extremes of the price between them. It is the floor that the engine is
measured against. The exits go row by row, two running sums, cash and units. Both are a second
opinion on trades and final equity.
"""

from __future__ import annotations

import numpy as np
from numba import njit, prange

CHUNK, BLOCK = 8_192, 64  # rows whose signs are kept, rows that are passed over at once
ROWS_OF_A_CROSS = 32  # no fewer on average; room for a cross at each row costs more than the search


@njit(cache=True, nogil=True)
def compare_means(sums, first, stop, fast, slow, signs):  # noqa: PLR0917 - as numba likes it
    """Put into `signs` 1 where the fast average is above the slow one, 2 where it is below."""
    now = sums[first:stop]
    short = sums[first - fast : stop - fast]
    long = sums[first - slow : stop - slow]
    short_factor, long_factor = float(slow), float(fast)
    for i in range(stop - first):
        difference = (now[i] - short[i]) * short_factor - (now[i] - long[i]) * long_factor
        signs[i] = np.uint8(difference > 0.0) | np.uint8(np.uint8(difference < 0.0) << 1)


@njit(cache=True, nogil=True)
def differs(signs, start, stop, sign):
    """Return whether any sign from `start` up to `stop` is another than `sign`."""
    other = np.uint8(0)
    for i in range(start, stop):
        other |= signs[i] ^ sign
    return other != 0


@njit(cache=True, nogil=True)
def find_crosses(sums, fast, slow, rows, golden):
    """Return how many crosses there are, having put their rows and kinds into `rows`, `golden`.

    `sums` are float64, one more than rows: whole ticks before each row, exact below 2**53.
    """
    signs = np.empty(CHUNK, np.uint8)
    before = np.uint8(3)  # of the row before the first, the slow average is not known
    count = 0
    for first in range(slow, len(sums), CHUNK):
        many = min(CHUNK, len(sums) - first)
        compare_means(sums, first, first + many, fast, slow, signs)
        if before == 3:
            before = signs[0]
        for start in range(0, many, BLOCK):
            stop = min(start + BLOCK, many)
            if not differs(signs, start, stop, before):
                continue
            for i in range(start, stop):
                if signs[i] != before:
                    before = signs[i]
                    if count == len(rows):
                        raise ValueError("more crosses than there is room for")
                    rows[count], golden[count] = first + i - 1, before == 1
                    count += before != 0
    return count


@njit(cache=True, nogil=True, fastmath={"nnan", "nsz"})
def extremes(prices, start, stop):
    """Return the lowest and the highest of the prices from `start` up to `stop`."""
    low = high = prices[start]
    for i in range(start, stop):
        low, high = min(low, prices[i]), max(high, prices[i])
    return low, high


@njit(cache=True, nogil=True)
def keep_account(prices, rows, golden, fee, capital, samples, equities):  # noqa: C901, PLR0917
    """Return closed trades, final equity and the share of the peak that was left at the least.

    Between two fills equity rises and falls with the price: only where its highest makes a new
    peak are the rows looked at one by one. `equities` gets equity at the rows `samples`.
    """
    cash, units, peak, left = capital, 0.0, capital, 1.0
    trades = since = sampled = 0
    for event in range(len(rows) + 1):
        row = rows[event] + 1 if event < len(rows) else len(prices) - 1
        if row >= len(prices):
            break
        while sampled < len(samples) and samples[sampled] < row:
            equities[sampled] = cash + units * prices[samples[sampled]]
            sampled += 1
        if units > 0.0:
            low, high = extremes(prices, since, row + 1)
            if cash + units * high <= peak:
                left = min(left, (cash + units * low) / peak)
            else:
                for i in range(since, row + 1):
                    equity = cash + units * prices[i]
                    peak = max(peak, equity)
                    if equity < left * peak:
                        left = equity / peak
        if event == len(rows):
            break
        if golden[event] and units == 0.0:
            units, cash, since = cash / (prices[row] * (1.0 + fee)), 0.0, row
        elif not golden[event] and units > 0.0:
            cash, units = units * prices[row] * (1.0 - fee), 0.0
            trades += 1
    while sampled < len(samples):
        equities[sampled] = cash + units * prices[samples[sampled]]
        sampled += 1
    return trades, cash + units * prices[-1], left


@njit(cache=True, nogil=True)
def run_sma_cross(sums, prices, fast, slow, fee, capital, samples):  # noqa: PLR0917
    """Return trades, final equity, drawdown and Sharpe ratio of a long-only crossover."""
    most = len(prices) // ROWS_OF_A_CROSS + BLOCK
    rows, golden = np.empty(most, np.int64), np.empty(most, np.bool_)
    count = find_crosses(sums, fast, slow, rows, golden)
    equities = np.empty(len(samples))
    trades, equity, left = keep_account(
        prices, rows[:count], golden[:count], fee, capital, samples, equities
    )
    returns = equities[1:] / equities[:-1] - 1.0
    spread = returns.std() if len(returns) else 0.0
    return trades, equity, 1.0 - left, returns.mean() / spread if spread > 0.0 else np.nan


@njit(cache=True, parallel=True)
def run_pairs(sums, prices, fasts, slows, fee, capital, samples, trades, equities):  # noqa: PLR0917
    """Fill `trades` and `equities` with one crossover for each pair of windows, on all threads."""
    for k in prange(len(fasts)):
        found = run_sma_cross(sums, prices, fasts[k], slows[k], fee, capital, samples)
        trades[k] = found[0]
        equities[k] = found[1]


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
