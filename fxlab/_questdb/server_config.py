"""Configuration of the embedded server: settings, checks before a start, limits, passwords.

The configuration is written at each start, and nothing else may decide it. A database on a desk is
one browser tab away from any web page, so every listener is on loopback, every way in asks for a
password that only the owner's files know, and the ways in that fxlab does not use are off.

What must hold before a start (home, name, memory, ports) is checked while an error can still say
what to do. The instance file says which server runs; by it a command line, ten notebooks and a
nightly job find the same one.

A reader of a table maps and opens the files of each partition that it has touched, and keeps them.
When Linux gives no more maps, the server's next query fails and then the server dies; so what the
system allows (memory maps, open files, disk) and what the data may need are compared beforehand,
and the message holds the command that mends it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import secrets
import shutil
import socket
import tempfile
import zipfile
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Final, Self

import psutil

from fxlab._questdb.endpoint import Endpoint
from fxlab.config import Settings, parse_bytes, write_private
from fxlab.errors import ImportRefused, InvalidSettings, PortTaken, ServerStartFailed

LOOPBACK: Final = "127.0.0.1"
USER: Final = "fxlab"
PG_USER: Final = "reader"
RESTING_KEY: Final = "cairo.inactive.reader.max.open.partitions"
RESTING_PARTITIONS: Final = 8


@dataclass(frozen=True, slots=True)
class Ports:
    """The three ports of the embedded server."""

    http: int
    pg: int
    health: int


@dataclass(frozen=True, slots=True)
class Passwords:
    """The embedded server's two passwords that clients use."""

    http: str
    pg: str


def render(ports: Ports, passwords: Passwords, pg_owner_password: str) -> str:
    """Return the text of ``server.conf``.

    Parameters
    ----------
    ports, passwords
        Where to listen and what to ask for.
    pg_owner_password
        For the PostgreSQL user that may write. It is kept nowhere else: PostgreSQL is for reading.
    """
    settings = {
        "http.bind.to": f"{LOOPBACK}:{ports.http}",
        "http.min.net.bind.to": f"{LOOPBACK}:{ports.health}",
        "pg.net.bind.to": f"{LOOPBACK}:{ports.pg}",
        "line.tcp.enabled": "false",  # it loses rows in silence
        "line.udp.enabled": "false",
        "http.user": USER,
        "http.password": passwords.http,
        "pg.user": USER,
        "pg.password": pg_owner_password,
        "pg.readonly.user.enabled": "true",
        "pg.readonly.user": PG_USER,
        "pg.readonly.password": passwords.pg,
        **_SAFETY,
        **_STORAGE,
    }
    return "".join(f"{key}={value}\n" for key, value in settings.items())


_SAFETY: Final = {
    "config.validation.strict": "true",  # a key that a newer server no longer knows stops it
    "telemetry.enabled": "false",
    "line.auto.create.new.tables": "false",  # a misspelled name is an error, not a new table
    "line.auto.create.new.columns": "false",
}

_STORAGE: Final = {
    "cairo.commit.mode": "sync",  # an acknowledged row is on the disk, also after a power cut
    # A reader maps each column of each partition that it has touched, and a process may have some
    # 65,000 maps: a reader that rests keeps a few, and gives those back soon.
    RESTING_KEY: str(RESTING_PARTITIONS),
    "cairo.inactive.reader.ttl": "20000",
    "cairo.idle.check.interval": "10000",
    "http.export.connection.limit": "4",  # bulk reads leave connections for others
    # Each open column of each partition reserves one page on the disk. Measured with 24 hours of
    # 10-level books: 540 MB instead of 1,440 MB at the default of 16m, at the same speed.
    "cairo.writer.data.append.page.size": "1m",
    # Each column of names reserves one of these, 16m by default: a home without a tick was 433 MB,
    # and is 40 MB now.
    "cairo.writer.data.index.value.append.page.size": "256k",
    # Trades share their milliseconds, so every commit of a recorder meets rows of the one before
    # and rewrites the end of the partition: a small piece, not the 50 MB of the default.
    "cairo.o3.partition.split.min.size": "4m",
}

# The server's own log rolls and forgets; what it prints is short enough to quote in an error. Each
# query at the level INFO would be a quarter of the server's work with many small sessions.
LOG_CONFIG: Final = """\
writers=file,stdout
w.file.class=io.questdb.log.LogRollingFileWriter
w.file.location=${log.dir}/questdb.log.${date:yyyyMMdd}
w.file.level=ADVISORY,ERROR,CRITICAL
w.file.rollEvery=day
w.file.rollSize=16m
w.file.lifeDuration=7d
w.file.sizeLimit=128m
w.stdout.class=io.questdb.log.LogConsoleWriter
w.stdout.level=ADVISORY,ERROR,CRITICAL
"""


