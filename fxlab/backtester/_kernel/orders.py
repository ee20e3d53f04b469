"""Compiled orders: market and limit orders against prints or the book, queue position, exits.

An order that is due meets a print, or the shown sizes of the book's levels, or is refused; limit
orders rest; stop-loss, take-profit and trailing exits watch a position.
"""

from __future__ import annotations

import numpy as np

from fxlab.backtester._kernel.compiled import compiled, inlined
from fxlab.backtester._kernel.fills import (
    affordable,
    complete,
    execute,
    is_forced,
    naive_change,
    rest,
    round_price,
    size,
    slip_of,
    standing,
    taker_rate,
    worsened,
    worth_of_others,
    write_order,
)
from fxlab.backtester._kernel.records import (
    BAD_BOOK,
    BEYOND_DEPTH,
    COOLING_DOWN,
    DEPTH,
    FILLED,
    FILLED_IN_PART,
    GAP,
    IN_FLIGHT,
    LIQUIDATION,
    MAX_HOLDING,
    NO_EQUITY,
    NO_LIQUIDITY,
    NO_MARGIN,
    NO_ORDER,
    PARTIAL,
    PARTLY_REPLACED,
    REBALANCE,
    REPLACED,
    RESTING,
    SIGNAL,
    STALE_BOOK,
    STOP_LOSS,
    TAKE_PROFIT,
    TRAILING_STOP,
    UNCHANGED,
)


@compiled
def trade_book(leg, account, now, book, legs, terms, written):
    """Fill an order against a book: cross the spread, walk the levels, rest or cancel the rest."""
    if book["bad"] == 1:
        write_order(leg, BAD_BOOK, now, written)
        return
    if leg["ready_at"] - book["time"] > terms["max_book_age"]:
        write_order(leg, STALE_BOOK, now, written)
        return
    rate = taker_rate(leg, terms)
    others = worth_of_others(leg, account, legs, terms)
    middle = reference(book["bid_price"][0], book["ask_price"][0], leg["mark"])
    equity = others + (leg["cash"] + leg["qty"] * middle)
    naive = naive_change(leg, equity, middle, 1.0 + max(rate, 0.0))
    side = np.sign(naive)
    slip = slip_of(naive, middle, terms)
    best = book["ask_price"][0] if side > 0.0 else book["bid_price"][0]
    status = standing(leg, equity, naive, middle, others, legs, terms)
    if status != FILLED:
        write_order(leg, status, now, written)
    elif leg["limit"] == leg["limit"]:
        limit_on_book(
            leg, account, now, book, side, slip, others, equity, rate, legs, terms, written
        )
    elif best != best or (terms["last_level"] == 0 and depth_of(book, side) <= 0.0):
        write_order(leg, NO_LIQUIDITY, now, written)
    else:
        market_on_book(
            leg, account, now, book, side, slip, others, middle, rate, legs, terms, written
        )


@compiled
def market_on_book(leg, account, now, book, side, slip, others, middle, rate, legs, terms, written):
    """Walk the levels; a change of side closes first and opens with what is left."""
    skip = 0.0
    if leg["target"] * leg["qty"] < 0.0:
        closing = -leg["qty"]
        skip = abs(closing)
        cut = walk_and_fill(leg, account, now, book, closing, 0.0, slip, rate, 0, terms, written)
        if cut and leg["traded"] == 0.0:
            write_order(leg, NO_LIQUIDITY, now, written)
            return
        if cut:
            complete(leg, FILLED_IN_PART, now, written)
            return
    equity = others + (leg["cash"] + leg["qty"] * middle)
    status, flags, change = FILLED, 0, -leg["qty"]
    if leg["target"] != 0.0:
        change, status, flags = size_on_book(
            leg, book, side, skip, slip, others, equity, rate, legs, terms
        )
    cut = False
    closed = leg["traded"]
    if status == FILLED:
        cut = walk_and_fill(
            leg, account, now, book, change, skip, slip, rate, flags, terms, written
        )
        if cut and leg["traded"] == closed:
            status = NO_LIQUIDITY
    if leg["traded"] == 0.0:
        write_order(leg, status, now, written)
    else:
        done = FILLED_IN_PART if cut and status == FILLED else FILLED
        complete(leg, done, now, written)


