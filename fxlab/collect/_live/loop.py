"""Recording loop: read the venue, journal batches, backfill gaps from the venue's history, end.

Three things run beside each other. The event loop reads the venue and never waits for disk or
database; one thread journals a batch every few dozen milliseconds; the sender's thread brings the
journal to the server. What connects them is bounded, so a slow disk holds the venue back rather
than filling the memory.

A connection that answers proves nothing of its streams: the `SilenceWatch` asks the venue about a
stream that has been silent for longer than usual, and breaks the connection if it was left out.

The `Backfiller` asks a venue's history for the trades in gaps, again while they stay open. Gaps
close together are one question: an answer covers a thousand ids, and venues count requests.
"""

from __future__ import annotations

import asyncio
import base64
import contextlib
import logging
import sqlite3
import time
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any, Final

from fxlab._network import answered, wait_before
from fxlab._questdb.ingest import Lines
from fxlab.collect._config import Plan
from fxlab.collect._live.events import (
    BackfillRequest,
    BackfillResult,
    StreamAge,
    is_wanted,
    neighbours,
    pieces,
)
from fxlab.collect._live.journal import FIRST_PAUSE, LONGEST_PAUSE, Journal, Outage, Sender
from fxlab.collect._live.lifecycle import RecordingStore, close_session, session_row
from fxlab.collect._live.recorder import FOREVER, Recorder
from fxlab.collect.feed import (
    BookSnapshot,
    Clock,
    Event,
    Feed,
    Gap,
    Instrument,
    Message,
    Subscription,
    Trade,
    refuses,
)
from fxlab.errors import CollectionFailed, FxlabError, VenueError, VenueRefused
from fxlab.schema import SESSIONS

_log: Final = logging.getLogger(__name__)

MOST_UNJOURNALED: Final = 20_000
"""Messages in memory at which the venue is not read any more."""

CATALOGUE_SECONDS: Final = 5.0  # between two writings of the session's row
LAST_ASKING_SECONDS: Final = 20.0
LAST_LOOK_SECONDS: Final = 5.0  # whether a stream had fallen silent, when a recording ends
HANGING_SECONDS, HANGING_SERVER = 1.5, 1.0  # at the end: without an answer, without a row stored
FULL_DISK_SECONDS: Final = 5.0
DRAIN_SECONDS: Final = 30.0


