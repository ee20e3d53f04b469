"""Schema migrations: steps by version, and the rebuild of a table with larger partitions.

Tables are brought to the schema of this fxlab, and those it must not touch are refused. Version 1
creates all tables. A later version is one more `Step` at the end of `STEPS` that names the columns
or tables it brings; version 1 then leaves them out by itself, so its checksum (and with it every
existing database) stays valid. A step may run twice or in several processes at once: each of its
statements does nothing where it has been done. One that rebuilds tables (`Step.units`) goes on from
where it was stopped; `fxlab.connect` lets one process at a time do it.

A rebuild copies, compares, and only then drops the old table. Which of three tables exist says how
far it came, so after a kill at any point the next call goes on: `T` in the old unit and perhaps
`T_new` (copying); `T_old` and `T_new` (between the two renames); `T` in the new unit and `T_old`
(comparing). The old rows are there until every value of them was read back out of the new table.
Each query is bounded by time: a table of twenty thousand partitions cannot be read in one go.
"""

from __future__ import annotations

import dataclasses
import hashlib
import itertools
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Final, NamedTuple

import polars as pl

from fxlab import schema
from fxlab._network import waits
from fxlab._progress import Advance, part, silent
from fxlab._questdb import endpoint, sql, sql_tables
from fxlab._questdb.client import QuestDB
from fxlab._questdb.endpoint import MEND
from fxlab._questdb.server_config import RESTING_KEY, RESTING_PARTITIONS
from fxlab._questdb.sql import Span
from fxlab._times import from_micros
from fxlab.errors import QueryFailed, SchemaError
from fxlab.schema import SCHEMA_VERSIONS, Table

CELLS: Final = 6_000_000
"""Copied and compared at once: half a million trades."""
PARTITIONS: Final = 200
"""Touched at once: each reader maps a file for each column of each of them."""

MANY: Final = 1_000
"""Partitions that a resting reader may keep open while a table is read from end to end."""

_UNITS: Final = {
    "HOUR": ("1h", "%Y-%m-%dT%H"),
    "WEEK": ("1w", "%G-W%V"),
    "MONTH": ("1mo", "%Y-%m"),
    "YEAR": ("1y", "%Y"),
}
"""Unit of partitions to its length as Polars calls it, and to the names that they have."""

_RACE_WAITS: Final = (7, 0.07, 5.0)
"""Tries, first and longest wait (s) while others change the same table."""
_RACE_WORDS: Final = ("busy", "already exists", "could not lock", "duplicate column", "being")


class Partition(NamedTuple):
    """A partition of a table: its range of time (us, half open), rows and bytes."""

    table: Table
    name: str
    start: int
    end: int
    rows: int
    size: int
    is_parquet: bool = False
    is_last: bool = False
    """New rows are appended to it."""


def partitions(db: QuestDB, table: Table) -> list[Partition]:
    """Return the partitions of a table, in order; one that the server has split is one."""
    found: dict[str, Partition] = {}
    listed = db.execute(sql_tables.partitions(table))
    for unit, part_name, rows, size, is_parquet, is_last in listed:
        name = part_name[: len(_name(unit, 0))]
        before = found.get(name) or partition(table, name, unit)
        found[name] = before._replace(
            rows=before.rows + rows,
            size=before.size + size,
            is_parquet=before.is_parquet or is_parquet,
            is_last=before.is_last or is_last,
        )
    return list(found.values())


def partition(table: Table, name: str, unit: str = "") -> Partition:
    """Return the partition with a name (2024-W32, 2024-08, 2024), with no rows."""
    unit = unit or table.partition_by
    length, pattern = _UNITS[unit]
    if unit == "WEEK":
        name, pattern = f"{name}-1", f"{pattern}-%u"
    first = datetime.strptime(name, pattern)  # noqa: DTZ007 - Polars takes it for UTC
    start = pl.Series([first], dtype=pl.Datetime("us"))
    low, high = start.append(start.dt.offset_by(length)).to_physical()
    return Partition(table, _name(unit, low), low, high, 0, 0)


