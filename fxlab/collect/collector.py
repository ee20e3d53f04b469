"""A running recording as users hold it: started, watched, stopped, from a cell or a script.

It works in a thread of its own, so a busy notebook does not hold it up; a kernel that shuts down
stops it well. See `fxlab.collect.collecting` for what happens inside.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import threading
import time
import weakref
from collections.abc import Callable, Generator, Sequence
from pathlib import Path
from typing import Any, Final, Self

from fxlab import catalogue, html
from fxlab.collect.beginning import begin, choose, measure_skew
from fxlab.collect.clock import Clock
from fxlab.collect.closing import Store
from fxlab.collect.collecting import Work
from fxlab.collect.feed import Event, Feed, Subscription
from fxlab.collect.journal import Journal
from fxlab.collect.journal_files import journal_path
from fxlab.collect.plan import Plan
from fxlab.collect.recorder import Recorder
from fxlab.collect.recovery import opened_store
from fxlab.collect.status import CollectorStatus
from fxlab.collect.subscribers import Subscribers
from fxlab.collect.subscribers import Subscription as Listener
from fxlab.collect.watching import Watch
from fxlab.errors import CollectionFailed
from fxlab.questdb.client import QuestDB
from fxlab.sessions import Session

STOP_SECONDS: Final = 90.0
SKEW_US: Final = 1_000_000
"""From this difference to the venue's clock on, the ledger says so."""


