"""What a strategy wants is checked before a tick is read."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest

import fxlab
from fxlab import errors

PRICE = pl.col("price")


def test_a_target_alone_is_enough():
    signals = fxlab.Signals(target=PRICE > 1)
    assert signals.roots == {"price"}
    assert (signals.max_holding_us, signals.cooldown_us, signals.every_us) == (None, 0, None)
    assert fxlab.Signals(PRICE > 1).lookback is None


def test_durations_are_microseconds():
    signals = fxlab.Signals(
        target=PRICE, max_holding=timedelta(minutes=1), cooldown=1.5, every="2s", lookback=7
    )
    assert (signals.max_holding_us, signals.cooldown_us) == (60_000_000, 1_500_000)
    assert signals.every_us == 2_000_000
    assert signals.lookback is None  # bars need all ticks


def test_roots_are_the_columns_of_all_expressions():
    signals = fxlab.Signals(
        target=pl.col("price:ETH") < PRICE,
        stop_loss=pl.col("spread") / PRICE,
        take_profit=0.1,
        limit=pl.col("bid_price_1"),
    )
    assert signals.roots == {"price", "price:ETH", "spread", "bid_price_1"}
    assert set(signals.expressions) == {"target", "stop_loss", "limit"}


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"target": 1.0}, r"target=1.0 is not a Polars expression; .*pl.lit"),
        ({"target": "up"}, "not a Polars expression"),
        ({"stop_loss": 0}, r"stop_loss=0 is no exit; .*0.01 is 1 %"),
        ({"stop_loss": -0.01}, "is no exit"),
        ({"stop_loss": 1.0}, "below 1"),
        ({"stop_loss": float("nan")}, "is no exit"),
        ({"trailing_stop": 5}, "never be reached"),
        ({"trailing_stop": "1%"}, "is no exit"),
        ({"take_profit": 0.0}, "above 0: 0.02 is 2 %"),
        ({"take_profit": True}, "is no exit"),
        ({"limit": 99.5}, "limit=99.5 is not a Polars expression"),
        ({"reentry": "signl"}, r"known: change, signal\. did you mean 'signal'"),
        ({"max_holding": "soon"}, "max_holding='soon' is not a duration"),
        ({"max_holding": 0}, "must be above zero"),
        ({"cooldown": -1}, "cooldown=-1 is not a duration"),
        ({"every": "1 minute"}, "every='1 minute' is not a duration"),
        ({"every": "0s"}, "must be above zero"),
        ({"warmup": -1}, "warmup=-1 is not a number of rows"),
        ({"warmup": 2.0}, "not a number of rows"),
        ({"lookback": True}, "lookback=True is not a number of rows"),
    ],
)
def test_what_cannot_be_meant_is_refused(given, words):
    with pytest.raises(errors.InvalidParameter, match=words):
        fxlab.Signals(**{"target": PRICE, **given})


def test_a_take_profit_may_be_more_than_the_price():
    assert fxlab.Signals(target=PRICE, take_profit=1.5).take_profit == 1.5


def test_constants_of_a_frame_strategy_are_kept():
    signals = fxlab.Signals.from_frame(
        lambda bars: bars, every="1m", warmup=3, reentry="signal", cooldown="1s", max_holding="1h"
    )
    assert (signals.roots, signals.expressions, signals.warmup) == (None, {}, 3)
    assert (signals.every_us, signals.max_holding_us) == (60_000_000, 3_600_000_000)
