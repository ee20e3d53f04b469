"""The frames of Binance's market streams for one symbol; see `fxlab.mock.protocols.binance`.

They are made by hand instead of by a JSON library, because the mock must never be what a
collector under test waits for.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Final

from fxlab.mock.market import BookChange, Change, Deal, Listing, decimal_text
from fxlab.mock.truth import Book

SPOT_DECIMALS: Final = 8
_WINDOWS: Final = {"depth@100ms": 100_000, "depth": 1_000_000}
_FUTURES_WINDOWS: Final = {"depth@100ms": 100_000, "depth": 250_000, "depth@500ms": 500_000}


class Window:
    """Changes of a book that are gathered until their interval is over."""

    def __init__(self, interval_us: int, last_id: int) -> None:
        self.interval = interval_us
        self.previous = last_id
        self.number = -1
        self.first_id = self.id = 0
        self.bids: dict[int, int] = {}
        self.asks: dict[int, int] = {}

    def gather(self, change: BookChange) -> None:
        """Add a change."""
        if self.number < 0:
            self.number, self.first_id = change.time // self.interval, change.first_id
        self.id = change.id
        self.bids.update(change.bids)
        self.asks.update(change.asks)

    def skip(self, change: BookChange) -> None:
        """Pass over a change that nobody listens for."""
        self.id = change.id
        self.clear()

    def over(self, time: int) -> bool:
        """Return whether something was gathered before the interval that `time` is in."""
        return 0 <= self.number < time // self.interval

    @property
    def end_ms(self) -> int:
        """Return the end of the interval."""
        return (self.number + 1) * self.interval // 1_000

    def clear(self) -> None:
        """Begin anew."""
        self.previous, self.number = self.id, -1
        self.bids, self.asks = {}, {}


class Frames:
    """The frames of one symbol.

    Attributes
    ----------
    stream
        Its name in front of the @ of its streams: btcusdt.
    deal_keys
        Of the streams of trades and of aggregates.
    windows, gathering
        Of its diff streams, by the part behind the @; whether any of them ever gathered.
    """

    def __init__(self, listing: Listing, last_id: int, *, futures: bool) -> None:
        self.native = listing.base + listing.quote
        self.stream = self.native.lower()
        self.deal_keys = (f"{self.stream}@trade", f"{self.stream}@aggTrade")
        self.gathering = False
        self.listing = listing
        self.decimals = None if futures else SPOT_DECIMALS
        intervals = _FUTURES_WINDOWS if futures else _WINDOWS
        self.windows = {name: Window(every, last_id) for name, every in intervals.items()}
        self._futures = futures
        self._price_unit, price = self._number(listing.price_decimals)
        self._quantity_unit, quantity = self._number(listing.quantity_decimals)
        head, tail = ('"T":%d,', ',"X":"MARKET"') if futures else ("", "")
        self._trade = (
            f'{{"e":"trade","E":%d,{head}"s":"{self.native}","t":%d,"p":"{price}","q":"{quantity}"'
            + (f'{tail},"m":%s}}' if futures else ',"T":%d,"m":%s,"M":true}')
        )
        self._aggregate = (
            f'{{"e":"aggTrade","E":%d,"s":"{self.native}","a":%d,"p":"{price}","q":"{quantity}",'
            '"f":%d,"l":%d,"T":%d,"m":%s' + ("}" if futures else ',"M":true}')
        )

    def _number(self, decimals: int) -> tuple[int, str]:
        zeros = "0" * ((self.decimals or decimals) - decimals)
        return 10**decimals, f"%d.%0{decimals}d{zeros}"

    def trade(self, deal: Deal) -> bytes:
        """Return the data of a trade."""
        time = deal.time // 1_000
        whole, part = divmod(deal.price, self._price_unit)
        much, little = divmod(deal.quantity, self._quantity_unit)
        maker = "false" if deal.bought else "true"
        if self._futures:
            return (self._trade % (time, time, deal.id, whole, part, much, little, maker)).encode()
        return (self._trade % (time, deal.id, whole, part, much, little, time, maker)).encode()

    def aggregate(self, deal: Deal) -> bytes:
        """Return the data of a trade as an aggregate of one."""
        time, number = deal.time // 1_000, deal.id
        price = divmod(deal.price, self._price_unit)
        quantity = divmod(deal.quantity, self._quantity_unit)
        maker = "false" if deal.bought else "true"
        values = (time, number, *price, *quantity, number, number, time, maker)
        return (self._aggregate % values).encode()

    def depth(self, window: Window) -> bytes:
        """Return the data of a diff."""
        time, previous = window.end_ms, window.previous
        times = f'"E":{time},"T":{time}' if self._futures else f'"E":{time}'
        follows = f',"pu":{previous}' if self._futures else ""
        return (
            f'{{"e":"depthUpdate",{times},"s":"{self.native}","U":{window.first_id},'
            f'"u":{window.id}{follows},'
            f'"b":{self.levels(window.bids.items())},"a":{self.levels(window.asks.items())}}}'
        ).encode()

    def ticker(self, book: Book) -> bytes:
        """Return the data of the best bid and ask."""
        bid, ask = max(book.bids), min(book.asks)
        time = book.time // 1_000
        head = f'"e":"bookTicker","E":{time},"T":{time},' if self._futures else ""
        return (
            f'{{{head}"u":{book.id},"s":"{self.native}",'
            f'"b":"{self.price(bid)}","B":"{self.quantity(book.bids[bid])}",'
            f'"a":"{self.price(ask)}","A":"{self.quantity(book.asks[ask])}"}}'
        ).encode()

    def levels(self, levels: Iterable[Change]) -> str:
        """Return levels as JSON."""
        return f"[{','.join(self._level(price, quantity) for price, quantity in levels)}]"

    def _level(self, price: int, quantity: int) -> str:
        return f'["{self.price(price)}","{self.quantity(quantity)}"]'

    def price(self, units: int) -> str:
        """Return the text of a price."""
        return decimal_text(units, self.listing.price_decimals, self.decimals)

    def quantity(self, units: int) -> str:
        """Return the text of a quantity."""
        return decimal_text(units, self.listing.quantity_decimals, self.decimals)

    def worth(self, deal: Deal) -> str:
        """Return the text of price times quantity."""
        decimals = self.listing.price_decimals + self.listing.quantity_decimals
        return decimal_text(deal.price * deal.quantity, decimals, self.decimals)
