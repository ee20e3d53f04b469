"""A recording as a user has it: a feed of one's own, started, watched and ended in every way."""

from __future__ import annotations

import asyncio
import dataclasses
import json
import re
from functools import partial
from itertools import pairwise

import polars as pl
import pytest
from collect_processes import eventually
from markets import random_walk
from scripted_feed import NOON, PATIENCE, SYMBOL, Plain, Scripted, events, trade, trades

import fxlab
from fxlab import errors, schema
from fxlab._questdb import sql
from fxlab._questdb.sql import Scope
from fxlab._times import to_micros
from fxlab.collect import _config
from fxlab.collect._live.books import BookRecorder
from fxlab.collect._live.journal import Journal, journal_path, left_behind
from fxlab.collect._live.recorder import TickLines
from fxlab.collect.collector import Collector
from fxlab.collect.feed import BookDelta, BookSnapshot, Event, Gap, Quote, Trade
from fxlab.mock import MockVenue, generated
from fxlab.sessions import _catalog

BOOK = BookSnapshot(SYMBOL, 10, [(99.0, 1.0), (98.0, 2.0)], [(101.0, 3.0)], NOON, NOON + 7)
CHANGE = BookDelta(SYMBOL, 11, 12, [(99.0, 0.0)], [(100.5, 4.0)], NOON + 9, NOON + 12)


@pytest.fixture
def start(lab, unique):
    """Return a function that starts a recording, and leaves none running."""
    made = []

    def begin(feed, symbols=SYMBOL, **options):
        options = {"session_id": unique("live"), "settle": 0} | options
        made.append(lab.collect(feed, symbols, **options))
        return made[-1]

    yield begin
    for one in made:
        one.request_stop()
        one._thread.join(PATIENCE)
        assert not one._thread.is_alive()


def said(collector, feed):
    """Let the feed say all, end the recording, and return the session."""
    feed.all_said()
    return collector.stop(PATIENCE)


def ids(session, symbol=None):
    return session.prices(symbol, columns=["seq"])["seq"].to_list()


# ---- ends ------------------------------------------------------------------------------------


def test_what_a_feed_said_is_what_is_stored(lab, start):
    feed = Scripted(trades(1, 2), [BOOK, trade(3), CHANGE])
    session = said(start(feed, notes="a note", tags=("a", "b")), feed)
    assert (session.status, session.exchange, session.source) == ("completed", "private", "live")
    assert (session.prices_count, session.orderbook_count) == (3, 2)
    assert (session.gaps_count, session.errors_count, session.notes) == (0, 0, "a note")
    assert (session.symbols, session.tags) == ((SYMBOL,), ("a", "b"))
    assert session.data_types == ("prices", "orderbook")
    assert session.price_decimals == {SYMBOL: 2}
    frame = session.prices()
    assert frame["price"].to_list() == [trade(n).price for n in (1, 2, 3)]
    assert frame["side"].to_list() == ["buy", "sell", "buy"]
    assert frame["timestamp"].to_physical().to_list() == [trade(n).time for n in (1, 2, 3)]
    book = session.orderbook()
    assert book["bid_price_1"].to_list() == [99.0, 98.0]
    assert book["ask_price_1"].to_list() == [101.0, 100.5]
    assert lab.verify(session.id).whole
    assert feed.closed == 1
    assert left_behind(lab.settings.home) == []


def test_a_feed_that_ends_completes_the_session(start):
    session = start(Scripted(trades(1, 2), after=None)).wait(PATIENCE)
    assert (session.status, ids(session)) == ("completed", [1, 2])


def test_the_duration_ends_it(start):
    session = start(Scripted(trades(1)), duration="50ms").wait(PATIENCE)
    assert session.status == "completed"
    assert ids(session) in ([], [1])  # it may end before the feed has said a word


def test_an_empty_recording_is_a_session_too(lab, start):
    feed = Scripted()
    session = said(start(feed), feed)
    assert (session.status, session.records_collected) == ("completed", 0)
    assert (session.started, session.ended, session.duration_seconds) == (None, None, None)
    receipt = lab.verify(session.id)
    assert receipt.whole
    assert receipt.lines.is_empty()


def test_stopped_at_once(start):
    collector = start(Scripted())
    collector.request_stop()
    collector.request_stop()
    assert collector.wait(PATIENCE).status == "completed"
    collector.request_stop()
    assert collector.stop().status == "completed", "it may be stopped again"


def test_a_feed_that_breaks_aborts_the_session_and_keeps_what_it_said(lab, start):
    feed = Scripted(trades(1, 2, 3), after=RuntimeError("an own goal"))
    collector = start(feed)
    with pytest.raises(
        errors.CollectionFailed, match=r"feed of private broke.*an own goal"
    ) as raised:
        collector.wait(PATIENCE)
    assert isinstance(raised.value.__cause__, RuntimeError)
    session = lab.session(collector.session_id)
    assert (session.status, ids(session)) == ("aborted", [1, 2, 3])
    assert lab.verify(session.id).whole
    assert collector.status().state == "aborted"
    assert "an own goal" in collector.status().message
    assert feed.closed == 1


