"""Quotes as ticks: the mid of the best prices, and the spread, without the dust of floating point.

The difference or mean of two decimal prices is seldom the double nearest to the decimal result
(61837.64 - 61837.63 is 0.010000000002037268). Both are rounded to the decimals that the prices
themselves have, so 0.01 is 0.01.
"""

from __future__ import annotations

from collections.abc import Collection
from itertools import pairwise
from typing import Final

import polars as pl

from fxlab.backtester.decimals import find_decimals
from fxlab.schema import BOOK_DEPTH, book_levels

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
    """Add the mid as `price`; leave out rows that have none: a side is empty, or they cross.

    Equal prices are no cross: quotes put together from many banks lock now and then.
    """
    bid, ask = map(pl.col, BEST)
    return frame.with_columns(price=mid(decimals)).filter(bid <= ask)


def usable(columns: Collection[str]) -> pl.Expr:
    """Return whether a book can be trusted.

    It shows something, no level is missing before another, bids fall and asks rise from level to
    level, the best bid is below the best ask, prices are above zero and quantities not below it.
    Judged by the levels that `columns` name.
    """
    sides = {side: _levels(columns, f"{side}_price_") for side in ("bid", "ask")}
    checks = [worse.is_null() | _known(better > worse) for better, worse in pairwise(sides["bid"])]
    checks += [worse.is_null() | _known(better < worse) for better, worse in pairwise(sides["ask"])]
    checks += [bid < ask for bid in sides["bid"][:1] for ask in sides["ask"][:1]]
    prices = [*sides["bid"], *sides["ask"]]
    checks += [(price > 0) & price.is_finite() for price in prices]
    for side in ("bid", "ask"):
        checks += [(qty >= 0) & qty.is_finite() for qty in _levels(columns, f"{side}_qty_")]
    shown = pl.any_horizontal(pl.lit(value=False), *(price.is_not_null() for price in prices))
    return pl.all_horizontal(shown, *(check.fill_null(value=True) for check in checks))


def trusted(frame: pl.DataFrame) -> pl.DataFrame:
    """Return a frame in which books that cannot be trusted are not there: their levels are null."""
    names = [name for name in book_levels() if name in frame.columns]
    if not any("_price_" in name for name in names):
        return frame
    good = frame.select(usable(names)).to_series()
    if good.all():
        return frame
    return frame.with_columns(pl.when(good).then(pl.col(names)))


def _known(check: pl.Expr) -> pl.Expr:
    return check.fill_null(value=False)


def _levels(columns: Collection[str], start: str) -> list[pl.Expr]:
    names = [f"{start}{level}" for level in range(1, BOOK_DEPTH + 1)]
    there = [pl.col(name).cast(pl.Float64) for name in names if name in columns]
    return [level.fill_nan(None) for level in there]


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
