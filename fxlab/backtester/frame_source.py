"""A frame of ticks in the shape of a session, so that the engine knows one kind of source."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import polars as pl

from fxlab.backtester import gaps as ledger
from fxlab.backtester.decimals import PRICE_TICKS, exact_ticks
from fxlab.backtester.frame_checks import as_frame, check_ticks, utc
from fxlab.backtester.quotes import BEST, mid_decimals, with_mid_price
from fxlab.errors import InvalidTicks, some
from fxlab.schema import UTC_MICROS, book_levels
from fxlab.times import Time, from_micros, parse_range

CHUNK_ROWS: Final = 1 << 20
"""Rows at a time: whoever reads may want to stop in between."""

ONE_SYMBOL: Final = "TICKS"  # the symbol of a frame that names none


class FrameSource:
    """A frame of ticks, in the shape of a session.

    Parameters
    ----------
    frame
        Of Polars (lazy too) or pandas, or an Arrow table. Trades: columns ``timestamp`` (Datetime;
        naive means UTC), ``price`` (a number) and, if there are any, ``seq`` (whole numbers),
        ``symbol`` (text), ``volume`` and others. Or quotes: ``timestamp``, ``bid_price_1``,
        ``ask_price_1`` and further levels, and no ``price``: the mid is the price then, and rows
        that have none (a side is empty, or they cross) are left out. Rows of a symbol are ordered
        by (timestamp, seq); without ``seq`` the order of the rows is theirs.
    id
        The name that results are kept under.
    books
        Order books beside trades: ``timestamp``, level columns such as ``bid_price_1`` and
        ``bid_qty_1``, and, if there are any, ``seq`` and ``symbol``.
    gaps
        Known holes: ``from_time``, ``to_time`` and, if they concern one symbol, ``symbol``.

    Raises
    ------
    InvalidTicks
        If a required column is missing, has another type or holds what cannot be a tick's:
        text for a price, no time, a fraction for a seq, no symbol, a volume below zero.
    """

    def __init__(
        self,
        frame: Any,  # noqa: ANN401 - of any library; refused by name otherwise
        id: str = "frame",  # noqa: A002 - as sessions call it
        *,
        books: Any = None,  # noqa: ANN401
        gaps: Any = None,  # noqa: ANN401
    ) -> None:
        ticks = as_frame(frame, "the frame")
        self.id = id
        self.quotes = "price" not in ticks.columns and set(BEST) <= set(ticks.columns)
        needed = ("timestamp",) if self.quotes else ("timestamp", "price")
        self.frame = check_ticks(ticks, "the frame", needed)
        self.books = _checked(books, "the frame of books", ("timestamp", *BEST))
        self.holes = _checked(gaps, "the frame of gaps", tuple(ledger.GAPS), holes=True)
        self._ready: dict[str, tuple[pl.DataFrame, int | None]] = {}

    def __repr__(self) -> str:
        """Show what is in it on one line."""
        kind = "quotes" if self.quotes else "ticks"
        return f"<FrameSource {self.id}: {self.frame.height:,} {kind} of {some(self.symbols)}>"

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the symbols in order of appearance."""
        if "symbol" not in self.frame.columns:
            return (ONE_SYMBOL,)
        return tuple(self.frame["symbol"].cast(pl.String).unique(maintain_order=True).to_list())

    @property
    def price_decimals(self) -> dict[str, int]:
        """Return the decimals of each symbol's prices, found from the data."""
        found = {symbol: self._ticks(symbol)[1] for symbol in self.symbols}
        return {symbol: decimals for symbol, decimals in found.items() if decimals is not None}

    @property
    def started(self) -> object:
        """Return the first timestamp."""
        times = self.frame["timestamp"]
        return times.min() if "symbol" in self.frame.columns else times.first()

    @property
    def ended(self) -> object:
        """Return the last timestamp."""
        times = self.frame["timestamp"]
        return times.max() if "symbol" in self.frame.columns else times.last()

    def scan_ticks(
        self,
        symbol: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        chunk_rows: int | None = None,
        received: bool = False,
    ) -> Iterator[pl.DataFrame]:
        """Yield slices of the frame with all its columns and `price_ticks`."""
        rows = self._ticks(symbol)[0]
        if received and "received_at" not in rows.columns:
            rows = rows.with_columns(received_at=pl.lit(None, UTC_MICROS))
        yield from _slices(rows, start, end, chunk_rows)

    def count_ticks(
        self, symbol: str, *, start: Time | None = None, end: Time | None = None
    ) -> int:
        """Return how many ticks `scan_ticks` yields."""
        return sum(chunk.height for chunk in self.scan_ticks(symbol, start=start, end=end))

    def scan_books(
        self,
        symbol: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        chunk_rows: int | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Yield the symbol's books: ``timestamp``, ``seq`` and all level columns, in order."""
        if not self.has_books(symbol):
            return
        rows = self._quotes(symbol) if self.books is None else self._books(symbol, self.books)
        levels = [
            pl.col(name).cast(pl.Float64) if name in rows.columns else pl.lit(None, pl.Float64)
            for name in book_levels()
        ]
        named = [level.alias(name) for level, name in zip(levels, book_levels(), strict=True)]
        yield from _slices(rows.select("timestamp", "seq", *named), start, end, chunk_rows)

    def has_books(self, symbol: str) -> bool:
        """Return whether there are books or quotes of the symbol."""
        if self.books is None:
            return self.quotes
        named = "symbol" in self.books.columns and "symbol" in self.frame.columns
        return not named or bool((self.books["symbol"].cast(pl.String) == symbol).any())

    def has_trades(self, symbol: str) -> bool:  # noqa: ARG002 - a frame has one kind of rows
        """Return whether the frame holds trades, not quotes."""
        return not self.quotes

    def gaps(self, symbol: str) -> pl.DataFrame:
        """Return the known holes of the symbol: ``from_time``, ``to_time``, in order."""
        if self.holes is None:
            return pl.DataFrame(schema=ledger.GAPS)
        holes = self.holes
        if "symbol" in holes.columns:
            named = pl.col("symbol").cast(pl.String)
            holes = holes.filter((named == symbol) | named.is_null())
        times = [utc(holes, name) for name in ledger.GAPS]
        return ledger.merged(holes.with_columns(times))

    def _ticks(self, symbol: str) -> tuple[pl.DataFrame, int | None]:
        """Return the symbol's rows as the engine takes them, and the decimals of its prices."""
        if symbol not in self._ready:
            self._ready[symbol] = self._prepared(symbol)
        return self._ready[symbol]

    def _prepared(self, symbol: str) -> tuple[pl.DataFrame, int | None]:
        rows = self._quotes(symbol)
        if self.quotes:
            rows = with_mid_price(rows, mid_decimals(rows))
        rows = rows.with_columns(pl.col("price").cast(pl.Float64))
        found = exact_ticks(rows["price"])
        if found is None:
            return rows.drop(PRICE_TICKS, strict=False), None
        decimals, ticks = found
        return rows.with_columns(pl.Series(PRICE_TICKS, ticks)), decimals

    def _quotes(self, symbol: str) -> pl.DataFrame:
        """Return the symbol's rows of the frame, with normal times and seq."""
        if "symbol" not in self.frame.columns:
            return _normalised(self.frame)
        if self.frame["symbol"].n_unique() == 1:
            return _normalised(self.frame.drop("symbol"))
        own = self.frame.filter(pl.col("symbol").cast(pl.String) == symbol)
        return _normalised(own.drop("symbol"))

    def _books(self, symbol: str, books: pl.DataFrame) -> pl.DataFrame:
        if "symbol" in books.columns:
            if "symbol" in self.frame.columns:
                books = books.filter(pl.col("symbol").cast(pl.String) == symbol)
        elif len(self.symbols) > 1:
            raise InvalidTicks(
                "the frame of books has no column 'symbol', and the ticks have several symbols: "
                f"{some(self.symbols)}; add the column so that each book is where it belongs"
            )
        rows = _normalised(books)
        if not rows["timestamp"].is_sorted():
            raise InvalidTicks(
                f"the books of {symbol} are not in the order of time; sort them by timestamp, seq"
            )
        return rows


def _checked(
    frame: object, what: str, required: tuple[str, ...], *, holes: bool = False
) -> pl.DataFrame | None:
    """Return a frame beside the ticks, if there is one; a hole may be one of all symbols."""
    if frame is None:
        return None
    found = as_frame(frame, what)
    if holes and "symbol" in found.columns:
        named = check_ticks(found.drop("symbol"), what, required)
        return named.with_columns(found["symbol"])
    return check_ticks(found, what, required)


def _normalised(frame: pl.DataFrame) -> pl.DataFrame:
    """Give a user's frame the engine's types: UTC microseconds, Int64 seq."""
    times = [name for name in ("timestamp", "received_at") if name in frame.columns]
    columns = [utc(frame, name) for name in times]
    if "seq" in frame.columns:
        columns.append(pl.col("seq").cast(pl.Int64))
    else:
        columns.append(pl.int_range(pl.len(), dtype=pl.Int64).alias("seq"))
    return frame.with_columns(columns)


def _slices(
    rows: pl.DataFrame, start: Time | None, end: Time | None, chunk_rows: int | None
) -> Iterator[pl.DataFrame]:
    low, high = parse_range(start, end)
    if low is not None:
        rows = rows.filter(pl.col("timestamp") >= from_micros(low))
    if high is not None:
        rows = rows.filter(pl.col("timestamp") < from_micros(high))
    step = chunk_rows or CHUNK_ROWS
    for offset in range(0, rows.height, step):
        yield rows.slice(offset, step)
