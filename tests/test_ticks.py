"""Rows as the engine takes them: their order, their prices, where they come from."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from markets import random_walk

from fxlab import errors
from fxlab.backtester.engine import backtest
from fxlab.backtester.ticks import as_source


def test_prices_on_no_grid_still_run_where_no_ticks_are_needed():
    frame = random_walk(50).with_columns(pl.col("price") * np.pi)
    assert backtest(frame, "buy_and_hold").fills.height == 1
    with pytest.raises(errors.InvalidParameter, match="no decimal grid"):
        backtest(frame, "sma_cross", {"fast": 2, "slow": 3})


def test_a_frame_without_seq_keeps_its_row_order():
    frame = random_walk(200)
    with_seq = backtest(frame, "sma_cross", {"fast": 3, "slow": 9})
    without = backtest(frame.drop("seq"), "sma_cross", {"fast": 3, "slow": 9})
    assert without.fills.equals(with_seq.fills)


def test_naive_and_milliseconds_times_are_utc_microseconds():
    frame = random_walk(100).with_columns(pl.col("timestamp").dt.truncate("1ms"))
    naive = frame.with_columns(pl.col("timestamp").dt.replace_time_zone(None))
    coarse = naive.with_columns(pl.col("timestamp").dt.cast_time_unit("ms"))
    runs = [backtest(f, "buy_and_hold") for f in (frame, naive, coarse)]
    assert len({run.fingerprint for run in runs}) == 1


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop("price"), "no column 'price'"),
        (lambda f: f.with_columns(pl.col("timestamp").to_physical()), "not a Datetime"),
        (lambda f: f.with_columns(pl.col("timestamp").dt.cast_time_unit("ns")), "nanoseconds"),
        (lambda f: f.reverse(), "sort the frame by timestamp, seq"),
        (lambda f: pl.concat([f, f.tail(1)]), r"row 50 .*seq may not repeat"),
        (lambda f: f.with_columns(pl.lit(-1.0).alias("price")), "above zero"),
        (lambda f: f.with_columns(pl.lit(float("nan")).alias("price")), "finite"),
        (
            lambda f: f.with_columns(
                pl.when(pl.col("seq") == 9).then(None).otherwise(pl.col("price")).alias("price")
            ),
            "row 9",
        ),
    ],
)
def test_frames_that_are_no_ticks_are_refused(change, words):
    with pytest.raises(errors.InvalidTicks, match=words):
        backtest(change(random_walk(50)), "buy_and_hold")


def test_disorder_across_chunks_is_found():
    frame = pl.concat([random_walk(50).tail(25), random_walk(50).head(25)])
    with pytest.raises(errors.InvalidTicks, match="row 25"):
        backtest(frame, "buy_and_hold", chunk_rows=25)


def test_an_empty_frame_is_an_empty_session():
    with pytest.raises(errors.EmptySession, match="no ticks"):
        backtest(random_walk(5).clear(), "buy_and_hold")


@pytest.mark.parametrize("foreign", [None, "session_20251027_123456", 7, {"price": [1.0]}])
def test_what_is_no_source_is_refused_with_the_next_step(foreign):
    with pytest.raises(errors.InvalidParameter, match=r"session_id is required.*lab\.sessions"):
        as_source(foreign)
