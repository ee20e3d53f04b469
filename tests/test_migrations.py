"""Fresh, older, newer, foreign and damaged databases, on a server of their own."""

from __future__ import annotations

import dataclasses
import re
import subprocess
import sys
from datetime import UTC, datetime

import polars as pl
import pytest
from conftest import pick_ports

from fxlab import errors, schema
from fxlab.config import Settings
from fxlab.questdb import server as embedded
from fxlab.questdb import server_config, sql
from fxlab.questdb.client import QuestDB
from fxlab.questdb.migrations import STEPS, Step, check_schema, checksum, migrate, statements

NEWER_PRICES = dataclasses.replace(
    schema.PRICES, columns={**schema.PRICES.columns, "venue_time": "TIMESTAMP"}
)
NEW_TABLE = dataclasses.replace(schema.EVENTS, name="venue_notes")
NEWER_TABLES = (
    *(NEWER_PRICES if table is schema.PRICES else table for table in schema.TABLES),
    NEW_TABLE,
)
NEWEST = STEPS[-1].version
NEWER = NEWEST + 1
NEWER_STEPS = (
    *STEPS,
    Step(NEWER, "venue time", columns={"tick_prices": ("venue_time",)}, tables=("venue_notes",)),
)


@pytest.fixture(scope="module")
def own_settings(tmp_path_factory):
    """Start a server that only these tests use; its tables may be broken."""
    http, pg, health = pick_ports(3)
    settings = Settings.load(
        home=tmp_path_factory.mktemp("throw-away"),
        questdb_http_port=http,
        questdb_pg_port=pg,
        questdb_health_port=health,
        questdb_memory="512m",
    )
    with pytest.MonkeyPatch.context() as patch:
        # Lets a test suspend a table, as a full disk would.
        patch.setitem(server_config._SAFETY, "dev.mode.enabled", "true")
        embedded.up(settings)
    yield settings
    embedded.down(settings)


@pytest.fixture
def fresh(own_settings):
    """Return a client of a database without tables."""
    db = QuestDB(embedded.endpoint(own_settings))
    for (name,) in db.execute("select table_name from tables()"):
        db.execute(f'drop table "{name}"')
    yield db
    db.close()


def column_names(db, table):
    return [row[0] for row in db.execute(sql.list_columns(table))]


