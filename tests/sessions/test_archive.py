"""Archive on a server of its own: Parquet in place, read and written as before; the way back."""

from __future__ import annotations

import contextlib
import random
import threading
import time
from datetime import UTC, datetime, timedelta

import polars as pl
import psutil
import pytest
from conftest import settings_at
from filelock import FileLock
from polars.testing import assert_frame_equal
from typer.testing import CliRunner

import fxlab
from fxlab import errors
from fxlab._cli import app
from fxlab._questdb import migrations, sql_tables
from fxlab._questdb import server as embedded
from fxlab._questdb.sql import Span
from fxlab.schema import ORDERBOOK, PRICES, PURGE_JOURNAL, SESSIONS
from fxlab.sessions import _catalog, _purge

MONDAY = datetime(2025, 1, 6, tzinfo=UTC)
EVER = Span(0, 2**52)
TICKS = (PRICES, ORDERBOOK)
ONE, TWO = "one", "two"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Start a server that only these tests use: it is killed."""
    settings = settings_at(tmp_path_factory.mktemp("archive"))
    embedded.up(settings)
    yield settings
    embedded.down(settings)


@pytest.fixture
def lab(settings):
    """Return a lab with two sessions of trades and books, which share three weeks."""
    with fxlab.connect(settings) as found:
        for table in (*_purge.TABLES, SESSIONS, PURGE_JOURNAL):
            found._db.execute(f'truncate table "{table.name}"')
        for number, name in enumerate((ONE, TWO)):
            found.import_frames(ticks(number), session_id=name)
        yield found


def ticks(number, rows=3_000):
    """Return trades and books over three weeks; those of two numbers lie between each other."""
    chance = random.Random(number)
    times = [MONDAY + timedelta(seconds=1_000 * (n // 2), microseconds=number) for n in range(rows)]
    prices = [round(100 + 20 * chance.random(), 2) for _ in range(rows)]
    trades = pl.DataFrame(
        {
            "symbol": "BTC_USDT",
            "timestamp": times,
            "price": prices,
            "volume": [round(chance.random(), 4) + 0.0001 for _ in range(rows)],
            "side": [chance.choice(["buy", "sell", None]) for _ in range(rows)],
            "trade_id": [str(n + 1) for n in range(rows)],  # short ones, which QuestDB inlines
        }
    )
    books = pl.DataFrame(
        {"symbol": "BTC_USDT", "timestamp": times}
        | {f"{side}_price_{n}": [p + sign * n / 100 for p in prices]
           for side, sign in (("bid", -1), ("ask", 1)) for n in (1, 2, 3)}
        | {f"{side}_qty_{n}": [1.0 + p % 1 for p in prices]
           for side in ("bid", "ask") for n in (1, 2, 3)}
    )  # fmt: skip
    return {"prices": trades, "orderbook": books[::4]}


def stored(db):
    return {table.name: db.export(sql_tables.all_rows(table, EVER)) for table in TICKS}


def same(left, right):
    return all(left[name].height and left[name].equals(right[name]) for name in left)


def without(session_id, tables):
    return {name: one.filter(pl.col("session_id") != session_id) for name, one in tables.items()}


def forms(db):
    """Return the form of each partition of the tick tables."""
    return {
        (table.name, place.name): place.is_parquet
        for table in TICKS
        for place in migrations.partitions(db, table)
    }


def everything(lab):
    """Return what readers, statistics, listing, replay and backtest make of the sessions."""
    exact, rounded = [lab.sessions().sort("session_id")], []
    for name in (ONE, TWO):
        session = lab.session(name)
        exact += [session.prices(), session.orderbook(), session.ohlcv("1h")["close"].to_frame()]
        rounded += [session.statistics(), session.quality().table]
        run = fxlab.backtest(session, "sma_cross", {"fast": 5, "slow": 20})
        exact += [run.fills, run.equity, pl.DataFrame({"rows": session.count_ticks()})]
    again = fxlab.replay(
        lab.session(ONE), strategy="sma_cross", parameters={"fast": 5, "slow": 20}, speed=1e9
    )
    for _ in again:
        pass
    exact.append(again.result.fills)
    return exact, rounded


def test_the_rows_that_are_compared_have_their_short_texts(lab):
    for query in (sql_tables.all_rows, sql_tables.rows_to_compare):
        ids = lab._db.export(query(PRICES, EVER))["trade_id"]
        assert sorted(ids.unique().to_list(), key=int) == [str(n + 1) for n in range(3_000)]


def test_what_is_archived_is_smaller_and_reads_as_before(lab):
    before, (exact, rounded) = stored(lab._db), everything(lab)
    told = lab.archive(dry_run=True)
    assert same(before, stored(lab._db))
    assert set(forms(lab._db).values()) == {False}
    steps = []
    done = lab.archive(progress=lambda share, _: steps.append(share))
    assert steps == sorted(steps)
    assert steps[-1] == 1.0
    assert done.drop("bytes_after", "state").equals(told.drop("bytes_after", "state"))
    changed = done.filter(state="done")
    assert changed["partition"].to_list() == ["2025-W02", "2025-W03"] * 2
    assert done.filter(state="skipped")["reason"].str.contains("last partition").all()
    assert changed["bytes"].sum() > 2 * changed["bytes_after"].sum()
    expected = told.filter(state="planned")["bytes_after"].sum()
    assert 0.4 < expected / changed["bytes_after"].sum() < 2.5
    assert same(before, stored(lab._db))
    exact_now, rounded_now = everything(lab)
    assert all(a.equals(b) for a, b in zip(exact, exact_now, strict=True))
    for left, right in zip(rounded, rounded_now, strict=True):
        # Sums over parts are added in another order.
        assert_frame_equal(left, right, rel_tol=1e-12)
    assert set(lab.archive()["state"]) == {"skipped"}
    back = lab.unarchive()
    assert back["partition"].to_list() == changed["partition"].to_list()
    assert set(forms(lab._db).values()) == {False}
    assert same(before, stored(lab._db))


def test_late_rows_come_into_an_archived_partition_once(lab):
    lab.archive()
    before = stored(lab._db)
    late = ticks(7, rows=300)["prices"]
    for _ in range(2):
        lab.import_frame(late, "prices", session_id="late")
        lab._db.write(PRICES, before[PRICES.name].cast(pl.Schema(PRICES.frame)).head(500))
    lab._db.wait_visible(PRICES)
    assert lab.session("late").prices(columns=late.columns).select(late.columns).equals(late)
    now = {
        name: one.filter(pl.col("session_id") != "late") for name, one in stored(lab._db).items()
    }
    assert same(before, now)
    assert forms(lab._db)[PRICES.name, "2025-W02"]


def test_what_is_written_to_or_deleted_waits(lab):
    row = _catalog.find(lab._db, TWO)
    lab.import_frame(ticks(3, rows=100)["prices"], "prices", session_id="gone")
    lab.delete("gone")
    busy = {**row, "session_id": "busy", "started": MONDAY + timedelta(days=8),
            "ended": MONDAY + timedelta(days=9), "status": "collecting"}  # fmt: skip
    _catalog.store(lab._db, busy)
    lab._db.wait_visible(SESSIONS)
    with FileLock(lab.settings.home / "locks" / "busy.lock"):
        told = lab.archive().filter(table=PRICES.name)
    assert told.select("partition", "state", "reason").rows() == [
        ("2025-W02", "skipped", "session 'gone' is deleted and has rows in it: purge first"),
        ("2025-W03", "skipped", "session 'busy' is being imported"),
        ("2025-W04", "skipped", "new rows are appended to the last partition of a table"),
    ]
    lab.purge()
    assert lab.session("busy").status == "failed"  # nobody holds its lock now: it was killed
    assert lab.archive(before=MONDAY + timedelta(days=13))["partition"].to_list() == ["2025-W02"]
    assert (
        lab.archive(before=MONDAY + timedelta(days=14))["partition"].to_list() == ["2025-W03"] * 2
    )
    with pytest.raises(errors.InvalidTimeRange, match="before"):
        lab.archive(before="soon")
    with _purge.alone(lab.settings.home / "locks"), pytest.raises(errors.SessionBusy):
        lab.archive()


def test_a_purge_takes_a_session_out_of_archived_partitions(lab):
    before = stored(lab._db)
    lab.archive()
    lab.delete(ONE)
    assert set(lab.purge()["state"]) == {"done"}
    left = without(ONE, before)
    assert same(left, stored(lab._db))
    assert "done" in lab.archive()["state"].to_list()
    assert same(left, stored(lab._db))


def test_an_archive_that_is_stopped_goes_on(lab):
    before = stored(lab._db)

    def stop(share, _):
        if share > 0.4:
            raise errors.Cancelled("enough")

    with pytest.raises(errors.Cancelled):
        lab.archive(progress=stop)
    assert {True, False} == set(forms(lab._db).values())
    lab.archive()
    assert list(forms(lab._db).values()) == [True, True, False] * 2
    assert same(before, stored(lab._db))


class Meddling:
    """A client by whose side somebody changes a value while a partition is rewritten."""

    def __init__(self, db, change):
        self._db, self._change = db, change

    def __getattr__(self, name):
        return getattr(self._db, name)

    def execute(self, statement):
        """Change the value, then rewrite."""
        if statement.startswith("alter"):
            self._change()
        return self._db.execute(statement)


def test_a_session_that_reads_otherwise_afterwards_is_named(lab):
    db = lab._db
    row = stored(db)[PRICES.name].cast(pl.Schema(PRICES.frame)).filter(session_id=TWO).head(1)
    lab._db = Meddling(db, lambda: db.write(PRICES, row.with_columns(price=0.5)))
    with pytest.raises(errors.SchemaError, match="session 'two' reads otherwise"):
        lab.archive()
    lab._db = db


def test_a_full_disk_is_told_and_nothing_is_rewritten(lab, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr("fxlab.sessions._archive.shutil.disk_usage", lambda _: usage)
    assert lab.archive()["reason"].str.contains("of the disk are free, and it needs").all()
    assert set(forms(lab._db).values()) == {False}


def test_the_command_shows_does_and_takes_back(lab, settings, monkeypatch):
    for name, text in settings.environment().items():
        monkeypatch.setenv(name, text)
    dry = CliRunner().invoke(app, ["archive", "--before", "2025-01-20", "--dry-run"])
    assert dry.exit_code == 0, dry.output
    assert "dry run" in dry.stdout
    assert "(expected)" in dry.output
    assert set(forms(lab._db).values()) == {False}
    assert CliRunner().invoke(app, ["archive"]).exit_code == 0
    assert True in forms(lab._db).values()
    back = CliRunner().invoke(app, ["archive", "--native"])
    assert "4 partitions" in back.output
    assert set(forms(lab._db).values()) == {False}


@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_is_killed_in_the_middle_loses_nothing(lab, settings, seed):
    before, asked = stored(lab._db), threading.Event()

    def archive():
        with fxlab.connect(settings) as other:
            db = other._db
            other._db = Meddling(db, asked.set)
            with contextlib.suppress(errors.FxlabError):  # its server is gone
                other.archive(progress=False)

    worker = threading.Thread(target=archive)
    worker.start()
    assert asked.wait(120)
    time.sleep(random.Random(seed).uniform(0, 0.15))
    server = psutil.Process(embedded.status(settings).pid)
    server.kill()
    server.wait()
    worker.join()
    lab._db.close()
    embedded.up(settings)
    with fxlab.connect(settings) as again:  # refuses suspended tables
        again._db.wait_visible(*TICKS)
        assert same(before, stored(again._db))
        again.archive()
        assert list(forms(again._db).values()) == [True, True, False] * 2
        assert same(before, stored(again._db))
