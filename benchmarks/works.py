"""Which comparisons are made, and what each should come to.

A goal is a ratio: ``">= 12"`` for how many times faster than a peer, ``"<= 5"`` for how many
times slower than the bare kernel or than a smaller piece of the same work.
"""

from __future__ import annotations

from dataclasses import dataclass

SMALL, LARGE = "small", "large"
PLAIN = ("one_run", "full", "exits", "sweep")


@dataclass(frozen=True)
class Task:
    """One side doing one piece of work on one market."""

    side: str
    method: str
    market: str = SMALL

    def __str__(self) -> str:
        """Return the side, and what of it where that is not plain."""
        if self.method in PLAIN:
            return self.side
        return f"{self.side}, {self.method.removeprefix('sweep_').replace('_', ' ')}"


@dataclass(frozen=True)
class Contest:
    """Ours against another, timed in turns in one process or in fresh ones."""

    work: str
    ours: Task
    other: Task
    goal: str = ""
    fresh: bool = False

    @property
    def against(self) -> str:
        """Return the other side, with its market where that is not ours."""
        same = self.other.market == self.ours.market
        other = str(self.other) if same else f"{self.other}, {self.other.market} market"
        return f"{other}, all metrics" if self.ours.method != self.other.method == "full" else other

    @property
    def against_bound(self) -> bool:
        """Return whether the ratio says how much slower we are, not how much faster."""
        return self.goal.startswith("<") or self.ours.side != self.other.side == BARE

    def ratio(self, ours_over_other: float) -> float:
        """Return the ratio in the sense of the goal."""
        return ours_over_other if self.against_bound else 1.0 / ours_over_other

    def met(self, ratio: float) -> bool | None:
        """Return whether the goal is met; None without a goal."""
        if not self.goal:
            return None
        bound = float(self.goal.split()[1])
        return ratio <= bound if self.against_bound else ratio >= bound


PEERS = ("vectorbt rust", "vectorbt numba", "hftbacktest", "backtesting.py")
OURS = "fxlab"
BARE = "bare kernel"

TITLES = {
    "run": "one run: trades and final equity",
    "full": "one run with every table and metric",
    "exits": "take-profit and stop-loss",
    "sweep": "sweep of 100 pairs",
    "cores": "sweep, one worker / two",
    "large": "one run of the large market",
    "fresh": "fresh process to first result",
}


def contests(work: str) -> list[Contest]:
    """Return the comparisons of one work, in the order of the table."""
    return _MAKERS[work]()


def _run() -> list[Contest]:
    ours = Task(OURS, "one_run")
    bounds = [
        Contest("run", ours, Task(BARE, "one_run"), "<= 5"),
        Contest("run", ours, Task("vectorbt rust", "full"), ">= 30"),
    ]
    return bounds + [Contest("run", ours, Task(peer, "one_run")) for peer in PEERS]


def _full() -> list[Contest]:
    ours = Task(OURS, "full")
    return [
        Contest("full", ours, Task(BARE, "one_run")),
        Contest("full", ours, Task("vectorbt rust", "full"), ">= 15"),
        Contest("full", ours, Task("vectorbt numba", "full"), ">= 15"),
    ]


def _exits() -> list[Contest]:
    ours = Task(OURS, "exits")
    goals = {"vectorbt rust": ">= 15", "vectorbt numba": ">= 15"}
    bounds = [Task(BARE, "exits"), Task(BARE, "exits_at_print")]
    return [Contest("exits", ours, bound, "<= 5") for bound in bounds] + [
        Contest("exits", ours, Task(peer, "exits"), goals.get(peer, "")) for peer in PEERS
    ]


def _sweep() -> list[Contest]:
    ours, unchecked = Task(OURS, "sweep"), Task(OURS, "sweep_unchecked")
    bare = Task(BARE, "sweep")
    ways = ("loop", "shared", "threads", "numpy_crosses", "stats")
    return [
        Contest("sweep", ours, bare, "<= 1.7"),
        Contest("sweep", unchecked, bare, "<= 1.7"),
        *(Contest("sweep", ours, Task("vectorbt rust", f"sweep_{way}"), ">= 60") for way in ways),
    ]


def _cores() -> list[Contest]:
    two, one = Task(OURS, "sweep_two_workers"), Task(OURS, "sweep_one_worker")
    return [
        Contest("cores", two, one, ">= 1.7"),
        Contest("cores", Task(BARE, "sweep"), Task(BARE, "sweep_one_worker")),
    ]


def _large() -> list[Contest]:
    ours = Task(OURS, "full", LARGE)
    peers = [Task(peer, "one_run", LARGE) for peer in PEERS]
    return [
        Contest("large", ours, Task(OURS, "full", SMALL), "<= 9"),
        Contest("large", ours, Task(BARE, "one_run", LARGE)),
        *(Contest("large", ours, peer) for peer in peers),
    ]


def _fresh() -> list[Contest]:
    ours = Task(OURS, "one_run")
    goals = {"vectorbt rust": ">= 4", "vectorbt numba": ">= 4"}
    return [
        Contest("fresh", ours, Task(peer, "one_run"), goals.get(peer, ""), fresh=True)
        for peer in PEERS
    ]


_MAKERS = {
    "run": _run,
    "full": _full,
    "exits": _exits,
    "sweep": _sweep,
    "cores": _cores,
    "large": _large,
    "fresh": _fresh,
}

MEMORY = {
    "full": [Task(OURS, "full"), Task("vectorbt rust", "full"), Task("vectorbt numba", "full")],
    "sweep": [
        Task(OURS, "sweep_of_25"),
        Task(OURS, "sweep"),
        Task(BARE, "sweep"),
        Task("vectorbt rust", "sweep_loop"),
        Task("vectorbt rust", "sweep_shared"),
        Task("vectorbt rust", "sweep_threads"),
        Task("vectorbt rust", "sweep_numpy_crosses"),
    ],
    "exits": [Task(OURS, "exits"), Task("vectorbt rust", "exits"), Task("hftbacktest", "exits")],
    "large": [
        Task(OURS, "full", SMALL),
        Task(OURS, "full", LARGE),
        Task("vectorbt rust", "one_run", LARGE),
        Task("hftbacktest", "one_run", LARGE),
    ],
}
"""Tasks whose memory is measured, each in a process of its own."""
