"""Extension of the Jupyter Server: fxlab's REST calls and WebSocket under ``/fxlab/api``.

Each call is a function of `CALLS`, run in a thread: it asks the `fxlab.Lab` of this server, and
what it returns is the answer. Login, same origin and XSRF are the Jupyter Server's own; no page of
another origin is let in. The lab is connected by the first request that needs it.
"""

from __future__ import annotations

import asyncio
import contextlib
import re
import threading
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final

from jupyter_server.auth.decorator import authorized, ws_authenticated
from jupyter_server.base.handlers import APIHandler, JupyterHandler
from jupyter_server.base.websocket import WebSocketMixin
from jupyter_server.extension.application import ExtensionApp
from tornado.web import HTTPError, authenticated
from tornado.websocket import WebSocketClosedError, WebSocketHandler
from traitlets import Int

from fxlab.errors import FxlabError, InvalidParameter
from fxlab.web._requests import PREFIX, document, encoded, problem, success, values_of

if TYPE_CHECKING:
    from fxlab.lab import Lab
    from fxlab.web._executions import Executions

CLIENTS: Final = 8
"""Requests that are answered at once; others wait for a moment."""

_SESSION: Final = (
    "status", "exchange", "source", "symbols", "data_types", "records_collected", "prices_count",
    "orderbook_count", "gaps_count", "errors_count", "started", "ended", "duration_seconds",
    "notes", "tags", "created_at", "updated_at",
)  # fmt: skip


class Api:
    """What the calls work with: the lab, and what they have started."""

    def __init__(self, workers: int) -> None:
        self._workers = workers
        self._turn = threading.Lock()
        self._lab: Lab | None = None
        self._pool = ThreadPoolExecutor(CLIENTS, "fxlab web")

    def lab(self) -> Lab:
        """Return the lab, connected when it is first needed."""
        with self._turn:
            if self._lab is None:
                from fxlab.lab import connect

                self._lab = connect(progress=False)
            return self._lab

    @cached_property
    def executions(self) -> Executions:
        """Return what was started; first asked for in the event loop."""
        from fxlab.web._executions import Executions

        return Executions(self.lab, self._workers)

    async def answer(self, call: Call, values: dict[str, Any]) -> str:
        """Return a call's answer as JSON; it is made in a thread."""
        _ = self.executions  # here, as it takes the running loop
        loop = asyncio.get_running_loop()
        return await loop.run_in_executor(self._pool, lambda: encoded(call(self, values)))

    def close(self) -> None:
        """Stop what was started, and disconnect."""
        if "executions" in self.__dict__:
            self.executions.close()
        self._pool.shutdown(wait=True)
        if self._lab is not None:
            self._lab.close()


def _sessions(api: Api, values: dict[str, Any]) -> object:
    page = api.lab().session_page(**values)
    shown = {name: values[name] for name in ("limit", "offset")}
    names = ("sessions", "total_count", "next_after")
    return shown | {name: getattr(page, name) for name in names}


def _analysis(api: Api, values: dict[str, Any]) -> object:
    found = api.lab().analysis(values["session_id"])
    quality = {name: getattr(found.quality, name) for name in ("score", "reasons")}
    return {
        "session_id": found.session_id,
        "statistics": found.statistics,
        "quality": quality | {"symbols": found.quality.table},
        "missing": found.missing,
    }


def _chart_data(api: Api, values: dict[str, Any]) -> object:
    session = api.lab().session(values.pop("session_id"))
    symbol = session.only(values.pop("symbol", None))
    frame = session.chart_data(symbol, progress=False, **values)
    columns = frame.to_dict(as_series=False)
    columns["seq"] = [str(seq) for seq in columns["seq"]]
    shown = {"session_id": session.id, "symbol": symbol, "max_points": values["max_points"]}
    return shown | {"points": frame.height, "columns": columns}


def _delete(api: Api, values: dict[str, Any]) -> object:
    name = api.lab().session(values["session_id"]).id
    return {"session_id": name, "status": "deleting", "planned": api.lab().delete(name)}


def _undelete(api: Api, values: dict[str, Any]) -> object:
    session = api.lab().undelete(values["session_id"])
    return {"session_id": session.id} | {name: getattr(session, name) for name in _SESSION}


Call = Callable[[Api, dict[str, Any]], object]
CALLS: Final[Mapping[str, Mapping[str, Call]]] = {
    "/data-collection/sessions": {"get": _sessions},
    "/data-collection/{session_id}": {"delete": _delete},
    "/data-collection/{session_id}/undelete": {"post": _undelete},
    "/data-collection/{session_id}/analysis": {"get": _analysis},
    "/data-collection/{session_id}/chart-data": {"get": _chart_data},
    "/commands/start-backtest": {"post": lambda api, asked: api.executions.start_backtest(asked)},
    "/commands/start-collection": {
        "post": lambda api, asked: api.executions.start_collection(asked)
    },
    "/commands/stop-collection": {
        "post": lambda api, asked: api.executions.stop(asked["session_id"])
    },
    "/executions": {"get": lambda api, _: {"executions": api.executions.listing()}},
    "/executions/{execution_id}": {
        "get": lambda api, asked: api.executions.find(asked["execution_id"])
    },
    "/executions/{execution_id}/stop": {
        "post": lambda api, asked: api.executions.stop(asked["execution_id"])
    },
    "/openapi.json": {"get": lambda *_: document()},
}
"""Path and method, as the document has them, to what answers."""


