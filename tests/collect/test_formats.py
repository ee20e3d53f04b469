"""Vendors' files, each a few made-up rows: recognised, read exactly, and what was assumed said."""

from __future__ import annotations

import io
import random
import re
import zipfile
from collections import Counter
from datetime import UTC, datetime, timedelta

import polars as pl
import pytest
from import_rows import rows_and_bad, rows_of_part

from fxlab import errors
from fxlab._times import to_micros
from fxlab.collect._files import csv, formats
from fxlab.collect._files.discovery import find_sources, read_file
from fxlab.collect._files.fields import SourceLocation
from fxlab.collect._files.quarantine import ReadOptions
from fxlab.schema import check_symbol

MS = "1723161255342"
US = "1735689600000123"
NS = "1723161255342000123"
AT = datetime(2024, 8, 8, 23, 54, 15, 342_000, UTC)
IN_2025 = datetime(2025, 1, 1, 0, 0, 0, 123, UTC)
LEVELS = range(10)

BINANCE = "id,price,qty,quote_qty,time,is_buyer_maker"
AGGREGATES = "agg_trade_id,price,quantity,first_trade_id,last_trade_id,transact_time,is_buyer_maker"
NOTIONAL = (
    "timestamp,symbol,side,size,price,tickDirection,trdMatchID,grossValue,homeNotional,"
    "foreignNotional"
)
RECORD = "ts_recv,ts_event,rtype,publisher_id,instrument_id,action,side,depth,price,size,flags"
TARDIS = "exchange,symbol,timestamp,local_timestamp"
PRETTY = "2024-08-08T23:54:15.342000123Z"
TENS = ",".join(
    f"bid_px_0{n},ask_px_0{n},bid_sz_0{n},ask_sz_0{n},bid_ct_0{n},ask_ct_0{n}" for n in LEVELS
)
DEPTH = ",".join(f"{(100 - n) * 10**9},{(101 + n) * 10**9},{n + 1},{n + 2},1,1" for n in LEVELS)
SNAPSHOT = ",".join(
    f"asks[{n}].price,asks[{n}].amount,bids[{n}].price,bids[{n}].amount" for n in range(25)
)
DEEP = ",".join(f"{101 + n},{n + 1},{100 - n},{n + 2}" for n in range(25))
FIVE, DEEP_FIVE = (",".join(text.split(",")[:20]) for text in (SNAPSHOT, DEEP))
TOP = ",".join(TENS.split(",")[:6])
RAW_NONE = str(2**63 - 1)

