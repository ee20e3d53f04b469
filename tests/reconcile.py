"""A venue's truth beside what the database holds: one line a symbol, and what it has to say.

Both sides are counted by somebody else than the collector: the mock venue knows every trade that
happened and which of them it never told; the rows are read from the database. A test prints the
line, so that a run of all faults ends in a table, and asserts it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from itertools import zip_longest

import polars as pl

from fxlab.collect.order_book import OrderBook
from fxlab.lab import Lab
from fxlab.mock import MockVenue
from fxlab.mock.market import BookChange
from fxlab.mock.truth import Book
from fxlab.schema import book_levels
from fxlab.sessions import Session

Ids = tuple[int, int]
COLUMNS = ("seq", "timestamp", "price", "volume", "side", "origin", "trade_id")
FOREVER = 1 << 62
LEAPT = re.compile(r"([\d,]+) update ids after (\d+) are missing")


@dataclass(frozen=True)
class Account:
    """One symbol's trades.

    Attributes
    ----------
    sent
        Trades that a collector had to get: on the stream, or by asking for them.
    stored, lost, duplicated, foreign
        Distinct trades in the database; those of `sent` that are not; rows too many; trades that
        never happened, or not like this.
    backfilled
        Of `stored`, those that were asked for.
    injected, found, invented
        Gaps that the venue made; that the ledger has; that it has without a reason.
    """

    case: str
    symbol: str
    sent: int
    stored: int
    lost: int
    duplicated: int
    foreign: int
    backfilled: int
    injected: frozenset[Ids]
    found: frozenset[Ids]
    killed: int = 0
    """Trades that were on their way through a process that was killed, and asked for again."""

    @property
    def missed(self) -> list[Ids]:
        """Return gaps that the venue made and the ledger does not have."""
        return sorted(one for one in self.injected if not self._covered(one))

    @property
    def invented(self) -> list[Ids]:
        """Return gaps of the ledger in which everything had been told."""
        return sorted(
            one
            for one in self.found
            if not any(one[0] <= b and a <= one[1] for a, b in self.injected)
        )

    def _covered(self, gap: Ids) -> bool:
        return any(first <= gap[0] and gap[1] <= last for first, last in self.found)

    def __str__(self) -> str:
        killed = f", {self.killed} in killed hands" if self.killed else ""
        return (
            f"{self.case}, {self.symbol}: sent {self.sent:,} stored {self.stored:,} "
            f"lost {self.lost} duplicated {self.duplicated} (foreign {self.foreign}, "
            f"{self.backfilled:,} by backfill{killed}); gaps injected {len(self.injected)} "
            f"found {len(self.found)} missed {len(self.missed)} invented {len(self.invented)}"
        )


def say(line: object) -> None:
    """Print a line of the table of faults."""
    print(f"\n  {line}", end="", flush=True)


def trades(
    case: str,
    lab: Lab,
    session: Session,
    venue: MockVenue,
    *,
    backfill: bool = True,
    kills: bool = False,
    name: str = "binance",
) -> list[Account]:
    """Compare all symbols' trades, print the lines, and assert that nothing is lost or doubled.

    Parameters
    ----------
    backfill
        Whether trades that were never told had to be asked for.
    kills
        Whether a collector was killed: what it had not journaled then may be a gap, too.
    """
    said = venue.ledger()["venues"][name]
    found = [_account(case, session, venue, symbol, said[symbol], backfill) for symbol in said]
    for one in found:
        say(one)
        assert (one.lost, one.duplicated, one.foreign) == (0, 0, 0), str(one)
        assert one.stored == one.sent, str(one)
        assert one.missed == [], str(one)
        if kills:
            continue
        assert one.invented == [], str(one)
        assert one.found == one.injected, str(one)
    receipt = lab.verify(session.id)
    assert receipt.whole, str(receipt)
    return found


def _account(
    case: str, session: Session, venue: MockVenue, symbol: str, said: dict, backfill: bool
) -> Account:
    unsent = [(first, last) for first, last in said["unsent"]]
    first = said["sent_first_id"]
    truth = venue.truth.deals[symbol].frame()
    truth = truth.filter(pl.col("id").is_between(first, first + said["happened"] - 1))
    if unsent and unsent[-1][1] == truth["id"][-1]:
        # Nobody was told of the last ones, so nobody can know that there were any.
        truth = truth.filter(pl.col("id") < unsent.pop()[0])
    heard = truth.filter(~_inside(pl.col("id"), unsent))
    wanted = truth if backfill else heard
    stored = session.prices(symbol, columns=COLUMNS)
    asked = stored.filter(pl.col("origin") == "backfill")
    gaps = frozenset(gap_ids(session, symbol))
    return Account(
        case,
        symbol,
        sent=wanted.height,
        stored=stored["seq"].n_unique(),
        lost=wanted.join(stored, left_on="id", right_on="seq", how="anti").height,
        duplicated=stored.height - stored["seq"].n_unique(),
        foreign=_as_told(stored).join(_as_told(truth), on=_SAME, how="anti").height,
        backfilled=asked.height,
        injected=frozenset(unsent),
        found=gaps,
        killed=asked.filter(~_inside(pl.col("seq"), unsent)).height,
    )


_SAME = ["id", "time", "price", "quantity", "bought"]


def _as_told(trades: pl.DataFrame) -> pl.DataFrame:
    """Return trades of either side in the same columns; times as coarse as the venue tells them."""
    if "seq" in trades.columns:
        trades = trades.select(
            pl.col("seq").alias("id"),
            pl.col("timestamp").dt.epoch("us").alias("time"),
            "price",
            pl.col("volume").alias("quantity"),
            (pl.col("side") == "buy").alias("bought"),
        )
    return trades.select(_SAME).with_columns(pl.col("time") // 1_000)


def _inside(ids: pl.Expr, ranges: list[Ids]) -> pl.Expr:
    return pl.any_horizontal(pl.lit(value=False), *(ids.is_between(a, b) for a, b in ranges))


def gap_ids(session: Session, symbol: str) -> Iterator[Ids]:
    """Yield the ranges of ids that the ledger calls gaps."""
    for detail in gap_details(session, symbol, "prices"):
        yield detail["first_id"], detail["last_id"]


def gap_details(session: Session, symbol: str, what: str) -> list[dict]:
    """Return what the ledger says of a symbol's gaps of a kind."""
    rows = session.events().filter(pl.col("event") == "gap", pl.col("symbol") == symbol)
    details = [
        json.loads(row["detail"]) | {"count": row["count"], "to_time": row["to_time"]}
        for row in rows.iter_rows(named=True)
    ]
    return [one for one in details if one["what"] == what]