class ApiHandler(APIHandler):
    """Answers the calls of one path; errors are JSON, too."""

    auth_resource = "fxlab"

    def initialize(self, api: Api, path: str) -> None:
        """Take what a route brings."""
        self._api, self._path = api, path

    def set_cors_headers(self) -> None:
        """Let no page of another origin read an answer, not even one that knows the token."""

    @authenticated
    @authorized
    async def get(self, **parts: str) -> None:
        """Answer."""
        await self._answer("get", parts)

    @authenticated
    @authorized
    async def post(self, **parts: str) -> None:
        """Answer."""
        await self._answer("post", parts)

    @authenticated
    @authorized
    async def delete(self, **parts: str) -> None:
        """Answer."""
        await self._answer("delete", parts)

    async def _answer(self, method: str, parts: Mapping[str, str]) -> None:
        calls = CALLS.get(self._path)
        if calls is None:
            raise HTTPError(404, "there is no %r", self.request.path[:200])
        if method not in calls:
            raise HTTPError(405, "%s is not what %s takes", method.upper(), self._path)
        try:
            query = {name: self._only(name) for name in self.request.query_arguments}
            values = values_of(self._path, method, query, self.request.body, parts)
            answer = await self._api.answer(calls[method], values)
        except FxlabError as error:
            status, body = problem(error)
            self.set_status(status)
            self.finish(body)
        else:
            self.set_status(success(self._path, method))
            self.finish(answer)

    def _only(self, name: str) -> str:
        """Return the one value of a query's name."""
        found: list[str] = self.get_query_arguments(name)
        if len(found) > 1:
            raise InvalidParameter(f"{name}={found[-1]!r:.80} is there twice; send {name} once")
        return found[0]

    def write_error(self, status_code: int, **kwargs: Any) -> None:  # noqa: ANN401 - tornado's
        """Say in JSON what is wrong, and the next step."""
        _, error, _ = kwargs.get("exc_info", (None, None, None))
        _, body = problem(error, status_code)
        self.finish(body)


class EventSocket(WebSocketMixin, WebSocketHandler, JupyterHandler):
    """Tells one client of ticks, progress and state; what it says is not read."""

    auth_resource = "fxlab"

    def initialize(self, api: Api) -> None:
        """Take what a route brings."""
        self._api = api
        self._telling: asyncio.Future[None] | None = None

    @ws_authenticated
    @authorized
    async def get(self, *args: str, **kwargs: str) -> None:
        """Open the socket."""
        await super().get(*args, **kwargs)

    def open(self, *args: str, **kwargs: str) -> None:
        """Begin to tell."""
        super().open(*args, **kwargs)
        self._telling = asyncio.ensure_future(self._tell())

    def on_message(self, message: str | bytes) -> None:
        """Read nothing."""

    def on_close(self) -> None:
        """End."""
        super().on_close()
        if self._telling is not None:
            self._telling.cancel()

    async def _tell(self) -> None:
        listener = self._api.executions.events.add(None)
        missed = 0
        try:
            async with contextlib.aclosing(aiter(listener)) as events:  # also if it is cancelled
                async for event in events:
                    if listener.missed > missed:
                        lost, missed = listener.missed - missed, listener.missed
                        await self.write_message({"type": "dropped", "count": lost})
                    await self.write_message(event.text)  # waits while the client is slow
        except WebSocketClosedError:
            return
        self.close(1001, "the server stops")


class WebExtension(ExtensionApp):
    """The extension: routes, and an end."""

    name = "fxlab"
    load_other_extensions = True

    workers = Int(4, min=1, config=True, help="Backtests that run at once; the others wait.")

    @cached_property
    def api(self) -> Api:
        """Return what the calls work with."""
        return Api(self.workers)

    def initialize_handlers(self) -> None:
        """Serve every path of the document."""
        for path in CALLS:
            pattern = re.sub(r"\\{(\w+)\\}", r"(?P<\1>[^/]+)", re.escape(path))
            self.handlers.append((f"{PREFIX}{pattern}", ApiHandler, self._route(path)))
        self.handlers.append((f"{PREFIX}/events", EventSocket, {"api": self.api}))
        self.handlers.append((f"{PREFIX}/.*", ApiHandler, self._route("")))

    def _route(self, path: str) -> dict[str, Any]:
        return {"api": self.api, "path": path}

    async def stop_extension(self) -> None:
        """Stop what runs before the server ends."""
        await asyncio.to_thread(self.api.close)
