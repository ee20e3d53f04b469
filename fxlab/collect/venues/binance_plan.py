"""Which streams go over which connections: as few as Binance's limits allow."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Final

from fxlab.collect.book_sync import QuoteStream, SyncedBook
from fxlab.collect.feed import Subscription

MOST_STREAMS: Final = 1024
"""Of one connection, as documented."""
STREAMS_AT_ONCE: Final = 256


@dataclass(frozen=True, slots=True)
class Terms:
    """What differs between Binance's markets.

    Attributes
    ----------
    trade_stream
        Name of the stream of trades.
    trade_path, book_path
        Paths of the sockets.
    snapshot_levels
        The most levels that a snapshot may have.
    """

    trade_stream: str
    trade_path: str
    book_path: str
    snapshot_levels: int


@dataclass(slots=True)
class Line:
    """One connection and what it carries."""

    path: str
    streams: list[str]
    quotes: list[QuoteStream] = field(default_factory=list)
    books: list[SyncedBook] = field(default_factory=list)
    opened: bool = False
    lost: str | None = None
    """Why it was lost, until it is open again."""

    @property
    def keepers(self) -> list[SyncedBook | QuoteStream]:
        """Return all that has to be told when the connection is lost."""
        return [*self.books, *self.quotes]


def plan(terms: Terms, wanted: Subscription) -> list[Line]:
    """Return the connections for a subscription."""
    lines: list[Line] = []
    for one in wanted.instruments:
        name = one.native.lower()
        if wanted.trades:
            _line(lines, terms.trade_path, f"{name}@{terms.trade_stream}")
        if wanted.book_depth == 1:
            line = _line(lines, terms.book_path, f"{name}@bookTicker")
            line.quotes.append(QuoteStream(one.symbol))
        elif wanted.book_depth:
            line = _line(lines, terms.book_path, f"{name}@depth@100ms")
            line.books.append(SyncedBook(one.symbol))
    return lines


def _line(lines: list[Line], path: str, stream: str) -> Line:
    """Return the connection that carries a stream from now on."""
    for line in lines:
        if line.path == path and len(line.streams) < MOST_STREAMS:
            line.streams.append(stream)
            return line
    lines.append(Line(path, [stream]))
    return lines[-1]


def subscriptions(streams: list[str]) -> list[str]:
    """Return the requests for streams, few enough for the venue's limit of messages a second."""
    parts = range(0, len(streams), STREAMS_AT_ONCE)
    return [
        json.dumps(
            {"method": "SUBSCRIBE", "params": streams[at : at + STREAMS_AT_ONCE], "id": number}
        )
        for number, at in enumerate(parts, start=1)
    ]
