"""The assumptions about orders: their refusals, and how they are kept."""

from __future__ import annotations

import json
from dataclasses import fields
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markets import random_walk

import fxlab
from fxlab import Execution, Latency, errors
from fxlab.backtester._kernel.records import TERMS
from fxlab.backtester.options import check_capital


@pytest.mark.parametrize(
    ("latency", "micros"),
    [
        ("50ms", 50_000),
        ("1.5s", 1_500_000),
        ("1h30m", 5_400_000_000),
        (0.25, 250_000),
        (2, 2_000_000),
        (timedelta(microseconds=7), 7),
        ("0s", 0),
        (Latency.fixed("3ms"), 3_000),
        (Latency.samples(["1ms", "2ms", "90ms"]), 2_000),
        (Latency.measured(), 0),
    ],
)
def test_latency_is_given_as_people_write_it(latency, micros):
    delays = Execution(latency=latency).delays.table(["drawn"])
    assert int(np.median(delays)) == micros


NAN = float("nan")


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fill": "same_tick"}, "fill='same_tick' is not a fill rule; known: next_trade, book"),
        ({"fill": "nex_trade"}, "did you mean 'next_trade'"),
        ({"fill": None}, "is not a fill rule"),
        ({"taker_bps": 10_001}, "from -100 to 1000"),
        ({"taker_bps": NAN}, "is not a number"),
        ({"taker_bps": "5"}, "is not a number"),
        ({"taker_bps": None}, "taker_bps=None is not a number"),
        ({"maker_bps": -101}, "maker_bps=-101 is not a number from -100 to 1000"),
        ({"maker_bps": True}, "maker_bps=True is not a number"),
        ({"slippage_bps": -1}, "from 0 to 1000"),
        ({"impact_bps": -1}, "impact_bps=-1 is not a number from 0"),
        ({"impact_notional": 0}, "impact_notional=0 is not a number"),
        ({"impact_notional": None}, "impact_notional=None"),
        ({"latency": "-1s"}, "is not a duration"),
        ({"latency": "5 parsecs"}, "is not a duration"),
        ({"latency": -1.0}, "is not a duration"),
        ({"max_book_age": "old"}, "max_book_age='old' is not a duration"),
        ({"max_book_age": -1}, "max_book_age=-1 is not a duration"),
        ({"beyond_depth": "ignore"}, "is not a rule for the remainder; known: cancel, last_level"),
        ({"touch": 1}, "touch=1 is not True or False"),
        ({"queue": "yes"}, "queue='yes' is not True or False"),
        ({"queue": True}, "queue=True needs the books.*use fill='book', or queue=False"),
        ({"across_gaps": None}, "across_gaps=None is not True or False"),
        ({"close_at_end": 0}, "close_at_end=0 is not True or False"),
        ({"shared_cash": "no"}, "shared_cash='no' is not True or False"),
        ({"lot_size": -1}, "lot_size=-1 is not a number from 0"),
        ({"lot_size": None}, "lot_size=None"),
        ({"lot_size": {"A": 1, "B": -1}}, "lot_size=-1"),
        ({"min_notional": {"A": NAN}}, "min_notional=nan"),
        ({"min_notional": "5"}, "min_notional='5'"),
        ({"tick_size": [0.1]}, "tick_size="),
        ({"tick_size": float("inf")}, "tick_size=inf"),
        ({"max_leverage": 1_000}, "from 0 to 100"),
        ({"max_leverage": -1}, "from 0 to 100"),
        ({"maintenance_margin": 1.0}, "maintenance_margin=1.0 is not a number from 0 to 0.99"),
        ({"liquidation_bps": -5}, "liquidation_bps=-5"),
        ({"rebalance": 0}, "rebalance=0 is not a number"),
        ({"rebalance": "often"}, "rebalance='often'"),
        ({"funding": 0.0001}, "funding=0.0001 is not a frame"),
        ({"funding": ((1, 2),)}, "is not a frame"),
    ],
)
def test_bad_assumptions_are_refused(values, words):
    with pytest.raises(errors.InvalidParameter, match=words):
        Execution(**values)


def test_assumptions_are_named():
    with pytest.raises(TypeError):
        Execution("next_trade")


def test_orders_meet_books_only_where_there_are_books():
    with pytest.raises(errors.InvalidParameter, match=r"has none of TICKS.*use fill='next_trade'"):
        fxlab.backtest(random_walk(20), "buy_and_hold", execution=Execution(fill="book"))


@pytest.mark.parametrize(
    ("columns", "words"),
    [
        ({}, "TICKS has ticks without received_at"),
        ({"received_at": pl.col("timestamp") - pl.duration(microseconds=1)}, "20 of 20 ticks"),
        ({"received_at": pl.when(pl.col("seq") > 3).then("timestamp")}, "without received_at"),
    ],
)
def test_a_latency_that_was_not_measured_is_refused(columns, words):
    frame = random_walk(20).with_columns(**columns)
    with pytest.raises(errors.InvalidParameter, match=words):
        fxlab.backtest(frame, "buy_and_hold", execution=Execution(latency=Latency.measured()))


# ---- As text and as plain values ----