class RecordingLoop:
    """One recording from its first message to its receipt; runs in one event loop.

    Parameters
    ----------
    feed, wanted, plan
        Where from, what, and how.
    journal, recorder, store, clock
        Its parts, opened; `close` is the caller's.
    publish
        Called with messages as they come, in the event loop.
    """

    def __init__(
        self,
        feed: Feed,
        wanted: Subscription,
        plan: Plan,
        *,
        journal: Journal,
        recorder: Recorder,
        store: RecordingStore,
        clock: Clock,
        publish: Callable[[Sequence[Message]], None],
    ) -> None:
        self._feed, self._wanted, self._plan = feed, wanted, plan
        self._journal, self._recorder, self._store = journal, recorder, store
        self._clock, self._publish = clock, publish
        self._inbox: list[Message | BackfillResult] = []
        self._said: deque[Event] = deque()
        """What the sender's thread has to say."""
        self._questions = Backfiller(
            feed, wanted.instruments, self._inbox.extend, recorder.still_open,
            silent=not plan.backfill,
        )  # fmt: skip
        self.silence = SilenceWatch(
            feed, wanted, recorder, clock, say=self.say, answer=self._inbox.extend
        )
        self._room = asyncio.Event()
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="fxlab journal")
        self._said_at = 0.0
        self._refused_until = 0
        self.stopping = asyncio.Event()
        self.closed = False
        """Whether all is stored and the session's last row written: the journal is done."""
        self.sender = Sender(
            journal, store.post, on_outage=self._outage_over, on_refused=self._row_refused
        )

    async def run(self) -> None:
        """Record until the duration is over or `stopping` is set, then close the session.

        Raises
        ------
        CollectionFailed
            If it had to end before; the session is aborted, and what was received is kept.
        """
        _log.info("recording %s of %s begins", self._plan.session_id, self._plan.venue)
        self.sender.start()
        reader = asyncio.create_task(self._read(), name="fxlab reader")
        failure: BaseException | None = None
        try:
            await self._journal_until_end(reader)
        except FxlabError as error:
            failure = error
        except Exception as error:  # noqa: BLE001 - an unexpected error ends well, too
            failure = _broken(f"the recording of {self._plan.session_id}", error)
            failure.__cause__ = error
        finally:
            reader.cancel()
            await asyncio.gather(reader, return_exceptions=True)
        try:
            await self._finish(failure)
        except FxlabError:
            raise
        except Exception as error:
            raise _broken(f"the recording of {self._plan.session_id}", error) from error

    def say(self, event: Event) -> None:
        """Have an event written, from any thread."""
        self._said.append(event)

    async def _read(self) -> None:
        messages = self._feed.messages(self._wanted)
        try:
            async for some in messages:
                self._inbox.extend(some)
                self._publish(some)
                if len(self._inbox) > MOST_UNJOURNALED:
                    self._room.clear()
                    await self._room.wait()
        finally:
            close = getattr(messages, "aclose", None)  # of a generator; a user's may be none
            if close is not None:
                await close()

    async def _journal_until_end(self, reader: asyncio.Task[None]) -> None:
        end = FOREVER if self._plan.duration is None else time.monotonic_ns() // 1_000
        end += self._plan.duration or 0
        pause = self._plan.interval / 1e6
        while not self.stopping.is_set() and time.monotonic_ns() // 1_000 < end:
            began = time.monotonic()
            await self._journal_batch(self._clock.now() - self._plan.settle)
            self._look_around(reader)
            rest = pause - (time.monotonic() - began)
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(max(rest, 0.0)):
                    await self.stopping.wait()

    async def _journal_batch(self, settled_before: int) -> None:
        batch = self._inbox.copy()
        self._inbox.clear()
        self._room.set()
        self._tell_refusal()
        while self._said:
            batch.append(self._said.popleft())
        try:
            await self._in_thread(self._recorder.record, batch, settled_before)
        except sqlite3.OperationalError as error:
            await self._journal_again(error)
        finally:
            batch.clear()  # else the executor's own references keep it until a garbage collection
        found, self._recorder.to_ask = self._recorder.to_ask, []
        self._questions.ask(found)

    def _tell_refusal(self) -> None:
        """Tell once that a venue is asked nothing for a while, and what waits for it."""
        refusal = self._feed.refusal()
        if refusal is not None and refusal.until != self._refused_until:
            self._refused_until = refusal.until
            detail = (
                f"{refusal.reason[:300]}; until then gaps, lost books and silence stay as they are"
            )
            self.say(Event("venue_error", None, self._clock.now(), 1, detail))

    async def _journal_again(self, error: sqlite3.OperationalError) -> None:
        """Try again for a while: the sender makes room in the journal as it empties it."""
        end, attempt = time.monotonic() + FULL_DISK_SECONDS, -1
        while time.monotonic() < end:
            attempt += 1
            await asyncio.sleep(wait_before(attempt, FIRST_PAUSE, LONGEST_PAUSE))
            try:
                await self._in_thread(self._recorder.save)
            except sqlite3.OperationalError as again:
                error = again
            else:
                return
        raise CollectionFailed(
            f"the journal {self._journal.path} cannot be written ({error}); free disk space, then "
            f"go on with: resume=True, session_id={self._plan.session_id!r}"
        ) from error

    async def _in_thread(self, work: Callable[..., None], *arguments: Any) -> None:  # noqa: ANN401
        await asyncio.get_running_loop().run_in_executor(self._thread, work, *arguments)

    def _look_around(self, reader: asyncio.Task[None]) -> None:
        """End the recording if it must end; about once a second, see to the small things."""
        if reader.done():
            error = reader.exception()
            if error is not None:
                if isinstance(error, FxlabError):
                    raise error
                raise _broken(f"the feed of {self._plan.venue}", error) from error
            self.stopping.set()  # the feed has no more to say
        if self.sender.failure is not None:
            raise CollectionFailed(
                f"the database takes no rows ({self.sender.failure}); they are kept in "
                f"{self._journal.path}: run fxlab doctor"
            )
        if self._journal.bytes > self._plan.journal_limit:
            raise CollectionFailed(
                f"{self._journal.bytes:,} bytes wait for the database, and journal_limit is "
                f"{self._plan.journal_limit:,}: nothing received until now is lost; start the "
                "server (fxlab up), and the next start of fxlab stores the rest"
            )
        if step := self._clock.step():
            detail = f"the wall clock was set by {step / 1e6:+.3f} s"
            self.say(Event("clock_step", None, self._clock.now(), None, detail))
        self.silence.look(time.monotonic())
        self._questions.ask_again(self._questions.due(time.monotonic()))
        if time.monotonic() - self._said_at > CATALOGUE_SECONDS:
            self._said_at = time.monotonic()
            facts = self._journal.fact("session")
            row = session_row(facts, self._recorder, "collecting", self._clock.now())
            self._recorder.put(self._store.encoder.encode(SESSIONS, [row]))

    def _outage_over(self, outage: Outage) -> None:
        detail = f"{outage.reason[:300]}: {outage.tries} tries in {outage.seconds:.1f} s"
        self.say(Event("db_outage", None, self._clock.now(), outage.tries, detail))

    def _row_refused(self, lines: Lines, words: str) -> None:
        kept = base64.b64encode(lines.payload).decode()
        detail = f"{words[:300]}: {lines.table}, base64 {kept}"
        self.say(Event("quarantine", None, self._clock.now(), 1, detail))

    async def _finish(self, failure: BaseException | None) -> None:
        """Ask for the last gaps, journal the rest, bring it to the server, close the session."""
        open_ones, drained = self._questions.due(time.monotonic(), ending=True), False
        try:
            await self._journal_batch(FOREVER)
            self._questions.ask_again(open_ones)
            patience = HANGING_SECONDS
            if failure is None:
                patience = await self.silence.finish(self._clock.now(), LAST_LOOK_SECONDS)
                await self._journal_batch(FOREVER)
            most = LAST_ASKING_SECONDS if self._plan.ending is None else FOREVER
            await self._questions.finish(patience, most)
            await self._journal_batch(FOREVER)
            await self._in_thread(self._recorder.end, self._clock.now())
            ending = self._plan.ending or ("completed" if failure is None else "aborted")
            facts = self._journal.fact("session")
            facts["options"]["lossless"] = self._feed.lossless  # a bridge may find out late
            await self._in_thread(lambda: self._recorder.save(ending=ending, session=facts))
            drained = await asyncio.to_thread(self.sender.drain, DRAIN_SECONDS, HANGING_SERVER)
            if drained and self._said:  # the sender had something to say
                await self._journal_batch(FOREVER)
                drained = await asyncio.to_thread(self.sender.drain, DRAIN_SECONDS, HANGING_SERVER)
        except sqlite3.OperationalError as error:
            drained, failure = False, failure or error
        finally:
            await asyncio.to_thread(self.sender.stop, None if drained else PROBE_SECONDS)
            self._thread.shutdown()
        if isinstance(failure, CollectionFailed) and not drained:
            raise failure  # it says why; the next start closes the session
        await asyncio.to_thread(self._close, drained=drained)
        _log.info("recording %s has ended: %s", self._plan.session_id, failure or "completed")
        if failure is not None:
            raise failure

    def _close(self, *, drained: bool) -> None:
        if not drained:
            raise CollectionFailed(
                f"{self._journal.rows:,} rows could not be brought to the database "
                f"({self.sender.outage or self.sender.failure or 'it is slow'}); they are kept in "
                f"{self._journal.path}, and the next start of fxlab stores them and closes session "
                f"{self._plan.session_id!r}"
            )
        close_session(self._store, self._journal, self._recorder, self._clock.now())
        self.closed = True


