"""Order book frames: their columns, their shape for people, their mids as prices.

The difference or mean of two decimal prices is seldom the double nearest to the decimal result
(61837.64 - 61837.63 is 0.010000000002037268). Spread and mid are rounded to the decimals that the
prices themselves have, so 0.01 is 0.01.
"""

from __future__ import annotations

import polars as pl

from fxlab.backtester.ticks import find_decimals
from fxlab.errors import InvalidParameter
from fxlab.schema import BOOK_DEPTH, book_levels

BEST = ("bid_price_1", "ask_price_1")


def level_columns(depth: int = BOOK_DEPTH) -> list[str]:
    """Return `fxlab.schema.book_levels` for a depth that a user gave."""
    if isinstance(depth, bool) or not isinstance(depth, int) or not 1 <= depth <= BOOK_DEPTH:
        raise InvalidParameter(
            f"depth={depth!r:.80} is not a number of levels; give 1 to {BOOK_DEPTH}"
        )
    return book_levels(depth)


def shaped(frame: pl.DataFrame, depth: int, *, nested: bool) -> pl.DataFrame:
    """Add `spread` and `mid`; with `nested` turn the levels into lists of [price, qty]."""
    decimals = price_decimals(frame)
    bid, ask = map(pl.col, BEST)
    finer = None if decimals is None else decimals + 1
    whole = frame.with_columns(
        rounded(ask - bid, decimals).alias("spread"), rounded((bid + ask) / 2, finer).alias("mid")
    )
    if not nested:
        return whole
    sides = [_nested("bid", depth).alias("bids"), _nested("ask", depth).alias("asks")]
    return whole.select("timestamp", "symbol", "seq", *sides, "spread", "mid")


def quotes_as_ticks(frame: pl.DataFrame, decimals: int | None) -> pl.DataFrame:
    """Return best quotes with their mid as `price`, without the rows that have no mid."""
    bid, ask = map(pl.col, BEST)
    price = rounded((bid + ask) / 2, decimals).alias("price")
    return frame.select(
        "timestamp", "seq", price, "bid_price_1", "bid_qty_1", "ask_price_1", "ask_qty_1"
    ).drop_nulls("price")


def price_decimals(frame: pl.DataFrame) -> int | None:
    """Return the decimals that write all best prices exactly, or None if twelve do not."""
    return find_decimals(pl.concat([frame[name].alias("price") for name in BEST]))


def mid_decimals(frame: pl.DataFrame) -> int | None:
    """Return the decimals that write all mids exactly, or None if twelve do not."""
    decimals = price_decimals(frame)
    if decimals is None:
        return None
    bid, ask = map(pl.col, BEST)
    return find_decimals(frame.select(price=rounded((bid + ask) / 2, decimals + 1))["price"])


def rounded(value: pl.Expr, decimals: int | None) -> pl.Expr:
    """Return the double nearest to a decimal number; None leaves the value as it is."""
    # Not (value * scale).round() / scale: Polars divides by a constant as it would multiply by
    # the inverse, and 3 / 10 is 0.30000000000000004 then.
    return value if decimals is None else value.round(decimals)


def _nested(side: str, depth: int) -> pl.Expr:
    levels = [
        pl.when(pl.col(f"{side}_price_{level}").is_not_null()).then(
            pl.concat_arr(f"{side}_price_{level}", f"{side}_qty_{level}")
        )
        for level in range(1, depth + 1)
    ]
    return pl.concat_list(levels).list.drop_nulls().cast(pl.List(pl.List(pl.Float64)))
