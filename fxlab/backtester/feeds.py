"""Which data a run reads: feeds of ticks and books, holes of the recording."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
import polars as pl

from fxlab.backtester import inputs
from fxlab.backtester.execution import Execution
from fxlab.backtester.pieces import Needs
from fxlab.backtester.records import GAPS
from fxlab.backtester.signals import Signals
from fxlab.backtester.stream import BookFeed, SymbolFeed
from fxlab.backtester.ticks import TickSource
from fxlab.errors import InvalidParameter
from fxlab.schema import book_levels
from fxlab.times import Time, to_micros


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
        frames = inputs.ticks(
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


def holes(source: TickSource, symbols: Iterable[str]) -> pl.DataFrame | None:
    """Return the known holes of the recording: from_time, to_time (UTC µs), symbol.

    None if there are none and the source is no live recording: then nobody watched for them.
    """
    found = [
        source.gaps(symbol).select("from_time", "to_time", pl.lit(symbol).alias("symbol"))
        for symbol in symbols
    ]
    whole = pl.concat(found)
    watched = getattr(source, "source", "") == "live"
    return whole if watched or whole.height else None


def gap_records(found: pl.DataFrame | None, symbols: tuple[str, ...]) -> np.ndarray:
    """Return the ends of holes (`GAPS`), ordered by time."""
    rows = [] if found is None else found.select("to_time", "symbol").rows()
    ends = [(to_micros(ended), symbols.index(symbol)) for ended, symbol in rows]
    return np.array(sorted(ends), GAPS)
