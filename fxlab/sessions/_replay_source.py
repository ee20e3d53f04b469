"""Replay source of a session: its ticks and books in chunks, as a backtest reads them.

With the columns that the engine needs and no others, in bounded memory, in (timestamp, seq) order.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Final

import polars as pl

from fxlab import _ticks
from fxlab._progress import Advance, Progress, shown, silent
from fxlab._questdb import sql
from fxlab._questdb.client import QuestDB
from fxlab._questdb.sql import Scope
from fxlab._ticks import with_mid_price
from fxlab._times import Time, parse_range, to_micros
from fxlab.errors import InvalidParameter, SymbolNotFound, some
from fxlab.schema import ORDERBOOK, PRICES, Table
from fxlab.sessions import _catalog, _reader

if TYPE_CHECKING:
    from fxlab._questdb.cache import CachedColumns

TICK_COLUMNS: Final = ("timestamp", "seq", "price", "volume", "quote_volume", "side")
QUOTE_COLUMNS: Final = ("bid_price_1", "bid_qty_1", "ask_price_1", "ask_qty_1")


class ReplaySource:
    """The part of a `Session` that makes it a `fxlab.backtester._source.TickSource`."""

    __slots__ = ()

    id: str
    status: str
    symbols: tuple[str, ...]
    data_types: tuple[str, ...]
    price_decimals: dict[str, int]
    started: datetime | None
    ended: datetime | None
    created_at: datetime
    updated_at: datetime
    _db: QuestDB
    _stored: dict[str, set[str]]

    def scan_ticks(
        self,
        symbol: str | None = None,
        *,
        start: Time | None = None,
        end: Time | None = None,
        chunk_rows: int = 1_000_000,
        received: bool = False,
        progress: Advance = silent,
    ) -> Iterator[pl.DataFrame]:
        """Yield what a backtest replays, `chunk_rows` rows at a time.

        Yields
        ------
        polars.DataFrame
            For a symbol with trades: ``timestamp``, ``seq``, ``price``, ``volume``,
            ``quote_volume``, ``side``. For one with books only (FX quotes): ``timestamp``,
            ``seq``, ``price`` (the mid) and ``bid_price_1``, ``bid_qty_1``, ``ask_price_1``,
            ``ask_qty_1``; books with an empty side, or whose bid is not below
            their ask, have no mid and are left out. With `received`
            also ``received_at``.
        """
        name = self.only(symbol)
        more = ("received_at",) if received else ()
        if self.has_trades(name):
            scope, names = self._scope(PRICES, name, start, end), (*TICK_COLUMNS, *more)
            return self._scan(scope, names, chunk_rows, progress)
        scope = self._scope(ORDERBOOK, name, start, end)
        names = ("timestamp", "seq", *QUOTE_COLUMNS, *more)
        chunks = self._scan(scope, names, chunk_rows, progress)
        ticks = (with_mid_price(chunk, self.price_decimals.get(name)) for chunk in chunks)
        return (chunk.select("timestamp", "seq", "price", *QUOTE_COLUMNS, *more) for chunk in ticks)

    def count_ticks(
        self,
        symbol: str | None = None,
        *,
        start: Time | None = None,
        end: Time | None = None,
    ) -> int:
        """Return how many rows `scan_ticks` yields, without reading them."""
        name = self.only(symbol)
        has_trades = self.has_trades(name)
        table, count = (
            (PRICES, sql.count_by_symbol) if has_trades else (ORDERBOOK, sql.count_quotes)
        )
        pieces = self._scope(table, name, start, end).by_year()
        return self._db.steady(
            lambda: sum(int(row[-1]) for piece in pieces for row in self._db.execute(count(piece)))
        )

    def scan_books(
        self,
        symbol: str | None = None,
        *,
        start: Time | None = None,
        end: Time | None = None,
        chunk_rows: int = 250_000,
        progress: Advance = silent,
    ) -> Iterator[pl.DataFrame]:
        """Yield what a backtest fills from: ``timestamp``, ``seq`` and all level columns."""
        scope = self._scope(ORDERBOOK, symbol, start, end)
        names = ("timestamp", "seq", *_ticks.level_columns())
        return self._scan(scope, names, chunk_rows, progress)

    def has_trades(self, symbol: str | None = None) -> bool:
        """Return whether there are trades of the symbol; else its ticks are mids of books."""
        return self._has(PRICES, "prices", self.only(symbol))

    def has_books(self, symbol: str | None = None) -> bool:
        """Return whether there are order books (or quotes) of the symbol."""
        return self._has(ORDERBOOK, "orderbook", self.only(symbol))

    def gaps(self, symbol: str | None = None, data_type: str | None = None) -> pl.DataFrame:
        """Return the known gaps of a symbol: ``from_time``, ``to_time``, merged and in order.

        They are the events "gap" of the session that name the symbol or none, but for those that
        were filled: nothing is missing in them any more. With ``data_type``, "prices" or
        "orderbook", without those that the recorder says are of the other one.
        """
        return known_gaps(_catalog.events(self._db, self.id), self.only(symbol), data_type)

    def _has(self, table: Table, data_type: str, symbol: str) -> bool:
        """Return whether a symbol has rows of a kind; asked once for all symbols of a session."""
        if data_type not in self.data_types:
            return False
        known = self._stored.get(data_type, set())
        if data_type not in self._stored:
            known = self._db.steady(lambda: self._symbols_with(table))
            if self.status != "collecting":  # what is still recorded may yet get its first row
                self._stored[data_type] = known
        return symbol in known

    def _symbols_with(self, table: Table) -> set[str]:
        known: set[str] = set()
        for piece in Scope(table, self.id, None, *self._tick_range()).by_year():
            known |= {row[0] for row in self._db.execute(sql.count_by_symbol(piece))}
            if len(known) == len(self.symbols):
                break
        return known

    def only(self, symbol: str | None) -> str:
        """Return a symbol of this session, the only one if None is given."""
        if symbol is None and len(self.symbols) == 1:
            return self.symbols[0]
        if symbol is None:
            raise InvalidParameter(
                f"session {self.id!r} has {len(self.symbols)} symbols; give one of: "
                f"{some(self.symbols)}"
            )
        if symbol not in self.symbols:
            raise SymbolNotFound.named(str(symbol), self.symbols)
        return symbol

    def _scope(
        self, table: Table, symbol: str | None, start: Time | None, end: Time | None
    ) -> Scope:
        name = self.only(symbol)
        low, high = parse_range(start, end)
        first, last = self._tick_range()
        if first is not None:
            low = first if low is None else max(low, first)
        if last is not None:
            high = last if high is None else min(high, last)
        return Scope(table, self.id, name, low, high)

    def _cached(self, scope: Scope) -> CachedColumns | None:
        """Return where copies of the rows are kept on this machine: only a closed session's are."""
        cache = self._db.cache
        if cache is None or self.status != "completed":
            return None
        revision = f"{to_micros(self.created_at):x}-{to_micros(self.updated_at):x}"
        is_whole = (scope.start, scope.end) == self._tick_range()
        return cache.columns(scope, revision, is_whole=is_whole)

    def _scan(
        self, scope: Scope, names: Sequence[str], chunk_rows: int, progress: Advance
    ) -> Iterator[pl.DataFrame]:
        return _reader.scan(
            self._db,
            scope,
            names,
            chunk_rows=chunk_rows,
            progress=progress,
            cached=self._cached(scope),
        )

    def _read(
        self, scope: Scope, names: Sequence[str], limit: int | None, offset: int, progress: Progress
    ) -> pl.DataFrame:
        with shown(progress, "reading") as advance:
            return _reader.read(
                self._db,
                scope,
                names,
                limit=limit,
                offset=offset,
                progress=advance,
                cached=self._cached(scope),
            )

    def _tick_range(self) -> tuple[int | None, int | None]:
        """Return the range that excludes no row, and keeps a query on this session's partitions."""
        names = ("status", "source", "started", "ended", "created_at")
        return _catalog.tick_range({name: getattr(self, name) for name in names})


def known_gaps(events: pl.DataFrame, symbol: str, data_type: str | None = None) -> pl.DataFrame:
    """Return the gaps among the events that are a symbol's and were not filled, merged.

    With a data type, without those that the recorder says are of the other one.
    """
    named = pl.col("symbol")
    gaps = events.filter(
        pl.col("event") == "gap",
        named.is_null() | named.is_in(["", symbol]),
        pl.col("count").is_null() | (pl.col("count") != 0),
    )
    if data_type is not None:
        said = pl.col("detail").str.extract(r'^\{"what": "(\w+)"')
        gaps = gaps.filter(said.is_null() | (said == data_type))
    return _ticks.merged(gaps.with_columns(pl.col("from_time").fill_null(pl.col("timestamp"))))
