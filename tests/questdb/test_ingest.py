"""Writing: rows are stored whole and once, or the caller knows."""

from __future__ import annotations

import dataclasses
import threading
from datetime import UTC, datetime

import polars as pl
import pytest
from forwarder import Forwarder

from fxlab import errors, schema
from fxlab._questdb import ingest, sql, sql_tables
from fxlab._questdb.ingest import Writer, validate
from fxlab._questdb.sql import Scope
from fxlab.schema import ORDERBOOK, PRICES, UTC_MICROS

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)


def trades(session_id, rows=3):
    """Return trades that all share one instant."""
    blank = pl.DataFrame(schema=PRICES.frame)
    some = pl.DataFrame(
        {
            "session_id": [session_id] * rows,
            "symbol": ["BTC_USDT"] * rows,
            "origin": ["csv"] * rows,
            "seq": range(rows),
            "price": [100.0 + n for n in range(rows)],
            "volume": [1.0] * rows,
            "timestamp": pl.Series([NOON] * rows, dtype=UTC_MICROS),
        }
    )
    return pl.concat([blank, some], how="diagonal")


def stored(db, session_id, table=PRICES):
    db.wait_visible(table)
    return db.export(sql.rows(Scope(table, session_id), list(table.columns)))


@pytest.fixture
def writer_at(db):
    """Return a maker of writers that reach the server through another port."""
    made = []

    def make(port):
        made.append(Writer(dataclasses.replace(db.endpoint, http_port=port)))
        return made[-1]

    yield make
    for writer in made:
        writer.close()


def test_rows_come_back_as_they_went(db, unique):
    name = unique()
    sent = trades(name, 5).with_columns(
        side=pl.Series(["buy", None, "sell", None, "buy"]),
        trade_id=pl.Series(["1", None, "", 'é"\n,=', "x" * 200]),
        seq=pl.Series([2**62 + 1, 0, 2**53 + 1, 1, 2]),
        price=pl.Series([0.1, 1e-12, 61837.63, 1e12, 5e-324]),
        quote_volume=pl.Series([None, 0.0, 1.5, None, 2.0]),
        received_at=pl.Series([None, NOON, None, NOON, NOON], dtype=UTC_MICROS),
    )
    assert db.write(PRICES, sent) == 5
    assert stored(db, name).equals(sent.sort("seq"))


def test_integers_beside_nulls_stay_exact(db, unique):
    name = unique()
    book = pl.DataFrame(
        {
            "session_id": [name] * 3,
            "symbol": ["A"] * 3,
            "origin": ["live"] * 3,
            "seq": [1, 2, 3],
            "first_update_id": [2**62 + 1, None, 2**53 + 1],
            "is_snapshot": [True, False, True],
            "timestamp": pl.Series([NOON] * 3, dtype=UTC_MICROS),
        }
    )
    whole = pl.concat([pl.DataFrame(schema=ORDERBOOK.frame), book], how="diagonal")
    db.write(ORDERBOOK, whole)
    assert stored(db, name, ORDERBOOK).equals(whole)


def test_categorical_columns_are_taken(db, unique):
    name = unique()
    sent = trades(name)
    db.write(PRICES, sent.with_columns(pl.col("session_id", "symbol").cast(pl.Categorical)))
    assert stored(db, name).equals(sent)


def test_columns_may_come_in_any_order(db, unique):
    name = unique()
    sent = trades(name)
    db.write(PRICES, sent.select(reversed(sent.columns)))
    assert stored(db, name).equals(sent)


def test_the_same_rows_twice_are_stored_once(db, unique):
    name = unique()
    for _ in range(2):
        db.write(PRICES, trades(name, 10))
    assert stored(db, name).height == 10


def test_no_rows_are_no_write(db, unique):
    assert db.write(PRICES, trades(unique(), 0)) == 0


