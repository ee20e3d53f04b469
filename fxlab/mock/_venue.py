"""Mock venue: HTTP handler for REST, WebSockets and the fault log, and `MockVenue` for tests.

``/<venue>/...`` goes to that venue's protocol; ``/ledger`` shows what was done wrong and what
happened; ``/truth/<symbol>?from_id=&limit=`` shows the trades themselves. ``POST /cut``, ``/stall``
and ``/speak`` inject faults by hand, for a venue in another process. `MockVenue` is the same as
users hold it: an address, a truth, and methods for faults.
"""

from __future__ import annotations

import asyncio
import http.client
import math
import socket
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar
from urllib.parse import parse_qsl

from tornado.http1connection import HTTP1Connection
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPHeaders, HTTPServerRequest, ResponseStartLine

from fxlab.errors import PortTaken
from fxlab.mock._exchange import Exchange, Speed
from fxlab.mock._faults import Faults
from fxlab.mock._market import MockMarket, Truth
from fxlab.mock._protocols import PROTOCOLS, Answer, Query, Socket, handshake
from fxlab.mock._sources import generated

if TYPE_CHECKING:
    from fxlab.mock._exchange import Publisher
    from fxlab.mock._market import Deals


_READ_TIMEOUT: Final = 1.0


class HttpHandler:
    """Takes each request to whom it concerns."""

    def __init__(self, exchange: Exchange) -> None:
        self._exchange = exchange
        self._errors = RestErrors(exchange.faults.rest_errors)
        self._spent: dict[str, tuple[float, float]] = {}
        self._reading: dict[asyncio.Task[None], Socket] = {}

    def __call__(self, request: HTTPServerRequest) -> None:
        """Answer a request."""
        _, name, path = (request.path + "/").split("/", 2)
        path = "/" + path.removesuffix("/")
        query = dict(parse_qsl(request.query, keep_blank_values=True))
        publisher = self._exchange.publishers.get(name)
        if publisher is None:
            _reply(request, self._own(name, path, query, request.method or ""))
        elif "websocket" in request.headers.get("Upgrade", "").lower():
            self._connect(request, publisher, path, query)
        else:
            _reply(request, self._ask(publisher, path, query))

    def _own(self, name: str, path: str, query: Query, method: str) -> Answer:
        exchange = self._exchange
        switches: dict[str, Callable[[], None]] = {
            "cut": exchange.cut,
            "stall": lambda: exchange.mute(silent=True),
            "speak": lambda: exchange.mute(silent=False),
        }
        if method == "POST" and (switch := switches.get(name)):
            switch()
            return Answer.of({})
        if name == "ledger":
            return Answer.of(exchange.state())
        if name == "truth" and (deals := exchange.truth.deals.get(path.strip("/"))) is not None:
            return _shown(deals, query)
        known = ", ".join(exchange.publishers)
        return Answer.of({"error": f"no {name!r} here; this mock serves {known}"}, 404)

    def _ask(self, publisher: Publisher, path: str, query: Query) -> Answer:
        error = self._banned() or self._errors.take(path) or self._over(publisher, path, query)
        if error is not None:
            self._exchange.ledger.add(
                "rest_error", venue=publisher.protocol.name, path=path, status=error.status
            )
            return error
        answer = publisher.protocol.answer(path, query)
        answer = answer or Answer.of({"error": f"no such path: {path}"}, 404)
        return self._counted(publisher, answer)

    def _over(self, publisher: Publisher, path: str, query: Query) -> Answer | None:
        """Return the refusal of a question that is too much for the rate limit, and count it."""
        if (limit := self._exchange.faults.rate_limit) is None:
            return None
        name, now = publisher.protocol.name, time.monotonic()
        begin, spent = self._spent.get(name, (now, 0.0))
        begin, spent = (now, 0.0) if now >= begin + limit[1] else (begin, spent)
        spent += publisher.protocol.cost(path, query)
        self._spent[name] = (begin, spent)
        if spent <= limit[0]:
            return None
        answer = Answer.of({"code": -1003, "msg": "Too much request weight used."}, 429)
        return answer._replace(headers={"Retry-After": str(math.ceil(begin + limit[1] - now))})

    def _counted(self, publisher: Publisher, answer: Answer) -> Answer:
        """Return an answer that says how much of the rate limit is spent, if the venue says so."""
        name = publisher.protocol.used
        if not name or publisher.protocol.name not in self._spent:
            return answer
        spent = self._spent[publisher.protocol.name][1]
        return answer._replace(headers={**answer.headers, name: f"{spent:.0f}"})

    def _banned(self) -> Answer | None:
        """Return the refusal that everybody gets at present."""
        ban = self._exchange.banned
        if ban is None or (left := ban.end - time.monotonic()) <= 0:
            return None
        answer = Answer.of({"code": -1003, "msg": "the mock bans this address"}, ban.status)
        return answer._replace(headers={"Retry-After": str(math.ceil(left))} if ban.told else {})

    def _connect(
        self, request: HTTPServerRequest, publisher: Publisher, path: str, query: Query
    ) -> None:
        key = request.headers.get("Sec-WebSocket-Key")
        if not key or not _among(path, publisher.protocol.sockets):
            _reply(request, Answer.of({"error": f"no websocket at {path}"}, 404))
            return
        connection = request.connection
        assert isinstance(connection, HTTP1Connection)  # noqa: S101 - there is no other kind
        stream = connection.detach()
        stream.set_nodelay(True)
        stream.write(handshake(key))
        socket = Socket(stream, publisher.subscribed, publisher.unsubscribed)
        socket.silent = publisher.silent
        publisher.sockets.add(socket)
        publisher.protocol.opened(socket, path, query)
        task = asyncio.get_running_loop().create_task(self._read(socket, publisher))
        self._reading[task] = socket
        task.add_done_callback(self._reading.pop)

    async def _read(self, socket: Socket, publisher: Publisher) -> None:
        try:
            await socket.read(lambda text: publisher.protocol.heard(socket, text))
        finally:
            publisher.gone(socket)

    async def close(self) -> None:
        """End all connections; those who do not take what was sent lose it after a second."""
        reading = dict(self._reading)
        for client in reading.values():
            client.flush()
            client.hang_up()
        if reading:
            await asyncio.wait(reading, timeout=_READ_TIMEOUT)
        for client in reading.values():
            client.abort()
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


