"""Books between venue and journal: every state once, or one in so much time."""

from __future__ import annotations

import itertools
import json
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxlab.collect._live import books
from fxlab.collect._live.books import BookRecorder
from fxlab.collect.feed import BookDelta, BookSnapshot, Quote
from fxlab.schema import book_levels

NOON = 1_735_732_800_000_000
OPENING = BookSnapshot("A", 10, [(99.0, 1.0), (98.0, 2.0)], [(101.0, 3.0)], NOON, NOON + 7)


def delta(number, bids=(), asks=(), time=None):
    at = NOON + number if time is None else time
    return BookDelta("A", number, number, bids, asks, at, at + 7)


def quote(number, *best, time=None):
    at = NOON + number if time is None else time
    return Quote("A", *(best or (99.0, 1.0, 101.0, 2.0)), number, at, at + 7)


def shown(row):
    """Return the levels that a row has."""
    pairs = zip(book_levels(), row.levels, strict=True)
    return {name: value for name, value in pairs if value is not None}


def test_each_change_is_a_row_with_the_whole_top():
    track = BookRecorder(10)
    first = track.take(OPENING)
    assert (first.time, first.seq, first.received) == (NOON, 10, NOON + 7)
    assert (first.is_snapshot, first.first_update_id) == (True, None)
    second = track.take(delta(11, [(99.0, 0.0)], [(100.5, 4.0)]))
    assert (second.seq, second.first_update_id, second.is_snapshot) == (11, 11, False)
    assert shown(second) == {
        "bid_price_1": 98.0, "bid_qty_1": 2.0,
        "ask_price_1": 100.5, "ask_qty_1": 4.0, "ask_price_2": 101.0, "ask_qty_2": 3.0,
    }  # fmt: skip


def test_fewer_levels_stand_in_their_own_columns():
    row = BookRecorder(1).take(OPENING)
    assert shown(row) == {
        "bid_price_1": 99.0, "bid_qty_1": 1.0, "ask_price_1": 101.0, "ask_qty_1": 3.0,
    }  # fmt: skip
    assert len(row.levels) == len(book_levels())


def test_levels_beyond_the_tenth_are_known_and_not_stored():
    track = BookRecorder(10)
    bids = [(100.0 - n, 1.0) for n in range(12)]
    assert shown(track.take(OPENING._replace(bids=bids)))["bid_price_10"] == 91.0
    assert shown(track.take(delta(11, [(100.0, 0.0)])))["bid_price_10"] == 90.0


def test_quotes_need_no_book_before_them():
    row = BookRecorder(1).take(quote(3, 99.0, 0.0, 101.0, 2.0))
    assert shown(row) == {
        "bid_price_1": 99.0, "bid_qty_1": 0.0, "ask_price_1": 101.0, "ask_qty_1": 2.0,
    }  # fmt: skip
    assert (row.seq, row.is_snapshot, row.first_update_id) == (3, False, None)


@pytest.mark.parametrize(
    "message",
    [
        delta(11, [(math.nan, 1.0)]),
        delta(11, [(math.inf, 1.0)]),
        delta(11, [(0.0, 1.0)]),
        delta(11, [(-1.0, 1.0)]),
        delta(11, [(1.0, math.nan)]),
        delta(11, [(1.0, -1.0)]),
        delta(11, [(1.0, math.inf)]),
        delta(11, [("1", 1.0)]),
        delta(11, [(1.0,)]),
        delta(11, None),
        delta(11, [], [(97.0, 1.0), (None, 1.0)]),
        delta(11)._replace(update_id=None),
        delta(11)._replace(update_id=2**63),
        delta(11)._replace(update_id=11.0),
        delta(11)._replace(first_update_id=-1),
        delta(11)._replace(time=0),
        delta(11)._replace(time=float(NOON)),
        delta(11)._replace(received=None),
        OPENING._replace(update_id="10"),
        OPENING._replace(asks=[(1.0, math.nan)]),
        quote(11, math.nan, 1.0, 2.0, 1.0),
        quote(11, 0.0, 1.0, 2.0, 1.0),
        quote(11, 1.0, -1.0, 2.0, 1.0),
        quote(11, "1", 1.0, 2.0, 1.0),
        quote(11, 1.0, 1.0, math.inf, 1.0),
        quote(11)._replace(time=None),
    ],
    ids=repr,
)
def test_what_is_no_book_is_refused_and_changes_nothing(message):
    track = BookRecorder(10)
    track.take(OPENING)
    with pytest.raises((ValueError, TypeError)):
        track.take(message)
    after = track.take(delta(12))
    assert shown(after) == shown(BookRecorder(10).take(OPENING))


