"""Trades and books as encoded rows, with the numbers that their checksum is made of."""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from fxlab.collect.book_track import BookRow
from fxlab.collect.checksum import SIDE_CODES
from fxlab.collect.feed import Trade
from fxlab.questdb.lines import LineEncoder, Lines
from fxlab.schema import ORDERBOOK, PRICES, book_levels

_LEVELS = tuple(book_levels())


class TickLines:
    """The rows of one batch for one session; for one thread."""

    def __init__(self, encoder: LineEncoder, session_id: str) -> None:
        from questdb import TimestampMicros

        self._encoder = encoder
        self._session_id = session_id
        self._micros: Any = TimestampMicros  # the client's stub forgets it in places
        self._buffers = {
            table.name: (encoder.buffer(), array("Q")) for table in (PRICES, ORDERBOOK)
        }

    def add_trades(self, trades: Sequence[Trade], seqs: Sequence[int]) -> None:
        """Encode trades, which are checked."""
        buffer, ends = self._buffers[PRICES.name]
        row, micros, session_id = buffer.row, self._micros, self._session_id
        for trade, seq in zip(trades, seqs, strict=True):
            row(
                PRICES.name,
                symbols={
                    "session_id": session_id,
                    "symbol": trade.symbol,
                    "side": trade.side,
                    "origin": trade.origin,
                },
                columns={
                    "seq": seq,
                    "trade_id": None if trade.id is None else str(trade.id),
                    "price": trade.price,
                    "volume": trade.volume,
                    "quote_volume": trade.price * trade.volume,
                    "received_at": micros(trade.received),
                },
                at=micros(trade.time),
            )
            ends.append(len(buffer))

    def add_books(self, symbol: str, rows: Iterable[BookRow]) -> None:
        """Encode books of a symbol; missing levels are left out."""
        buffer, ends = self._buffers[ORDERBOOK.name]
        symbols: dict[str, str | None]
        symbols = {"session_id": self._session_id, "symbol": symbol, "origin": "live"}
        for book in rows:
            columns: dict[str, Any] = {
                "seq": book.seq,
                "first_update_id": book.first_update_id,
                "is_snapshot": book.is_snapshot,
                **dict(zip(_LEVELS, book.levels, strict=True)),
                "received_at": self._micros(book.received),
            }
            at = self._micros(book.time)
            buffer.row(ORDERBOOK.name, symbols=symbols, columns=columns, at=at)
            ends.append(len(buffer))

    def take(self) -> list[Lines]:
        """Return what was encoded since the last call."""
        found = []
        for name, (buffer, ends) in self._buffers.items():
            if ends:
                found.append(Lines(name, bytes(buffer), ends))
                buffer.clear()  # type: ignore[no-untyped-call]  # the client's stub lacks its result
                self._buffers[name] = (buffer, array("Q"))
        return found


def trade_columns(trades: Sequence[Trade]) -> list[npt.ArrayLike]:
    """Return what is summed of trades, after time and `seq`."""
    return [
        [trade.price for trade in trades],
        [trade.volume for trade in trades],
        [SIDE_CODES[trade.side] for trade in trades],
        [trade.received for trade in trades],
    ]


def book_columns(rows: Sequence[BookRow]) -> list[npt.ArrayLike]:
    """Return what is summed of books, after time and `seq`."""
    levels = np.array([row.levels for row in rows], dtype=np.float64)  # None becomes nan
    return [[row.received for row in rows], *levels.T]