@compiled
def reference(bid, ask, mark):
    """Return the mid; the last price, or the side there is, where a side is empty."""
    if bid == bid and ask == ask:
        return (bid + ask) / 2.0
    if mark > 0.0:
        return mark
    return bid if bid == bid else ask


@compiled
def size_on_book(leg, book, side, skip, slip, others, equity, rate, legs, terms):
    """Return (change, status, flags): sized at the best level, then at what that size costs."""
    if equity <= 0.0:
        return 0.0, NO_EQUITY, 0
    reserve = 1.0 + max(rate, 0.0)
    first = walk(book, side, skip, 0.0, np.inf, 0)[3]
    rough = abs(affordable(leg, equity, first, reserve) - leg["qty"])
    taken, money, _, _ = walk(book, side, skip, rough, np.inf, terms["last_level"])
    average = money / taken if taken > 0.0 else first
    at = worsened(average, side, slip, leg)
    return size(leg, others, equity, at, side, rate, reserve, legs, terms)


@compiled
def walk_and_fill(leg, account, now, book, change, skip, slip, rate, flags, terms, written):
    """Trade against the levels behind `skip` units; return whether they held too little."""
    side = np.sign(change)
    taken, money, beyond, _ = walk(book, side, skip, abs(change), np.inf, terms["last_level"])
    cut = taken < abs(change)
    if taken > 0.0:
        if beyond:
            flags |= BEYOND_DEPTH
        if cut:
            flags |= PARTIAL
        at = worsened(money / taken, side, slip, leg)
        done = side * taken if cut else change
        execute(leg, account, now, at, done, rate, 0, flags, written)
    return cut


@compiled
def walk(book, side, skip, wanted, worst, to_last_level):
    """Walk one side of a book.

    Returns (taken, money paid for it, whether some of it lay beyond the levels, best price behind
    `skip`). Levels worse than `worst` (a distance times the side) are not touched.
    """
    taken = money = 0.0
    first = last = np.nan
    buying = side > 0.0
    for level in range(DEPTH):
        price = book["ask_price"][level] if buying else book["bid_price"][level]
        if price != price or price * side > worst:
            break
        shown = book["ask_qty"][level] if buying else book["bid_qty"][level]
        shown = max(0.0, shown)
        last = price
        used = min(skip, shown)
        skip -= used
        shown -= used
        if shown <= 0.0:
            continue
        if first != first:
            first = price
        part = min(shown, wanted - taken)
        taken += part
        money += part * price
        if taken >= wanted:
            break
    beyond = False
    if first != first:
        first = last
    if to_last_level and taken < wanted and last == last:
        money += (wanted - taken) * last
        taken = wanted
        beyond = True
    return taken, money, beyond, first


@compiled
def limit_on_book(leg, account, now, book, side, slip, others, equity, rate, legs, terms, written):
    """Take the levels no worse than the limit, and rest with what is left."""
    limit = round_price(leg["limit"], -side, leg)
    leg["limit"] = limit
    reserve = 1.0 + max(rate, terms["maker"], 0.0)
    change, status, flags = size(leg, others, equity, limit, side, rate, reserve, legs, terms)
    if status != FILLED:
        write_order(leg, status, now, written)
        return
    taken, money, _, _ = walk(book, side, 0.0, abs(change), limit * side, 0)
    if taken > 0.0:
        whole = taken >= abs(change)
        done = change if whole else side * taken
        at = worsened(money / taken, side, slip, leg)
        at = min(at, limit) if side > 0.0 else max(at, limit)
        execute(leg, account, now, at, done, rate, 0, flags, written)
        if whole:
            complete(leg, FILLED, now, written)
            return
        change -= done
    rest(leg, change)
    leg["ahead"] = shown_at(book, limit, side)


