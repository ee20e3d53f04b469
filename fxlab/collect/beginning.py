"""What has to be in order before a recording begins: symbols, clocks, and a session to write to."""

from __future__ import annotations

from fxlab import catalogue
from fxlab.collect import resuming
from fxlab.collect.clock import Clock
from fxlab.collect.closing import Store, session_row
from fxlab.collect.feed import Feed, Instrument, Subscription
from fxlab.collect.journal import Journal
from fxlab.collect.plan import Plan
from fxlab.collect.recorder import Recorder
from fxlab.collect.recovery import recorder_of, server_of
from fxlab.errors import SessionBusy, SessionExists, SymbolNotFound, VenueError, did_you_mean
from fxlab.schema import SESSIONS


async def choose(feed: Feed, plan: Plan) -> Subscription:
    """Return what to subscribe to.

    Raises
    ------
    SymbolNotFound
        For a symbol that the venue does not have, with names near it.
    VenueError
        For one that is not traded at the moment, and what `Feed.instruments` raises.
    """
    known = await feed.instruments()
    found: list[Instrument] = []
    for symbol in plan.symbols:
        if symbol not in known:
            near = did_you_mean(symbol, known) or f"it trades {len(known):,} others"
            raise SymbolNotFound(
                f"{feed.venue} has no symbol {symbol!r}; {near}; symbols are written BASE_QUOTE, "
                "such as BTC_USDT"
            )
        instrument = known[symbol]
        if instrument.status != "trading":
            raise VenueError(
                f"{symbol} is not traded at {feed.venue} at the moment ({instrument.status}); "
                "choose another symbol"
            )
        found.append(instrument)
    return Subscription(tuple(found), plan.trades, plan.book_depth)


async def measure_skew(feed: Feed, clock: Clock) -> tuple[int, int] | None:
    """Return this machine's clock minus the venue's, and how exactly that is known.

    Both in microseconds; None if the venue's clock cannot be asked. The way to the venue and back
    is taken for symmetric.
    """
    before = clock.now()
    theirs = await feed.server_time()
    after = clock.now()
    return None if theirs is None else ((before + after) // 2 - theirs, (after - before) // 2)


def begin(feed: Feed, plan: Plan, journal: Journal, store: Store, clock: Clock) -> Recorder:
    """Make the session known in the journal and in the database, and return its recorder.

    Raises
    ------
    SessionExists, SessionBusy
        If the id is taken, or rows of it wait for another server.
    SessionNotFound, InvalidParameter
        As `fxlab.collect.resuming.take_up`.
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
        "server": server_of(store.db),
    }
    if plan.resume:
        facts = resuming.take_up(store.db, plan, journal, facts)
    elif catalogue.find_any(store.db, plan.session_id) is not None:
        raise SessionExists(
            f"session {plan.session_id!r} exists; choose another session_id, or go on with it: "
            "resume=True"
        )
    journal.append([], {"session": facts})
    recorder = recorder_of(journal, store.encoder, facts)
    store.put(SESSIONS, [session_row(facts, recorder, "collecting", clock.now())])
    return recorder
