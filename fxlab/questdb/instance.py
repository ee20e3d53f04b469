"""What is on the disk about the embedded server: its folders, its passwords, the one that runs.

The instance file is how a command line, ten notebooks and a nightly job find the same server.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import tempfile
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Self

import psutil

from fxlab.config import Settings
from fxlab.questdb.endpoint import Endpoint
from fxlab.questdb.server_config import Passwords

SAME_BIRTH = 1.0
"""Seconds by which two readings of one process's time of birth may differ."""


@dataclass(frozen=True, slots=True)
class Place:
    """The embedded server's files, all under one folder that only the owner can open."""

    home: Path

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the place that the settings name."""
        return cls(settings.home.expanduser().absolute())

    @property
    def root(self) -> Path:
        """Return the server's data root."""
        return self.home / "questdb"

    @property
    def config(self) -> Path:
        """Return the server's configuration folder."""
        return self.root / "conf"

    @property
    def log(self) -> Path:
        """Return the file with what the server prints."""
        return self.root / "log" / "server.log"

    @property
    def instance(self) -> Path:
        """Return the file that tells which server runs."""
        return self.root / "instance.json"

    @property
    def passwords(self) -> Path:
        """Return the file of the passwords, kept from start to start."""
        return self.root / "passwords.json"

    @property
    def lock(self) -> Path:
        """Return the file whose lock lets one `up` or `down` work at a time."""
        return self.root / "up.lock"


@dataclass(frozen=True, slots=True)
class Instance:
    """A server that was started: a pid alone would soon name another program."""

    pid: int
    born: float
    """When the process was created, in seconds since 1970 as psutil tells it."""
    version: str
    started_at: datetime
    endpoint: Endpoint

    def save(self, path: Path) -> None:
        """Write the instance file."""
        content = dataclasses.asdict(self) | {"started_at": self.started_at.isoformat()}
        write_private(path, json.dumps(content, indent=1))

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read the instance file; None when there is none, or none that can be understood."""
        try:
            content = json.loads(path.read_text(encoding="utf-8"))
            endpoint = Endpoint(**content.pop("endpoint"))
            started_at = datetime.fromisoformat(content.pop("started_at"))
            return cls(**content, endpoint=endpoint, started_at=started_at)
        except (OSError, ValueError, TypeError, KeyError, AttributeError):
            return None  # it is written atomically: what cannot be read is not fxlab's

    def process(self, root: Path) -> psutil.Process | None:
        """Return the server's process, or None when it has ended."""
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:
                return None
            # A stepped clock moves the time of birth; then the command line names the root.
            same = abs(process.create_time() - self.born) < SAME_BIRTH
            return process if same or str(root) in process.cmdline() else None
        except psutil.Error:
            return None


def load_passwords(path: Path) -> Passwords:
    """Return the kept passwords, or make random ones and keep them."""
    try:
        return Passwords(**json.loads(path.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError):
        passwords = Passwords(secrets.token_urlsafe(24), secrets.token_urlsafe(24))
        write_private(path, json.dumps(dataclasses.asdict(passwords)))
        return passwords


def write_private(path: Path, text: str) -> None:
    """Write a file that only its owner can read, whole or not at all."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")  # mkstemp: mode 0600
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        Path(name).replace(path)
    except BaseException:
        with contextlib.suppress(OSError):
            Path(name).unlink()
        raise
