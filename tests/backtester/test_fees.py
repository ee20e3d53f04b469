"""Fees by unit, by order, and the least of an order: what is paid, and what is left to buy with."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import random_walk

import fxlab
from fxlab import Execution

PRICES = [10.0, 10.0, 20.0, 20.0, 25.0]


def frame_of(prices, symbol="X"):
    times = pl.datetime_range(
        pl.datetime(2024, 8, 8, time_zone="UTC"),
        pl.datetime(2024, 8, 8, time_zone="UTC") + pl.duration(minutes=len(prices) - 1),
        "1m",
        eager=True,
        time_unit="us",
    )
    return pl.DataFrame({"timestamp": times, "price": prices}).with_columns(
        symbol=pl.lit(symbol), volume=1.0
    )


def run(targets, *, capital=1_000.0, prices=PRICES, **fees):
    frame = frame_of(prices).with_columns(target=pl.Series(targets, dtype=pl.Float64))

    def follow():
        return fxlab.Signals(pl.col("target"))

    terms = Execution(**{"taker_bps": 0.0, "max_leverage": 1.0} | fees)
    return fxlab.backtest(frame, follow, execution=terms, capital=capital)


HOLD = [1.0, None, None, None, None]
FLIP = [1.0, None, -1.0, None, None]


def test_a_position_is_sized_so_that_it_pays_its_fees():
    result = run(HOLD, fee_per_order=2.0, fee_per_unit=0.01)
    (fill,) = result.fills.to_dicts()
    assert fill["qty"] == pytest.approx((1_000 - 2) / 10.01)
    assert fill["fee"] == pytest.approx(2 + 0.01 * fill["qty"])
    assert fill["qty"] * 10 + fill["fee"] == pytest.approx(1_000)  # no cash is left, none is owed
    assert result.trades["fees"].to_list() == pytest.approx([fill["fee"]])
    assert result.metrics["fees"] == pytest.approx(fill["fee"])


def test_fees_by_unit_and_order_come_on_top_of_those_of_the_notional():
    (fill,) = run(HOLD, taker_bps=10, fee_per_order=2.0, fee_per_unit=0.01).fills.to_dicts()
    assert fill["fee"] == pytest.approx(fill["qty"] * 10 * 0.001 + 2 + 0.01 * fill["qty"])
    assert fill["qty"] * 10 + fill["fee"] == pytest.approx(1_000)


@pytest.mark.parametrize(("least", "paid"), [(5.0, 5.0), (0.1, 998 * 0.002 / 0.998 / 1.002)])
def test_an_order_pays_at_least_the_least(least, paid):
    (fill,) = run(HOLD, taker_bps=20, min_fee=least).fills.to_dicts()
    assert fill["fee"] == pytest.approx(paid, rel=1e-12)
    assert fill["qty"] * 10 + fill["fee"] == pytest.approx(1_000)


def test_a_change_of_side_is_one_order_whose_fee_both_round_trips_share():
    result = run(FLIP, fee_per_order=3.0)
    first, flip = result.fills.to_dicts()
    assert (first["fee"], flip["fee"]) == (3.0, 3.0)
    bought = (1_000 - 3) / 10
    sold = (bought * 20 - 3) / 20
    assert flip["qty"] == pytest.approx(-bought - sold)
    closed, opened = result.trades["fees"].to_list()
    assert closed == pytest.approx(3 + 3 * bought / (bought + sold))
    assert opened == pytest.approx(3 * sold / (bought + sold))


def test_what_does_not_pay_its_fee_is_too_small():
    for fees in ({"min_fee": 10.0}, {"fee_per_order": 10.0}):
        (order,) = run(HOLD, capital=10.0, **fees).orders.to_dicts()
        assert order["status"] == "below the smallest order"
    assert run(HOLD, capital=10.01, fee_per_order=10.0).fills["qty"].to_list() == pytest.approx(
        [0.001]
    )


def test_fees_of_a_symbol_are_its_own():
    frame = pl.concat([frame_of(PRICES, "A"), frame_of(PRICES, "B")]).sort("timestamp", "symbol")
    terms = Execution(taker_bps=0, fee_per_order={"B": 4.0})
    fills = fxlab.backtest(frame, "buy_and_hold", execution=terms).fills
    assert dict(fills.select("symbol", "fee").rows()) == {"A": 0.0, "B": 4.0}


def test_an_order_that_walks_a_book_to_change_its_side_pays_once():
    quotes = frame_of(PRICES).select(
        "timestamp",
        "symbol",
        bid_price_1=pl.col("price"),
        bid_qty_1=pl.lit(1e6),
        ask_price_1=pl.col("price") + 0.01,
        ask_qty_1=pl.lit(1e6),
        target=pl.Series(FLIP, dtype=pl.Float64),
    )

    def follow():
        return fxlab.Signals(pl.col("target"))

    for fee, paid in ({"fee_per_order": 3.0}, [3.0, 3.0, 0.0]), ({"min_fee": 3.0}, [3.0, 3.0, 0.0]):
        terms = Execution(fill="book", max_book_age=None, taker_bps=0, **fee)
        result = fxlab.backtest(quotes, follow, execution=terms, capital=1_000.0)
        assert result.fills["fee"].to_list() == pytest.approx(paid)  # the flip is two fills
        assert result.orders["fee"].to_list() == pytest.approx([3.0, 3.0])


@settings(deadline=None, max_examples=60)
@given(
    order=st.floats(0, 30),
    unit=st.floats(0, 3),
    least=st.floats(0, 60),
    bps=st.sampled_from([0.0, 5.0, 100.0]),
    seed=st.integers(0, 50),
)
def test_an_unleveraged_account_owes_no_money(order, unit, least, bps, seed):
    frame = random_walk(60, seed=seed)
    terms = Execution(taker_bps=bps, fee_per_order=order, fee_per_unit=unit, min_fee=least)
    result = fxlab.backtest(frame, "buy_and_hold", execution=terms, capital=5_000.0)
    spent = (result.fills["qty"] * result.fills["price"] + result.fills["fee"]).sum()
    assert spent <= 5_000.0 * (1 + 1e-12)
    for fill in result.fills.to_dicts():
        due = order + abs(fill["qty"]) * (unit + fill["price"] * bps / 10_000)
        assert fill["fee"] == pytest.approx(max(due, least))


def test_multiplied_costs_are_all_of_them():
    given_ = Execution(
        taker_bps=2, maker_bps=-1, slippage_bps=3, impact_bps=4, fee_per_order=5, min_fee={"A": 6}
    )
    double = given_.scaled(2)
    assert (double.taker_bps, double.maker_bps, double.slippage_bps) == (4, -2, 6)
    assert (double.impact_bps, double.fee_per_order, double.min_fee) == (8, 10, {"A": 12})
    assert Execution().scaled(0).maker_bps is None
