"""Purge of deleted sessions: partitions rewritten without their rows, whatever is killed meanwhile.

The server deletes partitions, not rows, and a partition holds the ticks of many sessions. So each
is rewritten, and the journal holds the state of each rewrite:

planned
    The rows that stay are copied into a staging table and compared, value for value.
copied
    The partition is dropped and the copy put back, then compared again. Rows of other sessions may
    not be in their table now: `QuestDB.steady` keeps readers waiting.
done
    Nothing but the deleted sessions' rows is gone; the staging table is dropped.

A partition that holds nothing else is dropped, and only its end is written down: up to
`AT_ONCE` that follow each other in one statement, as each costs seven questions and a write.

The next connect finishes what is copied; what is only planned is planned again. A partition that a
recording or an import may write to is deferred: nobody begins to write between the last look at who
writes and the drop (`fxlab.sessions._catalog.announcing`).
"""

from __future__ import annotations

import contextlib
import shutil
import time
import warnings
from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from itertools import groupby
from pathlib import Path
from typing import Any, Final, NamedTuple

import polars as pl
from filelock import FileLock, Timeout

from fxlab._progress import Advance
from fxlab._questdb import migrations, sql_tables
from fxlab._questdb.client import QuestDB
from fxlab._questdb.migrations import Partition
from fxlab._questdb.sql import Span
from fxlab._times import bounds, from_micros
from fxlab.errors import QuestDBError, SchemaError, SessionBusy
from fxlab.schema import (
    DATA_TABLES,
    EVENTS,
    IMPORTS,
    PURGE_JOURNAL,
    RECEIPTS,
    SESSIONS,
    Table,
)
from fxlab.sessions import _catalog

_TICKS: Final = tuple(DATA_TABLES.values())
TABLES: Final = (*_TICKS, EVENTS, RECEIPTS, IMPORTS)
"""All that hold rows of a session, but for its row in the catalogue, which stays."""

EVER: Final = (-(2**62), 2**62)
_UNDER_WAY: Final = 2.0
"""Seconds after which what a killed process has sent is with the server, or never will be."""

PLAN: Final = {
    **dict.fromkeys(("session_id", "table", "partition"), pl.String()),
    **dict.fromkeys(("rows", "bytes", "shared_with"), pl.Int64()),
    **dict.fromkeys(("state", "reason"), pl.String()),
}


class WrittenSession(NamedTuple):
    """A session that is being written, as its row in the catalogue says (us)."""

    session_id: str
    source: str
    started: int | None
    ended: int | None
    created_at: int

    def may_write(self, place: Partition) -> bool:
        """Return whether rows of the session may come into a partition."""
        low, high = self._range(place.table)
        return low < place.end and place.start <= high

    def _range(self, table: Table) -> tuple[int, int]:
        if table in (RECEIPTS, IMPORTS):  # of recordings, of imports
            is_its = (table is RECEIPTS) == (self.source == "live")
            return (self.created_at, self.created_at) if is_its else (0, -1)
        if self.started is None or (self.ended is None and self.source != "live"):
            return EVER
        if self.source != "live":
            return self.started, self.ended or self.started
        return _catalog.recorded_from(self.started, self.created_at), EVER[1]

    def __str__(self) -> str:
        """Say what is happening to it."""
        what = "recorded" if self.source == "live" else "imported"
        return f"session {self.session_id!r} is being {what}"


