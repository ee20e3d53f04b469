"""The older system's folders: all rows, exactly, and nothing from outside."""

from __future__ import annotations

from decimal import Decimal
from pathlib import Path

import polars as pl
import pytest
from import_rows import rows_of_part
from tick_files import (
    BOOK_HEADER,
    PRICES_HEADER,
    book_lines,
    price_lines,
    write_lines,
    write_session,
)

from fxlab import errors
from fxlab.collect._files import discovery

SEED_COUNTS = {
    ("exec_20240808_235413_657c2dd6", "BTC_USDT"): (9_738, 3_208, 3_437, 211.86101),
    ("exec_20240808_235413_657c2dd6", "ETH_USDT"): (6_098, 1_922, 3_420, 2257.1679),
    ("exec_20240809_000000_1f0a9b3c", "BTC_USDT"): (10_166, 3_900, 3_056, 226.05451),
}


@pytest.fixture(scope="module")
def seed_tree(shared_data):
    return shared_data / "seed_csv_tree"


def exact(text):
    """Return a decimal text of seconds in microseconds, without any float."""
    micros = Decimal(text) * 1_000_000
    assert micros == int(micros)
    return int(micros)


def test_every_field_of_the_seed_tree_is_read_exactly(seed_tree):
    """Times in whole microseconds by decimal arithmetic, numbers as Python reads them."""
    sessions, others = discovery.find_tree_sessions(seed_tree)
    assert others == []
    rows = 0
    for session in sessions:
        for part in session.read().parts:
            lines = (seed_tree / part.path).read_text().splitlines()
            header = lines[0].split(",")
            fields = [dict(zip(header, line.split(","), strict=True)) for line in lines[1:]]
            assert rows_of_part(part)["timestamp"].to_physical().to_list() == [
                exact(row["timestamp"]) for row in fields
            ]
            for name in header:
                if name in rows_of_part(part).columns and name != "timestamp":
                    as_float = [float(row[name]) for row in fields]
                    expected = [n or None for n in as_float] if "_" in name[:4] else as_float
                    assert rows_of_part(part)[name].to_list() == expected, name
            rows += len(fields)
    assert rows == 26_002 + 9_913


def test_the_seed_tree_ends_with_all_rows_and_twice_changes_nothing(lab, seed_tree):
    for expected_state in (("imported", "updated", "unchanged"), ("unchanged",)):
        report = lab.import_files(seed_tree, exchange="binance")
        assert report.rows == 26_002 + 9_913
        assert set(report.table()["state"]) <= set(expected_state)
        assert report.sessions == sorted({name for name, _ in SEED_COUNTS})
        for (name, symbol), (prices, times, books, volume) in SEED_COUNTS.items():
            session = lab.session(f"session_{name}")
            found = session.prices(symbol)
            assert found.height == prices
            assert found["timestamp"].n_unique() == times
            assert found["volume"].sum() == pytest.approx(volume, abs=1e-9)
            assert found["seq"].to_list() == list(range(prices))
            assert session.orderbook(symbol).height == books
            assert session.status == "completed"


def test_doubled_rows_of_the_seed_tree_are_kept(lab, seed_tree):
    lab.import_files(seed_tree, exchange="binance")
    frames = [
        lab.session(name).prices(symbol, columns=["timestamp", "symbol", "price", "volume"])
        for name, symbol in SEED_COUNTS
    ]
    whole = pl.concat(frames)
    assert (whole.height, whole.n_unique()) == (26_002, 21_749)


def test_a_tree_is_found_from_above_and_from_the_folder_itself(tmp_path):
    folder = write_session(tmp_path, "one", symbols=("BTC_USDT", "ETH_USDT"))
    write_session(tmp_path, "two")
    above, _ = discovery.find_tree_sessions(tmp_path)
    (itself,), _ = discovery.find_tree_sessions(folder)
    assert [session.session_id for session in above] == ["one", "two"]
    assert itself == above[0]
    assert [part.path for part in itself.read().parts] == [
        f"session_one/{symbol}/{name}.csv"
        for symbol in ("BTC_USDT", "ETH_USDT")
        for name in ("orderbook", "prices")
    ]