def _broken(what: str, error: BaseException) -> CollectionFailed:
    words = f"{what} broke: {type(error).__name__}: {error}; what was received is kept"
    return CollectionFailed(f"{words}, the traceback above shows where")


def _cause(error: Exception) -> str:
    """Return why a venue did not answer; a venue's own error says it in words."""
    return str(error) if isinstance(error, VenueError) else f"{type(error).__name__}: {error}"


AT_A_TIME: Final = 2
"""Questions of one kind."""
LOOK_SECONDS: Final = 0.5
LAST_INTERVALS: Final = 5
"""At the end, a stream is asked about after so many of its mean intervals, and a second."""
CONFIRM_SECONDS: Final = 2.0
"""What a venue's answer tells may be on its way over the stream, too."""
COARSE_US: Final = 1_000_000
"""Times that the venue tells in seconds may be off by one."""


_Act = Callable[[str, str, Trade | BookSnapshot], Coroutine[Any, Any, None]]


class SilenceWatch:
    """Finds streams that a venue has ceased to send while their connection answers.

    Parameters
    ----------
    feed, wanted
        Who is asked, about what.
    recorder
        What came last is read there.
    clock
        Stamps events.
    say, answer
        Called with events, and with trades and gaps that were found out.

    Attributes
    ----------
    ages
        By symbol and data type.
    """

    def __init__(
        self,
        feed: Feed,
        wanted: Subscription,
        recorder: Recorder,
        clock: Clock,
        *,
        say: Callable[[Event], None],
        answer: Callable[[Sequence[Message]], None],
    ) -> None:
        self._feed, self._recorder, self._clock = feed, recorder, clock
        self._instruments = {one.symbol: one for one in wanted.instruments}
        self._say, self._answer = say, answer
        kinds = ["prices"] * wanted.trades + ["orderbook"] * bool(wanted.book_depth)
        now, self._began_at = time.monotonic(), clock.now()
        self.ages = {
            (symbol, kind): StreamAge(now, now) for symbol in self._instruments for kind in kinds
        }
        self._turn = asyncio.Semaphore(AT_A_TIME)
        self._tasks: dict[tuple[str, str], asyncio.Task[None]] = {}
        self._looked = now
        self._reconnects = 0

    def look(self, now: float) -> None:
        """See what came, twice a second, and ask about what has been silent for too long."""
        if now - self._looked < LOOK_SECONDS:
            return
        self._looked = now
        rows = self._recorder.row_counts()
        again = self._recorder.reconnects != self._reconnects
        self._reconnects = self._recorder.reconnects
        for key, age in self.ages.items():
            if again and age.asked == 0:
                age.suspected = now
            age.look(self._mark(*key, rows[key]), rows[key], now)
            if now >= age.due() and key not in self._tasks and not refuses(self._feed):
                age.asked += 1
                question = self._ask(*key, self._recover)
                self._tasks[key] = task = asyncio.create_task(question, name="fxlab silence")
                task.add_done_callback(partial(self._tasks.pop, key))

    async def finish(self, end: int, seconds: float) -> float:
        """Ask once more about streams that may have fallen silent before a recording's end (µs).

        Returns the seconds for which the venue is worth waiting for without an answer now.
        """
        for task in list(self._tasks.values()):
            task.cancel()
        now = time.monotonic()
        doubtful = [
            key
            for key, age in self.ages.items()
            if now - age.heard > max(1.0, LAST_INTERVALS * age.usual()) or age.suspected is not None
        ]
        refusal = self._feed.refusal()
        if doubtful and refusal is not None and refusal.seconds > seconds:
            detail = f"{len(doubtful)} streams could not be asked about: {refusal.reason}"
            self._say(Event("venue_error", None, self._clock.now(), len(doubtful), detail))
            return HANGING_SECONDS
        complete = partial(self._complete, end)
        asking = {asyncio.create_task(self._ask(*key, complete)) for key in doubtful}
        before = self._feed.answers()
        if late := await answered(asking, HANGING_SECONDS, seconds, self._feed.answers):
            detail = f"{late} streams could not be asked about: the venue did not answer in time"
            self._say(Event("venue_error", None, self._clock.now(), late, detail))
        hangs = late > 0 and self._feed.answers() == before
        return PROBE_SECONDS if hangs else HANGING_SECONDS

    def _mark(self, symbol: str, kind: str, rows: int) -> object:
        book = self._recorder.symbols[symbol].book
        return rows if kind == "prices" or book is None else (book.last_id, book.last_time)

    async def _ask(self, symbol: str, kind: str, act: _Act) -> None:
        """Ask what the venue has, and act if it is ahead; why that cannot be known is told."""
        try:
            async with self._turn:
                if act == self._recover and refuses(self._feed):
                    self.ages[symbol, kind].asked = 0  # it is asked about afterwards
                    return
                found = await self._feed.latest(self._instruments[symbol], kind)
            if found is not None and self._is_ahead(found):
                await act(symbol, kind, found)
        except Exception as error:  # noqa: BLE001 - of a user's feed: it costs an answer only
            detail = f"whether {kind} have ceased is not known: {_cause(error)}"
            self._say(Event("venue_error", symbol, self._clock.now(), 1, detail[:300]))

    def _is_ahead(self, found: Trade | BookSnapshot) -> bool:
        """Return whether the venue knows something later than what came over its stream."""
        record = self._recorder.symbols[found.symbol]
        if isinstance(found, BookSnapshot):
            book = record.book
            if book is None or not book.ready:
                return False  # a new snapshot is on its way, and the gap is told
            if found.update_id:
                return found.update_id > book.last_id
            return found.time > book.last_time + COARSE_US
        last = self._last_id(found.symbol)
        if last is not None and isinstance(found.id, int):
            return found.id > last
        tally = self._recorder.tallies.get((found.symbol, "prices", "live"))
        return found.time > (self._began_at if tally is None else tally.last_time) + COARSE_US

    def _last_id(self, symbol: str) -> int | None:
        ids = self._recorder.symbols[symbol].trades.ids
        return ids.spans[-1][1] if ids is not None and ids.spans else None

    async def _recover(self, symbol: str, kind: str, found: Trade | BookSnapshot) -> None:
        """Ask for what a stream left out, and have it sent again."""
        await asyncio.sleep(CONFIRM_SECONDS)
        if not self._is_ahead(found):
            return
        reason = self._tell(symbol, kind, found)
        if isinstance(found, Trade) and self._last_id(symbol) is not None:
            self._answer([found])  # what lies before it is a gap in the ids, which is asked for
        self._feed.reconnect(symbol, kind, reason)

    async def _complete(
        self, end: int, symbol: str, kind: str, found: Trade | BookSnapshot
    ) -> None:
        """Ask for what a stream left out before the end (µs) of the recording."""
        if isinstance(found, Trade):
            last = self._last_id(symbol)
            if found.time > end and last is not None and isinstance(found.id, int):
                instrument = self._instruments[symbol]
                history = await self._feed.trades(instrument, last + 1, found.id)
                self._answer([one for one in history if isinstance(one, Event)])
                missed = [one for one in history if isinstance(one, Trade) and one.time <= end]
            else:
                missed = [found] if found.time <= end else []
            if missed:
                self._tell(symbol, kind, missed[-1])
                self._answer(missed if last is not None else [])
        elif self.ages[symbol, kind].is_overdue(time.monotonic()):
            since = self._recorder.symbols[symbol].book.last_time  # type: ignore[union-attr]
            reason = self._tell(symbol, kind, found)
            self._answer([Gap(symbol, kind, since, None, None, reason)])

    def _tell(self, symbol: str, kind: str, found: Trade | BookSnapshot) -> str:
        silent = time.monotonic() - self.ages[symbol, kind].heard
        reason = f"{kind} were silent for {silent:.0f} s while the venue went on"
        number = found.id if isinstance(found, Trade) else found.update_id
        detail = f"{reason}: it is at {number or found.time}"
        self._say(Event("silent_stream", symbol, self._clock.now(), None, detail))
        return reason