@dataclass(frozen=True)
class Rewrite:
    """A partition that loses the rows of some sessions."""

    place: Partition
    freed: Mapping[str, int]
    """Session to its rows."""
    kept: int
    shared_with: int
    """Other sessions with rows in it."""
    began: datetime = field(default_factory=lambda: datetime.now(UTC))

    @property
    def span(self) -> Span:
        """Return the range and condition of what stays."""
        return Span(self.place.start, self.place.end, tuple(self.freed))

    @property
    def staging(self) -> Table:
        """Return the table that holds what stays while the partition is dropped."""
        table = self.place.table
        return replace(table, name=f"{table.name}{_STAGED}{self.place.name.replace('-', '_')}")

    def of(self, names: AbstractSet[str]) -> Rewrite:
        """Return what it is for some of the sessions; the rows of the others stay."""
        freed = {name: rows for name, rows in self.freed.items() if name in names}
        kept = self.kept + sum(self.freed.values()) - sum(freed.values())
        return replace(self, freed=freed, kept=kept)

    def lines(self, state: str, reason: str = "") -> Iterator[dict[str, Any]]:
        """Yield a row of `PLAN` for each session."""
        for session_id, rows in self.freed.items():
            yield {
                "session_id": session_id,
                "table": self.place.table.name,
                "partition": self.place.name,
                "rows": rows,
                "bytes": round(self.place.size * rows / max(1, self.place.rows)),
                "shared_with": self.shared_with,
                "state": state,
                "reason": reason,
            }


_STAGED: Final = "_purge_"
AT_ONCE: Final = 50
"""Partitions that are dropped by one statement; nobody begins to write while they are."""


def preview(db: QuestDB, rows: Sequence[Mapping[str, Any]], locks: Path) -> pl.DataFrame:
    """Return what a purge of sessions would do; none of them is changed.

    Returns
    -------
    polars.DataFrame
        One row a session and partition: ``table``, ``partition``, ``rows``, ``bytes`` (its share),
        ``shared_with`` (other sessions with rows in it, which stay), ``state`` ("planned" or
        "deferred") and the ``reason``.
    """
    writers = find_writers(db, locks)
    lines = _outcomes(
        ([one] for one in _rewrites(db, rows)),
        "planned",
        lambda rewrites: [who_writes(one.place, writers, one.freed) for one in rewrites],
    )
    return pl.DataFrame(lines, schema=PLAN)


def _outcomes(
    groups: Iterable[Sequence[Rewrite]],
    state: str,
    run: Callable[[Sequence[Rewrite]], Sequence[str]],
) -> Iterator[dict[str, Any]]:
    """Yield rows of `PLAN`: each rewrite runs, together with its group, or says why it has to wait.

    Ticks come first: as long as all ticks of a session wait, nothing of it is gone.
    """
    waiting: set[str] = set()
    for group in groups:
        is_ledger = group[0].place.table not in _TICKS
        later = [rewrite.of(waiting if is_ledger else set()) for rewrite in group]
        for one in later:
            yield from one.lines("deferred", "ticks of the session are deferred")
        now = [
            one.of(one.freed.keys() - its.freed.keys())
            for one, its in zip(group, later, strict=True)
        ]
        now = [one for one in now if one.freed]
        for one, reason in zip(now, run(now) if now else (), strict=True):
            waiting |= one.freed.keys() if reason else set()
            yield from one.lines("deferred" if reason else state, reason)


def _together(rewrites: Iterable[Rewrite]) -> Iterator[list[Rewrite]]:
    """Yield rewrites that may run at once: partitions of ticks side by side of which none stays."""
    group: list[Rewrite] = []
    for one in rewrites:
        if group and not (len(group) < AT_ONCE and _follows(group[-1], one)):
            yield group
            group = []
        group.append(one)
    if group:
        yield group


def _follows(before: Rewrite, after: Rewrite) -> bool:
    left, right = before.place, after.place
    is_next = (left.table, left.end) == (right.table, right.start)
    return is_next and left.table in _TICKS and not before.kept + after.kept


def purge(
    db: QuestDB, rows: Sequence[Mapping[str, Any]], locks: Path, progress: Advance
) -> pl.DataFrame:
    """Free the rows of deleted sessions; return what became of each partition, as `preview` does.

    Parameters
    ----------
    db, rows, locks
        The server; the sessions' rows of the catalogue; the folder of lock files.
    progress
        Told after each partition. If it raises, the next purge goes on from there.

    Raises
    ------
    SessionBusy
        If another purge is running.
    SchemaError
        If a copy differs from what was copied; both are kept then.
    """
    with alone(locks):
        _finish(db)
        groups = list(_together(_rewrites(db, rows)))
        told = _telling(groups, progress)
        lines = list(_outcomes(told, "done", lambda group: _run(db, group, locks)))
        _sweep(db)
        deferred = {line["session_id"] for line in lines if line["state"] != "done"}
        _close(db, [row for row in rows if row["session_id"] not in deferred], locks.parent)
    return pl.DataFrame(lines, schema=PLAN)


