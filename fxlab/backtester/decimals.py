"""How many decimals write a column of prices exactly: what makes integer arithmetic possible."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

MAX_DECIMALS: Final = 12
PRICE_TICKS: Final = "price_ticks"
LARGEST_TICKS: Final = 1e14  # beyond, neighbouring ticks come close to a float's own spacing
BLOCK_ROWS: Final = 16_384  # a block and its temporaries stay in the cache
ROUNDING: Final = 4 * 2.0**-53  # a few units in the last place


def find_decimals(prices: pl.Series) -> int | None:
    """Return the smallest number of decimals that writes all prices, or None.

    A price has d decimals if it is the double nearest to such a number, or within a few units in
    the last place of it: a mid of two quotes, or a price after an addition, is off by one or two.
    None if no number of decimals fits that 64-bit floats can still tell apart.
    """
    values = prices.drop_nulls().to_numpy()
    largest = float(values.max(initial=1.0))
    start = 0
    # A small sample rules out most candidates; one full pass confirms the survivor.
    for some in (values[:1000], values):
        for decimals in range(start, MAX_DECIMALS + 1):
            if largest * 10.0**decimals > LARGEST_TICKS:
                return None
            if _has_decimals(some, decimals):
                start = decimals
                break
        else:
            return None
    return start


def _has_decimals(values: np.ndarray, decimals: int) -> bool:
    scale = 10.0**decimals
    for start in range(0, len(values), BLOCK_ROWS):
        block = values[start : start + BLOCK_ROWS]
        off = np.abs(np.rint(block * scale) / scale - block)
        if not (off <= ROUNDING * block).all():
            return False
    return True


def exact_ticks(prices: pl.Series) -> tuple[int, np.ndarray] | None:
    """Return the decimals of prices, and the prices in units of the last one (int64), or None.

    The rules are those of `find_decimals`, in one compiled pass that does both.
    """
    from fxlab.backtester.columns_kernel import fit_ticks

    values = prices.to_numpy()
    guess = find_decimals(prices.head(1000))
    ticks = np.empty(len(values), np.int64)
    for decimals in range(guess or 0, MAX_DECIMALS + 1) if guess is not None else ():
        if fit_ticks(values, 10.0**decimals, ROUNDING, LARGEST_TICKS, ticks):
            return decimals, ticks
    return None


def with_price_ticks(frame: pl.DataFrame, decimals: int | None) -> pl.DataFrame:
    """Add `price_ticks` (Int64): the price in units of its last decimal. Not without decimals."""
    if decimals is None or PRICE_TICKS in frame.columns:
        return frame
    from fxlab.backtester.columns_kernel import to_ticks

    ticks = np.empty(frame.height, np.int64)
    to_ticks(frame["price"].to_numpy(), 10.0**decimals, ticks)
    return frame.with_columns(pl.Series(PRICE_TICKS, ticks))
