"""A part of a chart's time: its ticks and one on either side, nothing lost, its note exact."""

from __future__ import annotations

import doctest
from dataclasses import replace
from datetime import timedelta

import numpy as np
import polars as pl
import pytest
from chart_examples import books, candles, ticks
from hypothesis import given
from hypothesis import strategies as st
from markets import START, random_walk

import fxlab
from fxlab import charts
from fxlab._times import from_micros, to_micros
from fxlab.charts._style import View, gap_starts, reach, sample_range, usual_step

steps = st.lists(st.sampled_from([0, 1, 1_000, 1_000_000]), min_size=1, max_size=80)


def frame_of(moves, values):
    times = pl.Series(START + np.cumsum(moves)).cast(pl.Datetime("us", "UTC"))
    return pl.DataFrame({"timestamp": times, "price": values.astype(float)})


@given(
    steps,
    st.integers(0, 2**31),
    st.tuples(st.integers(-5_000, 9_000_000), st.integers(1, 9_000_000)),
    st.integers(1, 20),
)
def test_a_range_keeps_its_extremes_and_one_row_on_either_side(moves, seed, where, chunk):
    rng = np.random.default_rng(seed)
    frame = frame_of(moves, rng.integers(-9, 9, len(moves)))
    low, high = START + where[0], START + where[0] + where[1]
    sampled, count = sample_range(frame.iter_slices(chunk), low, high, 8)
    times = pl.col("timestamp").to_physical()
    inside = frame.filter(times >= low, times < high)
    assert count == inside.height
    drawn = sampled.filter(times >= low, times < high)
    assert drawn.height <= 8
    assert (drawn["price"].min(), drawn["price"].max()) == (
        inside["price"].min(),
        inside["price"].max(),
    )
    before, after = frame.filter(times < low), frame.filter(times >= high)
    assert sampled.filter(times < low).equals(before.tail(1))
    assert sampled.filter(times >= high).equals(after.head(1))


@given(steps, st.integers(-5_000, 9_000_000), st.integers(1, 9_000_000), st.data())
def test_what_is_read_has_a_row_on_either_side(moves, start, length, data):
    """A sample of the whole, of any of its rows, says from where to where."""
    frame = frame_of(moves, np.arange(len(moves)))
    kept = data.draw(st.sets(st.integers(0, len(moves) - 1), max_size=5)) | {0, len(moves) - 1}
    low, high = START + start, START + start + length
    first, last = reach(frame[sorted(kept)], low, high)
    assert first <= low
    assert last >= high
    times = frame["timestamp"].to_physical()
    read = times.filter((times >= first) & (times < last))
    if (times < low).any():
        assert read.filter(read <= low).len()
    if (times >= high).any():
        assert read.filter(read >= high).len()


def test_nothing_read_is_no_ticks():
    frame, count = sample_range([], 0, 1, 8)
    assert (frame.height, count) == (0, 0)
    assert frame.columns == ["timestamp", "price"]


def test_what_is_usual_in_the_whole_is_no_silence_in_a_part():
    bursts = np.array([0.0, 0.001, 0.002, 500.0, 500.001, 1_000.0])
    assert gap_starts(bursts).tolist() == [2, 4]
    assert gap_starts(bursts, usual=600.0).tolist() == []
    assert usual_step(0, 10_000_000, 1_000) == 500.0


# ---- runs ----------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def market():
    return random_walk(20_000)


@pytest.fixture(scope="module")
def result(market):
    return fxlab.backtest(market, "sma_cross", {"fast": 5, "slow": 50})


def note_of(figure):
    return figure.layout.annotations[-1].text.replace("<br>", " ")


def trace(figure, name):
    return next(one for one in figure.data if one.name == name)


