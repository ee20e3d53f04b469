"""What was received and is not yet known to be stored: on disk before anything else happens.

One SQLite file a session (write-ahead log, fsync at each commit). A batch of rows, what the receipt
says of them and which ids were seen enter in one transaction, so that after a kill they agree. The
sender takes batches out once the server has acknowledged them; sending one twice is harmless.
SQLite is the journal because its crash safety is tested better than ours could ever be.
"""

from __future__ import annotations

import json
import sqlite3
import threading
from array import array
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from filelock import FileLock, Timeout

from fxlab.errors import CollectionFailed, SessionBusy
from fxlab.questdb.lines import Lines

PAGE_BYTES: Final = 8_192
_TABLES: Final = """
create table if not exists facts (name text primary key, value text not null);
create table if not exists batches (
    id integer primary key autoincrement, table_name text not null, payload blob not null,
    ends blob not null
);
create table if not exists quarantine (
    id integer primary key, table_name text not null, payload blob not null, cause text not null
);
"""


@dataclass(frozen=True, slots=True)
class Waiting:
    """A batch in the journal."""

    id: int
    lines: Lines


class Journal:
    """The journal of one session.

    The thread that made it appends; another one may take batches out through `outlet`.

    Parameters
    ----------
    path
        The file; it is made if need be, and belongs to this process until `close`.

    Raises
    ------
    SessionBusy
        If another process has it.
    """

    def __init__(self, path: Path) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        self.path = path
        self._lock = FileLock(path.with_suffix(".lock"))
        self._take()
        try:
            self._file = _opened(path, durable=True)
            self._file.executescript(_TABLES)
        except sqlite3.Error as error:
            self._lock.release()
            raise CollectionFailed(
                f"the journal {path} cannot be used ({error}); look at the disk, or give fxlab "
                "another home (FXLAB_HOME)"
            ) from error
        self._turn = threading.Lock()
        self.news = threading.Event()
        self.rows, self.bytes = self._measure()

    def _take(self) -> None:
        try:
            self._lock.acquire(timeout=0)
        except Timeout:
            raise SessionBusy(
                f"session {self.path.stem!r} is being written by another collector; stop that one "
                "first, or choose another session_id"
            ) from None

    def _measure(self) -> tuple[int, int]:
        found = self._file.execute(
            "select coalesce(sum(length(ends) / 8), 0), coalesce(sum(length(payload)), 0) "
            "from batches"
        ).fetchone()
        return int(found[0]), int(found[1])

    def append(self, batches: Sequence[Lines], facts: Mapping[str, Any]) -> None:
        """Store batches and facts, all or nothing; they are on the disk when this returns.

        Raises
        ------
        sqlite3.OperationalError
            If the disk is full; nothing was stored then, and it may be tried again.
        """
        values = [(b.table, b.payload, b.ends.tobytes()) for b in batches]
        with self._transaction() as file:
            file.executemany(
                "insert into batches (table_name, payload, ends) values (?, ?, ?)", values
            )
            _put(file, facts)
        with self._turn:
            self.rows += sum(b.rows for b in batches)
            self.bytes += sum(len(b.payload) for b in batches)
        self.news.set()

    def fact(self, name: str, default: Any = None) -> Any:  # noqa: ANN401 - what JSON can hold
        """Return a fact."""
        found = self._file.execute("select value from facts where name = ?", (name,)).fetchone()
        return default if found is None else json.loads(found[0])

    def facts(self, prefix: str) -> dict[str, Any]:
        """Return the facts whose names start so, without that start."""
        found = self._file.execute("select name, value from facts")
        return {
            name.removeprefix(prefix): json.loads(value)
            for name, value in found
            if name.startswith(prefix)
        }

    def outlet(self) -> Outlet:
        """Return the sender's side; it opens in the thread that uses it first."""
        return Outlet(self)

    def sent(self, batches: Sequence[Waiting]) -> None:
        """Count batches that left."""
        with self._turn:
            self.rows -= sum(batch.lines.rows for batch in batches)
            self.bytes -= sum(len(batch.lines.payload) for batch in batches)

    def quarantined(self) -> list[tuple[str, bytes, str]]:
        """Return (table, encoded row, cause) of the rows that the server refused."""
        found = self._file.execute("select table_name, payload, cause from quarantine order by id")
        return [tuple(row) for row in found]

    def close(self) -> None:
        """Give the file free; what is in it stays."""
        self._file.close()
        self._lock.release()

    def discard(self) -> None:
        """Close it and remove the file: all of it is stored."""
        self._file.close()
        for name in ("", "-wal", "-shm"):
            self.path.with_name(self.path.name + name).unlink(missing_ok=True)
        self._lock.release()
        self.path.with_suffix(".lock").unlink(missing_ok=True)

    @contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        with transaction(self._file) as file:
            yield file

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class Outlet:
    """The sender's side of a journal; for one thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        # Forgetting a batch twice is harmless, so these commits need not wait for the disk.
        self._file = _opened(journal.path, durable=False)

    def oldest(self, most_bytes: int) -> list[Waiting]:
        """Return the oldest batches, at least one if there is any."""
        found, size = [], 0
        rows = self._file.execute("select id, table_name, payload, ends from batches order by id")
        for number, table, payload, ends in rows:
            found.append(Waiting(number, Lines(table, payload, array("Q", ends))))
            size += len(payload)
            if size >= most_bytes:
                break
        rows.close()
        return found

    def forget(self, batches: Sequence[Waiting], refused: Sequence[tuple[Lines, str]] = ()) -> None:
        """Take out batches that are stored, but for rows that the server refuses.

        Those are kept with its words. A row leaves the batches and enters the quarantine at once,
        so none is ever in both, or twice in one.
        """
        with transaction(self._file) as file:
            file.executemany(
                "insert into quarantine (table_name, payload, cause) values (?, ?, ?)",
                [(lines.table, lines.payload, cause) for lines, cause in refused],
            )
            file.execute(
                "delete from batches where id between ? and ?", (batches[0].id, batches[-1].id)
            )
        self._journal.sent(batches)

    def close(self) -> None:
        """Close the connection."""
        self._file.close()


@contextmanager
def transaction(file: sqlite3.Connection) -> Iterator[sqlite3.Connection]:
    """Commit what is done inside, or nothing of it."""
    file.execute("begin immediate")
    try:
        yield file
        file.execute("commit")
    except BaseException:
        if file.in_transaction:  # not after a full disk: that rolls back by itself
            file.execute("rollback")
        raise


def _put(file: sqlite3.Connection, facts: Mapping[str, Any]) -> None:
    file.executemany(
        "insert into facts (name, value) values (?, ?) "
        "on conflict (name) do update set value = excluded.value",
        [(name, json.dumps(value)) for name, value in facts.items()],
    )


def _opened(path: Path, *, durable: bool) -> sqlite3.Connection:
    file = sqlite3.connect(path, isolation_level=None, timeout=30.0, check_same_thread=False)
    try:
        file.execute(f"pragma page_size = {PAGE_BYTES}")
        file.execute("pragma journal_mode = wal")
        file.execute(f"pragma synchronous = {'full' if durable else 'normal'}")
        file.execute("pragma journal_size_limit = 16777216")
    except sqlite3.Error:  # it is no journal, or the disk is full
        file.close()
        raise
    return file
