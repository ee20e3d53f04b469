"""The strategies that come with fxlab: small, exact, and meant to be read and copied."""

from __future__ import annotations

from typing import Annotated

import polars as pl

from fxlab.backtester import indicators
from fxlab.backtester.strategy import Bounds, Signals, require, strategy

Window = Annotated[int, Bounds(1, 1_000_000)]
BasisPoints = Annotated[float, Bounds(0.0, 10_000.0)]


@strategy
def buy_and_hold(*, exposure: Annotated[float, Bounds(-1.0, 1.0)] = 1.0) -> Signals:
    """Buy at the first tick and never trade again: what every other strategy has to beat.

    Parameters
    ----------
    exposure
        share of equity to hold; negative is short
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
    return Signals(target=indicators.mean_cross(fast, slow, death=below), lookback=slow)


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
    total = indicators.rolling_sum(window)
    scaled = pl.col(indicators.PRICE_TICKS) * window
    margin = entry_bps / 10_000
    known = total.is_not_null()
    above = known & (scaled > total * (1 + margin))
    below = known & (scaled < total * (1 - margin))
    # Back at the average: whichever side we hold is closed. Ticks between the average and the
    # margin keep the position, so the rule needs the side of the average only.
    crossed_up = (scaled >= total) & (scaled.shift(1) < total.shift(1))
    crossed_down = (scaled <= total) & (scaled.shift(1) > total.shift(1))
    return Signals(
        target=pl.when(below)
        .then(1.0)
        .when(above)
        .then(-1.0 if allow_short else 0.0)
        .when(crossed_up | crossed_down)
        .then(0.0),
        lookback=window + 1,
    )


@strategy
def breakout(*, entry: Window = 500, leave: Window = 250) -> Signals:
    """Ride new highs: long above the highest price of the last `entry` ticks.

    Leaves below the lowest price of the last `leave` ticks (a Donchian channel on ticks).

    Parameters
    ----------
    entry
        ticks in the channel that opens a position
    leave
        ticks in the channel that closes it; at most entry

    References
    ----------
    Donchian (1960), "High finance in copper", Financial Analysts Journal 16(6).
    """
    require(leave <= entry, f"leave={leave} must not exceed entry={entry}; choose a smaller leave")
    ticks = pl.col(indicators.PRICE_TICKS)
    before = ticks.shift(1)
    rises = ticks > before.rolling_max(entry)
    falls = ticks < before.rolling_min(leave)
    return Signals(target=pl.when(rises).then(1.0).when(falls).then(0.0), lookback=entry + 1)


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
    price = pl.col("price")
    above = price.ewm_mean(span=fast, adjust=False) > price.ewm_mean(span=slow, adjust=False)
    turned = (above != above.shift(1)) & (pl.int_range(pl.len()) >= slow)
    below = -1.0 if allow_short else 0.0
    return Signals(target=pl.when(turned & above).then(1.0).when(turned).then(below))


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
        lookback=window + 1,
    )
