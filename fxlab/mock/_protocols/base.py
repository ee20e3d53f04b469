"""Protocol interface: what a venue's protocol provides to be served by the mock venue.

A protocol is pure: it turns market events into frames and requests into answers. Sockets, pacing,
faults and the fault log are the server's, so that each venue is one file and all of them misbehave
in the same ways.

A protocol is served under ``/<name>``: a path below it that is in `Protocol.sockets` becomes a
WebSocket, any other one is a REST request.
"""

from __future__ import annotations

import json
from abc import ABC, abstractmethod
from collections.abc import Iterable, Mapping
from typing import Any, ClassVar, NamedTuple
from typing import Protocol as Shape

from fxlab.mock._market import Book, Listing, MarketEvent, Truth

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


class ClientSession(Shape):
    """One websocket connection, as a protocol sees it."""

    @property
    def streams(self) -> Mapping[str, None]:
        """The keys of the streams it listens to, in the order they were asked for."""

    @property
    def notes(self) -> dict[str, Any]:
        """Whatever a protocol wants to remember about the connection."""

    def send(self, payload: str | bytes) -> None:
        """Send a text frame to this connection only: an acknowledgement, a pong, a snapshot."""

    def subscribe(self, stream: str, symbol: str) -> None:
        """Let it listen to a stream from the next event on; the first one starts the market."""

    def unsubscribe(self, stream: str) -> None:
        """Let it listen no more."""

    def end(self, code: int, reason: str) -> None:
        """Close it as the venue would, with a close frame."""


class MarketView(Shape):
    """What a protocol may ask about the venue it is served by."""

    @property
    def listings(self) -> Mapping[str, Listing]:
        """What is traded, by fxlab's symbol."""

    @property
    def truth(self) -> Truth:
        """Everything that happened until now: trades by id, and the books."""

    @property
    def delisted(self) -> Mapping[str, int]:
        """Symbols that are traded no more, and the time (us) of their end."""

    def book(self, symbol: str) -> Book:
        """Return a symbol's book for a snapshot somebody asked for; by a fault it is an old one."""

    def now(self) -> int:
        """Return the venue's clock in microseconds."""


class Protocol(ABC):
    """A venue's way of speaking.

    Attributes
    ----------
    name
        The venue's name in fxlab, and the first part of every path.
    sockets
        Paths of websockets below the name; one that ends with ``/*`` stands for all below it.
    listened
        How many connections listen to each stream. `encode` makes frames only for those; the
        server keeps it.
    """

    name: ClassVar[str]
    sockets: ClassVar[tuple[str, ...]]

    def __init__(self, world: MarketView) -> None:
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

    def opened(self, session: ClientSession, path: str, query: Query) -> None:  # noqa: B027
        """Greet a new connection, or subscribe it to what its address names."""

    @abstractmethod
    def heard(self, session: ClientSession, text: str) -> None:
        """React to a text frame of a client; one that is nonsense gets the venue's error."""

    def begin(self, stream: str, symbol: str) -> None:  # noqa: B027 - most have nothing to forget
        """Take note that somebody is about to listen to a stream that nobody listened to."""

    def finish(self) -> Iterable[tuple[str, bytes]]:
        """Return the frames that were yet to be sent when the market ends."""
        return ()

    def tells_deals(self, stream: str) -> bool:
        """Return whether a stream carries trades; by default, if its key says trade or deal."""
        return "trade" in stream.lower() or "deal" in stream

    def describe(self, frame: bytes) -> dict[str, Any]:
        """Return what the ledger should know of a frame that a fault befell: its update ids."""
        del frame
        return {}

    def delist(self, symbol: str) -> Iterable[tuple[str, bytes]]:
        """Return the frames that tell listeners that a symbol is traded no more."""
        del symbol
        return ()


def compact(value: Any) -> bytes:  # noqa: ANN401 - any JSON
    """Return JSON as venues write it: no spaces, UTF-8."""
    return json.dumps(value, separators=(",", ":"), ensure_ascii=False).encode()
