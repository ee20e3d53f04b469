"""Journal of received rows on disk (SQLite), and the sender that stores them, with retries.

What was received is on disk before anything else happens, in one SQLite file a session (write-ahead
log, fsync at each commit). A batch of rows, what the receipt says of them and which ids were seen
enter in one transaction, so that after a kill they agree. SQLite is the journal because its crash
safety is tested better than ours could ever be. Finding journals is kept cheap: every start asks
for them and mostly finds none.

The sender brings batches to the server in a thread of its own and takes them out once acknowledged;
sending one twice is harmless. The socket is read elsewhere and never waits for the database. An
outage is waited out with back-off; a refused batch is halved until the bad row stands alone, which
is kept with the server's words while all others go on.
"""

from __future__ import annotations

import json
import logging
import math
import sqlite3
import threading
import time
from array import array
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Self

from filelock import FileLock, Timeout

from fxlab._network import wait_before
from fxlab._questdb.ingest import LinePost, Lines
from fxlab.errors import (
    BatchRefused,
    CollectionFailed,
    QuestDBLoginFailed,
    QuestDBUnavailable,
    SessionBusy,
)

SUFFIX: Final = ".journal"


def journal_path(home: Path, session_id: str) -> Path:
    """Return where the journal of a session is."""
    return home / "journals" / f"{session_id}{SUFFIX}"


def left_behind(home: Path) -> list[Path]:
    """Return the journals that exist, those of living collectors too."""
    return sorted((home / "journals").glob(f"*{SUFFIX}"))


def held(home: Path) -> list[str]:
    """Return the ids of the sessions that living processes are recording."""
    return [path.stem for path in left_behind(home) if _is_held(path)]


def _is_held(path: Path) -> bool:
    try:
        with FileLock(path.with_suffix(".lock"), timeout=0):
            return False
    except Timeout:
        return True


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
class PendingBatch:
    """A batch in the journal."""

    id: int
    lines: Lines


class Journal:
    """The journal of one session.

    The thread that made it appends; another one may take batches out through `reader`.

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
        with transaction(self._file) as file:
            file.executemany(
                "insert into batches (table_name, payload, ends) values (?, ?, ?)", values
            )
            file.executemany(
                "insert into facts (name, value) values (?, ?) "
                "on conflict (name) do update set value = excluded.value",
                [(name, json.dumps(value)) for name, value in facts.items()],
            )
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

    def reader(self) -> JournalReader:
        """Return the sender's side; it opens in the thread that uses it first."""
        return JournalReader(self)

    def sent(self, batches: Sequence[PendingBatch]) -> None:
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

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()


class JournalReader:
    """The sender's side of a journal; for one thread."""

    def __init__(self, journal: Journal) -> None:
        self._journal = journal
        # Forgetting a batch twice is harmless, so these commits need not wait for the disk.
        self._file = _opened(journal.path, durable=False)

    def oldest(self, most_bytes: int) -> list[PendingBatch]:
        """Return the oldest batches, at least one if there is any."""
        found, size = [], 0
        rows = self._file.execute("select id, table_name, payload, ends from batches order by id")
        for number, table, payload, ends in rows:
            found.append(PendingBatch(number, Lines(table, payload, array("Q", ends))))
            size += len(payload)
            if size >= most_bytes:
                break
        rows.close()
        return found

    def forget(
        self, batches: Sequence[PendingBatch], refused: Sequence[tuple[Lines, str]] = ()
    ) -> None:
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


_log: Final = logging.getLogger(__name__)

REQUEST_BYTES: Final = 2_000_000
"""About 25,000 trades a request while catching up."""

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0  # seconds between two tries during an outage
AWAITED_PAUSE: Final = 0.2  # while somebody waits for the journal to be empty
LONGEST_REST: Final = 0.25  # seconds between two requests when all is well
ROWS_A_SECOND_OF_REST: Final = 20_000
"""At 5,000 trades a second the sender hardly rests; at 50,000 it sends four times a second."""

PROBE_SECONDS: Final = 0.8
"""A server that answers another connection within that is slow, and does not hang."""
SLOW_SECONDS: Final = 3.0
"""A server that takes longer to answer was away, too, though no try failed."""

MOST_REFUSED: Final = 20
"""So many refused rows in a row, and none taken between them: it is not the rows."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A time without the server, by the monotonic clock."""

    seconds: float
    tries: int
    reason: str


