"""Find the sessions that files and folders hold, before any of them is read."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from fxlab.collect import csv_tree, files
from fxlab.collect.csv_tree import TreeSession
from fxlab.collect.files import FileSession
from fxlab.errors import ImportRefused
from fxlab.identifiers import check_session_id, check_symbol

Source = TreeSession | FileSession


def find(
    paths: Sequence[str | Path], session_id: str | None = None, symbol: str | None = None
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

    Raises
    ------
    ImportRefused
        If a path is not there or holds nothing to import, or two sessions would get one id.
    """
    given = [Path(path) for path in paths]
    folders = [path for path in given if path.is_dir() and csv_tree.holds_sessions(path)]
    others: list[Path] = []
    singles: list[Path] = []
    for path in given:
        if not path.is_dir():
            singles.append(path)
        elif not csv_tree.holds_sessions(path):
            inside, beside = files.in_folder(path)
            singles += inside
            others += beside
    single = tuple(singles)
    files.check_files(single)
    if symbol is not None:
        check_symbol(symbol)
    found: list[Source] = []
    for folder in folders:
        sessions, beside = csv_tree.find(folder)
        found += sessions
        others += [*beside, *(path for session in sessions for path in session.skipped)]
    if single and session_id is not None:
        found.append(FileSession(session_id, single, symbol))
    else:
        found += [FileSession(files.session_id_of(file), (file,), symbol) for file in single]
    return _named(found, session_id), [str(path) for path in others]


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
