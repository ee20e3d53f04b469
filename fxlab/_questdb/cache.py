"""Frame cache: columns of completed sessions as memory-mapped Arrow files on this machine.

What was read from the server once is mapped the next time. A file is written aside and renamed when
it is whole, so a reader never meets half of one. Its folder is named by the session's revision (the
times at which its row was made and last written). Rows are used only as long as nothing was written
to their table; after that they are counted against the server's first: a session that changed is
read anew. Folders that were read longest ago are removed first when all are larger than the limit.

A cache is a comfort: where it cannot be written, reading goes on without it.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple
from urllib.parse import quote

import polars as pl

from fxlab._questdb import sql, sql_tables
from fxlab._questdb.sql import Scope
from fxlab.config import write_private
from fxlab.schema import UTC_MICROS, Table

if TYPE_CHECKING:
    import pyarrow as pa

    from fxlab._questdb.client import QuestDB
    from fxlab.config import Settings

_log: Final = logging.getLogger(__name__)

LEAST_ROWS: Final = 20_000
"""Fewer rows come from the server about as fast."""

_FOLDER: Final = "cache"
_SEEN: Final = "transaction"
"""Name of the file with the last write to the table up to which the rows are known to be right."""
_CONTENTS: Final = {
    "session_id": pl.String(),
    "revisions": pl.Int64(),
    "bytes": pl.Int64(),
    "last_read": UTC_MICROS,
}


@dataclass(frozen=True, slots=True)
class FrameCache:
    """Local copies of the columns of completed sessions.

    Attributes
    ----------
    folder : pathlib.Path
        Where they are: one folder for each server.
    limit : int
        Bytes that all of them may have.

    Examples
    --------
    >>> with fxlab.connect() as lab:
    ...     found = lab.cache.contents()
    >>> found.columns
    ['session_id', 'revisions', 'bytes', 'last_read']
    """

    folder: Path
    limit: int

    @classmethod
    def of(cls, settings: Settings) -> FrameCache | None:
        """Return the cache that the settings name, or None where they turn it off."""
        if settings.cache_size == 0:
            return None
        server = "embedded"
        if not settings.is_embedded:
            server = f"{settings.questdb_host}-{settings.questdb_http_port}"
        home = settings.home.expanduser().absolute()
        return cls(home / _FOLDER / quote(server, safe=""), settings.cache_size)

    def columns(self, scope: Scope, revision: str, *, is_whole: bool) -> CachedColumns:
        """Return the copies of one symbol's rows in one table, whether there are any or not."""
        name = quote(f"{scope.table.name} {scope.symbol}", safe=" ")
        folder = self.folder / scope.session_id / revision / name
        return CachedColumns(self, folder, is_whole)

    def contents(self) -> pl.DataFrame:
        """Return one row a session: its revisions, bytes, and when it was last read."""
        rows = []
        for session in _entries(self.folder):
            found = list(_symbols(session))
            read = max((datetime.fromtimestamp(one.read, UTC) for one in found), default=None)
            size = sum(one.size for one in found)
            rows.append((session.name, len(_entries(session)), size, read))
        frame = pl.DataFrame(rows, schema=_CONTENTS, orient="row")
        return frame.sort("last_read", descending=True, nulls_last=True)

    def clear(self, session_id: str | None = None) -> int:
        """Remove the copies of a session, or of all, and return the bytes that became free."""
        chosen = [one for one in _entries(self.folder) if session_id in (None, one.name)]
        freed = sum(one.size for session in chosen for one in _symbols(session))
        for session in chosen:
            shutil.rmtree(session, ignore_errors=True)
        return freed

    def shrink(self) -> None:
        """Remove what was read longest ago until the rest is within the limit."""
        found = [one for session in _entries(self.folder) for one in _symbols(session)]
        too_much = sum(one.size for one in found) - self.limit
        for one in sorted(found, key=lambda one: one.read):
            if too_much <= 0:
                return
            shutil.rmtree(one.folder, ignore_errors=True)
            with contextlib.suppress(OSError):  # unless other symbols are in it
                one.folder.parent.rmdir()
                one.folder.parent.parent.rmdir()
            too_much -= one.size


