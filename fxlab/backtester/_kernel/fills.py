"""Compiled fills: price and slippage, order size, and the account (cash, marks, equity, drawdown).

An execution moves cash and quantity, and writes itself down. Records are passed whole, arrays only
where something is written: numba counts references to arrays.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from fxlab.backtester._kernel.compiled import compiled, inlined
from fxlab.backtester._kernel.records import (
    ACROSS_GAP,
    CUT_BY_LEVERAGE,
    FILLED,
    LIQUIDATION,
    MAX_HOLDING,
    NEVER,
    NO_EQUITY,
    NO_MARGIN,
    NO_ORDER,
    RESTING,
    STILL_OPEN,
    STOP_LOSS,
    TOO_SMALL,
    UNCHANGED,
)

ROUNDING: Final = 4 * 2.0**-53  # of a price: a few units in the last place


@inlined
def execute(leg, account, now, at, change, rate, maker, flags, written):
    """Trade `change` at the price `at` for the order in the leg's slot, and record the fill."""
    before = leg["qty"]
    fixed = fixed_fee(leg, change, at, rate)
    fee = abs(change) * at * rate + fixed
    settle(leg, now, at, change, rate, fixed, written)
    hold(account, now, int(leg["qty"] != 0.0) - int(before != 0.0))
    leg["equity"] = leg["cash"] + leg["qty"] * leg["mark"]
    leg["traded"] += change
    leg["money"] += abs(change) * at
    leg["paid_fees"] += fee
    leg["changed"] = 2 if leg["qty"] != 0.0 and leg["qty"] * before <= 0.0 else 1
    if leg["qty"] != 0.0:
        set_exit_levels(leg, now)
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


@compiled
def fixed_fee(leg, change, at, rate):
    """Return the fee of a fill beside its rate: by unit, once an order, up to an order's least."""
    fee = abs(change) * leg["fee_per_unit"]
    if leg["traded"] == 0.0:
        fee += leg["fee_per_order"]
    if leg["min_fee"] > 0.0:
        by_rate = abs(change) * at * rate
        leg["due_fees"] += by_rate + fee
        fee = max(leg["min_fee"], leg["due_fees"]) - leg["paid_fees"] - by_rate
    return fee


@inlined
def settle(leg, now, at, change, rate, fixed, written):
    """Move cash and quantity, and keep the round trip's books; a flip is two steps."""
    if leg["qty"] * change < 0.0:  # out of the position, all or part of it
        out = -leg["qty"] if abs(change) >= abs(leg["qty"]) else change
        share = fixed * (out / change)
        move(leg, at, out, rate, share)
        leg["sold"] += abs(out)
        leg["received"] += abs(out) * at
        change -= out
        fixed -= share
        if leg["qty"] == 0.0:
            write_trade(leg, now, at, written)
    if change != 0.0:  # into a position
        if leg["qty"] == 0.0:
            leg["direction"] = 1 if change > 0.0 else -1
            leg["entered_at"] = now
            leg["bought"] = leg["paid"] = leg["sold"] = leg["received"] = 0.0
            leg["fees"] = leg["funding"] = 0.0
            leg["low"] = leg["high"] = leg["best"] = at
        move(leg, at, change, rate, fixed)
        leg["bought"] += abs(change)
        leg["paid"] += abs(change) * at
    if leg["qty"] != 0.0:
        leg["low"] = min(leg["low"], at)
        leg["high"] = max(leg["high"], at)


@compiled
def move(leg, at, change, rate, fixed):
    """Exchange cash for quantity at a price, and pay the fee."""
    cost = abs(change) * at * rate + fixed
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
def set_exit_levels(leg, now):
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
def next_alarm(edge, funding, number, gaps, first_gap):
    """Return the next time at which the clock has something to do."""
    alarm = edge
    if number < len(funding):
        alarm = min(alarm, funding[number]["time"])
    if first_gap < len(gaps):
        alarm = min(alarm, gaps[first_gap]["to_time"])
    return alarm


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
    return affordable(leg, max(equity, 0.0), price, reserve) - leg["qty"]


@compiled
def cost_of_units(leg, money, at, reserve):
    """Return (what a unit costs with its fee, what an order costs beside), for so much money.

    An order that trades in pieces has paid for itself with the first.
    """
    each = at * reserve + leg["fee_per_unit"]
    once = leg["fee_per_order"] if leg["traded"] == 0.0 else 0.0
    if leg["min_fee"] > 0.0:
        least = leg["min_fee"] - leg["paid_fees"]
        if (money - least) / at < (money - once) / each:
            return at, least
    return each, once


@compiled
def affordable(leg, equity, at, reserve):
    """Return the signed position that the target's share of equity pays, fees included."""
    money = abs(leg["target"]) * equity
    each, once = cost_of_units(leg, money, at, reserve)
    return np.sign(leg["target"]) * (max(money - once, 0.0) / each)


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
    if qty == 0.0 and abs(target) * equity <= max(leg["fee_per_order"], leg["min_fee"]):
        return TOO_SMALL
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

    The wanted quantity is ``target * equity / (price * reserve)``, less what fees by unit and
    order take: cash stays at or above zero unleveraged (a rebate is not spent in advance). A change
    of side closes first: the new side is sized by what closing leaves, and there is none if that is
    nothing.
    """
    target, qty = leg["target"], leg["qty"]
    if target == 0.0:
        return -qty, FILLED if qty != 0.0 else UNCHANGED, 0
    flip = target * qty < 0.0
    if flip:
        cost = abs(qty) * at * rate + abs(qty) * leg["fee_per_unit"]
        equity = others + (leg["cash"] + qty * at - cost)
    if equity <= 0.0:
        return -qty if flip else 0.0, FILLED if flip else NO_EQUITY, 0
    change = affordable(leg, equity, at, reserve) - qty
    rounding = rounding_of(leg, others, at, legs, terms)
    if change * side * at <= rounding:
        return 0.0, UNCHANGED, 0
    after = qty + change
    flags = 0
    if terms["shared"] == 1:
        power = max(0.0, terms["max_leverage"] * equity - exposed_elsewhere(leg, legs))
        slack = max(1.0, terms["max_leverage"]) * rounding  # which is no buying power
        each, once = cost_of_units(leg, power, at, reserve)
        power = max(0.0, power - once)
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
        end_drawdown(account)
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
        account["trough_until"] = 0


@compiled
def end_drawdown(account):
    """End the time under water, if there was any, with the last row that lay below the peak."""
    if account["below"] == 1:
        account["under_water"] = max(account["under_water"], account["now"] - account["peak_at"])