# file name, text, then what the first row must be and what must be said
TRADES = {
    "binance spot, no header": (
        "BTCUSDT-trades-2024-08-08.csv",
        f"9001,50000.10000000,0.00100000,50.00010000,{MS},True,True\n",
        {"price": 50000.1, "volume": 0.001, "quote_volume": 50.0001, "trade_id": "9001",
         "side": "sell", "symbol": "BTCUSDT", "timestamp": AT},
        ["Binance Vision trades, by its fields: no header", "symbol BTCUSDT from the file's name",
         "timestamp is in milliseconds"],
    ),
    "binance spot, 2025": (
        "BTCUSDT-trades-2025-01-01.csv", f"9001,5.1,2,10.2,{US},False,True\n",
        {"timestamp": IN_2025, "side": "buy"}, ["timestamp is in microseconds"],
    ),
    "binance futures, no header": (
        "ETHUSDT-trades-2024-08-08.csv", f"7,2.5,2,5.0,{MS},true\n",
        {"trade_id": "7", "side": "sell", "symbol": "ETHUSDT"}, ["no header"],
    ),
    "binance futures": (
        "ETHUSDT-trades-2024-08-08.csv", f"{BINANCE}\n7,2.5,2,5.0,{MS},true\n",
        {"trade_id": "7", "volume": 2.0, "timestamp": AT}, ["Binance Vision trades, by its header"],
    ),
    "binance coin-m": (
        "BTCUSD_PERP-trades-2024-08-08.csv",
        f"id,price,qty,base_qty,time,is_buyer_maker\n7,50000.0,10,0.02,{MS},true\n",
        {"volume": 0.02, "symbol": "BTCUSD_PERP"}, ["not stored: qty"],
    ),
    "binance aggregates": (
        "ETHUSDT-aggTrades-2024-08-08.csv", f"{AGGREGATES}\n7,2.5,2,70,72,{MS},false\n",
        {"trade_id": "7", "side": "buy"}, ["aggregated", "not stored: first_trade_id, last_trade"],
    ),
    "binance spot aggregates, no header": (
        "ETHUSDT-aggTrades-2025-01-01.csv", f"7,2.5,2,70,72,{US},False,True\n",
        {"trade_id": "7", "timestamp": IN_2025}, ["aggregated"],
    ),
    "binance futures aggregates, no header": (
        "ETHUSDT-aggTrades-2024-08-08.csv", f"7,2.5,2,70,72,{MS},true\n",
        {"trade_id": "7", "price": 2.5, "volume": 2.0, "side": "sell", "timestamp": AT,
         "symbol": "ETHUSDT"},
        ["Binance Vision aggTrades, by its fields: no header", "aggregated",
         "timestamp is in milliseconds"],
    ),
    "bybit": (
        "x.csv", f"{NOTIONAL}\n1723161255.342,BTCUSD,Buy,100,50000,PlusTick,ab-1,9,0.002,100\n",
        {"volume": 0.002, "quote_volume": 100.0, "side": "buy", "trade_id": "ab-1",
         "timestamp": AT}, ["volume is homeNotional", "not stored: size, tickDirection"],
    ),
    "bitmex": (
        "x.csv",
        f"{NOTIONAL}\n2024-08-08D23:54:15.342000000,XBTUSD,Sell,100,50000,PlusTick,ab,9,0.002,100\n",
        {"timestamp": AT, "side": "sell", "symbol": "XBTUSD"}, [],
    ),
    "bybit spot": (
        "BTCUSDT_2024-08-08.csv", f"id,timestamp,price,volume,side,rpi\n1,{MS},5.5,0.1,sell,0\n",
        {"trade_id": None, "side": "sell", "symbol": "BTCUSDT"}, ["is no trade id"],
    ),
    "okx": (
        "x.csv",
        f"instrument_name,trade_id,side,price,size,created_time\nBTC-USDT,71,buy,5.5,0.2,{MS}\n",
        {"symbol": "BTC-USDT", "trade_id": "71", "volume": 0.2}, ["OKX trades"],
    ),
    "okx swap": (
        "x.csv",
        f"instrument_name,trade_id,side,price,size,created_time\nBTC-USDT-SWAP,71,buy,5.5,2,{MS}\n",
        {"symbol": "BTC-USDT-SWAP"}, ["are contracts, not base units"],
    ),
    "bitget": (
        "BTCUSDT_20240808_001.csv",
        f"trade_id,timestamp,price,side,volume(quote),size(base)\n71,{MS},5,buy,10,2\n",
        {"volume": 2.0, "quote_volume": 10.0, "trade_id": "71", "symbol": "BTCUSDT"}, [],
    ),
    "deribit": (
        "x.csv",
        ("trade_seq,trade_id,timestamp,tick_direction,price,index_price,instrument_name,direction,"
        f"amount\n9,ETH-71,{MS},1,2500.0,2501.1,ETH-PERPETUAL,sell,100\n"),
        {"volume": 0.04, "quote_volume": 100.0, "trade_id": "ETH-71", "side": "sell"},
        ["dollars", "not stored: tick_direction, index_price"],
    ),
    "kraken": (
        "XBTUSD.csv", "1723161255.342,50000.1,0.00123400\n1723161255.342,50000.2,0.5\n",
        {"symbol": "XBTUSD", "price": 50000.1, "timestamp": AT}, ["Kraken time and sales"],
    ),
    "kraken rest": (
        "XBTUSD.csv", "50000.1,0.5,1723161255.342,b,l,,71\n",
        {"side": "buy", "trade_id": "71", "timestamp": AT}, ["Kraken REST trades"],
    ),
    "coinbase": (
        "x.csv",
        "time,trade_id,price,size,side,product_id\n2024-08-08T23:54:15.342Z,71,5.5,2,buy,BTC-USD\n",
        {"side": "sell", "symbol": "BTC-USD", "timestamp": AT}, ["side is the maker's"],
    ),
    "tardis": (
        "x.csv",
        f"{TARDIS},id,side,price,amount\nbinance,BTCUSDT,{MS}000,{MS}123,71,unknown,5.5,2\n",
        {"side": None, "trade_id": "71", "received_at": AT.replace(microsecond=342_123)},
        ["Tardis trades", "received_at is in microseconds", "not stored: exchange"],
    ),
    "databento, raw": (
        "x.csv", f"{RECORD},symbol\n{NS},{NS},0,2,15,T,A,0,50000123456789,3,0,ESZ4\n",
        {"price": 50000.123456789, "side": "sell", "volume": 3.0, "symbol": "ESZ4",
         "timestamp": AT}, ["rounded to the nearest one", "timestamp is in nanoseconds"],
    ),
    "databento, pretty": (
        "x.csv", f"{RECORD},symbol\n{PRETTY},{PRETTY},0,2,15,T,N,0,50000.100000000,3,0,ESZ4\n",
        {"price": 50000.1, "side": None, "timestamp": AT}, ["rounded to the nearest one"],
    ),
    "databento tbbo": (
        "x.tbbo.csv",
        (f"{RECORD},bid_px_00,ask_px_00,bid_sz_00,ask_sz_00,bid_ct_00,ask_ct_00,symbol\n"
        f"{NS},{NS},1,2,15,T,B,0,5000000000,3,0,4000000000,6000000000,1,1,1,1,ES\n"),
        {"price": 5.0, "side": "buy"}, ["the quote beside each trade is not stored"],
    ),
}  # fmt: skip
BOOKS = {
    "binance tickers": (
        "BTCUSDT-bookTicker-2024-02-15.csv",
        ("update_id,best_bid_price,best_bid_qty,best_ask_price,best_ask_qty,transaction_time,"
        f"event_time\n71,4.5,1,5.5,2,{MS},{MS}\n"),
        {"bid_price_1": 4.5, "ask_price_1": 5.5, "ask_qty_1": 2.0, "venue_seq": 71,
         "timestamp": AT}, ["not stored: event_time"],
    ),
    "tardis quotes": (
        "x.csv",
        f"{TARDIS},ask_amount,ask_price,bid_price,bid_amount\nb,BTCUSDT,{MS}000,{MS}000,2,5.5,4.5,1\n",
        {"bid_price_1": 4.5, "bid_qty_1": 1.0, "ask_qty_1": 2.0}, ["Tardis quotes"],
    ),
    "tardis 25 levels": (
        "x.csv", f"{TARDIS},{SNAPSHOT}\nb,BTCUSDT,{MS}000,{MS}000,{DEEP}\n",
        {"bid_price_1": 100.0, "bid_price_10": 91.0, "ask_price_10": 110.0, "ask_qty_10": 10.0},
        ["not stored: exchange, asks[10].price"],
    ),
    "tardis 5 levels": (
        "x.csv", f"{TARDIS},{FIVE}\nb,BTCUSDT,{MS}000,{MS}123,{DEEP_FIVE}\n",
        {"bid_price_1": 100.0, "bid_price_5": 96.0, "ask_price_5": 105.0, "ask_qty_5": 5.0,
         "bid_price_6": None, "ask_qty_6": None, "timestamp": AT, "symbol": "BTCUSDT",
         "received_at": AT.replace(microsecond=342_123)},
        ["Tardis book_snapshot", "not stored: exchange"],
    ),
    "databento one level": (
        "x.mbp-1.csv",
        (f"{RECORD},{TOP},symbol\n"
        f"{NS},{NS},1,2,15,C,A,0,{RAW_NONE},3,0,100000000000,101000000000,1,2,1,1,ES\n"),
        {"bid_price_1": 100.0, "ask_price_1": 101.0, "ask_qty_1": 2.0, "bid_price_2": None,
         "symbol": "ES", "timestamp": AT},
        ["Databento mbp", "each row is the book after an event"],
    ),
    "databento one level, of trades": (
        "x.mbp-1.csv",
        (f"{RECORD},{TOP},symbol\n"
        f"{NS},{NS},1,2,15,T,A,0,100500000000,3,0,100000000000,101000000000,1,2,1,1,ES\n"),
        {"bid_price_1": 100.0, "ask_price_1": 101.0}, ["each row is the book after an event"],
    ),
    "databento one level, pretty": (
        "x.mbp-1.csv",
        (f"{RECORD},{TOP},symbol\n"
        f"{PRETTY},{PRETTY},1,2,15,A,B,0,,3,0,100.250000000,100.500000000,1,2,1,1,ES\n"),
        {"bid_price_1": 100.25, "ask_price_1": 100.5, "bid_qty_1": 1.0, "timestamp": AT},
        ["each row is the book after an event", "rounded to the nearest one"],
    ),
    "databento ten levels": (
        "x.csv", f"{RECORD},{TENS},symbol\n{NS},{NS},10,2,15,A,B,0,{RAW_NONE},3,0,{DEPTH},ES\n",
        {"bid_price_1": 100.0, "bid_price_10": 91.0, "ask_qty_10": 11.0, "timestamp": AT},
        ["each row is the book after an event"],
    ),
    "lobster": (
        "AAPL_2012-06-21_book.csv",
        ("34200.004241176,1,16113575,18,5853300,1,5859400,200,5853300,18,"
        "9999999999,0,-9999999999,0\n"),
        {"ask_price_1": 585.94, "bid_price_1": 585.33, "bid_qty_1": 18.0, "ask_price_2": None,
         "ask_qty_2": None, "symbol": "AAPL",
         "timestamp": datetime(2012, 6, 21, 13, 30, 0, 4_241, UTC)},
        ["New York", "rounded to the nearest one"],
    ),
    "histdata": (
        "DAT_ASCII_EURUSD_T_202407.csv", "20240701 000003660,1.306600,1.306770,0\n",
        {"bid_price_1": 1.3066, "symbol": "EURUSD",
         "timestamp": datetime(2024, 7, 1, 5, 0, 3, 660_000, UTC)},
        ["EST without daylight saving", "not stored: volume"],
    ),
    "truefx": (
        "x.csv", "EUR/USD,20240701 00:00:03.660,1.3066,1.30677\n",
        {"symbol": "EUR/USD", "timestamp": datetime(2024, 7, 1, 0, 0, 3, 660_000, UTC)}, ["GMT"],
    ),
    "dukascopy": (
        "eurusd-tick-2024-08-08.csv",
        f"timestamp,askPrice,bidPrice,askVolume,bidVolume\n{MS},1.2,1.1,0.75,1.5\n",
        {"bid_price_1": 1.1, "ask_qty_1": 0.75, "symbol": "EURUSD", "timestamp": AT}, ["millions"],
    ),
    "jforex": (
        "EURUSD_Ticks.csv",
        "Local time,Ask,Bid,AskVolume,BidVolume\n09.08.2024 01:54:15.342 GMT+0200,1.2,1.1,1,2\n",
        {"timestamp": AT, "ask_price_1": 1.2}, ["day first"],
    ),
    "jforex, gmt": (
        "EURUSD_Ticks.csv",
        "Gmt time,Ask,Bid,AskVolume,BidVolume\n08.08.2024 23:54:15.342,1.2,1.1,1,2\n",
        {"timestamp": AT}, ["times are GMT"],
    ),
    "jforex, utc": (
        "EURUSD_Ticks.csv",
        "Time (UTC),Ask,Bid,AskVolume ,BidVolume \n2024.08.08 23:54:15.342,1.2,1.1,1,2\n",
        {"timestamp": AT, "symbol": "EURUSD"}, ["times are UTC", "year first"],
    ),
    "jforex, eet": (
        "EURUSD_Ticks.csv",
        "Time (EET),Ask,Bid,AskVolume,BidVolume\n2024.08.09 02:54:15.342,1.2,1.1,1,2\n",
        {"timestamp": AT}, ["times are Eastern European (EET, in summer EEST), turned into UTC"],
    ),
    "metatrader": (
        "EURUSD_202408080000_202408082359.csv",
        ("<DATE>\t<TIME>\t<BID>\t<ASK>\t<LAST>\t<VOLUME>\t<FLAGS>\n"
        "2024.08.08\t23:54:15.342\t1.1\t1.2\t\t\t6\n"
        "2024.08.08\t23:54:15.500\t\t1.3\t\t\t4\n"),
        {"bid_price_1": 1.1, "ask_price_1": 1.2, "symbol": "EURUSD", "timestamp": AT},
        ["unchanged", "server's", "fields are separated by tabs"],
    ),
}  # fmt: skip


