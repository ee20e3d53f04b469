"""Compiled fast path: stretches of rows passed over by their price extremes, with the same bits.

Most rows change nothing but marks. Where one leg is replayed, all that could happen to it between
two decisions is folded into the bounds of two prices and a time, and the lowest and highest price
of the rows up to there tell whether any of it can happen: rounding is monotone, so the extremes of
the prices give the extremes of the equity, bit for bit. Only a stretch that makes a new peak of
equity, or meets an exit, is walked: its pieces, whose extremes are found once for all runs, and
then its rows. Several legs, or books, go by blocks. Without all this (`TERMS` leap = 0) the kernel
gives the same bits, slower.
"""

from __future__ import annotations

from typing import Final

import numpy as np

from fxlab.backtester._kernel.compiled import compiled, float_of, inlined
from fxlab.backtester._kernel.fills import end_drawdown, follow, mark, total_equity
from fxlab.backtester._kernel.orders import missed_by_gap
from fxlab.backtester._kernel.records import FOREVER, IN_FLIGHT, NEVER, NO_ORDER, RESTING

BLOCK: Final = 64
"""Rows that are skipped at once, if they can change nothing, with several legs or books."""

PIECE: Final = 16
"""Rows whose extremes are found once for all runs, with one leg of prices: two lines of memory."""


@inlined
def extremes_of(lows, highs, begin, end, low, high):
    """Return the lowest and the highest of some values, or of what was found before.

    Floats above zero are ordered as the integers of the same bits, which are compared several at a
    time: for floats the compiler would have to know that none is nan.
    """
    below, above = lows[begin:end], highs[begin:end]
    for i in range(len(below)):
        low = min(low, below[i])
        high = max(high, above[i])
    return low, high


@compiled
def find_ranges(price, out):
    """Write the lowest and the highest price of each piece of one leg, as integers of its bits."""
    bits, lows, highs = price.view(np.int64), out[0], out[1]
    for b in range(len(lows)):
        first, end = b * PIECE, min((b + 1) * PIECE, len(price))
        lows[b], highs[b] = extremes_of(bits, bits, first, end, bits[first], bits[first])


@compiled
def find_extremes(leg_of, price, book, books, out):
    """Write the `EXTREMES` of each (block, leg); `out` comes as (blocks, legs)."""
    for b in range(len(out)):
        for k in range(out.shape[1]):
            out[b, k]["low"] = out[b, k]["ask"] = np.inf
            out[b, k]["high"] = out[b, k]["bid"] = -np.inf
            out[b, k]["book"] = -1
        for i in range(b * BLOCK, min((b + 1) * BLOCK, len(price))):
            found = out[b, leg_of[i]]
            bid = ask = price[i]
            if len(book) > 0 and book[i] >= 0:
                found["book"] = book[i]
                if books[book[i]]["bad"] == 0:
                    bid = books[book[i]]["bid_price"][0]
                    ask = books[book[i]]["ask_price"][0]
            if price[i] == price[i]:
                found["low"] = min(found["low"], price[i])
                found["high"] = max(found["high"], price[i])
                found["last"] = price[i]
                found["bid"] = bid if bid > found["bid"] else found["bid"]
                found["ask"] = ask if ask < found["ask"] else found["ask"]


