"""Collector: a running recording, started, watched and stopped from a cell or a script.

It works in a thread of its own, so a busy notebook does not hold it up; a kernel that shuts down
stops it well. See `fxlab.collect._live.loop` for what happens inside. Before it begins, symbols are
resolved, clocks compared, and a session opened to write to.

Subscribers get live messages from a bounded buffer beside the recording. The record is the
database. A listener that is too slow loses the oldest messages, and is told how many; the recording
never waits for one.
"""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import json
import threading
import time
import weakref
from collections import Counter, deque
from collections.abc import AsyncGenerator, Callable, Generator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Generic, Protocol, Self, TypeVar

from fxlab import _html
from fxlab._questdb.client import QuestDB
from fxlab._ticks import instrument_terms
from fxlab.collect._config import STOP_SECONDS, Plan, resolve_instruments
from fxlab.collect._live import lifecycle
from fxlab.collect._live.journal import Journal, journal_path
from fxlab.collect._live.lifecycle import (
    RecordingStore,
    opened_store,
    recorder_of,
    server_of,
    session_row,
)
from fxlab.collect._live.loop import RecordingLoop
from fxlab.collect._live.recorder import Recorder
from fxlab.collect.feed import Clock, Event, Feed, Instrument, Message, Subscription
from fxlab.collect.status import (
    COLLECTING,
    OUTAGE,
    STARTING,
    STOPPING,
    CollectorStatus,
    Rate,
    SymbolStatus,
)
from fxlab.errors import (
    CollectionFailed,
    SessionBusy,
    SessionExists,
)
from fxlab.schema import SESSIONS
from fxlab.sessions import _catalog

if TYPE_CHECKING:
    from fxlab.sessions.session import Session

SKEW_US: Final = 1_000_000
"""From this difference to the venue's clock on, the event table says so."""


