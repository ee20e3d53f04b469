"""Server endpoint: address and login of a QuestDB server, probes of both, and its words as errors.

`Endpoint` is all that a client needs, and nothing of how the server runs. The HTTP probe (does a
server answer, and if not, what did it say last) is asked while starting and by `status`. It uses
the standard library's client, which is quick to load and knows no proxies: these must not come
between fxlab and a server on loopback.

`check_pg_login` runs before connectorx does. Given a wrong password or a closed port, connectorx
tries for half a minute and prints to standard error; this small client speaks just enough of the
protocol to know the answer in milliseconds. Its messages are those of the PostgreSQL documentation,
chapter "Frontend/Backend Protocol", section "Message Formats": StartupMessage,
AuthenticationCleartextPassword, PasswordMessage, AuthenticationOk, ErrorResponse and Terminate.
"""

from __future__ import annotations

import base64
import contextlib
import http.client
import re
import socket
import struct
from dataclasses import dataclass, field
from pathlib import Path
from typing import BinaryIO, Final
from urllib.parse import quote

from fxlab.errors import (
    QueryFailed,
    QuestDBError,
    QuestDBLoginFailed,
    QuestDBUnavailable,
    ServerExhausted,
    TableSuspended,
)


@dataclass(frozen=True, slots=True, repr=False)
class Endpoint:
    """Address and logins of one QuestDB server.

    HTTP has one login with full rights; `pg_user` of the embedded server can only read. A password
    of None means that the server asks for none. `embedded` is fxlab's own.

    Examples
    --------
    >>> lab.endpoint.embedded
    True
    """

    host: str
    http_port: int
    pg_port: int
    user: str
    password: str | None
    pg_user: str
    pg_password: str | None
    embedded: bool = field(default=True, compare=False)

    @property
    def http_url(self) -> str:
        """Return the base address for HTTP, without the login and without a slash at its end."""
        return f"http://{self._host_in_url}:{self.http_port}"

    @property
    def http_auth(self) -> tuple[str, str] | None:
        """Return user and password for HTTP, or None where the server asks for none."""
        return None if self.password is None else (self.user, self.password)

    @property
    def pg_url(self) -> str:
        """Return the PostgreSQL address with the login in it: a secret, never to be printed."""
        secret = "" if self.pg_password is None else f":{quote(self.pg_password, safe='')}"
        login = f"{quote(self.pg_user, safe='')}{secret}"
        return f"postgresql://{login}@{self._host_in_url}:{self.pg_port}/qdb"

    @property
    def login_advice(self) -> str:
        """Return the sentence for a server that refuses the login over HTTP."""
        return (
            f"QuestDB at {self.host}:{self.http_port} refuses the user {self.user!r} or its "
            "password; check questdb_user and questdb_password (FXLAB_QUESTDB_USER, "
            "FXLAB_QUESTDB_PASSWORD)"
        )

    def unavailable(self, reason: str, port: int | None = None) -> QuestDBUnavailable:
        """Return the error for a server that does not answer, with what its owner can do."""
        if self.embedded:
            return QuestDBUnavailable.at(self.host, port or self.http_port, reason)
        return QuestDBUnavailable(
            f"QuestDB is required but could not be reached at {self.host}:{port or self.http_port} "
            f"({reason}); start that server, or unset FXLAB_QUESTDB_HOST to use fxlab's own"
        )

    @property
    def _host_in_url(self) -> str:
        return f"[{self.host}]" if ":" in self.host else self.host

    def __repr__(self) -> str:
        return (
            f"Endpoint({self.user}:{_masked(self.password)}@{self.host}:{self.http_port}, "
            f"{self.pg_user}:{_masked(self.pg_password)}@{self.host}:{self.pg_port})"
        )


def _masked(password: str | None) -> str:
    return "no password" if password is None else "********"


_TELLING: Final = re.compile(r"(?i:error|exception|critical|could not|cannot|failed)| [EC] ")
_TAIL_BYTES: Final = 65_536


def refusal(endpoint: Endpoint, timeout: float = 2.0) -> str:
    """Return why an HTTP query is not answered, or an empty text when it is."""
    connection = http.client.HTTPConnection(endpoint.host, endpoint.http_port, timeout=timeout)
    try:
        connection.request("GET", "/exec?query=select%201", headers=_login(endpoint))
        code = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"it does not answer ({type(error).__name__}: {error})"
    finally:
        connection.close()
    if code == http.client.UNAUTHORIZED:
        return "it refuses the user name or password"
    return "" if code == http.client.OK else f"it answers with HTTP status {code}"


def last_words(log: Path, limit: int = 5) -> str:
    """Return the last lines of a log that tell what went wrong, or simply the last ones."""
    try:
        text = log.read_bytes()[-_TAIL_BYTES:].decode(errors="replace")
    except OSError as error:
        return f"no log ({error.strerror})"
    lines = [line.strip() for line in text.splitlines() if line.strip() and line[0] != "\t"]
    telling = [line for line in lines if _TELLING.search(line)]
    return " | ".join((telling or lines)[-limit:]) or "it printed nothing"