@inlined
def stretch_extremes(prices, ranges, begin, end):
    """Return the lowest and the highest price of a stretch; of its whole pieces, they are known."""
    bits = prices.view(np.int64)
    first, last = -(-begin // PIECE), end // PIECE
    low, high = bits[begin], bits[begin]
    if first < last:
        low, high = extremes_of(ranges[0], ranges[1], first, last, low, high)
        low, high = extremes_of(bits, bits, begin, first * PIECE, low, high)
        begin = last * PIECE
    low, high = extremes_of(bits, bits, begin, end, low, high)
    return float_of(low), float_of(high)


@inlined
def first_at(time, starts, moment, begin, end):
    """Return the first of some rows that is not before a moment.

    Pieces are looked through by their first rows, in steps doubled, then halved.
    """
    if begin >= end or time[begin] >= moment:
        return begin
    piece, step, last = begin // PIECE, 1, (end - 1) // PIECE
    while piece + step <= last and starts[piece + step] < moment:
        piece += step
        step *= 2
    beyond = min(piece + step, last + 1)
    while beyond - piece > 1:
        middle = (piece + beyond) // 2
        if starts[middle] < moment:
            piece = middle
        else:
            beyond = middle
    first = max(begin, piece * PIECE)
    some, before = time[first : min(end, (piece + 1) * PIECE)], 0
    for j in range(len(some)):  # all of them at a time, so that memory is waited for once
        before += some[j] < moment
    return first + before


@inlined
def fast_forward(i, end, market, leg, account, terms):
    """Pass over rows that change nothing but marks and equity; return the first that is not so.

    For one leg of prices only: its state is held in local variables, all that could happen to it
    is folded into bounds of two prices and a time. A stretch whose extremes keep within them is
    passed over at once; of another one, its calm pieces are, and the rows between one by one.
    """
    time, prices, ranges = market.time, market.price, market.ranges
    low, high, until = quiet_bounds(leg, account["alarm"], terms)
    start = i
    if time[end - 1] >= until:
        end = first_at(time, market.starts, until, i, end)
    if i >= end:
        return i
    if leg["qty"] != 0.0:
        i = fast_forward_held(i, end, time, prices, ranges, leg, account, terms, low, high)
    elif low == -np.inf and high == np.inf:
        i = end
    else:
        while i < end and low < prices[i] < high:
            calm = i % PIECE == 0 and i + PIECE <= end
            if calm:
                bottom, top = float_of(ranges[0, i // PIECE]), float_of(ranges[1, i // PIECE])
                calm = low < bottom and top < high
            i += PIECE if calm else 1
    if i > start:
        leg["mark"] = prices[i - 1]
        account["now"] = time[i - 1]
    return i


@compiled
def first_as_deep(prices, begin, end, base, cash, qty, peak, worst):
    """Return the first row whose drawdown is that of the lowest equity, which one of them has.

    Equities that differ by a rounding may have one drawdown: only what is near is divided.
    """
    deepest = worst / peak - 1.0
    near = worst + peak * 2.0**-50
    some = prices[begin:end]
    for i in range(len(some)):
        total = base + (cash + qty * some[i])
        if total <= near and total / peak - 1.0 <= deepest:
            return begin + i
    return end - 1


@compiled
def deepen(account, low, low_at, cash, qty, begin, end):
    """Keep the peak and the trough of a drawdown that is deeper than any before.

    Where a stretch has the trough (`end` is not 0), `find_trough` finds its row: most troughs are
    followed by deeper ones before.
    """
    account["high"], account["high_at"] = account["peak"], account["peak_at"]
    account["low"], account["low_at"] = low, low_at
    account["trough_cash"], account["trough_qty"] = cash, qty
    account["trough_from"], account["trough_until"] = begin, end


@compiled
def find_trough(time, prices, account):
    """Find the row of the deepest drawdown, if only its stretch is known."""
    begin, end = account["trough_from"], account["trough_until"]
    if end > 0:
        base, cash, qty = account["base"], account["trough_cash"], account["trough_qty"]
        peak, worst = account["high"], account["low"]
        at = first_as_deep(prices, begin, end, base, cash, qty, peak, worst)
        account["low"], account["low_at"] = base + (cash + qty * prices[at]), time[at]
    account["trough_cash"] = account["trough_qty"] = 0.0
    account["trough_from"] = account["trough_until"] = 0


@inlined
def fast_forward_held(i, end, time, prices, ranges, leg, account, terms, low, high):
    """Fast-forward with a position: follow its extremes, the equity, the peak and the drawdown.

    All rows lie before any alarm.
    """
    bottom, top = stretch_extremes(prices, ranges, i, end)
    start, whole = i, True
    base, cash, qty = account["base"], leg["cash"], leg["qty"]
    margin = terms["maintenance"] * abs(qty)
    lowest, highest, equity = np.inf, -np.inf, leg["equity"]
    peak, below, deepest = account["peak"], account["below"], account["max_drawdown"]
    known = np.inf  # no total from here up is a deeper drawdown
    while i < end:
        if whole or (i % PIECE == 0 and i + PIECE <= end):
            after = end
            if not whole:
                after = i + PIECE
                bottom, top = float_of(ranges[0, i // PIECE]), float_of(ranges[1, i // PIECE])
            whole = False
            if low < bottom and top < high:
                worst = base + (cash + qty * (bottom if qty > 0.0 else top))
                best = base + (cash + qty * (top if qty > 0.0 else bottom))
                if best < peak and worst > margin * top:
                    if worst < known and worst / peak - 1.0 < deepest:
                        deepest = worst / peak - 1.0
                        deepen(account, worst, 0, cash, qty, i, after)
                    lowest = min(lowest, bottom)
                    highest = max(highest, top)
                    equity = cash + qty * prices[after - 1]
                    known = min(known, worst)
                    below = 1
                    i = after
                    continue
        price = prices[i]
        worth = cash + qty * price
        total = base + worth
        if price <= low or price >= high or total <= margin * price:
            break
        equity = worth
        lowest = min(lowest, price)
        highest = max(highest, price)
        if total >= peak:
            if below == 1:
                if i > start:
                    account["now"] = time[i - 1]
                account["below"] = 1
                end_drawdown(account)
            peak, below, known = total, 0, np.inf
            account["peak"], account["peak_at"] = total, time[i]
        else:
            below = 1
            if total < known:
                known = total
                drawdown = total / peak - 1.0
                if drawdown < deepest:
                    deepest = drawdown
                    deepen(account, total, time[i], 0.0, 0.0, 0, 0)
        i += 1
    leg["low"], leg["high"] = min(leg["low"], lowest), max(leg["high"], highest)
    leg["equity"] = equity
    update_best_price(leg, lowest, highest)
    account["below"], account["max_drawdown"] = below, deepest
    account["equity"] = base + equity
    return i


@compiled
def fast_forward_many(i, end, market, legs, account, terms):
    """Fast-forward with several legs, or with books: calm blocks at once, then row by row."""
    time, leg_of, prices, extremes = market.time, market.leg, market.price, market.extremes
    rows_too = len(market.book) == 0 and terms["shared"] == 0
    alarm = account["alarm"]
    while i < end:
        last = i + BLOCK - 1
        if (
            i % BLOCK == 0
            and last < end
            and (is_calm(extremes[i // BLOCK], time[last], legs, account, terms))
        ):
            skip_block(extremes[i // BLOCK], time[last], legs, account)
            i += BLOCK
            continue
        now, price = time[i], prices[i]
        leg = legs[leg_of[i]]
        if not rows_too or now >= alarm:
            return i
        if leg["slot"] != NO_ORDER and not waits(leg, price, price, now, terms):
            return i
        if leg["qty"] != 0.0:
            if not is_unguarded(leg, price, price, now, False, terms):
                return i
            mark(leg, price)
            update_best_price(leg, price, price)
            total = account["base"]
            for k in range(len(legs)):
                total += legs[k]["equity"]
            follow(account, total, now)
        leg["mark"] = price
        account["now"] = now
        i += 1
    return i


@inlined
def quiet_bounds(leg, alarm, terms):
    """Return two prices and a time within which nothing happens to a leg but marks."""
    low, high, until = -np.inf, np.inf, alarm
    if leg["slot"] == IN_FLIGHT:
        until = min(until, leg["ready_at"])
    elif leg["slot"] == RESTING:
        if leg["remaining"] > 0.0:
            low = leg["limit"]
        else:
            high = leg["limit"]
        if missed_by_gap(leg, terms):
            return low, high, -FOREVER
    if leg["qty"] == 0.0:
        return low, high, until
    if terms["rebalance"] == terms["rebalance"]:
        return low, high, -FOREVER
    if terms["max_holding"] >= 0:
        until = min(until, leg["entered_at"] + terms["max_holding"])
    stops = leg["stop_level"], leg["trail_level"]
    takes = leg["take_level"], leg["best"] if leg["trail_level"] == leg["trail_level"] else np.nan
    for k in range(2):
        below, above = (stops[k], takes[k]) if leg["qty"] > 0.0 else (takes[k], stops[k])
        if below > low:
            low = below
        if above < high:
            high = above
    return low, high, until


@compiled
def is_calm(block, until, legs, account, terms):
    """Return whether a block of rows can change nothing but marks."""
    if until >= account["alarm"]:
        return False
    worst = best = account["base"]
    holding = False
    for k in range(len(legs)):
        leg = legs[k]
        low, high = block[k]["low"], block[k]["high"]
        if low > high:  # no price of this leg in the block
            if leg["slot"] != NO_ORDER and block[k]["book"] >= 0:
                return False
            worst += leg["equity"]
            best += leg["equity"]
            continue
        if leg["slot"] != NO_ORDER and not waits(leg, low, high, until, terms):
            return False
        if leg["qty"] == 0.0:
            worst += leg["equity"]
            best += leg["equity"]
            continue
        if not is_unguarded(leg, low, high, until, block[k]["book"] >= 0, terms):
            return False
        holding = True
        at_low, at_high = leg["cash"] + leg["qty"] * low, leg["cash"] + leg["qty"] * high
        # With several legs, the first rows of the block still see this leg's last mark.
        worst += min(at_low, at_high, leg["equity"])
        best += max(at_low, at_high, leg["equity"])
    if not holding:
        return True
    if terms["shared"] == 1 and account["holding"] > 0:
        notional = 0.0
        for k in range(len(legs)):
            highest = max(block[k]["high"], legs[k]["mark"])
            notional += abs(legs[k]["qty"]) * highest
        if worst <= terms["maintenance"] * notional:
            return False
    if worst <= 0.0 and account["ruined_at"] == NEVER:
        return False
    return best < account["peak"] and worst / account["peak"] - 1.0 >= account["max_drawdown"]


@compiled
def waits(leg, low, high, until, terms):
    """Return whether the leg's order cannot trade within a block."""
    if leg["slot"] == IN_FLIGHT:
        return until < leg["ready_at"]
    if terms["book"] == 1 or missed_by_gap(leg, terms):
        return False
    return low > leg["limit"] if leg["remaining"] > 0.0 else high < leg["limit"]


@compiled
def is_unguarded(leg, low, high, until, has_books, terms):
    """Return whether no exit, margin call or rebalance band of a position can be met.

    Every test is the negation of the row's own test at the block's extremes; nan levels never
    trigger.
    """
    side = 1.0 if leg["qty"] > 0.0 else -1.0
    worst, best = (low, high) if side > 0.0 else (high, low)
    watched = leg["stop_loss"] == leg["stop_loss"] or leg["take_profit"] == leg["take_profit"]
    if has_books and (watched or leg["trailing_stop"] == leg["trailing_stop"]):
        return False  # bids and asks trigger there, not the mids of the block
    if (worst - leg["stop_level"]) * side <= 0.0 or (best - leg["take_level"]) * side >= 0.0:
        return False
    if leg["trailing_stop"] == leg["trailing_stop"] and (
        (best - leg["best"]) * side > 0.0 or (worst - leg["trail_level"]) * side <= 0.0
    ):
        return False
    if 0 <= terms["max_holding"] <= until - leg["entered_at"]:
        return False
    if terms["rebalance"] == terms["rebalance"]:
        return False
    equity = leg["cash"] + leg["qty"] * worst
    return terms["shared"] == 1 or equity > terms["maintenance"] * abs(leg["qty"]) * high


@compiled
def skip_block(block, until, legs, account):
    """Mark every leg at its last price of a calm block."""
    for k in range(len(legs)):
        leg = legs[k]
        if block[k]["book"] >= 0:
            leg["book"] = block[k]["book"]
        if block[k]["low"] > block[k]["high"]:
            continue
        leg["mark"] = block[k]["last"]
        if leg["qty"] != 0.0:
            leg["low"] = min(leg["low"], block[k]["low"])
            leg["high"] = max(leg["high"], block[k]["high"])
            update_best_price(leg, block[k]["ask"], block[k]["bid"])
            leg["equity"] = leg["cash"] + leg["qty"] * leg["mark"]
            account["below"] = 1
    account["equity"] = total_equity(legs, account)
    account["now"] = until


@compiled
def update_best_price(leg, low, high):
    """Follow a position's best price; where a trailing stop looks at it, none is better here."""
    if leg["qty"] > 0.0:
        if high > leg["best"]:
            leg["best"] = high
    elif low < leg["best"]:
        leg["best"] = low
