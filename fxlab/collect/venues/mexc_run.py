"""One recording from MEXC: the socket, snapshots and states are awaited side by side.

What arrives goes through one short queue, in the order in which it happened here; one loop takes
it from there and alone touches the books. A slow consumer fills the queue, which stops the socket
from being read, and nothing is dropped.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import random
from collections.abc import AsyncGenerator, Coroutine
from typing import Any, Final, NamedTuple

from fxlab.backoff import wait_before
from fxlab.collect.book_sync import Diff, SyncedBook
from fxlab.collect.clock import Clock
from fxlab.collect.feed import BookSnapshot, Event, Message, Subscription, Trade
from fxlab.collect.venues.best_prices import BestPrices
from fxlab.collect.venues.mexc_frames import parse
from fxlab.collect.venues.mexc_rest import MexcRest
from fxlab.collect.venues.price_holes import PriceHoles
from fxlab.collect.wire import Closed, Frame, Opened, Wire
from fxlab.errors import VenueError

HEARTBEAT: Final = ('{"method":"ping"}', 15.0)
"""Without a ping within a minute the venue closes; ten to twenty seconds are advised."""
FIRST_CHANGE: Final = 3.0
"""Seconds to wait for a change before the snapshot is fetched: it has to be newer."""
RETRY: Final = (0.2, 30.0)
"""First and longest wait in seconds before another snapshot."""
STATUS_EVERY: Final = 600.0
MOST_AT_ONCE: Final = 20_000


class Fetched(NamedTuple):
    """A snapshot that came, and which attempt it was."""

    snapshot: BookSnapshot
    attempt: int


Item = list[Frame] | Opened | Closed | Fetched | Event | Exception


class MexcRun:
    """Runs one subscription; `close` it in the end.

    Parameters
    ----------
    url
        Of the socket.
    rest
        Gives snapshots and states.
    clock
        Stamps arrivals.
    wanted
        What to record.
    rng
        Draws the jitter of repeated snapshots.
    """

    def __init__(
        self,
        url: str,
        rest: MexcRest,
        clock: Clock,
        wanted: Subscription,
        rng: random.Random | None = None,
    ) -> None:
        self._url, self._rest, self._clock, self._wanted = url, rest, clock, wanted
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._by_native = wanted.by_native
        self._instruments = {one.symbol: one for one in wanted.instruments}
        booked = self._instruments if wanted.book_depth else ()
        self._books = {symbol: SyncedBook(symbol) for symbol in booked}
        self._changed = {symbol: asyncio.Event() for symbol in booked}
        self._best = BestPrices() if wanted.book_depth == 1 else None
        self._holes = PriceHoles()
        self._queue: asyncio.Queue[Item] = asyncio.Queue(maxsize=4)
        self._tasks: set[asyncio.Task[None]] = set()
        self._fetching: set[str] = set()
        self._lost: str | None = None

    async def batches(self) -> AsyncGenerator[list[Message], None]:
        """Yield messages, for ever."""
        self._start(self._read())
        self._start(self._watch_states())
        while True:
            messages = self._handle(await self._queue.get())
            while not self._queue.empty() and len(messages) < MOST_AT_ONCE:
                messages += self._handle(self._queue.get_nowait())
            if messages:
                yield messages

    async def close(self) -> None:
        """Close the socket and end what is under way."""
        tasks = list(self._tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # What is awaited

    def _start(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.ensure_future(self._guarded(work))
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

    async def _guarded(self, work: Coroutine[Any, Any, None]) -> None:
        """Hand an error that nobody expected to the one who reads the messages."""
        try:
            await work
        except Exception as error:  # noqa: BLE001 - it is raised again by `_handle`
            await self._queue.put(error)

    async def _read(self) -> None:
        wire = Wire(self._url, clock=self._clock, opening=self._opening, heartbeat=HEARTBEAT)
        async with contextlib.aclosing(wire.arrivals()) as arrivals:
            async for arrival in arrivals:
                await self._queue.put(arrival)

    def _opening(self) -> list[str]:
        channels = ["sub.deal"] if self._wanted.trades else []
        channels += ["sub.depth"] if self._wanted.book_depth else []
        return [
            json.dumps({"method": channel, "param": {"symbol": native, "compress": False}})
            for native in self._by_native
            for channel in channels
        ]

    async def _fetch(self, symbol: str, attempt: int) -> None:
        """Fetch one snapshot, then hand it over."""
        if attempt == 0:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._changed[symbol].wait(), FIRST_CHANGE)
        while True:
            if attempt:
                await asyncio.sleep(self._back_off(attempt))
            try:
                found = await self._rest.snapshot(self._instruments[symbol])
            except VenueError as error:
                await self._queue.put(self._trouble(symbol, f"depth snapshot: {error}"))
            else:
                await self._queue.put(Fetched(found, attempt))
                return
            attempt += 1

    def _back_off(self, attempt: int) -> float:
        return wait_before(attempt - 1, *RETRY, self._rng)

    def _trouble(self, symbol: str | None, detail: str) -> Event:
        return Event("venue_error", symbol, self._clock.now(), 1, detail[:300])

    async def _watch_states(self) -> None:
        """Tell, once, when a contract is no longer traded."""
        watched = set(self._instruments)
        while watched:
            await asyncio.sleep(STATUS_EVERY)
            try:
                known = await self._rest.instruments()
            except VenueError as error:
                await self._queue.put(self._trouble(None, f"states of contracts: {error}"))
                continue
            for symbol in sorted(watched):
                status = known[symbol].status if symbol in known else "not listed any more"
                if status != "trading":
                    watched.discard(symbol)
                    now = self._clock.now()
                    await self._queue.put(Event("delisted", symbol, now, 1, f"status: {status}"))

    # What it means

    def _handle(self, item: Item) -> list[Message]:
        if isinstance(item, list):
            return self._frames(item)
        if isinstance(item, Exception):
            raise item
        if isinstance(item, Fetched):
            return self._offered(item)
        if isinstance(item, Opened):
            return self._opened(item)
        return self._closed(item) if isinstance(item, Closed) else [item]

    def _frames(self, frames: list[Frame]) -> list[Message]:
        messages: list[Message] = []
        holes, instruments = self._holes, self._by_native
        for payload, received in frames:
            for found in parse(payload, received, instruments):
                if type(found) is Trade:
                    messages += holes.take(found)
                elif type(found) is Diff:
                    messages += self._change(found)
                elif isinstance(found, Event):
                    messages.append(found)
        return messages

    def _change(self, diff: Diff) -> list[Message]:
        book = self._books.get(diff.symbol)
        if book is None:
            return []
        messages = book.take(diff)
        if book.last is None:
            self._changed[diff.symbol].set()
            self._sync(diff.symbol)
        return self._shown(messages)

    def _offered(self, fetched: Fetched) -> list[Message]:
        symbol = fetched.snapshot.symbol
        self._fetching.discard(symbol)
        book = self._books[symbol]
        if book.last is not None:
            return []
        messages = book.offer(fetched.snapshot)
        if messages is None or book.last is None:
            self._sync(symbol, fetched.attempt + 1)
        return self._shown(messages or [])

    def _shown(self, messages: list[Message]) -> list[Message]:
        return messages if self._best is None else self._best.of(messages)

    def _sync(self, symbol: str, attempt: int = 0) -> None:
        """See to it that a snapshot is on its way."""
        if symbol not in self._fetching:
            self._fetching.add(symbol)
            self._start(self._fetch(symbol, attempt))

    def _opened(self, opened: Opened) -> list[Message]:
        for symbol in self._books:
            self._changed[symbol].clear()
            self._sync(symbol)
        reason, self._lost = self._lost, None
        if reason is None or opened.number == 1:
            return []
        return [Event("reconnect", None, opened.time, 1, reason)]

    def _closed(self, closed: Closed) -> list[Message]:
        if self._lost is not None:
            return []
        self._lost = closed.reason
        lost = [gap for book in self._books.values() for gap in book.lose(closed.reason)]
        return lost + self._holes.lose(closed.reason)
