"""Kernel loop: the one pass over the ticks that gives orders, fills, equity and drawdown.

The kernel keeps O(1) state in two small structured arrays, so it can stop after any row and go on
with the next chunk: every chunking gives identical bits. It is compiled by numba and cached on
disk; the same source, run as plain Python (``replay.py_func``), is its readable twin.

What happens at a row, in this order: the clock (funding, equity samples, ends of gaps); the leg's
order, if it is due or rests; the take-profit; the mark, with equity, peak and drawdown; the exits;
the strategy's decision, whose order can fill at a *later* row only.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from fxlab.backtester._kernel.compiled import borrow, compiled, inlined, lending
from fxlab.backtester._kernel.fast_path import fast_forward, fast_forward_many, find_trough
from fxlab.backtester._kernel.fills import (
    complete,
    end_drawdown,
    execute,
    follow,
    mark,
    next_alarm,
    pay_funding,
    slip_of,
    total_equity,
    worsened,
    write_trade,
)
from fxlab.backtester._kernel.orders import (
    decide,
    end_unfilled,
    follow_best,
    meet_market,
    new_order,
    out_of_band,
    rebalance,
    take_profit,
    watch_position,
    watch_queue,
)
from fxlab.backtester._kernel.records import (
    END,
    FILLED,
    IN_FLIGHT,
    NO_ORDER,
    OPEN,
    RESTING,
    STILL_OPEN,
    MarketArrays,
    Schedule,
    Written,
)

RECORDS_A_ROW: Final = 8
"""Orders, fills or trades that one row can write at most, beside one order for each leg."""


@lending
def replay(start, market, decisions, schedule, terms, legs, account, written):
    """Replay rows from `start` on, and return the row that comes next.

    That row is the chunk's end, or earlier where the arrays of `written` are full.

    Parameters
    ----------
    market
        The market: `MarketArrays`.
    decisions
        `DECISION` records, ordered by row.
    schedule
        What time brings: `Schedule`.
    terms, legs, account
        Assumptions and state: a `TERMS`, one `LEG` a symbol, an `ACCOUNT`.
    written
        Room for what the rows bring about: `Written`.
    """
    return run(
        start,
        lend_market(market),
        borrow(decisions),
        lend_schedule(schedule),
        terms,
        borrow(legs),
        account,
        lend_written(written),
    )


@lending
def lend_market(market):
    """Return the market arrays without counts of references."""
    return MarketArrays(
        borrow(market.time),
        borrow(market.leg),
        borrow(market.price),
        borrow(market.book),
        borrow(market.volume),
        borrow(market.taker),
        borrow(market.delay),
        borrow(market.books),
        borrow(market.extremes),
        borrow(market.ranges),
        borrow(market.starts),
    )


@lending
def lend_schedule(schedule):
    """Return the schedule without counts of references."""
    return Schedule(
        borrow(schedule.delays),
        borrow(schedule.funding),
        borrow(schedule.gaps),
        borrow(schedule.held_books),
    )


@lending
def lend_written(written):
    """Return the room for records without counts of references."""
    return Written(
        borrow(written.orders),
        borrow(written.fills),
        borrow(written.trades),
        borrow(written.samples),
        borrow(written.used),
    )


@compiled
def run(start, market, decisions, schedule, terms, legs, account, written):
    """Replay rows: fast-forward over the calm ones, step through the others."""
    rows, time = len(market.time), market.time
    i = start
    while i < rows and not is_full(written, len(legs)):
        if time[i] >= account["alarm"]:
            tick_clock(time[i], schedule, legs, account, terms, written)
        number = account["next_decision"]
        end = decisions[number]["row"] + 1 if number < len(decisions) else rows
        if terms["leap"] == 1:
            if len(legs) == 1 and len(market.book) == 0:
                i = fast_forward(i, end, market, legs[0], account, terms)
            else:
                i = fast_forward_many(i, end, market, legs, account, terms)
        if i < end and time[i] < account["alarm"]:
            step(i, market, schedule, terms, legs, account, written)
            i += 1
        if i == end and number < len(decisions):
            account["next_decision"] = number + 1
            leg = legs[market.leg[i - 1] if len(legs) > 1 else 0]
            delay = delay_of(i - 1, market, schedule, leg, terms)
            decide(leg, time[i - 1], decisions[number], delay, terms, written)
    find_trough(time, market.price, account)
    return i


@inlined
def is_full(written, legs):
    """Return whether the next row might find no room for its records."""
    room = RECORDS_A_ROW + legs
    used = written.used
    full = used[0] + room > len(written.orders) or used[1] + room > len(written.fills)
    return full or used[2] + room > len(written.trades) or used[3] + 2 > len(written.samples)


@inlined
def step(i, market, schedule, terms, legs, account, written):
    """Process one row; the module says in which order."""
    now, price = market.time[i], market.price[i]
    leg = legs[market.leg[i] if len(legs) > 1 else 0]
    priced = price == price
    brings_book = len(market.book) > 0 and market.book[i] >= 0
    book = market.books[market.book[i] if brings_book else 0]
    has_book = brings_book and book["bad"] == 0
    if priced and terms["book"] == 0:
        leg["mark"] = price  # a print is what its own fills are marked at
    leg["changed"] = 0
    if leg["slot"] == IN_FLIGHT:
        if now >= leg["ready_at"] and (priced or terms["book"] == 1):
            meet_market(leg, account, now, price, legs, market, schedule, terms, written)
    elif leg["slot"] == RESTING:
        volume = market.volume[i] if len(market.volume) > 0 else 0.0
        taker = market.taker[i] if len(market.taker) > 0 else 0
        watch_queue(leg, account, now, price, volume, taker, book, has_book, terms, written)
    if leg["qty"] != 0.0 and leg["changed"] == 0 and leg["take_level"] == leg["take_level"]:
        take_profit(leg, account, now, price, book, has_book, terms, written)
    if brings_book:  # a bad one, too: what was known before holds no longer
        leg["book"] = market.book[i]
    if priced:
        leg["mark"] = price
    if leg["qty"] != 0.0 or leg["changed"] == 1:
        if priced:
            mark(leg, price)
        follow(account, total_equity(legs, account), now)
    if priced and leg["qty"] != 0.0 and leg["changed"] == 1:
        follow_best(leg, price, book, has_book)
    elif priced and leg["qty"] != 0.0 and leg["changed"] == 0:
        delay = delay_of(i, market, schedule, leg, terms)
        check_exits(leg, legs, account, now, price, book, has_book, delay, terms, written)
    account["now"] = now


@inlined
def delay_of(i, market, schedule, leg, terms):
    """Return the delay of the order that the leg would make now."""
    if len(market.delay) > 0:
        return market.delay[i]
    return schedule.delays[leg["number"], leg["orders_made"] % terms["draws"]]


@inlined
def tick_clock(now, schedule, legs, account, terms, written):
    """Do what lies between the row before and `now`: pay funding, sample equity, end gaps."""
    funding, gaps = schedule.funding, schedule.gaps
    n = account["next_funding"]
    while n < len(funding) and funding[n]["time"] < account["edge"] and funding[n]["time"] <= now:
        charge(funding[n], legs, account)
        n += 1
    if now >= account["edge"]:
        written.samples[written.used[3]]["time"] = account["edge"]
        written.samples[written.used[3]]["equity"] = account["equity"]
        written.used[3] += 1
        account["edge"] = (now // terms["interval"] + 1) * terms["interval"]
    while n < len(funding) and funding[n]["time"] <= now:
        charge(funding[n], legs, account)
        n += 1
    account["next_funding"] = n
    g = account["next_gap"]
    while g < len(gaps) and gaps[g]["to_time"] <= now:
        legs[gaps[g]["leg"]]["gap_ended_at"] = gaps[g]["to_time"]
        g += 1
    account["next_gap"] = g
    account["alarm"] = next_alarm(account["edge"], funding, n, gaps, g)


@compiled
def charge(event, legs, account):
    """Charge one leg its funding."""
    leg = legs[event["leg"]]
    if leg["qty"] != 0.0:
        account["funding"] += pay_funding(leg, event["rate_long"], event["rate_short"])
        follow(account, total_equity(legs, account), event["time"])


@compiled
def check_exits(leg, legs, account, now, price, book, has_book, delay, terms, written):
    """Look at margin, exits and the rebalance band of the leg that this row has marked."""
    call = margin_call(leg, legs, account, price, terms)
    if call and terms["shared"] == 1:
        for k in range(len(legs)):
            if legs[k]["qty"] != 0.0 and (legs[k]["number"] != leg["number"]):
                watch_position(legs[k], now, np.nan, book, False, True, 0, terms, written)
    watch_position(leg, now, price, book, has_book, call, delay, terms, written)
    if terms["rebalance"] == terms["rebalance"]:
        equity = account["equity"] if terms["shared"] == 1 else leg["equity"]
        if out_of_band(leg, equity, price, terms):
            rebalance(leg, now, delay)


@compiled
def margin_call(leg, legs, account, price, terms):
    """Return whether equity has fallen to the maintenance margin."""
    if terms["shared"] == 0:
        return leg["equity"] <= terms["maintenance"] * abs(leg["qty"]) * price
    notional = 0.0
    for k in range(len(legs)):
        notional += abs(legs[k]["qty"]) * legs[k]["mark"]
    return account["equity"] <= terms["maintenance"] * notional


@compiled
def close(sell, legs, account, terms, written):
    """Record orders that found no row to fill at; mark what is held, or sell it."""
    now = account["now"]
    for k in range(len(legs)):
        leg = legs[k]
        if leg["slot"] != NO_ORDER:
            end_unfilled(leg, OPEN, OPEN, now, written)
        if leg["qty"] == 0.0:
            continue
        if sell:
            new_order(leg, 0.0, END, now, now)
            side = -np.sign(leg["qty"])
            slip = slip_of(leg["qty"], leg["mark"], terms)
            at = worsened(leg["mark"], side, slip, leg)
            execute(leg, account, now, at, -leg["qty"], terms["taker"], 0, 0, written)
            complete(leg, FILLED, now, written)
            follow(account, total_equity(legs, account), now)
        else:
            leg["sold"] += abs(leg["qty"])
            leg["received"] += abs(leg["qty"]) * leg["mark"]
            write_trade(leg, STILL_OPEN, leg["mark"], written)
    end_drawdown(account)
    if account["holding"] > 0:
        account["exposed"] += now - account["exposed_since"]
    written.samples[written.used[3]]["time"] = account["edge"]
    written.samples[written.used[3]]["equity"] = account["equity"]
    written.used[3] += 1
