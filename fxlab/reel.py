"""The rows of a replay: what the engine reads feeds the ledger and fills the batches.

The engine merges arrays of times and prices; a batch also shows volumes, sides and sequence
numbers. Both come from the same chunk, so nothing is read twice, and no more than a chunk of each
symbol is held.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from fxlab.backtester.decimals import PRICE_TICKS
from fxlab.backtester.engine import Job
from fxlab.backtester.market import Market, Rows
from fxlab.backtester.pieces import Piece
from fxlab.backtester.stream import Chunk
from fxlab.schema import UTC_MICROS

COLUMNS: Final = {
    "timestamp": UTC_MICROS,
    "symbol": pl.String(),
    "seq": pl.Int64(),
    "price": pl.Float64(),
}
"""What the ticks of every source have, in this order; what else they have comes after."""


@dataclass(frozen=True, slots=True)
class _Stretch:
    """Merged rows, which of them are ticks (others are books), and the ticks as a frame."""

    market: Market
    rows: Rows | None  # with decisions; None where nobody trades
    ticks: np.ndarray
    frame: pl.DataFrame


class Reel:
    """A cursor over the rows of a job. What it has passed was fed to the job's ledger.

    Parameters
    ----------
    job
        A fresh job: its rows can be read once.
    totals
        How many ticks each symbol has.
    trading
        Whether the ledger replays the rows; without it they are only looked at.

    Attributes
    ----------
    ticks : int
        Ticks passed.
    passed : int
        Time of the last row passed (microseconds); before the first, a time before the range.
    prices : dict[str, float]
        Each symbol's last price passed.
    """

    def __init__(self, job: Job, totals: Mapping[str, int], *, trading: bool) -> None:
        self.job = job
        self.ticks = 0
        self.passed = job.bounds[0] - 1
        self.prices: dict[str, float] = {}
        self._left = dict(totals)
        self._ended = [symbol for symbol, count in totals.items() if not count]
        self._stretches = _stretches(job, trading=trading)
        self._stretch: _Stretch | None = None
        self._row = self._tick = 0

    def load(self) -> bool:
        """Make sure that there is a row to pass, reading on if need be; False at the end."""
        while self.next_at() is None:
            self._stretch = next(self._stretches, None)
            self._row = self._tick = 0
            if self._stretch is None:
                return False
        return True

    def next_at(self) -> int | None:
        """Return the time of the next row; None if it is not loaded."""
        if self._stretch is None or self._row == len(self._stretch.market):
            return None
        return int(self._stretch.market.time[self._row])

    def due_at(self, size: int) -> int:
        """Return the time at which the next `size` ticks, or all that are loaded, are there."""
        return int(self._loaded.market.time[self._stop(size) - 1])

    def take(self, now: int, size: int) -> pl.DataFrame:
        """Pass the rows up to a time, at most `size` ticks of them, and return the ticks."""
        due = int(np.searchsorted(self._loaded.market.time, now, side="right"))
        return self._pass(min(due, self._stop(size)))

    def skip(self, until: int, going_on: Callable[[], bool]) -> None:
        """Pass all rows before a time, at full speed; stop early where `going_on` says no."""
        while going_on() and self.load():
            before = int(np.searchsorted(self._loaded.market.time, until, side="left"))
            if before <= self._row:
                return
            self._pass(before)

    def nothing(self) -> pl.DataFrame:
        """Return no ticks, with the columns that they have here."""
        if self._stretch is None:
            return pl.DataFrame(schema=COLUMNS)
        return self._stretch.frame.clear()

    def new_ended(self) -> tuple[str, ...]:
        """Return the symbols whose last tick was passed since the last call."""
        ended, self._ended = self._ended, []
        return tuple(ended)

    def close(self) -> None:
        """Stop reading."""
        self._stretches.close()

    @property
    def _loaded(self) -> _Stretch:
        if self._stretch is None:
            raise RuntimeError("load() comes first")
        return self._stretch

    def _stop(self, size: int) -> int:
        """Return the row after the next `size` ticks, or the end of what is loaded."""
        ticks, last = self._loaded.ticks, self._tick + size - 1
        return len(self._loaded.market) if last >= len(ticks) - 1 else int(ticks[last]) + 1

    def _pass(self, stop: int) -> pl.DataFrame:
        stretch, first, tick = self._loaded, self._row, self._tick
        if stop > first:
            if stretch.rows is not None:
                self.job.ledger.replay(stretch.rows.part(first, stop))
            self.passed = int(stretch.market.time[stop - 1])
            self._row = stop
            self._tick = int(np.searchsorted(stretch.ticks, stop))
            self._note(stretch.market, stretch.ticks[tick : self._tick])
        return stretch.frame.slice(tick, self._tick - tick)

    def _note(self, market: Market, ticks: np.ndarray) -> None:
        """Remember the last price of each symbol, and who has no tick left."""
        self.ticks += len(ticks)
        legs, prices = market.leg[ticks][::-1], market.price[ticks][::-1]
        seen, last, counts = np.unique(legs, return_index=True, return_counts=True)
        for leg, at, count in zip(seen.tolist(), last.tolist(), counts.tolist(), strict=True):
            symbol = self.job.symbols[leg]
            self.prices[symbol] = float(prices[at])
            self._left[symbol] -= count
            if not self._left[symbol]:
                self._ended.append(symbol)


def _stretches(job: Job, *, trading: bool) -> Generator[_Stretch, None, None]:
    """Yield the job's market, each stretch with the frame of its ticks."""
    layout = pl.DataFrame(schema=COLUMNS)
    for chunk in job.chunks():
        frame = _merged(chunk, layout)
        layout = frame.clear()  # a column that was there once stays, null for other symbols
        rows = chunk.rows(job.signals, job.run.execution.max_leverage) if trading else None
        ticks = np.flatnonzero(np.isfinite(chunk.market.price))
        yield _Stretch(chunk.market, rows, ticks, frame)


def _merged(chunk: Chunk, layout: pl.DataFrame) -> pl.DataFrame:
    """Return the ticks of all symbols in the order of the market."""
    parts = [_named(piece) for piece in chunk.pieces]
    frame = pl.concat([layout, *parts], how="diagonal_relaxed", rechunk=True)
    places = [piece.place for piece in chunk.pieces if piece.place is not None]
    return frame[np.argsort(np.concatenate(places))] if len(parts) > 1 else frame


def _named(piece: Piece) -> pl.DataFrame:
    own = piece.own
    others = [name for name in own.columns if name not in COLUMNS and name != PRICE_TICKS]
    return own.select("timestamp", pl.lit(piece.symbol).alias("symbol"), "seq", "price", *others)
