"""Lines that keep their spikes and break where there was no data, known gaps among it.

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


SHADED: Final = 300
"""Known gaps that a chart shows, the longest ones."""

NO_GAPS: Final = pl.DataFrame(schema={"symbol": pl.String, "start": pl.Float64, "end": pl.Float64})


def unfilled(gaps: pl.DataFrame | None, what: str) -> pl.DataFrame:
    """Return the gaps that a chart shows, as symbol (null: all), start, end (ms since 1970).

    Parameters
    ----------
    gaps
        from_time, to_time, and as far as they are there: symbol, and event, count and detail of a
        session's ledger, of which only gaps count that are not filled.
    what
        The data that is drawn, "prices" or "orderbook": gaps of the other are no gaps of it.
    """
    if gaps is None:
        return NO_GAPS
    kept = gaps.filter(pl.col("from_time").is_not_null() & pl.col("to_time").is_not_null())
    if "event" in gaps.columns:
        kept = kept.filter(pl.col("event") == "gap")
    if "count" in gaps.columns:
        kept = kept.filter(pl.col("count").is_null() | (pl.col("count") != 0))
    if "detail" in gaps.columns:
        missed = pl.col("detail").cast(pl.String).str.extract(r'"what": ?"(\w+)"')
        kept = kept.filter(missed.is_null() | (missed == what))
    if "symbol" not in gaps.columns:
        kept = kept.with_columns(symbol=pl.lit(None, pl.String))
    return pl.DataFrame(
        {
            "symbol": kept["symbol"].cast(pl.String).replace("", None),
            "start": milliseconds(kept["from_time"]),
            "end": milliseconds(kept["to_time"]),
        },
        schema=NO_GAPS.schema,
    )


def gaps_of(gaps: pl.DataFrame, symbol: str, rows: pl.DataFrame) -> pl.DataFrame:
    """Return the gaps of a symbol, the `SHADED` longest.

    If it is not known which symbol is drawn (""), the rows tell: a gap in which there are rows is
    another symbol's.
    """
    own = pl.col("symbol").is_null() | (pl.col("symbol") == symbol)
    if not symbol and gaps["symbol"].n_unique() > 1:
        times = milliseconds(rows["timestamp"])
        after = np.searchsorted(times, gaps["start"], side="right")
        own = pl.col("symbol").is_null() | pl.Series(np.searchsorted(times, gaps["end"]) <= after)
    elif not symbol:
        own = pl.lit(value=True)
    return _longest(gaps.filter(own))


def _longest(gaps: pl.DataFrame) -> pl.DataFrame:
    return gaps.sort(pl.col("end") - pl.col("start"), descending=True).head(SHADED)


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


def line(frame: pl.DataFrame, y: str, points: int, gaps: pl.DataFrame = NO_GAPS) -> Line:
    """Return a line that keeps every spike and breaks in silences and in known gaps."""
    clean = frame.filter(pl.col(y).cast(pl.Float64).is_finite())
    times = milliseconds(clean["timestamp"])
    values = clean[y].cast(pl.Float64).to_numpy()
    rows = rows_to_draw(times, values, points)
    before = np.union1d(gap_starts(times), _rows_before(times, gaps)).astype(np.int64)
    # A gap is drawn exactly: its last row before and its first row after are always there.
    rows = np.union1d(rows, np.concatenate((before, before + 1)))
    after = np.searchsorted(rows, before + 1)
    middle = (times[before] + times[before + 1]) / 2
    return Line(
        x=np.insert(times[rows], after, middle),
        y=np.insert(values[rows], after, np.nan),
        drawn=len(rows),
    )


def _rows_before(times: Floats, gaps: pl.DataFrame) -> list[int]:
    """Return the row before each known gap; in one that is filled in part, before its silence."""
    found = []
    for start, end in gaps.select("start", "end").iter_rows():
        first = max(int(np.searchsorted(times, start, side="right")) - 1, 0)
        last = int(np.searchsorted(times, end))
        if end > start and times[first : first + 1] <= start and last < len(times):
            found.append(first + int(np.diff(times[first : last + 1]).argmax()))
    return found
