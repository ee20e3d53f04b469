"""Import ticks of your own: any frame with a time, an id, a price and a quantity."""

from datetime import UTC, datetime, timedelta

import polars as pl

import fxlab

start = datetime(2025, 1, 6, 9, tzinfo=UTC)
ticks = pl.DataFrame(
    {
        "timestamp": [start + timedelta(milliseconds=250 * k) for k in range(2_000)],
        "symbol": "EUR_USD",
        "trade_id": range(2_000),
        "price": [round(1.1 + (k % 97) * 1e-5, 5) for k in range(2_000)],
        "qty": 1.0,
    }
)
lab = fxlab.connect()
print(lab.import_frames({"prices": ticks}, session_id="example_eur_usd", tags=["example"]))
print(lab.session("example_eur_usd").counts())
