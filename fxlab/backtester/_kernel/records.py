"""Records that the kernel reads and writes: structured arrays of market, schedule and results.

Times are microseconds since 1970, quantities are signed base units, money is in quote currency; nan
stands for "none" wherever a number may be missing.
"""

from __future__ import annotations

from typing import Final, NamedTuple

import numpy as np

DEPTH: Final = 10

# What became of an order.
FILLED: Final = 1
REPLACED: Final = 2  # a newer decision came first
UNCHANGED: Final = 3  # the position was already as wanted
NO_EQUITY: Final = 4  # nothing left to trade with
OPEN: Final = 5  # the data ended first
PARTLY_REPLACED: Final = 6  # a part had filled when a newer decision came
FILLED_IN_PART: Final = 7  # the book held no more
STALE_BOOK: Final = 8  # no book young enough
NO_LIQUIDITY: Final = 9  # the side of the book that it needed was empty
GAP: Final = 10  # a gap of the recording lay between decision and fill
TOO_SMALL: Final = 11  # below one lot or the smallest notional
NO_MARGIN: Final = 12  # other positions use the whole buying power
COOLING_DOWN: Final = 13  # too soon after a forced exit
BAD_BOOK: Final = 14  # the last book crossed, was out of order or empty

# Why an order was made.
SIGNAL: Final = 1
STOP_LOSS: Final = 2
TAKE_PROFIT: Final = 3
TRAILING_STOP: Final = 4
MAX_HOLDING: Final = 5
LIQUIDATION: Final = 6
REBALANCE: Final = 7
END: Final = 8

# What is special about a fill (bits).
PARTIAL: Final = 1
BEYOND_DEPTH: Final = 2
ACROSS_GAP: Final = 4
CUT_BY_LEVERAGE: Final = 8

# Where an order is.
NO_ORDER: Final = 0
IN_FLIGHT: Final = 1
RESTING: Final = 2

STILL_OPEN: Final = -1  # exited_at of a position that was marked, not sold
NEVER: Final = -(2**62)
FOREVER: Final = 2**62


def _dtype(**kinds: str) -> np.dtype:
    """Return a structured dtype from ``kind="names separated by spaces"``, in this order."""
    return np.dtype([(name, kind) for kind, names in kinds.items() for name in names.split()])


DECISION: Final = np.dtype(
    [
        ("row", "i8"),  # of the chunk
        ("target", "f8"),  # share of equity
        ("stop_loss", "f8"),  # fractions of the entry price
        ("take_profit", "f8"),
        ("trailing_stop", "f8"),
        ("limit", "f8"),  # price; nan is a market order
    ]
)

BOOK: Final = np.dtype(
    [
        ("time", "i8"),
        ("bad", "i8"),  # 1: it crosses, is out of order or shows nothing, so it says nothing
        ("bid_price", "f8", (DEPTH,)),  # best first
        ("bid_qty", "f8", (DEPTH,)),
        ("ask_price", "f8", (DEPTH,)),
        ("ask_qty", "f8", (DEPTH,)),
    ]
)

# The lowest, highest and last price of one leg in one block of rows; the best that a long and a
# short could have been left at (`bid`, `ask`); and its last book.
EXTREMES: Final = _dtype(f8="low high last bid ask", i8="book")

FUNDING: Final = np.dtype(
    [("time", "i8"), ("leg", "i8"), ("rate_long", "f8"), ("rate_short", "f8")]
)
GAPS: Final = np.dtype([("to_time", "i8"), ("leg", "i8")])