def test_many_rows_go_in_batches_and_tell_of_each(db, unique, monkeypatch):
    monkeypatch.setattr(ingest, "CELLS_IN_BATCH", 10 * len(PRICES.columns))
    name, heard = unique(), []
    assert db.write(PRICES, trades(name, 95), lambda share, _: heard.append(share)) == 95
    assert heard == [n / 95 for n in (10, 20, 30, 40, 50, 60, 70, 80, 90, 95)]
    assert stored(db, name)["seq"].to_list() == list(range(95))


def test_stopping_keeps_what_was_sent(db, unique, monkeypatch):
    monkeypatch.setattr(ingest, "CELLS_IN_BATCH", 10 * len(PRICES.columns))

    def stop(share, text):
        raise errors.Cancelled(text)

    name = unique()
    with pytest.raises(errors.Cancelled, match="10 of 95"):
        db.write(PRICES, trades(name, 95), stop)
    assert stored(db, name).height == 10


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda f: f.drop("price"), "lacks column price"),
        (lambda f: f.with_columns(nope=1), "unknown column nope"),
        (lambda f: f.with_columns(pl.col("seq").cast(pl.Int32)), "column seq is Int32"),
        (lambda f: f.with_columns(pl.col("price").cast(pl.String)), "column price is String"),
        (lambda f: f.with_columns(pl.col("timestamp").dt.replace_time_zone(None)), "timestamp is"),
        (lambda f: f.with_columns(price=pl.lit(float("nan"))), "column price holds nan in row 0"),
        (lambda f: f.with_columns(volume=pl.lit(float("inf"))), "column volume holds inf"),
        (lambda f: f.with_columns(seq=pl.lit(None, pl.Int64)), "column seq has nulls"),
        (lambda f: f.with_columns(timestamp=pl.lit(None, UTC_MICROS)), "timestamp has nulls"),
        (lambda f: f.with_columns(symbol=pl.lit(None, pl.String)), "column symbol has nulls"),
        (lambda f: f.with_columns(session_id=pl.lit(None, pl.String)), "session_id has nulls"),
    ],
)
def test_a_frame_that_breaks_a_rule_is_not_sent(db, unique, change, words):
    name = unique()
    with pytest.raises(errors.WriteFailed, match=f"{words}.*nothing was written"):
        db.write(PRICES, change(trades(name)))
    assert stored(db, name).is_empty()


def test_nulls_are_told_from_nan():
    assert validate(PRICES, trades("x").with_columns(volume=pl.lit(None, pl.Float64))).height == 3


@pytest.mark.parametrize("column", ["session_id", "symbol"])
def test_a_hostile_id_is_not_sent(db, column):
    with pytest.raises(errors.InvalidIdentifier):
        db.write(PRICES, trades("x").with_columns(pl.lit("x' OR '1'='1").alias(column)))


def test_a_refused_batch_is_told_with_its_line_and_column(db, unique):
    """Schemas may differ only if somebody changed the table; then nothing of a batch is stored."""
    name = unique()
    lying = dataclasses.replace(PRICES, columns={**PRICES.columns, "seq": "VARCHAR"})
    frame = trades(name).with_columns(pl.col("seq").cast(pl.String))
    with pytest.raises(errors.WriteFailed, match=r"only 0 of 3 .* line 1: .* column: seq"):
        db.write(lying, frame)
    assert stored(db, name).is_empty()


def test_tables_and_columns_are_never_made_by_writing(db, unique):
    name = unique()
    before = db.execute(sql_tables.list_tables())
    misspelled = dataclasses.replace(PRICES, name="tick_pirces")
    wider = dataclasses.replace(PRICES, columns={**PRICES.columns, "extra": "DOUBLE"})
    for table in (misspelled, wider):
        frame = trades(name)
        if table is wider:
            frame = frame.with_columns(extra=pl.lit(1.0))
        with pytest.raises(errors.WriteFailed, match=r"disabled|does not exist"):
            db.write(table, frame)
    assert db.execute(sql_tables.list_tables()) == before
    assert [row[0] for row in db.execute(sql_tables.list_columns(PRICES))] == list(PRICES.columns)


