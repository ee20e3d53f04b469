"""The README's code is run as it stands; its lines of the shell are in test_shell_lines."""

from __future__ import annotations

import inspect
import re
import shutil
from pathlib import Path

import ipywidgets as w
from markets import random_walk

import fxlab
from fxlab import widgets
from fxlab._cli import app

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```python\n(.*?)```", README, re.DOTALL)


def test_the_first_example_of_the_readme_runs(server, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(BLOCKS[0], "<README>", "exec"), scope)  # noqa: S102 - our own text
    assert len([line for line in BLOCKS[0].splitlines() if line]) <= 12
    assert len(list((tmp_path / "reports").glob("*.html"))) == 1
    assert "sma_cross" in capsys.readouterr().out
    assert scope["sweep"].table.height == 6
    scope["lab"].close()


def test_the_panels_of_the_readme_are_those_of_the_package():
    named = set(re.findall(r"^\| `(\w+)\((?:lab|result)\)` \|", README, re.MULTILINE))
    boxes = {
        name
        for name in widgets.__all__
        if inspect.isclass(one := getattr(widgets, name)) and issubclass(one, w.VBox)
    }
    parts = {"ExecutionForm", "GridForm", "StrategyForm"}
    assert {*named - {"workbench"}, "Workbench"} == boxes - parts
    assert "`Workbench`" in README


def test_the_tour_of_the_readme_runs(server, lab, shared_data, tmp_path, monkeypatch):
    shutil.copytree(shared_data / "seed_csv_tree", tmp_path / "data")
    monkeypatch.chdir(tmp_path)
    scope = {}
    exec(compile(BLOCKS[1], "<README>", "exec"), scope)  # noqa: S102 - our own text
    assert scope["result"].ticks == 9_738
    assert list((tmp_path / "out").glob("*.html"))
    hurried = BLOCKS[2].replace("speed=10", "speed=1e6")
    assert hurried != BLOCKS[2]
    exec(compile(hurried, "<README>", "exec"), scope)  # noqa: S102
    assert scope["batch"].progress == 1.0
    assert scope["sweep"].table.height == 100
    scope["lab"].close()


def test_the_recording_of_the_readme_is_whole(lab):
    scope = {"lab": lab}
    exec(compile(BLOCKS[3], "<README>", "exec"), scope)  # noqa: S102
    assert scope["live"].status == "completed"
    assert scope["live"].prices_count > 100
    assert lab.verify(scope["live"].id).whole


def test_the_strategy_of_the_readme_trades(monkeypatch):
    from fxlab.backtester.strategy import strategy

    fxlab.strategies()  # the shipped ones are registered once, and not in a copy
    monkeypatch.setattr(strategy, "_REGISTRY", dict(strategy._REGISTRY))
    scope = {"fxlab": fxlab}
    exec(compile(BLOCKS[4], "<README>", "exec", dont_inherit=True), scope)  # noqa: S102
    result = fxlab.backtest(random_walk(2_000), "jump", {"window": 20})
    assert result.fills.height > 2


def test_the_two_commands_exist():
    for command in re.findall(r"^\./(scripts/\w+)$", README, re.MULTILINE):
        assert (ROOT / command).stat().st_mode & 0o111, command


def test_every_command_is_in_the_readme():
    (lines,) = re.findall(r"```sh\n(fxlab .*?)```", README, re.DOTALL)
    words = {word for line in lines.splitlines() for word in line.partition("#")[0].split()}
    shown = [each for each in app.registered_commands if not each.hidden]
    commands = {each.name or each.callback.__name__ for each in shown}
    assert commands | {group.name for group in app.registered_groups} <= words
