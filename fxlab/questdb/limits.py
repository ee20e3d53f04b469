"""What the system lets a server have, what it has now, and what its data may need.

A reader of a table maps and opens the files of each partition that it has touched, and keeps them.
When Linux gives no more maps, the server's next query fails and then the server dies; so it is
compared beforehand, and told with the command that mends it.
"""

from __future__ import annotations

import contextlib
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import psutil

from fxlab.config import Settings
from fxlab.questdb.instance import Place

READERS: Final = 4
"""As many as read one table at once: four processes, or four threads of one."""
_USUAL: Final = 2_000
"""Maps and files of a server without data."""
_ROOM: Final = 1.25
"""Partitions and columns come while a server runs."""
LEAST_DISK: Final = 2 * 2**30
_MAPS: Final = Path("/proc/sys/vm/max_map_count")


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
        The command that raises it.
    """

    name: str
    allowed: int
    used: int | None
    needed: int
    cure: str

    @property
    def is_enough(self) -> bool:
        """Whether the data fits and the running server is not near the end."""
        return self.needed <= self.allowed and (self.used or 0) <= 0.8 * self.allowed

    def __str__(self) -> str:
        used = "" if self.used is None else f"{self.used:,} in use, "
        return f"{self.name}: {used}the data may need {self.needed:,} of {self.allowed:,} allowed"


def of(settings: Settings, pid: int | None = None) -> list[Limit]:
    """Return the limits of the embedded server, running (then its pid is given) or not."""
    place = Place.of(settings)
    needed = int((_USUAL + READERS * files_of(place.root / "db")) * _ROOM)
    found = []
    if allowed := _number(_MAPS):
        enough = 2 ** max(20, needed.bit_length())
        cure = f"sudo sysctl -w vm.max_map_count={enough}"
        found.append(Limit("memory maps", allowed, pid and maps(pid), needed, cure))
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        allowed = process.rlimit(psutil.RLIMIT_NOFILE)[1]  # Java raises its own to the hard limit
        cure = f"fxlab down; ulimit -n {2 ** max(16, needed.bit_length())}; fxlab up"
        used = process.num_fds() if pid else None
        found.append(Limit("open files", allowed % 2**63, used, needed, cure))
    return found


def files_of(tables: Path) -> int:
    """Return how many files of partitions one reader of every table would map and open."""
    return sum(_of_table(table) for table in _folders(tables))


def _of_table(table: Path) -> int:
    partitions = [one for one in _folders(table) if one.name[0].isdigit()]
    if not partitions:
        return 0
    newest = max(partitions, key=lambda one: one.name)
    return len(partitions) * sum(1 for _ in newest.iterdir())


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


def free_disk(folder: Path) -> int:
    """Return the bytes that are free where a folder is or will be."""
    ground = next(path for path in (folder, *folder.parents) if path.exists())
    return shutil.disk_usage(ground).free