@dataclass(frozen=True, slots=True)
class CachedColumns:
    """One symbol's rows of one table at one revision: a file for each column.

    `is_whole` says that all these rows are read now: only then are they kept.
    """

    cache: FrameCache
    folder: Path
    is_whole: bool

    def load(self, db: QuestDB, scope: Scope, names: Sequence[str]) -> pl.DataFrame | None:
        """Return the rows of a scope if they are here and what the server has; else None."""
        try:
            parts = [pl.read_ipc(self.folder / f"{name}.arrow") for name in {*names, "timestamp"}]
            known = (self.folder / _SEEN).read_text(encoding="ascii")
            os.utime(self.folder)
        except (OSError, pl.exceptions.PolarsError):
            return None
        if len({part.height for part in parts}) != 1:
            return None
        frame = pl.concat(parts, how="horizontal")
        times = frame["timestamp"].to_physical()
        first = 0 if scope.start is None else times.search_sorted(scope.start, "left")
        last = frame.height if scope.end is None else times.search_sorted(scope.end, "left")
        found = frame.slice(first, max(last - first, 0)).select(names)
        now = self.transaction(db, scope.table)
        if now != known:
            counted = (db.execute(sql.count_scope(year)) for year in scope.by_year())
            if found.height != sum(rows[0][0] for rows in counted):
                return None
            if self.is_whole:
                self._note(now)
        return found

    def transaction(self, db: QuestDB, table: Table) -> str:
        """Return the number of the last write to a table that readers see."""
        return str(db.execute(sql_tables.transactions(table, applied=True))[0][0])

    def keeping(
        self, frames: Iterable[pl.DataFrame], rows: int, transaction: str
    ) -> Iterator[pl.DataFrame]:
        """Yield the frames, which are all rows there are, and keep a copy once all are taken.

        `transaction` was the table's last one before its rows were counted.
        """
        copy = _Copy(self, rows)
        try:
            for frame in frames:
                copy.attempt(copy.write, frame)
                yield frame
            copy.attempt(copy.finish)
        finally:
            copy.attempt(copy.close)
        if copy.is_kept:
            self._note(transaction)
            self._drop_older()
            self.cache.shrink()

    def _note(self, transaction: str) -> None:
        with contextlib.suppress(OSError):  # then the rows are counted again the next time
            write_private(self.folder / _SEEN, transaction)

    def _drop_older(self) -> None:
        revision = self.folder.parent
        for other in _entries(revision.parent):
            if other.name < revision.name:
                shutil.rmtree(other, ignore_errors=True)


class _Copy:
    """Columns that are being written aside; after an error nothing more is tried."""

    def __init__(self, place: CachedColumns, rows: int) -> None:
        self._folder = place.folder
        self._cache = place.cache
        self._rows = rows
        self._written = 0
        self._aside: Path | None = None
        self._open = contextlib.ExitStack()
        self._writers: dict[str, Any] = {}
        self._failed = rows < LEAST_ROWS
        self.is_kept = False

    def attempt(self, step: Callable[..., None], *arguments: pl.DataFrame) -> None:
        """Do a step unless one before has failed; reading goes on whatever the disk says."""
        if self._failed and step != self.close:
            return
        try:
            step(*arguments)
        except OSError as error:
            self._failed = True
            _log.warning("no copy of %s is kept: %s", self._folder, error)

    def write(self, frame: pl.DataFrame) -> None:
        """Write the next rows of each column."""
        if self._rows * frame.width * 8 > self._cache.limit:
            self._failed = True
            return
        for name in frame.columns:
            data = frame.select(name).to_arrow()
            if name not in self._writers:
                self._writers[name] = self._writer(name, data.schema)
            self._writers[name].write_table(data)
        self._written += frame.height

    def finish(self) -> None:
        """Give the files their names, if all rows are in them."""
        self._open.close()
        if self._aside is not None and self._written == self._rows:
            for name in self._writers:
                (self._aside / name).replace(self._folder / f"{name}.arrow")
            self.is_kept = True

    def close(self) -> None:
        """Remove what was not finished."""
        self._open.close()
        if self._aside is not None:
            shutil.rmtree(self._aside, ignore_errors=True)

    def _writer(self, name: str, schema: pa.Schema) -> pa.ipc.RecordBatchFileWriter:
        import pyarrow as pa

        if self._aside is None:
            self._cache.folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._folder.mkdir(parents=True, exist_ok=True)
            self._aside = Path(tempfile.mkdtemp(dir=self._folder, prefix="."))
        sink = self._open.enter_context(pa.OSFile(str(self._aside / name), "wb"))
        return self._open.enter_context(pa.ipc.new_file(sink, schema))


def _entries(folder: Path) -> list[Path]:
    """Return the folders in a folder; none where it is not there."""
    try:
        return [entry for entry in folder.iterdir() if entry.is_dir()]
    except OSError:
        return []


class _Place(NamedTuple):
    """Copies of one symbol's rows in one table: their bytes, and when they were last read."""

    folder: Path
    size: int
    read: float


def _symbols(session: Path) -> Iterator[_Place]:
    for revision in _entries(session):
        for folder in _entries(revision):
            with contextlib.suppress(OSError):  # another process may remove it
                # Deep: a copy that was killed has left a folder of its own.
                files = [entry.stat() for entry in folder.rglob("*") if entry.is_file()]
                yield _Place(folder, sum(one.st_size for one in files), folder.stat().st_mtime)
