"""Importer: all rows of all sessions stored once or not at all, resumable, with a report by file.

All files of all sessions are read and checked before the first row is written. A session becomes
"completed" only after its rows have been counted in the database. Whatever happens in between,
importing the same files again finishes the work: each row has the same identity each time.
"""

from __future__ import annotations

import contextlib
import json
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final, Protocol

import polars as pl
from filelock import FileLock

from fxlab import _html
from fxlab._progress import Advance, part, silent
from fxlab._questdb import sql
from fxlab._questdb.client import QuestDB
from fxlab._times import bounds
from fxlab.collect._files.session_data import ImportedSession, gathered
from fxlab.errors import InvalidInput, QuestDBError, SessionExists, WriteFailed
from fxlab.schema import IMPORTS, ORDERBOOK, PRICES, SESSIONS, UTC_MICROS, check_tags
from fxlab.sessions import _catalog

_log: Final = logging.getLogger(__name__)

KEPT_ROWS: Final = 5_000_000
"""Up to so many rows stay in memory between checking and writing; the rest is read again."""

READING: Final = 0.3  # share of the work
DRY_STATES: Final = {"imported": "new", "finished": "unfinished", "unchanged": "unchanged"}


class Source(Protocol):
    """Something that holds one session."""

    @property
    def session_id(self) -> str:
        """Return the id that the session will have."""

    def read(self) -> ImportedSession:
        """Read and check all its rows; the same rows each time."""


@dataclass(frozen=True, slots=True)
class About:
    """What the user says of the sessions that an import makes."""

    exchange: str | None = None
    notes: str = ""
    tags: tuple[str, ...] = ()

    @classmethod
    def of(cls, exchange: str | None = None, notes: str = "", tags: Sequence[str] = ()) -> About:
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
        return cls(exchange, notes, check_tags(tags))

    def beside(self, row: Mapping[str, Any] | None) -> About:
        """Return this and, where it says nothing, what a session's row says already."""
        if row is None:
            return self
        before = json.loads(row["tags"] or "[]")
        return About(
            self.exchange if self.exchange is not None else row["exchange"],
            self.notes or row["notes"] or "",
            tuple(dict.fromkeys((*before, *self.tags))),
        )

    def columns(self) -> dict[str, Any]:
        """Return the catalogue's columns."""
        tags = json.dumps(list(self.tags))
        return {"exchange": self.exchange, "notes": self.notes, "tags": tags}


@dataclass(slots=True)
class Checked:
    """A session that may be imported."""

    source: Source
    draft: ImportedSession | None
    lines: list[Line]
    rows: int
    state: str


def import_sources(
    db: QuestDB,
    sources: Sequence[Source],
    about: About,
    *,
    locks: Path,
    dry_run: bool = False,
    skipped: Sequence[str] = (),
    progress: Advance = silent,
) -> ImportReport:
    """Check all sessions, then store them one after the other.

    Parameters
    ----------
    db
        The server, its tables migrated.
    sources, about
        What to import, and what the user says of it.
    locks
        Folder for lock files: on one machine, imports of one id take turns.
    dry_run
        Read, check and report; write nothing.
    skipped
        Paths for the report.
    progress
        Told about each session's reading and each batch. If it raises, the session half written
        is marked as failed; importing again finishes it.

    Raises
    ------
    ImportRefused, SessionExists
        Before anything is written.
    WriteFailed
        If rows could not be stored, or the database counts other rows than were sent.
    """
    reading = part(progress, 0.0, 1.0 if dry_run else READING)
    checked = list(_check_all(db, sources, reading, dry_run=dry_run))
    if not dry_run:
        total = sum(item.rows for item in checked)
        before = 0
        for item in checked:
            low, high = (READING + (1 - READING) * n / total for n in (before, before + item.rows))
            item.state = _store_one(db, item, about, locks, part(progress, low, high))
            item.draft = None  # its rows are in the database now
            before += item.rows
    states = DRY_STATES if dry_run else {}
    lines = (
        {**line, "state": states.get(item.state, item.state)}
        for item in checked
        for line in item.lines
    )
    return report(lines, skipped)


