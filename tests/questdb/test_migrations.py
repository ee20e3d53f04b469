"""Fresh, older, newer, foreign and damaged databases, on a server of their own."""

from __future__ import annotations

import dataclasses
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from conftest import settings_at

from fxlab import errors, schema
from fxlab._questdb import migrations, server_config, sql_tables
from fxlab._questdb import server as embedded
from fxlab._questdb.client import QuestDB
from fxlab._questdb.migrations import (
    STEPS,
    Step,
    check_schema,
    checksum,
    migrate,
    rebuilds,
    statements,
    tables_as_of,
)
from fxlab._questdb.sql import Span
from fxlab.collect._live.journal import Journal, journal_path
from fxlab.sessions import _catalog
from fxlab.sessions.session import Session

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
    settings = settings_at(tmp_path_factory.mktemp("throw-away"))
    with pytest.MonkeyPatch.context() as patch:
        # Lets a test suspend a table, as a full disk would.
        patch.setitem(server_config._SAFETY, "dev.mode.enabled", "true")
        embedded.up(settings)
    yield settings
    embedded.down(settings)


@pytest.fixture
def fresh(own_settings):
    """Return a client of a database without tables."""
    db = QuestDB(embedded.endpoint_of(own_settings))
    for (name,) in db.execute("select table_name from tables()"):
        db.execute(f'drop table "{name}"')
    yield db
    db.close()


def column_names(db, table):
    return [row[0] for row in db.execute(sql_tables.list_columns(table))]


def one_trade():
    row = {
        "session_id": "s", "symbol": "A", "origin": "csv", "seq": 1, "price": 2.0, "volume": 1.0,
        "timestamp": datetime(2025, 1, 1, tzinfo=UTC),
    }  # fmt: skip
    return pl.DataFrame([row], schema=schema.PRICES.frame)


def connect_at_once(settings, processes):
    """Connect in several processes; return what each of them printed as errors, and its code."""
    code = (
        "from fxlab.lab import connect; import sys; "
        "lab = connect(home=sys.argv[1], questdb_http_port=sys.argv[2], "
        "questdb_pg_port=sys.argv[3]); lab.sessions(); lab.close()"
    )
    place = (settings.home, settings.questdb_http_port, settings.questdb_pg_port)
    command = [sys.executable, "-c", code, *map(str, place)]
    running = [
        subprocess.Popen(command, stderr=subprocess.PIPE, text=True) for _ in range(processes)
    ]
    return [(process.communicate()[1], process.returncode) for process in running]


def test_a_fresh_database_gets_all_tables(fresh):
    assert migrate(fresh) == NEWEST
    check_schema(fresh)
    for table in schema.TABLES:
        assert column_names(fresh, table) == list(table.columns)


def test_migrating_again_changes_nothing(fresh):
    migrate(fresh)
    before = fresh.execute(sql_tables.applied_versions())
    assert migrate(fresh) == NEWEST
    assert fresh.execute(sql_tables.applied_versions()) == before
    assert len(before) == len(STEPS)


def test_processes_that_migrate_at_once_all_succeed(fresh, own_settings):
    outcomes = connect_at_once(own_settings, 4)
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
    versions = [version for version, _ in fresh.execute(sql_tables.applied_versions())]
    assert versions == [step.version for step in NEWER_STEPS]


def test_a_session_of_before_its_instruments_were_kept_has_none(fresh):
    before = {table.name: table for table in tables_as_of(9)}
    migrate(fresh, STEPS[:9], [*before.values()])
    old = before["data_collection_sessions"]
    assert "instruments" not in old.columns
    moment = datetime(2026, 1, 1, tzinfo=UTC)
    row = dict.fromkeys(old.columns) | {"session_id": "old", "status": "completed"}
    row |= {"symbols": '["A"]', "data_types": "[]", "created_at": moment, "updated_at": moment}
    fresh.write(old, pl.DataFrame([row], schema=old.frame))
    fresh.wait_visible(old)
    assert migrate(fresh) == NEWEST
    check_schema(fresh)
    session = Session.from_row(fresh, _catalog.find(fresh, "old"))
    assert session.symbols == ("A",)
    assert session.instruments().is_empty()


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
    with pytest.raises(errors.SchemaError, match=rf"{name} exists .* lacks column .*FXLAB_HOME"):
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
    with pytest.raises(errors.SchemaError, match="DEDUP keys: none"):
        check_schema(fresh)
    fresh.execute(sql_tables.enable_dedup(schema.PRICES))
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
    with pytest.raises(errors.SchemaError, match="tick_prices is suspended"):
        check_schema(fresh)
    fresh.write(schema.PRICES, one_trade())
    with pytest.raises(errors.SchemaError, match="fxlab doctor --mend"):
        fresh.wait_visible(schema.PRICES)
    fresh.execute(sql_tables.resume_wal(schema.PRICES))
    fresh.wait_visible(schema.PRICES)
    check_schema(fresh)
    assert fresh.execute("select seq from tick_prices") == [[1]]