PAUSES: Final = (0.0, 1.0, 4.0)
"""Seconds before a question is asked and asked again: the newest trades may not be there yet."""
PROBE_SECONDS: Final = 0.2  # while one question finds out whether a ban is over
AGAIN: Final = (60.0, 300.0, 900.0, 3600.0)
"""Seconds until what stayed open is asked for again, the last ones for ever."""


class Backfiller:
    """The questions of one recording, asked again while gaps stay open; for one event loop.

    Parameters
    ----------
    feed, instruments
        Who is asked, and about what.
    answer
        Called with the trades that came, then with what became of each gap.
    still_open
        Returns what is left of a gap.
    silent
        Ask nothing: gaps stay as they are.
    """

    def __init__(
        self,
        feed: Feed,
        instruments: Sequence[Instrument],
        answer: Callable[[Sequence[Trade | Event | BackfillResult]], None],
        still_open: Callable[[BackfillRequest], Sequence[BackfillRequest]],
        *,
        silent: bool,
    ) -> None:
        self._feed = feed
        self._instruments = {one.symbol: one for one in instruments}
        self._answer = answer
        self._still_open = still_open
        self._silent = silent
        self._asked: list[tuple[float, int, BackfillRequest]] = []  # when, how often
        self._turn = asyncio.Semaphore(AT_A_TIME)
        self._tasks: set[asyncio.Task[None]] = set()
        self._ending = asyncio.Event()

    def ask(self, found: Sequence[BackfillRequest], tries: int = 0) -> None:
        """Ask for what is in gaps, in the background."""
        for group in neighbours(found):
            task = asyncio.create_task(self._ask(group, tries), name="fxlab question")
            self._tasks.add(task)
            task.add_done_callback(self._tasks.discard)

    def due(self, now: float, *, ending: bool = False) -> list[tuple[float, int, BackfillRequest]]:
        """Return what is to be asked again at a moment of the monotonic clock, once."""
        waits = {n: sum(PAUSES) if ending else AGAIN[:n][-1] for _, n, _ in self._asked}
        found = [one for one in self._asked if one[0] + waits[one[1]] <= now]
        self._asked = [one for one in self._asked if one[0] + waits[one[1]] > now]
        return found

    def ask_again(self, due: Sequence[tuple[float, int, BackfillRequest]]) -> None:
        """Ask for what is open still."""
        for tries in sorted({tries for _, tries, _ in due}):
            asked = [one for _, n, one in due if n == tries]
            self.ask([part for one in asked for part in self._still_open(one)], tries)

    async def finish(self, hanging: float, most: float) -> None:
        """Wait for answers under way while some come, but for no refusal; the rest is given up."""
        self._ending.set()
        await answered(self._tasks, hanging, most, self._feed.answers)

    async def _ask(self, group: list[BackfillRequest], tries: int) -> None:
        outcome = "given up"
        try:
            if self._silent:
                outcome = "not asked"
            else:
                async with self._turn:
                    outcome = await self._answers(group, PAUSES if not tries else PAUSES[:1])
                self._asked += [(time.monotonic(), tries + 1, one) for one in group]
        finally:
            self._answer([BackfillResult(one, outcome) for one in group])

    async def _answers(self, group: list[BackfillRequest], pauses: Sequence[float]) -> str:
        wanted = sum(one.ids.last - one.ids.first + 1 for one in group)
        got = 0
        for first, last in pieces(group):
            try:
                found = await self._insist(group[0].symbol, first, last, pauses)
            except Exception as error:  # noqa: BLE001 - of a user's feed: it costs an answer only
                return f"{got} of {wanted} trades came: {_cause(error)}"
            inside = [one for one in found if isinstance(one, Event) or is_wanted(one, group)]
            self._answer(inside)
            got += len({one.id for one in inside if isinstance(one, Trade)})
            if not found:
                break  # the venue's history does not reach so far
        return f"{got} of {wanted} trades came"

    async def _insist(
        self, symbol: str, first: int, last: int, pauses: Sequence[float]
    ) -> Sequence[Trade | Event]:
        for pause in pauses:
            if self._ending.is_set() and pause > PAUSES[1]:  # the end is near
                break
            await asyncio.sleep(pause)
            found = await self._ask_allowed(symbol, first, last)
            if found:
                return found
        return []

    async def _ask_allowed(self, symbol: str, first: int, last: int) -> Sequence[Trade | Event]:
        """Ask when the venue may be asked, and once more if it refuses for a while meanwhile."""
        while True:
            while (refusal := self._feed.refusal()) is not None and refusal.seconds > 0:
                if self._ending.is_set() and refusal.seconds > PROBE_SECONDS:
                    raise VenueRefused(refusal.reason)
                await asyncio.sleep(min(refusal.seconds, PROBE_SECONDS))
            try:
                return await self._feed.trades(self._instruments[symbol], first, last)
            except VenueRefused:
                if not refuses(self._feed):
                    raise
