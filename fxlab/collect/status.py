"""Status of a running recording: numbers, and the words for panel and terminal.

Everything here is plain text of values that came from outside; what shows it escapes it.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Final

from fxlab._html import NOTHING, show, show_number
from fxlab._times import from_micros
from fxlab.collect.feed import Event

if TYPE_CHECKING:
    from fxlab.sessions.session import Session

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
    trades_age, books_age
        Seconds since one came last; None before the first.
    lag_ms
        Arrival minus venue time of the newest message; the venue's clock is part of it.
    gaps, missing
        Gaps that are open (trades are missing, or the book is not known), and trades known to be
        missing.
    backfilled, doubles
        Trades asked for later, and trades that came again and were not stored twice.
    gaps_resynced
        Gaps of its book that a snapshot ended: it is known again, the updates between are lost.
    channels
        Rows journaled so far of what else is recorded, by the channel's name.

    Examples
    --------
    >>> fxlab.SymbolStatus("BTC_USDT", trades=10, bid=99.5, ask=100.0).spread
    0.5
    """

    symbol: str
    trades: int = 0
    books: int = 0
    trades_per_second: float | None = None
    books_per_second: float | None = None
    trades_age: float | None = None
    books_age: float | None = None
    last_price: float | None = None
    bid: float | None = None
    ask: float | None = None
    price_decimals: int | None = None
    lag_ms: float | None = None
    gaps: int = 0
    missing: int = 0
    backfilled: int = 0
    doubles: int = 0
    gaps_resynced: int = 0
    channels: Mapping[str, int] = field(default_factory=dict)

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
        The newest row of the event table; a gap whose amount is 0 was filled.
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
        """Return the gaps of all symbols that are open."""
        return sum(one.gaps for one in self.symbols)

    @property
    def gaps_resynced(self) -> int:
        """Return the gaps of all books that a snapshot ended."""
        return sum(one.gaps_resynced for one in self.symbols)

    @property
    def channels(self) -> dict[str, int]:
        """Return the rows of all symbols, by the channel's name."""
        names = dict.fromkeys(name for one in self.symbols for name in one.channels)
        return {name: sum(one.channels.get(name, 0) for one in self.symbols) for name in names}

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


COLUMNS: Final = (
    "symbol", "trades", "trades/s", "age s", "last", "bid", "ask", "spread", "lag ms",
    "books", "books/s", "book age s", "gaps", "resynced", "missing", "backfilled", "doubles",
)  # fmt: skip

LONGEST_DETAIL: Final = 160
_STATES: Final = {
    OUTAGE: "outage: rows wait in the journal",
    STOPPING: "stopping: the rest is being stored",
}
_KINDS: Final = {"prices": ("trades", "trades"), "orderbook": ("books", "updates")}


def rows(status: CollectorStatus) -> list[tuple[str, ...]]:
    """Return the cells of each symbol, in the order of `COLUMNS`; unknown ones are a dash."""
    return [_cells(one, is_over=status.is_over) for one in status.symbols]


def state(status: CollectorStatus) -> str:
    """Return the state in a few words; they change only when it does."""
    return _STATES.get(status.state, status.state)


def elapsed(status: CollectorStatus) -> str:
    """Return how long it has run, of how long: ``0:01:05 of 0:10:00``."""
    total = "" if status.duration is None else f" of {_clock(status.duration)}"
    return f"{_clock(status.elapsed)}{total}"


def share(status: CollectorStatus) -> float | None:
    """Return how much of its duration is over, 0 to 1; None if it has none."""
    if not status.duration:
        return None
    return min(status.elapsed / status.duration, 1.0)


def totals(status: CollectorStatus) -> str:
    """Return what was received in all."""
    words = [
        f"{status.trades:,} trades",
        f"{status.books:,} books",
        *(f"{rows:,} of {name.replace('_', ' ')}" for name, rows in status.channels.items()),
        f"{status.gaps:,} open {'gap' if status.gaps == 1 else 'gaps'}",
    ]
    if status.gaps_resynced:
        words.append(f"{status.gaps_resynced:,} resynced")
    if status.errors:
        words.append(f"{status.errors:,} quarantined or refused")
    return ", ".join(words)


def backlog(status: CollectorStatus) -> str:
    """Return what waits for the database, and how much of the room for it is taken."""
    taken, room = (_megabytes(size) for size in (status.waiting_bytes, status.journal_limit))
    return f"{status.waiting_rows:,} rows wait in the journal, {taken} of {room} MB"


def skew(status: CollectorStatus) -> str:
    """Return what is known of the two clocks."""
    if status.skew_ms is None:
        return f"the clock of {status.exchange} cannot be asked"
    return f"clock {status.skew_ms:+,.1f} ms off that of {status.exchange}"


def newest(event: Event | None) -> str:
    """Return a row of the event table as a sentence, or nothing."""
    if event is None:
        return ""
    where = f" {event.symbol}" if event.symbol else ""
    return f"{from_micros(event.time):%H:%M:%S}{where}: {_what(event)}"


def stored(session: Session) -> str:
    """Return what a recording left, and how to prove it."""
    gaps = f"{session.gaps_count:,} {'gap is' if session.gaps_count == 1 else 'gaps are'}"
    return (
        f"{session.status}: {session.prices_count:,} trades and {session.orderbook_count:,} books "
        f"are stored in session {session.id}; {gaps} open; prove it with "
        f"lab.verify({session.id!r})"
    )


def _what(event: Event) -> str:
    if event.kind != "gap":
        detail = event.detail[:LONGEST_DETAIL]
        return event.kind.replace("_", " ") + (f": {detail}" if detail else "")
    where, things = _KINDS.get(event.detail, (event.detail, "things"))
    if event.amount is None:
        return f"gap in {where}"
    if event.amount == 0:
        return f"gap in {where} filled"
    return f"gap in {where}, {event.amount:,} {things} missing"


def _cells(one: SymbolStatus, *, is_over: bool) -> tuple[str, ...]:
    rates = (None, None) if is_over else (one.trades_per_second, one.books_per_second)
    ages = (None, None) if is_over else (one.trades_age, one.books_age)
    prices = (one.last_price, one.bid, one.ask, one.spread)
    return (
        one.symbol,
        show(one.trades),
        show(rates[0], 1),
        show(ages[0], 1),
        *(_price(price, one.price_decimals) for price in prices),
        show(one.lag_ms, 1),
        show(one.books),
        show(rates[1], 1),
        show(ages[1], 1),
        *(show(count) for count in (one.gaps, one.gaps_resynced, one.missing)),
        *(show(count) for count in (one.backfilled, one.doubles)),
    )


def _price(price: float | None, decimals: int | None) -> str:
    return NOTHING if price is None else show_number(price, decimals)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}" if size < 1e8 else f"{size / 1e6:,.0f}"