def _name(unit: str, start: int) -> str:
    """Return the name of the partition that begins at a moment (us)."""
    return from_micros(start).strftime(_UNITS[unit][1])


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
        If the table is written to meanwhile, or the copy is not equal. All rows are kept.
    """
    old, new = (dataclasses.replace(table, name=f"{table.name}_{end}") for end in ("old", "new"))
    units = _units(db)
    if table.name in units and units[table.name] != table.partition_by:
        _copy(db, table, new, part(progress, 0.0, 0.5))
        run(db, sql_tables.rename_table(table, old))
        units = _units(db)
    if table.name not in units and new.name in units:
        run(db, sql_tables.rename_table(new, table))
        units = _units(db)
    if old.name in units:
        _compare(db, old, table, part(progress, 0.5, 1.0))
        drop(db, old)


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


def drop(db: QuestDB, table: Table) -> None:
    """Drop a table, also one that a server which was killed has left half made.

    Of such a one the server forgets the name, and then fails to read what the table should be.
    """
    try:
        run(db, sql_tables.drop_table(table))
    except QueryFailed:
        if table.name in _units(db):
            raise


def _units(db: QuestDB) -> dict[str, str]:
    return {str(row[0]): str(row[3]) for row in db.execute(sql_tables.list_tables())}


def _copy(db: QuestDB, table: Table, new: Table, progress: Advance) -> None:
    """Copy what is not there yet; raise if the table took other rows meanwhile."""
    run(db, sql_tables.create_table(new))
    db.wait_visible(table, new)
    before = db.execute(sql_tables.transactions(table))
    for span in _spans(db, table, f"{table.name}: copied", progress):
        if _count(db, new, span) != _count(db, table, span):
            db.execute(sql_tables.copy_rows(table, new, span))
            db.wait_visible(new)
    if db.execute(sql_tables.transactions(table)) != before:
        raise SchemaError(
            f"rows were written to {table.name} while it was rebuilt; stop the recordings and "
            "imports that use this server, then connect again: it goes on from here, and no row "
            "is lost"
        )


def _compare(db: QuestDB, old: Table, table: Table, progress: Advance) -> None:
    """Make sure that every value of the old table is in the new one."""
    db.wait_visible(old, table)
    for span in _spans(db, old, f"{table.name}: compared", progress):
        if missing(db, old, table, span):  # written at the very last moment
            db.execute(sql_tables.copy_rows(old, table, span))
            db.wait_visible(table)
            lost = missing(db, old, table, span)
            if lost:
                raise SchemaError(
                    f"{lost:,} rows of {old.name} from {from_micros(span.start)} on are not "
                    f"equal in {table.name}; both tables are kept: run fxlab doctor, and do not "
                    "delete either"
                )


def missing(db: QuestDB, old: Table, table: Table, span: Span) -> int:
    """Return how many rows of a range of time are not in the other table, value for value."""
    left, right = (
        db.export(sql_tables.all_rows(each, span)).cast(pl.Schema(table.frame))
        for each in (old, table)
    )
    if left.equals(right):
        return 0
    return left.join(right, on=list(table.columns), how="anti", nulls_equal=True).height


def _count(db: QuestDB, table: Table, span: Span) -> int:
    return int(db.execute(sql_tables.count_rows(table, span))[0][0])


def _spans(db: QuestDB, table: Table, what: str, progress: Advance) -> Iterator[Span]:
    """Yield ranges of time that hold all rows, each with a bounded number and few partitions."""
    found = partitions(db, table)
    _refuse_greedy_server(db, len(found))
    total = sum(place.rows for place in found)
    limit, done = CELLS // len(table.columns), 0
    group: list[Partition] = []
    for place in [*found, None]:
        held = sum(each.rows for each in group)
        if group and (place is None or held + place.rows > limit or len(group) == PARTITIONS):
            yield from cut(Span(group[0].start, group[-1].end), held, table)
            done += held
            progress(done / total, f"{what} {done:,} of {total:,} rows")
            group = []
        if place is not None:
            group.append(place)


def cut(span: Span, rows: int, table: Table) -> Iterator[Span]:
    """Yield a range that holds so many rows in ranges of equal length, of few enough cells each."""
    parts = max(1, -(-rows // (CELLS // len(table.columns))))
    edges = [span.start + (span.end - span.start) * n // parts for n in range(parts + 1)]
    return (span._replace(start=low, end=high) for low, high in itertools.pairwise(edges))


def _refuse_greedy_server(db: QuestDB, partitions: int) -> None:
    """Refuse a server that keeps all partitions open that it has read, until it dies of it."""
    kept = db.execute(sql_tables.parameter(RESTING_KEY))
    if partitions > MANY and kept and int(kept[0][0]) > MANY:
        raise SchemaError(
            "the tables have to be rebuilt, by a server that this fxlab has started: run "
            "fxlab down, then fxlab up (with a server of your own: set "
            f"{RESTING_KEY}={RESTING_PARTITIONS} in its server.conf and restart it)"
        )


@dataclass(frozen=True)
class Step:
    """One version of the schema, by what it adds to the one before."""

    version: int
    name: str
    tables: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Table to the columns that were added to it."""
    units: Mapping[str, str] = field(default_factory=dict)
    """Table that was rebuilt, to the unit of its partitions before."""


