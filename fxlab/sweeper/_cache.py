"""Cache of a session's ticks in memory: read once, as far as it fits.

A sweep goes over its ticks several times: for the look-ahead check, for each group of points, for
each fold of a walk-forward. What is not larger than `KEEP_BYTES` is read from the database once and
kept; more is streamed again each time.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from itertools import chain
from typing import Any, Final, Unpack

import polars as pl

from fxlab._times import Time, parse_range
from fxlab.backtester._frame_source import slices
from fxlab.backtester._source import TickSource, Which

KEEP_BYTES: Final = 1 << 30

Scan = Callable[..., Iterator[pl.DataFrame]]


class CachedSource:
    """A `TickSource` in front of another one.

    Parameters
    ----------
    source
        A session.
    """

    def __init__(self, source: TickSource) -> None:
        self.source = source
        self._kept: dict[tuple[Any, ...], list[pl.DataFrame]] = {}
        self._facts: dict[tuple[str, str], Any] = {}

    @property
    def id(self) -> str:
        """Return the id of the source."""
        return self.source.id

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the symbols that have ticks."""
        return self.source.symbols

    @property
    def price_decimals(self) -> Mapping[str, int]:
        """Return the decimals of each symbol's prices."""
        return self.source.price_decimals

    @property
    def started(self) -> object:
        """Return the time of the first tick."""
        return self.source.started

    @property
    def ended(self) -> object:
        """Return the time of the last tick."""
        return self.source.ended

    @property
    def is_quick(self) -> bool:
        """Whether something was kept, so that another pass costs no reading."""
        return bool(self._kept)

    def scan_ticks(
        self, symbol: str, *, received: bool = False, **which: Unpack[Which]
    ) -> Iterator[pl.DataFrame]:
        """Yield the symbol's ticks, from memory where they were kept."""
        return self._scan(self.source.scan_ticks, symbol, which, received=received)

    def count_ticks(
        self, symbol: str, *, start: Time | None = None, end: Time | None = None
    ) -> int:
        """Return how many ticks `scan_ticks` yields."""
        return self.source.count_ticks(symbol, start=start, end=end)

    def scan_books(self, symbol: str, **which: Unpack[Which]) -> Iterator[pl.DataFrame]:
        """Yield the symbol's books, from memory where they were kept."""
        return self._scan(self.source.scan_books, symbol, which)

    def has_books(self, symbol: str) -> bool:
        """Return whether there are order books of the symbol; asked once."""
        return bool(self._fact("has_books", symbol))

    def has_trades(self, symbol: str) -> bool:
        """Return whether there are trades of the symbol; asked once."""
        return bool(self._fact("has_trades", symbol))

    def gaps(self, symbol: str) -> pl.DataFrame:
        """Return the symbol's known gaps; asked once."""
        found: pl.DataFrame = self._fact("gaps", symbol)
        return found

    def _fact(self, name: str, symbol: str) -> Any:  # noqa: ANN401 - whatever the source says
        if (name, symbol) not in self._facts:
            self._facts[name, symbol] = getattr(self.source, name)(symbol)
        return self._facts[name, symbol]

    def _scan(
        self, scan: Scan, symbol: str, which: Which, **options: bool
    ) -> Iterator[pl.DataFrame]:
        start, end, size = which.get("start"), which.get("end"), which.get("chunk_rows")
        begin, until = parse_range(start, end)
        low, high = -math.inf if begin is None else begin, math.inf if until is None else until
        what = (scan.__name__, *options.values())
        for (kind, name, first, last), frames in self._kept.items():
            if (kind, name) == (what, symbol) and first <= low and high <= last:
                return chain.from_iterable(slices(frame, start, end, size) for frame in frames)
        chunks = scan(symbol, **which, **options)
        return self._keeping((what, symbol, low, high), chunks)

    def _keeping(
        self, key: tuple[Any, ...], chunks: Iterator[pl.DataFrame]
    ) -> Iterator[pl.DataFrame]:
        """Pass chunks on, and keep them all if they fit."""
        room = KEEP_BYTES - sum(map(_size, self._kept.values()))
        kept: list[pl.DataFrame] = []
        for chunk in chunks:
            room -= _size([chunk])
            if room >= 0:
                kept.append(chunk)
            else:
                kept.clear()
            yield chunk
        if room >= 0:
            self._kept[key] = kept


def _size(frames: list[pl.DataFrame]) -> int:
    return sum(int(frame.estimated_size()) for frame in frames)
