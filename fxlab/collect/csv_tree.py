"""Read the folders of the older system: ``session_<id>/<SYMBOL>/{prices,orderbook}.csv``.

Nothing outside the given folder is read: links are refused, and so are names that cannot be ids or
symbols. What is not part of the layout is left alone and reported.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from fxlab.collect import text_table
from fxlab.collect.checks import Place
from fxlab.collect.draft import Draft, Origin, Part, digest, parts_of
from fxlab.errors import ImportRefused, InvalidIdentifier
from fxlab.identifiers import SESSION_PREFIX, check_session_id, check_symbol

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

    def read(self) -> Draft:
        """Read and check all files; nothing is written."""
        parts = [part for file in self.files for part in _read_file(self.root, file)]
        return Draft(self.session_id, tuple(parts))


def is_session_folder(path: Path) -> bool:
    """Whether a folder's name says that it holds one session."""
    return path.is_dir() and path.name.startswith(SESSION_PREFIX)


def holds_sessions(folder: Path) -> bool:
    """Whether a folder is one of a session, or holds such folders."""
    root = folder.resolve()
    return is_session_folder(root) or any(
        entry.name.startswith(SESSION_PREFIX) and entry.is_dir() for entry in root.iterdir()
    )


def find(folder: Path) -> tuple[list[TreeSession], list[Path]]:
    """Return the sessions in a folder (or the one that it is), and what is no part of any.

    Raises
    ------
    ImportRefused
        If there is no session folder, or a link or a name in one breaks a rule.
    """
    root = folder.resolve(strict=True)
    if is_session_folder(root):
        return [_session(root.parent, root)], []
    entries = sorted(root.iterdir())
    folders = [entry for entry in entries if entry.name.startswith(SESSION_PREFIX)]
    if not folders:
        raise ImportRefused(
            f"{folder} holds no folder named {SESSION_PREFIX}<id>; give the folder above such "
            "folders, or name the CSV or Parquet files themselves"
        )
    others = [entry for entry in entries if entry not in folders]
    return [_session(root, entry) for entry in folders], others


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


def _read_file(root: Path, file: Path) -> Iterator[Part]:
    path = file.relative_to(root).as_posix()
    place = Place(path, "line", 2)
    data = file.read_bytes()
    raw = text_table.read(place, data)
    if raw.columns != HEADERS[file.name]:
        place.refuse(
            f"the header is {','.join(raw.columns)!r:.200}, and {file.name} has "
            f"{','.join(HEADERS[file.name])!r}; it may be another file under this name",
            -1,
        )
    yield from parts_of(place, raw, Origin(path, digest(data), "csv"), file.parent.name)