def _telling(groups: Sequence[list[Rewrite]], progress: Advance) -> Iterator[list[Rewrite]]:
    total, done = sum(map(len, groups)), 0
    for group in groups:
        yield group
        done += len(group)
        progress(done / total, f"{done:,} of {total:,} partitions")


def _close(db: QuestDB, rows: Iterable[Mapping[str, Any]], home: Path) -> None:
    """Say in the catalogue that nothing is left of sessions, after what lies beside the tables."""
    for row in rows:
        quarantine = home / _catalog.QUARANTINE / row["session_id"]
        if quarantine.exists():
            shutil.rmtree(quarantine)
        if db.cache is not None:
            db.cache.clear(row["session_id"])
        _catalog.store(db, {**row, "status": "deleted"})
    db.wait_visible(SESSIONS)


def finish(db: QuestDB, locks: Path) -> None:
    """Put back what a purge that was killed has taken out; do nothing where none was.

    One that is running is left alone. What cannot be finished is said by a warning, and readers
    are refused.
    """
    try:
        db.wait_visible(PURGE_JOURNAL)  # the killed process may have written to it last
        if not db.is_moving():
            return
        with contextlib.suppress(SessionBusy), alone(locks):
            _finish(db)
    except QuestDBError as error:
        warnings.warn(f"a purge that was killed cannot be finished: {error}", stacklevel=4)


def _finish(db: QuestDB) -> None:
    """Finish the rewrites whose rows were copied. Readers waited for it."""
    db.wait_visible(PURGE_JOURNAL)
    lines = db.execute(sql_tables.purges("copied"))
    for (_, name, partition), group in groupby(lines, key=lambda line: (line[5], *line[:2])):
        found = list(group)
        # What the killed process had sent last may not have reached the server yet.
        age = time.time() - found[0][6] / 1e6
        time.sleep(min(_UNDER_WAY, max(0.0, _UNDER_WAY - age)))
        table = next(table for table in TABLES if table.name == name)
        freed = {line[2]: int(line[4]) for line in found}
        began = from_micros(found[0][5])
        place = migrations.partition(table, partition)._replace(rows=sum(freed.values()))
        rewrite = Rewrite(place, freed, int(found[0][3]), 0, began)
        db.wait_visible(table)
        if freed.keys() & count_rows(db, place).keys():  # not dropped: nothing has happened
            _note(db, "planned", rewrite)
        else:
            _put_back(db, rewrite)


def _run(db: QuestDB, group: Sequence[Rewrite], locks: Path) -> Sequence[str]:
    """Take the sessions' rows out of partitions; return of each why not, if it has to wait."""
    if len(group) > 1 and _drop_together(db, group, locks):
        return [""] * len(group)
    return [_rewrite(db, one, locks) for one in group]


def _drop_together(db: QuestDB, group: Sequence[Rewrite], locks: Path) -> bool:
    """Drop partitions side by side of which nothing stays; return False if one has to wait."""
    freed = sum((Counter(one.freed) for one in group), Counter())
    place = group[0].place._replace(end=group[-1].place.end)
    whole = Rewrite(place, freed, 0, 0)
    with _catalog.announcing(locks):
        db.wait_visible(SESSIONS)
        if who_writes(place, find_writers(db, locks)) or _moved(db, whole):
            return False
        names = [one.place.name for one in group]
        db.execute(sql_tables.drop_partitions(place.table, *names))
    _refuse_undropped(db, whole)
    _note(db, "done", *group)
    return True