def part_of(folder, name, text, *, columns=None, **options):
    file = folder / name
    options["how"] = ReadOptions(strict=True, columns=tuple((columns or {}).items()))
    file.write_text(text, encoding="utf-8")
    (part,) = read_file(file, **options)
    return part


def refusal(folder, name, text, **options):
    with pytest.raises(errors.ImportRefused) as caught:
        part_of(folder, name, text, **options)
    return str(caught.value)


def symbol_option(vendor):
    """Return the symbol that has to be said: neither a column nor the file's name has it."""
    name, text, wanted, _ = (TRADES | BOOKS)[vendor]
    is_said = "symbol" in wanted or re.search("symbol|product_id|instrument_name", text)
    return None if is_said or name[0] != "x" else "BTC"


@pytest.mark.parametrize("vendor", [*TRADES, *BOOKS])
def test_a_vendors_file_is_recognised_and_read_exactly(tmp_path, vendor):
    name, text, wanted, said = (TRADES | BOOKS)[vendor]
    part = part_of(tmp_path, name, text, symbol=symbol_option(vendor))
    row = rows_of_part(part).row(0, named=True)
    assert {key: row[key] for key in wanted} == wanted
    assert part.data_type == ("prices" if vendor in TRADES else "orderbook")
    notes = "\n".join(part.notes)
    assert [word for word in said if word not in notes] == []


