"""Cure what can be named: a server that died or hangs, tables that hide rows, stale files.

What was done is told, what could not be done as well; nothing is dropped, and no row is touched.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Any, Final

from fxlab.config import Settings
from fxlab.errors import FxlabError, TableSuspended
from fxlab.progress import Advance, silent
from fxlab.questdb import limits, probe, server, sql
from fxlab.questdb.client import QuestDB
from fxlab.schema import TABLES, Table

FULL: Final = 0.8
"""Share of the memory maps in use from which on a server is started anew."""


def mend(
    chosen: Settings | None = None,
    /,
    *,
    progress: Advance = silent,
    **settings: Any,  # noqa: ANN401
) -> tuple[str, ...]:
    """Cure what is wrong with the server and its tables, and return what was done.

    It starts a server that has ended, restarts one that hangs or is out of memory maps, resumes
    suspended tables, restores DEDUP keys, and finishes recordings that were
    cut off. What could not be cured begins with "not mended".

    Parameters
    ----------
    chosen, **settings
        As in `fxlab.connect`.
    progress
        Told about starting and stopping.
    """
    wanted = chosen.replace(**settings) if chosen else Settings.load(**settings)
    done: list[str] = []
    try:
        if wanted.is_embedded:
            done += _mend_server(wanted, progress)
        with contextlib.closing(QuestDB(server.endpoint(wanted))) as db:
            done += _mend_tables(db, lambda: _restart(wanted, progress))
        done += _finish_recordings(wanted)
    except FxlabError as error:
        done.append(f"not mended: {error}")
    return tuple(done)


def _mend_server(settings: Settings, progress: Advance) -> Iterator[str]:
    found = server.status(settings)
    if found.endpoint is None:
        started = server.up(settings, progress)
        how = "had ended without: fxlab down" if found.state == "stale" else "was not running"
        yield f"started the server, which {how} (now pid {started.pid})"
    elif reason := probe.refusal(found.endpoint):
        _restart(settings, progress)
        yield f"restarted the server (pid {found.pid}): {reason}"
    elif found.pid is not None and limits.maps_share(found.pid) > FULL:
        _restart(settings, progress)
        yield f"restarted the server (pid {found.pid}), which was about to run out of memory maps"


def _restart(settings: Settings, progress: Advance) -> bool:
    """Restart the embedded server; return False for a server of the user's own."""
    if not settings.is_embedded:
        return False
    server.down(settings, progress)
    server.up(settings, progress)
    return True


def _mend_tables(db: QuestDB, restart: Callable[[], bool]) -> Iterator[str]:
    has_wal = {str(row[0]): bool(row[1]) for row in db.execute(sql.list_tables())}
    ours = [table for table in TABLES if table.name in has_wal]
    for table in ours:
        keys = {str(row[0]) for row in db.execute(sql.list_columns(table)) if row[2]}
        if keys != set(table.dedup):
            db.execute(sql.enable_dedup(table))
            yield f"gave {table.name} its DEDUP keys back"
    yield from _resume(db, ours, restart)


def _resume(db: QuestDB, ours: list[Table], restart: Callable[[], bool]) -> Iterator[str]:
    """Resume suspended tables; if they are suspended again, after a restart of the server."""
    first = _suspended(db, ours)
    if not first:
        return
    if not _resumed(db, first):
        if restart():
            yield "restarted the server: it could not go on with its tables"
        _resumed(db, first)
    left = _suspended(db, ours)
    if cured := [table for table in first if table not in left]:
        yield f"resumed {_names(cured)}: all rows that were taken are shown"
    for table in left:
        yield f"not mended: {table.name} is suspended again; free disk space, then try again"


def _resumed(db: QuestDB, tables: list[Table]) -> bool:
    """Resume tables, and return whether all that they had taken is shown now."""
    for table in tables:
        db.execute(sql.resume_wal(table))
    try:
        db.wait_visible(*tables)
    except TableSuspended:
        return False
    return True


def _suspended(db: QuestDB, ours: list[Table]) -> list[Table]:
    names = {str(row[0]) for row in db.execute(sql.list_suspended())}
    return [table for table in ours if table.name in names]


def _finish_recordings(settings: Settings) -> Iterator[str]:
    from fxlab.connecting import connect

    with connect(settings) as lab:
        if lab.recovered:
            yield f"finished the recordings: {', '.join(lab.recovered)}"


def _names(tables: list[Table]) -> str:
    return ", ".join(table.name for table in tables)
