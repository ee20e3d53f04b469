"""Order book frames as the records that the kernel walks."""

from __future__ import annotations

import numpy as np
import polars as pl

from fxlab.backtester.quotes import usable
from fxlab.backtester.records import BOOK, DEPTH


def book_records(frame: pl.DataFrame | None) -> np.ndarray:
    """Return a `BOOK` record a row; levels that the frame does not have are nan."""
    if frame is None:
        return np.empty(0, BOOK)
    found = np.empty(frame.height, BOOK)
    found["bad"] = ~frame.select(usable(frame.columns)).to_series().to_numpy()
    found["time"] = frame["timestamp"].to_physical().to_numpy()
    for side in ("bid", "ask"):
        for kind in ("price", "qty"):
            for level in range(DEPTH):
                name = f"{side}_{kind}_{level + 1}"
                column = found[f"{side}_{kind}"]
                if name in frame.columns:
                    values = frame[name].cast(pl.Float64).fill_null(np.nan)
                    column[:, level] = values.to_numpy()
                else:
                    column[:, level] = np.nan
    return found