def _login(endpoint: Endpoint) -> dict[str, str]:
    if endpoint.http_auth is None:
        return {}
    token = base64.b64encode(":".join(endpoint.http_auth).encode()).decode()
    return {"Authorization": f"Basic {token}"}


MEND: Final = "run: fxlab doctor --mend (in Python: fxlab.mend())"
_EXHAUSTED: Final = (
    "could not mmap",
    "could not mremap",
    "could not map",
    "too many open files",
    "errno=24",
    "cannot allocate memory",
    "errno=12",
)


def is_exhausted(words: str) -> bool:
    """Return whether the server says that the system gives it no more maps, files or memory."""
    return any(mark in words.lower() for mark in _EXHAUSTED)


def exhausted(words: str) -> ServerExhausted:
    """Return the error for a server that has used up what the system lets it have."""
    return ServerExhausted(
        f"the server has used up the memory maps, open files or memory that the system lets it "
        f"have ({words:.200}); run: fxlab down && fxlab up, or let fxlab do it: fxlab doctor "
        "--mend (in Python: fxlab.mend()); fxlab doctor tells the limits and how to raise them"
    )


def suspended(table: str, reason: str) -> TableSuspended:
    """Return the error for a table that takes rows but does not show them."""
    return TableSuspended(
        f"table {table} is suspended: it takes rows but does not show them "
        f"({reason or 'no reason given'}); free disk space if it is full, then {MEND}"
    )


def query_error(words: str, query: str) -> QuestDBError:
    """Return the error for what a server answers to a query."""
    shown = f"{words}. Query: {query:.300}"
    if is_exhausted(words):
        return exhausted(words)
    if "suspended" in words.lower():
        return TableSuspended(f"a table is suspended: {words:.200}; {MEND}")
    return QueryFailed(shown)


_PROTOCOL_3_0: Final = 196_608
_OK: Final = 0
_CLEARTEXT: Final = 3
_LONGEST_MESSAGE: Final = 65_536


def check_pg_login(endpoint: Endpoint, timeout: float = 5.0) -> None:
    """Log in and out.

    Raises
    ------
    QuestDBUnavailable
        If nothing that speaks the protocol answers.
    QuestDBLoginFailed
        If the server refuses the user or password.
    """
    address = (endpoint.host, endpoint.pg_port)
    try:
        with (
            socket.create_connection(address, timeout) as connection,
            connection.makefile("rb") as answers,
        ):
            _log_in(connection, answers, endpoint)
            with contextlib.suppress(OSError):  # the server may have closed already
                connection.sendall(_message(b"X", b""))
    except (OSError, EOFError, struct.error) as error:
        reason = f"PostgreSQL wire: {str(error) or type(error).__name__}"
        raise endpoint.unavailable(reason, endpoint.pg_port) from error


def _log_in(connection: socket.socket, answers: BinaryIO, endpoint: Endpoint) -> None:
    user = endpoint.pg_user.encode()
    start = struct.pack("!i", _PROTOCOL_3_0) + b"user\0" + user + b"\0database\0qdb\0\0"
    connection.sendall(_message(b"", start))
    kind, method = _read(answers)
    if kind == b"R" and method == _CLEARTEXT:
        password = (endpoint.pg_password or "").encode()
        connection.sendall(_message(b"p", password + b"\0"))
        kind, method = _read(answers)
    if kind == b"E":
        raise QuestDBLoginFailed(
            f"QuestDB at {endpoint.host}:{endpoint.pg_port} refuses the PostgreSQL user "
            f"{endpoint.pg_user!r} or its password; check questdb_pg_user and questdb_pg_password "
            "(FXLAB_QUESTDB_PG_USER, FXLAB_QUESTDB_PG_PASSWORD)"
        )
    if kind != b"R" or method != _OK:
        raise EOFError("no PostgreSQL server with a password login answers there")


def _message(kind: bytes, body: bytes) -> bytes:
    return kind + struct.pack("!i", len(body) + 4) + body


def _read(answers: BinaryIO) -> tuple[bytes, int]:
    """Return a message's kind and, for an authentication request, the method it asks for."""
    kind, size = struct.unpack("!ci", _exactly(answers, 5))
    if not 4 <= size <= _LONGEST_MESSAGE:
        raise EOFError("the answer is not PostgreSQL's")
    body = _exactly(answers, size - 4)
    return kind, struct.unpack("!i", body[:4])[0] if kind == b"R" else -1


def _exactly(answers: BinaryIO, size: int) -> bytes:
    found = answers.read(size)
    if len(found) < size:
        raise EOFError("the connection was closed")
    return found
