"""Protocols of venues: what each provides to be served by the mock, and how its sockets are framed.

A protocol is pure: it turns market events into frames and requests into answers. Sockets, pacing,
faults and the fault log are the server's, so that each venue is one file and all of them misbehave
in the same ways.

A protocol is served under ``/<name>``: a path below it that is in `Protocol.sockets` becomes a
WebSocket, any other one is a REST request.

A `Socket` is framed by hand, over a connection taken from the HTTP server. A venue that misbehaves
on request needs what a library forbids: half a frame before the line goes dead, no answer to a
ping, many frames in one write. RFC 6455 asks little of a server.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import json
import struct
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Mapping
from typing import Any, ClassVar, Final, NamedTuple

from tornado.iostream import IOStream, StreamClosedError

from fxlab.mock._faults import FaultLog, Faults
from fxlab.mock._market import Book, Change, MarketEvent, MarketTrade, OpeningBook, Truth

PROTOCOLS: Final = {
    "binance": "fxlab.mock._protocols.binance:BinanceProtocol",
    "binance_futures": "fxlab.mock._protocols.binance:BinanceFuturesProtocol",
    "bybit": "fxlab.mock._protocols.bybit:BybitProtocol",
    "bybit_linear": "fxlab.mock._protocols.bybit:BybitLinearProtocol",
    "kraken": "fxlab.mock._protocols.kraken:KrakenProtocol",
    "mexc": "fxlab.mock._protocols.mexc:MexcProtocol",
    "okx": "fxlab.mock._protocols.okx:OkxProtocol",
    "okx_swap": "fxlab.mock._protocols.okx:OkxSwapProtocol",
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


def changed_levels(before: list[Change], after: list[Change]) -> list[Change]:
    """Return the changes of one side of a book, levels that are gone with quantity 0."""
    old, new = dict(before), dict(after)
    gone = [(price, 0) for price in old if price not in new]
    return gone + [change for change in after if old.get(change[0]) != change[1]]


FUNDING_US: Final = 8 * 3_600_000_000
"""Between two times of funding."""
LIQUIDATED: Final = 50
"""Every so many trades, one is told as a liquidation, too."""


def funding_rate(time: int) -> str:
    """Return the rate of the funding at a time (us), which is announced until then."""
    return f"{(time // FUNDING_US % 7 - 3) / 10_000:.8f}"


def next_funding(time: int) -> int:
    """Return the first time of funding after a time (us)."""
    return (time // FUNDING_US + 1) * FUNDING_US


def funded(since: int, until: int, most: int) -> list[int]:
    """Return the times of funding in a range, both ends included, as many of the last ones."""
    last = until // FUNDING_US
    return [n * FUNDING_US for n in range(max(-(-since // FUNDING_US), last - most), last + 1)]


TEXT: Final = 0x1
_CLOSE: Final = 0x8
_PING: Final = 0x9
_PONG: Final = 0xA
_MAGIC: Final = "258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
"""The GUID of RFC 6455, section 1.3."""
_LONGEST: Final = 1 << 20


class Socket:
    """One connection of a client, as its protocol sees it.

    Attributes
    ----------
    streams
        The keys of the streams it listens to, in the order they were asked for.
    notes
        What a protocol wants to remember about the connection.
    silent
        Nothing is sent while it is True, not even pongs; what should have been sent is lost.
    waiting
        Frames that go out with the next `flush`.
    backlog
        Bytes that the client has yet to take.
    """

    def __init__(
        self,
        stream: IOStream,
        subscribed: Callable[[Socket, str, str], None],
        unsubscribed: Callable[[Socket, str], None],
    ) -> None:
        self._stream = stream
        self._subscribed, self._unsubscribed = subscribed, unsubscribed
        self.streams: dict[str, None] = {}
        self.notes: dict[str, Any] = {}
        self.waiting: list[bytes] = []
        self.silent = False
        self.open = True
        self.backlog = 0

    def send(self, payload: str | bytes) -> None:
        """Send a text frame now."""
        data = payload.encode() if isinstance(payload, str) else payload
        self.waiting.append(framed(data))
        self.flush()

    def subscribe(self, stream: str, symbol: str) -> None:
        """Let the connection listen to a stream."""
        if stream not in self.streams:
            self.streams[stream] = None
            self._subscribed(self, stream, symbol)

    def unsubscribe(self, stream: str) -> None:
        """Let the connection listen to it no more."""
        if stream in self.streams:
            del self.streams[stream]
            self._unsubscribed(self, stream)

    def end(self, code: int, reason: str) -> None:
        """Close with a close frame."""
        if self.open:
            self._control(_CLOSE, struct.pack("!H", code) + reason.encode()[:120])
            self.hang_up()

    def ping(self) -> None:
        """Ask for a sign of life."""
        if self.open:
            self._control(_PING, b"")

    def flush(self) -> asyncio.Future[None] | None:
        """Write what waits; await the answer to know that the network took it."""
        if not self.waiting:
            return None
        data = b"".join(self.waiting)
        self.waiting.clear()
        return None if self.silent or not self.open else self._write(data)

    def cut(self, half: bytes = b"") -> None:
        """Lose the connection: everything before arrives, then half a frame, then nothing."""
        if self.open:
            self.flush()
            if half:
                self._write(framed(half)[: len(half) // 2])
            self.hang_up()

    def hang_up(self) -> None:
        """Close the socket once what was written has left."""
        self.open = False
        last = self._write(b"")
        if last is not None:
            last.add_done_callback(lambda _: self._stream.close())

    def abort(self) -> None:
        """Close the socket at once; what was written may be lost."""
        self.open = False
        self._stream.close()

    async def read(self, heard: Callable[[str], None]) -> None:
        """Hand over each text message until the connection ends."""
        try:
            while self.open:
                code, data = await self._message()
                if code == TEXT:
                    heard(data.decode(errors="replace"))
                elif code == _PING:
                    self._control(_PONG, data)
                elif code == _CLOSE:
                    self._control(_CLOSE, data[:2])
                    break
        except StreamClosedError:
            pass  # the usual end: the client went away
        finally:
            self.hang_up()

    def _control(self, code: int, data: bytes) -> None:
        if not self.silent:
            self._write(framed(data, code))

    def _write(self, data: bytes) -> asyncio.Future[None] | None:
        if self._stream.closed():
            return None
        self.backlog += len(data)
        written = self._stream.write(data)
        written.add_done_callback(lambda _: self._taken(len(data)))
        return written

    def _taken(self, count: int) -> None:
        self.backlog -= count

    async def _message(self) -> tuple[int, bytes]:
        head, data = await self._frame()
        code, parts = head & 0x0F, [data]
        while not head & 0x80:
            head, data = await self._frame()
            parts.append(data)
        return code, b"".join(parts)

    async def _frame(self) -> tuple[int, bytes]:
        head, length = await self._stream.read_bytes(2)
        masked, length = length & 0x80, length & 0x7F
        if length == 126:
            (length,) = struct.unpack("!H", await self._stream.read_bytes(2))
        elif length == 127:
            (length,) = struct.unpack("!Q", await self._stream.read_bytes(8))
        if not masked or length > _LONGEST:
            raise StreamClosedError
        mask = await self._stream.read_bytes(4)
        data = await self._stream.read_bytes(length) if length else b""
        return head, bytes(byte ^ mask[place & 3] for place, byte in enumerate(data))


def framed(data: bytes, code: int = TEXT) -> bytes:
    """Return a whole, unmasked frame."""
    length = len(data)
    if length < 126:
        return bytes((0x80 | code, length)) + data
    if length < 65_536:
        return struct.pack("!BBH", 0x80 | code, 126, length) + data
    return struct.pack("!BBQ", 0x80 | code, 127, length) + data


def handshake(key: str) -> bytes:
    """Return the answer to a client's request to speak websocket (RFC 6455, section 4.2.2)."""
    digest = hashlib.sha1((key + _MAGIC).encode(), usedforsecurity=False).digest()
    return (
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        b"Sec-WebSocket-Accept: " + base64.b64encode(digest) + b"\r\n\r\n"
    )
