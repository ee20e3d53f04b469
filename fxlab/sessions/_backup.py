"""Backup of the embedded server's data, and its restore into a home that has none.

A running server is stopped for the copy, and started again: under a checkpoint of a running one,
partitions that late rows rewrite vanish while they are copied, and which of them the checkpoint
needs cannot be told. Recordings wait in their journals meanwhile. The manifest, with the digest of
each file, is written last, and the folder gets its name when it is whole: what stopped half-way is
no backup.
"""

from __future__ import annotations

import contextlib
import json
import shutil
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl
import xxhash

from fxlab._progress import Advance, Progress, part, shown
from fxlab._questdb import server, sql
from fxlab._questdb.client import QuestDB
from fxlab._questdb.server_config import ServerLocation, write_private
from fxlab._questdb.sql import Scope
from fxlab.config import Settings
from fxlab.errors import InvalidInput, InvalidSettings, SessionBusy, SessionExists
from fxlab.schema import ORDERBOOK, PRICES, SESSIONS
from fxlab.sessions import _catalog

_DATA: Final = "db"
_MANIFEST: Final = "manifest.json"
_PIECE: Final = 1 << 20
_ROOM: Final = 1 << 26  # bytes that stay free for the server's own needs


def backup(
    folder: str | Path, settings: Settings | None = None, *, progress: Progress = None
) -> pl.DataFrame:
    """Copy all data of the embedded server into a new folder.

    A server that runs is stopped for the copy and started again. Of a recording that goes on, the
    backup has what is in the database by then; the recording itself waits and loses nothing.
    Passwords are not in it.

    Parameters
    ----------
    folder
        Where to; it must not exist. Only its owner can open it.
    settings, progress
        As `fxlab.connect` and `fxlab.backtest` take them.

    Returns
    -------
    polars.DataFrame
        One row a file: ``path``, ``size`` in bytes, ``digest`` (xxh3_128).

    Raises
    ------
    InvalidInput
        If the folder exists, lies within the home, or the disk has no room for it.
    InvalidSettings
        If the server is one of your own, or has no data.

    Examples
    --------
    >>> files = fxlab.backup(folder / "monday")
    >>> (folder / "monday" / "manifest.json").is_file()
    True
    """
    chosen = settings or Settings.load()
    place = _embedded(chosen)
    target = Path(folder).expanduser().absolute()
    if target.exists():
        raise InvalidInput(f"{target} exists; a backup makes its folder, so give a new name")
    if target.resolve().is_relative_to(place.home.resolve()):
        raise InvalidInput(
            f"{target} lies within {place.home}, which is to be saved; give a folder elsewhere, "
            "best on another disk"
        )
    if not (place.root / _DATA).is_dir():
        raise InvalidSettings(f"{place.home} has no data; FXLAB_HOME names the home to back up")
    half = target.with_name(f".{target.name}.half")
    with shown(progress, "backup") as advance, _still(chosen, place, advance):
        shutil.rmtree(half, ignore_errors=True)  # of a backup that was killed
        try:
            half.mkdir(mode=0o700, parents=True)
            files = _copied(place.root, half, _files(place.root), advance)
            facts = {"made_at": datetime.now(UTC).isoformat(), "version": chosen.questdb_version}
            write_private(half / _MANIFEST, json.dumps({**facts, "files": files}, indent=1))
            half.rename(target)
        finally:
            shutil.rmtree(half, ignore_errors=True)
    return pl.DataFrame(files, schema={"path": pl.String, "size": pl.Int64, "digest": pl.String})


def restore(
    folder: str | Path, settings: Settings | None = None, *, progress: Progress = None
) -> pl.DataFrame:
    """Restore a backup into a home without data, and start its server.

    A session that was being recorded when the backup was made is "aborted" in it. The home gets
    passwords of its own.

    Parameters
    ----------
    folder
        What `fxlab.backup` made.
    settings, progress
        As `fxlab.connect` and `fxlab.backtest` take them.

    Returns
    -------
    polars.DataFrame
        The files, as `fxlab.backup` returns them.

    Raises
    ------
    InvalidInput
        If it is no backup, a file is missing or damaged (it is named), or the disk has no room.
    SessionExists
        If the home has data.

    Examples
    --------
    >>> fxlab.restore(folder)
    Traceback (most recent call last):
    fxlab.errors.SessionExists: ... has data, which a restore would replace; ...
    """
    chosen = settings or Settings.load()
    place = _embedded(chosen)
    source = Path(folder).expanduser().absolute()
    _refuse_data(place)
    files = _manifest(source)
    half = place.root / ".restoring"
    with shown(progress, "restore") as advance:
        place.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with server.alone(place, advance):
            _refuse_data(place)
            shutil.rmtree(half, ignore_errors=True)  # of a restore that was killed
            try:
                half.mkdir(mode=0o700)
                found = _copied(
                    source, half, [str(row["path"]) for row in files], part(advance, 0, 0.9)
                )
                _check(source, files, found)
                (half / _DATA).rename(place.root / _DATA)
            finally:
                shutil.rmtree(half, ignore_errors=True)
        server.up(chosen, part(advance, 0.9, 1.0))
    _end_recordings(chosen)
    return pl.DataFrame(files, schema={"path": pl.String, "size": pl.Int64, "digest": pl.String})


