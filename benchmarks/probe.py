"""One piece of work in a process of its own: its memory, or its time from nothing.

    python benchmarks/probe.py memory|first [SIDE] [METHOD] [FOLDER] [--tiny]

One side's caches and compilers cannot count for another's here. `FOLDER` holds a saved
market; without one, a market of `--rows` rows is made.
"""

from __future__ import annotations

import argparse
import gc
import json
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import sides
from command import options
from market import Market, Outcome, generate

WARM_UP_ROWS = 20_000
EVERY_SECONDS = 0.02
RESET_PEAK = "5"  # what /proc/PID/clear_refs takes to forget the largest resident size


def first(side: str, method: str, folder: Path) -> dict[str, object]:
    """Do the work once, with nothing warm but the compilers' caches on disk."""
    return _plain(getattr(sides.find(side)(Market.load(folder)), method)())


def memory(side: str, method: str, folder: Path) -> dict[str, object]:
    """Return the peak beyond what imports, compiled code and the side's own data take."""
    make = sides.find(side)
    getattr(make(generate(WARM_UP_ROWS)), method)()
    market = Market.load(folder)
    gc.collect()
    before, start = _status("VmRSS"), time.perf_counter()
    ready = make(market)
    gc.collect()
    base, prepared = _status("VmRSS"), time.perf_counter()
    Path("/proc/self/clear_refs").write_text(RESET_PEAK, encoding="ascii")
    outcome, children = _watched(getattr(ready, method))
    return {
        "extra_mb": _status("VmHWM") - base + children,
        "data_mb": base - before,
        "data_seconds": prepared - start,
        **_plain(outcome),
    }


def _watched(work: Callable[[], Outcome]) -> tuple[Outcome, float]:
    """Return the outcome, and the most that child processes held at a time, in MB."""
    import psutil

    me, done, peak = psutil.Process(), threading.Event(), [0.0]

    def watch() -> None:
        while not done.wait(EVERY_SECONDS):
            held = 0.0
            for child in me.children(recursive=True):
                try:
                    held += child.memory_full_info().uss / 1e6
                except psutil.Error:  # it ended between the listing and the look
                    continue
            peak[0] = max(peak[0], held)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        return work(), peak[0]
    finally:
        done.set()
        watcher.join()


def _status(name: str) -> float:
    """Return a size of this process in MB."""
    lines = Path("/proc/self/status").read_text(encoding="ascii").splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1_024 / 1e6


def _plain(outcome: Outcome) -> dict[str, object]:
    equities = outcome.equities
    sums = None if equities is None else float(np.sum(equities))
    return {"trades": outcome.trades, "equity": outcome.equity, "sum_of_equities": sums}


def main() -> None:
    """Do one piece of work and print what was found as JSON."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("kind", nargs="?", choices=("memory", "first"), default="memory")
    parser.add_argument("side", nargs="?", default="fxlab")
    parser.add_argument("method", nargs="?", default="one_run")
    parser.add_argument("folder", nargs="?", type=Path)
    parser.add_argument("--rows", type=int, default=1_250_000)
    asked = options(parser, rows=5_000)
    work = {"memory": memory, "first": first}[asked.kind]
    with tempfile.TemporaryDirectory() as made:
        if asked.folder is None:
            generate(asked.rows).save(Path(made))
        print(json.dumps(work(asked.side, asked.method, asked.folder or Path(made))))


if __name__ == "__main__":
    main()
