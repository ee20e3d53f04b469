"""Numbers, times, durations and JSON as users give them, read the same for all arguments.

A number is Python's or numpy's, but no True and no text; `np.int64(5)` is five everywhere, and what
is kept of it (in SQL, JSON, a fingerprint) is Python's own. Times and durations as people type them
become UTC microseconds: naive times mean UTC, ranges are half open (a tick at `start` is inside, a
tick at `end` is not).
"""

from __future__ import annotations

import json
import math
import re
from datetime import UTC, date, datetime, timedelta
from numbers import Real
from operator import index
from typing import Any, SupportsIndex, TypeVar

from fxlab.errors import InvalidParameter, InvalidTimeRange

Value = TypeVar("Value")


def integer(value: object, least: float = float("-inf"), most: float = float("inf")) -> int | None:
    """Return the integer that a value is, or None: for fractions, truth, text, and out of range."""
    if type(value) is int:  # most are: to ask the protocol costs twenty times as much
        return value if least <= value <= most else None
    if type(value) is float or isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        found = index(value)
    except TypeError:  # an array of several, numpy's True
        return None
    return found if least <= found <= most else None


def number(
    value: object, least: float = float("-inf"), most: float = float("inf")
) -> int | float | None:
    """Return the real number that a value is, or None: also for nan, and out of range."""
    if type(value) is float:
        return value if least <= value <= most else None
    found = integer(value)
    if found is None:
        if isinstance(value, bool) or not isinstance(value, Real):
            return None
        return float(value) if least <= float(value) <= most else None
    return found if least <= found <= most else None


def required(value: Value | None, rule: str) -> Value:
    """Return a value that was understood, or raise `InvalidParameter` with the rule it broke."""
    if value is None:
        raise InvalidParameter(rule)
    return value


def parse_json(text: str | bytes) -> Any:  # noqa: ANN401 - whatever a text holds
    """Return the values of a JSON text.

    Raises
    ------
    ValueError
        If it is none, a number of it is none that a float holds (NaN, 1e999), or a name is there
        twice, as `json.loads` takes all of them without a word.
    RecursionError
        If it is nested too deep.
    """

    def finite(word: str) -> float:
        found = float(word)
        if not math.isfinite(found):
            raise ValueError(f"{word:.80} is no JSON value; leave it out, or write a number")
        return found

    def unique(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
        made = dict(pairs)
        if len(made) < len(pairs):
            names = [name for name, _ in pairs]
            twice = next(name for name in names if names.count(name) > 1)
            raise ValueError(f"{twice!r:.80} is there twice; leave one out")
        return made

    return json.loads(text, parse_constant=finite, parse_float=finite, object_pairs_hook=unique)


Time = datetime | date | str
"""A point in time: a datetime (naive means UTC), a date, or ISO 8601 text."""

Duration = timedelta | str | float
"""A length of time: a timedelta, text as "50ms" or "1h30m", or seconds."""

EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
LONGEST = 100_000 * 86_400_000_000
"""µs; sums of a few such lengths and a time still fit into 64 bits."""

MICROSECOND = timedelta(microseconds=1)

_UNITS = {
    "us": 1,
    "ms": 1_000,
    "s": 1_000_000,
    "m": 60_000_000,
    "h": 3_600_000_000,
    "d": 86_400_000_000,
}
_PART = re.compile(r"(\d+(?:\.\d+)?)(us|ms|s|m|h|d)")


def to_micros(moment: datetime) -> int:
    """Return exact microseconds since 1970 (no float on the way); naive means UTC."""
    aware = moment if moment.tzinfo else moment.replace(tzinfo=UTC)
    return (aware - EPOCH) // MICROSECOND


def from_micros(micros: int) -> datetime:
    """Return the aware UTC datetime of microseconds since 1970."""
    return EPOCH + timedelta(microseconds=micros)


def bounds(first: datetime | None, last: datetime | None) -> tuple[int | None, int | None]:
    """Return the half-open range of microseconds from a first to a last row; None is open."""
    return (
        None if first is None else to_micros(first),
        None if last is None else to_micros(last) + 1,
    )


def parse_duration(value: Duration, name: str) -> int:
    """Return a duration in whole microseconds.

    Raises
    ------
    InvalidParameter
        If the value is not a duration or is negative; `name` stands in the message.
    """
    micros = _duration_micros(value)
    if micros is None or not 0 <= micros <= LONGEST:
        raise InvalidParameter(
            f"{name}={value!r:.80} is not a duration; give seconds, a timedelta, or text such as "
            "'50ms', '1.5s', '1h30m', of 100,000 days at most"
        )
    return micros


def _duration_micros(value: object) -> int | None:
    if isinstance(value, timedelta):
        return value // MICROSECOND
    if isinstance(value, str):
        text = value.strip().lower().replace(" ", "")
        parts = _PART.findall(text)
        if parts and "".join(number + unit for number, unit in parts) == text:
            return sum(round(float(number) * _UNITS[unit]) for number, unit in parts)
        return None
    seconds = number(value, -1e10, 1e10)
    return None if seconds is None else round(seconds * 1_000_000)


def parse_range(start: Time | None, end: Time | None) -> tuple[int | None, int | None]:
    """Return a half-open time range in microseconds; None means open.

    Raises
    ------
    InvalidTimeRange
        If a value is not a time, naive and aware times are mixed, or `end` is not after `start`.
    """
    first, last = _moment(start, "start"), _moment(end, "end")
    if first and last and (first.tzinfo is None) != (last.tzinfo is None):
        raise InvalidTimeRange(
            f"start={start!r} and end={end!r} mix a naive and an aware time; give both with a "
            "time zone, or both without (naive means UTC)"
        )
    low = None if first is None else to_micros(first)
    high = None if last is None else to_micros(last)
    if low is not None and high is not None and low >= high:
        raise InvalidTimeRange(
            f"start={start!r} is not before end={end!r}: the range selects nothing; "
            "ranges are half open, start <= t < end"
        )
    return low, high


def parse_time(value: Time, name: str) -> int:
    """Return a point in time in microseconds; naive means UTC.

    Raises
    ------
    InvalidTimeRange
        If the value is not a time; `name` stands in the message.
    """
    moment = _moment(value, name)
    if moment is None:
        raise InvalidTimeRange(f"{name} is missing; give a datetime or ISO text")
    return to_micros(moment)


def _moment(value: Time | None, name: str) -> datetime | None:
    if value is None or isinstance(value, datetime):
        return value
    if isinstance(value, date):
        return datetime(value.year, value.month, value.day)  # noqa: DTZ001 - naive means UTC here
    if isinstance(value, str):
        try:
            return datetime.fromisoformat(value.strip())
        except ValueError:
            pass
    raise InvalidTimeRange(
        f"{name}={value!r:.80} is not a time; give a datetime or ISO text such as "
        "'2024-08-08T23:54:15.342Z'"
    )
