"""What a session holds in figures: one row a symbol, computed by the server."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

import polars as pl

from fxlab import readers
from fxlab.questdb import sql
from fxlab.questdb.client import QuestDB
from fxlab.questdb.sql import Scope
from fxlab.schema import ORDERBOOK, PRICES, UTC_MICROS

COUNTS: Final = {"symbol": pl.String(), "data_type": pl.String(), "rows": pl.Int64()}

AT_ONCE: Final = 1_000
"""Instants in one query."""

STATISTICS: Final = {
    "symbol": pl.String(),
    "data_type": pl.String(),
    "rows": pl.Int64(),
    "first": UTC_MICROS,
    "last": UTC_MICROS,
    "duration_seconds": pl.Float64(),
    "min_price": pl.Float64(),
    "max_price": pl.Float64(),
    "last_price": pl.Float64(),
    "volume": pl.Float64(),
    "vwap": pl.Float64(),
    "rows_per_second": pl.Float64(),
    "shared_timestamps": pl.Float64(),
    "mean_spread": pl.Float64(),
}


def counts(
    db: QuestDB, session_id: str, start: int | None = None, end: int | None = None
) -> pl.DataFrame:
    """Return the number of rows of each (symbol, data type), counted in the tick tables.

    Parameters
    ----------
    db, session_id
        Where the rows are, and which.
    start, end
        Half-open range of microseconds that holds them all; see `fxlab.catalogue.tick_range`.

    Returns
    -------
    polars.DataFrame
        ``symbol``, ``data_type`` ("prices" or "orderbook"), ``rows``.
    """
    found: Counter[tuple[str, str]] = Counter()
    for data_type, table in (("prices", PRICES), ("orderbook", ORDERBOOK)):
        for piece in readers.by_year(Scope(table, session_id, None, start, end)):
            for symbol, rows in db.execute(sql.count_by_symbol(piece)):
                found[symbol, data_type] += rows
    return pl.DataFrame(
        sorted((*key, rows) for key, rows in found.items()), schema=COUNTS, orient="row"
    )


def statistics(
    db: QuestDB, session_id: str, start: int | None = None, end: int | None = None
) -> pl.DataFrame:
    """Return one row a symbol; parameters as in `counts`.

    Returns
    -------
    polars.DataFrame
        ``symbol``; ``data_type``: "prices" where there are trades, else "orderbook", whose price
        is the mid; ``rows``, ``first``, ``last``, ``duration_seconds``, ``min_price``,
        ``max_price``, ``last_price`` (of the last row by time and seq); ``volume`` and ``vwap``
        (null without trades); ``rows_per_second`` (null if all rows share one instant);
        ``shared_timestamps``: share of rows whose timestamp another row of the symbol has too;
        ``mean_spread``: over the books, null without.
    """
    whole = Scope(PRICES, session_id, None, start, end)
    trades = _kind(db, whole, "prices", sql.trade_statistics)
    books = _kind(db, replace(whole, table=ORDERBOOK), "orderbook", sql.book_statistics)
    spreads = books.select("symbol", "mean_spread")
    with_spread = trades.drop("mean_spread").join(spreads, on="symbol", how="left")
    only_books = books.join(trades, on="symbol", how="anti")
    return pl.concat([with_spread.select(STATISTICS.keys()), only_books]).sort("symbol")


def _kind(db: QuestDB, scope: Scope, data_type: str, query: Callable[[Scope], str]) -> pl.DataFrame:
    """Return the statistics of all symbols over one table."""
    shared = dict(db.catalogue(sql.shared_timestamps(scope)).iter_rows())
    found = db.catalogue(query(scope))
    prices = _last_prices(db, scope, found)
    rows = [
        _row(data_type, row, shared.get(row["symbol"], 0), prices[row["symbol"]])
        for row in found.iter_rows(named=True)
    ]
    return pl.DataFrame(rows, schema=STATISTICS)


def _row(
    data_type: str, found: Mapping[str, Any], shared: int, last_price: float | None
) -> dict[str, Any]:
    first, last, rows = found["first_time"], found["last_time"], found["row_count"]
    seconds = (last - first).total_seconds()
    kept = ("symbol", "min_price", "max_price", "volume", "vwap", "mean_spread")
    return {
        **{name: found.get(name) for name in kept},
        "data_type": data_type,
        "rows": rows,
        "first": first,
        "last": last,
        "duration_seconds": seconds,
        "last_price": last_price,
        "rows_per_second": rows / seconds if seconds else None,
        "shared_timestamps": shared / rows,
    }


def _last_prices(db: QuestDB, scope: Scope, found: pl.DataFrame) -> dict[str, float | None]:
    """Return the price of each symbol's last row by (timestamp, seq); of books the mid."""
    lasts = found.select("symbol", pl.col("last_time").alias("timestamp"))
    times = lasts["timestamp"].to_physical().unique().to_list()
    names = ["price"] if scope.table is PRICES else ["bid_price_1", "ask_price_1"]
    prices: dict[str, float | None] = {}
    for number in range(0, len(times), AT_ONCE):
        at = tuple(times[number : number + AT_ONCE])
        rows = db.catalogue(sql.rows(replace(scope, at=at), ["symbol", "timestamp", *names]))
        mids = rows.with_columns(price=pl.mean_horizontal(names, ignore_nulls=False))
        own = mids.join(lasts, on=["symbol", "timestamp"], how="semi", maintain_order="left")
        prices |= dict(own.select("symbol", "price").iter_rows())
    return prices
