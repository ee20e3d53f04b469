"""One WebSocket connection over tornado's client: frames in bulk, and the word for why it ended.

It reads only while its owner keeps up: when too much waits, tornado is made to wait too, and TCP
holds the venue back. Nothing is dropped. Where tornado would give up a connection for one text
that is no UTF-8, that text is set aside with its cause and the frames around it go on.
"""

from __future__ import annotations

import asyncio
import contextlib
from typing import Any, Final
from urllib.parse import urlsplit

import httpx
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.simple_httpclient import HTTPStreamClosedError, HTTPTimeoutError
from tornado.tcpclient import TCPClient
from tornado.websocket import (
    WebSocketClientConnection,
    WebSocketClosedError,
    WebSocketError,
    WebSocketProtocol13,
)

from fxlab.collect.clock import Clock
from fxlab.collect.quarantine import SHOWN, Damaged
from fxlab.collect.rest import reason_of
from fxlab.collect.tunnel import Tunnel
from fxlab.errors import InvalidSettings
from fxlab.proxy import proxy_for, through

Frame = tuple[str | bytes, int]
"""Payload and its arrival in microseconds; bytes where it was no text."""

MOST_WAITING_BYTES: Final = 64 << 20
MOST_WAITING_FRAMES: Final = 200_000
TEXT: Final = 1
DATA: Final = frozenset({1, 2})
SPARE: Final = 4
"""How many times the largest message tornado may read, so that it can be set aside, not cut."""


class NotConnected(Exception):  # noqa: N818 - never shown as such
    """A connection was not made; its text says why."""


class Link:
    """One connection; `connect` makes it.

    Attributes
    ----------
    ended
        Why it ended, in words; None while it is open.
    last_arrival
        The event loop's time of the last frame, pings included.
    """

    def __init__(self, clock: Clock, max_message_bytes: int) -> None:
        self._clock, self._limit = clock, max_message_bytes
        self._loop = asyncio.get_running_loop()
        self._connection: Connection | None = None
        self._frames: list[Frame] = []
        self._waiting_bytes = 0
        self._news = asyncio.Event()
        self._gone = asyncio.Event()
        self._held: asyncio.Future[None] | None = None
        self.ended: str | None = None
        self.last_arrival = self._loop.time()

    @property
    def paused(self) -> bool:
        """Return whether the socket is left alone because too much waits."""
        return self._held is not None

    def touch(self) -> None:
        """Take note of a sign of life."""
        self.last_arrival = self._loop.time()

    async def take(self, most: int) -> list[Frame]:
        """Return what has arrived, at most so many; an empty list means that it ended."""
        while not self._frames and self.ended is None:
            self._news.clear()
            await self._news.wait()
        if len(self._frames) <= most:
            taken, self._frames = self._frames, []
            self._waiting_bytes = 0
        else:
            taken = self._frames[:most]
            del self._frames[:most]
        if not self._full():
            self._read_on()
        return taken

    def send(self, text: str) -> None:
        """Send a text; nothing happens on a connection that ended."""
        if self._connection is not None and self.ended is None:
            with contextlib.suppress(WebSocketClosedError):
                sent = self._connection.write_message(text)
                sent.add_done_callback(_forget)

    def drop(self, reason: str) -> None:
        """Cut the connection."""
        self._end(reason)
        if self._connection is not None:
            self._connection.cut()

    def adopt(self, connection: Connection) -> None:
        """Take note of the connection, now that it stands."""
        self._connection = connection

    async def shut(self) -> None:
        """Cut the connection and wait until nothing is left of it."""
        self.drop("closed here")
        if self._connection is not None:
            await self._gone.wait()
            self._connection.close()

    def heard(self, opcode: int, data: bytes) -> asyncio.Future[None] | None:
        """Keep a message; return what to wait for if no more should be read."""
        message: str | bytes = data
        if len(data) > self._limit:
            message = Damaged(data[:SHOWN], f"larger than {self._limit:,} bytes")
        elif opcode == TEXT:
            try:
                message = data.decode()
            except UnicodeDecodeError:
                message = Damaged(data, "not UTF-8")
        self._frames.append((message, self._clock.now()))
        self._waiting_bytes += len(data)
        self._news.set()
        if self._held is None and self.ended is None and self._full():
            self._held = self._loop.create_future()
        return self._held

    def _full(self) -> bool:
        return len(self._frames) >= MOST_WAITING_FRAMES or self._waiting_bytes >= MOST_WAITING_BYTES

    def _read_on(self) -> None:
        held, self._held = self._held, None
        if held is not None and not held.done():
            self.last_arrival = self._loop.time()
            held.set_result(None)

    def closed(self, code: int | None, reason: str | None) -> None:
        """Note that the connection is over; tornado calls this."""
        if code is None:
            self._end("cut by the venue: code 1006")
        else:
            self._end(f"closed by the venue: code {code} {reason or ''}".rstrip())
        self._gone.set()

    def _end(self, reason: str) -> None:
        if self.ended is None:
            self.ended = reason
        self._news.set()
        self._read_on()


