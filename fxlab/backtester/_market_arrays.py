"""Market arrays of a run: the symbols' chunks and books merged by time, as the kernel reads them.

They are the same for all strategies; decisions are laid over them. At equal times the order of the
symbols decides, and a symbol's trades come before its books: a book of the same moment may already
show what the trade did.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from fxlab.backtester._feeds import BookFeed, Needs, SymbolChunk, SymbolFeed, book_records
from fxlab.backtester._kernel.records import BOOK, DECISION, EXTREMES, MarketArrays
from fxlab.backtester.execution import Latency
from fxlab.backtester.strategy._decisions import decide
from fxlab.backtester.strategy.signals import Signals
from fxlab.errors import InvalidParameter

_END: Final = 2**63 - 1
_TAKERS: Final = {"buy": 1, "sell": -1}
# Columns that some runs read, and what a row has that brings no value of its own.
_OPTIONAL: Final = {"book": -1, "volume": 0.0, "taker": 0, "delay": 0}
_NOTHING: Final = {name: np.empty(0, type(value)) for name, value in _OPTIONAL.items()}
_NO_BOOKS: Final = np.zeros(1, BOOK)  # one, so that the kernel may always name the first


def merge(
    legs: int, feeds: Sequence[SymbolFeed], books: Sequence[BookFeed]
) -> Iterator[tuple[MarketArrays, list[SymbolChunk]]]:
    """Yield the market stretch by stretch, and the symbols' chunks that it is made of.

    One chunk of each feed is held, and the next one beside a small one.
    """
    every: list[SymbolFeed | BookFeed] = [*feeds, *books]
    while any(feed.last_time() is not None for feed in every):
        bounds = [bound for feed in every if (bound := feed.bound()) is not None]
        # A strategy that looks back on everything is evaluated once, on everything.
        if any(feed.needs.lookback is None for feed in feeds):
            bounds = []
        limit = min(bounds, default=_END)
        chunks = [chunk for feed in feeds for chunk in feed.take(limit)]
        shown = [(feed.leg, part) for feed in books for part in feed.take(limit)]
        yield merged(legs, chunks, shown, feeds[0].needs), chunks


def decisions_on(
    chunks: Sequence[SymbolChunk], signals: Signals, max_leverage: float = np.inf
) -> np.ndarray:
    """Return a strategy's decisions on the chunks of a stretch (`DECISION`), ordered by row."""
    found = []
    for chunk in chunks:
        decisions = decide(
            signals,
            chunk.symbol,
            chunk.frame,
            first=chunk.first,
            seen=chunk.seen,
            max_leverage=max_leverage,
            shared=chunk.shared,
        )
        if chunk.place is not None:
            decisions["row"] = chunk.place[decisions["row"]]
        found.append(decisions)
    if len(found) == 1:
        return found[0]
    whole = np.concatenate([np.empty(0, DECISION), *found])
    return whole[np.argsort(whole["row"], kind="stable")]


def merged(
    legs: int,
    chunks: Sequence[SymbolChunk],
    shown: Sequence[tuple[int, np.ndarray]],
    needs: Needs,
) -> MarketArrays:
    """Return the market of some chunks and of books beside them: (leg, `BOOK` records) pairs.

    Each chunk learns the `place` of its rows, unless it is the whole market.

    Raises
    ------
    InvalidParameter
        If latency is to be as measured, and it was not, or cannot be right.
    """
    parts = [_columns(chunk, needs) for chunk in chunks]
    if legs == 1 and len(parts) == 1 and not shown:
        return market_arrays(1, **parts[0])
    parts += [_book_columns(leg, books) for leg, books in shown]
    whole = _joined(parts)
    # The sort is stable: at one time, a leg's prices stay before its books.
    order = np.lexsort((whole["leg"], whole["time"]))
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    begin = 0
    for chunk in chunks:
        chunk.place = place[begin : begin + chunk.height]
        begin += chunk.height
    books = whole.pop("books", _NO_BOOKS)
    return market_arrays(
        legs, books=books, **{name: column[order] for name, column in whole.items()}
    )


def _joined(parts: list[dict[str, np.ndarray]]) -> dict[str, np.ndarray]:
    """Return the columns of all parts, one after the other."""
    books = 0
    for part in parts:
        if "books" in part:
            part["book"] += books
            books += len(part["books"])
    whole = {
        name: np.concatenate([part[name] for part in parts]) for name in ("time", "leg", "price")
    }
    for name, nothing in _OPTIONAL.items():
        if any(name in part for part in parts):
            filled = [part.get(name, np.full(len(part["time"]), nothing)) for part in parts]
            whole[name] = np.concatenate(filled)
    shown = [part["books"] for part in parts if "books" in part]
    if books:  # large records: they are copied only where there are several
        whole["books"] = np.concatenate(shown) if len(shown) > 1 else shown[0]
    return whole