def _embedded(settings: Settings) -> ServerLocation:
    if not settings.is_embedded:
        raise InvalidSettings(
            f"the server at {settings.questdb_host} is your own, and its files are not fxlab's; "
            "back it up by QuestDB's own means, or unset FXLAB_QUESTDB_HOST"
        )
    return ServerLocation.of(settings)


@contextlib.contextmanager
def _still(settings: Settings, place: ServerLocation, advance: Advance) -> Iterator[None]:
    """Keep the server from running; one that ran runs again afterwards."""
    ran = server.down(settings)
    try:
        with server.alone(place, advance):
            if server.status(settings).state == "running":
                raise SessionBusy(
                    "another program started the server while it was to be copied; close what "
                    "starts it, then back up again"
                )
            yield
    finally:
        if ran:
            server.up(settings)


def _files(root: Path) -> list[str]:
    found = (root / _DATA).rglob("*")
    return sorted(str(path.relative_to(root)) for path in found if path.is_file())


def _copied(
    source: Path, target: Path, names: list[str], advance: Advance
) -> list[dict[str, str | int]]:
    """Copy files, and return their names, sizes and digests."""
    sizes = {name: _blocks(source / name) for name in names}
    whole, free = sum(sizes.values()), shutil.disk_usage(target).free
    if whole + _ROOM > free:
        raise InvalidInput(
            f"{target.parent} has {free / 1e9:,.1f} GB free, and {(whole + _ROOM) / 1e9:,.1f} GB "
            "are needed; free space there, or choose another disk"
        )
    done, found = 0, []
    for name, size in sizes.items():
        (target / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        found.append(_copy(source, target, name))
        done += size
        advance(done / max(1, whole), f"{done / 1e6:,.0f} of {whole / 1e6:,.0f} MB")
    return found


def _blocks(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError as error:
        raise InvalidInput(f"{path} is missing, so this is no whole copy; use another") from error


def _copy(source: Path, target: Path, name: str) -> dict[str, str | int]:
    digest, size = xxhash.xxh3_128(), 0
    with (source / name).open("rb") as old, (target / name).open("xb") as new:
        while piece := old.read(_PIECE):
            digest.update(piece)
            size += len(piece)
            if piece.count(0) == len(piece):
                new.seek(size)  # the server reserves pages that hold nothing yet
            else:
                new.write(piece)
        new.truncate(size)
    return {"path": name, "size": size, "digest": digest.hexdigest()}


def _refuse_data(place: ServerLocation) -> None:
    if (place.root / _DATA).exists():
        raise SessionExists(
            f"{place.home} has data, which a restore would replace; give a home of its own: "
            "FXLAB_HOME=FOLDER fxlab restore BACKUP, fxlab.restore(backup, settings) in Python"
        )


def _manifest(source: Path) -> list[dict[str, str | int]]:
    path = source / _MANIFEST
    try:
        files: list[dict[str, str | int]] = json.loads(path.read_text(encoding="utf-8"))["files"]
        outside = [row["path"] for row in files if not _is_inside(str(row["path"]))]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise InvalidInput(
            f"{source} is no whole backup: {path.name} cannot be read ({error}); give a folder "
            "that fxlab backup made"
        ) from error
    if outside:
        raise InvalidInput(f"{path} names {outside[0]!r}, which is no file of a backup")
    return files


def _is_inside(name: str) -> bool:
    parts = Path(name).parts
    return parts[:1] == (_DATA,) and ".." not in parts


def _check(
    source: Path, files: list[dict[str, str | int]], found: list[dict[str, str | int]]
) -> None:
    for wanted, copied in zip(files, found, strict=True):
        if wanted != copied:
            raise InvalidInput(
                f"{source / str(wanted['path'])} is damaged: it has {copied['size']:,} bytes, "
                f"digest {copied['digest']}, and had {wanted['size']:,}, {wanted['digest']}; "
                "nothing was restored, use another backup"
            )


def _end_recordings(settings: Settings) -> None:
    """Say of sessions that were being recorded that they ended with the backup."""
    db = QuestDB(server.endpoint_of(settings))
    try:
        known = {row[0] for row in db.execute(sql.list_tables())}
        rows = db.catalogue(sql.live_sessions()).to_dicts() if SESSIONS.name in known else []
        if rows:
            _catalog.put(db, *(_ended(db, row) for row in rows))
            db.wait_visible(SESSIONS)
    finally:
        db.close()


def _ended(db: QuestDB, row: dict[str, Any]) -> dict[str, Any]:
    """Return a recording's row with the rows that the backup has of it."""
    of_kind = {
        "prices_count": db.catalogue(sql.trade_statistics(Scope(PRICES, row["session_id"]))),
        "orderbook_count": db.catalogue(sql.book_statistics(Scope(ORDERBOOK, row["session_id"]))),
    }
    counts = {name: int(found["row_count"].sum()) for name, found in of_kind.items()}
    times = pl.concat([found.select("first_time", "last_time") for found in of_kind.values()])
    now = datetime.now(UTC)
    return {
        **row,
        **counts,
        "records_collected": sum(counts.values()),
        "started": times["first_time"].min(),
        "ended": times["last_time"].max(),
        "status": "aborted",
        "updated_at": now,
    }
