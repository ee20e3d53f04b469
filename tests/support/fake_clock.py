"""A clock that moves only when somebody waits for it, and a script of what happens meanwhile."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Callable

ENDLESS = 200_000
"""Waits after which a test gives up: nothing here waits so often."""


class FakeClock:
    """Wall time for tests.

    Parameters
    ----------
    oversleep
        How much longer each wait takes than it was asked to.
    """

    def __init__(self, oversleep: float = 0.0) -> None:
        self.time = 1_000.0
        self.waits = 0
        self._factor = 1.0 + oversleep
        self._plans: list[tuple[float, Callable[[], object]]] = []

    def after(self, seconds: float, action: Callable[[], object]) -> None:
        """Do something so many seconds from now, in the middle of somebody's wait."""
        self._plans.append((self.time + seconds, action))
        self._plans.sort(key=lambda plan: plan[0])

    def now(self) -> float:
        """Return seconds that only waits move."""
        return self.time

    def wait(self, seconds: float, woken: threading.Event) -> None:
        """Let so much time pass, and do what was planned meanwhile."""
        assert seconds > 0
        self.waits += 1
        assert self.waits < ENDLESS, "this would wait for ever"
        end = self.time + seconds * self._factor
        while self._plans and self._plans[0][0] <= end:
            self.time, action = self._plans.pop(0)
            action()
            if woken.is_set():
                return
        self.time = end

    async def sleep(self, seconds: float, woken: threading.Event) -> None:
        """Wait, and let the event loop have a turn."""
        self.wait(seconds, woken)
        await asyncio.sleep(0)
