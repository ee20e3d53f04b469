"""Strategies that buy new highs, with and without exits of their own."""

from __future__ import annotations

import polars as pl

from fxlab.backtester import indicators
from fxlab.backtester.strategies.kinds import (
    BasisPoints,
    Seconds,
    StopBasisPoints,
    Window,
)
from fxlab.backtester.strategy import Signals, require, strategy


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


def _leaves_channel(window: int) -> tuple[pl.Expr, pl.Expr]:
    """Return whether a tick lies above, and below, all of the `window` ticks before it."""
    ticks = pl.col(indicators.PRICE_TICKS)
    highest = indicators.rolling_max(window).shift(1)
    lowest = indicators.rolling_min(window).shift(1)
    return ticks > highest, ticks < lowest


def _fraction(bps: float) -> float | None:
    return bps / 10_000 if bps else None
