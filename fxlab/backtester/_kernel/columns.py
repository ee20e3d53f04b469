"""Compiled passes over whole columns: rolling sums, extremes, crosses, exponential means.

They are what Polars has no exact or no fast form of. They run per chunk and allocate nothing: the
caller brings the memory for what they write.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from fxlab.backtester._kernel.compiled import compiled, inlined
from fxlab.backtester._kernel.records import STILL_OPEN

SMALLEST_PRICE: Final = 1e-100
LARGEST_PRICE: Final = 1e100
"""What is bought at such prices, and what it is worth at others, stays within a float's range."""
LARGEST_WHOLE: Final = 2.0**53


@compiled
def running_sums(values, sums):
    """Write the sum of the values before each row, and of all.

    A sum may wrap around: differences do not mind.
    """
    total = sums[0] = 0
    for i in range(len(values)):
        total += values[i]
        sums[i + 1] = total


@compiled
def mean_crosses(sums, fast, slow, begin, signs, changed, rows, up):
    """Write where two moving averages cross from row `begin` on, and which way; return how often.

    `sums` are `running_sums`. `signs` and `changed` are room for a block of int8: comparing and
    searching apart, the compiler can compare eight rows at a time. A block is a multiple of eight.
    """
    size, count, end = len(changed), 0, len(sums) - 1
    words = changed.view(np.int64)
    first = max(begin, slow)  # both means are known, also in the row before
    write_signs(sums, fast, slow, first - 1, signs[:1])
    for row in range(first, end, size):
        m = min(size, end - row)
        write_signs(sums, fast, slow, row, signs[1 : 1 + m])
        before, after = signs[:m], signs[1 : 1 + m]
        changed[m:] = 0
        for j in range(m):
            changed[j] = (after[j] != before[j]) & (after[j] != 0)
        for word in range(-(-m // 8)):
            if words[word] != 0:
                for j in range(8 * word, 8 * word + 8):
                    if changed[j] != 0:
                        rows[count] = row + j
                        up[count] = after[j] > 0
                        count += 1
        signs[0] = signs[m]
    return count


@inlined
def write_signs(sums, fast, slow, row, out):
    """Write the sign of the fast mean less the slow one, from a row on."""
    m = len(out)
    now = sums[row + 1 : row + 1 + m]
    old_fast = sums[row + 1 - fast : row + 1 - fast + m]
    old_slow = sums[row + 1 - slow : row + 1 - slow + m]
    for j in range(m):
        difference = (now[j] - old_fast[j]) * slow - (now[j] - old_slow[j]) * fast
        out[j] = np.int8(difference > 0) - np.int8(difference < 0)


@compiled
def to_ticks(price, scale, ticks):
    """Write prices as whole numbers of ticks, which they are; return whether floats can say so."""
    fits = True
    for i in range(len(price)):
        whole = np.rint(price[i] * scale)
        fits &= not abs(whole) > LARGEST_WHOLE
        ticks[i] = np.int64(whole)
    return fits


@compiled
def fit_ticks(price, scale, rounding, largest, ticks):
    """Write prices as whole numbers of ticks; return whether all of them are (nan is left out)."""
    fits = True
    for i in range(len(price)):
        whole = np.rint(price[i] * scale)
        off = abs(whole / scale - price[i])
        fits &= not (off > rounding * price[i] or abs(whole) > largest)
        ticks[i] = 0 if np.isnan(whole) else np.int64(whole)
    return fits


@compiled
def first_bad_row(time, seq, price, last_time, last_seq):
    """Return the first row out of (time, seq) order or without a price, or -1."""
    for i in range(len(time)):
        later = time[i] > last_time or (time[i] == last_time and seq[i] > last_seq)
        if not later or not (SMALLEST_PRICE <= price[i] <= LARGEST_PRICE):
            return i
        last_time = time[i]
        last_seq = seq[i]
    return -1


@compiled
def changed_targets(rows, first, targets, largest, changes_only, chosen, decisions):
    """Write which targets are news, and decisions (`DECISION`) with nothing but them.

    Returns how many, and the first that is no target or -1. Rows of decisions count from `first`.
    """
    count = 0
    last = np.nan
    for i in range(len(targets)):
        value = targets[i]
        if not abs(value) <= largest:  # false for nan too
            return count, i
        if value != last or not changes_only:
            chosen[count] = i
            decision = decisions[count]
            decision["row"] = rows[i] - first
            decision["target"] = value
            decision["stop_loss"] = decision["take_profit"] = np.nan
            decision["trailing_stop"] = decision["limit"] = np.nan
            count += 1
            last = value
    return count, -1


@compiled
def condense(orders, fills, trades, notional, fees, maker, pnl, entry_notional, seconds):
    """Write what metrics need of fills (`FILL`) and closed trades (`TRADE`), a column each.

    Returns how many orders (`ORDER`) ended with nothing executed, and how many trades are closed.
    """
    unfilled = closed = 0
    for i in range(len(orders)):
        unfilled += orders[i]["qty"] == 0.0
    for i in range(len(fills)):
        notional[i] = abs(fills[i]["qty"]) * fills[i]["price"]
        fees[i] = fills[i]["fee"]
        maker[i] = fills[i]["maker"] != 0
    for i in range(len(trades)):
        trade = trades[i]
        if trade["exited_at"] != STILL_OPEN:
            pnl[closed] = trade["pnl"]
            entry_notional[closed] = trade["qty"] * trade["entry_price"]
            seconds[closed] = (trade["exited_at"] - trade["entered_at"]) / 1e6
            closed += 1
    return unfilled, closed


@compiled
def bar_starts(time, every, starts):
    """Write the first row of each interval that has rows; return how many intervals."""
    count = 0
    end = -(2**63)
    for i in range(len(time)):
        if time[i] >= end:
            starts[count] = i
            count += 1
            end = (time[i] // every + 1) * every
    return count


@compiled
def sums(values, weights, starts, totals):
    """Write the sum of values times weights from each start to the next; nan counts as nothing.

    One after the other, in the order of the rows: the same bits on any number of threads. A part
    with nothing to sum is nan.
    """
    for k in range(len(starts)):
        end = starts[k + 1] if k + 1 < len(starts) else len(values)
        total = 0.0
        known = False
        for i in range(starts[k], end):
            term = values[i] * weights[i]
            if not np.isnan(term):
                total += term
                known = True
        totals[k] = total if known else np.nan


@compiled
def rolling_largest(values, window, ahead, found):
    """Write the largest of the last `window` values; of all, before there are as many.

    Blocks of one window each: a window spans at most two, so it is the largest from its start to
    the end of its first block (`ahead`) or from the start of its second block to its end, and no
    branch depends on the data (Gil, Werman 1993, "Computing 2-D min, median, and max filters").
    """
    rows = len(values)
    for begin in range(0, rows, window):
        end = min(begin + window, rows)
        found[begin] = values[begin]
        for i in range(begin + 1, end):
            found[i] = max(found[i - 1], values[i])
        ahead[end - 1] = values[end - 1]
        for i in range(end - 2, begin - 1, -1):
            ahead[i] = max(ahead[i + 1], values[i])
    for i in range(window - 1, rows):
        found[i] = max(found[i], ahead[i - window + 1])


BREAK_ROWS: Final = 64
"""Rows whose longest ways back are known together, so that most are passed over."""


@compiled
def ways_back(values, above, below):
    """Write how many rows right before each one are all lower than it, and all higher.

    A row that is passed over takes with it what it has passed over itself, so that each is looked
    at a few times.
    """
    for i in range(len(values)):
        j = i - 1
        while j >= 0 and values[j] < values[i]:
            j -= above[j] + 1
        above[i] = i - 1 - j
        j = i - 1
        while j >= 0 and values[j] > values[i]:
            j -= below[j] + 1
        below[i] = i - 1 - j


@compiled
def channel_breaks(above, below, most_above, most_below, entry, leave, begin, rows, up):
    """Write the rows from `begin` on that leave a channel, and which way; return how many.

    The first four are `ways_back`, and the most of them in each `BREAK_ROWS` rows.
    """
    count, row = 0, begin
    while row < len(above):
        block = row // BREAK_ROWS
        after = min((block + 1) * BREAK_ROWS, len(above))
        if most_above[block] >= entry or most_below[block] >= leave:
            for i in range(row, after):
                if above[i] >= entry or below[i] >= leave:
                    rows[count] = i
                    up[count] = above[i] >= entry
                    count += 1
        row = after
    return count


@compiled
def deviations(values, sums, window, low, high, begin, rows, kinds):
    """Write the rows from `begin` on that deviate from a reference, or are back at it.

    The reference is the mean of the last `window` values, where their `running_sums` are given
    (times `window`, as are the values then), else the value `window` rows before. Kinds are 0 for a
    value below `low` times the reference, 1 for one above `high` times it, 2 for one that has met
    it or passed it. Returns how many.
    """
    of_mean = len(sums) > 0
    count = before = 0
    known = window - 1 if of_mean else window
    for i in range(max(begin - 1, known), len(values)):
        value, reference = values[i], np.int64(0)
        if of_mean:
            value *= window
            reference = sums[i + 1] - sums[i + 1 - window]
        else:
            reference = values[i - window]
        side = value - reference
        kind = -1
        if value < reference * low:
            kind = 0
        elif value > reference * high:
            kind = 1
        elif (side >= 0 and before < 0) or (side <= 0 and before > 0):
            kind = 2
        if kind >= 0 and i >= begin:
            rows[count] = i
            kinds[count] = kind
            count += 1
        before = side
    return count


@compiled
def exponential_crosses(values, fast, slow, begin, rows, up):
    """Write the rows from `begin` on where an exponential average passes another; return how many.

    `fast` and `slow` are their weights; both averages are those of `exponential_means`.
    """
    count = 0
    quick = late = values[0] if len(values) > 0 else 0.0
    above = False
    for i in range(len(values)):
        quick += fast * (values[i] - quick)
        late += slow * (values[i] - late)
        now = quick > late
        if i > 0 and now != above and i >= begin:
            rows[count] = i
            up[count] = now
            count += 1
        above = now
    return count


@compiled
def exponential_means(values, weight, means):
    """Write the exponential average of all values so far."""
    mean = values[0] if len(values) > 0 else 0.0
    for i in range(len(values)):
        mean += weight * (values[i] - mean)
        means[i] = mean


@compiled
def anchored_means(time, values, weights, every, means):
    """Write the weighted mean since the interval's start; nan before there is any weight."""
    end = -(2**63)
    total = weight = 0.0
    for i in range(len(time)):
        if time[i] >= end:
            end = (time[i] // every + 1) * every
            total = weight = 0.0
        if weights[i] > 0.0:
            total += values[i] * weights[i]
            weight += weights[i]
        means[i] = total / weight if weight > 0.0 else np.nan
