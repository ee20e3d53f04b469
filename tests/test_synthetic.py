"""The made-up market: the same for the same seed, and as awkward as a real one."""

from __future__ import annotations

import polars as pl
import pytest

from fxlab import errors
from fxlab.demo import generate


@pytest.fixture(scope="module")
def market():
    return generate(seed=3, seconds=300)


def test_the_same_seed_and_length_give_the_same_bits(market):
    for one, two in zip(market, generate(seed=3, seconds=300), strict=True):
        assert one.equals(two)
    assert not generate(seed=4, seconds=300)[0].equals(market[0])


def test_prices_stand_on_the_grid(market):
    trades, books = market
    prices = [trades["price"], *(books[name] for name in books.columns if "_price_" in name)]
    for column in prices:
        assert column.to_list() == [round(price, 2) for price in column]
        assert column.min() > 0


def test_trades_share_milliseconds_and_stay_in_order(market):
    for trades in market[0].partition_by("symbol"):
        assert trades["timestamp"].is_sorted()
        assert trades["trade_id"].diff().drop_nulls().min() == 1
        assert 0.3 < 1 - trades["timestamp"].n_unique() / trades.height < 0.8
        assert (trades["timestamp"].to_physical() % 1_000).max() == 0
        assert (trades["received_at"] > trades["timestamp"]).all()
        assert trades["qty"].min() > 0


def test_books_are_not_crossed_and_have_ten_levels_in_order(market):
    books = market[1]
    assert (books["ask_price_1"] > books["bid_price_1"]).all()
    for level in range(1, 10):
        assert (books[f"bid_price_{level}"] > books[f"bid_price_{level + 1}"]).all()
        assert (books[f"ask_price_{level}"] < books[f"ask_price_{level + 1}"]).all()
    assert books.null_count().sum_horizontal().item() == 0
    for of_one in books.partition_by("symbol"):
        assert of_one.height == 3_000
        expected = of_one["last_update_id"].shift(1) + 1
        assert (of_one["first_update_id"] == expected).slice(1).all()


def test_trades_happen_at_the_best_price_of_the_book_before(market):
    for trades, books in zip(*(frame.partition_by("symbol") for frame in market), strict=True):
        joined = trades.join_asof(books, on="timestamp")
        at_best = pl.when(pl.col("side") == "buy").then("ask_price_1").otherwise("bid_price_1")
        assert joined.select((pl.col("price") == at_best).all()).item()


def test_buyers_push_the_price_up(market):
    for trades in market[0].partition_by("symbol"):
        flow = pl.when(pl.col("side") == "buy").then("qty").otherwise(-pl.col("qty"))
        minutes = trades.group_by_dynamic("timestamp", every="5s").agg(
            flow.sum().alias("flow"),
            (pl.col("price").last() - pl.col("price").first()).alias("move"),
        )
        assert minutes.select(pl.corr("flow", "move")).item() > 0.2


def test_it_can_be_imported_and_is_all_there(lab, market, unique):
    name = unique("synthetic")
    trades, books = market
    lab.import_frames({"prices": trades, "orderbook": books}, session_id=name)
    session = lab.session(name)
    assert session.source == "synthetic"
    assert session.price_decimals == {"BTC_USDT": 2, "ETH_USDT": 2}
    counted = {(symbol, kind): rows for symbol, kind, rows in session.counts().iter_rows()}
    for kind, frame in (("prices", trades), ("orderbook", books)):
        for symbol, rows in frame["symbol"].value_counts().iter_rows():
            assert counted[symbol, kind] == rows


@pytest.mark.parametrize("seconds", [0, -1, 1.5, "60"])
def test_a_length_is_a_number_of_seconds(seconds):
    with pytest.raises(errors.InvalidParameter, match="seconds="):
        generate(seconds=seconds)


def test_symbols_are_checked():
    with pytest.raises(errors.InvalidIdentifier):
        generate(seconds=1, symbols=["x' OR '1'='1"])
