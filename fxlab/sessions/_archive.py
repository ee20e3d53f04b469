"""Archive and backup: partitions in place as Parquet; copies of the embedded server's home.

An archived partition takes half of the disk or less. The server reads it as before, and takes
late rows into it. What is there is read before and after, and compared by a digest of each
session's rows. Partitions change their form one at a time, while no purge runs; the server itself
swaps each of them whole, so that a kill leaves the one form or the other.

A running server is stopped for a backup, and started again: under a checkpoint of a running one,
partitions that late rows rewrite vanish while they are copied, and which of them the checkpoint
needs cannot be told. Recordings wait in their journals meanwhile. The manifest, with the digest of
each file, is written last, and the folder gets its name when it is whole: what stopped half-way is
no backup.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import polars as pl
import xxhash

from fxlab._progress import Advance, Progress, part, shown
from fxlab._questdb import migrations, server, sql, sql_tables
from fxlab._questdb.client import QuestDB
from fxlab._questdb.migrations import Partition
from fxlab._questdb.server_config import ServerLocation
from fxlab._questdb.sql import Scope, Span
from fxlab._times import Time, from_micros, parse_time
from fxlab.config import Settings, path_of, write_private
from fxlab.errors import InvalidInput, InvalidSettings, SchemaError, SessionBusy, SessionExists
from fxlab.schema import (
    CHANNELS,
    DATA_TABLES,
    ORDERBOOK,
    PRICES,
    SESSIONS,
    Table,
    data_tables,
)
from fxlab.sessions import _catalog, _purge

ARCHIVED: Final = {
    **dict.fromkeys(("table", "partition"), pl.String()),
    **dict.fromkeys(("rows", "bytes", "bytes_after"), pl.Int64()),
    **dict.fromkeys(("state", "reason"), pl.String()),
}
_BYTES_A_ROW: Final = {
    ("parquet", PRICES.name): 26,
    ("parquet", ORDERBOOK.name): 160,
    ("native", PRICES.name): 80,
    ("native", ORDERBOOK.name): 365,
    **{("parquet", table.name): 24 for table in CHANNELS.values()},
    **{("native", table.name): 70 for table in CHANNELS.values()},
}
"""What is expected where the table has no partition of that form yet."""
_DATA: Final = "db"
_MANIFEST: Final = "manifest.json"
_MARK: Final = "restoring"
"""The file that says which backup is being restored, until its recordings are ended too."""
_PIECE: Final = 1 << 20
_ROOM: Final = 1 << 26  # bytes that stay free for the server's own needs


class Archives:
    """The part of a `fxlab.Lab` that archives partitions and makes backups."""

    settings: Settings
    _db: QuestDB

    def archive(
        self, *, before: Time | None = None, dry_run: bool = False, progress: Progress = None
    ) -> pl.DataFrame:
        """Rewrite old partitions of ticks as Parquet, in place: half of the disk or less.

        Everything reads them as before, and late rows still come into them. The last partition of
        a table stays as it is, and so does one that a recording or an import may write to, or that
        holds rows of a deleted session. It can be stopped between any two partitions; the same
        call goes on from there, and `unarchive` is the way back.

        Parameters
        ----------
        before
            Only partitions that end before this time; all of them unless given.
        dry_run
            Only say what would be done.
        progress
            As `fxlab.backtest` takes it; called for each partition.

        Returns
        -------
        polars.DataFrame
            One row a partition: ``table``, ``partition``, ``rows``, ``bytes``, ``bytes_after``
            (expected until it is done), ``state`` ("planned", "done" or "skipped") and the
            ``reason``. Those that are archived already are left out.

        Raises
        ------
        SessionBusy
            If a purge, or another archive, is running.
        SchemaError
            If a session reads otherwise than before; the session is named.

        Examples
        --------
        >>> lab.archive(before="1971-01-01").height
        0
        """
        return self._convert("parquet", before, progress, dry_run=dry_run)

    def unarchive(
        self, *, before: Time | None = None, dry_run: bool = False, progress: Progress = None
    ) -> pl.DataFrame:
        """Rewrite archived partitions in the server's own form; see `archive`.

        Examples
        --------
        >>> lab.unarchive(before="1971-01-01", dry_run=True).height
        0
        """
        return self._convert("native", before, progress, dry_run=dry_run)

    def _convert(
        self, form: str, before: Time | None, progress: Progress, *, dry_run: bool
    ) -> pl.DataFrame:
        edge = _purge.EVER[1] if before is None else parse_time(before, "before")
        locks = self.settings.home / "locks"
        _purge.finish(self._db, locks)
        with contextlib.ExitStack() as stack:
            if not dry_run:
                stack.enter_context(_purge.alone(locks))
            lines = self._db.steady(lambda: list(self._plan(form, edge)))
            if not dry_run:
                advance = stack.enter_context(shown(progress, "archive"))
                _run(self._db, lines, form, locks, advance)
        return pl.DataFrame(
            [{name: line[name] for name in ARCHIVED} for line in lines], schema=ARCHIVED
        )

    def _plan(self, form: str, edge: int) -> Iterator[dict[str, Any]]:
        """Yield what `archive` returns of each partition that is to change, and its place."""
        locks = self.settings.home / "locks"
        writers, deleted = _purge.find_writers(self._db, locks), _waiting(self._db)
        for table in DATA_TABLES.values():
            found = migrations.partitions(self._db, table)
            like = [place for place in found if place.is_parquet == (form == "parquet")]
            like = [place for place in like if not place.is_last]
            rows = sum(place.rows for place in like)
            each = sum(place.size for place in like) / rows if rows else None
            for place in found:
                if place.end > edge or place.is_parquet == (form == "parquet"):
                    continue
                after = round(place.rows * (each or _BYTES_A_ROW[form, table.name]))
                reason = self._no_room(after)
                if form == "parquet":
                    reason = reason or _in_use(self._db, place, writers, deleted)
                yield {
                    "place": place,
                    "table": table.name,
                    "partition": place.name,
                    "rows": place.rows,
                    "bytes": place.size,
                    "bytes_after": place.size if reason else after,
                    "state": "skipped" if reason else "planned",
                    "reason": reason,
                }

    def _no_room(self, needed: int) -> str:
        """Return what to say if the disk cannot hold a partition in both forms for a while."""
        if not self.settings.is_embedded:
            return ""
        free = shutil.disk_usage(ServerLocation.of(self.settings).home).free
        if free > needed + _ROOM:
            return ""
        return f"{free / 1e9:,.1f} GB of the disk are free, and it needs {needed / 1e9:,.1f} GB"

    def backup(self, folder: str | Path, *, progress: Progress = None) -> pl.DataFrame:
        """Copy all data of the embedded server into a new folder; see `fxlab.backup`."""
        files = backup(folder, self.settings, progress=progress)
        self._db.close()  # the server is another process now
        return files


def _waiting(db: QuestDB) -> list[tuple[str, int, int]]:
    """Return deleted sessions that are not purged, and the ranges of their ticks."""
    rows = (row for row in _catalog.hidden(db) if row["status"] == "deleting")
    return [(row["session_id"], *_purge.ever_range(row)) for row in rows]


def _in_use(
    db: QuestDB,
    place: Partition,
    writers: list[_purge.WrittenSession],
    deleted: list[tuple[str, int, int]],
) -> str:
    """Return why a partition is not archived now, or nothing."""
    if place.is_last:
        return "new rows are appended to the last partition of a table"
    if busy := _purge.who_writes(place, writers):
        return busy
    near = {name for name, low, high in deleted if low < place.end and place.start < high}
    there = sorted(near & _purge.count_rows(db, place).keys()) if near else []
    return f"session {there[0]!r} is deleted and has rows in it: purge first" if there else ""


def _run(
    db: QuestDB, lines: list[dict[str, Any]], form: str, locks: Path, advance: Advance
) -> None:
    """Change the form of each planned partition, and say so in its line."""
    planned = [line for line in lines if line["state"] == "planned"]
    whole, done = sum(line["rows"] for line in planned), 0
    for line in planned:
        advance(done / whole, f"{line['table']} {line['partition']}")
        line["bytes_after"] = _rewrite(db, line["place"], form, locks)
        line["state"] = "done"
        done += line["rows"]
    advance(1.0, f"{done:,} rows")


def _rewrite(db: QuestDB, place: Partition, form: str, locks: Path) -> int:
    """Change the form of a partition, compare its sessions, and return its bytes."""
    writing = {one.session_id for one in _purge.find_writers(db, locks)}
    before = _digests(db, place)
    migrations.run(db, sql_tables.convert_partition(place.table, place.name, form))
    _await_rewritten(db, place.table)
    found = {one.name: one for one in migrations.partitions(db, place.table)}
    now = _digests(db, place)
    writing |= {one.session_id for one in _purge.find_writers(db, locks)}
    changed = [name for name in sorted(before.keys() - writing) if now.get(name) != before[name]]
    after = found.get(place.name)
    if changed or after is None or after.is_parquet != (form == "parquet"):
        what = f"session {changed[0]!r} reads otherwise" if changed else "its form is as it was"
        raise SchemaError(
            f"partition {place.name} of {place.table.name} was rewritten as {form}, and {what}: "
            "run fxlab doctor, and keep your backups"
        )
    return after.size


def _await_rewritten(db: QuestDB, table: Table) -> None:
    """Wait for what may take longer than the server lets one query run."""
    (taken,) = db.execute(sql_tables.transactions(table))
    while db.execute(sql_tables.transactions(table, applied=True))[0] < taken:
        if any(row[0] == table.name for row in db.execute(sql.list_suspended())):
            break
        time.sleep(0.05)
    db.wait_visible(table)


def _digests(db: QuestDB, place: Partition) -> dict[str, tuple[int, int]]:
    """Return the number and digest of each session's rows in a partition, in whatever order."""
    found: dict[str, tuple[int, int]] = {}
    for span in migrations.cut(Span(place.start, place.end), place.rows, place.table):
        rows = db.export(sql_tables.rows_to_compare(place.table, span))
        hashes = rows.select("session_id", digest=rows.hash_rows())
        sums = hashes.group_by("session_id").agg(pl.len(), pl.col("digest").bitwise_xor())
        for name, count, digest in sums.iter_rows():
            before = found.get(name, (0, 0))
            found[name] = before[0] + count, before[1] ^ digest
    return found


