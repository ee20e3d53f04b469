"""How many decimals write a column of prices exactly: what makes integer arithmetic possible."""

from __future__ import annotations

import math
from typing import Final

import numpy as np
import polars as pl

from fxlab.errors import InvalidTicks

MAX_DECIMALS: Final = 22  # the largest power of ten that a float holds exactly
PRICE_TICKS: Final = "price_ticks"
LARGEST_TICKS: Final = 1e14  # beyond, neighbouring ticks come close to a float's own spacing
UNIT_DECIMALS: Final = 13  # of a price below ten, so that it has no more ticks than that
BLOCK_ROWS: Final = 16_384  # a block and its temporaries stay in the cache
ROUNDING: Final = 4 * 2.0**-53  # a few units in the last place


def find_decimals(prices: pl.Series) -> int | None:
    """Return the smallest number of decimals that writes all prices, or None.

    A price has d decimals if it is the double nearest to such a number, or within a few units in
    the last place of it: a mid of two quotes, or a price after an addition, is off by one or two.
    None if no number of decimals fits that 64-bit floats can still tell apart.
    """
    values = prices.drop_nulls().to_numpy()
    largest = float(values.max(initial=0.0))
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


def advice(prices: pl.Series) -> str:
    """Return what brings these prices on a grid, worked out from them."""
    low, high = float(prices.min() or 1.0), float(prices.max() or 1.0)  # type: ignore[arg-type]
    fitting = [d for d in range(MAX_DECIMALS + 1) if high * 10.0**d <= LARGEST_TICKS]
    if fitting and low * 10.0 ** fitting[-1] >= 1.0:
        return f"round them first: pl.col('price').round({fitting[-1]})"
    exponent = math.floor(math.log10(high))
    if low / 10.0**exponent * 10.0**UNIT_DECIMALS >= 1.0:
        return (
            f"they need another unit: (pl.col('price') * 1e{-exponent}).round({UNIT_DECIMALS}), "
            f"and money is in that unit then"
        )
    return (
        f"they run from {low:g} to {high:g}, too far apart for one grid of 64-bit integers: use a "
        "strategy that reads price, not price_ticks"
    )


def with_price_ticks(frame: pl.DataFrame, decimals: int | None) -> pl.DataFrame:
    """Add `price_ticks` (Int64): the price in units of its last decimal. Not without decimals."""
    if decimals is None or PRICE_TICKS in frame.columns:
        return frame
    from fxlab.backtester.columns_kernel import to_ticks

    ticks = np.empty(frame.height, np.int64)
    if not to_ticks(frame["price"].to_numpy(), 10.0**decimals, ticks):
        raise InvalidTicks(
            f"prices of up to {frame['price'].max()!r} with {decimals} decimals are more units of "
            f"the last one than floats can tell apart (2^53); {advice(frame['price'])}"
        )
    return frame.with_columns(pl.Series(PRICE_TICKS, ticks))
