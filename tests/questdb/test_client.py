"""The client: what it answers, what it says when there is no answer, and what it never says."""

from __future__ import annotations

import dataclasses
import gc
import socket
import threading
from datetime import UTC, datetime

import httpx
import polars as pl
import pytest
from forwarder import Forwarder

from fxlab import errors, schema
from fxlab._questdb import sql, sql_tables
from fxlab._questdb.client import QuestDB
from fxlab._questdb.endpoint import check_pg_login

SECRET = "s3cret-that-nobody-may-see"  # noqa: S105 - it opens nothing
CALLS = {
    "ping": QuestDB.ping,
    "check_login": QuestDB.check_login,
    "execute": lambda db: db.execute("select 1"),
    "export": lambda db: db.export("select 1"),
    "catalogue": lambda db: db.catalogue("select 1"),
}
each_call = pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)


@pytest.fixture
def variant(db):
    """Return a maker of clients whose endpoint differs from the right one."""
    made = []

    def make(**changes):
        made.append(QuestDB(dataclasses.replace(db.endpoint, **changes)))
        return made[-1]

    yield make
    for client in made:
        client.close()


@pytest.fixture
def closed_port():
    """Return a port that refuses connections: bound, and not listening."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


def test_ping_names_the_build(db):
    assert "QuestDB 9." in db.ping()


def test_the_three_roads_agree(db):
    query = (
        "select 1L as a, 2.5 as b, 'text' as c, cast(1735689600000001 as timestamp) as d, "
        "cast(null as long) as e, true as f"
    )
    exported, listed = db.export(query), db.catalogue(query)
    moment = datetime(2025, 1, 1, 0, 0, 0, 1, tzinfo=UTC)
    assert exported.row(0) == listed.row(0) == (1, 2.5, "text", moment, None, True)
    assert exported.schema == listed.schema
    assert exported.schema["d"] == schema.UTC_MICROS
    assert db.execute(query) == [[1, 2.5, "text", "2025-01-01T00:00:00.000001Z", None, True]]


@pytest.mark.parametrize("table", schema.TABLES, ids=lambda table: table.name)
def test_no_rows_have_the_types_of_the_schema(db, table):
    query = f"select {sql.columns(table, table.columns)} from {table.name} where 1 = 2"  # noqa: S608
    assert db.export(query).schema == table.frame
    assert db.catalogue(query).schema == table.frame


@pytest.mark.parametrize("road", ["execute", "export", "catalogue"])
def test_a_wrong_query_is_named_with_the_servers_words(db, road):
    with pytest.raises(errors.QueryFailed, match=r"Invalid column: nope.*Query: select nope"):
        getattr(db, road)("select nope from tick_prices")


def test_reading_roads_cannot_write(db):
    before = db.execute(sql_tables.list_tables())
    for road in (db.export, db.catalogue):
        with pytest.raises(errors.QueryFailed):
            road("drop table tick_prices")
    assert db.execute(sql_tables.list_tables()) == before


@each_call
def test_no_server_is_told_with_the_next_step(variant, closed_port, call):
    with pytest.raises(errors.QuestDBUnavailable, match=rf":{closed_port} .*run: fxlab up"):
        call(variant(http_port=closed_port, pg_port=closed_port))


@each_call
def test_a_wrong_password_is_told_and_never_shown(variant, call, capfd):
    client = variant(password=SECRET, pg_password=SECRET)
    with pytest.raises(errors.QuestDBLoginFailed, match=r"questdb_.*FXLAB_QUESTDB_") as caught:
        call(client)
    printed = capfd.readouterr()
    assert SECRET not in f"{caught.value!r}{client!r}{printed.out}{printed.err}"


def test_a_wrong_reader_is_told_before_connectorx_tries(variant):
    with pytest.raises(errors.QuestDBLoginFailed, match=r"'nobody'.*questdb_pg_user"):
        variant(pg_user="nobody").catalogue("select 1")
    with pytest.raises(errors.QuestDBLoginFailed, match="FXLAB_QUESTDB_PG_PASSWORD"):
        variant(pg_password=None).check_login()


def test_no_repr_or_error_holds_a_password(db):
    secrets = {db.endpoint.password, db.endpoint.pg_password}
    texts = [repr(db), repr(db.endpoint)]
    for road in (db.execute, db.export, db.catalogue):
        with pytest.raises(errors.QueryFailed) as caught:
            road("select nope")
        texts.append(f"{caught.value!r} {caught.value.__cause__!r}")
    assert not any(secret in text for secret in secrets for text in texts)


def test_words_of_others_lose_the_secrets(db):
    heard = f"cannot reach {db.endpoint.pg_url} with {db.endpoint.password}"
    assert db._without_secrets(heard) == "cannot reach ******** with ********"


@pytest.mark.parametrize(
    "answer",
    [b"", b"\0", b"HTTP/1.0 400 Bad Request\r\n\r\n", b"R\0\0\0\x08\0\0\0\x05", b"Z\0\0\0\x05I"],
    ids=["closed", "cut", "web", "other-login", "other-message"],
)
def test_something_that_is_no_postgres_is_told(db, answer):
    def serve(listener):
        client, _ = listener.accept()
        with client:
            client.recv(1_000)
            client.sendall(answer)

    with socket.create_server(("127.0.0.1", 0)) as listener:
        thread = threading.Thread(target=serve, args=(listener,))
        thread.start()
        endpoint = dataclasses.replace(db.endpoint, pg_port=listener.getsockname()[1])
        with pytest.raises(errors.QuestDBUnavailable, match="PostgreSQL wire"):
            check_pg_login(endpoint)
        thread.join()


def test_a_server_that_does_not_answer_is_told(db):
    with Forwarder(db.endpoint.pg_port, stalled=True) as network:
        endpoint = dataclasses.replace(db.endpoint, pg_port=network.port)
        with pytest.raises(errors.QuestDBUnavailable, match="timed out"):
            check_pg_login(endpoint, timeout=0.2)


def test_an_answer_that_breaks_off_is_no_result(db, variant):
    with Forwarder(db.endpoint.http_port, lost_answers=1) as network:
        client = variant(http_port=network.port)
        with pytest.raises(errors.QuestDBUnavailable):
            client.execute("select 1")
        assert client.execute("select 1") == [[1]]


def test_bulk_reads_wait_for_a_free_connection(db):
    """The server counts idle connections as taken: four of them shut everybody else out."""
    query = {"query": "select 1 as a", "fmt": "parquet"}
    limits = {"base_url": db.endpoint.http_url, "auth": db.endpoint.http_auth, "trust_env": False}
    crowd = [httpx.Client(**limits) for _ in range(4)]
    taken = [client.get("/exp", params=query).status_code for client in crowd]
    with httpx.Client(**limits) as late:
        assert 429 in [*taken, late.get("/exp", params=query).status_code]
    read = []
    waiting = threading.Thread(target=lambda: read.append(db.export("select 1 as a")))
    waiting.start()
    for client in crowd:
        client.close()
    waiting.join(timeout=120)
    assert read[0].equals(pl.DataFrame({"a": [1]}, schema={"a": pl.Int32}))


def test_clients_that_rest_take_no_export_connection(variant):
    """Ten notebooks may be open: only those that read right now count."""
    for _ in range(6):
        assert variant().export("select 1 as a").height == 1


def test_a_client_that_nobody_closed_leaves_no_connection(db):
    client = QuestDB(db.endpoint)
    client.execute("select 1")
    opened = client._short
    del client
    gc.collect()
    assert opened.is_closed


def test_a_closed_client_opens_again(variant):
    client = variant()
    for _ in range(2):
        assert client.execute("select 1") == [[1]]
        assert client.export("select 1 as a").height == 1
        client.close()
    client.close()
