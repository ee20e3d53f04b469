"""Tick files, opened: text, Parquet, Arrow and JSON lines as blocks of rows, packed or not.

Only a block is in memory at once, however large the file is. What packs files is not trusted: the
names in an archive must stay below its folder, and what unpacks to far more than ticks ever do is
refused.
"""

from __future__ import annotations

import gzip
import hashlib
import io
import json
import stat
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, BinaryIO, Final, NoReturn, Protocol, cast

import polars as pl

from fxlab._progress import Advance, silent
from fxlab.collect._files import csv, formats
from fxlab.collect._files.fields import ROW, SourceLocation, value_at
from fxlab.collect._files.formats import SAMPLE, Format
from fxlab.collect._files.quarantine import Quarantine, ReadOptions
from fxlab.collect._files.session_data import ImportedSession
from fxlab.errors import ImportRefused, InvalidInput, SessionExists

TEXT: Final = (".csv", ".txt")
JSON: Final = (".jsonl", ".ndjson")
ARROW: Final = (".arrow", ".feather", ".ipc")
PACKED: Final = (".gz", ".zst")
PLAIN: Final = (*TEXT, *JSON, ".parquet", *ARROW)
SUFFIXES: Final = (*PLAIN, *(a + b for a in (*TEXT, *JSON) for b in PACKED), ".zip")
"""What is read; other text may be packed too."""

HEAD_BYTES: Final = 65_536
"""The format is recognised by so many bytes of text."""
MOST_RATIO: Final = 200
SMALL: Final = 256 * 2**20
"""Packed data may be so many times larger than its file; up to so many bytes it may be any."""
MOST_MEMBERS: Final = 10_000
_UNPACKING: Final = (OSError, EOFError, zlib.error, zipfile.BadZipFile, RuntimeError)
_YOURSELF: Final = "if it is what it should be, unpack it yourself and import the files"

Blocks = Iterator[tuple[pl.DataFrame, pl.Series]]
"""Raw rows and their places in the file."""


def suffix_of(name: str) -> str:
    """Return the known end of a file's name, or nothing."""
    lowered = name.lower()
    return max((end for end in SUFFIXES if lowered.endswith(end)), key=len, default="")


@dataclass(frozen=True)
class TickFile:
    """One file of ticks.

    Attributes
    ----------
    path
        Where it is.
    name
        What errors call it.
    listed
        What the catalogue calls it.
    member
        Its name in a zip archive.
    """

    path: Path
    name: str
    listed: str
    member: str | None = None

    @property
    def suffix(self) -> str:
        """Return the known end of its name."""
        return suffix_of(self.member or self.path.name)

    @property
    def kind(self) -> str:
        """Return what it is: text, JSON lines, Parquet or Arrow."""
        plain = "." + self.suffix.split(".")[1]
        return "text" if plain in TEXT else "json" if plain in JSON else plain

    @property
    def origin(self) -> str:
        """Return one of `fxlab.schema.ORIGINS`."""
        return "csv" if self.kind in ("text", "json") else "parquet"

    @property
    def size(self) -> int:
        """Return its bytes on disk."""
        return self.path.stat().st_size

    @property
    def digest(self) -> str:
        """Return its SHA-256; of a member, that of what it unpacks to."""
        if self.member is None:
            with self.path.open("rb") as stream:
                return hashlib.file_digest(stream, "sha256").hexdigest()
        made = hashlib.sha256()
        with self.unpacked() as packed:
            while data := packed.read(HEAD_BYTES):
                made.update(data)
        return made.hexdigest()

    def state(self) -> dict[str, str | int]:
        """Return what the status table says of a file that is refused, as far as it is readable."""
        found: dict[str, str | int] = {"path": self.listed}
        with suppress(*_UNPACKING):
            found |= {"size_bytes": self.size, "sha256": self.digest}
        return found

    def refuse(self, reason: str) -> NoReturn:
        """Refuse the file."""
        SourceLocation(self.name).refuse(reason)

    @contextmanager
    def unpacked(self, progress: Advance = silent) -> Iterator[BinaryIO]:
        """Lend the bytes of a text file, unpacked; told how far they are read."""
        with self.path.open("rb") as raw:
            counted = _Counted(raw, self.size, progress)
            if self.member is not None:
                with zipfile.ZipFile(raw) as archive, archive.open(self.member) as inside:
                    whole = max(archive.getinfo(self.member).file_size, 1)
                    yield cast("BinaryIO", _Counted(cast("BinaryIO", inside), whole, progress))
            elif self.suffix.endswith(".gz"):
                plain = cast("BinaryIO", gzip.GzipFile(fileobj=counted))
                yield cast("BinaryIO", _Limited(plain, counted, self))
            elif self.suffix.endswith(".zst"):
                import pyarrow as pa

                stream = pa.CompressedInputStream(pa.PythonFile(counted, "r"), "zstd")
                yield cast("BinaryIO", _Limited(cast("BinaryIO", stream), counted, self))
            else:
                yield cast("BinaryIO", counted)


