"""Compiled: limit orders that rest, and exits that watch a position."""

from __future__ import annotations

import numpy as np

from fxlab.backtester.compiled import compiled
from fxlab.backtester.kernel_book import shown_at
from fxlab.backtester.kernel_fills import complete, execute, is_forced, write_order
from fxlab.backtester.kernel_orders import missed_by_gap
from fxlab.backtester.records import (
    COOLING_DOWN,
    FILLED,
    GAP,
    IN_FLIGHT,
    LIQUIDATION,
    MAX_HOLDING,
    NO_MARGIN,
    NO_ORDER,
    PARTLY_REPLACED,
    REBALANCE,
    REPLACED,
    RESTING,
    SIGNAL,
    STOP_LOSS,
    TAKE_PROFIT,
    TRAILING_STOP,
    UNCHANGED,
)


@compiled
def watch_queue(leg, account, now, price, volume, taker, book, has_book, terms, written):
    """Fill a resting limit order as far as this row lets it."""
    if missed_by_gap(leg, terms):
        end_unfilled(leg, GAP, GAP, now, written)
        return
    side = np.sign(leg["remaining"])
    limit = leg["limit"]
    through = price
    if has_book:
        through = book["ask_price"][0] if side > 0.0 else book["bid_price"][0]
    filled = 0.0
    if (limit - through) * side > 0.0 or (
        through == limit and terms["touch"] == 1 and terms["queue"] == 0
    ):
        filled = leg["remaining"]
    elif terms["queue"] == 1 and has_book:
        leg["ahead"] = min(leg["ahead"], shown_at(book, limit, side))
    elif terms["queue"] == 1 and price == limit and taker * side <= 0.0:
        leg["ahead"] -= volume
        if leg["ahead"] < 0.0:
            filled = side * min(abs(leg["remaining"]), -leg["ahead"])
            leg["ahead"] = 0.0
    if filled != 0.0:
        left = leg["remaining"] - filled
        leg["remaining"] = left
        execute(leg, account, now, limit, filled, terms["maker"], 1, 0, written)
        if left == 0.0:
            complete(leg, FILLED, now, written)


@compiled
def end_unfilled(leg, status, partly, now, written):
    """End an order before it is whole; what it has traded is no target's position."""
    if leg["traded"] != 0.0:
        leg["held"] = np.nan
        write_order(leg, partly, now, written)
    else:
        write_order(leg, status, now, written)


@compiled
def replace(leg, now, written):
    """Withdraw the leg's order, if there is one."""
    if leg["slot"] != NO_ORDER:
        end_unfilled(leg, REPLACED, PARTLY_REPLACED, now, written)


@compiled
def new_order(leg, target, reason, now, ready_at):
    """Put a market order into the empty slot; the position's exits go with it."""
    leg["slot"] = IN_FLIGHT
    leg["reason"] = reason
    leg["target"] = target
    leg["decided_at"] = now
    leg["ready_at"] = ready_at
    leg["limit"] = np.nan
    leg["traded"] = leg["money"] = leg["paid_fees"] = 0.0
    leg["order_stop"] = leg["stop_loss"]
    leg["order_take"] = leg["take_profit"]
    leg["order_trail"] = leg["trailing_stop"]


@compiled
def take_profit(leg, account, now, price, book, has_book, terms, written):
    """Sell at the take-profit's price once the market trades through it.

    The strategy's own order, if one is under way, stays as it is: it sizes itself when it is due.
    """
    side = np.sign(leg["qty"])
    level = leg["take_level"]
    through = price
    if has_book:
        through = book["bid_price"][0] if side > 0.0 else book["ask_price"][0]
    if not ((through - level) * side > 0.0 or (through == level and terms["touch"] == 1)):
        return
    if leg["slot"] != NO_ORDER and leg["reason"] != SIGNAL:
        write_order(leg, UNCHANGED, now, written)
    elif leg["slot"] == RESTING:  # it was sized for the position that goes
        replace(leg, now, written)
    slot, reason, target = leg["slot"], leg["reason"], leg["target"]
    decided_at, ready_at = leg["decided_at"], leg["ready_at"]
    traded, money, paid_fees = leg["traded"], leg["money"], leg["paid_fees"]
    leg["reason"], leg["target"] = TAKE_PROFIT, 0.0
    leg["decided_at"] = leg["ready_at"] = leg["armed_at"]
    leg["traded"] = leg["money"] = leg["paid_fees"] = 0.0
    execute(leg, account, now, level, -leg["qty"], terms["maker"], 1, 0, written)
    complete(leg, FILLED, now, written)
    leg["slot"], leg["reason"], leg["target"] = slot, reason, target
    leg["decided_at"], leg["ready_at"] = decided_at, ready_at
    leg["traded"], leg["money"], leg["paid_fees"] = traded, money, paid_fees


