"""Shipped strategies: trend following, mean reversion, breakouts, order book imbalance.

Small, exact, and meant to be read and copied. Importing the module registers them. Each says what
its idea is, what its parameters mean, and where it was published; none of them is advice. Parameter
types that several share stand first, with their ranges.
"""

from __future__ import annotations

from typing import Annotated

import polars as pl

from fxlab.backtester.strategy import indicators
from fxlab.backtester.strategy.signals import Signals
from fxlab.backtester.strategy.strategy import Bounds, require, shortcut, strategy
from fxlab.schema import BOOK_DEPTH

Window = Annotated[int, Bounds(1, 1_000_000)]
BasisPoints = Annotated[float, Bounds(0.0, 10_000.0)]
StopBasisPoints = Annotated[float, Bounds(0.0, 9_999.0)]
Seconds = Annotated[float, Bounds(0.0, 86_400.0)]


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
    rises, _ = _leaves_channel(entry)
    _, falls = _leaves_channel(leave)
    return Signals(
        target=pl.when(rises).then(1.0).when(falls).then(0.0), warmup=entry, lookback=entry
    )


@strategy
def bracket_breakout(
    *,
    entry: Window = 500,
    stop_bps: StopBasisPoints = 20.0,
    profit_bps: BasisPoints = 40.0,
    trail_bps: StopBasisPoints = 0.0,
    hold_seconds: Seconds = 0.0,
    cooldown_seconds: Seconds = 0.0,
    allow_short: bool = True,
) -> Signals:
    """Ride breakouts in a bracket: in at a new high, out at a stop or at a profit.

    The strategy only opens positions, long above the highest price of the last `entry` ticks,
    short below the lowest; exits close them, and the next breakout may open one again. An exit
    of 0 is none.

    Parameters
    ----------
    entry
        ticks in the channel whose edges are broken
    stop_bps
        loss that closes the position, in basis points of its entry price
    profit_bps
        profit that closes the position, in basis points of its entry price
    trail_bps
        fall from the best price since entry that closes the position, in basis points
    hold_seconds
        longest time in a position, in seconds
    cooldown_seconds
        time without a new position after an exit, in seconds
    allow_short
        also sell new lows

    References
    ----------
    Kaminski, Lo (2014), "When do stop-loss rules stop losses?", Journal of Financial Markets 18.
    """
    rises, falls = _leaves_channel(entry)
    target = pl.when(rises).then(1.0)
    return Signals(
        target=target.when(falls).then(-1.0) if allow_short else target,
        stop_loss=_fraction(stop_bps),
        take_profit=_fraction(profit_bps),
        trailing_stop=_fraction(trail_bps),
        max_holding=hold_seconds or None,
        cooldown=cooldown_seconds,
        reentry="signal",
        warmup=entry,
        lookback=entry,
    )


@shortcut(ema_cross)
def _ema_events(*, fast: int, slow: int, allow_short: bool) -> indicators.ExponentialCross:
    return indicators.ExponentialCross(fast, slow, below=-1.0 if allow_short else 0.0)


@shortcut(momentum)
def _momentum_events(
    *, window: int, threshold_bps: float, allow_short: bool
) -> indicators.Deviation:
    short = -1.0 if allow_short else 0.0
    return indicators.Deviation(window, threshold_bps / 10_000, below=short, above=1.0)


@shortcut(mean_reversion)
def _reversion_events(*, window: int, entry_bps: float, allow_short: bool) -> indicators.Deviation:
    short, margin = -1.0 if allow_short else 0.0, entry_bps / 10_000
    return indicators.Deviation(window, margin, below=1.0, above=short, of_mean=True)


@shortcut(breakout)
def _breakout_events(*, entry: int, leave: int) -> indicators.ChannelBreak:
    return indicators.ChannelBreak(entry, leave)


@shortcut(bracket_breakout)
def _bracket_events(*, entry: int, allow_short: bool, **_: object) -> indicators.ChannelBreak:
    return indicators.ChannelBreak(entry, entry if allow_short else None, below=-1.0)


def _leaves_channel(window: int) -> tuple[pl.Expr, pl.Expr]:
    """Return whether a tick lies above, and below, all of the `window` ticks before it."""
    ticks = pl.col(indicators.PRICE_TICKS)
    highest = indicators.rolling_max(window).shift(1)
    lowest = indicators.rolling_min(window).shift(1)
    return ticks > highest, ticks < lowest


def _fraction(bps: float) -> float | None:
    return bps / 10_000 if bps else None


@strategy
def book_imbalance(
    *,
    levels: Annotated[int, Bounds(1, BOOK_DEPTH)] = 3,
    threshold: Annotated[float, Bounds(0.0, 1.0)] = 0.5,
    allow_short: bool = True,
) -> Signals:
    """Lean where the book leans: long while much more is bid than offered.

    Imbalance is (bids - asks) / (bids + asks), the quantities of the first levels; a missing level
    counts as nothing. Beside trades it is the book before the tick, on quotes the quote itself.
    A position is closed when the imbalance changes its sign.

    Parameters
    ----------
    levels
        levels of each side to add up, the best first
    threshold
        imbalance that opens a position, from 0 to 1
    allow_short
        also sell while more is offered

    References
    ----------
    Cartea, Donnelly, Jaimungal (2018), "Enhancing trading strategies with order book signals",
    Applied Mathematical Finance 25(1).
    """
    bids, asks = (
        pl.sum_horizontal(f"{side}_qty_{level}" for level in range(1, levels + 1))
        for side in ("bid", "ask")
    )
    shown = bids + asks
    imbalance = pl.when(shown > 0).then((bids - asks) / shown)
    before = imbalance.shift(1)
    turned = ((imbalance <= 0) & (before > 0)) | ((imbalance >= 0) & (before < 0))
    return Signals(
        target=pl.when(imbalance > threshold)
        .then(1.0)
        .when(imbalance < -threshold)
        .then(-1.0 if allow_short else 0.0)
        .when(turned)
        .then(0.0),
        lookback=1,
    )