class Sender:
    """The thread between journal and server.

    Parameters
    ----------
    journal, post
        From where, and to where; the sender closes neither.
    on_outage
        Called after an outage, in this thread.
    on_refused
        Called with each row that was refused and the server's words.
    """

    def __init__(
        self,
        journal: Journal,
        post: LinePost,
        *,
        on_outage: Callable[[Outage], None],
        on_refused: Callable[[Lines, str], None],
    ) -> None:
        self._journal = journal
        self._post = post
        self._on_outage = on_outage
        self._on_refused = on_refused
        self._stopping = threading.Event()
        self._awaited = threading.Event()
        self._refused: list[tuple[Lines, str]] = []
        """Of the batches under way."""
        self._refused_in_a_row = 0
        self.outage = ""
        """Why the server is not there at the moment, or nothing."""
        self.failure: Exception | None = None
        """What ended the thread before its time."""
        self._thread = threading.Thread(target=self._run, name="fxlab sender", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def drain(self, timeout: float, hanging: float = math.inf) -> bool:
        """Wait until the journal is empty; False if it is not after `timeout` seconds.

        After `hanging` seconds without a row leaving it, a server that is away or answers nothing
        is not waited for; one that is slow is.
        """
        self._awaited.set()
        rows, since, last = self._journal.rows, time.monotonic(), False
        end = since + timeout
        while self._journal.rows and self._thread.is_alive() and time.monotonic() < end:
            time.sleep(0.005)
            if self._journal.rows != rows:
                rows, since = self._journal.rows, time.monotonic()
            elif time.monotonic() - since > hanging:
                if last or not self._post.answers(PROBE_SECONDS):
                    self.outage = self.outage or "it does not answer"
                    break
                last, since = bool(self.outage), time.monotonic()  # it may be back this moment
        return not self._journal.rows

    def stop(self, seconds: float | None = None) -> None:
        """Finish the request under way and end the thread; the rest stays in the journal.

        One that takes longer than `seconds` is left alone: what it stores is stored once, whoever
        sends it again.
        """
        self._stopping.set()
        self._awaited.set()
        self._journal.news.set()
        if self._thread.ident is not None:
            self._thread.join(seconds)

    def _run(self) -> None:
        reader = self._journal.reader()
        try:
            while not self._stopping.is_set():
                self._journal.news.clear()
                waiting = reader.oldest(REQUEST_BYTES)
                if waiting:
                    self._deliver(reader, waiting)
                    self._rest(sum(batch.lines.rows for batch in waiting))
                else:
                    self._journal.news.wait(1.0)
        except Exception as error:  # noqa: BLE001 - reported by the collector, which then ends
            self.failure = error
        finally:
            reader.close()

    def _rest(self, rows: int) -> None:
        """Let rows gather where many come: a commit costs the server more than its rows do."""
        if self._journal.rows < rows:  # else there is something to catch up with
            self._stopping.wait(min(LONGEST_REST, rows / ROWS_A_SECOND_OF_REST))

    def _deliver(self, reader: JournalReader, waiting: Sequence[PendingBatch]) -> None:
        """Store batches and forget them; they stay in the journal if the thread is stopped."""
        self._refused = []
        try:
            stored = self._insist([batch.lines for batch in waiting])
        except BatchRefused:
            stored = all(self._one(batch.lines) for batch in waiting)
        if stored:
            for lines, words in self._refused:  # first: an empty journal is where people stop
                self._on_refused(lines, words)
            reader.forget(waiting, self._refused)

    def _one(self, lines: Lines) -> bool:
        """Store what can be stored of a batch; return False if the thread was stopped before."""
        try:
            stored = self._insist([lines])
        except BatchRefused as error:
            if lines.rows > 1:
                return all(self._one(half) for half in lines.halves())
            self._refuse(lines, error)
            return True
        if stored:
            self._refused_in_a_row = 0
        return stored

    def _refuse(self, lines: Lines, error: BatchRefused) -> None:
        self._refused_in_a_row += 1
        if self._refused_in_a_row > MOST_REFUSED:
            raise error  # the table's trouble, not the row's: the journal keeps them all
        _log.warning("a row of %s was refused and set aside: %s", lines.table, error)
        self._refused.append((lines, str(error)))

    def _insist(self, batches: Sequence[Lines]) -> bool:
        """Send until the server answers; return False if the thread was stopped before."""
        began, tries = time.monotonic(), 0
        while not self._stopping.is_set():
            try:
                self._post.send(batches)
            except (QuestDBUnavailable, QuestDBLoginFailed) as error:
                tries += 1
                # The first failure may be a connection that the server let go.
                if tries > 1 or time.monotonic() - began > SLOW_SECONDS:
                    self.outage = str(error)
                    _log.warning("rows wait in the journal, try %d: %s", tries, error)
                    self._pause(wait_before(tries - 2, FIRST_PAUSE, LONGEST_PAUSE))
            except BatchRefused:
                self._end_outage(began, tries)
                raise
            else:
                self._end_outage(began, tries)
                return True
        return False

    def _pause(self, seconds: float) -> None:
        """Wait before another try: a server that is back is not missed where the end is near."""
        if self._awaited.wait(seconds):
            self._stopping.wait(min(seconds, AWAITED_PAUSE))

    def _end_outage(self, began: float, tries: int) -> None:
        seconds = time.monotonic() - began
        reason, self.outage = self.outage, ""
        if seconds > SLOW_SECONDS:
            reason = reason or "it took so long to answer"
        if reason:
            _log.info("the server takes rows again after %.1f s", seconds)
            self._on_outage(Outage(seconds, tries, reason))
