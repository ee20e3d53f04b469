"""Numbers about a running recording."""

from __future__ import annotations

import pytest
from status_cases import BUSY, SILENT, status
from twin_recorder import MemoryJournal, ReadableEncoder

from fxlab.collect._config import Plan
from fxlab.collect._live.checksum import RowTally
from fxlab.collect._live.recorder import Recorder
from fxlab.collect.collector import StatusMonitor
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


class CountedTallies(dict):
    """Tallies that know how often all of them were gone through."""

    passes = 0

    def copy(self):  # noqa: D102
        self.passes += 1
        return super().copy()


def test_many_symbols_are_counted_in_one_pass():
    names = [f"S{number}_USDT" for number in range(50)]
    recorder = Recorder(
        MemoryJournal(), ReadableEncoder(), "one", names, counts_trades=True, book_depth=10
    )
    recorder.tallies = CountedTallies(
        {
            (name, what, origin): RowTally(rows=rows)
            for name in names
            for what, origin, rows in (
                ("prices", "live", 3), ("prices", "backfill", 2), ("orderbook", "live", 4),
            )
        }
    )  # fmt: skip
    recorder.events.gaps = {1: names[0], 2: names[0], 3: names[1]}
    recorder.events.resynced[names[1]] = 4
    monitor = StatusMonitor(Plan.of("private", names, session_id="one"), "private")
    monitor._recorder = recorder
    now = monitor.look()
    assert {(one.trades, one.backfilled, one.books) for one in now.symbols} == {(5, 2, 4)}
    assert [one.gaps for one in now.symbols[:3]] == [2, 1, 0]
    assert [one.gaps_resynced for one in now.symbols[:3]] == [0, 4, 0]
    assert recorder.tallies.passes == 1


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