LEAST_MEMORY: Final = 256 * 2**20
"""With 128 MiB the server dies at its start, on two cores; more cores need more."""
_CGROUP: Final = Path("/sys/fs/cgroup")


def check_home(place: ServerLocation) -> None:
    """Make the server's folders, closed to others, and prove that they can be written.

    Raises
    ------
    ServerStartFailed
        Naming the folder and the setting.
    """
    check_name(place)
    try:
        place.home.mkdir(mode=0o700, parents=True, exist_ok=True)
        place.root.mkdir(mode=0o700, exist_ok=True)
        place.root.chmod(0o700)
        with tempfile.TemporaryFile(dir=place.root) as probe:
            probe.write(b"fxlab")
    except OSError as error:
        raise ServerStartFailed(
            f"{place.root} cannot hold the server's data ({error.strerror or error}); "
            "set FXLAB_HOME to a folder that you can write to"
        ) from error


def check_name(place: ServerLocation) -> None:
    """Refuse a path under which the server does not recover.

    Measured with QuestDB 9.3.4 under a folder named zoë: after a kill -9, acknowledged rows stayed
    invisible until the next write to their table, and `wait_wal_table` said that none were missing.
    """
    if not str(place.root).isascii():
        raise ServerStartFailed(
            f"{place.root} has letters beyond ASCII, and under such a folder QuestDB hides rows "
            "after a crash; set FXLAB_HOME to a folder spelled with plain letters"
        )


def memory_bytes(text: str) -> int:
    """Return the bytes of a memory size as Java spells it: 512m, 2g.

    Raises
    ------
    ServerStartFailed
        If it is no size, or too little for a server.
    """
    try:
        size = parse_bytes(text)
    except ValueError:
        size = 0
    if size < LEAST_MEMORY:
        raise ServerStartFailed(
            f"FXLAB_QUESTDB_MEMORY={text!r} is not a memory size of 256m or more; "
            "write a number and a unit, such as 512m or 2g"
        )
    return size


def check_memory(settings: Settings) -> None:
    """Refuse a heap that the machine cannot give now."""
    wanted = memory_bytes(settings.questdb_memory)
    available = available_memory()
    if wanted > available:
        raise ServerStartFailed(
            f"the server may take {_mebibytes(wanted)} (FXLAB_QUESTDB_MEMORY="
            f"{settings.questdb_memory}), but only {_mebibytes(available)} are available; "
            "close something, or set FXLAB_QUESTDB_MEMORY lower"
        )


def available_memory() -> int:
    """Return the bytes that a new process can have: the machine's, or its container's if fewer."""
    room = int(psutil.virtual_memory().available)
    try:
        limit = int((_CGROUP / "memory.max").read_text())
        used = int((_CGROUP / "memory.current").read_text())
    except (OSError, ValueError):
        return room  # no container, or one without a limit ("max")
    return min(room, max(limit - used, 0))


def check_ports(settings: Settings) -> Ports:
    """Return free ports for the server: those set by hand as they are, others near their defaults.

    Raises
    ------
    InvalidSettings
        If two settings name the same port.
    PortTaken
        Naming each port that was set by hand and is taken, its setting and, where it can be found,
        the program.
    """
    fields = ("questdb_http_port", "questdb_pg_port", "questdb_health_port")
    wanted = {name: getattr(settings, name) for name in fields}
    fixed = {name: port for name, port in wanted.items() if not settings.is_default(name)}
    for port, count in Counter(fixed.values()).items():
        if count > 1:
            names = " and ".join(_variable(name) for name in fixed if fixed[name] == port)
            raise InvalidSettings(f"{names} are both {port}; give each its own port")
    if taken := {name: port for name, port in fixed.items() if not is_free(port)}:
        found = ", and ".join(
            f"port {port} ({_variable(name)}) is taken by {listener(port)}"
            for name, port in taken.items()
        )
        names = " and ".join(map(_variable, taken))
        raise PortTaken(f"{found}; stop what holds it, or unset {names}: then a free one is found")
    chosen = dict(fixed)
    for name, port in wanted.items():
        if name not in fixed:
            chosen[name] = _near(port, set(chosen.values()))
    return Ports(*(chosen[name] for name in fields))


def _variable(name: str) -> str:
    return f"FXLAB_{name.upper()}"


