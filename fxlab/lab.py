"""Lab: the connection to sessions, imports and runs; start, stop and status of the server."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self, Unpack

from filelock import FileLock

from fxlab._progress import Progress, shown
from fxlab.collect._config import Recordings
from fxlab.collect._live.journal import held, left_behind
from fxlab.config import Settings
from fxlab.errors import Cancelled, InvalidSettings, SchemaError
from fxlab.sessions import _purge
from fxlab.sessions._archive import Archives
from fxlab.sessions._deletion import Deletions

if TYPE_CHECKING:
    import polars as pl

    from fxlab._questdb.cache import FrameCache
    from fxlab._questdb.client import QuestDB
    from fxlab._questdb.endpoint import Endpoint
    from fxlab._questdb.server import ServerStatus
    from fxlab._times import Time
    from fxlab.backtester.result import Result
    from fxlab.collect._files.blocks import Source
    from fxlab.collect._files.importer import ImportReport
    from fxlab.sessions._catalog import SessionPage, SessionQuery
    from fxlab.sessions._statistics import Analysis
    from fxlab.sessions.runs import Reproduction, RunQuery, SavedRun
    from fxlab.sessions.session import Session
    from fxlab.sweeper._store import SavedSweep


class Lab(Recordings, Deletions, Archives):
    """A connection to the recorded data; made by `fxlab.connect`, usable with ``with``.

    Attributes
    ----------
    settings : Settings
        What it was connected with.
    recovered : tuple of str
        Sessions that were closed on connecting, because their collector had been killed.

    Examples
    --------
    >>> with fxlab.connect() as lab:
    ...     found = lab.sessions(symbol="BTC_USDT", limit=1)
    >>> found.height
    1
    """

    def __init__(self, db: QuestDB, settings: Settings, recovered: tuple[str, ...] = ()) -> None:
        self._db = db
        self.settings = settings
        self.recovered = recovered

    @property
    def endpoint(self) -> Endpoint:
        """Return the server's address and logins; passwords do not show in its repr."""
        return self._db.endpoint

    @property
    def cache(self) -> FrameCache:
        """Return the local copies of completed sessions.

        Raises
        ------
        InvalidSettings
            If ``FXLAB_CACHE_SIZE`` turns them off.
        """
        if self._db.cache is None:
            raise InvalidSettings(
                "cache_size=0 keeps no copies of sessions; set FXLAB_CACHE_SIZE, such as 4g"
            )
        return self._db.cache

    def sessions(
        self,
        *,
        symbol: str | None = None,
        status: str | None = None,
        exchange: str | None = None,
        source: str | None = None,
        tag: str | None = None,
        text: str | None = None,
        start: Time | None = None,
        end: Time | None = None,
        sort: str = "created_at",
        descending: bool = True,
        limit: int = 50,
        offset: int = 0,
        after: str | None = None,
    ) -> pl.DataFrame:
        """Return the sessions that match all that is given, the newest first.

        Parameters
        ----------
        symbol, status, exchange, source, tag
            Exact values; sessions being deleted appear only when `status` asks for them.
        text
            Words that must all occur in a session's id, status, exchange, source, symbols, data
            types, notes, tags or time of the first tick, upper or lower case.
        start, end
            Half-open range of time in which a session has ticks.
        sort, descending
            "created_at", "started", "ended", "records_collected", "duration_seconds",
            "session_id", "status", "exchange" or "symbols"; sessions without a value stand last,
            equal ones by id.
        limit, offset, after
            Rows at most; how many are skipped; the id of the last session that was seen: the next
            page is right also if sessions were added in the meantime.

        Returns
        -------
        polars.DataFrame
            One row a session: ``session_id``, ``status``, ``exchange``, ``source``, ``symbols``,
            ``data_types`` and ``tags`` (lists), the counts, ``started``, ``ended`` (first and last
            tick), ``duration_seconds``, ``notes``, ``created_at``, ``updated_at``.

        Raises
        ------
        InvalidParameter
            For a status, a column to sort by, or a number of rows that does not exist.
        SessionNotFound
            If `after` is no session's id.
        """
        return self.session_page(
            symbol=symbol, status=status, exchange=exchange, source=source, tag=tag, text=text,
            start=start, end=end, sort=sort, descending=descending, limit=limit, offset=offset,
            after=after,
        ).sessions  # fmt: skip

    def session_page(self, **query: Unpack[SessionQuery]) -> SessionPage:
        """Return a page of the sessions that match, with the count of all that do: one query.

        Parameters
        ----------
        **query
            As `Lab.sessions` takes them.

        Examples
        --------
        >>> with fxlab.connect() as lab:
        ...     page = lab.session_page(limit=1)
        ...     following = lab.session_page(limit=1, after=page.next_after)
        >>> page.sessions.height, page.total_count >= 1
        (1, True)
        """
        from fxlab.sessions import _catalog

        return _catalog.listing(self._db, **query)

    def session(self, session_id: str) -> Session:
        """Return one session; the id may have the prefix ``session_``.

        Raises
        ------
        SessionNotFound
            If there is none, naming near ids.
        """
        from fxlab.sessions import _catalog
        from fxlab.sessions.session import Session

        return Session.from_row(self._db, _catalog.find(self._db, session_id))

    def import_files(
        self,
        paths: str | Path | Sequence[str | Path],
        *,
        session_id: str | None = None,
        symbol: str | None = None,
        columns: Mapping[str, str] | None = None,
        strict: bool = False,
        max_bad: float = 0.01,
        batch_size: int = 250_000,
        workers: int | None = None,
        exchange: str | None = None,
        notes: str = "",
        tags: Sequence[str] = (),
        instruments: pl.DataFrame | None = None,
        keep_going: bool = False,
        dry_run: bool = False,
        progress: Progress = None,
    ) -> ImportReport:
        """Import files of ticks, folders of them, or folders of the older system.

        Importing the same files again changes nothing, and finishes an import that had stopped
        half-way. What is there whole is known by its SHA-256 and not read again. A line that is no
        tick goes to quarantine: its number, the reason and its text stand in a file below the home
        folder and their number in the session's events; rows and quarantined lines are all lines.

        Parameters
        ----------
        paths
            Folders with ``session_<id>/<SYMBOL>/prices.csv`` and ``orderbook.csv``, files, or
            folders of files, which stand for the files in them; one or several.
        session_id
            Makes one session of all files; without it folders keep their ids, and each file is a
            session named after its path.
        symbol
            For files without a symbol column.
        columns
            For files that call columns otherwise: fxlab's name to theirs, as in
            ``{"timestamp": "time", "price": "px"}``.
        strict
            Refuse everything for the first line that is no tick.
        max_bad
            The share of a file's lines that may be quarantined; a file with more is refused.
        batch_size
            Rows that are read, checked and written at once: fewer take less memory.
        workers
            Sessions that are read at once; as many as there are cores, 4 at most, by default.
        exchange, notes, tags
            Kept with the sessions; given at a later import of the same files, they are set then
            (tags are added).
        instruments
            Sizes and fees of symbols, kept likewise: a frame as `Session.instruments` returns it.
        keep_going
            Store the sessions that are good, and list those that are refused, with the reasons, in
            `ImportReport.refused`; else one that is refused has all of them refused.
        dry_run, progress
            Read, check and report, but write nothing; as `fxlab.backtest` takes it.

        Raises
        ------
        ImportRefused
            For a file that is another thing than it seems, has too many bad lines (the commonest
            reasons, each with a line), or has any and `strict` is set; or if the disk has no room.
            Nothing was written; `Lab.imports` lists what was refused, and why.
        SessionExists
            If an id is taken by other data, with the file that has changed; the same holds.
        """
        from fxlab._questdb import server_config
        from fxlab.collect._files import discovery
        from fxlab.collect._files.quarantine import ReadOptions, workers_of
        from fxlab.schema import check_mapping

        given = [paths] if isinstance(paths, str | Path) else list(paths)
        refused: dict[str, str] | None = {} if keep_going else None
        found, skipped = discovery.find_sources(given, session_id, symbol, refused)
        if not dry_run:
            server_config.check_room(self.settings, (file for one in found for file in one.files))
        about = {"exchange": exchange, "notes": notes, "tags": tags, "instruments": instruments}
        called = tuple(check_mapping("columns", columns or {}, "{'price': 'px'}").items())
        how = ReadOptions(strict, max_bad, called, batch_size)
        options = {"dry_run": dry_run, "skipped": skipped, "workers": workers_of(workers)}
        return self._import(found, about, progress, how=how, refused=refused, **options)

    def import_csv(self, *paths: str | Path, **options: Any) -> ImportReport:  # noqa: ANN401
        """Import files as ``import_files(paths, strict=True)`` does; gone in 0.5."""
        warnings.warn(
            "lab.import_csv(path) is spelled lab.import_files(path) now, which puts bad lines into "
            "quarantine (strict=True refuses the file for them, as this spelling does until 0.5)",
            DeprecationWarning,
            stacklevel=2,
        )
        return self.import_files(paths, **{"strict": True, **options})

    def import_frames(
        self,
        frames: Mapping[str, Any],
        *,
        session_id: str,
        source: str = "synthetic",
        exchange: str | None = None,
        notes: str = "",
        tags: Sequence[str] = (),
        instruments: pl.DataFrame | None = None,
        progress: Progress = None,
    ) -> ImportReport:
        """Import frames as one session, with the same checks and guarantees as files.

        Parameters
        ----------
        frames
            "prices" and "orderbook", or one of them; of Polars (lazy too) or pandas, or Arrow
            tables.
        session_id
            Its id.
        source
            One of `fxlab.schema.ORIGINS`.
        exchange, notes, tags, instruments, progress
            As in `import_files`.
        """
        from fxlab.collect._files.discovery import FrameSession
        from fxlab.schema import check_mapping, check_session_id

        given = check_mapping("frames", frames, "{'prices': frame}")
        one = FrameSession(check_session_id(session_id), given, source)
        about = {"exchange": exchange, "notes": notes, "tags": tags, "instruments": instruments}
        return self._import([one], about, progress)

    def import_frame(
        self,
        frame: Any,  # noqa: ANN401 - of any library
        kind: str,
        *,
        session_id: str,
        **options: Any,  # noqa: ANN401
    ) -> ImportReport:
        """Import one frame ("prices" or "orderbook") as a session; see `import_frames`."""
        return self.import_frames({kind: frame}, session_id=session_id, **options)

    def _import(
        self,
        found: Sequence[Source],
        about: Mapping[str, Any],
        progress: Progress,
        **options: Any,  # noqa: ANN401
    ) -> ImportReport:
        from fxlab.collect._files.importer import import_sources
        from fxlab.sessions._catalog import About

        options |= {"home": self.settings.home}
        with shown(progress, "import") as advance:
            return import_sources(self._db, found, About.of(**about), progress=advance, **options)

    def imports(
        self, session_id: str | None = None, limit: int = 50, *, state: str | None = None
    ) -> pl.DataFrame:
        """Return the files that were imported, or refused, the newest first.

        Parameters
        ----------
        session_id
            Only those of this session, or refused for it.
        limit
            Rows at most.
        state
            Only "done", "failed", "refused" or "started" ones.

        Returns
        -------
        polars.DataFrame
            One row a file: ``path``, ``session_id``, ``state``: "done"; "failed", whose import
            goes on if it is imported again; "refused", of which no row is stored; "started", as
            long as it is imported, and after a kill; ``rows_good``, ``rows_bad`` (in quarantine),
            ``size_bytes``, ``sha256`` (null where it cannot be unpacked), ``updated_at``,
            ``reason`` (of failed and refused ones).

        Raises
        ------
        InvalidParameter
            For a state, or a number of rows, that does not exist.

        Examples
        --------
        >>> lab.imports(session.id).select("path", "state", "rows_good").row(0)
        ('prices', 'done', 1500)
        """
        from fxlab.sessions import _catalog

        return _catalog.all_imports(self._db, session_id, state, limit)

    def analysis(self, session_id: str, *, progress: Progress = None) -> Analysis:
        """Return a session's statistics and quality; see `fxlab.Session`."""
        return self.session(session_id).analysis(progress=progress)

    def save_run(self, result: Result) -> str:
        """Store a backtest and return its id, as ``result.save(lab)`` does; gone in 0.5."""
        warnings.warn(
            "lab.save_run(result) is spelled result.save(lab) now; the old spelling works until "
            "0.5",
            DeprecationWarning,
            stacklevel=2,
        )
        return self._save_run(result)

    def _save_run(self, result: Result) -> str:
        from fxlab.sessions import runs

        return runs.save(self._db, result)

    def runs(self, limit: int = 50, **query: Unpack[RunQuery]) -> pl.DataFrame:
        """Return saved runs, the newest or as sorted; see `fxlab.sessions.runs.listing`."""
        from fxlab.sessions import runs

        return runs.listing(self._db, limit, **query)

    def run(self, run_id: str) -> SavedRun:
        """Return a saved run, as `fxlab.compare_runs` takes it.

        Raises
        ------
        RunNotFound
            If there is none, naming near ids.
        """
        from fxlab.sessions import runs

        return runs.find(self._db, run_id)

    def run_fills(self, run_id: str) -> pl.DataFrame:
        """Return the fills of a saved run; see `fxlab.SavedRun.fills`."""
        return self.run(run_id).fills()

    def reproduce(self, run_id: str, progress: Progress = None) -> Reproduction:
        """Run a saved backtest again and compare every bit; see `fxlab.sessions.runs`."""
        from fxlab.sessions.runs import reproduce

        return reproduce(self._db, run_id, progress)

    def delete_run(self, run_id: str) -> None:
        """Hide a saved run until `undelete_run`; see `fxlab.sessions.runs.delete`."""
        from fxlab.sessions import runs

        runs.delete(self._db, run_id)

    def undelete_run(self, run_id: str) -> SavedRun:
        """Bring a deleted run back, and return it; see `fxlab.sessions.runs.undelete`."""
        from fxlab.sessions import runs

        return runs.undelete(self._db, run_id)

    def delete_sweep(self, sweep_id: str) -> None:
        """Hide a sweep until `undelete_sweep`; see `fxlab.sweeper._store.delete`."""
        from fxlab.sweeper import _store

        _store.delete(self._db, sweep_id)

    def undelete_sweep(self, sweep_id: str) -> SavedSweep:
        """Bring a deleted sweep back, and return it; see `fxlab.sweeper._store.undelete`."""
        from fxlab.sweeper import _store

        return _store.undelete(self._db, sweep_id)

    def sweeps(self, limit: int = 50, **query: Unpack[RunQuery]) -> pl.DataFrame:
        """Return sweeps, the newest or as sorted; see `fxlab.sweeper._store.listing`."""
        from fxlab.sweeper import _store

        return _store.listing(self._db, limit, **query)

    def sweep(self, sweep_id: str) -> SavedSweep:
        """Return a kept sweep with all its points.

        Raises
        ------
        SweepNotFound
            If there is none, naming near ids.
        """
        from fxlab.sweeper import _store

        return _store.find(self._db, sweep_id)

    def nights(self, limit: int = 50, *, top: int | None = None, text: str = "") -> pl.DataFrame:
        """Return what nightly sweeps found, newest first; see `fxlab.sweeper._store.nights`."""
        from fxlab.sweeper import _store

        return _store.nights(self._db, limit, top=top, text=text)

    def close(self) -> None:
        """Close the connections; a later call opens new ones."""
        self._db.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        """Show the address."""
        return f"<Lab at {self.endpoint.host}:{self.endpoint.http_port}>"

    def _repr_html_(self) -> str:
        from fxlab import _html

        address = f"{self.endpoint.host}:{self.endpoint.http_port}"
        newest = self.sessions(limit=10).select(
            "session_id", "status", "symbols", "records_collected", "duration_seconds", "started"
        )
        caption = f"fxlab at {address}: the newest sessions"
        return _html.table(newest, caption=caption, decimals={"duration_seconds": 0})


