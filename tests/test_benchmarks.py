"""The benchmarks measure the same work: kernels, fxlab and exact arithmetic agree on it."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tomllib
from pathlib import Path

import exact
import pytest
import reasons
import sides
import turns
import works
from market import PAIRS, Market, Outcome, generate

ROOT = Path(__file__).parents[1]
ROWS = 20_000
OUR_RULE, _ = reasons.OUR_EXITS


@pytest.fixture(scope="module")
def market() -> Market:
    return generate(ROWS)


@pytest.fixture(scope="module")
def floor(market):
    return sides.find("bare kernel")(market)


@pytest.fixture(scope="module")
def ours(market):
    return sides.find("fxlab")(market)


def assert_same(found: Outcome, expected: Outcome) -> None:
    assert expected.trades > 0
    assert found.trades == expected.trades
    assert found.equity == pytest.approx(expected.equity, rel=1e-12)


def test_the_series_and_its_exact_answer_are_those_of_the_research():
    found = exact.one_run(generate(1_250_000))
    assert found.trades == 4_032
    assert found.equity == pytest.approx(17_493.026549, abs=5e-7)


def test_bare_kernels_equal_exact_arithmetic(market, floor):
    assert_same(floor.one_run(), exact.one_run(market))
    assert_same(floor.exits_at_print(), exact.exits(market))
    assert_same(floor.exits(), exact.exits(market, OUR_RULE))


def test_the_two_exit_rules_are_told_apart(floor):
    assert floor.exits().equity != pytest.approx(floor.exits_at_print().equity, rel=1e-6)


def test_every_pair_of_the_bare_sweep_equals_exact_arithmetic(market, floor):
    found, expected = floor.sweep(), exact.sweep(market)
    assert len(found.equities) == len(PAIRS)
    assert found.equities == pytest.approx(expected.equities, rel=1e-12)
    assert found.trades == expected.trades
    assert floor.sweep_one_worker().equities.tolist() == found.equities.tolist()


@pytest.mark.parametrize(
    ("method", "kernel"), [("one_run", "one_run"), ("full", "one_run"), ("exits", "exits")]
)
def test_fxlab_equals_the_bare_kernel(ours, floor, method, kernel):
    assert_same(getattr(ours, method)(), getattr(floor, kernel)())


def test_the_sweep_of_fxlab_equals_the_bare_one(ours, floor):
    assert ours.sweep().equities == pytest.approx(floor.sweep().equities, rel=1e-12)


def test_a_difference_is_explained_only_by_a_rule_that_gives_the_same_figure(market):
    task = works.Task("backtesting.py", "one_run")
    rule, reason = reasons.RULES["backtesting.py"]
    peer = exact.one_run(market, rule)
    verdict = reasons.judge(task, object(), market, peer)
    assert (verdict.agrees, verdict.reason) == (True, "")  # a satoshi is less than we can see
    coarse = exact.one_run(market, exact.Rule(lot=0.5))
    assert reasons.judge(task, object(), market, coarse).reason.startswith("UNEXPLAINED")
    hft = works.Task("hftbacktest", "exits")
    rule, reason = reasons.RULES["hftbacktest"]
    verdict = reasons.judge(hft, object(), market, exact.exits(market, rule))
    assert (verdict.agrees, verdict.reason) == (False, reason)


def test_rounded_crosses_are_named_as_the_reason(market):
    golden, death = exact.crosses(market)

    class Rounded:
        def crosses(self):
            return golden + 1, death

    found = exact.one_run(market, decided=Rounded().crosses())
    verdict = reasons.judge(works.Task("vectorbt rust", "one_run"), Rounded(), market, found)
    assert not verdict.agrees
    assert "rounded averages" in verdict.reason


def test_a_rule_and_rounded_crosses_together_are_found_out(market):
    golden, death = exact.crosses(market)
    rule, text = reasons.RULES["hftbacktest"]

    class Rounded:
        def crosses(self):
            return golden, death + 1

    found = exact.one_run(market, rule, decided=Rounded().crosses())
    verdict = reasons.judge(works.Task("hftbacktest", "one_run"), Rounded(), market, found)
    assert "rounded averages" in verdict.reason
    assert verdict.reason.endswith(text)


def test_a_sweep_that_is_wrong_in_one_pair_says_so(market):
    true = exact.sweep(market)
    wrong = true.equities.copy()
    wrong[7] *= 1.001
    verdict = reasons.judge(
        works.Task("fxlab", "sweep"), object(), market, Outcome.of_pairs(wrong, true.trades)
    )
    assert not verdict.agrees
    assert "1 of 100 equities differ" in verdict.reason


def test_a_peer_that_is_not_installed_says_what_to_install(monkeypatch):
    entry = sides.Entry("sides.of_nothing", "Nothing", ("no_such_backtester",))
    monkeypatch.setitem(sides.SIDES, "nothing", entry)
    with pytest.raises(sides.UnavailableError, match=r"no_such_backtester.*fxlab\[peers\]"):
        sides.find("nothing")


def test_a_peer_that_does_not_import_says_why(monkeypatch):
    monkeypatch.setitem(sides.SIDES, "broken", sides.Entry("sides.of_nothing", "N", ("numpy",)))
    with pytest.raises(sides.UnavailableError, match=r"sides\.of_nothing"):
        sides.find("broken")


def test_ratios_are_medians_of_pairs():
    ours = [turns.Spent(seconds, 2 * seconds) for seconds in (2.0, 30.0, 4.0)]
    found = turns.Turns(tuple(ours), (turns.Spent(1.0, 1.0),) * 3)
    assert (found.ratio, found.cpu_ratio) == (4.0, 8.0)
    assert found.best == (2.0, 1.0)


def test_a_budget_takes_rounds_away_but_leaves_two():
    calls = []
    found = turns.take_turns(lambda: calls.append("a"), lambda: calls.append("b"), 9, budget=0.0)
    assert len(found.ours) == len(found.other) == 2
    assert "".join(calls) == "ab" * 3  # one warm-up of each, then in turns


@pytest.mark.parametrize(
    ("goal", "ours_over_other", "ratio", "met"),
    [
        (">= 12", 1 / 13, 13.0, True),
        (">= 12", 1 / 11, 11.0, False),
        ("<= 5", 4.0, 4.0, True),
        ("<= 5", 6.0, 6.0, False),
        ("", 0.5, 2.0, None),
    ],
)
def test_goals_read_both_ways(goal, ours_over_other, ratio, met):
    contest = works.Contest("run", works.Task("a", "one_run"), works.Task("b", "one_run"), goal)
    found = contest.ratio(ours_over_other)
    assert found == pytest.approx(ratio)
    assert contest.met(found) is met


def test_every_method_that_a_table_names_exists():
    for work in works.TITLES:
        tasks = [task for each in works.contests(work) for task in (each.ours, each.other)]
        for task in tasks + works.MEMORY.get(work, []):
            try:
                assert hasattr(sides.find(task.side), task.method), task
            except sides.UnavailableError:
                continue


def test_peers_are_an_extra_that_ci_does_not_install():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    locked = (ROOT / "requirements" / "dev.txt").read_text(encoding="utf-8")
    for name in ("vectorbt", "hftbacktest", "backtesting"):
        assert any(each.startswith(name) for each in project["optional-dependencies"]["peers"])
        assert f"\n{name}==" not in locked


def test_rounds_without_a_budget_are_those_asked_for():
    found = turns.take_turns(lambda: None, lambda: None, 3)
    assert len(found.ours) == len(found.other) == 3


BENCHMARKS = ROOT / "benchmarks"
RUN = [path for path in sorted(BENCHMARKS.glob("*.py")) if "__main__" in path.read_text()]
"""Every benchmark: those files of the folder that can be run."""


def try_out(path: Path, *options: str) -> str:
    """Run a benchmark at its tiny size, on a server of its own if it wants one."""
    environment = {name: text for name, text in os.environ.items() if name[:6] != "FXLAB_"}
    done = subprocess.run(
        [sys.executable, str(path), "--tiny", *options],
        capture_output=True,
        text=True,
        check=False,
        env=environment,
        timeout=900,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


def test_what_cannot_be_run_is_used_by_what_can():
    sources = [path.read_text(encoding="utf-8") for path in BENCHMARKS.glob("**/*.py")]
    for path in set(BENCHMARKS.glob("*.py")) - set(RUN):
        uses = (f"from {path.stem} import", f"import {path.stem}\n")
        assert any(use in source for use in uses for source in sources), path.name


@pytest.mark.parametrize("path", RUN, ids=lambda path: path.stem)
def test_every_benchmark_has_a_tiny_size(path):
    source = path.read_text(encoding="utf-8")
    assert "from command import options" in source, "see benchmarks/command.py"
    assert " options(parser, " in source


@pytest.mark.parametrize(
    "path", [path for path in RUN if path.stem != "peers"], ids=lambda path: path.stem
)
def test_every_benchmark_runs_to_its_end(path):
    assert try_out(path).strip()


def test_the_whole_table_from_one_command(tmp_path):
    target = tmp_path / "table.json"
    try_out(BENCHMARKS / "peers.py", "--json", str(target))
    table = json.loads(target.read_text(encoding="utf-8"))
    assert {row["work"] for row in table["rows"]} == set(works.TITLES)
    for row in table["rows"]:
        assert row["ratio"] or "not installed" in row["skipped"] or "import" in row["skipped"], row
    mine = [each for each in table["outcomes"] if each["side"].startswith(("fxlab", "bare"))]
    assert len(mine) >= 4
    assert not [each for each in table["outcomes"] if "UNEXPLAINED" in each["reason"]]
    assert any(each.get("extra_mb", -1) >= 0 for each in table["memory"])
