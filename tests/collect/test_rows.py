"""Understanding rows: nothing guessed, nothing dropped, the first bad one named."""

from __future__ import annotations

from datetime import UTC, datetime

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab import errors
from fxlab.collect._files.csv import ROW
from fxlab.collect._files.fields import SourceLocation
from fxlab.collect._files.parsing import BOOKS, QUOTES, TRADES, VENUE_SEQ, parse_rows
from fxlab.collect._files.quarantine import STRICT
from fxlab.schema import ORDERBOOK, PRICES, UTC_MICROS

PLACE = SourceLocation("f.csv", "line", 2)
NOON = datetime(2024, 8, 8, 12, tzinfo=UTC)
MIDDAY = NOON.timestamp()


def trade(**columns):
    return pl.DataFrame({"timestamp": ["1723118400.5"], "price": ["10.5"], "qty": ["2"], **columns})


def rows_of(frame, symbol="BTC"):
    return parse_rows(frame, symbol, STRICT.of(PLACE))[1]


def refusal(frame, symbol="BTC"):
    with pytest.raises(errors.ImportRefused) as caught:
        parse_rows(frame, symbol, STRICT.of(PLACE))
    return str(caught.value)


# ---- times ---------------------------------------------------------------------------------


@given(st.integers(631_152_000_000_000, 4_102_444_799_999_999))
def test_epoch_seconds_are_exact_to_the_microsecond(micros):
    as_float = micros / 1_000_000  # what the older system wrote: repr of a float
    frame = trade().with_columns(timestamp=pl.Series([repr(as_float)]))
    assert rows_of(frame)["timestamp"].to_physical().item() == micros
    typed = trade().with_columns(timestamp=pl.Series([as_float]))
    assert rows_of(typed)["timestamp"].to_physical().item() == micros


