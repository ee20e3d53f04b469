"""Bars against a plain twin, on any chunks."""

from __future__ import annotations

import random
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab import errors
from fxlab._ticks import INTERVALS, SCHEMA, bars, check_interval
from fxlab.schema import UTC_MICROS

SECONDS = {"s": 1, "m": 60, "h": 3_600, "d": 86_400}
NIGHT = datetime(2024, 8, 8, 23, 59, 50, tzinfo=UTC)


def ticks(rows, seed=1, step_ms=900):
    """Return ticks over midnight, many of which share their timestamp."""
    rng = random.Random(seed)
    moment, out = NIGHT, []
    for _ in range(rows):
        moment += timedelta(milliseconds=rng.choice([0, 0, 1, step_ms]))
        out.append((moment, round(100 + rng.gauss(0, 1), 2), rng.randint(1, 99) / 8, 2.0))
    schema = {"timestamp": UTC_MICROS, "price": pl.Float64, "volume": pl.Float64}
    return pl.DataFrame(out, schema={**schema, "quote_volume": pl.Float64}, orient="row")


def twin(frame, interval):
    """Return the bars, tick by tick."""
    width = int(interval[:-1]) * SECONDS[interval[-1]]
    found = {}
    for moment, price, volume, quote in frame.iter_rows():
        start = datetime.fromtimestamp(moment.timestamp() // width * width, UTC)
        bar = found.setdefault(start, [start, price, price, price, price, 0.0, 0.0, 0])
        bar[2] = max(bar[2], price)
        bar[3] = min(bar[3], price)
        bar[4] = price
        bar[5] += volume
        bar[6] += quote
        bar[7] += 1
    return [tuple(bar) for bar in found.values()]


@pytest.mark.parametrize("interval", INTERVALS)
def test_bars_are_those_of_the_twin(interval):
    frame = ticks(2_000)
    assert bars([frame], interval).rows() == twin(frame, interval)


@given(
    rows=st.integers(0, 120),
    cuts=st.lists(st.integers(1, 40), max_size=12),
    seed=st.integers(0, 9),
    interval=st.sampled_from(["1s", "5s", "1m", "1d"]),
)
def test_any_chunks_give_the_same_bars(rows, cuts, seed, interval):
    frame = ticks(rows, seed)
    chunks, start = [], 0
    for cut in [*cuts, rows]:
        chunks.append(frame.slice(start, cut))
        start += cut
    # Volumes are multiples of 1/8: their sums are exact, whatever the order.
    assert bars(chunks, interval).equals(bars([frame], interval))
    assert bars(chunks, interval).rows() == twin(frame, interval)


def test_no_ticks_are_no_bars():
    assert bars([], "1m").schema == SCHEMA
    assert bars([ticks(0)], "1m").equals(bars([], "1m"))


def test_what_is_not_known_stays_unknown():
    frame = ticks(10, step_ms=0).with_columns(quote_volume=pl.lit(None, pl.Float64))
    assert bars([frame], "1d")["quote_volume"].to_list() == [None]
    assert bars([frame.drop("volume")], "1d")["volume"].to_list() == [None]


@pytest.mark.parametrize("bad", ["1x", "7m", "", "1M", "m", "60", None, "1m; drop table x"])
def test_an_unknown_interval_is_refused_with_the_known_ones(bad):
    with pytest.raises(errors.InvalidParameter, match=r"not an interval.*choose one of: 1s, 5s"):
        check_interval(bad)