@pytest.mark.parametrize(
    "error",
    [errors.VenueRefused("no entry"), errors.InvalidParameter("a user's own check")],
    ids=lambda error: type(error).__name__,
)
def test_errors_with_words_of_their_own_keep_them(lab, start, error):
    collector = start(Scripted(trades(1), after=error))
    with pytest.raises(type(error), match=str(error)):
        collector.wait(PATIENCE)
    session = lab.session(collector.session_id)
    assert (session.status, ids(session)) == ("aborted", [1])
    assert left_behind(lab.settings.home) == []


def test_what_nobody_foresaw_ends_the_recording_as_aborted(lab, start, monkeypatch):

    def broken(track, message):
        raise RuntimeError("a bug")

    monkeypatch.setattr(BookRecorder, "take", broken)
    collector = start(Scripted(trades(1, 2), [BOOK]))
    with pytest.raises(errors.CollectionFailed, match=r"the recording of .* broke.*a bug"):
        collector.wait(PATIENCE)
    assert not collector._work.sender._thread.is_alive()
    assert lab.session(collector.session_id).status == "aborted"
    assert left_behind(lab.settings.home) == []


def test_events_and_gaps_of_no_time_are_kept_and_end_nothing(start, db):
    feed = Scripted(
        [Event("resync", SYMBOL, "yesterday", "many", "\ud800"), Event("reconnect", None, None)],
        [Gap(SYMBOL, "orderbook", None, None, None, "cut"), trade(1, received=2**70)],
        [Gap(SYMBOL, "orderbook", NOON, NOON + 5, None, "very long " * 1_000)],
    )
    session = said(start(feed), feed)
    rows = events(db, session.id)
    assert [row["event"] for row in rows].count("quarantine") == 2
    assert {row["event"] for row in rows} == {"resync", "reconnect", "quarantine", "gap"}
    (gap,) = [json.loads(row["detail"]) for row in rows if row["event"] == "gap"]
    assert gap["cause"].startswith("very long ")
    assert session.errors_count == 2


def test_the_error_of_a_with_block_is_not_hidden(lab, start):
    feed = Scripted(trades(1))
    collector = start(feed)
    feed.all_said()
    with pytest.raises(ZeroDivisionError), collector:
        raise ZeroDivisionError
    assert lab.session(collector.session_id).status == "completed"


def test_with_stops_it(lab, start):
    feed = Scripted(trades(1))
    with start(feed) as collector:
        feed.all_said()
    assert lab.session(collector.session_id).status == "completed"


def test_async_with_and_await(lab, start):
    async def both():
        feed = Scripted(trades(1))
        async with start(feed) as collector:
            await asyncio.to_thread(feed.all_said)
        return lab.session(collector.session_id), await start(Scripted(trades(2), after=None))

    first, second = asyncio.run(both())
    assert (first.status, ids(first)) == ("completed", [1])
    assert (second.status, ids(second)) == ("completed", [2])


def test_waiting_in_vain_says_so_and_may_be_done_again(start):
    feed = Scripted()
    collector = start(feed)
    with pytest.raises(errors.CollectionFailed, match=r"is not closed after 0 s.*call wait"):
        collector.wait(0)
    assert said(collector, feed).status == "completed"


# ---- what stands in the way ------------------------------------------------------------------


def nothing_was_written(lab, session_id):
    with pytest.raises(errors.SessionNotFound):
        lab.session(session_id)
    assert not journal_path(lab.settings.home, session_id).exists()


@pytest.mark.parametrize(
    ("symbols", "error", "words"),
    [
        ("BTC_USDC", errors.SymbolNotFound, "private has no symbol 'BTC_USDC'.*BTC_USDT"),
        (["BTC_USDT", "XYZ_ABC"], errors.SymbolNotFound, "'XYZ_ABC'"),
        ("OLD_USDT", errors.VenueError, "not traded at private.*halted"),
        ([], errors.InvalidParameter, "no symbol was given"),
        ("BTC USDT", errors.InvalidIdentifier, "is not a symbol"),
    ],
)
def test_symbols_that_cannot_be_recorded(lab, unique, symbols, error, words):
    name, feed = unique(), Scripted()
    with pytest.raises(error, match=words):
        lab.collect(feed, symbols, session_id=name)
    nothing_was_written(lab, name)


def test_small_letters_are_meant_as_capitals(start):
    feed = Scripted(trades(1))
    assert said(start(feed, "btc_usdt"), feed).symbols == (SYMBOL,)


def test_a_venue_that_is_away_is_said_at_once(lab, unique):
    class Away(Scripted):
        async def instruments(self):
            raise errors.VenueUnavailable("private cannot be reached: no route")

    name, feed = unique(), Away()
    with pytest.raises(errors.VenueUnavailable, match="no route"):
        lab.collect(feed, SYMBOL, session_id=name)
    nothing_was_written(lab, name)
    assert feed.closed == 1


def test_a_session_is_not_written_over(lab, start, db):
    feed = Scripted(trades(1))
    session = said(start(feed), feed)
    with pytest.raises(errors.SessionExists, match=rf"{session.id}.*resume=True"):
        lab.collect(Scripted(trades(2)), SYMBOL, session_id=session.id)
    assert ids(lab.session(session.id)) == [1]
    assert left_behind(lab.settings.home) == []


