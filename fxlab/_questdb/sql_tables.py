"""SQL of whole tables: definitions, partitions, rows copied between tables, who writes them.

These are the statements of migrations, purges and archives, with the checks and quotes of `sql`.
"""

from __future__ import annotations

from typing import Final

from fxlab import schema
from fxlab._questdb.sql import HIDDEN, Span, choice, columns, name, select, text
from fxlab.schema import Table

# ruff: noqa: S608 - this is the place where SQL may be put together, of checked parts


def list_tables() -> str:
    """Return the query for all tables: name, whether WAL and DEDUP are on, unit of partitions."""
    return "select table_name, walEnabled, dedup, partitionBy from tables()"


def list_columns(table: Table) -> str:
    """Return the query for a table's columns: name, type, whether it is a DEDUP key."""
    return f'select "column", type, "upsertKey" from table_columns({text(table.name)})'


def transactions(table: Table, *, applied: bool = False) -> str:
    """Return the query for the number of writes that a table has taken, or that readers see."""
    counter = "writerTxn" if applied else "sequencerTxn"
    return f"select {counter} from wal_tables() where name = {text(table.name)}"


def create_table(table: Table) -> str:
    """Return the statement that creates a table unless it is there."""
    parts = ", ".join(_definition(table, column) for column in table.columns)
    return (
        f"create table if not exists {name(table.name)} ({parts}) "
        f"timestamp({name(table.timestamp)}) partition by {table.partition_by} wal "
        f"dedup upsert keys({columns(table, table.dedup)})"
    )


def add_column(table: Table, column: str) -> str:
    """Return the statement that adds a column unless it is there."""
    return f"alter table {name(table.name)} add column if not exists {_definition(table, column)}"


def _definition(table: Table, column: str) -> str:
    kind = table.columns[column]
    capacity = f" capacity {table.symbol_capacity}" if kind == "SYMBOL" else ""
    return f"{columns(table, [column])} {kind}{capacity}"


def enable_dedup(table: Table) -> str:
    """Return the statement that sets a table's DEDUP keys: the cure that an error shows."""
    return f"ALTER TABLE {table.name} DEDUP ENABLE UPSERT KEYS({', '.join(table.dedup)})"


def resume_wal(table: Table) -> str:
    """Return the statement that resumes a suspended table."""
    return f"ALTER TABLE {table.name} RESUME WAL"


def applied_versions() -> str:
    """Return the query for version and checksum of each migration that was done."""
    return select(schema.SCHEMA_VERSIONS, [], "timestamp", ["version", "checksum"])


def partitions(table: Table) -> str:
    """Return the query for unit, name, rows, bytes of partitions; whether Parquet, whether last.

    They come in order; of those in Parquet, the server does not know the times.
    """
    return (
        "select partitionBy, name, numRows, diskSize, isParquet, active "
        f'from table_partitions({text(table.name)}) where numRows > 0 order by "index"'
    )


def rows_by_session(table: Table, span: Span) -> str:
    """Return the query for the number of rows of each session in a range of time."""
    return (
        f"select session_id, count() from {name(table.name)} where {span.of(table)} "
        "group by session_id order by session_id"
    )


def drop_partitions(table: Table, *names: str) -> str:
    """Return the statement that drops partitions: only if what is to stay in them is elsewhere."""
    return f"alter table {name(table.name)} drop partition list {', '.join(map(text, names))}"


FORMS: Final = ("parquet", "native")


def convert_partition(table: Table, partition: str, form: str) -> str:
    """Return the statement that rewrites a partition in place, in one of `FORMS`.

    A partition that is not there suspends its table: only for one that nobody drops meanwhile.
    """
    choice(form, FORMS, "form of a partition")
    return f"alter table {name(table.name)} convert partition to {form} list {text(partition)}"


def parameter(path: str) -> str:
    """Return the query for the value of one of the server's settings."""
    return f"select value from (show parameters) where property_path = {text(path)}"


def newest_version() -> str:
    """Return the query for the whole row of the newest migration that was done."""
    return select(schema.SCHEMA_VERSIONS, [], "version desc, timestamp limit 1")


def purges(state: str) -> str:
    """Return the query for the journal's rows in a state, those of one rewrite together."""
    table = schema.PURGE_JOURNAL
    names = ("table_name", "partition_name", "session_id", "rows_kept", "rows_freed")
    times = ", ".join(f"cast({name(column)} as long)" for column in ("timestamp", "updated_at"))
    return (
        f"select {columns(table, names)}, {times} from {name(table.name)} "
        f"where state = {choice(state, schema.PURGE_STATES, 'state of a purge')} "
        "order by timestamp, table_name, partition_name, session_id"
    )


def rename_table(table: Table, to: Table) -> str:
    """Return the statement that gives a table another name."""
    return f"rename table {name(table.name)} to {name(to.name)}"


def drop_table(table: Table) -> str:
    """Return the statement that drops a table: only for one whose rows are elsewhere."""
    return f"drop table {name(table.name)}"


def copy_rows(table: Table, to: Table, span: Span) -> str:
    """Return the statement that copies all rows of a range of time into a table alike."""
    names = columns(table, table.columns)
    return f"insert into {name(to.name)} ({names}) {unordered_rows(table, span)}"


def all_rows(table: Table, span: Span) -> str:
    """Return the query for all rows of a range of time, ordered by what tells them apart."""
    return f"{unordered_rows(table, span)} order by {columns(table, table.dedup)}"


def unordered_rows(table: Table, span: Span) -> str:
    """Return the query for all rows of a range of time, as the server finds them."""
    return f"select {columns(table, table.columns)} from {name(table.name)} where {span.of(table)}"


def rows_to_compare(table: Table, span: Span) -> str:
    """Return the query for all rows of a range of time that `/exp` answers as they are.

    Of a query without a condition on rows, QuestDB 9 copies columns into the answer's Parquet as
    they lie on disk, and takes a VARCHAR whose texts all have nine bytes or less for one of nulls.
    """
    return f"{unordered_rows(table, span)} and session_id is not null"


def count_rows(table: Table, span: Span) -> str:
    """Return the query for the number of rows of all sessions in a range of time."""
    return f"select count() from {name(table.name)} where {span.of(table)}"


def writers() -> str:
    """Return the query for the sessions that are being written: id, source and times (us)."""
    times = ", ".join(f"cast({column} as long)" for column in ("started", "ended", "created_at"))
    return (
        f"select session_id, source, {times} from {name(schema.SESSIONS.name)} "
        f"where status = 'collecting' order by session_id"
    )


def ended_sessions() -> str:
    """Return the query for all sessions that nothing is written to, those that end first first."""
    conditions = [f"status not in ({', '.join(map(text, HIDDEN))})", "status != 'collecting'"]
    names = ["session_id", "started", "ended", "prices_count", "orderbook_count"]
    return select(schema.SESSIONS, conditions, "ended, session_id", names)


def live_sessions() -> str:
    """Return the query for the whole rows of the sessions that are being recorded."""
    conditions = ["status = 'collecting'", "source = 'live'"]
    return select(schema.SESSIONS, conditions, "session_id")
