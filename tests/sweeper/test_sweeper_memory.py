"""Sessions larger than memory stream through: what is kept does not grow with ticks or points."""

from __future__ import annotations

import gc
import weakref

import polars as pl
import pytest
from markets import random_walk

import fxlab
from fxlab.backtester._frame_source import FrameSource
from fxlab.sweeper import _study
from fxlab.sweeper._threads import ahead

GRID = {"fast": [3, 5, 8], "slow": [13, 21]}
ROWS = 500


class Tape:
    """A source that makes its chunks anew for each scan and counts those that are alive."""

    def __init__(self, frame: pl.DataFrame) -> None:
        self._source = FrameSource(frame, id="tape")
        self.alive = 0
        self.most = 0
        self.scans = 0

    def __getattr__(self, name):
        return getattr(self._source, name)

    def scan_ticks(self, symbol, **options):
        """Yield the frame's chunks as frames that nobody else holds."""
        self.scans += 1
        for chunk in self._source.scan_ticks(symbol, **{"chunk_rows": ROWS, **options}):
            fresh = pl.DataFrame({name: chunk[name].to_list() for name in chunk.columns})
            fresh = fresh.cast(dict(chunk.schema))
            self.alive += 1
            weakref.finalize(fresh, self._gone)
            gc.collect()
            self.most = max(self.most, self.alive)
            yield fresh

    def _gone(self):
        self.alive -= 1


@pytest.fixture(scope="module")
def frame():
    gc.freeze()  # each chunk of a tape collects garbage: only its own
    return random_walk(20_000)


def test_what_fits_is_read_once(frame):
    tape = Tape(frame)
    fxlab.sweep(tape, "sma_cross", GRID, chunk_rows=ROWS, check_lookahead=False)
    assert tape.scans == 1


def test_what_does_not_fit_is_streamed(frame, monkeypatch):
    whole = fxlab.sweep(Tape(frame), "sma_cross", GRID)
    monkeypatch.setattr(_study, "KEEP_BYTES", 0)
    tape = Tape(frame)
    found = fxlab.sweep(tape, "sma_cross", GRID, chunk_rows=ROWS, check_lookahead=False)
    assert tape.most <= 6  # of 40: the one at hand, those on their way, what is looked back on
    assert tape.scans <= 3
    assert found.table["fingerprint"].to_list() == whole.table["fingerprint"].to_list()
    assert found.table["final_equity"].to_list() == whole.table["final_equity"].to_list()


def test_ahead_makes_one_more_than_is_used():
    made = []

    def items():
        for number in range(5):
            made.append(number)
            yield number

    seen = []
    for item in ahead(items(), lambda: None):
        seen.append(item)
        assert len(made) <= item + 2
    assert seen == list(range(5))


def test_ahead_hands_on_what_is_raised():
    def items():
        yield 1
        raise ValueError("broken")

    with pytest.raises(ValueError, match="broken"):
        list(ahead(items(), lambda: None))


def test_a_held_session_gives_the_same_rows(frame):
    keep = _study.CachedSource(FrameSource(frame))
    symbol = keep.symbols[0]
    first = pl.concat(keep.scan_ticks(symbol, chunk_rows=333))
    assert keep.is_quick
    again = pl.concat(keep.scan_ticks(symbol, chunk_rows=777))
    assert again.equals(first)
    start, end = frame["timestamp"][100], frame["timestamp"][900]
    part = pl.concat(keep.scan_ticks(symbol, start=start, end=end))
    assert part.equals(pl.concat(FrameSource(frame).scan_ticks(symbol, start=start, end=end)))


def test_a_scan_that_is_left_early_keeps_nothing(frame):
    keep = _study.CachedSource(FrameSource(frame))
    next(keep.scan_ticks(keep.symbols[0], chunk_rows=10))
    assert not keep.is_quick
    assert keep.count_ticks(keep.symbols[0]) == frame.height