def test_a_session_that_runs_is_busy(lab, start):
    feed = Scripted(trades(1))
    collector = start(feed)
    for resume in (False, True):
        with pytest.raises((errors.SessionBusy, errors.SessionExists)):
            lab.collect(Scripted(), SYMBOL, session_id=collector.session_id, resume=resume)
    session = said(collector, feed)
    assert (session.status, ids(session)) == ("completed", [1])


def test_a_journal_of_another_server_is_not_touched(lab, unique):
    """Its rows wait for that server: neither a new session nor a taken id may discard them."""
    name = unique()
    path = journal_path(lab.settings.home, name)
    with Journal(path) as journal:
        journal.append([], {"session": {"server": "elsewhere:1"}, "kept": 1})
    try:
        with pytest.raises(errors.SessionBusy, match=r"elsewhere:1.*another session_id"):
            lab.collect(Scripted(), SYMBOL, session_id=name)
        with Journal(path) as journal:
            assert journal.fact("kept") == 1
    finally:
        with Journal(path) as journal:
            journal.discard()


# ---- gaps ------------------------------------------------------------------------------------


def test_holes_are_asked_for_and_filled(lab, start, db):
    past = trades(4, 5, 6, origin="backfill")
    feed = Scripted(trades(1, 2, 3, 7, 8), history=past)
    collector = start(feed)
    session = said(collector, feed)
    assert feed.asked == [(SYMBOL, 4, 6)]
    assert ids(session) == [1, 2, 3, 4, 5, 6, 7, 8]
    origins = session.prices(columns=["seq", "origin"])
    assert origins.filter(origin="backfill")["seq"].to_list() == [4, 5, 6]
    assert session.gaps_count == 0
    (gap,) = events(db, session.id)
    assert (gap["event"], gap["count"]) == ("gap", 0)
    assert json.loads(gap["detail"])["state"] == "filled"
    shown = collector.status().symbols[0]
    assert (shown.trades, shown.backfilled, shown.gaps, shown.missing) == (8, 3, 0, 0)
    assert lab.verify(session.id).whole


@pytest.mark.parametrize(
    ("history", "words"),
    [
        (errors.VenueRefused("no past today"), "0 of 2 trades came: no past today"),
        (KeyError("oops"), "0 of 2 trades came: KeyError: 'oops'"),
    ],
)
def test_a_venue_without_a_past_leaves_the_gap(lab, start, db, history, words):
    feed = Scripted(trades(1, 4), history=history)
    session = said(start(feed), feed)
    (gap,) = events(db, session.id)
    detail = json.loads(gap["detail"])
    assert (gap["count"], detail["state"], detail["backfill"]) == (2, "open", words)
    assert session.gaps_count == 1
    receipt = lab.verify(session.id)
    assert receipt.whole, "what is known to be missing is no fault of the record"
    assert receipt.ids["ids_missing"].to_list() == [2]


def test_without_backfill_nobody_is_asked(start, db):
    feed = Scripted(trades(1, 4), history=trades(2, 3))
    session = said(start(feed, backfill=False), feed)
    assert feed.asked == []
    assert json.loads(events(db, session.id)[0]["detail"])["backfill"] == "not asked"


def test_a_garbled_id_of_any_size_ends_nothing(start, db, monkeypatch):
    monkeypatch.setattr("fxlab.collect._live.loop.PAUSES", (0.0,))
    feed = Scripted(trades(1, 2), trades(10**17, time=NOON, received=NOON), trades(3))
    session = said(start(feed), feed)
    assert sorted(ids(session)) == [1, 2, 3, 10**17]
    assert session.gaps_count == 1


def test_a_gap_of_a_book_is_a_row_of_the_ledger(lab, start, db):
    gap = Gap(SYMBOL, "orderbook", NOON + 9, None, 5, "cut")
    closing = gap._replace(to_time=NOON + 50)
    again = BOOK._replace(update_id=30, time=NOON + 50)
    feed = Scripted([BOOK, CHANGE, gap], [closing, Event("resync", SYMBOL, NOON + 50), again])
    collector = start(feed)
    session = said(collector, feed)
    assert (session.orderbook_count, session.gaps_count) == (3, 0)
    shown = collector.status()
    assert (shown.gaps, shown.gaps_resynced) == (0, 1)
    kinds = {row["event"]: row for row in events(db, session.id)}
    assert kinds.keys() == {"gap", "resync"}
    assert (kinds["gap"]["from_time"], kinds["gap"]["to_time"]) == (NOON + 9, NOON + 50)
    about = {"what": "orderbook", "cause": "cut", "state": "resynced"}
    assert json.loads(kinds["gap"]["detail"]) == about
    (listed,) = session.gap_list().rows(named=True)
    assert (listed["data_type"], listed["state"], listed["cause"]) == (
        "orderbook",
        "resynced",
        "cut",
    )
    (counted,) = lab.verify(session.id).gaps.rows()
    assert counted == (SYMBOL, "orderbook", 1, 0, 1, 0)


