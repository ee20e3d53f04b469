"""Import sources: session folders, single CSV and Parquet files, and frames in memory.

They are found before any of them is read. Folders are those of the older system:
``session_<id>/<SYMBOL>/{prices,orderbook}.csv``. Nothing outside the given folder is read: links
are refused, and so are names that cannot be ids or symbols. What is not part of the layout is left
alone and reported. Single files of trades, quotes or books are known by their columns. Frames in
memory, such as those of the generator, are imported like files.
"""

from __future__ import annotations

import dataclasses
import hashlib
import io
import os
import re
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import polars as pl

from fxlab._progress import Advance, silent
from fxlab._progress import part as part_of
from fxlab.backtester._frame_source import as_frame
from fxlab.collect._files import blocks
from fxlab.collect._files.blocks import (
    PLAIN,
    Opened,
    TickFile,
    members_of,
    set_aside,
    suffix_of,
)
from fxlab.collect._files.fields import SourceLocation
from fxlab.collect._files.parsing import WORDS
from fxlab.collect._files.quarantine import STRICT, ReadOptions
from fxlab.collect._files.session_data import ImportedSession, Intake, Origin, Part
from fxlab.errors import ImportRefused, InvalidIdentifier, InvalidInput, did_you_mean
from fxlab.schema import CHANNELS, ORIGINS, SESSION_PREFIX, check_session_id, check_symbol

_LEVELS: Final = 3
HEADERS: Final = {
    "prices.csv": ["timestamp", "price", "volume", "quote_volume"],
    "orderbook.csv": [
        "timestamp",
        *(
            f"{side}_{what}_{level}"
            for side in ("bid", "ask")
            for level in range(1, _LEVELS + 1)
            for what in ("price", "qty")
        ),
        "best_bid",
        "best_ask",
        "spread",
    ],
}


@dataclass(frozen=True)
class TreeSession:
    """One session folder: where it is and which files in it will be read."""

    session_id: str
    root: Path
    files: tuple[Path, ...]
    skipped: tuple[Path, ...]
    symbol: None = None  # its folders say it

    def tick_files(self) -> list[TickFile]:
        """Return its files as the catalogue knows them."""
        names = {file: file.relative_to(self.root).as_posix() for file in self.files}
        return [TickFile(file, name, name) for file, name in names.items()]

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file by its path in the catalogue, reading no rows."""
        return {file.listed: file.digest for file in self.tick_files()}

    def read(self, how: ReadOptions = STRICT, progress: Advance = silent) -> ImportedSession:
        """Read and check all files; nothing is written."""
        files = [(file, file.path.parent.name) for file in self.tick_files()]
        return _read(self.session_id, files, how, progress, HEADERS)


def is_session_folder(path: Path) -> bool:
    """Whether a folder's name says that it holds one session."""
    return path.is_dir() and path.name.startswith(SESSION_PREFIX)


def holds_sessions(folder: Path) -> bool:
    """Whether a folder is one of a session, or holds such folders, however deep."""
    root = folder.resolve()
    return is_session_folder(root) or bool(_session_folders(root)[0])


def _session_folders(folder: Path, *, deep: bool = False) -> tuple[list[Path], list[Path]]:
    """Return the session folders in a folder and below, and what else is there.

    Deep below, other programs may call their folders so: those that hold ticks are sessions.
    """
    found: list[Path] = []
    others: list[Path] = []
    entries: list[Path] = []
    with suppress(PermissionError):  # such as lost+found: it is of what else is there
        entries = sorted(folder.iterdir())
    for entry in entries:
        is_link = entry.is_symlink()
        is_named = entry.name.startswith(SESSION_PREFIX) and (entry.is_dir() or is_link)
        if is_named and (
            not deep or any(one for name in HEADERS for one in entry.glob(f"*/{name}"))
        ):
            found.append(entry)
        elif entry.is_dir() and not is_link:
            inside, beside = _session_folders(entry, deep=True)
            found += inside
            others += beside if inside else [entry]
        else:
            others.append(entry)
    return found, others


def find_tree_sessions(folder: Path) -> tuple[list[TreeSession], list[Path]]:
    """Return the sessions in a folder or below (or the one that it is), and what is of none.

    Raises
    ------
    ImportRefused
        If there is no session folder, or a link or a name in one breaks a rule.
    """
    root = folder.resolve(strict=True)
    if is_session_folder(root):
        return [_session(root.parent, root)], []
    folders, others = _session_folders(root)
    if not folders:
        raise ImportRefused(
            f"{folder} holds no folder named {SESSION_PREFIX}<id>; give the folder above such "
            "folders, or name the CSV or Parquet files themselves"
        )
    return [_session(entry.parent, entry) for entry in folders], others