def _check_all(
    db: QuestDB, sources: Sequence[Source], progress: Advance, *, dry_run: bool
) -> Iterator[Checked]:
    rows = 0
    for number, source in enumerate(sources, 1):
        draft = source.read()
        rows += draft.rows
        kept = draft if rows <= KEPT_ROWS else None
        # A single session is judged when its turn has come: nothing is written before that.
        state = judge(db, draft) if dry_run or len(sources) > 1 else ""
        yield Checked(source, kept, lines_of(draft), draft.rows, state)
        progress(number / len(sources), f"{source.session_id}: {draft.rows:,} rows checked")


def judge(db: QuestDB, draft: ImportedSession) -> str:
    """Return what importing a session would be: "imported", "finished" or "unchanged".

    Raises
    ------
    SessionExists
        If other data has the id, or the session is being deleted.
    """
    row = _catalog.find_any(db, draft.session_id)
    known = _catalog.raw_rows(db, IMPORTS, draft.session_id)
    if row is None and not known:
        return "imported"
    if row is not None and row["status"] in sql.HIDDEN:
        raise SessionExists(
            f"session {draft.session_id!r} is {row['status']}; give the data another session_id"
        )
    if frozenset((each["symbol"], each["sha256"]) for each in known) != draft.identity:
        raise SessionExists(
            f"session {draft.session_id!r} holds other data than these files; give them another "
            "session_id (the session there was not touched)"
        )
    complete = row is not None and row["status"] == "completed"
    return "unchanged" if complete and not _difference(db, draft) else "finished"


def _store_one(db: QuestDB, item: Checked, about: About, locks: Path, progress: Advance) -> str:
    draft = item.draft or item.source.read()
    with _turn(locks, draft.session_id):
        # Again: another import may have been faster, or killed right after it was acknowledged,
        # when what it wrote does not show yet.
        db.wait_visible(IMPORTS, SESSIONS)
        state = judge(db, draft)
        row = _catalog.find_any(db, draft.session_id)
        said = about.beside(row)
        if state != "unchanged":
            store(db, draft, said, progress)
        elif row is not None and said != About().beside(row):
            _catalog.store(db, {**row, **said.columns()})
            db.wait_visible(SESSIONS)
            return "updated"
    return state


@contextlib.contextmanager
def _turn(locks: Path, session_id: str) -> Iterator[None]:
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{session_id}.lock"):
        yield


def store(db: QuestDB, draft: ImportedSession, about: About, progress: Advance = silent) -> None:
    """Write a session: its files, its row, its ticks; count them; call it completed.

    Raises
    ------
    WriteFailed
        If a write fails or the counts differ; the session is then marked as failed.
    """
    row = {
        **draft.catalogue_row(),
        **about.columns(),
    }
    _log.info("import of %s begins: %d rows", draft.session_id, draft.rows)
    _record_files(db, draft, "started")
    _catalog.store(db, {**row, "status": "collecting"})
    try:
        _write_ticks(db, draft, progress)
        _refuse_difference(db, draft)
    except BaseException:
        with contextlib.suppress(QuestDBError):  # the error on its way says more
            _catalog.store(db, {**row, "status": "failed"})
            db.wait_visible(IMPORTS, SESSIONS)
        raise
    _record_files(db, draft, "done")
    _catalog.store(db, {**row, "status": "completed"})
    db.wait_visible(IMPORTS, SESSIONS)
    _log.info("import of %s is completed", draft.session_id)


def _write_ticks(db: QuestDB, draft: ImportedSession, progress: Advance) -> None:
    written = 0
    for table, frame in gathered(draft.frames()):
        low, high = written / draft.rows, (written + frame.height) / draft.rows
        db.write(table, frame, part(progress, low, high))
        written += frame.height
    db.wait_visible(PRICES, ORDERBOOK)


def _refuse_difference(db: QuestDB, draft: ImportedSession) -> None:
    difference = _difference(db, draft)
    if difference:
        raise WriteFailed(
            f"session {draft.session_id!r}: {difference}; it is marked as failed: import the same "
            "files again to finish it"
        )


def _difference(db: QuestDB, draft: ImportedSession) -> str:
    """Return how the database's rows differ from the draft's, or nothing if they do not."""
    stored = {
        (symbol, data_type): rows
        for symbol, data_type, rows in _catalog.counts(
            db, draft.session_id, *bounds(draft.first, draft.last)
        ).iter_rows()
    }
    counts = draft.counts
    for key in sorted(counts.keys() | stored.keys()):
        sent, found = counts.get(key, 0), stored.get(key, 0)
        if sent != found:
            return f"{sent:,} {key[1]} rows of {key[0]} were sent and {found:,} are there"
    return ""


