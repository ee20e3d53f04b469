"""Books that somebody else keeps, told as snapshots and the changes between their states."""

from __future__ import annotations

from itertools import islice
from typing import Any

from fxlab.collect.feed import (
    BookDelta,
    BookSnapshot,
    Event,
    Gap,
    Instrument,
    Level,
    Message,
    Quote,
)
from fxlab.collect.venues.suspects import positive, quantity_of
from fxlab.schema import BOOK_DEPTH

Sides = tuple[list[Level], list[Level]]


class WatchedBook:
    """The best levels of one symbol's book, as ccxt shows them after each change.

    Parameters
    ----------
    instrument
        Whose book it is.
    quotes
        Whether only the best bid and ask are wanted.
    """

    def __init__(self, instrument: Instrument, *, quotes: bool) -> None:
        self.symbol = instrument.symbol
        self._instrument = instrument
        self._depth = 1 if quotes else BOOK_DEPTH
        self._quotes = quotes
        self._known: Sides | None = None
        self._update = 0
        self._last_time: int | None = None
        self._gap: Gap | None = None

    def take(self, raw: dict[str, Any], received: int) -> list[Message]:
        """Return what a state means: a snapshot, or what changed since the last one.

        Raises
        ------
        ValueError, TypeError, LookupError, ArithmeticError
            If it is no book.
        """
        sides = self._levels(raw["bids"]), self._levels(raw["asks"])
        if sides == self._known or not any(sides):
            return []
        first, self._update = self._update + 1, self._number(raw.get("nonce"))
        stamp = raw.get("timestamp")
        time = max(received if stamp is None else int(stamp) * 1_000, self._last_time or 0)
        before, self._known, self._last_time = self._known, sides, time
        return [*self._end_gap(time), *self._told(before, sides, first, time, received)]

    def _told(
        self, before: Sides | None, now: Sides, first: int, time: int, received: int
    ) -> list[Message]:
        symbol, update = self.symbol, self._update
        if self._quotes:
            return self._quote(now, time, received)
        if before is None:
            return [BookSnapshot(symbol, update, *now, time, received)]
        bids, asks = (_changes(old, new) for old, new in zip(before, now, strict=True))
        return [BookDelta(symbol, first, update, bids, asks, time, received)]

    def lose(self, cause: str) -> list[Message]:
        """Forget the book; return the gap that begins, if none has begun already."""
        self._known = None
        if self._gap is not None or self._last_time is None:
            return []
        self._gap = Gap(self.symbol, "orderbook", self._last_time, None, None, cause)
        return [self._gap]

    def _end_gap(self, time: int) -> list[Message]:
        gap, self._gap = self._gap, None
        if gap is None:
            return []
        return [gap._replace(to_time=time), Event("resync", self.symbol, time, 1, gap.cause)]

    def _number(self, nonce: object) -> int:
        """Return the exchange's number of the state if it rises, else the next one."""
        return nonce if type(nonce) is int and nonce > self._update else self._update + 1

    def _quote(self, sides: Sides, time: int, received: int) -> list[Message]:
        if not all(sides):
            return []
        (bid, *_), (ask, *_) = sides
        return [Quote(self.symbol, *bid, *ask, self._update, time, received)]

    def _levels(self, levels: Any) -> list[Level]:  # noqa: ANN401 - ccxt's sides are lists, nearly
        found = []
        for level in islice(iter(levels), self._depth):
            price = positive(level[0], "price")
            amount = quantity_of(level[1], "quantity")
            found.append((price, base_units(amount, price, self._instrument)))
        return found


def base_units(amount: float, price: float, instrument: Instrument) -> float:
    """Return an amount, which ccxt gives in contracts, in units of the base coin."""
    size = float(instrument.detail["contract_size"])
    if instrument.detail["inverse"]:
        return amount * size / price
    return amount if size == 1.0 else round(amount * size, 12)


def _changes(before: list[Level], after: list[Level]) -> list[Level]:
    """Return what leads from some best levels to others; those that fell out are taken away."""
    old, new = dict(before), dict(after)
    gone = [(price, 0.0) for price in old if price not in new]
    return gone + [(price, quantity) for price, quantity in after if old.get(price) != quantity]