def test_cutting_as_the_older_system_did_would_be_early():
    exact = [1_723_161_255_000_000 + 1_000 * n for n in range(1_000)]
    seconds = [micros / 1_000_000 for micros in exact]
    cut = [int(value * 1_000_000_000) // 1_000 for value in seconds]
    assert sum(one < other for one, other in zip(cut, exact, strict=True)) > 200
    frame = pl.DataFrame({"timestamp": [repr(value) for value in seconds]})
    found = rows_of(frame.with_columns(price=pl.lit("1"), qty=pl.lit("1")))
    assert found["timestamp"].to_physical().to_list() == exact


@pytest.mark.parametrize(
    "text",
    [
        "2024-08-08T12:00:00Z", "2024-08-08 12:00:00", "2024-08-08 12:00:00.000000+00:00",
        "2024-08-08T14:00:00+02:00", "2024-08-08T07:00:00.000-0500",
        "2024-08-08T12:00:00.000000000",
        "1723118400", "1723118400.0",
    ],
)  # fmt: skip
def test_a_moment_may_be_written_in_many_ways(text):
    found = rows_of(trade().with_columns(timestamp=pl.Series([text])))
    assert found["timestamp"].to_list() == [NOON]


@pytest.mark.parametrize(
    "moment",
    [
        pl.Series([NOON], dtype=UTC_MICROS),
        pl.Series([NOON.replace(tzinfo=None)]),
        pl.Series([NOON], dtype=pl.Datetime("ns", "UTC")),
        pl.Series([NOON], dtype=pl.Datetime("ms", "UTC")),
        pl.Series([NOON], dtype=pl.Datetime("us", "UTC")).dt.convert_time_zone("Asia/Tokyo"),
        pl.Series([MIDDAY]),
        pl.Series([int(MIDDAY)]),
    ],
    ids=["utc", "naive", "ns", "ms", "tokyo", "float", "int"],
)
def test_typed_moments_are_utc_microseconds(moment):
    found = rows_of(trade().with_columns(timestamp=moment))
    assert found.schema["timestamp"] == UTC_MICROS
    assert found["timestamp"].to_list() == [NOON]


@pytest.mark.parametrize(
    "text",
    [
        "1723118400000", "0", "-1", "nan", "inf", "1e300", "2024-08-08", "2024-13-08 12:00:00",
        "yesterday", "", "631151999", "4102444800", "2024-08-08T12:00:00 UTC",
        "1.7231184e9", "1.72316E+09",
    ],
)  # fmt: skip
def test_a_moment_that_is_none_is_refused(text):
    frame = trade().with_columns(timestamp=pl.Series([text or None], dtype=pl.String))
    assert "f.csv, line 2: timestamp=" in refusal(frame)
    assert "seconds since 1970" in refusal(frame)


def test_the_first_value_decides_how_times_are_written():
    frame = pl.DataFrame(
        {"timestamp": ["1723118400", "2024-08-08T12:00:00Z"], "price": ["1"] * 2, "qty": ["1"] * 2}
    )
    assert "line 3: timestamp='2024-08-08T12:00:00Z'" in refusal(frame)


# ---- numbers -------------------------------------------------------------------------------


@given(st.lists(st.floats(1e-300, 1e300), min_size=1, max_size=20))
def test_numbers_are_read_exactly_as_python_reads_them(values):
    texts = [repr(value) for value in values]
    frame = pl.DataFrame({"timestamp": ["1723118400"] * len(texts), "price": texts})
    assert rows_of(frame.with_columns(qty=pl.lit("0")))["price"].to_list() == values


@pytest.mark.parametrize(
    "bad", ["0", "-1", "nan", "inf", "-inf", "1e400", "abc", "1,5", "0x10", "1_0", ""]
)
def test_a_price_that_is_none_is_refused(bad):
    frame = trade().with_columns(price=pl.Series([bad or None], dtype=pl.String))
    message = refusal(frame)
    assert (
        f"f.csv, line 2: price={(bad or None)!r}, but a price is a finite number above zero"
        in message
    )
    assert "mend or remove it; nothing was imported" in message


@pytest.mark.parametrize("bad", ["-0.1", "nan", "inf", "abc", None])
@pytest.mark.parametrize("column", ["qty", "quote_volume"])
def test_a_quantity_that_is_none_is_refused(column, bad):
    frame = trade(quote_volume=["21"]).with_columns(pl.Series(column, [bad], dtype=pl.String))
    if column == "quote_volume" and bad is None:
        assert rows_of(frame)["quote_volume"].to_list() == [None]
    else:
        assert f"line 2: {column}={bad!r}, but a quantity is a finite number" in refusal(frame)


@pytest.mark.parametrize("bad", [float("nan"), float("inf"), 0.0, -1.0, None])
def test_typed_prices_are_judged_alike(bad):
    frame = trade().with_columns(price=pl.Series([bad], dtype=pl.Float64))
    assert "a price is a finite number above zero" in refusal(frame)


def test_the_earliest_bad_row_is_named_and_the_others_counted():
    frame = pl.DataFrame(
        {
            "timestamp": ["1723118400"] * 5,
            "price": ["1", "1", "1", "-1", "1"],
            "qty": ["1", "1", "x", "1", "-2"],
        }
    )
    message = refusal(frame)
    assert "line 4: qty='x'" in message
    assert "(and 2 more rows break a rule)" in message


def test_a_long_value_is_shown_short():
    frame = trade().with_columns(price=pl.lit("9" * 1_000_000 + "x"))
    assert len(refusal(frame)) < 400


# ---- columns -------------------------------------------------------------------------------


@pytest.mark.parametrize("volume", ["qty", "volume", "amount"])
def test_volume_has_three_names(volume):
    assert rows_of(trade().rename({"qty": volume}))["volume"].to_list() == [2.0]


def test_what_follows_from_the_columns_is_added():
    found = rows_of(trade())
    assert found.row(0, named=True) == {
        "symbol": "BTC", "side": None, "trade_id": None, "price": 10.5, "volume": 2.0,
        "quote_volume": 21.0, "received_at": None, VENUE_SEQ: None, ROW: 0,
        "timestamp": datetime(2024, 8, 8, 12, 0, 0, 500_000, tzinfo=UTC),
    }  # fmt: skip
    types = {**PRICES.frame, VENUE_SEQ: pl.Int64(), ROW: pl.Int64()}
    assert found.schema == {name: types[name] for name in found.columns}


@pytest.mark.parametrize(
    ("column", "values", "sides"),
    [
        ("buyer_is_maker", [True, False, None], ["sell", "buy", None]),
        ("buyer_is_maker", ["true", "False", "1"], ["sell", "buy", "sell"]),
        ("side", ["BUY", "sell", None], ["buy", "sell", None]),
    ],
)
def test_the_side_is_the_takers(column, values, sides):
    frame = pl.concat([trade()] * 3).with_columns(pl.Series(column, values))
    assert rows_of(frame)["side"].to_list() == sides


@pytest.mark.parametrize(("column", "value"), [("side", "hold"), ("buyer_is_maker", "maybe")])
def test_an_unknown_side_is_refused(column, value):
    assert f"{column}={value!r}" in refusal(trade(**{column: [value]}))


def test_arrival_is_cut_to_microseconds():
    found = rows_of(trade(recv_ns=["1723118400000001999"]))
    assert found["received_at"].to_list() == [NOON.replace(microsecond=1)]
    assert "recv_ns=" in refusal(trade(recv_ns=["17"]))


@pytest.mark.parametrize(
    ("ids", "wish"),
    [(["7", "9"], [7, 9]), (["a", "b"], [None, None]), ([7, 9], [7, 9]), (["7", None], [7, None])],
)
def test_a_trade_id_is_kept_as_it_is_and_wished_as_seq(ids, wish):
    found = rows_of(pl.concat([trade()] * 2).with_columns(pl.Series("trade_id", ids)))
    assert found["trade_id"].to_list() == [None if n is None else str(n) for n in ids]
    assert found[VENUE_SEQ].to_list() == wish


@pytest.mark.parametrize(
    ("frame", "words"),
    [
        (trade(mood=["x"]), "column 'mood' has no place among trades and would be lost"),
        (trade(quote_volum=["1"]), "did you mean 'quote_volume'"),
        (trade(volume=["1"]), "volume and qty say the same"),
        (trade().drop("qty"), "trades need one of the columns volume, qty, amount"),
        (trade(side=["buy"], buyer_is_maker=["1"]), "side and buyer_is_maker say the same"),
        (trade().drop("price"), "the columns timestamp, qty are of no kind that fxlab knows"),
    ],
)
def test_columns_without_a_place_are_refused(frame, words):
    assert words in refusal(frame)


def test_a_symbol_is_given_once():
    with pytest.raises(errors.ImportRefused, match="no column symbol; say which it is: symbol="):
        parse_rows(trade(), None, STRICT.of(PLACE))
    with pytest.raises(errors.ImportRefused, match="has a column symbol"):
        parse_rows(trade(symbol=["ETH"]), "BTC", STRICT.of(PLACE))
    assert rows_of(trade(symbol=["ETH"]), None)["symbol"].to_list() == ["ETH"]


@pytest.mark.parametrize(
    "bad", ["btc", "B T", "A" * 33, "B\n", "x' OR '1'='1", "..", "../BTC", None]
)
def test_a_symbol_column_is_checked(bad):
    frame = trade(symbol=pl.Series([bad], dtype=pl.String))
    assert "a symbol has capital letters" in refusal(frame, None)


@pytest.mark.parametrize(
    ("column", "values", "words"),
    [
        ("price", pl.Series([True]), "column 'price' is Boolean, not a number"),
        ("price", pl.Series([NOON]), "column 'price' is Datetime"),
        ("price", pl.Series([[1.0]]), "column 'price' is List"),
        ("qty", pl.Series([{"a": 1.0}]), "column 'qty' is Struct"),
        ("timestamp", pl.Series([NOON.date()]), "column 'timestamp' is Date, not a time"),
        ("timestamp", pl.Series([NOON.time()]), "column 'timestamp' is Time"),
        ("trade_id", pl.Series([7.0]), "column 'trade_id' is Float64, not text"),
        ("side", pl.Series([b"buy"]), "column 'side' is Binary"),
    ],
)
def test_a_column_of_another_kind_is_not_made_a_number(column, values, words):
    assert words in refusal(trade().with_columns(values.alias(column)))


@pytest.mark.parametrize("kind", [pl.Categorical, pl.Enum(["BTC"]), pl.String])
def test_text_may_be_stored_as_categories(kind):
    frame = trade(symbol=pl.Series(["BTC"]).cast(kind))
    assert rows_of(frame, None)["symbol"].to_list() == ["BTC"]


@pytest.mark.parametrize("kind", [pl.Decimal(10, 2), pl.Int32, pl.UInt64, pl.Float64])
def test_numbers_may_be_stored_in_any_numeric_type(kind):
    frame = trade().with_columns(price=pl.Series([12]).cast(kind))
    assert rows_of(frame)["price"].to_list() == [12.0]


# ---- books and quotes ----------------------------------------------------------------------


def book(**columns):
    given = {
        "timestamp": ["1723118400"],
        "bid_price_1": ["10"], "bid_qty_1": ["1"], "bid_price_2": ["0"], "bid_qty_2": ["0"],
        "ask_price_1": ["11"], "ask_qty_1": ["2"], **columns,
    }  # fmt: skip
    return pl.DataFrame(given)


def test_a_missing_level_is_null():
    shape, found = parse_rows(book(), "BTC", STRICT.of(PLACE))
    assert shape is BOOKS
    row = found.row(0, named=True)
    assert (row["bid_price_1"], row["bid_qty_1"]) == (10.0, 1.0)
    assert row["bid_price_2"] is row["bid_qty_2"] is row["ask_price_10"] is None
    assert row["is_snapshot"] is True
    types = {**ORDERBOOK.frame, VENUE_SEQ: pl.Int64(), ROW: pl.Int64()}
    assert found.schema == {name: types[name] for name in found.columns}


def test_update_ids_are_kept_and_say_that_rows_are_changes():
    found = rows_of(book(first_update_id=["5"], last_update_id=["9"]))
    assert found.select("first_update_id", VENUE_SEQ, "is_snapshot").row(0) == (5, 9, False)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"bid_price_1": ["-1"]}, "bid_price_1='-1'"),
        ({"ask_price_1": ["nan"]}, "ask_price_1='nan'"),
        ({"bid_qty_1": ["-2"]}, "bid_qty_1='-2'"),
        ({"bid_qty_2": ["5"]}, "bid_qty_2='5', but a quantity is a finite number"),
        ({"ask_qty_1": ["x"]}, "ask_qty_1='x'"),
        ({"last_update_id": ["1.5"]}, "last_update_id='1.5', but it is a whole number"),
        ({"bid_price_11": ["1"]}, "column 'bid_price_11' has no place among books"),
    ],
)
def test_a_level_that_is_none_is_refused(change, words):
    assert words in refusal(book(**change))


def test_quotes_are_books_of_one_level():
    frame = pl.DataFrame({"timestamp": [NOON], "bid": [1.1], "ask": [1.2], "bid_size": [5.0]})
    shape, found = parse_rows(frame, "EURUSD", STRICT.of(PLACE))
    assert shape is QUOTES
    row = found.row(0, named=True)
    assert (row["bid_price_1"], row["ask_price_1"], row["bid_qty_1"]) == (1.1, 1.2, 5.0)
    assert row["ask_qty_1"] is None
    assert "bid=0.0" in refusal(frame.with_columns(bid=0.0))


def test_no_rows_are_understood_too():
    shape, found = parse_rows(trade().head(0), "BTC", STRICT.of(PLACE))
    assert shape is TRADES
    assert found.is_empty()
