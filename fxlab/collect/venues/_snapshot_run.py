"""Run of a subscription: sockets, states of symbols, and books that begin with a snapshot.

The snapshot is asked for by REST (`SnapshotRun`), or comes with the subscription (`SubscribedRun`).

Everything that arrives (frames, snapshots, statuses) goes through one short queue, in the order in
which it happened here; one loop takes it from there and alone touches the books. A slow consumer
fills the queue, which stops the sockets from being read, and nothing is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, NamedTuple, NoReturn, TypeVar

from fxlab._network import wait_before
from fxlab.collect._live.books import OrderBook, Side
from fxlab.collect.feed import (
    NOT_AS_DOCUMENTED,
    BookDelta,
    BookSnapshot,
    Event,
    Gap,
    Instrument,
    Level,
    Message,
    Subscription,
    cause_of,
)
from fxlab.collect.venues._book_sync import (
    LATE,
    BestPrices,
    Diff,
    Resubscriptions,
    SubscribedBook,
    SyncedBook,
    TradeGapTracker,
)
from fxlab.collect.venues._rest import ODD_LISTING, RestFeed
from fxlab.collect.venues._websocket import (
    Arrival,
    ConnectionClosed,
    ConnectionOpened,
    Frame,
    ReconnectingWebSocket,
)
from fxlab.errors import VenueError
from fxlab.schema import BOOK_DEPTH, CHANNELS

FIRST_CHANGE: Final = 3.0
"""Seconds to wait for a change before the snapshot is fetched: it has to be newer."""
FETCHES_AT_ONCE: Final = 4
RETRY: Final = (0.2, 30.0)
"""First and longest wait in seconds before another snapshot."""
REFUSED_LOOK: Final = 1.0
"""Seconds at most between two looks whether a venue that refused may be asked again."""
TOLD_WAIT: Final = 2.0
"""Seconds from which on an event tells that snapshots wait for the venue's rate limit."""
STATUS_EVERY, LEAST_BETWEEN = 600.0, 30.0
"""Seconds between two looks at the symbols' states; at least, where a stream has gone silent."""
MOST_AT_ONCE: Final = 20_000

Connection = TypeVar("Connection")


@dataclass(frozen=True, slots=True)
class Fetch:
    """A request for a snapshot; its number tells the present one from one that was given up."""

    symbol: str
    attempt: int
    number: int


