"""What can happen on a venue: deals and changes of books, exact, in the order of their times.

Every protocol of the mock venue speaks about the same happenings, so that one truth can be
compared with what any collector made of any venue. Prices and quantities are whole numbers of
their last decimal: sums and checksums of them are exact.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import NamedTuple

Change = tuple[int, int]
"""Price and quantity of a level, in units of their last decimals; quantity 0 takes it away."""


class Deal(NamedTuple):
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
    """Levels of a book that changed, with all update ids that it covers; ids leave no hole."""

    symbol: str
    id: int
    time: int
    first_id: int
    bids: tuple[Change, ...]
    asks: tuple[Change, ...]
    frame: tuple[str, bytes] | None = None


class Told(NamedTuple):
    """A recorded frame that changes nothing of the truth, such as a best bid and ask."""

    symbol: str
    id: int
    time: int
    frame: tuple[str, bytes]


Happening = Deal | BookChange | Told


@dataclass(frozen=True, slots=True)
class Listing:
    """A symbol and the decimals that its prices and quantities are counted in."""

    symbol: str
    price_decimals: int = 2
    quantity_decimals: int = 5

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
    """A book before the first happening: its levels by price, and the last update id in it."""

    id: int
    bids: Mapping[int, int]
    asks: Mapping[int, int]


class Market(ABC):
    """A source of happenings.

    Attributes
    ----------
    listings
        By fxlab's symbol.
    start
        Microseconds since the epoch at which it begins; None for the moment somebody listens.
    """

    listings: Mapping[str, Listing]
    start: int | None

    @abstractmethod
    def opening(self, symbol: str) -> OpeningBook:
        """Return a symbol's book before anything happened."""

    @abstractmethod
    def happenings(self, start: int) -> Iterator[Happening]:
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
