"""Session catalogue: listing, finding, counting.

Listing never scans ticks: it reads one small table, so it takes the same time for a thousand rows
and for a thousand million. A session's row changes by being written again (`updated_at` tells the
newest). Sessions that are being deleted are not shown.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, TypedDict, Unpack

import polars as pl
from filelock import FileLock

from fxlab import schema
from fxlab._questdb import sql
from fxlab._questdb.client import QuestDB
from fxlab._questdb.sql import Scope
from fxlab._ticks import listed_instruments
from fxlab._times import Time, bounds, from_micros, parse_range, to_micros
from fxlab.errors import InvalidInput, SessionExists, SessionNotFound
from fxlab.schema import (
    EVENTS,
    IMPORTS,
    SESSIONS,
    Table,
    check_tags,
    data_tables,
)

_LISTED: Final = (
    "session_id", "status", "exchange", "source", "symbols", "data_types", "records_collected",
    "prices_count", "orderbook_count", "gaps_count", "errors_count", "started", "ended",
    "duration_seconds", "notes", "tags", "created_at", "updated_at",
)  # fmt: skip
_LISTS: Final = ("symbols", "data_types", "tags")  # kept as JSON


@dataclass(frozen=True, slots=True)
class SessionPage:
    """A page of the sessions that match, and how many match in all.

    Attributes
    ----------
    sessions : polars.DataFrame
        As `fxlab.Lab.sessions` returns them.
    total_count : int
        Sessions that match, on all pages.
    next_after : str or None
        What the next page takes as `after`; None on the last one.

    Examples
    --------
    >>> with fxlab.connect() as lab:
    ...     page = lab.session_page(limit=1, sort="session_id", descending=False)
    >>> page.sessions.height, page.total_count >= 1
    (1, True)
    """

    sessions: pl.DataFrame
    total_count: int
    next_after: str | None


class SessionQuery(TypedDict, total=False):
    """What `listing` takes; `fxlab.Lab.sessions` tells what each of them means."""

    symbol: str | None
    status: str | None
    exchange: str | None
    source: str | None
    tag: str | None
    text: str | None
    start: Time | None
    end: Time | None
    sort: str
    descending: bool
    limit: int
    offset: int
    after: str | None


def listing(db: QuestDB, **query: Unpack[SessionQuery]) -> SessionPage:
    """Return a page of the sessions that match all of a query; see `fxlab.Lab.sessions`."""
    first, last = parse_range(query.get("start"), query.get("end"))
    wanted = sql.SessionFilter(
        symbol=query.get("symbol"),
        status=query.get("status"),
        exchange=query.get("exchange"),
        source=query.get("source"),
        tag=query.get("tag"),
        text=query.get("text"),
        start=first,
        end=last,
    )
    after = query.get("after")
    limit = query.get("limit", 50)
    found = db.catalogue(
        sql.sessions(
            wanted,
            _LISTED,
            sort=query.get("sort", "created_at"),
            descending=query.get("descending", True),
            after=after,
            limit=limit,
            offset=query.get("offset", 0),
        )
    )
    total = found["total_count"][0]
    rows = found.drop("total_count").filter(pl.col("session_id").is_not_null())
    if after is not None and rows.is_empty() and not _plain_rows(db, SESSIONS, after):
        raise SessionNotFound.named(after, _known_ids(db))
    rows = rows.with_columns(pl.col(_LISTS).fill_null("[]").str.json_decode(pl.List(pl.String)))
    page = rows.head(limit)
    return SessionPage(page, total, page["session_id"][-1] if 0 < limit < rows.height else None)


def find(db: QuestDB, session_id: str) -> dict[str, Any]:
    """Return a session's row; the id may have the prefix ``session_`` of old folders.

    Raises
    ------
    InvalidIdentifier
        If it cannot be an id.
    SessionNotFound
        If there is none, naming near ids; or if it was deleted, saying whether it can come back.
    """
    schema.check_session_id(session_id)
    for candidate in dict.fromkeys((session_id, session_id.removeprefix(schema.SESSION_PREFIX))):
        row = find_any(db, candidate) if candidate else None
        if row is not None and row["status"] not in sql.HIDDEN:
            return row
        if row is not None:
            raise SessionNotFound(f"session {candidate!r} {what_became_of(row)}")
    raise SessionNotFound.named(session_id, _known_ids(db))


def what_became_of(row: Mapping[str, Any]) -> str:
    """Return what a hidden session's row says, and whether it can come back."""
    if row["status"] == "deleted":
        return "was deleted, and its ticks are gone; import or record them again to have it back"
    return f"was deleted; lab.undelete({row['session_id']!r}) brings it back until it is purged"


