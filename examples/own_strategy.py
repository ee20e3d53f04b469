"""Write a strategy: a function from a frame's columns to what is wanted of the market."""

from typing import Annotated

import polars as pl

import fxlab


@fxlab.strategy
def jump(
    *, window: Annotated[int, fxlab.Bounds(2, 10_000)] = 100, bps: float = 2.0
) -> fxlab.Signals:
    """Follow a jump: long while the price is above where it was `window` ticks ago."""
    rise = pl.col("price") / pl.col("price").shift(window) - 1
    target = pl.when(rise > bps / 1e4).then(1.0).when(rise < 0).then(0.0)
    return fxlab.Signals(target=target, lookback=window)


session = fxlab.connect().session("demo_synthetic_book")
print(fxlab.backtest(session, jump, {"window": 200}))
