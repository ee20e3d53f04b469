"""fxlab against its peers and against bare kernels, as ratios, all in one run.

    python benchmarks/peers.py [--rows 1250000] [--large-rows 10000000] [--rounds 5]
                               [--only run,full,exits,sweep,cores,large,fresh]
                               [--json FILE] [--tiny]

It needs fxlab and, for the peers' rows, `pip install 'fxlab[peers]'`; a peer that does not import
is a row that says so. Times are taken in turns in this process, memory and first results in fresh
processes. Every outcome is compared with exact whole-number arithmetic.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import reasons
import sides
from command import options
from market import Market, Outcome, generate
from turns import take_turns
from works import LARGE, MEMORY, SMALL, TITLES, Contest, Task, contests

PROBE = Path(__file__).with_name("probe.py")
BUDGET_SECONDS = 120.0  # a comparison takes about so long at most, but two rounds at least
PACKAGES = ("fxlab", "polars", "numpy", "numba", "vectorbt", "vectorbt-rust", "hftbacktest")


@dataclass
class Row:
    """One comparison; times in seconds, `ratio` in the sense of its goal."""

    work: str
    ours: str
    other: str
    goal: str
    best_ours: float | None = None
    best_other: float | None = None
    ratio: float | None = None
    cpu_ratio: float | None = None
    met: bool | None = None
    rounds: int = 0
    load: float | None = None
    others_cores: float | None = None
    skipped: str = ""


@dataclass
class Arena:
    """The markets, and the sides that have taken their form of the data."""

    sizes: dict[str, int]
    folder: Path
    markets: dict[str, Market] = field(default_factory=dict)
    ready: dict[tuple[str, str], Any] = field(default_factory=dict)
    outcomes: dict[Task, Outcome] = field(default_factory=dict)

    def market(self, name: str) -> Market:
        """Return a market, made and saved when first asked for."""
        if name not in self.markets:
            self.markets[name] = generate(self.sizes[name])
            self.path(name).mkdir()
            self.markets[name].save(self.path(name))
        return self.markets[name]

    def path(self, name: str) -> Path:
        """Return where a market is saved."""
        return self.folder / name

    def side(self, task: Task) -> Any:
        """Return a side with its data."""
        key = (task.side, task.market)
        if key not in self.ready:
            self.ready[key] = sides.find(task.side)(self.market(task.market))
        return self.ready[key]

    def work(self, task: Task) -> Callable[[], Outcome]:
        """Return a task as a function that keeps its outcome."""
        method = getattr(self.side(task), task.method)

        def run() -> Outcome:
            self.outcomes[task] = method()
            return self.outcomes[task]

        return run

    def fresh(self, task: Task) -> Callable[[], object]:
        """Return a task as a process of its own that does it once."""
        sides.find(task.side)
        self.market(task.market)
        return lambda: self.probe("first", task)

    def probe(self, kind: str, task: Task) -> dict[str, Any]:
        """Run one task in a process of its own and return what it found."""
        self.market(task.market)
        command = [sys.executable, "-W", "ignore", str(PROBE), kind, task.side, task.method]
        done = subprocess.run(
            [*command, str(self.path(task.market))], capture_output=True, text=True, check=False
        )
        if done.returncode:
            last = done.stderr.strip().splitlines()[-1:] or ["no word"]
            raise sides.UnavailableError(
                f"its process ended with {done.returncode}: {last[0]:.200}"
            )
        return json.loads(done.stdout.splitlines()[-1])


def time_contest(arena: Arena, contest: Contest, rounds: int) -> Row:
    """Time one comparison; a side that cannot run makes a row with the reason."""
    row = Row(contest.work, str(contest.ours), contest.against, contest.goal)
    start = arena.fresh if contest.fresh else arena.work
    try:
        row.load = os.getloadavg()[0]
        turns = take_turns(start(contest.ours), start(contest.other), rounds, budget=BUDGET_SECONDS)
    except Exception as error:  # noqa: BLE001 - a peer may raise anything; the others go on
        row.skipped = str(error) if isinstance(error, sides.UnavailableError) else f"{error!r:.200}"
        return row
    row.best_ours, row.best_other = turns.best
    row.ratio, row.cpu_ratio = contest.ratio(turns.ratio), contest.ratio(turns.cpu_ratio)
    row.rounds = len(turns.ours)
    row.met, row.others_cores = contest.met(row.ratio), turns.others_cores
    return row


def measure_memory(arena: Arena, task: Task) -> dict[str, Any]:
    """Return a task's extra memory, or why it is not known."""
    label = {"side": str(task), "method": task.method, "market": task.market}
    try:
        sides.find(task.side)
        return {**label, **arena.probe("memory", task)}
    except sides.UnavailableError as error:
        return {**label, "skipped": str(error)}