def test_a_table_without_a_wal_is_refused(fresh):
    migrate(fresh)
    fresh.execute("drop table purge_journal")
    fresh.execute(
        sql_tables.create_table(schema.PURGE_JOURNAL).split(" wal dedup")[0] + " bypass wal"
    )
    with pytest.raises(errors.SchemaError, match=r"has no write-ahead log.*FXLAB_HOME"):
        check_schema(fresh)


def test_a_missing_table_is_named(fresh):
    migrate(fresh)
    fresh.execute("drop table csv_imports")
    with pytest.raises(errors.SchemaError, match="csv_imports is missing"):
        check_schema(fresh)


HOURLY = 4
"""The last schema version whose ticks were kept by the hour."""


def hourly_database(db):
    """Make the tables as they were by the hour, and rows that are easily lost; return them all."""
    migrate(db, STEPS[:HOURLY], tables_as_of(HOURLY))
    start = datetime(2024, 12, 30, tzinfo=UTC)
    hours = [start + timedelta(hours=7 * n, microseconds=n) for n in range(60)]
    # Ties, two sessions in one hour, rows without a session in the catalogue, empty columns.
    trades = pl.DataFrame(
        [
            {
                "session_id": session, "symbol": symbol, "seq": seq, "price": 0.1 + seq,
                "volume": 1e-9, "origin": "csv", "timestamp": time,
                "trade_id": None if seq % 3 else f"é{seq}", "side": ["buy", "sell", None][seq % 3],
                "received_at": None if seq % 2 else time,
            }
            for time in hours for session in ("a", "b") for symbol in ("X", "Y") for seq in (1, 2)
        ],
        schema=schema.PRICES.frame,
    )  # fmt: skip
    book = {"session_id": "a", "symbol": "X", "origin": "csv", "is_snapshot": True}
    books = pl.DataFrame(
        [book | {"seq": 1, "bid_price_1": 1.5, "timestamp": time} for time in hours],
        schema=schema.ORDERBOOK.frame,
    )
    for table, frame in ((schema.PRICES, trades), (schema.ORDERBOOK, books)):
        db.write(table, frame)
        db.wait_visible(table)
    return {table.name: ticks(db, table) for table in TICKS}


TICKS = (schema.PRICES, schema.ORDERBOOK)
EVER = Span(0, 2**52)


def ticks(db, table):
    return db.export(sql_tables.all_rows(table, EVER)).cast(pl.Schema(table.frame))


def units(db):
    ticks = ("tick_prices", "tick_orderbook")
    tables = db.execute(sql_tables.list_tables())
    return {row[0]: row[3] for row in tables if row[0].startswith(ticks)}


def assert_weekly(db, before):
    assert units(db) == {"tick_prices": "WEEK", "tick_orderbook": "WEEK"}
    for table in TICKS:
        assert ticks(db, table).equals(before[table.name])
    check_schema(db)
    assert not rebuilds(db)


class Killed(BaseException):
    """Stands for a process that ends: nothing may catch it."""


class Mortal:
    """A client that dies once at each statement that changes something or reads rows back.

    It dies before the server has the statement, or after; `died` tells at which it has.
    """

    def __init__(self, db, died, *, after):
        self._db, self._died, self._after = db, died, after

    def __getattr__(self, name):
        return getattr(self._db, name)

    def _ask(self, ask, statement):
        mortal = statement.startswith(("create", "insert", "rename", "drop")) or ask != "execute"
        dies = mortal and statement not in self._died
        if dies:
            self._died.append(statement)
        if dies and not self._after:
            raise Killed
        answer = getattr(self._db, ask)(statement)
        if dies:
            raise Killed
        return answer

    def execute(self, statement):
        """Run a statement, or die."""
        return self._ask("execute", statement)

    def export(self, statement):
        """Read rows, or die."""
        return self._ask("export", statement)


def test_a_fresh_database_has_weeks_at_once(fresh):
    migrate(fresh)
    assert units(fresh) == {"tick_prices": "WEEK", "tick_orderbook": "WEEK"}
    assert not rebuilds(fresh)


def test_hours_become_weeks_and_no_value_changes(fresh, small_pieces):
    before = hourly_database(fresh)
    assert rebuilds(fresh)
    said = []
    assert migrate(fresh, progress=lambda share, text: said.append((share, text))) == NEWEST
    assert_weekly(fresh, before)
    shares = [share for share, _ in said]
    assert shares == sorted(shares)
    assert shares[-1] == pytest.approx(1.0)
    assert any("compared" in text for _, text in said)
    parts = migrations.partitions(fresh, schema.PRICES)
    assert sum(place.rows for place in parts) == before["tick_prices"].height
    assert len(parts) < 60 / 8


