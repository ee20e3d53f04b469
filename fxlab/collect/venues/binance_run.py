"""One recording from Binance: sockets, snapshots and status are awaited side by side.

Everything that arrives goes through one short queue, in the order in which it happened here; one
loop takes it from there and alone touches the books. A slow consumer fills the queue, which stops
the sockets from being read, and nothing is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
from collections.abc import AsyncGenerator, Callable, Coroutine, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, Final, Protocol

from fxlab.backoff import wait_before
from fxlab.collect.address import Address
from fxlab.collect.book_sync import Diff
from fxlab.collect.clock import Clock
from fxlab.collect.feed import BookSnapshot, Event, Instrument, Message, Quote, Subscription, Trade
from fxlab.collect.venues.binance_frames import parse, snapshot
from fxlab.collect.venues.binance_plan import Line, Terms, plan, subscriptions
from fxlab.collect.venues.suspects import NOT_AS_DOCUMENTED, cause_of
from fxlab.collect.wire import Arrival, Closed, Frame, Opened, Wire
from fxlab.errors import VenueError

SILENCE: Final = 30.0
HEARTBEAT: Final = ('{"method":"LIST_SUBSCRIPTIONS","id":0}', 10.0)
"""Answered by the streams' own server, so that a quiet market is not taken for a dead one."""
FIRST_CHANGE: Final = 3.0
"""Seconds to wait for a change before the snapshot is fetched: it has to be newer."""
FETCHES_AT_ONCE: Final = 4
MANY, LEVELS_OF_MANY = 20, 1000
"""From so many books on, snapshots are smaller: large ones use up the venue's limit of requests."""
RETRY: Final = (0.2, 30.0)
"""First and longest wait in seconds before another snapshot."""
STATUS_EVERY: Final = 600.0


class Asker(Protocol):
    """What a run needs of its feed."""

    address: Address
    clock: Clock

    async def ask(self, question: str, **parameters: str | int) -> Any:  # noqa: ANN401 - JSON
        """Return what the venue answers to a request."""

    async def listed(self, natives: Sequence[str]) -> dict[str, Instrument]:
        """Return what is known of some of the venue's symbols, by fxlab's names."""


@dataclass(frozen=True, slots=True)
class Fetch:
    """An errand for a snapshot; the number tells a present one from one that was given up."""

    symbol: str
    attempt: int
    number: int


@dataclass(frozen=True, slots=True)
class Fetched:
    """What an errand brought."""

    fetch: Fetch
    snapshot: BookSnapshot


@dataclass(frozen=True, slots=True)
class Arrived:
    """What happened to a connection."""

    line: Line
    arrival: Arrival


Item = Arrived | Fetched | Event | Exception


