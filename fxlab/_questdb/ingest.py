"""ILP ingest: frames and journaled batches written to QuestDB, each whole or not at all.

ILP over HTTP: one request is stored whole or not at all, and the answer says which. The database
itself would take anything (NaN becomes null, any text becomes an id), so frames are checked against
`fxlab.schema` before the first byte is sent. Rows may be sent again after a broken connection: the
DEDUP keys of every table make that harmless.

`Writer` writes frames for a caller that waits for the answer. A recorder cannot wait: it needs the
bytes of a request apart from the sending, to keep them in a journal and retry, and it needs to send
a part of them when the server refuses a row. `LineEncoder` encodes with the client's own encoder;
`LinePost` sends the bytes over HTTP as the client would.
"""

from __future__ import annotations

import functools
import logging
import threading
import time
import weakref
from array import array
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import datetime
from typing import TYPE_CHECKING, Any, Final, NoReturn

import httpx
import polars as pl
from polars import selectors as cs

from fxlab import schema
from fxlab._network import waits
from fxlab._progress import Advance, silent
from fxlab._questdb.endpoint import Endpoint, exhausted, is_exhausted
from fxlab.errors import (
    BatchRefused,
    QuestDBError,
    QuestDBLoginFailed,
    QuestDBUnavailable,
    WriteFailed,
)
from fxlab.schema import Table

if TYPE_CHECKING:
    import pandas as pd
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
        """Return an empty buffer of the client."""
        return _buffer_kind()(protocol_version=PROTOCOL)

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


def http_client(
    owner: object,
    endpoint: Endpoint,
    answer_seconds: float,
    connect_seconds: float,
    *,
    keep: bool = True,
) -> httpx.Client:
    """Return a client of the server; it keeps a connection until that rests, or none at all.

    It is closed with its owner at the latest: one that nobody closed leaves no socket open.
    """
    client = httpx.Client(
        base_url=endpoint.http_url,
        auth=endpoint.http_auth,
        timeout=httpx.Timeout(answer_seconds, connect=connect_seconds),
        limits=httpx.Limits(
            max_keepalive_connections=None if keep else 0, keepalive_expiry=IDLE_SECONDS
        ),
        trust_env=False,  # a proxy must not come between fxlab and its server
    )
    weakref.finalize(owner, client.close)
    return client


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
        self._http = http_client(self, endpoint, answer_seconds, CONNECT_SECONDS)

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

    def answers(self, seconds: float) -> bool:
        """Return whether the server answers another connection within so many seconds."""
        client = http_client(self, self._endpoint, seconds, seconds, keep=False)
        try:
            client.get("/ping")
        except httpx.HTTPError:
            return False
        finally:
            client.close()
        return True

    def post(self, payload: bytes) -> None:
        """Store encoded rows, as `send` does."""
        size = {"Content-Length": str(len(payload))}
        pieces = (payload[at : at + _PIECE] for at in range(0, len(payload), _PIECE))
        try:
            answer = self._http.post("/write", content=pieces, headers=size)
        except httpx.HTTPError as error:
            raise self._endpoint.unavailable(f"{type(error).__name__}: {error}") from error
        if answer.is_error and is_exhausted(_words(answer)):
            raise exhausted(_words(answer))
        if answer.status_code in _REFUSALS:
            raise BatchRefused(f"the server refused rows: {_words(answer)}")
        if answer.status_code in _STRANGERS:
            raise QuestDBLoginFailed(self._endpoint.login_advice)
        if answer.is_error:
            reason = f"status {answer.status_code}: {_words(answer)}"
            raise self._endpoint.unavailable(reason)


def _words(answer: httpx.Response) -> str:
    try:
        message = answer.json(strict=False).get("message", answer.text)
    except (ValueError, AttributeError):
        message = answer.text
    return " ".join(str(message).split())[:300]


_log: Final = logging.getLogger(__name__)

CELLS_IN_BATCH: Final = 1_100_000
"""100,000 rows of trades, 25,000 of order books: some 10 to 20 MB a request."""

FEW_ROWS: Final = 50
"""So few rows, such as one of the catalogue, are encoded sooner than they become a pandas frame."""

RETRY_WAITS: Final = (6, 0.15, 5.0)
"""Tries, first and longest wait (s) before a batch is sent again over a broken connection."""

_REQUEST_SECONDS: Final = 30.0
_TEXT_IDS: Final = {
    "session_id": schema.check_session_id,
    "run_id": schema.check_session_id,
    "symbol": schema.check_symbol,
}


