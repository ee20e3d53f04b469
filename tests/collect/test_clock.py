"""Arrival times that never go back, beside a wall clock that somebody sets."""

from __future__ import annotations

from fxlab.collect.feed import STEP_US, Clock


class Hands:
    """Two clocks that a test moves, in nanoseconds."""

    def __init__(self):
        self.wall = 1_700_000_000_000_000_000
        self.steady = 5_000

    def clock(self):
        """Return a clock that reads them."""
        return Clock(lambda: self.wall, lambda: self.steady)

    def wait(self, micros):
        """Let time pass."""
        self.wall += micros * 1_000
        self.steady += micros * 1_000


def test_time_passes_as_the_wall_clock_shows():
    hands = Hands()
    clock = hands.clock()
    assert clock.now() == 1_700_000_000_000_000
    hands.wait(1_234_567)
    assert clock.now() == 1_700_000_001_234_567
    assert clock.step() == 0


def test_setting_the_clock_moves_no_time_before_it_is_noticed():
    hands = Hands()
    clock = hands.clock()
    hands.wall -= 3_600 * 10**9
    hands.wait(1)
    assert clock.now() == 1_700_000_000_000_001
    assert clock.step() == -3_600_000_000
    assert clock.now() == 1_700_000_000_000_001 - 3_600_000_000
    assert clock.step() == 0, "told once"
    hands.wall += 10**9
    assert clock.step() == 1_000_000


def test_steering_is_followed_without_a_word():
    hands = Hands()
    clock = hands.clock()
    hands.wall += (STEP_US - 1) * 1_000
    assert clock.step() == 0
    assert clock.now() == 1_700_000_000_000_000 + STEP_US - 1
    hands.wall += STEP_US * 1_000
    assert clock.step() == STEP_US


def test_the_machine_s_own_clocks():
    clock = Clock()
    first = clock.now()
    assert clock.now() >= first
    assert clock.step() == 0