def test_a_book_that_is_back_when_a_session_goes_on_has_one_gap(lab, start):
    """It was lost when the first recording ended, so that its gap lasted on to the second one."""
    lost = Gap(SYMBOL, "orderbook", NOON + 9, None, None, "cut")
    feed = Scripted([BOOK, CHANGE, lost])
    first = said(start(feed), feed)
    assert first.gaps_count == 1
    again = Scripted([BOOK._replace(update_id=30, time=NOON + 900)])
    session = said(start(again, session_id=first.id, resume=True), again)
    assert session.gaps_count == 0
    (gap,) = session.gap_list().rows(named=True)
    assert (gap["state"], gap["cause"]) == ("resynced", "cut")
    assert to_micros(gap["to_time"]) == NOON + 900


def test_a_gap_of_a_book_stays_as_it_was_where_nothing_came_after_it(lab, start):
    lost = Gap(SYMBOL, "orderbook", NOON + 9, None, None, "cut")
    feed = Scripted([BOOK, CHANGE, *trades(1, 3), lost])
    first = said(start(feed), feed)
    before = first.gap_list().filter(data_type="orderbook")
    assert before["state"].to_list() == ["open"]
    history = Scripted(history=trades(2, origin="backfill"))
    assert lab.backfill(first.id, venue=history)["state"].to_list() == ["filled"]
    session = lab.session(first.id)
    assert session.gap_list().filter(data_type="orderbook").equals(before)
    assert session.gaps_count == 1


# ---- what is recorded ------------------------------------------------------------------------


def test_doubles_disorder_and_what_is_none(lab, start, db):
    feed = Scripted(
        trades(3, 1, 1, 2, 3),
        [trade(4, price=float("nan")), trade(5, symbol="ETH_USDT"), trade(6, side="b")],
        [CHANGE, trade(4, price=100)],
    )
    collector = start(feed)
    session = said(collector, feed)
    assert ids(session) == [1, 2, 3, 4]
    assert session.errors_count == 4
    assert {row["event"] for row in events(db, session.id)} == {"quarantine"}
    assert collector.status().symbols[0].doubles == 2
    assert lab.verify(session.id).whole


def test_two_symbols_beside_each_other(lab, start):
    feed = Scripted([*trades(1, 2), *trades(1, 2, 3, symbol="ETH_USDT")])
    session = said(start(feed, ["ETH_USDT", "BTC_USDT", "btc_usdt"]), feed)
    assert session.symbols == ("BTC_USDT", "ETH_USDT")
    assert (ids(session, "BTC_USDT"), ids(session, "ETH_USDT")) == ([1, 2], [1, 2, 3])
    assert [one.symbol for one in feed.wanted.instruments] == ["ETH_USDT", "BTC_USDT"]
    assert lab.verify(session.id).lines.height == 2


def test_trades_alone_and_books_alone(start):
    feed = Scripted(trades(1))
    session = said(start(feed, book_depth=0), feed)
    assert (feed.wanted.book_depth, session.data_types) == (0, ("prices",))
    feed = Scripted([Quote(SYMBOL, 1.0, 1.0, 2.0, 1.0, 5, NOON, NOON)])
    session = said(start(feed, trades=False, book_depth=1), feed)
    assert (feed.wanted.trades, feed.wanted.book_depth) == (False, 1)
    assert (session.data_types, session.orderbook_count) == (("orderbook",), 1)


def test_books_less_often(start, lab):
    deltas = [
        BookDelta(SYMBOL, n, n, [(99.0, float(n))], [], NOON + n * 1_000, NOON + n * 1_000)
        for n in range(11, 40)
    ]
    feed = Scripted([BOOK, *deltas])
    session = said(start(feed, book_every="10ms"), feed)
    times = session.orderbook()["timestamp"].to_physical()
    assert (times - NOON).to_list() == [0, 11_000, 21_000, 31_000, 39_000]
    assert lab.verify(session.id).whole


def test_ids_of_text_are_numbered_here(lab, start):
    feed = Plain([trade(1)._replace(id=one) for one in ("x", "y", "x", None)])
    session = said(start(feed), feed)
    frame = session.prices(columns=["seq", "trade_id"])
    assert frame["seq"].to_list() == [1, 2, 3]
    assert frame["trade_id"].to_list() == ["x", "y", None]
    receipt = lab.verify(session.id)
    assert receipt.whole
    assert receipt.ids.is_empty()


def test_more_than_memory_may_hold_goes_through(start, lab, monkeypatch):
    """The feed is held back while its messages wait, and all of them arrive."""
    monkeypatch.setattr("fxlab.collect._live.loop.MOST_UNJOURNALED", 100)
    feed = Scripted(*[trades(*range(n, n + 90)) for n in range(0, 9_000, 90)], after=None)
    session = start(feed).wait(PATIENCE)
    assert ids(session) == list(range(9_000))


