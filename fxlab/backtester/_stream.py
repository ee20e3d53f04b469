"""Market stream: symbols merged by time into chunks, and the hash of the rows read.

Strategies are evaluated per symbol on each chunk, with as many rows in front of it as they look
back, so that chunking cannot be seen in their output.

The hash is part of a run's fingerprint. Columns are hashed one by one, so that the chunks they came
in cannot change it. Time, seq and price are always in it, and every other column that the strategy
reads.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from typing import Final

import numpy as np
import polars as pl
import xxhash

from fxlab._ticks import PRICE_TICKS
from fxlab.backtester._chunks import (
    Market,
    MarketSlice,
    Needs,
    SymbolChunk,
    book_records,
    market_of,
)
from fxlab.backtester._kernel.records import DECISION
from fxlab.backtester._source import OrderCheck
from fxlab.backtester.strategy._decisions import decide
from fxlab.backtester.strategy.signals import Signals

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


_END: Final = 2**63 - 1
_WORTH_A_THREAD: Final = 100_000  # rows; to check and hash them takes longer than to start one


@dataclass
class Chunk:
    """A stretch of the market, and the frames that strategies decide on."""

    market: Market
    pieces: list[SymbolChunk]

    def decisions(self, signals: Signals, max_leverage: float = np.inf) -> np.ndarray:
        """Return a strategy's decisions on all symbols (`DECISION`), ordered by row."""
        found = []
        for piece in self.pieces:
            decisions = decide(
                signals,
                piece.symbol,
                piece.frame,
                first=piece.first,
                seen=piece.seen,
                max_leverage=max_leverage,
            )
            if piece.place is not None:
                decisions["row"] = piece.place[decisions["row"]]
            found.append(decisions)
        if len(found) == 1:
            return found[0]
        whole = np.concatenate([np.empty(0, DECISION), *found])
        return whole[np.argsort(whole["row"], kind="stable")]

    def rows(self, signals: Signals, max_leverage: float = np.inf) -> MarketSlice:
        """Return the stretch with a strategy's decisions."""
        return MarketSlice(self.market, self.decisions(signals, max_leverage))


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
        self.frames = self._whole_or_chunks(self.frames)

    def last_time(self) -> int | None:
        """Return the time of the last row at hand, or None if there are no more."""
        if self._held is None or self._first >= self._held.height:
            self._load()
        if self._held is None or self._first >= self._held.height:
            return None
        return int(self._held["timestamp"].to_physical()[-1])

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
        fresh = next(self.frames, None)
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

    def last_time(self) -> int | None:
        """Return the time of the last book at hand, or None if there are no more."""
        while not len(self._held):
            frame = next(self.frames, None)
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


def merge(legs: int, feeds: list[SymbolFeed], books: list[BookFeed]) -> Iterator[Chunk]:
    """Merge feeds by time, holding one chunk of each."""
    while True:
        ends = [feed.last_time() for feed in feeds] + [feed.last_time() for feed in books]
        known = [end for end in ends if end is not None]
        if not known:
            return
        # A strategy that looks back on everything is evaluated once, on everything.
        limit = _END if any(feed.needs.lookback is None for feed in feeds) else min(known)
        pieces = [piece for feed in feeds for piece in feed.take(limit)]
        shown = [(feed.leg, part) for feed in books for part in feed.take(limit)]
        yield Chunk(market_of(legs, pieces, shown, feeds[0].needs), pieces)


def _in_background(work: Callable[[pl.DataFrame], None], rows: pl.DataFrame) -> Future[None]:
    """Run `work` in a thread of its own, which ends with it."""
    pool = ThreadPoolExecutor(1, thread_name_prefix="fxlab-check")
    try:
        return pool.submit(work, rows)
    finally:
        pool.shutdown(wait=False)
