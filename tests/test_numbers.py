"""A number is a number whoever made it: numpy's are Python's, True and text are none."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest
from markets import random_walk

import fxlab
from fxlab._questdb import sql
from fxlab._ticks import level_columns
from fxlab._times import integer, number, parse_duration
from fxlab.backtester.metrics._overfitting import _check_blocks
from fxlab.backtester.metrics._validation import purged_kfold
from fxlab.collect._config import Plan
from fxlab.errors import InvalidParameter
from fxlab.replayer._cursor import check_speed
from fxlab.sweeper._threads import check_workers

NONE = [True, np.True_, "3", None, [3], np.array([3, 4]), b"3", 3 + 0j]


@pytest.mark.parametrize("kind", [int, np.int8, np.uint64, np.int64])
def test_an_integer_is_one_of_any_library(kind):
    found = integer(kind(3), 0, 10)
    assert (found, type(found)) == (3, int)
    assert integer(kind(3), 4) is None
    assert integer(kind(3), 0, 2) is None


@pytest.mark.parametrize("value", [*NONE, 3.0, np.float64(3.0), math.nan])
def test_what_is_no_integer(value):
    assert integer(value) is None


@pytest.mark.parametrize("value", [1.5, np.float32(1.5), np.float64(1.5)])
def test_a_number_is_one_of_any_library(value):
    found = number(value, 1.0, 2.0)
    assert (found, type(found)) == (1.5, float)
    assert number(value, 1.6) is None
    assert (number(np.int64(2)), type(number(np.int64(2)))) == (2, int)


@pytest.mark.parametrize("value", [*NONE, math.nan, np.float64("nan")])
def test_what_is_no_number(value):
    assert number(value) is None


TAKERS = {
    "folds": lambda value: purged_kfold(0, 10**9, folds=value),
    "blocks": _check_blocks,
    "depth": level_columns,
    "workers": check_workers,
    "count": lambda value: sql.count(value, "limit"),
    "speed": check_speed,
    "duration": lambda value: parse_duration(value, "x"),
    "book_depth": lambda value: Plan.of("mock", "BTC_USDT", book_depth=value).book_depth,
    "seed": lambda value: fxlab.Latency.uniform("1ms", "2ms", seed=value).seed,
    "warmup": lambda value: fxlab.Signals(target=pl.lit(1.0), warmup=value).warmup,
    "fee": lambda value: fxlab.Execution(taker_bps=value).taker_bps,
    "step": lambda value: fxlab.Execution(lot_size={"BTC_USDT": value}).lot_size["BTC_USDT"],
}


@pytest.mark.parametrize("take", TAKERS.values(), ids=TAKERS)
def test_each_argument_takes_numpy_s_and_keeps_python_s(take):
    found = take(np.int64(4))
    assert found == take(4)
    assert not isinstance(found, np.generic)
    for value in (True, "four"):
        with pytest.raises(InvalidParameter):
            take(value)


def test_a_backtest_and_a_sweep_take_numpy_s_numbers(lab, unique):
    walk = random_walk(900, symbol="BTC_USDT").drop("bid_qty_1", "ask_qty_1")
    name = unique("numbers")
    lab.import_frame(walk, "prices", session_id=name)
    session = lab.session(name)
    five, grid = np.int64(5), {"fast": np.arange(3, 6), "slow": [np.int32(20)]}
    options = {"chunk_rows": np.int64(100), "days_per_year": np.int64(365), "capital": np.int64(50)}
    one = fxlab.backtest(session, "sma_cross", {"fast": five}, **options)
    plain = {key: int(value) for key, value in options.items()}
    other = fxlab.backtest(session, "sma_cross", {"fast": 5}, **plain)
    assert one.fingerprint == other.fingerprint
    assert json.dumps(dict(lab.run(one.save(lab))), default=str)
    swept = fxlab.sweep(
        session, "sma_cross", grid, search="random", points=np.int64(2), seed=np.int64(7), lab=lab
    )
    assert swept.table.height == 2
