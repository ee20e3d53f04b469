"""What a running recording looks like from outside: numbers for panels, terminals and tests."""

from __future__ import annotations

from collections import deque
from dataclasses import dataclass, field
from typing import Final

from fxlab.collect.feed import Event

WINDOW_SECONDS: Final = 5.0
SHORTEST_SECONDS: Final = 0.2
"""Marks nearer to each other tell more of batches than of rates."""

STARTING: Final = "starting"
COLLECTING: Final = "collecting"
OUTAGE: Final = "outage"
STOPPING: Final = "stopping"
OVER: Final = ("completed", "aborted", "failed")


@dataclass(frozen=True, slots=True)
class SymbolStatus:
    """One symbol.

    Attributes
    ----------
    trades, books
        Rows journaled so far; `trades` with those of backfill.
    trades_per_second, books_per_second
        Over the last few seconds; None while unknown.
    last_price, bid, ask
        None while unknown.
    price_decimals
        Decimals that write all prices so far; None if no number does.
    lag_ms
        Arrival minus venue time of the newest message; the venue's clock is part of it.
    gaps, missing
        Gaps not filled, and trades known to be missing.
    backfilled, doubles
        Trades asked for later, and trades that came again and were not stored twice.
    """

    symbol: str
    trades: int = 0
    books: int = 0
    trades_per_second: float | None = None
    books_per_second: float | None = None
    last_price: float | None = None
    bid: float | None = None
    ask: float | None = None
    price_decimals: int | None = None
    lag_ms: float | None = None
    gaps: int = 0
    missing: int = 0
    backfilled: int = 0
    doubles: int = 0

    @property
    def spread(self) -> float | None:
        """Return ask minus bid."""
        return None if self.bid is None or self.ask is None else self.ask - self.bid


@dataclass(frozen=True, slots=True)
class CollectorStatus:
    """A recording at one moment.

    Attributes
    ----------
    state
        "starting", "collecting", "outage" (rows wait in the journal), "stopping", and at the end
        "completed", "aborted" or "failed".
    elapsed
        Seconds since its start.
    waiting_rows, waiting_bytes, journal_limit
        The journal: what is not known to be stored, and the bytes at which recording ends.
    skew_ms
        This machine's clock minus the venue's, measured at the start; None if it cannot be asked.
    message
        The newest thing worth saying, or nothing.
    newest
        The newest row of the gap ledger; a gap whose amount is 0 was filled.
    """

    session_id: str
    exchange: str
    state: str
    elapsed: float
    duration: float | None
    symbols: tuple[SymbolStatus, ...]
    waiting_rows: int
    waiting_bytes: int
    journal_limit: int
    errors: int
    skew_ms: float | None
    message: str
    newest: Event | None = None

    @property
    def trades(self) -> int:
        """Return the trades of all symbols."""
        return sum(one.trades for one in self.symbols)

    @property
    def books(self) -> int:
        """Return the books of all symbols."""
        return sum(one.books for one in self.symbols)

    @property
    def gaps(self) -> int:
        """Return the gaps of all symbols that are not filled."""
        return sum(one.gaps for one in self.symbols)

    @property
    def is_over(self) -> bool:
        """Whether nothing more will come."""
        return self.state in OVER


@dataclass(slots=True)
class Rate:
    """Events per second over a short window of monotonic time."""

    _marks: deque[tuple[float, int]] = field(default_factory=deque)

    def mark(self, now: float, total: int) -> None:
        """Note a total."""
        self._marks.append((now, total))
        while now - self._marks[0][0] > WINDOW_SECONDS:
            self._marks.popleft()

    @property
    def value(self) -> float | None:
        """Return the rate between the first and the last mark; None if they are too near."""
        marks = list(self._marks)
        if not marks or marks[-1][0] - marks[0][0] < SHORTEST_SECONDS:
            return None
        return (marks[-1][1] - marks[0][1]) / (marks[-1][0] - marks[0][0])
