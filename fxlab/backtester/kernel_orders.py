"""Compiled: an order that is due meets prints or a book, or is refused."""

from __future__ import annotations

import numpy as np

from fxlab.backtester.compiled import compiled, inlined
from fxlab.backtester.kernel_book import trade_book
from fxlab.backtester.kernel_fills import complete, execute, is_forced, round_price, write_order
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
from fxlab.backtester.records import FILLED, GAP, STALE_BOOK


@inlined
def meet_market(leg, account, now, price, legs, tape, schedule, terms, written):
    """Bring the leg's due order to the market."""
    if missed_by_gap(leg, terms):
        write_order(leg, GAP, now, written)
    elif terms["book"] == 0:
        trade_print(leg, account, now, price, legs, terms, written)
    elif leg["book"] >= 0:
        book = tape.books[leg["book"]]
        trade_book(leg, account, now, book, legs, terms, written)
    elif schedule.held_books[leg["number"]]["time"] >= 0:
        book = schedule.held_books[leg["number"]]
        trade_book(leg, account, now, book, legs, terms, written)
    else:
        write_order(leg, STALE_BOOK, now, written)


@compiled
def missed_by_gap(leg, terms):
    """Return whether a hole of the recording lies between the order and its fill."""
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
