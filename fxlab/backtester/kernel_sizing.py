"""Compiled: how much an order trades, and at how much worse a price."""

from __future__ import annotations

from typing import Final

import numpy as np

from fxlab.backtester.compiled import compiled
from fxlab.backtester.kernel_fills import multiple, round_price
from fxlab.backtester.records import (
    CUT_BY_LEVERAGE,
    FILLED,
    LIQUIDATION,
    NO_EQUITY,
    NO_MARGIN,
    RESTING,
    TOO_SMALL,
    UNCHANGED,
)

DUST: Final = 1e-9
"""What is worth less than this share of the money and positions behind it is rounding."""
NEARLY: Final = 64 * 2.0**-53
"""A quantity that lacks no more than this share of a number of lots is that number."""


@compiled
def taker_rate(leg, terms):
    """Return the fee of the leg's market order."""
    return terms["taker"] + (terms["liquidation"] if leg["reason"] == LIQUIDATION else 0.0)


@compiled
def worth_of_others(leg, account, legs, terms):
    """Return what the leg may size by beside its own worth: nothing, unless cash is shared."""
    if terms["shared"] == 0:
        return 0.0
    worth = account["base"]
    for k in range(len(legs)):
        if k != leg["number"]:
            worth += legs[k]["equity"]
    return worth


@compiled
def naive_change(leg, equity, price, reserve):
    """Return the change at the undisturbed price: only its side and rough size are used."""
    if leg["target"] == 0.0:
        return -leg["qty"]
    return leg["target"] * max(equity, 0.0) / (price * reserve) - leg["qty"]


@compiled
def rounding_of(leg, others, price, legs, terms):
    """Return the money that is no more than rounding beside all that an order is sized by."""
    gross = abs(others) + abs(leg["cash"]) + abs(leg["qty"]) * price
    if terms["shared"] == 1:
        gross += exposed_elsewhere(leg, legs)
    return DUST * gross


@compiled
def standing(leg, equity, naive, price, others, legs, terms):
    """Return `FILLED` if a due order has something to trade, or the status that ends it.

    What closes always trades; the first half of a change of side closes.
    """
    target, qty = leg["target"], leg["qty"]
    if target == 0.0:
        return FILLED if qty != 0.0 else UNCHANGED
    if equity <= 0.0 and target * qty >= 0.0:
        return NO_EQUITY
    dust = abs(naive) * price <= rounding_of(leg, others, price, legs, terms)
    return UNCHANGED if dust else FILLED


@compiled
def slip_of(naive, price, terms):
    """Return how much worse an order of this rough size fills, as a fraction of the price."""
    slip = terms["slippage"]
    if terms["impact"] > 0.0:
        slip += terms["impact"] * np.sqrt(abs(naive) * price / terms["impact_notional"])
    return slip


@compiled
def worsened(price, side, slip, leg):
    """Return the price after slippage, rounded against the order."""
    return round_price(price * (1.0 + side * slip), side, leg)


@compiled
def size(leg, others, equity, at, side, rate, reserve, legs, terms):
    """Return (change, status, flags) of an order that fills at `at`.

    The wanted quantity is ``target * equity / (price * reserve)``: cash stays at or above zero
    unleveraged (a rebate is not spent in advance). A change of side closes first: the new side is
    sized by what closing leaves, and there is none if that is nothing.
    """
    target, qty = leg["target"], leg["qty"]
    if target == 0.0:
        return -qty, FILLED if qty != 0.0 else UNCHANGED, 0
    flip = target * qty < 0.0
    if flip:
        equity = others + (leg["cash"] + qty * at - abs(qty) * at * rate)
    if equity <= 0.0:
        return -qty if flip else 0.0, FILLED if flip else NO_EQUITY, 0
    change = target * equity / (at * reserve) - qty
    rounding = rounding_of(leg, others, at, legs, terms)
    if change * side * at <= rounding:
        return 0.0, UNCHANGED, 0
    after = qty + change
    flags = 0
    if terms["shared"] == 1:
        power = max(0.0, terms["max_leverage"] * equity - exposed_elsewhere(leg, legs))
        slack = max(1.0, terms["max_leverage"]) * rounding  # which is no buying power
        each = at * reserve
        kept = 0.0 if flip else abs(qty)
        if abs(after) * each > power + slack and abs(after) > kept:
            grown = power / each - kept
            if grown * each <= slack:
                grown = 0.0
            after = np.sign(after) * (kept + grown)
            flags = CUT_BY_LEVERAGE
            if (after - qty) * side <= 0.0:
                return 0.0, NO_MARGIN, 0
    if leg["lot_size"] > 0.0:
        change = whole_lots(after, leg) - qty if flip else whole_lots(after - qty, leg)
    elif flags:
        change = after - qty
    if change == 0.0 or abs(change) * at < leg["min_notional"]:
        return 0.0, TOO_SMALL, 0
    return change, FILLED, flags


@compiled
def whole_lots(qty, leg):
    """Return a quantity without the part that is no whole lot."""
    lots = abs(qty) / leg["lot_size"]
    near = np.rint(lots)
    whole = near if abs(lots - near) <= NEARLY * near else np.floor(lots)
    return np.sign(qty) * multiple(whole, leg["lot_units"], leg["lot_scale"])


@compiled
def exposed_elsewhere(leg, legs):
    """Return the notional of the other legs' positions."""
    total = 0.0
    for k in range(len(legs)):
        if k != leg["number"]:
            total += abs(legs[k]["qty"]) * legs[k]["mark"]
    return total


@compiled
def rest(leg, change):
    """Let a limit order rest with a quantity; its place in the queue is unknown."""
    leg["slot"] = RESTING
    leg["remaining"] = change
    leg["ahead"] = np.inf