def test_assumptions_read_on_one_line():
    text = str(Execution(taker_bps=2.5, latency="50ms"))
    assert text == "next_trade, fee 2.5 bps, slippage 0 bps, latency 50 ms"
    long = Execution(
        fill="book",
        max_book_age="250ms",
        lot_size={"A": 0.1},
        funding=funding(),
        rebalance=0.05,
        touch=True,
    )
    assert str(long) == (
        "book, fee 5 bps, slippage 0 bps, latency 0 ms, max_book_age 0.25 s, touch True, "
        "lot_size {'A': 0.1}, funding of 2 rates, rebalance 0.05"
    )
    assert str(Execution(max_book_age=None)).endswith(", max_book_age None")
    assert str(Execution(max_book_age=5)) == str(Execution())


def funding():
    times = pl.Series("timestamp", [2_000, 1_000]).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame([times]).with_columns(symbol=pl.Series([None, "A"]), rate=pl.lit(0.001))


steps = st.just(0.0) | st.floats(1e-22, 1e6)
per_symbol = steps | st.dictionaries(st.sampled_from("ABC"), steps)
assumptions = st.fixed_dictionaries(
    {},
    optional={
        "fill": st.just("book"),
        "taker_bps": st.floats(-100, 1_000),
        "maker_bps": st.none() | st.floats(-100, 1_000),
        "impact_bps": st.floats(0, 1_000),
        "impact_notional": st.floats(1, 1e18),
        "latency": st.sampled_from(
            [
                "50ms",
                0.3,
                Latency.samples(["1ms", 0.2], seed=4),
                Latency.lognormal("1ms", 0.25, seed=9),
                Latency.measured("3us"),
            ]
        ),
        "max_book_age": st.sampled_from([None, "5s", "1us", 1_234.567891]),
        "beyond_depth": st.sampled_from(["cancel", "last_level"]),
        "lot_size": per_symbol,
        "min_notional": per_symbol,
        "fee_per_order": per_symbol,
        "min_fee": per_symbol,
        "tick_size": per_symbol,
        "max_leverage": st.floats(0, 100),
        "funding": st.sampled_from([None, funding()]),
        "instruments": st.sampled_from([None, "recorded", "none"]),
        "rebalance": st.none() | st.floats(0.001, 9),
        "shared_cash": st.booleans(),
        "close_at_end": st.booleans(),
    },
)


@given(assumptions)
def test_assumptions_survive_json(values):
    execution = Execution(**values)
    kept = json.loads(json.dumps(execution.as_dict()))
    again = Execution.from_dict(kept)
    assert again == execution
    assert str(again) == str(execution)
    assert again.as_dict() == execution.as_dict()
    assert again.terms(7).tobytes() == execution.terms(7).tobytes()
    assert again.delays.table(("A",)).tobytes() == execution.delays.table(("A",)).tobytes()
    known = {spec.name for spec in fields(Execution)}
    assert set(kept) == known - ({"instruments"} if execution.instruments is None else set())


def test_assumptions_of_the_first_version_are_read():
    stored = {
        "fill": "next_trade",
        "taker_bps": 2.0,
        "slippage_bps": 1.0,
        "max_leverage": 3.0,
        "latency_us": 50_001,
    }
    known = Execution(taker_bps=2.0, slippage_bps=1.0, max_leverage=3.0, latency="50001us")
    assert Execution.from_dict(stored) == known
    assert stored["latency_us"] == 50_001  # not changed


# ---- As the kernel reads them ----


def test_steps_of_a_symbol():
    execution = Execution(lot_size={"A": 0.1}, tick_size=0.25)
    assert execution.for_symbol("lot_size", "A") == 0.1
    assert execution.for_symbol("lot_size", "B") == 0.0
    assert execution.for_symbol("tick_size", "B") == 0.25
    assert execution.for_symbol("min_notional", "A") == 0.0


def test_the_kernel_reads_fractions_and_microseconds():
    (plain,) = Execution().terms(60)
    assert plain.dtype == TERMS
    assert (plain["taker"], plain["maker"]) == (0.0005, 0.0005)  # as taker unless given
    assert np.isnan(plain["rebalance"])
    assert (plain["max_holding"], plain["leap"], plain["interval"]) == (-1, 1, 60)
    assert (plain["max_book_age"], plain["book"]) == (5_000_000, 0)
    (other,) = Execution(
        fill="book",
        maker_bps=-1.0,
        impact_bps=3.0,
        impact_notional=7.0,
        liquidation_bps=20.0,
        maintenance_margin=0.1,
        max_book_age=None,
        beyond_depth="last_level",
        queue=True,
        shared_cash=True,
        across_gaps=True,
        touch=True,
        rebalance=0.5,
    ).terms(1)
    assert (other["maker"], other["impact"], other["liquidation"]) == (-0.0001, 0.0003, 0.002)
    assert (other["impact_notional"], other["maintenance"], other["rebalance"]) == (7.0, 0.1, 0.5)
    assert other["max_book_age"] > 10**15
    for name in ("book", "last_level", "queue", "shared", "across_gaps", "touch"):
        assert other[name] == 1, name


@pytest.mark.parametrize("capital", [0, -1, float("inf"), NAN, "1", True, None])
def test_capital_is_money_above_zero(capital):
    with pytest.raises(errors.InvalidParameter):
        check_capital(capital)
