"""Doubles, gaps and new counts by ids alone, against a twin that is a set of ids."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from twin_recorder import IdsTwin

from fxlab.collect._live import trades
from fxlab.collect._live.trades import IdGap, IdRanges, Recent

START = 1_700_000_000_000_000


def time_of(identity):
    """Return a time at which three neighbours happen at once."""
    return START + identity // 3 * 1_000


def reread(ids):
    return IdRanges.from_json(json.loads(json.dumps(ids.to_json())))


def members(gaps):
    found = [one for gap in gaps for one in range(gap.first, gap.last + 1)]
    assert len(found) == len(set(found)), "an id is in two gaps"
    return set(found)


def agree(ids, twin):
    assert [one for first, last in ids.spans for one in range(first, last + 1)] == sorted(twin.seen)
    assert all(a[1] + 1 < b[0] for a, b in zip(ids.spans, ids.spans[1:], strict=False))
    assert ids.missing == twin.missed_before + len(twin.absent())
    assert (ids.newest, ids.restarts) == (twin.newest, twin.restarts)
    assert members(part for gap in ids.gaps for part in ids.rest_of(gap)) == (
        twin.noticed.keys() - twin.seen.keys()
    )


@st.composite
def arrivals(draw):
    """Draw ids in any order, with doubles and gaps."""
    first = draw(st.integers(0, 2**40))
    offsets = st.integers(0, 40) | st.integers(0, 3)
    return [first + one for one in draw(st.lists(offsets, min_size=1, max_size=60))]


@given(arrivals(), st.data())
@settings(max_examples=200, deadline=None)
def test_any_order_duplicates_and_gaps_as_the_twin_has_them(order, data):
    ids, twin = IdRanges(), IdsTwin()
    for step, identity in enumerate(order):
        expected = twin.add(identity, time_of(identity), step)
        assert ids.add(identity, time_of(identity), step) == expected
        agree(ids, twin)
        if data.draw(st.integers(0, 9)) == 0:
            until = data.draw(st.integers(-1, step))
            assert members(ids.settled(until)) == twin.settled(until)
            agree(ids, twin)
    assert members(ids.settled(len(order))) == twin.settled(len(order))
    assert ids.gaps == []


@given(arrivals(), st.integers(0, 60))
@settings(max_examples=100, deadline=None)
def test_written_down_and_read_again_it_judges_the_same(order, place):
    ids, twin = IdRanges(), IdsTwin()
    for step, identity in enumerate(order):
        if step == place:
            ids = reread(ids)
        expected = twin.add(identity, time_of(identity), step)
        assert ids.add(identity, time_of(identity), step) == expected
        agree(ids, twin)


@given(st.lists(arrivals(), min_size=2, max_size=4))
@settings(max_examples=100, deadline=None)
def test_a_new_count_begins_where_the_twin_says(counts):
    """Each count starts below the one before and later than all of it."""
    ids, twin = IdRanges(), IdsTwin()
    late = 0
    for number, order in enumerate(counts):
        low = (len(counts) - number) * 1_000
        for offset in order:
            identity = low + offset % 1_000 % 50
            time = START + late + identity % 1_000
            expected = twin.add(identity, time, late)
            assert ids.add(identity, time, late) == expected
        assert ids.missing == twin.missed_before + len(twin.absent())
        assert ids.restarts == twin.restarts == number
        late += 10_000


@given(
    st.lists(
        st.tuples(st.integers(-3, 6), st.integers(1, 5), st.booleans()), min_size=1, max_size=15
    )
)
@settings(max_examples=150, deadline=None)
def test_runs_are_short_for_one_by_one(steps):
    fast, slow = IdRanges(), IdRanges()
    place = 100
    for step, length, shuffled in steps:
        run = list(range(place + step, place + step + length))
        run = run[::-1] if shuffled else run
        times = [time_of(one) for one in run]
        before = fast.to_json()
        if fast.add_run(run, times):
            assert all(slow.add(one, time_of(one), 0) == "new" for one in run)
        else:
            assert fast.to_json() == before, "refused, and changed all the same"
            for one in run:
                assert fast.add(one, time_of(one), 0) == slow.add(one, time_of(one), 0)
        assert fast.to_json() == slow.to_json()
        assert [fast.recent.time_of(one) for one in run] == times
        place = max(place, *run) + 1


@given(
    st.sets(st.integers(0, 60), min_size=1),
    st.integers(-5, 65),
    st.integers(0, 20),
)
@settings(max_examples=150, deadline=None)
def test_the_rest_of_a_hole_is_what_was_not_seen(seen, first, length):
    ids = IdRanges()
    for one in seen:
        ids.add(one, START + one, 0)
    gap = IdGap(first, first + length, 1, 2, 3)
    rest = ids.rest_of(gap)
    assert members(rest) == set(range(first, first + length + 1)) - seen
    assert all((part.from_time, part.to_time, part.seen) == (1, 2, 3) for part in rest)


def test_a_hole_knows_the_trades_beside_it():
    ids = IdRanges()
    ids.add(10, START, 1)
    ids.add(14, START + 500, 2)
    assert ids.settled(1) == []
    assert ids.settled(2) == [IdGap(11, 13, START, START + 500, 2)]
    assert ids.settled(2) == [], "told once"
    assert ids.missing == 3


def test_a_late_trade_shortens_its_hole_before_it_is_told():
    ids = IdRanges()
    for identity in (10, 20, 15):
        ids.add(identity, START + identity, identity)
    assert [(gap.first, gap.last) for gap in ids.settled(20)] == [(11, 14), (16, 19)]


def test_another_time_is_a_conflict_that_changes_nothing():
    ids = IdRanges()
    ids.add(1, START, 0)
    ids.add(2, START, 0)
    before = ids.to_json()
    assert ids.add(1, START + 1, 0) == "conflict"
    assert ids.add(2, START - 1, 0) == "conflict"
    assert ids.to_json() == before


@pytest.fixture
def short_memory(monkeypatch):
    monkeypatch.setattr(trades, "RECENT", 4)


def test_memory_is_bounded_and_keeps_the_newest(short_memory):
    recent = Recent()
    for one in range(50):
        recent.add((one,), (START + one,))
        assert recent.time_of(one) == START + one
        assert all(recent.time_of(one - back) == START + one - back for back in range(min(one, 4)))
        assert sum(recent.time_of(each) is not None for each in range(50)) <= 8
    assert recent.time_of(0) is None


def test_forgotten_trades_are_doubles_unless_they_are_later_than_all(short_memory):
    ids = IdRanges()
    for one in range(100):
        ids.add(one, START + one, 0)
    assert ids.recent.time_of(5) is None
    assert ids.add(5, START + 5, 0) == "duplicate"
    assert ids.add(5, START + 100, 0) == "restart"
    assert (ids.spans, ids.restarts, ids.missing) == ([[5, 5]], 1, 0)
    assert ids.add(6, START + 100, 0) == "new"


def test_trades_before_a_pause_that_come_again_are_no_new_count():
    ids = IdRanges()
    for one in range(50):
        ids.add(one, START + one, 0)
    later = reread(ids)
    assert [later.add(one, START + one, 9) for one in range(50)] == ["duplicate"] * 50
    assert later.add(50, START + 50, 9) == "new"
    assert later.add(0, START + 51, 9) == "restart"


def test_what_a_count_lost_stays_counted_after_it():
    ids = IdRanges()
    for one in (1_000, 1_005):
        ids.add(one, START + one, 0)
    assert ids.missing == 4
    assert ids.add(1, START + 2_000, 5) == "restart"
    assert (ids.missing, ids.missed_before) == (4, 4)
    ids.add(3, START + 2_001, 5)
    assert ids.missing == 5
    assert reread(ids).to_json() == ids.to_json()


def test_a_hole_that_a_new_count_overtakes_is_told_as_it_was():
    ids = IdRanges()
    for one in (1_000, 1_010, 1_005):
        ids.add(one, START + one, 1)
    ids.add(1, START + 2_000, 2)
    for one in range(2, 1_008):
        ids.add(one, START + 2_000 + one, 3)
    told = [(gap.first, gap.last) for gap in ids.settled(9)]
    assert told == [(1_001, 1_004), (1_006, 1_009)]