def _rewrite(db: QuestDB, rewrite: Rewrite, locks: Path) -> str:
    """Take the sessions' rows out of a partition; return why not, if it has to wait."""
    if busy := who_writes(rewrite.place, find_writers(db, locks)):
        return busy
    if rewrite.kept:  # else nothing is put back, and a kill leaves nothing to be finished
        _note(db, "planned", rewrite)
        if moved := _stage(db, rewrite):
            return moved
    with _catalog.announcing(locks):  # until it is dropped, nobody begins to write
        if rewrite.kept:
            _note(db, "copied", rewrite)
        db.wait_visible(SESSIONS)
        busy = who_writes(rewrite.place, find_writers(db, locks)) or _moved(db, rewrite)
        if busy:
            if rewrite.kept:
                _note(db, "planned", rewrite)
            return busy
        db.execute(sql_tables.drop_partitions(rewrite.place.table, rewrite.place.name))
    _put_back(db, rewrite)
    return ""


def _moved(db: QuestDB, rewrite: Rewrite) -> str:
    """Return what to say if rows were written to a partition since it was counted."""
    db.wait_visible(rewrite.place.table)
    counts = count_rows(db, rewrite.place)
    freed = {name: counts.get(name, 0) for name in rewrite.freed}
    if freed == rewrite.freed and sum(counts.values()) == rewrite.kept + sum(freed.values()):
        return ""
    return "rows were written to it meanwhile; purge again when that is over"


def _stage(db: QuestDB, rewrite: Rewrite) -> str:
    """Copy what stays into the staging table, and compare every value; return why not."""
    place, staging = rewrite.place, rewrite.staging
    if staging.name in _names(db):
        migrations.drop(db, staging)
    migrations.run(db, sql_tables.create_table(staging))
    db.execute(sql_tables.copy_rows(place.table, staging, rewrite.span))
    db.wait_visible(staging)
    try:
        _compare(db, rewrite, place.table, staging, rewrite.span)
    except SchemaError:
        if moved := _moved(db, rewrite):
            return moved
        raise
    return ""


def _put_back(db: QuestDB, rewrite: Rewrite) -> None:
    """Make sure that all that stays is in its table again, every value; then end the rewrite."""
    place, staging = rewrite.place, rewrite.staging
    whole = Span(place.start, place.end)
    if rewrite.kept:
        db.execute(sql_tables.copy_rows(staging, place.table, whole))  # harmless where it is there
        db.wait_visible(place.table)
        _compare(db, rewrite, staging, place.table, whole)
    _refuse_undropped(db, rewrite)
    _note(db, "done", rewrite)
    if rewrite.kept:
        migrations.drop(db, staging)


def _refuse_undropped(db: QuestDB, rewrite: Rewrite) -> None:
    place = rewrite.place
    db.wait_visible(place.table)
    if rewrite.freed.keys() & count_rows(db, place).keys():
        raise SchemaError(
            f"the server has not dropped partition {place.name} of {place.table.name}; no row is "
            "lost: run fxlab doctor, then purge again"
        )


def _compare(db: QuestDB, rewrite: Rewrite, left: Table, right: Table, span: Span) -> None:
    lost = sum(
        migrations.missing(db, left, right, piece)
        for piece in migrations.cut(span, rewrite.kept, left)
    )
    if lost:
        raise SchemaError(
            f"{lost:,} rows of {left.name}, partition {rewrite.place.name}, are not equal in "
            f"{right.name}; both tables are kept: run fxlab doctor, and delete neither"
        )


def _sweep(db: QuestDB) -> None:
    """Drop staging tables that a killed purge has left; all they held is where it belongs."""
    for name in _names(db):
        table = next((t for t in TABLES if name.startswith(f"{t.name}{_STAGED}")), None)
        if table is not None:
            migrations.drop(db, replace(table, name=name))


def _names(db: QuestDB) -> set[str]:
    return {str(row[0]) for row in db.execute(sql_tables.list_tables())}


