"""Merging by time, and the digest that chunking cannot change."""

from __future__ import annotations

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from fxlab.backtester.stream import Digest, Rows, merge


def stream(number, times, size):
    """Cut one leg's rows into chunks of `size`; the price is the row's number."""
    rows = Rows(
        np.array(times, np.int64),
        np.arange(len(times), dtype=float),
        np.full(len(times), np.nan),
        np.full(len(times), number),
    )
    return iter([rows.part(k, k + size) for k in range(0, len(times), size)])


sorted_times = st.lists(st.integers(0, 12), max_size=30).map(sorted)


@given(
    legs=st.lists(sorted_times, min_size=1, max_size=4),
    sizes=st.lists(st.integers(1, 7), min_size=4, max_size=4),
)
def test_merge_keeps_every_row_in_time_and_leg_order(legs, sizes):
    merged = list(
        merge(
            [
                stream(k, times, size)
                for k, (times, size) in enumerate(zip(legs, sizes, strict=False))
            ]
        )
    )
    got = [
        (t, leg, p)
        for part in merged
        for t, leg, p in zip(part.time, part.leg, part.price, strict=True)
    ]
    plain = sorted((t, k, float(i)) for k, times in enumerate(legs) for i, t in enumerate(times))
    assert got == plain


@given(st.lists(st.integers(0, 100), min_size=1, max_size=50), st.integers(1, 50))
def test_the_digest_does_not_see_chunks(values, size):
    whole, parts = Digest(), Digest()
    column = np.array(values)
    whole.update(column, column, column * 1.5)
    for start in range(0, len(values), size):
        part = column[start : start + size]
        parts.update(part, part, part * 1.5)
    assert parts.hexdigest() == whole.hexdigest()
    other = Digest()
    other.update(column, column, column * 1.5 + 1e-9)
    assert other.hexdigest() != whole.hexdigest()
