"""Backup and restore of the embedded server: from home to home, with every row and receipt."""

from __future__ import annotations

import json
import os
import re
import signal
import stat
import subprocess
import sys
import time
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from conftest import settings_at
from typer.testing import CliRunner

import fxlab
from fxlab import errors
from fxlab._cli import app
from fxlab._questdb import server as embedded
from fxlab._questdb import sql
from fxlab._questdb.sql import Scope
from fxlab.mock import MockVenue, generated
from fxlab.sessions import _archive, _catalog

MONDAY = datetime(2025, 1, 6, tzinfo=UTC)


def ticks(first, rows=5_000):
    return pl.DataFrame(
        {
            "symbol": "BTC_USDT",
            "timestamp": [MONDAY + timedelta(seconds=first + n // 2) for n in range(rows)],
            "price": [1e-9 if n % 7 else 1e9 for n in range(rows)],
            "volume": [0.1 * (1 + n % 3) for n in range(rows)],
        }
    )


PAIRS = ["BTC_USDT", "ETH_USDT"]
KINDS = ("prices", "orderbook", "mark")


def record(lab):
    """Record two symbols, and what a venue says beside their ticks."""
    with MockVenue(generated(PAIRS, seed=1, rate=200, trades=100)) as venue:
        collector = lab.collect(
            "binance_futures", PAIRS, url=venue.url, session_id="recorded", channels="mark"
        )
        deadline = time.monotonic() + 60
        while lab.session("recorded").counts().height < len(PAIRS) * len(KINDS):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        collector.stop()


@pytest.fixture(scope="module")
def old(tmp_path_factory):
    settings = settings_at(tmp_path_factory.mktemp("old"))
    embedded.up(settings)
    with fxlab.connect(settings) as lab:
        lab.import_frame(ticks(0), "prices", session_id="first")
        lab.import_frame(ticks(8 * 86_400), "prices", session_id="second")
        record(lab)
        assert "done" in lab.archive()["state"].to_list()  # Parquet is saved and restored too
    yield settings
    embedded.down(settings)


@pytest.fixture
def new(tmp_path):
    settings = settings_at(tmp_path / "new")
    yield settings
    embedded.down(settings)


def told(settings):
    """Return each session's rows, having verified the receipts of all that was recorded."""
    with fxlab.connect(settings) as lab:
        names = lab.sessions(source="live", status="completed")["session_id"].to_list()
        assert "recorded" in names
        for name in names:
            receipt = lab.verify(name)
            assert receipt.whole, (name, receipt.problems)
        one = lab.session("recorded")
        assert (sorted(one.symbols), one.data_types) == (PAIRS, KINDS)
        assert one.instruments()["lot_size"].to_list() == [1e-05] * 2
        return [
            *(lab.session(name).prices() for name in ("first", "second")),
            *(read(symbol) for symbol in PAIRS for read in (one.prices, one.orderbook)),
            *(one.mark_prices(symbol) for symbol in PAIRS),
            one.instruments(),
        ]


def command(settings, *words, ends=0):
    """Return what a command says that runs with these settings."""
    done = CliRunner(env=settings.environment()).invoke(app, [*map(str, words)])
    assert done.exit_code == ends, done.output
    return done.stdout or done.stderr


def same(left, right):
    return all(a.height and a.equals(b) for a, b in zip(left, right, strict=True))


def test_a_restored_home_has_every_row_and_receipt(old, new, tmp_path):
    before = told(old)
    (files,) = re.findall(r"^(\d+) files, \d+ MB, in ", command(old, "backup", tmp_path / "saved"))
    assert stat.S_IMODE((tmp_path / "saved").stat().st_mode) == 0o700
    assert not list((tmp_path / "saved").rglob("passwords.json"))
    said = command(new, "restore", tmp_path / "saved")
    assert said.startswith(f"{files} files are restored, and the server runs")
    assert int(files) > 10
    assert same(told(new), before)
    with fxlab.connect(new) as lab:  # and goes on
        lab.import_frame(ticks(99), "prices", session_id="third")
        assert lab.session("third").prices().height == 5_000
    assert "has data" in command(new, "restore", tmp_path / "saved", ends=1)


def test_lines_in_quarantine_are_saved_and_restored_where_their_events_say(old, new, tmp_path):
    file = tmp_path / "odd.csv"
    good = (f"{1_700_000_000 + n},BTC_USDT,1,1\n" for n in range(300))
    file.write_text("timestamp,symbol,price,volume\n" + "".join(good) + "no tick\n")
    with fxlab.connect(old) as lab:
        lab.import_files(file, session_id="odd")
    (line,) = (old.home / "quarantine" / "odd").iterdir()
    (line.parent / "half.part").write_text("being written")
    files = fxlab.backup(tmp_path / "saved", old)
    name = str(line.relative_to(old.home))
    assert files.filter(path=name)["size"].to_list() == [line.stat().st_size]
    assert files.filter(pl.col("path").str.ends_with(".part")).is_empty()
    fxlab.restore(tmp_path / "saved", new)
    assert (new.home / name).read_text() == line.read_text()
    assert "no tick" in line.read_text()
    with fxlab.connect(new) as lab:
        (event,) = lab.session("odd").events().filter(event="quarantine").iter_rows(named=True)
    assert name in event["detail"]
    (tmp_path / "saved" / name).write_text("other")
    with pytest.raises(errors.InvalidInput, match=r"odd.csv\S* is damaged"):
        fxlab.restore(tmp_path / "saved", settings_at(tmp_path / "newer"))


def test_a_backup_of_a_stopped_server_is_as_good(old, new, tmp_path):
    before = told(old)
    embedded.down(old)
    fxlab.backup(tmp_path / "saved", old)
    fxlab.restore(tmp_path / "saved", new)
    assert same(told(new), before)
    embedded.up(old)


def test_a_session_that_is_being_recorded_is_aborted_in_the_backup(old, new, tmp_path):
    before = told(old)
    with fxlab.connect(old) as lab:
        row = _catalog.find(lab._db, "first")
        live = {**row, "session_id": "live", "source": "live", "status": "collecting"}
        _catalog.put(lab._db, live | {"prices_count": 0, "started": None, "ended": None})
        numbered = ticks(0, 200).with_columns(
            pl.lit("live").alias("session_id"), pl.int_range(200, dtype=pl.Int64).alias("seq")
        )
        lab._db.write(fxlab.schema.PRICES, with_all(numbered))
    fxlab.backup(tmp_path / "saved", old)
    assert embedded.status(old).state == "running"
    fxlab.restore(tmp_path / "saved", new)
    assert same(told(new), before)
    with fxlab.connect(new) as lab:
        session = lab.session("live")
        assert (session.status, session.prices_count) == ("aborted", 200)
        assert session.prices().height == 200


RESTORE = """
import os, signal, sys
from pathlib import Path
import fxlab
from fxlab._questdb import server
from fxlab.config import Settings
from fxlab.sessions import _archive

def die(*_):
    os.kill(os.getpid(), signal.SIGKILL)

copies = [0]
def copy(*place, real=_archive._copy):
    copies[0] += 1
    return real(*place) if copies[0] < 5 else die()

if sys.argv[2] == "copying":
    _archive._copy = copy
else:
    places = {"swapped": (server, "up"), "started": (_archive, "_end_recordings")}
    setattr(*places[sys.argv[2]], die)
fxlab.restore(sys.argv[1], Settings.load(), progress=False)
"""


def test_a_restore_that_is_killed_is_finished_by_the_same_call(old, tmp_path):
    with fxlab.connect(old) as lab:
        row = _catalog.find(lab._db, "first")
        _catalog.put(
            lab._db, {**row, "session_id": "cut", "source": "live", "status": "collecting"}
        )
        lab._db.wait_visible(fxlab.schema.SESSIONS)
    saved = tmp_path / "saved"
    fxlab.backup(saved, old)
    before = told(old)
    new = settings_at(tmp_path / "killed")
    try:
        for where in ("copying", "swapped", "started"):
            done = subprocess.run(
                [sys.executable, "-c", RESTORE, str(saved), where],
                env={**os.environ, **new.environment()},
                capture_output=True,
                text=True,
                check=False,
            )
            assert done.returncode == -signal.SIGKILL, done.stderr
        with pytest.raises(errors.SessionExists, match="has data"):
            fxlab.restore(another(saved, tmp_path), new)
        fxlab.restore(saved, new)
        assert same(told(new), before)
        with fxlab.connect(new) as lab:
            assert lab.session("cut").status == "aborted"
        with pytest.raises(errors.SessionExists, match="has data"):
            fxlab.restore(saved, new)
    finally:
        embedded.down(new)
        with fxlab.connect(old) as lab:
            row = _catalog.find(lab._db, "cut")
            _catalog.put(lab._db, {**row, "status": "deleted"})


def another(saved, folder):
    """Return a backup that is another one."""
    other = folder / "other"
    other.mkdir()
    facts = json.loads((saved / "manifest.json").read_text()) | {"made_at": "earlier"}
    (other / "manifest.json").write_text(json.dumps(facts))
    return other


def test_a_backup_while_something_is_recorded_is_consistent_and_loses_nothing(old, new, tmp_path):
    name, scope = "during", Scope(fxlab.schema.PRICES, "during")
    venue = MockVenue(generated(["BTC_USDT"], seed=3, rate=500, trades=2_000))
    with venue, fxlab.connect(old) as lab:
        collector = lab.collect("binance", ["BTC_USDT"], url=venue.url, session_id=name)
        while not lab._db.execute(sql.count_scope(scope))[0][0]:
            time.sleep(0.05)
        lab.backup(tmp_path / "saved")
        collector.stop()
        assert lab.verify(name).whole
        whole = lab.session(name).prices()
    fxlab.restore(tmp_path / "saved", new)
    with fxlab.connect(new) as lab:
        session = lab.session(name)
        assert session.status == "aborted"
        part = session.prices()
        assert part.height == session.prices_count == session.count_ticks() > 0
        # What is there is there as it was recorded.
        assert part.join(whole, on=whole.columns, how="anti", nulls_equal=True).is_empty()


def with_all(frame):
    return frame.with_columns(
        pl.lit(None, kind).alias(name)
        for name, kind in fxlab.schema.PRICES.frame.items()
        if name not in frame.columns
    ).select(fxlab.schema.PRICES.frame.keys())


def test_what_is_damaged_missing_or_half_is_refused_by_name(old, new, tmp_path):
    saved = tmp_path / "saved"
    files = fxlab.backup(saved, old)
    victim = saved / files.filter(pl.col("size") > 0)["path"][0]
    content = victim.read_bytes()
    victim.write_bytes(bytes([content[0] ^ 1]) + content[1:])
    with pytest.raises(errors.InvalidInput, match="is damaged") as refused:
        fxlab.restore(saved, new)
    assert str(victim) in str(refused.value)
    assert not (new.home / "questdb" / "db").exists()
    victim.unlink()
    with pytest.raises(errors.InvalidInput, match="is missing") as refused:
        fxlab.restore(saved, new)
    assert str(victim) in str(refused.value)
    manifest = saved / "manifest.json"
    facts = json.loads(manifest.read_text())
    facts["files"][0]["path"] = "db/../../outside"
    manifest.write_text(json.dumps(facts))
    with pytest.raises(errors.InvalidInput, match="no file of a backup"):
        fxlab.restore(saved, new)
    manifest.unlink()
    with pytest.raises(errors.InvalidInput, match="no whole backup"):
        fxlab.restore(saved, new)


def test_a_backup_that_stops_leaves_nothing_and_the_server_goes_on(old, tmp_path, monkeypatch):
    def full(*_):
        raise OSError("no space left")

    with monkeypatch.context() as patch:
        patch.setattr(_archive, "_copy", full)
        with pytest.raises(OSError, match="no space"):
            fxlab.backup(tmp_path / "saved", old)
    assert list(tmp_path.iterdir()) == []
    assert fxlab.backup(tmp_path / "saved", old).height  # and it runs again
    with pytest.raises(errors.InvalidInput, match="exists"):
        fxlab.backup(tmp_path / "saved", old)
    with pytest.raises(errors.InvalidInput, match="lies within"):
        fxlab.backup(old.home / "saved", old)


@pytest.mark.filterwarnings("ignore:disk")  # the server that starts again is told too
def test_a_disk_without_room_is_told_before_anything_is_written(old, tmp_path, monkeypatch):
    usage = type("Usage", (), {"free": 10})
    monkeypatch.setattr(_archive.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(errors.InvalidInput, match="are needed"):
        fxlab.backup(tmp_path / "saved", old)
    assert list(tmp_path.iterdir()) == []
