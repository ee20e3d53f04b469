"""A book is passed on only while every change follows the one before it."""

from __future__ import annotations

import random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab.collect._live.books import OrderBook
from fxlab.collect.feed import BookDelta, BookSnapshot, Event, Gap, Quote
from fxlab.collect.venues._book_sync import (
    LATE,
    MOST_HELD,
    SKEW_US,
    Diff,
    QuoteStream,
    SyncedBook,
)

ONE = [(1.0, 1.0)]


def diff(first, last, time=None, previous=None):
    time = last * 10 if time is None else time
    return Diff("A_B", first - 1 if previous is None else previous, first, last, ONE, [], time, 0)


def snap(update_id, time=5):
    return BookSnapshot("A_B", update_id, ONE, [], time, 0)


def ids(messages):
    return [(type(one).__name__, one.update_id) for one in messages]


def test_the_documented_rule():
    book = SyncedBook("A_B")
    for one in (diff(1, 3), diff(4, 6), diff(7, 9), diff(10, 12)):
        assert book.take(one) == []
    assert book.held == 4
    found = book.offer(snap(7))
    assert ids(found) == [("BookSnapshot", 7), ("BookDelta", 9), ("BookDelta", 12)]
    # It has no time of its own: that of the last change in it.
    assert found[0].time == 60
    assert ids(book.take(diff(13, 15))) == [("BookDelta", 15)]


def test_a_snapshot_older_than_the_first_change_is_refused():
    book = SyncedBook("A_B")
    book.take(diff(10, 12))
    assert book.offer(snap(8)) is None
    assert book.last is None
    assert ids(book.offer(snap(9))) == [("BookSnapshot", 9), ("BookDelta", 12)]


def test_a_snapshot_newer_than_all_changes_is_followed_later():
    book = SyncedBook("A_B")
    book.take(diff(10, 12))
    (found,) = book.offer(snap(14))
    assert (found.update_id, found.time) == (14, 120)
    assert book.take(diff(13, 14)) == []
    assert ids(book.take(diff(15, 15))) == [("BookDelta", 15)]


def test_a_snapshot_newer_than_all_changes_has_its_own_time():
    book = SyncedBook("A_B")
    book.take(diff(10, 12))
    (found,) = book.offer(snap(1_500, time=20_000_000))
    assert (found.update_id, found.time) == (1_500, 20_000_000)
    # The stream catches up: what it tells is in the snapshot already.
    assert book.take(diff(13, 900)) == book.take(diff(901, 1_500)) == []
    assert ids(book.take(diff(1_501, 1_502, time=20_000_001))) == [("BookDelta", 1_502)]


def test_a_snapshot_between_two_changes_is_not_later_than_the_second():
    book = SyncedBook("A_B")
    book.take(diff(10, 12))
    book.take(diff(13, 20))
    assert [one.time for one in book.offer(snap(15, time=900))] == [200, 200]


def test_a_snapshot_that_ends_with_a_change_has_its_time():
    for timed in (True, False):
        book = SyncedBook("A_B", timed=timed)
        book.take(diff(10, 12))
        assert [one.time for one in book.offer(snap(12, time=900))] == [120]


def test_a_snapshot_without_a_time_waits_for_the_change_that_it_ends_with_or_the_next():
    for following, found in (
        (diff(13, 1_500), [("BookSnapshot", 1_500)]),
        (diff(13, 1_502), [("BookSnapshot", 1_500), ("BookDelta", 1_502)]),
        (diff(1_501, 1_502), [("BookSnapshot", 1_500), ("BookDelta", 1_502)]),
    ):
        book = SyncedBook("A_B", timed=False)
        book.take(diff(10, 12))
        assert book.offer(snap(1_500, time=10**12)) == []
        assert book.last == 1_500, "it is no reason to ask for another one"
        assert book.take(diff(11, 13)) == []
        told = book.take(following)
        assert ids(told) == found
        assert {one.time for one in told} == {following.time}


