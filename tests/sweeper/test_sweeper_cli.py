"""Sweeps on the command line."""

from __future__ import annotations

import polars as pl
import pytest
from markets import random_walk
from typer.testing import CliRunner

import fxlab as library
from fxlab._cli import app, sweep
from fxlab.errors import InvalidParameter


@pytest.fixture(scope="module")
def session(lab, unique):
    name = unique("cli")
    walk = random_walk(1_500, symbol="BTC_USDT").drop("bid_qty_1", "ask_qty_1")
    lab.import_frame(walk, "prices", session_id=name)
    return lab.session(name)


def fxlab(*words):
    return CliRunner().invoke(app, list(words))


def test_a_grid_is_swept_and_the_best_shown(lab, session, tmp_path):
    table = tmp_path / "table.parquet"
    grid = ("-g", "fast=3:7:2", "--grid", "slow=13,21")
    done = fxlab(
        "sweep", session.id, "sma_cross", *grid, "--fee-bps", "1", "--metric", "total_return",
        "--save", "--output", str(table),
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    alone = library.sweep(
        session,
        "sma_cross",
        {"fast": [3, 5, 7], "slow": [13, 21]},
        execution=library.Execution(taker_bps=1.0),
        metric="total_return",
    )
    assert pl.read_parquet(table).equals(alone.table, null_equal=True)
    assert "sma_cross over 3 fast x 2 slow (grid)" in done.stdout
    assert "6 done" in done.stdout
    assert "6 points tried" in done.stdout
    assert f"kept: {alone.studies[0].key}" in done.stdout
    assert alone.studies[0].key in fxlab("sweeps", "list").stdout


def test_a_random_sweep_over_two_sessions(lab, session, unique):
    name = unique("cli")
    walk = random_walk(900, 3, symbol="BTC_USDT").drop("bid_qty_1", "ask_qty_1")
    lab.import_frame(walk, "prices", session_id=name)
    done = fxlab(
        "sweep", f"{session.id},{name}", "sma_cross", "-g", "fast=3:9:1", "-g", "slow=10:90:10",
        "--search", "random", "--points", "4",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "8 done" in done.stdout
    assert "on 2 sessions" in done.stdout


def test_walk_forward_prints_its_windows(session):
    done = fxlab(
        "walk-forward", session.id, "sma_cross", "-g", "fast=3,5", "-g", "slow=13,21",
        "--train", "1m", "--test", "1m",
    )  # fmt: skip
    assert done.exit_code == 0, done.output
    assert "out of sample in" in done.stdout
    assert "test_sharpe_per_period" in done.stdout


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("-g", "fast"), "-g 'fast' is not NAME=VALUE"),
        (("-g", "fast=1", "-g", "fast=2"), "-g fast is given twice"),
        (("-g", "fats=1,2"), "did you mean 'fast'"),
        (("-g", "fast=a,b"), "fast='a' is not an int"),
        (("-g", "fast=10:1:3"), "not FROM:TO:STEP with TO in reach"),
        ((), "is not a grid"),
        (("-g", "fast=3", "--output", "table.xlsx"), "neither .csv nor .parquet"),
    ],
)
def test_a_wrong_word_is_one_red_sentence(session, words, sentence):
    done = fxlab("sweep", session.id, "sma_cross", *words)
    assert done.exit_code == 1
    lines = done.stderr.splitlines()
    assert len(lines) == 1
    assert sentence in lines[0]


@pytest.mark.parametrize(
    ("text", "values"),
    [
        ("1:4:1", ["1", "2", "3", "4"]),
        ("10:100:40", ["10", "50", "90"]),
        ("0.1:0.3:0.1", ["0.1", "0.2", "0.3"]),
        ("5:1:-2", ["5", "3", "1"]),
    ],
)
def test_steps_are_exact_in_decimals(text, values):
    assert sweep._stepped("x", text) == values


@pytest.mark.parametrize("text", ["1:2:0", "a:b:c", "1:nan:1", "1:1e12:1"])
def test_steps_that_lead_nowhere_are_refused(text):
    with pytest.raises(InvalidParameter, match="FROM:TO:STEP"):
        sweep._stepped("x", text)


def test_advice_is_in_words_of_the_shell(session):
    words = ("walk-forward", session.id, "sma_cross", "-g", "fast=3,5", "--train", "1m")
    done = fxlab(*words)
    assert done.exit_code == 1
    assert "how many tests by --folds 5, or how long by --test 1h" in done.stderr
    done = fxlab(*words, "--test", "1m", "-x", "latency=1ms")
    assert "Execution(" not in done.output
    latency = fxlab("backtest", session.id, "sma_cross", "--latency", "measured")
    assert "give a fixed latency, such as --latency 50ms" in latency.stderr
