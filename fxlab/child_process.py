"""Processes of our own for work that must not run in this one: an executor of one process each.

A process is started as a program, never forked: a fork copies locks that threads hold, and
importing the user's script again would run it again. It ends with this process, whatever ends that.
"""

from __future__ import annotations

import os
import re
import threading
import time
from collections.abc import Mapping
from concurrent.futures import BrokenExecutor
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from loky import ProcessPoolExecutor

LOOK_SECONDS: Final = 0.2
"""How often a process looks whether its parent is there."""


def start(environment: Mapping[str, str] | None = None) -> ProcessPoolExecutor:
    """Return an executor of one process, started with the first task that it is given.

    Parameters
    ----------
    environment
        Variables for it, beside those of this process.
    """
    from loky import ProcessPoolExecutor

    # What a task leaves in memory is meant to stay: loky takes it for a leak from 300 MB on.
    variables = {**(environment or {}), "LOKY_MAX_MEMORY_LEAK_SIZE": "1e18"}
    return ProcessPoolExecutor(1, env=variables, initializer=_begin, initargs=(os.getpid(),))


def end(executor: Any) -> None:  # noqa: ANN401 - loky ships no types
    """Kill the process and all that it has started, and wait until they are gone."""
    executor.shutdown(wait=True, kill_workers=True)


def exit_code(error: BrokenExecutor) -> str:
    """Return the code that a lost process ended with, as far as it is known."""
    return ", ".join(re.findall(r"\((-?\d+)\)", str(error))) or "unknown"


def _begin(parent: int) -> None:
    """Prepare the new process: it hears of its parent's end only, and prints to standard error."""
    os.setsid()  # a Ctrl-C in the terminal is for the parent
    os.dup2(2, 1)
    threading.Thread(target=_end_with, args=(parent,), daemon=True).start()


def _end_with(parent: int) -> None:
    # Not psutil's wait: where there is no pidfd, it takes a parent that nobody reaps for alive.
    while os.getppid() == parent:
        time.sleep(LOOK_SECONDS)
    os._exit(1)
