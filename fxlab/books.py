"""Order book frames: their columns, and their shape for people."""

from __future__ import annotations

import polars as pl

from fxlab.backtester import quotes
from fxlab.errors import InvalidParameter
from fxlab.numbers import integer
from fxlab.schema import BOOK_DEPTH, book_levels


def level_columns(depth: int = BOOK_DEPTH) -> list[str]:
    """Return `fxlab.schema.book_levels` for a depth that a user gave."""
    count = integer(depth, 1, BOOK_DEPTH)
    if count is None:
        raise InvalidParameter(
            f"depth={depth!r:.80} is not a number of levels; give 1 to {BOOK_DEPTH}"
        )
    return book_levels(count)


def shaped(frame: pl.DataFrame, depth: int, *, nested: bool) -> pl.DataFrame:
    """Add `spread` and `mid`; with `nested` turn the levels into lists of [price, qty]."""
    decimals = quotes.price_decimals(frame)
    finer = None if decimals is None else decimals + 1
    whole = frame.with_columns(spread=quotes.spread(decimals), mid=quotes.mid(finer))
    if not nested:
        return whole
    sides = [_nested("bid", depth).alias("bids"), _nested("ask", depth).alias("asks")]
    return whole.select("timestamp", "symbol", "seq", *sides, "spread", "mid")


def _nested(side: str, depth: int) -> pl.Expr:
    levels = [
        pl.when(pl.col(f"{side}_price_{level}").is_not_null()).then(
            pl.concat_arr(f"{side}_price_{level}", f"{side}_qty_{level}")
        )
        for level in range(1, depth + 1)
    ]
    return pl.concat_list(levels).list.drop_nulls().cast(pl.List(pl.List(pl.Float64)))
