"""Compiled: lowest, highest and last price of each block of rows, found once for all runs."""

from __future__ import annotations

from typing import Final

import numpy as np

from fxlab.backtester.compiled import compiled

BLOCK: Final = 64
"""Rows that are leapt over at once, if they can change nothing."""


@compiled
def find_price_extremes(price, out):
    """Write the `EXTREMES` of each block of one leg that has prices only."""
    for b in range(len(out)):
        first, end = b * BLOCK, min((b + 1) * BLOCK, len(price))
        # Two of each: a comparison need not wait for the one before it.
        low, high, lower, higher = np.inf, -np.inf, np.inf, -np.inf
        i = first
        while i + 1 < end:
            one, two = price[i], price[i + 1]
            low = one if one < low else low
            high = one if one > high else high
            lower = two if two < lower else lower
            higher = two if two > higher else higher
            i += 2
        if i < end:
            low, high = min(low, price[i]), max(high, price[i])
        found = out[b, 0]
        found["low"] = found["ask"] = min(low, lower)
        found["high"] = found["bid"] = max(high, higher)
        found["last"] = price[end - 1]
        found["book"] = -1


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
