"""Points in the database: kept as they finish, found again, never repeated."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from markets import random_walk
from sweep_strategies import moody, slow_digit

import fxlab
from fxlab import errors
from fxlab._questdb import sql
from fxlab._questdb.client import QuestDB
from fxlab.schema import SWEEP_RUNS
from fxlab.sweeper import _store
from fxlab.sweeper._store import listing

GRID = {"fast": [3, 5, 8], "slow": [5, 13, 21]}

KILLED = """
import sys, fxlab
from sweep_strategies import slow_digit
lab = fxlab.connect()
def progress(share, words):
    print(words, flush=True)
grid = {"level": range(10), "seconds": [0.1, 0.11, 0.12, 0.13]}
fxlab.sweep(lab.session(sys.argv[1]), slow_digit, grid,
            lab=lab, workers=1, check_lookahead=False, progress=progress)
"""

SUPPORT = Path(__file__).parents[1] / "support"


@pytest.fixture(scope="module")
def session(lab, unique):
    name = unique("sweep")
    walk = random_walk(2_000, symbol="BTC_USDT").drop("bid_qty_1", "ask_qty_1")
    lab.import_frame(walk, "prices", session_id=name)
    return lab.session(name)


def stored(db, sweep_id):
    """Return the rows of a sweep's points."""
    db.wait_visible(SWEEP_RUNS)
    rows = db.export(sql.sweep_points(list(SWEEP_RUNS.columns), sweep_id=sweep_id))
    return rows.filter(pl.col("state") != "asked")


def test_points_are_stored_and_the_same_call_repeats_none(lab, db, session):
    alone = {"lab": lab, "capital": 1_234.0}  # no other test stores points of such a sweep
    first = fxlab.sweep(session, "sma_cross", GRID, **alone)
    rows = stored(db, first.sweep_ids[0])
    assert first.resumed == 0
    assert rows.height == 9
    assert sorted(rows["state"]) == ["done"] * 7 + ["skipped"] * 2
    assert rows["data_session_id"].unique().to_list() == [session.id]
    again = fxlab.sweep(session, "sma_cross", GRID, **alone)
    assert again.resumed == 9
    assert again.sweep_ids == first.sweep_ids
    assert again.table.equals(first.table, null_equal=True)
    assert stored(db, first.sweep_ids[0]).equals(rows)
    assert first.returns()[0] == again.returns()[0]
    assert (first.returns()[1] == again.returns()[1]).all()


def test_a_kept_sweep_is_an_object(lab, session):
    made = fxlab.sweep(session, "sma_cross", GRID, lab=lab, capital=2_345.0)
    kept = lab.sweep(made.sweep_ids[0])
    assert isinstance(kept, fxlab.SavedSweep)
    assert (kept.data_session_id, kept.strategy, kept.search) == (session.id, "sma_cross", "grid")
    assert (kept.done, kept.failed, kept.skipped, kept.asked) == (7, 0, 2, 9)
    points = kept.points()
    assert points.height == 9
    both = points.filter(pl.col("state") == "done").sort("fast", "slow")
    same = made.table.filter(pl.col("state") == "done").sort("fast", "slow")
    for name in ("fast", "slow", "final_equity", "sharpe_per_period"):
        assert both[name].to_list() == same[name].to_list(), name
    assert kept.sweep_id in kept._repr_html_()
    wrong = kept.sweep_id[:-1] + "x"
    with pytest.raises(errors.SweepNotFound, match=rf"{kept.sweep_id}.*lab\.sweeps"):
        lab.sweep(wrong)


def test_a_larger_grid_repeats_nothing(lab, db, session):
    narrow = fxlab.sweep(session, "sma_cross", {"fast": [2, 4], "slow": [30]}, lab=lab)
    wide = fxlab.sweep(session, "sma_cross", {"slow": [40, 30], "fast": [4, 6, 2]}, lab=lab)
    assert wide.sweep_ids == narrow.sweep_ids
    assert wide.resumed == 2
    alone = fxlab.sweep(session, "sma_cross", {"slow": [40, 30], "fast": [4, 6, 2]})
    assert wide.table.equals(alone.table, null_equal=True)


@pytest.mark.parametrize(
    "changed",
    [
        {"execution": fxlab.Execution(taker_bps=1.0)},
        {"capital": 5_000.0},
        {"return_interval": "30s"},
        {"end": "2025-01-01T00:05:00Z"},
        {"days_per_year": 260},
    ],
    ids=lambda changed: next(iter(changed)),
)
def test_other_assumptions_are_another_study(lab, session, changed):
    one = {"fast": 3, "slow": 13}
    first = fxlab.sweep(session, "sma_cross", one, lab=lab)
    other = fxlab.sweep(session, "sma_cross", one, lab=lab, **changed)
    assert other.sweep_ids != first.sweep_ids
    assert other.table["fingerprint"][0] != first.table["fingerprint"][0]


def test_frames_are_known_by_their_content(lab):
    frame = random_walk(500, 77)
    first = fxlab.sweep(frame, "sma_cross", GRID, lab=lab)
    assert fxlab.sweep(frame.clone(), "sma_cross", GRID, lab=lab).resumed == 9
    other = frame.with_columns(volume=pl.col("volume") + 1)
    found = fxlab.sweep(other, "sma_cross", GRID, lab=lab)
    assert found.resumed == 0
    assert found.sessions != first.sessions


def test_failed_points_are_kept_with_their_error(lab, session):
    grid = {"mood": ["calm", "early", "late"], "level": [1, 2]}
    first = fxlab.sweep(session, moody, grid, lab=lab)
    again = fxlab.sweep(session, moody, grid, lab=lab)
    assert again.resumed == 6
    assert again.failed.equals(first.failed)
    assert "ZeroDivisionError: in the strategy" in again.failed["error"][0]