LEG: Final = _dtype(
    f8=(
        # money and position
        "cash qty mark equity "
        # decisions: the latest, and that of the last completed order
        "wanted held "
        # the order: what it wants, what it has traded, its place in the queue, its exits
        "target limit remaining traded money paid_fees due_fees ahead "
        "order_stop order_take order_trail "
        # the round trip that is open: units in and out of it and the money they moved
        "bought paid sold received fees funding low high "
        # its exits, as fractions and as price levels
        "stop_loss take_profit trailing_stop stop_level take_level trail_level best "
        # what the venue asks of an order; a step of n lots or ticks is n * units / scale
        "lot_size lot_units lot_scale min_notional tick_size tick_units tick_scale "
        # fees beside those of the notional: money for an order and for a unit, least of an order
        "fee_per_order fee_per_unit min_fee"
    ),
    i8=(
        "slot reason decided_at ready_at orders_made "
        "direction entered_at armed_at changed exited_at "
        "gap_ended_at book number quotes"
    ),
)

ACCOUNT: Final = _dtype(
    f8=(
        "base equity peak max_drawdown "
        # the peak and the trough that the deepest drawdown lies between
        "high low funding "
        # a stretch of rows that has this trough, until it is looked for: what was held there
        "trough_cash trough_qty"
    ),
    i8=(
        "peak_at high_at low_at trough_from trough_until "  # the stretch: no rows, if no such
        "ruined_at "  # the first time at which equity was at or below zero, or NEVER
        "below "  # 1 while equity lies below its peak
        "under_water "  # longest time from a peak to the last row below it
        "now "
        "exposed exposed_since "  # time with a position in any leg, up to the last exit
        "edge "  # end of the running sample interval
        "alarm "  # the next time at which the clock has something to do
        "holding "  # legs with a position
        "rows next_funding next_gap next_decision"
    ),
)

TERMS: Final = _dtype(
    f8=(
        "taker maker slippage impact impact_notional rebalance max_leverage maintenance liquidation"
    ),
    i8=(
        "interval max_book_age max_holding cooldown draws "
        "book last_level touch queue shared across_gaps reenter leap"
    ),
)

ORDER: Final = _dtype(
    i8="leg status reason decided_at ready_at done_at",
    f8="target price qty fee position equity",
)

FILL: Final = _dtype(
    i8="leg reason maker flags decided_at time",
    f8="target price qty fee position equity",
)

TRADE: Final = _dtype(
    i8="leg direction reason entered_at exited_at",  # exited_at is -1 while open
    f8="qty entry_price exit_price fees funding pnl low high",
)

SAMPLE: Final = np.dtype([("time", "i8"), ("equity", "f8")])


class MarketArrays(NamedTuple):
    """A stretch of the market, all symbols merged by time: a value a row.

    What a run does not read is empty.
    """

    time: np.ndarray  # int64 µs
    leg: np.ndarray  # int16
    price: np.ndarray  # float64; nan on a row that only brings a book
    book: np.ndarray  # int64, index of the row's book in `books`, or -1
    volume: np.ndarray  # float64 base units, for places in a queue
    taker: np.ndarray  # int64, 1 where the taker bought, -1 where it sold, 0 if unknown
    delay: np.ndarray  # int64 µs, the row's own delay of orders, for measured latency
    books: np.ndarray  # `BOOK`, at least one
    extremes: np.ndarray  # `EXTREMES`, (blocks, legs); no blocks, for one leg of prices only
    ranges: np.ndarray  # int64, (2, pieces), the bits of their lowest and highest prices, for that
    starts: np.ndarray  # int64 µs, time of the first row of each piece


class Schedule(NamedTuple):
    """What time brings, and what was known before: the same for all chunks but the books."""

    delays: np.ndarray  # int64 µs, (legs, draws)
    funding: np.ndarray  # `FUNDING`, by time
    gaps: np.ndarray  # `GAPS`, by time
    held_books: np.ndarray  # `BOOK`: each leg's last book before the chunk


class Written(NamedTuple):
    """Room for what the kernel writes, and how much of each it has used."""

    orders: np.ndarray
    fills: np.ndarray
    trades: np.ndarray
    samples: np.ndarray
    used: np.ndarray  # int64, one for each of the above