class VenueRun(ABC, Generic[Connection]):
    """Runs one subscription: `batches` until that is closed.

    Parameters
    ----------
    feed
        Asks the venue.
    symbols
        All that is recorded; an event says once that one is no longer traded.
    """

    def __init__(self, feed: RestFeed, symbols: Collection[str]) -> None:
        self._clock = feed.clock
        self._venue = feed
        self._watched = set(symbols)
        self._wires: list[tuple[Connection, ReconnectingWebSocket]] = []
        self._queue: asyncio.Queue[Callable[[], list[Message]]] = asyncio.Queue(maxsize=4)
        """What happened, each as the work that tells what it means."""
        self._tasks: set[asyncio.Task[None]] = set()

    @abstractmethod
    def connections(self) -> list[tuple[Connection, ReconnectingWebSocket]]:
        """Return the sockets, each with the first argument of `opened` and `closed`."""

    @abstractmethod
    async def listed(self, symbols: Collection[str]) -> dict[str, Instrument]:
        """Return what the venue says of symbols."""

    @abstractmethod
    def frames(self, frames: list[Frame]) -> list[Message]:
        """Return what frames mean."""

    @abstractmethod
    def opened(self, connection: Connection, opened: ConnectionOpened) -> list[Message]:
        """Return what the beginning of a connection means."""

    @abstractmethod
    def closed(self, connection: Connection, closed: ConnectionClosed) -> list[Message]:
        """Return what the end of a connection means."""

    async def poll(self) -> None:
        """Ask, again and again, for what no stream tells: nothing by default."""

    async def batches(self) -> AsyncGenerator[list[Message], None]:
        """Yield messages, without end."""
        self._wires = self.connections()
        for connection, wire in self._wires:
            self._start(partial(self._read, connection, wire))
        self._start(self._watch_status)
        self._start(self.poll)
        try:
            while True:
                messages = (await self._queue.get())()
                while not self._queue.empty() and len(messages) < MOST_AT_ONCE:
                    messages += self._queue.get_nowait()()
                if messages:
                    yield messages
        finally:
            tasks = [*self._tasks]
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    def reconnect(self, symbol: str, data_type: str, reason: str) -> None:
        """Break the connection that carries a stream, so that it is made again."""
        for connection, wire in self._wires:
            if self.carries(connection, symbol, data_type):
                wire.drop(reason)

    def renew(self) -> None:
        """Have all connections replaced while they last: they are going to end."""
        for _, wire in self._wires:
            wire.renew()

    def carries(self, connection: Connection, symbol: str, data_type: str) -> bool:  # noqa: ARG002
        """Return whether a stream comes over a connection: there is but one by default."""
        return True

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.ensure_future(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Raise an error that no rule foresees where the messages are read."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - it is raised again by `batches`
            await self._queue.put(partial(_raise, error))

    async def _read(self, connection: Connection, wire: ReconnectingWebSocket) -> None:
        async with contextlib.aclosing(wire.arrivals()) as arrivals:
            async for arrival in arrivals:
                await self._queue.put(partial(self._arrived, connection, arrival))

    async def _allowed(self, wanted: Callable[[], bool] = lambda: True) -> None:
        """Wait until the venue may be asked, or nobody wants to any more."""
        refusal = self._venue.refusal()
        while wanted() and refusal is not None and refusal.seconds > 0:
            await asyncio.sleep(min(refusal.seconds, REFUSED_LOOK))
            refusal = self._venue.refusal()

    async def _watch_status(self) -> None:
        """Tell, once, when a symbol is no longer traded: its streams fall silent then."""
        watched, doubted = self._watched, self._venue.doubted
        least = min(LEAST_BETWEEN, STATUS_EVERY)
        while watched:
            await asyncio.sleep(least)
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(doubted.wait(), STATUS_EVERY - least)
            doubted.clear()
            await self._allowed()
            try:
                known = await self.listed(watched)
            except VenueError as error:
                await self._tell("venue_error", None, f"status of symbols: {error}")
                continue
            for symbol in sorted(watched):
                status = known[symbol].status if symbol in known else "not listed any more"
                if status.startswith(ODD_LISTING):
                    continue  # it says nothing about trading; the next look may
                if status != "trading":
                    watched.discard(symbol)
                    await self._tell("delisted", symbol, f"status: {status}")

    async def _tell(self, kind: str, symbol: str | None, detail: str) -> None:
        event = Event(kind, symbol, self._clock.now(), 1, detail[:320])
        await self._queue.put(lambda: [event])

    def _arrived(self, connection: Connection, arrival: Arrival) -> list[Message]:
        match arrival:
            case ConnectionOpened() as opened:
                return self.opened(connection, opened)
            case ConnectionClosed() as closed:
                return self.closed(connection, closed)
            case frames:
                return self.frames(frames)


class SnapshotRun(VenueRun[Connection]):
    """A run whose books begin with a REST snapshot.

    Parameters
    ----------
    feed, symbols
        As `VenueRun` takes them.
    books
        Those of the symbols whose book is kept in step.
    """

    def __init__(
        self,
        feed: RestFeed,
        symbols: Collection[str],
        books: Mapping[str, SyncedBook],
    ) -> None:
        super().__init__(feed, symbols)
        self._books = books
        self._changed = {symbol: asyncio.Event() for symbol in books}
        self._fetching: dict[str, Fetch] = {}
        self._fetches = 0
        self._permit = asyncio.Semaphore(FETCHES_AT_ONCE)
        self._waits_until = 0.0

    @abstractmethod
    def levels(self, waiting: int) -> tuple[int, float]:
        """Return how many levels a snapshot should have while so many are wanted, and its cost."""

    @abstractmethod
    async def snapshot(self, symbol: str, levels: int) -> BookSnapshot:
        """Return a book as the venue gives it now."""

    def change(self, diff: Diff) -> list[Message]:
        """Return what a change of a book means; one out of step asks for a snapshot."""
        book = self._books.get(diff.symbol)
        if book is None:
            return []
        messages = book.take(diff)
        if book.last is None:
            self._changed[diff.symbol].set()
            self.synchronise(diff.symbol)
        elif book.worn:
            book.renew()
            self.synchronise(diff.symbol)
        return messages

    def synchronise(self, symbol: str, attempt: int = 0) -> None:
        """See to it that a snapshot is on its way."""
        if symbol not in self._fetching:
            self._fetches += 1
            self._fetching[symbol] = fetch = Fetch(symbol, attempt, self._fetches)
            self._start(partial(self._fetch, fetch))

    def abandon(self, symbol: str) -> None:
        """Give up a snapshot: it was taken before the next change could be heard."""
        self._fetching.pop(symbol, None)
        if symbol in self._changed:
            self._changed[symbol].clear()

    async def _fetch(self, fetch: Fetch) -> None:
        """Fetch one snapshot, and hand it over."""
        symbol, attempt = fetch.symbol, fetch.attempt
        if attempt == 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed[symbol].wait(), FIRST_CHANGE)
        while self._fetching.get(symbol) is fetch:
            if attempt:
                await asyncio.sleep(wait_before(attempt - 1, *RETRY))
            try:
                async with self._permit:
                    await self._allowed(lambda: self._fetching.get(symbol) is fetch)
                    if self._fetching.get(symbol) is not fetch:
                        return
                    levels, cost = self.levels(len(self._fetching))
                    await self._tell_waiting(self._venue.waits(cost))
                    found = await self.snapshot(symbol, levels)
            except (VenueError, *NOT_AS_DOCUMENTED) as error:
                known = isinstance(error, VenueError)
                cause = str(error) if known else f"malformed: {cause_of(error)}"
                await self._tell("venue_error", symbol, f"depth snapshot: {cause}")
            else:
                await self._queue.put(partial(self.offered, found, fetch, levels))
                return
            attempt += 1

    async def _tell_waiting(self, seconds: float) -> None:
        """Tell, once for all books, that snapshots wait for the rate limit."""
        now = asyncio.get_running_loop().time()
        if seconds >= TOLD_WAIT and now >= self._waits_until:
            self._waits_until = now + seconds
            wanted = f"{len(self._fetching)} book snapshots wait {seconds:.0f} s"
            await self._tell("venue_error", None, f"{wanted}: the venue's rate limit is spent")

    def offered(self, snapshot: BookSnapshot, fetch: Fetch, levels: int) -> list[Message]:
        """Return what a snapshot means; one that was given up means nothing."""
        symbol = snapshot.symbol
        if self._fetching.get(symbol) is not fetch:
            return []
        del self._fetching[symbol]
        book = self._books[symbol]
        messages = book.offer(snapshot, levels)
        if messages is None or book.last is None:
            self.synchronise(symbol, fetch.attempt + 1)
        return messages or []


