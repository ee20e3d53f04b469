"""Importer: all rows of all sessions stored once or not at all, resumable, with a report by file.

All files of all sessions are read and checked before the first row is written. A session becomes
"completed" only after its rows have been counted in the database. Whatever happens in between,
importing the same files again finishes the work: each row has the same identity each time.
"""

from __future__ import annotations

import contextlib
import json
import logging
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl
from filelock import FileLock

from fxlab import _html
from fxlab._progress import Advance, in_steps, pace, part, silent
from fxlab._questdb.client import QuestDB
from fxlab._times import bounds, from_micros
from fxlab.collect._files.blocks import Source, set_aside
from fxlab.collect._files.quarantine import STRICT, ReadOptions, lent
from fxlab.collect._files.session_data import ImportedSession, Part, gathered
from fxlab.errors import InvalidInput, QuestDBError, SessionExists, WriteFailed, some
from fxlab.schema import EVENTS, IMPORTS, ORDERBOOK, PRICES, SESSIONS, UTC_MICROS
from fxlab.sessions import _catalog
from fxlab.sessions._catalog import About

_log: Final = logging.getLogger(__name__)

READING: Final = 0.5  # share of the work
_TOLD_EVERY: Final = 0.5  # seconds
DRY_STATES: Final = {"imported": "new", "finished": "unfinished", "unchanged": "unchanged"}


@dataclass(slots=True)
class Checked:
    """A session that may be imported."""

    source: Source
    draft: ImportedSession | None
    lines: list[Line]
    rows: int
    state: str

    @property
    def is_known(self) -> bool:
        """Whether the session is there, whole: its rows were not read again."""
        return self.draft is None and self.state == "unchanged"


def import_sources(
    db: QuestDB,
    sources: Sequence[Source],
    about: About,
    *,
    home: Path,
    how: ReadOptions = STRICT,
    workers: int = 1,
    dry_run: bool = False,
    skipped: Sequence[str] = (),
    refused: dict[str, str] | None = None,
    progress: Advance = silent,
) -> ImportReport:
    """Check all sessions, then store them one after the other.

    Parameters
    ----------
    db
        The server, its tables migrated.
    sources, about
        What to import, and what the user says of it.
    home
        Folder for lock files (on one machine, imports of one id take turns), for quarantined
        rows, and for checked rows that wait.
    how
        What becomes of bad rows.
    workers
        So many sessions are read at once.
    dry_run
        Read, check and report; write nothing.
    skipped
        Paths for the report.
    refused
        Takes the sessions that are refused, and why; without it, one has all of them refused.
    progress
        Told about each session's reading and each batch. If it raises, the session half written
        is marked as failed; importing again finishes it.

    Raises
    ------
    ImportRefused, SessionExists
        Before anything is written but why: the status table has it.
    WriteFailed
        If rows could not be stored, or the database counts other rows than were sent.
    """
    began = time.monotonic()
    reading = part(progress, 0.0, 1.0 if dry_run else READING)
    with lent(home / "spool") as room:
        own = replace(how, room=room)
        kept = None if dry_run else home / _catalog.QUARANTINE
        checked = list(_check_all(db, sources, own, reading, workers, kept=kept, refused=refused))
        stored = _telling_rows(checked, part(progress, READING, 1.0))
        for item, told in () if dry_run else stored:
            with set_aside(refused, item.source.session_id):
                item.state = _store_one(db, item, about, home, told)
            if item.draft is not None:
                item.draft.close()  # its rows are in the database now
    states = DRY_STATES if dry_run else {}
    lines = (
        {**line, "state": states.get(item.state, item.state)}
        for item in checked
        if item.source.session_id not in (refused or {})
        for line in item.lines
    )
    return report(lines, skipped, time.monotonic() - began, refused or {})


def _telling_rows(
    checked: Iterable[Checked], progress: Advance
) -> Iterator[tuple[Checked, Advance]]:
    """Yield sessions, and for each a progress that tells the rows of all that are stored."""
    total = sum(item.rows for item in checked if not item.is_known)
    before, began = 0, time.monotonic()
    for item in checked:

        def told(share: float, _: str, before: int = before, more: int = item.rows) -> None:
            done = before + int(share * more)
            rate = pace(done, time.monotonic() - began, done / total)
            progress(done / total, f"{done:,} of {total:,} rows stored, {rate}")

        yield item, told
        before += 0 if item.is_known else item.rows


