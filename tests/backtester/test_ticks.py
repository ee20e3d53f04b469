"""Rows as the engine takes them: their order, their prices, where they come from."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest
from markets import START, random_walk

import fxlab
from fxlab import errors
from fxlab.backtester._source import as_source
from fxlab.backtester.engine import backtest


def test_prices_on_no_grid_still_run_where_no_ticks_are_needed():
    frame = random_walk(50).with_columns(pl.col("price") * np.pi)
    assert backtest(frame, "buy_and_hold").fills.height == 1
    with pytest.raises(errors.InvalidParameter, match="no decimal grid"):
        backtest(frame, "sma_cross", {"fast": 2, "slow": 3})


def test_a_unit_of_price_changes_no_figure():
    """From 4 decimals to 22: what counts is how many units of the last one there are."""
    units = [12_345 + (k * 7) % 23 - (k * 5) % 17 for k in range(400)]
    times = pl.Series([START + k for k in range(400)]).cast(pl.Datetime("us", "UTC"))
    returns = set()
    for decimals in (4, 8, 12, 13, 18, 22):
        prices = [float(f"{unit}e-{decimals}") for unit in units]
        run = backtest(
            pl.DataFrame({"timestamp": times, "price": prices}), "sma_cross", {"fast": 2, "slow": 5}
        )
        assert run.metrics["fills_count"] > 50
        returns.add((run.metrics["fills_count"], round(run.metrics["total_return"], 12)))
    assert len(returns) == 1


@pytest.mark.parametrize(
    ("prices", "capital", "words"),
    [
        ([1e-300, 2e-300], 1e10, "price 1e-300 in row 0 is not from 1e-100 to 1e"),
        ([1.0, 1e300], 1e4, "price 1e[+]300 in row 1"),
        ([1.0, 1.0], 1e300, "capital=1e[+]300"),
        ([1.0, 1.0], 1e-300, "capital=1e-300"),
    ],
)
def test_money_that_floats_cannot_hold_is_refused(prices, capital, words):
    times = pl.Series([START + k for k in range(2)]).cast(pl.Datetime("us", "UTC"))
    frame = pl.DataFrame({"timestamp": times, "price": prices})
    with pytest.raises((errors.InvalidTicks, errors.InvalidParameter), match=words):
        backtest(frame, "buy_and_hold", capital=capital)


def test_money_that_grows_beyond_floats_is_refused():
    """Bought at almost nothing and sold at almost everything, again and again."""
    times = pl.Series([START + k for k in range(12)]).cast(pl.Datetime("us", "UTC"))
    frame = pl.DataFrame(
        {"timestamp": times, "price": [1e-100, 1e-100, 1e100] * 4, "want": [1.0, 0.0, None] * 4}
    )

    def wanted() -> fxlab.Signals:
        return fxlab.Signals(target=pl.col("want"), lookback=0)

    for chunk_rows in (None, 1):
        with pytest.raises(errors.InvalidParameter, match="left the range of floats"):
            backtest(frame, wanted, chunk_rows=chunk_rows)


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
        (
            lambda f: f.with_columns(
                pl.col("timestamp").dt.cast_time_unit("ns")
                + pl.duration(nanoseconds=pl.col("seq"), time_unit="ns")
            ),
            r"nanoseconds \(1 beside whole microseconds in row 1\).*dt\.round\('1us'\)",
        ),
        (
            lambda f: f.with_columns(
                timestamp=pl.when(pl.col("seq") != 7).then(pl.col("timestamp"))
            ),
            "timestamp of the frame is null in row 7",
        ),
        (lambda f: f.with_columns(pl.col("price").cast(pl.String)), "price .* is String, not a n"),
        (lambda f: f.with_columns(price=pl.lit(value=True)), "price .* is Boolean, not a number"),
        (lambda f: f.with_columns(pl.col("price").cast(pl.Float32)), "Float32, which holds about"),
        (lambda f: f.with_columns(pl.col("seq").cast(pl.String)), "seq .* is String, not an int"),
        (lambda f: f.with_columns(pl.col("seq") + 0.5), "seq .* is Float64, not an integer"),
        (
            lambda f: f.with_columns(seq=pl.when(pl.col("seq") != 3).then(pl.col("seq"))),
            "seq of the frame is null in row 3",
        ),
        (
            lambda f: f.with_columns(seq=pl.col("seq").cast(pl.UInt64) + 2**63),
            "seq .* is 9223372036854775808 in row 0",
        ),
        (
            lambda f: f.with_columns(symbol=pl.when(pl.col("seq") != 4).then(pl.lit("A"))),
            "symbol of the frame is null in row 4",
        ),
        (lambda f: f.with_columns(symbol=pl.col("seq")), "symbol .* is Int64, not text"),
        (
            lambda f: f.with_columns(volume=pl.when(pl.col("seq") != 5).then(1.0).otherwise(-2.0)),
            r"volume of the frame is -2\.0 in row 5",
        ),
        (lambda f: f.with_columns(volume=pl.lit("1")), "volume .* is String, not a number"),
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


FRAMES = {
    "lazy": lambda f: f.lazy(),
    "pandas": lambda f: f.to_pandas(),
    "pandas with nanoseconds": lambda f: f.to_pandas().astype({"timestamp": "datetime64[ns, UTC]"}),
    "arrow": lambda f: f.to_arrow(),
    "decimal": lambda f: f.with_columns(pl.col("price").cast(pl.Decimal(18, 8))),
    "nanoseconds": lambda f: f.with_columns(pl.col("timestamp").dt.cast_time_unit("ns")),
    "small seq": lambda f: f.with_columns(pl.col("seq").cast(pl.UInt16)),
}


@pytest.mark.parametrize("kind", FRAMES)
def test_frames_of_other_libraries_are_the_same_ticks(kind):
    frame = random_walk(500)
    given = FRAMES[kind](frame)
    plain, other = (backtest(one, "sma_cross", {"fast": 3, "slow": 8}) for one in (frame, given))
    assert other.fingerprint == plain.fingerprint
    assert other.fills.equals(plain.fills)
    grid = {"fast": [3], "slow": [8]}
    swept = fxlab.sweep(given, "sma_cross", grid, symbols="TICKS")
    assert (
        swept.table["fingerprint"].to_list()
        == fxlab.sweep(frame, "sma_cross", grid).table["fingerprint"].to_list()
    )
    assert fxlab.check_lookahead(given, "sma_cross", {"fast": 3, "slow": 8}).rows == 500


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"days_per_year": 0}, "days_per_year=0 is not a number of days above 0"),
        ({"days_per_year": -1.0}, "days_per_year=-1.0"),
        ({"days_per_year": float("nan")}, "days_per_year=nan"),
        ({"days_per_year": True}, "days_per_year=True"),
        ({"days_per_year": "260"}, "days_per_year='260'"),
        (
            {"return_interval": "1000000000d"},
            "return_interval='1000000000d' is not a duration.*100,000 days",
        ),
        ({"return_interval": True}, "return_interval=True is not a duration"),
        ({"chunk_rows": 1.5}, "chunk_rows=1.5 is not a number of rows"),
        ({"chunk_rows": 0}, "chunk_rows=0 is not a number of rows"),
        ({"chunk_rows": True}, "chunk_rows=True is not a number of rows"),
        ({"symbols": None}, "symbols=None names no symbol"),
        ({"symbols": []}, "symbols=.* names no symbol"),
        ({"symbols": 7}, "symbols=7 names no symbol"),
        ({"capital": True}, "capital=True is not a number"),
    ],
)
def test_options_that_are_none_are_refused_everywhere(options, words):
    frame = random_walk(50)
    with pytest.raises(errors.InvalidParameter, match=words):
        backtest(frame, "buy_and_hold", **options)
    with pytest.raises(errors.InvalidParameter, match=words):
        fxlab.sweep(frame, "buy_and_hold", {"exposure": [1.0]}, **options)
    with pytest.raises(errors.InvalidParameter, match=words):
        fxlab.cost_ladder(frame, "buy_and_hold", **options)


@pytest.mark.parametrize("parameters", [[1], "fast=3", 7])
def test_parameters_without_names_are_refused(parameters):
    with pytest.raises(errors.InvalidParameter, match=r"are not named; give a dict, such as {'fa"):
        backtest(random_walk(50), "sma_cross", parameters)


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
