"""The HTTP door of the mock venue: REST questions, websockets, and the ledger.

``/<venue>/...`` goes to that venue's protocol; ``/ledger`` shows what was done wrong and what
happened; ``/truth/<symbol>?from_id=&limit=`` shows the trades themselves. ``POST /cut``,
``/stall`` and ``/speak`` make trouble by hand, for a venue in another process.
"""

from __future__ import annotations

import asyncio
import http.client
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Final
from urllib.parse import parse_qsl

from tornado.http1connection import HTTP1Connection
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine

from fxlab.mock.protocols.base import Answer, Query
from fxlab.mock.sessions import Socket, handshake

if TYPE_CHECKING:
    from fxlab.mock.floor import Floor
    from fxlab.mock.outlet import Outlet
    from fxlab.mock.truth import Deals

_PATIENCE: Final = 1.0


class Door:
    """Takes each request to whom it concerns."""

    def __init__(self, floor: Floor) -> None:
        self._floor = floor
        self._errors = RestErrors(floor.faults.rest_errors)
        self._reading: dict[asyncio.Task[None], Socket] = {}

    def __call__(self, request: HTTPServerRequest) -> None:
        """Answer a request."""
        _, name, path = (request.path + "/").split("/", 2)
        path = "/" + path.removesuffix("/")
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        outlet = self._floor.outlets.get(name)
        if outlet is None:
            _reply(request, self._own(name, path, query, request.method or ""))
        elif "websocket" in request.headers.get("Upgrade", "").lower():
            self._connect(request, outlet, path, query)
        else:
            _reply(request, self._ask(outlet, path, query))

    def _own(self, name: str, path: str, query: Query, method: str) -> Answer:
        floor = self._floor
        switches: dict[str, Callable[[], None]] = {
            "cut": floor.cut,
            "stall": lambda: floor.hush(silent=True),
            "speak": lambda: floor.hush(silent=False),
        }
        if method == "POST" and (switch := switches.get(name)):
            switch()
            return Answer.of({})
        if name == "ledger":
            return Answer.of(floor.state())
        if name == "truth" and (deals := floor.truth.deals.get(path.strip("/"))) is not None:
            return _shown(deals, query)
        known = ", ".join(floor.outlets)
        return Answer.of({"error": f"no {name!r} here; this mock serves {known}"}, 404)

    def _ask(self, outlet: Outlet, path: str, query: Query) -> Answer:
        if (error := self._errors.take(path)) is not None:
            self._floor.ledger.add(
                "rest_error", venue=outlet.protocol.name, path=path, status=error.status
            )
            return error
        answer = outlet.protocol.answer(path, query)
        return answer or Answer.of({"error": f"no such path: {path}"}, 404)

    def _connect(self, request: HTTPServerRequest, outlet: Outlet, path: str, query: Query) -> None:
        key = request.headers.get("Sec-WebSocket-Key")
        if not key or not _among(path, outlet.protocol.sockets):
            _reply(request, Answer.of({"error": f"no websocket at {path}"}, 404))
            return
        connection = request.connection
        assert isinstance(connection, HTTP1Connection)  # noqa: S101 - there is no other kind
        stream = connection.detach()
        stream.set_nodelay(True)
        stream.write(handshake(key))
        socket = Socket(stream, outlet.subscribed, outlet.unsubscribed)
        socket.silent = outlet.silent
        outlet.sockets.add(socket)
        outlet.protocol.opened(socket, path, query)
        task = asyncio.get_running_loop().create_task(self._read(socket, outlet))
        self._reading[task] = socket
        task.add_done_callback(self._reading.pop)

    async def _read(self, socket: Socket, outlet: Outlet) -> None:
        try:
            await socket.read(lambda text: outlet.protocol.heard(socket, text))
        finally:
            outlet.gone(socket)

    async def close(self) -> None:
        """End all connections; those who do not take what was sent lose it after a second."""
        reading = dict(self._reading)
        for socket in reading.values():
            socket.flush()
            socket.hang_up()
        if reading:
            await asyncio.wait(reading, timeout=_PATIENCE)
        for socket in reading.values():
            socket.abort()
        await asyncio.gather(*reading, return_exceptions=True)


class RestErrors:
    """REST answers that are replaced, so many of each kind."""

    def __init__(self, wanted: Mapping[str, int]) -> None:
        self._left = dict(wanted)

    def take(self, path: str) -> Answer | None:
        """Return the next error that a path is to get, None if it is to be answered."""
        for kind, left in self._left.items():
            what, _, part = kind.partition(" ")
            if left > 0 and part in path:
                self._left[kind] = left - 1
                return _error(what)
        return None


def _error(kind: str) -> Answer:
    if kind == "malformed":
        return Answer(b'{"lastUpdateId":12,"bids":[["1.0"', 200)
    status = int(kind)
    said = {"code": -1003 if status == 429 else -1000, "msg": "the mock was told to refuse"}
    answer = Answer.of(said, status)
    return answer._replace(headers={"Retry-After": "1"}) if status == 429 else answer


def _shown(deals: Deals, query: Query) -> Answer:
    try:
        first, limit = int(query.get("from_id", "0")), int(query.get("limit", "1000"))
    except ValueError:
        return Answer.of({"error": "from_id and limit are whole numbers"}, 400)
    rows = deals.from_id(first, limit)
    return Answer.of([dict(zip(row._fields, row[:-1], strict=False)) for row in rows])


def _among(path: str, sockets: tuple[str, ...]) -> bool:
    return any(path == one or (one.endswith("/*") and path.startswith(one[:-1])) for one in sockets)


def _reply(request: HTTPServerRequest, answer: Answer) -> None:
    headers = HTTPHeaders(
        {
            "Content-Type": "application/json",
            "Content-Length": str(len(answer.body)),
            **answer.headers,
        }
    )
    reason = http.client.responses.get(answer.status, "Unknown")
    line = ResponseStartLine("HTTP/1.1", answer.status, reason)
    connection = request.connection
    assert connection is not None  # noqa: S101 - a request that was read has one
    connection.write_headers(line, headers, answer.body)
    connection.finish()
