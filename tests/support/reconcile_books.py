"""A venue's order books beside those in the database: every stored level, every lost change.

Each stored row is compared with the venue's book at the same update id, so a hole that nobody
noticed shows as wrong levels; and each change that the venue swallowed has to lie in a gap.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from itertools import zip_longest

import polars as pl
from reconcile import Ids, gap_details, say

from fxlab.collect._live.books import OrderBook
from fxlab.mock import MockVenue
from fxlab.mock._market import Book, BookChange
from fxlab.schema import book_levels
from fxlab.sessions.session import Session

FOREVER = 1 << 62
START = datetime(1970, 1, 1, tzinfo=UTC)
LEAPT = re.compile(r"([\d,]+) update ids after (\d+) are missing")


@dataclass
class Books:
    """One symbol's books beside the truth.

    Attributes
    ----------
    stored, wrong
        Rows, and those that differ from the venue's best levels at their update id.
    dropped, unseen
        Changes that were dropped while the book was recorded, and those of them in no gap.
    invented
        Leaps of the ledger over ids that were not dropped.
    """

    case: str
    symbol: str
    stored: int = 0
    wrong: int = 0
    dropped: int = 0
    unseen: list[Ids] = field(default_factory=list)
    gaps: int = 0
    open: int = 0
    invented: list[Ids] = field(default_factory=list)

    def __str__(self) -> str:
        return (
            f"{self.case}, books of {self.symbol}: stored {self.stored:,} wrong {self.wrong}; "
            f"changes dropped {self.dropped} unseen {len(self.unseen)}; gaps {self.gaps} "
            f"(not closed {self.open}), invented {len(self.invented)}"
        )


def compare(
    case: str, session: Session, venue: MockVenue, symbol: str, *, stream: str = "@depth"
) -> Books:
    """Compare a symbol's stored books with the venue's, print the line, and assert it."""
    rows = session.orderbook(symbol)
    details = gap_details(session, symbol, "orderbook")
    dropped = [
        fault
        for fault in venue.ledger()["faults"]
        if fault["fault"] == "drop" and fault["symbol"] == symbol and stream in fault["stream"]
    ]
    found = Books(case, symbol, rows.height, gaps=len(details))
    found.open = sum(one["to_time"] is None for one in details)
    found.wrong = _wrong_rows(rows, venue, symbol)
    spans = [(one["from_time"], one["to_time"]) for one in details]
    for fault in dropped:
        time = START + timedelta(microseconds=fault["time"])
        before = rows.filter(pl.col("timestamp") <= time)["seq"].max()
        # It is no loss before the first book, after the last, or if a snapshot ran ahead of it.
        if before is None or before >= fault["u"] or time > rows["timestamp"].max():
            continue
        found.dropped += 1
        if not any(start <= time <= (end or time) for start, end in spans):
            found.unseen.append((fault["U"], fault["u"]))
    reasons = [*((one["U"], one["u"]) for one in dropped), *_silent_changes(venue, symbol)]
    leaps = [_leap(one["cause"]) for one in details]
    found.invented = [
        leap
        for leap in leaps
        if leap and not any(leap[0] <= last and first <= leap[1] for first, last in reasons)
    ]
    say(found)
    assert found.stored > 0
    assert (found.wrong, found.unseen, found.invented, found.open) == (0, [], [], 0), str(found)
    return found


def _leap(cause: str) -> Ids | None:
    told = LEAPT.match(cause)
    if told is None:
        return None
    after, missing = int(told[2]), int(told[1].replace(",", ""))
    return after + 1, after + missing


def _silent_changes(venue: MockVenue, symbol: str) -> Iterator[Ids]:
    """Yield the changes that happened while the venue was silent, its connections open."""
    told = [one for one in venue.ledger()["faults"] if one["fault"] in ("stall", "speaks")]
    for stall, speaks in zip_longest(told[::2], told[1::2]):
        end = speaks["time"] if speaks else FOREVER
        for change in _changes(venue, symbol):
            if stall["time"] <= change.time <= end:
                yield change.id, change.id


def _changes(venue: MockVenue, symbol: str) -> Iterator[BookChange]:
    """Yield what happened to a book, as the market makes it a second time."""
    last, start = venue.truth.books[symbol].id, venue._exchange._start
    for event in venue._exchange.market.events(start):
        if isinstance(event, BookChange) and event.symbol == symbol:
            yield event
            if event.id >= last:
                return


def _wrong_rows(rows: pl.DataFrame, venue: MockVenue, symbol: str) -> int:
    """Return how many rows are not the venue's best levels after their update id."""
    wanted = {row["seq"]: row for row in rows.iter_rows(named=True)}
    wrong = len(wanted)
    for number, levels in _levels(venue, symbol):
        row = wanted.get(number)
        wrong -= row is not None and levels == tuple(row[name] for name in book_levels())
    return wrong


def _levels(venue: MockVenue, symbol: str) -> Iterator[tuple[int, tuple]]:
    """Yield update ids and best levels, one after the other."""
    market = venue._exchange.market
    listing, book = market.listings[symbol], Book(market.opening(symbol))
    scales = (listing.price_decimals, listing.quantity_decimals)
    yield book.id, _top(book, scales)
    for change in _changes(venue, symbol):
        book.apply(change)
        yield book.id, _top(book, scales)


def _top(book: Book, scales: tuple[int, int]) -> tuple:
    sides = [
        [(price / 10 ** scales[0], quantity / 10 ** scales[1]) for price, quantity in side]
        for side in book.top(10)
    ]
    ordered = OrderBook()
    ordered.reset(*sides)
    return ordered.top(10)