def connect(
    chosen: Settings | None = None,
    /,
    *,
    progress: Progress = None,
    **settings: Any,  # noqa: ANN401
) -> Lab:
    """Connect to QuestDB, create or upgrade the tables, and return a `Lab`.

    Recordings whose process was killed are finished first; `Lab.recovered` names them.

    Parameters
    ----------
    chosen
        Settings gathered before; unless given they are gathered now.
    progress
        As `fxlab.backtest` takes it: tables of an older fxlab are rebuilt, which may take
        minutes. If it raises, the next call goes on from there.
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

    Examples
    --------
    >>> with fxlab.connect() as lab:
    ...     lab.endpoint.host
    '127.0.0.1'
    """
    from fxlab._questdb import server
    from fxlab._questdb.cache import FrameCache
    from fxlab._questdb.client import QuestDB
    from fxlab._questdb.migrations import check_schema

    wanted = _settings(chosen, settings)
    db = QuestDB(server.endpoint_of(wanted), FrameCache.of(wanted))
    try:
        db.check_login()
        upgrade(db, wanted, progress)
        check_schema(db)
        _purge.finish(db, wanted.home / "locks")
        recovered = _finished_recordings(db, wanted)
    except BaseException:
        db.close()
        raise
    return Lab(db, wanted, recovered)


