"""Recordings of a lab, and their configuration, checked before anything is opened."""

from __future__ import annotations

import asyncio
import logging
import re
import secrets
import threading
from collections.abc import Callable, Collection, Iterable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from fnmatch import fnmatchcase
from functools import partial
from typing import TYPE_CHECKING, Any, Final, Literal, Self, overload

import polars as pl

from fxlab._progress import Progress, shown
from fxlab._times import Duration, from_micros, integer, parse_duration, to_micros
from fxlab.collect.feed import Clock, Feed, Instrument, Message, Subscription
from fxlab.errors import (
    CollectionFailed,
    FxlabError,
    InvalidParameter,
    SymbolNotFound,
    VenueError,
    check_names,
    did_you_mean,
    some,
)
from fxlab.schema import BOOK_DEPTH, check_channels, check_session_id, check_symbol, check_tags

if TYPE_CHECKING:
    from fxlab._questdb.client import QuestDB
    from fxlab.collect.collector import Collector, Listener
    from fxlab.collect.receipt import Receipt
    from fxlab.collect.status import CollectorStatus
    from fxlab.config import Settings
    from fxlab.sessions.session import Session

_log: Final = logging.getLogger(__name__)

INTERVAL_US: Final = 50_000
"""Between two batches: what a killed process can lose of what it had received."""

SETTLE_US: Final = 6_000_000
"""Frames that overtake each other are given this long before skipped ids are called a gap."""

JOURNAL_LIMIT: Final = 2_000_000_000
"""Bytes that may wait for the server, some 25 million trades."""

STOP_SECONDS: Final = 90.0
"""How long the last rows of a recording may take to be stored."""

SHORTEST_ROLLOVER: Final = 1_000_000
_DAY_US: Final = 86_400_000_000


@dataclass(frozen=True, slots=True)
class Plan:
    """A recording to be made; `Plan.of` checks what a user typed.

    Attributes
    ----------
    venue, symbols
        Where, and what.
    duration
        Microseconds, or None for until it is stopped.
    trades, book_depth, book_every
        What to store: trades; levels of the book (0 none, 1 best bid and ask, up to 10); least
        microseconds between two stored books of a symbol, 0 for each change.
    channels
        What else to store, by the names in `fxlab.schema.CHANNELS`.
    backfill
        Whether gaps in trades are asked for at the venue.
    resume
        Whether to go on with a session that ended; "auto" goes on if it is there, else begins it.
    rollover
        Microseconds after which another session goes on, counted from midnight (UTC); None for one.
    ending
        What it is called when it has ended well, and from its beginning on if it should not.
    interval, settle
        Microseconds between batches, and until skipped ids are called a gap.
    journal_limit
        Bytes in the journal at which the recording ends.
    """

    venue: str
    symbols: tuple[str, ...]
    session_id: str
    duration: int | None = None
    trades: bool = True
    book_depth: int = BOOK_DEPTH
    book_every: int = 0
    channels: tuple[str, ...] = ()
    backfill: bool = True
    resume: bool | Literal["auto"] = False
    rollover: int | None = None
    ending: str | None = None
    interval: int = INTERVAL_US
    settle: int = SETTLE_US
    journal_limit: int = JOURNAL_LIMIT
    notes: str = ""
    tags: tuple[str, ...] = ()

    @classmethod
    def of(
        cls,
        venue: str,
        symbols: str | Iterable[str],
        *,
        session_id: str | None = None,
        duration: Duration | None = None,
        rollover: Duration | None = None,
        book_every: Duration = 0,
        settle: Duration = SETTLE_US / 1e6,
        channels: str | Iterable[str] = (),
        tags: Iterable[str] = (),
        **others: Any,  # noqa: ANN401 - the fields above
    ) -> Plan:
        """Return the plan that a user's words describe.

        Raises
        ------
        InvalidParameter, InvalidIdentifier
            Naming the value and the rule.
        """
        check_names(others, cls.__dataclass_fields__, "a recording")
        names = (symbols,) if isinstance(symbols, str) else tuple(symbols)
        if not names:
            raise InvalidParameter("no symbol was given; name at least one, such as BTC_USDT")
        if (resume := others.get("resume")) and not session_id:
            raise InvalidParameter(f"resume={resume!r} needs the session_id to go on with")
        plan = cls(
            venue=venue,
            symbols=tuple(dict.fromkeys(map(_symbol_or_pattern, names))),
            session_id=check_session_id(session_id or new_session_id()),
            duration=None if duration is None else parse_duration(duration, "duration"),
            rollover=None if rollover is None else parse_duration(rollover, "rollover"),
            book_every=parse_duration(book_every, "book_every"),
            settle=parse_duration(settle, "settle"),
            channels=check_channels(channels),
            tags=check_tags(tags),
            **others,
        )
        plan.check()
        return replace(plan, book_depth=int(plan.book_depth))

    def check(self) -> None:
        """Raise `InvalidParameter` for what cannot be done."""
        depth = integer(self.book_depth, 0, BOOK_DEPTH)
        if depth is None:
            raise InvalidParameter(
                f"book_depth={self.book_depth!r} is not a number of levels; give 0 (no books), 1 "
                f"(best bid and ask) or up to {BOOK_DEPTH}"
            )
        if not (self.trades or depth or self.channels):
            raise InvalidParameter(
                "trades=False and book_depth=0 leave nothing to record; give channels, or one of "
                "the two"
            )
        if self.resume not in (True, False, "auto"):
            raise InvalidParameter(
                f"resume={self.resume!r:.80} is none of True, False and 'auto' (go on with the "
                "session if it is there, else begin it)"
            )
        if self.duration == 0:
            raise InvalidParameter("duration is 0; give a length of time such as '10m', or none")
        if self.rollover is not None and self.rollover < SHORTEST_ROLLOVER:
            raise InvalidParameter(
                f"rollover={self.rollover / 1e6:g} s is too often; give '1d', '1h', at least '1s'"
            )
        if not 1_000 <= self.interval <= 100_000:
            raise InvalidParameter(
                f"interval={self.interval} us is out of range; a batch lasts 1 to 100 ms"
            )
        if self.journal_limit < 1_000_000:
            raise InvalidParameter(
                f"journal_limit={self.journal_limit} bytes is too little for an outage; give at "
                "least 1000000"
            )

    @property
    def data_types(self) -> list[str]:
        """Return the kinds of rows that will come."""
        ticks = ["prices"] * self.trades + ["orderbook"] * bool(self.book_depth)
        return [*ticks, *self.channels]

    def options(self) -> dict[str, Any]:
        """Return what the session's row says about how it was recorded."""
        return {
            "trades": self.trades,
            "book_depth": self.book_depth,
            "book_every_us": self.book_every,
            "backfill": self.backfill,
            **({"channels": list(self.channels)} if self.channels else {}),
        }


