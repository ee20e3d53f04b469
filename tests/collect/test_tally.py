"""What a receipt is made of, batch by batch."""

from __future__ import annotations

import json
import random

from hypothesis import given, settings
from hypothesis import strategies as st

from fxlab.collect._live.checksum import RowTally, checksum

rows = st.tuples(st.integers(0, 2**62), st.integers(0, 2**62), st.floats(0, 1e12))


@given(st.lists(st.lists(rows, min_size=1, max_size=6), min_size=1, max_size=8), st.randoms())
@settings(max_examples=100, deadline=None)
def test_batches_in_any_order_make_one_sum(batches, rng: random.Random):
    flat = [row for batch in batches for row in batch]
    rng.shuffle(flat)
    tally = RowTally()
    for batch in batches:
        times, seqs, prices = (list(column) for column in zip(*batch, strict=True))
        tally.add(times, seqs, [prices])
        tally = RowTally.from_json(json.loads(json.dumps(tally.to_json())))
    times, seqs, prices = (list(column) for column in zip(*flat, strict=True))
    assert tally == RowTally(
        len(flat), min(seqs), max(seqs), min(times), max(times), checksum([times, seqs, prices])
    )


def test_numbers_below_zero_are_smallest_too():
    tally = RowTally()
    tally.add([5], [-3], [])
    assert (tally.first_seq, tally.last_seq) == (-3, -3)
