"""Copies of sessions: the same rows as the server's, never of another revision, within a limit."""

from __future__ import annotations

import logging
import os
import stat
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from markets import recorded_walk

import fxlab
from fxlab import errors
from fxlab._questdb.cache import LEAST_ROWS, FrameCache
from fxlab.config import Settings
from fxlab.schema import PRICES, SESSIONS
from fxlab.sessions import _catalog

ROWS = LEAST_ROWS + 4_321


@pytest.fixture
def cache(tmp_path, lab, monkeypatch):
    """Lend a cache of the test's own."""
    made = FrameCache(tmp_path / "copies", 2**30)
    monkeypatch.setattr(lab._db, "cache", made)
    return made


@pytest.fixture(scope="module")
def name(lab, unique):
    """Store a session with trades and books; its last trade may be followed by others."""
    word = unique("cache")
    trades = recorded_walk(ROWS, symbol="BTC_USDT")
    books = trades.select(
        "timestamp",
        "symbol",
        bid_price_1=pl.col("price") - 1,
        bid_qty_1=pl.lit(1.0),
        ask_price_1=pl.col("price") + 1,
        ask_qty_1=pl.lit(2.0),
    )
    lab.import_frames({"prices": trades, "orderbook": books}, session_id=word)
    return word


@pytest.fixture
def requests(caplog):
    """Return a function that tells how many bulk reads the server was asked for."""
    caplog.set_level(logging.DEBUG, "fxlab._questdb.client")
    return lambda: sum("GET /exp:" in line for line in caplog.messages)


READS = {
    "prices": lambda one: one.prices(),
    "columns": lambda one: one.prices(columns=["price", "symbol", "session_id", "trade_id"]),
    "constants": lambda one: one.prices(columns=["symbol"]),
    "page": lambda one: one.prices(limit=1_000, offset=20_000),
    "beyond": lambda one: one.prices(limit=5, offset=10 * ROWS),
    "range": lambda one: one.prices(
        start=one.started + timedelta(minutes=7), end=one.ended - timedelta(minutes=11)
    ),
    "last": lambda one: one.prices(start=one.ended),
    "books": lambda one: one.orderbook(depth=2),
    "nested": lambda one: one.orderbook(depth=1, nested=True, limit=10),
    "ticks": lambda one: pl.concat(one.scan_ticks(chunk_rows=1_111)),
    "scan": lambda one: pl.concat(one.scan_prices(chunk_rows=7_000)),
    "bars": lambda one: one.ohlcv("1m"),
}


@pytest.mark.parametrize("read", READS.values(), ids=READS)
def test_a_copy_is_what_the_server_has(lab, cache, name, requests, monkeypatch, read):
    session = lab.session(name)
    with monkeypatch.context() as without:
        without.setattr(lab._db, "cache", None)
        expected = read(session)
    session.prices(columns=PRICES.columns)
    session.orderbook()
    before = requests()
    found = read(session)
    assert requests() == before
    assert found.equals(expected)
    assert found.schema == expected.schema


def test_chunks_of_a_copy_have_the_size_asked_for(lab, cache, name):
    session = lab.session(name)
    session.prices()
    sizes = [chunk.height for chunk in session.scan_prices(chunk_rows=10_000)]
    assert sizes == [10_000, 10_000, ROWS - 20_000]


def test_a_column_that_is_not_here_is_read(lab, cache, name, requests):
    session = lab.session(name)
    first = session.prices(columns=["timestamp", "price"])
    before = requests()
    both = session.prices(columns=["timestamp", "price", "volume"])
    assert requests() > before
    assert both.drop("volume").equals(first)


def test_a_part_makes_no_copy(lab, cache, name):
    READS["range"](lab.session(name))
    assert cache.contents().is_empty()


def test_a_scan_that_stops_keeps_nothing(lab, cache, name):
    chunks = lab.session(name).scan_prices(chunk_rows=10_000)
    next(chunks)
    chunks.close()
    assert [path for path in cache.folder.rglob("*") if path.is_file()] == []


def test_few_rows_are_not_copied(lab, cache, unique):
    few = unique("few")
    lab.import_frames({"prices": recorded_walk(100, symbol="BTC_USDT")}, session_id=few)
    lab.session(few).prices()
    assert cache.contents().is_empty()


def later(lab, word, table, rows):
    """Store more rows of a session by hand, between the ones that it has."""
    session = lab.session(word)
    frame = session.prices(columns=table.columns).tail(rows)
    moved = frame.with_columns(seq=pl.col("seq") + 1_000_000, price=pl.lit(1.0))
    lab._db.write(table, moved)
    lab._db.wait_visible(table)
    return session


def test_rows_that_came_later_are_never_missing(lab, cache, unique):
    word = unique("later")
    lab.import_frames({"prices": recorded_walk(ROWS, symbol="BTC_USDT")}, session_id=word)
    lab.session(word).prices()
    session = later(lab, word, PRICES, 10)
    assert session.prices().height == ROWS + 10
    assert session.prices(start=session.ended).height > 1
    assert lab.session(word).prices().height == ROWS + 10


