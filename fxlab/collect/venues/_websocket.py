"""Reconnecting WebSocket client: back-off, silence watchdog, proxy tunnel, frames in bulk.

`WebSocketConnection` is one connection over tornado's client, with the reason why it ended. It
reads only while its owner keeps up: when too much waits, tornado is made to wait too, and TCP holds
the venue back. Nothing is dropped. Where tornado would give up a connection for one text that is
not UTF-8, that text is set aside with its cause and the frames around it go on. `Tunnel` goes
through an HTTP proxy, which tornado's client does not know.

`ReconnectingWebSocket` makes a connection again when it is cut, silent or refused, until it is
stopped. What happened to it comes out between the frames, in order, so that a feed knows exactly
after which message something may be lost. Where the end of a connection is known beforehand, the
next one is made while it lasts, until one delivers; what both of them bring comes twice.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import itertools
import logging
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import SplitResult, unquote, urlsplit

import httpx
from tornado.httpclient import HTTPClientError, HTTPRequest
from tornado.iostream import IOStream
from tornado.simple_httpclient import HTTPStreamClosedError, HTTPTimeoutError
from tornado.tcpclient import TCPClient
from tornado.websocket import (
    WebSocketClientConnection,
    WebSocketClosedError,
    WebSocketError,
    WebSocketProtocol13,
)

from fxlab._network import proxy_for, through, wait_before
from fxlab.collect.feed import SHOWN, Clock, Damaged
from fxlab.collect.venues._rest import reason_of
from fxlab.errors import InvalidSettings


class Tunnel(TCPClient):
    """Connects through an HTTP proxy, which tornado's own client does not know."""

    def __init__(self, proxy: SplitResult) -> None:
        super().__init__()
        self._proxy = proxy

    async def connect(  # type: ignore[override]  # of tornado's arguments, those its client gives
        self,
        host: str,
        port: int,
        *,
        ssl_options: Any = None,  # noqa: ANN401 - as tornado's
        timeout: float | None = None,  # noqa: ASYNC109 - as tornado's
        **options: Any,  # noqa: ANN401 - as tornado's
    ) -> IOStream:
        """Return a stream to the host; tornado calls this."""
        proxy = self._proxy
        stream = await super().connect(
            proxy.hostname or "", proxy.port or 80, timeout=timeout, **options
        )
        try:
            await self._ask(stream, f"[{host}]:{port}" if ":" in host else f"{host}:{port}")
            if ssl_options is None:
                return stream
            return await stream.start_tls(
                server_side=False, ssl_options=ssl_options, server_hostname=host
            )
        except BaseException:
            stream.close()
            raise

    async def _ask(self, stream: IOStream, where: str) -> None:
        login = _proxy_login(self._proxy)
        await stream.write(f"CONNECT {where} HTTP/1.1\r\nHost: {where}\r\n{login}\r\n".encode())
        answer = await stream.read_until(b"\r\n\r\n", max_bytes=65_536)
        first = answer.partition(b"\r\n")[0].decode("latin-1")
        if first.split(" ", 2)[1:2] != ["200"]:
            raise ConnectionError(f"the proxy answers {first[:100]!r}")


def _proxy_login(proxy: SplitResult) -> str:
    if proxy.username is None:
        return ""
    words = f"{unquote(proxy.username)}:{unquote(proxy.password or '')}"
    return f"Proxy-Authorization: Basic {base64.b64encode(words.encode()).decode()}\r\n"


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


class WebSocketConnection:
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

    async def delivers(self) -> bool:
        """Return whether something has arrived, once it has or the connection has ended."""
        while not self._frames and self.ended is None:
            self._news.clear()
            await self._news.wait()
        return self.ended is None

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

    link: WebSocketConnection

    def _handle_message(self, opcode: int, data: bytes) -> asyncio.Future[None] | None:
        self.link.touch()
        if opcode in DATA and not self.client_terminated:
            return self.link.heard(opcode, data)
        answer: asyncio.Future[None] | None = super()._handle_message(opcode, data)
        return answer


