"""Connecting, the catalogue, and what hostile values cannot do anywhere."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from markets import recorded_walk
from tick_files import HOSTILE_IDS, HOSTILE_SYMBOLS, write_session

import fxlab
from fxlab import errors, schema
from fxlab._questdb import sql, sql_tables
from fxlab.config import Settings
from fxlab.schema import TABLES


@pytest.fixture(scope="module")
def group(lab, unique):
    """Store three sessions that share a word, the newest last."""
    word = unique("group")
    for hour, (symbols, exchange, notes, tags) in enumerate(
        [
            (["BTC_USDT"], "mexc", "a quiet night", ["night"]),
            (["BTC_USDT", "ETH_USDT"], "mexc", "100% 'quoted'", []),
            (["BTCXUSDT"], "binance", "", ["x_y"]),
        ]
    ):
        walks = [recorded_walk(50, seed, symbol=name) for seed, name in enumerate(symbols)]
        later = pl.col("timestamp") + pl.duration(hours=hour)
        lab.import_frames(
            {"prices": pl.concat(walks).with_columns(later)},
            session_id=f"{word}-{hour}",
            exchange=exchange,
            notes=f"{word} {notes}",
            tags=tags,
        )
    return word


def found(lab, group, **filters):
    """Return the numbers of the group's sessions in a listing."""
    filters.setdefault("text", group)
    ids = lab.sessions(**filters)["session_id"]
    return [int(name.rsplit("-", 1)[1]) for name in ids if name.startswith(group)]


# ---- connecting ----------------------------------------------------------------------------


def test_connecting_twice_finds_the_same_sessions(lab, group):
    with fxlab.connect() as other:
        assert found(other, group) == found(lab, group) == [2, 1, 0]


def test_settings_may_be_given_whole_or_one_by_one(server_settings, server):
    with fxlab.connect(server_settings) as lab:
        assert lab.settings == server_settings
    with fxlab.connect(questdb_memory="600m") as lab:
        assert lab.settings.questdb_memory == "600m"


def test_no_server_is_told_with_the_next_step(tmp_path):
    with pytest.raises(errors.QuestDBUnavailable, match="run: fxlab up"):
        fxlab.connect(home=tmp_path)


@pytest.mark.parametrize("setting", ["questdb_password", "questdb_pg_password"])
def test_a_wrong_password_is_told_and_not_shown(server, setting):
    endpoint = server.endpoint
    right = {
        "questdb_host": endpoint.host,
        "questdb_http_port": endpoint.http_port,
        "questdb_pg_port": endpoint.pg_port,
        "questdb_user": endpoint.user,
        "questdb_password": endpoint.password,
        "questdb_pg_user": endpoint.pg_user,
        "questdb_pg_password": endpoint.pg_password,
    }
    with fxlab.connect(**right) as lab:
        assert lab.endpoint == endpoint
    with pytest.raises(errors.QuestDBLoginFailed, match=setting) as caught:
        fxlab.connect(**{**right, setting: "wrong-wrong"})
    assert "wrong-wrong" not in str(caught.value)


def test_nothing_that_shows_a_lab_shows_a_password(lab, server):
    texts = [repr(lab), lab._repr_html_(), repr(lab.endpoint), repr(lab.settings), repr(vars(lab))]
    secrets = [server.endpoint.password, server.endpoint.pg_password]
    assert all(secrets)
    assert not any(secret in text for secret in secrets for text in texts)


def test_up_down_and_status_take_settings(tmp_path, server_settings, server):
    assert fxlab.status(server_settings).state == "running"
    assert fxlab.up(server_settings).pid == server.pid
    assert fxlab.status(home=tmp_path).state == "stopped"
    assert fxlab.down(Settings.load(home=tmp_path)) is False


