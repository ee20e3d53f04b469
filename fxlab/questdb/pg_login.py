"""Check the PostgreSQL login before connectorx does.

Given a wrong password or a closed port, connectorx tries for half a minute and prints to standard
error. This small client speaks just enough of the protocol to know the answer in milliseconds.

The messages are those of the PostgreSQL documentation, chapter "Frontend/Backend Protocol",
section "Message Formats": StartupMessage, AuthenticationCleartextPassword, PasswordMessage,
AuthenticationOk, ErrorResponse and Terminate.
"""

from __future__ import annotations

import contextlib
import socket
import struct
from typing import BinaryIO, Final

from fxlab.errors import QuestDBLoginFailed
from fxlab.questdb.endpoint import Endpoint

_PROTOCOL_3_0: Final = 196_608
_OK: Final = 0
_CLEARTEXT: Final = 3
_LONGEST_MESSAGE: Final = 65_536


def check(endpoint: Endpoint, timeout: float = 5.0) -> None:
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
