"""Time two pieces of work in turn, and say who else was using the machine meanwhile.

Both sides take turns (A B A B ...), so a machine that slows down slows both, and what counts is
the median of the pairwise ratios. The load average would count our own work; what is shown is how
many cores *other* processes kept busy.
"""

from __future__ import annotations

import gc
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

STAT = Path("/proc/stat")
FEWEST = 2


@dataclass(frozen=True)
class Turns:
    """The seconds of both sides, round by round, and the cores that others kept busy."""

    ours: tuple[float, ...]
    other: tuple[float, ...]
    others_cores: float | None = None

    @property
    def ratio(self) -> float:
        """Return the median of `ours` over `other`, pair by pair."""
        return statistics.median(a / b for a, b in zip(self.ours, self.other, strict=True))


def take_turns(
    ours: Callable[[], object],
    other: Callable[[], object],
    rounds: int,
    budget: float = float("inf"),
) -> Turns:
    """Time both in turn after one warm-up of each; fewer rounds if they would exceed `budget` s."""
    one_pair = seconds(ours) + seconds(other)
    rounds = max(FEWEST, min(rounds, int(budget / one_pair)))
    before = Busy.now()
    pairs = [(seconds(ours), seconds(other)) for _ in range(rounds)]
    mine, theirs = zip(*pairs, strict=True)
    return Turns(mine, theirs, Busy.now().others_since(before))


def seconds(work: Callable[[], object]) -> float:
    """Return how long one call takes; garbage of whoever ran before is collected first."""
    gc.collect()
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


@dataclass(frozen=True)
class Busy:
    """Processor seconds used so far: by the whole machine, by this process and its children."""

    wall: float
    machine: float | None
    own: float

    @classmethod
    def now(cls) -> Busy:
        """Read the counters; the machine's are known on Linux only."""
        used = os.times()
        own = used.user + used.system + used.children_user + used.children_system
        return cls(time.perf_counter(), _machine_seconds(), own)

    def others_since(self, before: Busy) -> float | None:
        """Return the average number of cores that other processes kept busy since `before`."""
        if self.machine is None or before.machine is None:
            return None
        others = (self.machine - before.machine) - (self.own - before.own)
        return max(0.0, others) / max(1e-9, self.wall - before.wall)


def _machine_seconds() -> float | None:
    if not STAT.exists():
        return None
    fields = STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
