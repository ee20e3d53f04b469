"""Times and durations as people type them, exact to the microsecond."""

from __future__ import annotations

from datetime import UTC, date, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab import errors
from fxlab._times import from_micros, parse_duration, parse_range, to_micros


@given(st.integers(-(10**15), 10**16))
def test_micros_and_datetimes_turn_into_each_other_exactly(micros):
    assert to_micros(from_micros(micros)) == micros


def test_naive_means_utc_and_aware_is_converted():
    naive = datetime(2024, 8, 8, 23, 54, 15, 342_001)  # noqa: DTZ001 - the point of the test
    ahead = naive.replace(tzinfo=timezone(timedelta(hours=2)))
    assert to_micros(naive) == 1_723_161_255_342_001
    assert to_micros(ahead) == to_micros(naive) - 7_200_000_000


@pytest.mark.parametrize(
    ("value", "micros"),
    [
        ("1us", 1),
        ("50ms", 50_000),
        (" 1.5 S ", 1_500_000),
        ("1h30m", 5_400_000_000),
        ("2d", 172_800_000_000),
        (0, 0),
        (0.000001, 1),
        (timedelta(milliseconds=3), 3_000),
    ],
)
def test_durations(value, micros):
    assert parse_duration(value, "latency") == micros


@pytest.mark.parametrize("value", ["", "5", "ms", "5 years", "1s1", -1, "-1s", True, None, 1e12])
def test_what_is_no_duration_is_refused_by_name(value):
    with pytest.raises(errors.InvalidParameter, match="latency="):
        parse_duration(value, "latency")


def test_ranges_take_text_dates_and_datetimes():
    start = to_micros(datetime(2024, 8, 8, tzinfo=UTC))
    assert parse_range("2024-08-08", date(2024, 8, 9)) == (start, start + 86_400_000_000)
    assert parse_range("2024-08-08T02:00:00.000001+02:00", None) == (start + 1, None)
    assert parse_range(None, None) == (None, None)


@pytest.mark.parametrize(
    ("start", "end", "words"),
    [
        ("2024-08-08", "2024-08-08", "selects nothing"),
        ("2024-08-09", "2024-08-08", "selects nothing"),
        ("2024-08-08T00:00Z", "2024-08-09", "mix a naive and an aware"),
        ("noon", None, "start='noon' is not a time"),
        (None, 17, "end=17 is not a time"),
        ("2024-08-08'; drop table x", None, "is not a time"),
    ],
)
def test_bad_ranges_say_what_is_wrong(start, end, words):
    with pytest.raises(errors.InvalidTimeRange, match=words):
        parse_range(start, end)
