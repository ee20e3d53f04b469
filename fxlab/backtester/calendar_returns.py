"""Returns by the calendar: months, weekdays, hours of the day.

A strategy that earns at one hour only, or lost in one month all that it had, looks like any other
in a single figure. Every period here is one that the run saw: silence is null, never zero.
"""

from __future__ import annotations

from typing import Final

import polars as pl

from fxlab.schema import UTC_MICROS

MONTHS: Final = ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")

_PERIODS: Final[dict[str, pl.DataType]] = {
    "timestamp": UTC_MICROS,
    "equity": pl.Float64(),
    "return": pl.Float64(),
}


def period_returns(equity: pl.DataFrame, every: str) -> pl.DataFrame:
    """Return the simple return of each calendar period that has a row.

    A row on a boundary closes the period before it, as the samples of a run do. A change across
    periods without rows belongs to the first period after them.

    Parameters
    ----------
    equity
        timestamp (rising), equity (money); the first row is what the first return starts from.
    every
        A Polars interval: ``"1h"``, ``"1d"``, ``"1mo"``, ``"1y"``.

    Returns
    -------
    polars.DataFrame
        ``timestamp`` (start of the period, UTC), ``equity`` (its last), ``return`` (fraction; -1
        in the period of the first row at or below zero, and null after it: all can be lost once,
        and a return on nothing does not exist).
    """
    rows = finite_equity(equity)
    if rows.height < 2:
        return pl.DataFrame(schema=_PERIODS)
    first, base = rows.row(0)
    # A row exactly on a boundary is the last of the period that it closes.
    inside = pl.max_horizontal(
        pl.col("timestamp") - pl.duration(microseconds=1), pl.lit(first, dtype=UTC_MICROS)
    )
    before = pl.col("equity").shift(1).fill_null(base)
    lowest = pl.col("lowest")
    change = (
        pl.when(lowest.shift(1).fill_null(base) <= 0)
        .then(None)
        .when(lowest <= 0)
        .then(-1.0)
        .otherwise(pl.col("equity") / before - 1)
    )
    return (
        rows.with_columns(lowest=pl.col("equity").cum_min())[1:]
        .group_by(inside.dt.truncate(every).alias("timestamp"), maintain_order=True)
        .agg(pl.col("equity", "lowest").last())
        .with_columns(change.alias("return"))
        .drop("lowest")
    )


def monthly_returns(equity: pl.DataFrame) -> pl.DataFrame:
    """Return one row a year: ``year``, ``jan`` to ``dec``, ``total`` (all fractions).

    The first and the last month are as long as the run is in them; a month without rows is null,
    and the total compounds the months that exist.

    Parameters
    ----------
    equity
        timestamp (rising), equity (money).
    """
    time = pl.col("timestamp").dt
    months = period_returns(equity, "1mo").select(
        time.year().alias("year"), time.month().alias("month"), "return"
    )
    years = period_returns(equity, "1y").select(
        time.year().alias("year"), pl.col("return").alias("total")
    )
    by_name = [
        pl.col("return").filter(pl.col("month") == number).first().alias(name)
        for number, name in enumerate(MONTHS, start=1)
    ]
    wide = months.group_by("year", maintain_order=True).agg(by_name)
    return wide.join(years, on="year", how="left", maintain_order="left")


def hourly_returns(equity: pl.DataFrame, trades: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return the profile of the hours of the day (UTC) that the run saw.

    Parameters
    ----------
    equity
        timestamp (rising), equity (money).
    trades
        entered_at, exited_at, pnl, as in `Result.trades`; closed ones count in their hour of
        entry.

    Returns
    -------
    polars.DataFrame
        ``hour`` (0 to 23), ``periods`` (how many such hours), ``mean_return``, ``sum_return``
        (simple returns of equity, fractions, not compounded), and with trades ``trades``,
        ``win_rate`` and ``pnl`` (money; both null where no trade began).
    """
    return _profile(equity, trades, "1h", pl.col("time").dt.hour().alias("hour"))


def weekday_returns(equity: pl.DataFrame, trades: pl.DataFrame | None = None) -> pl.DataFrame:
    """Return the profile of the days of the week (UTC): ``weekday`` 1 is Monday.

    Parameters and the other columns are those of `hourly_returns`.
    """
    return _profile(equity, trades, "1d", pl.col("time").dt.weekday().alias("weekday"))


def _profile(
    equity: pl.DataFrame, trades: pl.DataFrame | None, every: str, key: pl.Expr
) -> pl.DataFrame:
    """Return the returns of periods, and the trades begun in them, by a part of their time."""
    name = key.meta.output_name()
    change = pl.col("return")
    periods = period_returns(equity, every).rename({"timestamp": "time"})
    found = periods.group_by(key).agg(
        pl.len().cast(pl.Int64).alias("periods"),
        # The mean of nothing is null by itself, its sum is not.
        change.mean().alias("mean_return"),
        pl.when(change.is_not_null().any()).then(change.sum()).alias("sum_return"),
    )
    if trades is not None:
        pnl = pl.col("pnl")
        closed = trades.filter(pl.col("exited_at").is_not_null()).rename({"entered_at": "time"})
        begun = closed.group_by(key).agg(
            pl.len().cast(pl.Int64).alias("trades"),
            (pnl > 0).mean().alias("win_rate"),
            pnl.sum(),
        )
        found = found.join(begun, on=name, how="full", coalesce=True).with_columns(
            pl.col("periods", "trades").fill_null(0)
        )
    return found.sort(name)


def finite_equity(equity: pl.DataFrame) -> pl.DataFrame:
    """Return timestamp (UTC µs) and equity of the rows whose equity is a number."""
    return equity.select(
        pl.col("timestamp").cast(UTC_MICROS), pl.col("equity").cast(pl.Float64)
    ).filter(pl.col("equity").is_finite())