def test_a_tree_is_found_however_deep_and_loose_files_are_none_of_it(tmp_path):
    folder = write_session(tmp_path / "data" / "2024" / "jan", "one")
    write_session(tmp_path / "data" / "2025", "two")
    write_lines(tmp_path / "data" / "2024" / "prices.csv", PRICES_HEADER, price_lines(3))
    for name in ("empty", "browser/session_store", "browser/session_files/a"):
        (tmp_path / "data" / name).mkdir(parents=True)
    sessions, others = discovery.find_sources([tmp_path / "data"])
    assert [session.session_id for session in sessions] == ["one", "two"]
    assert sorted(Path(name).name for name in others) == ["browser", "empty", "prices.csv"]
    (itself,), _ = discovery.find_tree_sessions(folder)
    assert itself.digests() == sessions[0].digests()  # the same to the catalogue
    outside = write_session(tmp_path / "outside", "three")
    (tmp_path / "data" / "2025" / "session_three").symlink_to(outside)
    with pytest.raises(errors.ImportRefused, match="session_three is a link"):
        discovery.find_tree_sessions(tmp_path / "data")


def test_a_missing_level_is_null_and_the_books_are_complete(tmp_path):
    write_session(tmp_path, "one", rows=200)
    (session,), _ = discovery.find_tree_sessions(tmp_path)
    (books,) = [
        rows_of_part(part) for part in session.read().parts if part.data_type == "orderbook"
    ]
    missing = books.filter(pl.col("bid_price_3").is_null())
    assert 0 < missing.height < books.height
    assert missing["bid_qty_3"].null_count() == missing.height
    assert books["bid_price_4"].null_count() == books.height


def test_what_is_no_part_of_the_layout_is_reported(tmp_path):
    folder = write_session(tmp_path, "one")
    (tmp_path / "README.txt").write_text("hello")
    (tmp_path / "backup").mkdir()
    (folder / "meta.json").write_text("{}")
    (folder / "BTC_USDT" / "indicators.csv").write_text("x")
    (session,), others = discovery.find_tree_sessions(tmp_path)
    assert sorted(path.name for path in others) == ["README.txt", "backup"]
    assert sorted(path.name for path in session.skipped) == ["indicators.csv", "meta.json"]
    assert len(session.files) == 2


@pytest.mark.parametrize("name", ["a b", "x'y", "a" * 65, "é", "x;y", ""])
def test_a_folder_that_cannot_be_an_id_is_refused(tmp_path, name):
    write_session(tmp_path, name)
    with pytest.raises(
        errors.ImportRefused, match=r"folder .session_.*is not a session id.*rename"
    ):
        discovery.find_tree_sessions(tmp_path)


@pytest.mark.parametrize("symbol", ["btc_usdt", "BTC USDT", "x'y", "A" * 33])
def test_a_folder_that_cannot_be_a_symbol_is_refused(tmp_path, symbol):
    write_session(tmp_path, "one", symbols=(symbol,))
    with pytest.raises(errors.ImportRefused, match=r"is not a symbol.*rename the folder"):
        discovery.find_tree_sessions(tmp_path)


@pytest.mark.parametrize("level", ["session", "symbol", "file"])
def test_a_link_is_refused_and_what_it_points_to_not_read(tmp_path, level):
    outside = write_session(tmp_path / "outside", "one")
    inside = write_session(tmp_path / "inside", "two")
    link, target = {
        "session": (tmp_path / "inside" / "session_three", outside),
        "symbol": (inside / "ETH_USDT", outside / "BTC_USDT"),
        "file": (inside / "ETH_USDT" / "prices.csv", outside / "BTC_USDT" / "prices.csv"),
    }[level]
    link.parent.mkdir(exist_ok=True)
    link.symlink_to(target)
    with pytest.raises(errors.ImportRefused, match="is a link"):
        discovery.find_tree_sessions(tmp_path / "inside")


