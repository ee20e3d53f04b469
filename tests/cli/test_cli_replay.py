"""`fxlab replay` as people type it: words out, a live picture in a terminal, a clean Ctrl-C."""

from __future__ import annotations

import io

import polars as pl
import pytest
from fake_clock import FakeClock
from markets import random_walk
from rich.console import Console
from typer.testing import CliRunner

import fxlab
from fxlab._cli import app
from fxlab._cli.backtest import ReplayView
from fxlab._times import to_micros
from fxlab.replayer._cursor import WallClock


def command(*words):
    """Run the command line in this process."""
    return CliRunner().invoke(app, ["replay", *map(str, words)])


def one_error(result):
    assert result.exit_code == 1, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("Error: ")
    return line


def ticks():
    walks = [random_walk(rows, rows, symbol=name) for name, rows in (("LONG", 900), ("SHORT", 90))]
    return pl.concat(walks).select("timestamp", "symbol", "seq", "price", "volume")


@pytest.fixture(scope="module")
def session(lab, unique):
    made = unique("cli_replay")
    lab.import_frames({"prices": ticks()}, session_id=made)
    return lab.session(made)


def test_it_explains_itself():
    answer = command("--help")
    assert answer.exit_code == 0
    assert "Ctrl-C stops it and says where" in " ".join(answer.stdout.split())


def test_ticks_are_replayed_and_an_early_end_is_said(session):
    answer = command(session.id, "--speed", "inf")
    assert answer.exit_code == 0, answer.output
    lines = answer.stdout.splitlines()
    assert lines[0].startswith("SHORT has no ticks after 2025-01-01 00:00:")
    assert lines[1].endswith("100.0% of 990 ticks")
    assert lines[1].startswith("finished at 2025-01-01 00:0")


def test_with_a_strategy_the_figures_are_those_of_the_backtest(session):
    words = ["--set", "fast=5", "--set", "slow=20", "--fee-bps", "2", "--latency", "10ms"]
    answer = command(
        session.id, "--speed", "inf", "--strategy", "sma_cross", *words, "--symbols", "long"
    )
    assert answer.exit_code == 0, answer.output
    same = fxlab.backtest(
        session,
        "sma_cross",
        {"fast": 5, "slow": 20},
        symbols="LONG",
        execution=fxlab.Execution(taker_bps=2, latency="10ms"),
    )
    assert f"{same.metrics['final_equity']:,.2f}" in answer.stdout
    assert "sma_cross on " + session.id in answer.stdout


def test_ctrl_c_says_where_and_how_to_go_on(session, monkeypatch):
    waits = []

    def wait(_self, seconds, _woken):
        waits.append(seconds)
        if len(waits) == 3:
            raise KeyboardInterrupt

    monkeypatch.setattr(WallClock, "wait", wait)
    answer = command(session.id, "--speed", "1", "--strategy", "buy_and_hold")
    assert answer.exit_code == 130
    (line,) = answer.stdout.splitlines()
    where, _, how = line.partition(" ticks; go on as a new run with: fxlab replay ")
    assert where.startswith("stopped at 2025-01-01 00:00:")
    assert where.endswith("% of 990")
    same = f"{session.id} --speed 1 --strategy buy_and_hold --start 2025-01-01T00:00:"
    assert how.startswith(same)
    assert "Traceback" not in answer.output
    again = command(*how.split(), "--speed", "inf")
    assert "100.0%" in again.stdout


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ([], "session_id is required: fxlab replay SESSION"),
        (["SESSION", "--speed", "0"], "--speed 0.0 is not a speed"),
        (["SESSION", "--speed", "nan"], "speed=nan is not a speed"),
        (["SESSION", "--symbols", "NOPE"], "no symbol named 'NOPE'"),
        (["SESSION", "--set", "fast=3"], "--set and costs belong to a strategy"),
        (["SESSION", "--fee-bps", "1"], "--set and costs belong to a strategy"),
        (["SESSION", "--strategy", "sma_cross", "--fill", "book"], "needs order books"),
        (["SESSION", "--strategy", "sma_cros"], "did you mean 'sma_cross'"),
        (["SESSION", "--start", "2030-01-01"], "its ticks run from 2025-01-01"),
        (["no_such_session"], "no session named 'no_such_session'"),
    ],
)
def test_what_cannot_be_replayed_is_one_sentence(session, words, said):
    chosen = [session.id if word == "SESSION" else word for word in words]
    assert said in one_error(command(*chosen))


def drawn(view):
    console = Console(file=io.StringIO(), width=110)
    console.print(view.picture())
    return console.file.getvalue()


def test_the_live_view_shows_clock_prices_money_and_progress():
    replay = fxlab.replay(
        ticks(), speed=100, clock=FakeClock(), strategy="buy_and_hold", capital=5_000
    )
    view = ReplayView(replay)
    assert "reading buy_and_hold on frame" in drawn(view)
    for batch in replay:
        view.take(batch)
        if batch.progress > 0.5:
            break
    text = drawn(view)
    assert f"{batch.timestamp:%Y-%m-%d %H:%M:%S} UTC" in text
    assert f"{batch.progress:.1%} of the ticks" in text
    assert "speed 100" in text
    assert f"equity {batch.equity:,.2f}" in text
    assert "2 fills" in text
    rows = {line.split("│")[1].strip(): line for line in text.splitlines() if "│" in line}
    assert f"{batch.prices['LONG']:g}" in rows["LONG"]
    assert "ended" in rows["SHORT"]
    assert "ended" not in rows["LONG"]
    assert to_micros(batch.timestamp) > to_micros(replay.bounds[0])


def test_the_live_view_without_a_strategy_has_no_money():
    replay = fxlab.replay(ticks(), speed=float("inf"))
    view = ReplayView(replay)
    view.take(next(replay))
    assert "equity" not in drawn(view)
    assert "position" not in drawn(view)
