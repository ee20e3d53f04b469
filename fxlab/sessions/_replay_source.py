"""Replay source of a session: its ticks and books in chunks, as a backtest reads them.

With the columns that the engine needs and no others, in bounded memory, in (timestamp, seq) order.
What a recording has beside them (funding, mark prices, open interest, liquidations) is read
here, too.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache, partial
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from fxlab import _ticks
from fxlab._progress import Advance, Progress, shown, silent
from fxlab._questdb import sql
from fxlab._questdb.client import QuestDB
from fxlab._questdb.sql import Scope
from fxlab._ticks import with_mid_price
from fxlab._times import Time, parse_range, to_micros
from fxlab.errors import InvalidParameter, SymbolNotFound, some
from fxlab.schema import CHANNELS, ORDERBOOK, PRICES, UTC_MICROS, Table, value_columns
from fxlab.sessions import _catalog, _reader

if TYPE_CHECKING:
    from fxlab._questdb.cache import CachedColumns

TICK_COLUMNS: Final = ("timestamp", "seq", "price", "volume", "quote_volume", "side")
QUOTE_COLUMNS: Final = ("bid_price_1", "bid_qty_1", "ask_price_1", "ask_qty_1")


_FEW_ROWS: Final = 5_000
"""A request for fewer takes longer than its rows."""
_TOGETHER: Final = 200
"""Symbols of one request: their names travel in its address."""


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
        table = PRICES if self.has_trades(name) else ORDERBOOK
        scope = self._scope(table, name, start, end)
        chunks = self._scan(scope, _columns(table, received=received), chunk_rows, progress)
        return self._ticks(name, chunks)

    def scan_many(
        self,
        symbols: Sequence[str],
        *,
        start: Time | None = None,
        end: Time | None = None,
        chunk_rows: int = 1_000_000,
        received: bool = False,
    ) -> dict[str, Iterator[pl.DataFrame]]:
        """Return `scan_ticks` of each symbol; the rows of small ones are asked for together."""
        found: dict[str, Iterator[pl.DataFrame]] = {}
        for table in (PRICES, ORDERBOOK):
            own = [each for each in symbols if self.has_trades(each) == (table is PRICES)]
            names = _columns(table, received=received)
            for group in self._groups(table, own):
                scope = replace(self._scope(table, group[0], start, end), symbol=None)
                apart = cache(partial(self._read_apart, replace(scope, symbols=group), names))
                for name in group:
                    found[name] = self._ticks(name, _taken(apart, name, chunk_rows))
        for name in symbols:
            if name not in found:
                found[name] = self.scan_ticks(
                    name, start=start, end=end, chunk_rows=chunk_rows, received=received
                )
        return found

    def _groups(self, table: Table, symbols: Sequence[str]) -> list[tuple[str, ...]]:
        """Return those of several symbols with so few rows that a request takes longer."""
        if len(symbols) < 2:
            return []
        scope = Scope(table, self.id, None, *self._tick_range())
        rows: Counter[str] = Counter()
        for piece in scope.by_year():  # a count that is short for a moment makes a group larger
            rows.update(dict(self._db.execute(sql.count_by_symbol(piece))))
        small = [name for name in symbols if rows[name] < _FEW_ROWS]
        return [tuple(small[at : at + _TOGETHER]) for at in range(0, len(small), _TOGETHER)]

    def _read_apart(self, scope: Scope, names: Sequence[str]) -> dict[Any, pl.DataFrame]:
        rows = _reader.read(self._db, scope, (*names, "symbol"))
        return rows.partition_by("symbol", as_dict=True, include_key=False)

    def _ticks(self, symbol: str, chunks: Iterator[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        """Return rows as ticks: those of trades as they are, books as their mids."""
        if self.has_trades(symbol):
            return chunks
        ticks = (with_mid_price(chunk, self.price_decimals.get(symbol)) for chunk in chunks)
        front = ("timestamp", "seq", "price")
        return (chunk.select(*front, pl.exclude(front)) for chunk in ticks)

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
        name = self.only(symbol)
        return _ticks.known_gaps(_catalog.events(self._db, self.id), [name], data_type)[name]

    def gaps_by_symbol(self, symbols: Iterable[str]) -> dict[str, pl.DataFrame]:
        """Return the `gaps` of each symbol; the server is asked once for all of them."""
        return _ticks.known_gaps(_catalog.events(self._db, self.id), symbols)

    def _has(self, table: Table, data_type: str, symbol: str) -> bool:
        """Return whether a symbol has rows of a kind; asked once for all symbols of a session."""
        if data_type not in self.data_types:
            return False
        known = self._stored.get(data_type)
        # What is still recorded may yet get its first row; what has one keeps it.
        if known is None or (symbol not in known and self.status == "collecting"):
            known = self._stored[data_type] = self._db.steady(lambda: self._symbols_with(table))
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
        known = self._stored.setdefault("symbols", set())  # a tuple would be searched each time
        if not known:
            known.update(self.symbols)
        if symbol not in known:
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


def _columns(table: Table, *, received: bool) -> tuple[str, ...]:
    """Return what is read of a table to make ticks."""
    names = TICK_COLUMNS if table is PRICES else ("timestamp", "seq", *QUOTE_COLUMNS)
    return (*names, "received_at") if received else names


def _taken(
    apart: Callable[[], dict[Any, pl.DataFrame]], symbol: str, chunk_rows: int
) -> Iterator[pl.DataFrame]:
    """Yield a symbol's rows of those read together, which forget them."""
    frame = apart().pop((symbol,), None)
    if frame is not None:
        yield from frame.iter_slices(chunk_rows)


