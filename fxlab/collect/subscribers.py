"""Live messages for whoever wants to look: a bounded tap beside the recording.

The record is the database. A listener who is too slow loses the oldest messages, and is told how
many; the recording never waits for one.
"""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections import deque
from collections.abc import AsyncIterator, Callable, Sequence
from typing import Final

from fxlab.collect.feed import Message

MOST_WAITING: Final = 10_000


class Subscription:
    """One listener in one event loop: iterate over it with ``async for``.

    Attributes
    ----------
    missed
        Messages that were dropped because the listener was slow.
    """

    def __init__(
        self, symbols: Sequence[str] | None, on_close: Callable[[Subscription], None]
    ) -> None:
        self._symbols = None if symbols is None else frozenset(symbols)
        self._on_close = on_close
        self._waiting: deque[Message] = deque(maxlen=MOST_WAITING)
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._over = False
        self.missed = 0

    def put(self, messages: Sequence[Message]) -> None:
        """Take messages in, from any thread."""
        wanted = [m for m in messages if self._symbols is None or m.symbol in self._symbols]
        excess = len(self._waiting) + len(wanted) - MOST_WAITING
        self.missed += max(0, excess)
        self._waiting.extend(wanted)
        self._wake()

    def end(self) -> None:
        """Say that nothing more will come."""
        self._over = True
        self._wake()

    def _wake(self) -> None:
        with contextlib.suppress(RuntimeError):  # its loop has closed: nobody listens any more
            self._loop.call_soon_threadsafe(self._news.set)

    async def __aiter__(self) -> AsyncIterator[Message]:
        try:
            while True:
                while self._waiting:
                    yield self._waiting.popleft()
                if self._over:
                    return
                await self._news.wait()
                self._news.clear()
        finally:
            self._on_close(self)


class Subscribers:
    """All listeners of a collector."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._all: list[Subscription] = []
        self._over = False

    def add(self, symbols: Sequence[str] | None) -> Subscription:
        """Return a new listener for the running event loop."""
        one = Subscription(symbols, self._remove)
        with self._turn:
            self._all.append(one)
            if self._over:
                one.end()
        return one

    def publish(self, messages: Sequence[Message]) -> None:
        """Give messages to all listeners."""
        if self._all:
            with self._turn:
                listeners = list(self._all)
            for one in listeners:
                one.put(messages)

    def end(self) -> None:
        """Tell all listeners that it is over."""
        with self._turn:
            self._over = True
            listeners = list(self._all)
        for one in listeners:
            one.end()

    def _remove(self, one: Subscription) -> None:
        with self._turn:
            if one in self._all:
                self._all.remove(one)
