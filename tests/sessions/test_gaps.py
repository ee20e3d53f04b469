"""Holes of a recording as intervals that do not overlap."""

from __future__ import annotations

from itertools import pairwise

import polars as pl
from hypothesis import given
from hypothesis import strategies as st

from fxlab._ticks import GAPS, merged

spans = st.lists(st.tuples(st.integers(0, 40), st.integers(0, 6)), max_size=12)


@given(spans)
def test_the_same_moments_are_covered_once(found):
    frame = pl.DataFrame(
        {"from_time": [a for a, _ in found], "to_time": [a + n for a, n in found]},
        schema={"from_time": pl.Int64, "to_time": pl.Int64},
    ).with_columns(pl.all().cast(GAPS["from_time"]))
    rows = merged(frame).select(pl.all().to_physical()).rows()
    plain = {moment for a, n in found for moment in range(2 * a, 2 * (a + n) + 1)}
    assert {moment for a, b in rows for moment in range(2 * a, 2 * b + 1)} == plain
    assert all(before[1] < after[0] for before, after in pairwise(rows))


def test_ends_that_are_unknown_or_too_early_are_points():
    frame = pl.DataFrame({"from_time": [9, 5, None], "to_time": [None, 3, 4]}).cast(GAPS)
    assert merged(frame).select(pl.all().to_physical()).rows() == [(5, 5), (9, 9)]
