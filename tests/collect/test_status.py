"""Numbers about a running recording."""

from __future__ import annotations

import pytest
from status_cases import BUSY, SILENT, status

from fxlab.collect.status import SHORTEST_SECONDS, WINDOW_SECONDS, Rate


def test_a_rate_is_known_only_after_a_while():
    rate = Rate()
    assert rate.value is None
    rate.mark(10.0, 0)
    assert rate.value is None
    rate.mark(10.0 + SHORTEST_SECONDS / 2, 100)
    assert rate.value is None
    rate.mark(11.0, 100)
    assert rate.value == pytest.approx(100.0)


def test_a_rate_is_of_the_last_seconds_only():
    rate = Rate()
    for second in range(100):
        rate.mark(float(second), 10 * min(second, 50))
        assert len(rate._marks) <= WINDOW_SECONDS + 1
    assert rate.value == 0.0


def test_sums_are_those_of_the_symbols():
    now = status()
    assert (now.trades, now.books, now.gaps) == (BUSY.trades, BUSY.books, BUSY.gaps)
    assert BUSY.spread == pytest.approx(0.11)
    assert SILENT.spread is None


@pytest.mark.parametrize(
    ("state", "over"),
    [("collecting", False), ("outage", False), ("stopping", False), ("completed", True),
     ("aborted", True), ("failed", True)],
)  # fmt: skip
def test_what_is_over(state, over):
    assert status(state).is_over is over