class BookUpdate(NamedTuple):
    """A snapshot or a change of a subscribed book, not yet known to follow.

    Attributes
    ----------
    previous
        Update id that must have come before a change: as the venue says, or its own less one.
    """

    symbol: str
    native: str
    snapshot: bool
    previous: int
    id: int
    bids: list[Level]
    asks: list[Level]
    time: int
    received: int


class SequencedBook(SubscribedBook):
    """One symbol's book, of whose changes each follows the one before it.

    Parameters
    ----------
    symbol
        fxlab's name.
    depth
        Levels of each side that the subscription tells of. Those beyond are cut off here as well,
        so that none stays that the venue speaks of no more.
    counted
        Whether ids rise by one; else nobody can say how many are missing.
    """

    def __init__(self, symbol: str, depth: int, *, counted: bool = True) -> None:
        super().__init__(symbol)
        self._book = OrderBook()
        self._depth, self._counted = depth, counted
        self._last = 0

    def take(self, update: BookUpdate) -> list[Message]:
        """Return what an update means for the record: nothing while the book is not known."""
        if update.snapshot:
            return self._begin(update)
        if not self.synced:
            self.broken = True
            return []
        if update.previous != self._last:
            return self._unfollowed(update)
        if update.id == update.previous and not (update.bids or update.asks):
            return []  # a sign of life
        return self._follow(update)

    def time_of(self, bids: list[Level], asks: list[Level], time: int) -> int:
        """Return the last change's time if the book here has the same best levels, else `time`."""
        other = OrderBook()
        other.reset(bids, asks)
        same = self.synced and other.top(BOOK_DEPTH) == self._book.top(BOOK_DEPTH)
        return (self._last_time or time) if same else time

    def _follow(self, update: BookUpdate) -> list[Message]:
        symbol, last, time = self.symbol, self._last, max(update.time, self._last_time or 0)
        self._book.apply(update.bids, update.asks)
        bids = update.bids + _cut(self._book.bids, self._depth)
        asks = update.asks + _cut(self._book.asks, self._depth)
        self._last, self._last_time = update.id, time
        if update.id > last:
            told = (symbol, last + 1, update.id, bids, asks, update.time, update.received)
            return [BookDelta(*told)]
        # Nothing is lost where a count begins anew; a delta could not say so.
        said = f"ids of the book's updates begin anew at {update.id} after {last}"
        restart = Event("id_restart", symbol, update.received, 1, said)
        return [restart, self._whole(update, time)]

    def _unfollowed(self, update: BookUpdate) -> list[Message]:
        behind, time = self._last - update.id, self._last_time or 0
        if behind >= 0:
            if update.time <= time or (self._counted and behind < LATE):
                return []  # late, or a duplicate
            return self.lose(f"ids of updates went back from {self._last} to {update.id}")
        if not self._counted:
            return self.lose(f"updates after {self._last} are missing, up to {update.previous}")
        missing = update.previous - self._last
        return self.lose(f"{missing:,} update ids after {self._last} are missing", missing)

    def _begin(self, update: BookUpdate) -> list[Message]:
        told: list[Message] = []
        if self.synced and update.id != self._last:
            # Nobody asked for it: what happened since the last change is not known.
            told = self.lose(f"the venue began the book anew at update {update.id}")
        self._book.reset(update.bids, update.asks)
        self._last = update.id
        time = max(update.time, self._last_time or 0)
        return [*told, *self._begun(time), self._whole(update, time)]

    def _whole(self, update: BookUpdate, time: int) -> BookSnapshot:
        bids, asks = (side.best(self._depth) for side in (self._book.bids, self._book.asks))
        return BookSnapshot(self.symbol, update.id, bids, asks, time, update.received)


