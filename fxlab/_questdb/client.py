"""QuestDB client: queries over HTTP, bulk reads as Parquet, the catalogue over PostgreSQL.

Three ways, each for what it does best: HTTP `/exec` for statements, HTTP `/exp` as Parquet for many
rows (four times faster than the PostgreSQL wire), connectorx for the catalogue. Rows are written by
`fxlab._questdb.ingest`. No message or repr holds a password.
"""

from __future__ import annotations

import io
import logging
import time
from collections.abc import Callable
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, TypeVar

import httpx
import polars as pl
from polars import selectors as cs

from fxlab._network import waits
from fxlab._progress import Advance, silent
from fxlab._questdb import endpoint, ingest, sql
from fxlab._questdb.endpoint import Endpoint
from fxlab.errors import QueryFailed, QuestDBError, QuestDBLoginFailed, TableSuspended
from fxlab.schema import Table

if TYPE_CHECKING:
    from fxlab._questdb.cache import FrameCache

Answer = TypeVar("Answer")

_log: Final = logging.getLogger(__name__)

_CONNECT_SECONDS: Final = 5.0
_ANSWER_SECONDS: Final = 300.0
_MOVE_WAITS: Final = (200, 0.02, 0.5)
"""Tries, first and longest wait (s) while a purge moves rows: a second or two, or it was killed."""
_BUSY_WAITS: Final = (10, 0.04, 8.0)
"""Tries, first and longest wait (s) while all of the server's export connections are taken."""