class BinanceRun:
    """Runs one subscription; `close` it in the end.

    Parameters
    ----------
    asker
        The feed.
    terms
        Of its market.
    wanted
        What to record.
    """

    def __init__(self, asker: Asker, terms: Terms, wanted: Subscription) -> None:
        self._asker = asker
        self._clock = asker.clock
        self._symbols = {one.native: one.symbol for one in wanted.instruments}
        self._natives = {one.symbol: one.native for one in wanted.instruments}
        self._queue: asyncio.Queue[Item] = asyncio.Queue(maxsize=4)
        self._tasks: set[asyncio.Task[None]] = set()
        self._fetching: dict[str, Fetch] = {}
        self._fetches = 0
        self._rng = random.Random()  # noqa: S311 - jitter, no secret
        self._lines = plan(terms, wanted)
        self._quotes = {one.symbol: one for line in self._lines for one in line.quotes}
        self._books = {one.symbol: one for line in self._lines for one in line.books}
        self._changed = {symbol: asyncio.Event() for symbol in self._books}
        self._levels = terms.snapshot_levels if len(self._books) <= MANY else LEVELS_OF_MANY
        self._permit = asyncio.Semaphore(FETCHES_AT_ONCE)

    async def batches(self) -> AsyncGenerator[list[Message], None]:
        """Yield messages, for ever."""
        for line in self._lines:
            self._start(partial(self._read, line))
        self._start(self._watch_status)
        while True:
            messages = self._handle(await self._queue.get())
            while not self._queue.empty() and len(messages) < 20_000:
                messages += self._handle(self._queue.get_nowait())
            if messages:
                yield messages

    async def close(self) -> None:
        """Close the sockets and end what is under way."""
        tasks = [*self._tasks]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # What is awaited.

    def _start(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        task = asyncio.ensure_future(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Callable[[], Coroutine[Any, Any, None]]) -> None:
        """Hand an error that nobody expected to the one who reads the messages."""
        try:
            await work()
        except Exception as error:  # noqa: BLE001 - it is raised again by `_handle`
            await self._queue.put(error)

    async def _read(self, line: Line) -> None:
        wire = Wire(
            f"{self._asker.address.stream}{line.path}?streams={line.streams[0]}",
            clock=self._clock,
            opening=lambda: subscriptions(line.streams[1:]),
            silence=SILENCE,
            heartbeat=HEARTBEAT,
        )
        async with contextlib.aclosing(wire.arrivals()) as arrivals:
            async for arrival in arrivals:
                await self._queue.put(Arrived(line, arrival))

    async def _fetch(self, fetch: Fetch) -> None:
        """Fetch one snapshot, and hand it over."""
        symbol, attempt = fetch.symbol, fetch.attempt
        if attempt == 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed[symbol].wait(), FIRST_CHANGE)
        while self._fetching.get(symbol) is fetch:
            if attempt:
                await asyncio.sleep(self._back_off(attempt))
            try:
                async with self._permit:
                    found = await self._ask_snapshot(symbol)
            except (VenueError, *NOT_AS_DOCUMENTED) as error:
                await self._queue.put(self._failed(symbol, error))
            else:
                await self._queue.put(Fetched(fetch, found))
                return
            attempt += 1

    async def _ask_snapshot(self, symbol: str) -> BookSnapshot:
        answer = await self._asker.ask("depth", symbol=self._natives[symbol], limit=self._levels)
        return snapshot(answer, symbol, self._clock.now())

    def _back_off(self, attempt: int) -> float:
        return wait_before(attempt - 1, *RETRY, self._rng)

    def _failed(self, symbol: str, error: Exception) -> Event:
        cause = str(error) if isinstance(error, VenueError) else f"malformed: {cause_of(error)}"
        return Event("venue_error", symbol, self._clock.now(), 1, f"depth snapshot: {cause[:300]}")

    async def _watch_status(self) -> None:
        """Tell, once, when a symbol is no longer traded."""
        watched = set(self._natives)
        while watched:
            await asyncio.sleep(STATUS_EVERY)
            try:
                known = await self._asker.listed([self._natives[one] for one in watched])
            except VenueError as error:
                detail = f"status of symbols: {error}"
                await self._queue.put(Event("venue_error", None, self._clock.now(), 1, detail))
                continue
            for symbol in sorted(watched):
                status = known[symbol].status if symbol in known else "not listed any more"
                if status != "trading":
                    watched.discard(symbol)
                    await self._queue.put(
                        Event("delisted", symbol, self._clock.now(), 1, f"status: {status}")
                    )

    # What it means.

    def _handle(self, item: Item) -> list[Message]:
        if isinstance(item, Arrived):
            line, arrival = item.line, item.arrival
            if isinstance(arrival, Opened):
                return self._opened(line, arrival)
            return (
                self._closed(line, arrival)
                if isinstance(arrival, Closed)
                else self._frames(arrival)
            )
        if isinstance(item, Fetched):
            return self._offered(item)
        if isinstance(item, Event):
            return [item]
        raise item

    def _frames(self, frames: list[Frame]) -> list[Message]:
        messages: list[Message] = []
        symbols = self._symbols
        for payload, received in frames:
            found = parse(payload, received, symbols)
            if type(found) is Trade or type(found) is Event:
                messages.append(found)
            elif type(found) is Diff:
                messages += self._change(found)
            elif type(found) is Quote and found.symbol in self._quotes:
                messages += self._quotes[found.symbol].take(found)
        return messages

    def _change(self, diff: Diff) -> list[Message]:
        book = self._books.get(diff.symbol)
        if book is None:
            return []
        messages = book.take(diff)
        if book.last is None:
            self._changed[diff.symbol].set()
            self._sync(diff.symbol)
        return messages

    def _offered(self, fetched: Fetched) -> list[Message]:
        symbol = fetched.snapshot.symbol
        if self._fetching.get(symbol) is not fetched.fetch:
            return []
        del self._fetching[symbol]
        messages = self._books[symbol].offer(fetched.snapshot)
        if messages is None:
            self._sync(symbol, fetched.fetch.attempt + 1)
        return messages or []

    def _sync(self, symbol: str, attempt: int = 0) -> None:
        """See to it that a snapshot is on its way."""
        if symbol not in self._fetching:
            self._fetches += 1
            self._fetching[symbol] = fetch = Fetch(symbol, attempt, self._fetches)
            self._start(partial(self._fetch, fetch))

    def _opened(self, line: Line, opened: Opened) -> list[Message]:
        messages: list[Message] = []
        if line.lost is not None and line.opened:
            messages.append(Event("reconnect", None, opened.time, 1, line.lost))
        line.opened, line.lost = True, None
        for book in line.books:
            self._sync(book.symbol)
        return messages

    def _closed(self, line: Line, closed: Closed) -> list[Message]:
        messages: list[Message] = []
        if not line.opened and line.lost != closed.reason:
            detail = f"{line.path}: {closed.reason}"
            messages.append(Event("venue_error", None, closed.time, 1, detail))
        if line.lost is None or not line.opened:
            line.lost = closed.reason
        for one in line.keepers:
            messages += one.lose(closed.reason)
            # A snapshot that is under way was taken before the next change could be heard.
            self._fetching.pop(one.symbol, None)
        for book in line.books:
            self._changed[book.symbol].clear()
        return messages
