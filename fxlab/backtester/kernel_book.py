"""Compiled: orders against the levels of a book, shown sizes only."""

from __future__ import annotations

import numpy as np

from fxlab.backtester.compiled import compiled
from fxlab.backtester.kernel_fills import complete, execute, round_price, write_order
from fxlab.backtester.kernel_sizing import (
    naive_change,
    rest,
    size,
    slip_of,
    standing,
    taker_rate,
    worsened,
    worth_of_others,
)
from fxlab.backtester.records import (
    BAD_BOOK,
    BEYOND_DEPTH,
    DEPTH,
    FILLED,
    FILLED_IN_PART,
    NO_EQUITY,
    NO_LIQUIDITY,
    PARTIAL,
    STALE_BOOK,
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
    rough = abs(leg["target"] * equity / (first * reserve) - leg["qty"])
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