def test_a_zip_as_binance_publishes_it_is_the_member_with_its_symbol(tmp_path):
    name, text, wanted, said = TRADES["binance spot, no header"]
    with zipfile.ZipFile(tmp_path / "download.zip", "w", zipfile.ZIP_DEFLATED) as archive:
        archive.writestr(name, text)
    (source,), others = find_sources([tmp_path / "download.zip"], "x")
    (part,) = source.read(ReadOptions(strict=True)).parts
    row = rows_of_part(part).row(0, named=True)
    assert {key: row[key] for key in wanted} == wanted
    assert others == []
    assert [word for word in said if word not in "\n".join(part.notes)] == []


HEADED = [
    name
    for name, (_, text, *_) in (TRADES | BOOKS).items()
    if text[:2].upper().isupper() and name != "truefx"
]


@pytest.mark.parametrize("vendor", HEADED)
def test_a_vendors_columns_in_parquet_are_the_same_rows(tmp_path, vendor):
    name, text, wanted, _ = (TRADES | BOOKS)[vendor]
    separator = "\t" if "\t" in text else ","
    file = tmp_path / name.replace(".csv", ".parquet")
    pl.read_csv(io.StringIO(text), separator=separator).write_parquet(file)
    named = re.search("symbol|product_id|instrument_name", text) or name[0] != "x"
    (part,) = read_file(file, None if named else "BTC")
    row = rows_of_part(part).row(0, named=True)
    assert {key: row[key] for key in wanted} == wanted