class Writer:
    """Writes rows over one connection, which opens at the first write and is used again.

    Threads take turns. A connection that broke is opened again by the next write.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._turn = threading.Lock()
        self._post: LinePost | None = None

    def write(self, table: Table, frame: pl.DataFrame, progress: Advance = silent) -> int:
        """Store all rows of a frame and return how many.

        Parameters
        ----------
        table
            Where the rows go; the table must exist.
        frame
            Exactly the table's columns, in any order, with its types; SYMBOL columns may be
            categorical. No NaN or infinity anywhere, no null in a DEDUP key.
        progress
            Told after each batch; if it raises, the batches sent before it stay stored.

        Raises
        ------
        WriteFailed
            Before anything is sent: the frame breaks a rule. Later: the server refused a batch (the
            message has its words and line) or stayed away; the message says how many rows are
            stored.
        QuestDBLoginFailed
            The server refuses the login.
        """
        rows = _encoded(table, validate(table, frame))
        stored = 0
        with self._turn, ThreadPoolExecutor(1) as background:
            for size, sent in _sent(self._opened(), background, table, rows):
                _await(sent, table, stored, rows.height)
                stored += size
                _log.debug("%s: %d of %d rows stored", table.name, stored, rows.height)
                progress(stored / rows.height, f"{stored:,} of {rows.height:,} rows stored")
        return stored

    def close(self) -> None:
        """Close the connection; a later write opens a new one."""
        with self._turn:
            if self._post is not None:
                self._post.close()
            self._post = None

    def _opened(self) -> LinePost:
        if self._post is None:
            self._post = LinePost(self._endpoint, _REQUEST_SECONDS)
        return self._post


def validate(table: Table, frame: pl.DataFrame) -> pl.DataFrame:
    """Return the frame with its columns in the table's order, or raise `WriteFailed`."""
    _check_columns(table, frame)
    _check_types(table, frame)
    for column in table.dedup:
        if frame[column].null_count():
            raise _refused(table, f"column {column} has nulls, and it is part of a row's identity")
    for column in frame.select(cs.float()).columns:
        odd = frame[column].is_finite().not_().arg_true()
        if odd.len():
            value = frame[column][odd[0]]
            raise _refused(
                table, f"column {column} holds {value} in row {odd[0]}; it is not finite"
            )
    for column, check in _TEXT_IDS.items():
        if column in table.columns:
            for value in frame[column].unique().cast(pl.String):
                if value:  # an event without a symbol concerns them all
                    check(value)
    return frame.select(*table.columns)


def _check_columns(table: Table, frame: pl.DataFrame) -> None:
    missing = [name for name in table.columns if name not in frame.columns]
    unknown = [name for name in frame.columns if name not in table.columns]
    if missing or unknown:
        parts = [f"lacks column {missing[0]}"] if missing else []
        parts += [f"has the unknown column {unknown[0]}"] if unknown else []
        raise _refused(table, f"the frame {' and '.join(parts)}")


def _check_types(table: Table, frame: pl.DataFrame) -> None:
    for column, wanted in table.frame.items():
        found = frame.schema[column]
        categorical = isinstance(found, pl.Categorical | pl.Enum) and column in table.symbols
        if found != wanted and not categorical:
            raise _refused(table, f"column {column} is {found}; it must be {wanted}: cast it")


def _refused(table: Table, rule: str) -> WriteFailed:
    return WriteFailed(f"rows for {table.name} were not sent: {rule}; nothing was written")


def _encoded(table: Table, frame: pl.DataFrame) -> pl.DataFrame:
    """Leave out empty columns (they read back as null), and number repeated texts once for all."""
    kept = [name for name in frame.columns if frame[name].null_count() < frame.height]
    symbols = [name for name in table.symbols if name in kept]
    return frame.select(kept).with_columns(
        pl.col(name).cast(pl.Enum(frame[name].drop_nulls().unique()))
        for name in symbols
        if frame.schema[name] == pl.String
    )


def _sent(
    post: LinePost, background: ThreadPoolExecutor, table: Table, rows: pl.DataFrame
) -> Iterator[tuple[int, Future[None]]]:
    """Send the rows in batches; each one's outcome comes while the next one is being built."""
    before: tuple[int, Future[None]] | None = None
    for size, payload in _batches(table, rows):
        if before is not None:
            yield before
        before = size, background.submit(_insist, post, payload)
    if before is not None:
        yield before


def _batches(table: Table, rows: pl.DataFrame) -> Iterator[tuple[int, bytes]]:
    """Yield the rows in batches, encoded, each with its number of rows."""
    symbols = [name for name in table.symbols if name in rows.columns]
    encoder = LineEncoder()
    if 0 < rows.height <= FEW_ROWS:
        plain = rows.with_columns(cs.datetime().to_physical())
        yield rows.height, encoder.encode(table, plain.iter_rows(named=True)).payload
        return
    buffer = encoder.buffer()
    for batch in rows.iter_slices(max(1, CELLS_IN_BATCH // len(table.columns))):
        buffer.clear()  # type: ignore[no-untyped-call]  # the client's stub lacks its result
        buffer.dataframe(
            _as_pandas(batch), table_name=table.name, symbols=symbols, at=table.timestamp
        )
        yield batch.height, bytes(buffer)


def _as_pandas(batch: pl.DataFrame) -> pd.DataFrame:
    """Return the batch as the client takes it; integers with gaps stay integers."""
    frame = batch.to_pandas()
    for column in batch.select(cs.integer()).columns:
        if batch[column].null_count():
            frame[column] = (
                batch[column].to_pandas(use_pyarrow_extension_array=True).astype("Int64")
            )
    return frame


def _insist(post: LinePost, payload: bytes) -> None:
    """Send a batch, over a broken connection several times."""
    for pause in waits(*RETRY_WAITS):
        try:
            post.post(payload)
        except QuestDBUnavailable:
            time.sleep(pause)
        else:
            return
    post.post(payload)


def _await(sent: Future[None], table: Table, stored: int, total: int) -> None:
    try:
        sent.result()
    except BatchRefused as error:
        _give_up(error, "run fxlab doctor, the table may be damaged", table, stored, total)
    except QuestDBUnavailable as error:
        step = "then write the same rows again; stored rows are not doubled"
        _give_up(error, step, table, stored, total)


def _give_up(error: QuestDBError, step: str, table: Table, stored: int, total: int) -> NoReturn:
    raise WriteFailed(
        f"only {stored:,} of {total:,} rows for {table.name} are stored: {error}; {step}"
    ) from None
