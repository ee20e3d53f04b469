"""Ctrl-C ends each long command by one line: what is kept, and what to run to go on."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from markets import random_walk
from typer.testing import CliRunner

from fxlab._cli import app
from fxlab._questdb import migrations
from fxlab._questdb import server as embedded

STRATEGY = """
import os, signal
import polars as pl
import fxlab

@fxlab.strategy
def stopping(*, window: int = 3) -> fxlab.Signals:
    os.kill(os.getpid(), signal.SIGINT)
    return fxlab.Signals(target=pl.lit(1.0))
"""
PATCHED = """
import os, signal, sys
from fxlab.__main__ import main
from fxlab._questdb.client import QuestDB

def write(self, table, frame, **_):
    os.kill(os.getpid(), signal.SIGINT)

QuestDB.write = write
sys.argv[0] = "fxlab"
main()
"""


def stopped(*command: str | Path, cwd: Path, **environment: str) -> tuple[str, str]:
    """Run a command that is sent Ctrl-C; return the two sides of its one line."""
    done = subprocess.run(
        [sys.executable, *command],
        cwd=cwd,
        env=os.environ | environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 130, done.stderr
    (line,) = (each for each in done.stderr.splitlines() if not each.startswith("compiling"))
    kept, _, how = line.partition(": fxlab ")
    return kept, how


@pytest.fixture(scope="module")
def session(lab, unique):
    name = unique("stop")
    walk = random_walk(1_500, symbol="BTC_USDT").drop("bid_qty_1", "ask_qty_1")
    lab.import_frame(walk, "prices", session_id=name)
    return name


@pytest.fixture
def here(tmp_path):
    (tmp_path / "mine.py").write_text(STRATEGY)
    (tmp_path / "patched.py").write_text(PATCHED)
    (tmp_path / "ticks.csv").write_text("timestamp,price,volume\n2024-01-01T00:00:00Z,1.5,1\n")
    return tmp_path


@pytest.mark.parametrize(
    ("words", "kept"),
    [
        ("backtest {} mine:stopping", "Stopped: nothing is kept; begin again with"),
        ("ladder {} mine:stopping", "Stopped: nothing is kept; begin again with"),
        ("check {} mine:stopping", "Stopped: nothing is kept; begin again with"),
    ],
)
def test_what_is_all_or_nothing_begins_again(session, here, words, kept):
    words = words.format(session)
    assert stopped("-m", "fxlab", *words.split(), cwd=here) == (kept, words)


def test_an_import_that_is_stopped_is_finished_by_the_same_command(lab, here, unique):
    name = unique("stop")
    words = ("import", "ticks.csv", "--session", name, "--symbol", "BTC_USDT")
    kept, how = stopped("patched.py", *words, cwd=here)
    assert kept == (
        "Stopped: sessions that are complete stay, one that is not is marked as failed, and the "
        "same command goes on from there"
    )
    assert how == " ".join(words)


@pytest.mark.parametrize("save", [True, False])
def test_a_sweep_says_where_its_points_are(session, here, monkeypatch, save):
    from fxlab.sweeper._store import TrialTracker

    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(TrialTracker, "take", stop)
    words = ["sweep", session, "sma_cross", "-g", "fast=3,5", "-g", "slow=13"]
    done = CliRunner().invoke(app, [*words, "--save"] if save else words)
    assert done.exit_code == 130
    (line,) = done.stderr.splitlines()
    assert line.startswith("Stopped: the sweep was stopped after 0 of 2 points; ")
    if save:
        assert "they are kept as sweep_" in line
        assert line.endswith(
            f", and the same command goes on from there: fxlab {' '.join(words)} --save"
        )
    else:
        assert "nothing is kept; with --save, finished points are" in line
        assert line.endswith(f"begin again with: fxlab {' '.join(words)}")


def test_tables_that_are_built_anew_go_on(server, lab, monkeypatch):
    def stop(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(migrations, "rebuilds", lambda _: True)
    monkeypatch.setattr(migrations, "migrate", stop)
    done = CliRunner().invoke(app, ["sessions", "list"])
    assert done.exit_code == 130
    (line,) = done.stderr.splitlines()
    assert "no row is lost" in line
    assert line.endswith("the same command goes on from there: fxlab sessions list")


@pytest.mark.parametrize("name", ["up", "down"])
def test_the_server_s_commands_say_what_became_of_it(monkeypatch, name):
    def stop(*_):
        raise KeyboardInterrupt

    monkeypatch.setattr(embedded, name, stop)
    done = CliRunner().invoke(app, [name])
    assert done.exit_code == 130
    (line,) = done.stderr.splitlines()
    assert line.startswith("Stopped: the server ")
    assert line.endswith(f"the same command goes on from there: fxlab {name}")


def test_while_the_modules_are_read_there_is_no_traceback(tmp_path):
    """What fxlab._cli imports first is a module that is interrupted here."""
    (tmp_path / "typer.py").write_text("import os, signal\nos.kill(os.getpid(), signal.SIGINT)\n")
    kept, _ = stopped("-m", "fxlab", "status", cwd=tmp_path, PYTHONPATH=str(tmp_path))
    assert kept == "Stopped: nothing had begun"
