"""Connecting, the catalogue, and what hostile values cannot do anywhere."""

from __future__ import annotations

import re
import subprocess
import sys

import polars as pl
import pytest
from markets import recorded_walk
from tick_files import HOSTILE_IDS, HOSTILE_SYMBOLS, write_session

import fxlab
from fxlab import errors
from fxlab._questdb import sql
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
        ({"symbol": "BTC_USDT", "exchange": "mexc", "text": "night"}, [0]),
    ],
)
def test_filters_match_exactly_what_they_say(lab, group, filters, numbers):
    assert found(lab, group, **{"limit": 10_000, **filters}) == numbers


def test_pages_of_the_listing_follow_each_other(lab, group):
    pages = [found(lab, group, limit=2, offset=offset) for offset in (0, 2, 4)]
    assert pages == [[2, 1], [0], []]
    assert lab.sessions(text=group, limit=0).schema == lab.sessions(text=group).schema


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
            sorted(db.execute(sql.list_tables())),
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
    yield lambda: lab.import_csv(path, session_id=hostile)
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
        lambda: lab.import_csv(file, symbol=hostile),
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
                held = f"{row['session_id']} {row['notes']} {row['tags']}".lower()
                assert hostile.lower() in held or hostile in ("\\", '"')


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
