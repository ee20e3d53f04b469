"""Feeds of a run: each symbol's ticks and books, checked and hashed, in chunks up to a time.

A symbol's chunk has as many rows in front as its strategy looks back on, so that chunking cannot be
seen in what is decided. The hash of the rows is part of a run's fingerprint. Columns are hashed one
by one, so that the chunks they came in cannot change it. Time, seq and price are always in it, and
every other column that the strategy reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final, Unpack

import numpy as np
import polars as pl
import xxhash

from fxlab._ticks import PRICE_TICKS, usable
from fxlab._times import from_micros
from fxlab.backtester._kernel.columns import LARGEST_PRICE, SMALLEST_PRICE, first_bad_row
from fxlab.backtester._kernel.records import BOOK, DEPTH
from fxlab.backtester._source import TickSource, Which, joined_ticks, scan_many
from fxlab.backtester.execution import Execution, Latency
from fxlab.backtester.strategy.signals import Shared, Signals
from fxlab.errors import InvalidParameter, InvalidTicks
from fxlab.schema import book_levels

_WORTH_A_THREAD: Final = 100_000  # rows; to check and hash them takes longer than to start one


@dataclass(frozen=True)
class Needs:
    """What a run reads beside time and price."""

    lookback: int | None
    columns: frozenset[str] | None  # that strategies read; None is all there are
    books: bool = False  # with fill="book"
    queue: bool = False  # volume and side, for places in a queue
    latency: Latency | None = None  # where it is measured row by row

    @property
    def hashed(self) -> frozenset[str] | None:
        """Return the columns that can change a result; None is all there are."""
        if self.columns is None:
            return None
        received = {"received_at"} if self.latency is not None else set()
        queue = {"volume", "side"} if self.queue else set()
        books = set(book_levels()) if self.books else set()
        return self.columns | received | queue | books


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


@dataclass
class SymbolChunk:
    """Some rows of one symbol, with the rows that a strategy looks back on in front of them."""

    symbol: str
    leg: int
    frame: pl.DataFrame
    first: int  # rows in front
    seen: int  # rows of the symbol before these
    quotes: bool = False  # each row is the mid of a book that stands in the same row
    place: np.ndarray | None = None  # their rows in the chunk; None: they are the chunk
    shared: Shared = field(default_factory=dict)  # what events of several strategies have in common

    @property
    def own(self) -> pl.DataFrame:
        """Return the rows themselves."""
        return self.frame.slice(self.first)

    @property
    def height(self) -> int:
        """Return how many rows they are."""
        return self.frame.height - self.first


@dataclass
class OrderCheck:
    """Checks chunk by chunk that rows are ticks in order; remembers the last row."""

    symbol: str
    time: int = -(2**63)
    seq: int = -(2**63)
    rows: int = 0

    def check(self, time: np.ndarray, seq: np.ndarray, price: np.ndarray) -> None:
        """Raise `InvalidTicks` at the first row that is out of order or not a price."""
        bad = first_bad_row(time, seq, price, self.time, self.seq)
        if bad >= 0:
            raise InvalidTicks(self._describe(bad, time, seq, price))
        self.time, self.seq = int(time[-1]), int(seq[-1])
        self.rows += len(time)

    def _describe(self, bad: int, time: np.ndarray, seq: np.ndarray, price: np.ndarray) -> str:
        row = self.rows + bad
        if not (np.isfinite(price[bad]) and price[bad] > 0):
            return (
                f"{self.symbol}: price {price[bad]} in row {row} is not a price; prices are finite "
                "and above zero: filter or mend the row first"
            )
        if not SMALLEST_PRICE <= price[bad] <= LARGEST_PRICE:
            return (
                f"{self.symbol}: price {price[bad]:g} in row {row} is not from {SMALLEST_PRICE:g} "
                f"to {LARGEST_PRICE:g}, so money would leave the range of floats; give prices in "
                "another unit, such as of a million coins"
            )
        return (
            f"{self.symbol}: row {row} at {from_micros(int(time[bad]))} (seq {seq[bad]}) does not "
            "come after the row before it; sort the frame by timestamp, seq (seq may not repeat)"
        )


ALWAYS = ("timestamp", "seq", "price")


class RowHasher:
    """Hashes the rows read by one symbol's strategy."""

    def __init__(self) -> None:
        self.rows = 0
        self._columns: dict[str, xxhash.xxh3_128] = {}
        self._fed: dict[str, int] = {}

    def update(self, rows: pl.DataFrame, names: frozenset[str] | None) -> None:
        """Feed some rows: time, seq, price, and the columns named (None is all)."""
        self.rows += rows.height
        for name in rows.columns:
            if name == PRICE_TICKS:  # the price again
                continue
            if name in ALWAYS or names is None or name in names:
                self._feed(name, rows[name])

    def update_books(self, books: pl.DataFrame) -> None:
        """Feed the books that orders meet."""
        for name in books.columns:
            if name != "symbol":
                self._feed(f"books.{name}", books[name])

    def hexdigest(self) -> str:
        """Return the digest of all columns and the number of rows."""
        parts = (f"{name}={hasher.hexdigest()}" for name, hasher in sorted(self._columns.items()))
        return f"{self.rows}:" + ":".join(parts)

    def _feed(self, name: str, values: pl.Series) -> None:
        first = self._fed.get(name, 0)
        self._fed[name] = first + len(values)
        if values.null_count():  # by their place in the whole, which no chunk can change
            missing = values.is_null().arg_true().to_numpy().astype(np.int64) + first
            self._hasher(f"{name}?").update(np.ascontiguousarray(missing).data)
        if values.dtype == pl.Boolean:
            values = values.cast(pl.UInt8)
        if values.dtype.is_numeric() or values.dtype.is_temporal():
            plain = values.to_physical()
            plain = plain.fill_null(0) if plain.null_count() else plain
            self._hasher(name).update(np.ascontiguousarray(plain.to_numpy()).data)
            return
        # Categories are numbered in order of appearance: their words are what was read.
        words = values.cast(pl.String).fill_null("")
        sizes = words.str.len_bytes().to_numpy().astype(np.int64)
        self._hasher(f"{name}#").update(np.ascontiguousarray(sizes).data)
        self._hasher(name).update("".join(words.to_list()).encode())

    def _hasher(self, name: str) -> xxhash.xxh3_128:
        return self._columns.setdefault(name, xxhash.xxh3_128())


