"""Sampling keeps every spike; gaps are what an eye would call a hole."""

from __future__ import annotations

from itertools import pairwise

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab.charts._style import gap_starts, min_max_rows, rows_to_draw, slot_edges

finite = st.floats(-1e12, 1e12)


def plain_min_max(values, limit):
    """Return the same rows with loops only."""
    if len(values) <= limit:
        return list(range(len(values)))
    runs = (limit - 2) // 2
    length = (len(values) + runs - 1) // runs
    chosen = {0, len(values) - 1}
    for start in range(0, len(values), length):
        run = range(start, min(start + length, len(values)))
        chosen.add(min(run, key=lambda row: (values[row], row)))
        chosen.add(max(run, key=lambda row: (values[row], -row)))
    return sorted(chosen)


@given(st.lists(finite, max_size=300), st.integers(4, 60))
def test_rows_equal_the_plain_twin(values, limit):
    rows = min_max_rows(np.array(values, dtype=float), limit)
    assert rows.tolist() == plain_min_max(values, limit)


@given(st.lists(finite, min_size=1, max_size=300), st.integers(4, 60))
def test_ends_and_extremes_stay_and_the_limit_holds(values, limit):
    array = np.array(values)
    drawn = array[min_max_rows(array, limit)]
    assert len(drawn) <= max(limit, 0)
    assert (drawn[0], drawn[-1]) == (values[0], values[-1])
    assert (drawn.min(), drawn.max()) == (array.min(), array.max())


def test_one_spike_among_millions_is_drawn():
    values = np.zeros(2_000_000)
    values[1_234_567] = 1.0
    assert 1_234_567 in min_max_rows(values, 500)


def test_a_limit_too_small_for_the_extremes_is_refused():
    with pytest.raises(ValueError, match="four or more"):
        min_max_rows(np.zeros(10), 3)


rising = st.lists(st.integers(0, 1_000), min_size=1, max_size=200).map(sorted)


@given(rising, st.integers(1, 20))
def test_slots_give_their_first_and_last_rows(times, slots):
    array = np.array(times, dtype=float)
    rows = slot_edges(array, slots)
    assert len(rows) <= 2 * slots
    assert {0, len(times) - 1} <= set(rows.tolist())
    width = (times[-1] - times[0]) / slots
    for before, after in pairwise(rows):
        if times[after] - times[before] > width * (1 + 1e-9):
            assert after == before + 1  # a long step is between neighbours: a real silence


@given(rising, st.integers(8, 60), st.data())
def test_rows_to_draw_hold_the_limit_the_ends_and_the_extremes(times, limit, data):
    size = len(times)
    values = np.array(data.draw(st.lists(finite, min_size=size, max_size=size)))
    rows = rows_to_draw(np.array(times, dtype=float), values, limit)
    assert len(rows) <= limit
    assert np.all(np.diff(rows) > 0)
    assert {0, size - 1} <= set(rows.tolist())
    assert (values[rows].min(), values[rows].max()) == (values.min(), values.max())


def test_nothing_has_no_slots():
    assert slot_edges(np.empty(0), 5).size == 0


def test_an_even_grid_has_no_gap():
    assert gap_starts(np.arange(1_000.0)).size == 0


def test_a_night_is_a_gap():
    times = np.concatenate((np.arange(1_000.0), 50_000 + np.arange(1_000.0)))
    assert gap_starts(times).tolist() == [999]


def test_bursts_are_not_holes():
    """Half a second of quiet is a thousand medians here, and under a percent of the picture."""
    bursts = np.repeat(np.arange(0, 500.0, 0.5), 20) + np.tile(np.arange(20) * 0.0005, 1_000)
    assert gap_starts(bursts).size == 0


@pytest.mark.parametrize("times", [[], [1.0], [1.0, 1.0, 1.0]])
def test_too_few_steps_have_no_gap(times):
    assert gap_starts(np.array(times)).size == 0