def upgrade(db: QuestDB, settings: Settings, progress: Progress = None) -> int:
    """Bring the tables to this fxlab's schema and return its version.

    One process at a time rebuilds tables.
    """
    from fxlab._questdb.migrations import migrate, rebuilds

    if not rebuilds(db):
        return migrate(db)
    lock = settings.home / "locks" / "schema.lock"
    lock.parent.mkdir(parents=True, exist_ok=True)
    with shown(progress, "upgrading the tables") as advance:
        advance(0.0, "waiting for other fxlab processes")
        with FileLock(lock):
            if rebuilds(db):
                _refuse_recordings(settings)
            try:
                return migrate(db, progress=advance)
            except KeyboardInterrupt as stop:
                raise Cancelled(
                    "the tables are half rebuilt; no row is lost, the old ones are there "
                    "until the new ones are whole, and the same call goes on from there"
                ) from stop


def _refuse_recordings(settings: Settings) -> None:
    busy = held(settings.home)
    if busy:
        raise SchemaError(
            f"session {busy[0]!r} is being recorded, and the tables of an older fxlab have to be "
            "rebuilt; end the recording (Ctrl-C in its terminal), then connect again"
        )


def _finished_recordings(db: QuestDB, settings: Settings) -> tuple[str, ...]:
    if not left_behind(settings.home):
        return ()  # as nearly always; loading what mends takes longer than connecting
    from fxlab.collect._live.lifecycle import finish_recordings

    return finish_recordings(db, settings.home)