def _check_all(
    db: QuestDB,
    sources: Sequence[Source],
    how: ReadOptions,
    progress: Advance,
    workers: int,
    *,
    kept: Path | None,
    refused: dict[str, str] | None,
) -> Iterator[Checked]:
    """Read all sessions that are not there, some at once, and yield them in their order.

    In a dry run no quarantined line is `kept` anywhere. Those that are `refused` are left out.
    """
    began, shares, counts = time.monotonic(), [0.0] * len(sources), [0] * len(sources)
    inline = workers == 1 or len(sources) == 1
    with ThreadPoolExecutor(workers) as pool:

        def checked(number: int, source: Source) -> Checked:
            own = in_steps(part(progress, number / len(sources), (number + 1) / len(sources)))

            def read(share: float, rows: str) -> None:
                shares[number], counts[number] = share, int(rows or 0)

            with _refusal_kept(db, source, kept):
                known = _finished(db, source, how)
                if known is not None:
                    count = sum(line["rows"] for line in known)
                    return Checked(source, None, known, count, "unchanged")
                draft = source.read(how, own if inline else read)
                # A single session is judged in its turn: nothing is written before that.
                state = judge(db, draft) if kept is None or len(sources) > 1 else ""
            return Checked(source, draft, lines_of(draft, kept), draft.rows, state)

        def tell(text: str) -> None:
            share = sum(shares) / len(sources)
            rate = pace(sum(counts), time.monotonic() - began, share)
            progress(share, ", ".join(filter(None, (text, rate))))

        waiting = [] if inline else [pool.submit(checked, *one) for one in enumerate(sources)]
        try:
            for number, source in enumerate(sources):
                while not inline and not wait(waiting[number : number + 1], _TOLD_EVERY).done:
                    done = sum(one.done() for one in waiting)
                    tell(f"{done:,} of {len(sources):,} sessions checked")
                shares[number] = 1.0
                item: Checked | None = None
                with set_aside(refused, source.session_id):
                    item = checked(number, source) if inline else waiting[number].result()
                if item is not None:
                    counts[number] = item.rows
                    told = "there already" if item.is_known else "checked"
                    tell(f"{source.session_id}: {item.rows:,} rows {told}")
                    yield item
        finally:
            pool.shutdown(cancel_futures=True)


@contextlib.contextmanager
def _refusal_kept(db: QuestDB, source: Source, kept: Path | None) -> Iterator[None]:
    """Leave the file that is refused, or all of a session, in the status table with the reason."""
    try:
        yield
    except (InvalidInput, SessionExists) as error:
        name = getattr(error, "file", None)
        files = [one.state() for one in source.tick_files() if name in (None, one.listed)]
        if kept is not None and files:
            with contextlib.suppress(QuestDBError):  # the error on its way says more
                _catalog.write_refused(db, kept.parent, source.session_id, files, str(error))
        raise


def _finished(db: QuestDB, source: Source, how: ReadOptions) -> list[Line] | None:
    """Return the lines of a session that is there with exactly these files, else None.

    Its files are compared by their digests and its rows counted; they are not read again.
    """
    row = _catalog.find_any(db, source.session_id)
    if row is None or row["status"] != "completed":
        return None
    known = _catalog.imported_files(db, source.session_id)
    if not known or any(one["state"] != "done" or one["data_type"] is None for one in known):
        return None
    bad, lines = Counter[str](), Counter[str]()
    for one in known:
        bad[one["path"]] += one["rows_bad"]
        lines[one["path"]] += one["rows_good"] + one["rows_bad"]
    most = 0 if how.strict else how.max_bad
    if any(bad[path] > most * lines[path] for path in bad):
        return None  # it is to be refused for them
    if {one["path"]: one["sha256"] for one in known} != source.digests():
        return None
    _refuse_other_columns(row, dict(how.columns))
    if source.symbol not in {None, *(one["symbol"] for one in known)}:
        return None  # it is to be refused, too
    found = _catalog.counts(db, source.session_id, *_catalog.tick_range(row))
    is_whole = sum(rows for _, _, rows in found.iter_rows()) == row["records_collected"]
    return [_known_line(one) for one in known] if is_whole else None