def market_arrays(
    legs: int, time: np.ndarray, leg: np.ndarray, price: np.ndarray, **more: np.ndarray
) -> MarketArrays:
    """Return rows as the kernel reads them, the extremes of their blocks found once for all runs.

    Parameters
    ----------
    legs
        How many symbols there are in the run.
    time, leg, price
        A value a row.
    more
        What else rows bring: see `MarketArrays`; nothing unless given.
    """
    columns: dict[str, Any] = {"books": _NO_BOOKS, **_NOTHING, **more}
    from fxlab.backtester._kernel import fast_path  # compiled: only a run needs it

    rows, only_prices = len(time), legs == 1 and not len(columns["book"])
    ranges = np.empty((2, -(-rows // fast_path.PIECE) if only_prices else 0), np.int64)
    extremes = np.empty((0 if only_prices else -(-rows // fast_path.BLOCK), legs), EXTREMES)
    fast_path.find_ranges(price, ranges)
    fast_path.find_extremes(leg, price, columns["book"], columns["books"], extremes)
    return MarketArrays(
        time=time,
        leg=leg,
        price=price,
        extremes=extremes,
        ranges=ranges,
        starts=np.ascontiguousarray(time[:: fast_path.PIECE]),
        **columns,
    )


def part(
    market: MarketArrays, decisions: np.ndarray, first: int, last: int
) -> tuple[MarketArrays, np.ndarray]:
    """Return some rows with their decisions; no row is copied, and books keep their numbers."""
    names = ("time", "leg", "price", *_OPTIONAL)
    columns = {name: getattr(market, name)[first:last] for name in names}
    low, high = np.searchsorted(decisions["row"], [first, last])
    chosen = decisions[low:high].copy()
    chosen["row"] -= first
    return market_arrays(market.extremes.shape[1], books=market.books, **columns), chosen


def _columns(chunk: SymbolChunk, needs: Needs) -> dict[str, np.ndarray]:
    """Return the columns of a chunk's rows, with the optional ones that the run needs."""
    own = chunk.own
    columns = {
        "time": own["timestamp"].to_physical().to_numpy(),
        "leg": np.full(own.height, chunk.leg, np.int16),
        "price": own["price"].to_numpy(),
    }
    if needs.books and chunk.quotes:
        columns["books"] = book_records(own)
        columns["book"] = np.arange(own.height, dtype=np.int64)
    if needs.queue and not chunk.quotes and "volume" in own.columns:
        columns["volume"] = own["volume"].cast(pl.Float64).fill_null(0.0).to_numpy()
        columns["taker"] = _takers(own)
    if needs.latency is not None:
        columns["delay"] = _delays(chunk, needs.latency)
    return columns


def _book_columns(leg: int, books: np.ndarray) -> dict[str, np.ndarray]:
    """Return the columns of rows that bring a book each, and no price."""
    return {
        "time": books["time"],
        "leg": np.full(len(books), leg, np.int16),
        "price": np.full(len(books), np.nan),
        "book": np.arange(len(books), dtype=np.int64),
        "books": books,
    }


def _takers(own: pl.DataFrame) -> np.ndarray:
    """Return 1 where the taker bought, -1 where it sold, 0 where the side is unknown."""
    if "side" not in own.columns:
        return np.zeros(own.height, np.int64)
    side = own["side"].cast(pl.String)
    signs = side.replace_strict(_TAKERS, default=0, return_dtype=pl.Int64)
    return signs.fill_null(0).to_numpy()


def _delays(chunk: SymbolChunk, latency: Latency) -> np.ndarray:
    """Return received_at - timestamp + clock offset of each row, µs."""
    own = chunk.own
    if "received_at" not in own.columns or own["received_at"].null_count():
        raise InvalidParameter(
            f"{chunk.symbol} has ticks without received_at, so their latency was not measured; "
            "give a fixed latency, such as Execution(latency='50ms')"
        )
    received = own["received_at"].to_physical().to_numpy()
    delays: np.ndarray = received - own["timestamp"].to_physical().to_numpy()
    delays = delays + int(latency.values[0])
    if delays.min(initial=0) < 0:
        early = int((delays < 0).sum())
        raise InvalidParameter(
            f"{chunk.symbol}: {early:,} of {len(delays):,} ticks were received before they "
            f"happened (by {-delays.min() / 1e6:.3f} s at most): the recorder's clock was behind "
            "the venue's; add Latency.measured(clock_offset=...) or give a fixed latency"
        )
    return delays