@compiled
def depth_of(book, side):
    """Return all that a side of the book shows."""
    return walk(book, side, 0.0, np.inf, np.inf, 0)[0]


@compiled
def shown_at(book, price, side):
    """Return the quantity a book shows at a price of our own side; inf beyond its depth."""
    buying = side > 0.0
    for level in range(DEPTH):
        at = book["bid_price"][level] if buying else book["ask_price"][level]
        if at != at:
            return np.inf if level > 0 else 0.0
        if at == price:
            shown = book["bid_qty"][level] if buying else book["ask_qty"][level]
            return max(0.0, shown)
        if (price - at) * side > 0.0:  # better than this level, and no level stands there
            return 0.0
    return np.inf


@inlined
def meet_market(leg, account, now, price, legs, market, schedule, terms, written):
    """Bring the leg's due order to the market."""
    if missed_by_gap(leg, terms):
        write_order(leg, GAP, now, written)
    elif terms["book"] == 0:
        trade_print(leg, account, now, price, legs, terms, written)
    elif leg["book"] >= 0:
        book = market.books[leg["book"]]
        trade_book(leg, account, now, book, legs, terms, written)
    elif schedule.held_books[leg["number"]]["time"] >= 0:
        book = schedule.held_books[leg["number"]]
        trade_book(leg, account, now, book, legs, terms, written)
    else:
        write_order(leg, STALE_BOOK, now, written)


@compiled
def missed_by_gap(leg, terms):
    """Return whether a gap of the recording lies between the order and its fill."""
    bridges = terms["across_gaps"] == 0 and leg["gap_ended_at"] > leg["decided_at"]
    return bridges and not is_forced(leg["reason"])


@inlined
def trade_print(leg, account, now, price, legs, terms, written):
    """Fill a market order at a print, worse by slippage; rest a limit order that is not met."""
    rate = taker_rate(leg, terms)
    others = worth_of_others(leg, account, legs, terms)
    equity = others + (leg["cash"] + leg["qty"] * price)
    naive = naive_change(leg, equity, price, 1.0 + max(rate, 0.0))
    status = standing(leg, equity, naive, price, others, legs, terms)
    side = np.sign(naive)
    at = worsened(price, side, slip_of(naive, price, terms), leg)
    resting = leg["limit"] == leg["limit"]
    change, flags = 0.0, 0
    if status == FILLED and resting:
        rest_at = round_price(leg["limit"], -side, leg)
        leg["limit"] = rest_at
        reserve = 1.0 + max(rate, terms["maker"], 0.0)
        change, status, flags = size(leg, others, equity, rest_at, side, rate, reserve, legs, terms)
    elif status == FILLED:
        reserve = 1.0 + max(rate, 0.0)
        change, status, flags = size(leg, others, equity, at, side, rate, reserve, legs, terms)
    if status != FILLED:
        write_order(leg, status, now, written)
    elif resting and (at - leg["limit"]) * side > 0.0:
        rest(leg, change)
    else:
        execute(leg, account, now, at, change, rate, 0, flags, written)
        complete(leg, FILLED, now, written)


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


@inlined
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
    leg["traded"] = leg["money"] = leg["paid_fees"] = leg["due_fees"] = 0.0
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
    traded, money = leg["traded"], leg["money"]
    paid_fees, due_fees = leg["paid_fees"], leg["due_fees"]
    leg["reason"], leg["target"] = TAKE_PROFIT, 0.0
    leg["decided_at"] = leg["ready_at"] = leg["armed_at"]
    leg["traded"] = leg["money"] = leg["paid_fees"] = leg["due_fees"] = 0.0
    execute(leg, account, now, level, -leg["qty"], terms["maker"], 1, 0, written)
    complete(leg, FILLED, now, written)
    leg["slot"], leg["reason"], leg["target"] = slot, reason, target
    leg["decided_at"], leg["ready_at"] = decided_at, ready_at
    leg["traded"], leg["money"] = traded, money
    leg["paid_fees"], leg["due_fees"] = paid_fees, due_fees


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


@inlined
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