def _record_files(db: QuestDB, draft: ImportedSession, state: str) -> None:
    rows = [
        {
            "session_id": draft.session_id,
            "symbol": piece.symbol,
            "state": state,
            "path": piece.path,
            "sha256": piece.sha256,
            "rows_good": piece.frame.height,
            "rows_bad": 0,
            "updated_at": datetime.now(UTC),
            "timestamp": draft.first,
        }
        for piece in draft.parts
    ]
    db.write(IMPORTS, pl.DataFrame(rows, schema=IMPORTS.frame))


SCHEMA: Final = {
    "session_id": pl.String(),
    "symbol": pl.String(),
    "file": pl.String(),
    "kind": pl.String(),
    "rows": pl.Int64(),
    "first": UTC_MICROS,
    "last": UTC_MICROS,
    "backward": pl.Int64(),
    "state": pl.String(),
}

Line = Mapping[str, Any]
"""One row of the report."""


@dataclass(frozen=True, repr=False)
class ImportReport:
    """The outcome of an import.

    Attributes
    ----------
    frame
        See `table`.
    skipped
        Files and folders that are no part of a session and were not read.
    notes
        What was done that the rows do not show: times rounded, rows known by their place only.

    Examples
    --------
    >>> frame = ticks.with_columns(symbol=pl.lit("BTC_USDT"))
    >>> lab.import_frame(frame, "prices", session_id=new_id()).table().height
    1
    """

    frame: pl.DataFrame
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def sessions(self) -> list[str]:
        """Return the session ids, in the order of the import."""
        return self.frame["session_id"].unique(maintain_order=True).to_list()

    @property
    def rows(self) -> int:
        """Return the number of rows in the files; unless it was a dry run they are all stored."""
        return int(self.frame["rows"].sum())

    def table(self) -> pl.DataFrame:
        """Return one row a (file, symbol).

        Returns
        -------
        polars.DataFrame
            ``session_id``, ``symbol``, ``file``, ``kind`` ("prices" or "orderbook"), ``rows``,
            ``first`` and ``last`` time, ``backward`` (rows earlier than the row before them; they
            are stored as they are), ``state``: "imported", "finished" (an import that had stopped
            half-way), "unchanged" (it was there), "updated" (it was there; what is said of it is
            new); of a dry run "new", "unfinished", "unchanged".
        """
        return self.frame

    def __repr__(self) -> str:
        """Show what became of how much, and the table."""
        states = self.frame.group_by("state", maintain_order=True).len()
        told = ", ".join(f"{count} {state}" for state, count in states.iter_rows())
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        return (
            f"<ImportReport sessions={len(self.sessions)} files={self.frame.height} ({told})"
            f"{skipped} rows={self.rows:,}>\n{self.frame}" + "".join(f"\n{n}" for n in self.notes)
        )

    def _repr_html_(self) -> str:
        left = ", ".join(self.skipped)
        notes = [f"Not part of a session, not read: {left}"] if left else []
        shown = _html.table(self.frame, caption=f"{self.rows:,} rows")
        return shown + _html.paragraphs([*notes, *self.notes])


def lines_of(draft: ImportedSession) -> list[Line]:
    """Return a session's lines of the report, still without a state."""
    return [
        {
            "session_id": draft.session_id,
            "symbol": part.symbol,
            "file": part.path,
            "kind": part.data_type,
            "rows": part.frame.height,
            "first": part.first,
            "last": part.last,
            "backward": part.backward,
            "notes": [f"{part.path}, {part.symbol}: {note}" for note in part.notes],
        }
        for part in draft.parts
    ]


def report(lines: Iterable[Line], skipped: Iterable[str] = ()) -> ImportReport:
    """Return the report of all lines."""
    told = list(lines)
    notes = tuple(note for line in told for note in line.get("notes", ()))
    rows = [{name: line[name] for name in SCHEMA} for line in told]
    return ImportReport(pl.DataFrame(rows, schema=SCHEMA), tuple(skipped), notes)
