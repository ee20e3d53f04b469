"""The one pass over the ticks: orders, fills, equity, drawdown.

The kernel keeps O(1) state in two small structured arrays, so it can stop after any row and go on
with the next chunk: every chunking gives identical bits. It is compiled by numba and cached on
disk; the same source, run as plain Python (``replay.py_func``), is its readable twin.

What happens at a row, in this order:

1. equity samples and exposed time are closed up to the row's time;
2. a pending order whose time has come fills at this row's price;
3. the position is marked at this row's price; equity, peak and drawdown follow;
4. the row's target is read: a change of mind makes a new order, which can fill at a *later* row.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
from numba import njit

FILLED: Final = 1
REPLACED: Final = 2  # a newer decision came first
UNCHANGED: Final = 3  # the position was already as wanted
NO_EQUITY: Final = 4  # nothing left to trade with
OPEN: Final = 5  # the data ended first

STILL_OPEN: Final = -1  # exited_at of a position that was marked, not sold

LEG: Final = np.dtype(
    [
        ("cash", "f8"),
        ("qty", "f8"),  # signed base units
        ("mark", "f8"),  # last price seen
        ("equity", "f8"),
        ("wanted", "f8"),  # the latest target decided
        ("held", "f8"),  # the target of the last fill
        ("pending", "i8"),  # 1 while an order waits
        ("decided_at", "i8"),
        ("ready_at", "i8"),
        # the round trip that is open
        ("direction", "i8"),  # 1 long, -1 short
        ("entered_at", "i8"),
        ("bought", "f8"),  # base units into the position, and the money they moved
        ("paid", "f8"),
        ("sold", "f8"),  # base units out of it
        ("received", "f8"),
        ("fees", "f8"),
        ("low", "f8"),  # extreme prices while it was open
        ("high", "f8"),
    ]
)

ACCOUNT: Final = np.dtype(
    [
        ("equity", "f8"),
        ("peak", "f8"),
        ("peak_at", "i8"),
        ("max_drawdown", "f8"),
        # the peak and the trough that the deepest drawdown lies between
        ("high", "f8"),
        ("high_at", "i8"),
        ("low", "f8"),
        ("low_at", "i8"),
        ("under_water", "i8"),  # longest time below a peak
        ("now", "i8"),
        ("exposed", "i8"),  # time with a position in any leg
        ("edge", "i8"),  # end of the running sample interval
        ("holding", "i8"),  # legs with a position
        ("rows", "i8"),
    ]
)

ORDER: Final = np.dtype(
    [
        ("leg", "i8"),
        ("status", "i8"),
        ("decided_at", "i8"),
        ("ready_at", "i8"),
        ("done_at", "i8"),
        ("target", "f8"),
        ("price", "f8"),
        ("qty", "f8"),
        ("fee", "f8"),
        ("position", "f8"),
        ("equity", "f8"),
    ]
)

TRADE: Final = np.dtype(
    [
        ("leg", "i8"),
        ("direction", "i8"),
        ("entered_at", "i8"),
        ("exited_at", "i8"),  # -1 while open
        ("qty", "f8"),
        ("entry_price", "f8"),
        ("exit_price", "f8"),
        ("fees", "f8"),
        ("pnl", "f8"),
        ("low", "f8"),
        ("high", "f8"),
    ]
)

SAMPLE: Final = np.dtype([("time", "i8"), ("equity", "f8")])

COSTS: Final = np.dtype([("fee", "f8"), ("slippage", "f8"), ("latency", "i8"), ("interval", "i8")])

compiled: Final[Any] = njit(cache=True, nogil=True)


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
        if account["holding"] > 0:
            account["exposed"] += now - account["now"]
        account["now"] = now

        if leg["pending"] == 1 and now >= leg["ready_at"]:
            fill(leg_of[i], leg, now, price[i], costs, account, orders, trades, used)

        leg["mark"] = price[i]
        leg["equity"] = leg["cash"] + leg["qty"] * price[i]
        if leg["qty"] != 0.0:
            leg["low"] = min(leg["low"], price[i])
            leg["high"] = max(leg["high"], price[i])
        mark_account(legs, account)

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
def mark_account(legs, account):  # type: ignore[no-untyped-def]
    """Sum the legs in their order, and follow peak and drawdown at every tick."""
    total = 0.0
    for k in range(len(legs)):
        total += legs[k]["equity"]
    account["equity"] = total
    if total >= account["peak"]:
        account["peak"] = total
        account["peak_at"] = account["now"]
        return
    account["under_water"] = max(account["under_water"], account["now"] - account["peak_at"])
    drawdown = total / account["peak"] - 1.0
    if drawdown < account["max_drawdown"]:
        account["max_drawdown"] = drawdown
        account["high"] = account["peak"]
        account["high_at"] = account["peak_at"]
        account["low"] = total
        account["low_at"] = account["now"]


@compiled
def fill(number, leg, now, price, costs, account, orders, trades, used):  # type: ignore[no-untyped-def]
    """Execute a leg's pending order at `price`, and record why if nothing could be done.

    The wanted quantity is ``target * equity / (fill price * (1 + fee))``, equity marked at the
    row's price before the fee, so cash stays at or above zero unleveraged. A change of side
    closes first: the new side is sized by what is left after the closing costs.
    """
    equity = leg["cash"] + leg["qty"] * price
    wanted = leg["wanted"]
    # Which way the order goes is known from the print; only then does slippage have a sign.
    side = np.sign(wanted * equity / (price * (1.0 + costs["fee"])) - leg["qty"])
    at = price * (1.0 + side * costs["slippage"])
    if wanted * leg["qty"] < 0.0:
        closing = -leg["qty"]
        equity = leg["cash"] - closing * at - abs(closing) * at * costs["fee"]
    status = FILLED
    change = wanted * equity / (at * (1.0 + costs["fee"])) - leg["qty"]
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
    account["holding"] += int(leg["qty"] != 0.0) - int(before != 0.0)
    leg["mark"] = price
    leg["equity"] = leg["cash"] + leg["qty"] * price
    fee = abs(change) * at * costs["fee"]
    write_order(number, leg, FILLED, now, at, change, fee, orders, used)


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
def mean_cross(ticks, fast, slow, crosses):  # type: ignore[no-untyped-def]
    """Write 1 at golden crosses of two moving averages, -1 at death crosses; all in integers."""
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
                crosses[i] = 1
            elif difference < 0 and before >= 0:
                crosses[i] = -1
        before = difference


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
    for k in range(len(legs)):
        leg = legs[k]
        if leg["pending"] == 1:
            write_order(k, leg, OPEN, account["now"], 0.0, 0.0, 0.0, orders, used)
        if leg["qty"] != 0.0:
            leg["sold"] += abs(leg["qty"])
            leg["received"] += abs(leg["qty"]) * leg["mark"]
            write_trade(k, leg, STILL_OPEN, leg["mark"], trades, used)
