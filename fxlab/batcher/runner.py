"""Runner of notebooks in parallel, each in its own process; and what a notebook's last cell saves.

A process ends when it is told to, or when its parent ends. `save_outputs` is the last cell of a
batch's notebook: it saves the run, writes its report and leaves its metrics for the batch.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fxlab.backtester.report._summary import sparkline
from fxlab.backtester.report._tearsheet import write_whole

if TYPE_CHECKING:
    from fxlab.backtester.result import Result
    from fxlab.lab import Lab


NOTEBOOK: Final = "notebook.ipynb"
LOG: Final = "log.txt"
LOOK_EVERY: Final = 0.1  # seconds


@dataclass(frozen=True)
class NotebookTask:
    """A notebook to run, what to give it, and the folder for what comes out."""

    path: Path
    parameters: Mapping[str, Any]
    folder: Path


@dataclass(frozen=True)
class NotebookOutcome:
    """How a notebook ended: done, failed, or died; why; after how long."""

    state: str
    error: str
    seconds: float


def run_all(
    orders: Sequence[NotebookTask],
    workers: int,
    environment: Mapping[str, str],
    tick: Callable[[int], None],
) -> Iterator[tuple[int, NotebookOutcome]]:
    """Yield how notebooks ended, as they do, with their place in `orders`.

    Parameters
    ----------
    workers
        How many run at a time.
    environment
        Variables for them, beside those of this process.
    tick
        Told several times a second how many are running; whatever it raises stops them all.
    """
    waiting = list(enumerate(orders))[::-1]
    running: dict[int, _Process] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                number, order = waiting.pop()
                running[number] = _Process(order, environment)
            time.sleep(LOOK_EVERY)
            tick(len(running))
            for number, process in list(running.items()):
                ended = process.look()
                if ended is not None:
                    del running[number]
                    yield number, ended
    finally:
        for process in running.values():
            process.stop()


class _Process:
    """One notebook under way."""

    def __init__(self, order: NotebookTask, environment: Mapping[str, str]) -> None:
        order.folder.mkdir(parents=True, exist_ok=True)
        for name in (NOTEBOOK, f".{NOTEBOOK}", FIGURES):  # of an earlier attempt
            (order.folder / name).unlink(missing_ok=True)
        self._began = time.monotonic()
        with (order.folder / LOG).open("wb") as log:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "fxlab.batcher._notebooks"],
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=log,
                env={**os.environ, **environment},
                start_new_session=True,  # a Ctrl-C in the terminal is for the parent
            )
        asked = {
            "path": str(order.path),
            "target": str(order.folder / NOTEBOOK),
            "parameters": dict(order.parameters),
        }
        self._say(json.dumps(asked))

    def look(self) -> NotebookOutcome | None:
        """Return how it ended, or None while it runs."""
        code = self._process.poll()
        if code is None:
            return None
        said, _ = self._process.communicate()
        seconds = time.monotonic() - self._began
        try:
            answer = json.loads(said)
        except ValueError:
            return NotebookOutcome(
                "died", f"its process ended with code {code}; see {LOG}", seconds
            )
        return NotebookOutcome(answer["state"], answer["error"], seconds)

    def stop(self) -> None:
        """Kill it; the kernel notices."""
        self._process.kill()
        self._process.communicate()

    def _say(self, line: str) -> None:
        stream = self._process.stdin
        assert stream is not None  # noqa: S101 - for the type checker: it is a pipe
        try:
            stream.write(f"{line}\n".encode())
            stream.flush()
        except BrokenPipeError:  # it has ended already, which `look` tells
            return


def environment_for(settings: Mapping[str, str]) -> dict[str, str]:
    """Return the variables with which another process finds the same server and modules."""
    own = [path or os.getcwd() for path in sys.path]  # noqa: PTH109 - "" is the working directory
    places = [path for path in own if not path.startswith((sys.prefix, sys.base_prefix))]
    return {
        **settings,
        "PYTHONPATH": os.pathsep.join(dict.fromkeys(places)),
        "JUPYTER_PREFER_ENV_PATH": "1",  # the kernel of this Python, not one of the user's
    }


FIGURES: Final = "result.json"


def save_outputs(result: Result, lab: Lab, folder: str | Path) -> str:
    """Save a run, and leave what a batch's index shows of it; return the run's id.

    Parameters
    ----------
    result
        A finished backtest.
    lab
        Where it is saved.
    folder
        Takes the figures; the report goes into the folder around it, beside the others of a batch.
        Nothing is written if it is empty.
    """
    saved = result.save(lab)
    if not folder:
        return saved
    named = replace(result, run_id=saved)  # a run that was saved before keeps its name
    report = named.report(Path(folder).parent)
    left = {
        "run_id": saved,
        "fingerprint": result.fingerprint,
        "report": report.name,
        "ticks": result.ticks,
        "metrics": {n: v if math.isfinite(v) else None for n, v in result.metrics.items()},
        "sparkline": sparkline(result.equity["equity"].to_list()),
    }
    write_whole(Path(folder) / FIGURES, json.dumps(left))
    return saved