class _Ahead:
    """Frames one after the other, of which the next can be known before it is taken."""

    def __init__(self, frames: Iterator[pl.DataFrame]) -> None:
        self._frames = frames
        self._next: pl.DataFrame | None = None

    def take(self) -> pl.DataFrame | None:
        """Return the next frame, or None if there are no more."""
        found, self._next = self._next, None
        return next(self._frames, None) if found is None else found

    def bound(self, last: int | None, rows: int) -> int | None:
        """Return the time after which there may be more than the rows at hand, or None.

        A small chunk is most often the last one, so the next is read to know: of thousands of
        small symbols, each would end a stretch of its own.
        """
        if last is None or rows >= _WORTH_A_THREAD:
            return last
        self._next = self.take()
        return None if self._next is None else last


@dataclass
class SymbolFeed:
    """One symbol's ticks, checked, hashed, and given out up to a time."""

    symbol: str
    leg: int
    frames: Iterator[pl.DataFrame]
    needs: Needs
    quotes: bool = False
    digest: RowHasher = field(default_factory=RowHasher)
    _held: pl.DataFrame | None = None  # rows to give, with those given before in front
    _first: int = 0
    _seen: int = 0
    _examined: Future[None] | None = None

    def __post_init__(self) -> None:
        self._check = OrderCheck(self.symbol)
        self._ahead = _Ahead(self._whole_or_chunks(self.frames))

    def last_time(self) -> int | None:
        """Return the time of the last row at hand, or None if there are no more."""
        if self._held is None or self._first >= self._held.height:
            self._load()
        if self._held is None or self._first >= self._held.height:
            return None
        return int(self._held["timestamp"].to_physical()[-1])

    def bound(self) -> int | None:
        """Return the time after which there may be more rows than those at hand, or None."""
        last = self.last_time()
        return self._ahead.bound(last, 0 if self._held is None else self._held.height)

    def take(self, limit: int) -> Iterator[SymbolChunk]:
        """Yield all rows up to a time, those of later chunks with the same time too."""
        while (last := self.last_time()) is not None:
            held = self._held
            if held is None:
                return
            end = held.height
            if last > limit:
                times = held["timestamp"].to_physical().to_numpy()
                end = int(np.searchsorted(times, limit, side="right"))
            if end > self._first:
                lookback = self.needs.lookback
                begin = 0 if lookback is None else max(0, self._first - lookback)
                frame, front = held.slice(begin, end - begin), self._first - begin
                yield SymbolChunk(self.symbol, self.leg, frame, front, self._seen, self.quotes)
                self._seen += end - self._first
                self._first = end
            if last > limit:
                return

    def _load(self) -> None:
        fresh = self._ahead.take()
        if fresh is None:
            return
        self.settle()
        if fresh.height < _WORTH_A_THREAD:
            self._examine(fresh)
        else:  # while the strategy and the kernel are at work
            self._examined = _in_background(self._examine, fresh)
        if self._held is None:
            self._held, self._first = fresh, 0
            return
        tail = self._held.tail(self.needs.lookback or 0)
        self._held = pl.concat([tail, fresh]) if tail.height else fresh
        self._first = tail.height

    def hexdigest(self) -> str:
        """Return the digest of all rows given out; raises what `settle` raises."""
        self.settle()
        return self.digest.hexdigest()

    def settle(self) -> None:
        """Wait until the rows given out are checked and hashed.

        Raises
        ------
        InvalidTicks
            If they are not ticks in order: whatever was made of them is void.
        """
        if self._examined is not None:
            waiting, self._examined = self._examined, None
            waiting.result()

    def _examine(self, rows: pl.DataFrame) -> None:
        time = rows["timestamp"].to_physical().to_numpy()
        self._check.check(time, rows["seq"].to_numpy(), rows["price"].to_numpy())
        self.digest.update(rows, self.needs.hashed)

    def _whole_or_chunks(self, chunks: Iterable[pl.DataFrame]) -> Iterator[pl.DataFrame]:
        filled = (chunk for chunk in chunks if chunk.height)
        if self.needs.lookback is not None:
            yield from filled
            return
        frames = list(filled)
        if frames:
            yield pl.concat(frames)