STEPS: Final = (
    Step(1, "the first tables"),
    Step(
        2,
        "what became of a sweep's points",
        columns={"sweep_runs": ("error", "returns", "plan")},
    ),
    Step(
        3,
        "why a fill came about, and how",
        columns={"backtest_fills": ("reason", "liquidity", "flags")},
    ),
    Step(
        4,
        "how a live session was recorded, and what its recorder says it stored",
        tables=("collection_receipts",),
        columns={"data_collection_sessions": ("options",)},
    ),
    Step(
        5,
        "ticks by the week",
        units={"tick_prices": "HOUR", "tick_orderbook": "HOUR"},
    ),
    Step(
        6,
        "what is known of an imported file without reading it again",
        columns={
            "csv_imports": (
                "size_bytes",
                "data_type",
                "first_time",
                "last_time",
                "backward",
                "detail",
            )
        },
    ),
    Step(7, "runs that are deleted", columns={"backtest_runs": ("deleted_at",)}),
    Step(8, "what nights of sweeps found", tables=("night_ranks",)),
    Step(
        9,
        "funding, mark prices, open interest and liquidations",
        tables=("tick_mark", "tick_funding", "tick_open_interest", "tick_liquidations"),
    ),
    Step(
        10,
        "what a venue says of the instruments of a recording",
        columns={"data_collection_sessions": ("instruments",)},
    ),
)


def statements(
    step: Step, steps: Sequence[Step] = STEPS, tables: Sequence[Table] = schema.TABLES
) -> list[str]:
    """Return what a step runs; the first step creates all that no later step adds."""
    first = step.version == steps[0].version
    created = [
        sql_tables.create_table(table)
        for table in tables_as_of(step.version, steps, tables)
        if first or table.name in step.tables or table.name in step.units
    ]
    added = [
        sql_tables.add_column(table, column)
        for table in tables
        for column in step.columns.get(table.name, ())
    ]
    return created + added


def tables_as_of(
    version: int, steps: Sequence[Step] = STEPS, tables: Sequence[Table] = schema.TABLES
) -> list[Table]:
    """Return the tables as they were in a version: without what later steps add."""
    later = [step for step in steps if step.version > version]
    late_tables = {name for step in later for name in step.tables}
    units = {name: unit for step in reversed(later) for name, unit in step.units.items()}
    return [
        dataclasses.replace(
            table,
            columns={
                column: kind
                for column, kind in table.columns.items()
                if not any(column in step.columns.get(table.name, ()) for step in later)
            },
            partition_by=units.get(table.name, table.partition_by),
        )
        for table in tables
        if table.name not in late_tables
    ]


def checksum(commands: Sequence[str]) -> str:
    """Return the SHA-256 of a step's statements."""
    return hashlib.sha256("\n".join(commands).encode()).hexdigest()


def migrate(
    db: QuestDB,
    steps: Sequence[Step] = STEPS,
    tables: Sequence[Table] = schema.TABLES,
    progress: Advance = silent,
) -> int:
    """Create or upgrade the tables and return the schema's version.

    Parameters
    ----------
    db, steps, tables
        The server, and what its tables shall be.
    progress
        Called while a table is rebuilt; if it raises, the next call goes on from there.

    Raises
    ------
    SchemaError
        If the tables belong to another program or to a newer fxlab, or if a step that was done
        here is not the step this fxlab knows. Nothing was changed then.
    """
    plan = {step.version: statements(step, steps, tables) for step in steps}
    existing = _existing_columns(db, tables)
    applied: dict[int, str] = {}
    if existing.get(SCHEMA_VERSIONS.name) == SCHEMA_VERSIONS.columns:
        applied = {int(one): str(found) for one, found in db.execute(sql_tables.applied_versions())}
    _refuse_other_versions(applied, plan)
    if not applied:
        _refuse_foreign(existing, tables_as_of(steps[0].version, steps, tables))
    for step in steps:
        if step.version not in applied:
            _take(db, step, steps, tables, progress)
            db.wait_visible(*tables_as_of(step.version, steps, tables))
            _record(db, step, checksum(plan[step.version]))
    return steps[-1].version


def _take(
    db: QuestDB, step: Step, steps: Sequence[Step], tables: Sequence[Table], progress: Advance
) -> None:
    """Do what a step does; a new table gets the newest unit of partitions at once."""
    bare = [dataclasses.replace(each, units={}) for each in steps]
    for command in statements(dataclasses.replace(step, units={}), bare, tables):
        run(db, command)
    wanted = _rebuilt(step, steps, tables)
    for number, table in enumerate(wanted):
        share = part(progress, number / len(wanted), (number + 1) / len(wanted))
        rebuild(db, table, share)