def test_a_blank_quote_of_metatrader_is_carried_on_also_between_blocks(tmp_path):
    name, text, *_ = BOOKS["metatrader"]
    part = part_of(tmp_path, name, text)
    assert rows_of_part(part)["bid_price_1"].to_list() == [1.1, 1.1]
    assert rows_of_part(part)["ask_price_1"].to_list() == [1.2, 1.3]
    lines = text.splitlines()
    form = formats.of_text(SourceLocation(name), lines)
    rows = [[value or None for value in line.split("\t")] for line in lines[1:]]
    raw = pl.DataFrame(rows, schema=lines[0].split("\t"), orient="row")
    place = SourceLocation(name)
    pieces = pl.concat(form.canonical(place, raw[n : n + 1]) for n in range(2))
    assert pieces["bid"].to_list() == ["1.1", "1.1"]


REFUSED = {
    "klines": ("open_time,open,high,low,close\n1,2,3,4,5\n", ["candles, not ticks"]),
    "klines, no header": (
        f"{MS},5,6,4,5,1,{MS},5,9,1,1,0\n", ["candles, not ticks", "Binance Vision klines"],
    ),
    "kraken candles": ("1723161240,5,6,4,5,1.5,9\n", ["candles, not ticks"]),
    "histdata bars": ("20120201 000000,1,1,1,1,0\n", ["candles, not ticks"]),
    "metatrader bars": (
        "<DATE>\t<TIME>\t<OPEN>\t<HIGH>\t<LOW>\t<CLOSE>\n2024.08.08\t1\t1\t1\t1\t1\n",
        ["candles, not ticks"],
    ),
    "depth in percent": (
        "timestamp,percentage,depth,notional\n2024-08-08 00:00:00,-1,10,100\n",
        ["within percents of the price", "bookTicker"],
    ),
    "an unknown header": (
        "update_id,best_bid_price,mood\n1,2,3\n",
        ["update_id, best_bid_price, mood are of no kind", "trades have timestamp, price",
         "the nearest is Binance Vision bookTicker", "columns={"],
    ),
    "single orders": (
        f"{RECORD},order_id\n{NS},{NS},160,2,15,A,B,0,5,3,0,7\n", ["single orders", "mbp-10"],
    ),
    "day first": (
        "timestamp,symbol,price,qty\n01/02/2024 10:00:00,B,1,1\n", ["day first or month first"],
    ),
    "spreadsheet time": ("time,symbol,price,qty\n1.72316E+09,B,1,1\n", ["has cost digits"]),
    "spreadsheet id": (
        "time,symbol,price,qty,id\n1723161255,B,1,1,4.2E+09\n", ["written out in full"],
    ),
    "decimal commas": ("time;symbol;price;qty\n1;B;1,5;1\n", ["semicolons", "commas"]),
    "decimal commas between tabs": (
        "timestamp\tsymbol\tprice\tqty\n1723161255\tB\t1,5\t1\n", ["with a point, not a comma"],
    ),
    "minute bars between semicolons": (
        "20120201 000000;1.306600;1.306600;1.306560;1.306560;0\n", ["candles, not ticks"],
    ),
    "two units": (
        f"{BINANCE}\n7,2,2,4,{MS},true\n8,2,2,4,{US},true\n",
        ["line 3", "not in milliseconds", "one unit"],
    ),
}  # fmt: skip


@pytest.mark.parametrize("kind", REFUSED)
def test_what_is_no_tick_file_is_refused_with_the_reason(tmp_path, kind):
    text, words = REFUSED[kind]
    message = refusal(tmp_path, "a.csv", text)
    assert [word for word in words if word not in message] == []


def test_half_of_lobsters_pair_is_refused_with_the_command_that_joins_it(tmp_path):
    line = "34200.004241176,1,16113575,18,5853300,1\n"
    message = refusal(tmp_path, "AAPL_2012-06-21_34200000_57600000_message_1.csv", line)
    assert "paste -d," in message


@pytest.mark.parametrize(
    "text", [f"{AGGREGATES}\n7,2.5,2,70,72,{MS},false\n", f"7,50000.0,10,0.02,{MS},true\n"]
)
def test_contracts_without_their_worth_are_refused(tmp_path, text):
    message = refusal(tmp_path, "BTCUSD_PERP-aggTrades-2024-08-08.csv", text)
    assert "COIN-M quantities are contracts" in message


@pytest.mark.parametrize(
    ("name", "volume"),
    [("BTC-27JUN25", 0.05), ("BTC-27JUN25-50000-C", 100.0), ("SOL_USDC-PERPETUAL", 100.0),
     ("ETH_BTC", 100.0)],
)  # fmt: skip
def test_only_inverse_contracts_of_deribit_are_counted_in_dollars(tmp_path, name, volume):
    header = "trade_seq,trade_id,timestamp,price,instrument_name,direction,amount"
    part = part_of(tmp_path, "a.csv", f"{header}\n9,71,{MS},2000,{name},buy,100\n")
    assert rows_of_part(part)["volume"].to_list() == [volume]


