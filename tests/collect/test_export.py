"""Export: what a session holds, written to files and imported again, is the same session."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from import_rows import rows_of_part

from fxlab import errors
from fxlab.collect._files.discovery import read_file
from fxlab.schema import ORDERBOOK, PRICES
from fxlab.sessions import _reader

NOON = datetime(2024, 8, 8, 12, tzinfo=UTC)
NAMES = _reader.export_columns(PRICES)
SCHEMA = pl.Schema({name: PRICES.frame[name] for name in NAMES})


def everything(session, symbol):
    return session.prices(symbol, columns=NAMES).drop("origin"), session.orderbook(symbol)


@pytest.mark.parametrize("form", _reader.FORMATS)
def test_what_is_exported_and_imported_is_the_same_session(
    lab, shared_data, unique, tmp_path, form
):
    first, second = unique(), unique()
    folder = shared_data / "binance_spot_ethusdt_20240808"
    lab.import_files([folder / "trades.parquet", folder / "book10.parquet"], session_id=first)
    session = lab.session(first)
    told = session.export(tmp_path / "out", format=form)
    assert told["rows"].to_list() == [3_432, 6_106]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == [
        f"ETHUSDT_orderbook.{form}", f"ETHUSDT_prices.{form}",
    ]  # fmt: skip
    lab.import_files(tmp_path / "out", session_id=second)
    again = lab.session(second)
    assert again.price_decimals == session.price_decimals
    for wanted, found in zip(
        everything(session, "ETHUSDT"), everything(again, "ETHUSDT"), strict=True
    ):
        assert found.equals(wanted)
        assert found.height


def test_a_synthetic_session_of_two_symbols_comes_back_from_arrow(lab, unique, tmp_path):
    rows = [
        {"timestamp": NOON + timedelta(microseconds=n // 2), "symbol": name,
         "price": 1e-9 * (n + 1), "volume": 1e9 / (n + 1)}
        for n in range(500)
        for name in ("A/B:C", "A-B-C")
    ]  # fmt: skip
    name = unique()
    lab.import_frame(pl.DataFrame(rows), "prices", session_id=name)
    session = lab.session(name)
    told = session.export(tmp_path, format="arrow")
    assert told["file"].n_unique() == 2
    for file, symbol in told.select("file", "symbol").iter_rows():
        found = pl.read_ipc(file)
        assert found.equals(session.prices(symbol, columns=NAMES))
    one = session.export(tmp_path / "one.csv", symbols=["A/B:C"])
    assert one["rows"].to_list() == [500]


def test_files_that_are_there_are_not_overwritten_unless_said(lab, unique, tmp_path):
    name = unique()
    frame = pl.DataFrame({"timestamp": [NOON], "symbol": ["A"], "price": [1.0], "volume": [1.0]})
    lab.import_frame(frame, "prices", session_id=name)
    session = lab.session(name)
    session.export(tmp_path)
    with pytest.raises(errors.InvalidInput, match="would be overwritten"):
        session.export(tmp_path)
    session.export(tmp_path, overwrite=True)
    with pytest.raises(errors.InvalidParameter, match="did you mean 'parquet'"):
        session.export(tmp_path, format="parket")
    with pytest.raises(errors.SymbolNotFound):
        session.export(tmp_path, symbols=["B"])


def test_one_file_is_for_one_symbol_and_type(tmp_path):
    two = [("A", "orderbook"), ("A", "prices")]
    with pytest.raises(errors.InvalidInput, match="is one file, and these are 2"):
        _reader.targets(tmp_path / "a.csv", None, two, overwrite=False)
    with pytest.raises(errors.InvalidInput, match="named as csv"):
        _reader.targets(tmp_path / "a.csv", "arrow", two[:1], overwrite=False)
    with pytest.raises(errors.InvalidInput, match="the session is empty"):
        _reader.targets(tmp_path, None, [], overwrite=False)


@pytest.mark.parametrize("form", _reader.FORMATS)
def test_an_export_that_fails_leaves_nothing_and_spares_the_old_file(tmp_path, form):
    file = tmp_path / f"a.{form}"
    file.write_text("old")

    def chunks():
        yield SCHEMA.to_frame()
        raise OSError("the disk is full")

    with pytest.raises(OSError, match="disk is full"):
        _reader.write_file(file, form, chunks(), SCHEMA)
    assert [path.read_text() for path in tmp_path.iterdir()] == ["old"]


POSITIVE = st.floats(1e-12, 1e12)
ROW = st.tuples(
    st.integers(0, 10**15), POSITIVE, st.floats(0, 1e12), st.sampled_from(["buy", "sell", None]),
    st.one_of(st.none(), st.from_regex(r"[a-z0-9-]{1,12}", fullmatch=True)),
    st.one_of(st.none(), st.integers(0, 10**15)),
)  # fmt: skip


@pytest.mark.parametrize("form", _reader.FORMATS)
@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], max_examples=60)
@given(rows=st.lists(ROW, min_size=1, max_size=20))
def test_any_value_comes_back_bit_by_bit(tmp_path, form, rows):
    frame = pl.DataFrame(
        [
            {
                "timestamp": NOON + timedelta(microseconds=at), "symbol": "A", "seq": number,
                "side": side, "origin": "live", "trade_id": name, "price": price,
                "volume": volume, "quote_volume": price * volume,
                "received_at": None if came is None else NOON + timedelta(microseconds=came),
            }
            for number, (at, price, volume, side, name, came) in enumerate(rows)
        ],
        schema=dict(SCHEMA),
    )  # fmt: skip
    # Some ids are doubled by chance: a row's identity here is its seq.
    frame = frame.with_columns(pl.when(~pl.col("trade_id").is_duplicated()).then("trade_id"))
    file = tmp_path / f"a.{form}"
    _reader.write_file(file, form, frame.iter_slices(7), SCHEMA)
    (part,) = read_file(file)
    names = [name for name in NAMES if name not in ("seq", "origin")]
    found = rows_of_part(part)
    assert found.select(names).equals(frame.select(names))
    assert found["venue_seq"].equals(frame["seq"], check_names=False)


def test_all_columns_of_books_have_a_place():
    assert set(_reader.export_columns(ORDERBOOK)) == set(ORDERBOOK.columns) - {"session_id"}
