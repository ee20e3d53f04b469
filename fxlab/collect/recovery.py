"""Finish what a killed collector left: bring its journal to the server, close its session.

Every start looks here first. A journal that a living process holds is left alone, and so is one
that belongs to another server.
"""

from __future__ import annotations

import sqlite3
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Final

from fxlab.collect.clock import Clock
from fxlab.collect.closing import Store, close_session
from fxlab.collect.journal import Journal
from fxlab.collect.journal_files import left_behind
from fxlab.collect.recorder import Recorder
from fxlab.collect.sender import Sender
from fxlab.errors import (
    CollectionFailed,
    QuestDBError,
    QuestDBUnavailable,
    SessionBusy,
    WriteFailed,
)
from fxlab.questdb.client import QuestDB
from fxlab.questdb.lines import LineEncoder, LinePost

STALL_SECONDS: Final = 20.0
"""Without a row leaving a journal for so long, its server is taken for gone."""


@contextmanager
def opened_store(db: QuestDB) -> Iterator[Store]:
    """Open the ways to the database that a recording uses."""
    post = LinePost(db.endpoint)
    try:
        yield Store(db, post, LineEncoder())
    finally:
        post.close()


def recover(db: QuestDB, home: Path) -> list[str]:
    """Store what waits in journals of dead collectors and close their sessions.

    Returns
    -------
    list of str
        Ids of the sessions that were closed: as completed if their collector had been stopped and
        only the server was missing, else as aborted.

    Raises
    ------
    QuestDBUnavailable
        If the server goes away meanwhile; the journals stay.
    WriteFailed
        If the database does not hold what was journaled, or a journal cannot be used, as on a full
        disk; the others are finished all the same.
    """
    closed: list[str] = []
    troubles: list[WriteFailed] = []
    for path in left_behind(home):
        try:
            with Journal(path) as journal:
                if _recover_one(db, journal):
                    closed.append(path.stem)
        except SessionBusy:
            continue
        except (CollectionFailed, sqlite3.Error) as error:
            cause = f"the journal {path} cannot be finished ({error}); it is kept: look at its disk"
            troubles.append(WriteFailed(f"{cause}, then start fxlab again"))
        except WriteFailed as error:
            troubles.append(error)
    if troubles:  # none of them kept the others from being finished
        raise troubles[0]
    return closed


def _recover_one(db: QuestDB, journal: Journal) -> bool:
    facts = journal.fact("session")
    if facts is None:  # killed before it had a session: nothing was received
        journal.discard()
        return False
    # Older journals name the embedded server by its address, too.
    if facts["server"] not in {server_of(db), f"{db.endpoint.host}:{db.endpoint.http_port}"}:
        return False
    with opened_store(db) as store:
        recorder = recorder_of(journal, store.encoder, facts)
        ended = max((tally.last_time for tally in recorder.tallies.values()), default=0)
        recorder.end(ended)
        _drain(journal, store.post)
        close_session(store, journal, recorder, Clock().now())
    journal.discard()
    return True


def recorder_of(journal: Journal, encoder: LineEncoder, facts: dict[str, Any]) -> Recorder:
    """Return the recorder of a session, as far as its journal knows."""
    options = facts["options"]
    return Recorder(
        journal,
        encoder,
        facts["session_id"],
        facts["symbols"],
        counts_trades=facts["counts_trades"],
        book_depth=options["book_depth"],
        book_every=options["book_every_us"],
    )


def server_of(db: QuestDB) -> str:
    """Return what tells one server from another; a home's own may change its ports."""
    if db.endpoint.embedded:
        return "embedded"
    return f"{db.endpoint.host}:{db.endpoint.http_port}"


def _drain(journal: Journal, post: LinePost) -> None:
    # Nobody writes events here: what is refused stands in the receipt, from the quarantine.
    sender = Sender(journal, post, on_outage=lambda _: None, on_refused=lambda *_: None)
    sender.start()
    drained, before = False, journal.rows + 1
    while not drained and journal.rows < before:
        before = journal.rows
        drained = sender.drain(STALL_SECONDS)
    outage = sender.outage
    sender.stop()
    if isinstance(sender.failure, sqlite3.Error):
        raise sender.failure
    if sender.failure is not None:
        raise WriteFailed(
            f"the rows in {journal.path} are refused ({sender.failure}); they are kept there: run "
            "fxlab doctor"
        )
    if not drained:
        raise QuestDBUnavailable(
            f"QuestDB went away while {journal.rows:,} rows were brought to it ({outage}); they "
            f"are kept in {journal.path}; run: fxlab up"
        )


def finish_recordings(db: QuestDB, home: Path) -> tuple[str, ...]:
    """Do what `recover` does; what cannot be finished now is kept, and said by a warning."""
    try:
        return tuple(recover(db, home))
    except QuestDBError as error:
        warnings.warn(str(error), stacklevel=4)
        return ()
