"""Walk forward: chosen on the past only, traded on what follows, one account."""

from __future__ import annotations

import polars as pl
import pytest
from markets import random_walk

import fxlab
from fxlab import errors
from fxlab._times import from_micros

GRID = {"fast": [3, 5, 8], "slow": [13, 21]}


@pytest.fixture(scope="module")
def ticks():
    return random_walk(6_000)


@pytest.fixture(scope="module")
def walk(ticks):
    return fxlab.walk_forward(
        ticks, "sma_cross", GRID, train="5m", test="3m", return_interval="10s"
    )


def test_positions_left_open_at_the_seams_are_told(ticks):
    closing = fxlab.Execution(close_at_end=True)
    for execution in (fxlab.Execution(), closing):
        walk = fxlab.walk_forward(
            ticks, "buy_and_hold", {"exposure": [1.0]}, train="5m", test="3m", execution=execution
        )
        seams = len(walk.results) - 1
        opened = 0 if execution is closing else 1
        assert seams >= 2
        assert walk.table["open_at_end"].to_list() == [opened] * (seams + 1)
        assert walk.summary.columns[-1] == "open_at_end"
        assert walk.open_at_seams == opened * seams
        words = f"{seams} positions were open at the {seams} seams between tests and left without"
        assert (words in str(walk)) == (words in walk._repr_html_()) == bool(opened)


def test_a_walk_trades_no_point_that_was_ruined_in_training():
    # The price doubles and more in every training: a short of all capital is ruined each time.
    ticks = (
        random_walk(3_000)
        .with_row_index()
        .with_columns(price=(100 * 1.002 ** pl.col("index")).round(4))
    )
    walk = fxlab.walk_forward(
        ticks.drop("index"),
        "buy_and_hold",
        {"exposure": [-1.0]},
        train="4m",
        test="2m",
        metric="total_return",
        check_lookahead=False,
    )
    assert walk.results == []
    assert set(walk.table["reason"]) == {"every point was ruined in training"}


def micros(moment):
    return round(moment.timestamp() * 1_000_000)


def test_each_window_is_a_sweep_and_then_a_backtest(ticks, walk):
    assert walk.table.height == len(walk.results) >= 3
    equity = 10_000.0
    for row, result in zip(walk.table.iter_rows(named=True), walk.results, strict=True):
        swept = fxlab.sweep(
            ticks,
            "sma_cross",
            GRID,
            return_interval="10s",
            start=row["train_start"],
            end=row["train_end"],
            capital=equity,
        )
        best = swept.best
        assert {name: row[name] for name in best} == best == result.parameters
        assert row["train_sharpe_per_period"] == swept.ranking()["sharpe_per_period"][0]
        alone = fxlab.backtest(
            ticks,
            "sma_cross",
            best,
            return_interval="10s",
            start=row["test_start"],
            end=row["test_end"],
            capital=equity,
        )
        assert result.fingerprint == alone.fingerprint
        assert row["test_total_return"] == alone.metrics["total_return"]
        equity = alone.metrics["final_equity"]
    assert walk.total_return == equity / 10_000.0 - 1.0


def test_no_training_reaches_into_its_test(walk):
    table = walk.table
    assert (table["train_end"] <= table["test_start"]).all()
    assert table["test_start"][1:].to_list() == table["test_end"][:-1].to_list()


def test_what_comes_later_changes_no_earlier_window(ticks, walk):
    last = walk.table["test_start"][-1]
    later = pl.when(pl.col("timestamp") >= last).then(300.0 - pl.col("price")).otherwise("price")
    other = fxlab.walk_forward(
        ticks.with_columns(price=later),
        "sma_cross",
        GRID,
        train="5m",
        test="3m",
        return_interval="10s",
    )
    assert other.table.head(-1).equals(walk.table.head(-1), null_equal=True)
    chosen = ["fast", "slow", "train_sharpe_per_period"]
    assert other.table.select(chosen).equals(walk.table.select(chosen))
    changed = other.table["test_total_return"][-1], walk.table["test_total_return"][-1]
    assert changed[0] != changed[1]


