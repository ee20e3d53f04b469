"""Rows as bytes that may wait: encoded once, kept in a journal, sent and sent again.

`fxlab.questdb.ingest` writes frames while somebody waits for the answer. A recorder cannot wait: it
needs the bytes of a request apart from the sending, and needs to send a part of them when the
server refuses a row. The client encodes; the bytes travel over HTTP as the client's own would.
"""

from __future__ import annotations

import functools
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final

import httpx

from fxlab.errors import BatchRefused, QuestDBLoginFailed, QuestDBUnavailable
from fxlab.questdb import troubles
from fxlab.questdb.endpoint import Endpoint
from fxlab.schema import Table

if TYPE_CHECKING:
    from questdb.ingress import Buffer

PROTOCOL: Final = 2  # of the lines: numbers in binary
CONNECT_SECONDS: Final = 2.0
ANSWER_SECONDS: Final = 10.0
IDLE_SECONDS: Final = 2.0  # the server closes idle connections after 5 s
_REFUSALS: Final = (400, 413, 422)
"""Answers about what was sent. All others are about the server's state."""
_STRANGERS: Final = (401, 403)
_PIECE: Final = 256 * 1_024
"""Bytes handed to the socket at once: httpx copies what is left of a piece after each sending."""


@dataclass(frozen=True, slots=True)
class Lines:
    """Encoded rows of one table.

    Attributes
    ----------
    payload
        InfluxDB line protocol, version 2 (numbers in binary, so lines cannot be found by eye).
    ends
        Where each row ends in it.
    """

    table: str
    payload: bytes
    ends: array[int]

    @property
    def rows(self) -> int:
        """Return the number of rows."""
        return len(self.ends)

    def part(self, first: int, last: int) -> Lines:
        """Return the rows from `first` until before `last`."""
        start = self.ends[first - 1] if first else 0
        ends = array("Q", (end - start for end in self.ends[first:last]))
        return Lines(self.table, self.payload[start : self.ends[last - 1]], ends)

    def halves(self) -> tuple[Lines, Lines]:
        """Return the first and the second half of at least two rows."""
        middle = self.rows // 2
        return self.part(0, middle), self.part(middle, self.rows)


class LineEncoder:
    """Turns rows into `Lines`; for one thread."""

    def __init__(self) -> None:
        import questdb

        self._client = questdb

    def buffer(self) -> Buffer:
        """Return an empty buffer, for rows of one's own making."""
        return new_buffer()

    def encode(self, table: Table, rows: Iterable[Mapping[str, Any]]) -> Lines:
        """Return rows given as columns and values; None is left out, times are datetimes or us."""
        buffer = self.buffer()
        ends = array("Q")
        symbols = set(table.symbols)
        for row in rows:
            at = self._micros(row[table.timestamp])
            kept = {
                name: value
                for name, value in row.items()
                if value is not None and name != table.timestamp
            }
            buffer.row(
                table.name,
                symbols={name: value for name, value in kept.items() if name in symbols},
                columns={
                    name: self._micros(value) if table.columns[name] == "TIMESTAMP" else value
                    for name, value in kept.items()
                    if name not in symbols
                },
                at=at,
            )
            ends.append(len(buffer))
        return Lines(table.name, bytes(buffer), ends)

    def _micros(self, value: datetime | int) -> Any:  # noqa: ANN401 - the client's own type
        if isinstance(value, datetime):
            return self._client.TimestampMicros.from_datetime(value)
        return self._client.TimestampMicros(value)


def new_buffer() -> Buffer:
    """Return an empty buffer of the client, which encodes rows."""
    return _buffer_kind()(protocol_version=PROTOCOL)


@functools.cache
def _buffer_kind() -> type[Buffer]:
    """Return the client's class of buffers, whose public home is deprecated."""
    import questdb

    # With the protocol's version given, "establish" opens no connection.
    sender = questdb.Sender(
        questdb.Protocol.Http, "localhost", 9, auto_flush=False, protocol_version=PROTOCOL
    )
    sender.establish()  # type: ignore[no-untyped-call]  # the client's stub lacks it
    kind = type(sender.new_buffer())
    sender.close(flush=False)
    return kind


class LinePost:
    """Sends encoded rows over one kept connection; for one thread.

    Parameters
    ----------
    endpoint
        The server.
    answer_seconds
        How long an answer may take.
    """

    def __init__(self, endpoint: Endpoint, answer_seconds: float = ANSWER_SECONDS) -> None:
        self._endpoint = endpoint
        timeout = httpx.Timeout(answer_seconds, connect=CONNECT_SECONDS)
        self._http = httpx.Client(
            base_url=endpoint.http_url,
            auth=endpoint.http_auth,
            timeout=timeout,
            limits=httpx.Limits(keepalive_expiry=IDLE_SECONDS),
            trust_env=False,  # a proxy must not come between fxlab and its server
        )

    def close(self) -> None:
        """Close the connection."""
        self._http.close()

    def send(self, batches: Sequence[Lines]) -> None:
        """Store all rows, or none of them.

        Raises
        ------
        BatchRefused
            With the server's words: a row in it is bad.
        QuestDBLoginFailed
            The server refuses user or password.
        QuestDBUnavailable
            No answer, or one about the server's own trouble. The rows may be stored all the same;
            sending them again is harmless.
        """
        self.post(b"".join(batch.payload for batch in batches))

    def post(self, payload: bytes) -> None:
        """Store encoded rows, as `send` does."""
        size = {"Content-Length": str(len(payload))}
        try:
            answer = self._http.post("/write", content=_pieces(payload), headers=size)
        except httpx.HTTPError as error:
            raise self._away(f"{type(error).__name__}: {error}") from error
        if answer.is_error and troubles.is_exhausted(_words(answer)):
            raise troubles.exhausted(_words(answer))
        if answer.status_code in _REFUSALS:
            raise BatchRefused(f"the server refused rows: {_words(answer)}")
        if answer.status_code in _STRANGERS:
            raise QuestDBLoginFailed(self._endpoint.login_advice)
        if answer.is_error:
            raise self._away(f"status {answer.status_code}: {_words(answer)}")

    def _away(self, reason: str) -> QuestDBUnavailable:
        return self._endpoint.unavailable(reason)


def _pieces(payload: bytes) -> Iterator[bytes]:
    return (payload[start : start + _PIECE] for start in range(0, len(payload), _PIECE))


def _words(answer: httpx.Response) -> str:
    try:
        message = answer.json(strict=False).get("message", answer.text)
    except (ValueError, AttributeError):
        message = answer.text
    return " ".join(str(message).split())[:300]