class Collector:
    """A recording; made and started by `Lab.collect`.

    Use it with ``with`` or ``async with`` (both stop it at their end), ``await`` it, or keep it and
    call `stop`. It also ends by itself after its duration.

    Attributes
    ----------
    session_id
        The session that it writes.
    """

    def __init__(self, db: QuestDB, feed: Feed, plan: Plan, home: Path, clock: Clock) -> None:
        self._db, self._feed, self._plan, self._clock = db, feed, plan, clock
        self._home = home
        self.session_id = plan.session_id
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: Work | None = None
        self._watch = Watch(plan, feed.venue)
        self._listeners = Subscribers()
        self._thread = threading.Thread(target=self._run, name="fxlab collector", daemon=True)

    def start(self) -> Self:
        """Connect to the venue and begin; returns once the session exists.

        Raises
        ------
        FxlabError
            What stands in the way; nothing was written then.
        """
        _before_exit(weakref.WeakMethod(self._at_exit))  # a kernel restarts, a script ends
        self._thread.start()
        self._ready.wait()
        if self._failure is not None and self._work is None:
            self._thread.join()
            raise self._failure
        return self

    def stop(self, timeout: float = STOP_SECONDS) -> Session:
        """End the recording and return its session, all of it stored and counted.

        Raises
        ------
        CollectionFailed
            As `wait`.
        """
        self.request_stop()
        return self.wait(timeout)

    def request_stop(self) -> None:
        """Ask for the end and return at once; from any thread, and from signal handlers."""
        loop, work = self._loop, self._work
        if loop is not None and work is not None:
            with contextlib.suppress(RuntimeError):  # the loop has closed: it is over
                loop.call_soon_threadsafe(work.stopping.set)

    def wait(self, timeout: float | None = None) -> Session:
        """Wait for the end and return the session.

        Raises
        ------
        CollectionFailed
            If the recording had to end before its time, or could not bring its last rows to the
            database; everything received is kept. Also if it is not over after `timeout` seconds.
        """
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise CollectionFailed(
                f"session {self.session_id!r} is not closed after {timeout:g} s "
                f"({self.status().message or self.status().state}); call wait() again"
            )
        if self._failure is not None:
            raise self._failure
        return self.session()

    def session(self) -> Session:
        """Return the session as the catalogue has it now."""
        return Session.from_row(self._db, catalogue.find(self._db, self.session_id))

    def status(self) -> CollectorStatus:
        """Return what the recording looks like at this moment."""
        return self._watch.look()

    def events(self, symbols: Sequence[str] | None = None) -> Listener:
        """Return the live messages: ``async for message in collector.events(): ...``.

        They are those of `fxlab.collect.feed`: Trade, Quote, BookSnapshot, BookDelta, Gap, Event.
        A listener that is slower than the venue loses the oldest; ``missed`` counts them. What is
        recorded does not depend on listeners.
        """
        return self._listeners.add(symbols)

    def _run(self) -> None:
        try:
            asyncio.run(self._main())
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._failure = error
            self._watch.say(str(error))
        finally:
            self._watch.over("completed" if self._failure is None else "failed")
            self._listeners.end()
            self._ready.set()

    async def _main(self) -> None:
        self._loop = asyncio.get_running_loop()
        async with self._feed:
            wanted = await choose(self._feed, self._plan)
            skew = await self._skew()
            with opened_store(self._db) as store:
                journal = Journal(journal_path(self._home, self.session_id))
                try:
                    recorder = begin(self._feed, self._plan, journal, store, self._clock)
                    await self._record(wanted, journal, recorder, store, skew)
                finally:
                    done = self._work is not None and self._work.closed
                    if done or journal.fact("session") is None:
                        journal.discard()
                    else:
                        journal.close()  # the next start goes on with it

    async def _record(
        self,
        wanted: Subscription,
        journal: Journal,
        recorder: Recorder,
        store: Store,
        skew: Event | None,
    ) -> None:
        work = Work(
            self._feed,
            wanted,
            self._plan,
            journal=journal,
            recorder=recorder,
            store=store,
            clock=self._clock,
            publish=self._listeners.publish,
        )
        if skew is not None:
            work.say(skew)
        self._watch.begin(work, journal, recorder)
        self._work = work
        self._ready.set()
        try:
            await work.run()
        finally:
            self._watch.freeze()

    async def _skew(self) -> Event | None:
        """Compare this machine's clock with the venue's; return what the ledger should say."""
        found = await measure_skew(self._feed, self._clock)
        if found is None:
            return None
        skew, within = found
        self._watch.skew_us = skew
        if abs(skew) < SKEW_US:
            return None
        detail = (
            f"this machine's clock is {skew / 1e6:+.3f} s off that of {self._feed.venue} "
            f"(measured within {within / 1e6:.3f} s): received_at is, too"
        )
        self._watch.say(detail)
        return Event("clock_skew", None, self._clock.now(), None, detail)

    def _at_exit(self) -> None:
        """Stop well when the process ends: the session is completed, not aborted."""
        self.request_stop()
        self._thread.join(STOP_SECONDS)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, *_: object) -> None:
        self.request_stop()
        if kind is None:
            self.wait(STOP_SECONDS)
        else:
            self._thread.join(STOP_SECONDS)  # the error on its way says more

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, kind: type[BaseException] | None, *_: object) -> None:
        await asyncio.to_thread(self.__exit__, kind)

    def __await__(self) -> Generator[Any, None, Session]:
        return asyncio.to_thread(self.wait).__await__()

    def __repr__(self) -> str:
        """Show state and numbers in one line."""
        now = self.status()
        return (
            f"<Collector {now.session_id}: {now.state}, {now.exchange} "
            f"{', '.join(self._plan.symbols)}, {now.trades:,} trades, {now.books:,} books, "
            f"{now.gaps} gaps>"
        )

    def _repr_html_(self) -> str:
        now = self.status()
        names = ("session_id", "state", "exchange", "trades", "books", "gaps", "message")
        return html.facts((html.heading(name), getattr(now, name)) for name in names)


def _before_exit(method: weakref.WeakMethod[Callable[[], None]]) -> None:
    """Have a method called when the process ends, while threads can still be given work.

    `atexit` is too late for that: executors, the event loop's among them, take no work any more.
    """

    def call() -> None:
        found = method()
        if found is not None:
            found()

    # Python's own executors use it; unlike atexit, it is called before they close.
    register = getattr(threading, "_register_atexit", atexit.register)
    register(call)


def wait_until_over(collector: Collector, poll: float = 0.1) -> None:
    """Wait in steps, so that signals are handled meanwhile."""
    while not collector.status().is_over:
        time.sleep(poll)
