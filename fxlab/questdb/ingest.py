"""Write frames to QuestDB so that a row is either stored or the caller knows.

ILP over HTTP: one request is stored whole or not at all, and the answer says which. The database
itself would take anything (NaN becomes null, any text becomes an id), so frames are checked
against `fxlab.schema` before the first byte is sent. Rows may be sent again after a broken
connection: the DEDUP keys of every table make that harmless.
"""

from __future__ import annotations

import itertools
import json
import re
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from polars import selectors as cs

from fxlab import identifiers
from fxlab.errors import QuestDBLoginFailed, WriteFailed
from fxlab.progress import Advance, silent
from fxlab.questdb.endpoint import Endpoint
from fxlab.schema import Table

if TYPE_CHECKING:
    import pandas as pd
    import questdb
    from questdb.ingress import Buffer

CELLS_IN_BATCH: Final = 1_100_000
"""100,000 rows of trades, 25,000 of order books: some 10 to 20 MB a request."""

RETRY_PAUSES: Final = (0.1, 0.2, 0.4, 0.8, 1.6, 3.2)
"""Seconds to wait in turn before the same batch is sent again over a broken connection."""

_REQUEST_MILLISECONDS: Final = 30_000
_TEXT_IDS: Final = {
    "session_id": identifiers.check_session_id,
    "run_id": identifiers.check_session_id,
    "symbol": identifiers.check_symbol,
}


class Writer:
    """Writes rows over one connection, which opens at the first write and is used again.

    Threads take turns. A connection that broke is opened again by the next write.
    """

    def __init__(self, endpoint: Endpoint) -> None:
        self._endpoint = endpoint
        self._turn = threading.Lock()
        self._sender: questdb.Sender | None = None

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
            # One batch is built while the one before it travels.
            for size, sent in _batches(self._opened(), background, table, rows):
                _await(sent, table, stored, rows.height)
                stored += size
                progress(stored / rows.height, f"{stored:,} of {rows.height:,} rows stored")
        return stored

    def close(self) -> None:
        """Close the connection; a later write opens a new one."""
        with self._turn:
            if self._sender is not None:
                self._sender.close(flush=False)
            self._sender = None

    def _opened(self) -> questdb.Sender:
        if self._sender is None:
            self._sender = _sender(self._endpoint)
            self._sender.establish()  # type: ignore[no-untyped-call]  # as in `_batches`
        return self._sender


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


def _batches(
    sender: questdb.Sender,
    background: ThreadPoolExecutor,
    table: Table,
    rows: pl.DataFrame,
) -> Iterator[tuple[int, Future[None]]]:
    """Send the rows in batches; each one's size and outcome come while the next one is ready.

    A failed batch stays in its buffer until it is stored or given up: the sender's own buffer
    would be emptied by the failure. Two buffers take turns.
    """
    symbols = [name for name in table.symbols if name in rows.columns]
    buffers = itertools.cycle([sender.new_buffer(), sender.new_buffer()])
    step = max(1, CELLS_IN_BATCH // len(table.columns))
    before: tuple[int, Future[None]] | None = None
    for batch in rows.iter_slices(step):
        buffer = next(buffers)
        buffer.clear()  # type: ignore[no-untyped-call]  # the client's stub lacks its result
        buffer.dataframe(
            _as_pandas(batch),
            table_name=table.name,
            symbols=symbols,
            at=table.timestamp,
        )
        if before is not None:
            yield before
        before = batch.height, background.submit(_flush, sender, buffer)
    if before is not None:
        yield before


def _as_pandas(batch: pl.DataFrame) -> pd.DataFrame:
    """Return the batch as the client takes it; integers with gaps stay integers."""
    frame = batch.to_pandas()
    for column in batch.select(cs.integer()).columns:
        if batch[column].null_count():
            frame[column] = (
                batch[column].to_pandas(use_pyarrow_extension_array=True).astype("Int64")
            )
    return frame


def _sender(endpoint: Endpoint) -> questdb.Sender:
    import questdb

    login: dict[str, Any] = {}
    if endpoint.http_auth is not None:
        login = dict(zip(("username", "password"), endpoint.http_auth, strict=True))
    return questdb.Sender(
        questdb.Protocol.Http,
        endpoint.host,
        endpoint.http_port,
        auto_flush=False,
        protocol_version=2,  # known: asking the server first would be one more way to fail
        retry_timeout=0,  # `_flush` retries, and refused connections too
        request_timeout=_REQUEST_MILLISECONDS,
        **login,
    )


def _flush(sender: questdb.Sender, buffer: Buffer) -> None:
    """Send a buffer, over a broken connection several times."""
    from questdb import QuestDBError, QuestDBErrorCode

    final = (QuestDBErrorCode.ServerFlushError, QuestDBErrorCode.AuthError)
    for pause in RETRY_PAUSES:
        try:
            sender.flush(buffer, clear=False)
        except QuestDBError as error:
            if error.code in final:
                raise
            time.sleep(pause)
        else:
            return
    sender.flush(buffer, clear=False)


def _await(sent: Future[None], table: Table, stored: int, total: int) -> None:
    from questdb import QuestDBError, QuestDBErrorCode

    try:
        sent.result()
    except QuestDBError as error:
        if error.code == QuestDBErrorCode.AuthError:
            raise QuestDBLoginFailed(
                "QuestDB refuses the HTTP login for writing; check questdb_user and "
                "questdb_password (FXLAB_QUESTDB_USER, FXLAB_QUESTDB_PASSWORD)"
            ) from None
        refused = error.code == QuestDBErrorCode.ServerFlushError
        state = "the server refused the next batch" if refused else "the server stayed away"
        step = (
            "the tables may be damaged: run fxlab doctor"
            if refused
            else "run: fxlab up, then write the same rows again; stored rows are not doubled"
        )
        raise WriteFailed(
            f"only {stored:,} of {total:,} rows for {table.name} are stored: {state} "
            f"({_server_words(str(error))}); {step}"
        ) from None


def _server_words(message: str) -> str:
    """Return the server's sentence (it has line and column) out of the client's message."""
    found = re.search(r"\{.*\}", message, re.DOTALL)
    if found:
        try:
            words = json.loads(found[0]).get("message", message)
        except ValueError:
            words = message
        message = str(words)
    return " ".join(message.split())