def test_a_run_is_drawn_over_a_part_of_its_time(result, market):
    start, end = market["timestamp"][5_000], market["timestamp"][5_000] + timedelta(minutes=1)
    figure = result.plot(start, end)
    inside = market.filter(pl.col("timestamp").is_between(start, end, closed="left"))
    assert note_of(figure) == f"{inside.height:,} of 20,000 ticks in view"
    prices = figure.data[0]
    edges = to_micros(start) / 1_000, to_micros(end) / 1_000
    seen = (prices.x >= edges[0]) & (prices.x < edges[1]) & np.isfinite(prices.y)
    assert prices.y[seen].tolist() == inside["price"].to_list()
    assert prices.x[0] < edges[0] < edges[1] <= prices.x[-1]
    assert figure.layout.xaxis.range == pytest.approx(edges)
    assert figure.layout.xaxis3.range == pytest.approx(edges)
    fills = result.fills.filter(pl.col("timestamp").is_between(start, end, closed="left"))
    drawn = [len(one.x) for one in figure.data if one.mode == "markers"]
    assert sum(drawn) == fills.height > 0
    equity = trace(figure, "equity")
    assert equity.x[0] < edges[0]
    assert equity.x[-1] >= edges[1]


def test_a_spike_of_one_tick_is_seen_at_its_price(market):
    spike = 10_011
    bent = market.with_columns(
        pl.when(pl.int_range(pl.len()) == spike)
        .then(pl.col("price") + 0.03)
        .otherwise(pl.col("price"))
        .alias("price")
    )
    price, at = bent["price"][spike], bent["timestamp"][spike]
    result = fxlab.backtest(bent, "buy_and_hold")
    second = timedelta(seconds=1)
    prices = result.plot(at - 30 * second, at + 30 * second).data[0]
    assert (to_micros(at) / 1_000, price) in list(zip(prices.x, prices.y, strict=True))


def test_the_example_of_a_part_runs():
    names = {"fxlab": fxlab, "ticks": random_walk(1_500).drop("bid_qty_1", "ask_qty_1")}
    (test,) = doctest.DocTestFinder().find(fxlab.Result.plot, "plot", globs=names)
    assert test.examples
    assert doctest.DocTestRunner().run(test).failed == 0


@pytest.mark.parametrize("wide", [True, False])
def test_the_whole_is_the_whole(result, wide):
    edges = (result.first, result.last + timedelta(hours=1)) if wide else (None, None)
    assert result.plot(*edges) == result.plot()


def test_one_end_may_be_open(result, market):
    half = market["timestamp"][10_000]
    count = market.filter(pl.col("timestamp") >= half).height
    assert f"{count:,} of 20,000 ticks in view" in note_of(result.plot(start=half))
    assert f"{20_000 - count:,} of 20,000 ticks in view" in note_of(result.plot(end=half))


@pytest.mark.parametrize("hours", [-1_000, 1_000])
def test_beside_the_run_there_are_no_ticks(result, hours):
    start = result.first + timedelta(hours=hours)
    assert note_of(result.plot(start, start + timedelta(hours=1))) == "no ticks in view, of 20,000"


