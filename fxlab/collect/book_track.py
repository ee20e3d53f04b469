"""The order book of one symbol on its way to the journal: top levels, at each change or less often.

Stored less often than it changes, a book is conflated; the session's options say so, and how many
changes went unstored is counted.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any, Final, NamedTuple, Self

from fxlab.collect.feed import BookDelta, BookSnapshot, Quote
from fxlab.collect.order_book import OrderBook
from fxlab.collect.trade_track import MOST_ID, is_time
from fxlab.schema import BOOK_DEPTH, book_levels

KEPT_KEYS: Final = 4_096
"""Rows whose identity is remembered, so that a state told twice is stored once."""

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
class BookTrack:
    """What is known of a symbol's book.

    Attributes
    ----------
    depth
        Levels that are stored of each side.
    every
        Least microseconds between two stored rows; 0 stores each change.
    unstored
        Changes that were not stored, for `every` or because they were told twice.
    crossed
        Whether the newest state has its best bid at or above its best ask (quotes: above). It is
        stored as it came, because it ends what was known before; nothing is ever filled at it.
    """

    depth: int
    every: int = 0
    unstored: int = 0
    book: OrderBook = field(default_factory=OrderBook)
    ready: bool = False
    crossed: bool = False
    last_time: int = 0
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
        if isinstance(message, Quote):
            row = _quote_row(message)
        else:
            self._apply(message)
            row = self._row(message)
        bid, ask = row.levels[_BID], row.levels[_ASK]
        # Banks' quotes may be equal; equal prices of one book would have traded with each other.
        locked = isinstance(message, Quote) and bid == ask
        self.crossed = bid is not None and ask is not None and bid >= ask and not locked
        self.last_time = row.time
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
        """Return what `to_json` described; the book itself has to come anew."""
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