def _note(db: QuestDB, state: str, *rewrites: Rewrite) -> None:
    """Write the state of rewrites into the journal, for all their sessions at once."""
    rows = [
        {
            "session_id": session_id,
            "table_name": rewrite.place.table.name,
            "partition_name": rewrite.place.name,
            "state": state,
            "rows_kept": rewrite.kept,
            "rows_freed": freed,
            "updated_at": datetime.now(UTC),
            "timestamp": rewrite.began,
        }
        for rewrite in rewrites
        for session_id, freed in rewrite.freed.items()
    ]
    db.write(PURGE_JOURNAL, pl.DataFrame(rows, schema=PURGE_JOURNAL.frame))
    db.wait_visible(PURGE_JOURNAL)


def find_writers(db: QuestDB, locks: Path) -> list[WrittenSession]:
    """Return the sessions that are being recorded or imported, in any process.

    Imports that were killed are none of them, and are ended.
    """
    found = [WrittenSession(*row) for row in db.execute(sql_tables.writers())]
    return [one for one in found if not _end_killed(db, one, locks)]


def end_killed_imports(db: QuestDB, locks: Path) -> list[str]:
    """Mark the sessions of killed imports as failed, and return their ids."""
    found = [WrittenSession(*row) for row in db.execute(sql_tables.writers())]
    return [one.session_id for one in found if _end_killed(db, one, locks)]


def _end_killed(db: QuestDB, one: WrittenSession, locks: Path) -> bool:
    """Mark an import as failed if no process holds its lock; return whether it has ended."""
    lock = locks / f"{one.session_id}.lock"
    # Another home may import into a server that is the user's own: its locks are not seen here.
    if one.source == "live" or not (db.endpoint.embedded or lock.exists()):
        return False
    try:
        with own(lock, str(one)):
            db.wait_visible(SESSIONS)  # it may have ended well just now
            row = _catalog.find_any(db, one.session_id)
            if row is not None and row["status"] == "collecting":
                _catalog.store(db, {**row, "status": "failed"})
                db.wait_visible(SESSIONS)
    except SessionBusy:
        return False
    return True


def who_writes(
    place: Partition, writers: Iterable[WrittenSession], without: Iterable[str] = ()
) -> str:
    """Return who may write to a partition, or nothing if nobody does."""
    left_out = set(without)
    others = (one for one in writers if one.session_id not in left_out)
    return next((str(one) for one in others if one.may_write(place)), "")


def _rewrites(db: QuestDB, rows: Sequence[Mapping[str, Any]]) -> Iterator[Rewrite]:
    """Yield what a purge of these sessions has to rewrite, ticks first."""
    ranges = {row["session_id"]: ever_range(row) for row in rows}
    for table in TABLES if rows else ():
        for place in migrations.partitions(db, table):
            wanted = {
                session_id
                for session_id, (low, high) in ranges.items()
                if table not in _TICKS or (low < place.end and place.start < high)
            }
            counts = count_rows(db, place) if wanted else {}
            freed = {name: counts[name] for name in sorted(wanted & counts.keys())}
            if freed:
                kept = sum(counts.values()) - sum(freed.values())
                yield Rewrite(place, freed, kept, len(counts) - len(freed))


def ever_range(row: Mapping[str, Any]) -> tuple[int, int]:
    """Return the range that holds all ticks of a session (us); `EVER` where its row has no time."""
    first, last = bounds(row["started"], row["ended"])
    return (EVER[0] if first is None else first, EVER[1] if last is None else last)


def count_rows(db: QuestDB, place: Partition) -> dict[str, int]:
    """Return the number of rows of each session in a partition."""
    found = db.execute(sql_tables.rows_by_session(place.table, Span(place.start, place.end)))
    return {session_id: int(rows) for session_id, rows in found}


@contextmanager
def own(path: Path, what: str) -> Iterator[None]:
    """Hold a lock file, or say who does."""
    path.parent.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(path, timeout=0):
            yield
    except Timeout:
        raise SessionBusy(f"{what} by another process now; try again when it has ended") from None


def alone(locks: Path) -> AbstractContextManager[None]:
    """Be the only one that purges, brings back or archives; raises `SessionBusy` if another does.

    The lock is a file of the home: processes of another home on the same server do not see it.
    """
    return own(locks / "purge.lock", "partitions are purged or archived")