def test_a_link_inside_the_folder_is_refused_too(tmp_path):
    """What it points to would be imported twice."""
    folder = write_session(tmp_path, "one")
    (tmp_path / "session_two").symlink_to(folder)
    with pytest.raises(errors.ImportRefused, match="session_two is a link"):
        discovery.find_tree_sessions(tmp_path)


def test_a_link_given_by_the_user_is_followed(tmp_path):
    write_session(tmp_path / "data", "one")
    (tmp_path / "shortcut").symlink_to(tmp_path / "data")
    (session,), _ = discovery.find_tree_sessions(tmp_path / "shortcut")
    assert session.read().rows == 60


def test_a_folder_without_sessions_says_what_to_give(tmp_path):
    with pytest.raises(errors.ImportRefused, match="no folder named session_<id>"):
        discovery.find_tree_sessions(tmp_path)


BAD_FILES = {
    "empty": ("", r"prices\.csv: the file is empty"),
    "no header": ("".join(f"{line}\n" for line in price_lines(3)), "must be a header"),
    "other header": (
        f"{BOOK_HEADER}\n{book_lines(1)[0]}\n",
        r"line 1: the header is .*another file",
    ),
    "crossed header": ("timestamp,volume,price,quote_volume\n1,2,3,4\n", "line 1: the header is"),
    "cut": (f"{PRICES_HEADER}\n1723161255.3,61837.6", "line 2: the file ends inside"),
    "short line": (f"{PRICES_HEADER}\n1723161255.3,61837.6\n", "line 2: .*has 2 fields"),
    "long line": (f"{PRICES_HEADER}\n1723161255.3,1,2,3,4\n", "line 2: .*has 5 fields"),
    "text": (f"{PRICES_HEADER}\n1723161255.3,abc,2,3\n", "line 2: price='abc'"),
    "nan": (f"{PRICES_HEADER}\n1723161255.3,nan,2,3\n", "line 2: price='nan'"),
    "infinite": (f"{PRICES_HEADER}\n1723161255.3,1,inf,3\n", "line 2: volume='inf'"),
    "zero": (f"{PRICES_HEADER}\n1723161255.3,0,2,3\n", "line 2: price='0'"),
    "negative": (f"{PRICES_HEADER}\n1723161255.3,1,-2,3\n", "line 2: volume='-2'"),
    "no time": (f"{PRICES_HEADER}\n,1,2,3\n", "line 2: timestamp=None"),
    "milliseconds": (f"{PRICES_HEADER}\n1723161255342,1,2,3\n", r"line 2: .*divide them by 1,000"),
}


@pytest.mark.parametrize(("text", "words"), BAD_FILES.values(), ids=BAD_FILES)
def test_a_bad_file_is_refused_with_its_line_and_nothing_is_written(
    lab, tmp_path, unique, text, words
):
    good, bad = sorted([unique("tree"), unique("tree")])
    write_session(tmp_path, good)
    folder = write_session(tmp_path, bad)
    (folder / "BTC_USDT" / "prices.csv").write_text(text)
    with pytest.raises(errors.ImportRefused, match=words) as caught:
        lab.import_files(tmp_path, strict=True)
    assert f"session_{bad}/BTC_USDT/prices.csv" in str(caught.value)
    for name in (good, bad):
        with pytest.raises(errors.SessionNotFound):
            lab.session(name)


def test_a_header_alone_is_a_file_without_rows(lab, tmp_path, unique):
    name = unique("tree")
    folder = write_session(tmp_path, name)
    write_lines(folder / "BTC_USDT" / "orderbook.csv", BOOK_HEADER, [])
    report = lab.import_files(tmp_path)
    assert report.table().filter(kind="orderbook")["rows"].to_list() == [0]
    assert lab.session(name).data_types == ("prices",)
    assert lab.import_files(tmp_path).table()["state"].to_list() == ["unchanged"] * 2
