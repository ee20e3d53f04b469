"""Build a table anew with larger partitions: copy, compare, and only then let the old one go.

Which of three tables exist says how far it came, so a kill at any point is gone on from by the
next call: `T` in the old unit and perhaps `T_new` (copying); `T_old` and `T_new` (between the two
renames); `T` in the new unit and `T_old` (comparing). The old rows are there until every value of
them was read back out of the new table. Each query is bounded by time: a table of twenty thousand
partitions cannot be read in one go.
"""

from __future__ import annotations

import dataclasses
import itertools
import time
from collections.abc import Iterator, Sequence
from typing import Any, Final

import polars as pl

from fxlab.backoff import waits
from fxlab.errors import QueryFailed, SchemaError
from fxlab.progress import Advance, part, silent
from fxlab.questdb import sql, sql_rebuild
from fxlab.questdb.client import QuestDB
from fxlab.questdb.server_config import RESTING_KEY, RESTING_PARTITIONS
from fxlab.questdb.sql_rebuild import Span
from fxlab.schema import Table
from fxlab.times import from_micros

CELLS: Final = 6_000_000
"""Copied and compared at once: half a million trades."""
PARTITIONS: Final = 200
"""Touched at once: each reader maps a file for each column of each of them."""

MANY: Final = 1_000
"""Partitions that a resting reader may keep open while a table is read from end to end."""

_RACE_WAITS: Final = (7, 0.07, 5.0)
"""Tries, first and longest wait (s) while others change the same table."""
_RACE_WORDS: Final = ("busy", "already exists", "could not lock", "duplicate column", "being")


def rebuild(db: QuestDB, table: Table, progress: Advance = silent) -> None:
    """Give a table the unit of partitions that `table` says; do nothing where it has it.

    Parameters
    ----------
    db, table
        Where, and what it shall be. Its name, columns and DEDUP keys stay.
    progress
        Told after each piece; if it raises, the next call goes on from there.

    Raises
    ------
    SchemaError
        If somebody writes to the table meanwhile, or the copy is not equal. All rows are kept.
    """
    old, new = (dataclasses.replace(table, name=f"{table.name}_{end}") for end in ("old", "new"))
    units = _units(db)
    if table.name in units and units[table.name] != table.partition_by:
        _copy(db, table, new, part(progress, 0.0, 0.5))
        run(db, sql_rebuild.rename_table(table, old))
        units = _units(db)
    if table.name not in units and new.name in units:
        run(db, sql_rebuild.rename_table(new, table))
        units = _units(db)
    if old.name in units:
        _compare(db, old, table, part(progress, 0.5, 1.0))
        run(db, sql_rebuild.drop_table(old))


def is_needed(db: QuestDB, tables: Sequence[Table]) -> bool:
    """Return whether `rebuild` would do anything."""
    units = _units(db)
    return any(
        units.get(table.name, table.partition_by) != table.partition_by
        or f"{table.name}_old" in units
        for table in tables
    )


def run(db: QuestDB, command: str) -> None:
    """Run a statement that others may be running too."""
    for pause in waits(*_RACE_WAITS):
        try:
            db.execute(command)
        except QueryFailed as error:
            if not any(words in str(error).lower() for words in _RACE_WORDS):
                raise
            time.sleep(pause)
        else:
            return
    db.execute(command)


def _units(db: QuestDB) -> dict[str, str]:
    return {str(row[0]): str(row[3]) for row in db.execute(sql.list_tables())}


def _copy(db: QuestDB, table: Table, new: Table, progress: Advance) -> None:
    """Copy what is not there yet; raise if the table took other rows meanwhile."""
    run(db, sql.create_table(new))
    db.wait_visible(table, new)
    before = db.execute(sql_rebuild.transactions(table))
    for span in _spans(db, table, f"{table.name}: copied", progress):
        if _count(db, new, span) != _count(db, table, span):
            db.execute(sql_rebuild.copy_rows(table, new, span))
            db.wait_visible(new)
    if db.execute(sql_rebuild.transactions(table)) != before:
        raise SchemaError(
            f"rows were written to {table.name} while it was built anew; stop the recordings and "
            "imports that use this server, then connect again: it goes on from here, and no row "
            "is lost"
        )


def _compare(db: QuestDB, old: Table, table: Table, progress: Advance) -> None:
    """Make sure that every value of the old table is in the new one."""
    db.wait_visible(old, table)
    for span in _spans(db, old, f"{table.name}: compared", progress):
        if _missing(db, old, table, span):  # written at the very last moment
            db.execute(sql_rebuild.copy_rows(old, table, span))
            db.wait_visible(table)
            missing = _missing(db, old, table, span)
            if missing:
                raise SchemaError(
                    f"{missing:,} rows of {old.name} from {from_micros(span.start)} on are not "
                    f"equal in {table.name}; both tables are kept: run fxlab doctor, and do not "
                    "delete either"
                )


def _missing(db: QuestDB, old: Table, table: Table, span: Span) -> int:
    """Return how many rows of a range of time are not in the other table, value for value."""
    left, right = (
        db.export(sql_rebuild.all_rows(each, span)).cast(pl.Schema(table.frame))
        for each in (old, table)
    )
    if left.equals(right):
        return 0
    return left.join(right, on=list(table.columns), how="anti", nulls_equal=True).height


def _count(db: QuestDB, table: Table, span: Span) -> int:
    return int(db.execute(sql_rebuild.count_rows(table, span))[0][0])


def _spans(db: QuestDB, table: Table, what: str, progress: Advance) -> Iterator[Span]:
    """Yield ranges of time that hold all rows, each with a bounded number and few partitions."""
    partitions = db.execute(sql_rebuild.partitions(table))
    _refuse_greedy_server(db, len(partitions))
    total = sum(rows for _, _, rows in partitions)
    limit, done = CELLS // len(table.columns), 0
    group: list[Any] = []
    for first, last, rows in [*partitions, (None, None, limit)]:
        held = sum(each[2] for each in group)
        if group and (held + rows > limit or len(group) == PARTITIONS):
            start, end = group[0][0], max(each[1] for each in group) + 1
            yield from _cut(Span(start, end), -(-held // limit))
            done += held
            progress(done / total, f"{what} {done:,} of {total:,} rows")
            group = []
        group.append((first, last, rows))


def _cut(span: Span, parts: int) -> Iterator[Span]:
    """Yield so many ranges of nearly equal length."""
    edges = [span.start + (span.end - span.start) * n // parts for n in range(parts + 1)]
    return (Span(*each) for each in itertools.pairwise(edges))


def _refuse_greedy_server(db: QuestDB, partitions: int) -> None:
    """Refuse a server that keeps all partitions open that it has read, until it dies of it."""
    kept = db.execute(sql_rebuild.parameter(RESTING_KEY))
    if partitions > MANY and kept and int(kept[0][0]) > MANY:
        raise SchemaError(
            "the tables have to be built anew, by a server that this fxlab has started: run "
            "fxlab down, then fxlab up (with a server of your own: set "
            f"{RESTING_KEY}={RESTING_PARTITIONS} in its server.conf and restart it)"
        )