def test_the_equity_of_all_tests_is_one_curve(walk):
    equity = walk.equity
    assert equity["timestamp"].is_sorted()
    assert equity["equity"][0] == 10_000.0
    assert equity["equity"][-1] == walk.results[-1].metrics["final_equity"]
    assert walk.max_drawdown == equity["drawdown"].min() < 0
    assert f"{walk.total_return:+.2%}" in str(walk)
    assert "<table" in walk._repr_html_()


def test_it_is_drawn(walk):
    assert len(walk.plot().data) >= 3
    assert len(walk.plot("total_return").data) >= 3


def test_anchored_trainings_begin_at_the_start(ticks):
    walk = fxlab.walk_forward(
        ticks,
        "sma_cross",
        GRID,
        train="5m",
        folds=2,
        mode="anchored",
        embargo="30s",
        return_interval="10s",
    )
    assert walk.table["train_start"].n_unique() == 1
    gaps = walk.table["test_start"] - walk.table["train_end"]
    assert {gap.total_seconds() for gap in gaps} == {30.0}


def test_windows_without_ticks_say_so(ticks):
    hole = ticks.filter(
        (ticks["timestamp"] < ticks["timestamp"][1_500])
        | (ticks["timestamp"] > ticks["timestamp"][4_500])
    )
    walk = fxlab.walk_forward(hole, "sma_cross", GRID, train="2m", test="2m", return_interval="10s")
    assert walk.table["reason"].drop_nulls().len() > 0
    assert len(walk.results) == walk.table["reason"].null_count() < walk.table.height
    assert "has no ticks" in "".join(walk.table["reason"].drop_nulls())


def test_a_sweep_walks_its_own_grid(ticks, walk):
    swept = fxlab.sweep(ticks, "sma_cross", GRID, return_interval="10s")
    again = swept.walk_forward(train="5m", test="3m")
    assert again.table.equals(walk.table, null_equal=True)
    both = fxlab.sweep([ticks, random_walk(500, 3)], "sma_cross", GRID)
    with pytest.raises(
        errors.InvalidParameter,
        match="session=None is none of this sweep's sessions; give one of frame_",
    ):
        both.walk_forward(train="1m", folds=2)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"train": "10d", "folds": 3}, "do not fit"),
        ({"train": "1m"}, "neither folds nor test"),
        ({"train": "1m", "folds": 2, "mode": "rollin"}, "did you mean 'rolling'"),
        ({"train": "1m", "folds": 2, "metric": "sharp"}, "did you mean 'sharpe'"),
    ],
)
def test_windows_that_cannot_be_are_one_sentence(ticks, options, words):
    with pytest.raises(errors.InvalidParameter, match=words):
        fxlab.walk_forward(ticks, "sma_cross", GRID, **options)


def test_one_session_at_a_time(ticks):
    with pytest.raises(errors.InvalidParameter, match="over one session, not over 2"):
        fxlab.walk_forward([ticks, ticks], "sma_cross", GRID, train="1m", folds=2)


def test_a_session_is_read_once(lab, unique, monkeypatch):
    from fxlab.sessions import _reader

    name = unique("walk")
    walk = random_walk(3_000, symbol="BTC_USDT").drop("bid_qty_1", "ask_qty_1")
    lab.import_frame(walk, "prices", session_id=name)
    reads = []
    plain = _reader.scan
    monkeypatch.setattr(_reader, "scan", lambda *a, **k: reads.append(a) or plain(*a, **k))
    found = fxlab.walk_forward(
        lab.session(name), "sma_cross", GRID, train="2m", test="2m", return_interval="10s", lab=lab
    )
    assert found.table.height >= 2
    assert len(reads) == 1
    assert from_micros(micros(found.table["test_end"][-1])) > lab.session(name).ended