def _known_line(row: Mapping[str, Any]) -> Line:
    """Return a line of the report from what is kept of a file."""
    times = ("first_time", "last_time")
    first, last = (row[name] and from_micros(row[name]) for name in times)
    return {
        "session_id": row["session_id"],
        "symbol": row["symbol"],
        "file": row["path"],
        "kind": row["data_type"],
        "rows": row["rows_good"],
        "first": first,
        "last": last,
        "backward": row["backward"],
        "quarantined": row["rows_bad"],
        "notes": json.loads(row["detail"] or "[]"),
    }


def judge(db: QuestDB, draft: ImportedSession) -> str:
    """Return what importing a session would be: "imported", "finished" or "unchanged".

    Raises
    ------
    SessionExists
        If other data has the id, or the session is being deleted.
    """
    row = _catalog.find_free(db, draft.session_id)
    known = _catalog.imported_files(db, draft.session_id)
    if row is None and not known:
        return "imported"
    if frozenset((each["symbol"], each["sha256"]) for each in known) != draft.identity:
        raise SessionExists(
            f"session {draft.session_id!r} holds other data than these files"
            f"{_changed(known, draft)}; give them another session_id (the session there was not "
            "touched)"
        )
    if row is not None and draft.columns is not None:
        _refuse_other_columns(row, draft.columns)
    complete = row is not None and row["status"] == "completed"
    return "unchanged" if complete and not _difference(db, draft) else "finished"


def _refuse_other_columns(row: Mapping[str, Any], columns: Mapping[str, str]) -> None:
    """Refuse files whose columns had other meanings when the session was made of them."""
    kept = json.loads(row["options"] or "{}").get("columns", columns)
    if kept != columns:
        name = row["session_id"]
        raise SessionExists(
            f"session {name!r} was imported from these files with columns={kept}, not with "
            f"columns={columns}, and is as it was; give another session_id, or delete it before: "
            f"lab.delete({name!r}), lab.purge([{name!r}])"
        )


def _changed(known: Sequence[Mapping[str, Any]], draft: ImportedSession) -> str:
    """Return which file is another one than the one that was imported, in words."""
    before = {(one["path"], one["symbol"]): one for one in known}
    for piece in draft.parts:
        one = before.get((piece.path, piece.symbol))
        if one is not None and one["sha256"] != piece.origin.sha256:
            return (
                f": {piece.path} has changed since it was imported at "
                f"{from_micros(one['updated_at']):%Y-%m-%d %H:%M} (its SHA-256 was "
                f"{one['sha256'][:8]}… and is {piece.origin.sha256[:8]}…)"
            )
    now = {(piece.path, piece.symbol) for piece in draft.parts}
    if {path for path, _ in now} == {path for path, _ in before}:
        asked, were = (some(sorted({symbol for _, symbol in ones})) for ones in (now, before))
        return f": they were imported with symbol='{were}', and now symbol='{asked}' is asked for"
    differ = ((now - {*before}, "came"), ({*before} - now, "went"))
    told = [f"{some(sorted({path for path, _ in ones}))} {word}" for ones, word in differ if ones]
    return f": {' and '.join(told)} since it was imported" if told else ""


def _store_one(db: QuestDB, item: Checked, about: About, home: Path, progress: Advance) -> str:
    if item.is_known:
        with _turn(home / "locks", item.source.session_id):
            return _said_anew(db, item.source.session_id, about)
    draft = item.draft
    assert draft is not None  # noqa: S101 - it is not known
    with _turn(home / "locks", draft.session_id):
        # Again: another import may have been faster, or killed right after it was acknowledged,
        # when what it wrote does not show yet.
        db.wait_visible(IMPORTS, SESSIONS)
        with _refusal_kept(db, item.source, home / _catalog.QUARANTINE):
            state = judge(db, draft)
        row = _catalog.find_free(db, draft.session_id)
        said = about.beside(row)
        if state != "unchanged":
            store(db, draft, said, home, progress)
            return state
        return _said_anew(db, draft.session_id, about)