def up(
    chosen: Settings | None = None,
    /,
    *,
    progress: Progress = None,
    **settings: Any,  # noqa: ANN401
) -> ServerStatus:
    """Start the embedded server unless it runs; see `fxlab._questdb.server.up`.

    Examples
    --------
    >>> fxlab.up().state
    'running'
    """
    from fxlab._questdb import server

    with shown(progress, "QuestDB") as advance:
        return server.up(_settings(chosen, settings), advance)


def down(chosen: Settings | None = None, /, *, progress: Progress = None, **settings: Any) -> bool:  # noqa: ANN401
    """Stop the embedded server and return whether one was running.

    Examples
    --------
    >>> fxlab.down(home=folder)
    False
    """
    from fxlab._questdb import server

    with shown(progress, "QuestDB") as advance:
        return server.down(_settings(chosen, settings), advance)


def status(chosen: Settings | None = None, /, **settings: Any) -> ServerStatus:  # noqa: ANN401
    """Return what is known of the server; see `fxlab._questdb.server.ServerStatus`.

    Examples
    --------
    >>> fxlab.status().state
    'running'
    """
    from fxlab._questdb import server

    return server.status(_settings(chosen, settings))


def _settings(chosen: Settings | None, changes: Mapping[str, Any]) -> Settings:
    if chosen is None:
        return Settings.load(**changes)
    return chosen.replace(**changes) if changes else chosen
