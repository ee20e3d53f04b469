"""Statuses of recordings for the tests of what people see of them."""

from __future__ import annotations

from dataclasses import replace

from fxlab.collect.feed import Event
from fxlab.collect.status import CollectorStatus, SymbolStatus

BUSY = SymbolStatus(
    "BTC_USDT",
    trades=123_456,
    books=900,
    trades_per_second=50.04,
    books_per_second=8.0,
    trades_age=0.21,
    books_age=35.0,
    last_price=61_837.6,
    bid=61_837.5,
    ask=61_837.61,
    price_decimals=2,
    lag_ms=10.174,
    gaps=1,
    missing=2,
    backfilled=3,
    doubles=4,
    gaps_resynced=5,
)
SILENT = SymbolStatus("ETH_USDT")
GAP = Event("gap", "BTC_USDT", 1_700_000_000_000_000, 3, "prices")


def status(state="collecting", **changes):
    """Return the status of a recording of two symbols, one of which is silent."""
    made = CollectorStatus(
        session_id="live_20261123_042944_ed427236",
        exchange="binance",
        state=state,
        elapsed=65.9,
        duration=None,
        symbols=(BUSY, SILENT),
        waiting_rows=1_234,
        waiting_bytes=560_000,
        journal_limit=2_000_000_000,
        errors=0,
        skew_ms=0.64,
        message="",
    )
    return replace(made, **changes)
