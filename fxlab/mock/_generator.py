"""Seeded market generator: the same seed gives the same trades, books and bytes on any machine.

Prices walk on a grid of ticks, trades come in bursts that share a millisecond, as real ones do, and
print at the best bid or ask of a book that moves with them.
"""

from __future__ import annotations

import heapq
from collections.abc import Iterator, Sequence
from operator import attrgetter
from typing import Final

import numpy as np
import numpy.typing as npt

from fxlab.errors import InvalidParameter
from fxlab.mock._market import (
    BookChange,
    Change,
    Listing,
    MarketEvent,
    MarketTrade,
    MockMarket,
    OpeningBook,
)

Whole = npt.NDArray[np.int64]

LEVELS: Final = 25
"""Levels of each side that a generated book is refilled to."""
_BLOCK_US: Final = 1_000_000
_FIRST_PRICES: Final = {"BTC": 6_183_763, "ETH": 268_412, "SOL": 15_402}


class Walk:
    """One symbol: its trades and changes of its book, block after block of a second."""

    def __init__(
        self, listing: Listing, seed: Sequence[int], rate: float, book_rate: float
    ) -> None:
        self._listing = listing
        self._random = np.random.default_rng(seed)
        self._rate, self._book_rate = rate, book_rate
        self._bid = _FIRST_PRICES.get(listing.base, 50_000)
        self._next_id = 10_000_000 + int(self._random.integers(1, 1_000_000_000))
        self.book = GeneratedBook(self._random, self._bid)

    def block(self, start: int) -> list[MarketEvent]:
        """Return what happens in the second from `start` on, by time."""
        times = self._times(start, self._rate)
        bids = self._bid + np.cumsum(self._steps(len(times)))
        deals = self._deals(times, bids)
        changes = self._changes(self._times(start, self._book_rate), times, bids)
        self._bid = int(bids[-1]) if len(bids) else self._bid
        # Sorting is stable: at one time the book moves first.
        return sorted([*changes, *deals], key=attrgetter("time")) if changes else list(deals)

    def _times(self, start: int, rate: float) -> Whole:
        # About three of four share their millisecond with the one before, as on real venues.
        count = int(self._random.poisson(rate))
        starts = self._random.integers(0, 1_000, size=max(1, -(-count // 4)))
        chosen = np.sort(starts[self._random.integers(0, len(starts), size=count)])
        return start + chosen.astype(np.int64) * 1_000

    def _steps(self, count: int) -> Whole:
        moves = self._random.integers(-3, 4, size=count)
        moves[self._random.random(count) > 0.2] = 0
        # A price that nears zero is pushed back up.
        return np.abs(moves) if self._bid < 5_000 else moves

    def _deals(self, times: Whole, bids: Whole) -> list[MarketTrade]:
        count = len(times)
        bought = self._random.random(count) < 0.5
        quantities = 1 + self._random.exponential(5_000, size=count).astype(np.int64)
        first, self._next_id = self._next_id, self._next_id + count
        columns = (times, bids + bought, quantities, bought)
        rows = zip(range(first, first + count), *(one.tolist() for one in columns), strict=True)
        symbol = self._listing.symbol
        return [MarketTrade(symbol, *row) for row in rows]

    def _changes(self, times: Whole, trade_times: Whole, bids: Whole) -> list[BookChange]:
        before = np.searchsorted(trade_times, times, side="left") - 1
        symbol, made = self._listing.symbol, []
        for time, at in zip(times.tolist(), before.tolist(), strict=True):
            bid = int(bids[at]) if at >= 0 else self._bid
            made.append(self.book.move(symbol, time, bid))
        return made


class GeneratedBook:
    """A book that follows the best bid: levels come, change and go, and it never crosses."""

    def __init__(self, random: np.random.Generator, bid: int) -> None:
        self._random = random
        self.id = 1_000_000 + int(random.integers(1, 1_000_000_000))
        self._bids = {bid - place: self._quantity() for place in range(LEVELS)}
        self._asks = {bid + 1 + place: self._quantity() for place in range(LEVELS)}

    def opening(self) -> OpeningBook:
        """Return it as it is."""
        return OpeningBook(self.id, dict(self._bids), dict(self._asks))

    def move(self, symbol: str, time: int, bid: int) -> BookChange:
        """Follow the best bid to a price, and change a few levels."""
        bids = self._side(self._bids, [bid - place for place in range(LEVELS)])
        asks = self._side(self._asks, [bid + 1 + place for place in range(LEVELS)])
        first = self.id + 1
        self.id += len(bids) + len(asks)
        return BookChange(symbol, self.id, time, first, bids, asks)

    def _side(self, side: dict[int, int], wanted: list[int]) -> tuple[Change, ...]:
        ahead = wanted[0] - wanted[1]
        gone = [price for price in side if (price - wanted[0]) * ahead > 0]
        missing = [price for price in wanted if price not in side]
        far = [price for price in side if (wanted[0] - price) * ahead >= 2 * LEVELS]
        touched = [wanted[int(self._random.integers(0, LEVELS))]]
        changed = {price: self._quantity() for price in (wanted[0], *missing, *touched)}
        side.update(changed)
        for price in (*gone, *far):
            del side[price]
        return (*((price, 0) for price in (*gone, *far)), *changed.items())

    def _quantity(self) -> int:
        return 1 + int(self._random.exponential(100_000))


class Generated(MockMarket):
    """Several walks in one market; see `generated`."""

    def __init__(
        self,
        listings: Sequence[Listing],
        *,
        seed: int,
        rate: float,
        book_rate: float,
        start: int | None,
        trades: int | None,
    ) -> None:
        self.listings = {one.symbol: one for one in listings}
        self.start = start
        self._seed, self._rate, self._book_rate = seed, rate, book_rate
        self._trades = trades
        self._openings = {name: walk.book.opening() for name, walk in self._walks().items()}

    def _walks(self) -> dict[str, Walk]:
        return {
            listing.symbol: Walk(listing, [self._seed, place], self._rate, self._book_rate)
            for place, listing in enumerate(self.listings.values())
        }

    def opening(self, symbol: str) -> OpeningBook:
        """Return a walk's first book."""
        return self._openings[symbol]

    def events(self, start: int) -> Iterator[MarketEvent]:
        """Return the walks, merged by time."""
        walks = list(self._walks().values())
        streams = [self._limited(_endless(walk, start)) for walk in walks]
        if len(streams) == 1:
            return iter(streams[0])
        return heapq.merge(*streams, key=attrgetter("time"))

    def _limited(self, events: Iterator[MarketEvent]) -> Iterator[MarketEvent]:
        if self._trades is None:
            yield from events
            return
        left = self._trades
        for event in events:
            if isinstance(event, MarketTrade):
                left -= 1
            if left < 0:
                return
            yield event


def generated(
    symbols: Sequence[str] = ("BTC_USDT",),
    *,
    seed: int = 1,
    rate: float = 100.0,
    books: bool = True,
    book_rate: float = 50.0,
    start: int | None = None,
    trades: int | None = None,
) -> MockMarket:
    """Return a market that is made up, the same one for the same arguments.

    Parameters
    ----------
    symbols
        fxlab's names: ``["BTC_USDT", "ETH_USDT"]``.
    rate
        Trades a second of market time, for each symbol, on average.
    books, book_rate
        Whether books change at all, and how often a second.
    start
        Microseconds since the epoch; None for the first subscription.
    trades
        Trades of each symbol after which nothing happens any more; None for no end.

    Raises
    ------
    InvalidParameter
        Without a symbol, for a symbol that is not BASE_QUOTE, or for a rate that is not positive.
    """
    for symbol in symbols:
        if symbol.count("_") != 1 or not all(symbol.split("_")):
            raise InvalidParameter(f"symbol {symbol!r} is not BASE_QUOTE, such as BTC_USDT")
    if not symbols or len(set(symbols)) != len(symbols):
        raise InvalidParameter(f"symbols={list(symbols)}: name at least one, each of them once")
    if rate <= 0 or book_rate < 0:
        raise InvalidParameter(f"rate={rate}, book_rate={book_rate}: give rates above 0")
    return Generated(
        [Listing(symbol) for symbol in symbols],
        seed=seed,
        rate=rate,
        book_rate=book_rate if books else 0.0,
        start=start,
        trades=trades,
    )


def _endless(walk: Walk, start: int) -> Iterator[MarketEvent]:
    while True:
        yield from walk.block(start)
        start += _BLOCK_US
