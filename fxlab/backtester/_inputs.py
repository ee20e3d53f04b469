"""Inputs of a strategy (ticks, as-of joined books, other symbols' prices), and the feeds of a run.

A strategy names columns; here they are found and joined, for the chunk at hand only. What comes
from another stream is as of *strictly before* the tick: two streams with the same timestamp have no
known order, and a backtest must not guess the one that suits it. A run's feeds are its ticks, its
books and the gaps of the recording.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from fxlab import _ticks
from fxlab._ticks import PRICE_TICKS, advice
from fxlab._times import Time, to_micros
from fxlab.backtester._chunks import Needs
from fxlab.backtester._kernel.columns import to_ticks
from fxlab.backtester._kernel.records import GAPS
from fxlab.backtester._source import TickSource
from fxlab.backtester._stream import BookFeed, SymbolFeed
from fxlab.backtester.execution import Execution
from fxlab.backtester.strategy.indicators import PRICE_OF
from fxlab.backtester.strategy.signals import Signals
from fxlab.errors import InvalidParameter, InvalidTicks, SymbolNotFound
from fxlab.schema import UTC_MICROS, book_levels

BOOK_COLUMNS: Final = (*book_levels(), "spread", "mid")


def joined_ticks(
    source: TickSource,
    symbol: str,
    columns: frozenset[str] | None,
    *,
    start: Time | None = None,
    end: Time | None = None,
    chunk_rows: int | None = None,
    decimals: int | None = None,
    also: Collection[str] = (),
    owner: str = "the strategy",
) -> Iterator[pl.DataFrame]:
    """Yield a symbol's ticks with all that a strategy reads, in bounded memory.

    Parameters
    ----------
    source, symbol, start, end, chunk_rows
        Which ticks, and how many at a time; None is the source's own choice.
    columns
        What is read of them (`Signals.roots`); None, for a frame strategy, is all there is.
    owner
        Strategy and parameters, for error messages.
    decimals
        Of the symbol's prices; without them there is no ``price_ticks``.
    also
        Further columns, whether the strategy reads them or not: book columns, ``received_at``.

    Yields
    ------
    polars.DataFrame
        The source's columns, ``price_ticks`` (Int64) and, where asked for, book columns
        (``bid_price_1`` .. ``ask_qty_10``, ``spread``, ``mid``) and ``price:OTHER``, the last
        price of another symbol; null before there is any. Beside trades, books are those
        strictly before the tick; where the ticks are quotes, each row has its own book. A book
        that crosses or is out of order is null, as if there were none. No chunk size changes a
        value.

    Raises
    ------
    InvalidParameter
        If book columns are asked for and there are no books.
    SymbolNotFound
        If the price of a symbol is asked for that the source does not have.
    """
    wanted = _wanted(source, symbol, columns) | set(also)
    others = sorted(name for name in wanted if name.startswith(PRICE_OF))
    for name in others:
        if name.removeprefix(PRICE_OF) not in source.symbols:
            raise SymbolNotFound.named(name.removeprefix(PRICE_OF), source.symbols)
    options: dict[str, Any] = {"start": start, "end": end}
    if chunk_rows is not None:
        options["chunk_rows"] = chunk_rows
    book = [name for name in BOOK_COLUMNS if name in wanted]
    joins = [_price_of(source, name, options) for name in others]
    chunks = source.scan_ticks(symbol, received="received_at" in wanted, **options)
    return _joined(source, symbol, chunks, joins, book, decimals, options, owner)


def _wanted(source: TickSource, symbol: str, columns: frozenset[str] | None) -> set[str]:
    if columns is not None:
        return set(columns)
    books = BOOK_COLUMNS if source.has_books(symbol) else ()
    return {*books, *(f"{PRICE_OF}{other}" for other in source.symbols if other != symbol)}


def _joined(  # noqa: PLR0917 - the second half of `ticks`
    source: TickSource,
    symbol: str,
    chunks: Iterator[pl.DataFrame],
    joins: list[AsOfJoin | ExactJoin],
    book: list[str],
    decimals: int | None,
    options: dict[str, Any],
    owner: str,
) -> Iterator[pl.DataFrame]:
    first = True
    for chunk in chunks:
        if not chunk.height:  # a stretch of quotes without a mid
            continue
        missing = [name for name in book if name not in chunk.columns]
        if first and missing:
            joins = [*joins, *_books(source, symbol, chunk, missing, options, owner)]
        first = False
        whole = chunk
        for join in joins:
            whole = join.add(whole)
        whole = _with_mid(source, symbol, _ticks.trusted(whole), missing, decimals)
        yield with_price_ticks(whole, decimals)


def _books(  # noqa: PLR0917 - the pieces of one join
    source: TickSource,
    symbol: str,
    chunk: pl.DataFrame,
    missing: list[str],
    options: dict[str, Any],
    owner: str,
) -> list[AsOfJoin | ExactJoin]:
    """Return the join that brings the missing book columns; none if all of them are derived."""
    if not source.has_books(symbol):
        raise InvalidParameter(
            f"{owner} asks for {missing[0]!r}, and session {source.id!r} has no order books of "
            f"{symbol}; choose a session with books (orderbook_count in lab.sessions()) or another "
            "strategy"
        )
    best = set(_ticks.BEST) if {"spread", "mid"} & set(missing) else set()
    levels = [name for name in book_levels() if name in {*missing, *best}]
    levels = [name for name in levels if name not in chunk.columns]
    if not levels:
        return []
    stream = source.scan_books(symbol, **options)
    if source.has_trades(symbol):
        stream = map(_ticks.trusted, stream)  # by all levels, whichever are read
        return [AsOfJoin(stream, dict.fromkeys(levels, pl.Float64()))]
    return [ExactJoin(stream, levels)]


def _with_mid(
    source: TickSource,
    symbol: str,
    frame: pl.DataFrame,
    missing: list[str],
    decimals: int | None,
) -> pl.DataFrame:
    """Add `spread` and `mid` where they are wanted and missing."""
    if not {"spread", "mid"} & set(missing):
        return frame
    # The prices of a symbol without trades are its mids already.
    finer = decimals + 1 if decimals is not None and source.has_trades(symbol) else decimals
    columns = {"spread": _ticks.spread(decimals), "mid": _ticks.mid(finer)}
    return frame.with_columns(**{name: columns[name] for name in columns if name in missing})


def _price_of(source: TickSource, name: str, options: dict[str, Any]) -> AsOfJoin | ExactJoin:
    stream = source.scan_ticks(name.removeprefix(PRICE_OF), **options)
    renamed = (chunk.select("timestamp", pl.col("price").alias(name)) for chunk in stream)
    return AsOfJoin(renamed, {name: pl.Float64()})


class AsOfJoin:
    """Another stream's last row strictly before each tick; holds one chunk of it at a time."""

    def __init__(self, stream: Iterator[pl.DataFrame], columns: dict[str, pl.DataType]) -> None:
        self._stream = stream
        self._names = ["timestamp", *columns]
        self._held = pl.DataFrame(schema={"timestamp": UTC_MICROS, **columns})
        self._ended = False

    def add(self, ticks: pl.DataFrame) -> pl.DataFrame:
        """Return the ticks with the stream's columns; ticks come in order, chunk after chunk."""
        parts = []
        rest = ticks
        while rest.height:
            # Ticks up to the last row held: nothing that comes later lies before them.
            ready = rest.height
            if not self._ended:
                ready = _up_to(rest, self._held["timestamp"].last()) if self._held.height else 0
            if ready:
                parts.append(self._join(rest.head(ready)))
                rest = rest.slice(ready)
            if rest.height:
                self._pull()
        return pl.concat(parts, rechunk=True) if parts else ticks

    def _join(self, ticks: pl.DataFrame) -> pl.DataFrame:
        joined = ticks.join_asof(
            self._held, on="timestamp", allow_exact_matches=False, check_sortedness=False
        )
        before = self._held["timestamp"].search_sorted(ticks["timestamp"][-1], side="left")
        self._held = self._held.slice(max(0, before - 1))
        return joined

    def _pull(self) -> None:
        chunk = next(self._stream, None)
        if chunk is None:
            self._ended = True
        else:
            self._held = pl.concat([self._held, chunk.select(self._names)], rechunk=True)


