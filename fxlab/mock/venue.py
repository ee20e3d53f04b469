"""The mock venue as users hold it: an address, a truth, and switches for trouble."""

from __future__ import annotations

import asyncio
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from pathlib import Path
from typing import Any, Final, Self, TypeVar

from tornado.httpserver import HTTPServer

from fxlab.errors import PortTaken
from fxlab.mock.door import Door
from fxlab.mock.faults import Faults
from fxlab.mock.floor import Floor, Speed
from fxlab.mock.generator import generated
from fxlab.mock.market import Market
from fxlab.mock.protocols import PROTOCOLS
from fxlab.mock.truth import Truth

T = TypeVar("T")

_PATIENCE: Final = 30.0


class MockVenue:
    """An exchange on this machine; a context manager.

    Parameters
    ----------
    market
        What happens: `fxlab.mock.generated` or `fxlab.mock.recorded`.
    venues
        The protocols that are served.
    speed
        1.0 for the market's own pace, 10.0 for ten times that, "max" for as fast as the clients
        take it.
    faults
        What goes wrong.
    ledger
        A file for the ledger, as JSON lines.
    port
        0 for a free one.
    listeners
        The market begins when so many streams are listened to.
    until
        Seconds after its beginning at which the market stands still until `go_on`, or None: what
        is asked meanwhile, however slowly, is asked about one moment.

    Attributes
    ----------
    url
        ``http://127.0.0.1:PORT``; a venue's REST is below ``url/<venue>``.

    Raises
    ------
    VenueNotFound
        For an unknown venue.
    InvalidParameter
        For a speed that is not positive.
    """

    def __init__(
        self,
        market: Market | None = None,
        *,
        venues: Sequence[str] = tuple(PROTOCOLS),
        speed: Speed = 1.0,
        faults: Faults | None = None,
        ledger: Path | str | None = None,
        port: int = 0,
        listeners: int = 1,
        until: float | None = None,
    ) -> None:
        self.venues = tuple(venues)
        self._floor = Floor(
            market or generated(),
            venues,
            speed=speed,
            faults=faults or Faults(),
            ledger=None if ledger is None else Path(ledger),
            listeners=listeners,
            until=until,
        )
        self._wanted_port = port
        self._thread = threading.Thread(target=self._serve, name="mock venue", daemon=True)
        self._ready: Future[int] = Future()
        self._loop: asyncio.AbstractEventLoop
        self._stop: asyncio.Event
        self.url = ""

    @property
    def truth(self) -> Truth:
        """Everything that happened; look at it when the tape is over, or by `ledger`."""
        return self._floor.truth

    def start(self) -> Self:
        """Serve from now on.

        Raises
        ------
        PortTaken
            If another program listens on the port.
        """
        self._loop, self._stop = asyncio.new_event_loop(), asyncio.Event()
        self._thread.start()
        self.url = f"http://127.0.0.1:{self._ready.result()}"
        return self

    def stop(self) -> None:
        """Cut all connections and stop; the ledger is complete then."""
        if self._thread.is_alive():
            self._loop.call_soon_threadsafe(self._stop.set)
            self._thread.join(_PATIENCE)

    def ledger(self) -> dict[str, Any]:
        """Return what ``GET /ledger`` says.

        `symbols` has what happened (count, first and last id, exact sum of quantities, checksum as
        of `fxlab.mock.truth.checksum`); `venues` what could be heard of it, from the first
        subscription to the trades of a symbol on (`sent_first_id`, `happened`, `sent`), and
        `unsent`, the ranges of ids that were never sent; `faults` each fault in its order.
        """
        return self._ask(self._floor.state)

    def go_on(self, until: float | None = None) -> None:
        """Let the market go on from where it is, up to a later second; None for good."""
        self._ask(lambda: self._floor.go_on(until))

    def stand_still(self) -> None:
        """Let the market stand still where it is; `ledger` says when it runs no more."""
        self._ask(self._floor.stand_still)

    def cut(self) -> None:
        """Cut all connections now, in the middle of a frame."""
        self._ask(self._floor.cut)

    def stall(self, silent: bool = True) -> None:  # noqa: FBT001, FBT002 - reads as a sentence
        """Send nothing any more, pongs included, while connections stay open; or end that."""
        self._ask(lambda: self._floor.hush(silent=silent))

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until the tape is over; return whether it is."""
        over = asyncio.run_coroutine_threadsafe(self._floor.ended.wait(), self._loop)
        try:
            return over.result(seconds)
        except TimeoutError:
            over.cancel()
            return False

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(self, *_: object) -> None:
        self.stop()

    def _ask(self, question: Callable[[], T]) -> T:
        if not self._thread.is_alive():
            return question()

        async def answer() -> T:
            return question()

        return asyncio.run_coroutine_threadsafe(answer(), self._loop).result(_PATIENCE)

    def _serve(self) -> None:
        asyncio.set_event_loop(self._loop)
        try:
            self._loop.run_until_complete(self._served())
        finally:
            self._loop.run_until_complete(self._loop.shutdown_asyncgens())
            asyncio.set_event_loop(None)
            self._loop.close()

    async def _served(self) -> None:
        door = Door(self._floor)
        server = HTTPServer(door)
        try:
            listening = socket.create_server(("127.0.0.1", self._wanted_port))
        except OSError as error:
            self._floor.ledger.close(self._floor.state())
            self._ready.set_exception(
                PortTaken(
                    f"port {self._wanted_port} cannot be used for the mock venue "
                    f"({error.strerror}); choose another one, or 0 for any"
                )
            )
            return
        listening.setblocking(False)  # noqa: FBT003 - its only argument
        server.add_socket(listening)
        self._ready.set_result(listening.getsockname()[1])
        tape = self._loop.create_task(self._floor.run())
        await self._stop.wait()
        tape.cancel()
        server.stop()
        await door.close()
        await server.close_all_connections()
        await asyncio.gather(tape, return_exceptions=True)
        self._floor.ledger.close(self._floor.state())