def _cut(side: Side, depth: int) -> list[Level]:
    """Forget the levels beyond a depth, and return them as taken away."""
    lost = [(side.sign * key, 0.0) for key in side.keys[:-depth]]
    side.trim(depth)
    return lost


@dataclass(slots=True)
class TopicGroup:
    """One connection and what it carries: all topics of some instruments.

    Attributes
    ----------
    data_types
        Which it carries: "prices", "orderbook", and names of channels.
    symbols
        The venue's names by fxlab's.
    known
        Whether it has been open.
    lost, lost_at
        Why it was lost, until it is open again, and when.
    """

    data_types: AbstractSet[str]
    symbols: dict[str, str]
    topics: list[Any]
    wire: ReconnectingWebSocket
    resubscriptions: Resubscriptions
    known: bool = False
    lost: str | None = None
    lost_at: int = 0

    def channels(self) -> list[tuple[str, str]]:
        """Return symbol and name of all that it carries beside trades and books."""
        names = [name for name in CHANNELS if name in self.data_types]
        return [(symbol, name) for symbol in self.symbols for name in names]


class SubscribedRun(VenueRun[TopicGroup]):
    """A run whose books begin with the snapshot that their subscription brings.

    Parameters
    ----------
    feed, wanted
        As `Feed.messages` takes them.
    books
        By the venue's names.
    trade_gaps
        Where trades cannot be counted by their ids.
    """

    def __init__(
        self,
        feed: RestFeed,
        wanted: Subscription,
        books: dict[str, SequencedBook],
        trade_gaps: TradeGapTracker | None = None,
    ) -> None:
        super().__init__(feed, [one.symbol for one in wanted.instruments])
        self._by_native = wanted.by_native
        self.books = books
        self._best = BestPrices() if wanted.book_depth == 1 else None
        self._gaps = trade_gaps
        self._groups: list[TopicGroup] = []

    def _group(
        self,
        data_types: AbstractSet[str],
        path: str,
        heartbeat: tuple[str, float],
        subscriptions: Callable[[Sequence[Any]], list[str]],
        again: Callable[[str], Sequence[str]],
    ) -> None:
        """Add a connection, the last of `_groups`, whose topics are yet to be added.

        Parameters
        ----------
        path
            Of the socket.
        heartbeat
            As `ReconnectingWebSocket` takes it.
        subscriptions
            Returns the requests for topics.
        again
            Returns the requests that end a book's subscription, and begin it anew.
        """
        topics: list[Any] = []
        wire = ReconnectingWebSocket(
            f"{self._venue.address.stream}{path}",
            clock=self._clock,
            opening=lambda: subscriptions(topics),
            heartbeat=heartbeat,
        )
        mends = Resubscriptions(wire.send, again)
        self._groups.append(TopicGroup(data_types, {}, topics, wire, mends))

    async def batches(self) -> AsyncGenerator[list[Message], None]:
        """Yield messages, without end."""
        try:
            async with contextlib.aclosing(super().batches()) as batches:
                async for batch in batches:
                    yield batch
        finally:
            for group in self._groups:
                await group.resubscriptions.stop()

    def connections(self) -> list[tuple[TopicGroup, ReconnectingWebSocket]]:
        """Return a socket for each group of topics."""
        return [(group, group.wire) for group in self._groups]

    def carries(self, connection: TopicGroup, symbol: str, data_type: str) -> bool:
        """Return whether a stream comes over a connection."""
        return symbol in connection.symbols and data_type in connection.data_types

    async def listed(self, symbols: Collection[str]) -> dict[str, Instrument]:  # noqa: ARG002
        """Return what the venue says of its symbols: it tells of all at once."""
        return await self._venue.instruments()

    def booked(self, update: BookUpdate) -> list[Message]:
        """Return what an update of a book means; one out of step is subscribed again."""
        book = self.books.get(update.native)
        if book is None:
            return []
        messages = book.take(update)
        if book.broken:
            symbol = update.symbol
            carrying = (one for one in self._groups if self.carries(one, symbol, "orderbook"))
            next(carrying).resubscriptions.mend([(update.native, book)])
        return messages if self._best is None else self._best.of(messages)

    def opened(self, connection: TopicGroup, opened: ConnectionOpened) -> list[Message]:
        """Tell of a reconnect; the subscriptions bring the books."""
        if self._gaps is not None and "prices" in connection.data_types:
            self._gaps.listen(connection.symbols, opened.time)
        connection.known = True
        reason, connection.lost = connection.lost, None
        if reason is None or opened.number == 1:
            return []
        since = connection.lost_at
        ended = [Gap(*key, since, opened.time, None, reason) for key in connection.channels()]
        return [Event("reconnect", None, opened.time, 1, reason), *ended]

    def closed(self, connection: TopicGroup, closed: ConnectionClosed) -> list[Message]:
        """Tell what is lost until the connection stands again."""
        if connection.lost is not None:
            return []
        connection.lost, connection.lost_at = closed.reason, closed.time
        self._start(connection.resubscriptions.stop)
        lost: list[Message] = []
        if "orderbook" in connection.data_types:
            for book in map(self.books.__getitem__, connection.symbols.values()):
                lost += book.lose(closed.reason)
                book.expect_snapshot()
        if self._gaps is not None and "prices" in connection.data_types:
            lost += self._gaps.lose(closed.reason, connection.symbols)
        for key in connection.channels() if connection.known else ():
            lost.append(Gap(*key, closed.time, None, None, closed.reason))
        return lost


def _raise(error: Exception) -> NoReturn:
    raise error
