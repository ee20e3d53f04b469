"""Waits between attempts grow, are never the same for all, and have an end."""

from __future__ import annotations

import asyncio
import random
import sqlite3
from itertools import pairwise
from types import SimpleNamespace

import pytest

from fxlab import errors
from fxlab._network import wait_before, waits
from fxlab.collect._live import loop


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


@pytest.mark.parametrize("succeeds", [True, False])
def test_a_journal_that_cannot_be_written_is_tried_after_growing_pauses(monkeypatch, succeeds):
    now, pauses = [0.0], []

    async def sleep(seconds):
        pauses.append(seconds)
        now[0] += seconds

    async def save(_):
        if not succeeds or len(pauses) < 4:
            raise sqlite3.OperationalError("database or disk is full")

    monkeypatch.setattr(loop.time, "monotonic", lambda: now[0])
    monkeypatch.setattr(loop.asyncio, "sleep", sleep)
    recording = SimpleNamespace(
        _in_thread=save,
        _recorder=SimpleNamespace(save=None),
        _journal=SimpleNamespace(path="here"),
        _plan=SimpleNamespace(session_id="night"),
    )
    trying = loop.RecordingLoop._journal_again(recording, sqlite3.OperationalError("full"))
    if succeeds:
        asyncio.run(trying)
        assert len(pauses) == 4
    else:
        with pytest.raises(errors.CollectionFailed, match=r"here cannot be written .*is full"):
            asyncio.run(trying)
        assert sum(pauses[:-1]) < loop.FULL_DISK_SECONDS <= sum(pauses)
        assert pauses[-1] > 4 * pauses[0]
    assert all(later > earlier for earlier, later in pairwise(pauses[::2][:3]))
