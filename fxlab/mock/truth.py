"""Everything that happened on the mock venue, whether or not anybody was told.

It answers REST questions about the past, gives snapshots of books that fit the stream, and is
what a collector's records are compared with: counts, exact sums and a checksum by symbol.
"""

from __future__ import annotations

import zlib
from array import array
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import polars as pl

from fxlab.mock.market import BookChange, Change, Deal, Happening, Listing, Market, OpeningBook


class Deals:
    """All trades of one symbol, in columns."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self._ids = array("q")
        self._times = array("q")
        self._prices = array("q")
        self._quantities = array("q")
        self._bought = array("q")
        self._runs: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, deal: Deal) -> None:
        """Keep a trade."""
        if not self._ids or deal.id != self._ids[-1] + 1:
            self._runs.append((deal.id, len(self._ids)))
        self._ids.append(deal.id)
        self._times.append(deal.time)
        self._prices.append(deal.price)
        self._quantities.append(deal.quantity)
        self._bought.append(deal.bought)

    def id_at(self, place: int) -> int | None:
        """Return the id of the trade at a place, None for one that is yet to happen."""
        return self._ids[place] if place < len(self) else None

    def last(self, count: int) -> list[Deal]:
        """Return the newest trades, oldest of them first."""
        return self._rows(max(0, len(self) - count), len(self))

    def from_id(self, first: int, count: int) -> list[Deal]:
        """Return up to `count` trades with ids from `first` on; the newest run that has it."""
        for position in range(len(self._runs) - 1, -1, -1):
            run_first, begin = self._runs[position]
            end = len(self) if position + 1 == len(self._runs) else self._runs[position + 1][1]
            if first < run_first + end - begin and (first >= run_first or position == 0):
                at = begin + max(0, first - run_first)
                return self._rows(at, min(at + count, end))
        return []

    def after(self, time: int, count: int) -> list[Deal]:
        """Return up to `count` trades later than `time` (microseconds)."""
        at = int(np.searchsorted(np.array(self._times), time, side="right"))
        return self._rows(at, min(at + count, len(self)))

    def _rows(self, start: int, stop: int) -> list[Deal]:
        return [
            Deal(self.listing.symbol, number, time, price, quantity, bool(bought))
            for number, time, price, quantity, bought in zip(
                *(column[start:stop] for column in self._columns), strict=True
            )
        ]

    @property
    def _columns(self) -> tuple[array[int], ...]:
        return self._ids, self._times, self._prices, self._quantities, self._bought

    def frame(self) -> pl.DataFrame:
        """Return all trades: id, time (us), price, quantity, bought; numbers as floats."""
        columns = [np.array(column, dtype=np.int64) for column in self._columns]
        return pl.DataFrame(
            {
                "id": columns[0],
                "time": columns[1],
                "price": columns[2] / 10**self.listing.price_decimals,
                "quantity": columns[3] / 10**self.listing.quantity_decimals,
                "bought": columns[4].astype(bool),
            }
        )

    def summary(self) -> dict[str, Any]:
        """Return count, first and last id, the exact sum of quantities, and the checksum."""
        return {
            "trades": len(self),
            "first_id": self._ids[0] if self._ids else None,
            "last_id": self._ids[-1] if self._ids else None,
            "sum_qty": self.listing.quantity(sum(self._quantities)),
            "price_decimals": self.listing.price_decimals,
            "quantity_decimals": self.listing.quantity_decimals,
            "checksum": checksum(self._columns),
        }


class Book:
    """One symbol's book, as it is now."""

    def __init__(self, opening: OpeningBook) -> None:
        self.id = opening.id
        self.time = 0
        self.bids: dict[int, int] = dict(opening.bids)
        self.asks: dict[int, int] = dict(opening.asks)

    def apply(self, change: BookChange) -> None:
        """Follow a change; one that the book already contains is left out."""
        if change.id <= self.id:
            return
        self.id, self.time = change.id, change.time
        _apply(self.bids, change.bids)
        _apply(self.asks, change.asks)

    def top(self, depth: int | None = None) -> tuple[list[Change], list[Change]]:
        """Return the best levels of bids and asks, best first."""
        bids = sorted(self.bids.items(), reverse=True)
        return bids[:depth], sorted(self.asks.items())[:depth]


class Truth:
    """What happened: `deals` and `books` by symbol, and the `openings` they began with."""

    def __init__(self, market: Market) -> None:
        self.listings: Mapping[str, Listing] = market.listings
        self.deals = {symbol: Deals(listing) for symbol, listing in market.listings.items()}
        self.openings = {symbol: market.opening(symbol) for symbol in market.listings}
        self.books = {symbol: Book(opening) for symbol, opening in self.openings.items()}

    def add(self, happening: Happening) -> None:
        """Keep what happened."""
        if type(happening) is Deal:
            self.deals[happening.symbol].add(happening)
        elif type(happening) is BookChange:
            self.books[happening.symbol].apply(happening)


def checksum(columns: Iterable[Iterable[int]]) -> str:
    """Return a checksum of trades in their order, as eight hexadecimal digits.

    It is the CRC-32 of five columns one after the other, each as little-endian 64-bit whole
    numbers: id, time (us), price and quantity in units of their last decimals, and 1 where the
    taker bought, else 0.
    """
    value = 0
    for column in columns:
        value = zlib.crc32(np.asarray(column, dtype="<i8").tobytes(), value)
    return f"{value:08x}"


def _apply(side: dict[int, int], changes: Iterable[Change]) -> None:
    for price, quantity in changes:
        if quantity:
            side[price] = quantity
        else:
            side.pop(price, None)