@pytest.mark.parametrize(("ahead", "words"), [(5_000_000, "-5.0"), (-90_000_000, "+90.0")])
def test_a_clock_that_is_off_is_said(start, db, ahead, words):
    feed = Scripted(trades(1), ahead=ahead)
    collector = start(feed)
    assert collector.status().skew_ms == pytest.approx(-ahead / 1e3, abs=900)
    session = said(collector, feed)
    (row,) = events(db, session.id)
    assert row["event"] == "clock_skew"
    assert re.search(rf"clock is {re.escape(words)}\d+ s off that of private", row["detail"])


def test_a_clock_that_is_right_is_no_event(start, db):
    feed = Scripted(ahead=0)
    collector = start(feed)
    assert abs(collector.status().skew_ms) < 900
    assert events(db, said(collector, feed).id) == []


# ---- looking on ------------------------------------------------------------------------------


def test_live_messages_for_who_listens(start):
    async def listen():
        release = asyncio.Event()

        class Held(Scripted):
            async def messages(self, wanted):
                while not release.is_set():  # noqa: ASYNC110 - it is another loop's event
                    await asyncio.sleep(0.001)
                async for batch in super().messages(wanted):
                    yield batch

        feed = Held([*trades(1, 2), BOOK], trades(1, symbol="ETH_USDT"), after=None)
        collector = start(feed, [SYMBOL, "ETH_USDT"])
        everything, ether = collector.events(), collector.events(["ETH_USDT"])
        release.set()
        heard = [message async for message in everything]
        assert (everything.missed, ether.missed) == (0, 0)
        assert [message async for message in ether] == trades(1, symbol="ETH_USDT")
        late = [message async for message in collector.events()]
        return heard, late

    heard, late = asyncio.run(listen())
    assert heard == [*trades(1, 2), BOOK, *trades(1, symbol="ETH_USDT")]
    assert late == [], "who comes after the end has nothing to wait for"


def test_the_status_at_each_time_of_its_life(start):
    feed = Scripted([*trades(1, 2), BOOK])
    collector = start(feed)
    assert collector.status().state == "collecting"
    said(collector, feed)
    now = collector.status()
    assert (now.state, now.is_over, now.exchange, now.duration) == (
        "completed",
        True,
        "private",
        None,
    )
    assert (now.trades, now.books, now.gaps, now.waiting_rows, now.waiting_bytes) == (2, 1, 0, 0, 0)
    (shown,) = now.symbols
    assert (shown.last_price, shown.bid, shown.ask) == (trade(2).price, 99.0, 101.0)
    assert shown.spread == 2.0
    assert collector.status().elapsed == now.elapsed, "time stands still"
    assert "completed, private BTC_USDT, 2 trades, 1 books, 0 gaps" in repr(collector)
    assert "completed" in collector._repr_html_()


# ---- going on --------------------------------------------------------------------------------


def test_a_session_goes_on_and_the_hole_between_is_found(lab, start, db):
    feed = Scripted([*trades(1, 2, 3), BOOK])
    first = said(start(feed, notes="first", tags=("t",)), feed)
    again = Scripted(trades(2, 3, 6, 7), history=trades(4, origin="backfill"))
    collector = start(again, session_id=first.id, resume=True)
    session = said(collector, again)
    assert ids(session) == [1, 2, 3, 4, 6, 7]
    assert (session.status, session.notes, session.tags) == ("completed", "first", ("t",))
    assert (session.prices_count, session.orderbook_count) == (6, 1)
    assert session.created_at == first.created_at
    assert session.gaps_count == 1
    (gap,) = events(db, session.id)
    assert (gap["count"], json.loads(gap["detail"])["state"]) == (1, "partly filled")
    assert session.gap_list()["cause"].to_list() == ["the recorder was away"]
    assert collector.status().symbols[0].doubles == 2
    receipt = lab.verify(session.id)
    assert receipt.whole
    assert receipt.ids["ids_missing"].to_list() == [1]


def test_an_aborted_session_goes_on_too(lab, start):
    collector = start(Scripted(trades(1), after=RuntimeError("x")))
    with pytest.raises(errors.CollectionFailed):
        collector.wait(PATIENCE)
    feed = Scripted(trades(2))
    session = said(start(feed, session_id=collector.session_id, resume=True), feed)
    assert (session.status, ids(session)) == ("completed", [1, 2])
    assert lab.verify(session.id).whole


def test_text_ids_said_again_after_a_pause_are_known(lab, start):
    some = [trade(1)._replace(id=one) for one in ("x", "y")]
    feed = Plain(some)
    first = said(start(feed), feed)
    feed = Plain([*some, trade(2)._replace(id="z")])
    session = said(start(feed, session_id=first.id, resume=True), feed)
    frame = session.prices(columns=["seq", "trade_id"])
    assert frame["trade_id"].to_list() == ["x", "y", "z"]
    assert lab.verify(session.id).whole


