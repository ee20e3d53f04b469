"""Charts of sessions: what they draw is what the frames say."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest
from chart_examples import START, UTC_US, books, candles, ticks, times
from markets import random_walk

import fxlab
from fxlab import charts, errors
from fxlab.charts._session import SIDES
from fxlab.charts._style import BUY, SELL, milliseconds
from fxlab.sessions import _candles

SIDED = ("buy", "sell")


def said(figure):
    return figure.layout.annotations[-1].text.replace("<br>", " ")


def test_candles_that_do_not_fit_are_joined_exactly():
    bars = candles(rows=90)
    figure = charts.candles_chart(bars, most=30)
    drawn = figure.data[0]
    assert len(drawn.x) == 30
    assert list(drawn.open) == bars["open"].gather_every(3).to_list()
    assert list(drawn.close) == bars["close"].gather_every(3, 2).to_list()
    assert max(drawn.high) == bars["high"].max()
    assert sum(figure.data[1].y) == bars["buy_volume"].sum()
    assert sum(figure.data[2].y) == -bars["sell_volume"].sum()
    assert "90 candles, joined to 30, 180 ticks" in said(figure)


def test_candles_are_told_in_words():
    text = charts.candles_text(candles(rows=1, scale=1.0))
    assert text == "1 candle, 2 ticks; open 100, high 101, low 99, close 100.5, volume 3"
    assert charts.candles_text(candles(rows=0)) == "no candles: there are no ticks"


def test_quotes_have_no_panel_of_volume():
    bars = candles().with_columns(volume=pl.lit(None, pl.Float64))
    figure = charts.session_chart(ticks().drop("received_at"), candles=bars)
    assert [trace.name for trace in figure.data] == ["price"]


def test_a_gap_breaks_the_line_and_is_shaded():
    frame = ticks()
    when = times(400)
    gap = pl.DataFrame({"from_time": [when[100]], "to_time": [when[120]]}).cast(UTC_US)
    silent = frame.filter(~pl.int_range(pl.len()).is_between(101, 119))
    figure = charts.session_chart(silent, gaps=gap, books=books())
    assert np.isnan(figure.data[0].y).sum() == 1
    assert len(figure.layout.shapes) == 1


def test_gaps_of_books_break_the_spread_and_the_mid_alone():
    when = times(400)
    gap = pl.DataFrame({"from_time": [when[100]], "to_time": [when[120]]}).cast(UTC_US)
    blind = books(rows=400).filter(~pl.int_range(pl.len()).is_between(101, 119))
    figure = charts.session_chart(ticks(), books=blind, book_gaps=gap)
    breaks = {trace.name: int(np.isnan(trace.y).sum()) for trace in figure.data}
    assert breaks == {"price": 0, "spread": 1, "skew": 0}
    assert not figure.layout.shapes
    depth = charts.depth_chart(blind, gaps=gap)
    assert np.isnan(depth.data[1].y).sum() == 1
    assert len(depth.layout.shapes) == 1


def test_cells_of_a_book_are_mean_quantities():
    figure = charts.depth_chart(
        books(rows=1, scale=1.0).with_columns(pl.col("^.*_qty_.*$") * 0 + 4.0)
    )
    cells = np.asarray(figure.data[0].customdata)
    assert cells[np.isfinite(cells)].max() == 4.0
    assert "1 books, 6 levels" in said(figure)


@pytest.mark.parametrize("rows", [1, 2])
def test_a_session_and_a_run_say_alike_what_of_them_is_drawn(rows):
    frame = random_walk(rows)
    expected = said(fxlab.backtest(frame, "buy_and_hold").plot())
    assert said(charts.session_chart(frame)) == expected
    assert expected.startswith({1: "1 tick", 2: "2 ticks"}[rows])


@pytest.mark.parametrize("size", [1, 7, 1_000])
def test_a_sample_keeps_spikes_first_and_last_for_any_chunks(size):
    rng = np.random.default_rng(1)
    values = 100 + rng.normal(size=1_000)
    values[[333, 777]] = (200.0, 1.0)
    frame = pl.DataFrame({"timestamp": times(1_000), "price": values})
    micros = frame["timestamp"].to_physical()
    found = _candles.sampled(frame.iter_slices(size), micros[0], micros[-1], 80)
    assert found.equals(_candles.sampled([frame], micros[0], micros[-1], 80))
    assert found.height <= 80
    assert found["timestamp"].is_sorted()
    assert {200.0, 1.0, values[0], values[-1]} <= set(found["price"])
    assert found["timestamp"][0] == START


@pytest.mark.parametrize("bad", [7, 0, "many", 1.5, None])
def test_a_sample_of_no_points_is_refused(bad):
    with pytest.raises(errors.InvalidParameter, match="give 8 or more"):
        _candles.sampled([], 0, 1, bad)


def test_a_session_draws_itself(lab, shared_data, unique):
    folder = shared_data / "binance_spot_ethusdt_20240808"
    name = unique("drawn")
    lab.import_files([folder / "trades.parquet", folder / "book10.parquet"], session_id=name)
    session = lab.session(name)
    found = session.charts(max_points=400)
    assert set(found) == {"session", "candles", "depth"}
    assert re.match(r"6,106 ticks, \d+ drawn; \d+ marked by side; ", said(found["session"]))
    assert "3,432 books" in said(found["depth"])
    sample = session.chart_data(max_points=400)
    prices = session.prices()["price"]
    assert sample.height <= 400
    assert (sample["price"].max(), sample["price"].min()) == (prices.max(), prices.min())


def by_side(rows):
    cycle = pl.Series(["buy", "sell", None] * rows, dtype=pl.Categorical)
    return ticks(rows).with_columns(side=cycle[:rows])


def test_trades_are_marked_by_their_side_in_shape_and_colour():
    figure = charts.session_chart(by_side(30), "A")
    buys, sells = (next(one for one in figure.data if one.name == name) for name in SIDED)
    assert (buys.marker.symbol, sells.marker.symbol) == ("triangle-up", "triangle-down")
    assert (buys.marker.color, sells.marker.color) == (BUY, SELL)
    rows = by_side(30)
    for drawn, name in ((buys, "buy"), (sells, "sell")):
        own = rows.filter(pl.col("side") == name)
        assert drawn.x.tolist() == milliseconds(own["timestamp"]).tolist()
        assert drawn.y.tolist() == own["price"].to_list()
    assert said(figure) == "30 ticks; 20 marked by side"
    assert "10 buys (price): " in charts.summary(figure)
    assert "10 sells (price): " in charts.summary(figure)


def test_of_many_trades_some_are_marked_and_the_spike_is_among_them():
    rows = by_side(6_000)
    spike = rows.with_row_index().with_columns(
        price=pl.when(pl.col("index") == 3_001).then(150.0).otherwise("price")
    )
    figure = charts.session_chart(spike.drop("index"))
    marked = {name: sum(one.name == name for one in figure.data) for name in SIDED}
    assert marked == dict.fromkeys(SIDED, 1)
    counts = [len(one.x) for one in figure.data if one.name in SIDED]
    assert f"; {sum(counts):,} marked by side" in said(figure)
    assert sum(counts) <= SIDES
    assert 150.0 in next(one for one in figure.data if one.name == "sell").y


def test_quotes_have_no_side_to_be_marked_by():
    rows = ticks(30).with_columns(side=pl.lit(None, pl.String))
    figure = charts.session_chart(rows)
    assert "side" not in said(figure)
    assert not [one for one in figure.data if one.name in SIDED]


def test_nothing_is_said_where_there_is_nothing():
    empty = _candles.sampled([], 0, 1, 80)
    assert empty.columns == ["timestamp", "seq", "price"]
    assert said(charts.session_chart(empty)).startswith("no ticks")
    assert said(charts.candles_chart(_candles.candles([], "1m"))).startswith("no candles")
    assert said(charts.depth_chart(books().clear())).startswith("no order books")


@pytest.mark.parametrize("size", [1, 7, 64])
def test_of_many_books_every_nth_is_kept_and_every_spike_of_the_spread(monkeypatch, size):
    monkeypatch.setattr(_candles, "MOST_BOOKS", 50)
    whole = books(rows=400).with_columns(spread=pl.Series(np.random.default_rng(1).random(400)))
    first, last = (whole["timestamp"].to_physical()[n] for n in (0, -1))
    found = _candles.thinned(whole.iter_slices(size), first, last + 1, 80)
    assert found.total == 400
    assert found.few.equals(whole.gather_every(8))
    assert found.spread.height < 400
    edges = (found.spread["spread"].min(), found.spread["spread"].max())
    assert edges == (whole["spread"].min(), whole["spread"].max())
    assert "400 books, 50 of them drawn" in said(
        charts.depth_chart(found.few, books_count=found.total)
    )
    monkeypatch.setattr(_candles, "MOST_BOOKS", 400)
    found = _candles.thinned(whole.iter_slices(size), first, last + 1, 80)
    assert found.few.equals(whole)
    assert found.spread.equals(whole)


def test_a_part_without_books_has_charts_that_say_so():
    none = _candles.thinned([], 0, 1, 80)
    assert none.total == 0
    assert said(charts.depth_chart(none.few)).startswith("no order books")
    figure = charts.session_chart(ticks(), books=none.spread, books_count=0)
    assert [trace.name for trace in figure.data] == ["price", "skew"]
