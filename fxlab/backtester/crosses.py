"""Crosses of two moving averages: exact, and fast enough for thousands of pairs of windows."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from fxlab.backtester.decimals import PRICE_TICKS
from fxlab.errors import InvalidParameter

SUMS: Final = ":sums"  # after a column's name: its running sums
BLOCK_ROWS: Final = 1024


def mean_cross(
    fast: int, slow: int, *, golden: float = 1.0, death: float = -1.0, column: str = PRICE_TICKS
) -> pl.Expr:
    """Return `golden` and `death` where two simple moving averages cross, null elsewhere.

    Golden at row i: ``mean_fast[i-1] <= mean_slow[i-1]`` and ``mean_fast[i] > mean_slow[i]``, both
    means known on both rows; death is its mirror. Means are compared as
    ``sum_fast * slow`` with ``sum_slow * fast``: exact, no division.

    Parameters
    ----------
    fast, slow
        Rows in each mean, this one included.
    golden, death
        The values to return (Float64), for instance the targets of a strategy.
    column
        An integer column.
    """
    crosses = MeanCross(fast, slow, golden, death, column)

    def dense(series: pl.Series) -> pl.Series:
        rows, found = crosses.find(series.alias(column).to_frame(), 0)
        values = np.full(len(series), np.nan)
        values[rows] = found
        return pl.Series(series.name, values).fill_nan(None)

    return pl.col(column).map_batches(dense, return_dtype=pl.Float64)


@dataclass(frozen=True, slots=True)
class MeanCross:
    """The crosses of `mean_cross` as `Signals.events`: no row is touched that has none."""

    fast: int
    slow: int
    golden: float = 1.0
    death: float = -1.0
    column: str = PRICE_TICKS

    @property
    def roots(self) -> frozenset[str]:
        """Return the column that it reads."""
        return frozenset({self.column})

    def find(self, frame: pl.DataFrame, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows from `first` on where the means cross, and the values there.

        A column of running sums (see `with_running_sums`) is used where the frame has one, so
        that many windows share it.
        """
        from fxlab.backtester.columns_kernel import mean_crosses

        ticks = frame[self.column].to_numpy()
        # Two products are compared by their difference: half of what there is for each.
        check_fits(ticks, 2 * self.fast * self.slow, f"windows of {self.fast} and {self.slow}")
        name = f"{self.column}{SUMS}"
        sums = frame[name].to_numpy() if name in frame.columns else running_sums(ticks)
        before = sums[0] - ticks[0] if len(ticks) else 0
        rows = np.empty(len(ticks), np.int64)  # costs nothing where nothing is written
        up = np.empty(len(ticks), np.bool_)
        signs = np.empty(BLOCK_ROWS + 1, np.int8)
        windows = (self.fast, self.slow, first)
        count = mean_crosses(sums, before, *windows, signs, rows, up)
        return rows[:count], np.where(up[:count], self.golden, self.death)


def check_fits(values: np.ndarray, factor: int, what: str) -> None:
    """Refuse whole numbers whose multiples do not fit 64-bit integers: they would wrap around.

    Parameters
    ----------
    values
        Integers.
    factor
        How many times the largest of them has to fit.
    what
        What they are multiplied by, for the error message.
    """
    largest = max(int(values.max(initial=0)), -int(values.min(initial=0)))
    if largest * factor > np.iinfo(values.dtype).max:
        raise InvalidParameter(
            f"{what} over values of up to {largest:,} (prices in units of their last decimal) do "
            f"not fit {8 * values.itemsize}-bit integers, so the result would not be exact; choose "
            "a smaller window, or round the prices to fewer decimals"
        )


def with_running_sums(frame: pl.DataFrame, column: str = PRICE_TICKS) -> pl.DataFrame:
    """Add the running sums of an integer column, for a sweep over windows; see `MeanCross`."""
    if column not in frame.columns:
        return frame
    sums = running_sums(frame[column].to_numpy())
    return frame.with_columns(pl.Series(f"{column}{SUMS}", sums))


def running_sums(values: np.ndarray) -> np.ndarray:
    """Return the sum of all values up to each row; it may wrap around, differences do not mind."""
    from fxlab.backtester.columns_kernel import running_sums as kernel

    sums = np.empty(len(values), np.int64)
    kernel(values, sums)
    return sums