def test_whole_ids_that_tell_no_holes_said_again_after_a_pause_are_known(lab, start):
    feed = Plain(trades(5, 9))
    first = said(start(feed), feed)
    feed = Plain(trades(5, 9, 11))
    session = said(start(feed, session_id=first.id, resume=True), feed)
    assert (session.status, ids(session)) == ("completed", [5, 9, 11])
    assert lab.verify(session.id).whole


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"symbols": ["ETH_USDT"]}, "BTC_USDT.*cannot go on with.*ETH_USDT"),
        ({"symbols": ["BTC_USDT", "ETH_USDT"]}, "cannot go on"),
        ({"book_depth": 0}, "prices.*orderbook.*cannot go on"),
        ({"venue": "elsewhere"}, "from private.*cannot go on.*from elsewhere"),
        ({"book_depth": 5}, "book_depth=10.*cannot go on with book_depth=5; give book_depth=10"),
        ({"book_every": "2s"}, "book_every=0.*cannot go on with book_every=2; give book_every=0"),
    ],
    ids=repr,
)
def test_a_session_goes_on_only_as_it_was(lab, start, change, words):
    feed = Scripted(trades(1))
    first = said(start(feed), feed)
    other = Scripted(trades(2))
    other.venue = change.pop("venue", "private")
    options = {"symbols": SYMBOL, "session_id": first.id, "resume": True} | change
    with pytest.raises(errors.InvalidParameter, match=words):
        lab.collect(other, options.pop("symbols"), **options)
    session = lab.session(first.id)
    assert (session.status, ids(session)) == ("completed", [1])
    assert lab.verify(first.id).whole


def test_auto_goes_on_with_what_is_there_and_begins_it_otherwise(lab, start, unique):
    name = unique("service")
    for number in (1, 2, 3):
        feed = Scripted(trades(number))
        session = said(start(feed, session_id=name, resume="auto"), feed)
        assert ids(session) == list(range(1, number + 1))
    assert lab.verify(name).whole
    with pytest.raises(errors.InvalidParameter, match="resume='yes' is none of True, False and"):
        lab.collect(Scripted(), SYMBOL, session_id=name, resume="yes")
    with pytest.raises(errors.InvalidParameter, match="resume='auto' needs the session_id"):
        lab.collect(Scripted(), SYMBOL, resume="auto")


def test_a_wildcard_is_all_that_is_traded_and_goes_on_with_what_was(lab, start):
    traded = {"BTC_USDT": "trading", "ETH_USDT": "trading", "ETH_EUR": "trading"}
    feed = Scripted(trades(1), symbols={**traded, "OLD_USDT": "halted"})
    first = said(start(feed, ["ETH_EUR", "*_usdt", "BTC_*"]), feed)
    assert [one.symbol for one in feed.wanted.instruments] == ["ETH_EUR", "BTC_USDT", "ETH_USDT"]
    assert first.symbols == ("BTC_USDT", "ETH_EUR", "ETH_USDT")
    feed = Scripted(trades(2), symbols={**traded, "NEW_USDT": "trading"})
    session = said(start(feed, "*", session_id=first.id, resume=True), feed)
    assert (session.symbols, ids(session, SYMBOL)) == (first.symbols, [1, 2])
    assert lab.verify(session.id).whole
    with pytest.raises(errors.SymbolNotFound, match=r"no symbol like 'X_\?'.*lab.instruments"):
        start(Scripted(), "X_?")
    with pytest.raises(errors.InvalidIdentifier):
        start(Scripted(), "*; drop")


LISTED = {"kind": "spot", "tick_size": "0.01", "lot_size": 0.001, "taker_bps": 10}


def test_what_the_venue_lists_is_kept_with_the_session(lab, start):
    feed = Scripted(trades(1), terms=LISTED)
    session = said(start(feed), feed)
    (row,) = session.instruments().rows(named=True)
    assert {name: value for name, value in row.items() if value is not None} == {
        "symbol": SYMBOL, "kind": "spot", "tick_size": 0.01, "lot_size": 0.001, "taker_bps": 10.0,
    }  # fmt: skip
    lab.delete(session.id)
    lab.undelete(session.id)
    lab.archive()
    assert lab.session(session.id).instruments().equals(session.instruments())


def test_a_session_that_goes_on_keeps_the_first_listing_and_says_what_differs(start, caplog):
    feed = Scripted(trades(1), terms=LISTED)
    first = said(start(feed), feed)
    for number, terms in ((2, LISTED | {"lot_size": 0.01}), (3, LISTED)):
        feed = Scripted(trades(number), terms=terms)
        session = said(start(feed, session_id=first.id, resume=True), feed)
        assert session.instruments().equals(first.instruments())
        assert session.options["listing_changed"][SYMBOL]["lot_size"] == 0.01
    words = f"private lists {SYMBOL} with another lot_size than when session {first.id} began"
    assert caplog.text.count(words) == 1


def test_a_session_of_an_older_fxlab_that_goes_on_has_no_listing(lab, db, start):
    feed = Scripted(trades(1))
    first = said(start(feed), feed)
    _catalog.put(db, {**_catalog.find(db, first.id), "instruments": None})
    db.wait_visible(schema.SESSIONS)
    feed = Scripted(trades(2), terms=LISTED)
    session = said(start(feed, session_id=first.id, resume=True), feed)
    assert session.instruments().is_empty()
    assert "listing_changed" not in session.options


def test_a_feed_that_lists_an_unknown_word_is_refused(start):
    with pytest.raises(errors.InvalidParameter, match=r"no 'tick'.*did you mean 'tick_size'"):
        start(Scripted(terms={"tick": 0.1}))