def _up_to(ticks: pl.DataFrame, time: Any) -> int:  # noqa: ANN401 - a datetime, says Polars
    found: int = ticks["timestamp"].search_sorted(time, side="right")
    return found


class ExactJoin:
    """The rows of another stream that are the ticks' own: the same timestamp and seq."""

    def __init__(self, stream: Iterator[pl.DataFrame], columns: list[str]) -> None:
        self._stream = stream
        self._names = ["timestamp", "seq", *columns]
        self._held: pl.DataFrame | None = None

    def add(self, ticks: pl.DataFrame) -> pl.DataFrame:
        """Return the ticks with the stream's columns; ticks come in order, chunk after chunk."""
        last = ticks["timestamp"][-1]
        held = [] if self._held is None else [self._held]
        while not held or not held[-1].height or held[-1]["timestamp"].last() <= last:
            chunk = next(self._stream, None)
            if chunk is None:
                break
            held.append(chunk.select(self._names))
        rows = pl.concat(held)
        self._held = rows.filter(pl.col("timestamp") >= last)
        return ticks.join(rows, on=["timestamp", "seq"], how="left", maintain_order="left")


def needs_of(signals: Sequence[Signals], execution: Execution) -> Needs:
    """Return what a run with these signals reads: of several, what any of them reads."""
    lookbacks = [each.lookback for each in signals]
    roots = [each.roots for each in signals]
    known = [lookback for lookback in lookbacks if lookback is not None]
    read = [names for names in roots if names is not None]
    return Needs(
        lookback=max(known, default=0) if len(known) == len(lookbacks) else None,
        columns=frozenset().union(*read) if len(read) == len(roots) else None,
        books=execution.fill == "book",
        queue=execution.queue,
        latency=execution.delays if execution.delays.is_measured else None,
    )


