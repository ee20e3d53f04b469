"""Sessions deleted, brought back and purged on the command line; runs and sweeps that say so."""

from __future__ import annotations

import json

import pytest
from markets import recorded_walk
from typer.testing import CliRunner

import fxlab as package
from fxlab import errors
from fxlab._cli import app


def fxlab(*words, typed=None):
    return CliRunner().invoke(app, list(words), input=typed)


@pytest.fixture
def name(lab, unique):
    name = unique("cli")
    lab.import_frames({"prices": recorded_walk(300, symbol="BTC_USDT")}, session_id=name)
    return name


def test_a_deletion_shows_what_it_frees_and_wants_the_id(lab, name):
    wrong = fxlab("sessions", "delete", name, typed="nonsense\n")
    assert wrong.exit_code == 1
    assert "tick_prices" in wrong.stdout
    assert f"'nonsense' is not '{name}'; nothing was deleted" in wrong.stderr
    assert lab.session(name).id == name
    right = fxlab("sessions", "delete", name, typed=f"{name}\n")
    assert right.exit_code == 0, right.output
    assert f"fxlab sessions undelete {name} brings it back" in right.output
    with pytest.raises(errors.SessionNotFound):
        lab.session(name)
    listed = json.loads(fxlab("sessions", "list", "--deleted", "--json").stdout)
    assert name in str(listed)
    assert fxlab("sessions", "undelete", name).exit_code == 0
    assert lab.session(name).prices_count == 300


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--symbol", "A"], "--symbol"),
        (["--limit", "5", "--after", "x"], "--limit, --after"),
        (["--sort", "started", "--ascending"], "--sort, --ascending"),
        (["--status", "completed", "--tag", "a"], "--status, --tag"),
    ],
)
def test_deleted_sessions_are_not_listed_by_what_would_do_nothing(lab, words, named):
    refused = fxlab("sessions", "list", "--deleted", *words)
    assert refused.exit_code == 1
    assert f"and {named} would do nothing; --status deleting" in " ".join(refused.stderr.split())


def test_deleted_sessions_are_listed_by_a_status_and_filters(lab, name):
    lab.delete(name)
    words = ("--status", "deleting", "--text", name, "--limit", "1", "--json")
    (row,) = json.loads(fxlab("sessions", "list", *words).stdout)
    assert row["session_id"] == name
    assert name in fxlab("sessions", "list", "--deleted", "--json").stdout


def test_scripts_delete_by_yes_and_purge(lab, name):
    assert fxlab("sessions", "delete", name, "--yes", "other").exit_code == 1
    assert fxlab("sessions", "delete", name, "--yes", name).exit_code == 0
    again = fxlab("sessions", "show", name)
    assert again.exit_code == 1
    assert f"fxlab sessions undelete {name} brings it back" in again.stderr
    dry = fxlab("purge", name, "--dry-run")
    assert dry.exit_code == 0
    assert "dry run" in dry.stdout
    assert lab.deleted().filter(session_id=name)["can_be_undeleted"].to_list() == [True]
    assert fxlab("purge", name).exit_code == 0
    unknown = fxlab("purge", "no-such-session")
    assert unknown.exit_code == 1


def test_retention_is_shown_before_it_deletes(lab, name):
    missing = fxlab("retention")
    assert missing.exit_code == 1
    assert "--older-than 90d" in missing.stderr
    shown = fxlab("retention", "--older-than", "1d")
    assert shown.exit_code == 0
    assert "--yes" in shown.stdout
    assert lab.session(name).id == name


def test_runs_and_sweeps_of_a_deleted_session_say_so(lab, name):
    session = lab.session(name)
    run_id = package.backtest(session, "sma_cross", {"fast": 5, "slow": 20}).save(lab)
    sweep = package.sweep(session, "sma_cross", {"fast": [5, 6], "slow": [20]}, lab=lab)
    assert sweep is not None
    sweep_id = lab.sweeps(limit=1_000).filter(data_session_id=name)["sweep_id"][0]
    assert lab.run(run_id).session_deleted == ""
    assert "undelete" not in fxlab("runs", "show", run_id).output
    lab.delete(name)
    said = f"session '{name}' was deleted; lab.undelete('{name}') brings it back"
    assert said in lab.run(run_id).session_deleted
    assert said in lab.sweep(sweep_id).session_deleted
    for command in (("runs", "show", run_id), ("sweeps", "show", sweep_id)):
        assert f"fxlab sessions undelete {name}" in fxlab(*command).output
    with pytest.raises(errors.SessionNotFound, match="was deleted"):
        lab.reproduce(run_id)
    lab.undelete(name)
    assert lab.reproduce(run_id).difference == ""


def test_a_saved_run_is_deleted_and_brought_back(lab, name):
    run = package.backtest(lab.session(name), "sma_cross", {"fast": 3, "slow": 9}).save(lab)
    gone = fxlab("runs", "delete", run)
    assert gone.exit_code == 0, gone.output
    assert f"fxlab runs undelete {run} brings it back" in gone.output
    assert fxlab("runs", "delete", run).exit_code == 1
    assert fxlab("runs", "show", run).exit_code == 1
    listed = fxlab("runs", "list", "--text", f"{name} sma", "--json")
    assert json.loads(listed.stdout) == []
    hidden = fxlab("runs", "list", "--deleted", "--text", name, "--json")
    assert run in hidden.stdout
    assert fxlab("runs", "undelete", run).exit_code == 0
    assert run in fxlab("runs", "list", "--text", name, "--json").stdout
    none = fxlab("runs", "list", "--text", "no-run-has-this-word")
    assert "no saved run has all these words" in none.stdout + none.stderr


def test_a_kept_sweep_is_deleted_and_brought_back(lab, name):
    grid = {"fast": [3, 4], "slow": [9]}
    sweep = package.sweep(lab.session(name), "sma_cross", grid, lab=lab).sweep_ids[0]
    gone = fxlab("sweeps", "delete", sweep)
    assert gone.exit_code == 0, gone.output
    assert fxlab("sweeps", "show", sweep).exit_code == 1
    assert sweep in fxlab("sweeps", "list", "--deleted", "--json").stdout
    assert fxlab("sweeps", "undelete", sweep).exit_code == 0
    assert fxlab("sweeps", "show", sweep).exit_code == 0
