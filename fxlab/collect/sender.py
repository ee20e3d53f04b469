"""Brings what is in the journal to the server, in a thread of its own, for as long as it takes.

The socket is read elsewhere and never waits for the database. An outage is waited out; a refused
batch is halved until the bad row stands alone, which is kept with the server's words while all
others go on.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from fxlab.backoff import wait_before
from fxlab.collect.journal import Journal, Outlet, Waiting
from fxlab.errors import BatchRefused, QuestDBLoginFailed, QuestDBUnavailable
from fxlab.questdb.lines import LinePost, Lines

_log: Final = logging.getLogger(__name__)

REQUEST_BYTES: Final = 2_000_000
"""About 25,000 trades a request while catching up."""

FIRST_PAUSE: Final = 0.05
LONGEST_PAUSE: Final = 2.0  # seconds between two tries during an outage
LONGEST_REST: Final = 0.25  # seconds between two requests when all is well
ROWS_A_SECOND_OF_REST: Final = 20_000
"""At 5,000 trades a second the sender hardly rests; at 50,000 it sends four times a second."""

SLOW_SECONDS: Final = 3.0
"""A server that takes longer to answer was away, too, though no try failed."""

MOST_REFUSED: Final = 20
"""So many refused rows in a row, and none taken between them: it is not the rows."""


@dataclass(frozen=True, slots=True)
class Outage:
    """A time without the server, by the monotonic clock."""

    seconds: float
    tries: int
    reason: str


class Sender:
    """The thread between journal and server.

    Parameters
    ----------
    journal, post
        From where, and to where; the sender closes neither.
    on_outage
        Called after an outage, in this thread.
    on_refused
        Called with each row that was refused and the server's words.
    """

    def __init__(
        self,
        journal: Journal,
        post: LinePost,
        *,
        on_outage: Callable[[Outage], None],
        on_refused: Callable[[Lines, str], None],
    ) -> None:
        self._journal = journal
        self._post = post
        self._on_outage = on_outage
        self._on_refused = on_refused
        self._stopping = threading.Event()
        self._refused: list[tuple[Lines, str]] = []
        """Of the batches under way."""
        self._refused_in_a_row = 0
        self.outage = ""
        """Why the server is not there at the moment, or nothing."""
        self.failure: Exception | None = None
        """What ended the thread before its time."""
        self._thread = threading.Thread(target=self._run, name="fxlab sender", daemon=True)

    def start(self) -> None:
        """Begin to send."""
        self._thread.start()

    def drain(self, timeout: float) -> bool:
        """Wait until the journal is empty; False if it is not after `timeout` seconds."""
        end = time.monotonic() + timeout
        while self._journal.rows and self._thread.is_alive() and time.monotonic() < end:
            time.sleep(0.005)
        return not self._journal.rows

    def stop(self) -> None:
        """Finish the request under way and end the thread; the rest stays in the journal."""
        self._stopping.set()
        self._journal.news.set()
        if self._thread.ident is not None:
            self._thread.join()

    def _run(self) -> None:
        outlet = self._journal.outlet()
        try:
            while not self._stopping.is_set():
                self._journal.news.clear()
                waiting = outlet.oldest(REQUEST_BYTES)
                if waiting:
                    self._deliver(outlet, waiting)
                    self._rest(sum(batch.lines.rows for batch in waiting))
                else:
                    self._journal.news.wait(1.0)
        except Exception as error:  # noqa: BLE001 - told by the collector, which then ends
            self.failure = error
        finally:
            outlet.close()

    def _rest(self, rows: int) -> None:
        """Let rows gather where many come: a commit costs the server more than its rows do."""
        if self._journal.rows < rows:  # else there is something to catch up with
            self._stopping.wait(min(LONGEST_REST, rows / ROWS_A_SECOND_OF_REST))

    def _deliver(self, outlet: Outlet, waiting: Sequence[Waiting]) -> None:
        """Store batches and forget them; they stay in the journal if the thread is stopped."""
        self._refused = []
        try:
            stored = self._insist([batch.lines for batch in waiting])
        except BatchRefused:
            stored = all(self._one(batch.lines) for batch in waiting)
        if stored:
            for lines, words in self._refused:  # first: an empty journal is where people stop
                self._on_refused(lines, words)
            outlet.forget(waiting, self._refused)

    def _one(self, lines: Lines) -> bool:
        """Store what can be stored of a batch; return False if the thread was stopped before."""
        try:
            stored = self._insist([lines])
        except BatchRefused as error:
            if lines.rows > 1:
                return all(self._one(half) for half in lines.halves())
            self._refuse(lines, error)
            return True
        if stored:
            self._refused_in_a_row = 0
        return stored

    def _refuse(self, lines: Lines, error: BatchRefused) -> None:
        self._refused_in_a_row += 1
        if self._refused_in_a_row > MOST_REFUSED:
            raise error  # the table's trouble, not the row's: the journal keeps them all
        _log.warning("a row of %s was refused and set aside: %s", lines.table, error)
        self._refused.append((lines, str(error)))

    def _insist(self, batches: Sequence[Lines]) -> bool:
        """Send until the server answers; return False if the thread was stopped before."""
        began, tries = time.monotonic(), 0
        while not self._stopping.is_set():
            try:
                self._post.send(batches)
            except (QuestDBUnavailable, QuestDBLoginFailed) as error:
                tries += 1
                # The first failure may be a connection that the server let go.
                if tries > 1 or time.monotonic() - began > SLOW_SECONDS:
                    self.outage = str(error)
                    _log.warning("rows wait in the journal, try %d: %s", tries, error)
                    self._stopping.wait(wait_before(tries - 2, FIRST_PAUSE, LONGEST_PAUSE))
            except BatchRefused:
                self._end_outage(began, tries)
                raise
            else:
                self._end_outage(began, tries)
                return True
        return False

    def _end_outage(self, began: float, tries: int) -> None:
        seconds = time.monotonic() - began
        reason, self.outage = self.outage, ""
        if seconds > SLOW_SECONDS:
            reason = reason or "it took so long to answer"
        if reason:
            _log.info("the server takes rows again after %.1f s", seconds)
            self._on_outage(Outage(seconds, tries, reason))