def test_liquidations_have_the_header_of_trades_and_are_none(tmp_path):
    text = f"{TARDIS},id,side,price,amount\nb,BTCUSDT,{MS}000,{MS}000,71,buy,5.5,2\n"
    assert "liquidations" in refusal(tmp_path, "b_liquidations_2024-08-08.csv", text)


def test_columns_can_be_said(tmp_path):
    text = f"when,px,lots,who,mood\n{MS},5.5,2,buy,x\n"
    columns = {"timestamp": "when", "price": "px", "volume": "lots", "maker_side": "who"}
    part = part_of(tmp_path, "a.csv", text, symbol="BTC", columns=columns)
    row = rows_of_part(part).row(0, named=True)
    assert (row["price"], row["side"], row["timestamp"]) == (5.5, "sell", AT)
    assert any("not stored: mood" in note for note in part.notes)
    bad = {**columns, "volume": "lot"}
    assert "no column 'lot'; did you mean 'lots'" in refusal(
        tmp_path, "a.csv", text, symbol="BTC", columns=bad
    )
    with pytest.raises(errors.InvalidInput, match="'prize' is no column of fxlab"):
        part_of(tmp_path, "a.csv", text, columns={"prize": "px"})


@pytest.mark.parametrize("suffix", [".parquet", ".arrow", ".jsonl"])
def test_columns_of_files_that_are_no_csv_can_be_said(tmp_path, suffix):
    frame = pl.DataFrame(
        {"when": [int(MS)], "px": [5.5], "lots": [2.0], "who": ["buy"], "mood": ["x"]}
    )
    file = tmp_path / f"a{suffix}"
    writers = {".parquet": frame.write_parquet, ".arrow": frame.write_ipc}
    writers.get(suffix, frame.write_ndjson)(file)
    said = {"timestamp": "when", "price": "px", "volume": "lots", "maker_side": "who"}
    (part,) = read_file(file, "BTC", ReadOptions(strict=True, columns=tuple(said.items())))
    row = rows_of_part(part).row(0, named=True)
    assert (row["price"], row["volume"], row["side"], row["timestamp"]) == (5.5, 2.0, "sell", AT)
    assert any("not stored: mood" in note for note in part.notes)
    wrong = ReadOptions(columns=tuple({**said, "volume": "lot"}.items()))
    with pytest.raises(errors.ImportRefused, match=r"a\..*no column 'lot'; did you mean 'lots'"):
        read_file(file, "BTC", wrong)


def test_columns_of_a_file_without_header_are_said_by_number(tmp_path):
    columns = {"timestamp": "2", "price": "1", "volume": "3"}
    part = part_of(tmp_path, "a.csv", f"5.5,{MS},2\n", symbol="BTC", columns=columns)
    assert rows_of_part(part).row(0, named=True)["price"] == 5.5


@pytest.mark.parametrize("kind", [pl.Int64, pl.Float64])
def test_typed_files_are_recognised_too(tmp_path, kind):
    frame = pl.DataFrame({"time": [int(MS)], "price": [5.5], "size": [2.0], "id": ["7"]})
    file = tmp_path / "a.parquet"
    frame.with_columns(pl.col("time").cast(kind)).write_parquet(file)
    (part,) = read_file(file, "BTC")
    assert rows_of_part(part).row(0, named=True)["timestamp"] == AT
    assert any("size is taken for volume" in note for note in part.notes)


def test_a_bad_time_among_good_ones_is_named_by_its_line(tmp_path):
    text = f"{BINANCE}\n7,2,2,4,{MS},true\n8,2,2,4,soon,true\n"
    message = refusal(tmp_path, "BTCUSDT-trades-2024-08-08.csv", text)
    assert "line 3" in message
    assert "timestamp='soon'" in message


MUTATIONS = 40


@pytest.mark.parametrize("vendor", [*TRADES, *BOOKS])
def test_rows_and_quarantine_are_the_lines_of_a_damaged_vendors_file(tmp_path, vendor):
    name, text, *_ = (TRADES | BOOKS)[vendor]
    header, lines = (1 if vendor in HEADED else 0), text.splitlines()
    text = "\n".join([*lines, *lines[header:] * 2, ""])  # what has an id is doubled: bad, too
    draw, outcomes, bad = random.Random(vendor), Counter(), 0
    for number in range(MUTATIONS):
        at, piece = draw.randrange(len(text)), draw.randrange(1, 9)
        new = draw.choice(["", ",", "\n", "\t", "x", "-", "9", ".", "E+09", "é", "nan", ";"])
        file = tmp_path / name
        file.write_text(text[:at] + new + text[at + piece * draw.randrange(2) :], encoding="utf-8")
        try:
            parts = read_file(file, symbol_option(vendor), ReadOptions(max_bad=1.0))
        except errors.ImportRefused as error:
            outcomes["refused"] += 1
            assert name in str(error), number  # noqa: PT017 - either is right
            continue
        outcomes["read"] += 1
        body = file.read_text(encoding="utf-8").rstrip("\n").split("\n")[header:]
        rows, kept = rows_and_bad(parts)
        assert sorted(rows + kept) == list(range(len(body))), number
        bad += len(kept)
    assert outcomes["read"] >= MUTATIONS // 4, outcomes
    assert bad


