"""Compiled: marks, equity, its peak and its drawdown."""

from __future__ import annotations

from fxlab.backtester.compiled import compiled
from fxlab.backtester.records import NEVER


@compiled
def mark(leg, price):
    """Mark a leg at a price."""
    leg["equity"] = leg["cash"] + leg["qty"] * price
    # Written only when they change: a store here would have to be waited for in the next row.
    if price < leg["low"]:
        leg["low"] = price
    if price > leg["high"]:
        leg["high"] = price


@compiled
def total_equity(legs, account):
    """Return the account's equity: legs summed in their order, the same bits in any chunking."""
    total = account["base"]
    for k in range(len(legs)):
        total += legs[k]["equity"]
    return total


@compiled
def follow(account, total, now):
    """Follow the account's equity, its peak, its drawdown and its ruin."""
    account["equity"] = total
    if total >= account["peak"]:
        surface(account)
        account["peak"] = total
        account["peak_at"] = now
        account["below"] = 0
        return
    if account["below"] == 0:
        account["below"] = 1
    if total <= 0.0 and account["ruined_at"] == NEVER:
        account["ruined_at"] = now
    drawdown = total / account["peak"] - 1.0
    if drawdown < account["max_drawdown"]:
        account["max_drawdown"] = drawdown
        account["high"] = account["peak"]
        account["high_at"] = account["peak_at"]
        account["low"] = total
        account["low_at"] = now


@compiled
def surface(account):
    """End the time under water, if there was any, with the last row that lay below the peak."""
    if account["below"] == 1:
        account["under_water"] = max(account["under_water"], account["now"] - account["peak_at"])
