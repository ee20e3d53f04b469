"""Bars of ticks for strategies: what is known when an interval has ended.

`fxlab.bars` makes candles for people, chunk by chunk. These here are for decisions: their prices
are also there as whole ticks, they know the rows they were made of, and their sums run in the
order of the rows, so that no number of threads can change a bit.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from functools import cached_property
from typing import Final

import numpy as np
import polars as pl

from fxlab.schema import UTC_MICROS

PRICES: Final = ("open", "high", "low", "close")
SUMS: Final = ("volume", "quote_volume", "vwap")
SCHEMA: Final[dict[str, pl.DataType]] = {
    "timestamp": UTC_MICROS,
    **dict.fromkeys(PRICES, pl.Float64()),
    **dict.fromkeys((f"{name}_ticks" for name in PRICES), pl.Int64()),
    **dict.fromkeys(SUMS, pl.Float64()),
    "trades": pl.Int64(),
}
"""Columns of bars; the ticks' other columns have their last value in the bar."""


@dataclass(frozen=True)
class Bars:
    """The intervals of a frame of ticks that have any tick.

    Parameters
    ----------
    frame
        Ticks with ``timestamp`` (UTC µs) and ``price``, ordered by (timestamp, seq).
    every
        Length of an interval in microseconds; intervals start at its whole multiples since 1970.
    """

    frame: pl.DataFrame
    every: int

    @cached_property
    def first_rows(self) -> np.ndarray:
        """Return the row of each bar's first tick."""
        from fxlab.backtester.columns_kernel import bar_starts

        time = self._values("timestamp")
        starts = np.empty(len(time), np.int64)
        return starts[: bar_starts(time, self.every, starts)]

    @property
    def height(self) -> int:
        """Return the number of bars, the unfinished last one included."""
        return len(self.first_rows)

    @property
    def sizes(self) -> np.ndarray:
        """Return the number of ticks in each bar."""
        return np.diff(self.first_rows, append=self.frame.height)[: self.height]

    @property
    def last_rows(self) -> np.ndarray:
        """Return the row of each bar's last tick."""
        rows: np.ndarray = self.first_rows + self.sizes - 1
        return rows

    @property
    def bar_of_rows(self) -> np.ndarray:
        """Return for each tick the number of its bar."""
        return np.repeat(np.arange(self.height), self.sizes)

    @property
    def names(self) -> list[str]:
        """Return the columns that there are."""
        there = self.frame.columns
        found = [name for name in SCHEMA if _SOURCES.get(name, "timestamp") in there]
        return [*found, *(name for name in there if name not in {*SCHEMA, *_TICK_ONLY})]

    def table(self, names: Collection[str] | None = None) -> pl.DataFrame:
        """Return one row a bar, with the columns asked for that there are; None is all.

        ``timestamp`` is the interval's start. ``volume``, ``quote_volume`` and ``vwap`` are null
        where no tick has a volume; there is no ``open_ticks`` .. ``close_ticks`` where prices lie
        on no decimal grid.
        """
        wanted = [name for name in self.names if names is None or name in names]
        return pl.DataFrame(
            {name: self._column(name) for name in dict.fromkeys(("timestamp", *wanted))}
        )

    def _column(self, name: str) -> pl.Series:
        if name == "timestamp":
            time = self._values(name)[self.first_rows]
            return pl.Series(name, time // self.every * self.every).cast(SCHEMA[name])
        if name == "trades":
            return pl.Series(name, self.sizes)
        if name in SUMS:
            return pl.Series(name, self._sums(name)).fill_nan(None)
        source = _SOURCES.get(name)
        if source is None:
            return self.frame[name].gather(self.last_rows)
        return pl.Series(name, self._price(name.removesuffix("_ticks"), self._values(source)))

    def _price(self, name: str, values: np.ndarray) -> np.ndarray:
        found: np.ndarray
        if name in ("open", "close"):
            found = values[self.first_rows if name == "open" else self.last_rows]
        else:
            extreme = np.maximum if name == "high" else np.minimum
            found = extreme.reduceat(values, self.first_rows)
        return found

    def _sums(self, name: str) -> np.ndarray:
        if name != "vwap":
            return self._total(name, None)
        volume = self._total("volume", None)
        average = np.full(self.height, np.nan)
        np.divide(self._total("volume", "price"), volume, out=average, where=volume > 0)
        return average

    def _total(self, name: str, weights: str | None) -> np.ndarray:
        from fxlab.backtester.columns_kernel import sums

        values = self._values(name)
        factors = np.ones(1) if weights is None else self._values(weights)
        totals = np.empty(self.height)
        sums(values, np.broadcast_to(factors, len(values)), self.first_rows, totals)
        return totals

    def _values(self, name: str) -> np.ndarray:
        column = self.frame[name]
        return (column.cast(pl.Float64) if name in SUMS else column.to_physical()).to_numpy()


_SOURCES: Final = {
    **dict.fromkeys(PRICES, "price"),
    **dict.fromkeys((f"{name}_ticks" for name in PRICES), "price_ticks"),
    "volume": "volume",
    "quote_volume": "quote_volume",
    "vwap": "volume",
}
"""The column of the ticks that a bar's column is made of."""

_TICK_ONLY: Final = ("price", "price_ticks")


def sources_of(names: Collection[str]) -> list[str]:
    """Return the columns of ticks that columns of bars are made of, to make a struct of."""
    own = {_SOURCES.get(name, name) for name in names} - {"trades"}
    price = {"price"} if {"vwap"} & set(names) else set()
    return sorted({"timestamp"} | own | price)