def test_eastern_european_times_follow_the_summer_time_and_the_hour_twice_is_bad(tmp_path):
    times = {
        "2024.01.31 02:00:00.5": datetime(2024, 1, 31, 0, 0, 0, 500_000, UTC),
        "2024.03.31 02:59:59.999": datetime(2024, 3, 31, 0, 59, 59, 999_000, UTC),
        "2024.03.31 04:00:00.000": datetime(2024, 3, 31, 1, tzinfo=UTC),
        "31.07.2024 02:00:00.000": datetime(2024, 7, 30, 23, tzinfo=UTC),
        "2024.10.27 02:59:00.000": datetime(2024, 10, 26, 23, 59, tzinfo=UTC),
        "2024.10.27 04:00:00.000": datetime(2024, 10, 27, 2, tzinfo=UTC),
    }
    nowhere = ["2024.03.31 03:30:00.000", "2024.10.27 03:30:00.000", "2024.13.01 00:00:00.000"]
    lines = [f"{time},1.2,1.1,1,2" for time in (*times, *nowhere)]
    file = tmp_path / "EURUSD_Ticks.csv"
    file.write_text("\n".join(["Time (EET),Ask,Bid,AskVolume,BidVolume", *lines]) + "\n")
    (part,) = read_file(file, how=ReadOptions(max_bad=0.5))
    assert rows_of_part(part)["timestamp"].to_list() == list(times.values())
    assert [one.row for one in part.quarantine.bad] == [6, 7, 8]
    with pytest.raises(errors.ImportRefused, match=r"03:30:00\.000 EET'"):
        read_file(file)


def test_a_symbol_in_lower_case_is_refused_wherever_it_is_given_and_capitals_are_advised(tmp_path):
    file = tmp_path / "a.csv"
    rows = "".join(f"{MS},btcusdt,1,1\n" for _ in range(20))
    file.write_text(f"timestamp,symbol,price,qty\n{rows}")
    with pytest.raises(errors.ImportRefused, match=r"capital letters.*; write BTCUSDT in the file"):
        read_file(file, how=ReadOptions(max_bad=0.01))
    with pytest.raises(errors.InvalidIdentifier, match=r"'btcusdt' is not.*; write BTCUSDT"):
        check_symbol("btcusdt")
    with pytest.raises(errors.InvalidIdentifier) as refused:
        check_symbol("btc usdt")
    assert "write" not in str(refused.value)


def test_capital_letters_of_a_symbol_in_a_files_name_are_said(tmp_path):
    header = "timestamp,askPrice,bidPrice,askVolume,bidVolume\n"
    told = {}
    for stem in ("eurusd", "EURUSD"):
        file = tmp_path / f"{stem}-tick-2024-08-08.csv"
        file.write_text(f"{header}{MS},1.2,1.1,0.75,1.5\n")
        (part,) = read_file(file)
        assert part.symbol == "EURUSD"
        (told[stem],) = (note for note in part.notes if note.startswith("symbol "))
    assert told == {
        "eurusd": "symbol EURUSD from the file's name, in capital letters",
        "EURUSD": "symbol EURUSD from the file's name",
    }


JFOREX = "Local time,Ask,Bid,AskVolume,BidVolume\n"


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("a.csv", "timestamp,symbol,price,qty\n2024-01-01 00:00:00,B,1,1\n", True),
        ("a.csv", "timestamp,symbol,price,qty\n2024-01-01T00:00:00Z,B,1,1\n", False),
        ("a.csv", "timestamp,symbol,price,qty\n2024-01-01T00:00:00+01:00,B,1,1\n", False),
        ("a.csv", "timestamp,symbol,price,qty\n1704067200.5,B,1,1\n", False),
        ("EURUSD_T.csv", f"{JFOREX}01.02.2024 00:00:00.123,1.2,1.1,1,1\n", True),
        ("EURUSD_T.csv", f"{JFOREX}01.02.2024 00:00:00.123 GMT+0100,1.2,1.1,1,1\n", False),
    ],
)
def test_a_time_without_an_offset_is_taken_for_utc_and_that_is_said(tmp_path, name, text, told):
    file = tmp_path / name
    file.write_text(text, encoding="utf-8")
    (part,) = read_file(file)
    assert any("taken for UTC" in note for note in part.notes) is told


# ---- changes of a book ----------------------------------------------------------------------