class QuestDB:
    """One server, asked and written to from any thread.

    Parameters
    ----------
    endpoint
        Address and logins.
    cache
        Local copies of what completed sessions hold; None keeps none.

    Notes
    -----
    Connections open at the first call. Every method raises `QuestDBUnavailable` when no server
    answers and `QuestDBLoginFailed` when it refuses the login.
    """

    def __init__(self, endpoint: Endpoint, cache: FrameCache | None = None) -> None:
        self.endpoint = endpoint
        self.cache = cache
        self._writer = ingest.Writer(endpoint)
        self._moved: int | None = None

    def ping(self) -> str:
        """Return the server's own description of its build."""
        return str(self.execute(sql.build())[0][0])

    def check_login(self) -> None:
        """Log in over HTTP and over the PostgreSQL wire, and raise if either is refused."""
        self.ping()
        endpoint.check_pg_login(self.endpoint)

    def execute(self, statement: str) -> list[list[Any]]:
        """Run one statement of `fxlab._questdb.sql` and return its rows; [] for a definition.

        Raises
        ------
        QueryFailed
            With the server's words, also when the query broke off in the middle.
        """
        answer = self._get(self._short, "/exec", {"query": statement})
        body = answer.json(strict=False)  # the server leaves a line end as it is
        if "error" in body:  # a query that breaks off answers with status 200 all the same
            raise _refusal(statement, body)
        rows: list[list[Any]] = body.get("dataset", [])
        return rows

    def export(self, statement: str) -> pl.DataFrame:
        """Return the rows of a query, read in bulk; times are UTC microseconds."""
        answer = self._get(self._bulk, "/exp", {"query": statement, "fmt": "parquet"})
        try:
            return pl.read_parquet(io.BytesIO(answer.content))
        except pl.exceptions.PolarsError as error:
            raise QueryFailed(
                f"the server's answer is not whole ({error}); run it again. Query: {statement:.300}"
            ) from error

    def catalogue(self, statement: str) -> pl.DataFrame:
        """Return the rows of a query over the small tables; times are UTC microseconds."""
        import connectorx

        endpoint.check_pg_login(self.endpoint)  # connectorx would try for 30 s, and print
        _log.debug("PostgreSQL: %s", statement)
        for last_try in (False, True):
            try:
                frame: pl.DataFrame = connectorx.read_sql(
                    self.endpoint.pg_url, statement, protocol="cursor", return_type="polars"
                )
                return frame.with_columns(cs.datetime().dt.replace_time_zone("UTC"))
            except RuntimeError as error:
                # Another process changed the table between "prepare" and "fetch": ask once more.
                if last_try or "cached plan" not in str(error):
                    if reason := endpoint.refusal(self.endpoint):
                        raise self.endpoint.unavailable(reason) from error
                    words = self._without_secrets(str(error))
                    raise endpoint.query_error(words, statement) from None
        raise AssertionError("the second try returns or raises")

    def steady(self, ask: Callable[[], Answer]) -> Answer:
        """Return what `ask` returns about ticks, asked while no purge has taken rows out.

        For a moment, a purge takes other sessions' rows out of their table: a count would be short.
        """
        before = self._moved
        if before is None:
            before = self._wait_moved()
        while True:
            answer = ask()
            self._moved = self._wait_moved()
            if self._moved == before:
                return answer
            before = self._moved

    def is_moving(self) -> bool:
        """Return whether a purge has taken rows out and not put them back, or is about to."""
        return bool(self._moves()[0])

    def _moves(self) -> tuple[int, int]:
        moving, moved = self.execute(sql.moves())[0]
        return int(moving or 0), int(moved or 0)

    def _wait_moved(self) -> int:
        """Return how many partitions purges have rewritten, once none is half-way."""
        for pause in waits(*_MOVE_WAITS):
            moving, moved = self._moves()
            if not moving:
                return moved
            time.sleep(pause)
        raise QueryFailed(
            "a purge of deleted sessions has stopped half-way, and rows of others wait to be put "
            "back, none is lost: lab.purge() puts them back; if it fails, run fxlab doctor"
        )

    def write(self, table: Table, frame: pl.DataFrame, progress: Advance = silent) -> int:
        """Store rows and return how many; see `fxlab._questdb.ingest.Writer.write`."""
        return self._writer.write(table, frame, progress)

    def wait_visible(self, *tables: Table) -> None:
        """Wait until all that was written to the tables can be read.

        Raises
        ------
        TableSuspended
            If a table takes rows and does not show them.
        """
        for table in tables:
            try:
                self.execute(sql.wait_visible(table))
            except TableSuspended as error:
                why = dict(self.execute(sql.list_suspended())).get(table.name)
                raise endpoint.suspended(table.name, why or "") from error

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        for client in ("_short", "_bulk"):
            opened = self.__dict__.pop(client, None)
            if opened is not None:
                opened.close()
        self._writer.close()

    def __repr__(self) -> str:
        return f"QuestDB({self.endpoint!r})"

    @cached_property
    def _short(self) -> httpx.Client:
        return ingest.http_client(self, self.endpoint, _ANSWER_SECONDS, _CONNECT_SECONDS)

    @cached_property
    def _bulk(self) -> httpx.Client:
        # The server counts idle connections against its few export slots: keep none.
        seconds = _ANSWER_SECONDS, _CONNECT_SECONDS
        return ingest.http_client(self, self.endpoint, *seconds, keep=False)

    def _get(self, client: httpx.Client, path: str, query: dict[str, str]) -> httpx.Response:
        answer = self._send(client, path, query)
        for pause in waits(*_BUSY_WAITS):
            if answer.status_code != httpx.codes.TOO_MANY_REQUESTS:
                break
            time.sleep(pause)
            answer = self._send(client, path, query)
        if answer.status_code in (httpx.codes.UNAUTHORIZED, httpx.codes.FORBIDDEN):
            raise QuestDBLoginFailed(self.endpoint.login_advice)
        if answer.is_error:
            raise _refusal(query["query"], _error_body(answer))
        return answer

    def _send(self, client: httpx.Client, path: str, query: dict[str, str]) -> httpx.Response:
        _log.debug("GET %s: %s", path, query["query"])
        try:
            return client.get(path, params=query)
        except httpx.TransportError as error:
            raise self.endpoint.unavailable(str(error) or type(error).__name__) from error

    def _without_secrets(self, words: str) -> str:
        endpoint = self.endpoint
        for secret in (endpoint.pg_url, endpoint.password, endpoint.pg_password):
            if secret:
                words = words.replace(secret, "********")
        return words


def _error_body(answer: httpx.Response) -> dict[str, Any]:
    try:
        body: dict[str, Any] = answer.json()
    except ValueError:
        return {"error": f"HTTP status {answer.status_code}: {answer.text.strip():.300}"}
    return body


def _refusal(statement: str, body: dict[str, Any]) -> QuestDBError:
    words = body.get("error", "the server refused the query")
    position = body.get("position", body.get("errorPos"))
    place = "" if position is None else f" (at character {position})"
    return endpoint.query_error(f"{words}{place}", statement)
