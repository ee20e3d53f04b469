"""A venue's order book, kept so that what changes most moves least.

Both sides are sorted lists with the best level at the end: nearly all changes happen there, and a
change at the end of a list moves nothing. A book of thousands of levels costs as much as one of
ten.
"""

from __future__ import annotations

from bisect import bisect_left
from collections.abc import Iterable
from typing import Final

from fxlab.collect.feed import Level
from fxlab.schema import BOOK_DEPTH


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
        """Begin anew with these levels, in any order."""
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