class Connection(WebSocketClientConnection):
    """Tornado's connection, apart from a link so that it can be given up half-made."""

    def __init__(
        self,
        request: HTTPRequest,
        link: WebSocketConnection,
        max_message_bytes: int,
        proxy: str | None,
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
        """Close the socket at once, without a close frame."""
        stream = getattr(self.protocol, "stream", None)
        if stream is not None:
            stream.close()

    def give_up(self) -> None:
        """Close a connection that is being made, now or as soon as it stands."""
        self.connect_future.add_done_callback(self._end)
        self.final_callback: Any = None
        stream = getattr(self, "stream", None)
        if stream is not None:
            stream.close()
        self.cut()
        self.protocol = None

    def _end(self, made: asyncio.Future[Any]) -> None:
        """End what was given up while it was being made, and now stands or has failed."""
        _forget(made)
        self.cut()
        self.protocol = None


async def connect(
    url: str, *, clock: Clock, seconds: float, max_message_bytes: int
) -> WebSocketConnection:
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
        Larger messages come out as `fxlab.collect.feed.Damaged`.

    Raises
    ------
    NotConnected
        With the reason in words.
    """
    link = WebSocketConnection(clock, max_message_bytes)
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
    """Retrieve a failure to send: that the connection ended is reported elsewhere."""
    if not sent.cancelled():
        sent.exception()


def _ignore(_message: str | bytes | None) -> None:
    """Messages go another way; with no callback tornado would keep them in a queue."""


_log: Final = logging.getLogger(__name__)

FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 10.0
LONGEST_WAIT_AFTER_DATA: Final = 1.0
"""Seconds; a client cut while data flows comes back soon, yet not more often than venues allow."""
SETTLED: Final = 10.0
"""Seconds after which a connection that delivered counts as a good one."""
OVERLAP: Final = 5.0
"""Seconds for which a connection goes on beside the one that is to replace it."""
MOST_AT_ONCE: Final = 4_096
MAX_MESSAGE_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class ConnectionOpened:
    """The connection stands and the opening messages were sent.

    Attributes
    ----------
    number
        1 for the first time.
    time
        In microseconds.
    """

    number: int
    time: int


@dataclass(frozen=True, slots=True)
class ConnectionClosed:
    """The connection was lost, or an attempt to make it failed.

    Attributes
    ----------
    reason
        In words, such as "silent for 30 s".
    time
        In microseconds.
    """

    reason: str
    time: int


Arrival = ConnectionOpened | ConnectionClosed | list[Frame]


class ReconnectingWebSocket:
    """A WebSocket that reconnects, with back-off, until it is closed.

    Parameters
    ----------
    url
        With scheme ws or wss.
    clock
        Stamps arrivals.
    opening
        Returns the texts to send after each connect.
    silence
        Seconds without a single byte, pings included, after which the connection is given up.
    heartbeat
        A text and every how many seconds it is sent, so that a venue with nothing to tell answers.
    lifetime
        Seconds after which the venue ends a connection; it is renewed before that.
    max_message_bytes
        A larger message is skipped and comes out as `fxlab.collect.feed.Damaged`.
    timeout
        Seconds for connecting.
    rng
        Draws the jitter of the waits between attempts.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        opening: Callable[[], Sequence[str]] = tuple,
        silence: float = 30.0,
        heartbeat: tuple[str, float] | None = None,
        lifetime: float | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        timeout: float = 10.0,
        rng: random.Random | None = None,
    ) -> None:
        self.url = url
        self._clock = clock
        self._opening = opening
        self._silence = silence
        self._heartbeat = heartbeat
        self._lifetime = lifetime
        self._max_message_bytes = max_message_bytes
        self._timeout = timeout
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._link: WebSocketConnection | None = None
        self._next: WebSocketConnection | None = None
        self._standby: WebSocketConnection | None = None  # delivers while the first one lasts
        self._renewal: asyncio.Task[None] | None = None
        self._attempts = 0
        self._delivered = False

    async def arrivals(self) -> AsyncGenerator[Arrival, None]:
        """Yield what arrives; frames that arrived together come as one list.

        Closing or cancelling it closes the socket.
        """
        number = 0
        try:
            while True:
                self._delivered = False
                try:
                    self._next = self._link = await self._connect()
                except NotConnected as error:
                    _log.debug("no connection to %s: %s", self.url, error)
                    yield ConnectionClosed(str(error), self._clock.now())
                else:
                    number += 1
                    yield ConnectionOpened(number, self._clock.now())
                    while (link := self._next) is not None:
                        self._next = None
                        async with contextlib.aclosing(self._frames(link)) as arrivals:
                            async for frames in arrivals:
                                yield frames
                        ended = link.ended or ""
                    yield ConnectionClosed(ended, self._clock.now())
                await asyncio.sleep(self._wait())
        finally:
            await self._stop_renewal()
            if self._next is not None:
                await self._next.shut()

    def renew(self) -> None:
        """Make a second connection beside the one that stands, and leave that for it."""
        if self._link is not None and self._renewal is None:
            self._renewal = asyncio.ensure_future(self._renew(self._link))

    async def send(self, text: str) -> None:
        """Send a text now; without a connection nothing is sent, as `opening` will say it all."""
        if self._link is not None:
            self._link.send(text)

    def drop(self, reason: str) -> None:
        """Cut the connection, so that it is made again."""
        if self._link is not None:
            self._link.drop(reason)

    async def _connect(self) -> WebSocketConnection:
        """Return a connection that has been told what to send."""
        link = await connect(
            self.url,
            clock=self._clock,
            seconds=self._timeout,
            max_message_bytes=self._max_message_bytes,
        )
        for text in self._opening():
            link.send(text)
        return link

    async def _frames(self, link: WebSocketConnection) -> AsyncGenerator[list[Frame], None]:
        """Yield the frames of a connection until it ends."""
        self._link = link
        loop = asyncio.get_running_loop()
        start = loop.time()
        guards = [asyncio.ensure_future(self._watch(link))]
        if self._heartbeat is not None:
            guards.append(asyncio.ensure_future(_beat(link, *self._heartbeat)))
        if self._lifetime is not None:
            guards.append(asyncio.ensure_future(self._renew_after(self._lifetime)))
        _log.debug("a connection to %s is open", self.url)
        try:
            while frames := await link.take(MOST_AT_ONCE):
                self._delivered = True
                yield frames
            if self._delivered and loop.time() - start > SETTLED:
                self._attempts = 0
            _log.debug("a connection to %s has ended: %s", self.url, link.ended)
        finally:
            self._link = None
            for guard in guards:
                guard.cancel()
            await asyncio.gather(*guards, return_exceptions=True)
            await link.shut()
            if self._next is None and self._standby is not None and self._standby.ended is None:
                self._next = self._standby  # it has what came since the old one was cut
            await self._stop_renewal()

    async def _renew_after(self, seconds: float) -> None:
        await asyncio.sleep(seconds)
        self.renew()

    async def _renew(self, old: WebSocketConnection) -> None:
        """Have a new connection take over; one that fails is made again while the old one lasts."""
        try:
            for attempt in itertools.count():
                if await self._take_over(old):
                    break
                await asyncio.sleep(wait_before(attempt, FIRST_WAIT, LONGEST_WAIT, self._rng))
        finally:
            self._renewal = None

    async def _take_over(self, old: WebSocketConnection) -> bool:
        """Replace a connection once another one delivers, and a little later; say if it was."""
        fresh = None
        try:
            fresh = await self._connect()
            if self._heartbeat is not None:  # a quiet market is no reason to doubt it
                fresh.send(self._heartbeat[0])
            async with asyncio.timeout(self._silence):
                if await fresh.delivers():
                    self._standby = fresh
            await asyncio.sleep(OVERLAP * (fresh.ended is None))
            if fresh.ended is None:
                self._next = fresh
                old.drop("renewed")
        except (NotConnected, TimeoutError) as error:
            _log.debug("no second connection to %s: %s", self.url, error)
        finally:
            self._standby = None
            if fresh is not None and fresh is not self._next:
                await fresh.shut()
        return self._next is not None

    async def _stop_renewal(self) -> None:
        """Give up a second connection that has not taken over."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)

    async def _watch(self, link: WebSocketConnection) -> None:
        """Drop a connection that has gone silent."""
        loop = asyncio.get_running_loop()
        while True:
            quiet = loop.time() - link.last_arrival
            if quiet >= self._silence and not link.paused:
                link.drop(f"silent for {self._silence:g} s")
                return
            await asyncio.sleep(self._silence if link.paused else self._silence - quiet)

    def _wait(self) -> float:
        """Return the seconds until the next attempt; they grow while no connection lasts."""
        longest = LONGEST_WAIT_AFTER_DATA if self._delivered else LONGEST_WAIT
        self._attempts += 1
        return wait_before(self._attempts - 1, FIRST_WAIT, longest, self._rng)


async def _beat(link: WebSocketConnection, text: str, every: float) -> None:
    while link.ended is None:
        await asyncio.sleep(every)
        link.send(text)
