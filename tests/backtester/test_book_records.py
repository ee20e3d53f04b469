"""Order book frames as records: a missing level is nan, never a price of zero."""

from __future__ import annotations

import numpy as np
import polars as pl

from fxlab.backtester._feeds import book_records
from fxlab.backtester._kernel.records import BOOK, DEPTH
from fxlab.schema import book_levels

TIMES = pl.Series("timestamp", [5, 7]).cast(pl.Datetime("us", "UTC"))


def test_every_level_stands_in_its_place():
    values = {name: [float(n), n + 0.5] for n, name in enumerate(book_levels())}
    found = book_records(
        pl.DataFrame([TIMES]).with_columns(**{k: pl.Series(v) for k, v in values.items()})
    )
    assert found["time"].tolist() == [5, 7]
    for side in ("bid", "ask"):
        for kind in ("price", "qty"):
            for level in range(DEPTH):
                expected = values[f"{side}_{kind}_{level + 1}"]
                assert found[f"{side}_{kind}"][:, level].tolist() == expected


def test_levels_that_are_not_there_are_nan():
    frame = pl.DataFrame([TIMES]).with_columns(
        bid_price_1=pl.Series([9.0, None]),
        bid_qty_1=pl.Series([3, None], dtype=pl.Int64),
        ask_price_1=pl.Series([10.0, 11.0], dtype=pl.Float32),
    )
    found = book_records(frame)
    assert found["bid_price"][0, 0] == 9.0
    assert found["bid_qty"][0, 0] == 3.0
    assert np.isnan(found["bid_price"][1, 0])
    assert np.isnan(found["bid_qty"][1, 0])
    assert found["ask_price"][:, 0].tolist() == [10.0, 11.0]
    assert np.isnan(found["ask_qty"]).all()
    assert np.isnan(found["bid_price"][:, 1:]).all()


def test_no_frame_is_no_records():
    assert book_records(None).dtype == BOOK
    assert len(book_records(None)) == 0
    assert len(book_records(pl.DataFrame([TIMES]).head(0))) == 0
