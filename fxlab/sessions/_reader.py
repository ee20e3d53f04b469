"""Bulk reader of ticks, in (timestamp, seq) order and bounded memory, and their export to files.

The number of rows an hour is counted first (a few milliseconds); hours become slices of a few
hundred thousand rows, and two slices travel at a time. That gives progress, a place to cancel and a
limit on memory, and is faster than one large query. Each slice is ordered by the server, so the
slices in a row are too.

An export (Parquet, CSV, Arrow) has one file for each symbol and data type, with all columns of the
table but the session's id. A file is written under another name and moved into place when it is
whole, so that half a file is never taken for one.
"""

from __future__ import annotations

import re
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, NamedTuple

import polars as pl

from fxlab._progress import Advance, silent
from fxlab._questdb import sql
from fxlab._questdb.client import QuestDB
from fxlab._questdb.sql import Scope
from fxlab.config import replacing
from fxlab.errors import InvalidInput, InvalidParameter, QueryFailed, check_choice, some
from fxlab.schema import Table

if TYPE_CHECKING:
    from fxlab._questdb.cache import CachedColumns

SLICE_ROWS: Final = range(65_536, 262_145)
"""Smallest and largest number of rows asked for at once; one millisecond may hold more."""

_AT_A_TIME: Final = 2  # the server exports to four connections, and others read too


class Slice(NamedTuple):
    """Rows from `start` until before `end` (microseconds), and how many there are."""

    start: int
    end: int
    rows: int


def read(
    db: QuestDB,
    scope: Scope,
    names: Sequence[str],
    *,
    limit: int | None = None,
    offset: int = 0,
    progress: Advance = silent,
    cached: CachedColumns | None = None,
) -> pl.DataFrame:
    """Return rows in (timestamp, seq) order, all of them or one page.

    Parameters
    ----------
    db, scope
        Where the rows are, and which.
    names
        Columns of the table.
    limit, offset
        A page: so many rows after so many others. None means all.
    progress
        Told after each slice; it may raise `Cancelled`.
    cached
        Where copies of the rows are kept on this machine; None asks the server.

    Returns
    -------
    polars.DataFrame
        The columns with the table's types; no rows where there are none.
    """
    wanted = None if limit is None else sql.count(limit, "limit")
    skip = sql.count(offset, "offset")
    if (here := _from_cache(db, scope, names, cached)) is not None:
        return here.slice(skip, wanted)
    frames, skipped = _fetch(db, scope, names, progress, cached=cached, rows=(skip, wanted))
    return pl.concat([empty(scope, names), *frames]).slice(skipped, wanted).rechunk()


def scan(
    db: QuestDB,
    scope: Scope,
    names: Sequence[str],
    *,
    chunk_rows: int = 1_000_000,
    progress: Advance = silent,
    cached: CachedColumns | None = None,
) -> Iterator[pl.DataFrame]:
    """Yield rows in (timestamp, seq) order, `chunk_rows` at a time; the last chunk may be smaller.

    Parameters are those of `read`; memory is bounded by the chunk and a few slices.
    """
    if sql.count(chunk_rows, "chunk_rows") == 0:
        raise InvalidParameter("chunk_rows=0 would yield nothing for ever; give 1 or more")
    if (here := _from_cache(db, scope, names, cached)) is not None:
        return here.iter_slices(chunk_rows)
    size = min(max(chunk_rows, SLICE_ROWS[0]), SLICE_ROWS[-1])
    frames, _ = _fetch(db, scope, names, progress, cached=cached, slice_rows=size)
    return rechunk(frames, chunk_rows)


def empty(scope: Scope, names: Sequence[str]) -> pl.DataFrame:
    """Return no rows, with the types that the columns are read back as."""
    sql.columns(scope.table, names)
    return pl.DataFrame(schema={name: scope.table.frame[name] for name in names})