def one_trade():
    row = {
        "session_id": "s", "symbol": "A", "origin": "csv", "seq": 1, "price": 2.0, "volume": 1.0,
        "timestamp": datetime(2025, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    return pl.DataFrame([row], schema=schema.PRICES.frame)


def cure_in(message):
    """Return the statement that an error tells people to run."""
    return re.search(r"run: (ALTER .+)$", str(message))[1]


def test_a_fresh_database_gets_all_tables(fresh):
    assert migrate(fresh) == NEWEST
    check_schema(fresh)
    for table in schema.TABLES:
        assert column_names(fresh, table) == list(table.columns)


def test_migrating_again_changes_nothing(fresh):
    migrate(fresh)
    before = fresh.execute(sql.applied_versions())
    assert migrate(fresh) == NEWEST
    assert fresh.execute(sql.applied_versions()) == before
    assert len(before) == len(STEPS)


def test_processes_that_migrate_at_once_all_succeed(fresh, own_settings):
    code = (
        "from fxlab.connecting import connect; import sys; "
        "lab = connect(home=sys.argv[1], questdb_http_port=sys.argv[2], "
        "questdb_pg_port=sys.argv[3]); lab.sessions(); lab.close()"
    )
    place = (own_settings.home, own_settings.questdb_http_port, own_settings.questdb_pg_port)
    command = [sys.executable, "-c", code, *map(str, place)]
    running = [subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(4)]
    outcomes = [(process.communicate()[1], process.returncode) for process in running]
    assert [code for _, code in outcomes] == [0, 0, 0, 0], outcomes
    check_schema(fresh)
    assert migrate(fresh) == NEWEST


def test_a_migration_that_stopped_half_way_is_finished(fresh):
    for command in statements(STEPS[0])[:4]:
        fresh.execute(command)
    assert migrate(fresh) == NEWEST
    check_schema(fresh)


def test_an_older_schema_is_upgraded_and_keeps_its_rows(fresh):
    migrate(fresh)
    fresh.write(schema.PRICES, one_trade())
    fresh.wait_visible(schema.PRICES)
    assert migrate(fresh, NEWER_STEPS, NEWER_TABLES) == NEWER
    check_schema(fresh, NEWER_TABLES)
    assert fresh.execute("select seq, price, venue_time from tick_prices") == [[1, 2.0, None]]
    versions = [version for version, _ in fresh.execute(sql.applied_versions())]
    assert versions == [step.version for step in NEWER_STEPS]


def test_a_fresh_database_at_a_later_version_is_the_same_as_an_upgraded_one(fresh):
    assert migrate(fresh, NEWER_STEPS, NEWER_TABLES) == NEWER
    check_schema(fresh, NEWER_TABLES)
    assert column_names(fresh, NEWER_PRICES)[-1] == "venue_time"


def test_a_later_version_leaves_the_checksum_of_the_first_alone():
    first = checksum(statements(STEPS[0]))
    assert checksum(statements(NEWER_STEPS[0], NEWER_STEPS, NEWER_TABLES)) == first
    assert "venue" not in "".join(statements(NEWER_STEPS[0], NEWER_STEPS, NEWER_TABLES))


def test_a_newer_database_is_refused(fresh):
    migrate(fresh, NEWER_STEPS, NEWER_TABLES)
    with pytest.raises(
        errors.SchemaError, match=rf"version {NEWER}, .*up to {NEWEST}\b.*newer fxlab"
    ):
        migrate(fresh)


def test_another_builds_database_is_refused(fresh):
    other = [table for table in schema.TABLES if table.name != "sweep_runs"]
    migrate(fresh, STEPS, other)
    with pytest.raises(errors.SchemaError, match=r"version 1 .* checksum .*another build"):
        migrate(fresh)


@pytest.mark.parametrize("name", ["tick_prices", "data_collection_sessions", "schema_versions"])
def test_a_foreign_table_is_refused_and_left_alone(fresh, name):
    fresh.execute(f"create table {name} (price double, ts timestamp) timestamp(ts)")
    with pytest.raises(errors.SchemaError, match=rf"table {name} exists .* lacks column .*RENAME"):
        migrate(fresh)
    assert fresh.execute("select table_name from tables()") == [[name]]


def test_a_column_of_another_type_is_named(fresh):
    migrate(fresh)
    fresh.execute("drop table schema_versions")
    fresh.execute("alter table tick_prices alter column seq type INT")
    fresh.wait_visible(schema.PRICES)
    with pytest.raises(errors.SchemaError, match=r"tick_prices .* column seq is INT, not LONG"):
        migrate(fresh)


def test_missing_dedup_keys_are_refused_until_the_cure_ran(fresh):
    migrate(fresh)
    fresh.execute("alter table tick_prices dedup disable")
    fresh.wait_visible(schema.PRICES)
    with pytest.raises(errors.SchemaError, match="DEDUP keys: none") as caught:
        check_schema(fresh)
    fresh.execute(cure_in(caught.value))
    fresh.wait_visible(schema.PRICES)
    check_schema(fresh)


def test_the_older_systems_dedup_keys_are_refused(fresh):
    migrate(fresh)
    fresh.execute("alter table tick_prices dedup enable upsert keys(timestamp, symbol, session_id)")
    fresh.wait_visible(schema.PRICES)
    with pytest.raises(errors.SchemaError, match="DEDUP keys: session_id, symbol, timestamp"):
        check_schema(fresh)


def test_a_suspended_table_is_refused_until_the_cure_ran(fresh):
    migrate(fresh)
    fresh.execute("alter table tick_prices suspend wal")
    with pytest.raises(errors.SchemaError, match="tick_prices is suspended") as caught:
        check_schema(fresh)
    fresh.write(schema.PRICES, one_trade())
    with pytest.raises(errors.SchemaError, match="RESUME WAL"):
        fresh.wait_visible(schema.PRICES)
    fresh.execute(cure_in(caught.value))
    fresh.wait_visible(schema.PRICES)
    check_schema(fresh)
    assert fresh.execute("select seq from tick_prices") == [[1]]


def test_a_table_without_a_wal_is_refused(fresh):
    migrate(fresh)
    fresh.execute("drop table purge_journal")
    fresh.execute(sql.create_table(schema.PURGE_JOURNAL).split(" wal dedup")[0] + " bypass wal")
    with pytest.raises(errors.SchemaError, match=r"purge_journal has no WAL.*SET TYPE WAL"):
        check_schema(fresh)


def test_a_missing_table_is_named(fresh):
    migrate(fresh)
    fresh.execute("drop table csv_imports")
    with pytest.raises(errors.SchemaError, match="csv_imports is missing"):
        check_schema(fresh)
