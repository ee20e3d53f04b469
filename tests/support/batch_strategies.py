"""Strategies that a batch's kernels import by ``module:function``."""

from __future__ import annotations

import os
import time

import polars as pl

import fxlab


def steady(*, window: int = 20) -> fxlab.Signals:
    """Long above the price of so many ticks ago."""
    rise = pl.col("price") - pl.col("price").shift(window)
    return fxlab.Signals(target=pl.when(rise > 0).then(1.0).when(rise < 0).then(0.0))


def peeks(*, ahead: int = 1) -> fxlab.Signals:
    """Long before a rise."""
    rise = pl.col("price").shift(-ahead) - pl.col("price")
    return fxlab.Signals(target=pl.when(rise > 0).then(1.0).otherwise(0.0))


def breaks(ticks: pl.DataFrame, *, how: str = "raise") -> pl.DataFrame:
    """Raise, or end its process, or take its time, in the kernel of a batch only."""
    if how == "die":
        os._exit(3)
    if how == "wait":
        time.sleep(600)
    if how == "raise":
        raise ArithmeticError("no <luck> today")
    return ticks.select(target=pl.lit(1.0))


def above(*, level: float = 0.0) -> fxlab.Signals:
    """Hold above a price."""
    return fxlab.Signals(target=(pl.col("price") > level).cast(pl.Float64), lookback=0)