def test_a_killed_sweep_goes_on_where_it_ended(lab, db, unique):
    name = unique("killed")
    walk = random_walk(300, symbol="BTC_USDT").drop("bid_qty_1", "ask_qty_1")
    lab.import_frame(walk, "prices", session_id=name)
    tests = str(SUPPORT)
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([tests, *sys.path])}
    child = subprocess.Popen(
        [sys.executable, "-c", KILLED, name], stdout=subprocess.PIPE, text=True, env=environment
    )
    promised = 0
    for line in child.stdout:
        promised = int(re.match(r"(\d+) of 40 points", line)[1])
        if promised >= 3:
            break
    child.send_signal(signal.SIGKILL)
    child.stdout.close()
    assert child.wait() == -signal.SIGKILL

    grid = {"level": range(10), "seconds": [0.1, 0.11, 0.12, 0.13]}
    session = lab.session(name)
    options = {"check_lookahead": False}
    alone = fxlab.sweep(session, slow_digit, grid, **options)
    before = stored(db, alone.studies[0].key)
    assert 3 <= promised <= before.height < 40
    resumed = fxlab.sweep(session, slow_digit, grid, lab=lab, **options)
    assert resumed.resumed == before.height
    assert resumed.table.equals(alone.table, null_equal=True)
    after = stored(db, alone.studies[0].key)
    assert after.height == 40
    assert after.filter(pl.col("point").is_in(before["point"].implode())).equals(before)


def test_a_cancelled_sweep_keeps_what_is_done_and_says_how_to_go_on(lab, db, session, monkeypatch):
    monkeypatch.setattr(_store, "STORE_SECONDS", 0.0)
    grid = {"fast": [3, 4, 5], "slow": [50, 60]}

    def progress(share, words):
        if not words.startswith("0 of"):
            raise errors.Cancelled("enough")

    with pytest.raises(errors.SweepCancelled, match="the same call goes on from there") as caught:
        fxlab.sweep(session, "sma_cross", grid, lab=lab, workers=1, progress=progress)
    part = caught.value.sweep
    assert 0 < part.table.height < 6
    assert part.sweep_ids[0] in str(caught.value)
    whole = fxlab.sweep(session, "sma_cross", grid, lab=lab)
    assert whole.resumed == part.table.height
    assert whole.table.height == 6


def test_progress_counts_only_what_is_stored(lab, db, session):
    heard = []

    def progress(share, words):
        promised = int(re.match(r"(\d+) of", words)[1])
        heard.append((promised, words))

    grid = {"fast": [3, 4, 5], "slow": [70, 80]}
    found = fxlab.sweep(session, "sma_cross", grid, lab=lab, progress=progress)
    assert (
        heard[-1][0]
        == 6
        == stored(db, found.sweep_ids[0])
        .filter(pl.col("parameters").str.contains('"slow":[78]0'))
        .height
    )


def test_the_trials_of_other_nights_count(lab, unique):
    name = unique("nights")
    walk = random_walk(2_000, symbol="BTC_USDT").drop("bid_qty_1", "ask_qty_1")
    lab.import_frame(walk, "prices", session_id=name)
    session = lab.session(name)
    first = fxlab.sweep(session, "sma_cross", {"fast": [3, 5], "slow": [13, 21]}, lab=lab)
    cheap = fxlab.Execution(taker_bps=0.0)
    other = fxlab.sweep(
        session, "sma_cross", {"fast": [3, 5, 8], "slow": [13, 21]}, lab=lab, execution=cheap
    )
    assert first.tried == 4
    assert other.tried == 10
    judged, alone = (
        other.overfitting(4),
        fxlab.sweep(
            session, "sma_cross", {"fast": [3, 5, 8], "slow": [13, 21]}, execution=cheap
        ).overfitting(4),
    )
    assert judged.tried == 10
    assert judged.trials > alone.trials
    assert judged.expected_maximum > alone.expected_maximum


def test_one_sweep_is_found_without_the_points_of_others(lab, session, monkeypatch):
    grid = {"fast": list(range(2, 22)), "slow": [91, 92]}
    large = fxlab.sweep(session, "sma_cross", grid, capital=3_456.0, lab=lab)
    small = fxlab.sweep(session, "sma_cross", {"fast": 3, "slow": 9}, capital=4_567.0, lab=lab)
    read, export = [], QuestDB.export

    def counted(db, query):
        read.append(export(db, query))
        return read[-1]

    monkeypatch.setattr(QuestDB, "export", counted)
    assert lab.sweep(small.sweep_ids[0]).done == 1
    assert sum(frame.height for frame in read) == 3  # its points, its request, the request's plan
    read.clear()
    assert lab.sweep(large.sweep_ids[0]).done == 40
    assert sum(frame.height for frame in read) == 3


def test_sweeps_are_listed(lab, db, session):
    grid = {"fast": [3, 4], "slow": [90, 91]}
    found = fxlab.sweep(session, "sma_cross", grid, capital=123.0, lab=lab)
    row = listing(db, 1_000).row(by_predicate=pl.col("sweep_id") == found.sweep_ids[0], named=True)
    assert row["data_session_id"] == session.id
    assert row["strategy"] == "sma_cross"
    assert (row["done"], row["failed"], row["skipped"], row["asked"]) == (4, 0, 0, 4)
    assert row["search"] == "grid"
    assert row["started"] <= row["finished"]
    assert json.loads(row["plan"])["grid"]["axes"] == {"fast": [3, 4], "slow": [90, 91]}
    assert lab.sweeps(limit=1).height == 1