def test_between_two_ticks_there_is_none(result, market):
    steps = market["timestamp"].diff().dt.total_microseconds()
    row = int(steps.arg_max())
    start = market["timestamp"][row] - timedelta(microseconds=steps[row] // 2)
    figure = result.plot(start, start + timedelta(microseconds=1))
    assert note_of(figure) == "no ticks in view, of 20,000"
    assert len(figure.data[0].x) == 2  # the line from the tick before to the one after


def test_one_tick_is_a_view(market):
    result = fxlab.backtest(market.head(1), "buy_and_hold")
    second = timedelta(seconds=1)
    figure = result.plot(result.first - second, result.first)
    assert note_of(figure) == "no ticks in view, of 1"
    assert result.plot(result.first, result.first + second) == result.plot()


def test_known_gaps_of_a_part_break_its_line(market):
    from_time, to_time = market["timestamp"][9_000], market["timestamp"][9_040]
    kept = market.filter((pl.col("timestamp") <= from_time) | (pl.col("timestamp") >= to_time))
    gaps = pl.DataFrame({"from_time": [from_time], "to_time": [to_time]})
    result = fxlab.backtest(fxlab.FrameSource(kept, gaps=gaps), "buy_and_hold")
    minute = timedelta(minutes=1)
    figure = result.plot(from_time - minute, to_time + minute)
    assert np.isnan(figure.data[0].y).sum() == 1
    assert len(figure.layout.shapes) == 1
    inside = from_time + timedelta(microseconds=1)
    assert np.isnan(result.plot(inside, to_time).data[0].y).sum() == 1
    assert len(result.plot(to_time + minute, to_time + 2 * minute).layout.shapes) == 0


def test_changes_go_on_being_measured_from_the_first_tick():
    both = pl.concat([random_walk(3_000, seed, symbol=name) for seed, name in enumerate("AB")])
    result = fxlab.backtest(both, "buy_and_hold")
    whole, part = result.plot(), result.plot(start=result.first + timedelta(minutes=5))
    for name in "AB":
        first = both.filter(pl.col("symbol") == name)["price"][0]
        drawn = trace(part, name)
        assert drawn.y == pytest.approx(drawn.customdata / first - 1, nan_ok=True)
    assert part.layout.yaxis.title.text == whole.layout.yaxis.title.text == "price, change"


# ---- sessions ------------------------------------------------------------------------------


def view_of(frame, first, last, panels=()):
    times = frame["timestamp"].dt.timestamp("us")
    return View(times[first], times[last], last - first, frame.height, panels=panels)


def test_a_view_of_a_session_has_the_panels_of_the_whole():
    frame = ticks()
    whole = charts.session_chart(frame, candles=candles(), books=books())
    panels = tuple(axis.title.text for axis in whole.select_yaxes())
    assert panels == ("price", "volume", "spread", "arrival, ms")
    view = view_of(frame, 10, 20, panels)
    nothing = replace(view, ticks=0)
    empty = charts.session_chart(
        frame.clear(), candles=candles().clear(), books=books().clear(), view=nothing
    )
    assert tuple(axis.title.text for axis in empty.select_yaxes()) == panels
    assert note_of(empty) == "no ticks in view, of 400; no spreads"
    part = charts.session_chart(frame[9:21], candles=candles(), books=books(), view=view)
    assert note_of(part).startswith("10 of 400 ticks in view; ")
    assert part.layout.xaxis.range == pytest.approx(view.edges)


def test_candles_and_books_of_a_view_say_so():
    view = view_of(candles(), 10, 20)
    figure = charts.candles_chart(candles()[10:20], view=view)
    assert note_of(figure).startswith("10 candles in view, 20 of 60 ticks; open")
    empty = charts.candles_chart(candles().clear(), view=View(0, 1_000, 0, 60))
    assert note_of(empty) == "no ticks in view, of 60"
    assert "60 books in view, " in note_of(charts.depth_chart(books(), view=view))
    nothing = charts.depth_chart(books().clear(), view=view)
    assert note_of(nothing) == "no order books in view"
    assert from_micros(view.start) < from_micros(view.end)


def test_a_symbol_that_is_silent_all_the_time_stops_no_chart():
    both = pl.concat(
        random_walk(rows, seed).with_columns(symbol=pl.lit(name))
        for rows, seed, name in ((400, 1, "A_USD"), (20, 2, "B_USD"))
    ).sort("timestamp", "symbol", maintain_order=True)
    start = both.filter(pl.col("symbol") == "B_USD")["timestamp"][-1] + timedelta(microseconds=1)
    result = fxlab.backtest(both, "sma_cross", {"fast": 2, "slow": 5}, start=start)
    assert (result.symbols, result.prices["symbol"].unique().to_list()) == (
        ("A_USD", "B_USD"),
        ["A_USD"],
    )
    middle = result.first + (result.last - result.first) / 2
    for figure in (result.plot(), result.plot(middle)):
        assert [trace.name for trace in figure.data].count("B_USD") == 0
        assert len(figure.data) >= 3