def _near(port: int, used: set[int]) -> int:
    """Return the port, or the next one that is free."""
    for candidate in range(port, port + 1_000):
        if candidate not in used and is_free(candidate):
            return candidate
    raise PortTaken(f"ports {port} to {port + 999} are all taken; set others by FXLAB_QUESTDB_*")


def is_free(port: int) -> bool:
    """Return whether a server could listen on this loopback port."""
    with socket.socket() as probe:
        # As the server does: a connection of a server that just ended does not block the port.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((LOOPBACK, port))
        except OSError:
            return False
    return True


def listener(port: int) -> str:
    """Return words for the program that listens on a port, as far as one may know."""
    try:
        for connection in psutil.net_connections(kind="tcp"):
            if (
                connection.status == psutil.CONN_LISTEN
                and connection.laddr.port == port
                and connection.pid
            ):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    except psutil.Error:
        pass  # other users' programs have no names for us
    return "another program"


def _mebibytes(size: int) -> str:
    return f"{size / 2**20:,.0f} MiB"


SAME_BIRTH = 1.0
"""Seconds by which two readings of one process's time of birth may differ."""


class ServerLocation:
    """The embedded server's files, all under one folder that only the owner can open.

    Attributes
    ----------
    home
        That folder.
    root
        The server's data root.
    config
        The server's configuration folder.
    log
        The file with what the server prints.
    instance
        The file that tells which server runs.
    passwords
        The file of the passwords, kept from start to start.
    lock
        The file whose lock lets one `up` or `down` work at a time.
    """

    def __init__(self, home: Path) -> None:
        self.home = home
        self.root = home / "questdb"
        self.config = self.root / "conf"
        self.log = self.root / "log" / "server.log"
        self.instance = self.root / "instance.json"
        self.passwords = self.root / "passwords.json"
        self.lock = self.root / "up.lock"

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """Return the place that the settings name."""
        return cls(settings.home.expanduser().absolute())


@dataclass(frozen=True, slots=True)
class Instance:
    """A server that was started: a pid alone would soon name another program."""

    pid: int
    born: float
    """When the process was created, in seconds since 1970 as psutil tells it."""
    version: str
    started_at: datetime
    endpoint: Endpoint
    health_port: int | None = None
    """None where a fxlab that did not keep it has started the server."""

    def save(self, path: Path) -> None:
        """Write the instance file."""
        content = dataclasses.asdict(self) | {"started_at": self.started_at.isoformat()}
        write_private(path, json.dumps(content, indent=1))

    @classmethod
    def load(cls, path: Path) -> Self | None:
        """Read the instance file; None when it is missing or cannot be understood."""
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


READERS: Final = 4
"""As many as read one table at once: four processes, or four threads of one."""
_OPEN_AT_ONCE: Final = 120
"""Partitions of a table that a reader has open: queries ask for a year at a time, and what rests
keeps a few (`RESTING_PARTITIONS`). Twice as many as a year has weeks."""
_USUAL: Final = 2_000
"""Maps and files of a server without data."""
_ROOM: Final = 1.25
"""Partitions and columns come while a server runs."""
LEAST_DISK: Final = 2 * 2**30
_PLAIN: Final = (".csv", ".txt", ".jsonl", ".ndjson", ".arrow", ".ipc")
_UNPACKED: Final = 4
"""Bytes of text that a byte of a packed file is taken for, where the file does not tell."""
_GROWTH: Final = 2
"""Bytes that a byte of text becomes, in the log and in the tables together."""
_IN_MEMORY: Final = 128 * 2**20
"""So much of an import waits in memory; the rest is a file below the home until it is stored."""
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


def limits_of(
    settings: Settings, pid: int | None = None, machine: Machine | None = None
) -> list[Limit]:
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
    text = sum(map(_text_size, set(files)))
    needed = text * _GROWTH + max(text - _IN_MEMORY, 0)
    if needed > free:
        raise ImportRefused(
            f"the files need about {gibibytes(needed)} (rows are written to the database's log "
            "and to its tables, and those of large files wait beside it before that), but "
            f"{gibibytes(free)} are free for {home}; nothing was written. Free space, or move that "
            "folder to a larger disk and set FXLAB_HOME"
        )


def _text_size(file: Path) -> int:
    """Return the bytes of a file as text: an archive tells them, of others they are estimated."""
    if file.suffix.lower() == ".zip":
        with zipfile.ZipFile(file) as archive:
            return sum(entry.file_size for entry in archive.infolist())
    return file.stat().st_size * (1 if file.suffix.lower() in _PLAIN else _UNPACKED)


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
