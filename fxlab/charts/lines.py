"""Lines that keep their spikes and break where there was no data.

Every line of every picture goes through here: few points, the same shape, and no stroke across a
night in which nothing was recorded.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from fxlab.chart_style import milliseconds
from fxlab.sampling import Floats, gap_starts, rows_to_draw

POINTS: Final = 2_000
"""Points drawn of prices, unless told: about two a pixel, and a figure stays under 180 KB."""


def downsample(frame: pl.DataFrame, x: str, y: str, n_out: int) -> pl.DataFrame:
    """Return the rows of a frame that a line of at most `n_out` points needs.

    Rows without a finite `y` cannot be drawn and are left out. The first and the last row, and
    the lowest and highest row of every stretch, stay; so do the rows beside each silence.

    Parameters
    ----------
    frame
        Rows in the order of `x`.
    x, y
        Names of the columns to draw; `x` is a time or a number.
    n_out
        Rows returned at most, eight or more.
    """
    drawable = frame.filter(pl.col(x).is_not_null() & pl.col(y).cast(pl.Float64).is_finite())
    places = drawable[x].to_physical().cast(pl.Float64).to_numpy()
    values = drawable[y].cast(pl.Float64).to_numpy()
    return drawable[rows_to_draw(places, values, n_out)]


@dataclass(frozen=True, slots=True)
class Line:
    """What is drawn of one series: NaN breaks the line, and does not count as drawn."""

    x: Floats
    y: Floats
    drawn: int


def line(frame: pl.DataFrame, y: str, points: int) -> Line:
    """Return a line that keeps every spike and breaks at gaps."""
    clean = frame.filter(pl.col(y).cast(pl.Float64).is_finite())
    times = milliseconds(clean["timestamp"])
    values = clean[y].cast(pl.Float64).to_numpy()
    rows = rows_to_draw(times, values, points)
    before = gap_starts(times)
    # A gap is drawn exactly: its last row before and its first row after are always there.
    rows = np.union1d(rows, np.concatenate((before, before + 1)))
    after = np.searchsorted(rows, before + 1)
    middle = (times[before] + times[before + 1]) / 2
    return Line(
        x=np.insert(times[rows], after, middle),
        y=np.insert(values[rows], after, np.nan),
        drawn=len(rows),
    )
