"""Saved runs: once, found again, never quietly replaced."""

from __future__ import annotations

import dataclasses
import json
import math

import polars as pl
import pytest
from markets import recorded_walk

import fxlab
from fxlab import errors
from fxlab.schema import RUNS, UTC_MICROS


@pytest.fixture(scope="module")
def session(lab, unique):
    name = unique("runs")
    lab.import_frame(recorded_walk(3_000, symbol="BTC_USDT"), "prices", session_id=name)
    return lab.session(name)


@pytest.fixture
def result(session, unique):
    """Run a strategy; each test gets a fingerprint of its own."""
    made = fxlab.backtest(session, "sma_cross", {"fast": 5, "slow": 20})
    return dataclasses.replace(made, fingerprint=unique("print"))


def test_a_run_is_saved_with_all_its_fills(lab, session, result):
    assert result.save(lab) == result.run_id
    fills = lab.run_fills(result.run_id)
    assert result.fills.height > 10
    assert fills.height == result.fills.height
    assert fills["seq"].to_list() == list(range(fills.height))
    for name in ("timestamp", "decided_at", "symbol", "target", "price", "qty", "fee"):
        assert fills[name].to_list() == result.fills[name].to_list(), name
    assert fills.schema["timestamp"] == UTC_MICROS


def test_a_listed_run_says_what_was_done(lab, session, result):
    result.save(lab)
    row = lab.runs(limit=1_000).row(by_predicate=pl.col("run_id") == result.run_id, named=True)
    assert row["data_session_id"] == session.id
    assert row["strategy"] == "sma_cross"
    assert row["symbols"] == ["BTC_USDT"]
    assert json.loads(row["parameters"]) == result.parameters
    assert row["final_equity"] == result.metrics["final_equity"]
    assert row["total_return"] == result.metrics["total_return"]
    assert (row["rows_read"], row["fills_count"]) == (3_000, result.fills.height)
    assert row["fingerprint"] == result.fingerprint
    assert row["timestamp"] == result.created_at


def test_nan_is_null_and_not_zero(lab, result):
    result.save(lab)
    row = lab.runs(limit=1_000).row(by_predicate=pl.col("run_id") == result.run_id, named=True)
    stored = json.loads(row["metrics"])
    assert set(stored) == set(result.metrics)
    for name, value in result.metrics.items():
        assert stored[name] == (value if math.isfinite(value) else None), name


def test_the_same_run_again_is_the_run_that_is_there(lab, session, result):
    first = result.save(lab)
    again = fxlab.backtest(session, "sma_cross", {"fast": 5, "slow": 20})
    again = dataclasses.replace(again, fingerprint=result.fingerprint)
    before = lab.runs(limit=1_000)
    assert again.run_id != first
    assert again.save(lab) == first
    assert lab.runs(limit=1_000).equals(before)


def test_the_same_fingerprint_with_other_metrics_is_a_conflict(lab, session, result):
    first = result.save(lab)
    other = fxlab.backtest(session, "sma_cross", {"fast": 6, "slow": 20})
    other = dataclasses.replace(other, fingerprint=result.fingerprint)
    with pytest.raises(errors.RunConflict, match=rf"{first} has the same fingerprint"):
        other.save(lab)
    with pytest.raises(errors.RunNotFound):
        lab.run_fills(other.run_id)


def test_a_run_without_fills_is_saved(lab, session, unique):
    made = fxlab.backtest(session, "sma_cross", {"fast": 1_000, "slow": 2_999})
    made = dataclasses.replace(made, fingerprint=unique("print"))
    assert made.fills.is_empty()
    assert lab.run_fills(made.save(lab)).is_empty()


def test_an_unknown_run_names_near_ones(lab, result):
    result.save(lab)
    wrong = result.run_id.replace("_backtest", "_backtesr")
    with pytest.raises(errors.RunNotFound, match=rf"did you mean .*{result.run_id}.*lab\.runs"):
        lab.run_fills(wrong)


@pytest.mark.parametrize("bad", [-1, "10", 1.5, None])
def test_a_limit_is_a_number(lab, bad):
    with pytest.raises(errors.InvalidParameter, match="limit="):
        lab.runs(limit=bad)


def test_a_saved_run_is_an_object(lab, session, result):
    run = lab.run(result.save(lab))
    assert isinstance(run, fxlab.SavedRun)
    assert (run.run_id, run.data_session_id, run.strategy) == (
        result.run_id, session.id, "sma_cross",
    )  # fmt: skip
    assert (run.symbols, run.parameters) == (["BTC_USDT"], result.parameters)
    assert fxlab.Execution.from_dict(run.execution) == result.execution
    assert run.metrics["final_equity"] == result.metrics["final_equity"]
    assert run.timestamp == result.created_at
    assert run.fills().equals(lab.run_fills(run.run_id))
    assert run.reproduce().result.fills.height == run.fills_count
    assert f"<SavedRun {run.run_id}: sma_cross(fast=5, slow=20, allow_short=False)" in repr(run)
    assert run.fingerprint in run._repr_html_()
    with pytest.raises(dataclasses.FrozenInstanceError):
        run.strategy = "other"


def test_a_saved_run_is_the_mapping_that_it_was(lab, result):
    run = lab.run(result.save(lab))
    row = dict(run)
    assert set(row) == set(RUNS.columns) - {"deleted_at"}  # a run that is found is not deleted
    assert all(row[name] is getattr(run, name) for name in row)
    with pytest.raises(KeyError):
        run["_db"]
    assert fxlab.compare_runs([run, row]).differences.is_empty()


def test_the_old_way_to_save_says_the_new_one(lab, result):
    with pytest.warns(DeprecationWarning, match=r"result\.save\(lab\)"):
        assert lab.save_run(result) == result.run_id
    assert result.save(lab) == result.run_id
