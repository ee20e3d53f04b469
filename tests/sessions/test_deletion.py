"""Deletion of sessions on a server of its own: hidden, brought back, purged, whatever is killed."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import psutil
import pytest
from conftest import settings_at
from filelock import FileLock

import fxlab
from fxlab import _doctor, errors, schema
from fxlab._questdb import server as embedded
from fxlab._questdb import sql, sql_tables
from fxlab._questdb.sql import Span
from fxlab.schema import EVENTS, ORDERBOOK, PRICES, SESSIONS
from fxlab.sessions import _catalog, _purge

MONDAY = datetime(2025, 1, 6, tzinfo=UTC)
EVER = Span(0, 2**52)
GONE, STAYS, OTHER = "gone", "stays", "other"


@pytest.fixture(scope="module")
def settings(tmp_path_factory):
    """Start a server that only these tests use: it is killed, and partitions are dropped."""
    settings = settings_at(tmp_path_factory.mktemp("deletion"))
    embedded.up(settings)
    yield settings
    embedded.down(settings)


@pytest.fixture
def lab(settings):
    """Return a lab with three sessions of trades and books, which share two weeks."""
    with fxlab.connect(settings) as found:
        fill(found, {})
        yield found


@pytest.fixture
def small(settings):
    """Return a lab with three sessions of trades, which share one week."""
    with fxlab.connect(settings) as found:
        fill(found, {"orderbook": None}, rows=40)
        yield found


def fill(lab, without, rows=400):
    for table in (*_purge.TABLES, SESSIONS, schema.PURGE_JOURNAL):
        lab._db.execute(f'truncate table "{table.name}"')
    for number, name in enumerate((GONE, STAYS, OTHER)):
        frames = {kind: one for kind, one in ticks(number, rows).items() if kind not in without}
        lab.import_frames(frames, session_id=name, tags=[name])


@pytest.fixture(autouse=True)
def _no_pause(monkeypatch):
    """Let nothing be waited for: what these tests kill has nothing under way."""
    monkeypatch.setattr(_purge, "_UNDER_WAY", 0.0)


def ticks(number, rows=400):
    """Return trades and books over two weeks; those of different numbers lie between each other."""
    start = MONDAY + timedelta(days=3, microseconds=number)
    # Pairs share their instant.
    times = [start + timedelta(minutes=40 * (n // 2)) for n in range(rows)]
    trades = pl.DataFrame(
        {
            "symbol": "BTC_USDT",
            "timestamp": times,
            "price": [1e-9 if n % 7 else 1e9 for n in range(rows)],
            "volume": [0.1 * (1 + n % 3) for n in range(rows)],
        }
    )
    books = pl.DataFrame(
        {
            "symbol": "BTC_USDT",
            "timestamp": times[:: rows // 10],
            "bid_price_1": 100.0 + number,
            "bid_qty_1": 1.0,
            "ask_price_1": 101.0 + number,
            "ask_qty_1": 2.0,
        }
    )
    return {"prices": trades, "orderbook": books}


def stored(db):
    """Return all rows of each table that a purge touches, without those of the deleted session."""
    return {
        table.name: db.export(sql_tables.all_rows(table, EVER))
        .cast(pl.Schema(table.frame))
        .filter(pl.col("session_id") != GONE)
        .sort(table.dedup)
        for table in _purge.TABLES
        if db.execute(sql_tables.partitions(table))
    }


def rows_of(db, session_id):
    return {
        table.name: dict(db.execute(sql_tables.rows_by_session(table, EVER))).get(session_id, 0)
        for table in _purge.TABLES
    }


def assert_same(before, now):
    assert before.keys() == now.keys()
    for name, frame in before.items():
        assert frame.height
        assert frame.equals(now[name]), name


def staging(db):
    return [row[0] for row in db.execute(sql_tables.list_tables()) if "_purge_" in row[0]]


def test_a_deleted_session_is_seen_by_nobody_and_comes_back_identical(lab):
    session = lab.session(GONE)
    before, prices, books = lab.sessions(), session.prices(), session.orderbook()
    planned = lab.delete(GONE)
    assert dict(planned.group_by("table").agg(pl.col("rows").sum()).iter_rows()) == {
        "tick_prices": 400,
        "tick_orderbook": 10,
        "csv_imports": 2,
    }
    assert GONE not in lab.sessions()["session_id"]
    assert lab.session_page().total_count == 2
    assert GONE not in lab._db.catalogue(sql.session_ids())["session_id"]
    with pytest.raises(errors.SessionNotFound, match=r"lab\.undelete\('gone'\) brings it back"):
        lab.session(GONE)
    assert lab.deleted().select("session_id", "status", "rows", "can_be_undeleted").rows() == [
        (GONE, "deleting", 412, True)
    ]
    assert lab.undelete(GONE) == session
    assert lab.sessions().equals(before)
    assert lab.session(GONE).prices().equals(prices)
    assert lab.session(GONE).orderbook().equals(books)
    assert lab.deleted().is_empty()


def test_what_cannot_be_deleted_is_refused_with_words(lab):
    with pytest.raises(errors.SessionNotFound, match="did you mean 'gone'"):
        lab.delete("gonne")
    lab.delete(GONE)
    with pytest.raises(errors.SessionNotFound, match="was deleted"):
        lab.delete(GONE)
    row = _catalog.find(lab._db, STAYS)
    _catalog.store(lab._db, {**row, "status": "collecting", "source": "live"})
    lab._db.wait_visible(SESSIONS)
    with pytest.raises(errors.SessionBusy, match=r"is being recorded; end the recording"):
        lab.delete(STAYS)
    (lab._locks).mkdir(exist_ok=True)
    with (
        FileLock(lab._locks / f"{OTHER}.lock"),
        pytest.raises(errors.SessionBusy, match="is being imported"),
    ):
        lab.delete(OTHER)
    for name in (STAYS, "nobody"):
        with pytest.raises(errors.SessionNotFound, match=r"lab\.deleted\(\) lists them"):
            lab.undelete(name)
    with pytest.raises(errors.SessionNotFound, match=r"lab\.delete\('stays'\) deletes it"):
        lab.purge(STAYS)
    assert rows_of(lab._db, STAYS) == rows_of(lab._db, OTHER)


def test_an_import_that_was_killed_can_be_deleted(lab):
    row = _catalog.find(lab._db, GONE)
    _catalog.store(lab._db, {**row, "status": "collecting"})
    lab._db.wait_visible(SESSIONS)
    lab.delete(GONE)
    assert set(lab.purge(GONE)["state"]) == {"done"}


KILLED_IMPORT = (
    "import os, signal, sys; import fxlab; from fxlab.collect._files import importer\n"
    "importer._refuse_difference = lambda *_: os.kill(os.getpid(), signal.SIGKILL)\n"
    "lab = fxlab.connect(home=sys.argv[1], questdb_http_port=sys.argv[2], "
    "questdb_pg_port=sys.argv[3])\n"
    "lab.import_files(sys.argv[4], session_id='killed', progress=False)\n"
)


def test_an_import_that_was_killed_keeps_no_week_from_being_purged(lab, settings, tmp_path):
    file = tmp_path / "ticks.parquet"
    ticks(4)["prices"].write_parquet(file)
    ports = map(str, (settings.questdb_http_port, settings.questdb_pg_port))
    command = [sys.executable, "-c", KILLED_IMPORT, str(settings.home), *ports, str(file)]
    assert subprocess.run(command, check=False).returncode == -signal.SIGKILL
    lab._db.wait_visible(SESSIONS)
    assert lab.session("killed").status == "collecting"
    with FileLock(lab._locks / "killed.lock"):  # as long as the process lives
        lab.delete(GONE)
        assert "session 'killed' is being imported" in lab.purge()["reason"].to_list()
        assert lab.session("killed").status == "collecting"
        assert "killed" not in lab.retention(older_than="1d")["session_id"]
    assert set(lab.purge()["state"]) == {"done"}
    assert lab.session("killed").status == "failed"
    assert rows_of(lab._db, "killed")["tick_prices"] == 400
    assert "killed" in lab.retention(older_than="1d")["session_id"]
    _catalog.store(lab._db, {**_catalog.find(lab._db, "killed"), "status": "collecting"})
    lab._db.wait_visible(SESSIONS)
    ended, spool = _doctor.mend(settings)
    assert ended.startswith("marked killed imports as failed: killed;")
    assert spool == "removed the waiting rows of 1 imports that were killed"
    assert _doctor.mend(settings) == ()
    assert set(lab.import_files(file, session_id="killed").table()["state"]) == {"finished"}
    assert lab.session("killed").status == "completed"


def test_of_a_server_of_several_homes_only_its_own_imports_are_called_dead(lab):
    row = _catalog.find(lab._db, OTHER)
    theirs = {**row, "session_id": "theirs", "status": "collecting"}
    _catalog.store(lab._db, theirs)
    lab._db.wait_visible(SESSIONS)
    shared = replace(lab._db.endpoint, embedded=False)
    db = Hooked(lab._db, "nothing", None)
    db.endpoint = shared
    assert _purge.end_killed_imports(db, lab._locks) == []
    assert [one.session_id for one in _purge.find_writers(db, lab._locks)] == ["theirs"]
    assert _purge.end_killed_imports(lab._db, lab._locks) == ["theirs"]
    assert lab.session("theirs").status == "failed"


def test_a_purge_frees_the_session_and_touches_no_other(lab):
    before = stored(lab._db)
    lab.delete(GONE)
    told = lab.purge(dry_run=True)
    assert set(told["state"]) == {"planned"}
    assert set(told["shared_with"]) == {2}
    assert rows_of(lab._db, GONE)["tick_prices"] == 400
    said = []
    done = lab.purge(progress=lambda share, _: said.append(share))
    assert done.drop("state", "bytes").equals(told.drop("state", "bytes"))
    assert set(done["state"]) == {"done"}
    assert said[-1] == 1.0
    assert set(rows_of(lab._db, GONE).values()) == {0}
    assert_same(before, stored(lab._db))
    assert staging(lab._db) == []
    assert lab.deleted()["status"].to_list() == ["deleted"]
    with pytest.raises(errors.SessionNotFound, match="its ticks are gone"):
        lab.undelete(GONE)
    assert lab.purge().is_empty()


def test_a_freed_id_is_free_for_other_data(lab):
    lab.delete(GONE)
    with pytest.raises(errors.SessionExists, match=r"lab\.purge\(\['gone'\]\) frees its id"):
        lab.import_frames(ticks(7), session_id=GONE)
    lab.purge(GONE)
    lab.import_frames(ticks(7, rows=20), session_id=GONE)
    assert lab.session(GONE).prices().height == 20
    assert lab.session(GONE).tags == ()
    lab.delete(GONE)
    assert lab.undelete(GONE).prices_count == 20
    lab.delete(GONE)
    assert set(lab.purge()["state"]) == {"done"}


def test_partitions_of_one_session_are_dropped_and_split_ones_are_one(lab):
    # Late rows make the server split a partition.
    late = ticks(9)["prices"].filter(pl.col("timestamp") > MONDAY + timedelta(days=5))
    lab.import_frame(late, "prices", session_id="late")
    before = stored(lab._db)
    alone = ticks(3)["prices"].with_columns(pl.col("timestamp").dt.offset_by("-3y"))
    lab.import_frame(alone, "prices", session_id="alone")
    lab.delete("alone")
    lab.delete(GONE)
    done = lab.purge(["alone", GONE])
    assert set(done["state"]) == {"done"}
    unshared = done.filter(session_id="alone", table="tick_prices")
    assert unshared["shared_with"].to_list() == [0] * unshared.height
    assert_same(before, stored(lab._db))
    assert lab.deleted()["status"].to_list() == ["deleted"] * 2


class Killed(BaseException):
    """Stands for a process that ends: nothing may catch it."""


class Mortal:
    """A client that dies at the n-th statement that changes something, before or after it."""

    def __init__(self, db, lives, *, after):
        self._db, self._lives, self._after = db, lives, after

    def __getattr__(self, name):
        return getattr(self._db, name)

    def _do(self, call, *args):
        self._lives -= 1
        if self._lives < 0 and not self._after:
            raise Killed
        answer = call(*args)
        if self._lives < 0:
            raise Killed
        return answer

    def execute(self, statement):
        """Run a statement, or die."""
        if statement.startswith(("create", "insert", "drop", "alter")):
            return self._do(self._db.execute, statement)
        return self._db.execute(statement)

    def write(self, *args):
        """Write rows, or die."""
        return self._do(self._db.write, *args)


@pytest.mark.parametrize("after", [False, True], ids=["before the server", "after the server"])
def test_a_purge_that_is_killed_anywhere_is_finished_by_the_next_connect(small, after):
    before = stored(small._db)
    db, seen = small._db, set()
    small.delete(GONE)
    for lives in range(1_000):
        small._db = Mortal(db, lives % 9, after=after)
        try:
            small.purge()
        except Killed:
            db.wait_visible(PRICES)
            short = rows_of(db, STAYS)["tick_prices"] < 40
            seen.add("between drop and insert" if short else "whole")
            with fxlab.connect(small.settings) as again:  # finishes what was copied
                assert_same(before, stored(again._db))
                assert not again._db.is_moving()
        else:
            break
    small._db = db
    assert seen == {"between drop and insert", "whole"}
    assert set(rows_of(db, GONE).values()) == {0}
    assert staging(db) == []


WEEKS = 6
YEARS_BEFORE = MONDAY - timedelta(days=700)


def alone(lab, name="alone", weeks=range(WEEKS)):
    """Import a session whose weeks nobody shares, and delete it; return its first moment."""
    times = [YEARS_BEFORE + timedelta(days=7 * n + day) for n in weeks for day in (0, 3, 6)]
    frame = pl.DataFrame({"timestamp": times, "symbol": "X", "price": 1.0, "volume": 1.0})
    lab.import_frame(frame, "prices", session_id=name)
    lab.delete(name)


def drops(lab, action):
    """Return what a purge said, and the statements that dropped partitions of trades."""
    db, found = lab._db, []
    lab._db = Mortal(db, 10**6, after=False)
    execute = lab._db.execute

    def kept(statement):
        if statement.startswith('alter table "tick_prices" drop'):
            found.append(statement)
        return execute(statement)

    lab._db.execute = kept
    try:
        return action(), found
    finally:
        lab._db = db


def test_weeks_side_by_side_that_nobody_shares_are_dropped_together(small, monkeypatch):
    before = stored(small._db)
    alone(small)
    monkeypatch.setattr(_purge, "AT_ONCE", 4)
    steps = []
    told, statements = drops(
        small, lambda: small.purge(["alone"], progress=lambda _, text: steps.append(text))
    )
    assert [statement.count("W") for statement in statements] == [4, 2]
    weeks = told.filter(table="tick_prices")
    assert (weeks["rows"].to_list(), set(weeks["state"])) == ([3] * WEEKS, {"done"})
    assert steps == [f"{n} of 7 partitions" for n in (4, 6, 7)]  # its row of imports is the last
    assert set(rows_of(small._db, "alone").values()) == {0}
    assert_same(before, stored(small._db))


def test_weeks_with_others_in_between_and_those_written_to_are_left_out(small):
    alone(small, weeks=[0, 1, 3, 4, 5])
    alone(small, "between", weeks=[2])
    small.undelete("between")
    between = rows_of(small._db, "between")["tick_prices"]
    row = _catalog.find(small._db, OTHER)
    start = YEARS_BEFORE + timedelta(days=7 * 4 + 1)
    busy = {"session_id": "busy", "status": "collecting", "source": "csv"}
    span = {"started": start, "ended": start + timedelta(hours=1)}
    _catalog.store(small._db, {**row, **busy, **span})
    small._db.wait_visible(SESSIONS)
    with FileLock(small._locks / "busy.lock"):
        told, statements = drops(small, lambda: small.purge(["alone"]))
    weeks = told.filter(table="tick_prices")
    assert weeks["state"].to_list() == ["done"] * 3 + ["deferred", "done"]
    assert weeks["reason"].unique().sort().to_list() == ["", "session 'busy' is being imported"]
    assert [statement.count("W") for statement in statements] == [2, 1, 1]
    assert rows_of(small._db, "between")["tick_prices"] == between == 3
    assert rows_of(small._db, "alone")["tick_prices"] == 3
    _catalog.store(small._db, {**row, **busy, **span, "status": "completed"})
    small._db.wait_visible(SESSIONS)
    assert set(small.purge(["alone"])["state"]) == {"done"}


def test_rows_that_came_meanwhile_keep_a_week_from_being_dropped_with_the_others(small):
    alone(small)
    db, sent = small._db, []
    moment = YEARS_BEFORE + timedelta(days=7 * 2 + 1)

    def write():
        if not sent:
            sent.append(True)
            db.write(PRICES, live_rows(0, 5).with_columns(timestamp=pl.lit(moment)))

    small._db = Hooked(db, "wait", write)
    told = small.purge(["alone"])
    small._db = db
    weeks = told.filter(table="tick_prices")
    assert weeks["state"].to_list() == ["done"] * 2 + ["deferred"] + ["done"] * 3
    db.wait_visible(PRICES)
    assert rows_of(db, "live")["tick_prices"] == 5
    assert rows_of(db, "alone")["tick_prices"] == 3
    assert set(small.purge(["alone"])["state"]) == {"done"}  # now the five rows are copied
    assert rows_of(db, "live")["tick_prices"] == 5


@pytest.mark.parametrize("after", [False, True], ids=["before the server", "after the server"])
def test_a_purge_of_weeks_together_that_is_killed_anywhere_is_finished(small, after):
    before, db = stored(small._db), small._db
    for lives in range(100):
        small._db = db
        alone(small, f"alone_{lives}")
        small._db = Mortal(db, lives, after=after)
        ended = False
        try:
            small.purge([f"alone_{lives}"])
            ended = True
        except Killed:
            db.wait_visible(PRICES)
            with fxlab.connect(small.settings) as again:
                assert not again._db.is_moving()
        small._db = db
        small.purge()
        assert set(rows_of(db, f"alone_{lives}").values()) == {0}
        assert_same(before, stored(db))
        if ended:
            break
    assert lives > 2


CHILD = (
    "import os, signal, sys; from fxlab._questdb.client import QuestDB; import fxlab\n"
    "left = [int(sys.argv[4])]\n"
    "def mortal(name):\n"
    "    real = getattr(QuestDB, name)\n"
    "    def call(self, what, *more):\n"
    "        changes = name == 'write' or what.startswith(('create', 'insert', 'drop', 'alter'))\n"
    "        left[0] -= changes\n"
    "        if left[0] < 0: os.kill(os.getpid(), signal.SIGKILL)\n"
    "        return real(self, what, *more)\n"
    "    setattr(QuestDB, name, call)\n"
    "lab = fxlab.connect(home=sys.argv[1], questdb_http_port=sys.argv[2], "
    "questdb_pg_port=sys.argv[3])\n"
    "mortal('execute'), mortal('write')\n"
    "lab.purge(progress=False)\n"
)


def child(settings, lives):
    place = (settings.home, settings.questdb_http_port, settings.questdb_pg_port)
    command = [sys.executable, "-c", CHILD, *map(str, place), str(lives)]
    return subprocess.Popen(command, stderr=subprocess.PIPE, text=True)


def test_processes_that_are_killed_lose_nothing(small, settings):
    before = stored(small._db)
    small.delete(GONE)
    for lives, ended in ((1, -9), (5, -9), (6, -9), (1_000, 0)):
        process = child(settings, lives)
        words = process.communicate()[1]
        assert process.returncode == ended, words
    assert_same(before, stored(small._db))
    assert set(rows_of(small._db, GONE).values()) == {0}
    assert small.deleted()["status"].to_list() == ["deleted"]


@pytest.mark.parametrize("seed", range(3))
def test_a_server_that_is_killed_loses_nothing(small, settings, seed):
    before = stored(small._db)
    small.delete(GONE)
    process = child(settings, 1_000)
    # Killed a random time after the purge has begun: its first state is in the journal.
    while process.poll() is None and not small._db.execute(sql_tables.purges("planned")):
        time.sleep(0.01)
    time.sleep(random.Random(seed).uniform(0, 0.6))
    server = psutil.Process(embedded.status(settings).pid)
    server.kill()
    process.kill()
    server.wait()
    process.communicate()
    small._db.close()
    embedded.up(settings)
    with fxlab.connect(settings) as again:
        assert_same(before, stored(again._db))
        again.purge()
        assert_same(before, stored(again._db))
        assert set(rows_of(again._db, GONE).values()) == {0}
        assert again.deleted()["status"].to_list() == ["deleted"]


def test_a_staging_table_that_a_killed_server_left_half_made_is_no_hindrance(small, settings):
    before = stored(small._db)
    small.delete(GONE)
    # Of the same partition, which the purge stages again, and of another, which it sweeps.
    names = ("tick_prices_purge_2025_W02", "tick_prices_purge_2025_W40")
    for name in names:
        small._db.execute(sql_tables.create_table(replace(PRICES, name=name)))
    small._db.close()
    embedded.down(settings)
    for name in names:  # as found after a kill: the file is there, nothing is written into it
        # Folders of tables that were dropped may still be there, with lower numbers.
        found = settings.home.glob(f"**/db/{name}~*/txn_seq/_meta")
        made = max(found, key=lambda path: int(path.parts[-3].rpartition("~")[2]))
        made.write_bytes(bytes(made.stat().st_size))
    embedded.up(settings)
    with fxlab.connect(settings) as again:
        assert sorted(staging(again._db)) == sorted(names)
        again.purge()
        assert staging(again._db) == []
        assert_same(before, stored(again._db))
        assert set(rows_of(again._db, GONE).values()) == {0}


class Hooked:
    """A client that calls back before statements that begin in some way."""

    def __init__(self, db, beginning, hook):
        self._db, self._beginning, self._hook = db, beginning, hook

    def __getattr__(self, name):
        return getattr(self._db, name)

    def execute(self, statement):
        """Call back if it is such a statement, then run it."""
        if statement.startswith(self._beginning):
            self._hook()
        return self._db.execute(statement)

    def wait_visible(self, *tables):
        """Call back if that is asked for, and partitions are counted already, then wait."""
        if self._beginning == "wait" and fxlab.schema.PURGE_JOURNAL not in tables:
            self._hook()
        self._db.wait_visible(*tables)


def live_rows(first, count):
    row = {
        "session_id": "live",
        "symbol": "BTC_USDT",
        "origin": "live",
        "price": 1.0,
        "volume": 1.0,
    }
    rows = [
        row | {"seq": n, "timestamp": MONDAY + timedelta(days=4, seconds=n)}
        for n in range(first, first + count)
    ]
    return pl.DataFrame(rows, schema=PRICES.frame)


def test_a_week_that_is_recorded_into_is_deferred_and_loses_nothing(lab, settings):
    row = _catalog.find(lab._db, OTHER)
    live = {**row, "session_id": "live", "status": "collecting", "source": "live"}
    _catalog.store(lab._db, live)
    lab._db.wait_visible(SESSIONS)
    lab.delete(GONE)
    assert set(lab.purge(dry_run=True)["state"]) == {"deferred"}
    sent, stop = [0], threading.Event()

    def record():
        with fxlab.connect(settings) as other:
            while not stop.is_set():
                other._db.write(PRICES, live_rows(sent[0], 20))
                sent[0] += 20

    writer = threading.Thread(target=record)
    writer.start()
    try:
        while not sent[0]:
            time.sleep(0.01)
        told = lab.purge()
    finally:
        stop.set()
        writer.join()
    prices = told.filter(table="tick_prices")
    assert set(prices["state"]) == {"deferred"}
    assert set(prices["reason"]) == {"session 'live' is being recorded"}
    lab._db.wait_visible(PRICES)
    assert rows_of(lab._db, "live")["tick_prices"] == sent[0] > 0
    assert rows_of(lab._db, GONE)["tick_prices"] == 400
    lab.undelete(GONE)  # all of it is still there
    lab.delete(GONE)
    _catalog.store(lab._db, {**live, "status": "completed"})
    lab._db.wait_visible(SESSIONS)
    assert set(lab.purge()["state"]) == {"done"}
    assert rows_of(lab._db, "live")["tick_prices"] == sent[0]


@pytest.mark.parametrize("beginning", ['insert into "tick_prices_purge', "wait"])
def test_rows_of_writers_that_said_nothing_are_not_lost(lab, beginning):
    db, sent = lab._db, [0]
    lab.delete(GONE)

    def write():
        db.write(PRICES, live_rows(sent[0], 5))
        sent[0] += 5

    lab._db = Hooked(db, beginning, write)
    told = lab.purge()
    lab._db = db
    assert sent[0]
    db.wait_visible(PRICES)
    assert rows_of(db, "live")["tick_prices"] == sent[0]
    reasons = told.filter(table="tick_prices")["reason"].to_list()
    assert "rows were written to it meanwhile; purge again when that is over" in reasons


def test_a_deleted_session_that_is_recorded_again_is_not_purged(small):
    # A collector that had read the session's row before it was deleted says that it goes on.
    db, row = small._db, _catalog.find(small._db, GONE)
    small.delete(GONE)
    again = {**row, "status": "collecting", "source": "live"}
    small._db = Hooked(db, 'insert into "tick_prices_purge', lambda: _catalog.store(db, again))
    told = small.purge()
    small._db = db
    assert told.filter(table="tick_prices")["reason"].to_list() == [
        "session 'gone' is being recorded"
    ]
    assert small.session(GONE).status == "collecting"
    assert rows_of(db, GONE)["tick_prices"] == 40


def test_nobody_begins_to_write_while_a_partition_is_dropped(lab):
    db, held = lab._db, []
    lab.delete(GONE)

    def look():
        lock = _catalog.announcing(lab._locks)
        try:
            lock.acquire(timeout=0)
            held.append(False)
            lock.release()
        except TimeoutError:
            held.append(True)

    lab._db = Hooked(db, "alter table", look)
    lab.purge()
    lab._db = db
    assert held
    assert all(held)


def test_a_reader_never_sees_a_partition_without_its_rows(lab, settings):
    db = lab._db
    expected = lab.session(STAYS).prices()
    lab.delete(GONE)
    found = []

    def read():
        with fxlab.connect(settings) as other:
            session = other.session(STAYS)
            found.extend((session.prices(), session.count_ticks(), session.statistics()))

    def look():
        reader = threading.Thread(target=read)
        reader.start()
        time.sleep(0.5)  # long enough to read short counts, if it did not wait
        readers.append(reader)

    readers = []
    with fxlab.connect(settings):
        lab._db = Hooked(db, 'insert into "tick_prices"', look)
        lab.purge()
        lab._db = db
    for reader in readers:
        reader.join()
    assert len(readers) == 2  # weeks
    assert len(found) == 6
    for prices, count, statistics in zip(found[::3], found[1::3], found[2::3], strict=True):
        assert prices.equals(expected)
        assert count == expected.height
        assert statistics["rows"].to_list() == [expected.height]


def test_a_purge_that_stays_half_way_is_said_to_readers(lab, monkeypatch):
    db = lab._db
    lab.delete(GONE)
    lab._db = Mortal(db, 5, after=False)  # before the copy is put back
    with pytest.raises(Killed):
        lab.purge()
    lab._db = db
    monkeypatch.setattr("fxlab._questdb.client._MOVE_WAITS", (2, 0.01, 0.01))
    with pytest.raises(errors.QueryFailed, match=r"stopped half-way.*lab\.purge\(\) puts them"):
        lab.session(STAYS).prices()
    found = {check.name: check for check in _doctor.diagnose(lab.settings, progress=False)}
    assert found["purges"].ok is False
    assert "fxlab doctor --mend puts them back" in found["purges"].next_step
    told = fxlab.mend(lab.settings, progress=False)
    assert any(line.startswith("finished a purge") for line in told), told
    assert lab.session(STAYS).prices().height == 400


def test_one_purge_at_a_time(lab):
    lab.delete(GONE)
    with _purge.alone(lab._locks):
        for call in (lab.purge, lambda: lab.undelete(GONE)):
            with pytest.raises(errors.SessionBusy, match="try again when it has ended"):
                call()
    assert lab.undelete(GONE).id == GONE


def test_events_and_receipts_go_too(lab):
    base = {"session_id": GONE, "symbol": "BTC_USDT", "event": "gap", "seq": 1}
    rows = [base | {"session_id": name, "timestamp": MONDAY} for name in (GONE, STAYS)]
    lab._db.write(EVENTS, pl.DataFrame(rows, schema=EVENTS.frame))
    receipt = {"symbol": "BTC_USDT", "data_type": "prices", "origin": "live", "timestamp": MONDAY}
    rows = [receipt | {"session_id": name} for name in (GONE, STAYS)]
    lab._db.write(schema.RECEIPTS, pl.DataFrame(rows, schema=schema.RECEIPTS.frame))
    lab._db.wait_visible(EVENTS, schema.RECEIPTS)
    before = stored(lab._db)
    lab.delete(GONE)
    lab.purge()
    assert set(rows_of(lab._db, GONE).values()) == {0}
    assert_same(before, stored(lab._db))


def test_what_is_purged_in_part_cannot_come_back(lab):
    # An import of the third week alone.
    row = _catalog.find(lab._db, OTHER)
    busy = {**row, "session_id": "busy", "started": row["ended"], "status": "collecting"}
    _catalog.store(lab._db, busy)
    lab._db.wait_visible(SESSIONS)
    with FileLock(lab._locks / "busy.lock"):
        lab.delete(GONE)
        told = lab.purge()
    weeks = told.filter(table="tick_prices")
    assert weeks["state"].to_list() == ["done", "deferred"]
    assert weeks["reason"][-1] == "session 'busy' is being imported"
    ledger = told.filter(table="csv_imports")
    assert ledger["reason"].to_list() == ["ticks of the session are deferred"]
    assert lab.deleted().select("status", "can_be_undeleted").rows() == [("deleting", False)]
    with pytest.raises(errors.SessionNotFound, match=r"purged in part.*lab\.purge\('gone'\)"):
        lab.undelete(GONE)
    _catalog.store(lab._db, {**busy, "status": "failed"})
    lab._db.wait_visible(SESSIONS)
    assert set(lab.purge()["state"]) == {"done"}
    assert lab.deleted()["status"].to_list() == ["deleted"]


def test_only_sessions_deleted_long_ago_are_purged_on_request(lab):
    lab.delete(GONE)
    assert lab.purge(older_than="1h", dry_run=True).is_empty()
    assert lab.purge(older_than="1h").is_empty()
    assert not lab.purge(older_than="0s", dry_run=True).is_empty()
    assert lab.undelete(GONE).status == "completed"


def test_retention_shows_first_and_deletes_the_oldest(lab):
    new = ticks(5)["prices"].with_columns(timestamp=datetime.now(UTC) - timedelta(days=2))
    lab.import_frame(new.head(1), "prices", session_id="new")
    with pytest.raises(errors.InvalidParameter, match="give older_than='90d'"):
        lab.retention()
    with pytest.raises(errors.InvalidParameter, match=r"max_bytes='much' is no size"):
        lab.retention(max_bytes="much")
    old = lab.retention(older_than="90d")
    assert old["session_id"].to_list() == [GONE, STAYS, OTHER]
    assert old["rows"].to_list() == [410] * 3
    assert lab.session_page().total_count == 4
    one = int(old["bytes"][2])
    assert lab.retention(max_bytes="1TB").is_empty()
    large = lab.retention(max_bytes=2 * one + 100_000, dry_run=False)
    assert GONE in large["session_id"]
    assert "new" not in large["session_id"]
    assert lab.deleted()["session_id"].sort().to_list() == large["session_id"].sort().to_list()
    with FileLock(lab._locks / f"{OTHER}.lock"):  # as an import holds it
        kept = lab.retention(older_than="90d", dry_run=False)
    assert kept.row(-1)[0] == OTHER
    assert kept["reason"][-1].startswith(f"not deleted: session '{OTHER}' is being imported")
    lab.retention(older_than="90d", dry_run=False)
    assert lab.sessions()["session_id"].to_list() == ["new"]


def test_the_other_end_of_the_scale(lab):
    one = ticks(4)["prices"].head(1)
    lab.import_frame(one, "prices", session_id="one")
    before = stored(lab._db)
    lab.delete("one")
    assert lab.purge("one")["rows"].to_list() == [1, 1]
    now = stored(lab._db)
    assert_same(
        {name: frame.filter(pl.col("session_id") != "one") for name, frame in before.items()}, now
    )
    assert ORDERBOOK.name in now


def test_what_was_recorded_beside_ticks_goes_with_them(lab):
    for table in schema.CHANNELS.values():
        rows = [
            {"session_id": name, "symbol": "BTC_USDT", "origin": "live", "seq": number,
             "received_at": at, "timestamp": at}
            for name in (GONE, STAYS)
            for number in range(20)
            for at in [MONDAY + timedelta(days=4, hours=7 * number)]
        ]  # fmt: skip
        lab._db.write(table, pl.DataFrame(rows, schema=table.frame))
    lab._db.wait_visible(*schema.CHANNELS.values())
    before = stored(lab._db)
    lab.delete(GONE)
    lab.purge()
    names = {table.name for table in schema.CHANNELS.values()}
    assert {rows_of(lab._db, GONE)[name] for name in names} == {0}
    assert {rows_of(lab._db, STAYS)[name] for name in names} == {20}
    assert_same(before, stored(lab._db))
