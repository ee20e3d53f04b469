"""Ticks as the engine takes them: from a session or from a frame, checked, on an integer grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

import numpy as np
import polars as pl

from fxlab.backtester.frame_checks import is_frame
from fxlab.backtester.frame_source import FrameSource
from fxlab.errors import EmptySession, InvalidParameter, InvalidTicks, SymbolNotFound, some
from fxlab.identifiers import quote_currency
from fxlab.times import Time, from_micros, parse_range, to_micros


class TickSource(Protocol):
    """What a backtest replays: a session, or a frame behind `FrameSource`."""

    @property
    def id(self) -> str:
        """Return the name the run is saved under."""

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the symbols that have ticks."""

    @property
    def price_decimals(self) -> Mapping[str, int]:
        """Return the decimals of each symbol's prices."""

    @property
    def started(self) -> object:
        """Return the time of the first tick (an aware datetime, or None)."""

    @property
    def ended(self) -> object:
        """Return the time of the last tick (an aware datetime, or None)."""

    def scan_ticks(
        self,
        symbol: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        chunk_rows: int = 1_000_000,
        received: bool = False,
    ) -> Iterator[pl.DataFrame]:
        """Yield the symbol's ticks in (timestamp, seq) order.

        With `received` also ``received_at`` (UTC µs), null where it is not known.
        """

    def count_ticks(
        self, symbol: str, *, start: Time | None = None, end: Time | None = None
    ) -> int:
        """Return how many ticks `scan_ticks` yields."""

    def scan_books(
        self,
        symbol: str,
        *,
        start: Time | None = None,
        end: Time | None = None,
        chunk_rows: int = 250_000,
    ) -> Iterator[pl.DataFrame]:
        """Yield the symbol's books: timestamp, seq and the level columns, in order."""

    def has_books(self, symbol: str) -> bool:
        """Return whether there are order books (or quotes) of the symbol."""

    def has_trades(self, symbol: str) -> bool:
        """Return whether there are trades of the symbol; else its ticks are mids of quotes."""

    def gaps(self, symbol: str) -> pl.DataFrame:
        """Return the symbol's known holes: from_time, to_time (UTC µs), merged and in order."""


def as_source(source: object) -> TickSource:
    """Return a session as it is, a frame behind `FrameSource`; refuse everything else."""
    if hasattr(source, "scan_ticks"):
        return source  # type: ignore[return-value]  # the protocol, by its one method
    if is_frame(source):
        return FrameSource(source)
    raise InvalidParameter(
        f"session_id is required: a backtest runs on a session or a frame of ticks, not on "
        f"{source!r:.80}; list sessions with lab.sessions() and pass lab.session(session_id)"
    )


def choose_symbols(source: TickSource, wanted: str | list[str] | tuple[str, ...]) -> list[str]:
    """Return the symbols to replay: ``"ALL"``, one, or several without repeats."""
    if isinstance(wanted, str) and wanted == "ALL":
        chosen = list(source.symbols)
    else:
        if not wanted or not isinstance(wanted, str | list | tuple):
            raise InvalidParameter(
                f"symbols={wanted!r:.80} names no symbol; give 'ALL', one name, or a list of names"
            )
        chosen = [wanted] if isinstance(wanted, str) else list(dict.fromkeys(wanted))
    for symbol in chosen:
        if symbol not in source.symbols:
            raise SymbolNotFound.named(str(symbol), source.symbols)
    if not chosen:
        raise EmptySession(f"session {source.id!r} has no symbols; choose another session")
    return chosen


def check_one_currency(symbols: Iterable[str]) -> None:
    """Refuse symbols whose prices are in different currencies: their money cannot be added.

    Where no symbol says its currency, it is taken to be the same.
    """
    first: dict[str | None, str] = {}
    for symbol in symbols:
        first.setdefault(quote_currency(symbol), symbol)
    if len(first) < 2:
        return
    told = [
        f"{symbol} in {unit or 'a currency that its name does not say'}"
        for unit, symbol in first.items()
    ]
    one = next(iter(first.values()))
    raise InvalidParameter(
        f"prices are in {len(first)} currencies ({'; '.join(told[:4])}), and money of different "
        f"currencies is never added: choose symbols of one currency, such as symbols=[{one!r}], "
        "and run the others by themselves, or give a frame whose prices are in one currency"
    )


def span(source: TickSource, start: Time | None, end: Time | None) -> tuple[int, int]:
    """Return first and last microsecond of what will be replayed, from the source's own bounds."""
    low, high = parse_range(start, end)
    first, last = source.started, source.ended
    if first is None or last is None:
        raise EmptySession(f"session {source.id!r} has no ticks; choose another session")
    first_us, last_us = to_micros(first), to_micros(last)  # type: ignore[arg-type]
    return max(first_us, low or first_us), min(last_us, (high or last_us + 1) - 1)


def share_before(bounds: tuple[int, int], now: int) -> float:
    """Return the share of a time range that lies before `now` (microseconds)."""
    first, last = bounds
    return min(1.0, (now - first) / max(1, last - first))


def no_ticks(source: TickSource, symbols: tuple[str, ...]) -> EmptySession:
    """Return the error of a time range without a tick."""
    return EmptySession(
        f"session {source.id!r} has no ticks of {some(symbols)} in the range asked for; "
        f"its ticks run from {source.started} to {source.ended}"
    )


@dataclass
class OrderCheck:
    """Checks chunk by chunk that rows are ticks in order; remembers the last row."""

    symbol: str
    time: int = -(2**63)
    seq: int = -(2**63)
    rows: int = 0

    def check(self, time: np.ndarray, seq: np.ndarray, price: np.ndarray) -> None:
        """Raise `InvalidTicks` at the first row that is out of order or not a price."""
        from fxlab.backtester.columns_kernel import first_bad_row

        bad = first_bad_row(time, seq, price, self.time, self.seq)
        if bad >= 0:
            raise InvalidTicks(self._describe(bad, time, seq, price))
        self.time, self.seq = int(time[-1]), int(seq[-1])
        self.rows += len(time)

    def _describe(self, bad: int, time: np.ndarray, seq: np.ndarray, price: np.ndarray) -> str:
        from fxlab.backtester.columns_kernel import LARGEST_PRICE, SMALLEST_PRICE

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