T = TypeVar("T")

_PATIENCE: Final = 30.0


class MockVenue:
    """An exchange on this machine; a context manager.

    Parameters
    ----------
    market
        What happens: `fxlab.mock.generated` or `fxlab.mock.recorded`.
    venues
        The protocols that are served.
    speed
        1.0 for the market's own pace, 10.0 for ten times that, "max" for as fast as the clients
        take it.
    faults
        What goes wrong.
    ledger
        A file for the ledger, as JSON lines.
    port
        0 for a free one.
    listeners
        The market begins when so many streams are listened to.
    until
        Seconds after its beginning at which the market stands still until `go_on`, or None: what
        is asked meanwhile, however slowly, is asked about one moment.

    Attributes
    ----------
    url
        ``http://127.0.0.1:PORT``; a venue's REST is below ``url/<venue>``.

    Raises
    ------
    VenueNotFound
        For an unknown venue.
    InvalidParameter
        For a speed that is not positive.
    """

    def __init__(
        self,
        market: MockMarket | None = None,
        *,
        venues: Sequence[str] = tuple(PROTOCOLS),
        speed: Speed = 1.0,
        faults: Faults | None = None,
        ledger: Path | str | None = None,
        port: int = 0,
        listeners: int = 1,
        until: float | None = None,
    ) -> None:
        self.venues = tuple(venues)
        self._exchange = Exchange(
            market or generated(),
            venues,
            speed=speed,
            faults=faults or Faults(),
            ledger=None if ledger is None else Path(ledger),
            listeners=listeners,
            until=until,
        )
        self._wanted_port = port
        self._thread = threading.Thread(target=self._serve, name="mock venue", daemon=True)
        self._ready: Future[int] = Future()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self.url = ""

    @property
    def truth(self) -> Truth:
        """Everything that happened; look at it when the market has ended, or by `ledger`."""
        return self._exchange.truth

    def start(self) -> Self:
        """Serve from now on.

        Raises
        ------
        PortTaken
            If another program listens on the port.
        """
        self._loop, self._stop = asyncio.new_event_loop(), asyncio.Event()
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._ready.result()}"
        return self

    def stop(self) -> None:
        """Cut all connections and stop; the ledger is complete then."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_PATIENCE)

    def ledger(self) -> dict[str, Any]:
        """Return what ``GET /ledger`` says.

        `symbols` has what happened (count, first and last id, exact sum of quantities, checksum as
        of `fxlab.mock._market.checksum`); `venues` what could be heard of it, from the first
        subscription to the trades of a symbol on (`sent_first_id`, `happened`, `sent`), and
        `unsent`, the ranges of ids that were never sent; `faults` each fault in its order.
        """
        return self._ask(self._exchange.state)

    def go_on(self, until: float | None = None) -> None:
        """Let the market go on from where it is, up to a later second; None for good."""
        self._ask(lambda: self._exchange.go_on(until))

    def stand_still(self) -> None:
        """Let the market stand still where it is; `ledger` says when it runs no more."""
        self._ask(self._exchange.stand_still)

    def cut(self) -> None:
        """Cut all connections now, in the middle of a frame."""
        self._ask(self._exchange.cut)

    def stall(self, silent: bool = True) -> None:  # noqa: FBT001, FBT002 - reads as a sentence
        """Send nothing any more, pongs included, while connections stay open; or end that."""
        self._ask(lambda: self._exchange.mute(silent=silent))

    def ban(self, status: int, seconds: float, told: bool = True) -> None:  # noqa: FBT001, FBT002
        """Refuse all REST questions for so many seconds; `told` says so in ``Retry-After``."""
        self._ask(lambda: self._exchange.ban(status, seconds, told=told))

    def shut_down(self, seconds: float) -> None:
        """Announce the end of all present connections, and cut them so many real seconds later."""
        self._ask(lambda: self._exchange.shut_down(seconds))

    def silence(self, part: str) -> None:
        """Send streams with this part in their name to none of their present listeners."""
        self._ask(lambda: self._exchange.silence(part))

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the market has ended; return whether it is."""
        over = asyncio.run_coroutine_threadsafe(self._exchange.ended.wait(), self._loop)
        try:
            return over.result(seconds)
        except TimeoutError:
            over.cancel()
            return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ask(self, question: Callable[[], T]) -> T:
        if not self._thread.is_alive():
            return question()

        async def answer() -> T:
            return question()

        return asyncio.run_coroutine_threadsafe(answer(), self._loop).result(_PATIENCE)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._served())
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            self._loop.close()

    async def _served(self) -> None:
        door = HttpHandler(self._exchange)
        server = HTTPServer(door)
        try:
            listening = socket.create_server(("127.0.0.1", self._wanted_port))
        except OSError as error:
            self._exchange.ledger.close(self._exchange.state())
            self._ready.set_exception(
                PortTaken(
                    f"port {self._wanted_port} cannot be used for the mock venue "
                    f"({error.strerror}); choose another one, or 0 for any"
                )
            )
            return
        listening.setblocking(False)  # noqa: FBT003 - its only argument
        server.add_socket(listening)
        self._ready.set_result(listening.getsockname()[1])
        playing = self._loop.create_task(self._exchange.run())
        await self._stop.wait()
        playing.cancel()
        server.stop()
        await door.close()
        await server.close_all_connections()
        await asyncio.gather(playing, return_exceptions=True)
        self._exchange.ledger.close(self._exchange.state())
