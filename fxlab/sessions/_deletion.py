"""Deletion of sessions: hidden at once, taken back as long as rows are there, purged for good.

A deleted session is one with another status; what it was stands in its options. Its rows are freed
by a purge, which rewrites what many sessions share.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from fxlab._progress import Progress, shown
from fxlab._questdb import migrations, sql, sql_tables
from fxlab._questdb.client import QuestDB
from fxlab._times import Duration, from_micros, parse_duration, to_micros
from fxlab.errors import InvalidParameter, SessionBusy, SessionNotFound
from fxlab.schema import ORDERBOOK, PRICES, SESSIONS, UTC_MICROS, check_session_id
from fxlab.sessions import _catalog, _purge
from fxlab.sessions.session import Session

if TYPE_CHECKING:
    from fxlab.config import Settings

DELETED: Final = {
    "session_id": pl.String(),
    "status": pl.String(),
    "symbols": pl.List(pl.String()),
    "rows": pl.Int64(),
    "bytes": pl.Int64(),
    "deleted_at": UTC_MICROS,
    "can_be_undeleted": pl.Boolean(),
}
_NOTE: Final = "deletion"
"""Where the options of a hidden session say what it was."""
_SIZE: Final = re.compile(r"(\d+(?:\.\d+)?)\s*(?:([KMGT])?B?)", re.IGNORECASE)


class Deletions:
    """The part of a `fxlab.Lab` that deletes sessions."""

    settings: Settings
    _db: QuestDB

    @property
    def _locks(self) -> Path:
        return self.settings.home / "locks"

    def deletion_preview(self, session_id: str) -> pl.DataFrame:
        """Return what `delete` and `purge` of a session would free; nothing is changed.

        Returns
        -------
        polars.DataFrame
            One row a partition of each table: ``session_id``, ``table``, ``partition``, ``rows``,
            ``bytes`` (the session's share), ``shared_with`` (other sessions with rows in it, which
            stay), ``state``: "planned", or "deferred" and the ``reason``.

        Examples
        --------
        >>> lab.deletion_preview(session.id)["rows"].sum() >= session.prices_count
        True
        """
        return _purge.preview(self._db, [_catalog.find(self._db, session_id)], self._locks)

    def delete(self, session_id: str) -> pl.DataFrame:
        """Delete a session: it is hidden at once, and `undelete` brings it back until it is purged.

        Returns
        -------
        polars.DataFrame
            What `purge` will do, as `deletion_preview` tells.

        Raises
        ------
        SessionNotFound
            If there is none, or it is deleted already.
        SessionBusy
            If it is being recorded or imported.

        Examples
        --------
        >>> name = new_id()
        >>> report = lab.import_frame(ticks, "prices", session_id=name)
        >>> planned = lab.delete(name)
        >>> name in lab.sessions()["session_id"], name in lab.deleted()["session_id"]
        (False, True)
        """
        planned = self.deletion_preview(session_id)
        self._hide(session_id, int(planned["rows"].sum()), int(planned["bytes"].sum()))
        return planned

    def _hide(self, session_id: str, rows: int, size: int) -> None:
        name = _catalog.find(self._db, session_id)["session_id"]
        with _purge.own(self._locks / f"{name}.lock", f"session {name!r} is being imported"):
            row = _catalog.find(self._db, name)
            if row["status"] == "collecting" and row["source"] == "live":
                raise SessionBusy(
                    f"session {name!r} is being recorded; end the recording (Ctrl-C in its "
                    "terminal, collector.stop() in a notebook), then delete it"
                )
            now = datetime.now(UTC)
            before = {"status": row["status"], "updated_at": to_micros(row["updated_at"])}
            note = {"at": to_micros(now), "rows": rows, "bytes": size, "options": row["options"]}
            options = json.dumps({_NOTE: before | note})
            hidden = {**row, "status": "deleting", "options": options, "updated_at": now}
            _catalog.put(self._db, hidden)
            self._db.wait_visible(SESSIONS)

    def undelete(self, session_id: str) -> Session:
        """Bring a deleted session back as it was, and return it.

        Raises
        ------
        SessionNotFound
            If no such session is deleted, or a purge has freed rows of it.
        SessionBusy
            If a purge is running.

        Examples
        --------
        >>> planned = lab.delete(session.id)
        >>> lab.undelete(session.id) == session
        True
        """
        check_session_id(session_id)
        with _purge.alone(self._locks):
            row = _catalog.find_any(self._db, session_id)
            if row is None or row["status"] not in sql.HIDDEN:
                raise SessionNotFound(
                    f"no deleted session is named {session_id!r}; lab.deleted() lists them"
                )
            if row["status"] == "deleted":
                raise SessionNotFound(f"session {session_id!r} {_catalog.what_became_of(row)}")
            if self._begun([row]):
                raise SessionNotFound(
                    f"session {session_id!r} is purged in part, so it cannot come back; "
                    f"lab.purge({session_id!r}) frees the rest"
                )
            note = _note_of(row)
            before = {name: note[name] for name in ("status", "options")}
            shown_again = {**row, **before, "updated_at": from_micros(note["updated_at"])}
            _catalog.put(self._db, shown_again)
            self._db.wait_visible(SESSIONS)
        return Session.from_row(self._db, _catalog.find(self._db, session_id))

    def _begun(self, rows: Iterable[Mapping[str, Any]]) -> set[tuple[str, int]]:
        """Return id and time of deletion of those sessions of which rows are gone."""
        begun: dict[str, int] = {}
        for state in ("copied", "done"):
            for line in self._db.execute(sql_tables.purges(state)):
                begun[line[2]] = max(line[5], begun.get(line[2], 0))
        found = {(row["session_id"], _note_of(row)["at"]) for row in rows}
        return {(name, at) for name, at in found if begun.get(name, at) > at}

    def deleted(self) -> pl.DataFrame:
        """Return the sessions that are deleted, the last one first.

        Returns
        -------
        polars.DataFrame
            ``session_id``; ``status``: "deleting" (hidden; its rows are there) or "deleted" (they
            are gone); ``symbols``; ``rows`` and ``bytes`` that a purge frees or has freed;
            ``deleted_at``; ``can_be_undeleted``.
        """
        rows = _catalog.hidden(self._db)
        begun = self._begun(rows)
        lines = []
        for row in rows:
            note = _note_of(row)
            whole = row["status"] == "deleting" and (row["session_id"], note["at"]) not in begun
            lines.append(
                {
                    **{name: row[name] for name in ("session_id", "status")},
                    "symbols": json.loads(row["symbols"] or "[]"),
                    **{name: note[name] for name in ("rows", "bytes")},
                    "deleted_at": from_micros(note["at"]),
                    "can_be_undeleted": whole,
                }
            )
        return pl.DataFrame(lines, schema=DELETED).sort("deleted_at", descending=True)

    def purge(
        self,
        session_ids: str | Iterable[str] | None = None,
        *,
        older_than: Duration | None = None,
        dry_run: bool = False,
        progress: Progress = None,
    ) -> pl.DataFrame:
        """Free the disk of deleted sessions for good; every row of other sessions stays.

        A partition that a recording or an import may write to is deferred: purge again later. A
        purge that was killed is finished by the next one, or by the next `fxlab.connect`.

        Parameters
        ----------
        session_ids
            Deleted sessions; all unless given.
        older_than
            Only those that were deleted so long ago, such as "7d".
        dry_run, progress
            Only say what would be done; as `fxlab.backtest` takes it.

        Returns
        -------
        polars.DataFrame
            As `deletion_preview`; what is freed is "done".

        Raises
        ------
        SessionNotFound
            If an id is not that of a deleted session.
        SessionBusy
            If another purge is running.

        Examples
        --------
        >>> lab.purge(older_than="9000d").height
        0
        """
        rows = self._wanted(session_ids, older_than)
        if dry_run:
            return _purge.preview(self._db, rows, self._locks)
        with shown(progress, "purge") as advance:
            return _purge.purge(self._db, rows, self._locks, advance)

    def _wanted(
        self, session_ids: str | Iterable[str] | None, older_than: Duration | None
    ) -> list[dict[str, Any]]:
        """Return the rows of the sessions to purge."""
        hidden = _catalog.hidden(self._db)
        rows = {row["session_id"]: row for row in hidden if row["status"] == "deleting"}
        wanted = [session_ids] if isinstance(session_ids, str) else session_ids
        if wanted is not None:
            rows = {name: rows.get(name) or self._refuse_shown(name) for name in wanted}
        if older_than is None:
            return list(rows.values())
        edge = to_micros(datetime.now(UTC)) - parse_duration(older_than, "older_than")
        return [row for row in rows.values() if _note_of(row)["at"] <= edge]

    def _refuse_shown(self, session_id: str) -> dict[str, Any]:
        _catalog.find(self._db, session_id)  # says what else it is, if it is not there
        raise SessionNotFound(
            f"session {session_id!r} is not deleted, and only deleted ones are purged; "
            f"lab.delete({session_id!r}) deletes it"
        )

    def retention(
        self,
        *,
        older_than: Duration | None = None,
        max_bytes: int | str | None = None,
        dry_run: bool = True,
    ) -> pl.DataFrame:
        """Delete the sessions whose ticks are too old, and the oldest of those that take too much.

        It is a preview unless `dry_run` is False. What is deleted is hidden; `purge` frees it.

        Parameters
        ----------
        older_than
            Age of a session's last tick, such as "90d".
        max_bytes
            What the ticks of all sessions may take, such as "50GB"; those that are being written
            do not count.
        dry_run
            False deletes.

        Returns
        -------
        polars.DataFrame
            ``session_id``, ``started``, ``ended``, ``rows``, ``bytes`` and the ``reason``, the
            oldest first. One that is written just then stays, and its reason says so.

        Examples
        --------
        >>> lab.retention(older_than="90000d", max_bytes="1TB").height
        0
        """
        if older_than is None and max_bytes is None:
            raise InvalidParameter(
                "nothing says which sessions are to go; give older_than='90d', max_bytes='50GB', "
                "or both"
            )
        _purge.end_killed_imports(self._db, self._locks)  # what they left is old or much, too
        old = pl.lit(value=False)
        if older_than is not None:
            age = timedelta(microseconds=parse_duration(older_than, "older_than"))
            old = (pl.col("ended") < datetime.now(UTC) - age).fill_null(value=False)
        most = _purge.EVER[1] if max_bytes is None else _bytes(max_bytes)
        # Of this session and all that are younger.
        left = pl.col("bytes").sum() - pl.col("bytes").cum_sum() + pl.col("bytes")
        gone = _sized(self._db).with_columns(
            reason=pl.when(old)
            .then(pl.lit(f"its last tick is older than {older_than}"))
            .when(left > most)
            .then(pl.lit(f"with all that are younger it takes more than {max_bytes}"))
        )
        gone = gone.drop_nulls("reason")
        if dry_run:
            return gone
        busy = {}
        for row in gone.iter_rows(named=True):
            try:
                self._hide(row["session_id"], row["rows"], row["bytes"])
            except SessionBusy as error:
                busy[row["session_id"]] = f"not deleted: {error}"
        told = pl.col("session_id").replace_strict(busy, default=pl.col("reason"))
        return gone.with_columns(reason=told) if busy else gone


def _note_of(row: Mapping[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] | None = json.loads(row["options"] or "{}").get(_NOTE)
    if found is None:  # hidden by another hand
        at = to_micros(row["updated_at"])
        of_old = {"status": "completed", "updated_at": at, "options": row["options"]}
        found = {"at": at, "rows": row["records_collected"], "bytes": None, **of_old}
    return found


def _sized(db: QuestDB) -> pl.DataFrame:
    """Return all sessions that have ended, with the bytes that their ticks take."""
    found = db.catalogue(sql_tables.ended_sessions())
    size, rows = pl.lit(0.0), pl.lit(0)
    for table, column in ((PRICES, "prices_count"), (ORDERBOOK, "orderbook_count")):
        places = migrations.partitions(db, table)
        share = sum(place.size for place in places) / max(1, sum(place.rows for place in places))
        count = pl.col(column).fill_null(0)
        size, rows = size + count * share, rows + count
    return found.select(
        "session_id", "started", "ended", rows=rows, bytes=size.round().cast(pl.Int64)
    )


def _bytes(value: int | str) -> int:
    """Return a size in bytes: a whole number, or text such as "50GB"."""
    found = _SIZE.fullmatch(str(value).strip())
    if found is None or isinstance(value, bool):
        raise InvalidParameter(
            f"max_bytes={value!r:.80} is no size; give bytes, or text such as '500MB', '50GB'"
        )
    factor: int = 1000 ** "_KMGT".index((found[2] or "_").upper())
    return round(float(found[1]) * factor)
