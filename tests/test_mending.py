"""What the server suffers from is named where it surfaces, and mended by one command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from datetime import UTC, datetime

import polars as pl
import psutil
import pytest
from conftest import settings_at

from fxlab import schema
from fxlab._doctor import mend
from fxlab._questdb import endpoint, ingest, server_config
from fxlab._questdb import server as embedded
from fxlab.errors import (
    QueryFailed,
    QuestDBUnavailable,
    SchemaError,
    ServerExhausted,
    TableSuspended,
)
from fxlab.lab import connect

NOON = datetime(2025, 1, 1, 12, tzinfo=UTC)
MEND = "fxlab doctor --mend (in Python: fxlab.mend())"


@pytest.fixture(scope="module")
def own(tmp_path_factory, server_settings):
    """Choose a server that these tests may break."""
    settings = settings_at(tmp_path_factory.mktemp("broken"))
    with pytest.MonkeyPatch.context() as patch:
        # Lets a test suspend a table, as a full disk would.
        patch.setitem(server_config._SAFETY, "dev.mode.enabled", "true")
        embedded.up(settings)
        yield settings
    embedded.down(settings)


def five(at=NOON):
    return pl.DataFrame(
        {
            "timestamp": [at] * 5,
            "price": [1.0, 2.0, 3.0, 4.0, 5.0],
            "volume": [1.0] * 5,
            "symbol": ["A_B"] * 5,
        }
    )


def test_a_suspended_table_is_told_with_a_command_and_cured_by_it(own):
    with connect(own) as lab:
        lab._db.execute("alter table tick_prices suspend wal")
        with pytest.raises(TableSuspended, match="tick_prices is suspended") as caught:
            lab.import_frame(five(), "prices", session_id="cured")
        assert MEND in str(caught.value)
        assert "ALTER" not in str(caught.value)
    with pytest.raises(SchemaError, match="tick_prices is suspended"):
        connect(own)
    done = subprocess.run(
        [sys.executable, "-m", "fxlab", "doctor", "--mend"],
        env={**os.environ, **own.environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert "resumed tick_prices" in done.stdout, done.stdout + done.stderr
    assert done.returncode == 0, done.stdout
    with connect(own) as lab:
        lab.import_frame(five(), "prices", session_id="cured")
        assert lab.session("cured").prices()["price"].to_list() == [1.0, 2.0, 3.0, 4.0, 5.0]
    assert mend(own) == ()


def test_a_cure_that_fails_keeps_no_other_from_its_work(own):
    """An unreadable journal stays; a table, keys and what a killed import left are cured."""
    from fxlab.collect._live.journal import SUFFIX

    broken = own.home / "journals" / f"broken{SUFFIX}"
    waiting = own.home / "spool" / "import-killed"
    for folder in (broken.parent, waiting):
        folder.mkdir(parents=True, exist_ok=True)
    broken.write_bytes(b"no journal " * 1_000)
    with connect_quietly(own) as lab:
        lab._db.execute("alter table tick_prices suspend wal")
        lab._db.execute("alter table csv_imports dedup disable")
    done = subprocess.run(
        [sys.executable, "-m", "fxlab", "doctor", "--mend", "--json"],
        env={**os.environ, **own.environment()},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1, done.stdout + done.stderr
    cures = {row["what"]: row for row in json.loads(done.stdout)["cures"]}
    states = {what: row["state"] for what, row in cures.items()}
    assert states == {
        "server": "ok", "DEDUP keys": "mended", "suspended tables": "mended", "purges": "ok",
        "recordings": "MEND", "imports": "mended",
    }  # fmt: skip
    assert str(broken) in cures["recordings"]["done"]
    assert all(row["cure"] for row in cures.values())
    assert not waiting.exists()
    broken.unlink()
    assert mend(own) == ()


def connect_quietly(settings):
    """Connect where a journal cannot be finished, which is a warning."""
    with pytest.warns(UserWarning, match="cannot be finished"):
        return connect(settings)


def test_a_table_without_its_keys_gets_them_back(own):
    with connect(own) as lab:
        lab._db.execute("alter table csv_imports dedup disable")
    with pytest.raises(SchemaError, match=r"csv_imports has the DEDUP keys: none.*doctor --mend"):
        connect(own)
    assert mend(own) == ("gave csv_imports its DEDUP keys back",)
    connect(own).close()


def test_a_server_that_died_is_named_and_started(own):
    pid = embedded.status(own).pid
    assert pid is not None
    victim = psutil.Process(pid)
    with connect(own) as lab:
        os.kill(pid, signal.SIGKILL)
        psutil.wait_procs([victim], timeout=30)
        for ask in (lab.sessions, lambda: lab._db.execute("select 1")):
            with pytest.raises(QuestDBUnavailable, match=r"fxlab up \(in Python: fxlab.up\(\)\)"):
                ask()
    with pytest.raises(QuestDBUnavailable, match="ended without: fxlab down"):
        connect(own)
    (done,) = mend(own)
    assert "started the server, which had ended" in done
    with connect(own) as lab:
        assert isinstance(lab.sessions(), pl.DataFrame)


def test_a_server_near_its_limits_is_restarted(own, monkeypatch):
    pid = embedded.status(own).pid
    monkeypatch.setattr(server_config, "maps_share", lambda _: 0.9)
    (done,) = mend(own)
    assert "about to run out of memory maps" in done
    assert embedded.status(own).pid != pid


def test_what_cannot_be_mended_is_told(server_settings, tmp_path, monkeypatch):
    monkeypatch.setattr(embedded.server_config, "available_memory", lambda: 0)
    said, *others = mend(server_settings.replace(home=tmp_path))
    assert said.startswith("not mended: the server may take")
    # Nobody has looked at the rest, so nothing of it is called well.
    assert set(others) == {"not mended: it waits for a server that answers"}
    assert len(others) == 5


@pytest.mark.parametrize(
    ("words", "kind"),
    [
        ("could not mmap  [size=8, offset=0, fd=65463, memUsed=1, fileLen=8]", ServerExhausted),
        ("could not open read-only [file=/x/price.d, errno=24]", ServerExhausted),
        ("Too many open files", ServerExhausted),
        ("table is suspended [tableName=tick_prices]", TableSuspended),
        ("unexpected token [near]", QueryFailed),
    ],
)
def test_the_server_s_words_become_an_error_that_says_what_helps(db, monkeypatch, words, kind):
    with pytest.raises(kind) as caught:
        raise endpoint.query_error(words, "select 'suspended'")
    assert ("fxlab doctor --mend" in str(caught.value)) is (kind is not QueryFailed)


@pytest.mark.parametrize("status", [400, 500])
def test_rows_refused_for_want_of_maps_are_sent_again_later(db, status):
    import httpx

    post = ingest.LinePost(db.endpoint)
    post.close()
    answer = httpx.Response(status, text='{"message": "could not mmap [size=8]"}')
    post._http = httpx.Client(
        base_url="http://nowhere", transport=httpx.MockTransport(lambda _: answer)
    )
    with post._http, pytest.raises(ServerExhausted, match="fxlab down && fxlab up"):
        post.post(b"x")


def test_advice_fits_who_owns_the_server(db):
    import dataclasses

    theirs = dataclasses.replace(db.endpoint, embedded=False)
    assert "fxlab up" in str(db.endpoint.unavailable("gone"))
    assert "fxlab up" not in str(theirs.unavailable("gone"))
    assert "FXLAB_QUESTDB_HOST" in str(theirs.unavailable("gone"))


def test_no_message_gives_a_shell_user_sql():
    """The server's console asks for a login that no message can give."""
    from pathlib import Path

    package = Path(schema.__file__).parent
    for path in package.rglob("*.py"):
        text = path.read_text()
        for statement in ("run: ALTER", "run: {sql", "RENAME TABLE", 'RENAME "'):
            assert statement not in text, path