def backup(
    folder: str | Path, settings: Settings | None = None, *, progress: Progress = None
) -> pl.DataFrame:
    """Copy all data of the embedded server, and all lines in quarantine, into a new folder.

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
    target = path_of(folder).absolute()
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
            files = _copied(_files(place), half, advance)
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
    passwords of its own. A restore that was killed is finished by the same call.

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
    source = path_of(folder).absolute()
    mark = place.root / _MARK
    known = _known(source)
    if not _is_of(mark, known):
        _refuse_data(place)
    files = _manifest(source)
    with shown(progress, "restore") as advance:
        place.root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with server.alone(place, advance):
            if not (_is_of(mark, known) and (place.root / _DATA).exists()):
                _refuse_data(place)
                write_private(mark, known)
                _bring_back(source, place, files, part(advance, 0, 0.9))
        server.up(chosen, part(advance, 0.9, 1.0))
    _end_recordings(chosen)
    mark.unlink(missing_ok=True)
    return pl.DataFrame(files, schema={"path": pl.String, "size": pl.Int64, "digest": pl.String})


def _known(source: Path) -> str:
    """Return what tells a backup from all others."""
    manifest = source / _MANIFEST
    return xxhash.xxh3_128_hexdigest(manifest.read_bytes()) if manifest.is_file() else ""


def _is_of(mark: Path, known: str) -> bool:
    """Return whether a restore of that backup was killed here."""
    return mark.is_file() and mark.read_text(encoding="ascii") == known


def _bring_back(
    source: Path, place: ServerLocation, files: list[dict[str, str | int]], advance: Advance
) -> None:
    """Copy the files of a backup, check them, and only then make them the home's data."""
    half = place.root / ".restoring"
    shutil.rmtree(half, ignore_errors=True)  # of a restore that was killed
    try:
        half.mkdir(mode=0o700)
        names = (str(row["path"]) for row in files)
        found = _copied({name: source / name for name in names}, half, advance)
        _check(source, files, found)
        if (half / _catalog.QUARANTINE).is_dir():
            kept = place.home / _catalog.QUARANTINE
            shutil.copytree(half / _catalog.QUARANTINE, kept, dirs_exist_ok=True)
        (half / _DATA).rename(place.root / _DATA)  # last: the home has data now
    finally:
        shutil.rmtree(half, ignore_errors=True)


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


