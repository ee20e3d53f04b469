"""The catalogue of sessions: one small table that says what is there.

Listing never scans ticks: it reads this table, so it takes the same time for a thousand rows and
for a thousand million. A session's row changes by being written again (`updated_at` tells the
newest). Sessions that are being deleted are not shown.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any, Final

import polars as pl

from fxlab import identifiers
from fxlab.errors import SessionNotFound
from fxlab.questdb import sql
from fxlab.questdb.client import QuestDB
from fxlab.questdb.migrations import STEPS
from fxlab.questdb.sql import Scope
from fxlab.schema import EVENTS, IMPORTS, SESSIONS, Table
from fxlab.times import bounds, from_micros

_LISTED: Final = (
    "session_id", "status", "exchange", "source", "symbols", "data_types", "records_collected",
    "prices_count", "orderbook_count", "gaps_count", "errors_count", "started", "ended",
    "duration_seconds", "notes", "tags", "created_at", "updated_at",
)  # fmt: skip
_LISTS: Final = ("symbols", "data_types", "tags")  # kept as JSON


def listing(
    db: QuestDB,
    *,
    symbol: str | None = None,
    status: str | None = None,
    exchange: str | None = None,
    text: str | None = None,
    limit: int = 50,
    offset: int = 0,
) -> pl.DataFrame:
    """Return the sessions that match all that is given, the newest first.

    Parameters
    ----------
    db
        The server.
    symbol, status, exchange
        Exact values; sessions being deleted appear only when `status` asks for them.
    text
        Found in the id, the notes or the tags, upper or lower case.
    limit, offset
        A page of the list.

    Returns
    -------
    polars.DataFrame
        One row a session: ``session_id``, ``status``, ``exchange``, ``source``, ``symbols``,
        ``data_types`` and ``tags`` (lists), the counts, ``started``, ``ended`` (first and last
        tick), ``duration_seconds``, ``notes``, ``created_at``, ``updated_at``.
    """
    found = db.catalogue(
        sql.sessions(
            with_symbol=symbol,
            status=status,
            exchange=exchange,
            containing=text,
            limit=limit,
            offset=offset,
        )
    )
    return found.select(_LISTED).with_columns(
        pl.col(_LISTS).fill_null("[]").str.json_decode(pl.List(pl.String))
    )


def find(db: QuestDB, session_id: str) -> dict[str, Any]:
    """Return a session's row; the id may have the prefix ``session_`` of old folders.

    Raises
    ------
    InvalidIdentifier
        If it cannot be an id.
    SessionNotFound
        If there is none (or it is being deleted), naming near ids.
    """
    identifiers.check_session_id(session_id)
    for candidate in dict.fromkeys(
        (session_id, session_id.removeprefix(identifiers.SESSION_PREFIX))
    ):
        row = find_any(db, candidate) if candidate else None
        if row is not None and row["status"] not in sql.HIDDEN:
            return row
    raise SessionNotFound.named(session_id, _known_ids(db))


def find_any(db: QuestDB, session_id: str) -> dict[str, Any] | None:
    """Return a session's row, also while it is being deleted; None if there is none."""
    found = raw_rows(db, SESSIONS, session_id)
    newest = max(found, key=lambda row: row["updated_at"], default=None)
    if newest is None:
        return None
    return {
        name: from_micros(value)
        if SESSIONS.columns[name] == "TIMESTAMP" and value is not None
        else value
        for name, value in newest.items()
    }


def tick_range(row: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the half-open range of time that holds all ticks of a session, in microseconds.

    A query without it opens the partitions of all sessions. It is open for a session that is
    still being recorded.
    """
    if row["status"] == "collecting":
        return None, None
    return bounds(row["started"], row["ended"])


def raw_rows(db: QuestDB, table: Table, session_id: str) -> list[dict[str, Any]]:
    """Return a session's rows of a small table; times are microseconds."""
    found = db.execute(sql.raw_rows(table, session_id))
    return [dict(zip(table.columns, values, strict=True)) for values in found]


def _known_ids(db: QuestDB) -> list[str]:
    return db.catalogue(sql.session_ids())["session_id"].to_list()


def store(db: QuestDB, row: dict[str, Any]) -> None:
    """Write a session's row, over the older one with the same id and `created_at`.

    It can be read a moment later; `QuestDB.wait_visible` waits for it.
    """
    stamped = {**row, "schema_version": STEPS[-1].version, "updated_at": datetime.now(UTC)}
    db.write(SESSIONS, pl.DataFrame([stamped], schema=SESSIONS.frame))


def imports(db: QuestDB, session_id: str) -> pl.DataFrame:
    """Return the files that a session was imported from, one row a (file, symbol)."""
    names = list(IMPORTS.columns)
    return db.catalogue(sql.rows(Scope(IMPORTS, session_id), names, tie="path"))


def events(db: QuestDB, session_id: str) -> pl.DataFrame:
    """Return a session's gap ledger, by time."""
    names = [name for name in EVENTS.columns if name != "session_id"]
    names = ["timestamp", *(name for name in names if name != "timestamp")]
    return db.catalogue(sql.rows(Scope(EVENTS, session_id), names))
