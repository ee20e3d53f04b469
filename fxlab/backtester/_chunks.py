"""Market rows in chunks for the kernel: the symbols' ticks and books merged by time, leg and kind.

Chunks are the same for all strategies; decisions are laid over them. At equal times the order of
the symbols decides, and a symbol's trades come before its books: a book of the same moment may
already show what the trade did. Order book frames become the records that the kernel walks.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final

import numpy as np
import polars as pl

from fxlab._ticks import usable
from fxlab.backtester._kernel.records import BOOK, DEPTH, EXTREMES, MarketArrays
from fxlab.backtester.execution import Latency
from fxlab.errors import InvalidParameter
from fxlab.schema import book_levels

_NO_NUMBERS: Final = np.empty(0, np.float64)
_NO_INDICES: Final = np.empty(0, np.int64)
_NO_BOOKS: Final = np.zeros(1, BOOK)  # one, so that the kernel may always name the first


@dataclass(frozen=True)
class Market:
    """Rows of all symbols, merged by time.

    Attributes
    ----------
    legs
        How many symbols there are in the run.
    time, leg, price
        int64 µs, int16, float64; price is nan on a row that only brings a book.
    book, books
        Index of the row's book in `books`, or -1 (int64; empty if no books are replayed).
    volume, taker
        Base units, and 1 where the taker bought, -1 where it sold, 0 if unknown (for queues).
    delay
        The row's own delay of orders, µs (for measured latency).
    """

    legs: int
    time: np.ndarray
    leg: np.ndarray
    price: np.ndarray
    book: np.ndarray = field(default_factory=lambda: _NO_INDICES)
    books: np.ndarray = field(default_factory=lambda: _NO_BOOKS)
    volume: np.ndarray = field(default_factory=lambda: _NO_NUMBERS)
    taker: np.ndarray = field(default_factory=lambda: _NO_INDICES)
    delay: np.ndarray = field(default_factory=lambda: _NO_INDICES)

    def __len__(self) -> int:
        return len(self.time)

    @cached_property
    def arrays(self) -> MarketArrays:
        """Return the kernel's view of the rows."""
        return MarketArrays(
            time=self.time,
            leg=self.leg,
            price=self.price,
            book=self.book,
            volume=self.volume,
            taker=self.taker,
            delay=self.delay,
            books=self.books,
            extremes=self.extremes,
        )

    @cached_property
    def extremes(self) -> np.ndarray:
        """Return lowest, highest and last price of each block and leg: found once for all runs."""
        from fxlab.backtester._kernel.fast_path import BLOCK, find_extremes, find_price_extremes

        found = np.empty((max(1, -(-len(self) // BLOCK)), self.legs), EXTREMES)
        if self.legs == 1 and not len(self.book) and len(self):
            find_price_extremes(self.price, found)
            return found
        find_extremes(self.leg, self.price, self.book, self.books, found)
        return found

    def part(self, first: int, last: int | None = None) -> Market:
        """Return a slice; nothing is copied, and books keep their numbers."""
        cut = slice(first, last)
        sliced: dict[str, Any] = {
            name: getattr(self, name)[cut]
            for name in ("time", "leg", "price", "book", "volume", "taker", "delay")
        }
        return Market(self.legs, books=self.books, **sliced)


@dataclass(frozen=True)
class MarketSlice:
    """A stretch of the market with one strategy's decisions on it (`DECISION`, by row)."""

    market: Market
    decisions: np.ndarray

    def __len__(self) -> int:
        return len(self.market)

    @property
    def time(self) -> np.ndarray:
        """Return the times of the rows (int64 µs)."""
        return self.market.time

    @property
    def price(self) -> np.ndarray:
        """Return the prices of the rows (float64, nan on a row that only brings a book)."""
        return self.market.price

    @property
    def leg(self) -> np.ndarray:
        """Return the leg numbers of the rows (int16)."""
        return self.market.leg

    def part(self, first: int, last: int | None = None) -> MarketSlice:
        """Return a slice with its decisions."""
        end = len(self) if last is None else last
        low, high = np.searchsorted(self.decisions["row"], [first, end])
        chosen = self.decisions[low:high].copy()
        chosen["row"] -= first
        return MarketSlice(self.market.part(first, end), chosen)


_TAKERS: Final = {"buy": 1, "sell": -1}
# Columns that some runs read, and what a row has that brings no value of its own.
_OPTIONAL: Final = {"book": -1, "volume": 0.0, "taker": 0, "delay": 0}


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

    @property
    def own(self) -> pl.DataFrame:
        """Return the rows themselves."""
        return self.frame.slice(self.first)


@dataclass
class _Part:
    """Rows of one leg and of one kind, as arrays."""

    leg: int
    kind: int  # 0 prices, 1 books only
    columns: dict[str, np.ndarray]
    books: np.ndarray | None = None

    def __len__(self) -> int:
        return len(self.columns["time"])


def market_of(
    legs: int, pieces: list[SymbolChunk], shown: list[tuple[int, np.ndarray]], needs: Needs
) -> Market:
    """Return the market of some pieces and of books beside them: (leg, `BOOK` records) pairs.

    Each piece learns the `place` of its rows, unless it is the whole market.

    Raises
    ------
    InvalidParameter
        If latency is to be as measured, and it was not, or cannot be right.
    """
    parts = [_priced(piece, needs) for piece in pieces]
    if legs == 1 and len(pieces) == 1 and not shown:
        (part,) = parts
        found = {} if part.books is None else {"books": part.books}
        return Market(legs=1, leg=np.zeros(len(part), np.int16), **part.columns, **found)
    parts += [_book_rows(leg, books) for leg, books in shown]
    order = _order(parts)
    place = np.empty(len(order), np.int64)
    place[order] = np.arange(len(order))
    begin = 0
    for piece, part in zip(pieces, parts, strict=False):  # the books' parts come after
        piece.place = place[begin : begin + len(part)]
        begin += len(part)
    return _joined(legs, parts, order)


def _order(parts: list[_Part]) -> np.ndarray:
    """Return the order of the rows by time, leg, and prices before books."""
    time = np.concatenate([part.columns["time"] for part in parts])
    leg = _repeated([part.leg for part in parts], parts)
    kind = _repeated([part.kind for part in parts], parts)
    return np.lexsort((kind, leg, time))


def _joined(legs: int, parts: list[_Part], order: np.ndarray) -> Market:
    seen = 0
    for part in parts:
        if part.books is not None:
            part.columns["book"] = np.arange(len(part), dtype=np.int64) + seen
            seen += len(part)
    whole: dict[str, Any] = {"leg": _repeated([part.leg for part in parts], parts)[order]}
    for name in ("time", "price"):
        whole[name] = np.concatenate([part.columns[name] for part in parts])[order]
    for name, nothing in _OPTIONAL.items():
        if any(name in part.columns for part in parts):
            filled = [part.columns.get(name, np.full(len(part), nothing)) for part in parts]
            whole[name] = np.concatenate(filled)[order]
    if seen:
        whole["books"] = np.concatenate([part.books for part in parts if part.books is not None])
    return Market(legs=legs, **whole)


def _repeated(values: list[int], parts: list[_Part]) -> np.ndarray:
    return np.repeat(np.array(values, np.int16), [len(part) for part in parts])


def _book_rows(leg: int, books: np.ndarray) -> _Part:
    columns = {"time": books["time"], "price": np.full(len(books), np.nan)}
    return _Part(leg, 1, columns, books)


def _priced(piece: SymbolChunk, needs: Needs) -> _Part:
    """Return a piece's rows, with the optional arrays that the run needs."""
    own = piece.own
    columns = {
        "time": own["timestamp"].to_physical().to_numpy(),
        "price": own["price"].to_numpy(),
    }
    books = None
    if needs.books and piece.quotes:
        books = book_records(own)
        columns["book"] = np.arange(own.height, dtype=np.int64)
    if needs.queue and not piece.quotes and "volume" in own.columns:
        columns["volume"] = own["volume"].cast(pl.Float64).fill_null(0.0).to_numpy()
        columns["taker"] = _takers(own)
    if needs.latency is not None:
        columns["delay"] = _delays(piece, needs.latency)
    return _Part(piece.leg, 0, columns, books)


def _takers(own: pl.DataFrame) -> np.ndarray:
    """Return 1 where the taker bought, -1 where it sold, 0 where the side is unknown."""
    if "side" not in own.columns:
        return np.zeros(own.height, np.int64)
    side = own["side"].cast(pl.String)
    signs = side.replace_strict(_TAKERS, default=0, return_dtype=pl.Int64)
    return signs.fill_null(0).to_numpy()


def _delays(piece: SymbolChunk, latency: Latency) -> np.ndarray:
    """Return received_at - timestamp + clock offset of each row, µs."""
    own = piece.own
    if "received_at" not in own.columns or own["received_at"].null_count():
        raise InvalidParameter(
            f"{piece.symbol} has ticks without received_at, so their latency was not measured; "
            "give a fixed latency, such as Execution(latency='50ms')"
        )
    received = own["received_at"].to_physical().to_numpy()
    delays: np.ndarray = received - own["timestamp"].to_physical().to_numpy()
    delays = delays + int(latency.values[0])
    if delays.min(initial=0) < 0:
        early = int((delays < 0).sum())
        raise InvalidParameter(
            f"{piece.symbol}: {early:,} of {len(delays):,} ticks were received before they "
            f"happened (by {-delays.min() / 1e6:.3f} s at most): the recorder's clock was behind "
            "the venue's; add Latency.measured(clock_offset=...) or give a fixed latency"
        )
    return delays


def book_records(frame: pl.DataFrame | None) -> np.ndarray:
    """Return a `BOOK` record a row; levels that the frame does not have are nan."""
    if frame is None:
        return np.empty(0, BOOK)
    found = np.empty(frame.height, BOOK)
    found["bad"] = ~frame.select(usable(frame.columns)).to_series().to_numpy()
    found["time"] = frame["timestamp"].to_physical().to_numpy()
    for side in ("bid", "ask"):
        for kind in ("price", "qty"):
            for level in range(DEPTH):
                name = f"{side}_{kind}_{level + 1}"
                column = found[f"{side}_{kind}"]
                if name in frame.columns:
                    values = frame[name].cast(pl.Float64).fill_null(np.nan)
                    column[:, level] = values.to_numpy()
                else:
                    column[:, level] = np.nan
    return found
