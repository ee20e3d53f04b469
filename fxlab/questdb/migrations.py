"""Bring a database's tables to the schema of this fxlab, and refuse those it must not touch.

Version 1 creates all tables. A later version is one more `Step` at the end of `STEPS` that names
the columns or tables it brings; version 1 then leaves them out by itself, so its checksum (and
with it every existing database) stays valid. A step may run twice or in several processes at
once: each of its statements does nothing where it has been done.
"""

from __future__ import annotations

import dataclasses
import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib import metadata
from typing import Final

import polars as pl

from fxlab import schema
from fxlab.backoff import waits
from fxlab.errors import QueryFailed, SchemaError
from fxlab.questdb import sql
from fxlab.questdb.client import QuestDB
from fxlab.schema import SCHEMA_VERSIONS, Table

_RACE_WAITS: Final = (7, 0.07, 5.0)
"""Tries, first and longest wait (s) while others change the same table."""
_RACE_WORDS: Final = ("busy", "already exists", "could not lock", "duplicate column", "being")


@dataclass(frozen=True)
class Step:
    """One version of the schema, by what it adds to the one before."""

    version: int
    name: str
    tables: tuple[str, ...] = ()
    columns: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    """Table to the columns that were added to it."""


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
)


def statements(
    step: Step, steps: Sequence[Step] = STEPS, tables: Sequence[Table] = schema.TABLES
) -> list[str]:
    """Return what a step runs; the first step creates all that no later step adds."""
    first = step.version == steps[0].version
    created = [
        sql.create_table(table)
        for table in tables_as_of(step.version, steps, tables)
        if first or table.name in step.tables
    ]
    added = [
        sql.add_column(table, column)
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
    return [
        dataclasses.replace(table, columns=_without(table, later))
        for table in tables
        if table.name not in late_tables
    ]


def _without(table: Table, later: Sequence[Step]) -> dict[str, str]:
    late = {column for step in later for column in step.columns.get(table.name, ())}
    return {column: kind for column, kind in table.columns.items() if column not in late}


def checksum(commands: Sequence[str]) -> str:
    """Return the SHA-256 of a step's statements."""
    return hashlib.sha256("\n".join(commands).encode()).hexdigest()


def migrate(
    db: QuestDB, steps: Sequence[Step] = STEPS, tables: Sequence[Table] = schema.TABLES
) -> int:
    """Create or upgrade the tables and return the schema's version.

    Raises
    ------
    SchemaError
        If the tables belong to another program or to a newer fxlab, or if a step that was done
        here is not the step this fxlab knows. Nothing was changed then.
    """
    plan = {step.version: statements(step, steps, tables) for step in steps}
    existing = _existing_columns(db, tables)
    applied = _applied(db) if _is_ours(existing) else {}
    _refuse_other_versions(applied, plan)
    if not applied:
        _refuse_foreign(existing, tables_as_of(steps[0].version, steps, tables))
    for step in steps:
        if step.version not in applied:
            for command in plan[step.version]:
                _run(db, command)
            db.wait_visible(*tables_as_of(step.version, steps, tables))
            _record(db, step, checksum(plan[step.version]))
    return steps[-1].version


def _existing_columns(db: QuestDB, tables: Sequence[Table]) -> dict[str, dict[str, str]]:
    """Return the columns (name to type) of those of our tables that exist."""
    there = {str(row[0]) for row in db.execute(sql.list_tables())}
    return {
        table.name: {str(row[0]): str(row[1]) for row in db.execute(sql.list_columns(table))}
        for table in tables
        if table.name in there
    }


def _is_ours(existing: Mapping[str, Mapping[str, str]]) -> bool:
    return existing.get(SCHEMA_VERSIONS.name) == SCHEMA_VERSIONS.columns


def _applied(db: QuestDB) -> dict[int, str]:
    return {int(version): str(found) for version, found in db.execute(sql.applied_versions())}


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
                f"table {table.name} exists and is not fxlab's: {difference}; rename it (RENAME "
                f"TABLE {table.name} TO {table.name}_other) or give fxlab another server"
            )


def _difference(table: Table, found: Mapping[str, str]) -> str:
    for column, kind in table.columns.items():
        if column not in found:
            return f"it lacks column {column}"
        if found[column] != kind:
            return f"its column {column} is {found[column]}, not {kind}"
    return ""


def _run(db: QuestDB, command: str) -> None:
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
    """Make sure that no table would lose, double or hide a row.

    Raises
    ------
    SchemaError
        If a table lacks a column, does not write through its WAL, has other DEDUP keys than the
        schema says, or is suspended; with the statement that mends it.
    """
    has_wal = {str(row[0]): bool(row[1]) for row in db.execute(sql.list_tables())}
    suspended = {str(row[0]): str(row[1] or "") for row in db.execute(sql.list_suspended())}
    for table in tables:
        if table.name not in has_wal:
            raise SchemaError(f"table {table.name} is missing; connect again to create it")
        rows = db.execute(sql.list_columns(table))
        difference = _difference(table, {str(row[0]): str(row[1]) for row in rows})
        if difference:
            raise SchemaError(f"table {table.name} was changed: {difference}; restore the column")
        if not has_wal[table.name]:
            raise SchemaError(
                f"table {table.name} has no WAL, so writes can be lost; run: ALTER TABLE "
                f"{table.name} SET TYPE WAL, and restart the server"
            )
        _check_dedup(table, {str(row[0]) for row in rows if row[2]})
        if table.name in suspended:
            raise SchemaError(
                f"table {table.name} is suspended: it takes rows but does not show them "
                f"({suspended[table.name] or 'no reason given'}); free disk space if it is full, "
                f"then run: {sql.resume_wal(table)}"
            )


def _check_dedup(table: Table, keys: set[str]) -> None:
    if keys != set(table.dedup):
        shown = ", ".join(sorted(keys)) or "none"
        raise SchemaError(
            f"table {table.name} has the DEDUP keys: {shown}; with them rows would be lost or "
            f"doubled; run: {sql.enable_dedup(table)}"
        )