def _files(place: ServerLocation) -> dict[str, Path]:
    """Return what is saved, by its name in a backup: the server's data, and lines in quarantine."""
    folders = ((place.root, _DATA), (place.home, _catalog.QUARANTINE))
    return {
        str(path.relative_to(base)): path
        for base, name in folders
        for path in sorted((base / name).rglob("*"))
        if path.is_file() and path.suffix != ".part"  # what is being written
    }


def _copied(paths: dict[str, Path], target: Path, advance: Advance) -> list[dict[str, str | int]]:
    """Copy files to their names in a folder, and return names, sizes and digests."""
    sizes = {name: _blocks(path) for name, path in paths.items()}
    whole, free = sum(sizes.values()), shutil.disk_usage(target).free
    if whole + _ROOM > free:
        raise InvalidInput(
            f"{target.parent} has {free / 1e9:,.1f} GB free, and {(whole + _ROOM) / 1e9:,.1f} GB "
            "are needed; free space there, or choose another disk"
        )
    done, found = 0, []
    for name, size in sizes.items():
        (target / name).parent.mkdir(mode=0o700, parents=True, exist_ok=True)
        found.append(_copy(paths[name], target, name))
        done += size
        advance(done / max(1, whole), f"{done / 1e6:,.0f} of {whole / 1e6:,.0f} MB")
    return found


