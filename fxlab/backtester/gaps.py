"""Known holes of a recording: what the gap ledger says, as intervals that do not overlap."""

from __future__ import annotations

from typing import Final

import polars as pl

from fxlab.schema import UTC_MICROS

GAPS: Final = {"from_time": UTC_MICROS, "to_time": UTC_MICROS}


def merged(frame: pl.DataFrame) -> pl.DataFrame:
    """Return the intervals of a frame with ``from_time`` and ``to_time``, joined and in order.

    Intervals that touch or overlap become one; empty ones (to before from) stay points in time.
    """
    start, end = pl.col("from_time"), pl.col("to_time")
    ordered = (
        frame.select(start.cast(UTC_MICROS), end.fill_null(start).cast(UTC_MICROS))
        .drop_nulls()
        .with_columns(to_time=pl.max_horizontal(start, end))
        .sort("from_time", "to_time")
    )
    apart = start > end.cum_max().shift(1)
    return (
        ordered.with_columns(number=apart.fill_null(value=True).cum_sum())
        .group_by("number", maintain_order=True)
        .agg(start.first(), end.max())
        .select(*GAPS)
    )