def test_a_wrong_password_is_told(db):
    writer = Writer(dataclasses.replace(db.endpoint, password="wrong-one"))  # noqa: S106
    with pytest.raises(errors.QuestDBLoginFailed, match="FXLAB_QUESTDB_PASSWORD") as caught:
        writer.write(PRICES, trades("x"))
    assert "wrong-one" not in str(caught.value)
    writer.close()


def test_a_lost_answer_does_not_double_rows(db, unique, writer_at):
    """The batch was stored and the acknowledgement got lost: it is sent again."""
    name = unique()
    with Forwarder(db.endpoint.http_port, lost_answers=2) as network:
        assert writer_at(network.port).write(PRICES, trades(name, 50)) == 50
        assert network.lost_answers == 0
    assert stored(db, name).height == 50


def test_a_server_that_comes_back_gets_the_rows(db, unique, writer_at):
    name = unique()
    with Forwarder(db.endpoint.http_port) as network:
        port = network.port
    back = []
    later = threading.Timer(
        0.3, lambda: back.append(Forwarder(db.endpoint.http_port, port=port).__enter__())
    )
    later.start()
    try:
        assert writer_at(port).write(PRICES, trades(name, 20)) == 20
    finally:
        later.join()
        back[0].__exit__()
    assert stored(db, name).height == 20


def test_a_server_that_stays_away_is_told(db, unique, writer_at, monkeypatch):
    monkeypatch.setattr(ingest, "RETRY_WAITS", (1, 0.01, 0.01))
    with Forwarder(db.endpoint.http_port) as network:
        port = network.port
    with pytest.raises(errors.WriteFailed, match=r"only 0 of 3 .* be reached .*run: fxlab up"):
        writer_at(port).write(PRICES, trades(unique()))


def test_a_server_that_stalls_is_told(db, unique, writer_at, monkeypatch):
    monkeypatch.setattr(ingest, "RETRY_WAITS", (0, 0.01, 0.01))
    monkeypatch.setattr(ingest, "_REQUEST_SECONDS", 0.2)
    stalled = Forwarder(db.endpoint.http_port, stalled=True)
    with stalled as network, pytest.raises(errors.WriteFailed, match="ReadTimeout"):
        writer_at(network.port).write(PRICES, trades(unique()))


def test_threads_share_one_writer(db, unique):
    names = [unique() for _ in range(4)]
    threads = [threading.Thread(target=db.write, args=(PRICES, trades(n, 100))) for n in names]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [stored(db, name).height for name in names] == [100] * 4


def test_every_table_takes_a_row(db, unique):
    """What `fxlab.schema` says of types is what the server takes and gives back."""
    values = {
        pl.String(): "x", pl.Int64(): 1, pl.Int32(): 1, pl.Float64(): 1.5, pl.Boolean(): True,
        UTC_MICROS: NOON,
    }  # fmt: skip
    name = unique()
    for table in schema.TABLES:
        if table is schema.SCHEMA_VERSIONS:
            continue
        row = {column: values[kind] for column, kind in table.frame.items()}
        row |= {column: name for column in ("session_id", "run_id", "sweep_id") if column in row}
        readable = {  # by the lists of other tests on this server
            "symbol": "X", "status": "deleted", "symbols": "[]", "metrics": "{}", "options": "{}",
        }  # fmt: skip
        row |= {column: text for column, text in readable.items() if column in row}
        frame = pl.DataFrame([row], schema=table.frame)
        db.write(table, frame)
        db.wait_visible(table)
        owner = next(c for c in ("session_id", "run_id", "sweep_id") if c in row)
        names = sql.columns(table, table.columns)
        found = db.export(f"select {names} from {table.name} where {owner} = '{name}'")  # noqa: S608
        assert found.equals(frame), table.name
