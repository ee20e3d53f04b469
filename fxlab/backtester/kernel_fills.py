"""Compiled: an execution moves cash and quantity, and writes itself down.

Records are passed, arrays only where something is written: numba counts references to arrays.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from fxlab.backtester.compiled import compiled, inlined
from fxlab.backtester.records import (
    ACROSS_GAP,
    LIQUIDATION,
    MAX_HOLDING,
    NO_ORDER,
    STILL_OPEN,
    STOP_LOSS,
)

ROUNDING: Final = 4 * 2.0**-53  # of a price: a few units in the last place


@inlined
def execute(leg, account, now, at, change, rate, maker, flags, written):
    """Trade `change` at the price `at` for the order in the leg's slot, and record the fill."""
    before = leg["qty"]
    fee = abs(change) * at * rate
    settle(leg, now, at, change, rate, written)
    hold(account, now, int(leg["qty"] != 0.0) - int(before != 0.0))
    leg["equity"] = leg["cash"] + leg["qty"] * leg["mark"]
    leg["traded"] += change
    leg["money"] += abs(change) * at
    leg["paid_fees"] += fee
    leg["changed"] = 2 if leg["qty"] != 0.0 and leg["qty"] * before <= 0.0 else 1
    if leg["qty"] != 0.0:
        arm(leg, now)
    if leg["gap_ended_at"] > leg["decided_at"]:
        flags |= ACROSS_GAP
    fill = written.fills[written.used[1]]
    written.used[1] += 1
    fill["leg"] = leg["number"]
    fill["reason"] = leg["reason"]
    fill["maker"] = maker
    fill["flags"] = flags
    fill["decided_at"] = leg["decided_at"]
    fill["time"] = now
    fill["target"] = leg["target"]
    fill["price"] = at
    fill["qty"] = change
    fill["fee"] = fee
    fill["position"] = leg["qty"]
    fill["equity"] = leg["equity"]


@inlined
def settle(leg, now, at, change, rate, written):
    """Move cash and quantity, and keep the round trip's books; a flip is two steps."""
    if leg["qty"] * change < 0.0:  # out of the position, all or part of it
        out = -leg["qty"] if abs(change) >= abs(leg["qty"]) else change
        move(leg, at, out, rate)
        leg["sold"] += abs(out)
        leg["received"] += abs(out) * at
        change -= out
        if leg["qty"] == 0.0:
            write_trade(leg, now, at, written)
    if change != 0.0:  # into a position
        if leg["qty"] == 0.0:
            leg["direction"] = 1 if change > 0.0 else -1
            leg["entered_at"] = now
            leg["bought"] = leg["paid"] = leg["sold"] = leg["received"] = 0.0
            leg["fees"] = leg["funding"] = 0.0
            leg["low"] = leg["high"] = leg["best"] = at
        move(leg, at, change, rate)
        leg["bought"] += abs(change)
        leg["paid"] += abs(change) * at
    if leg["qty"] != 0.0:
        leg["low"] = min(leg["low"], at)
        leg["high"] = max(leg["high"], at)


@compiled
def move(leg, at, change, rate):
    """Exchange cash for quantity at a price, and pay the fee."""
    cost = abs(change) * at * rate
    leg["cash"] -= change * at + cost
    leg["fees"] += cost
    leg["qty"] = 0.0 if leg["qty"] == -change else leg["qty"] + change


@compiled
def hold(account, now, change):
    """Count the legs with a position, and the time with any."""
    if account["holding"] == 0:
        account["exposed_since"] = now
    account["holding"] += change
    if account["holding"] == 0:
        account["exposed"] += now - account["exposed_since"]


@inlined
def write_order(leg, status, now, written):
    """Record the end of the leg's order and empty the slot."""
    order = written.orders[written.used[0]]
    written.used[0] += 1
    leg["slot"] = NO_ORDER
    order["leg"] = leg["number"]
    order["status"] = status
    order["reason"] = leg["reason"]
    order["decided_at"] = leg["decided_at"]
    order["ready_at"] = leg["ready_at"]
    order["done_at"] = now
    order["target"] = leg["target"]
    order["price"] = leg["money"] / abs(leg["traded"]) if leg["traded"] != 0.0 else np.nan
    order["qty"] = leg["traded"]
    order["fee"] = leg["paid_fees"]
    order["position"] = leg["qty"]
    order["equity"] = leg["equity"]


