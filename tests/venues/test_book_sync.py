"""A book is passed on only while every change follows the one before it."""

from __future__ import annotations

import random

from hypothesis import given
from hypothesis import strategies as st

from fxlab.collect.feed import BookDelta, BookSnapshot, Event, Gap, Quote
from fxlab.collect.venues._book_sync import MOST_HELD, Diff, QuoteStream, SyncedBook

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


@given(st.integers(0, 2**32), st.sets(st.integers(0, 59), max_size=8))
def test_whatever_is_lost_or_doubled_only_following_changes_come_out(seed, lost):
    """A stream with holes, doubles and snapshots at any time: each hole of a known book is told."""
    rng = random.Random(seed)
    book, following, out = SyncedBook("A_B"), 1, []
    for number in range(60):
        last = following + rng.randrange(3)
        if number not in lost:
            for _ in range(rng.choice([1, 1, 1, 2])):
                out += book.take(diff(following, last))
        following = last + 1
        if book.last is None and rng.random() < 0.3:
            out += book.offer(snap(max(0, last - rng.randrange(4)))) or []
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
    times = [one.time for one in out if isinstance(one, BookDelta | BookSnapshot)]
    assert times == sorted(times)


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
    assert stream.take(quote(3, 99)) == [quote(3, 99)]
