"""The one pass over the ticks: orders, fills, equity, drawdown.

The kernel keeps O(1) state in two small structured arrays, so it can stop after any row and go on
with the next chunk: every chunking gives identical bits. It is compiled by numba and cached on
disk; the same source, run as plain Python (``replay.py_func``), is its readable twin.

What happens at a row, in this order:

1. equity samples and exposed time are closed up to the row's time;
2. a pending order whose time has come fills at this row's price;
3. a position is marked at this row's price; equity, peak and drawdown follow;
4. the row's target is read: a change of mind makes a new order, which can fill at a *later* row.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

from fxlab.backtester.records import FILLED, NO_EQUITY, OPEN, REPLACED, STILL_OPEN, UNCHANGED

# The error model: prices are checked to be above zero, so no division needs a branch for zero.
compiled: Final[Any] = njit(cache=True, nogil=True, error_model="numpy")


@compiled
def replay(time, leg_of, price, target, costs, legs, account, orders, trades, samples, used):  # type: ignore[no-untyped-def]
    """Replay one chunk of the time-merged ticks; all arrays after `costs` are written to.

    Parameters
    ----------
    time, leg_of, price, target
        One value a row: int64 µs, int64 leg number, float64, float64 (nan keeps the target).
    costs
        One `COSTS` record.
    legs, account
        State: one `LEG` record a symbol, one `ACCOUNT` record.
    orders, trades, samples
        Room for what this chunk may finish: `ORDER`, `TRADE` and `SAMPLE` records.
    used
        int64[3]: how many of each were written.
    """
    for i in range(len(time)):
        now = time[i]
        leg = legs[leg_of[i]]
        if now >= account["edge"]:
            samples[used[2]]["time"] = account["edge"]
            samples[used[2]]["equity"] = account["equity"]
            used[2] += 1
            account["edge"] = (now // costs["interval"] + 1) * costs["interval"]

        due = leg["pending"] == 1 and now >= leg["ready_at"]
        if due:
            fill(leg_of[i], leg, now, price[i], costs, account, orders, trades, used)
        if due or leg["qty"] != 0.0:  # a flat leg's equity does not move
            mark(leg, price[i])
            equity = leg["equity"]
            if len(legs) > 1:
                equity = 0.0
                for k in range(len(legs)):  # in their order: the same bits in any chunking
                    equity += legs[k]["equity"]
            follow(account, equity, now)
        account["now"] = now

        if target[i] == target[i] and target[i] != leg["wanted"]:
            if leg["pending"] == 1:
                write_order(leg_of[i], leg, REPLACED, now, 0.0, 0.0, 0.0, orders, used)
            leg["wanted"] = target[i]
            leg["pending"] = 1
            leg["decided_at"] = now
            leg["ready_at"] = now + costs["latency"]
            if target[i] == leg["held"]:  # back to what is held: nothing to trade
                write_order(leg_of[i], leg, UNCHANGED, now, 0.0, 0.0, 0.0, orders, used)
    account["rows"] += len(time)


@compiled
def mark(leg, price):  # type: ignore[no-untyped-def]
    """Mark a leg at a price. Arrays are not passed here: numba counts references to them."""
    leg["mark"] = price
    leg["equity"] = leg["cash"] + leg["qty"] * price
    # Written only when they change: a store here would have to be waited for in the next row.
    if price < leg["low"]:
        leg["low"] = price
    if price > leg["high"]:
        leg["high"] = price


@compiled
def follow(account, total, now):  # type: ignore[no-untyped-def]
    """Follow the account's equity, its peak and its drawdown."""
    account["equity"] = total
    if total >= account["peak"]:
        surface(account)
        account["peak"] = total
        account["peak_at"] = now
        account["below"] = 0
        return
    if account["below"] == 0:
        account["below"] = 1
    drawdown = total / account["peak"] - 1.0
    if drawdown < account["max_drawdown"]:
        account["max_drawdown"] = drawdown
        account["high"] = account["peak"]
        account["high_at"] = account["peak_at"]
        account["low"] = total
        account["low_at"] = now


