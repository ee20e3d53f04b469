"""Market events of the mock venue (trades, book changes), exact and in order, and their truth.

Every protocol of the mock venue speaks about the same events, so that one truth can be compared
with what any collector made of any venue. Prices and quantities are whole numbers of their last
decimal: sums and checksums of them are exact.

`Truth` is everything that happened, sent or not. It answers REST requests about the past, gives
snapshots of books that fit the stream, and is what a collector's records are compared with: counts,
exact sums and a checksum by symbol.
"""

from __future__ import annotations

import zlib
from abc import ABC, abstractmethod
from array import array
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
import polars as pl

Change = tuple[int, int]
"""Price and quantity of a level, in units of their last decimals; quantity 0 takes it away."""


class MarketTrade(NamedTuple):
    """A trade.

    Attributes
    ----------
    symbol
        fxlab's name: BTC_USDT.
    id
        Rises by one with each trade of the symbol.
    time
        Microseconds since the epoch.
    price, quantity
        In units of the last decimal of their `Listing`.
    bought
        Whether the taker bought.
    frame
        The stream and the bytes of a recorded frame, which are sent as they are.
    """

    symbol: str
    id: int
    time: int
    price: int
    quantity: int
    bought: bool
    frame: tuple[str, bytes] | None = None


class BookChange(NamedTuple):
    """Levels of a book that changed, with all update ids that it covers; ids leave no gap."""

    symbol: str
    id: int
    time: int
    first_id: int
    bids: tuple[Change, ...]
    asks: tuple[Change, ...]
    frame: tuple[str, bytes] | None = None


class RawFrame(NamedTuple):
    """A recorded frame that changes nothing of the truth, such as a best bid and ask."""

    symbol: str
    id: int
    time: int
    frame: tuple[str, bytes]


MarketEvent = MarketTrade | BookChange | RawFrame


@dataclass(frozen=True, slots=True)
class Listing:
    """A symbol and the decimals that its prices and quantities are counted in.

    Attributes
    ----------
    native
        Binance's name of it, where that is not base and quote.
    streams, futures
        Names of a recording's streams, and whether it is one of USD-M or COIN-M futures: they are
        sent as they are by a protocol of the same kind of market.
    """

    symbol: str
    price_decimals: int = 2
    quantity_decimals: int = 5
    native: str = ""
    streams: frozenset[str] = frozenset()
    futures: bool = False

    @property
    def base(self) -> str:
        """Return what is bought: BTC of BTC_USDT."""
        return self.symbol.partition("_")[0]

    @property
    def quote(self) -> str:
        """Return what is paid with: USDT of BTC_USDT."""
        return self.symbol.partition("_")[2]

    def price(self, units: int, decimals: int | None = None) -> str:
        """Return the text of a price, with zeros up to `decimals`."""
        return decimal_text(units, self.price_decimals, decimals)

    def quantity(self, units: int, decimals: int | None = None) -> str:
        """Return the text of a quantity, with zeros up to `decimals`."""
        return decimal_text(units, self.quantity_decimals, decimals)


class OpeningBook(NamedTuple):
    """A book before the first event: its levels by price, and the last update id in it."""

    id: int
    bids: Mapping[int, int]
    asks: Mapping[int, int]


class MockMarket(ABC):
    """A source of events.

    Attributes
    ----------
    listings
        By fxlab's symbol.
    start
        Microseconds since the epoch at which it begins; None for the first subscription.
    """

    listings: Mapping[str, Listing]
    start: int | None

    @abstractmethod
    def opening(self, symbol: str) -> OpeningBook:
        """Return a symbol's book before anything happened."""

    @abstractmethod
    def events(self, start: int) -> Iterator[MarketEvent]:
        """Return everything that happens, by time, from `start` (microseconds) on."""


def decimal_text(units: int, decimals: int, shown: int | None = None) -> str:
    """Return a whole number of last decimals as text: 6183763, 2 is 61837.63.

    Parameters
    ----------
    shown
        At least so many decimals, filled with zeros.
    """
    whole, part = divmod(units, 10**decimals)
    digits = f"{part:0{decimals}d}" if decimals else ""
    digits = digits.ljust(shown or 0, "0")
    return f"{whole}.{digits}" if digits else str(whole)


class Deals:
    """All trades of one symbol, in columns."""

    def __init__(self, listing: Listing) -> None:
        self.listing = listing
        self._columns = tuple(array("q") for _ in range(5))
        self._ids, self._times, self._prices, self._quantities, self._bought = self._columns
        self._runs: list[tuple[int, int]] = []

    def __len__(self) -> int:
        return len(self._ids)

    def add(self, deal: MarketTrade) -> None:
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

    def last(self, count: int) -> list[MarketTrade]:
        """Return the newest trades, oldest of them first."""
        return self._rows(max(0, len(self) - count), len(self))

    def from_id(self, first: int, count: int) -> list[MarketTrade]:
        """Return up to `count` trades with ids from `first` on; the newest run that has it."""
        for position in range(len(self._runs) - 1, -1, -1):
            run_first, begin = self._runs[position]
            end = len(self) if position + 1 == len(self._runs) else self._runs[position + 1][1]
            if first < run_first + end - begin and (first >= run_first or position == 0):
                at = begin + max(0, first - run_first)
                return self._rows(at, min(at + count, end))
        return []

    def after(self, time: int, count: int) -> list[MarketTrade]:
        """Return up to `count` trades later than `time` (microseconds)."""
        at = int(np.searchsorted(np.array(self._times), time, side="right"))
        return self._rows(at, min(at + count, len(self)))

    def _rows(self, start: int, stop: int) -> list[MarketTrade]:
        return [
            MarketTrade(self.listing.symbol, number, time, price, quantity, bool(bought))
            for number, time, price, quantity, bought in zip(
                *(column[start:stop] for column in self._columns), strict=True
            )
        ]

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
    """What happened: `deals` and `books` by symbol, and the `openings` they began with.

    `channels` has what was told beside them, by fxlab's name of the channel: symbol, time (us), and
    the values as text.
    """

    def __init__(self, market: MockMarket) -> None:
        self.listings: Mapping[str, Listing] = market.listings
        self.deals = {symbol: Deals(listing) for symbol, listing in market.listings.items()}
        self.openings = {symbol: market.opening(symbol) for symbol in market.listings}
        self.books = {symbol: Book(opening) for symbol, opening in self.openings.items()}
        self.channels: dict[str, list[tuple[str, int, dict[str, Any]]]] = {}

    def tell(self, channel: str, symbol: str, time: int, **values: Any) -> None:  # noqa: ANN401 - text
        """Keep what is told beside trades and books."""
        self.channels.setdefault(channel, []).append((symbol, time, values))

    def add(self, event: MarketEvent) -> None:
        """Keep what happened."""
        if type(event) is MarketTrade:
            self.deals[event.symbol].add(event)
        elif type(event) is BookChange:
            self.books[event.symbol].apply(event)


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
