"""The laboratory: one connection from which sessions, imports and runs are reached."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Self

from fxlab.config import Settings
from fxlab.progress import Advance, silent

if TYPE_CHECKING:
    import polars as pl

    from fxlab.backtester.result import Result
    from fxlab.collect.collector import Collector
    from fxlab.collect.feed import Feed
    from fxlab.collect.importer import Source
    from fxlab.collect.receipt import Receipt
    from fxlab.collect.report import ImportReport
    from fxlab.questdb.client import QuestDB
    from fxlab.questdb.endpoint import Endpoint
    from fxlab.reproduce import Reproduction
    from fxlab.sessions import Session


class Lab:
    """A connection to the recorded data; made by `fxlab.connect`, usable with ``with``.

    Attributes
    ----------
    settings : Settings
        What it was connected with.
    recovered : tuple of str
        Sessions that were closed on connecting, because their collector had been killed.
    """

    def __init__(self, db: QuestDB, settings: Settings, recovered: tuple[str, ...] = ()) -> None:
        self._db = db
        self.settings = settings
        self.recovered = recovered

    @property
    def endpoint(self) -> Endpoint:
        """Return the server's address and logins; passwords do not show in its repr."""
        return self._db.endpoint

    def sessions(
        self,
        *,
        symbol: str | None = None,
        status: str | None = None,
        exchange: str | None = None,
        text: str | None = None,
        limit: int = 50,
        offset: int = 0,
    ) -> pl.DataFrame:
        """Return the sessions that match all that is given, the newest first.

        Parameters and columns are those of `fxlab.catalogue.listing`.
        """
        from fxlab import catalogue

        return catalogue.listing(
            self._db,
            symbol=symbol,
            status=status,
            exchange=exchange,
            text=text,
            limit=limit,
            offset=offset,
        )

    def session(self, session_id: str) -> Session:
        """Return one session; the id may have the prefix ``session_``.

        Raises
        ------
        SessionNotFound
            If there is none, naming near ids.
        """
        from fxlab import catalogue
        from fxlab.sessions import Session

        return Session.from_row(self._db, catalogue.find(self._db, session_id))

    def import_csv(
        self,
        *paths: str | Path,
        session_id: str | None = None,
        symbol: str | None = None,
        exchange: str | None = None,
        notes: str = "",
        tags: Sequence[str] = (),
        dry_run: bool = False,
        progress: Advance = silent,
    ) -> ImportReport:
        """Import folders of the older system, CSV and Parquet files, or folders of those.

        Importing the same files again changes nothing, and finishes an import that had stopped
        half-way. See `fxlab.collect.importer` for the guarantees, `fxlab.collect.files` for the
        columns.

        Parameters
        ----------
        *paths
            Folders with ``session_<id>/<SYMBOL>/prices.csv`` and ``orderbook.csv``, files, or
            folders of files, which stand for the files in them.
        session_id
            Makes one session of all files; without it folders keep their ids, and each file is a
            session named after its path.
        symbol
            For files without a symbol column.
        exchange, notes, tags
            Kept with the sessions; given at a later import of the same files, they are set then
            (tags are added).
        dry_run, progress
            Read, check and report, but write nothing; told about reading and writing.

        Raises
        ------
        ImportRefused
            For the first row that is not a tick (file, line, value, rule), or if the disk has no
            room; nothing was written.
        SessionExists
            If an id is taken by other data; nothing was written.
        """
        from fxlab.collect import sources
        from fxlab.questdb import limits

        found, skipped = sources.find(paths, session_id, symbol)
        if not dry_run:
            limits.check_room(self.settings, (file for one in found for file in one.files))
        about = {"exchange": exchange, "notes": notes, "tags": tags}
        return self._import(found, about, dry_run=dry_run, skipped=skipped, progress=progress)

    def import_frames(
        self,
        frames: Mapping[str, Any],
        *,
        session_id: str,
        source: str = "synthetic",
        exchange: str | None = None,
        notes: str = "",
        tags: Sequence[str] = (),
        progress: Advance = silent,
    ) -> ImportReport:
        """Import frames as one session, with the same checks and guarantees as files.

        Parameters
        ----------
        frames
            "prices" and "orderbook", or one of them, such as those of
            `fxlab.collect.synthetic.generate`; of Polars (lazy too) or pandas, or Arrow tables.
        session_id
            Its id.
        source
            One of `fxlab.schema.ORIGINS`.
        exchange, notes, tags, progress
            As in `import_csv`.
        """
        from fxlab.collect.frames import FrameSession
        from fxlab.identifiers import check_session_id

        one = FrameSession(check_session_id(session_id), frames, source)
        about = {"exchange": exchange, "notes": notes, "tags": tags}
        return self._import([one], about, progress=progress)

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
        **options: Any,  # noqa: ANN401
    ) -> ImportReport:
        from fxlab.collect.importer import About, import_sources

        locks = self.settings.home / "locks"
        return import_sources(self._db, found, About.of(**about), locks=locks, **options)

    def collect(
        self,
        venue: str | Feed,
        symbols: str | Iterable[str],
        *,
        url: str | None = None,
        **options: Any,  # noqa: ANN401 - those of `fxlab.collect.plan.Plan.of`
    ) -> Collector:
        """Start to record live data into a new session, and return at once.

        What is received goes to a journal on disk first and to the database from there, so neither
        an outage nor a kill loses it; gaps are found by the venue's own numbers, written into the
        ledger, and filled from the venue's history where it can be asked.

        Parameters
        ----------
        venue
            "binance", "binance_futures", "kraken", "mexc", "ccxt:<exchange>", or a `Feed` of your
            own.
        symbols
            Such as "BTC_USDT".
        url
            Of a mock venue (`fxlab mock`) or a proxy instead of the venue.
        **options
            ``duration`` ("10m"; None until it is stopped), ``book_depth`` (0 none, 1 best bid and
            ask, up to 10), ``book_every`` ("1s"; each change by default), ``trades``,
            ``backfill``, ``session_id``, ``resume``, ``notes``, ``tags``, ``settle``,
            ``journal_limit``; see `fxlab.collect.plan.Plan`.

        Returns
        -------
        Collector
            Use it with ``with``, ``await`` it, or call its ``stop()``.

        Raises
        ------
        VenueNotFound, SymbolNotFound, InvalidInput, SessionExists
            Naming near ones, or the rule; nothing was written.
        VenueUnavailable, VenueRefused
            The venue's own words.
        QuestDBUnavailable
            If there is no server: nothing is recorded without one.
        """
        from fxlab.collect import recovery
        from fxlab.collect.clock import Clock
        from fxlab.collect.collector import Collector
        from fxlab.collect.feed import Feed
        from fxlab.collect.plan import Plan
        from fxlab.collect.venues import open_feed

        name = venue.venue if isinstance(venue, Feed) else venue
        plan = Plan.of(name, symbols, **options)
        clock = Clock()
        feed = venue if isinstance(venue, Feed) else open_feed(venue, url=url, clock=clock)
        self.recovered += recovery.finish_recordings(self._db, self.settings.home)
        return Collector(self._db, feed, plan, self.settings.home, clock).start()

    def verify(self, session_id: str, progress: Advance = silent) -> Receipt:
        """Compare a recording's receipt with the database; see `fxlab.collect.receipt.verify`."""
        from fxlab.collect.receipt import verify

        return verify(self._db, session_id, progress)

    def save_run(self, result: Result) -> str:
        """Store a backtest and return its id; see `fxlab.runs.save`."""
        from fxlab import runs

        return runs.save(self._db, result)

    def runs(self, limit: int = 50) -> pl.DataFrame:
        """Return the newest saved runs; see `fxlab.runs.listing`."""
        from fxlab import runs

        return runs.listing(self._db, limit)

    def run(self, run_id: str) -> dict[str, Any]:
        """Return a saved run's row, as `fxlab.compare_runs` takes it; see `fxlab.runs.find`."""
        from fxlab import runs

        return runs.find(self._db, run_id)

    def run_fills(self, run_id: str) -> pl.DataFrame:
        """Return the fills of a saved run; see `fxlab.runs.fills`."""
        from fxlab import runs

        return runs.fills(self._db, run_id)

    def reproduce(self, run_id: str, progress: Advance = silent) -> Reproduction:
        """Run a saved backtest again and compare every bit; see `fxlab.reproduce`."""
        from fxlab.reproduce import reproduce

        return reproduce(self._db, run_id, progress)

    def sweeps(self, limit: int = 50) -> pl.DataFrame:
        """Return the newest sweeps, one row for each study; see `fxlab.sweeper.store.listing`."""
        from fxlab.sweeper import store

        return store.listing(self._db, limit)

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
        from fxlab import html

        address = f"{self.endpoint.host}:{self.endpoint.http_port}"
        newest = self.sessions(limit=10).select(
            "session_id", "status", "symbols", "records_collected", "duration_seconds", "started"
        )
        caption = f"fxlab at {address}: the newest sessions"
        return html.table(newest, caption=caption, decimals={"duration_seconds": 0})