def fate(db: QuestDB, session_id: str) -> str:
    """Return what became of a session that was deleted; nothing of any other."""
    row = find_any(db, session_id)
    if row is None or row["status"] not in sql.HIDDEN:
        return ""
    return f"session {session_id!r} {what_became_of(row)}"


def find_free(db: QuestDB, session_id: str) -> dict[str, Any] | None:
    """Return the row of the session that has an id; None if the id is free for a new one."""
    row = find_any(db, session_id)
    if row is not None and row["status"] == "deleting":
        raise SessionExists(
            f"session {session_id!r} {what_became_of(row)}, and lab.purge([{session_id!r}]) frees "
            "its id; or choose another session_id"
        )
    return None if row is None or row["status"] == "deleted" else row


def find_any(db: QuestDB, session_id: str) -> dict[str, Any] | None:
    """Return a session's row, also of one that was deleted; None if there was none."""
    found = _plain_rows(db, SESSIONS, session_id)
    return max(map(_with_moments, found), key=lambda row: row["updated_at"], default=None)


def hidden(db: QuestDB) -> list[dict[str, Any]]:
    """Return the rows of the sessions that are or were deleted, the last one first."""
    return db.catalogue(sql.hidden_sessions()).to_dicts()


def _with_moments(row: Mapping[str, Any]) -> dict[str, Any]:
    return {
        name: from_micros(value)
        if SESSIONS.columns[name] == "TIMESTAMP" and value is not None
        else value
        for name, value in row.items()
    }


def tick_range(row: Mapping[str, Any]) -> tuple[int | None, int | None]:
    """Return the half-open range of time that holds all ticks of a session, in microseconds.

    A query without it opens the partitions of all sessions. Of a session that is still being
    recorded the end is open, and a venue's history may be asked for what came before its first row.
    """
    if row["status"] != "collecting":
        return bounds(row["started"], row["ended"])
    if row["source"] != "live" or row["started"] is None:
        return None, None
    return recorded_from(*map(to_micros, (row["started"], row["created_at"]))), None


def recorded_from(started: int, created_at: int) -> int:
    """Return from when on (us) a running recording may have rows: a venue's history is old."""
    return min(started, created_at) - _HISTORY


_HISTORY: Final = 7 * 86_400_000_000
"""How far (us) before the first row of a recording a venue's history may reach."""


def raw_rows(db: QuestDB, table: Table, session_id: str) -> list[dict[str, Any]]:
    """Return a session's rows of a small table; times are microseconds."""
    return db.steady(lambda: _plain_rows(db, table, session_id))


def _plain_rows(db: QuestDB, table: Table, session_id: str) -> list[dict[str, Any]]:
    found = db.execute(sql.raw_rows(table, session_id))
    return [dict(zip(table.columns, values, strict=True)) for values in found]


def _known_ids(db: QuestDB) -> list[str]:
    return db.catalogue(sql.session_ids())["session_id"].to_list()


def store(db: QuestDB, row: dict[str, Any]) -> None:
    """Write a session's row, over the older one with the same id and `created_at`.

    It can be read a moment later; `QuestDB.wait_visible` waits for it.
    """
    put(db, {**row, "schema_version": schema.VERSION, "updated_at": datetime.now(UTC)})


def put(db: QuestDB, *rows: dict[str, Any]) -> None:
    """Write whole rows as they are, all or none."""
    db.write(SESSIONS, pl.DataFrame(rows, schema=SESSIONS.frame))


def announcing(locks: Path) -> FileLock:
    """Return the lock under which a session says that ticks will be written to it.

    A purge looks for such sessions and drops a partition under the same lock: whoever comes later
    writes into what was rewritten, and loses nothing.
    """
    locks.mkdir(parents=True, exist_ok=True)
    return FileLock(locks / "writers.lock")


@dataclass(frozen=True, slots=True)
class About:
    """What the user says of the sessions that an import makes."""

    exchange: str | None = None
    notes: str = ""
    tags: tuple[str, ...] = ()
    instruments: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    @classmethod
    def of(
        cls,
        exchange: str | None = None,
        notes: str = "",
        tags: Sequence[str] = (),
        instruments: pl.DataFrame | None = None,
    ) -> About:
        """Return what a user said, checked.

        Raises
        ------
        InvalidInput
            If something is no text, or the tags are one text: it would be as many tags as letters.
        """
        said = {"exchange": "" if exchange is None else exchange, "notes": notes}
        for name, value in said.items():
            if not isinstance(value, str):
                raise InvalidInput(f"{name}={value!r:.80} is not text; give one, or leave it out")
        listed = {} if instruments is None else listed_instruments(instruments)
        return cls(exchange, notes, check_tags(tags), listed)

    def beside(self, row: Mapping[str, Any] | None) -> About:
        """Return this and, where it says nothing, what a session's row says already."""
        if row is None:
            return self
        before = json.loads(row["tags"] or "[]")
        return About(
            self.exchange if self.exchange is not None else row["exchange"],
            self.notes or row["notes"] or "",
            tuple(dict.fromkeys((*before, *self.tags))),
            {**json.loads(row["instruments"] or "{}"), **self.instruments},
        )

    def columns(self, symbols: Collection[str]) -> dict[str, Any]:
        """Return the catalogue's columns of a session with these symbols."""
        tags = json.dumps(list(self.tags))
        listed = {name: terms for name, terms in self.instruments.items() if name in symbols}
        return {
            "exchange": self.exchange,
            "notes": self.notes,
            "tags": tags,
            "instruments": json.dumps(listed) if listed else None,
        }