def _said_anew(db: QuestDB, session_id: str, about: About) -> str:
    """Write what a user says of a session that is there, if it is new."""
    row = _catalog.find_free(db, session_id)
    said = about.beside(row)
    if row is None or said == About().beside(row):
        return "unchanged"
    _catalog.store(db, {**row, **said.columns(json.loads(row["symbols"]))})
    db.wait_visible(SESSIONS)
    return "updated"


@contextlib.contextmanager
def _turn(locks: Path, session_id: str) -> Iterator[None]:
    locks.mkdir(parents=True, exist_ok=True)
    with FileLock(locks / f"{session_id}.lock"):
        yield


def store(
    db: QuestDB,
    draft: ImportedSession,
    about: About,
    home: Path,
    progress: Advance = silent,
) -> None:
    """Write a session: its files, its row, its ticks; count them; call it completed.

    Rows in quarantine are kept in a folder of the session below `home`, and in its events.

    Raises
    ------
    WriteFailed
        If a write fails or the counts differ; the session is then marked as failed.
    """
    row = draft.catalogue_row()
    row |= about.columns(json.loads(row["symbols"]))
    kept = home / _catalog.QUARANTINE
    _log.info("import of %s begins: %d rows", draft.session_id, draft.rows)
    with _catalog.announcing(home / "locks"):
        _record_files(db, draft, "started", kept)
        _catalog.store(db, {**row, "status": "collecting"})
    try:
        _write_ticks(db, draft, progress)
        _refuse_difference(db, draft)
        _keep_quarantine(db, draft, kept)
    except BaseException as error:
        with contextlib.suppress(QuestDBError):  # the error on its way says more
            _record_files(db, draft, "failed", kept, [str(error) or type(error).__name__])
            _catalog.store(db, {**row, "status": "failed"})
            db.wait_visible(IMPORTS, SESSIONS)
        raise
    _record_files(db, draft, "done", kept)
    _catalog.store(db, {**row, "status": "completed"})
    db.wait_visible(IMPORTS, SESSIONS)
    _log.info("import of %s is completed", draft.session_id)


def _write_ticks(db: QuestDB, draft: ImportedSession, progress: Advance) -> None:
    written = 0
    # All rows, also those that an interrupted import has stored: by other columns, or by another
    # version, the same files may have been other rows.
    for table, frame in gathered(draft.frames()):
        shares = (min(done / draft.rows, 1.0) for done in (written, written + frame.height))
        db.write(table, frame, part(progress, *shares))
        written += frame.height
    db.wait_visible(PRICES, ORDERBOOK)


def _keep_quarantine(db: QuestDB, draft: ImportedSession, folder: Path) -> None:
    """Write the bad rows of each file into a file of their own, and one event for it."""
    rows = []
    for number, piece in enumerate(draft.parts, 1):
        bad = piece.quarantine
        if bad is not None:
            kept = bad.file(folder / draft.session_id, piece.origin.sha256)
            bad.keep(kept)
            own = {
                "session_id": draft.session_id,
                "symbol": piece.symbol,
                "from_time": piece.known.first,
                "to_time": piece.known.last,
                "timestamp": draft.first,
            }
            rows.append(bad.event(number, kept.relative_to(folder.parent)) | own)
    if rows:
        db.write(EVENTS, pl.DataFrame(rows, schema=EVENTS.frame))
        db.wait_visible(EVENTS)


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


