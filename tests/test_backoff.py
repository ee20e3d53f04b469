"""Waits between attempts grow, are never the same for all, and have an end."""

from __future__ import annotations

import random

import pytest

from fxlab._network import wait_before, waits


def test_waits_double_up_to_the_longest_less_at_most_half():
    found = list(waits(12, 0.1, 5.0))
    for attempt, seconds in enumerate(found):
        whole = min(5.0, 0.1 * 2**attempt)
        assert whole / 2 <= seconds <= whole


def test_those_who_failed_together_come_back_apart():
    assert len({wait_before(3, 1.0, 60.0) for _ in range(100)}) > 90


@pytest.mark.parametrize("attempt", [0, 1_000, 10**9])
def test_an_outage_of_years_neither_overflows_nor_hammers(attempt: int):
    assert wait_before(attempt, 0.1, 10.0, random.Random(1)) <= 10.0


def test_no_attempts_are_no_waits():
    assert list(waits(0, 0.1, 1.0)) == []