def _blocks(path: Path) -> int:
    try:
        return path.stat().st_blocks * 512
    except FileNotFoundError as error:
        raise InvalidInput(f"{path} is missing, so this is no whole copy; use another") from error


def _copy(path: Path, target: Path, name: str) -> dict[str, str | int]:
    digest, size = xxhash.xxh3_128(), 0
    with path.open("rb") as old, (target / name).open("xb") as new:
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
    return parts[:1] in ((_DATA,), (_catalog.QUARANTINE,)) and ".." not in parts


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
        known = {row[0] for row in db.execute(sql_tables.list_tables())}
        rows = db.catalogue(sql_tables.live_sessions()).to_dicts() if SESSIONS.name in known else []
        if rows:
            _catalog.put(db, *(_ended(db, row) for row in rows))
            db.wait_visible(SESSIONS)
    finally:
        db.close()


def _ended(db: QuestDB, row: dict[str, Any]) -> dict[str, Any]:
    """Return a recording's row with the rows that the backup has of it."""
    since = _catalog.tick_range(row)  # of all of time would open the partitions of all sessions
    extents = {
        kind: db.execute(sql.extent(Scope(table, row["session_id"], None, *since)))[0]
        for kind, table in data_tables(json.loads(row["data_types"])).items()
    }
    counts = {f"{kind}_count": int(extents[kind][0]) for kind in ("prices", "orderbook")}
    times = [moment for _, *both in extents.values() for moment in both if moment is not None]
    return {
        **row,
        **counts,
        "records_collected": sum(counts.values()),
        "started": from_micros(min(times)) if times else None,
        "ended": from_micros(max(times)) if times else None,
        "status": "aborted",
        "updated_at": datetime.now(UTC),
    }
