"""Order book of one symbol: kept in memory, its top levels recorded at each change or conflated.

Both sides are sorted lists with the best level at the end: nearly all changes happen there, and a
change at the end of a list moves nothing. A book of thousands of levels costs as much as one of
ten.

Stored less often than it changes, a book is conflated; the session's options say so, and how many
changes went unstored is counted.
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from fxlab.collect._live.trades import MOST_ID, is_time
from fxlab.collect.feed import BookDelta, BookSnapshot, Level, Quote
from fxlab.schema import BOOK_DEPTH, book_levels


class Side:
    """The levels of one side.

    Parameters
    ----------
    sign
        1 for bids, where the highest price is best; -1 for asks.
    """

    __slots__ = ("keys", "quantities", "sign")

    def __init__(self, sign: int) -> None:
        self.sign: Final = sign
        self.keys: list[float] = []
        """Prices times the sign, rising."""
        self.quantities: list[float] = []

    def reset(self, levels: Iterable[Level]) -> None:
        """Forget all levels but these; quantities of 0 are none, the last of a price counts."""
        sign = self.sign
        latest = {sign * price: quantity for price, quantity in levels}
        rising = sorted(level for level in latest.items() if level[1])
        self.keys = [key for key, _ in rising]
        self.quantities = [quantity for _, quantity in rising]

    def apply(self, levels: Iterable[Level]) -> None:
        """Set levels; quantity 0 takes one away, whether it is there or not."""
        keys, quantities, sign = self.keys, self.quantities, self.sign
        for price, quantity in levels:
            key = sign * price
            place = bisect_left(keys, key)
            known = place < len(keys) and keys[place] == key
            if not quantity:
                if known:
                    del keys[place], quantities[place]
            elif known:
                quantities[place] = quantity
            else:
                keys.insert(place, key)
                quantities.insert(place, quantity)

    def trim(self, depth: int) -> None:
        """Forget all but the best levels."""
        excess = len(self.keys) - depth
        if excess > 0:
            del self.keys[:excess], self.quantities[:excess]

    def best(self, depth: int) -> list[Level]:
        """Return the best levels, best first."""
        sign = self.sign
        return [
            (sign * key, quantity)
            for key, quantity in zip(
                self.keys[: -depth - 1 : -1], self.quantities[: -depth - 1 : -1], strict=True
            )
        ]


class OrderBook:
    """Bids and asks of one symbol, from a snapshot and the changes after it."""

    __slots__ = ("asks", "bids")

    def __init__(self) -> None:
        self.bids = Side(1)
        self.asks = Side(-1)

    def reset(self, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """Begin again with these levels, in any order."""
        self.bids.reset(bids)
        self.asks.reset(asks)

    def apply(self, bids: Iterable[Level], asks: Iterable[Level]) -> None:
        """Set levels; quantity 0 takes one away."""
        self.bids.apply(bids)
        self.asks.apply(asks)

    def trim(self, depth: int) -> None:
        """Forget levels beyond a depth, as venues do that send no more of them."""
        self.bids.trim(depth)
        self.asks.trim(depth)

    def top(self, depth: int = BOOK_DEPTH) -> tuple[float | None, ...]:
        """Return the best levels in the order of `fxlab.schema.book_levels`; None where none is."""
        return tuple(_flat(self.bids, depth) + _flat(self.asks, depth))

    @property
    def best(self) -> tuple[Level | None, Level | None]:
        """Return the best bid and the best ask."""
        bids, asks = self.bids.best(1), self.asks.best(1)
        return bids[0] if bids else None, asks[0] if asks else None

    @property
    def crossed(self) -> bool:
        """Return whether the best bid is not below the best ask: updates were missed."""
        bids, asks = self.bids.keys, self.asks.keys
        return bool(bids and asks and bids[-1] >= -asks[-1])


def _flat(side: Side, depth: int) -> list[float | None]:
    sign = side.sign
    keys, quantities = side.keys[: -depth - 1 : -1], side.quantities[: -depth - 1 : -1]
    flat: list[float | None] = [None] * (2 * depth)
    flat[0 : 2 * len(keys) : 2] = [sign * key for key in keys]
    flat[1 : 2 * len(keys) : 2] = quantities
    return flat


KEPT_KEYS: Final = 4_096
"""Rows whose identity is remembered, so that a repeated state is stored once."""

_PLACES: Final = {name: place for place, name in enumerate(book_levels())}
_BEST: Final = tuple(
    _PLACES[name] for name in ("bid_price_1", "bid_qty_1", "ask_price_1", "ask_qty_1")
)
_BID, _, _ASK, _ = _BEST


class BookRow(NamedTuple):
    """One row of `fxlab.schema.ORDERBOOK`; `levels` as in `fxlab.schema.book_levels`."""

    time: int
    seq: int
    first_update_id: int | None
    is_snapshot: bool
    received: int
    levels: tuple[float | None, ...]


@dataclass(slots=True)
class BookRecorder:
    """What is known of a symbol's book.

    Attributes
    ----------
    depth
        Levels that are stored of each side.
    every
        Least microseconds between two stored rows; 0 stores each change.
    unstored
        Changes that were not stored, for `every` or because they came twice.
    crossed
        Whether the newest state has its best bid at or above its best ask (quotes: above). It is
        stored as it came, because it ends what was known before; nothing is ever filled at it.
    last_time, last_id
        Of the newest message, stored or not.
    """

    depth: int
    every: int = 0
    unstored: int = 0
    book: OrderBook = field(default_factory=OrderBook)
    ready: bool = False
    crossed: bool = False
    last_time: int = 0
    last_id: int = 0
    _stored_at: int | None = None
    _waiting: BookRow | None = None
    _keys: dict[tuple[int, int], None] = field(default_factory=dict)

    def take(self, message: BookSnapshot | BookDelta | Quote) -> BookRow | None:
        """Apply a message; return the row to store, if it is time for one.

        Raises
        ------
        ValueError
            For numbers that are none, and for a change of a book that is not known.
        """
        _check_place(message)
        if isinstance(message, BookDelta) and message.update_id < message.first_update_id:
            self._apply(message)
            return None
        if isinstance(message, Quote):
            row = _quote_row(message)
        else:
            self._apply(message)
            row = self._row(message)
        bid, ask = row.levels[_BID], row.levels[_ASK]
        # Banks' quotes may be equal; equal prices of one book would have traded with each other.
        locked = isinstance(message, Quote) and bid == ask
        self.crossed = bid is not None and ask is not None and bid >= ask and not locked
        self.last_time, self.last_id = row.time, row.seq
        return self._due(row)

    def rest(self) -> BookRow | None:
        """Return the last state if it was not stored."""
        row, self._waiting = self._waiting, None
        return self._kept(row) if row is not None else None

    def lost(self) -> None:
        """Forget the book: what comes next does not follow."""
        self.ready = False

    def _apply(self, message: BookSnapshot | BookDelta) -> None:
        for price, qty in (*message.bids, *message.asks):
            if not (0.0 < price < math.inf and 0.0 <= qty < math.inf):
                raise ValueError(f"level {price!r} x {qty!r} is no price and quantity")
        if isinstance(message, BookSnapshot):
            self.book.reset(message.bids, message.asks)
            self.ready = True
        elif not self.ready:
            raise ValueError("a change of a book came before the book")
        else:
            self.book.apply(message.bids, message.asks)

    def _row(self, message: BookSnapshot | BookDelta) -> BookRow:
        whole = isinstance(message, BookSnapshot)
        first = None if isinstance(message, BookSnapshot) else message.first_update_id
        levels = self.book.top(BOOK_DEPTH) if self.depth == BOOK_DEPTH else self._shallow()
        return BookRow(message.time, message.update_id, first, whole, message.received, levels)

    def _shallow(self) -> tuple[float | None, ...]:
        levels: list[float | None] = [None] * len(_PLACES)
        names = book_levels(self.depth)
        for name, value in zip(names, self.book.top(self.depth), strict=True):
            levels[_PLACES[name]] = value
        return tuple(levels)

    def _due(self, row: BookRow) -> BookRow | None:
        if self.every and self._stored_at is not None:
            elapsed = row.time - self._stored_at
            if not row.is_snapshot and 0 <= elapsed < self.every:
                self.unstored += 1 if self._waiting is not None else 0
                self._waiting = row
                return None
        self.unstored += 1 if self._waiting is not None else 0
        self._waiting = None
        return self._kept(row)

    def _kept(self, row: BookRow) -> BookRow | None:
        """Return the row unless one of the same identity was stored: it would replace that."""
        key = (row.time, row.seq)
        if key in self._keys:
            self.unstored += 1
            return None
        self._keys[key] = None
        if len(self._keys) > KEPT_KEYS:
            del self._keys[next(iter(self._keys))]
        self._stored_at = row.time
        return row

    def to_json(self) -> dict[str, Any]:
        """Return what a later collector needs to go on."""
        return {"unstored": self.unstored, "last_time": self.last_time}

    @classmethod
    def from_json(cls, found: dict[str, Any], depth: int, every: int) -> Self:
        """Return what `to_json` described; the book itself has to come again."""
        return cls(depth, every, unstored=found["unstored"], last_time=found["last_time"])


def _check_place(message: BookSnapshot | BookDelta | Quote) -> None:
    """Refuse what would have no place in the table: its identity is time and update id."""
    first = message.first_update_id if isinstance(message, BookDelta) else 0
    for number in (first, message.update_id):
        if type(number) is not int or not 0 <= number < MOST_ID:
            raise ValueError(f"{number!r} is no update id")
    for time in (message.time, message.received):
        if not is_time(time):
            raise ValueError(f"{time!r} is no time")


def _quote_row(quote: Quote) -> BookRow:
    best = (quote.bid, quote.bid_qty, quote.ask, quote.ask_qty)
    if not all(0.0 <= value < math.inf for value in best) or min(quote.bid, quote.ask) <= 0.0:
        raise ValueError(f"{best} is no bid and ask")
    levels: list[float | None] = [None] * len(_PLACES)
    for place, value in zip(_BEST, best, strict=True):
        levels[place] = value
    return BookRow(quote.time, quote.update_id, None, False, quote.received, tuple(levels))  # noqa: FBT003 - a row's column
