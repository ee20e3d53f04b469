"""Replay clock: market time on a wall clock, with speed, pause and seek.

The clock says what is due now, and how long until the next row is. The schedule is absolute. Market
time is computed from one anchor and never summed up from sleeps, so what single waits are late by
does not add up. A change of speed, a pause and a seek each set a new anchor.
"""

from __future__ import annotations

import asyncio
import math
import threading
import time
from dataclasses import dataclass, replace
from typing import Final, Protocol

from fxlab._times import number
from fxlab.errors import InvalidParameter

FOREVER: Final = 2**62
"""A market time after all others, in microseconds."""

HEARD_WITHIN: Final = 0.02
"""Seconds that one wait lasts at most: so soon a click in another thread is heard."""


class TimeSource(Protocol):
    """What a replay knows of time; tests bring one that only moves when it is waited for.

    Examples
    --------
    >>> class Hurried:
    ...     seconds = 0.0
    ...
    ...     def now(self):
    ...         return self.seconds
    ...
    ...     def wait(self, seconds, woken):
    ...         self.seconds += seconds
    ...
    ...     async def sleep(self, seconds, woken):
    ...         self.seconds += seconds
    >>> sum(batch.frame.height for batch in fxlab.replay(ticks, speed=10.0, clock=Hurried()))
    1500
    """

    def now(self) -> float:
        """Return seconds that never run backward."""

    def wait(self, seconds: float, woken: threading.Event) -> None:
        """Let time pass, up to so many seconds, or until the event is set."""

    async def sleep(self, seconds: float, woken: threading.Event) -> None:
        """Let time pass as `wait` does, while the event loop goes on."""


class WallClock:
    """The machine's monotonic clock."""

    def now(self) -> float:
        """Return seconds since some moment in the past."""
        return time.monotonic()

    def wait(self, seconds: float, woken: threading.Event) -> None:
        """Wait a short while at most: on some systems a longer wait cannot be interrupted."""
        woken.wait(min(seconds, HEARD_WITHIN))

    async def sleep(self, seconds: float, woken: threading.Event) -> None:
        """Sleep in short pieces until the time is over or the event is set."""
        end = self.now() + seconds
        while not woken.is_set() and (left := end - self.now()) > 0:  # noqa: ASYNC110 - by threads
            await asyncio.sleep(min(left, HEARD_WITHIN))


@dataclass(frozen=True, slots=True)
class _Anchor:
    """One moment of which both times are known, and how they go on from there."""

    wall: float
    market: int
    speed: float
    paused: bool


class ReplayClock:
    """Turns wall time into market time; safe to use from several threads.

    Parameters
    ----------
    speed
        Market seconds a wall second, above zero; ``inf`` makes everything due at once.
    clock
        Where wall time comes from.
    slack
        Wall seconds between two looks of a reader that keeps up: what became due since the last
        one is not late.

    Notes
    -----
    A reader that cannot keep up falls behind the schedule and catches up when it can. A change of
    speed or a pause forgives what it is behind: the new speed holds from what was delivered.
    """

    def __init__(self, speed: float, clock: TimeSource, slack: float) -> None:
        self._clock = clock
        self._slack = slack
        self._lock = threading.Lock()
        self._reached = 0
        self._anchor = _Anchor(clock.now(), 0, check_speed(speed), paused=False)

    @property
    def speed(self) -> float:
        """Return market seconds a wall second."""
        return self._anchor.speed

    @speed.setter
    def speed(self, speed: float) -> None:
        self._change(speed=check_speed(speed))

    @property
    def paused(self) -> bool:
        """Return whether market time stands still."""
        return self._anchor.paused

    def pause(self) -> None:
        """Stop market time where it is."""
        self._change(paused=True)

    def resume(self) -> None:
        """Let market time go on from where it stands."""
        self._change(paused=False)

    def jump(self, market: int) -> None:
        """Make it this market time now (microseconds)."""
        with self._lock:
            self._reached = market
            self._anchor = replace(self._anchor, wall=self._clock.now(), market=market)

    def reached(self, market: int) -> None:
        """Note that everything up to this market time was delivered."""
        self._reached = market

    def now(self) -> int:
        """Return the market time in microseconds; `FOREVER` at infinite speed."""
        anchor = self._anchor
        if anchor.paused:
            return anchor.market
        if math.isinf(anchor.speed):
            return FOREVER
        passed = (self._clock.now() - anchor.wall) * anchor.speed
        return anchor.market + round(passed * 1_000_000)

    def seconds_until(self, market: int) -> float:
        """Return the wall seconds until a market time; zero or less if it is due."""
        anchor = self._anchor
        if anchor.paused:
            return math.inf if market > anchor.market else 0.0
        ahead = (market - anchor.market) / 1_000_000 / anchor.speed
        return anchor.wall + ahead - self._clock.now()

    def behind(self, market: int) -> float:
        """Return the wall seconds since a market time was due, or zero."""
        if self._anchor.paused or math.isinf(self._anchor.speed):
            return 0.0
        return max(0.0, -self.seconds_until(market))

    def _change(self, **fields: float) -> None:
        with self._lock:
            old = self._anchor
            market = self._reached if math.isinf(old.speed) else self._forgiven(old)
            moved = replace(old, wall=self._clock.now(), market=market)
            self._anchor = replace(moved, **fields)  # type: ignore[arg-type]

    def _forgiven(self, old: _Anchor) -> int:
        """Return the market time, without what a slow reader is behind it."""
        return min(self.now(), self._reached + round(self._slack * old.speed * 1_000_000))


def check_speed(speed: object) -> float:
    """Return a usable speed.

    Raises
    ------
    InvalidParameter
        If it is no number above zero.
    """
    found = number(speed)
    if found is None or not found > 0:
        raise InvalidParameter(
            f"speed={speed!r:.80} is not a speed; give market seconds a second, above 0: 1 is as "
            "it was, 100 is a hundred times as fast, float('inf') waits for nothing"
        )
    return float(found)