@compiled
def surface(account):  # type: ignore[no-untyped-def]
    """End the time under water, if there was any, with the last row that lay below the peak."""
    if account["below"] == 1:
        account["under_water"] = max(account["under_water"], account["now"] - account["peak_at"])


@compiled
def fill(number, leg, now, price, costs, account, orders, trades, used):  # type: ignore[no-untyped-def]
    """Execute a leg's pending order at `price`, and record why if nothing could be done.

    The wanted quantity is ``target * equity / (fill price * (1 + fee))``, equity marked at the
    row's price before the fee, so cash stays at or above zero unleveraged (a rebate is not spent
    in advance). A change of side closes first: the new side is sized by what closing leaves.
    """
    equity = leg["cash"] + leg["qty"] * price
    wanted = leg["wanted"]
    reserve = 1.0 + max(costs["fee"], 0.0)
    # Which way the order goes is known from the print; only then does slippage have a sign.
    side = np.sign(wanted * equity / (price * reserve) - leg["qty"])
    at = price * (1.0 + side * costs["slippage"])
    if wanted * leg["qty"] < 0.0:
        closing = -leg["qty"]
        equity = leg["cash"] - closing * at - abs(closing) * at * costs["fee"]
    status = FILLED
    change = wanted * equity / (at * reserve) - leg["qty"]
    if wanted == 0.0:
        change = -leg["qty"]  # exactly flat, whatever the rounding
    elif equity <= 0.0:
        status = NO_EQUITY
    if status == FILLED and change * side <= 0.0:
        status = UNCHANGED
    if status != FILLED:
        write_order(number, leg, status, now, 0.0, 0.0, 0.0, orders, used)
        return
    before = leg["qty"]
    leg["held"] = wanted
    settle(number, leg, now, at, change, costs["fee"], trades, used)
    hold(account, now, int(leg["qty"] != 0.0) - int(before != 0.0))
    leg["mark"] = price
    leg["equity"] = leg["cash"] + leg["qty"] * price
    fee = abs(change) * at * costs["fee"]
    write_order(number, leg, FILLED, now, at, change, fee, orders, used)


@compiled
def hold(account, now, change):  # type: ignore[no-untyped-def]
    """Count the legs with a position, and the time with any."""
    if account["holding"] == 0:
        account["exposed_since"] = now
    account["holding"] += change
    if account["holding"] == 0:
        account["exposed"] += now - account["exposed_since"]


@compiled
def settle(number, leg, now, at, change, fee, trades, used):  # type: ignore[no-untyped-def]
    """Move cash and quantity, and keep the round trip's books; a flip is two steps."""
    if leg["qty"] * change < 0.0:  # out of the position, all or part of it
        out = -leg["qty"] if abs(change) >= abs(leg["qty"]) else change
        move(leg, at, out, fee)
        leg["sold"] += abs(out)
        leg["received"] += abs(out) * at
        change -= out
        if leg["qty"] == 0.0:
            write_trade(number, leg, now, at, trades, used)
    if change != 0.0:  # into a position
        if leg["qty"] == 0.0:
            leg["direction"] = 1 if change > 0.0 else -1
            leg["entered_at"] = now
            leg["bought"] = leg["paid"] = leg["sold"] = leg["received"] = leg["fees"] = 0.0
            leg["low"] = leg["high"] = at
        move(leg, at, change, fee)
        leg["bought"] += abs(change)
        leg["paid"] += abs(change) * at


@compiled
def move(leg, at, change, fee):  # type: ignore[no-untyped-def]
    """Exchange cash for quantity at a price, and pay the fee."""
    cost = abs(change) * at * fee
    leg["cash"] -= change * at + cost
    leg["fees"] += cost
    leg["qty"] = 0.0 if leg["qty"] == -change else leg["qty"] + change


