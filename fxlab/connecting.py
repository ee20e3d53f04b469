"""The ways in: connect to a server, or start, stop and look at the embedded one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from filelock import FileLock

from fxlab.collect.journal_files import held, left_behind
from fxlab.config import Settings
from fxlab.errors import Cancelled, SchemaError
from fxlab.lab import Lab
from fxlab.progress import Advance, terminal

if TYPE_CHECKING:
    from fxlab.questdb.client import QuestDB
    from fxlab.questdb.server import ServerStatus


def connect(
    chosen: Settings | None = None,
    /,
    *,
    progress: Advance | None = None,
    **settings: Any,  # noqa: ANN401
) -> Lab:
    """Connect to QuestDB, create or upgrade the tables, and return a `Lab`.

    Recordings whose process was killed are finished first; `Lab.recovered` names them.

    Parameters
    ----------
    chosen
        Settings gathered before; unless given they are gathered now.
    progress
        Told while tables of an older fxlab are built anew, which may take minutes; None shows a
        bar on a terminal. If it raises, the next call goes on from there.
    **settings
        Fields of `fxlab.config.Settings`; what is not given comes from the environment, from
        ``fxlab.toml`` or from the defaults.

    Raises
    ------
    QuestDBUnavailable
        If no server answers; start the embedded one with ``fxlab up`` or `fxlab.up`.
    QuestDBLoginFailed
        If it refuses a password.
    SchemaError
        If its tables are foreign, newer, or would lose or hide rows; with the cure.
    """
    from fxlab.questdb import server
    from fxlab.questdb.client import QuestDB
    from fxlab.questdb.migrations import check_schema

    wanted = _settings(chosen, settings)
    db = QuestDB(server.endpoint(wanted))
    try:
        db.check_login()
        upgrade(db, wanted, progress)
        check_schema(db)
        recovered = _finished_recordings(db, wanted)
    except BaseException:
        db.close()
        raise
    return Lab(db, wanted, recovered)


def upgrade(db: QuestDB, settings: Settings, progress: Advance | None = None) -> int:
    """Bring the tables to this fxlab's schema and return its version.

    One process at a time builds tables anew.
    """
    from fxlab.questdb.migrations import migrate, rebuilds

    if not rebuilds(db):
        return migrate(db)
    lock = settings.home / "locks" / "schema.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with terminal("upgrading the tables") as bar:
        advance = progress or bar
        advance(0.0, "waiting for other fxlab processes")
        with FileLock(lock):
            if rebuilds(db):
                _refuse_recordings(settings)
            try:
                return migrate(db, progress=advance)
            except KeyboardInterrupt as stop:
                raise Cancelled(
                    "the tables are built anew by half; no row is lost, the old ones are there "
                    "until the new ones are whole, and the same call goes on from there"
                ) from stop


def _refuse_recordings(settings: Settings) -> None:
    busy = held(settings.home)
    if busy:
        raise SchemaError(
            f"session {busy[0]!r} is being recorded, and the tables of an older fxlab have to be "
            "built anew; end the recording (Ctrl-C in its terminal), then connect again"
        )


def _finished_recordings(db: QuestDB, settings: Settings) -> tuple[str, ...]:
    if not left_behind(settings.home):
        return ()  # as nearly always; loading what mends takes longer than connecting
    from fxlab.collect.recovery import finish_recordings

    return finish_recordings(db, settings.home)


def up(
    chosen: Settings | None = None,
    /,
    *,
    progress: Advance | None = None,
    **settings: Any,  # noqa: ANN401
) -> ServerStatus:
    """Start the embedded server unless it runs; see `fxlab.questdb.server.up`."""
    from fxlab.questdb import server

    with terminal("QuestDB") as bar:
        return server.up(_settings(chosen, settings), progress or bar)


def down(chosen: Settings | None = None, /, **settings: Any) -> bool:  # noqa: ANN401
    """Stop the embedded server and return whether one was running."""
    from fxlab.questdb import server

    return server.down(_settings(chosen, settings))


def status(chosen: Settings | None = None, /, **settings: Any) -> ServerStatus:  # noqa: ANN401
    """Return what is known of the server; see `fxlab.questdb.server.ServerStatus`."""
    from fxlab.questdb import server

    return server.status(_settings(chosen, settings))


def _settings(chosen: Settings | None, changes: Mapping[str, Any]) -> Settings:
    if chosen is None:
        return Settings.load(**changes)
    return chosen.replace(**changes) if changes else chosen