def _rebuilt(step: Step, steps: Sequence[Step], tables: Sequence[Table]) -> list[Table]:
    """Return the tables that a step rebuilds, as they are then."""
    return [
        table for table in tables_as_of(step.version, steps, tables) if table.name in step.units
    ]


def rebuilds(db: QuestDB) -> bool:
    """Return whether `migrate` would rebuild a table: it takes time, and wants no writers."""
    units = _units(db)
    return any(
        units.get(table.name, table.partition_by) != table.partition_by
        or f"{table.name}_old" in units
        for step in STEPS
        for table in _rebuilt(step, STEPS, schema.TABLES)
    )


def _existing_columns(db: QuestDB, tables: Sequence[Table]) -> dict[str, dict[str, str]]:
    """Return the columns (name to type) of those of our tables that exist."""
    there = {str(row[0]) for row in db.execute(sql_tables.list_tables())}
    return {
        table.name: {str(row[0]): str(row[1]) for row in db.execute(sql_tables.list_columns(table))}
        for table in tables
        if table.name in there
    }


def _refuse_other_versions(applied: Mapping[int, str], plan: Mapping[int, list[str]]) -> None:
    for version, found in applied.items():
        if version not in plan:
            raise SchemaError(
                f"the database has schema version {version}, and this fxlab knows versions up to "
                f"{max(plan)}: it was written by a newer fxlab; upgrade this one"
            )
        if found != checksum(plan[version]):
            raise SchemaError(
                f"schema version {version} of the database has checksum {found[:12]}, and this "
                f"fxlab's has {checksum(plan[version])[:12]}: the tables are those of another "
                "build; use the fxlab that made them, or another server (FXLAB_QUESTDB_HOST) or "
                "home (FXLAB_HOME)"
            )


def _refuse_foreign(existing: Mapping[str, Mapping[str, str]], tables: Sequence[Table]) -> None:
    """Refuse a table that has our name and other columns; ours half created is welcome."""
    for table in tables:
        found = existing.get(table.name)
        difference = _difference(table, found) if found is not None else ""
        if difference:
            raise SchemaError(
                f"table {table.name} exists and is not fxlab's: {difference}; give "
                "fxlab another server (FXLAB_QUESTDB_HOST) or another home (FXLAB_HOME)"
            )


def _difference(table: Table, found: Mapping[str, str]) -> str:
    for column, kind in table.columns.items():
        if column not in found:
            return f"it lacks column {column}"
        if found[column] != kind:
            return f"its column {column} is {found[column]}, not {kind}"
    return ""


def _record(db: QuestDB, step: Step, found: str) -> None:
    row = {
        "version": step.version,
        "name": step.name,
        "checksum": found,
        "fxlab_version": metadata.version("fxlab"),
        "timestamp": datetime.now(UTC),
    }
    db.write(SCHEMA_VERSIONS, pl.DataFrame([row], schema=SCHEMA_VERSIONS.frame))
    db.wait_visible(SCHEMA_VERSIONS)


def check_schema(db: QuestDB, tables: Sequence[Table] = schema.TABLES) -> None:
    """Make sure that no table would lose, duplicate or hide a row.

    Raises
    ------
    SchemaError
        If a table lacks a column, does not write through its WAL, has other DEDUP keys than the
        schema says, or is suspended; with the command that mends it.
    """
    has_wal = {str(row[0]): bool(row[1]) for row in db.execute(sql_tables.list_tables())}
    suspended = {str(row[0]): str(row[1] or "") for row in db.execute(sql.list_suspended())}
    for table in tables:
        if table.name not in has_wal:
            raise SchemaError(f"table {table.name} is missing; connect again to create it")
        rows = db.execute(sql_tables.list_columns(table))
        difference = _difference(table, {str(row[0]): str(row[1]) for row in rows})
        if difference:
            raise SchemaError(f"table {table.name} was changed: {difference}; restore the column")
        if not has_wal[table.name]:
            raise SchemaError(
                f"table {table.name} has no write-ahead log, so writes can be lost: another "
                "program made it so; give fxlab another home (FXLAB_HOME) or another server"
            )
        keys = {str(row[0]) for row in rows if row[2]}
        if keys != set(table.dedup):
            shown = ", ".join(sorted(keys)) or "none"
            raise SchemaError(
                f"table {table.name} has the DEDUP keys: {shown}; with them rows would be lost or "
                f"doubled; {MEND}"
            )
        if table.name in suspended:
            raise endpoint.suspended(table.name, suspended[table.name])
