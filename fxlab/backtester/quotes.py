"""Quotes as ticks: the mid of the best prices, and the spread, without the dust of floating point.

The difference or mean of two decimal prices is seldom the double nearest to the decimal result
(61837.64 - 61837.63 is 0.010000000002037268). Both are rounded to the decimals that the prices
themselves have, so 0.01 is 0.01.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from fxlab.backtester.decimals import find_decimals

BEST: Final = ("bid_price_1", "ask_price_1")


def mid(decimals: int | None) -> pl.Expr:
    """Return the mean of the best prices, rounded to decimals; null if a side is empty."""
    bid, ask = map(pl.col, BEST)
    return rounded((bid + ask) / 2, decimals)


def spread(decimals: int | None) -> pl.Expr:
    """Return best ask minus best bid, rounded to decimals; null if a side is empty."""
    bid, ask = map(pl.col, BEST)
    return rounded(ask - bid, decimals)


def with_mid_price(frame: pl.DataFrame, decimals: int | None) -> pl.DataFrame:
    """Add the mid as `price`, and leave out the rows that have none."""
    return frame.with_columns(price=mid(decimals)).drop_nulls("price")


def price_decimals(frame: pl.DataFrame) -> int | None:
    """Return the decimals that write all best prices exactly, or None if no number does."""
    return find_decimals(pl.concat([frame[name].alias("price") for name in BEST]))


def mid_decimals(frame: pl.DataFrame) -> int | None:
    """Return the decimals that write all mids exactly, or None if no number does."""
    decimals = price_decimals(frame)
    return None if decimals is None else find_decimals(frame.select(mid(decimals + 1)).to_series())


def rounded(value: pl.Expr, decimals: int | None) -> pl.Expr:
    """Return the double nearest to a decimal number; None leaves the value as it is."""
    # Not (value * scale).round() / scale: Polars divides by a constant as it would multiply by
    # the inverse, and 3 / 10 is 0.30000000000000004 then.
    return value if decimals is None else value.round(decimals)
