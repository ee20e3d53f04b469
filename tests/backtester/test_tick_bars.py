"""Bars for decisions: the same candles that people see, and exact where theirs need not be."""

from __future__ import annotations

import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import markets, random_walk

from fxlab.backtester._source import with_price_ticks
from fxlab.backtester.strategy._decisions import SCHEMA, Bars, sources_of
from fxlab.sessions._candles import candles, check_interval

SECOND = 1_000_000


@settings(max_examples=100, deadline=None)
@given(frame=markets(), every=st.sampled_from(["1s", "5s", "1m", "1h"]))
def test_they_are_the_candles_that_people_see(frame, every):
    shown = candles([frame], every)
    found = Bars(frame, check_interval(every)).table()
    for name in ("timestamp", "open", "high", "low", "close", "trades"):
        assert found[name].to_list() == shown[name].to_list(), name


def test_ticks_and_their_bars_know_each_other():
    frame = random_walk(300)
    bars = Bars(frame, 2 * SECOND)
    numbers = bars.bar_of_rows
    assert numbers[0] == 0
    assert numbers[-1] == bars.height - 1
    time = frame["timestamp"].to_physical().to_numpy() // (2 * SECOND)
    for number, (first, last) in enumerate(zip(bars.first_rows, bars.last_rows, strict=True)):
        assert len(set(time[first : last + 1])) == 1
        assert (numbers[first : last + 1] == number).all()


def test_prices_are_there_in_ticks_where_they_lie_on_a_grid():
    frame = random_walk(100)
    assert "open_ticks" not in Bars(frame, SECOND).names
    found = Bars(with_price_ticks(frame, 2), SECOND).table()
    for name in ("open", "high", "low", "close"):
        assert [n / 100 for n in found[f"{name}_ticks"]] == found[name].to_list()


def test_only_what_is_asked_for_is_computed_and_other_columns_are_the_last():
    frame = random_walk(100).with_columns(colour=pl.Series(["red", "blue"] * 50))
    bars = Bars(frame, 5 * SECOND)
    assert bars.table({"close", "colour", "nothing"}).columns == ["timestamp", "close", "colour"]
    assert bars.table()["colour"].to_list() == frame["colour"].gather(bars.last_rows).to_list()
    assert "price" not in bars.names


def test_sums_are_in_the_order_of_the_rows():
    frame = random_walk(2_000, 3)
    bars = Bars(frame, 60 * SECOND)
    found = bars.table({"volume", "vwap"})
    for number, (first, last) in enumerate(zip(bars.first_rows, bars.last_rows, strict=True)):
        volume = money = 0.0
        for price, size in frame[first : last + 1].select("price", "volume").iter_rows():
            volume, money = volume + size, money + size * price
        assert found["volume"][number] == volume
        assert found["vwap"][number] == money / volume


@pytest.mark.parametrize(
    ("names", "columns"),
    [
        (["close"], ["price", "timestamp"]),
        (["high_ticks", "trades"], ["price_ticks", "timestamp"]),
        (["vwap"], ["price", "timestamp", "volume"]),
        (["quote_volume", "mid"], ["mid", "quote_volume", "timestamp"]),
    ],
)
def test_bars_are_made_of_these_columns_of_ticks(names, columns):
    assert sources_of(names) == columns


def test_no_ticks_make_no_bars():
    found = Bars(random_walk(3).clear(), SECOND).table()
    assert found.height == 0
    assert found.schema["timestamp"] == SCHEMA["timestamp"]