def test_instruments_are_listed_as_the_venue_has_them(lab):
    feed = Scripted()
    found = lab.instruments(feed, "*_USDT")
    assert found.select("symbol", "native", "status").rows() == [
        ("BTC_USDT", "btc_usdt", "trading"),
        ("ETH_USDT", "eth_usdt", "trading"),
        ("OLD_USDT", "old_usdt", "halted"),
    ]
    assert feed.closed == 1
    assert lab.instruments(Scripted(), "ETH_?SDT")["symbol"].to_list() == ["ETH_USDT"]
    assert lab.instruments(Scripted(), "NO_*").is_empty()

    async def within_a_loop():
        return lab.instruments(Scripted())

    assert asyncio.run(within_a_loop()).height == 3


def test_events_of_one_symbol(lab, start):
    feed = Scripted(
        [*trades(1, 2), Event("delisted", "ETH_USDT", NOON), Event("reconnect", None, NOON)]
    )
    session = said(start(feed, ["BTC_USDT", "ETH_USDT"]), feed)
    assert session.events("ETH_USDT")["event"].to_list() == ["delisted"]
    assert session.events("BTC_USDT").is_empty()
    assert session.events().height == 2
    with pytest.raises(errors.SymbolNotFound, match="ETH_USDT"):
        session.events("ETH_USD")


def test_nothing_to_go_on_with(lab, unique):
    name = unique()
    with pytest.raises(errors.SessionNotFound, match=f"no session '{name}' to resume"):
        lab.collect(Scripted(), SYMBOL, session_id=name, resume=True)
    nothing_was_written(lab, name)


# ---- asking again afterwards -----------------------------------------------------------------


def test_what_a_venue_did_not_have_is_stored_when_it_has_it(lab, start, db):
    feed = Scripted([*trades(1, 5), BOOK], history=errors.VenueUnavailable("HTTP 503"))
    first = said(start(feed, notes="first"), feed)
    assert (ids(first), first.gaps_count) == ([1, 5], 1)
    later = Scripted(history=trades(2, 3, origin="backfill"))
    found = lab.backfill(first.id, venue=later)
    told = found.select("symbol", "missing", "still_missing", "state", "answer").rows()
    assert told == [(SYMBOL, 3, 1, "partly filled", "2 of 3 trades came")]
    assert found["cause"].to_list() == ["the stream skipped these ids while its connection stood"]
    session = lab.session(first.id)
    assert (ids(session), session.gaps_count) == ([1, 2, 3, 5], 1)
    assert (session.status, session.notes, session.ended) == ("completed", "first", first.ended)
    assert lab.verify(first.id).whole
    again = lab.backfill(first.id, venue=Scripted(history=trades(2, 3, 4, origin="backfill")))
    assert again["state"].to_list() == ["filled"]
    assert ids(lab.session(first.id)) == [1, 2, 3, 4, 5]
    assert lab.verify(first.id).whole
    nobody = Scripted()
    assert lab.backfill(first.id, venue=nobody).is_empty()
    assert nobody.asked == []
    assert [one["count"] for one in events(db, first.id)] == [0]


def test_an_aborted_recording_is_aborted_after_a_backfill_too(lab, start):
    feed = Scripted(trades(1, 3), after=RuntimeError("x"), history=errors.VenueUnavailable("503"))
    collector = start(feed)
    with pytest.raises(errors.CollectionFailed):
        collector.wait(PATIENCE)
    lab.backfill(collector.session_id, venue=Scripted(history=trades(2, origin="backfill")))
    session = lab.session(collector.session_id)
    assert (session.status, ids(session)) == ("aborted", [1, 2, 3])


def test_what_was_not_recorded_cannot_be_backfilled(lab, start, unique):
    name = unique("imported")
    lab.import_frame(random_walk(5, symbol="A").drop("bid_qty_1", "ask_qty_1"), "prices",
                     session_id=name)  # fmt: skip
    with pytest.raises(errors.InvalidParameter, match=f"{name!r} was imported"):
        lab.backfill(name)
    with pytest.raises(errors.SessionNotFound, match="nope"):
        lab.backfill("nope")
    feed = Scripted(trades(1))
    collector = start(feed)
    with pytest.raises(errors.SessionBusy, match="is being recorded"):
        lab.backfill(collector.session_id)
    said(collector, feed)


# ---- the server refuses ----------------------------------------------------------------------


def test_a_row_that_the_server_refuses_is_counted_and_named(lab, start, db, monkeypatch):
    encode = TickLines.add_trades

    def with_a_text(lines, some, seqs):
        encode(lines, some, [f"text {seq}" if seq == 2 else seq for seq in seqs])

    monkeypatch.setattr(TickLines, "add_trades", with_a_text)
    feed = Scripted(trades(1, 2, 3))
    session = said(start(feed), feed)
    assert (session.status, ids(session)) == ("completed", [1, 3])
    (row,) = [one for one in events(db, session.id) if one["event"] == "quarantine"]
    assert "tick_prices, base64" in row["detail"]
    assert session.errors_count == 1
    receipt = lab.verify(session.id)
    assert not receipt.whole
    assert "1 rows were refused by the server" in str(receipt)

    feed = Scripted(trades(4))
    session = said(start(feed, session_id=session.id, resume=True), feed)
    assert (session.status, ids(session)) == ("completed", [1, 3, 4])