SAME_FUNDING: Final = timedelta(minutes=1)
"""A venue says a funding's time some milliseconds late."""
_FUNDING: Final[dict[str, pl.DataType]] = {
    "timestamp": UTC_MICROS,
    "symbol": pl.String(),
    "rate": pl.Float64(),
    "mark_price": pl.Float64(),
    "paid": pl.Boolean(),
    "announced_at": UTC_MICROS,
}


def merge_funding(
    symbol: str, marks: Iterable[pl.DataFrame], charged: Iterable[pl.DataFrame], end: int
) -> pl.DataFrame:
    """Return what `RecordedChannels.funding` does.

    Parameters
    ----------
    marks, charged
        Rows of the channels "mark" and "funding".
    end
        Microseconds before which a funding is within the recording.
    """
    nothing = pl.DataFrame(schema=_FUNDING)
    found = {"symbol": pl.lit(symbol), "paid": pl.lit(value=False)}
    announced = nothing
    for chunk in marks:
        before = chunk.filter(pl.col("timestamp") < pl.col("next_funding"))
        rates = before.drop_nulls("funding_rate").select(
            "mark_price",
            timestamp="next_funding",
            rate="funding_rate",
            announced_at="timestamp",
            **found,
        )
        announced = pl.concat([announced, rates.select(*_FUNDING)]).unique(
            "timestamp", keep="last", maintain_order=True
        )
    found = {"paid": pl.lit(value=True), "announced_at": pl.lit(None, UTC_MICROS)}
    paid = pl.concat(
        [nothing, *(each.with_columns(**found).select(*_FUNDING) for each in charged)]
    ).sort("timestamp")
    due = announced.filter(pl.col("timestamp").dt.epoch("us") < end).sort("timestamp")
    known = due.join_asof(
        paid.select("timestamp", said="paid"),
        on="timestamp",
        strategy="nearest",
        tolerance=SAME_FUNDING,
    )
    rest = known.filter(pl.col("said").is_null()).drop("said")
    return pl.concat([paid, rest]).sort("timestamp")


class RecordedChannels(ReplaySource):
    """The part of a `Session` that reads what was recorded beside trades and books."""

    __slots__ = ()

    def funding(self, symbol: str | None = None) -> pl.DataFrame:
        """Return the funding of a perpetual at each of its times within the recording.

        Returns
        -------
        polars.DataFrame
            One row a funding: ``timestamp``, ``symbol``, ``rate`` (a fraction of notional, paid by
            longs to shorts), ``mark_price`` it was charged on, ``paid``: True for what the
            venue says was charged, False for the rate that was in force when the time came, as far
            as the recording knows; then ``announced_at`` is when the venue said so.

        Examples
        --------
        >>> session.funding("BTC_USDT").columns[:3]
        ['timestamp', 'symbol', 'rate']
        """
        name = self.only(symbol)
        charged = list(self._channel("funding", name))
        end = self._tick_range()[1] or 0
        return merge_funding(name, self._channel("mark", name), charged, end)

    def mark_prices(
        self, symbol: str | None = None, *, start: Time | None = None, end: Time | None = None
    ) -> pl.DataFrame:
        """Return mark and index prices, as often as the venue said them.

        Returns
        -------
        polars.DataFrame
            ``timestamp``, ``symbol``, ``seq``, ``mark_price``, ``index_price``, ``settle_price``
            (as estimated), ``funding_rate`` (of the next funding, as it was then),
            ``next_funding`` (its time), ``received_at``; null where the venue did not say.

        Examples
        --------
        >>> session.mark_prices("BTC_USDT").height
        0
        """
        return self._rows_of("mark", symbol, start, end)

    def open_interest(
        self, symbol: str | None = None, *, start: Time | None = None, end: Time | None = None
    ) -> pl.DataFrame:
        """Return the open interest, as often as the venue was asked and said another one.

        Returns
        -------
        polars.DataFrame
            ``timestamp`` (the venue's), ``symbol``, ``seq``, ``open_interest`` (base units),
            ``received_at``.

        Examples
        --------
        >>> session.open_interest("BTC_USDT").columns[3]
        'open_interest'
        """
        return self._rows_of("open_interest", symbol, start, end)

    def liquidations(
        self, symbol: str | None = None, *, start: Time | None = None, end: Time | None = None
    ) -> pl.DataFrame:
        """Return liquidations, as far as the venue tells them: Binance the last one of a second.

        Returns
        -------
        polars.DataFrame
            ``timestamp``, ``symbol``, ``seq``, ``side`` of the order ("sell" closes a long
            position), its ``price``, ``average_price`` of what was filled, ``volume`` of the order
            and ``filled`` of it in base units, ``received_at``.

        Examples
        --------
        >>> session.liquidations("BTC_USDT").height
        0
        """
        return self._rows_of("liquidations", symbol, start, end)

    def _rows_of(
        self, channel: str, symbol: str | None, start: Time | None, end: Time | None
    ) -> pl.DataFrame:
        scope = self._scope(CHANNELS[channel], symbol, start, end)
        names = _channel_columns(channel)
        if channel not in self.data_types:
            return _reader.empty(scope, names)
        return self._read(scope, names, None, 0, None)

    def _channel(self, channel: str, symbol: str) -> Iterator[pl.DataFrame]:
        if channel not in self.data_types:
            return iter(())
        scope = self._scope(CHANNELS[channel], symbol, None, None)
        return self._scan(scope, _channel_columns(channel), 250_000, silent)


def _channel_columns(channel: str) -> tuple[str, ...]:
    """Return what is read of a channel's table, time, symbol and number first."""
    return ("timestamp", "symbol", "seq", *value_columns(CHANNELS[channel]), "received_at")