def open_feeds(
    source: TickSource,
    symbols: tuple[str, ...],
    needs: Needs,
    *,
    start: Time | None = None,
    end: Time | None = None,
    size: int | None = None,
    owner: str = "the strategy",
) -> tuple[list[SymbolFeed], list[BookFeed]]:
    """Return a feed of ticks for each symbol, and of books where orders meet them.

    Raises
    ------
    InvalidParameter
        If books are needed and a symbol has none.
    """
    rows = {} if size is None else {"chunk_rows": size}
    decimals = source.price_decimals
    feeds, books = [], []
    for leg, symbol in enumerate(symbols):
        quotes = not source.has_trades(symbol)  # asked once: a session has to count
        if needs.books and not source.has_books(symbol):
            raise InvalidParameter(
                f"fill='book' needs order books, and session {source.id!r} has none of {symbol}; "
                "use fill='next_trade'"
            )
        also = ["received_at"] if needs.latency is not None else []
        if needs.books and quotes:
            also += book_levels()
        frames = joined_ticks(
            source,
            symbol,
            needs.columns,
            start=start,
            end=end,
            decimals=decimals.get(symbol),
            chunk_rows=size,
            also=also,
            owner=owner,
        )
        feed = SymbolFeed(symbol, leg, frames, needs, quotes=quotes)
        feeds.append(feed)
        if needs.books and not quotes:
            scanned = source.scan_books(symbol, start=start, end=end, **rows)
            books.append(BookFeed(leg, iter(scanned), feed.digest))
    return feeds, books


def gap_bounds(source: TickSource, symbols: Iterable[str]) -> pl.DataFrame | None:
    """Return the known gaps of the recording: from_time, to_time (UTC µs), symbol.

    None if there are none and the source is no live recording: then gaps were not recorded.
    """
    found = [
        source.gaps(symbol).select("from_time", "to_time", pl.lit(symbol).alias("symbol"))
        for symbol in symbols
    ]
    whole = pl.concat(found)
    watched = getattr(source, "source", "") == "live"
    return whole if watched or whole.height else None


def gap_records(found: pl.DataFrame | None, symbols: tuple[str, ...]) -> np.ndarray:
    """Return the ends of gaps (`GAPS`), ordered by time."""
    rows = [] if found is None else found.select("to_time", "symbol").rows()
    ends = [(to_micros(ended), symbols.index(symbol)) for ended, symbol in rows]
    return np.array(sorted(ends), GAPS)


def with_price_ticks(frame: pl.DataFrame, decimals: int | None) -> pl.DataFrame:
    """Add `price_ticks` (Int64): the price in units of its last decimal. Not without decimals."""
    if decimals is None or PRICE_TICKS in frame.columns:
        return frame
    ticks = np.empty(frame.height, np.int64)
    if not to_ticks(frame["price"].to_numpy(), 10.0**decimals, ticks):
        raise InvalidTicks(
            f"prices of up to {frame['price'].max()!r} with {decimals} decimals are more units of "
            f"the last one than floats can tell apart (2^53); {advice(frame['price'])}"
        )
    return frame.with_columns(pl.Series(PRICE_TICKS, ticks))