def test_rows_of_the_session_alone_are_counted(lab, start, db):
    """Another session with the same symbol and ids changes nothing."""
    for _ in range(2):
        feed = Scripted(trades(1, 2))
        session = said(start(feed), feed)
        scope = Scope(schema.PRICES, session.id)
        assert db.execute(sql.count_by_symbol(scope)) == [[SYMBOL, 2]]
    assert dataclasses.is_dataclass(session)
    assert isinstance(trade(1), Trade)


# ---- rollover ---------------------------------------------------------------------------------


def reached(collector, sessions):
    now = collector.status()
    return len(collector.session_ids) >= sessions and now.trades


def test_sessions_that_follow_each_other_join_without_a_hole(lab, unique):
    name = unique("rolled")
    with MockVenue(generated(["BTC_USDT"], rate=400, book_rate=50)) as venue:
        collector = lab.collect(
            "binance", "BTC_USDT", url=venue.url, rollover="1s", session_id=name
        )
        eventually(partial(reached, collector, sessions=4), "four sessions with trades")
        eventually(lambda: collector.status().books, "and books of the newest")
        sessions = collector.stop()
        assert collector.status().is_over
    assert [one.id for one in sessions] == collector.session_ids
    assert all(re.fullmatch(rf"{name}_\d{{8}}T\d{{6}}", one) for one in collector.session_ids)
    assert {one.status for one in sessions} == {"completed"}
    assert all(lab.verify(one.id).whole for one in sessions)
    seen = [ids(one) for one in sessions]
    for before, after in pairwise(seen):
        assert before[0] < after[0] <= before[-1] + 1, "a hole between two sessions"
    together = sorted(set().union(*seen))
    assert together == list(range(together[0], together[-1] + 1))
    books = [one.orderbook()["timestamp"] for one in sessions]
    assert all(after.min() <= before.max() for before, after in pairwise(books))


def test_a_next_session_that_cannot_begin_is_tried_again_and_the_one_before_goes_on(
    lab, unique, monkeypatch
):
    monkeypatch.setattr(_config, "RETRY", 0.1)
    tried, begin = [], Collector.start

    def start(collector):
        tried.append(collector.session_id)
        if 2 <= len(tried) <= 4:
            raise errors.VenueUnavailable("the venue sleeps; try again later")
        return begin(collector)

    monkeypatch.setattr(Collector, "start", start)
    with MockVenue(generated(["BTC_USDT"], rate=400)) as venue:
        collector = lab.collect(
            "binance", "BTC_USDT", url=venue.url, rollover="1s", session_id=unique("again"),
            book_depth=0,
        )  # fmt: skip
        eventually(partial(reached, collector, sessions=2), "a second session with trades")
        sessions = collector.stop()
    assert len(tried) >= 5
    assert ids(sessions[1])[0] <= ids(sessions[0])[-1] + 1


def test_a_rollover_is_refused_where_it_cannot_be(lab):
    with pytest.raises(errors.InvalidParameter, match="rollover needs the name of a venue"):
        lab.collect(Scripted(), SYMBOL, rollover="1d")
    with pytest.raises(errors.InvalidParameter, match=r"rollover=0\.5 s is too often"):
        lab.collect("binance", SYMBOL, rollover="500ms")


def test_a_backtest_of_a_recording_takes_what_was_listed_and_one_of_its_export_does_not(
    lab, start, tmp_path, unique
):
    feed = Scripted(trades(*range(1, 9)), terms=LISTED)
    session = said(start(feed), feed)
    result = fxlab.backtest(session, "buy_and_hold")
    assert (result.execution.lot_size, result.execution.taker_bps) == (0.001, 10.0)
    assert result.run.listed == ("lot_size", "tick_size", "taker_bps", "maker_bps")
    assert lab.reproduce(result.save(lab)).same_fingerprint
    bare = fxlab.backtest(session, "buy_and_hold", execution=fxlab.Execution(instruments="none"))
    again = lab.reproduce(bare.save(lab))
    assert (again.same_fingerprint, again.result.run.listed) == (True, ())
    session.export(tmp_path, format="parquet")
    report = lab.import_files(tmp_path, session_id=unique("export"))
    imported = lab.session(report.table()["session_id"][0])
    assert imported.instruments().is_empty()
    assert fxlab.backtest(imported, "buy_and_hold").fills.equals(bare.fills)
    listed = session.instruments()
    for options in ({"instruments": listed}, {}):  # what was given once stays
        lab.import_files(tmp_path, session_id=imported.id, **options)
        imported = lab.session(imported.id)
        assert imported.instruments().equals(listed)
    assert fxlab.backtest(imported, "buy_and_hold").fills.equals(result.fills)
    other = unique("other")
    listed = listed.with_columns(symbol=pl.lit("OTHER"))
    lab.import_frame(session.prices(), "prices", session_id=other, instruments=listed)
    assert lab.session(other).instruments().is_empty()
