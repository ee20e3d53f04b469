"""Limits of the server: memory maps, open files and disk, beside what its data may need.

A reader of a table maps and opens the files of each partition that it has touched, and keeps them.
When Linux gives no more maps, the server's next query fails and then the server dies; so what the
system allows and what the data may need are compared beforehand, and the message holds the command
that mends it.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Self

import psutil

from fxlab._questdb.server_config import ServerLocation
from fxlab.config import Settings
from fxlab.errors import ImportRefused

READERS: Final = 4
"""As many as read one table at once: four processes, or four threads of one."""
_OPEN_AT_ONCE: Final = 120
"""Partitions of a table that a reader has open: queries ask for a year at a time, and what rests
keeps a few (`server_config`). Twice as many as a year has weeks."""
_USUAL: Final = 2_000
"""Maps and files of a server without data."""
_ROOM: Final = 1.25
"""Partitions and columns come while a server runs."""
LEAST_DISK: Final = 2 * 2**30
_GROWTH: Final = dict.fromkeys((".csv", ".txt", ".jsonl", ".ndjson", ".arrow", ".ipc"), 2)
_PACKED_GROWTH: Final = 8
"""Bytes that a byte of a file becomes, in the log and in the tables together."""
_MAPS: Final = Path("/proc/sys/vm/max_map_count")
_SUDO: Final = "" if os.geteuid() == 0 else "sudo "


@dataclass(frozen=True, slots=True)
class Machine:
    """What the system gives: memory maps to a process (0 where it does not tell), and disk."""

    max_map_count: int
    free_disk: int

    @classmethod
    def of(cls, folder: Path) -> Self:
        """Return what this machine gives, on the disk where a folder is or will be."""
        ground = next(path for path in (folder, *folder.parents) if path.exists())
        return cls(_number(_MAPS), shutil.disk_usage(ground).free)


@dataclass(frozen=True, slots=True)
class Limit:
    """One thing that a server can run out of.

    Attributes
    ----------
    name
        For people.
    allowed, used, needed
        What the system allows, what the running server has, what its data may need at most. None
        where it cannot be known.
    cure
        What raises it: a command where there is one.
    in_bytes
        Whether the numbers are bytes.
    """

    name: str
    allowed: int
    used: int | None
    needed: int
    cure: str
    in_bytes: bool = False

    @property
    def is_enough(self) -> bool:
        """Whether the data fits and the running server is not near the end."""
        return self.needed <= self.allowed and (self.used or 0) <= 0.8 * self.allowed

    def __str__(self) -> str:
        show = gibibytes if self.in_bytes else "{:,}".format
        used = "" if self.used is None else f"{show(self.used)} in use, "
        there = "free" if self.in_bytes else "allowed"
        return (
            f"{self.name}: {used}the data may need {show(self.needed)} of {show(self.allowed)} "
            f"{there}"
        )


def of(settings: Settings, pid: int | None = None, machine: Machine | None = None) -> list[Limit]:
    """Return the limits of the embedded server, running (then its pid is given) or not.

    For a server of the user's own there is only the disk of the home: journals are there.
    """
    place = ServerLocation.of(settings)
    machine = machine or Machine.of(place.home)
    disk = f"free space on the disk of {place.home}, or move it and set FXLAB_HOME"
    if not settings.is_embedded:
        return [Limit("disk", machine.free_disk, None, LEAST_DISK, disk, in_bytes=True)]
    files, largest = _demand(place.root / "db")
    needed = int((_USUAL + READERS * files) * _ROOM)
    found = []
    if allowed := machine.max_map_count:
        cure = f"{_SUDO}sysctl -w vm.max_map_count={2 ** max(20, needed.bit_length())}"
        found.append(Limit("memory maps", allowed, pid and maps(pid), needed, cure))
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        allowed = process.rlimit(psutil.RLIMIT_NOFILE)[1]  # Java raises its own to the hard limit
        enough = 2 ** max(16, needed.bit_length())
        # Only root may raise a hard limit: `ulimit -n` would be refused.
        cure = f"fxlab down; {_SUDO}prlimit --pid $$ --nofile={enough}; fxlab up"
        used = process.num_fds() if pid else None
        found.append(Limit("open files", allowed % 2**63, used, needed, cure))
    # A late row has its partition rewritten, beside the old one.
    room = LEAST_DISK + largest
    found.append(Limit("disk", machine.free_disk, None, room, disk, in_bytes=True))
    return found


def check_room(settings: Settings, files: Iterable[Path], machine: Machine | None = None) -> None:
    """Refuse an import that the disk has no room for; a server of the user's own is not asked.

    Raises
    ------
    ImportRefused
        With what the files need and what is free.
    """
    if not settings.is_embedded:
        return
    home = ServerLocation.of(settings).home
    free = (machine or Machine.of(home)).free_disk
    needed = sum(
        file.stat().st_size * _GROWTH.get(file.suffix.lower(), _PACKED_GROWTH) for file in files
    )
    if needed > free:
        raise ImportRefused(
            f"the files need about {gibibytes(needed)} in the database (rows are written twice: "
            f"to its log and to its tables), but {gibibytes(free)} are free for {home}; nothing "
            "was written. Free space, or move that folder to a larger disk and set FXLAB_HOME"
        )


def gibibytes(size: int) -> str:
    """Return bytes for people."""
    return f"{size / 2**30:,.1f} GiB"


def _demand(tables: Path) -> tuple[int, int]:
    """Return how many files one reader of every table would map and open, and the largest bytes.

    Those are of the largest of the newest partitions, which stand for the others: to look at all
    files of decades would take longer than to start a server.
    """
    files, largest = 0, 0
    for table in _folders(tables):
        partitions = [one for one in _folders(table) if one.name[0].isdigit()]
        if partitions:
            newest = max(partitions, key=lambda one: one.name)
            sizes = [one.stat().st_blocks * 512 for one in newest.iterdir()]
            files += min(len(partitions), _OPEN_AT_ONCE) * len(sizes)
            largest = max(largest, sum(sizes))
    return files, largest


def _folders(folder: Path) -> list[Path]:
    try:
        return [one for one in folder.iterdir() if one.is_dir()]
    except OSError:
        return []


def maps(pid: int) -> int | None:
    """Return how many memory maps a process has; None if it may not be known."""
    try:
        with Path(f"/proc/{pid}/maps").open("rb") as file:
            return sum(1 for _ in file)
    except OSError:
        return None


def maps_share(pid: int) -> float:
    """Return the share of the allowed memory maps that a process has; 0 if it is not known."""
    allowed = _number(_MAPS)
    return (maps(pid) or 0) / allowed if allowed else 0.0


def _number(path: Path) -> int:
    try:
        return int(path.read_text())
    except (OSError, ValueError):
        return 0  # not Linux, or hidden by a container
