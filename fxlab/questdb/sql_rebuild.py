"""The SQL of `fxlab.questdb.rebuild`: whole tables, whatever the session; as guarded as `sql`."""

# ruff: noqa: S608 - of checked parts, as in `fxlab.questdb.sql`
from __future__ import annotations

from typing import NamedTuple

from fxlab.questdb.sql import columns, name, text
from fxlab.schema import Table


class Span(NamedTuple):
    """Times from `start` until before `end` (us)."""

    start: int
    end: int

    def of(self, table: Table) -> str:
        """Return the condition that selects a table's rows of these times."""
        time = name(table.timestamp)
        return f"{time} >= {int(self.start)} and {time} < {int(self.end)}"


def parameter(path: str) -> str:
    """Return the query for the value of one of the server's settings."""
    return f"select value from (show parameters) where property_path = {text(path)}"


def partitions(table: Table) -> str:
    """Return the query for first time, last time (us) and rows of each partition, in order."""
    return (
        "select cast(minTimestamp as long), cast(maxTimestamp as long), numRows "
        f"from table_partitions({text(table.name)}) where numRows > 0 order by minTimestamp"
    )


def transactions(table: Table) -> str:
    """Return the query for the number of writes that a table has taken."""
    return f"select sequencerTxn from wal_tables() where name = {text(table.name)}"


def rename_table(table: Table, to: Table) -> str:
    """Return the statement that gives a table another name."""
    return f"rename table {name(table.name)} to {name(to.name)}"


def drop_table(table: Table) -> str:
    """Return the statement that drops a table: only for one whose rows are elsewhere."""
    return f"drop table {name(table.name)}"


def copy_rows(table: Table, to: Table, span: Span) -> str:
    """Return the statement that copies all rows of a range of time into a table alike."""
    names = columns(table, table.columns)
    return f"insert into {name(to.name)} ({names}) {_all_rows(table, span)}"


def all_rows(table: Table, span: Span) -> str:
    """Return the query for all rows of a range of time, ordered by what tells them apart."""
    return f"{_all_rows(table, span)} order by {columns(table, table.dedup)}"


def _all_rows(table: Table, span: Span) -> str:
    return f"select {columns(table, table.columns)} from {name(table.name)} where {span.of(table)}"


def count_rows(table: Table, span: Span) -> str:
    """Return the query for the number of rows of all sessions in a range of time."""
    return f"select count() from {name(table.name)} where {span.of(table)}"
