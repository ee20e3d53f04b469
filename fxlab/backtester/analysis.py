"""A run taken apart: drawdowns, returns by month and hour, streaks, and the shape of the returns.

Pure functions of the frames of a `Result`, so that they also serve saved and edited frames. They
speak of times that exist: a month without data is null, not zero, a drawdown that has not ended
has no end, and what cannot be known is null with the reason beside it.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from fxlab.backtester.calendar_returns import (
    finite_equity,
    hourly_returns,
    monthly_returns,
    period_returns,
    weekday_returns,
)
from fxlab.backtester.time_held import BlindTime, blind_time, exposure_over_time
from fxlab.errors import InvalidParameter
from fxlab.schema import UTC_MICROS

__all__ = [
    "BlindTime",
    "blind_time",
    "drawdowns",
    "exposure_over_time",
    "hourly_returns",
    "monthly_returns",
    "period_returns",
    "returns_histogram",
    "streaks",
    "weekday_returns",
]

MOST_BINS: Final = 120

_STREAKS: Final[dict[str, pl.DataType]] = {
    "kind": pl.String(),
    "trades": pl.Int64(),
    "pnl": pl.Float64(),
    "entered_at": UTC_MICROS,
    "exited_at": UTC_MICROS,
}
_DRAWDOWNS: Final[dict[str, pl.DataType]] = {
    "peak_at": UTC_MICROS,
    "trough_at": UTC_MICROS,
    "recovered_at": UTC_MICROS,
    "depth": pl.Float64(),
    "peak_equity": pl.Float64(),
    "trough_equity": pl.Float64(),
    "fall_seconds": pl.Float64(),
    "recovery_seconds": pl.Float64(),
    "duration_seconds": pl.Float64(),
    "flat_seconds": pl.Float64(),
}


def drawdowns(equity: pl.DataFrame, top: int = 10) -> pl.DataFrame:
    """Return the deepest drawdowns, deepest first.

    A drawdown begins where equity reached the peak (of equity that stood still there, at the
    first such row, as `max_drawdown_duration` counts) and ends at the first row that is back at
    it. Others begin it where equity leaves the peak: that is `duration_seconds` less
    `flat_seconds`. The rows of `Result.equity` are samples; the peak and trough of the deepest one
    are exact, so its depth is the metric `max_drawdown`; lengths are exact to two samples.

    Parameters
    ----------
    equity
        timestamp (rising), equity (money).
    top
        Rows returned at most, one or more.

    Returns
    -------
    polars.DataFrame
        ``peak_at``, ``trough_at``, ``recovered_at`` (null: not recovered), ``depth`` (fraction of
        the peak, below zero), ``peak_equity``, ``trough_equity``, ``fall_seconds`` (peak to
        trough), ``recovery_seconds`` (trough to recovery, or null), ``duration_seconds`` (peak
        to recovery; of an unrecovered one to the last row, so it is still growing) and
        ``flat_seconds`` (how long of it equity stood still at the peak).

    Raises
    ------
    InvalidParameter
        If `top` is below one.
    """
    if top < 1:
        raise InvalidParameter(f"top={top} must be one or more: how many drawdowns to return")
    rows = finite_equity(equity)
    values = rows["equity"].to_numpy()
    if not len(values):
        return pl.DataFrame(schema=_DRAWDOWNS)
    below = values < np.maximum.accumulate(values)
    starts = np.flatnonzero(below & ~np.append(False, below[:-1]))
    ends = np.flatnonzero(~below & np.append(False, below[:-1]))
    recovered = len(ends) == len(starts)
    troughs = [
        int(start) + int(values[start:end].argmin())
        for start, end in zip(starts, [*ends, *([] if recovered else [len(values)])], strict=True)
    ]
    back = [*ends.tolist(), *([] if recovered else [None])]
    moved = np.flatnonzero(np.append(True, values[1:] != values[:-1]))
    peaks = moved[np.searchsorted(moved, starts - 1, side="right") - 1]
    return _described(rows, peaks.tolist(), (starts - 1).tolist(), troughs, back).head(top)


def _described(
    rows: pl.DataFrame,
    peaks: list[int],
    leaves: list[int],
    troughs: list[int],
    back: list[int | None],
) -> pl.DataFrame:
    """Return the frame of drawdowns whose turning points are given as row numbers.

    `peaks` are the first rows at the peak, `leaves` the last ones.
    """
    times, values = rows["timestamp"], rows["equity"]
    peak, trough, recovered = (pl.col(f"{name}_at") for name in ("peak", "trough", "recovered"))
    end = recovered.fill_null(pl.lit(times[-1]))
    return (
        pl.DataFrame(
            {
                "peak_at": times.gather(peaks),
                "left_at": times.gather(leaves),
                "trough_at": times.gather(troughs),
                "recovered_at": times.gather(pl.Series(back, dtype=pl.Int64)),
                "peak_equity": values.gather(peaks),
                "trough_equity": values.gather(troughs),
            }
        )
        .with_columns(
            depth=pl.col("trough_equity") / pl.col("peak_equity") - 1,
            fall_seconds=_seconds(trough - peak),
            recovery_seconds=_seconds(recovered - trough),
            duration_seconds=_seconds(end - peak),
            flat_seconds=_seconds(pl.col("left_at") - peak),
        )
        .select(*_DRAWDOWNS)
        .cast(_DRAWDOWNS)  # type: ignore[arg-type]
        .sort("depth", maintain_order=True)
    )


def returns_histogram(returns: np.ndarray | pl.Series, bins: int | None = None) -> pl.DataFrame:
    """Return how often returns of each size came.

    Zero is the edge of two bins, so that no bar holds gains and losses. Returns of exactly zero
    (nothing held, nothing moved) belong to neither side and are left out: in most runs they would
    hide all others. Those that are not finite are left out too.

    Parameters
    ----------
    returns
        Simple returns, fractions.
    bins
        About how many bins; by default the rule of Freedman and Diaconis (1981), width
        ``2 * IQR / n ** (1/3)``, and 10 to `MOST_BINS` of them.

    Returns
    -------
    polars.DataFrame
        ``low``, ``high`` (edges, fractions), ``count``, ``share`` (of the returns counted).

    Raises
    ------
    InvalidParameter
        If `bins` is below one.
    """
    if bins is not None and bins < 1:
        raise InvalidParameter(f"bins={bins} must be one or more")
    values = np.asarray(returns, dtype=np.float64)
    values = values[np.isfinite(values) & (values != 0.0)]
    if not len(values):
        kinds = {"low": pl.Float64, "high": pl.Float64, "count": pl.Int64, "share": pl.Float64}
        return pl.DataFrame(schema=kinds)
    edges = _edges(values, bins)
    counts, _ = np.histogram(values, edges)
    return pl.DataFrame(
        {"low": edges[:-1], "high": edges[1:], "count": counts, "share": counts / len(values)}
    )


def _edges(values: np.ndarray, bins: int | None) -> np.ndarray:
    """Return equal bins whose edges are whole multiples of their width."""
    low, high = min(float(values.min()), 0.0), max(float(values.max()), 0.0)
    if bins is None:
        first, third = np.quantile(values, [0.25, 0.75])
        wanted = 2 * float(third - first) / len(values) ** (1 / 3)
        bins = round((high - low) / wanted) if wanted > 0 else 10
        bins = min(max(bins, 10), MOST_BINS)
    width = (high - low) / bins
    numbers = np.arange(np.floor(low / width), np.ceil(high / width) + 1)
    edges: np.ndarray = numbers * width
    # Rounding may leave an extreme a last bit outside its bin.
    edges[0], edges[-1] = min(edges[0], low), max(edges[-1], high)
    return edges


def streaks(trades: pl.DataFrame) -> pl.DataFrame:
    """Return the longest run of winning and of losing trades.

    Trades count in the order of their exits, over all symbols; one that earned nothing ends both
    kinds of run. Of runs of equal length the first is taken.

    Parameters
    ----------
    trades
        entered_at, exited_at, pnl, as in `Result.trades`; open ones do not count.

    Returns
    -------
    polars.DataFrame
        ``kind`` (win, loss), ``trades`` (how many in a row), ``pnl`` (their sum, money),
        ``entered_at`` of the first, ``exited_at`` of the last. A kind that never came has no row.
    """
    closed = trades.filter(pl.col("exited_at").is_not_null()).sort("exited_at", maintain_order=True)
    sign = pl.col("pnl").sign()
    runs = (
        closed.group_by(sign.rle_id().alias("run"), maintain_order=True)
        .agg(
            sign.first().alias("sign"),
            pl.len().cast(pl.Int64).alias("trades"),
            pl.col("pnl").sum(),
            pl.col("entered_at").first(),
            pl.col("exited_at").last(),
        )
        .filter(pl.col("sign") != 0)
        .with_columns(
            pl.when(pl.col("sign") > 0).then(pl.lit("win")).otherwise(pl.lit("loss")).alias("kind")
        )
    )
    longest = runs.sort("trades", descending=True, maintain_order=True).unique(
        "kind", keep="first", maintain_order=True
    )
    return longest.sort("kind", descending=True).select(
        pl.col(name).cast(kind) for name, kind in _STREAKS.items()
    )


def _seconds(length: pl.Expr) -> pl.Expr:
    return length.dt.total_microseconds() / 1e6
