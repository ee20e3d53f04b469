"""A tornado server of a few lines, in the test's own event loop: what a test's venue stands on."""

from __future__ import annotations

import asyncio
import contextlib

from tornado.httpserver import HTTPServer
from tornado.netutil import bind_sockets
from tornado.web import Application, RequestHandler
from tornado.websocket import WebSocketHandler


def raw_frame(payload, opcode=1, final=True):
    """Return a server's frame, written from the protocol's text alone."""
    data = payload.encode() if isinstance(payload, str) else payload
    head = bytes([(0x80 if final else 0) | opcode])
    if len(data) < 126:
        return head + bytes([len(data)]) + data
    if len(data) < 65_536:
        return head + b"\x7e" + len(data).to_bytes(2, "big") + data
    return head + b"\x7f" + len(data).to_bytes(8, "big") + data


class Socket(WebSocketHandler):
    """Hands each connection to a coroutine, with the texts that come in a list."""

    def initialize(self, script, log):  # noqa: D102
        self.script, self.log = script, log

    def open(self, *_):  # noqa: D102
        self.heard = []
        self.closed = False
        self.log.append(self)
        self.stream = self.ws_connection.stream
        # Beside it, because tornado listens only when `open` has returned.
        self.play = asyncio.ensure_future(self.script(self, len(self.log)))

    def on_close(self):  # noqa: D102
        self.closed = True
        self.play.cancel()

    def on_message(self, message):  # noqa: D102
        self.heard.append(message)

    async def send_raw(self, data):
        """Send bytes as they are."""
        await self.stream.write(data)

    def cut(self):
        """Close without a word."""
        self.stream.close()


class Page(RequestHandler):
    """Answers by a function of the request: (status, headers, body)."""

    def initialize(self, answer):  # noqa: D102
        self.answer = answer

    async def get(self, *_):  # noqa: D102
        status, headers, body = self.answer(self.request)
        self.set_status(status)
        for name, value in headers.items():
            self.set_header(name, value)
        self.finish(body)


@contextlib.asynccontextmanager
async def serving(*routes):
    """Serve routes of tornado's Application; yields host:port."""
    server = HTTPServer(Application(list(routes)))
    sockets = bind_sockets(0, "127.0.0.1")
    server.add_sockets(sockets)
    try:
        yield f"127.0.0.1:{sockets[0].getsockname()[1]}"
    finally:
        server.stop()
        await server.close_all_connections()


@contextlib.asynccontextmanager
async def saying(answer, *, hang_up=False):
    """Serve bytes to everybody, whatever is asked; yields host:port and the talks so far."""
    talks = []

    async def talk(reader, writer):
        talks.append(asyncio.current_task())
        with contextlib.suppress(ConnectionError):
            await reader.read(1_000)
            writer.write(answer)
            await writer.drain()
            if not hang_up:
                await reader.read()
        writer.close()
        with contextlib.suppress(ConnectionError):
            await writer.wait_closed()

    server = await asyncio.start_server(talk, "127.0.0.1", 0)
    async with server:
        yield f"127.0.0.1:{server.sockets[0].getsockname()[1]}", talks
        await asyncio.gather(*talks)


def socket_route(path, script, log):
    """Return a route of a WebSocket whose connections run a coroutine function."""
    return path, Socket, {"script": script, "log": log}


def page_route(path, answer):
    """Return a route whose answers a function makes."""
    return path, Page, {"answer": answer}
