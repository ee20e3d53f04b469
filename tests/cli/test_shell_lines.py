"""Each line of the shell that the README or a help shows is run, so a new one cannot be wrong."""

from __future__ import annotations

import re
import shlex
import shutil
from pathlib import Path

import polars as pl
import pytest
from markets import random_walk
from typer.main import get_command
from typer.testing import CliRunner, Result

import fxlab
from fxlab._cli import app
from fxlab.demo import SYNTHETIC_SESSION, prepare
from fxlab.mock import MockVenue, generated

ROOT = Path(__file__).parents[2]
README = (ROOT / "README.md").read_text(encoding="utf-8")

SHELL = [
    line.partition(" #")[0].strip()
    for block in re.findall(r"```sh\n(.*?)```", README, re.DOTALL)
    for line in block.splitlines()
]
INSTEAD = {
    "--duration 8h": "--duration 2s --url {venue}",  # without a network, and a night
    "--drop 0.01": "--drop 0.01 --for 1s",  # else until Ctrl-C
    "instruments binance": "instruments binance --url {venue}",
    "--speed 10": "--speed 1000000",
    "RUN": "{run}",
    "delete OLD": "delete {old} --yes {old}",
}
"""What a test has to say otherwise."""
ELSEWHERE = {
    "./scripts/demo": "test_the_two_commands_exist, CI",
    "./scripts/test": "test_the_two_commands_exist, CI",
    ".venv/bin/fxlab lab": "becomes JupyterLab: test_cli",
    "fxlab lab": "becomes JupyterLab: test_cli",
    "fxlab backup FOLDER": "stops its server: test_a_restored_home_...",
    "FXLAB_HOME=NEW fxlab restore FOLDER": "stops its server: test_a_restored_home_...",
    "fxlab down": "would stop the server of all tests: test_server",
}
ELSEWHERE |= {
    line: "asks a Jupyter Server: test_the_lines_of_the_readme_are_answered"
    for line in SHELL
    if line.startswith("curl ")
}
COLUMNS = {"COLUMNS": "80"}


def alternatives(line: str) -> list[str]:
    """Return the commands of a line: `fxlab sessions list | show X` is two that end alike."""
    first, *others = (part.split() for part in line.split(" | "))
    if not others:
        return [line]
    front, tail = first[:-1], others[-1][1:]
    names = [first[-1], *(part[0] for part in others)]
    return [" ".join([*front, name, *tail]) for name in names]


def run(line: str, **values: str) -> Result:
    """Run a line of the shell in this process."""
    for said, instead in INSTEAD.items():
        line = re.sub(rf"(?<!\S){re.escape(said)}(?!\S)", instead, line)
    words = shlex.split(line.format(**values).removeprefix("fxlab "))
    done = CliRunner(env=COLUMNS).invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, f"{line}\n{done.output}"
    return done


@pytest.fixture
def at_home(server, lab, tmp_path, monkeypatch):
    """Work where the notebooks are, beside a file of trades, with the demo's sessions."""
    shutil.copytree(ROOT / "notebooks", tmp_path / "notebooks")
    trades = "timestamp,price,volume\n2024-01-01T00:00:00Z,1.5,1\n2024-01-01T00:00:01Z,1.6,1\n"
    (tmp_path / "trades.csv").write_text(trades)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("DISPLAY", raising=False)
    prepare(lab)


def test_lines_of_alternatives_are_taken_apart():
    assert alternatives("fxlab check-lookahead | cost-ladder SESSION x") == [
        "fxlab check-lookahead SESSION x",
        "fxlab cost-ladder SESSION x",
    ]
    assert alternatives("fxlab up | down") == ["fxlab up", "fxlab down"]


def test_every_line_of_the_readme_runs(at_home, lab, unique):
    session = lab.session(SYNTHETIC_SESSION)
    saved = fxlab.backtest(session, "sma_cross").save(lab)
    old = unique("old")
    lab.import_frames(
        {"prices": random_walk(9, symbol="A").drop("bid_qty_1", "ask_qty_1")}, session_id=old
    )
    lines = [each for line in SHELL for each in alternatives(line)]
    assert set(ELSEWHERE) <= set(lines)
    with MockVenue(generated(["BTC_USDT", "ETH_USDT"], rate=200)) as venue:
        for line in lines:
            if line not in ELSEWHERE:
                assert line.startswith("fxlab "), line
                run(line, venue=venue.url, run=saved, old=old)


def commands(group=None, path=()):
    """Yield each command's words and the command, groups too."""
    group = group or get_command(app)
    yield path, group
    for name, command in getattr(group, "commands", {}).items():
        yield from commands(command, (*path, name))