def is_pattern(symbol: str) -> bool:
    """Return whether a symbol has a wildcard: * for any characters, ? for one."""
    return "*" in symbol or "?" in symbol


def _symbol_or_pattern(name: str) -> str:
    check_symbol(re.sub(r"[*?]", "X", name.upper()))
    return name.upper()


def new_session_id() -> str:
    """Return an id that names the moment: live_YYYYMMDD_HHMMSS_<hex>."""
    return f"live_{datetime.now(UTC):%Y%m%d_%H%M%S}_{secrets.token_hex(4)}"


async def resolve_instruments(
    feed: Feed, plan: Plan, recorded: Collection[str] | None = None
) -> Subscription:
    """Return what to subscribe to.

    Parameters
    ----------
    feed, plan
        The venue, and what was asked for.
    recorded
        The symbols of the session to go on with: wildcards stand for no others.

    Raises
    ------
    SymbolNotFound
        For a symbol that the venue does not have, with names near it, and a pattern of none.
    VenueError
        For one that is not traded at the moment, and what `Feed.instruments` raises.
    """
    if lacking := [name for name in plan.channels if name not in feed.channels]:
        has = f"it has {', '.join(feed.channels)}" if feed.channels else "leave channels out"
        raise InvalidParameter(
            f"{feed.venue} gives no {some(lacking)} to record; {has}, or record a venue of "
            "perpetuals, such as binance_futures"
        )
    known = await feed.instruments()
    traded = {name for name, one in known.items() if one.status == "trading"}
    found: dict[str, Instrument] = {}
    for symbol in plan.symbols:
        if is_pattern(symbol):
            among = traded if recorded is None else traded & set(recorded)
            names = sorted(filter(partial(fnmatchcase, pat=symbol), among))
            if not names:
                raise SymbolNotFound(
                    f"{feed.venue} trades no symbol like {symbol!r}; its {len(known):,} symbols: "
                    f"lab.instruments({feed.venue!r}), in a shell: fxlab instruments {feed.venue}"
                )
            found |= {name: known[name] for name in names}
            continue
        if symbol not in known:
            near = did_you_mean(symbol, known) or f"it trades {len(known):,} others"
            raise SymbolNotFound(
                f"{feed.venue} has no symbol {symbol!r}; {near}; symbols are written BASE_QUOTE, "
                "such as BTC_USDT"
            )
        if symbol not in traded:
            raise VenueError(
                f"{symbol} is not traded at {feed.venue} at the moment ({known[symbol].status}); "
                "choose another symbol"
            )
        found[symbol] = known[symbol]
    return Subscription(tuple(found.values()), plan.trades, plan.book_depth, plan.channels)