def test_a_gap_lasts_until_the_time_of_a_snapshot_is_known():
    book = SyncedBook("A_B", timed=False)
    book.offer(snap(9, time=70))
    (gap,) = book.take(diff(13, 14))
    assert book.offer(snap(20, time=10**12)) == []
    closed, resync, snapshot = book.take(diff(15, 20))
    assert closed == gap._replace(to_time=200)
    assert (resync.time, snapshot.time) == (200, 200)
    # One that is lost before it was told is not told.
    book.lose("cut")
    book.take(diff(25, 26))
    assert book.offer(snap(30, time=10**12)) == []
    assert book.take(diff(40, 41)) == []
    assert book.last is None


@pytest.mark.parametrize("timed", [True, False])
def test_a_snapshot_far_ahead_waits_for_a_stream_that_is_late(timed):
    ahead = 3 * LATE
    book = SyncedBook("A_B", timed=timed)
    book.take(diff(1, 2))
    snapshot = snap(ahead, time=ahead * 10)._replace(received=ahead * 10)
    out = book.offer(snapshot)
    for last in range(1_000, ahead + 1, LATE // 2):
        out += book.take(diff(3, last))
    assert book.last == ahead, "nobody asks for another snapshot"
    out += book.take(diff(ahead - 5, ahead + 1))
    assert ids(out) == [("BookSnapshot", ahead), ("BookDelta", ahead + 1)]
    assert [one.time for one in out] == [ahead * 10 if timed else ahead * 10 + 10, ahead * 10 + 10]


def test_ids_that_begin_anew_after_a_snapshot_without_a_time_are_known_in_the_end():
    book = SyncedBook("A_B", timed=False)
    book.take(diff(10, 12))
    book.offer(snap(3 * LATE)._replace(received=1_000))
    assert book.take(diff(1, 2, time=2_000)) == []
    assert book.last is not None
    assert book.take(diff(3, 4, time=2_000 + SKEW_US)) == []
    assert (book.last, book.held) == (None, 1)


def test_futures_name_the_change_before():
    book = SyncedBook("A_B")
    book.take(diff(100, 110, previous=90))
    book.take(diff(140, 150, previous=110))
    assert ids(book.offer(snap(105))) == [
        ("BookSnapshot", 105),
        ("BookDelta", 110),
        ("BookDelta", 150),
    ]
    (gap,) = book.take(diff(200, 210, previous=160))
    assert gap == Gap("A_B", "orderbook", 1500, None, 10, gap.cause)


def test_a_hole_begins_a_gap_and_a_snapshot_ends_it():
    book = SyncedBook("A_B")
    book.offer(snap(9, time=70))
    book.take(diff(10, 10))
    (gap,) = book.take(diff(13, 14))
    assert gap == Gap("A_B", "orderbook", 100, None, 2, "2 update ids after 10 are missing")
    assert book.take(diff(15, 15)) == []
    closed, resync, snapshot, delta = book.offer(snap(14))
    assert closed == gap._replace(to_time=140)
    assert resync == Event("resync", "A_B", 140, 1, gap.cause)
    assert (snapshot.update_id, snapshot.time, delta.update_id) == (14, 140, 15)


def test_a_gap_begins_once():
    book = SyncedBook("A_B")
    assert book.lose("before anything was known") == []
    book.offer(snap(9, time=70))
    assert len(book.lose("cut")) == 1
    assert book.lose("cut again") == []


def test_doubles_and_late_ones_change_nothing():
    book = SyncedBook("A_B")
    book.offer(snap(9, time=70))
    book.take(diff(10, 12))
    assert book.take(diff(10, 12)) == []
    assert book.take(diff(8, 9)) == []
    assert book.last == 12


def test_ids_that_begin_anew_are_a_gap():
    book = SyncedBook("A_B")
    book.offer(snap(900, time=70))
    book.take(diff(901, 901, time=5_000))
    (gap,) = book.take(diff(1, 2, time=6_000))
    assert "went back from 901 to 2" in gap.cause
    assert book.offer(snap(1))[-1].update_id == 2


def test_a_hole_while_waiting_makes_older_changes_useless():
    book = SyncedBook("A_B")
    book.take(diff(1, 3))
    book.take(diff(6, 8))
    assert book.offer(snap(4)) is None
    assert ids(book.offer(snap(5))) == [("BookSnapshot", 5), ("BookDelta", 8)]


def test_what_waits_is_bounded():
    book = SyncedBook("A_B")
    for number in range(1, 2 * MOST_HELD):
        book.take(diff(number, number))
    assert book.held <= MOST_HELD
    assert book.offer(snap(2 * MOST_HELD - 2))[-1].update_id == 2 * MOST_HELD - 1


@given(st.integers(0, 2**32), st.sets(st.integers(0, 59), max_size=8), st.booleans())
def test_whatever_is_lost_or_doubled_only_following_changes_come_out(seed, lost, timed):
    """A stream with holes, doubles and snapshots at any time: each hole of a known book is told."""
    rng = random.Random(seed)
    book, following, out = SyncedBook("A_B", timed=timed), 1, []
    for number in range(60):
        last = following + rng.randrange(3)
        if number not in lost:
            for _ in range(rng.choice([1, 1, 1, 2])):
                out += book.take(diff(following, last))
        following = last + 1
        if book.last is None and rng.random() < 0.3:
            update_id = max(0, last + 4 - rng.randrange(8))
            out += book.offer(snap(update_id, time=update_id * 10)) or []
    known, gap = None, None
    for one in out:
        if isinstance(one, BookDelta):
            assert gap is None
            assert one.first_update_id <= known + 1 <= one.update_id
            known = one.update_id
        elif isinstance(one, BookSnapshot):
            assert gap is None
            known = one.update_id
        elif isinstance(one, Gap):
            assert (one.to_time is None) == (gap is None)
            assert one.to_time is None or one.to_time >= one.from_time == gap
            gap = one.from_time if one.to_time is None else None
    books = [one for one in out if isinstance(one, BookDelta | BookSnapshot)]
    times = [one.time for one in books]
    assert times == sorted(times)
    # A change happens at ten times its id: no book is told before it was true.
    assert all(one.time >= one.update_id * 10 for one in books)


def quote(update_id, time=0):
    return Quote("A_B", 1.0, 1.0, 2.0, 1.0, update_id, time, time)


def test_quotes_need_no_snapshot():
    stream = QuoteStream("A_B")
    assert stream.lose("before anything was known") == []
    assert stream.take(quote(5, 50)) == [quote(5, 50)]
    assert stream.take(quote(5, 51)) == []
    assert stream.take(quote(4, 52)) == []
    (gap,) = stream.lose("cut")
    assert gap == Gap("A_B", "orderbook", 50, None, None, "cut")
    assert stream.lose("cut") == []
    closed, resync, told = stream.take(quote(9, 90))
    assert closed == gap._replace(to_time=90)
    assert (resync.kind, told.update_id) == ("resync", 9)
    assert stream.take(quote(6_000_000, 95)) == [quote(6_000_000, 95)]
    assert stream.take(quote(2, 94)) == [], "far behind, and older: it is late"
    assert stream.take(quote(3, 99)) == [quote(3, 99)]


DEPTH, ASKED = 3, 10


class Walk:
    """A book of 60 levels a side whose price wanders: few levels near it change, the rest rests."""

    def __init__(self, seed):
        self.rng = random.Random(seed)
        self.number, self.middle, self.book = 0, 1_000, OrderBook()
        levels = [(i, self.rng.choice([1.0, 2.0, 3.0])) for i in range(1, 61)]
        self.book.reset(
            [(1_000.0 - i, qty) for i, qty in levels], [(1_000.0 + i, qty) for i, qty in levels]
        )

    def step(self):
        """Return the next change."""
        self.middle += self.rng.choice([-2, -1, 0, 0, 1, 2])
        bids = [(p, 0.0) for p, _ in self.book.bids.best(9) if p >= self.middle]
        asks = [(p, 0.0) for p, _ in self.book.asks.best(9) if p <= self.middle]
        qty = float(self.rng.randrange(1, 5))
        bids += [(float(self.middle - self.rng.randrange(1, 4)), qty)]
        asks += [(float(self.middle + self.rng.randrange(1, 4)), qty)]
        self.book.apply(bids, asks)
        self.number += 1
        return Diff("A_B", self.number - 1, self.number, self.number, bids, asks, self.number, 0)

    def snapshot(self):
        """Return the best levels as they are now."""
        sides = self.book.bids.best(ASKED), self.book.asks.best(ASKED)
        return BookSnapshot("A_B", self.number, *sides, self.number, 0)


def known(messages, book):
    """Apply messages; return whether a row was made of the last one."""
    for one in messages:
        if isinstance(one, BookSnapshot):
            book.reset(one.bids, one.asks)
        elif isinstance(one, BookDelta):
            book.apply(one.bids, one.asks)
    return bool(messages) and isinstance(messages[-1], BookDelta)


@given(st.integers(0, 2**32), st.integers(0, 6), st.booleans())
def test_no_row_shows_levels_that_no_snapshot_reached(seed, delay, early):
    """Snapshots come late, and are of the present or of the moment at which they were asked for."""
    market, book, mirror = Walk(seed), SyncedBook("A_B", depth=DEPTH), OrderBook()
    asked, rows = None, 0
    for _ in range(300):
        messages = book.take(market.step())
        rows += known(messages, mirror)
        if book.last is not None:
            assert mirror.top(DEPTH) == market.book.top(DEPTH)
        if book.worn:
            book.renew()
            assert not book.worn
        if asked is None and (book.last is None or book.renewing):
            asked = market.number, market.snapshot()
        if asked is not None and market.number >= asked[0] + delay:
            found = book.offer(asked[1] if early else market.snapshot(), ASKED)
            asked = None
            assert not [m for m in found or [] if isinstance(m, Gap) and "is not" in m.cause]
            known(found or [], mirror)
    assert rows > 20


def test_a_price_that_leaves_the_snapshot_before_a_new_one_came_is_a_gap():
    market, book = Walk(7), SyncedBook("A_B", depth=DEPTH)
    book.offer(market.snapshot(), ASKED)
    told = []
    for _ in range(300):
        told += book.take(market.step()) if book.last is not None else []
    assert isinstance(told[-1], Gap)
    assert told[-1].cause == "the price has left the 10 levels of the last snapshot"
    assert told[-1].from_time == told[-2].time


def test_a_side_with_fewer_levels_than_were_asked_for_is_whole():
    market, book = Walk(7), SyncedBook("A_B", depth=DEPTH)
    sides = market.book.bids.best(60), market.book.asks.best(60)
    book.offer(BookSnapshot("A_B", 0, *sides, 0, 0), 61)
    for _ in range(300):
        book.take(market.step())
        assert not book.worn
    assert book.last == 300


def test_a_new_snapshot_waits_until_the_stream_has_caught_up():
    market, book = Walk(7), SyncedBook("A_B", depth=DEPTH)
    book.offer(market.snapshot(), ASKED)
    book.renew()
    changes = [market.step(), market.step()]
    assert book.offer(market.snapshot(), ASKED) == []
    assert [type(one) for one in book.take(changes[0])] == [BookDelta]
    last, deeper = book.take(changes[1])
    assert (last.update_id, deeper.update_id, deeper.first_update_id) == (2, 2, 3)
    assert not book.renewing


def test_a_new_snapshot_from_before_it_was_asked_for_is_refused():
    market, book = Walk(7), SyncedBook("A_B", depth=DEPTH)
    old = market.snapshot()
    book.offer(old, ASKED)
    book.take(market.step())
    book.renew()
    assert book.offer(old, ASKED) is None
    assert book.renewing


def test_a_new_snapshot_that_is_not_the_book_ends_what_was_known():
    """The gap begins where the book was last known to be right, and ends with the next change."""
    market, book, mirror = Walk(7), SyncedBook("A_B", depth=DEPTH), OrderBook()
    known(book.offer(market.snapshot(), ASKED), mirror)
    bids = [(price, 77.0) for price, _ in market.book.bids.best(DEPTH)]
    market.book.apply(bids, [])  # nobody tells it
    known(book.take(market.step()), mirror)
    assert mirror.top(DEPTH) != market.book.top(DEPTH)
    book.renew()
    (gap,) = book.offer(market.snapshot(), ASKED)
    assert (gap.from_time, gap.to_time) == (0, None)
    assert gap.cause == "the snapshot at update 1 is not the book of the updates"
    told = book.take(market.step())
    assert [type(one) for one in told] == [Gap, Event, BookSnapshot, BookDelta]
    assert told[0]._replace(to_time=None) == gap
    known(told, mirror)
    assert mirror.top(DEPTH) == market.book.top(DEPTH)
