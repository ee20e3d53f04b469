"""A recording's status as people read it: the same words in the panel and in the terminal.

Everything here is plain text of values that came from outside; whoever shows it escapes it.
"""

from __future__ import annotations

from datetime import timedelta
from typing import Final

from fxlab.collect.feed import Event
from fxlab.collect.status import OUTAGE, STOPPING, CollectorStatus, SymbolStatus
from fxlab.html import NOTHING, show, show_number
from fxlab.sessions import Session
from fxlab.times import from_micros

COLUMNS: Final = (
    "symbol", "trades", "trades/s", "last", "bid", "ask", "spread", "lag ms", "books", "books/s",
    "gaps", "missing", "backfilled", "doubles",
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
        f"{status.gaps:,} {'gap' if status.gaps == 1 else 'gaps'} not filled",
    ]
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
    """Return a row of the gap ledger as a sentence, or nothing."""
    if event is None:
        return ""
    where = f" {event.symbol}" if event.symbol else ""
    return f"{from_micros(event.time):%H:%M:%S}{where}: {_what(event)}"


def stored(session: Session) -> str:
    """Return what a recording left, and how to prove it."""
    gaps = f"{session.gaps_count:,} {'gap was' if session.gaps_count == 1 else 'gaps were'}"
    return (
        f"{session.status}: {session.prices_count:,} trades and {session.orderbook_count:,} books "
        f"are stored in session {session.id}; {gaps} not filled; prove it with "
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
    prices = (one.last_price, one.bid, one.ask, one.spread)
    return (
        one.symbol,
        show(one.trades),
        show(rates[0], 1),
        *(_price(price, one.price_decimals) for price in prices),
        show(one.lag_ms, 1),
        show(one.books),
        show(rates[1], 1),
        *(show(count) for count in (one.gaps, one.missing, one.backfilled, one.doubles)),
    )


def _price(price: float | None, decimals: int | None) -> str:
    return NOTHING if price is None else show_number(price, decimals)


def _clock(seconds: float) -> str:
    return str(timedelta(seconds=int(seconds)))


def _megabytes(size: int) -> str:
    return f"{size / 1e6:,.1f}" if size < 1e8 else f"{size / 1e6:,.0f}"
