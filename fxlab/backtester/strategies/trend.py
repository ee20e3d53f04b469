"""Strategies that follow a trend, and the one that needs none."""

from __future__ import annotations

from typing import Annotated

import polars as pl

from fxlab.backtester import indicators
from fxlab.backtester.strategies.kinds import BasisPoints, Window
from fxlab.backtester.strategy import Bounds, Signals, require, strategy


@strategy
def buy_and_hold(*, exposure: Annotated[float, Bounds(-1.0, 1.0)] = 1.0) -> Signals:
    """Buy at the first tick and never trade again: what every other strategy has to beat.

    Parameters
    ----------
    exposure
        share of equity to hold; negative is short

    References
    ----------
    Sharpe (1991), "The Arithmetic of Active Management", Financial Analysts Journal 47(1).
    """
    return Signals(target=pl.lit(exposure), lookback=0)


@strategy
def sma_cross(*, fast: Window = 50, slow: Window = 200, allow_short: bool = False) -> Signals:
    """Follow the trend: long when the fast moving average crosses above the slow one.

    Trades on crosses that were seen: both averages known on two rows in a row. A tie keeps the
    position. Averages are over ticks, not time, and exact.

    Parameters
    ----------
    fast
        ticks in the fast average
    slow
        ticks in the slow average; more than fast
    allow_short
        go short on a cross below, instead of flat

    References
    ----------
    Brock, Lakonishok, LeBaron (1992), "Simple Technical Trading Rules and the Stochastic
    Properties of Stock Returns", Journal of Finance 47(5).
    """
    require(fast < slow, f"fast={fast} must be below slow={slow}; choose a smaller fast window")
    below = -1.0 if allow_short else 0.0
    return Signals(
        target=indicators.mean_cross(fast, slow, death=below),
        events=indicators.MeanCross(fast, slow, death=below),
        warmup=slow,
        lookback=slow,
    )


@strategy
def ema_cross(*, fast: Window = 50, slow: Window = 200, allow_short: bool = False) -> Signals:
    """Follow the trend with averages that weigh recent ticks more.

    Long when the fast exponential average crosses above the slow one. Both start at the first
    tick; no cross counts before `slow` ticks. An exponential average remembers every tick, so
    this strategy holds one symbol's session in memory.

    Parameters
    ----------
    fast
        span of the fast average, in ticks
    slow
        span of the slow average; more than fast
    allow_short
        go short on a cross below, instead of flat

    References
    ----------
    Appel (2005), "Technical Analysis: Power Tools for Active Investors", chapter 8.
    """
    require(fast < slow, f"fast={fast} must be below slow={slow}; choose a smaller fast span")
    above = pl.field("fast") > pl.field("slow")
    turned = above != above.shift(1)
    target = pl.when(turned & above).then(1.0).when(turned).then(-1.0 if allow_short else 0.0)
    averages = {"fast": indicators.ema(fast), "slow": indicators.ema(slow)}
    return Signals(target=indicators.once(target, **averages), warmup=slow)


@strategy
def momentum(
    *, window: Window = 500, threshold_bps: BasisPoints = 10.0, allow_short: bool = False
) -> Signals:
    """Buy what has risen: long while the price is well above where it was `window` ticks ago.

    Parameters
    ----------
    window
        ticks to look back
    threshold_bps
        rise that opens a position, in basis points; it closes when the rise is gone
    allow_short
        mirror the rule to the short side

    References
    ----------
    Moskowitz, Ooi, Pedersen (2012), "Time series momentum", Journal of Financial Economics
    104(2).
    """
    now, then = pl.col(indicators.PRICE_TICKS), pl.col(indicators.PRICE_TICKS).shift(window)
    margin = threshold_bps / 10_000
    rises, falls = now > then * (1 + margin), now < then * (1 - margin)
    was = (now.shift(1) - then.shift(1)).sign()
    gone = ((now <= then) & (was > 0)) | ((now >= then) & (was < 0))
    return Signals(
        target=pl.when(rises)
        .then(1.0)
        .when(falls)
        .then(-1.0 if allow_short else 0.0)
        .when(gone)
        .then(0.0),
        warmup=window,
        lookback=window + 1,
    )
