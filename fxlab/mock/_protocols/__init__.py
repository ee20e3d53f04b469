"""Protocols of venues: what each provides to be served by the mock, and which there are.

A protocol is pure: it turns market events into frames and requests into answers. Sockets, pacing,
faults and the fault log are the server's, so that each venue is one file and all of them misbehave
in the same ways.

A protocol is served under ``/<name>``: a path below it that is in `Protocol.sockets` becomes a
WebSocket, any other one is a REST request.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final, NamedTuple

from fxlab.mock._faults import FaultLog, Faults
from fxlab.mock._market import Book, MarketEvent, MarketTrade, OpeningBook, Truth
from fxlab.mock._sockets import Socket

PROTOCOLS: Final = {
    "binance": "fxlab.mock._protocols.binance:BinanceProtocol",
    "binance_futures": "fxlab.mock._protocols.binance:BinanceFuturesProtocol",
    "bybit": "fxlab.mock._protocols.bybit:BybitProtocol",
    "bybit_linear": "fxlab.mock._protocols.bybit:BybitLinearProtocol",
    "kraken": "fxlab.mock._protocols.kraken:KrakenProtocol",
    "mexc": "fxlab.mock._protocols.mexc:MexcProtocol",
}
"""Each is loaded when it is served."""

Query = Mapping[str, str]
"""The last value of each parameter of a REST question."""


class Answer(NamedTuple):
    """What a REST question gets."""

    body: bytes
    status: int = 200
    headers: Mapping[str, str] = {}

    @classmethod
    def of(cls, value: Any, status: int = 200) -> Answer:  # noqa: ANN401 - any JSON
        """Build an answer from a value that JSON can say."""
        return cls(compact(value), status)


class World:
    """What protocols may ask about the venue they are served by.

    Attributes
    ----------
    truth
        Everything that happened until now: trades by id, and the books.
    listings
        What is traded, by fxlab's symbol.
    delisted
        Symbols that are traded no more, and the time (us) of their end.
    now
        Returns the venue's clock in microseconds.
    """

    def __init__(
        self, truth: Truth, faults: Faults, ledger: FaultLog, now: Callable[[], int]
    ) -> None:
        self.truth = truth
        self.listings = truth.listings
        self.delisted: dict[str, int] = {}
        self.now = now
        self._ledger = ledger
        self._stale = faults.stale_snapshots
        self._bad_history = faults.bad_history

    def past(self, deals: list[MarketTrade]) -> list[MarketTrade]:
        """Return trades as answers tell them: bad ones have neither price nor quantity."""
        every = self._bad_history
        bad = [deal.id for deal in deals if every is not None and deal.id % every == 0]
        if not bad:
            return deals
        self._ledger.add("bad_history", ids=bad, time=self.now())
        spoiled = frozenset(bad)
        return [
            deal._replace(price=0, quantity=0) if deal.id in spoiled else deal for deal in deals
        ]

    def book(self, symbol: str) -> Book:
        """Return the book, or while stale snapshots are left, one from before the first event."""
        book = self.truth.books[symbol]
        book.time = book.time or self.now()
        if not self._stale:
            return book
        self._stale -= 1
        old = Book(OpeningBook(self.truth.openings[symbol].id - 1_000, book.bids, book.asks))
        old.time = book.time - 60_000_000
        self._ledger.add("stale_snapshot", symbol=symbol, id=old.id, time=self.now())
        return old


class Protocol(ABC):
    """A venue's way of speaking.

    Attributes
    ----------
    name
        The venue's name in fxlab, and the first part of every path.
    sockets
        Paths of websockets below the name; one that ends with ``/*`` stands for all below it.
    used
        The header in which it says how much of its rate limit was spent; "" for none.
    notice
        What it sends before a server ends its connections; b"" for nothing.
    listened
        How many connections listen to each stream. `encode` makes frames only for those; the
        server keeps it.
    """

    name: ClassVar[str]
    sockets: ClassVar[tuple[str, ...]]
    used: ClassVar[str] = ""
    notice: ClassVar[bytes] = b""

    def __init__(self, world: World) -> None:
        self.world = world
        self.listened: dict[str, int] = {}

    @abstractmethod
    def encode(self, event: MarketEvent) -> Iterable[tuple[str, bytes]]:
        """Return the frames that an event causes: the key of a stream, and the text as UTF-8.

        It is called once for each event while any stream of the protocol is listened to,
        after the event became part of `World.truth`.
        """

    @abstractmethod
    def answer(self, path: str, query: Query) -> Answer | None:
        """Return the answer to a REST question, None for a path that the venue does not have."""

    def cost(self, path: str, query: Query) -> float:  # noqa: ARG002 - one for most
        """Return what a REST question costs of the rate limit."""
        return 1.0

    def opened(self, session: Socket, path: str, query: Query) -> None:  # noqa: B027
        """Greet a new connection, or subscribe it to what its address names."""

    @abstractmethod
    def heard(self, session: Socket, text: str) -> None:
        """React to a text frame of a client; one that is nonsense gets the venue's error."""

    def begin(self, stream: str, symbol: str) -> None:  # noqa: B027 - most have nothing to forget
        """Take note of the first listener of a stream."""

    def finish(self) -> Iterable[tuple[str, bytes]]:
        """Return the frames that were yet to be sent when the market ends."""
        return ()

    @abstractmethod
    def describe(self, frame: bytes) -> dict[str, Any]:
        """Return what the ledger should know of a frame with a fault: its update ids."""

    def delist(self, symbol: str) -> Iterable[tuple[str, bytes]]:  # noqa: ARG002 - most say nothing
        """Return the frames that tell listeners that a symbol is traded no more."""
        return ()


def compact(value: Any) -> bytes:  # noqa: ANN401 - any JSON
    """Return JSON as venues write it: no spaces, UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
