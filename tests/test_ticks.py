"""Frames as sources of ticks: their checks, their decimals, their order."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markets import random_walk

from fxlab import errors
from fxlab.backtester.engine import backtest
from fxlab.backtester.ticks import FrameSource, find_decimals, with_price_ticks


@given(st.lists(st.integers(1, 10**9), min_size=1, max_size=50), st.integers(0, 8))
def test_decimals_write_every_price_exactly(whole, decimals):
    prices = pl.Series(np.array(whole) / 10.0**decimals)
    found = find_decimals(prices)
    assert found is not None
    assert found <= decimals
    ticks = with_price_ticks(pl.DataFrame({"price": prices}), found)["price_ticks"]
    assert (ticks.to_numpy() / 10.0**found == prices.to_numpy()).all()


def test_decimals_look_beyond_the_first_rows():
    prices = pl.Series([1.0] * 5_000 + [1.25])
    assert find_decimals(prices) == 2


def test_prices_on_no_grid_have_no_decimals():
    assert find_decimals(pl.Series(np.random.default_rng(1).normal(100, 1, 50))) is None
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


def test_symbols_keep_their_order_of_appearance():
    both = pl.concat([random_walk(5, symbol="Z"), random_walk(5, symbol="A")])
    assert FrameSource(both).symbols == ("Z", "A")
    assert FrameSource(random_walk(5)).symbols == ("TICKS",)


def test_an_empty_frame_is_an_empty_session():
    with pytest.raises(errors.EmptySession, match="no ticks"):
        backtest(random_walk(5).clear(), "buy_and_hold")
