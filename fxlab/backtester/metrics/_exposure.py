"""Exposure: when a run held a position, and how much of that fell into gaps of the recording.

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