class _Frames(WebSocketProtocol13):
    """Tornado's frames, except for what becomes of a message."""

    link: Link

    def _handle_message(self, opcode: int, data: bytes) -> asyncio.Future[None] | None:
        self.link.touch()
        if opcode in DATA and not self.client_terminated:
            return self.link.heard(opcode, data)
        answer: asyncio.Future[None] | None = super()._handle_message(opcode, data)
        return answer


class Connection(WebSocketClientConnection):
    """Tornado's connection, told apart from a link so that it can be given up half-made."""

    def __init__(
        self, request: HTTPRequest, link: Link, max_message_bytes: int, proxy: str | None
    ) -> None:
        self._link = link
        self._road = TCPClient() if proxy is None else Tunnel(urlsplit(proxy))
        super().__init__(
            request, on_message_callback=_ignore, max_message_size=SPARE * max_message_bytes
        )

    @property
    def tcp_client(self) -> TCPClient:
        """Return what connects; tornado would set its own."""
        return self._road

    @tcp_client.setter
    def tcp_client(self, _: TCPClient) -> None:
        """Keep ours."""

    def get_websocket_protocol(self) -> WebSocketProtocol13:
        """Return the protocol that hands messages to the link; tornado calls this."""
        protocol = _Frames(self, mask_outgoing=True, params=self.params)
        protocol.link = self._link
        return protocol

    def on_connection_close(self) -> None:
        """Tell the link; tornado calls this."""
        super().on_connection_close()
        self._link.closed(self.close_code, self.close_reason)

    def cut(self) -> None:
        """Close the socket without a word."""
        stream = getattr(self.protocol, "stream", None)
        if stream is not None:
            stream.close()

    def give_up(self) -> None:
        """Close a connection that is being made, now or as soon as it stands."""
        self.connect_future.add_done_callback(_forget)
        self.final_callback: Any = None
        stream = getattr(self, "stream", None)
        if stream is not None:
            stream.close()
        self.cut()
        self.protocol = None


async def connect(url: str, *, clock: Clock, seconds: float, max_message_bytes: int) -> Link:
    """Open a WebSocket.

    Parameters
    ----------
    url
        With scheme ws or wss.
    clock
        Stamps arrivals.
    seconds
        For the connection and the handshake.
    max_message_bytes
        Larger messages come out as `fxlab.collect.quarantine.Damaged`.

    Raises
    ------
    NotConnected
        With the reason in words.
    """
    link = Link(clock, max_message_bytes)
    request = HTTPRequest(
        url,
        connect_timeout=seconds,
        request_timeout=seconds,
        ssl_options=httpx.create_ssl_context() if url.startswith("wss:") else None,
        user_agent="fxlab",
    )
    try:
        connection = Connection(request, link, max_message_bytes, proxy_for(url))
    except InvalidSettings as error:
        raise NotConnected(str(error)) from error
    try:
        await asyncio.shield(connection.connect_future)
    except asyncio.CancelledError:
        connection.give_up()
        await asyncio.sleep(0)
        raise
    except Exception as error:
        connection.give_up()
        reason = _connect_words(error, urlsplit(url).netloc, seconds)
        raise NotConnected(f"{reason}{through(url)}") from error
    link.adopt(connection)
    return link


def _connect_words(error: Exception, host: str, seconds: float) -> str:
    if isinstance(error, HTTPTimeoutError):
        return f"{host} did not answer within {seconds:g} s"
    if isinstance(error, HTTPStreamClosedError):
        return f"{host} hung up during the handshake"
    if isinstance(error, HTTPClientError):
        return f"refused with HTTP {error.code} {error.message}"
    if isinstance(error, WebSocketError):
        return f"{host} does not speak WebSocket: {error}"
    reason = reason_of(error)
    return reason if reason.startswith("TLS") else f"{host} cannot be reached: {reason}"


def _forget(sent: asyncio.Future[Any]) -> None:
    """Look at a failure to send: that the connection ended is told elsewhere."""
    if not sent.cancelled():
        sent.exception()


def _ignore(_message: str | bytes | None) -> None:
    """Messages go another way; with no callback tornado would keep them in a queue."""