def judge(arena: Arena, task: Task, outcome: Outcome) -> dict[str, Any]:
    """Return a task's outcome beside that of exact arithmetic."""
    verdict = reasons.judge(task, arena.side(task), arena.market(task.market), outcome)
    return {
        "side": str(task),
        "method": task.method,
        "market": task.market,
        "trades": outcome.trades,
        "equity": outcome.equity,
        "exact_trades": verdict.expected.trades,
        "exact_equity": verdict.expected.equity,
        "agrees": verdict.agrees,
        "reason": verdict.reason,
    }


def run(sizes: dict[str, int], rounds: int, wanted: list[str]) -> dict[str, Any]:
    """Return rows, memory and outcomes of the wanted works."""
    found: dict[str, Any] = {"machine": _machine(), "sizes": sizes}
    found |= {"rows": [], "memory": [], "outcomes": []}
    with tempfile.TemporaryDirectory() as folder:
        arena = Arena(sizes, Path(folder))
        for work in wanted:
            for contest in contests(work):
                row = time_contest(arena, contest, rounds)
                found["rows"].append(asdict(row))
                print(_line(row), flush=True)
        found["outcomes"] = [judge(arena, *each) for each in arena.outcomes.items()]
        arena.ready.clear()  # room for the processes that are measured
        for task in dict.fromkeys(task for work in wanted for task in MEMORY.get(work, ())):
            found["memory"].append(measure_memory(arena, task))
    return found


def _machine() -> dict[str, Any]:
    versions = {}
    for name in (*PACKAGES, "backtesting"):
        try:
            versions[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            versions[name] = None
    return {"cores": os.cpu_count(), "python": platform.python_version(), "versions": versions}


def _line(row: Row) -> str:
    head = f"{TITLES[row.work]:36} {row.ours:20} {row.other:32}"
    if row.skipped:
        return f"{head} skipped: {row.skipped}"
    word = {True: "met", False: "MISSED", None: ""}[row.met]
    load = "?" if row.others_cores is None else f"{row.others_cores:.2f}"
    return (
        f"{head} {row.best_ours * 1e3:10.1f} {row.best_other * 1e3:10.1f} {row.ratio:8.2f} "
        f"{row.cpu_ratio:8.2f} "
        f"{row.goal:>6} {word:6} {row.rounds:3}  {load:>6} {row.load:5.2f}"
    )


def _heading() -> str:
    return (
        f"{'work':36} {'ours':20} {'against':32} {'best ms':>10} {'best ms':>10} {'ratio':>8} "
        f"{'of CPU':>8} {'goal':>6} {'':6} {'n':>3} {'others':>6} {'load':>5}"
    )


def _print_memory(found: list[dict[str, Any]]) -> None:
    print(f"\n{'memory, each in its own process':52} {'market':7} {'extra MB':>9} {'data MB':>8}")
    for each in found:
        numbers = each.get("skipped") or f"{each['extra_mb']:9.1f} {each['data_mb']:8.1f}"
        print(f"{each['side'] + ' (' + each['method'] + ')':52} {each['market']:7} {numbers}")


def _print_outcomes(found: list[dict[str, Any]]) -> None:
    print(f"\n{'outcome':52} {'market':7} {'trades':>8} {'equity':>20}  against exact arithmetic")
    for each in found:
        trades = "-" if each["trades"] is None else f"{each['trades']:,}"
        word = "agrees" if each["agrees"] else f"differs: {each['reason']}"
        label = f"{each['side']} ({each['method']})"
        print(f"{label:52} {each['market']:7} {trades:>8} {each['equity']:20,.6f}  {word}")


def main() -> None:
    """Run the comparisons, print the tables, write the file."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=1_250_000)
    parser.add_argument("--large-rows", type=int, default=10_000_000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--only", default=",".join(TITLES), help=f"of {', '.join(TITLES)}")
    parser.add_argument("--json", type=Path, help="also write everything to this file")
    asked = options(parser, rows=5_000, large_rows=10_000, rounds=2)
    wanted = asked.only.split(",")
    if unknown := [work for work in wanted if work not in TITLES]:
        parser.error(f"no work {unknown[0]!r}; there are {', '.join(TITLES)}")
    print(_heading())
    found = run({SMALL: asked.rows, LARGE: asked.large_rows}, asked.rounds, wanted)
    _print_memory(found["memory"])
    _print_outcomes(found["outcomes"])
    if asked.json:
        asked.json.write_text(json.dumps(found, indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
