"""A connection that stays: cut, silent or refused, it is made again until somebody stops it.

What happened to it comes out between the frames, in order, so that a feed knows exactly after
which message something may be missing.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncGenerator, Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fxlab.backoff import wait_before
from fxlab.collect.clock import Clock
from fxlab.collect.link import Frame, Link, NotConnected, connect

_log: Final = logging.getLogger(__name__)

__all__ = ["Arrival", "Closed", "Frame", "Opened", "Wire"]

FIRST_WAIT: Final = 0.1
LONGEST_WAIT: Final = 10.0
LONGEST_WAIT_AFTER_DATA: Final = 1.0
"""Seconds; who is cut while data flows comes back soon, yet not more often than venues allow."""
SETTLED: Final = 10.0
"""Seconds after which a connection that delivered counts as a good one."""

MOST_AT_ONCE: Final = 4_096
MAX_MESSAGE_BYTES: Final = 16 << 20


@dataclass(frozen=True, slots=True)
class Opened:
    """The connection stands and the opening messages were sent.

    Attributes
    ----------
    number
        1 for the first time.
    time
        In microseconds.
    """

    number: int
    time: int


@dataclass(frozen=True, slots=True)
class Closed:
    """The connection was lost, or an attempt to make it failed.

    Attributes
    ----------
    reason
        In words, such as "silent for 30 s".
    time
        In microseconds.
    """

    reason: str
    time: int


Arrival = Opened | Closed | list[Frame]


class Wire:
    """A WebSocket that is connected again for ever.

    Parameters
    ----------
    url
        With scheme ws or wss.
    clock
        Stamps arrivals.
    opening
        Returns the texts to send after each connect.
    silence
        Seconds without a single byte, pings included, after which the connection is given up.
    heartbeat
        A text and every how many seconds it is sent, so that a venue with nothing to tell answers.
    max_message_bytes
        A larger message is skipped and comes out as `fxlab.collect.quarantine.Damaged`.
    timeout
        Seconds for connecting.
    rng
        Draws the jitter of the waits between attempts.
    """

    def __init__(
        self,
        url: str,
        *,
        clock: Clock,
        opening: Callable[[], Sequence[str]] = tuple,
        silence: float = 30.0,
        heartbeat: tuple[str, float] | None = None,
        max_message_bytes: int = MAX_MESSAGE_BYTES,
        timeout: float = 10.0,
        rng: random.Random | None = None,
    ) -> None:
        self.url = url
        self._clock = clock
        self._opening = opening
        self._silence = silence
        self._heartbeat = heartbeat
        self._max_message_bytes = max_message_bytes
        self._timeout = timeout
        self._rng = rng or random.Random()  # noqa: S311 - jitter, no secret
        self._link: Link | None = None
        self._attempts = 0
        self._delivered = False

    async def arrivals(self) -> AsyncGenerator[Arrival, None]:
        """Yield what arrives; frames that arrived together come as one list.

        Closing or cancelling it closes the socket.
        """
        number = 0
        while True:
            self._delivered = False
            try:
                link = await connect(
                    self.url,
                    clock=self._clock,
                    seconds=self._timeout,
                    max_message_bytes=self._max_message_bytes,
                )
            except NotConnected as error:
                _log.debug("no connection to %s: %s", self.url, error)
                yield Closed(str(error), self._clock.now())
            else:
                number += 1
                async with contextlib.aclosing(self._connected(link, number)) as arrivals:
                    async for arrival in arrivals:
                        yield arrival
            await asyncio.sleep(self._wait())

    async def send(self, text: str) -> None:
        """Send a text now; without a connection nothing is sent, as `opening` will say it all."""
        if self._link is not None:
            self._link.send(text)

    def drop(self, reason: str) -> None:
        """Cut the connection, so that it is made again."""
        if self._link is not None:
            self._link.drop(reason)

    async def _connected(self, link: Link, number: int) -> AsyncGenerator[Arrival, None]:
        self._link = link
        loop = asyncio.get_running_loop()
        start = loop.time()
        guards = [asyncio.ensure_future(self._watch(link))]
        if self._heartbeat is not None:
            guards.append(asyncio.ensure_future(_beat(link, *self._heartbeat)))
        try:
            for text in self._opening():
                link.send(text)
            _log.debug("connection %d to %s is open", number, self.url)
            yield Opened(number, self._clock.now())
            while frames := await link.take(MOST_AT_ONCE):
                self._delivered = True
                yield frames
            if self._delivered and loop.time() - start > SETTLED:
                self._attempts = 0
            _log.debug("connection %d to %s has ended: %s", number, self.url, link.ended)
            yield Closed(link.ended or "", self._clock.now())
        finally:
            self._link = None
            for guard in guards:
                guard.cancel()
            await asyncio.gather(*guards, return_exceptions=True)
            await link.shut()

    async def _watch(self, link: Link) -> None:
        """Drop a connection that has gone silent."""
        loop = asyncio.get_running_loop()
        while True:
            quiet = loop.time() - link.last_arrival
            if quiet >= self._silence and not link.paused:
                link.drop(f"silent for {self._silence:g} s")
                return
            await asyncio.sleep(self._silence if link.paused else self._silence - quiet)

    def _wait(self) -> float:
        """Return the seconds until the next attempt; they grow while no connection lasts."""
        longest = LONGEST_WAIT_AFTER_DATA if self._delivered else LONGEST_WAIT
        self._attempts += 1
        return wait_before(self._attempts - 1, FIRST_WAIT, longest, self._rng)


async def _beat(link: Link, text: str, every: float) -> None:
    while link.ended is None:
        await asyncio.sleep(every)
        link.send(text)
