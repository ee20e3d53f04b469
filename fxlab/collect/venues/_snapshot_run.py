"""Run of a subscription: sockets, states of symbols, and books that begin with a REST snapshot.

Everything that arrives (frames, snapshots, statuses) goes through one short queue, in the order in
which it happened here; one loop takes it from there and alone touches the books. A slow consumer
fills the queue, which stops the sockets from being read, and nothing is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
from abc import ABC, abstractmethod
from collections.abc import AsyncGenerator, Callable, Collection, Coroutine, Mapping
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Generic, NoReturn, TypeVar

from fxlab._network import wait_before
from fxlab.collect.feed import (
    NOT_AS_DOCUMENTED,
    BookSnapshot,
    Event,
    Instrument,
    Message,
    cause_of,
)
from fxlab.collect.venues._book_sync import Diff, SyncedBook
from fxlab.collect.venues._rest import ODD_LISTING, RestFeed
from fxlab.collect.venues._websocket import (
    Arrival,
    ConnectionClosed,
    ConnectionOpened,
    Frame,
    ReconnectingWebSocket,
)
from fxlab.errors import VenueError

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


def _raise(error: Exception) -> NoReturn:
    raise error
