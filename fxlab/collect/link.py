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
from tornado.websocket import (
    WebSocketClientConnection,
    WebSocketClosedError,
    WebSocketError,
    websocket_connect,
)

from fxlab.collect.clock import Clock
from fxlab.collect.quarantine import SHOWN, Damaged
from fxlab.collect.rest import reason_of

Frame = tuple[str | bytes, int]
"""Payload and its arrival in microseconds; bytes where it was no text."""

MOST_WAITING_BYTES: Final = 64 << 20
MOST_WAITING_FRAMES: Final = 200_000
TEXT: Final = 1
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
        self._connection: WebSocketClientConnection | None = None
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
        protocol: Any = self._connection and self._connection.protocol
        if protocol is not None:
            protocol.stream.close()

    async def shut(self) -> None:
        """Cut the connection and wait until nothing is left of it."""
        self.drop("closed here")
        if self._connection is not None:
            await self._gone.wait()
            self._connection.close()

    def adopt(self, connection: WebSocketClientConnection) -> None:
        """Take over tornado's connection, so that it waits when we are full."""
        self._connection = connection
        protocol: Any = connection.protocol
        if protocol is None:
            return
        usual = protocol._handle_message  # noqa: SLF001 - decides what becomes of a text

        def handle(opcode: int, data: bytes) -> asyncio.Future[None] | None:
            self.last_arrival = self._loop.time()
            if opcode != TEXT or protocol.client_terminated:
                answer: asyncio.Future[None] | None = usual(opcode, data)
                return answer or self._held
            return self._keep(data)

        protocol._handle_message = handle  # noqa: SLF001

    def heard(self, message: str | bytes | None) -> None:
        """Take a frame, or None for the end; tornado calls this."""
        if message is None:
            self._closed()
        else:
            self._keep(message.encode() if isinstance(message, str) else message, message)

    def _keep(self, data: bytes, message: str | bytes | None = None) -> asyncio.Future[None] | None:
        """Keep a message; return what to wait for if no more should be read."""
        if len(data) > self._limit:
            message = Damaged(data[:SHOWN], f"larger than {self._limit:,} bytes")
        elif message is None:
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

    def _closed(self) -> None:
        connection = self._connection
        code = connection.close_code if connection is not None else None
        if connection is None or code is None:
            self._end("cut by the venue: code 1006")
        else:
            reason = f"closed by the venue: code {code} {connection.close_reason or ''}"
            self._end(reason.rstrip())
        self._gone.set()

    def _end(self, reason: str) -> None:
        if self.ended is None:
            self.ended = reason
        self._news.set()
        self._read_on()


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
    attempt = asyncio.ensure_future(
        websocket_connect(
            request, on_message_callback=link.heard, max_message_size=SPARE * max_message_bytes
        )
    )
    try:
        link.adopt(await asyncio.shield(attempt))
    except asyncio.CancelledError:
        await _give_up(attempt, link)
        raise
    except Exception as error:
        raise NotConnected(_connect_words(error, urlsplit(url).netloc, seconds)) from error
    return link


async def _give_up(attempt: asyncio.Future[WebSocketClientConnection], link: Link) -> None:
    """Close a connection that is being made, if it is made soon; else when it is made."""

    def close(done: asyncio.Future[WebSocketClientConnection]) -> None:
        if not done.cancelled() and done.exception() is None:
            link.adopt(done.result())
            link.drop("closed here")

    attempt.add_done_callback(close)
    await asyncio.wait({attempt}, timeout=1.0)
    await asyncio.sleep(0)
    if attempt.done():
        await link.shut()


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


def _forget(sent: asyncio.Future[None]) -> None:
    """Look at a failure to send: that the connection ended is told elsewhere."""
    if not sent.cancelled():
        sent.exception()
