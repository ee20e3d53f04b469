"""A saved run is found again, and running it again gives the same bits."""

from __future__ import annotations

import dataclasses
from datetime import timedelta

import polars as pl
import pytest
from markets import recorded_walk

import fxlab
from fxlab import errors

EXECUTION = fxlab.Execution(taker_bps=2.0, slippage_bps=0.5, latency="30ms")


@pytest.fixture(scope="module")
def session(lab, unique):
    both = [recorded_walk(1_500, seed=k, symbol=name) for k, name in ((1, "AAA"), (2, "BBB"))]
    trades = pl.concat(both).rename({"seq": "trade_id", "volume": "qty"})
    name = unique("reproduce")
    lab.import_frames({"prices": trades}, session_id=name)
    return lab.session(name)


@pytest.fixture(scope="module")
def saved(lab, session):
    result = fxlab.backtest(
        session,
        "sma_cross",
        {"fast": 4, "slow": 15},
        execution=EXECUTION,
        capital=5_000.0,
        return_interval="30s",
        days_per_year=260,
        start=session.started + timedelta(seconds=10),
        end=session.ended,
    )
    result.save(lab)
    return result


def test_a_saved_run_is_listed_with_its_fills(lab, saved):
    row = lab.runs().filter(pl.col("run_id") == saved.run_id).row(0, named=True)
    assert row["strategy"] == "sma_cross"
    assert row["symbols"] == ["AAA", "BBB"]
    assert row["final_equity"] == saved.metrics["final_equity"]
    fills = lab.run_fills(saved.run_id)
    assert fills.height == saved.fills.height > 50
    assert fills["qty"].sum() == pytest.approx(saved.fills["qty"].sum())


def test_saving_twice_keeps_one_run(lab, saved, session):
    before = lab.runs(limit=1_000).height
    assert saved.save(lab) == saved.run_id
    same = dataclasses.replace(saved, run_id="exec_20260101_000000_00000000_backtest")
    assert same.save(lab) == saved.run_id
    assert lab.runs(limit=1_000).height == before


def test_the_same_fingerprint_with_other_figures_is_refused(lab, saved):
    metrics = type(saved.metrics)({**saved.metrics, "final_equity": 1.0}, saved.metrics.notes)
    with pytest.raises(errors.RunConflict, match="final_equity"):
        dataclasses.replace(saved, metrics=metrics).save(lab)


def test_running_it_again_gives_the_same_bits(lab, saved):
    again = lab.reproduce(saved.run_id)
    assert again.difference == ""
    assert again.same_fingerprint
    assert again.result.fingerprint == saved.fingerprint
    assert again.result.fills.equals(saved.fills)
    assert again.result.equity.equals(saved.equity)
    assert again.result.execution.as_dict() == EXECUTION.as_dict()
    assert "bit by bit" in str(again)


def test_the_same_rows_under_another_session_are_another_run(lab, unique):
    rows = recorded_walk(400, seed=3, symbol="AAA").rename({"seq": "trade_id", "volume": "qty"})
    names = [unique("twin_a"), unique("twin_b")]
    runs = []
    for name in names:
        lab.import_frames({"prices": rows}, session_id=name)
        runs.append(fxlab.backtest(lab.session(name), "sma_cross", {"fast": 4, "slow": 15}))
    ids = [run.save(lab) for run in runs]
    assert ids == [run.run_id for run in runs]
    assert [lab.run(run_id)["data_session_id"] for run_id in ids] == names
    for run_id, name in zip(ids, names, strict=True):
        again = lab.reproduce(run_id)
        assert (again.difference, again.same_fingerprint) == ("", True)
        assert again.result.data_session_id == name
    frames = [fxlab.FrameSource(rows.rename({"trade_id": "seq"}), id=name) for name in names]
    alone = {fxlab.backtest(f, "sma_cross", {"fast": 4, "slow": 15}).fingerprint for f in frames}
    assert len(alone) == 1  # a frame has a name, and no identity beside its rows


def test_a_strategy_that_changed_is_told(lab, session, monkeypatch):
    from fxlab.backtester.strategy import strategy

    monkeypatch.setattr(strategy, "_REGISTRY", dict(strategy._REGISTRY))

    @fxlab.strategy(name="drifting")
    def before() -> fxlab.Signals:
        return fxlab.Signals(target=pl.when(pl.col("seq") % 50 == 10).then(1.0), lookback=0)

    run = fxlab.backtest(session, "drifting", symbols="AAA")
    run.save(lab)

    @fxlab.strategy(name="drifting")
    def after() -> fxlab.Signals:
        return fxlab.Signals(target=pl.when(pl.col("seq") % 50 == 11).then(1.0), lookback=0)

    again = lab.reproduce(run.run_id)
    assert not again.same_fingerprint
    assert again.difference
    assert "other ingredients" in str(again)


def test_an_unknown_run_names_near_ones(lab, saved):
    with pytest.raises(errors.RunNotFound, match="did you mean"):
        lab.reproduce(saved.run_id[:-1] + "x")
    with pytest.raises(errors.InvalidIdentifier):
        lab.run_fills("x' OR '1'='1")


def test_the_command_says_so_too(server, saved):
    from typer.testing import CliRunner

    from fxlab._cli import app

    done = CliRunner().invoke(app, ["reproduce", saved.run_id])
    assert done.exit_code == 0
    assert "bit by bit" in done.output
    listed = CliRunner().invoke(app, ["runs", "list"])
    assert listed.exit_code == 0
    assert "sma_cross" in listed.output
