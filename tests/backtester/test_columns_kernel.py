"""Compiled passes over columns: against plain arithmetic, and the same bits as plain Python."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from fxlab.backtester._kernel import columns as kernel
from fxlab.backtester._kernel.records import DECISION, FILL, ORDER, TRADE

whole = st.lists(st.integers(-50, 50), min_size=1, max_size=60)


def test_first_bad_row_finds_each_kind_of_bad_row():
    time, seq = np.array([1, 1, 2]), np.array([1, 2, 1])
    good = np.array([1.0, 2.0, 3.0])
    assert kernel.first_bad_row(time, seq, good, 0, 0) == -1
    assert kernel.first_bad_row(time, np.array([1, 1, 1]), good, 0, 0) == 1
    assert kernel.first_bad_row(np.array([1, 2, 1]), seq, good, 0, 0) == 2
    for bad in (np.nan, np.inf, -1.0, 0.0):
        assert kernel.first_bad_row(time, seq, np.array([1.0, bad, 1.0]), 0, 0) == 1
    assert kernel.first_bad_row(time, seq, good, 5, 0) == 0


@settings(max_examples=100, deadline=None)
@given(values=whole, window=st.integers(1, 70))
def test_the_largest_of_a_window_is_the_largest(values, window):
    array = np.array(values)
    found = np.empty(len(array), np.int64)
    kernel.rolling_largest(array, window, np.empty(len(array), np.int64), found)
    plain = [max(values[max(0, i - window + 1) : i + 1]) for i in range(len(values))]
    assert found[window - 1 :].tolist() == plain[window - 1 :]


@settings(max_examples=100, deadline=None)
@given(
    values=st.lists(st.sampled_from([0.0, 1.0, -1.0, 0.5]), max_size=40),
    changes_only=st.booleans(),
)
def test_news_are_the_changes(values, changes_only):
    rows = np.arange(0, 3 * len(values), 3)
    chosen, decisions = np.empty(len(values), np.int64), np.empty(len(values), DECISION)
    targets = np.array(values)
    count, bad = kernel.changed_targets(rows, 2, targets, 1.0, changes_only, chosen, decisions)
    before = [None, *values]
    plain = [i for i, value in enumerate(values) if not changes_only or value != before[i]]
    assert (chosen[:count].tolist(), bad) == (plain, -1)
    news = decisions[:count]
    assert news["row"].tolist() == [3 * i - 2 for i in plain]
    assert news["target"].tolist() == [values[i] for i in plain]
    for name in ("stop_loss", "take_profit", "trailing_stop", "limit"):
        assert np.isnan(news[name]).all()


@pytest.mark.parametrize("bad", [np.nan, 1.5, -1.5, np.inf])
def test_news_stop_at_the_first_target_that_is_none(bad):
    targets = np.array([0.5, 0.25, bad, np.nan])
    room = np.empty(4, np.int64), np.empty(4, DECISION)
    assert kernel.changed_targets(np.arange(4), 0, targets, 1.0, True, *room) == (2, 2)


def test_bars_begin_at_multiples_also_before_1970():
    time = np.array([-11, -10, -1, 0, 9, 35])
    starts = np.empty(6, np.int64)
    assert kernel.bar_starts(time, 10, starts) == 4
    assert starts[:4].tolist() == [0, 1, 3, 5]


def test_sums_leave_out_what_is_not_known():
    totals = np.empty(3)
    values = np.array([1.0, np.nan, 4.0, np.nan, 2.0])
    kernel.sums(values, np.full(5, 2.0), np.array([0, 3, 4]), totals)
    assert totals[[0, 2]].tolist() == [10.0, 4.0]
    assert np.isnan(totals[1])


def test_prices_that_are_no_ticks_are_told():
    ticks = np.empty(3, np.int64)
    assert kernel.fit_ticks(np.array([1.25, np.nan, 3.0]), 100.0, 4e-16, 1e14, ticks)
    assert ticks.tolist() == [125, 0, 300]
    assert not kernel.fit_ticks(np.array([1.25, 1.255, 3.0]), 100.0, 4e-16, 1e14, ticks)
    assert not kernel.fit_ticks(np.array([1e13]), 100.0, 4e-16, 1e14, ticks[:1])


def both_ways(*names):
    """Return the functions of these names compiled, and as plain Python."""
    compiled = [getattr(kernel, name) for name in names]
    return compiled, [function.py_func for function in compiled]


def test_compiled_and_plain_python_give_the_same_bits():
    rng = np.random.default_rng(3)
    rows = 400
    ticks = 10_000 + np.cumsum(rng.integers(-3, 4, rows))
    price, volume = ticks / 100, rng.random(rows)
    time = np.cumsum(rng.integers(0, 9, rows))
    calls = {
        "exponential_means": lambda out: (price, 0.1, out),
        "anchored_means": lambda out: (time, price, volume, 100, out),
        "sums": lambda out: (price, volume, np.arange(0, rows, 7), out),
        "to_ticks": lambda out: (price, 100.0, out.view(np.int64)),
        "rolling_largest": lambda out: (ticks, 30, np.empty(rows, np.int64), out.view(np.int64)),
        "bar_starts": lambda out: (time, 25, out.view(np.int64)),
    }
    for name, arguments in calls.items():
        (function,), (plain_function,) = both_ways(name)
        compiled, plain = np.zeros(rows), np.zeros(rows)
        assert function(*arguments(compiled)) == plain_function(*arguments(plain)), name
        assert compiled.tobytes() == plain.tobytes(), name


def test_compiled_and_plain_python_find_the_same_breaks():
    rng = np.random.default_rng(4)
    ticks = 10_000 + np.cumsum(rng.integers(-3, 4, 1_000))
    found = []
    for back, breaks in both_ways("ways_back", "channel_breaks"):
        above, below = np.empty((2, 1_000), np.int32)
        back(ticks, above, below)
        most = [np.maximum.reduceat(each, np.arange(0, 1_000, 64)) for each in (above, below)]
        rows, up = np.zeros(1_000, np.int64), np.zeros(1_000, np.bool_)
        count = breaks(above, below, *most, 20, 10, 70, rows, up)
        found.append((above.tolist(), below.tolist(), count, rows.tolist(), up.tolist()))
    assert found[0] == found[1]
    assert found[0][2] > 100


def test_compiled_and_plain_python_find_the_same_deviations():
    rng = np.random.default_rng(6)
    ticks = 10_000 + np.cumsum(rng.integers(-3, 4, 1_000))
    sums = np.concatenate([[0], np.cumsum(ticks)])
    for name, arguments in (
        ("deviations", (ticks, sums, 9, 0.9995, 1.0005, 70)),
        ("deviations", (ticks, sums[:0], 9, 0.9995, 1.0005, 70)),
        ("exponential_crosses", (ticks * 0.01, 0.4, 0.1, 70)),
    ):
        found = []
        for (function,) in both_ways(name):
            kind = np.int8 if name == "deviations" else np.bool_
            rows, kinds = np.zeros(1_000, np.int64), np.zeros(1_000, kind)
            count = function(*arguments, rows, kinds)
            found.append((count, rows.tolist(), kinds.tolist()))
        assert found[0] == found[1]
        assert found[0][0] > 50


def test_compiled_and_plain_python_condense_the_same():
    rng = np.random.default_rng(5)
    given = [np.zeros(40, kind) for kind in (ORDER, FILL, TRADE)]
    for records in given:
        for name, (kind, _) in records.dtype.fields.items():
            values = rng.integers(-1, 3, 40) if kind == np.int64 else rng.normal(size=40)
            records[name] = values
    given[0]["qty"][:7] = 0.0
    found = []
    for (function,) in both_ways("condense"):
        columns = [np.zeros(40) for _ in range(6)]
        columns[2] = np.zeros(40, np.bool_)
        counts = function(*given, *columns)
        found.append((counts, [column.tobytes() for column in columns]))
    assert found[0] == found[1]
    assert found[0][0][0] == 7
    assert 0 < found[0][0][1] < 40


def test_compiled_and_plain_python_find_the_same_crosses():
    rng = np.random.default_rng(4)
    ticks = 10_000 + np.cumsum(rng.integers(-3, 4, 3_000))
    found = []
    for sums_of, function in both_ways("running_sums", "mean_crosses"):
        rows, up = np.zeros(3_000, np.int64), np.zeros(3_000, np.bool_)
        sums = np.empty(3_001, np.int64)
        sums_of(ticks, sums)
        room = np.empty(65, np.int8), np.empty(64, np.int8)
        count = function(sums, 5, 20, 700, *room, rows, up)
        found.append((count, rows.tolist(), up.tolist()))
    assert found[0] == found[1]
    assert found[0][0] > 100
