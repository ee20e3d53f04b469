"""Spans of time against the plainest twin: a set of microseconds."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fxlab._ticks import Spans

pairs = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 40)), max_size=8)


def spans(given_pairs):
    starts = np.array([a for a, _ in given_pairs], dtype=np.int64)
    ends = np.array([b for _, b in given_pairs], dtype=np.int64)
    return Spans.of(starts, ends)


def moments(given_pairs):
    return {t for start, end in given_pairs for t in range(start, end)}


def covered(found):
    return {
        t for start, end in zip(found.starts, found.ends, strict=True) for t in range(start, end)
    }


@given(pairs)
def test_spans_are_sorted_apart_and_cover_what_was_given(some):
    found = spans(some)
    assert covered(found) == moments(some)
    assert found.total == len(moments(some))
    assert (found.ends > found.starts).all()
    assert (found.starts[1:] > found.ends[:-1]).all()  # touching ones were joined


@given(pairs, st.integers(-5, 45))
def test_before_counts_what_lies_before(some, time):
    assert spans(some).before(np.array([time]))[0] == sum(t < time for t in moments(some))


@given(pairs, pairs)
def test_overlap_and_union_are_those_of_sets(some, others):
    assert covered(spans(some).overlap(spans(others))) == moments(some) & moments(others)
    assert covered(spans(some).union(spans(others))) == moments(some) | moments(others)


@given(pairs, st.integers(0, 40), st.integers(0, 40))
def test_inside_and_within_cut_at_their_ends(some, first, last):
    first, last = sorted((first, last))
    expected = {t for t in moments(some) if first <= t < last}
    assert covered(spans(some).within(first, last)) == expected
    assert spans(some).inside(np.array([first]), np.array([last]))[0] == len(expected)