def test_connecting_loads_only_what_it_needs():
    code = (
        "import sys, fxlab; lab = fxlab.connect(); lab.close(); "
        "print([m for m in ('numba', 'plotly', 'ipywidgets', 'papermill') if m in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


# ---- the catalogue -------------------------------------------------------------------------


def test_a_listing_has_lists_and_utc(lab, group):
    listed = lab.sessions(text=group)
    assert listed.columns[:8] == [
        "session_id", "status", "exchange", "source", "symbols", "data_types",
        "records_collected", "prices_count",
    ]  # fmt: skip
    newest = listed.row(1, named=True)
    assert newest["symbols"] == ["BTC_USDT", "ETH_USDT"]
    assert newest["data_types"] == ["prices"]
    assert newest["records_collected"] == newest["prices_count"] == 100
    assert listed.schema["created_at"] == pl.Datetime("us", "UTC")


@pytest.mark.parametrize(
    ("filters", "numbers"),
    [
        ({"symbol": "BTC_USDT"}, [1, 0]),
        ({"symbol": "ETH_USDT"}, [1]),
        ({"symbol": "BTC_USD"}, []),
        ({"symbol": "BTCXUSDT"}, [2]),
        ({"exchange": "mexc"}, [1, 0]),
        ({"exchange": "MEXC'"}, []),
        ({"status": "completed"}, [2, 1, 0]),
        ({"status": "failed"}, []),
        ({"text": "QUIET night"}, [0]),
        ({"text": "x_y"}, [2]),
        ({"text": "100% 'quoted'"}, [1]),
        ({"text": "%"}, [1]),
        ({"text": "no such text"}, []),
        ({"text": "quoted eth"}, [1]),
        ({"text": "btc_usdt completed"}, [1, 0]),
        ({"symbol": "BTC_USDT", "exchange": "mexc", "text": "night"}, [0]),
        ({"source": "live"}, []),
        ({"start": "2034-01-01"}, []),
        ({"sort": "started"}, [2, 1, 0]),
        ({"sort": "started", "descending": False}, [0, 1, 2]),
        ({"sort": "records_collected"}, [1, 0, 2]),
        ({"sort": "session_id", "descending": False, "limit": 2}, [0, 1]),
    ],
)
def test_filters_match_exactly_what_they_say(lab, group, filters, numbers):
    assert found(lab, group, **{"limit": 10_000, **filters}) == numbers


def test_pages_of_the_listing_follow_each_other(lab, group):
    pages = [found(lab, group, limit=2, offset=offset) for offset in (0, 2, 4)]
    assert pages == [[2, 1], [0], []]
    assert lab.sessions(text=group, limit=0).schema == lab.sessions(text=group).schema


@pytest.fixture(scope="module")
def catalogue(db, unique):
    """Store the rows of sixty sessions with equal and missing values; return them."""
    word, born = unique("pages"), datetime(2001, 1, 1, tzinfo=UTC)  # never the newest
    rows = [
        {
            "session_id": f"{word}-{number:02}",
            "status": ["completed", "aborted"][number % 2],
            "exchange": ["", "kraken", None][number % 3],
            "source": "synthetic",
            "symbols": json.dumps([["PAGE_B"], ["PAGE_A", "PAGE_B"]][number % 2]),
            "tags": json.dumps([["é", 'a "b"'], ["night"]][number % 2]),
            "started": None if number % 7 == 0 else born + timedelta(hours=number % 5),
            "ended": None if number % 7 == 0 else born + timedelta(hours=6),
            "duration_seconds": None if number % 7 == 0 else (6 - number % 5) * 3600.0,
            "records_collected": number % 4,
            "created_at": born + timedelta(seconds=number // 3),
            "updated_at": born,
        }
        for number in range(60)
    ]
    db.write(schema.SESSIONS, pl.DataFrame(rows, schema=schema.SESSIONS.frame))
    db.wait_visible(schema.SESSIONS)
    return word, rows


def in_order(rows, sort, *, descending):
    """Return the ids as a listing should show them, by Python's own sorting."""
    empty = "" if schema.SESSIONS.columns[sort] in ("SYMBOL", "VARCHAR") else None
    values = {row["session_id"]: empty if row[sort] is None else row[sort] for row in rows}
    known = sorted(name for name, value in values.items() if value is not None)
    missing = sorted(name for name, value in values.items() if value is None)
    return sorted(known, key=values.__getitem__, reverse=descending) + missing


@pytest.mark.parametrize("descending", [True, False])
@pytest.mark.parametrize("sort", sql.SORTS)
def test_pages_by_key_hold_every_session_once_in_order(lab, catalogue, sort, descending):
    word, rows = catalogue
    seen, after = [], None
    while True:
        page = lab.session_page(text=word, sort=sort, descending=descending, limit=7, after=after)
        assert page.total_count == len(rows)
        seen += page.sessions["session_id"].to_list()
        if (after := page.next_after) is None:
            break
    assert seen == in_order(rows, sort, descending=descending)


def test_a_session_that_is_added_moves_no_page(lab, db, catalogue):
    word, rows = catalogue
    first = lab.session_page(text=word, limit=10, status="completed")
    newer = {**rows[0], "session_id": f"{word}-new", "created_at": rows[-1]["created_at"]}
    db.write(schema.SESSIONS, pl.DataFrame([newer], schema=schema.SESSIONS.frame))
    db.wait_visible(schema.SESSIONS)
    second = lab.session_page(text=word, limit=10, status="completed", after=first.next_after)
    assert second.total_count == first.total_count + 1
    expected = in_order(rows[::2], "created_at", descending=True)[10:20]
    assert second.sessions["session_id"].to_list() == expected
    db.write(
        schema.SESSIONS,
        pl.DataFrame([{**newer, "status": "deleted"}], schema=schema.SESSIONS.frame),
    )
    db.wait_visible(schema.SESSIONS)


@pytest.mark.parametrize(
    ("query", "count"),
    [
        ({"tag": "night"}, 30),
        ({"tag": "é"}, 30),
        ({"tag": 'a "b"'}, 30),
        ({"tag": "a"}, 0),
        ({"source": "synthetic"}, 60),
        ({"source": "live"}, 0),
        ({"start": "2001-01-01T06:00"}, 51),
        ({"start": "2001-01-01T06:00:01"}, 0),
        ({"end": "2001-01-01"}, 0),
        ({"end": "2001-01-01T00:00:01"}, 10),
        ({"text": "É aborted"}, 0),
        ({"text": "é page_a"}, 0),
        ({"text": "é 2001-01-01"}, 25),
    ],
)
def test_a_page_counts_all_that_match(lab, catalogue, query, count):
    word, _ = catalogue
    text = f"{word} {query.get('text', '')}"
    page = lab.session_page(**{**query, "text": text, "limit": 5})
    assert page.total_count == count
    assert page.sessions.height == min(5, count)
    assert lab.session_page(**{**query, "text": text, "limit": 0}).total_count == count


def test_a_page_after_no_session_is_refused(lab, catalogue):
    word, rows = catalogue
    with pytest.raises(errors.SessionNotFound, match=f"{word}-99"):
        lab.sessions(text=word, after=f"{word}-99")
    last = in_order(rows, "session_id", descending=False)[-1]
    query = {"text": word, "sort": "session_id", "descending": False}
    assert lab.sessions(**query, after=last).is_empty()


def test_one_letter_is_a_text_too(lab, group):
    assert found(lab, group, text="%", limit=10_000) == [1]
    assert found(lab, group, text=group[0], limit=10_000) == [2, 1, 0]


def test_a_session_is_found_with_and_without_prefix(lab, group):
    assert lab.session(f"{group}-0") == lab.session(f"session_{group}-0")


def test_an_id_that_begins_with_session_is_found_first(lab, unique):
    name = unique("session_odd")
    lab.import_frame(recorded_walk(5, symbol="A"), "prices", session_id=name)
    assert lab.session(name).id == name
    assert lab.session(f"session_{name}").id == name


def test_an_unknown_session_names_near_ones(lab, group):
    with pytest.raises(errors.SessionNotFound, match=rf"did you mean .*{group}-") as caught:
        lab.session(f"{group}-9")
    assert "fxlab sessions list" in str(caught.value)


def test_html_of_a_lab_and_its_sessions_is_escaped(lab, unique):
    name = unique("html")
    hostile = "<img src=x onerror=alert(1)>"
    walk = recorded_walk(5, symbol="A")
    lab.import_frame(walk, "prices", session_id=name, notes=hostile, exchange=hostile)
    for page in (lab._repr_html_(), lab.session(name)._repr_html_()):
        assert "<img" not in page
    assert "&lt;img" in lab.session(name)._repr_html_()


# ---- hostile values, everywhere --------------------------------------------------------------


@pytest.fixture
def unchanged(db):
    """Hold the tables, their columns and their rows against what was there before."""

    def state():
        return (
            sorted(db.execute(sql_tables.list_tables())),
            [db.execute(f"select count() from {table.name}") for table in TABLES],  # noqa: S608
        )

    before = state()
    yield
    db.wait_visible(*TABLES)
    assert state() == before


def refusals(lab, walk, path, hostile):
    """Yield each call that takes an id, a symbol or a text, with a hostile one."""
    yield lambda: lab.session(hostile)
    yield lambda: lab.run_fills(hostile)
    yield lambda: lab.import_frame(walk, "prices", session_id=hostile)
    yield lambda: lab.import_files(path, session_id=hostile)
    yield lambda: lab.sessions(symbol=hostile)
    yield lambda: lab.sessions(status=hostile)
    yield lambda: lab.sessions(limit=hostile)
    yield lambda: lab.runs(limit=hostile)
    yield lambda: lab.import_frame(walk, hostile, session_id="x")
    yield lambda: lab.import_frame(walk, "prices", session_id="x", source=hostile)
    yield lambda: lab.import_frame(
        walk.with_columns(symbol=pl.lit(hostile)), "prices", session_id="x"
    )


@pytest.mark.parametrize("hostile", HOSTILE_IDS, ids=range(len(HOSTILE_IDS)))
def test_a_hostile_id_is_refused_by_every_call(lab, unchanged, tmp_path, hostile):
    write_session(tmp_path, "hostile", rows=4)
    for call in refusals(lab, recorded_walk(3, symbol="A"), tmp_path, hostile):
        with pytest.raises(errors.FxlabError):
            call()


@pytest.mark.parametrize("hostile", HOSTILE_SYMBOLS, ids=range(len(HOSTILE_SYMBOLS)))
def test_a_hostile_symbol_is_refused_by_every_call(lab, unchanged, tmp_path, group, hostile):
    session = lab.session(f"{group}-1")
    file = tmp_path / "x.csv"
    file.write_text("timestamp,price,qty\n1723161255.3,1,1\n")
    for call in (
        lambda: lab.import_files(file, symbol=hostile),
        lambda: lab.sessions(symbol=hostile),
        lambda: session.prices(hostile),
        lambda: session.orderbook(hostile),
        lambda: session.ohlcv("1m", hostile),
        lambda: session.scan_ticks(hostile),
    ):
        with pytest.raises(errors.FxlabError):
            call()


@pytest.mark.parametrize("hostile", HOSTILE_IDS, ids=range(len(HOSTILE_IDS)))
def test_hostile_text_finds_only_itself(lab, unchanged, group, hostile):
    """Free text may be anything: it matches rows that hold it, or it is refused."""
    for name in ("text", "exchange"):
        try:
            listed = lab.sessions(**{name: hostile}, limit=10_000)
        except errors.InvalidInput:
            assert "\0" in hostile
            continue
        for row in listed.iter_rows(named=True):
            if name == "exchange":
                assert row["exchange"] == hostile
            else:
                held = " ".join(map(str, row.values())).lower()
                assert all(word in held for word in hostile.lower().split() if word not in '\\"')


def test_ids_with_all_allowed_characters_work(lab, unique):
    name = f"{unique('A.b-C_9')}"[:64]
    symbol = "A1_./:-Z"
    lab.import_frame(recorded_walk(5, symbol=symbol), "prices", session_id=name)
    assert lab.session(name).prices(symbol).height == 5
    assert re.fullmatch(r"[A-Za-z0-9_.-]+", name)


@pytest.mark.parametrize("name", ["...", "-", "--", "_"])
def test_ids_made_of_dots_and_dashes_stay_ids(lab, name):
    """They name no folder and no option."""
    lab.import_frame(recorded_walk(5, symbol="A"), "prices", session_id=name)
    assert lab.session(name).prices().height == 5
