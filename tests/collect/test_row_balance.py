"""Rows of real recordings: those stored and those in quarantine are the lines of the file."""

from __future__ import annotations

import random

import polars as pl
import pytest

TREE = "seed_csv_tree/session_exec_20240808_235413_657c2dd6"
RECORDINGS = {  # file: its symbol where it has none, lines that are no rows
    "binance_spot_btcusdt_20240808/trades.parquet": (None, 0),
    "binance_spot_btcusdt_20240808/book10.parquet": (None, 0),
    "binance_spot_ethusdt_20240808/trades.parquet": (None, 0),
    "binance_spot_ethusdt_20240808/book10.parquet": (None, 0),
    "coinbase_btcusd_20230905/trades.parquet": (None, 0),
    "fx_eurusd_20190101/quotes.parquet": (None, 0),
    "fx_eurusd_dukascopy_20190204/quotes.parquet": (None, 0),
    "fx_raw_formats/histdata_ascii_eurusd_20200101.csv": ("EUR/USD", 0),
    "fx_raw_formats/truefx_usdjpy_20130101.csv": ("USD/JPY", 1),
    f"{TREE}/BTC_USDT/prices.csv": ("BTC_USDT", 1),
    f"{TREE}/ETH_USDT/orderbook.csv": ("ETH_USDT", 1),
}


def lines_of(file):
    """Return how many rows a file has, counted without the importer."""
    if file.suffix == ".parquet":
        return pl.scan_parquet(file).select(pl.len()).collect().item()
    return file.read_bytes().count(b"\n")


@pytest.mark.parametrize("name", RECORDINGS)
def test_every_row_of_a_recording_is_stored(lab, shared_data, unique, name):
    symbol, others = RECORDINGS[name]
    session_id = unique("balance")
    report = lab.import_files(shared_data / name, session_id=session_id, symbol=symbol)
    counts = lab.session(session_id).counts()
    stored = counts.select(pl.col("rows").sum()).item()
    assert report.rows == stored
    assert stored + report.quarantined == lines_of(shared_data / name) - others


@pytest.mark.parametrize("name", [one for one in RECORDINGS if one.endswith(".csv")])
def test_what_is_damaged_is_in_quarantine_and_nothing_else_is(
    lab, shared_data, unique, tmp_path, name
):
    symbol, others = RECORDINGS[name]
    lines = (shared_data / name).read_bytes().splitlines()[: 2_000 + others]
    damaged = random.Random(5).sample(range(others + 1, len(lines)), len(lines) // 120)
    for number in damaged:
        lines[number] = lines[number].replace(b".", b"!", 2)
    file = tmp_path / name.rsplit("/", 1)[1]
    file.write_bytes(b"\n".join(lines) + b"\n")
    session_id = unique("balance")
    report = lab.import_files(file, session_id=session_id, symbol=symbol)
    assert report.quarantined == len(damaged)
    assert report.rows + report.quarantined == len(lines) - others
    assert lab.session(session_id).counts()["rows"].sum() == report.rows