def plan_slices(bins: Iterable[Slice], chunk_rows: int) -> list[Slice]:
    """Join neighbouring bins into slices of at most `chunk_rows` rows and a year.

    A bin that alone has more rows stays whole. Bins come in order and do not overlap; every one
    ends up in exactly one slice, in order.
    """
    slices: list[Slice] = []
    for piece in bins:
        last = slices[-1] if slices else None
        joined = last is not None and piece.end - last.start <= sql.YEAR
        if last is not None and joined and last.rows + piece.rows <= chunk_rows:
            slices[-1] = Slice(last.start, piece.end, last.rows + piece.rows)
        else:
            slices.append(piece)
    return slices


def page(slices: Sequence[Slice], offset: int, limit: int | None) -> tuple[list[Slice], int]:
    """Return the slices that hold a page, and how many rows stand in front of it in them."""
    chosen: list[Slice] = []
    before = skipped = 0
    end = None if limit is None else offset + limit
    for piece in slices:
        if end is not None and before >= end:
            break
        if before + piece.rows <= offset:
            skipped += piece.rows
        else:
            chosen.append(piece)
        before += piece.rows
    return chosen, offset - skipped


def count_rows(db: QuestDB, scope: Scope, chunk_rows: int) -> list[Slice]:
    """Count the rows of each hour; of each second, then millisecond, where an hour is too large."""
    return db.steady(lambda: _count(db, scope, chunk_rows, list(sql.STEPS)))


def _count(db: QuestDB, scope: Scope, chunk_rows: int, steps: Sequence[str]) -> list[Slice]:
    step, *finer = steps
    found: list[Slice] = []
    for year in scope.by_year():
        counted = db.export(sql.bins(year, step)).select(pl.nth(0).to_physical(), pl.nth(1))
        for start, rows in counted.sort(pl.nth(0)).iter_rows():
            piece = _clipped(year, Slice(start, start + sql.STEPS[step], rows))
            if rows > chunk_rows and finer:
                inside = replace(scope, start=piece.start, end=piece.end)
                found += _count(db, inside, chunk_rows, finer)
            else:
                found.append(piece)
    return found


def _clipped(scope: Scope, piece: Slice) -> Slice:
    """Return the bin without what lies outside the range that was counted."""
    start = piece.start if scope.start is None else max(piece.start, scope.start)
    end = piece.end if scope.end is None else min(piece.end, scope.end)
    return Slice(start, end, piece.rows)


def _from_cache(
    db: QuestDB, scope: Scope, names: Sequence[str], cached: CachedColumns | None
) -> pl.DataFrame | None:
    """Return the rows if right copies of them are on this machine."""
    if cached is None:
        return None
    frame = cached.load(db, scope, _stored(scope, names))
    return None if frame is None else _with_constants(frame, scope, names)


def _fetch(
    db: QuestDB,
    scope: Scope,
    names: Sequence[str],
    progress: Advance,
    *,
    cached: CachedColumns | None,
    rows: tuple[int, int | None] = (0, None),
    slice_rows: int | None = None,
) -> tuple[Iterator[pl.DataFrame], int]:
    """Return the slices that hold some rows, and how many others stand before them in the first."""
    keeps = cached if cached is not None and cached.is_whole else None
    transaction = "" if keeps is None else keeps.transaction(db, scope.table)
    size = slice_rows or SLICE_ROWS[-1]
    planned = plan_slices(count_rows(db, scope, size), size)
    slices, skipped = page(planned, *rows)
    frames = _fetch_slices(db, scope, _stored(scope, names), slices, progress)
    if keeps is not None and len(slices) == len(planned):
        frames = keeps.keeping(frames, sum(piece.rows for piece in slices), transaction)
    return (_with_constants(frame, scope, names) for frame in frames), skipped


def _fetch_slices(
    db: QuestDB, scope: Scope, names: Sequence[str], slices: Sequence[Slice], progress: Advance
) -> Iterator[pl.DataFrame]:
    """Yield the slices in order, while the next ones are on their way."""
    total = sum(piece.rows for piece in slices)
    done = 0
    under_way: deque[tuple[int, Future[pl.DataFrame]]] = deque()

    def arrived() -> pl.DataFrame:
        nonlocal done
        rows, future = under_way.popleft()
        frame = future.result()
        done += rows
        progress(done / total, f"{done:,} of {total:,} rows read")
        return frame

    with ThreadPoolExecutor(_AT_A_TIME, thread_name_prefix="fxlab-read") as pool:
        try:
            for piece in slices:
                future = pool.submit(_read_slice, db, scope, names, piece)
                under_way.append((piece.rows, future))
                if len(under_way) > _AT_A_TIME:
                    yield arrived()
            while under_way:
                yield arrived()
        finally:  # also when the reader stops half-way
            pool.shutdown(wait=False, cancel_futures=True)