@compiled
def write_order(number, leg, status, now, at, change, fee, orders, used):  # type: ignore[no-untyped-def]
    """Record the end of the leg's pending order."""
    order = orders[used[0]]
    used[0] += 1
    leg["pending"] = 0
    order["leg"] = number
    order["status"] = status
    order["decided_at"] = leg["decided_at"]
    order["ready_at"] = leg["ready_at"]
    order["done_at"] = now
    order["target"] = leg["wanted"]
    order["price"] = at
    order["qty"] = change
    order["fee"] = fee
    order["position"] = leg["qty"]
    order["equity"] = leg["equity"]


@compiled
def write_trade(number, leg, now, at, trades, used):  # type: ignore[no-untyped-def]
    """Record the round trip that has just closed; `leg` holds its sums."""
    trade = trades[used[1]]
    used[1] += 1
    trade["leg"] = number
    trade["direction"] = leg["direction"]
    trade["entered_at"] = leg["entered_at"]
    trade["exited_at"] = now
    trade["qty"] = leg["bought"]
    trade["entry_price"] = leg["paid"] / leg["bought"]
    trade["exit_price"] = leg["received"] / leg["sold"]
    trade["fees"] = leg["fees"]
    trade["pnl"] = leg["direction"] * (leg["received"] - leg["paid"]) - leg["fees"]
    trade["low"] = min(leg["low"], at)
    trade["high"] = max(leg["high"], at)


@compiled
def mean_cross(ticks, fast, slow, golden, death, crosses):  # type: ignore[no-untyped-def]
    """Write `golden` and `death` where two moving averages cross; all sums are integers."""
    sum_fast = 0
    sum_slow = 0
    before = 0
    for i in range(len(ticks)):
        sum_fast += ticks[i]
        sum_slow += ticks[i]
        if i >= fast:
            sum_fast -= ticks[i - fast]
        if i >= slow:
            sum_slow -= ticks[i - slow]
        if i < slow - 1:
            continue
        difference = sum_fast * slow - sum_slow * fast
        if i >= slow:
            if difference > 0 and before <= 0:
                crosses[i] = golden
            elif difference < 0 and before >= 0:
                crosses[i] = death
        before = difference


@compiled
def to_ticks(price, scale, ticks):  # type: ignore[no-untyped-def]
    """Write prices as whole numbers of ticks; the caller knows that they are."""
    for i in range(len(price)):
        ticks[i] = np.int64(np.rint(price[i] * scale))


@compiled
def first_bad_row(time, seq, price, last_time, last_seq):  # type: ignore[no-untyped-def]
    """Return the first row out of (time, seq) order or without a price, or -1."""
    for i in range(len(time)):
        later = time[i] > last_time or (time[i] == last_time and seq[i] > last_seq)
        if not later or not (0.0 < price[i] < np.inf):
            return i
        last_time = time[i]
        last_seq = seq[i]
    return -1


@compiled
def count_decisions(target, leg_of, legs):  # type: ignore[no-untyped-def]
    """Return how often a leg's target differs from its last one (nan keeps): room for orders."""
    count = 0
    last = np.full(legs, np.nan)
    for i in range(len(target)):
        if target[i] == target[i] and target[i] != last[leg_of[i]]:
            last[leg_of[i]] = target[i]
            count += 1
    return count


@compiled
def close(legs, account, orders, trades, used):  # type: ignore[no-untyped-def]
    """Record orders that found no row to fill at, and positions marked at the last price."""
    surface(account)
    if account["holding"] > 0:
        account["exposed"] += account["now"] - account["exposed_since"]
    for k in range(len(legs)):
        leg = legs[k]
        if leg["pending"] == 1:
            write_order(k, leg, OPEN, account["now"], 0.0, 0.0, 0.0, orders, used)
        if leg["qty"] != 0.0:
            leg["sold"] += abs(leg["qty"])
            leg["received"] += abs(leg["qty"]) * leg["mark"]
            write_trade(k, leg, STILL_OPEN, leg["mark"], trades, used)
