"""Rolling values that are exact: integer arithmetic on `price_ticks`.

Floating rolling means drift, and then the *trades* differ with the chunk or the library. Here
sums run on 64-bit integers, so every comparison is exact and no chunk, thread or machine can
change a trade. `price_ticks` is the price times 10 to the symbol's number of decimals.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from fxlab.errors import InvalidParameter

PRICE_TICKS: Final = "price_ticks"
EXACT_LIMIT: Final = 2**62


def rolling_sum(window: int, column: str = PRICE_TICKS) -> pl.Expr:
    """Return the exact sum of the last `window` rows; null before there are as many.

    Parameters
    ----------
    window
        Rows, this one included.
    column
        An integer column.
    """
    return pl.col(column).rolling_sum(window)


def rolling_mean_ticks(window: int) -> pl.Expr:
    """Return the mean of the last `window` prices in ticks: one division of an exact sum."""
    return rolling_sum(window) / window


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
    return pl.col(column).map_batches(
        lambda series: _mean_cross(series, fast, slow, golden, death), return_dtype=pl.Float64
    )


def _mean_cross(series: pl.Series, fast: int, slow: int, golden: float, death: float) -> pl.Series:
    from fxlab.backtester.kernel import mean_cross as kernel

    ticks = series.to_numpy()
    largest = int(ticks.max(initial=0))
    if largest * fast * slow >= EXACT_LIMIT:
        raise InvalidParameter(
            f"windows of {fast} and {slow} over prices of {largest:,} ticks do not fit 64-bit "
            "integers, so they could not be compared exactly; choose smaller windows"
        )
    crosses = np.full(len(series), np.nan)
    kernel(ticks, fast, slow, golden, death, crosses)
    return pl.Series(series.name, crosses).fill_nan(None)
