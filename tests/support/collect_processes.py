"""Real processes to kill: a server, and the command line that records."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Self

import psutil

from fxlab._questdb import server as embedded
from fxlab.config import Settings

STARTED = re.compile(r"recording session (\S+);")
PATIENCE = 120.0


def eventually(holds: Callable[[], object], what: str, seconds: float = PATIENCE) -> None:
    """Wait until something comes true."""
    end = time.monotonic() + seconds
    while not holds():
        assert time.monotonic() < end, f"not within {seconds:g} s: {what}"
        time.sleep(0.02)


def read_to_the_end(url: str) -> None:
    """Wait until nothing waits in any connection of an address, on neither side.

    A venue that has fallen silent has sent everything; on a busy machine a recorder may need
    seconds to read it.
    """
    port = f":{int(url.rpartition(':')[2]):04X}"

    def nothing_waits() -> bool:
        lines = Path("/proc/net/tcp").read_text(encoding="ascii").splitlines()[1:]
        ends = [line.split()[1:5] for line in lines if port in line]
        return all(set(waiting) <= set("0:") for *_, state, waiting in ends if state == "01")

    eventually(nothing_waits, "what was sent is read")


class Server:
    """An embedded server that a test may kill and stop."""

    def __init__(self, settings: Settings) -> None:
        self.settings = settings

    @property
    def pid(self) -> int:
        """Return its process."""
        pid = embedded.status(self.settings).pid
        assert pid is not None
        return pid

    def up(self) -> None:
        """Start it, unless it runs."""
        embedded.up(self.settings)

    def kill(self) -> None:
        """End it as a power cut would, and wait until it is gone."""
        process = psutil.Process(self.pid)
        process.send_signal(signal.SIGKILL)
        process.wait(PATIENCE)

    def pause(self) -> None:
        """Let it answer nothing any more, with all connections open."""
        os.kill(self.pid, signal.SIGSTOP)

    def resume(self) -> None:
        """Let it go on, if it was paused."""
        if embedded.status(self.settings).state == "running":
            os.kill(self.pid, signal.SIGCONT)


class Command:
    """``fxlab ...`` in a process of its own; ended at the latest when the block is left.

    Parameters
    ----------
    settings
        For which server and home.
    log
        Where its words go.
    *words
        Its arguments.
    limit
        Called in the process before it starts.
    """

    def __init__(
        self, settings: Settings, log: Path, *words: str, limit: Callable[[], None] | None = None
    ) -> None:
        self.log = log
        with log.open("w", encoding="utf-8") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "fxlab", *words],
                env={**os.environ, **settings.environment(), "COLUMNS": "200"},
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                preexec_fn=limit,  # noqa: PLW1509 - no threads between here and exec matter
            )

    @property
    def said(self) -> str:
        """Return what it has printed."""
        return self.log.read_text(encoding="utf-8")

    def wait(self, seconds: float = PATIENCE) -> int:
        """Wait for its end and return its exit code."""
        return self.process.wait(seconds)

    def kill(self) -> None:
        """End it with no chance to say a word."""
        self.process.kill()
        self.process.wait(PATIENCE)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.kill()


class Recording(Command):
    """``fxlab collect``; it records once this is made.

    Parameters
    ----------
    url
        Of the mock venue.
    *words
        Symbols and options.
    """

    def __init__(
        self,
        settings: Settings,
        log: Path,
        url: str,
        *words: str,
        venue: str = "binance",
        limit: Callable[[], None] | None = None,
    ) -> None:
        super().__init__(settings, log, "collect", venue, *words, "--url", url, limit=limit)
        self._settings = settings
        eventually(lambda: STARTED.search(self.said) or self._over, "it records")
        found = STARTED.search(self.said)
        assert found is not None, self.said
        self.session_id = found[1]

    @property
    def _over(self) -> bool:
        return self.process.poll() is not None

    @property
    def journal(self) -> Path:
        """Return where its journal is."""
        return self._settings.home / "journals" / f"{self.session_id}.journal"

    def stop(self, number: int = signal.SIGTERM, *, code: int = 0) -> None:
        """Ask it to end, and wait until it has."""
        self.process.send_signal(number)
        assert self.wait() == code, self.said

    def rss(self) -> int:
        """Return the bytes of memory that it holds."""
        return int(psutil.Process(self.process.pid).memory_info().rss)