def _record_files(
    db: QuestDB,
    draft: ImportedSession,
    state: str,
    kept: Path | None = None,
    why: Sequence[str] = (),
) -> None:
    rows = [
        {
            "session_id": draft.session_id,
            "symbol": piece.symbol,
            "state": state,
            "path": piece.path,
            "sha256": piece.origin.sha256,
            "rows_good": piece.rows,
            "rows_bad": piece.bad,
            "updated_at": datetime.now(UTC),
            "timestamp": draft.first,
            "size_bytes": piece.origin.size,
            "data_type": piece.data_type,
            "first_time": piece.known.first,
            "last_time": piece.known.last,
            "backward": piece.backward,
            "detail": json.dumps([*_notes_of(piece, draft, kept), *why]),
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
    "quarantined": pl.Int64(),
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
        What was done that the rows do not show: times rounded, rows known by their place only,
        lines that went to quarantine; and what was refused.
    seconds
        How long it took.
    refused
        Sessions of which nothing was stored, and why: where the others are to be (`keep_going`).

    Examples
    --------
    >>> frame = ticks.with_columns(symbol=pl.lit("BTC_USDT"))
    >>> lab.import_frame(frame, "prices", session_id=new_id()).table().height
    1
    """

    frame: pl.DataFrame
    skipped: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    seconds: float = 0.0
    refused: Mapping[str, str] = field(default_factory=dict)

    @property
    def quarantined(self) -> int:
        """Return the number of lines that are no ticks: with `rows`, the lines of the files."""
        return int(self.frame["quarantined"].sum())

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
            are stored as they are), ``quarantined`` (lines of the file that are no ticks, at its
            first symbol), ``state``: "imported", "finished" (an import that had stopped
            half-way), "unchanged" (it was there), "updated" (it was there; what is said of it is
            new); of a dry run "new", "unfinished", "unchanged".
        """
        return self.frame

    def __repr__(self) -> str:
        """Show what became of how much, and the table."""
        states = self.frame.group_by("state", maintain_order=True).len()
        told = ", ".join(f"{count} {state}" for state, count in states.iter_rows())
        skipped = f", {len(self.skipped)} skipped" if self.skipped else ""
        skipped += f", {len(self.refused)} sessions refused" if self.refused else ""
        bad = f" quarantined={self.quarantined:,}" if self.quarantined else ""
        return (
            f"<ImportReport sessions={len(self.sessions)} files={self.frame.height} ({told})"
            f"{skipped} rows={self.rows:,}{bad}>\n{self.frame}"
            + "".join(f"\n{n}" for n in self.notes)
        )

    def _repr_html_(self) -> str:
        left = ", ".join(self.skipped)
        notes = [f"Not part of a session, not read: {left}"] if left else []
        shown = _html.table(self.frame, caption=f"{self.rows:,} rows")
        return shown + _html.paragraphs([*notes, *self.notes])


def lines_of(draft: ImportedSession, kept: Path | None) -> list[Line]:
    """Return a session's lines of the report, still without a state."""
    return [
        {
            "session_id": draft.session_id,
            "symbol": part.symbol,
            "file": part.path,
            "kind": part.data_type,
            "rows": part.rows,
            "first": part.known.first,
            "last": part.known.last,
            "backward": part.backward,
            "quarantined": part.bad,
            "notes": _notes_of(part, draft, kept),
        }
        for part in draft.parts
    ]


def _notes_of(part: Part, draft: ImportedSession, kept: Path | None) -> list[str]:
    notes = [f"{part.path}, {part.symbol}: {note}" for note in part.notes]
    if part.quarantine is not None:
        bad = part.quarantine
        where = kept and f"; see {bad.file(kept / draft.session_id, part.origin.sha256)}"
        notes.append(
            f"{part.path}: {bad.count:,} of {bad.rows:,} {bad.place.word}s are no ticks and are in "
            f"quarantine: {bad.reasons()}{where or ''}"
        )
    return notes


def report(
    lines: Iterable[Line], skipped: Iterable[str], seconds: float, refused: Mapping[str, str]
) -> ImportReport:
    """Return the report of all lines."""
    told = list(lines)
    notes = [note for line in told for note in line.get("notes", ())]
    rows = [{name: line[name] for name in SCHEMA} for line in told]
    why = [f"{name} is refused: {reason}" for name, reason in refused.items()]
    frame = pl.DataFrame(rows, schema=SCHEMA)
    return ImportReport(frame, tuple(skipped), (*notes, *why), seconds, refused)
