"""One recorded session: what is known of it, and its ticks as Polars frames."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, fields
from datetime import datetime
from typing import Any, Final, Self

import polars as pl

from fxlab import bars, books, catalogue, html, readers, statistics
from fxlab.errors import some
from fxlab.progress import Advance, silent
from fxlab.questdb.client import QuestDB
from fxlab.replay_source import ReplaySource
from fxlab.schema import ORDERBOOK, PRICES
from fxlab.times import Time

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


@dataclass(frozen=True, slots=True)
class Session(ReplaySource):
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
        feed delivers every message; ``trades``, ``backfill``. Empty for an imported one.
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

    @classmethod
    def from_row(cls, db: QuestDB, row: dict[str, Any]) -> Self:
        """Build the session from its row in the catalogue."""
        values: dict[str, Any] = {
            f.name: row[f.name] for f in fields(cls) if f.name not in ("id", "_db")
        }
        for name in ("symbols", "data_types", "tags"):
            values[name] = tuple(json.loads(row[name] or "[]"))
        for name in _COUNTS:
            values[name] = row[name] or 0
        for name in ("price_decimals", "options"):
            values[name] = json.loads(row[name] or "{}")
        values["notes"] = row["notes"] or ""
        return cls(id=row["session_id"], _db=db, **values)

    def prices(
        self,
        symbol: str | None = None,
        *,
        start: Time | None = None,
        end: Time | None = None,
        columns: Sequence[str] | None = None,
        limit: int | None = None,
        offset: int = 0,
        progress: Advance = silent,
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
            Told after each slice; it may raise `Cancelled`.

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
        return readers.read(self._db, scope, names, limit=limit, offset=offset, progress=progress)

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
        return readers.scan(self._db, scope, names, chunk_rows=chunk_rows, progress=progress)

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
        progress: Advance = silent,
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
        names = ("timestamp", "symbol", "seq", *books.level_columns(depth))
        scope = self._scope(ORDERBOOK, symbol, start, end)
        frame = readers.read(self._db, scope, names, limit=limit, offset=offset, progress=progress)
        return books.shaped(frame, depth, nested=nested)

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
        names = ("timestamp", "symbol", "seq", *books.level_columns(depth))
        scope = self._scope(ORDERBOOK, symbol, start, end)
        chunks = readers.scan(self._db, scope, names, chunk_rows=chunk_rows, progress=progress)
        return (books.shaped(chunk, depth, nested=nested) for chunk in chunks)

    def ohlcv(
        self,
        interval: str,
        symbol: str | None = None,
        *,
        start: Time | None = None,
        end: Time | None = None,
        progress: Advance = silent,
    ) -> pl.DataFrame:
        """Return bars of trades, or of mids for a symbol with books only.

        `interval` is one of `fxlab.bars.INTERVALS`, such as "1s", "1m", "1h"; the columns are those
        of `fxlab.bars.bars`, which also says why the server does not make them.
        """
        checked = bars.check_interval(interval)
        chunks = self.scan_ticks(symbol, start=start, end=end, progress=progress)
        return bars.bars(chunks, checked)

    def statistics(self) -> pl.DataFrame:
        """Return one row a symbol; see `fxlab.statistics.statistics`."""
        return statistics.statistics(self._db, self.id, *self._tick_range())

    def counts(self) -> pl.DataFrame:
        """Return the rows of each (symbol, data type); see `fxlab.statistics.counts`."""
        return statistics.counts(self._db, self.id, *self._tick_range())

    def events(self) -> pl.DataFrame:
        """Return the gap ledger: what is known to be missing, and why."""
        return catalogue.events(self._db, self.id)

    def __repr__(self) -> str:
        """Show id, state and size in one line."""
        span = "no ticks" if self.started is None else f"{html.show_time(self.started)} UTC"
        return (
            f"<Session {self.id}: {self.status}, {some(self.symbols)}, "
            f"{self.prices_count:,} prices, {self.orderbook_count:,} books, from {span}, "
            f"{html.show(self.duration_seconds)} s>"
        )

    def _repr_html_(self) -> str:
        return html.facts((html.heading(name), getattr(self, name)) for name in _SHOWN)
