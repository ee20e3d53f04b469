"""Sweeps: every point is the backtest it stands for, whatever runs it; errors are sentences."""

from __future__ import annotations

import math
import re
import threading

import polars as pl
import pytest
from markets import SMALL, random_walk
from sweep_strategies import moody, peeking

import fxlab
from fxlab import errors
from fxlab.backtester.metrics._performance import METRICS
from fxlab.sweeper import _threads

GRID = {"fast": [3, 5, 8], "slow": [5, 13, 21]}
TWO = pl.concat([random_walk(1_500, 1, symbol="AAA"), random_walk(900, 2, symbol="BBB")])


@pytest.fixture(scope="module")
def ticks():
    return random_walk(3_000)


@pytest.fixture(scope="module")
def swept(ticks):
    return fxlab.sweep(ticks, "sma_cross", GRID)


def same(one, two):
    """Whether two tables are the same bit by bit."""
    return one.equals(two, null_equal=True) and one.schema == two.schema


def around(values):
    """Return a small grid around some values; books here have one level."""
    steps = {int: 1, float: 0.25}
    return {
        name: value if name == "levels" or type(value) not in steps else [value, value + step]
        for name, value in values.items()
        for step in [steps.get(type(value))]
    }


@pytest.mark.parametrize("name", [*SMALL, "two_symbols"])
def test_every_point_is_its_backtest_bit_by_bit(name, ticks):
    source, strategy = (TWO, "sma_cross") if name == "two_symbols" else (ticks, name)
    axes = around(SMALL[strategy]) or {"exposure": [1.0, 0.5]}
    execution = fxlab.Execution(taker_bps=2.0, slippage_bps=0.5, latency="30ms")
    found = fxlab.sweep(
        source, strategy, axes, execution=execution, capital=5_000.0, return_interval="30s"
    )
    done = found.table.filter(pl.col("state") == "done")
    assert done.height == found.table.height >= 2
    assert done["fills_count"].sum() > 0
    for row in done.iter_rows(named=True):
        values = found.points[row["point"]].values
        alone = fxlab.backtest(
            source, strategy, values, execution=execution, capital=5_000.0, return_interval="30s"
        )
        assert row["fingerprint"] == alone.fingerprint
        for metric in METRICS:
            value = alone.metrics[metric]
            assert row[metric] == (None if math.isnan(value) else value), metric


@pytest.mark.parametrize("workers", [1, 2, 3])
@pytest.mark.parametrize("chunk_rows", [97, 1_000, None])
def test_neither_threads_nor_chunks_change_a_bit(ticks, swept, workers, chunk_rows):
    again = fxlab.sweep(ticks, "sma_cross", GRID, workers=workers, chunk_rows=chunk_rows)
    assert same(again.table, swept.table)


def test_chunks_of_two_symbols_change_no_bit():
    whole, cut = (fxlab.sweep(TWO, "sma_cross", GRID, chunk_rows=rows) for rows in (None, 111))
    assert same(whole.table, cut.table)


def test_points_that_outgrow_their_memory_wait_for_the_next_read(monkeypatch, ticks, swept):
    monkeypatch.setattr(_threads, "TRIALS_BYTES", 10_000)
    again = fxlab.sweep(ticks, "sma_cross", GRID, chunk_rows=200)
    assert same(again.table, swept.table)


def test_points_that_read_other_columns_keep_their_own_fingerprint(ticks):
    def by_column(*, column: str = "price", level: float = 1.0) -> fxlab.Signals:
        return fxlab.Signals(target=pl.when(pl.col(column) > level).then(1.0), lookback=0)

    found = fxlab.sweep(ticks, by_column, {"column": ["price", "volume"], "level": [0.5, 0.9]})
    for row in found.table.iter_rows(named=True):
        alone = fxlab.backtest(ticks, by_column, found.points[row["point"]].values)
        assert row["fingerprint"] == alone.fingerprint


def test_a_combination_that_the_strategy_refuses_is_skipped(swept):
    skipped = swept.table.filter(pl.col("state") == "skipped")
    assert skipped.select("fast", "slow").rows() == [(5, 5), (8, 5)]
    assert "fast=5 must be below slow=5" in skipped["error"][0]
    assert skipped["final_equity"].null_count() == 2
    assert swept.table["state"].to_list().count("done") == 7
    assert "7 done, 2 skipped" in repr(swept)


