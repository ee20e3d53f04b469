"""Session: the ticks, books and gaps of one recording or import, as Polars frames.

People read prices and books by `Session.prices` and `Session.orderbook`; the engine reads by
`_replay_source`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import datetime
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import polars as pl

from fxlab import _html, _ticks
from fxlab._progress import Advance, Progress, part, shown, silent
from fxlab._questdb.client import QuestDB
from fxlab._questdb.endpoint import Endpoint
from fxlab._questdb.sql import Scope
from fxlab._ticks import instruments_frame
from fxlab._times import Duration, Time, parse_range, to_micros
from fxlab.errors import QuestDBUnavailable, some
from fxlab.schema import DATA_TABLES, ORDERBOOK, PRICES
from fxlab.sessions import _candles, _catalog, _reader, _statistics
from fxlab.sessions._replay_source import RecordedChannels
from fxlab.sessions._statistics import Analysis, Quality

if TYPE_CHECKING:
    from plotly.graph_objects import Figure

    from fxlab._questdb.cache import FrameCache

PRICE_COLUMNS: Final = (
    "timestamp", "symbol", "seq", "side", "price", "volume", "quote_volume",
)  # fmt: skip
"""What `Session.prices` returns unless told; trade_id, received_at and origin come on request."""

_COUNTS: Final = (
    "records_collected", "prices_count", "orderbook_count", "gaps_count", "errors_count",
)  # fmt: skip
_SHOWN: Final = (
    "id", "status", "exchange", "symbols", "started", "ended", "duration_seconds",
    "prices_count", "orderbook_count", "gaps_count", "notes", "tags", "options",
)  # fmt: skip
_IMPORTS: Final = (
    "path", "symbol", "state", "data_type", "rows_good", "rows_bad", "first_time", "last_time",
    "backward", "size_bytes", "sha256", "updated_at", "detail",
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Session(RecordedChannels):
    """A recorded session, as `Lab.session` returns it.

    Times are UTC, ranges half open (``start <= t < end``), frames ordered by (timestamp, seq).
    Methods take ``symbol=None`` where the session has one symbol.

    Attributes
    ----------
    price_decimals
        Symbol to the decimals that write all its prices (of book-only symbols: its mids) exactly;
        a symbol whose prices need more than twelve is not in it.
    started, ended
        First and last tick; None while nothing is there.
    options
        How a live session was recorded: ``book_depth``; ``book_every_us``, the least time between
        two books where they were stored less often than they changed; ``lossless``, whether its
        feed delivers every message; ``trades``, ``backfill``. Of an imported one, ``import``: what
        was assumed of each file.

    Examples
    --------
    >>> session.symbols, session.status
    (('BTC_USDT',), 'completed')
    >>> session.prices("BTC_USDT", limit=2).height
    2
    """

    id: str
    status: str
    exchange: str | None
    source: str | None
    symbols: tuple[str, ...]
    data_types: tuple[str, ...]
    price_decimals: dict[str, int]
    started: datetime | None
    ended: datetime | None
    duration_seconds: float | None
    records_collected: int
    prices_count: int
    orderbook_count: int
    gaps_count: int
    errors_count: int
    notes: str
    tags: tuple[str, ...]
    created_at: datetime
    updated_at: datetime
    options: dict[str, Any]
    _db: QuestDB = field(repr=False, compare=False)
    _listed: dict[str, dict[str, Any]] = field(default_factory=dict, repr=False, compare=False)
    _stored: dict[str, set[str]] = field(
        default_factory=dict, init=False, repr=False, compare=False
    )
    """Data type to the symbols that have rows of it."""

    @classmethod
    def from_row(cls, db: QuestDB, row: dict[str, Any]) -> Self:
        """Build the session from its row in the catalogue."""
        values: dict[str, Any] = {
            f.name: row[f.name] for f in fields(cls) if f.name != "id" and f.name[0] != "_"
        }
        for name in ("symbols", "data_types", "tags"):
            values[name] = tuple(json.loads(row[name] or "[]"))
        for name in _COUNTS:
            values[name] = row[name] or 0
        for name in ("price_decimals", "options"):
            values[name] = json.loads(row[name] or "{}")
        values["notes"] = row["notes"] or ""
        listed = json.loads(row["instruments"] or "{}")
        return cls(id=row["session_id"], _db=db, _listed=listed, **values)

    def address(self, *, passwords: bool) -> SessionAddress:
        """Return where the session is, for another process; the passwords only if it may."""
        endpoint = self._db.endpoint
        if not passwords:
            endpoint = replace(endpoint, password=None, pg_password=None)
        cache = self._db.cache if passwords else None  # a worker elsewhere has another disk
        return SessionAddress(self.id, endpoint, complete=passwords, cache=cache)

    def prices(
        self,
        symbol: str | None = None,
        *,
        start: Time | None = None,
        end: Time | None = None,
        columns: Sequence[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
        progress: Progress = None,
    ) -> pl.DataFrame:
        """Return trades.

        Parameters
        ----------
        symbol
            One of the session's symbols.
        start, end
            Half-open time range, exact to the microsecond; naive times mean UTC.
        columns
            Columns of `fxlab.schema.PRICES`, in this order; None means `PRICE_COLUMNS`.
        limit, offset
            A page in (timestamp, seq) order.
        progress
            As `fxlab.backtest` takes it; told after each slice.

        Returns
        -------
        polars.DataFrame
            One row a trade; ``timestamp`` is Datetime("us", "UTC"). No rows where there are none.

        Raises
        ------
        SymbolNotFound, InvalidParameter, InvalidTimeRange
            For an unknown symbol, column or page, or a range that selects nothing.
        """
        names = PRICE_COLUMNS if columns is None else tuple(columns)
        scope = self._scope(PRICES, symbol, start, end)
        return self._read(scope, names, limit, offset, progress)

    def scan_prices(
        self,
        symbol: str | None = None,
        *,
        start: Time | None = None,
        end: Time | None = None,
        columns: Sequence[str] | None = None,
        chunk_rows: int = 1_000_000,
        progress: Advance = silent,
    ) -> Iterator[pl.DataFrame]:
        """Yield the frames of `prices`, `chunk_rows` rows at a time, in bounded memory."""
        names = PRICE_COLUMNS if columns is None else tuple(columns)
        scope = self._scope(PRICES, symbol, start, end)
        return self._scan(scope, names, chunk_rows, progress)

    def orderbook(
        self,
        symbol: str | None = None,
        *,
        start: Time | None = None,
        end: Time | None = None,
        depth: int = 10,
        nested: bool = False,
        limit: int | None = None,
        offset: int = 0,
        progress: Progress = None,
    ) -> pl.DataFrame:
        """Return order books.

        Parameters
        ----------
        symbol, start, end, limit, offset, progress
            As in `prices`.
        depth
            Levels of each side, 1 to 10, the best first.
        nested
            Two columns ``bids`` and ``asks`` with lists of [price, qty], missing levels left out,
            instead of flat ``bid_price_1``, ``bid_qty_1``, ... with null for a missing level.

        Returns
        -------
        polars.DataFrame
            ``timestamp``, ``symbol``, ``seq``, the levels, ``spread`` and ``mid`` of the best
            prices (null if a side is empty).
        """
        names = ("timestamp", "symbol", "seq", *_ticks.level_columns(depth))
        scope = self._scope(ORDERBOOK, symbol, start, end)
        frame = self._read(scope, names, limit, offset, progress)
        return _ticks.shaped(frame, depth, nested=nested)

    def scan_orderbook(
        self,
        symbol: str | None = None,
        *,
        start: Time | None = None,
        end: Time | None = None,
        depth: int = 10,
        nested: bool = False,
        chunk_rows: int = 250_000,
        progress: Advance = silent,
    ) -> Iterator[pl.DataFrame]:
        """Yield the frames of `orderbook`, `chunk_rows` rows at a time, in bounded memory."""
        names = ("timestamp", "symbol", "seq", *_ticks.level_columns(depth))
        scope = self._scope(ORDERBOOK, symbol, start, end)
        chunks = self._scan(scope, names, chunk_rows, progress)
        return (_ticks.shaped(chunk, depth, nested=nested) for chunk in chunks)

    def ohlcv(
        self,
        interval: Duration = "1m",
        symbol: str | None = None,
        *,
        kind: str = "time",
        fill: bool = False,
        start: Time | None = None,
        end: Time | None = None,
        progress: Progress = None,
    ) -> pl.DataFrame:
        """Return candles of trades, or of mids for a symbol with books only, in bounded memory.

        Parameters
        ----------
        interval
            Length of a bar: "1s" to "1d" (or a timedelta, or seconds), starting at whole multiples
            of it since 1970, UTC. With another `kind` the ticks, the base or the quote units that
            a bar holds.
        symbol, start, end, progress
            As in `prices`.
        kind
            "time"; "tick", "volume" or "dollar": a bar ends with the trade by which it holds
            `interval`, and the last one may hold less. No trade is cut in two.
        fill
            Add the bars without a tick between the first and the last one: prices are the close
            before it, ``trades`` 0, volumes 0, or null where the bar lies in a known gap of the
            ticks: a gap of books says nothing about trades.

        Returns
        -------
        polars.DataFrame
            One row a bar that has ticks: ``timestamp`` (its start; with another `kind` its first
            tick's time), ``open``, ``high``, ``low``, ``close`` (of equal times, the highest seq),
            ``volume``, ``quote_volume``, ``vwap``, ``trades`` (number of ticks), ``buy_volume``,
            ``sell_volume`` (of takers). With another `kind` also ``end``, the last tick's time.
            What the ticks do not tell is null: quotes have no volume.

        Raises
        ------
        SymbolNotFound, InvalidParameter, InvalidTimeRange
            For an unknown symbol, interval, kind or range; volume bars of quotes; more than ten
            million filled bars.

        Examples
        --------
        >>> session.ohlcv("1m", "BTC_USDT").columns[:5]
        ['timestamp', 'open', 'high', 'low', 'close']
        >>> session.ohlcv(100, "BTC_USDT", kind="tick")["trades"][0]
        100
        """
        name = self.only(symbol)
        with shown(progress, "reading") as advance:
            chunks = self.scan_ticks(name, start=start, end=end, progress=advance)
            return _candles.candles(
                chunks, interval, kind, fill=fill, gaps=partial(self._gaps_of_ticks, name)
            )

    def _gaps_of_ticks(self, name: str) -> pl.DataFrame:
        data_type = "prices" if self.has_trades(name) else "orderbook"
        return self.gaps(name, data_type)

    def chart_data(
        self,
        symbol: str | None = None,
        *,
        max_points: int = 2_000,
        start: Time | None = None,
        end: Time | None = None,
        progress: Progress = None,
    ) -> pl.DataFrame:
        """Return the ticks that a chart needs: every spike and every silence, few rows.

        Of each of `max_points` / 4 equal spans of time the first, last, lowest and highest tick,
        with the columns of `scan_ticks` and ``received_at``, read in bounded memory.

        Examples
        --------
        >>> session.chart_data("BTC_USDT", max_points=400).height <= 400
        True
        """
        name = self.only(symbol)
        low, high = parse_range(start, end)
        first = to_micros(self.started or self.created_at) if low is None else low
        last = to_micros(self.ended or self.updated_at) if high is None else high
        with shown(progress, "reading") as advance:
            chunks = self.scan_ticks(name, start=start, end=end, received=True, progress=advance)
            return _candles.sampled(chunks, first, last, max_points)

    def charts(
        self,
        symbol: str | None = None,
        *,
        interval: Duration | None = None,
        start: Time | None = None,
        end: Time | None = None,
        max_points: int = 1_000,
    ) -> dict[str, Figure]:
        """Return a symbol's charts: "session" and "candles", and "depth" if there are books.

        The "session" is price, volume, spread and clock skew; `interval` that of the candles, by
        default the shortest that gives 400 or fewer. Of more than 200,000 books the heat map has
        every n-th, and says so.
        """
        drawn = _candles.SessionCharts(self, self.only(symbol), interval, max_points)
        return drawn.figures(start, end)

    def export(
        self,
        path: str | Path,
        *,
        format: str | None = None,  # noqa: A002 - what users call it
        symbols: Sequence[str] | None = None,
        overwrite: bool = False,
        progress: Progress = None,
    ) -> pl.DataFrame:
        """Write the ticks to files that an import takes back, in bounded memory.

        What was recorded beside trades and books is written, too; an import skips it, and says so.

        Parameters
        ----------
        path
            A folder, for one file a symbol and data type; or one file, if that is all there is.
        format
            "parquet", "csv" or "arrow"; by default what the file's name says, else Parquet.
        symbols
            Some of the session's; None means all.
        overwrite
            Replace files that are there already.
        progress
            As `fxlab.backtest` takes it.

        Returns
        -------
        polars.DataFrame
            One row a file: ``file``, ``symbol``, ``data_type``, ``rows``, ``bytes``.

        Raises
        ------
        SymbolNotFound, InvalidInput
            For an unknown symbol or format, or files that are there; nothing was written.

        Examples
        --------
        >>> session.export(folder, format="csv")["data_type"].to_list()
        ['prices']
        """
        chosen = None if symbols is None else {self.only(symbol) for symbol in symbols}
        counts = {
            (symbol, data_type): rows
            for symbol, data_type, rows in self.counts().iter_rows()
            if chosen is None or symbol in chosen
        }
        targets = _reader.targets(path, format, sorted(counts), overwrite=overwrite)
        lines, done, total = [], 0, sum(counts.values())
        with shown(progress, "export") as advance:
            for target in targets:
                rows = counts[target.symbol, target.data_type]
                share = part(advance, done / total, (done + rows) / total)
                written = self._export_one(target, share)
                done += rows
                size = target.path.stat().st_size
                lines.append((str(target.path), target.symbol, target.data_type, written, size))
        names = ("file", "symbol", "data_type", "rows", "bytes")
        return pl.DataFrame(lines, schema=list(names), orient="row")

    def _export_one(self, target: _reader.Target, progress: Advance) -> int:
        table = DATA_TABLES[target.data_type]
        names = _reader.export_columns(table)
        scope = self._scope(table, target.symbol, None, None)
        chunks = _reader.scan(
            self._db, scope, names, chunk_rows=_reader.EXPORT_ROWS, progress=progress
        )
        schema = pl.Schema({name: table.frame[name] for name in names})
        return _reader.write_file(target.path, target.form, chunks, schema)

    def statistics(self, *, progress: Progress = None) -> pl.DataFrame:
        """Return one row a symbol, computed by the server from all of its ticks.

        Parameters
        ----------
        progress
            As `fxlab.backtest` takes it.

        Returns
        -------
        polars.DataFrame
            ``symbol``; ``data_type``: "prices" where there are trades, else "orderbook", whose
            price is the mid; ``rows`` of it, ``books``, ``first``, ``last``, ``duration_seconds``;
            ``open``, ``high``, ``low``, ``close``, ``return`` (a fraction) and
            ``realised_volatility``: the root of the sum of squared log returns between the last
            prices of minutes, not annualised; ``volume``, ``vwap``, ``buy_volume``,
            ``sell_volume`` (of takers), ``trade_imbalance`` ((buy - sell) / (buy + sell));
            ``rows_per_second``, ``shared_timestamps`` (share of rows whose time another row has),
            ``interval_mean``, ``_p50``, ``_p90``, ``_p99``, ``_max``: seconds between rows;
            ``mean_spread``, ``mean_spread_bps`` (of the mid), ``max_spread`` of books that do not
            cross, ``mean_bid_qty``, ``mean_ask_qty`` (best level), ``mean_depth`` (all levels, both
            sides), ``book_imbalance`` (mean of (bid - ask) / (bid + ask) quantity);
            ``skew_min``, ``_p50``, ``_p99``, ``_max``: arrival minus event time, seconds. In tables
            of more than a million rows, the quantiles of intervals are up to 0.1 % too low, those
            of skews are cut to 0.1 ms (from a minute on to a second); all else is exact.
            A value that does not exist is null; `fxlab.Lab.analysis` says why.

        Examples
        --------
        >>> session.statistics().select("symbol", "rows", "books").row(0)
        ('BTC_USDT', 9738, 3437)
        """
        with shown(progress, "statistics") as advance:
            both = self._db.steady(partial(self._aggregates, advance))
        return _statistics.table(both, self.price_decimals)

    def quality(self, *, progress: Progress = None) -> Quality:
        """Return what is wrong with the ticks, and a score; `Quality` has the rules.

        Examples
        --------
        >>> print(session.quality())
        quality of exec_20240808_235413_657c2dd6: 100 of 100
        nothing was found
        """
        return self.analysis(progress=progress).quality

    def analysis(self, *, progress: Progress = None) -> Analysis:
        """Return statistics and quality from one pass of the server over the ticks."""
        with shown(progress, "analysis") as advance:
            return self._db.steady(partial(self._analysis_now, advance))

    def _analysis_now(self, progress: Advance) -> Analysis:
        both = self._aggregates(progress)
        gaps = _ticks.known_gaps(self.events(), self.symbols)
        statistics = _statistics.table(both, self.price_decimals)
        quality = _statistics.assess(self._db, self.id, both, gaps)
        return Analysis(self.id, statistics, quality, _statistics.missing(statistics))

    def _aggregates(
        self, progress: Advance
    ) -> tuple[_statistics.Aggregates, _statistics.Aggregates]:
        scope = Scope(PRICES, self.id, None, *self._tick_range())
        return _statistics.both_tables(self._db, scope, progress)

    def counts(self) -> pl.DataFrame:
        """Return the rows of each (symbol, data type); see `fxlab.sessions._catalog.counts`."""
        return _catalog.counts(self._db, self.id, *self._tick_range(), self.data_types)

    def events(self, symbol: str | None = None) -> pl.DataFrame:
        """Return the event table: gaps and other events of the recording, and why.

        Parameters
        ----------
        symbol
            Only events of this one; those that concern all symbols, such as a reconnect, have none.

        Raises
        ------
        SymbolNotFound
            Naming near ones.

        Examples
        --------
        >>> session.events("BTC_USDT").columns[:4]
        ['timestamp', 'symbol', 'event', 'seq']
        """
        found = _catalog.events(self._db, self.id)
        return found if symbol is None else found.filter(symbol=self.only(symbol))

    def gap_list(self, symbol: str | None = None) -> pl.DataFrame:
        """Return each known gap of the recording by itself, with its state and its cause.

        Returns
        -------
        polars.DataFrame
            One row a gap: ``symbol``, ``from_time``, ``to_time``, ``data_type``, ``missing``
            (trades or updates, null where nobody knows), ``state``, ``cause``, and ``answer``: what
            came when the venue was asked. The states are "open" (something is missing, or the book
            is not known), "partly filled", "filled", and "resynced": the book is known again from
            ``to_time`` on, and the updates before are lost. ``gaps_count`` of a session counts
            those that are open or partly filled.

        Examples
        --------
        >>> session.gap_list().columns[:4]
        ['symbol', 'from_time', 'to_time', 'data_type']
        """
        return _ticks.gap_list(self.events(symbol))

    def instruments(self) -> pl.DataFrame:
        """Return what the venue's listing said of each symbol when the recording began.

        A backtest takes lot size, tick size, least notional and fees from it, where its `Execution`
        says nothing else.

        Returns
        -------
        polars.DataFrame
            One row a symbol: ``symbol``, ``kind`` (spot, perpetual, future, option), ``base``,
            ``quote``, ``settle``, ``contract_size``, ``tick_size``, ``lot_size``, ``min_qty`` (base
            units), ``min_notional`` (quote units), ``expiry``, ``taker_bps``, ``maker_bps``,
            ``fee_tiers`` ([volume of 30 days, taker_bps, maker_bps], lowest first). What the venue
            does not list is null. No rows of an imported session, nor of one of an older fxlab.

        Examples
        --------
        >>> session.instruments().columns[:5]
        ['symbol', 'kind', 'base', 'quote', 'settle']
        """
        return instruments_frame(self._listed)

    def imports(self) -> pl.DataFrame:
        """Return the status table of the files that the session was imported from.

        Returns
        -------
        polars.DataFrame
            One row a file and symbol: ``path``, ``symbol``, ``state`` ("started", "done",
            "failed"), ``data_type``, ``rows_good`` and ``rows_bad`` (lines in
            quarantine), ``first_time``, ``last_time``, ``backward`` (rows earlier than the row
            before), ``size_bytes``, ``sha256``, ``updated_at``, ``detail`` (JSON: what was assumed,
            and where bad lines are). Empty for a recording.

        Examples
        --------
        >>> session.imports().select("path", "state", "rows_good").row(0)
        ('prices', 'done', 1500)
        """
        return _catalog.imports(self._db, self.id).select(_IMPORTS)

    def __repr__(self) -> str:
        """Show id, state and size in one line."""
        span = "no ticks" if self.started is None else f"{_html.show_time(self.started)} UTC"
        return (
            f"<Session {self.id}: {self.status}, {some(self.symbols)}, "
            f"{self.prices_count:,} prices, {self.orderbook_count:,} books, from {span}, "
            f"{_html.show(self.duration_seconds)} s>"
        )

    def _repr_html_(self) -> str:
        return _html.facts((_html.heading(name), getattr(self, name)) for name in _SHOWN)


@dataclass(frozen=True)
class SessionAddress:
    """Where a session is: the server, and the session's id."""

    session_id: str
    endpoint: Endpoint
    complete: bool = True
    """Whether the passwords are in the endpoint; else the reader has to know them."""
    cache: FrameCache | None = None

    def opened(self) -> Session:
        """Return the session, read over a connection of this process."""
        db = QuestDB(self.endpoint if self.complete else self._own_login(), self.cache)
        return Session.from_row(db, _catalog.find(db, self.session_id))

    def _own_login(self) -> Endpoint:
        # Only the worker of a cluster looks for a server.
        from fxlab._questdb import server
        from fxlab.config import Settings

        own, there = server.endpoint_of(Settings.load()), self.endpoint
        if (own.host, own.http_port) != (there.host, there.http_port):
            raise QuestDBUnavailable(
                f"session {self.session_id} is on {there.host}:{there.http_port}, and the settings "
                f"of this worker lead to {own.host}:{own.http_port}; set FXLAB_QUESTDB_HOST and "
                "FXLAB_QUESTDB_HTTP_PORT where the workers are started"
            )
        return own
