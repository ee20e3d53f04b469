"""Best bids and asks of venues that tell only books."""

from __future__ import annotations

from fxlab.collect.feed import BookDelta, BookSnapshot, Message, Quote
from fxlab.collect.order_book import OrderBook


class BestPrices:
    """Makes quotes of the messages about books: one for each change of the best bid or ask."""

    def __init__(self) -> None:
        self._books: dict[str, OrderBook] = {}
        self._told: dict[str, tuple[float | None, ...]] = {}

    def of(self, messages: list[Message]) -> list[Message]:
        """Return the messages with quotes in place of snapshots and deltas."""
        found: list[Message] = []
        for message in messages:
            if isinstance(message, BookSnapshot | BookDelta):
                found += self._quote(message)
            else:
                found.append(message)
        return found

    def _quote(self, message: BookSnapshot | BookDelta) -> list[Message]:
        symbol = message.symbol
        book = self._books.setdefault(symbol, OrderBook())
        if isinstance(message, BookSnapshot):
            book.reset(message.bids, message.asks)
            self._told.pop(symbol, None)
        else:
            book.apply(message.bids, message.asks)
        best = bid, bid_qty, ask, ask_qty = book.top(1)
        if best == self._told.get(symbol):
            return []
        if bid is None or bid_qty is None or ask is None or ask_qty is None:
            return []
        self._told[symbol] = best
        update, time, received = message.update_id, message.time, message.received
        return [Quote(symbol, bid, bid_qty, ask, ask_qty, update, time, received)]
