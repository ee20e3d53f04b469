"""Compiled passes over whole columns: rolling sums, extremes, crosses, exponential means.

They are what Polars has no exact or no fast form of. They run per chunk and allocate nothing: the
caller brings the memory for what they write.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from fxlab.backtester._kernel.compiled import compiled

SMALLEST_PRICE: Final = 1e-100
LARGEST_PRICE: Final = 1e100
"""What is bought at such prices, and what it is worth at others, stays within a float's range."""
LARGEST_WHOLE: Final = 2.0**53
SEARCHED: Final = 32
"""Rows that are looked at one by one where one of them is a cross."""


@compiled
def mean_crosses(ticks, fast, slow, begin, sums, signs, rows, up):
    """Write where two moving averages cross from row `begin` on, and which way.

    Returns how often, and the lowest and the highest value that was read. `sums` is room for the
    running sums of a block behind those of the longest window, which begin as zeros: a sum may
    wrap around, differences do not mind. `signs` is room for a block: summing, comparing and
    searching apart, the compiler can compare eight rows at a time.
    """
    size, kept = len(signs) - 1, len(sums) - len(signs) + 1
    first = max(begin, slow) - 1  # both means are known, and there is nothing to compare with
    count = total = low = high = 0
    row = max(0, first + 1 - kept)
    while row < len(ticks):
        m = min(size, len(ticks) - row)
        some, now = ticks[row : row + m], sums[kept : kept + m]
        for j in range(m):
            total += some[j]
            now[j] = total
        for j in range(m):
            low, high = min(low, some[j]), max(high, some[j])
        old_fast, old_slow = (
            sums[kept - fast : kept - fast + m],
            sums[kept - slow : kept - slow + m],
        )
        new = signs[1 : 1 + m]
        for j in range(m):
            difference = (now[j] - old_fast[j]) * slow - (now[j] - old_slow[j]) * fast
            new[j] = np.int8(difference > 0) - np.int8(difference < 0)
        skipped = max(0, first - row)
        if row <= first < row + m:
            signs[skipped] = signs[skipped + 1]
        for begun in range(skipped, m, SEARCHED):
            end = min(begun + SEARCHED, m)
            before, after = signs[begun:end], signs[begun + 1 : end + 1]
            changed = 0
            for j in range(len(before)):
                changed += after[j] != before[j]
            for j in range(len(before) if changed > 0 else 0):
                if after[j] != before[j] and after[j] != 0:
                    rows[count] = row + begun + j
                    up[count] = after[j] > 0
                    count += 1
        signs[0] = signs[m]
        for j in range(kept):
            sums[j] = sums[m + j]
        row += m
    return count, low, high


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
def changed_targets(targets, largest, changes_only, chosen):
    """Write which targets are news; return how many, and the first that is no target or -1."""
    count = 0
    last = np.nan
    for i in range(len(targets)):
        value = targets[i]
        if not abs(value) <= largest:  # false for nan too
            return count, i
        if value != last or not changes_only:
            chosen[count] = i
            count += 1
            last = value
    return count, -1


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
