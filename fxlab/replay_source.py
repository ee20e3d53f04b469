"""What a backtest replays of a recorded session: ticks, books, known holes.

People read prices and books by `Session.prices` and `Session.orderbook`; the engine reads here, in
chunks, with the columns that it needs and no others.
"""

from __future__ import annotations

from collections.abc import Iterator
from datetime import datetime
from typing import Final

import polars as pl

from fxlab import books, catalogue, readers
from fxlab.backtester import gaps
from fxlab.backtester.quotes import with_mid_price
from fxlab.errors import InvalidParameter, SymbolNotFound, some
from fxlab.progress import Advance, silent
from fxlab.questdb import sql
from fxlab.questdb.client import QuestDB
from fxlab.questdb.sql import Scope
from fxlab.schema import ORDERBOOK, PRICES, Table
from fxlab.times import Time, parse_range

TICK_COLUMNS: Final = ("timestamp", "seq", "price", "volume", "quote_volume", "side")
QUOTE_COLUMNS: Final = ("bid_price_1", "bid_qty_1", "ask_price_1", "ask_qty_1")


class ReplaySource:
    """The part of a `Session` that makes it a `fxlab.backtester.ticks.TickSource`."""

    __slots__ = ()

    id: str
    status: str
    symbols: tuple[str, ...]
    data_types: tuple[str, ...]
    price_decimals: dict[str, int]
    started: datetime | None
    ended: datetime | None
    _db: QuestDB

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
            return readers.scan(self._db, scope, names, chunk_rows=chunk_rows, progress=progress)
        scope = self._scope(ORDERBOOK, name, start, end)
        names = ("timestamp", "seq", *QUOTE_COLUMNS, *more)
        chunks = readers.scan(self._db, scope, names, chunk_rows=chunk_rows, progress=progress)
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
        pieces = readers.by_year(self._scope(table, name, start, end))
        return sum(int(row[-1]) for piece in pieces for row in self._db.execute(count(piece)))

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
        names = ("timestamp", "seq", *books.level_columns())
        return readers.scan(self._db, scope, names, chunk_rows=chunk_rows, progress=progress)

    def has_trades(self, symbol: str | None = None) -> bool:
        """Return whether there are trades of the symbol; else its ticks are mids of books."""
        return self._has(PRICES, "prices", self.only(symbol))

    def has_books(self, symbol: str | None = None) -> bool:
        """Return whether there are order books (or quotes) of the symbol."""
        return self._has(ORDERBOOK, "orderbook", self.only(symbol))

    def gaps(self, symbol: str | None = None) -> pl.DataFrame:
        """Return the known holes of a symbol: ``from_time``, ``to_time``, merged and in order.

        They are the events "gap" of the ledger that name the symbol or none, but for those that
        were filled: nothing is missing in them any more.
        """
        name, named = self.only(symbol), pl.col("symbol")
        holes = catalogue.events(self._db, self.id).filter(
            pl.col("event") == "gap",
            named.is_null() | named.is_in(["", name]),
            pl.col("count").is_null() | (pl.col("count") != 0),
        )
        return gaps.merged(holes.with_columns(pl.col("from_time").fill_null(pl.col("timestamp"))))

    def _has(self, table: Table, data_type: str, symbol: str) -> bool:
        if data_type not in self.data_types:
            return False
        scope = Scope(table, self.id, symbol, *self._tick_range())
        return any(self._db.execute(sql.count_by_symbol(piece)) for piece in readers.by_year(scope))

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

    def _tick_range(self) -> tuple[int | None, int | None]:
        """Return the range that excludes no row, and keeps a query on this session's partitions."""
        return catalogue.tick_range(
            {"status": self.status, "started": self.started, "ended": self.ended}
        )
