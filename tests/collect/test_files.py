"""Single files: real recordings in Parquet and CSV, known by their columns."""

from __future__ import annotations

from pathlib import Path

import polars as pl
import pytest
from import_rows import rows_of_part

from fxlab import errors
from fxlab.collect._files import discovery
from fxlab.collect._files.discovery import read_file, session_id_of

REAL = {
    "binance_spot_btcusdt_20240808/trades.parquet": ("prices", "BTCUSDT", 19_904),
    "binance_spot_btcusdt_20240808/book10.parquet": ("orderbook", "BTCUSDT", 6_493),
    "binance_spot_ethusdt_20240808/trades.parquet": ("prices", "ETHUSDT", 6_106),
    "binance_spot_ethusdt_20240808/book10.parquet": ("orderbook", "ETHUSDT", 3_432),
    "coinbase_btcusd_20230905/trades.parquet": ("prices", "BTC-USD", 5_882),
    "fx_eurusd_dukascopy_20190204/quotes.parquet": ("orderbook", "EURUSD", 3_733),
    "fx_eurusd_20190101/quotes.parquet": ("orderbook", "EURUSD", 10_000),
}


@pytest.mark.parametrize(("path", "expected"), REAL.items(), ids=REAL)
def test_real_files_are_read_whole(shared_data, path, expected):
    (part,) = read_file(shared_data / path)
    assert (part.data_type, part.symbol, part.rows) == expected
    assert part.path == path
    assert part.backward == 0


def test_coinbase_trades_keep_microseconds_side_and_size(shared_data):
    (part,) = read_file(shared_data / "coinbase_btcusd_20230905/trades.parquet")
    raw = pl.read_parquet(shared_data / "coinbase_btcusd_20230905/trades.parquet")
    assert rows_of_part(part)["volume"].sum() == pytest.approx(211.26789305, abs=1e-9)
    assert rows_of_part(part)["side"].to_list() == raw["side"].to_list()
    assert part.known.first.microsecond == 281_719


def test_truefx_text_has_iso_times_and_no_symbol(shared_data):
    file = shared_data / "fx_raw_formats/truefx_usdjpy_20130101.csv"
    with pytest.raises(errors.ImportRefused, match="say which it is: symbol="):
        read_file(file)
    (part,) = read_file(file, "USDJPY")
    assert part.rows == 1_000
    assert part.known.first.isoformat() == "2013-01-01T22:00:00.295000+00:00"
    assert rows_of_part(part).row(0, named=True)["ask_price_1"] == 86.728


def test_histdata_has_no_header_and_is_five_hours_behind_all_year(shared_data):
    file = shared_data / "fx_raw_formats/histdata_ascii_eurusd_20200101.csv"
    (part,) = read_file(file, "EURUSD")
    assert part.rows == 9_500
    assert part.known.first.isoformat() == "2020-01-01T22:00:00.065000+00:00"
    assert any("EST without daylight saving" in note for note in part.notes)


def test_a_kind_that_has_no_time_is_refused(shared_data):
    with pytest.raises(errors.ImportRefused, match="of no kind that fxlab knows"):
        read_file(shared_data / "binance_spot_btcusdt_20240808/book_ticker.parquet")


def test_csv_and_parquet_give_the_same_rows(shared_data, tmp_path):
    source = shared_data / "coinbase_btcusd_20230905/trades.parquet"
    (tmp_path / "coinbase").mkdir()
    copy = tmp_path / "coinbase" / "trades.csv"
    pl.read_parquet(source).write_csv(copy)
    (text,), (typed,) = read_file(copy), read_file(source)
    assert rows_of_part(text).equals(rows_of_part(typed))
    assert text.origin.kind == "csv"


def test_what_a_session_gives_can_be_imported_again(lab, shared_data, unique, tmp_path):
    """A session written to Parquet and imported is the same session, books and trades."""
    first, second = unique(), unique()
    folder = shared_data / "binance_spot_ethusdt_20240808"
    lab.import_files([folder / "trades.parquet", folder / "book10.parquet"], session_id=first)
    session = lab.session(first)
    columns = ["timestamp", "symbol", "seq", "side", "trade_id", "price", "volume", "quote_volume"]
    columns += ["received_at", "origin", "session_id"]
    prices, books = session.prices(columns=columns), session.orderbook()
    prices.write_parquet(tmp_path / "prices.parquet")
    books.write_parquet(tmp_path / "books.parquet")
    lab.import_files([tmp_path / "prices.parquet", tmp_path / "books.parquet"], session_id=second)
    again = lab.session(second)
    assert again.prices(columns=columns[:-1]).equals(prices.drop("session_id"))
    assert again.orderbook().equals(books)


@pytest.mark.parametrize("damage", [b"", b"PAR1", b"timestamp,price\n1,2\n", None])
def test_a_damaged_parquet_file_is_refused(shared_data, tmp_path, damage):
    file = tmp_path / "trades.parquet"
    whole = (shared_data / "coinbase_btcusd_20230905/trades.parquet").read_bytes()
    file.write_bytes(whole[: len(whole) // 2] if damage is None else damage)
    with pytest.raises(errors.ImportRefused, match="cannot be read as Parquet"):
        read_file(file)


@pytest.mark.parametrize(
    ("path", "name"),
    [
        ("binance/trades.parquet", "binance_trades"),
        ("a b/c;d.csv", "a_b_c_d"),
        ("x/" + "y" * 100 + ".csv", "y" * 64),
    ],
)
def test_a_session_is_named_after_its_file(path, name):
    assert session_id_of(discovery.tick_file(Path("/data") / path)) == name


def test_sources_are_found_or_refused_before_any_is_read(tmp_path):
    one, two = tmp_path / "x" / "a.csv", tmp_path / "x" / "b.csv"
    one.parent.mkdir()
    one.touch()
    two.touch()
    found, _ = discovery.find_sources([one, two])
    assert [source.session_id for source in found] == ["x_a", "x_b"]
    (together,), _ = discovery.find_sources([one, two], "both", "BTC")
    assert (together.session_id, together.files) == ("both", (one, two))
    with pytest.raises(errors.ImportRefused, match=r"would become session 'x_a'"):
        discovery.find_sources([one, tmp_path / "x" / ".." / "x" / "a.csv"])
    with pytest.raises(errors.ImportRefused, match="is not there"):
        discovery.find_sources([tmp_path / "nope.csv"])
    with pytest.raises(errors.ImportRefused, match=r"is neither of \.csv, \.txt"):
        discovery.find_sources([Path(__file__)])
    with pytest.raises(errors.ImportRefused, match="nothing was given"):
        discovery.find_sources([])
    with pytest.raises(errors.InvalidIdentifier, match="not a session id"):
        discovery.find_sources([one], "x' OR '1'='1")
    with pytest.raises(errors.InvalidIdentifier, match="not a symbol"):
        discovery.find_sources([one], None, "btc")
