"""Strategies that bet on the way back to an average."""

from __future__ import annotations

from typing import Annotated

import polars as pl

from fxlab.backtester import indicators
from fxlab.backtester.strategies.kinds import BasisPoints, Window
from fxlab.backtester.strategy import Bounds, Signals, strategy


@strategy
def mean_reversion(
    *, window: Window = 200, entry_bps: BasisPoints = 10.0, allow_short: bool = True
) -> Signals:
    """Fade moves: buy below the moving average by a margin, sell out when the price is back.

    Parameters
    ----------
    window
        ticks in the moving average
    entry_bps
        distance from the average that opens a position, in basis points
    allow_short
        also sell above the average

    References
    ----------
    Poterba, Summers (1988), "Mean reversion in stock prices: Evidence and implications",
    Journal of Financial Economics 22(1).
    """
    scaled = pl.col(indicators.PRICE_TICKS) * window
    target = _fade(scaled, indicators.rolling_sum(window), entry_bps, allow_short=allow_short)
    return Signals(target=target, warmup=window - 1, lookback=window)


@strategy
def vwap_reversion(
    *,
    anchor_hours: Annotated[int, Bounds(1, 24)] = 24,
    entry_bps: BasisPoints = 20.0,
    allow_short: bool = True,
) -> Signals:
    """Fade moves away from what the day has paid: its volume-weighted average price.

    The average starts anew at every anchor (midnight UTC for 24 hours). It remembers all ticks
    since, so this strategy holds one symbol's session in memory. It needs volumes, so it does
    not run on quotes.

    Parameters
    ----------
    anchor_hours
        hours after which the average starts anew
    entry_bps
        distance from the average that opens a position, in basis points
    allow_short
        also sell above the average

    References
    ----------
    Berkowitz, Logue, Noser (1988), "The Total Cost of Transactions on the NYSE", Journal of
    Finance 43(1).
    """
    average = indicators.anchored_vwap(f"{anchor_hours}h")
    return Signals(target=_fade(pl.col("price"), average, entry_bps, allow_short=allow_short))


@strategy
def bollinger_bars(
    *,
    every: str = "1m",
    window: Annotated[int, Bounds(2, 10_000)] = 20,
    width: Annotated[float, Bounds(0.0, 10.0)] = 2.0,
    allow_short: bool = True,
) -> Signals:
    """Fade moves on bars: buy below the lower Bollinger band, sell out at the middle one.

    Runs on the closes of bars; a bar counts once it has ended.

    Parameters
    ----------
    every
        length of the bars, such as 10s, 1m, 1h
    window
        bars in the moving average and its standard deviation
    width
        standard deviations from the average to the bands
    allow_short
        also sell above the upper band

    References
    ----------
    Bollinger (2001), "Bollinger on Bollinger Bands", chapter 7.
    """
    close = pl.col("close")
    middle = close.rolling_mean(window)
    band = close.rolling_std(window, ddof=0) * width
    crossed = _crossed(close, middle)
    target = (
        pl.when(close < middle - band)
        .then(1.0)
        .when(close > middle + band)
        .then(-1.0 if allow_short else 0.0)
        .when(crossed)
        .then(0.0)
    )
    return Signals(target=target, every=every, warmup=window - 1)


def _fade(price: pl.Expr, average: pl.Expr, entry_bps: float, *, allow_short: bool) -> pl.Expr:
    """Return long below the average by a margin, short above it, flat when the price is back."""
    margin = entry_bps / 10_000
    now, mean = pl.field("price"), pl.field("average")
    target = (
        pl.when(now < mean * (1 - margin))
        .then(1.0)
        .when(now > mean * (1 + margin))
        .then(-1.0 if allow_short else 0.0)
        .when(_crossed(now, mean))
        .then(0.0)
    )
    return indicators.once(target, price=price, average=average)


def _crossed(price: pl.Expr, average: pl.Expr) -> pl.Expr:
    """Return whether the price has come back to the average, from either side.

    Whichever side we hold is closed then. Rows between the average and the margin keep the
    position, so the rule needs the side of the average only.
    """
    side, before = price - average, price.shift(1) - average.shift(1)
    return ((side >= 0) & (before < 0)) | ((side <= 0) & (before > 0))