class Collector:
    """A recording; made and started by `Lab.collect`.

    Use it with ``with`` or ``async with`` (both stop it at their end), ``await`` it, or keep it and
    call `stop`. It also ends by itself after its duration.

    Attributes
    ----------
    session_id
        The session that it writes.

    Examples
    --------
    >>> market = generated(["BTC_USDT"], seed=1, rate=100, trades=20)
    >>> with MockVenue(market) as venue:
    ...     collector = lab.collect("binance", "BTC_USDT", url=venue.url, duration="1s")
    ...     session = collector.wait()
    >>> session.status, session.symbols
    ('completed', ('BTC_USDT',))
    """

    def __init__(self, db: QuestDB, feed: Feed, plan: Plan, home: Path, clock: Clock) -> None:
        self._db, self._feed, self._plan, self._clock = db, feed, plan, clock
        self._home = home
        self.session_id = plan.session_id
        self._ready = threading.Event()
        self._failure: BaseException | None = None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._work: RecordingLoop | None = None
        self._watch = StatusMonitor(plan, feed.venue)
        self._listeners: Subscribers[Message] = Subscribers()
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
        from fxlab.sessions.session import Session  # a recording itself reads nothing back

        return Session.from_row(self._db, _catalog.find(self._db, self.session_id))

    def status(self) -> CollectorStatus:
        """Return what the recording looks like at this moment."""
        return self._watch.look()

    def events(self, symbols: Sequence[str] | None = None) -> Listener[Message]:
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
            wanted = await resolve_instruments(self._feed, self._plan, self._recorded())
            names = tuple(one.symbol for one in wanted.instruments)
            self._plan = replace(self._plan, symbols=names)
            skew = await self._skew()
            with opened_store(self._db) as store:
                journal = Journal(journal_path(self._home, self.session_id))
                try:
                    recorder = open_session(
                        self._feed,
                        self._plan,
                        wanted.instruments,
                        journal,
                        store,
                        clock=self._clock,
                    )
                    await self._record(wanted, journal, recorder, store, skew)
                finally:
                    done = self._work is not None and self._work.closed
                    if done or journal.fact("session") is None:
                        journal.discard()
                    else:
                        journal.close()  # the next start goes on with it

    def _recorded(self) -> set[str] | None:
        """Return the symbols of the session to go on with; None if it is a new one."""
        row = _catalog.find_any(self._db, self.session_id) if self._plan.resume else None
        return None if row is None else set(json.loads(row["symbols"]))

    async def _record(
        self,
        wanted: Subscription,
        journal: Journal,
        recorder: Recorder,
        store: RecordingStore,
        skew: Event | None,
    ) -> None:
        work = RecordingLoop(
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
        """Compare this machine's clock with the venue's; return the event to record, if any."""
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
        return _html.facts((_html.heading(name), getattr(now, name)) for name in names)


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


async def measure_skew(feed: Feed, clock: Clock) -> tuple[int, int] | None:
    """Return this machine's clock minus the venue's, and how exactly that is known.

    Both in microseconds; None if the venue's clock cannot be asked. The way to the venue and back
    is taken for symmetric.
    """
    before = clock.now()
    theirs = await feed.server_time()
    after = clock.now()
    return None if theirs is None else ((before + after) // 2 - theirs, (after - before) // 2)


def open_session(
    feed: Feed,
    plan: Plan,
    instruments: Sequence[Instrument],
    journal: Journal,
    store: RecordingStore,
    *,
    clock: Clock,
) -> Recorder:
    """Make the session known in the journal and in the database, and return its recorder.

    Parameters
    ----------
    feed, plan, instruments
        The venue, and what is recorded of it, as it is listed now.
    journal, store, clock
        Where it is kept, and when.

    Raises
    ------
    SessionExists, SessionBusy
        If the id is taken, or rows of it wait for another server.
    SessionNotFound, InvalidParameter
        As `fxlab.collect._live.lifecycle.restore_state`.
    """
    left = journal.fact("session")
    if left is not None:  # recovery came before and could not bring it to this server
        raise SessionBusy(
            f"rows of session {plan.session_id!r} still wait in {journal.path} for the server "
            f"at {left['server']}; connect to that one first, or choose another session_id"
        )
    facts = {
        "session_id": plan.session_id,
        "exchange": feed.venue,
        "symbols": sorted(plan.symbols),
        "data_types": plan.data_types,
        "counts_trades": feed.counts_trades,
        "created_at": clock.now(),
        "notes": plan.notes,
        "tags": list(plan.tags),
        "options": plan.options() | {"lossless": feed.lossless},
        "instruments": {one.symbol: instrument_terms(**one.terms) for one in instruments},
        "server": server_of(store.db),
    }
    if plan.resume is True or _catalog.find_free(store.db, plan.session_id) is not None:
        if not plan.resume:
            raise SessionExists(
                f"session {plan.session_id!r} exists; choose another session_id, or go on with it: "
                "resume=True"
            )
        facts = lifecycle.restore_state(store.db, plan, journal, facts)
    ending = {} if plan.ending is None else {"ending": plan.ending}
    journal.append([], {"session": facts, **ending})
    recorder = recorder_of(journal, store.encoder, facts)
    with _catalog.announcing(journal.path.parents[1] / "locks"):
        store.put(SESSIONS, [session_row(facts, recorder, "collecting", clock.now())])
    return recorder


_BACKFILLED: Final = ("prices", "backfill")


class StatusMonitor:
    """What is known of a recording at any time of its life."""

    def __init__(self, plan: Plan, exchange: str) -> None:
        self._plan, self._exchange = plan, exchange
        self._began = time.monotonic()
        self._lasted: float | None = None
        self._end_state = ""
        self._message = ""
        self._work: RecordingLoop | None = None
        self._journal: Journal | None = None
        self._recorder: Recorder | None = None
        self._rates: dict[tuple[str, str], Rate] = {}
        self._turn = threading.Lock()
        self.skew_us: int | None = None

    def begin(self, work: RecordingLoop, journal: Journal, recorder: Recorder) -> None:
        """Take in the parts, once they are there."""
        self._work, self._journal, self._recorder = work, journal, recorder

    def say(self, message: str) -> None:
        """Remember the newest thing worth saying."""
        self._message = message

    def freeze(self) -> None:
        """Stop the time."""
        self._lasted = time.monotonic() - self._began

    def over(self, state: str) -> None:
        """Remember how it ended."""
        self.freeze()
        ended = self._journal is not None and state == "failed"
        self._end_state = "aborted" if ended else state

    def look(self) -> CollectorStatus:
        """Return the recording at this moment."""
        with self._turn:
            elapsed = time.monotonic() - self._began if self._lasted is None else self._lasted
            recorder, journal = self._recorder, self._journal
            duration = self._plan.duration
            return CollectorStatus(
                session_id=self._plan.session_id,
                exchange=self._exchange,
                state=self._state(),
                elapsed=elapsed,
                duration=None if duration is None else duration / 1e6,
                symbols=() if recorder is None else self._symbols(recorder),
                waiting_rows=0 if journal is None else journal.rows,
                waiting_bytes=0 if journal is None else journal.bytes,
                journal_limit=self._plan.journal_limit,
                errors=0 if recorder is None else recorder.events.errors,
                skew_ms=None if self.skew_us is None else self.skew_us / 1e3,
                message=self._news(),
                newest=None if recorder is None else recorder.events.newest,
            )

    def _state(self) -> str:
        if self._end_state:
            return self._end_state
        if self._work is None:
            return STARTING
        if self._work.stopping.is_set():
            return STOPPING
        return OUTAGE if self._work.sender.outage else COLLECTING

    def _news(self) -> str:
        outage = "" if self._work is None else self._work.sender.outage
        return outage or self._message

    def _symbols(self, recorder: Recorder) -> tuple[SymbolStatus, ...]:
        rows, gaps = recorder.row_counts(), Counter(list(recorder.events.gaps.values()))
        found = []
        for symbol, record in recorder.symbols.items():
            ids, backfilled = record.trades.ids, recorder.tallies.get((symbol, *_BACKFILLED))
            status = SymbolStatus(
                symbol=symbol,
                trades=rows[symbol, "prices"],
                books=rows[symbol, "orderbook"],
                trades_per_second=self._rate(symbol, "prices", rows),
                books_per_second=self._rate(symbol, "orderbook", rows),
                trades_age=self._age(symbol, "prices"),
                books_age=self._age(symbol, "orderbook"),
                last_price=record.last_price,
                bid=record.bid,
                ask=record.ask,
                price_decimals=record.decimals,
                lag_ms=None if record.lag is None else record.lag / 1e3,
                gaps=gaps[symbol],
                gaps_resynced=recorder.events.resynced[symbol],
                missing=0 if ids is None else ids.missing,
                backfilled=0 if backfilled is None else backfilled.rows,
                doubles=record.trades.doubles,
                channels={name: rows[symbol, name] for name in record.channels},
            )
            found.append(status)
        return tuple(found)

    def _age(self, symbol: str, data_type: str) -> float | None:
        age = None if self._work is None else self._work.silence.ages.get((symbol, data_type))
        if age is None or not age.rows or self._lasted is not None:
            return None
        return time.monotonic() - age.heard

    def _rate(self, symbol: str, data_type: str, rows: Counter[tuple[str, str]]) -> float | None:
        rate = self._rates.setdefault((symbol, data_type), Rate())
        if self._lasted is None:
            rate.mark(time.monotonic(), rows[symbol, data_type])
        return rate.value


MOST_WAITING: Final = 10_000


class AboutSymbol(Protocol):
    """What listeners get: it is about a symbol, or about them all."""

    @property
    def symbol(self) -> str | None:
        """Return the symbol, None for all."""


Told = TypeVar("Told", bound=AboutSymbol)


class Listener(Generic[Told]):
    """One listener in one event loop: iterate over it with ``async for``.

    Attributes
    ----------
    missed
        Messages that were dropped because the listener was slow.
    """

    def __init__(
        self, symbols: Sequence[str] | None, on_close: Callable[[Listener[Told]], None]
    ) -> None:
        self._symbols = None if symbols is None else frozenset(symbols)
        self._on_close = on_close
        self._waiting: deque[Told] = deque(maxlen=MOST_WAITING)
        self._loop = asyncio.get_running_loop()
        self._news = asyncio.Event()
        self._over = False
        self.missed = 0

    def put(self, messages: Sequence[Told]) -> None:
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
        with contextlib.suppress(RuntimeError):  # its loop has closed
            self._loop.call_soon_threadsafe(self._news.set)

    async def __aiter__(self) -> AsyncGenerator[Told, None]:
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


class Subscribers(Generic[Told]):
    """All listeners of a collector, or of another source."""

    def __init__(self) -> None:
        self._turn = threading.Lock()
        self._all: list[Listener[Told]] = []
        self._over = False

    def add(self, symbols: Sequence[str] | None) -> Listener[Told]:
        """Return a new listener for the running event loop."""
        one = Listener(symbols, self._remove)
        with self._turn:
            self._all.append(one)
            if self._over:
                one.end()
        return one

    def publish(self, messages: Sequence[Told]) -> None:
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

    def _remove(self, one: Listener[Told]) -> None:
        with self._turn:
            if one in self._all:
                self._all.remove(one)