@dataclass
class BookFeed:
    """One symbol's books beside its trades, given out up to a time as `BOOK` records."""

    leg: int
    frames: Iterator[pl.DataFrame]
    digest: RowHasher
    _held: np.ndarray = field(default_factory=lambda: book_records(None))

    def __post_init__(self) -> None:
        self._ahead = _Ahead(self.frames)

    def bound(self) -> int | None:
        """Return the time after which there may be more books than those at hand, or None."""
        last = self.last_time()
        return self._ahead.bound(last, len(self._held))

    def last_time(self) -> int | None:
        """Return the time of the last book at hand, or None if there are no more."""
        while not len(self._held):
            frame = self._ahead.take()
            if frame is None:
                return None
            self.digest.update_books(frame)
            self._held = book_records(frame)
        return int(self._held["time"][-1])

    def take(self, limit: int) -> Iterator[np.ndarray]:
        """Yield all books up to a time."""
        while (last := self.last_time()) is not None:
            cut = len(self._held)
            if last > limit:
                cut = int(np.searchsorted(self._held["time"], limit, side="right"))
            if cut:
                part, self._held = self._held[:cut], self._held[cut:]
                yield part
            if last > limit:
                return


BOOK_ROWS: Final = 2_048


def book_records(frame: pl.DataFrame | None) -> np.ndarray:
    """Return a `BOOK` record a row; levels that the frame does not have are nan."""
    if frame is None:
        return np.empty(0, BOOK)
    found = np.empty(frame.height, BOOK)
    found["bad"] = ~frame.select(usable(frame.columns)).to_series().to_numpy()
    found["time"] = frame["timestamp"].to_physical().to_numpy()
    levels = {
        (f"{side}_{kind}", level): frame[name].cast(pl.Float64).fill_null(np.nan).to_numpy()
        for side in ("bid", "ask")
        for kind in ("price", "qty")
        for level in range(DEPTH)
        if (name := f"{side}_{kind}_{level + 1}") in frame.columns
    }
    # Few rows at a time: a record is five lines of the cache, and each column writes to them all.
    for begin in range(0, len(found), BOOK_ROWS):
        end = begin + BOOK_ROWS
        some = found[begin:end]
        for name in ("bid_price", "bid_qty", "ask_price", "ask_qty"):
            some[name] = np.nan
        for (name, level), values in levels.items():
            some[name][:, level] = values[begin:end]
    return found


def _in_background(work: Callable[[pl.DataFrame], None], rows: pl.DataFrame) -> Future[None]:
    """Run `work` in a thread of its own, which ends with it."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="fxlab-check")
    try:
        return pool.submit(work, rows)
    finally:
        pool.shutdown(wait=False)


def open_feeds(
    source: TickSource,
    symbols: tuple[str, ...],
    needs: Needs,
    *,
    owner: str = "the strategy",
    **which: Unpack[Which],
) -> tuple[list[SymbolFeed], list[BookFeed]]:
    """Return a feed of ticks for each symbol, and of books where orders meet them.

    Raises
    ------
    InvalidParameter
        If books are needed and a symbol has none.
    """
    decimals = source.price_decimals
    also = ["received_at"] if needs.latency is not None else []
    received = "received_at" in {*also, *(needs.columns or ())}
    scanned = scan_many(source, symbols, received=received, **which)
    feeds, books = [], []
    for leg, symbol in enumerate(symbols):
        quotes = not source.has_trades(symbol)  # asked once: a session has to count
        if needs.books and not source.has_books(symbol):
            raise InvalidParameter(
                f"fill='book' needs order books, and session {source.id!r} has none of {symbol}; "
                "use fill='next_trade'"
            )
        frames = joined_ticks(
            source,
            symbol,
            needs.columns,
            decimals=decimals.get(symbol),
            also=[*also, *(book_levels() if needs.books and quotes else ())],
            owner=owner,
            chunks=scanned[symbol],
            **which,
        )
        feed = SymbolFeed(symbol, leg, frames, needs, quotes=quotes)
        feeds.append(feed)
        if needs.books and not quotes:
            books.append(BookFeed(leg, iter(source.scan_books(symbol, **which)), feed.digest))
    return feeds, books