def _session(root: Path, folder: Path) -> TreeSession:
    _refuse_link(root, folder)
    try:
        session_id = check_session_id(folder.name.removeprefix(SESSION_PREFIX))
    except InvalidIdentifier as error:
        raise ImportRefused(f"folder {folder.name!r}: {error}; rename the folder") from error
    files: list[Path] = []
    skipped: list[Path] = []
    for entry in sorted(folder.iterdir()):
        if entry.is_dir():
            found, others = _symbol_files(root, entry)
            files += found
            skipped += others
        else:
            skipped.append(entry)
    return TreeSession(session_id, root, tuple(files), tuple(skipped))


def _symbol_files(root: Path, folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the tick files of a symbol's folder, and the other things in it."""
    _refuse_link(root, folder)
    entries = sorted(folder.iterdir())
    files = [entry for entry in entries if entry.name in HEADERS]
    for file in files:
        _refuse_link(root, file)
        try:
            check_symbol(folder.name)
        except InvalidIdentifier as error:
            where = folder.relative_to(root)
            raise ImportRefused(f"folder {where}: {error}; rename the folder") from error
    return files, [entry for entry in entries if entry not in files]


def _refuse_link(root: Path, path: Path) -> None:
    if path.is_symlink() or not path.resolve().is_relative_to(root):
        raise ImportRefused(
            f"{path.relative_to(root)} is a link: what it points to may lie outside {root}, so it "
            "is not read; put the data itself there"
        )


def read_file(
    file: Path | TickFile,
    symbol: str | None = None,
    how: ReadOptions = STRICT,
    progress: Advance = silent,
    header: Sequence[str] | None = None,
    *,
    rows_before: int = 0,
) -> list[Part]:
    """Return the rows of a file, understood and checked, one part a symbol.

    Parameters
    ----------
    file
        Columns as the importer knows them: trades (timestamp, symbol, price, qty, volume or
        amount, and trade_id, side or buyer_is_maker, quote_volume, recv_ns), quotes (timestamp,
        symbol, bid, ask, bid_size, ask_size) or books (timestamp, symbol, bid_price_1, ...).
    symbol
        For a file without a symbol column.
    how
        What becomes of bad rows, and what columns are called.
    progress
        Told how much is read, and as text how many rows these are with `rows_before`.
    header
        That of a file whose columns are known: nothing is recognised then.
    rows_before
        Those of the files before it.
    """
    one = tick_file(file) if isinstance(file, Path) else file
    before = one.path.stat()
    opened = blocks.known(one, how, header) if header else blocks.opened(one, how, symbol)
    bad = how.of(opened.place)
    origin = Origin(one.listed, one.digest, one.origin, one.size)
    intake = Intake(origin, symbol or opened.form.symbol, bad, how.room)

    def told(share: float, _: str) -> None:
        progress(share, str(rows_before + bad.rows))

    for rows, numbers in opened.ticks(bad, told):
        intake.take(rows, numbers)

    def texts(rows: Sequence[int]) -> dict[int, str]:
        return _texts(opened, how, rows)

    changes = opened.form.changes
    assumed = (*opened.form.assumed, *(changes.assumed if changes else ()))
    parts = intake.parts(assumed, texts)
    after = one.path.stat()
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        opened.place.refuse("it changed while it was read; import it when it is whole")
    return parts


def _texts(opened: Opened, how: ReadOptions, rows: Sequence[int]) -> dict[int, str]:
    """Return the text of rows of a file that has been read; it is read again for them."""
    scratch = dataclasses.replace(how, strict=False, max_bad=1.0).of(opened.place)
    wanted = pl.Series(sorted(rows))
    found: dict[int, str] = {}
    for _, numbers in opened.blocks(scratch, silent):
        for row in numbers.filter(numbers.is_in(wanted.implode())):
            found[row] = scratch.text(row)
    return found


@contextmanager
def _refused_by_name(file: TickFile) -> Iterator[None]:
    """Say in a refusal which file it is of, and refuse values that make Polars panic."""
    try:
        try:
            yield
        except pl.exceptions.PanicException as error:
            file.refuse(f"a value in it is damaged ({error!s:.200}); copy the file again")
    except ImportRefused as error:
        error.file = file.listed
        raise


def _read(
    session_id: str,
    files: Sequence[tuple[TickFile, str | None]],
    how: ReadOptions,
    progress: Advance,
    headers: Mapping[str, list[str]] | None = None,
) -> ImportedSession:
    """Read the files of a session, each with its symbol if no column says it."""
    whole = sum(file.size for file, _ in files) or 1
    parts: list[Part] = []
    done = 0
    for file, symbol in files:
        told = part_of(progress, done / whole, (done + file.size) / whole)
        header = headers[file.path.name] if headers else None
        with _refused_by_name(file):
            rows = sum(one.rows + one.bad for one in parts)
            parts += read_file(file, symbol, how, told, header, rows_before=rows)
        done += file.size
    columns = None if headers else dict(how.columns)
    return ImportedSession(session_id, tuple(parts), how.room, columns)


def tick_file(file: Path) -> TickFile:
    """Return a file as the catalogue knows it."""
    return TickFile(file, str(file), f"{file.resolve().parent.name}/{file.name}")


@dataclass(frozen=True)
class FileSession:
    """Files that make one session."""

    session_id: str
    inside: tuple[TickFile, ...]
    symbol: str | None

    @property
    def files(self) -> tuple[Path, ...]:
        """Return the files on disk, each once."""
        return tuple(dict.fromkeys(one.path for one in self.inside))

    def tick_files(self) -> list[TickFile]:
        """Return its files as the catalogue knows them."""
        return list(self.inside)

    def digests(self) -> dict[str, str]:
        """Return the SHA-256 of each file by its path in the catalogue, reading no rows."""
        return {file.listed: file.digest for file in self.inside}

    def read(self, how: ReadOptions = STRICT, progress: Advance = silent) -> ImportedSession:
        """Read and check all files; nothing is written."""
        return _read(self.session_id, [(one, self.symbol) for one in self.inside], how, progress)


def session_id_of(file: TickFile) -> str:
    """Return the session id that a file's path suggests: its folder's name and its own."""
    folder, _, inside = file.listed.rpartition("/")
    if file.member is not None and "/" in folder:
        folder = folder.split("/", 1)[1]
    name = f"{folder}_{inside.removesuffix(file.suffix)}"
    return re.sub(r"[^A-Za-z0-9_.-]+", "_", name).strip("_")[-64:]


_OF_A_CHANNEL: Final = re.compile(rf"_(?:{'|'.join(CHANNELS)})\.(?:parquet|csv|arrow)$")


def in_folder(folder: Path) -> tuple[list[Path], list[Path]]:
    """Return the CSV and Parquet files in a folder and below, by name, and what else is there.

    Files of channels, as `Session.export` names them, hold no ticks and are of what else is there.

    Raises
    ------
    ImportRefused
        If there is none, or something in it is a link: that may lead out of the folder.
    """
    found: list[Path] = []
    others: list[Path] = []
    for path in sorted(folder.rglob("*")):
        hidden = any(part.startswith(".") for part in path.relative_to(folder).parts)
        if path.is_symlink():
            raise ImportRefused(
                f"{path} is a link: what it points to may lie outside {folder}; put the file "
                "itself there, or name it; nothing was imported"
            )
        if path.is_dir():
            continue
        # A .txt beside ticks is a note about them more often than not: it has to be named.
        is_data = suffix_of(path.name) not in ("", ".txt") and not hidden
        (found if is_data and not _OF_A_CHANNEL.search(path.name) else others).append(path)
    if not found:
        raise ImportRefused(
            f"{folder} holds neither a folder named {SESSION_PREFIX}<id> nor "
            f"files that end with {', '.join(PLAIN)}; give a folder that does, or the files "
            "themselves"
        )
    return found, others


def _refuse_missing(path: Path) -> None:
    if not os.path.exists(path):  # noqa: PTH110 - false also for what no path can be
        shown = f"{path!s:.200}" if str(path).isprintable() else f"{str(path)!r:.200}"
        raise ImportRefused(f"{shown} is not there; give files or folders that exist")


def check_files(files: Sequence[Path]) -> None:
    """Refuse what is not a file of a known kind, before any is read."""
    for file in files:
        if not suffix_of(file.name):
            raise ImportRefused(
                f"{file} is neither of {', '.join(PLAIN)}, text as .gz or .zst, nor .zip; write "
                "the ticks as one of these"
            )


KINDS: Final = ("prices", "orderbook")


@dataclass(frozen=True)
class FrameSession:
    """Frames that make one session.

    Attributes
    ----------
    frames
        "prices" and "orderbook", or one of them: columns as the importer knows them; of
        Polars (lazy too) or pandas, or Arrow tables.
    origin
        One of `fxlab.schema.ORIGINS`.
    """

    session_id: str
    frames: Mapping[str, Any]
    origin: str
    symbol: None = None  # a column says it

    def tick_files(self) -> list[TickFile]:
        """Return nothing: frames are no files."""
        return []

    def digests(self) -> dict[str, str]:
        """Return nothing: frames are in memory, and soon checked."""
        return {}

    def read(self, how: ReadOptions = STRICT, progress: Advance = silent) -> ImportedSession:
        """Check all rows; nothing is written."""
        del progress
        _refuse_unknown(self.origin, ORIGINS, "source")
        parts = []
        for kind, given in self.frames.items():
            _refuse_unknown(kind, KINDS, "kind")
            place = SourceLocation(f"the {kind} frame")
            try:
                frame = as_frame(given, place.file)
            except InvalidInput as error:
                raise ImportRefused(f"{error}; nothing was imported") from error
            _refuse_text(place, frame)
            origin = Origin(f"frame/{kind}", _content(frame), self.origin)
            bad = how.of(place)
            intake = Intake(origin, None, bad, how.room)
            for rows, numbers in blocks.typed(_slices(frame, how.batch_size), bad):
                intake.take(rows, numbers)
            found = intake.parts()
            if any(part.data_type != kind for part in found):
                place.refuse(f"its columns are those of {found[0].data_type}")
            parts += found
        return ImportedSession(self.session_id, tuple(parts), how.room)


def _slices(frame: pl.DataFrame, rows: int) -> Iterator[pl.DataFrame]:
    return iter([frame]) if frame.is_empty() else frame.iter_slices(rows)


def _refuse_text(place: SourceLocation, frame: pl.DataFrame) -> None:
    """Refuse text for numbers and times: in memory they have types, and text was read amiss."""
    for name, kind in frame.schema.items():
        if kind == pl.String and name not in WORDS:
            is_time = name in ("timestamp", "received_at")
            cast = ".str.to_datetime(time_zone='UTC')" if is_time else ".cast(pl.Float64)"
            place.refuse(
                f"column {name!r} is text, not {'a time' if is_time else 'a number'}; cast it, for "
                f"example pl.col({name!r}){cast}"
            )


def _content(frame: pl.DataFrame) -> str:
    """Return the SHA-256 of a frame's values and column names."""
    memory = io.BytesIO()
    frame.rechunk().write_ipc(memory)
    return hashlib.sha256(memory.getbuffer()).hexdigest()


def _refuse_unknown(value: str, known: tuple[str, ...], what: str) -> None:
    if value not in known:
        hint = did_you_mean(value, known)
        raise ImportRefused(
            f"{value!r:.80} is not a {what}; " + (hint or f"choose one of: {', '.join(known)}")
        )


Source = TreeSession | FileSession


def find_sources(
    paths: Sequence[str | Path],
    session_id: str | None = None,
    symbol: str | None = None,
    refused: dict[str, str] | None = None,
) -> tuple[list[Source], list[str]]:
    """Return the sessions in files and folders, and the paths that are no part of any.

    Parameters
    ----------
    paths
        Folders of the older system, CSV and Parquet files, or folders of those, which stand for
        the files in them.
    session_id
        One id for all; without it a folder's session keeps its own, and a file's is made from its
        path.
    symbol
        For files without a symbol column.
    refused
        Takes archives that cannot be looked into, where they are sessions of their own, and why.

    Raises
    ------
    ImportRefused
        If a path is not there or holds nothing to import, or two sessions would get one id.
    """
    given = [Path(path) for path in paths]
    for path in given:
        _refuse_missing(path)
    folders = [path for path in given if path.is_dir() and holds_sessions(path)]
    others: list[Path] = []
    singles: list[Path] = []
    for path in given:
        if not path.is_dir():
            singles.append(path)
        elif path not in folders:
            inside, beside = in_folder(path)
            singles += inside
            others += beside
    single = tuple(singles)
    check_files(single)
    if symbol is not None:
        check_symbol(symbol)
    found: list[Source] = []
    for folder in folders:
        sessions, beside = find_tree_sessions(folder)
        found += sessions
        others += [*beside, *(path for session in sessions for path in session.skipped)]
    ticks: list[TickFile] = []
    for one in single:
        file = tick_file(one)
        with set_aside(None if session_id else refused, session_id_of(file)):
            members, notes = members_of(file) if file.suffix == ".zip" else ([file], [])
            ticks += members
            others += [Path(name) for name in notes]
    if ticks and session_id is not None:
        found.append(FileSession(session_id, tuple(ticks), symbol))
    else:
        found += [FileSession(session_id_of(file), (file,), symbol) for file in ticks]
    named = _named(found, session_id) if found or not refused else []
    return named, [str(path) for path in others]


def _named(found: Sequence[Source], session_id: str | None) -> list[Source]:
    """Return the sessions under their final ids, each of which is there once."""
    if not found:
        raise ImportRefused("nothing was given to import; give folders, CSV or Parquet files")
    if session_id is not None and len(found) > 1:
        raise ImportRefused(
            f"session_id={session_id!r} is one id for {len(found)} sessions; import them without "
            "it, or one by one"
        )
    named = found if session_id is None else [dataclasses.replace(found[0], session_id=session_id)]
    ids = Counter(check_session_id(source.session_id) for source in named)
    for name, count in ids.items():
        if count > 1:
            raise ImportRefused(
                f"two of the paths would become session {name!r}; import them one by one, or "
                "files that belong together with a session_id of your choice"
            )
    return list(named)
