"""What the kernel replays: a stretch of rows, the same for every strategy, and decisions on it."""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np

from fxlab.backtester.records import BOOK, EXTREMES, Tape

_NO_NUMBERS: Final = np.empty(0, np.float64)
_NO_INDICES: Final = np.empty(0, np.int64)
_NO_BOOKS: Final = np.zeros(1, BOOK)  # one, so that the kernel may always name the first


@dataclass(frozen=True)
class Market:
    """Rows of all symbols, merged by time.

    Attributes
    ----------
    legs
        How many symbols there are in the run.
    time, leg, price
        int64 µs, int16, float64; price is nan on a row that only brings a book.
    book, books
        Index of the row's book in `books`, or -1 (int64; empty if no books are replayed).
    volume, taker
        Base units, and 1 where the taker bought, -1 where it sold, 0 if unknown (for queues).
    delay
        The row's own delay of orders, µs (for measured latency).
    """

    legs: int
    time: np.ndarray
    leg: np.ndarray
    price: np.ndarray
    book: np.ndarray = field(default_factory=lambda: _NO_INDICES)
    books: np.ndarray = field(default_factory=lambda: _NO_BOOKS)
    volume: np.ndarray = field(default_factory=lambda: _NO_NUMBERS)
    taker: np.ndarray = field(default_factory=lambda: _NO_INDICES)
    delay: np.ndarray = field(default_factory=lambda: _NO_INDICES)

    def __len__(self) -> int:
        return len(self.time)

    @cached_property
    def tape(self) -> Tape:
        """Return the kernel's view of the rows."""
        return Tape(
            time=self.time,
            leg=self.leg,
            price=self.price,
            book=self.book,
            volume=self.volume,
            taker=self.taker,
            delay=self.delay,
            books=self.books,
            extremes=self.extremes,
        )

    @cached_property
    def extremes(self) -> np.ndarray:
        """Return lowest, highest and last price of each block and leg: found once for all runs."""
        from fxlab.backtester.kernel_extremes import BLOCK, find_extremes, find_price_extremes

        found = np.empty((max(1, -(-len(self) // BLOCK)), self.legs), EXTREMES)
        if self.legs == 1 and not len(self.book) and len(self):
            find_price_extremes(self.price, found)
            return found
        find_extremes(self.leg, self.price, self.book, self.books, found)
        return found

    def part(self, first: int, last: int | None = None) -> Market:
        """Return a slice; nothing is copied, and books keep their numbers."""
        cut = slice(first, last)
        sliced: dict[str, Any] = {
            name: getattr(self, name)[cut]
            for name in ("time", "leg", "price", "book", "volume", "taker", "delay")
        }
        return Market(self.legs, books=self.books, **sliced)


@dataclass(frozen=True)
class Rows:
    """A stretch of the market with one strategy's decisions on it (`DECISION`, by row)."""

    market: Market
    decisions: np.ndarray

    def __len__(self) -> int:
        return len(self.market)

    @property
    def time(self) -> np.ndarray:
        """Return the times of the rows (int64 µs)."""
        return self.market.time

    @property
    def price(self) -> np.ndarray:
        """Return the prices of the rows (float64, nan on a row that only brings a book)."""
        return self.market.price

    @property
    def leg(self) -> np.ndarray:
        """Return the leg numbers of the rows (int16)."""
        return self.market.leg

    def part(self, first: int, last: int | None = None) -> Rows:
        """Return a slice with its decisions."""
        end = len(self) if last is None else last
        low, high = np.searchsorted(self.decisions["row"], [first, end])
        chosen = self.decisions[low:high].copy()
        chosen["row"] -= first
        return Rows(self.market.part(first, end), chosen)
