"""`fxlab mock` as people run it: a line with the address, a clean end, a summary."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys

import httpx
import pytest
from typer.testing import CliRunner

from fxlab._cli import app


def run(*words):
    return CliRunner().invoke(app, ["mock", *words])


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_it_says_where_it_is_and_ends_when_told(number, tmp_path):
    ledger = tmp_path / "ledger.jsonl"
    command = [sys.executable, "-m", "fxlab", "mock", "--symbol", "ETH_USDT", "--drop", "0.5"]
    with subprocess.Popen(
        [*command, "--ledger", str(ledger)], stdout=subprocess.PIPE, text=True
    ) as process:
        first, second = process.stdout.readline(), process.stdout.readline()
        url = re.match(r"mock venue at (http://127\.0\.0\.1:\d+) \(binance, ", first)[1]
        assert second == (f"collect from it with: fxlab collect binance ETH_USDT --url {url}\n")
        said = httpx.get(url + "/ledger").json()
        process.send_signal(number)
        rest, _ = process.communicate(timeout=120)
    assert process.returncode == 0
    assert list(said["symbols"]) == ["ETH_USDT"]
    assert said["header"] == {"seed": 1, "drop": 0.5}
    assert "ETH_USDT" in rest
    lines = [json.loads(line) for line in ledger.read_text().splitlines()]
    assert [line.get("symbol") for line in lines] == [None, "ETH_USDT", None]


def test_it_ends_by_itself_when_its_time_is_over():
    done = run("--for", "10ms", "--symbol", "BTC_USDT", "--symbol", "SOL_USDT")
    assert done.exit_code == 0
    assert "BTC_USDT SOL_USDT --url" in done.output


@pytest.mark.parametrize(
    ("words", "match"),
    [
        (["--symbol", "BTCUSDT"], "not BASE_QUOTE"),
        (["--rate", "0"], "--rate 0"),
        (["--speed", "fast"], "give a number, or max"),
        (["--rest-error", "429"], "such as 429=2"),
        (["--delist", "BTC_USDT"], "such as BTC_USDT@5"),
        (["--drop", "2"], "--drop 2.0 is a share"),
        (["--for", "soon"], "is not a duration"),
        (["--tape", "nowhere.gz"], "nowhere.gz cannot be read"),
    ],
)
def test_what_makes_no_sense_is_said_in_one_line(words, match):
    done = run(*words)
    assert done.exit_code == 1
    assert match in done.stderr