def uncovered(session: Session, symbol: str, moments: Sequence[datetime]) -> list[datetime]:
    """Return the moments that no gap of a symbol's book covers."""
    gaps = events(session, "gap").filter(
        pl.col("symbol") == symbol, pl.col("detail").str.contains('"what": "orderbook"')
    )
    spans = gaps.select("from_time", "to_time").rows()
    return [one for one in moments if not any(a <= one <= b for a, b in spans)]


def events(session: Session, kind: str) -> pl.DataFrame:
    """Return the events of a kind."""
    return session.events().filter(pl.col("event") == kind)


@dataclass
class Books:
    """One symbol's books beside the truth.

    Attributes
    ----------
    stored, wrong
        Rows, and those that differ from the venue's best levels at their update id.
    dropped, unseen
        Changes that were dropped, and those of them whose loss nothing tells.
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


def books(
    case: str, session: Session, venue: MockVenue, symbol: str, *, stream: str = "@depth"
) -> Books:
    """Compare a symbol's stored books with the venue's, print the line, and assert it."""
    rows = session.orderbook(symbol)
    details = gap_details(session, symbol, "orderbook")
    dropped = [
        (fault["U"], fault["u"])
        for fault in venue.ledger()["faults"]
        if fault["fault"] == "drop" and fault["symbol"] == symbol and stream in fault["stream"]
    ]
    found = Books(case, symbol, rows.height, dropped=len(dropped), gaps=len(details))
    found.open = sum(one["to_time"] is None for one in details)
    found.wrong = _wrong_rows(rows, venue, symbol)
    leaps = [_leap(one["cause"]) for one in details]
    known = rows["seq"].to_list()
    found.unseen = [one for one in dropped if not _told(one, leaps, known)]
    reasons = [*dropped, *_silent_changes(venue, symbol)]
    found.invented = [
        leap
        for leap in leaps
        if leap and not any(leap[0] <= u and f <= leap[1] for f, u in reasons)
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


def _told(change: Ids, leaps: list[Ids | None], known: list[int]) -> bool:
    """Return whether a leap covers a change, or the book was not known at its time anyway."""
    if any(leap and leap[0] <= change[0] and change[1] <= leap[1] for leap in leaps):
        return True
    before = max((one for one in known if one < change[0]), default=None)
    return before is None or not any(one == change[1] + 1 for one in known)


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
    last, start = venue.truth.books[symbol].id, venue._floor._start
    for happening in venue._floor.market.happenings(start):
        if isinstance(happening, BookChange) and happening.symbol == symbol:
            yield happening
            if happening.id >= last:
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
    market = venue._floor.market
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