def _read_slice(db: QuestDB, scope: Scope, names: Sequence[str], piece: Slice) -> pl.DataFrame:
    query = sql.rows(replace(scope, start=piece.start, end=piece.end), names)
    frame = db.export(query)
    if frame.height < piece.rows:  # a session only grows; but a purge moves other sessions' rows
        frame = db.steady(lambda: db.export(query))
    if frame.height < piece.rows:
        raise QueryFailed(
            f"session {scope.session_id!r}: {piece.rows:,} rows were counted and only "
            f"{frame.height:,} came; read again, and if it stays so run: fxlab doctor"
        )
    return frame


def _constants(scope: Scope) -> dict[str, str]:
    """Return the columns that are the same in each row: not worth sending a million times."""
    named = {"session_id": scope.session_id, "symbol": scope.symbol}
    return {name: value for name, value in named.items() if value is not None}


def _stored(scope: Scope, names: Sequence[str]) -> list[str]:
    return [name for name in names if name not in _constants(scope)] or ["timestamp"]


def _with_constants(frame: pl.DataFrame, scope: Scope, names: Sequence[str]) -> pl.DataFrame:
    literals = [pl.lit(value).alias(name) for name, value in _constants(scope).items()]
    return frame.with_columns(literals).select(names)


def rechunk(frames: Iterable[pl.DataFrame], rows: int) -> Iterator[pl.DataFrame]:
    """Yield the same rows in frames of exactly `rows` rows; the last one may be smaller."""
    held: list[pl.DataFrame] = []
    height = 0
    for frame in frames:
        held.append(frame)
        height += frame.height
        if height >= rows:
            whole = pl.concat(held, rechunk=True)
            cut = height - height % rows
            yield from whole.head(cut).iter_slices(rows)
            held, height = [whole.tail(height - cut)], height - cut
    if height:
        yield pl.concat(held, rechunk=True)


FORMATS: Final = ("parquet", "csv", "arrow")
EXPORT_ROWS: Final = 250_000
_TIME: Final = "%Y-%m-%dT%H:%M:%S%.6fZ"
_SUFFIXES: Final = {".parquet": "parquet", ".csv": "csv", ".arrow": "arrow", ".feather": "arrow"}


@dataclass(frozen=True, slots=True)
class Target:
    """One file to be written."""

    path: Path
    symbol: str
    data_type: str
    form: str


def export_columns(table: Table) -> tuple[str, ...]:
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
    if not str(place).isprintable():
        odd = f"path={str(place)!r:.200} has characters that do not print"
        raise InvalidInput(f"{odd}; give a path of plain ones")
    said = _SUFFIXES.get(place.suffix.lower())
    chosen = form if form is not None else said or "parquet"
    check_choice("format", chosen, FORMATS, "format")
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
    try:
        there = [str(target.path) for target in found if target.path.exists()]
    except OSError as error:
        raise InvalidInput(
            f"{place!s:.80} is no place for files ({error.strerror}); give another path"
        ) from error
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


def write_file(path: Path, form: str, chunks: Iterable[pl.DataFrame], schema: pl.Schema) -> int:
    """Write frames of one schema as one file, whole or not at all; return the rows."""
    path.parent.mkdir(parents=True, exist_ok=True)
    rows = 0
    with replacing(path) as temporary, _file_writer(temporary, form, schema) as put:
        for chunk in chunks:
            put(chunk)
            rows += chunk.height
    return rows


@contextmanager
def _file_writer(path: Path, form: str, schema: pl.Schema) -> Iterator[Any]:
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