OVERLAP: Final = 60.0
"""Seconds for which two recordings run side by side at most, where a symbol is not heard of."""
RETRY: Final = 30.0
"""Seconds until a next recording that could not begin is tried again."""


class Rollover:
    """Recordings that join without a hole, each a session of its own; made by `Lab.collect`.

    The next one begins at its time; the one before it ends once that has trades and books of each
    symbol: what came meanwhile is in both. While a next one cannot begin, the one before goes on.

    Attributes
    ----------
    session_ids
        Those begun so far, in their order.

    Examples
    --------
    >>> with MockVenue(generated(["BTC_USDT"], rate=100)) as venue:
    ...     collector = lab.collect(
    ...         "binance", "BTC_USDT", url=venue.url, rollover="1d", session_id=new_id()
    ...     )
    ...     sessions = collector.stop()
    >>> [session.status for session in sessions]
    ['completed']
    """

    def __init__(self, begin: Callable[[Plan], Collector], plan: Plan, clock: Clock) -> None:
        self._begin, self._plan, self._clock = begin, plan, clock
        self.session_ids: list[str] = []
        self._every = plan.rollover or 0
        self._due = clock.now() // self._every * self._every
        self._end = None if plan.duration is None else clock.now() + plan.duration
        self._running: list[Collector] = []
        self._ended: dict[str, Session] = {}
        self._failure: BaseException | None = None
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="fxlab rollover", daemon=True)

    def start(self) -> Self:
        """Begin the first one; errors are those of `Collector.start`."""
        self._begin_next()
        self._thread.start()
        return self

    @property
    def session_id(self) -> str:
        """Return the newest session's id."""
        return self.session_ids[-1]

    def status(self) -> CollectorStatus:
        """Return what the newest recording looks like at this moment."""
        return self._running[-1].status()

    def events(self, symbols: Sequence[str] | None = None) -> Listener[Message]:
        """Return the live messages of the newest recording, until that ends."""
        return self._running[-1].events(symbols)

    def request_stop(self) -> None:
        """Ask for the end and return at once; from any thread, and from signal handlers."""
        self._stopping.set()

    def stop(self, timeout: float = STOP_SECONDS) -> list[Session]:
        """End the recording and return its sessions; raises as `wait` does."""
        self.request_stop()
        return self.wait(timeout)

    def wait(self, timeout: float | None = None) -> list[Session]:
        """Wait for the end and return the sessions.

        Raises
        ------
        CollectionFailed
            As `Collector.wait`, of the first recording that failed.
        """
        self._thread.join(timeout)
        if self._thread.is_alive():
            raise CollectionFailed(
                f"session {self.session_id!r} is not closed after {timeout:g} s; call wait() again"
            )
        if self._failure is not None:
            raise self._failure
        return [self._ended[name] for name in self.session_ids]

    def _run(self) -> None:
        try:
            while not self._is_over():
                self._stopping.wait(min(1.0, max(0.0, (self._due - self._clock.now()) / 1e6)))
                if self._clock.now() >= self._due and not self._is_over():
                    self._roll()
        except BaseException as error:  # noqa: BLE001 - raised again in the thread that waits
            self._failure = error
        finally:
            for one in reversed(self._running):  # what the newest has, the one before it has, too
                self._end_of(one)

    def _is_over(self) -> bool:
        over = self._end is not None and self._clock.now() >= self._end
        return over or self._stopping.is_set() or self.status().is_over

    def _roll(self) -> None:
        before = self._running[-1]
        try:
            self._begin_next()
        except FxlabError as error:
            _log.warning("the recording after %s cannot begin yet: %s", self.session_id, error)
            self._stopping.wait(RETRY)
            return
        latest = self._clock.now() + OVERLAP * 1e6
        while not self._taken_over(before) and self._clock.now() < latest and not self._is_over():
            self._stopping.wait(0.1)
        if not self._is_over():
            self._end_of(before)
            self._running.remove(before)

    def _taken_over(self, before: Collector) -> bool:
        """Return whether the newest recording has rows of all that the one before it has."""
        now = {one.symbol: one for one in self.status().symbols}
        return all(
            one.symbol in now
            and (now[one.symbol].trades > 0 or not one.trades)
            and (now[one.symbol].books > 0 or not one.books)
            for one in before.status().symbols
        )

    def _begin_next(self) -> None:
        """Begin the recording of the present stretch of time, which names its session."""
        began = from_micros(self._clock.now() // self._every * self._every)
        is_days = self._every % _DAY_US == 0
        name = f"{self._plan.session_id}_{began:{'%Y%m%d' if is_days else '%Y%m%dT%H%M%S'}}"
        resume = self._plan.resume if not self.session_ids else bool(self._plan.resume) and "auto"
        plan = replace(self._plan, session_id=name, resume=resume, duration=None, rollover=None)
        self._running.append(self._begin(plan))
        self.session_ids.append(name)
        self._due = to_micros(began) + self._every

    def _end_of(self, one: Collector) -> None:
        try:
            self._ended[one.session_id] = one.stop()
        except FxlabError as error:
            self._failure = self._failure or error


class Recordings:
    """The part of a `fxlab.Lab` that records, asks venues again, and verifies recordings."""

    settings: Settings
    recovered: tuple[str, ...]
    _db: QuestDB

    @overload
    def collect(
        self,
        venue: str | Feed,
        symbols: str | Iterable[str],
        *,
        url: str | None = None,
        rollover: None = None,
        **options: Any,  # noqa: ANN401 - as below
    ) -> Collector: ...

    @overload
    def collect(
        self,
        venue: str,
        symbols: str | Iterable[str],
        *,
        url: str | None = None,
        rollover: Duration,
        **options: Any,  # noqa: ANN401 - as below
    ) -> Rollover: ...

    def collect(
        self,
        venue: str | Feed,
        symbols: str | Iterable[str],
        *,
        url: str | None = None,
        rollover: Duration | None = None,
        **options: Any,
    ) -> Collector | Rollover:
        """Start to record live data into a new session, and return at once.

        What is received goes to a journal on disk first and to the database from there, so neither
        an outage nor a kill loses it; gaps are found by the venue's own numbers, written into the
        event table, and filled from the venue's history where it can be asked.

        Parameters
        ----------
        venue
            "binance", "binance_futures", "bybit", "bybit_linear", "kraken", "mexc", "okx",
            "okx_swap", "ccxt:<exchange>", or a `Feed` of your own.
        symbols
            Such as "BTC_USDT", or "*_USDT" for all that are traded as the recording begins; see
            `instruments`.
        url
            Of a mock venue (`fxlab mock`) or a proxy instead of the venue.
        rollover
            "1d" for a session a day (UTC), "1h" for one an hour: they join without a hole, and
            their ids are ``session_id``, an underline, and the day or time; see `Rollover`.
        **options
            ``duration`` ("10m"; None until it is stopped), ``book_depth`` (0 none, 1 best bid and
            ask, up to 10), ``book_every`` ("1s"; each change by default), ``trades``, ``channels``
            ("mark", "funding", "open_interest", "liquidations"; none by default),
            ``backfill``, ``session_id``, ``resume`` (True goes on with that session, "auto" begins
            it if it is not there), ``notes``, ``tags``, ``settle``,
            ``journal_limit``; see `fxlab.collect._config.Plan`.

        Returns
        -------
        Collector or Rollover
            Use it with ``with``, ``await`` it, or call its ``stop()``; a `Rollover` has ``stop()``
            and ``wait()``.

        Raises
        ------
        VenueNotFound, SymbolNotFound, InvalidInput, SessionExists
            Naming near ones, or the rule; nothing was written.
        VenueUnavailable, VenueRefused
            The venue's own words.
        QuestDBUnavailable
            If there is no server: nothing is recorded without one.
        """
        from fxlab.collect._live import lifecycle
        from fxlab.collect.collector import Collector
        from fxlab.collect.venues import open_feed

        name = venue.venue if isinstance(venue, Feed) else venue
        plan = Plan.of(name, symbols, rollover=rollover, **options)
        if plan.rollover is not None and isinstance(venue, Feed):
            raise InvalidParameter(
                "rollover needs the name of a venue: its recordings overlap, and a Feed is for one"
            )

        def begin(plan: Plan) -> Collector:
            clock = Clock()
            feed = venue if isinstance(venue, Feed) else open_feed(venue, url=url, clock=clock)
            return Collector(self._db, feed, plan, self.settings.home, clock).start()

        self.recovered += lifecycle.finish_recordings(self._db, self.settings.home)
        return begin(plan) if plan.rollover is None else Rollover(begin, plan, Clock()).start()

    def instruments(
        self, venue: str | Feed, pattern: str = "*", *, url: str | None = None
    ) -> pl.DataFrame:
        """Return what a venue trades, as it says now.

        Parameters
        ----------
        venue, url
            As `collect` takes them.
        pattern
            Of symbols: "*_USDT" has any characters in place of *, "ETH_???" one for each ?.

        Returns
        -------
        polars.DataFrame
            One row a symbol, in their order: ``symbol``, ``native`` (the venue's name),
            ``status`` ("trading", or why not), ``price_decimals``, ``quantity_decimals`` and
            ``contract_size`` (base units, of inverse contracts quote units), null where the venue
            does not say; then what else it lists, as `Session.instruments` has it.

        Raises
        ------
        VenueNotFound, InvalidInput
            If there is no such venue, or the pattern is none.
        VenueUnavailable, VenueRefused
            The venue's own words.

        Examples
        --------
        >>> with MockVenue(generated(["BTC_USDT", "ETH_USDT"], trades=20)) as venue:
        ...     found = lab.instruments("binance", "BTC_*", url=venue.url)
        >>> found["symbol"].to_list(), found["status"].to_list()
        (['BTC_USDT'], ['trading'])
        """
        from fxlab.collect.venues import list_instruments, open_feed

        wanted = _symbol_or_pattern(pattern)
        feed = venue if isinstance(venue, Feed) else open_feed(venue, url=url)
        with ThreadPoolExecutor(1) as pool:  # a notebook's own thread has a loop that runs
            return pool.submit(asyncio.run, list_instruments(feed, wanted)).result()

    def backfill(
        self,
        session_id: str,
        *,
        venue: str | Feed | None = None,
        url: str | None = None,
        progress: Progress = None,
    ) -> pl.DataFrame:
        """Ask a recording's venue again for the trades that are known to be missing.

        What comes is stored as the recording itself would have stored it, with its receipt and its
        events; nothing else of the session changes, its state least of all. While a recording
        lasts, and when it ends, it asks by itself.

        Parameters
        ----------
        session_id
            A recording that has ended.
        venue
            The session's own unless given; a `Feed` that was recorded with.
        url
            Of a mock venue or a proxy instead of the venue.
        progress
            As `fxlab.backtest` takes it.

        Returns
        -------
        polars.DataFrame
            One row a gap that was open: ``symbol``, ``from_time``, ``to_time``, ``missing``
            (trades, before), ``still_missing``, ``state`` ("filled", "partly filled", "open"),
            ``cause``, and ``answer``, the venue's. Gaps of venues that do not number their trades,
            and of books, cannot be asked for and are not among them.

        Raises
        ------
        SessionNotFound, InvalidParameter, SessionBusy
            If there is none, it was imported, or it is being recorded.
        VenueUnavailable, VenueRefused
            The venue's own words.

        Examples
        --------
        >>> market = generated(["BTC_USDT"], seed=1, rate=100, trades=20)
        >>> with MockVenue(market) as venue:
        ...     collector = lab.collect("binance", "BTC_USDT", url=venue.url, duration="1s")
        ...     session = collector.wait()
        >>> lab.backfill(session.id).height
        0
        """
        from fxlab.collect._live import lifecycle
        from fxlab.collect.receipt import backfill

        with shown(progress, "backfill") as advance:
            self.recovered += lifecycle.finish_recordings(self._db, self.settings.home)
            return backfill(
                self._db, session_id, self.settings.home, venue=venue, url=url, progress=advance
            )

    def verify(self, session_id: str, progress: Progress = None) -> Receipt:
        """Compare a recording's receipt with the database; see `fxlab.collect.receipt.verify`."""
        from fxlab.collect.receipt import verify

        with shown(progress, "verify") as advance:
            return verify(self._db, session_id, advance)
