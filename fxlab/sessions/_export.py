"""Export of a session to files that an import takes back: Parquet, CSV or Arrow, in pieces.

One file for each symbol and data type, with all columns of the table but the session's id. A file
is written under another name and moved into place when it is whole, so that half a file is never
taken for one; memory is bounded by the chunks of the reader.
"""

from __future__ import annotations

import os
import re
import tempfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from fxlab.errors import InvalidInput, InvalidParameter, did_you_mean, some
from fxlab.schema import Table

FORMATS: Final = ("parquet", "csv", "arrow")
CHUNK_ROWS: Final = 250_000
_TIME: Final = "%Y-%m-%dT%H:%M:%S%.6fZ"
_SUFFIXES: Final = {".parquet": "parquet", ".csv": "csv", ".arrow": "arrow", ".feather": "arrow"}


@dataclass(frozen=True, slots=True)
class Target:
    """One file to be written."""

    path: Path
    symbol: str
    data_type: str
    form: str


def columns(table: Table) -> tuple[str, ...]:
    """Return what is exported of a table, time and symbol first."""
    first = ("timestamp", "symbol", "seq")
    return (*first, *(n for n in table.columns if n not in (*first, "session_id")))


def targets(
    path: str | Path, form: str | None, pieces: Sequence[tuple[str, str]], *, overwrite: bool
) -> list[Target]:
    """Return the files of an export, checked before any is written.

    Parameters
    ----------
    path
        A folder, made if it is not there; or a file, if there is one piece.
    form
        One of `FORMATS`; None means what the file's name says, else Parquet.
    pieces
        (symbol, data type) of each.
    overwrite
        Whether files of the same name are replaced.

    Raises
    ------
    InvalidInput
        For an unknown format, one file for several pieces, or files that are there already.
    """
    place = Path(path).expanduser()
    said = _SUFFIXES.get(place.suffix.lower())
    chosen = form if form is not None else said or "parquet"
    if chosen not in FORMATS:
        hint = did_you_mean(str(chosen), FORMATS) or f"give one of {', '.join(FORMATS)}"
        raise InvalidParameter(f"format={chosen!r:.80} is not known; {hint}")
    if not pieces:
        raise InvalidInput("there are no ticks to export: the session is empty")
    if said is not None and not place.is_dir():
        if said != chosen:
            raise InvalidInput(f"{place} is named as {said}, and format={chosen!r}; give one")
        if len(pieces) > 1:
            shown = some([f"{symbol} {data_type}" for symbol, data_type in pieces])
            raise InvalidInput(
                f"{place} is one file, and these are {len(pieces)} ({shown}); give a folder"
            )
        found = [Target(place, *pieces[0], chosen)]
    else:
        found = [Target(place / name, *piece, chosen) for name, piece in _named(pieces, chosen)]
    there = [str(target.path) for target in found if target.path.exists()]
    if there and not overwrite:
        raise InvalidInput(
            f"{some(there)} would be overwritten; export elsewhere, or say overwrite=True"
        )
    return found


def _named(pieces: Sequence[tuple[str, str]], form: str) -> Iterator[tuple[str, tuple[str, str]]]:
    """Yield a file name for each piece: symbols may hold what names of files may not."""
    seen: set[str] = set()
    for symbol, data_type in pieces:
        safe = re.sub(r"[^A-Z0-9_-]+", "-", symbol).strip("-") or "symbol"
        name, number = f"{safe}_{data_type}.{form}", 1
        while name in seen:
            number += 1
            name = f"{safe}_{number}_{data_type}.{form}"
        seen.add(name)
        yield name, (symbol, data_type)


def write(path: Path, form: str, chunks: Iterable[pl.DataFrame], schema: pl.Schema) -> int:
    """Write frames of one schema as one file, whole or not at all; return the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    os.close(handle)
    temporary = Path(name)
    rows = 0
    try:
        with _writer(temporary, form, schema) as put:
            for chunk in chunks:
                put(chunk)
                rows += chunk.height
        temporary.chmod(0o644)
        temporary.replace(path)
    finally:
        temporary.unlink(missing_ok=True)
    return rows


@contextmanager
def _writer(path: Path, form: str, schema: pl.Schema) -> Iterator[Any]:
    """Lend a function that writes one frame."""
    if form == "csv":
        with path.open("wb") as file:
            schema.to_frame().write_csv(file)
            yield lambda chunk: chunk.write_csv(file, include_header=False, datetime_format=_TIME)
        return
    import pyarrow as pa
    from pyarrow import parquet

    layout = schema.to_frame().to_arrow().schema
    if form == "parquet":
        with parquet.ParquetWriter(path, layout, compression="zstd") as writer:
            yield lambda chunk: writer.write_table(chunk.to_arrow().cast(layout))
    else:
        with pa.OSFile(str(path), "wb") as sink, pa.ipc.new_file(sink, layout) as writer:
            yield lambda chunk: writer.write_table(chunk.to_arrow().cast(layout))