@compiled
def watch_position(leg, now, price, book, has_book, liquidate, delay, terms, written):
    """Make the order that an exit, a margin call or the rebalance band asks for."""
    forced = leg["slot"] != NO_ORDER and is_forced(leg["reason"])
    if forced and (not liquidate or leg["reason"] == LIQUIDATION):
        follow_best(leg, price, book, has_book)
        return
    reason = triggered(leg, now, price, book, has_book, terms)
    if liquidate:
        reason = LIQUIDATION
    if reason != 0:
        replace(leg, now, written)
        new_order(leg, 0.0, reason, now, now if liquidate else now + delay)
        leg["orders_made"] += 1


@compiled
def trigger_price(leg, price, book, has_book):
    """Return the price that a position could be left at; nan triggers nothing."""
    if not has_book or price != price:
        return price
    return book["bid_price"][0] if leg["qty"] > 0.0 else book["ask_price"][0]


@compiled
def follow_best(leg, price, book, has_book):
    """Move the trailing stop's best price, and the stop with it."""
    at = trigger_price(leg, price, book, has_book)
    side = 1.0 if leg["qty"] > 0.0 else -1.0
    if (at - leg["best"]) * side > 0.0:
        leg["best"] = at
        leg["trail_level"] = at * (1.0 - side * leg["trailing_stop"])


@compiled
def triggered(leg, now, price, book, has_book, terms):
    """Return the exit that this row triggers, or 0."""
    at = trigger_price(leg, price, book, has_book)
    side = 1.0 if leg["qty"] > 0.0 else -1.0
    if at != at:
        return 0
    follow_best(leg, price, book, has_book)
    if (at - leg["stop_level"]) * side <= 0.0:
        return STOP_LOSS
    if (at - leg["trail_level"]) * side <= 0.0:
        return TRAILING_STOP
    if 0 <= terms["max_holding"] <= now - leg["entered_at"]:
        return MAX_HOLDING
    return 0


@compiled
def out_of_band(leg, equity, price, terms):
    """Return whether the exposure has left the band around its target."""
    if leg["slot"] != NO_ORDER or leg["held"] == 0.0 or equity <= 0.0:
        return False
    return abs(leg["qty"] * price / equity - leg["held"]) > terms["rebalance"]


@compiled
def decide(leg, now, decision, delay, terms, written):
    """Turn a strategy's decision into an order, if it is news."""
    target = decision["target"]
    busy = leg["slot"] != NO_ORDER
    if busy and leg["reason"] == LIQUIDATION:
        if target != leg["wanted"]:
            refuse(leg, target, NO_MARGIN, now, written)
            leg["wanted"] = target
        return
    again = terms["reenter"] == 1 and target != 0.0 and leg["qty"] == 0.0 and not busy
    if target == leg["wanted"] and not again:
        return
    if target != 0.0 and now < leg["exited_at"] + terms["cooldown"]:
        refuse(leg, target, COOLING_DOWN, now, written)
        return
    replace(leg, now, written)
    leg["wanted"] = target
    new_order(leg, target, SIGNAL, now, now + delay)
    leg["limit"] = decision["limit"]
    leg["order_stop"] = decision["stop_loss"]
    leg["order_take"] = decision["take_profit"]
    leg["order_trail"] = decision["trailing_stop"]
    if target == leg["held"] and not (again and leg["qty"] == 0.0):
        leg["ready_at"] = now
        write_order(leg, UNCHANGED, now, written)
    else:
        leg["orders_made"] += 1


@compiled
def refuse(leg, target, status, now, written):
    """Record a decision that makes no order; the order under way goes on."""
    order = written.orders[written.used[0]]
    written.used[0] += 1
    order["leg"] = leg["number"]
    order["status"] = status
    order["reason"] = SIGNAL
    order["decided_at"] = order["ready_at"] = order["done_at"] = now
    order["target"] = target
    order["position"] = leg["qty"]
    order["equity"] = leg["equity"]
    order["price"] = np.nan
    order["qty"] = order["fee"] = 0.0


@compiled
def rebalance(leg, now, delay):
    """Make the order that brings the exposure back to its target."""
    new_order(leg, leg["held"], REBALANCE, now, now + delay)
    leg["orders_made"] += 1
