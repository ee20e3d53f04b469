"""The assumptions about orders and their refusals."""

from __future__ import annotations

from datetime import timedelta

import pytest

from fxlab import Execution, errors
from fxlab.backtester.execution import check_capital


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
    ],
)
def test_latency_is_given_as_people_write_it(latency, micros):
    assert Execution(latency=latency).latency_us == micros


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"fill": "same_tick"}, "is not a fill rule"),
        ({"taker_bps": 10_001}, "from -100 to 1000"),
        ({"taker_bps": float("nan")}, "is not a number"),
        ({"taker_bps": "5"}, "is not a number"),
        ({"slippage_bps": -1}, "from 0 to 1000"),
        ({"latency": "-1s"}, "is not a duration"),
        ({"latency": "5 parsecs"}, "is not a duration"),
        ({"latency": -1.0}, "is not a duration"),
        ({"max_leverage": 1_000}, "from 0 to 100"),
    ],
)
def test_bad_assumptions_are_refused(values, words):
    with pytest.raises(errors.InvalidParameter, match=words):
        Execution(**values)


def test_assumptions_read_on_one_line():
    text = str(Execution(taker_bps=2.5, latency="50ms"))
    assert text == "next_trade, fee 2.5 bps, slippage 0 bps, latency 50 ms"


@pytest.mark.parametrize("capital", [0, -1, float("inf"), float("nan"), "1", True, None])
def test_capital_is_money_above_zero(capital):
    with pytest.raises(errors.InvalidParameter):
        check_capital(capital)