CHANGES = f"{TARDIS},is_snapshot,side,price,amount"
FIRST = int(MS) * 1_000


def market(seed):
    """Return lines of changes of two symbols, some broken, and the books that they make."""
    draw = random.Random(seed)
    lines, wanted, books, shown = [], [], {}, {}
    snapshots = dict.fromkeys("AB", False)
    lost = 0
    for message in range(60):
        symbol, moment = draw.choice("AB"), FIRST + 1_000 * message
        is_snapshot = message > 3 and (symbol not in books or draw.random() < 0.05)
        if is_snapshot and not snapshots[symbol]:
            books[symbol] = {"bid": {}, "ask": {}}
        snapshots[symbol] = is_snapshot
        sides = ["bid", "ask"] * 15 if is_snapshot else draw.choices(["bid", "ask"], k=3)
        for side in sides:
            price = draw.randint(1, 30) / 2 + (50 if side == "ask" else 0)
            amount = draw.choice([1.5, 0, 2]) if not is_snapshot else draw.randint(1, 9)
            is_broken = draw.random() < 0.005
            said = draw.choice(["-1", "nan", "x"]) if is_broken else amount
            flag = str(is_snapshot).lower()
            lines.append(f"b,{symbol},{moment},{moment + 7},{flag},{side},{price},{said}")
            if is_broken:
                books.pop(symbol, None)
                snapshots[symbol] = False
            elif is_snapshot and not snapshots[symbol]:  # the snapshot's rest begins a book anew
                books[symbol], snapshots[symbol] = {"bid": {}, "ask": {}}, True
            if is_broken or symbol not in books:
                lost += 1
                continue
            levels = books[symbol][side]
            levels[price] = amount
            books[symbol][side] = {level: held for level, held in levels.items() if held}
        if symbol in books:
            bids = sorted(books[symbol]["bid"].items(), reverse=True)[:10]
            asks = sorted(books[symbol]["ask"].items())[:10]
            if shown.get(symbol) != (bids, asks):
                wanted.append((moment, symbol, bids, asks))
            shown[symbol] = bids, asks
    return lines, wanted, lost


def levels_of(row, side):
    pairs = ((row[f"{side}_price_{n}"], row[f"{side}_qty_{n}"]) for n in range(1, 11))
    return [pair for pair in pairs if pair[0] is not None]


@pytest.mark.parametrize("seed", range(12))
@pytest.mark.parametrize("batch_size", [1, 40, 250_000])
def test_changes_of_books_make_the_books_of_their_twin(tmp_path, monkeypatch, seed, batch_size):
    monkeypatch.setattr(csv, "_FIRST_BYTES", 100)  # so that blocks are as small as is asked for
    lines, wanted, lost = market(seed)
    file = tmp_path / "x.csv"
    file.write_text("\n".join([CHANGES, *lines]) + "\n")
    parts = read_file(file, how=ReadOptions(max_bad=1.0, batch_size=batch_size))
    made = sorted(
        (row for part in parts for row in rows_of_part(part).iter_rows(named=True)),
        key=lambda row: row["timestamp"],
    )
    rows = [
        (to_micros(row["timestamp"]), row["symbol"], levels_of(row, "bid"), levels_of(row, "ask"))
        for row in made
    ]
    assert rows == wanted
    assert {row["received_at"] - row["timestamp"] for row in made} == {timedelta(microseconds=7)}
    assert (
        f"{len(lines) - lost:,} changes of single levels make {len(wanted):,} books"
        in "\n".join(parts[0].notes)
    )
    bad = parts[0].quarantine
    assert (bad.count if bad else 0) == lost
    assert all(one.text == lines[one.row] for one in (bad.bad if bad else []))


def test_changes_in_parquet_are_the_same_books(tmp_path):
    lines, *_ = market(3)
    text = "\n".join([CHANGES, *(line for line in lines if line[-1] not in "nx")]) + "\n"
    (tmp_path / "x.csv").write_text(text)
    pl.read_csv(io.StringIO(text)).write_parquet(tmp_path / "x.parquet")
    how = ReadOptions(max_bad=1.0)
    one, other = (read_file(tmp_path / name, how=how) for name in ("x.csv", "x.parquet"))
    assert [part.symbol for part in one] == [part.symbol for part in other]
    for part, again in zip(one, other, strict=True):
        assert rows_of_part(part).equals(rows_of_part(again))


def test_changes_without_a_snapshot_are_refused_with_the_reason(tmp_path):
    text = f"{CHANGES}\nb,A,{FIRST},{FIRST},false,bid,1,1\n"
    assert "line 2: no book is known before a snapshot" in refusal(tmp_path, "x.csv", text)


def test_a_message_without_end_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(formats, "_MOST_IN_MESSAGE", 5)
    line = f"b,A,{FIRST},{FIRST},true,bid,1,1\n"
    assert "lines have one time of arrival" in refusal(tmp_path, "x.csv", f"{CHANGES}\n{line * 6}")