@pytest.mark.parametrize(
    ("mood", "words"),
    [
        ("early", "ZeroDivisionError: in the strategy"),
        ("late", "is NaN"),
        ("column", "'no_such_column'"),
    ],
)
def test_a_point_that_raises_fails_alone(ticks, mood, words):
    found = fxlab.sweep(ticks, moody, {"level": [1, 2], "mood": ["calm", mood]})
    states = dict(zip(found.table["mood"], found.table["state"], strict=True))
    assert states == {"calm": "done", mood: "failed"}
    assert found.failed.height == 2
    assert all(words in error for error in found.failed["error"])
    assert found.failed["error"][0] in repr(found)
    calm = fxlab.sweep(ticks, moody, {"level": [1, 2]})
    done = found.table.filter(pl.col("state") == "done")
    assert done["fingerprint"].to_list() == calm.table["fingerprint"].to_list()


@pytest.mark.parametrize(
    ("parameters", "words"),
    [
        ({"fats": [1, 2]}, r"no parameter 'fats'; did you mean 'fast'"),
        ({"fast": []}, r"fast=\[\] has no values; give at least one"),
        ({"fast": [3, 4.5]}, r"fast=4.5 is not an int"),
        ({"fast": [3, "4"]}, r"fast='4' is not an int"),
        ({"fast": [True]}, r"fast=True is not an int"),
        ({"fast": range(10)}, r"fast=0 is out of range"),
        ({"fast": {"a": 1}}, r"fast=\{'a': 1\} is neither a value nor values"),
        ({}, r"is not a grid; give values to try by name"),
        ([("fast", 3)], r"is not a grid"),
        ({"fast": [50, 60], "slow": [10, 20]}, r"fast=50 must be below slow=10"),
    ],
)
def test_a_grid_that_is_none_is_one_sentence(ticks, parameters, words):
    with pytest.raises(errors.InvalidParameter, match=words) as caught:
        fxlab.sweep(ticks, "sma_cross", parameters)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"metric": "sharp"}, "did you mean 'sharpe'"),
        ({"metric": "trades_count"}, "describes a run"),
        ({"search": "randon", "points": 3}, "did you mean 'random'"),
        ({"search": "random"}, "points=None is not a number of points"),
        ({"search": "random", "points": 10**9}, "takes 1 to 100,000"),
        ({"points": 5}, "points=5 goes with search='random'"),
        ({"workers": 0}, "workers=0 is not a number of workers"),
        ({"symbols": "XXX"}, "XXX"),
        ({"capital": -1.0}, "capital"),
    ],
)
def test_options_are_checked_before_anything_runs(ticks, options, words):
    error = (errors.InvalidParameter, errors.SymbolNotFound)
    with pytest.raises(error, match=re.escape(words)):
        fxlab.sweep(ticks, "sma_cross", GRID, **options)


def test_sessions_are_checked(ticks):
    with pytest.raises(errors.InvalidParameter, match="no session to sweep over"):
        fxlab.sweep([], "sma_cross", GRID)
    with pytest.raises(errors.InvalidParameter, match="is given 2 times"):
        fxlab.sweep([ticks, ticks.clone()], "sma_cross", GRID)
    with pytest.raises(errors.InvalidParameter, match="session_id is required"):
        fxlab.sweep("exec_1", "sma_cross", GRID)
    with pytest.raises(errors.EmptySession):
        fxlab.sweep(ticks, "sma_cross", GRID, end="2025-01-01T00:00:00.000001Z")


def test_a_huge_grid_is_refused_with_its_size_and_time(ticks):
    huge = {"fast": range(1, 1_001), "slow": range(1, 10_001)}
    with pytest.raises(errors.InvalidParameter) as caught:
        fxlab.sweep(ticks, "sma_cross", huge, workers=2)
    assert re.search(
        r"10,000,000 points \(1,000 fast x 10,000 slow\), about \d[\d,]* (s|min|h|days) on 2 "
        r"cores; use search='random', points=500, or give points_limit=10000000",
        str(caught.value),
    )
    with pytest.raises(errors.InvalidParameter, match="9 points"):
        fxlab.sweep(ticks, "sma_cross", GRID, points_limit=8)
    assert fxlab.sweep(ticks, "sma_cross", GRID, points_limit=9).table.height == 9


