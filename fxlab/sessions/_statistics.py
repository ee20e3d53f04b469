"""Statistics of a session by symbol: counts, prices, volatility, volume, books, timing, skew.

The server aggregates and sends sums, or how often each value is: a quantile of twenty million
intervals is exact from the few thousand different ones, and nothing is read row by row. Open and
close are those of the lowest and highest seq of an instant, as everywhere.

Realised volatility is the square root of the sum of squared logarithmic returns between the last
prices of one-minute intervals (the first one from the open), over the whole session, not annualised
(Andersen and Bollerslev, International Economic Review 39, 1998). Intervals without a tick have no
return; a silence is one step.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Any, Final, NamedTuple

import numpy as np
import polars as pl

from fxlab._questdb import sql
from fxlab._questdb.client import QuestDB
from fxlab._questdb.sql import Scope
from fxlab.schema import ORDERBOOK, PRICES, UTC_MICROS

_AT_A_TIME: Final = 3  # the server exports to four connections

STATISTICS: Final = {
    "symbol": pl.String(),
    "data_type": pl.String(),
    "rows": pl.Int64(),
    "books": pl.Int64(),
    "first": UTC_MICROS,
    "last": UTC_MICROS,
    "duration_seconds": pl.Float64(),
    **dict.fromkeys(
        (
            "open", "high", "low", "close", "return", "realised_volatility",
            "volume", "vwap", "buy_volume", "sell_volume", "trade_imbalance",
            "rows_per_second", "shared_timestamps",
            "interval_mean", "interval_p50", "interval_p90", "interval_p99", "interval_max",
            "mean_spread", "mean_spread_bps", "max_spread",
            "mean_bid_qty", "mean_ask_qty", "mean_depth", "book_imbalance",
            "skew_min", "skew_p50", "skew_p99", "skew_max",
        ),
        pl.Float64(),
    ),
}  # fmt: skip

WHY_NONE: Final = {
    ("open", "high", "low", "close", "return", "realised_volatility"): "no tick has a price",
    ("volume", "vwap", "buy_volume", "sell_volume", "trade_imbalance"): (
        "no trades, none with a volume, or none that tells the taker's side"
    ),
    ("rows_per_second", "interval_mean", "interval_p50", "interval_p90", "interval_p99"): (
        "all rows share one instant, or there is one"
    ),
    ("mean_spread", "mean_spread_bps", "max_spread", "mean_bid_qty", "mean_ask_qty",
     "mean_depth", "book_imbalance"): "no order books with both sides",
    ("skew_min", "skew_p50", "skew_p99", "skew_max"): "arrival times were not recorded",
}  # fmt: skip
"""Columns to the reason why a value in them may not exist."""


class Aggregates(NamedTuple):
    """What the server says of one table, by symbol."""

    scope: Scope
    core: pl.DataFrame
    steps: pl.DataFrame
    skews: pl.DataFrame
    minutes: pl.DataFrame
    opens: pl.DataFrame


def aggregates(db: QuestDB, scope: Scope) -> Aggregates:
    """Ask for everything that statistics and quality are made of; several queries at a time."""
    core = sql.trade_statistics if scope.table is PRICES else sql.book_statistics
    asked = (core, sql.intervals, sql.skews, sql.minutes, sql.opens)
    with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="fxlab-statistics") as pool:
        return Aggregates(scope, *pool.map(lambda query: db.export(query(scope)), asked))


def both_tables(db: QuestDB, scope: Scope) -> tuple[Aggregates, Aggregates]:
    """Return the aggregates of trades and of books."""
    books = replace(scope, table=ORDERBOOK)
    return aggregates(db, replace(scope, table=PRICES)), aggregates(db, books)


def table(both: tuple[Aggregates, Aggregates], decimals: Mapping[str, int]) -> pl.DataFrame:
    """Return one row a symbol, of its trades or, without them, of the mids of its books."""
    trades, books = both
    quotes = {row["symbol"]: row for row in books.core.iter_rows(named=True)}
    rows = {
        name: row | {"data_type": "orderbook", "books": quotes[name]["row_count"]}
        for name, row in _rows(books, set(quotes)).items()
    }
    for name, row in _rows(trades, set(trades.core["symbol"])).items():
        book = quotes.get(name, {})
        kept = {key: book.get(key) for key in _OF_BOOKS}
        rows[name] = row | kept | {"data_type": "prices", "books": book.get("row_count", 0)}
    ordered = [_rounded(rows[name], decimals.get(name)) for name in sorted(rows)]
    return pl.DataFrame(ordered, schema=STATISTICS)


_OF_BOOKS: Final = (
    "mean_spread", "mean_spread_bps", "max_spread", "mean_bid_qty", "mean_ask_qty", "mean_depth",
    "book_imbalance",
)  # fmt: skip


def _rounded(row: dict[str, Any], decimals: int | None) -> dict[str, Any]:
    """Return a row whose prices are the decimals they stand for: a mid of two is off by a bit."""
    prices = [name for name in ("open", "high", "low", "close") if row.get(name)]
    found = {name: round(row[name], decimals) for name in prices} if decimals is not None else {}
    row = row | found
    row["return"] = row["close"] / row["open"] - 1 if row.get("open") and row["close"] else None
    return {name: row.get(name) for name in STATISTICS}


def _rows(found: Aggregates, names: set[str]) -> dict[str, dict[str, Any]]:
    opens = dict(found.opens.iter_rows())
    steps, skews = (by_symbol(frame) for frame in (found.steps, found.skews))
    closes = by_symbol(found.minutes)
    rows = {}
    for row in found.core.iter_rows(named=True):
        name = row["symbol"]
        if name not in names:
            continue
        seconds = (row["last_time"] - row["first_time"]).total_seconds()
        first, ends = opens.get(name), closes.get(name)
        count = row["row_count"]
        rows[name] = row | {
            "rows": count,
            "first": row["first_time"],
            "last": row["last_time"],
            "duration_seconds": seconds,
            "open": first,
            "close": None if ends is None else ends["close"][-1],
            "realised_volatility": realised_volatility(first, ends),
            "trade_imbalance": _imbalance(row.get("buy_volume"), row.get("sell_volume")),
            "rows_per_second": count / seconds if seconds else None,
            **_intervals(steps[name], count),
            **_quantiles(skews.get(name), "skew", {"min": 0, "p50": 0.5, "p99": 0.99, "max": 1}),
        }
    return rows


def by_symbol(frame: pl.DataFrame) -> dict[str, pl.DataFrame]:
    """Return the rows of each symbol."""
    parts = frame.partition_by("symbol", as_dict=True)
    return {str(key[0]): part for key, part in parts.items()}


def _imbalance(buys: float | None, sells: float | None) -> float | None:
    """Return (buys - sells) / (buys + sells) of takers; None if no side is known."""
    if buys is None and sells is None:
        return None
    bought, sold = buys or 0.0, sells or 0.0
    return (bought - sold) / (bought + sold) if bought + sold else None


def realised_volatility(first: float | None, minutes: pl.DataFrame | None) -> float | None:
    """Return the root of the sum of squared log returns between the last prices of minutes."""
    if first is None or minutes is None:
        return None
    closes = minutes["close"].drop_nulls().to_numpy()
    prices = np.concatenate(([first], closes))
    if not (prices > 0).all() or len(prices) < 2:
        return None
    return math.sqrt(math.fsum(np.diff(np.log(prices)) ** 2))


def _intervals(steps: pl.DataFrame, rows: int) -> dict[str, float | None]:
    """Return mean and quantiles of the seconds between rows, and the share of rows that tie."""
    ties = steps.filter(pl.col("step") == 0)
    shared = sum(ties["row_count"]) + sum(ties["groups"])
    wanted = {"p50": 0.5, "p90": 0.9, "p99": 0.99, "max": 1}
    found = _quantiles(steps, "interval", wanted)
    total = steps.select(pl.col("step") * pl.col("row_count")).sum().item()
    mean = total / (rows - 1) / 1e6 if rows > 1 else None
    return {**found, "interval_mean": mean, "shared_timestamps": shared / rows}


def _quantiles(
    counted: pl.DataFrame | None, what: str, wanted: Mapping[str, float]
) -> dict[str, float | None]:
    """Return quantiles in seconds: the smallest value that the share of rows does not exceed."""
    names = {f"{what}_{name}": share for name, share in wanted.items()}
    if counted is None:
        return dict.fromkeys(names)
    known = counted.drop_nulls("step").sort("step")
    if known.is_empty():
        return dict.fromkeys(names)
    reached = known["row_count"].cum_sum().to_numpy()
    ranks = {name: max(math.ceil(share * reached[-1]), 1) for name, share in names.items()}
    at = {name: int(np.searchsorted(reached, rank)) for name, rank in ranks.items()}
    return {name: known["step"][row] / 1e6 for name, row in at.items()}


def missing(frame: pl.DataFrame) -> dict[str, str]:
    """Return the columns in which some symbol has no value, each with the reason."""
    empty = {name for name in frame.columns if frame[name].null_count()}
    return {name: why for names, why in WHY_NONE.items() for name in names if name in empty}