def test_a_session_that_was_written_anew_is_read_anew(lab, db, cache, unique, requests):
    """The same number of rows with other prices: only the revision tells."""
    word = unique("anew")
    lab.import_frames({"prices": recorded_walk(ROWS, symbol="BTC_USDT")}, session_id=word)
    old = lab.session(word).prices(columns=PRICES.columns)
    other = old.with_columns(price=pl.col("price") + 1)
    db.write(PRICES, other)
    _catalog.store(db, _catalog.find(db, word))
    db.wait_visible(PRICES, SESSIONS)
    found = lab.session(word).prices(columns=PRICES.columns)
    assert found.equals(other)
    before = requests()
    assert lab.session(word).prices(columns=PRICES.columns).equals(other)
    assert requests() == before
    assert cache.contents()["revisions"].to_list() == [1]


def test_writes_of_other_sessions_leave_a_copy_right(lab, cache, name, requests, unique):
    session = lab.session(name)
    expected = session.prices()
    lab.import_frames({"prices": recorded_walk(50, symbol="BTC_USDT")}, session_id=unique("other"))
    before = requests()
    assert session.prices().equals(expected)
    assert requests() == before


def test_a_session_that_is_recorded_is_not_copied(lab, cache, name):
    session = replace(lab.session(name), status="collecting")
    session.prices()
    assert cache.contents().is_empty()


def test_what_was_read_longest_ago_goes_first(lab, cache, name, unique, monkeypatch):
    other = unique("limit")
    lab.import_frames({"prices": recorded_walk(ROWS, symbol="BTC_USDT")}, session_id=other)
    lab.session(name).prices()
    size = cache.contents()["bytes"].sum()
    monkeypatch.setattr(lab._db, "cache", replace(cache, limit=int(1.5 * size)))
    for place in (cache.folder / name).rglob("*"):
        os.utime(place, (1, 1))
    lab.session(other).prices()
    assert cache.contents()["session_id"].to_list() == [other]


def test_what_is_larger_than_the_limit_is_not_copied(lab, cache, name, monkeypatch):
    monkeypatch.setattr(lab._db, "cache", replace(cache, limit=100_000))
    assert lab.session(name).prices().height == ROWS
    assert cache.contents().is_empty()


@pytest.mark.parametrize("damage", ["cut", "empty", "gone", "short"])
def test_a_damaged_copy_is_read_anew(lab, cache, name, damage):
    session = lab.session(name)
    expected = session.prices()
    (file,) = cache.folder.rglob("price.arrow")
    if damage == "gone":
        file.unlink()
    elif damage == "short":
        pl.DataFrame({"price": [1.0]}).write_ipc(file)
    else:
        file.write_bytes(file.read_bytes()[: 1_000 if damage == "cut" else 0])
    assert session.prices().equals(expected)
    assert session.prices().equals(expected)


def test_a_folder_that_cannot_be_written_stops_nothing(lab, cache, name, caplog):
    cache.folder.write_text("a file is in the way")
    assert lab.session(name).prices().height == ROWS
    assert "no copy of" in caplog.text
    assert cache.contents().is_empty()


def test_copies_are_the_owners_only(lab, cache, name):
    lab.session(name).prices()
    assert stat.S_IMODE(cache.folder.stat().st_mode) == 0o700


def test_contents_and_clear(lab, cache, name, unique):
    other = unique("clear")
    lab.import_frames({"prices": recorded_walk(ROWS, symbol="BTC_USDT")}, session_id=other)
    for one in (name, other):
        lab.session(one).prices()
    listed = cache.contents()
    assert listed["session_id"].to_list() == [other, name]
    assert datetime.now(UTC) - listed["last_read"][0] < timedelta(hours=1)
    assert cache.clear(other) == listed["bytes"][0] > 0
    assert cache.contents()["session_id"].to_list() == [name]
    assert cache.clear() == listed["bytes"][1]
    assert cache.clear() == 0


def test_what_a_killed_copy_has_left_counts_and_goes(tmp_path):
    cache = FrameCache(tmp_path / "copies", 100)
    half = cache.folder / "one" / "revision" / "tick_prices BTC_USDT" / ".half"
    half.mkdir(parents=True)
    (half / "price").write_bytes(bytes(150))
    assert cache.contents()["bytes"].to_list() == [150]
    replace(cache, limit=150).shrink()
    assert half.exists()
    cache.shrink()
    assert list(cache.folder.iterdir()) == []


def test_the_setting_names_folder_and_limit(tmp_path):
    cache = FrameCache.of(Settings.load(home=tmp_path, cache_size="3k"))
    assert (cache.folder, cache.limit) == (tmp_path / "cache" / "embedded", 3 * 1024)
    theirs = FrameCache.of(
        Settings.load(home=tmp_path, questdb_host="db.example", questdb_http_port=9)
    )
    assert theirs.folder == tmp_path / "cache" / "db.example-9"
    assert FrameCache.of(Settings.load(cache_size=0)) is None
    with pytest.raises(errors.InvalidSettings, match="such as 512m or 4g"):
        Settings.load(cache_size="-1")


def test_no_cache_is_told(server_settings):
    with fxlab.connect(server_settings.replace(cache_size=0)) as lab:
        with pytest.raises(errors.InvalidSettings, match="FXLAB_CACHE_SIZE"):
            _ = lab.cache
        assert lab.sessions(limit=1).width
