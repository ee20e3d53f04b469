"""The records that the kernel reads and writes: plain structured arrays.

Times are microseconds since 1970, quantities are signed base units, money is in quote currency.
"""

from __future__ import annotations

from typing import Final

import numpy as np

# What became of an order.
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
        ("below", "i8"),  # 1 while equity lies below its peak
        ("under_water", "i8"),  # longest time from a peak to the last row below it
        ("now", "i8"),
        ("exposed", "i8"),  # time with a position in any leg, up to the last exit
        ("exposed_since", "i8"),
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
