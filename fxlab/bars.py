"""Candles of ticks, exact at their edges.

QuestDB's SAMPLE BY would be shorter, but it promises no order inside one timestamp, and most real
trades share theirs: `first(price)` could then differ from one run to the next. Here the ticks come
in (timestamp, seq) order, so open and close are the first and the last trade, always.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

import polars as pl

from fxlab.errors import InvalidParameter, did_you_mean
from fxlab.schema import UTC_MICROS

INTERVALS: Final = (
    "1s", "5s", "10s", "15s", "30s",
    "1m", "3m", "5m", "15m", "30m",
    "1h", "2h", "4h", "6h", "8h", "12h", "1d",
)  # fmt: skip

SCHEMA: Final = {
    "timestamp": UTC_MICROS,
    "open": pl.Float64(),
    "high": pl.Float64(),
    "low": pl.Float64(),
    "close": pl.Float64(),
    "volume": pl.Float64(),
    "quote_volume": pl.Float64(),
    "trades": pl.Int64(),
}


def check_interval(interval: str) -> str:
    """Return a known interval, or say which ones there are."""
    if interval not in INTERVALS:
        hint = did_you_mean(str(interval), INTERVALS)
        raise InvalidParameter(
            f"{interval!r:.80} is not an interval of bars; "
            + (f"{hint}; " if hint else "")
            + f"choose one of: {', '.join(INTERVALS)}"
        )
    return interval


def bars(chunks: Iterable[pl.DataFrame], interval: str) -> pl.DataFrame:
    """Return bars of ticks that come in chunks.

    Parameters
    ----------
    chunks
        Frames with ``timestamp``, ``price`` and, for trades, ``volume`` and ``quote_volume``,
        ordered by (timestamp, seq) within and across the frames.
    interval
        One of `INTERVALS`; bars start at whole multiples of it, UTC.

    Returns
    -------
    polars.DataFrame
        One row for each interval that has ticks: ``timestamp`` (its start), ``open``, ``high``,
        ``low``, ``close``, ``volume``, ``quote_volume`` (null where the ticks have none),
        ``trades`` (number of ticks).
    """
    parts = [_partial(chunk, interval) for chunk in chunks]
    # A bar that lies in two chunks is there twice; the parts are in order, so it merges exactly.
    return _merged(pl.concat([pl.DataFrame(schema=SCHEMA), *parts]))


def _partial(chunk: pl.DataFrame, interval: str) -> pl.DataFrame:
    price = pl.col("price")
    sums = [
        _sum(name) if name in chunk.columns else pl.lit(None, dtype=pl.Float64).alias(name)
        for name in ("volume", "quote_volume")
    ]
    return (
        chunk.group_by(pl.col("timestamp").dt.truncate(interval), maintain_order=True)
        .agg(
            price.first().alias("open"),
            price.max().alias("high"),
            price.min().alias("low"),
            price.last().alias("close"),
            *sums,
            pl.len().cast(pl.Int64).alias("trades"),
        )
        .select(*SCHEMA)
    )


def _merged(parts: pl.DataFrame) -> pl.DataFrame:
    return parts.group_by("timestamp", maintain_order=True).agg(
        pl.col("open").first(),
        pl.col("high").max(),
        pl.col("low").min(),
        pl.col("close").last(),
        _sum("volume"),
        _sum("quote_volume"),
        pl.col("trades").sum(),
    )


def _sum(name: str) -> pl.Expr:
    """Return the sum of what is known, or null where nothing is."""
    column = pl.col(name)
    return pl.when(column.count() > 0).then(column.sum()).alias(name)
