"""WebSocket server connection (RFC 6455), framed by hand over a socket taken from the HTTP server.

A venue that misbehaves on request needs what a library forbids: half a frame before the line goes
dead, no answer to a ping, many frames in one write. RFC 6455 asks little of a server.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
import struct
from collections.abc import Callable
from typing import Any, Final

from tornado.iostream import IOStream, StreamClosedError

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
