"""Market time against a wall clock that the tests move by hand."""

from __future__ import annotations

import asyncio
import math
import threading

import numpy as np
import pytest
from fake_clock import FakeClock
from hypothesis import given
from hypothesis import strategies as st

from fxlab.errors import InvalidParameter
from fxlab.replayer._cursor import FOREVER, ReplayClock, WallClock, check_speed

START = 1_735_689_600_000_000
SLACK = 0.1

speeds = st.floats(0.01, 10_000.0)
moments = st.floats(0.0, 5_000.0)


def paced(speed: float = 1.0) -> tuple[ReplayClock, FakeClock]:
    clock = FakeClock()
    pace = ReplayClock(speed, clock, SLACK)
    pace.jump(START)
    return pace, clock


@given(speeds, moments)
def test_market_time_is_wall_time_times_speed(speed, seconds):
    pace, clock = paced(speed)
    clock.time += seconds
    assert pace.now() == pytest.approx(START + seconds * speed * 1e6, abs=2)


@given(speeds, st.integers(0, 10**12))
def test_after_the_wait_it_is_due(speed, ahead):
    pace, clock = paced(speed)
    clock.time += pace.seconds_until(START + ahead)
    assert pace.now() == pytest.approx(START + ahead, abs=2 + speed)  # a float's last place
    assert abs(pace.seconds_until(START + ahead)) < 1e-6


@given(st.lists(st.tuples(speeds, st.floats(0.0, 100.0)), min_size=1, max_size=30))
def test_changes_of_speed_lose_and_invent_no_time(stretches):
    pace, clock = paced()
    wanted = float(START)
    for speed, seconds in stretches:
        pace.speed = speed
        assert pace.speed == speed
        clock.time += seconds
        wanted += seconds * speed * 1e6
        pace.reached(pace.now())  # this reader keeps up
    assert pace.now() == pytest.approx(wanted, abs=2 * len(stretches) + 1e-9 * wanted)


def test_a_pause_stands_still_and_goes_on_from_there():
    pace, clock = paced(10.0)
    clock.time += 2
    pace.reached(pace.now())
    pace.pause()
    clock.time += 1_000
    assert pace.paused
    assert pace.now() == START + 20_000_000
    assert pace.seconds_until(START + 20_000_000) == 0
    assert math.isinf(pace.seconds_until(START + 20_000_001))
    pace.speed = 3.0  # heard while it stands
    assert pace.now() == START + 20_000_000
    pace.resume()
    clock.time += 1
    assert pace.now() == START + 23_000_000


def test_a_reader_is_told_how_far_it_is_behind():
    pace, clock = paced(10.0)
    clock.time += 2
    assert pace.behind(START + 15_000_000) == pytest.approx(0.5)
    assert pace.behind(START + 25_000_000) == 0
    pace.pause()
    assert pace.behind(START) == 0


@pytest.mark.parametrize("change", ["speed", "pause"])
def test_a_change_forgives_what_a_slow_reader_is_behind(change):
    pace, clock = paced(10.0)
    pace.reached(START + 5_000_000)
    clock.time += 60
    if change == "speed":
        pace.speed = 1.0
    else:
        pace.pause()
    assert pace.now() == START + 5_000_000 + SLACK * 10 * 1e6


def test_without_waiting_everything_is_due_and_a_speed_holds_from_what_was_reached():
    pace, clock = paced(math.inf)
    assert pace.now() == FOREVER
    assert pace.seconds_until(START + 10**12) <= 0
    assert pace.behind(START) == 0
    pace.reached(START + 7_000_000)
    pace.speed = 2.0
    assert pace.now() == START + 7_000_000
    clock.time += 1
    assert pace.now() == START + 9_000_000
    pace.speed = math.inf
    assert pace.now() == FOREVER
    pace.pause()
    assert pace.now() < FOREVER


@pytest.mark.parametrize("speed", [1e20, 1e308])
def test_a_speed_without_sense_is_no_more_than_without_waiting(speed):
    pace, clock = paced(speed)
    clock.time += 100
    assert pace.now() == FOREVER


@pytest.mark.parametrize("speed", [0, -1, math.nan, "fast", None, True, -math.inf])
def test_what_is_no_speed_is_refused_in_words(speed):
    pace, _ = paced(5.0)
    with pytest.raises(InvalidParameter, match="is not a speed; give market seconds a second"):
        pace.speed = speed
    assert pace.speed == 5.0


def test_numbers_of_all_kinds_are_speeds():
    assert [check_speed(speed) for speed in (1, 0.5, np.int64(7), np.float32(0.25))] == [
        1.0, 0.5, 7.0, 0.25,
    ]  # fmt: skip


def test_the_wall_clock_moves_and_is_woken():
    clock = WallClock()
    woken = threading.Event()
    before = clock.now()
    clock.wait(1e-4, woken)
    asyncio.run(clock.sleep(1e-4, woken))
    assert clock.now() > before
    woken.set()
    asyncio.run(clock.sleep(1e9, woken))  # else this test would not end
