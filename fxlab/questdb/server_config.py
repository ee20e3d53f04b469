"""The embedded server's configuration, written anew at each start: nothing else may decide it.

A database on a desk is one browser tab away from any web page, so every listener is on loopback,
every way in asks for a password that only the owner's files know, and the ways in that fxlab does
not use are off.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

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
        For the PostgreSQL user that may write. Nobody is told it: PostgreSQL is for reading.
    """
    return "".join(
        f"{key}={value}\n"
        for key, value in {
            **_listeners(ports),
            **_logins(passwords, pg_owner_password),
            **_SAFETY,
            **_STORAGE,
        }.items()
    )


def _listeners(ports: Ports) -> dict[str, str]:
    return {
        "http.bind.to": f"{LOOPBACK}:{ports.http}",
        "http.min.net.bind.to": f"{LOOPBACK}:{ports.health}",
        "pg.net.bind.to": f"{LOOPBACK}:{ports.pg}",
        "line.tcp.enabled": "false",  # it loses rows in silence
        "line.udp.enabled": "false",
    }


def _logins(passwords: Passwords, pg_owner_password: str) -> dict[str, str]:
    return {
        "http.user": USER,
        "http.password": passwords.http,
        "pg.user": USER,
        "pg.password": pg_owner_password,
        "pg.readonly.user.enabled": "true",
        "pg.readonly.user": PG_USER,
        "pg.readonly.password": passwords.pg,
    }


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
    "http.export.connection.limit": "4",  # bulk reads leave connections for everybody else
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
