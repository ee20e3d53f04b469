"""Strategies for the tests of sweeps; a module of their own, so that other processes find them."""

from __future__ import annotations

import time

import numpy as np
import polars as pl

from fxlab.backtester.strategy.signals import Signals


def moody(*, level: int = 1, mood: str = "calm") -> Signals:
    """Trade on the last digit of the price; fail where told to.

    Parameters
    ----------
    level
        digit that buys
    mood
        calm, or when to raise
    """
    if mood == "early":
        raise ZeroDivisionError("in the strategy")
    digit = pl.col("price_ticks") % 10
    target = pl.when(digit == level).then(1.0).when(digit == 0).then(0.0)
    if mood == "late":
        target = pl.when(pl.int_range(pl.len()) > 5).then(float("nan")).otherwise(target)
    if mood == "column":
        target = pl.col("no_such_column")
    return Signals(target=target, lookback=0)


def slow_digit(ticks: pl.DataFrame, *, level: int = 1, seconds: float = 0.0) -> pl.DataFrame:
    """Take a while for each point, in Python."""
    time.sleep(seconds)
    digit = ticks["price_ticks"].to_numpy() % 10
    target = np.where(digit == level, 1.0, np.where(digit == 0, 0.0, np.nan))
    return pl.DataFrame({"target": pl.Series(target).fill_nan(None)})


def peeking(*, rows: int = 1) -> Signals:
    """Know the future."""
    later = pl.col("price").shift(-rows)
    return Signals(target=pl.when(later > pl.col("price")).then(1.0).otherwise(0.0), lookback=0)
