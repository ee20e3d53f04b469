"""A Kraken book that proves itself: the best levels, with the digits that the checksum is made of.

Kraken numbers no updates. Instead each one carries a CRC-32 of the ten best levels as they are
after it, made of the prices and quantities as they were printed. A lost or wrong update is thus
found at once, but only by who keeps the printed digits: floats have lost the zeros.

The rule: https://docs.kraken.com/exchange/guides/websockets/book-checksum-v2
"""

from __future__ import annotations

import zlib
from bisect import bisect_left
from collections.abc import Iterable
from decimal import Decimal
from typing import NamedTuple

from fxlab.collect.feed import Level

CHECKED = 10
"""Levels of a side that the checksum covers, whatever the depth of the subscription."""


class PrintedLevel(NamedTuple):
    """A level, and what the checksum reads of it."""

    price: float
    quantity: float
    digits: str


def digits(number: str, decimals: int | None) -> str:
    """Return a printed number as the checksum reads it: no point, no zeros in front.

    Parameters
    ----------
    number
        As it was printed: ``0.00100000`` gives ``100000``.
    decimals
        The instrument's decimals, to which a number printed shorter is filled with zeros.
    """
    if "e" in number or "E" in number:
        number = f"{Decimal(number):f}"
    whole, _, part = number.partition(".")
    if decimals is not None and len(part) < decimals:
        part = part.ljust(decimals, "0")
    return (whole + part).lstrip("0")


class CheckedBook:
    """The levels of one symbol, down to the subscribed depth.

    Parameters
    ----------
    depth
        Levels of each side that the venue tells about.
    """

    def __init__(self, depth: int = CHECKED) -> None:
        self._bids = _Side(depth, -1)
        self._asks = _Side(depth, 1)

    def reset(self, bids: Iterable[PrintedLevel], asks: Iterable[PrintedLevel]) -> None:
        """Begin with the levels of a snapshot."""
        for side, levels in ((self._bids, bids), (self._asks, asks)):
            side.clear()
            side.apply(levels)

    def apply(
        self, bids: Iterable[PrintedLevel], asks: Iterable[PrintedLevel]
    ) -> tuple[list[Level], list[Level]]:
        """Follow an update.

        Returns
        -------
        tuple of list
            The changes of bids and of asks that lead from the book before to the book after, in
            their order. Levels that fell below the depth are taken away in them: the venue will
            not speak of them again, and who kept them would have levels that are long gone.
        """
        return self._bids.apply(bids), self._asks.apply(asks)

    @property
    def checksum(self) -> int:
        """Return the CRC-32 that the venue must have sent with this book."""
        return zlib.crc32(f"{self._asks.digits}{self._bids.digits}".encode())

    @property
    def best(self) -> tuple[Level, Level] | None:
        """Return the best bid and ask, or None while a side is empty."""
        bid, ask = self._bids.best, self._asks.best
        return None if bid is None or ask is None else (bid, ask)

    @property
    def levels(self) -> tuple[list[Level], list[Level]]:
        """Return bids and asks, best first."""
        return self._bids.levels, self._asks.levels


class _Side:
    """Levels in the order of `sign` x price: a bid's best is its highest price."""

    def __init__(self, depth: int, sign: int) -> None:
        self._depth = depth
        self._sign = sign
        self._keys: list[float] = []
        self._levels: list[PrintedLevel] = []

    def clear(self) -> None:
        self._keys.clear()
        self._levels.clear()

    def apply(self, changes: Iterable[PrintedLevel]) -> list[Level]:
        told = []
        for level in changes:
            self._put(level)
            told.append((level.price, level.quantity))
        told.extend((level.price, 0.0) for level in self._levels[self._depth :])
        del self._levels[self._depth :], self._keys[self._depth :]
        return told

    def _put(self, level: PrintedLevel) -> None:
        key = self._sign * level.price
        at = bisect_left(self._keys, key)
        known = at < len(self._keys) and self._keys[at] == key
        if not level.quantity:
            if known:
                del self._keys[at], self._levels[at]
        elif known:
            self._levels[at] = level
        else:
            self._keys.insert(at, key)
            self._levels.insert(at, level)

    @property
    def digits(self) -> str:
        return "".join([level.digits for level in self._levels[:CHECKED]])

    @property
    def best(self) -> Level | None:
        return self._levels[0][:2] if self._levels else None

    @property
    def levels(self) -> list[Level]:
        return [level[:2] for level in self._levels]
