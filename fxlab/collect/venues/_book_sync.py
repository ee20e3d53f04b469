"""Order book synchronisation of snapshot and numbered updates; best quotes; time gaps of trades.

One rule for venues that number updates: changes are buffered until a snapshot comes that they
follow; the first one that does not follow ends the book's known time and begins a gap. A feed
fetches the snapshots.

A snapshot of so many levels says nothing about those beyond them, which may rest there for days
without a change. So a book is known as far as its snapshot reached, and no further: before the
price comes near that edge a new snapshot is asked for, and its levels are added; where it came too
late, a gap begins. A new snapshot has to agree with the levels that are recorded, too.

Books of venues that send the snapshot themselves are `SubscribedBook`s: one that is lost is
subscribed again, alone, by `Resubscriptions`.

`BestPrices` makes quotes for venues that send only books. `TradeGapTracker` says where trades may
be lost on venues whose trades cannot be counted by their ids.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from math import inf
from typing import Final, NamedTuple

from fxlab._network import wait_before
from fxlab.collect._live.books import OrderBook, Side
from fxlab.collect.feed import BookDelta, BookSnapshot, Event, Gap, Level, Message, Quote, Trade

MOST_HELD: Final = 20_000
"""Changes held while a snapshot is on its way; older ones are forgotten, as it will be newer."""
LATE: Final = 1_000_000
"""By how much an update id may be behind to be a late or duplicate one; more is a new count."""
SKEW_US: Final = 60_000_000
"""By how much this machine's clock may differ where it has to stand in for the venue's."""


class Diff(NamedTuple):
    """A change of a book as it came, not yet known to follow.

    Attributes
    ----------
    previous
        Update id that must have come before it: as the venue says, or its first id less one.
    """

    symbol: str
    previous: int
    first: int
    last: int
    bids: list[Level]
    asks: list[Level]
    time: int
    received: int

    @property
    def delta(self) -> BookDelta:
        """Return it as a message."""
        return BookDelta(
            self.symbol, self.first, self.last, self.bids, self.asks, self.time, self.received
        )


class GapRecord:
    """When a book was last known, and the gap that lasts since then.

    Parameters
    ----------
    symbol
        fxlab's name.
    """

    def __init__(self, symbol: str) -> None:
        self.symbol = symbol
        self._last_time: int | None = None
        self._gap: Gap | None = None

    def lose(self, cause: str, missing: int | None = None) -> list[Message]:
        """Return the gap that begins, unless one has begun already or nothing was known."""
        if self._gap is not None or self._last_time is None:
            return []
        self._gap = Gap(self.symbol, "orderbook", self._last_time, None, missing, cause)
        return [self._gap]

    def _known(self, time: int) -> list[Message]:
        """Take note that the book is known at a time; return the end of the gap before."""
        gap, self._gap, self._last_time = self._gap, None, time
        if gap is None:
            return []
        ended = gap._replace(to_time=max(time, gap.from_time))
        return [ended, Event("resync", self.symbol, time, 1, gap.cause)]


class SnapshotEdge:
    """How far a book is known: its levels as far as the snapshots reached that it is made of.

    Parameters
    ----------
    depth
        Levels of each side that have to be known.
    """

    def __init__(self, depth: int) -> None:
        self._depth = depth
        self._asked = 0
        self._book = OrderBook()
        self._edges = (-inf, -inf)

    def begin(self, snapshot: BookSnapshot, asked: int | None) -> None:
        """Begin with a snapshot; a side with fewer levels than were asked for is whole."""
        self._book.reset(snapshot.bids, snapshot.asks)
        self._asked = asked or 0
        self._edges = (self._edge(self._book.bids), self._edge(self._book.asks))

    def apply(self, diff: Diff) -> None:
        """Follow a change."""
        self._book.apply(diff.bids, diff.asks)

    @property
    def passed(self) -> bool:
        """Return whether a level that is recorded lies beyond the edge."""
        return not self._reaches(self._depth)

    @property
    def near(self) -> bool:
        """Return whether fewer than half of a snapshot's levels are left up to the edge."""
        return not self._reaches((self._asked + self._depth) // 2)

    def words(self) -> str:
        """Return why a book is not known, in words."""
        return f"the price has left the {self._asked:,} levels of the last snapshot"

    def agrees(self, other: SnapshotEdge) -> bool:
        """Return whether the levels that are recorded are the same."""
        return self._book.top(self._depth) == other._book.top(self._depth)

    def widen(self, new: SnapshotEdge) -> tuple[list[Level], list[Level]]:
        """Take over what a new snapshot knows, and return the levels that it changes."""
        found = []
        sides = ((self._book.bids, new._book.bids), (self._book.asks, new._book.asks))
        for (before, now), edge in zip(sides, new._edges, strict=True):
            known, fresh = (dict(side.best(len(side.keys))) for side in (before, now))
            levels = [(price, qty) for price, qty in fresh.items() if known.get(price) != qty]
            gone = known.keys() - fresh.keys()
            levels += [(price, 0.0) for price in gone if price * now.sign >= edge]
            before.apply(levels)
            found.append(levels)
        self._asked, self._edges = new._asked, new._edges
        return found[0], found[1]

    def snapshot(self, like: BookSnapshot) -> BookSnapshot:
        """Return all levels as a snapshot."""
        bids, asks = (side.best(len(side.keys)) for side in (self._book.bids, self._book.asks))
        return like._replace(bids=bids, asks=asks)

    def _edge(self, side: Side) -> float:
        return side.keys[0] if self._asked and len(side.keys) >= self._asked else -inf

    def _reaches(self, levels: int) -> bool:
        sides = (self._book.bids.keys, self._book.asks.keys)
        return all(
            edge == -inf or (len(keys) >= levels and keys[-levels] >= edge)
            for keys, edge in zip(sides, self._edges, strict=True)
        )


class SyncedBook(GapRecord):
    """What is known of one symbol's book: in step with the venue, or waiting for a snapshot.

    Parameters
    ----------
    symbol
        fxlab's name.
    timed
        Whether the venue says which time a snapshot is of; else its time is that of its arrival.
    depth
        Levels of each side that are recorded.

    Attributes
    ----------
    last
        Update id up to which the book is known; None while it is not known.
    renewing
        Whether a snapshot is awaited for a book that is known.
    """

    def __init__(self, symbol: str, *, timed: bool = True, depth: int = 1) -> None:
        super().__init__(symbol)
        self.last: int | None = None
        self.renewing = False
        self._held: list[Diff] = []
        self._followed = False
        self._timed = timed
        self._untold: BookSnapshot | None = None
        """A snapshot of which nobody can say when it was true before the stream has caught up."""
        self._depth = depth
        self._edge = SnapshotEdge(depth)
        self._newer: tuple[BookSnapshot, int | None] | None = None
        """A snapshot for a book that is known, which the stream has not caught up with."""
        self._newer_than = 0
        """The update that it has to contain."""
        self._sure_at = 0
        """When the book was last known to be right: it came from a snapshot, or agreed with it."""

    @property
    def held(self) -> int:
        """Return how many changes wait for a snapshot."""
        return len(self._held)

    @property
    def worn(self) -> bool:
        """Return whether a new snapshot should be asked for, though the book is known."""
        return self.last is not None and not self.renewing and self._edge.near

    def renew(self) -> None:
        """Keep changes from now on, until a new snapshot comes that they follow."""
        self.renewing, self._held, self._newer_than = True, [], self.last or 0

    def take(self, diff: Diff) -> list[Message]:
        """Return what a change means: itself, nothing yet, or the beginning of a gap."""
        if self.last is None:
            self._hold(diff)
            return []
        if diff.last <= self.last:
            return self._repeated(diff)
        if diff.previous > self.last:
            missing = diff.previous - self.last
            told = self.lose(f"{missing:,} update ids after {self.last} are missing", missing)
            self._hold(diff)
            return told
        self._edge.apply(diff)
        if self._edge.passed:
            told = self.lose(self._edge.words())
            self._hold(diff)
            return told
        told = self._tell(diff.time)
        self.last, self._followed = diff.last, True
        self._last_time = max(diff.time, self._last_time or 0)
        told.append(diff.delta)
        if self.renewing:
            self._held.append(diff)
            told += self._renewed(diff.received)
        return told

    def offer(self, snapshot: BookSnapshot, asked: int | None = None) -> list[Message] | None:
        """Return the snapshot and what follows it, or None if it is too old to be followed.

        A gap that was open is closed first. A snapshot is never told at a time at which it was not
        true yet: one that is newer than the last change in it has its own time or, if it has none,
        that of the next change, for which it waits.

        Parameters
        ----------
        snapshot
            As it came.
        asked
            How many levels of each side were asked for; None for all.
        """
        if self.last is not None:
            return self._offer_newer(snapshot, asked) if self.renewing else []
        later = [diff for diff in self._held if diff.last > snapshot.update_id]
        if later and later[0].previous > snapshot.update_id:
            return None
        known = self._held[: len(self._held) - len(later)]
        self._held = []
        self.last, self._followed, self._untold = snapshot.update_id, False, snapshot
        self._edge.begin(snapshot, asked)
        messages = self._tell(self._time_of(snapshot, known, later))
        for diff in later:
            messages += self.take(diff)
        return messages

    def _offer_newer(self, snapshot: BookSnapshot, asked: int | None) -> list[Message] | None:
        if snapshot.update_id < self._newer_than:
            return None
        self._newer = (snapshot, asked)
        return self._renewed(snapshot.received)

    def _renewed(self, received: int) -> list[Message]:
        """Return what a new snapshot of a known book means, once the stream has caught up with it.

        Its levels beyond those that are recorded are told as a change at the last update, of which
        no row is made. If the others are not those of the book, the book was wrong, since it was
        last known to be right; the next change ends that.
        """
        last, time = self.last or 0, self._last_time or 0
        if self._newer is None or self._untold is not None or self._newer[0].update_id > last:
            return []
        (snapshot, asked), self._newer, self.renewing = self._newer, None, False
        held, self._held = self._held, []
        new = SnapshotEdge(self._depth)
        new.begin(snapshot, asked)
        for diff in held:
            if diff.last > snapshot.update_id:
                new.apply(diff)
        if new.passed:
            return []  # it came too late; the next one is asked for
        if not new.agrees(self._edge):
            cause = f"the snapshot at update {snapshot.update_id} is not the book of the updates"
            self._gap = Gap(self.symbol, "orderbook", self._sure_at, None, None, cause)
            self._edge, self._untold = new, new.snapshot(snapshot._replace(update_id=last))
            return [self._gap]
        self._sure_at = time
        return [BookDelta(self.symbol, last + 1, last, *self._edge.widen(new), time, received)]

    def _time_of(self, snapshot: BookSnapshot, known: list[Diff], later: list[Diff]) -> int | None:
        """Return when a snapshot was true, from the changes in it and after it; None if unknown."""
        if known and known[-1].last == snapshot.update_id:
            return known[-1].time
        if self._timed:
            time = max(snapshot.time, known[-1].time if known else 0)
            return min(time, later[0].time) if later else time
        if later:
            return later[0].time
        return None if known else snapshot.time

    def _tell(self, time: int | None) -> list[Message]:
        """Return the snapshot that waited for its time, once that is known."""
        if self._untold is None or time is None:
            return []
        snapshot, self._untold = self._untold, None
        time = self._sure_at = max(time, self._last_time or 0)
        return [*self._known(time), snapshot._replace(time=time)]

    def lose(self, cause: str, missing: int | None = None) -> list[Message]:
        """Forget the book; return the gap that begins, unless one has begun already."""
        self.last = self._untold = self._newer = None
        self.renewing, self._held = False, []
        return super().lose(cause, missing)

    def _hold(self, diff: Diff) -> None:
        """Keep a change; one that does not follow those before makes them useless."""
        if self._held and diff.last <= self._held[-1].last:
            if diff.time <= self._held[-1].time:
                return
            self._held.clear()
        elif self._held and diff.previous > self._held[-1].last:
            self._held.clear()
        self._held.append(diff)
        if len(self._held) > MOST_HELD:
            del self._held[: MOST_HELD // 2]

    def _repeated(self, diff: Diff) -> list[Message]:
        """Take a change whose ids are known: a duplicate, in the snapshot, or of a new count.

        The ids of a snapshot may be far ahead of a stream that is late. Its changes are in it if
        they are older, by the venue's clock; by ours, if that is all there is, more or less.
        """
        last, untold = self.last or 0, self._untold
        if untold is not None and diff.last == last:
            return self._tell(diff.time)
        time = self._last_time or 0 if untold is None else untold.received + SKEW_US
        in_snapshot = not self._followed and last - diff.last < LATE
        if diff.time <= time or in_snapshot:
            return []
        told = self.lose(f"ids of updates went back from {self.last} to {diff.last}")
        self._hold(diff)
        return told


class SubscribedBook(GapRecord):
    """One symbol's book that begins with the snapshot which a subscription brings.

    Parameters
    ----------
    symbol
        fxlab's name.

    Attributes
    ----------
    synced
        Whether the book is known.
    broken
        Whether it takes a new subscription to know it again.
    proofs
        How many snapshots were good.
    """

    def __init__(self, symbol: str) -> None:
        super().__init__(symbol)
        self.synced = False
        self.broken = False
        self.proofs = 0

    def lose(self, cause: str, missing: int | None = None) -> list[Message]:
        """Forget the book; return the gap that begins, if none has begun already."""
        self.synced, self.broken = False, True
        return super().lose(cause, missing)

    def expect_snapshot(self) -> None:
        """Take note that a new subscription is under way."""
        self.broken = False

    def _begun(self, time: int) -> list[Message]:
        """Take note of a good snapshot; return the end of the gap before."""
        self.synced, self.broken = True, False
        self.proofs += 1
        return self._known(time)


PATIENCE: Final = (5.0, 60.0)
"""Seconds that a snapshot may take before it is asked for again, at first and at most."""


class Resubscriptions:
    """New subscriptions of single books, repeated until they are known again.

    Parameters
    ----------
    send
        Sends a text over the connection.
    requests
        Returns the texts that end the subscription of a venue's name and begin it anew.
    """

    def __init__(
        self, send: Callable[[str], Awaitable[None]], requests: Callable[[str], Sequence[str]]
    ) -> None:
        self._send, self._requests = send, requests
        self._tasks: dict[str, tuple[asyncio.Task[None], int]] = {}

    def mend(self, books: Iterable[tuple[str, SubscribedBook]]) -> None:
        """Begin with those that are broken, each with the venue's name, and not mended yet."""
        for native, book in books:
            if not book.broken:
                continue
            book.expect_snapshot()
            task, proofs = self._tasks.get(native, (None, 0))
            if task is not None and proofs == book.proofs and not task.done():
                # Its snapshot did not prove itself: the next attempt must wait.
                continue
            if task is not None:
                task.cancel()
            mending = asyncio.create_task(self._mend(native, book, book.proofs))
            self._tasks[native] = (mending, book.proofs)

    async def stop(self) -> None:
        """Forget them all: the connection is gone."""
        tasks = [task for task, _ in self._tasks.values()]
        self._tasks.clear()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    async def _mend(self, native: str, book: SubscribedBook, proofs: int) -> None:
        for attempt in itertools.count():
            if book.proofs != proofs:
                return
            for text in self._requests(native):
                await self._send(text)
            await asyncio.sleep(wait_before(attempt, *PATIENCE))


class QuoteStream(GapRecord):
    """The best bid and ask of one symbol: each message is whole, so nothing has to be in step."""

    def __init__(self, symbol: str) -> None:
        super().__init__(symbol)
        self._last: int | None = None

    def take(self, quote: Quote) -> list[Message]:
        """Return the quote, unless a newer one came before; it closes an open gap."""
        behind = -1 if self._last is None else self._last - quote.update_id
        if behind >= 0 and (behind < LATE or quote.time <= (self._last_time or 0)):
            return []
        self._last = quote.update_id
        return [*self._known(quote.time), quote]


class BestPrices:
    """Makes quotes of the messages about books: one for each change of the best bid or ask."""

    def __init__(self) -> None:
        self._books: dict[str, OrderBook] = {}
        self._told: dict[str, tuple[float | None, ...]] = {}

    def of(self, messages: list[Message]) -> list[Message]:
        """Return the messages with quotes in place of snapshots and deltas."""
        found: list[Message] = []
        for message in messages:
            if isinstance(message, BookSnapshot | BookDelta):
                found += self._quote(message)
            else:
                found.append(message)
        return found

    def _quote(self, message: BookSnapshot | BookDelta) -> list[Message]:
        symbol = message.symbol
        book = self._books.setdefault(symbol, OrderBook())
        if isinstance(message, BookSnapshot):
            book.reset(message.bids, message.asks)
            self._told.pop(symbol, None)
        else:
            book.apply(message.bids, message.asks)
        best = bid, bid_qty, ask, ask_qty = book.top(1)
        if best == self._told.get(symbol):
            return []
        if bid is None or bid_qty is None or ask is None or ask_qty is None:
            return []
        self._told[symbol] = best
        update, time, received = message.update_id, message.time, message.received
        return [Quote(symbol, bid, bid_qty, ask, ask_qty, update, time, received)]


class TradeGapTracker:
    """Tells the stretches in which trades may have been missed, symbol by symbol.

    Parameters
    ----------
    history
        Whether the venue's newest trades are asked for: a gap is told to be over by `end` then.

    Attributes
    ----------
    after
        The first trade after each gap that waits for `end`.
    """

    def __init__(self, *, history: bool = False) -> None:
        self.after: dict[str, Trade] = {}
        self._history = history
        self._times: dict[str, int] = {}
        self._open: dict[str, Gap] = {}

    def listen(self, symbols: Collection[str], time: int) -> None:
        """Take note that trades would come from now on, where none has come before."""
        for symbol in symbols:
            self._times.setdefault(symbol, time)

    def take(self, trade: Trade) -> list[Message]:
        """Return the trade, after the end of a gap if it is the first one since."""
        if trade.time > self._times.get(trade.symbol, 0):
            self._times[trade.symbol] = trade.time
        if not self._open:
            return [trade]
        gap = self._open.get(trade.symbol)
        # Trades from before the gap, which some venues tell again, do not end it.
        if gap is None or trade.time <= gap.from_time or trade.symbol in self.after:
            return [trade]
        if self._history:
            self.after[trade.symbol] = trade
            return [trade]
        del self._open[trade.symbol]
        return [gap._replace(to_time=trade.time), trade]

    def lose(self, cause: str, symbols: Collection[str] | None = None) -> list[Message]:
        """Return the gaps that begin, one for each symbol that is listened to and has none open.

        Parameters
        ----------
        cause
            Why something may be missing.
        symbols
            Which symbols are concerned; None for all.
        """
        ended = [
            message
            for symbol, first in [*self.after.items()]
            if symbols is None or symbol in symbols
            for message in self.end(first, filled=False)
        ]
        begun = {
            symbol: Gap(symbol, "prices", time, None, None, cause)
            for symbol, time in self._times.items()
            if symbol not in self._open and (symbols is None or symbol in symbols)
        }
        self._open |= begun
        return [*ended, *begun.values()]

    def end(self, first: Trade, *, filled: bool) -> list[Message]:
        """Return the end of a gap before a trade, unless it was told when trades were lost again.

        Parameters
        ----------
        first
            What is in `after`.
        filled
            Whether all that is missing was found.
        """
        if self.after.get(first.symbol) is not first:
            return []
        del self.after[first.symbol]
        gap = self._open.pop(first.symbol)
        return [gap._replace(to_time=first.time, missing=0 if filled else None)]
