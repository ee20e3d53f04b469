"""Analysis of a run: drawdown periods, calendar returns, streaks, returns' distribution, exposure.

Pure functions of the frames of a `Result`, so that they also serve saved and edited frames. A
strategy that earns at one hour only, or lost in one month all that it had, looks like any other in
a single figure. Every period here is one that the run saw: a month without data is null, not zero,
a drawdown that has not ended has no end, and what cannot be known is null with the reason beside
it.

A backtest replays what was recorded. Where the recorder was down, prices moved unseen: a position
held through such a gap is marked with prices that were not there. How much of a run that concerns
is part of judging it.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from datetime import datetime
from typing import Final

import numpy as np
import polars as pl

from fxlab._ticks import Micros, Spans
from fxlab._times import Duration, parse_duration, to_micros
from fxlab.errors import InvalidParameter
from fxlab.schema import UTC_MICROS

MOST_BINS: Final = 120

_STREAKS: Final[dict[str, pl.DataType]] = {
    "kind": pl.String(),
    "trades": pl.Int64(),
    "pnl": pl.Float64(),
    "entered_at": UTC_MICROS,
    "exited_at": UTC_MICROS,
}
_DRAWDOWNS: Final[dict[str, pl.DataType]] = {
    **dict.fromkeys(("peak_at", "trough_at", "recovered_at"), UTC_MICROS),
    **dict.fromkeys(("depth", "peak_equity", "trough_equity"), pl.Float64()),
    **dict.fromkeys(
        (f"{span}_seconds" for span in ("fall", "recovery", "duration", "flat")), pl.Float64()
    ),
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


MOST_INTERVALS: Final = 1_000_000
NO_EVENTS: Final = "these ticks came without an event table: their gaps are not known"
NO_TIME: Final = "no time passed"
NOTHING_HELD: Final = "no position was held"
_NOTHING: Final = np.empty(0, dtype=np.int64)


@dataclass(frozen=True, slots=True)
class GapExposure:
    """How much of a run lies in the gaps of the recording.

    Attributes
    ----------
    seconds, share : float
        Time of the run in which at least one symbol was not recorded, and its share of the run.
    held_seconds, held_share : float
        Time with a position in a symbol that was not recorded, and its share of all time with a
        position.
    trades : polars.DataFrame
        The round trips that were open in a gap: symbol, direction, entered_at, exited_at, pnl
        where given, blind_seconds.
    note : str
        Why a number is nan; empty where all exist.
    """

    seconds: float
    share: float
    held_seconds: float
    held_share: float
    trades: pl.DataFrame
    note: str


def exposure_over_time(
    trades: pl.DataFrame,
    grid: Duration,
    first: datetime | None = None,
    last: datetime | None = None,
) -> pl.DataFrame:
    """Return the share of each interval of time in which positions were held.

    Parameters
    ----------
    trades
        direction (long, short), entered_at, exited_at (null: still open), any symbols.
    grid
        Length of an interval, on the wall clock: ``"1m"``, ``"1h"``.
    first, last
        The run's first and last tick; unless given, the first entry and the last exit.

    Returns
    -------
    polars.DataFrame
        ``timestamp`` (start of the interval), ``long``, ``short``, ``exposed`` (share, 0 to 1, of
        the interval's part inside the run with such a position in any symbol).

    Raises
    ------
    InvalidParameter
        If the grid is zero or too fine, or trades are still open and `last` is not given.
    """
    step = parse_duration(grid, "grid")
    begin, end = _bounds(trades, first, last)
    if begin is None or end is None or end <= begin:
        kinds = dict.fromkeys(("long", "short", "exposed"), pl.Float64())
        return pl.DataFrame(schema={"timestamp": UTC_MICROS, **kinds})
    if step == 0 or (end - begin) // step > MOST_INTERVALS:
        raise InvalidParameter(
            f"grid={grid!r} cuts {(end - begin) / 1e6:,.0f} s into more than {MOST_INTERVALS:,} "
            "intervals; give a longer one"
        )
    edges = np.arange(begin // step * step, end + step, step)
    edges = edges[: np.searchsorted(edges, end) + 1]
    starts, ends = np.maximum(edges[:-1], begin), np.minimum(edges[1:], end)
    shares = {
        name: _positions(chosen, end).inside(starts, ends) / (ends - starts)
        for name, chosen in (
            ("long", trades.filter(pl.col("direction") == "long")),
            ("short", trades.filter(pl.col("direction") == "short")),
            ("exposed", trades),
        )
    }
    return pl.DataFrame({"timestamp": pl.Series(edges[:-1]).cast(UTC_MICROS), **shares})


def gap_exposure(
    trades: pl.DataFrame,
    gaps: pl.DataFrame | None,
    first: datetime,
    last: datetime,
    symbols: tuple[str, ...] | None = None,
) -> GapExposure:
    """Return how much of a run, and of its time in a position, lies in gaps of the recording.

    Parameters
    ----------
    trades
        symbol, direction, entered_at, exited_at (null: still open at `last`), and pnl if wanted.
    gaps
        from_time, to_time, and symbol (null: of every symbol) where the gaps are of single ones.
        None where gaps were not recorded, which is not the same as none found.
    first, last
        The run's first and last tick; gaps count inside them only.
    symbols
        What the run replayed: gaps of other symbols are left out. All gaps count unless given.
    """
    if gaps is None:
        nothing = np.zeros(trades.height, dtype=np.int64)
        unknown = math.nan
        return GapExposure(unknown, unknown, unknown, unknown, _touched(trades, nothing), NO_EVENTS)
    begin, end = to_micros(first), to_micros(last)
    run, held = end - begin, _positions(trades, end).total
    unseen = np.zeros(trades.height, dtype=np.int64)
    unseen_held = Spans(_NOTHING, _NOTHING)
    for symbol in trades["symbol"].unique(maintain_order=True):
        own = (trades["symbol"] == symbol).to_numpy()
        entered, exited = _ends(trades.filter(own), end)
        spans = _gap_spans(gaps, (symbol,)).within(begin, end)
        unseen[own] = spans.inside(entered, exited)
        unseen_held = unseen_held.union(spans.overlap(Spans.of(entered, exited)))
    missed = gap_micros(gaps, begin, end, symbols)
    return GapExposure(
        seconds=missed / 1e6,
        share=missed / run if run else math.nan,
        held_seconds=unseen_held.total / 1e6,
        held_share=unseen_held.total / held if held else math.nan,
        trades=_touched(trades, unseen),
        note=NO_TIME if not run else NOTHING_HELD if not held else "",
    )


def gap_micros(
    gaps: pl.DataFrame, first: int, last: int, symbols: tuple[str, ...] | None = None
) -> int:
    """Return the time between two ticks that lies in gaps, in µs; see `gap_exposure`.

    Parameters
    ----------
    gaps, symbols
        As `gap_exposure` takes them.
    first, last
        The run's first and last tick, µs since 1970.
    """
    return _gap_spans(gaps, symbols).within(first, last).total


def _gap_spans(gaps: pl.DataFrame, symbols: tuple[str, ...] | None) -> Spans:
    """Return the gaps of some symbols; a gap of no symbol is one of all."""
    if symbols is not None and "symbol" in gaps.columns:
        gaps = gaps.filter(pl.col("symbol").is_null() | pl.col("symbol").is_in(symbols))
    known = gaps.select("from_time", "to_time").drop_nulls()
    return Spans.of(_micros(known["from_time"]), _micros(known["to_time"]))


def _positions(trades: pl.DataFrame, last: int) -> Spans:
    """Return when any of the trades was open."""
    return Spans.of(*_ends(trades, last))


def _ends(trades: pl.DataFrame, last: int) -> tuple[Micros, Micros]:
    """Return entry and exit of each trade; one that is still open ends at `last`."""
    until = pl.lit(last, dtype=pl.Int64).cast(UTC_MICROS)
    exited = trades.select(pl.col("exited_at").cast(UTC_MICROS).fill_null(until)).to_series()
    return _micros(trades["entered_at"]), _micros(exited)


def _micros(times: pl.Series) -> Micros:
    return times.cast(UTC_MICROS).to_physical().to_numpy()


def _touched(trades: pl.DataFrame, unseen: Micros) -> pl.DataFrame:
    """Return the trades that were open in a gap, and for how long."""
    kept = ("symbol", "direction", "entered_at", "exited_at", "pnl")
    return (
        trades.select(name for name in kept if name in trades.columns)
        .with_columns(blind_seconds=pl.Series(unseen, dtype=pl.Int64) / 1e6)
        .filter(pl.col("blind_seconds") > 0)
    )


def _bounds(
    trades: pl.DataFrame, first: datetime | None, last: datetime | None
) -> tuple[int | None, int | None]:
    """Return the run's first and last time in µs; None where they are not known."""
    if last is None and trades["exited_at"].null_count():
        raise InvalidParameter(
            "a trade is still open: give last=, the time of the run's last tick, where it ends"
        )
    begin = first or trades["entered_at"].min()
    end = last or trades["exited_at"].max()
    return (
        to_micros(begin) if isinstance(begin, datetime) else None,
        to_micros(end) if isinstance(end, datetime) else None,
    )