def imports(db: QuestDB, session_id: str) -> pl.DataFrame:
    """Return the files that a session was imported from, one row a (file, symbol)."""
    names = list(IMPORTS.columns)
    query = sql.rows(Scope(IMPORTS, session_id), names, tie="path")
    return db.steady(lambda: db.catalogue(query)).filter(pl.col("state") != "refused")


def imported_files(db: QuestDB, session_id: str) -> list[dict[str, Any]]:
    """Return the same as plain rows; times are microseconds."""
    return [row for row in raw_rows(db, IMPORTS, session_id) if row["state"] != "refused"]


def write_refused(
    db: QuestDB,
    home: Path,
    session_id: str,
    files: Iterable[Mapping[str, Any]],
    reason: str,
) -> None:
    """Write into the status table that files were refused: path, size and SHA-256, and why.

    Such a row is of no session: a later import of the same id, or the one that has it, ignores it.
    """
    now = datetime.now(UTC)
    row = dict.fromkeys(IMPORTS.columns) | {
        "session_id": session_id, "symbol": "", "state": "refused", "updated_at": now,
        "timestamp": now, "detail": json.dumps([reason]),
    }  # fmt: skip
    with announcing(home / "locks"):
        db.write(IMPORTS, pl.DataFrame([{**row, **file} for file in files], schema=IMPORTS.frame))
    db.wait_visible(IMPORTS)


def all_imports(db: QuestDB, session_id: str | None, state: str | None, limit: int) -> pl.DataFrame:
    """Return the files that were imported or refused; see `fxlab.Lab.imports`."""
    wanted = {}
    if session_id is not None:
        wanted["session_id"] = schema.check_session_id(session_id)
    if state is not None:
        sql.choice(state, schema.IMPORT_STATES, "state of an import")
        wanted["state"] = state
    query = sql.imports(limit, **wanted)
    found = db.steady(lambda: db.catalogue(query))
    why = pl.col("detail").str.json_decode(pl.List(pl.String)).list.last()
    is_told = pl.col("state").is_in(["failed", "refused"])
    return found.with_columns(reason=pl.when(is_told).then(why)).drop("detail")


QUARANTINE: Final = "quarantine"
"""The folder of a home that keeps lines that are no ticks, by session."""


def events(db: QuestDB, session_id: str) -> pl.DataFrame:
    """Return a session's event table, by time."""
    names = [name for name in EVENTS.columns if name != "session_id"]
    names = ["timestamp", *(name for name in names if name != "timestamp")]
    return db.steady(lambda: db.catalogue(sql.rows(Scope(EVENTS, session_id), names)))


COUNTS: Final = {"symbol": pl.String(), "data_type": pl.String(), "rows": pl.Int64()}


def counts(
    db: QuestDB,
    session_id: str,
    start: int | None = None,
    end: int | None = None,
    channels: Collection[str] = (),
) -> pl.DataFrame:
    """Return the number of rows of each (symbol, data type), counted in the tick tables.

    Parameters
    ----------
    db, session_id
        Where the rows are, and which.
    start, end
        Half-open range of microseconds that holds them all; see `tick_range`.
    channels
        Data types of the session; rows of trades and books are counted whether or not it has them.

    Returns
    -------
    polars.DataFrame
        ``symbol``, ``data_type`` (a name in `fxlab.schema.DATA_TABLES`), ``rows``.
    """
    found = db.steady(lambda: _counts(db, session_id, start, end, channels))
    return pl.DataFrame(
        sorted((*key, rows) for key, rows in found.items()), schema=COUNTS, orient="row"
    )


def _counts(
    db: QuestDB, session_id: str, start: int | None, end: int | None, channels: Collection[str]
) -> Counter[tuple[str, str]]:
    found: Counter[tuple[str, str]] = Counter()
    for data_type, table in data_tables(channels).items():
        for piece in Scope(table, session_id, None, start, end).by_year():
            for symbol, rows in db.execute(sql.count_by_symbol(piece)):
                found[symbol, data_type] += rows
    return found