@pytest.mark.parametrize("path", [path for path, _ in commands()], ids=" ".join)
def test_help_stands_as_it_was_written(path):
    """Rich would take 10:100:10 for a picture and [x] for a style, in help as in tables."""
    shown = CliRunner(env=COLUMNS).invoke(app, [*path, "--help"]).output
    assert "Usage: " in shown
    assert shown.isascii()
    (command,) = (one for at, one in commands() if at == path)
    texts = [option.help for option in command.params if getattr(option, "help", None)]
    flat = "".join(shown.split())
    for text in [*texts, *(command.help or "").partition("\f")[0].split("\n\n")]:
        assert "".join(text.split()) in flat
    too_long = [line for line in shown.splitlines() if len(line) > 80]
    assert all(line.lstrip().startswith("0 2 * * *") for line in too_long)  # a crontab has no \


EXAMPLES = {
    ("lab", "arguments"): [],  # becomes JupyterLab: test_cli
    ("import", "--symbol"): ["BTC_USDT"],
    ("import", "--columns"): [],  # of a file that has them: test_quarantine
    ("import", "--workers"): [],  # a number
    ("purge", "--older-than"): ["7d"],
    ("retention", "--older-than"): ["90d"],
    ("retention", "--max-bytes"): ["50GB"],
    ("archive", "--before"): ["2025-01-01"],
    ("collect", "symbols"): [],  # an argument of each of the following
    ("collect", "--duration"): [],  # they wait; test_times reads 10m and 8h
    ("collect", "--rollover"): [],  # they wait; test_collector rolls over each second
    ("collect", "--book-depth"): ["0", "1", "10"],
    ("collect", "--book-every"): ["1s"],
    ("backtest", "--latency"): ["50ms", "lognormal:20ms,0.5", "uniform:10ms,40ms"],
    ("backtest", "--execution"): ["max_leverage=2"],
    ("sweep", "--grid"): ["fast=10:100:10", "slow=50,100"],
    ("walk-forward", "--train"): ["6h"],
    ("walk-forward", "--test"): ["1h"],
    ("batch", "--timeout"): [],  # a kernel for each job: test_batch
    ("mock", "--symbol"): ["BTC_USDT"],
    ("mock", "--speed"): ["1", "10", "max"],
    ("mock", "--port"): ["0"],
    ("mock", "--id-restart-at"): ["1"],
    ("mock", "--rest-error"): ["429=2", "503=1", "malformed=1", "'403 depth'=1"],
    ("mock", "--for"): [],  # 60s and 5m wait; each of the others says how long
}
"""The examples in the help of options, by the first command that has the option."""
AROUND = {
    "import": "fxlab import trades.csv --dry-run",
    "collect": "fxlab collect binance BTC_USDT --duration 1s --url {venue}",
    "backtest": f"fxlab backtest {SYNTHETIC_SESSION} sma_cross",
    "replay": f"fxlab replay {SYNTHETIC_SESSION} --speed 1000000 --strategy sma_cross",
    "sweep": f"fxlab sweep {SYNTHETIC_SESSION} sma_cross",
    "walk-forward": "fxlab walk-forward {long} sma_cross -g fast=10,20",
    "mock": "fxlab mock --for 1s",
    "purge": "fxlab purge",
    "retention": "fxlab retention",
    "archive": "fxlab archive --dry-run",
}


def test_every_option_with_an_example_is_known():
    found = {}
    for path, command in commands():
        for option in command.params:
            text = getattr(option, "help", None) or ""
            if re.search(r"\d|[A-Z]{3}_[A-Z]{3}|\w[=:]\w", text.replace("module:function", "")):
                names = [name for name in option.opts if name.startswith("--")]
                found.setdefault(text, (" ".join(path), (names or [option.name])[0]))
    assert set(found.values()) == set(EXAMPLES) | {("collect", "venue")}
    for text, key in found.items():
        assert all(example in text for example in EXAMPLES.get(key, ()))


def test_every_example_of_an_option_runs(at_home, lab, unique):
    name = unique("docs")
    walk = random_walk(9_000, symbol="BTC_USDT").drop("bid_qty_1", "ask_qty_1")
    day = walk.with_columns(
        pl.col("timestamp").sort() + pl.duration(seconds=pl.int_range(pl.len()) * 4)
    )
    lab.import_frame(day, "prices", session_id=name)
    with MockVenue(generated(["BTC_USDT"], rate=200)) as venue:
        for (command, option), examples in EXAMPLES.items():
            for example in examples:
                line = f"{AROUND[command]} {option} {example}"
                if command == "walk-forward":
                    line += " --train 6h" if option == "--test" else " --folds 2"
                run(line, venue=venue.url, long=name)


def test_commands_in_the_help_run(at_home):
    texts = [text for _, each in commands() for text in (each.help, each.epilog) if text]
    found = {line for text in texts for line in re.findall(r"bin/(fxlab .*)", text)}
    assert found == {"fxlab nightly nights.toml --out nights >> nights.log 2>&1"}
    shutil.copy("notebooks/batch/nights.toml", "nights.toml")
    run(found.pop().partition(" >>")[0])