def test_progress_rises_to_one_and_says_what_is_left(ticks):
    heard = []
    fxlab.sweep(ticks, "sma_cross", GRID, progress=lambda *said: heard.append(said))
    shares = [share for share, _ in heard]
    assert shares[0] == 0.0
    assert shares[-1] == 1.0
    assert all(0.0 <= share <= 1.0 for share in shares)
    assert heard[-1][1] == "9 of 9 points"
    assert any(re.search(r"of 9 points, \d+ s left", words) for _, words in heard)


@pytest.mark.parametrize("stop", [KeyboardInterrupt, errors.Cancelled])
def test_a_stopped_sweep_hands_over_what_is_done(ticks, swept, stop):
    def progress(share, words):
        if 0.1 < share < 1.0 and not words.startswith("0 "):
            raise stop

    with pytest.raises(errors.SweepCancelled, match=r"stopped after \d+ of 9 points") as caught:
        fxlab.sweep(ticks, "sma_cross", GRID, workers=1, progress=progress)
    part = caught.value.sweep
    assert 0 < part.table.height < 9
    assert same(part.table, swept.table.head(part.table.height))
    assert "not done" in repr(part)


@pytest.mark.parametrize("workers", [1, 2])
def test_a_sweep_stops_while_a_point_is_at_work(ticks, workers):
    begun, may_end, ended = threading.Event(), threading.Event(), []
    before = set(threading.enumerate())  # a server's reaper, among others, outlives this test

    @fxlab.strategy
    def endless(ticks: pl.DataFrame, *, number: int = 0) -> pl.DataFrame:
        """Work until it may end."""
        begun.set()
        may_end.wait(60)
        ended.append(number)
        return ticks.select(target=pl.lit(0.0))

    def progress(share, words):
        if begun.is_set():
            raise errors.Cancelled

    grid = {"number": list(range(12))}
    with pytest.raises(errors.SweepCancelled, match="stopped after 0 of 12 points"):
        fxlab.sweep(ticks, endless, grid, workers=workers, progress=progress, check_lookahead=False)
    assert ended == []  # it did not wait for the points at work
    may_end.set()
    for thread in set(threading.enumerate()) - before:
        thread.join(60)
    assert len(ended) <= workers  # and no other point was begun


def test_it_works_in_a_thread(ticks, swept):
    found = []
    runner = threading.Thread(target=lambda: found.append(fxlab.sweep(ticks, "sma_cross", GRID)))
    runner.start()
    runner.join()
    assert same(found[0].table, swept.table)


def test_a_strategy_that_sees_the_future_is_refused(ticks):
    with pytest.raises(errors.LookaheadFound, match=r"peeking.*check_lookahead=False"):
        fxlab.sweep(ticks, peeking, {"rows": [1, 2]})
    assert fxlab.sweep(ticks, peeking, {"rows": [1, 2]}, check_lookahead=False).table.height == 2


def test_a_parameter_named_like_a_figure_has_its_own_column(ticks):
    found = fxlab.sweep(ticks, "buy_and_hold", {"exposure": [0.25, 0.5]})
    assert found.table["parameter_exposure"].to_list() == [0.25, 0.5]
    assert found.table["exposure"].min() > 0.99


def test_values_may_be_ranges_arrays_or_one(ticks):
    import numpy as np

    forms = (
        {"fast": range(3, 6), "slow": 20},
        {"fast": np.array([3, 4, 5]), "slow": [20]},
        {"fast": pl.Series([3, 4, 5, 5]), "slow": np.int64(20)},
    )
    tables = [fxlab.sweep(ticks, "sma_cross", form).table for form in forms]
    assert same(tables[0], tables[1])
    assert same(tables[0], tables[2])
    assert tables[0]["fast"].to_list() == [3, 4, 5]
    assert tables[0]["slow"].to_list() == [20] * 3