@pytest.fixture
def small_pieces(monkeypatch):
    """Let a few rows be many pieces."""
    monkeypatch.setattr(migrations, "PARTITIONS", 25)


@pytest.mark.parametrize("after", [False, True], ids=["before the server", "after the server"])
def test_a_rebuild_that_is_killed_anywhere_goes_on(fresh, small_pieces, after):
    before = hourly_database(fresh)
    died, seen = [], set()
    while True:
        try:
            migrate(Mortal(fresh, died, after=after))
        except Killed:
            there = {name: unit for name, unit in units(fresh).items() if "prices" in name}
            seen.add(frozenset(there.items()))
            whole = [name for name in there if rows_of(fresh, name).equals(before["tick_prices"])]
            assert whole, f"killed at {died[-1]}: no table has all rows: {there}"
        else:
            break
    assert {statement.split()[0] for statement in died} >= {"create", "insert", "rename", "drop"}
    assert frozenset({("tick_prices_old", "HOUR"), ("tick_prices_new", "WEEK")}) in seen
    assert frozenset({("tick_prices", "WEEK"), ("tick_prices_old", "HOUR")}) in seen
    assert_weekly(fresh, before)


def rows_of(db, name):
    return ticks(db, dataclasses.replace(schema.PRICES, name=name))


def test_a_process_killed_in_the_middle_loses_nothing(fresh, own_settings):
    before = hourly_database(fresh)
    code = (
        "import os, signal, sys; from fxlab.lab import connect; "
        "from fxlab._questdb import migrations; migrations.PARTITIONS = 25\n"
        "left = [int(sys.argv[4])]\n"
        "def told(share, text):\n"
        "    left[0] -= 1\n"
        "    if left[0] < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
        "connect(home=sys.argv[1], questdb_http_port=sys.argv[2], questdb_pg_port=sys.argv[3], "
        "progress=told)"
    )
    place = (own_settings.home, own_settings.questdb_http_port, own_settings.questdb_pg_port)
    for lives, ended in ((1, -9), (2, -9), (7, -9), (1_000, 0)):
        command = [sys.executable, "-c", code, *map(str, place), str(lives)]
        done = subprocess.run(command, capture_output=True, text=True, check=False)
        assert done.returncode == ended, done.stderr
    assert_weekly(fresh, before)


def test_processes_that_rebuild_at_once_all_succeed(fresh, own_settings):
    before = hourly_database(fresh)
    outcomes = connect_at_once(own_settings, 3)
    assert [code for _, code in outcomes] == [0, 0, 0], outcomes
    assert_weekly(fresh, before)


def test_a_table_that_takes_rows_meanwhile_is_not_rebuilt(fresh, small_pieces):
    before = hourly_database(fresh)
    wrote = []

    def told(share, text):
        if not wrote:
            wrote.append(fresh.write(schema.PRICES, one_trade()))

    with pytest.raises(errors.SchemaError, match=r"written to tick_prices .* connect again"):
        migrate(fresh, progress=told)
    assert units(fresh)["tick_prices"] == "HOUR"
    fresh.wait_visible(schema.PRICES)
    before["tick_prices"] = ticks(fresh, schema.PRICES)
    migrate(fresh)
    assert_weekly(fresh, before)
    assert fresh.execute(sql_tables.count_rows(schema.PRICES, EVER)) == [[481]]


def test_a_copy_that_is_not_equal_keeps_both_tables(fresh, small_pieces, monkeypatch):
    before = hourly_database(fresh)
    copy_rows = sql_tables.copy_rows

    def with_a_loss(table, to, span):
        return copy_rows(table, to, span) + " and seq = 1"

    monkeypatch.setattr(sql_tables, "copy_rows", with_a_loss)
    with pytest.raises(errors.SchemaError, match=r"not equal in tick_prices; both tables are kept"):
        migrate(fresh)
    assert rows_of(fresh, "tick_prices_old").equals(before["tick_prices"])
    monkeypatch.undo()
    migrate(fresh)
    assert_weekly(fresh, before)


def test_a_recording_that_runs_is_not_disturbed(fresh, own_settings):
    before = hourly_database(fresh)
    with Journal(journal_path(own_settings.home, "live")) as journal:
        outcomes = connect_at_once(own_settings, 1)
        assert "session 'live' is being recorded" in outcomes[0][0]
        assert units(fresh)["tick_prices"] == "HOUR"
    journal.path.unlink()
    assert connect_at_once(own_settings, 1)[0][1] == 0
    assert_weekly(fresh, before)


def test_a_server_that_keeps_all_partitions_open_is_refused(fresh, monkeypatch):
    hourly_database(fresh)
    monkeypatch.setattr(migrations, "MANY", 5)
    with pytest.raises(errors.SchemaError, match="run fxlab down, then fxlab up"):
        migrate(fresh)
    assert units(fresh)["tick_prices"] == "HOUR"


def test_rows_are_stamped_with_the_newest_version():
    assert schema.VERSION == NEWEST
