"""What must hold before a server is started, checked while an error can still say what to do."""

from __future__ import annotations

import re
import socket
import tempfile
from collections import Counter
from pathlib import Path
from typing import Final

import psutil

from fxlab.config import Settings
from fxlab.errors import InvalidSettings, PortTaken, ServerStartFailed
from fxlab.questdb.instance import Place
from fxlab.questdb.server_config import LOOPBACK, Ports

LEAST_MEMORY: Final = 256 * 2**20
"""With 128 MiB the server dies at its start, on two cores; more cores need more."""
_UNITS: Final = {"": 1, "k": 2**10, "m": 2**20, "g": 2**30, "t": 2**40}
_CGROUP: Final = Path("/sys/fs/cgroup")


def check_home(place: Place) -> None:
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


def check_name(place: Place) -> None:
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
        If it is none, or too little for a server.
    """
    match = re.fullmatch(r"(\d{1,15})([kmgt]?)", text.strip().lower())
    size = int(match[1]) * _UNITS[match[2]] if match else 0
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
