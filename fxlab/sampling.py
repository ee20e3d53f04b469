"""Fewer points, the same picture: what a chart draws of millions of ticks.

Each run of rows gives its lowest and its highest row, so no spike is ever lost: spikes are what a
trader looks for. Each span of time gives its first and its last row, so no silence is ever
invented or hidden.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]


def min_max_rows(values: Floats, limit: int) -> Indices:
    """Return the rows to draw: first, last, and the extremes of runs of equal length.

    Parameters
    ----------
    values
        Finite numbers in drawing order.
    limit
        Rows returned at most, four or more.

    Returns
    -------
    Indices
        Rising row numbers; all of them where they fit. The first of equal extremes is taken.

    Raises
    ------
    ValueError
        If `limit` is below four.
    """
    if limit < 4:
        raise ValueError(f"limit={limit} must be four or more: first, lowest, highest, last")
    count = len(values)
    if count <= limit:
        return np.arange(count, dtype=np.int64)
    length = -(-count // ((limit - 2) // 2))
    whole = count // length * length
    runs = values[:whole].reshape(-1, length)
    starts = np.arange(0, whole, length)
    tail = values[whole:]
    last = [whole + tail.argmin(), whole + tail.argmax()] if len(tail) else []
    chosen = (starts + runs.argmin(1), starts + runs.argmax(1), last, [0, count - 1])
    return np.unique(np.concatenate(chosen)).astype(np.int64)


def slot_edges(times: Floats, slots: int) -> Indices:
    """Return the first and the last row of each of `slots` equal spans of time.

    Between two of these rows that lie in different slots nothing happened, so a step longer than
    a slot is a real silence: a sample with these rows shows the gaps of the whole, and no others.

    Parameters
    ----------
    times
        Rising times in any unit.
    slots
        How many spans the whole range is cut into; empty ones give no rows.
    """
    if not len(times):
        return np.empty(0, dtype=np.int64)
    cuts = np.linspace(times[0], times[-1], slots + 1)[1:-1]
    firsts = np.unique(np.concatenate(([0], np.searchsorted(times, cuts))))
    firsts = firsts[firsts < len(times)]
    lasts = np.append(firsts[1:], len(times)) - 1
    return np.union1d(firsts, lasts).astype(np.int64)


def rows_to_draw(times: Floats, values: Floats, limit: int) -> Indices:
    """Return the rows that a line of at most `limit` points needs: its spikes and its gaps.

    Parameters
    ----------
    times
        Rising times in any unit.
    values
        Finite numbers, one for each time.
    limit
        Rows returned at most, eight or more: half of them keep spikes, half keep gaps.
    """
    if len(values) <= limit:
        return np.arange(len(values), dtype=np.int64)
    spikes = min_max_rows(values, limit // 2)
    return np.union1d(spikes, slot_edges(times, limit // 4)).astype(np.int64)


def gap_starts(times: Floats, factor: float = 50.0, share: float = 0.02) -> Indices:
    """Return the rows after which nothing happened for long: a line drawn across would lie.

    A gap is longer than `factor` times the median step and longer than `share` of the whole
    range. The second rule is needed because trades come in bursts: where most steps are
    microseconds, every quiet second is many medians long, and still no hole that an eye could see.

    Parameters
    ----------
    times
        Rising times in any unit. Steps of zero do not count for the median.
    """
    steps = np.diff(times)
    moving = steps[steps > 0]
    if not len(moving):
        return np.empty(0, dtype=np.int64)
    longest = max(factor * float(np.median(moving)), share * float(times[-1] - times[0]))
    return np.flatnonzero(steps > longest).astype(np.int64)