@inlined
def write_trade(leg, now, at, written):
    """Record the round trip that has just closed; `leg` holds its sums."""
    trade = written.trades[written.used[2]]
    written.used[2] += 1
    trade["leg"] = leg["number"]
    trade["direction"] = leg["direction"]
    trade["reason"] = leg["reason"] if now != STILL_OPEN else 0
    trade["entered_at"] = leg["entered_at"]
    trade["exited_at"] = now
    trade["qty"] = leg["bought"]
    trade["entry_price"] = leg["paid"] / leg["bought"]
    trade["exit_price"] = leg["received"] / leg["sold"]
    trade["fees"] = leg["fees"]
    trade["funding"] = leg["funding"]
    gain = leg["direction"] * (leg["received"] - leg["paid"])
    trade["pnl"] = gain - leg["fees"] - leg["funding"]
    trade["low"] = min(leg["low"], at)
    trade["high"] = max(leg["high"], at)


@inlined
def complete(leg, status, now, written):
    """End an order that has traded: its target is what is held now."""
    leg["held"] = leg["target"]
    if is_forced(leg["reason"]):
        leg["exited_at"] = now
    write_order(leg, status, now, written)


@compiled
def is_forced(reason):
    """Return whether an order's reason is an exit, not a strategy's decision."""
    return STOP_LOSS <= reason <= MAX_HOLDING or reason == LIQUIDATION


@compiled
def arm(leg, now):
    """Guard the position by the exits of its last order, as price levels; nan never triggers."""
    leg["armed_at"] = now
    leg["stop_loss"] = leg["order_stop"]
    leg["take_profit"] = leg["order_take"]
    leg["trailing_stop"] = leg["order_trail"]
    side = 1.0 if leg["qty"] > 0.0 else -1.0
    entry = leg["paid"] / leg["bought"]
    leg["stop_level"] = entry * (1.0 - side * leg["stop_loss"])
    take = entry * (1.0 + side * leg["take_profit"])
    leg["take_level"] = round_price(take, side, leg)
    leg["trail_level"] = leg["best"] * (1.0 - side * leg["trailing_stop"])


@compiled
def round_price(price, up, leg):
    """Return a price on the symbol's grid: up if `up` is positive, down otherwise.

    The nearest price of the grid is the price itself if no more than a float's rounding lies
    between them: how many steps fit into a price says nothing once there are many of them.
    """
    if leg["tick_size"] <= 0.0 or price != price:
        return price
    steps = price / leg["tick_size"]
    near = multiple(np.rint(steps), leg["tick_units"], leg["tick_scale"])
    if abs(near - price) <= ROUNDING * price:
        return near
    whole = np.ceil(steps) if up > 0.0 else np.floor(steps)
    return multiple(whole, leg["tick_units"], leg["tick_scale"])


@compiled
def multiple(count, units, scale):
    """Return the float nearest to a number of decimal steps: 3 of 0.1 are 0.3."""
    return count * units / scale


@compiled
def pay_funding(leg, rate_long, rate_short):
    """Charge a position its funding and return what was paid; negative was received."""
    rate = rate_long if leg["qty"] > 0.0 else rate_short
    cost = abs(leg["qty"]) * leg["mark"] * rate
    leg["cash"] -= cost
    leg["funding"] += cost
    leg["equity"] = leg["cash"] + leg["qty"] * leg["mark"]
    return cost


@compiled
def next_alarm(edge, funding, number, gaps, hole):
    """Return the next time at which the clock has something to do."""
    alarm = edge
    if number < len(funding):
        alarm = min(alarm, funding[number]["time"])
    if hole < len(gaps):
        alarm = min(alarm, gaps[hole]["to_time"])
    return alarm
