"""Time two pieces of work in turn, and say who else was using the machine meanwhile.

Both sides take turns (A B A B ...), so a machine that slows down slows both, and what counts is
the median of the pairwise ratios. On a machine that others use, the ratio of processor time says
more than that of time passed. The load average would count our own work; what is shown is how
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
class Spent:
    """What one call took: time passed, and processor time of all threads and children."""

    seconds: float
    cpu: float


@dataclass(frozen=True)
class Turns:
    """What both sides took, round by round, and the cores that others kept busy."""

    ours: tuple[Spent, ...]
    other: tuple[Spent, ...]
    others_cores: float | None = None

    @property
    def best(self) -> tuple[float, float]:
        """Return the shortest time of each side."""
        ours, other = (min(each.seconds for each in side) for side in (self.ours, self.other))
        return ours, other

    @property
    def ratio(self) -> float:
        """Return the median of our time over the other's, pair by pair."""
        pairs = zip(self.ours, self.other, strict=True)
        return statistics.median(mine.seconds / theirs.seconds for mine, theirs in pairs)

    @property
    def cpu_ratio(self) -> float:
        """Return the same of processor time."""
        pairs = zip(self.ours, self.other, strict=True)
        return statistics.median(mine.cpu / max(theirs.cpu, 1e-9) for mine, theirs in pairs)


def take_turns(
    ours: Callable[[], object],
    other: Callable[[], object],
    rounds: int,
    budget: float = float("inf"),
) -> Turns:
    """Time both in turn after one warm-up of each; fewer rounds if they would exceed `budget` s."""
    one_pair = spend(ours).seconds + spend(other).seconds
    rounds = max(FEWEST, int(min(rounds, budget / one_pair)))
    before = Busy.now()
    pairs = [(spend(ours), spend(other)) for _ in range(rounds)]
    mine, theirs = zip(*pairs, strict=True)
    return Turns(mine, theirs, Busy.now().others_since(before))


def spend(work: Callable[[], object]) -> Spent:
    """Return what one call takes; garbage of whoever ran before is collected first."""
    gc.collect()
    start, used = time.perf_counter(), _own_seconds()
    work()
    return Spent(time.perf_counter() - start, _own_seconds() - used)


@dataclass(frozen=True)
class Busy:
    """Processor seconds used so far: by the whole machine, by this process and its children."""

    wall: float
    machine: float | None
    own: float

    @classmethod
    def now(cls) -> Busy:
        """Read the counters; the machine's are known on Linux only."""
        return cls(time.perf_counter(), _machine_seconds(), _own_seconds())

    def others_since(self, before: Busy) -> float | None:
        """Return the average number of cores that other processes kept busy since `before`."""
        if self.machine is None or before.machine is None:
            return None
        others = (self.machine - before.machine) - (self.own - before.own)
        return max(0.0, others) / max(1e-9, self.wall - before.wall)


def _own_seconds() -> float:
    children = os.times()
    return time.process_time() + children.children_user + children.children_system


def _machine_seconds() -> float | None:
    if not STAT.exists():
        return None
    fields = STAT.read_text(encoding="ascii").split("\n", 1)[0].split()[1:9]
    user, nice, system, _idle, _waiting, irq, softirq, steal = map(int, fields)
    return (user + nice + system + irq + softirq + steal) / os.sysconf("SC_CLK_TCK")
