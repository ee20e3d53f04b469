"""Windows to fit and to test on: they cover, they do not touch, and they say what cannot be."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab.backtester.metrics._validation import (
    MOST_FOLDS,
    Fold,
    SplitWindow,
    purged_kfold,
    walk_forward,
)
from fxlab.errors import InvalidParameter, InvalidTimeRange

DAY = 86_400_000_000
START = 1_700_000_000_000_000


def text(micros):
    """Return a duration as text that `parse_duration` reads back exactly."""
    return f"{micros}us"


def test_rolling_windows_by_hand():
    assert walk_forward(0, 10 * DAY, folds=3, train="4d") == [
        SplitWindow(0, 4 * DAY, 4 * DAY, 6 * DAY),
        SplitWindow(2 * DAY, 6 * DAY, 6 * DAY, 8 * DAY),
        SplitWindow(4 * DAY, 8 * DAY, 8 * DAY, 10 * DAY),
    ]


def test_anchored_windows_with_an_embargo_by_hand():
    found = walk_forward(0, 11 * DAY, folds=3, train="4d", mode="anchored", embargo="1d")
    assert found == [
        SplitWindow(0, 4 * DAY, 5 * DAY, 7 * DAY),
        SplitWindow(0, 6 * DAY, 7 * DAY, 9 * DAY),
        SplitWindow(0, 8 * DAY, 9 * DAY, 11 * DAY),
    ]


def test_the_newest_data_are_tested_when_the_tests_do_not_fill_the_range():
    # 10 days, 4 to train: two tests of 2.5 days fit, a day is left over at the start
    found = walk_forward(0, 10 * DAY, train="4d", test="2d12h")
    assert [(w.test_start, w.test_end) for w in found] == [
        (5 * DAY, 15 * DAY // 2),
        (15 * DAY // 2, 10 * DAY),
    ]
    assert found[0].train_start == DAY
    anchored = walk_forward(0, 10 * DAY, train="4d", test="2d12h", mode="anchored")
    assert [(w.train_start, w.train_end) for w in anchored] == [(0, 5 * DAY), (0, 15 * DAY // 2)]
    assert walk_forward(0, 10 * DAY, train="4d", test="2d12h", folds=1) == found[1:]


def test_a_range_that_fits_exactly_is_used_up():
    assert walk_forward(0, 4, folds=2, train="2us") == [
        SplitWindow(0, 2, 2, 3),
        SplitWindow(1, 3, 3, 4),
    ]
    assert walk_forward(0, 4, folds=1, train="2us", test="2us") == [SplitWindow(0, 2, 2, 4)]


walks = st.fixed_dictionaries(
    {
        "span": st.integers(200, 10_000),
        "train": st.integers(1, 80),
        "embargo": st.integers(0, 20),
        "folds": st.none() | st.integers(1, 9),
        "test": st.none() | st.integers(1, 11),
        "mode": st.sampled_from(["rolling", "anchored"]),
    }
).filter(lambda case: case["folds"] is not None or case["test"] is not None)


@given(walks)
def test_a_walk_forward_covers_and_never_looks_ahead(case):
    span, train, embargo = case["span"], case["train"], case["embargo"]
    found = walk_forward(
        START,
        START + span,
        train=text(train),
        folds=case["folds"],
        test=None if case["test"] is None else text(case["test"]),
        mode=case["mode"],
        embargo=text(embargo),
    )
    assert found[-1].test_end == START + span
    assert all(left.test_end == right.test_start for left, right in pairwise(found))
    for window in found:
        assert START <= window.train_start < window.train_end
        assert window.train_end + embargo == window.test_start < window.test_end
        length = window.train_end - window.train_start
        assert length == train if case["mode"] == "rolling" else length >= train
        assert case["mode"] == "rolling" or window.train_start == START
    lengths = {window.test_end - window.test_start for window in found}
    if case["test"] is None:
        assert len(found) == case["folds"]
        assert found[0].test_start == START + train + embargo
        assert max(lengths) - min(lengths) <= 1
    else:
        assert lengths == {case["test"]}
        left_over = found[0].test_start - (START + train + embargo)
        assert len(found) == case["folds"] or left_over < case["test"]  # as many as fit


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"train": "4d"}, "neither folds nor test is given"),
        ({"train": "4d", "folds": 0}, "folds=0 must be a whole number, 1 to 10,000"),
        ({"train": "4d", "folds": True}, "folds=True must be a whole number"),
        ({"train": "4d", "folds": 2.0}, r"folds=2.0 must be a whole number"),
        ({"train": "0s", "folds": 2}, "train='0s' is no time at all"),
        ({"train": "4d", "test": "0s"}, "test='0s' is no time at all"),
        ({"train": "4 days", "folds": 2}, "train='4 days' is not a duration"),
        ({"train": "4d", "folds": 2, "embargo": "x"}, "embargo='x' is not a duration"),
        ({"train": "10d", "folds": 2}, "do not fit into the 10 days, 0:00:00 from 1970-01-01"),
        ({"train": "11d", "test": "1d"}, "do not fit"),
        ({"train": "4d", "test": "7d"}, "do not fit"),
        ({"train": "4d", "test": "2d", "folds": 4}, "do not fit"),
        ({"train": "4d", "test": "1us"}, "gives 518,400,000,000 tests; the most is 10,000"),
        ({"train": "4d", "folds": 2, "mode": "rolled"}, "mode='rolled' is not known; did you mean"),
        ({"train": "4d", "folds": 2, "mode": 7}, "give 'rolling' or 'anchored'"),
    ],
)
def test_walks_that_cannot_be_are_refused(options, why):
    with pytest.raises(InvalidParameter, match=why):
        walk_forward(0, 10 * DAY, **options)


@pytest.mark.parametrize("end", [START, START - 1])
def test_an_empty_range_is_refused(end):
    with pytest.raises(InvalidTimeRange, match="nothing to split"):
        walk_forward(START, end, folds=2, train="1s")
    with pytest.raises(InvalidTimeRange, match="nothing to split"):
        purged_kfold(START, end, folds=2)


def test_purged_folds_by_hand():
    assert purged_kfold(0, 9 * DAY, folds=3, purge="6h", embargo="12h") == [
        Fold(0, 3 * DAY, ((15 * DAY // 4, 9 * DAY),)),
        Fold(3 * DAY, 6 * DAY, ((0, 11 * DAY // 4), (27 * DAY // 4, 9 * DAY))),
        Fold(6 * DAY, 9 * DAY, ((0, 23 * DAY // 4),)),
    ]


@given(st.integers(60, 500), st.integers(2, 7), st.integers(0, 8), st.integers(0, 8))
def test_purged_folds_cover_and_no_outcome_crosses(span, folds, purge, embargo):
    found = purged_kfold(START, START + span, folds=folds, purge=text(purge), embargo=text(embargo))
    tested = [time for fold in found for time in range(fold.test_start, fold.test_end)]
    assert tested == list(range(START, START + span))
    for fold in found:
        times = [time for first, last in fold.train for time in range(first, last)]
        kept = [
            time
            for time in range(START, START + span)
            # its outcome is known before the test, or it comes after the test's last outcome
            if time + purge < fold.test_start or time >= fold.test_end + purge + embargo
        ]
        assert times == kept


def test_without_purge_and_embargo_a_fold_is_the_rest():
    for fold in purged_kfold(0, 100, folds=7):
        inside = fold.test_end - fold.test_start
        assert sum(last - first for first, last in fold.train) + inside == 100


@pytest.mark.parametrize(
    ("options", "why"),
    [
        ({"folds": 1}, "folds=1 leaves nothing to train on; give two or more"),
        ({"folds": "3"}, "folds='3' must be a whole number"),
        ({"folds": MOST_FOLDS + 1}, "1 to 10,000"),
        ({"folds": 2, "purge": "5d"}, "leave nothing to train on in 10 days, 0:00:00"),
        ({"folds": 2, "purge": "2d", "embargo": "3d"}, "give a longer range, or a shorter purge"),
        ({"folds": 2, "purge": "-1d"}, "purge='-1d' is not a duration"),
        ({"folds": 2, "embargo": -1.0}, r"embargo=-1.0 is not a duration"),
    ],
)
def test_folds_that_cannot_be_are_refused(options, why):
    with pytest.raises(InvalidParameter, match=why):
        purged_kfold(0, 10 * DAY, **options)


def test_more_folds_than_microseconds_are_refused():
    with pytest.raises(InvalidParameter, match="leave nothing to train on"):
        purged_kfold(0, 3, folds=5)