def test_a_change_without_a_book_is_refused_at_first_and_after_a_loss():
    track = BookRecorder(10)
    with pytest.raises(ValueError, match="before the book"):
        track.take(delta(11))
    track.take(OPENING)
    track.lost()
    with pytest.raises(ValueError, match="before the book"):
        track.take(delta(11))
    assert track.take(OPENING._replace(update_id=20, time=NOON + 20)).seq == 20
    assert track.take(delta(21)).seq == 21


def test_a_state_told_twice_is_stored_once():
    track = BookRecorder(10)
    assert track.take(OPENING) is not None
    assert track.take(OPENING) is None
    assert track.unstored == 1


def test_identities_are_forgotten_one_by_one(monkeypatch):
    monkeypatch.setattr(books, "KEPT_KEYS", 3)
    track = BookRecorder(1)
    for number in (1, 2, 3):
        assert track.take(quote(number)) is not None
    assert track.take(quote(1)) is None
    assert track.take(quote(4)) is not None
    assert track.take(quote(1)) is not None, "a memory of three has lost it"
    assert track.take(quote(4)) is None


def test_one_row_in_so_much_time_and_the_last_state_at_the_end():
    track = BookRecorder(1, every=1_000)
    stored = [
        track.take(quote(n, time=NOON + t)) for n, t in enumerate((0, 400, 999, 1_000, 1_500))
    ]
    assert [row.seq if row else None for row in stored] == [0, None, None, 3, None]
    assert track.unstored == 2
    assert track.rest().seq == 4
    assert track.rest() is None
    assert track.unstored == 2


def test_snapshots_and_times_that_go_back_are_stored_at_once():
    track = BookRecorder(10, every=1_000_000)
    assert track.take(OPENING).seq == 10
    assert track.take(delta(11)) is None
    assert track.take(OPENING._replace(update_id=12, time=NOON + 12)).seq == 12
    assert track.unstored == 1
    assert track.take(delta(13, time=NOON - 5)).seq == 13


@given(
    st.lists(st.tuples(st.integers(0, 900), st.integers(0, 3)), min_size=1, max_size=60),
    st.sampled_from([0, 1, 500, 2_000]),
)
@settings(max_examples=150, deadline=None)
def test_stored_and_unstored_are_all_that_came(steps, every):
    track = BookRecorder(1, every)
    time, number, rows = NOON, 0, []
    for pause, step in steps:
        time += pause
        number += step  # 0 may be the same state again
        rows.append(track.take(quote(number, time=time)))
    stored = [row for row in rows if row is not None]
    rest = track.rest()
    assert len(stored) + (rest is not None) + track.unstored == len(steps)
    assert len({(row.time, row.seq) for row in stored}) == len(stored)
    pairs = itertools.pairwise(stored)
    assert all(b.time - a.time >= every for a, b in pairs)
    newest = rest or stored[-1]
    assert (newest.time, newest.seq) == (time, number)


def test_what_is_written_down_is_gone_on_with():
    track = BookRecorder(5, 1_000)
    track.take(OPENING)
    track.take(OPENING)
    later = BookRecorder.from_json(json.loads(json.dumps(track.to_json())), 5, 1_000)
    assert (later.unstored, later.last_time) == (1, NOON)
    assert (later.depth, later.every) == (5, 1_000)
    with pytest.raises(ValueError, match="before the book"):
        later.take(delta(11))