class Source(Protocol):
    """Something that holds one session."""

    @property
    def session_id(self) -> str:
        """Return the id that the session will have."""

    @property
    def symbol(self) -> str | None:
        """Return the symbol of what has no column that says it."""

    def tick_files(self) -> list[TickFile]:
        """Return its files; nothing for frames."""

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file by its path in the catalogue; nothing for frames."""

    def read(self, how: ReadOptions, progress: Advance) -> ImportedSession:
        """Read and check all its rows; the same rows each time."""


@contextmanager
def set_aside(refused: dict[str, str] | None, session_id: str) -> Iterator[None]:
    """Note why a session is refused, where others go on without it; with None, it is raised."""
    try:
        yield
    except (InvalidInput, SessionExists) as error:
        if refused is None:
            raise
        refused[session_id] = str(error)


class _Counted(io.RawIOBase):
    """A stream that tells how far it is read."""

    def __init__(self, inside: BinaryIO, size: int, progress: Advance) -> None:
        self._inside = inside
        self._size = max(size, 1)
        self._progress = progress
        self.read_bytes = 0

    def readable(self) -> bool:
        return True

    def read(self, size: int = -1, /) -> bytes:
        data = self._inside.read(size)
        self.read_bytes += len(data)
        self._progress(min(self.read_bytes / self._size, 1.0), "")
        return data

    def readinto(self, buffer: bytearray | memoryview, /) -> int:  # type: ignore[override]
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)


class _Limited:
    """What unpacks, until it is far more than ticks would be."""

    def __init__(self, inside: BinaryIO, packed: _Counted, file: TickFile) -> None:
        self._inside = inside
        self._packed = packed
        self._file = file
        self._read = 0

    def read(self, size: int) -> bytes:
        data = bytes(self._inside.read(size))
        self._read += len(data)
        if self._read > SMALL and self._read > MOST_RATIO * self._packed.read_bytes:
            self._file.refuse(_too_much(self._read, self._packed.read_bytes))
        return data


def _too_much(unpacked: int, packed: int) -> str:
    return (
        f"{packed:,} bytes of it unpack to {unpacked:,}, and more than {MOST_RATIO} times as much "
        f"is no file of ticks; {_YOURSELF}"
    )


def members_of(file: TickFile) -> tuple[list[TickFile], list[str]]:
    """Return the tick files in a zip archive, and the names of what else is there.

    Raises
    ------
    ImportRefused
        If it is damaged, a name leads out of its folder, or it would unpack to too much.
    """
    found, others = [], []
    try:
        with zipfile.ZipFile(file.path) as archive:
            entries = [entry for entry in archive.infolist() if not entry.is_dir()]
    except _UNPACKING as error:
        file.refuse(f"it is no zip archive that can be read ({error!s:.200}); copy it again")
    if len(entries) > MOST_MEMBERS:
        file.refuse(f"it holds {len(entries):,} files, and {MOST_MEMBERS:,} is the most")
    unpacked, packed = sum(entry.file_size for entry in entries), file.path.stat().st_size
    if unpacked > SMALL and unpacked > MOST_RATIO * packed:
        file.refuse(_too_much(unpacked, packed))
    for entry in entries:
        _refuse_unsafe(file, entry)
        kind = suffix_of(entry.filename)
        name = entry.filename
        if kind in (".parquet", *ARROW):
            file.refuse(f"{name!r:.200} in it is {kind[1:]}, which is packed already; unpack it")
        elif kind in (".csv", *JSON) or (kind == ".txt" and len(entries) == 1):
            inner = TickFile(file.path, f"{file.name}/{name}", f"{file.listed}/{name}", name)
            found.append(inner)
        else:
            others.append(f"{file.name}/{name}")
    if not found:
        file.refuse("it holds no .csv and no .jsonl file; unpack it and import what is in it")
    if len({one.listed for one in found}) < len(found):
        file.refuse("two files in it have one name; unpack it yourself")
    return found, others


def _refuse_unsafe(file: TickFile, entry: zipfile.ZipInfo) -> None:
    """Refuse an entry of an archive that is no plain file below its folder, or a bomb."""
    name = entry.filename
    path = PurePosixPath(name.replace("\\", "/"))
    is_link = stat.S_ISLNK(entry.external_attr >> 16)
    leads_out = path.is_absolute() or ".." in path.parts or ":" in name.split("/")[0]
    if leads_out or is_link or not path.parts:
        what = "is a link" if is_link else "leads out of the archive" if leads_out else "is no name"
        file.refuse(f"{name!r:.200} in it {what}: no archive of ticks has such an entry")
    if entry.flag_bits & 1:
        file.refuse(f"{name!r:.200} in it is encrypted; unpack it with its password")
    if entry.file_size > SMALL and entry.file_size > MOST_RATIO * max(entry.compress_size, 1):
        file.refuse(f"{name!r:.200} in it: {_too_much(entry.file_size, entry.compress_size)}")


@dataclass(frozen=True, slots=True)
class Opened:
    """A tick file whose format is known.

    Attributes
    ----------
    place
        The file in errors.
    form
        Its format.
    blocks
        Its rows, each time from the first one; bad ones go to the quarantine.
    """

    place: SourceLocation
    form: Format
    blocks: Callable[[Quarantine, Advance], Blocks]

    def ticks(self, bad: Quarantine, progress: Advance) -> Blocks:
        """Yield the rows under the names that the row parser knows, and the place of each."""
        changes = self.form.changes
        for raw, numbers in self.blocks(bad, progress):
            rows = self.form.canonical(self.place, raw, numbers)
            yield (rows, numbers) if changes is None else changes.books(rows, numbers, bad)
        if changes is not None:
            yield changes.rest(bad)


def opened(file: TickFile, how: ReadOptions, symbol: str | None) -> Opened:
    """Return a file with its format.

    Raises
    ------
    ImportRefused
        If it cannot be read, or is no file of ticks.
    """
    columns = dict(how.columns)
    openers = {"text": _text, "json": _json, ".parquet": _parquet}
    try:
        return openers.get(file.kind, _arrow)(file, how, columns, symbol)
    except _UNPACKING as error:
        if isinstance(error, FileNotFoundError | PermissionError):
            raise ImportRefused(f"{error}; nothing was imported") from error
        file.refuse(f"it cannot be read ({error!s:.200}); copy the file again")


def known(file: TickFile, how: ReadOptions, header: Sequence[str]) -> Opened:
    """Return a text file whose header must be a given one."""
    place = SourceLocation(file.name, "line", 2)

    def read(stream: BinaryIO, bad: Quarantine) -> Blocks:
        for frame, numbers in csv.read(stream, bad, batch_size=how.batch_size):
            if frame.columns != header:
                place.refuse(
                    f"the header is {','.join(frame.columns)!r:.200}, and {file.path.name} has "
                    f"{','.join(header)!r}; it may be another file under this name",
                    -1,
                )
            yield frame, numbers

    return Opened(place, Format("columns as they must be"), _streamed(file, read))


def _first_lines(file: TickFile) -> list[bytes]:
    """Return the first lines of text, whole ones."""
    with file.unpacked() as stream:
        data = b""
        while len(data) <= HEAD_BYTES and (more := stream.read(HEAD_BYTES + 1 - len(data))):
            data += more
    lines = data[:HEAD_BYTES].removeprefix(b"\xef\xbb\xbf").splitlines()
    return lines if len(data) <= HEAD_BYTES else lines[:-1]


def _streamed(
    file: TickFile, read: Callable[[BinaryIO, Quarantine], Blocks]
) -> Callable[[Quarantine, Advance], Blocks]:
    def blocks(bad: Quarantine, progress: Advance) -> Blocks:
        try:
            with file.unpacked(progress) as stream:
                yield from read(stream, bad)
        except _UNPACKING as error:
            file.refuse(f"it cannot be unpacked ({error!s:.200}); copy the file again")

    return blocks


def _text(
    file: TickFile, how: ReadOptions, columns: Mapping[str, str], symbol: str | None
) -> Opened:
    lines = [line.decode(errors="replace") for line in _first_lines(file)]
    place = SourceLocation(file.name, "line", 2)
    form = formats.of_text(place, lines, columns=columns, symbol=symbol)
    if form.names is not None:
        place = SourceLocation(file.name, "line", 1)

    def read(stream: BinaryIO, bad: Quarantine) -> Blocks:
        return csv.read(stream, bad, form.separator, form.names, how.batch_size)

    return Opened(place, form, _streamed(file, read))


def _json(
    file: TickFile, how: ReadOptions, columns: Mapping[str, str], symbol: str | None
) -> Opened:
    place = SourceLocation(file.name, "line", 1)
    rows = []
    for line in _first_lines(file)[:SAMPLE]:
        try:
            rows.append(csv.json_values(line))
        except (ValueError, RecursionError) as error:
            if not rows:
                place.refuse(f"its first line is no flat object of JSON ({error!s:.200})", 0)
    names = list(dict.fromkeys(key for row in rows for key in row))
    if not names:
        place.refuse("the file is empty; remove it, or copy it again")
    if len(names) > csv.MOST_COLUMNS:
        place.refuse(f"it has {len(names):,} keys, and {csv.MOST_COLUMNS} is the most")
    head = pl.DataFrame(rows, dict.fromkeys(names, pl.String), orient="row")
    form = formats.of_columns(place, head, columns=columns, symbol=symbol)

    def read(stream: BinaryIO, bad: Quarantine) -> Blocks:
        return csv.read_json(stream, bad, names, how.batch_size)

    return Opened(place, form, _streamed(file, read))


def _parquet(
    file: TickFile, how: ReadOptions, columns: Mapping[str, str], symbol: str | None
) -> Opened:
    import pyarrow as pa
    from pyarrow import parquet

    def frames(progress: Advance) -> Iterator[pl.DataFrame]:
        try:
            with parquet.ParquetFile(file.path) as held:
                if not held.metadata.num_rows:
                    yield _frame(held.schema_arrow.empty_table())
                done = 0
                for batch in held.iter_batches(how.batch_size):
                    yield _frame(pa.Table.from_batches([batch]))
                    done += batch.num_rows
                    progress(done / held.metadata.num_rows, "")
        except (pa.ArrowException, OSError, UnicodeError) as error:
            file.refuse(f"it cannot be read as Parquet ({error!s:.200}); copy the file again")

    return of_frames(SourceLocation(file.name), frames, columns, symbol)


def _arrow(
    file: TickFile, how: ReadOptions, columns: Mapping[str, str], symbol: str | None
) -> Opened:
    import pyarrow as pa

    def frames(progress: Advance) -> Iterator[pl.DataFrame]:
        try:
            with pa.memory_map(str(file.path)) as held, pa.ipc.open_file(held) as reader:
                if not reader.num_record_batches:
                    yield _frame(reader.schema.empty_table())
                for number in range(reader.num_record_batches):
                    whole = pa.Table.from_batches([reader.get_batch(number)])
                    for start in range(0, max(whole.num_rows, 1), how.batch_size):
                        yield _frame(whole.slice(start, how.batch_size))
                    progress((number + 1) / reader.num_record_batches, "")
        except (pa.ArrowException, OSError, UnicodeError) as error:
            file.refuse(f"it cannot be read as Arrow ({error!s:.200}); copy the file again")

    return of_frames(SourceLocation(file.name), frames, columns, symbol)


def _frame(table: Any) -> pl.DataFrame:  # noqa: ANN401 - of pyarrow, imported late
    """Return a table as a frame; damaged offsets or text would end the process inside Polars."""
    table.validate(full=True)
    return cast("pl.DataFrame", pl.from_arrow(table))


def of_frames(
    place: SourceLocation,
    frames: Callable[[Advance], Iterator[pl.DataFrame]],
    columns: Mapping[str, str],
    symbol: str | None,
) -> Opened:
    """Return rows with types, such as Parquet's, as a file that is opened."""
    first = next(frames(silent))
    if len(first.columns) > csv.MOST_COLUMNS:
        place.refuse(f"it has {len(first.columns):,} columns, and {csv.MOST_COLUMNS} is the most")
    form = formats.of_columns(place, first, columns=columns, symbol=symbol)

    def blocks(bad: Quarantine, progress: Advance) -> Blocks:
        return typed(frames(progress), bad)

    return Opened(place, form, blocks)


def typed(frames: Iterator[pl.DataFrame], bad: Quarantine) -> Blocks:
    """Yield frames with the places of their rows; a row's text is JSON."""
    first = 0
    for frame in frames:
        bad.rows += frame.height
        bad.text = _json_text(frame, first)
        last = first + frame.height
        yield frame, pl.int_range(first, last, dtype=pl.Int64, eager=True).alias(ROW)
        first = last


def _json_text(frame: pl.DataFrame, first: int) -> Callable[[int], str]:
    def text(row: int) -> str:
        values = {name: value_at(frame[name], row - first) for name in frame.columns}
        return json.dumps(values, default=str)

    return text
