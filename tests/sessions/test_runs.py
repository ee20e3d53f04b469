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
from fxlab.schema import UTC_MICROS


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
    lab.save_run(result)
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
    lab.save_run(result)
    row = lab.runs(limit=1_000).row(by_predicate=pl.col("run_id") == result.run_id, named=True)
    stored = json.loads(row["metrics"])
    assert set(stored) == set(result.metrics)
    for name, value in result.metrics.items():
        assert stored[name] == (value if math.isfinite(value) else None), name


def test_the_same_run_again_is_the_run_that_is_there(lab, session, result):
    first = lab.save_run(result)
    again = fxlab.backtest(session, "sma_cross", {"fast": 5, "slow": 20})
    again = dataclasses.replace(again, fingerprint=result.fingerprint)
    before = lab.runs(limit=1_000)
    assert again.run_id != first
    assert lab.save_run(again) == first
    assert lab.runs(limit=1_000).equals(before)


def test_the_same_fingerprint_with_other_metrics_is_a_conflict(lab, session, result):
    first = lab.save_run(result)
    other = fxlab.backtest(session, "sma_cross", {"fast": 6, "slow": 20})
    other = dataclasses.replace(other, fingerprint=result.fingerprint)
    with pytest.raises(errors.RunConflict, match=rf"{first} has the same fingerprint"):
        lab.save_run(other)
    with pytest.raises(errors.RunNotFound):
        lab.run_fills(other.run_id)


def test_a_run_without_fills_is_saved(lab, session, unique):
    made = fxlab.backtest(session, "sma_cross", {"fast": 1_000, "slow": 2_999})
    made = dataclasses.replace(made, fingerprint=unique("print"))
    assert made.fills.is_empty()
    assert lab.run_fills(lab.save_run(made)).is_empty()


def test_an_unknown_run_names_near_ones(lab, result):
    lab.save_run(result)
    wrong = result.run_id.replace("_backtest", "_backtesr")
    with pytest.raises(errors.RunNotFound, match=rf"did you mean .*{result.run_id}.*lab\.runs"):
        lab.run_fills(wrong)


@pytest.mark.parametrize("bad", [-1, "10", 1.5, None])
def test_a_limit_is_a_number(lab, bad):
    with pytest.raises(errors.InvalidParameter, match="limit="):
        lab.runs(limit=bad)
