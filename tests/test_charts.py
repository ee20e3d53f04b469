"""Charts draw what is there, say what they drew, and let no text become markup."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab.charts import MARKERS, downsample, equity_chart, price_chart, result_chart

START = datetime(2024, 8, 8, tzinfo=UTC)
UTC_US = pl.Datetime("us", "UTC")


def times(count, step=timedelta(seconds=1)):
    return pl.Series("timestamp", [START + step * n for n in range(count)], dtype=UTC_US)


def prices_of(values, symbol=None):
    frame = pl.DataFrame({"timestamp": times(len(values)), "price": np.asarray(values, float)})
    return frame if symbol is None else frame.with_columns(pl.lit(symbol).alias("symbol"))


def fills_of(quantities, symbol="BTC"):
    count = len(quantities)
    return pl.DataFrame(
        {
            "symbol": [symbol] * count,
            "timestamp": times(count),
            "price": [100.0 + n for n in range(count)],
            "qty": quantities,
        },
        schema_overrides={"qty": pl.Float64, "price": pl.Float64},
    )


def equity_of(values):
    equity = pl.Series("equity", values, dtype=pl.Float64)
    return pl.DataFrame(
        {
            "timestamp": times(len(values)),
            "equity": equity,
            "drawdown": equity / equity.cum_max() - 1,
        }
    )


def notes(figure):
    return [annotation.text for annotation in figure.layout.annotations]


def traces(figure):
    return {trace.name: trace for trace in figure.data}


@given(
    st.lists(st.one_of(st.none(), st.floats()), max_size=80),
    st.integers(8, 30),
)
def test_downsample_keeps_rows_whole_and_drops_what_cannot_be_drawn(values, limit):
    frame = pl.DataFrame(
        {"x": range(len(values)), "y": pl.Series(values, dtype=pl.Float64)},
        schema_overrides={"x": pl.Int64},
    )
    drawn = downsample(frame, "x", "y", limit)
    finite = [(x, y) for x, y in frame.rows() if y is not None and np.isfinite(y)]
    assert set(drawn.rows()) <= set(finite)
    assert drawn["x"].is_sorted()
    assert drawn.height <= limit
    if finite:
        ys = [y for _, y in finite]
        assert (drawn["y"].min(), drawn["y"].max()) == (min(ys), max(ys))
        assert (drawn.rows()[0], drawn.rows()[-1]) == (finite[0], finite[-1])


def test_times_are_numbers_on_a_date_axis():
    figure = price_chart(prices_of([1, 2, 3]))
    assert figure.layout.xaxis.type == "date"
    first = START.timestamp() * 1_000
    assert figure.data[0].x.tolist() == [first, first + 1_000, first + 2_000]


def test_microseconds_survive():
    late = pl.DataFrame(
        {"timestamp": [START + timedelta(microseconds=1)], "price": [1.0]},
        schema_overrides={"timestamp": UTC_US},
    )
    assert price_chart(late).data[0].x[0] * 1_000 == pytest.approx(START.timestamp() * 1e6 + 1)


def test_a_line_breaks_at_a_night_and_nowhere_else():
    seconds = [*range(100), *range(40_000, 40_100)]
    frame = pl.DataFrame(
        {
            "timestamp": pl.Series([START + timedelta(seconds=s) for s in seconds], dtype=UTC_US),
            "price": np.linspace(1, 2, 200),
        }
    )
    line = price_chart(frame).data[0]
    assert np.flatnonzero(np.isnan(line.y)).tolist() == [100]
    assert line.x[99] < line.x[100] < line.x[101]
    assert not line.connectgaps


def test_the_rows_around_a_gap_are_drawn_even_in_a_thin_sample():
    seconds = np.concatenate((np.arange(5_000), 90_000 + np.arange(5_000)))
    frame = pl.DataFrame(
        {
            "timestamp": pl.Series(
                [START + timedelta(seconds=int(s)) for s in seconds], dtype=UTC_US
            ),
            "price": np.sin(seconds / 50.0),
        }
    )
    line = price_chart(frame, points=20).data[0]
    broken = int(np.flatnonzero(np.isnan(line.y))[0])
    begin = START.timestamp()
    assert line.x[broken - 1] / 1_000 == begin + 4_999
    assert line.x[broken + 1] / 1_000 == begin + 90_000


def test_a_sample_of_a_sample_has_the_same_gaps():
    """Quiet prices thin out in a sample; that alone is no silence of the market."""
    rng = np.random.default_rng(3)
    steps = rng.exponential(0.01, 40_000) * rng.choice([1, 60], 40_000, p=[0.98, 0.02])
    steps[25_000] = 90.0
    micros = START.timestamp() * 1e6 + np.cumsum(steps) * 1e6
    frame = pl.DataFrame(
        {
            "timestamp": pl.Series(micros.astype(np.int64)).cast(UTC_US),
            "price": np.where(rng.random(40_000) < 0.01, 1.0, 0.0).cumsum(),
        }
    )
    whole = price_chart(frame).data[0]
    sample = price_chart(downsample(frame, "timestamp", "price", 500)).data[0]
    breaks = [line.x[np.isnan(line.y)] for line in (whole, sample)]
    assert len(breaks[0]) == 1
    assert breaks[0] == pytest.approx(breaks[1])


def test_the_note_says_what_was_drawn():
    (note,) = notes(price_chart(prices_of(np.sin(np.arange(10_000))), points=100))
    assert note.startswith("10,000 ticks, ")
    assert note.endswith(" drawn")
    assert notes(price_chart(prices_of([1, 2, 3]))) == ["3 ticks"]
    assert notes(price_chart(prices_of([1, 2, 3]), ticks=70)) == ["70 ticks, 3 drawn"]
    assert notes(price_chart(prices_of([]))) == ["no ticks"]


def test_buys_and_sells_differ_in_shape_and_colour():
    figure = price_chart(prices_of([1, 2], "BTC"), fills_of([1.0, -1.0, 2.0]))
    buy, sell = traces(figure)["buy"], traces(figure)["sell"]
    assert (buy.marker.symbol, sell.marker.symbol) == ("triangle-up", "triangle-down")
    assert buy.marker.color != sell.marker.color
    assert buy.y.tolist() == [100.0, 102.0]
    assert sell.y.tolist() == [101.0]


def test_many_fills_are_thinned_and_the_note_says_so():
    figure = price_chart(prices_of([1, 2], "BTC"), fills_of([1.0] * 5_000))
    assert len(traces(figure)["buy"].x) <= MARKERS
    assert "5,000 fills, about 1,000 drawn" in notes(figure)[0]


def test_a_legend_names_each_thing_once():
    both = pl.concat([prices_of([1, 2, 3], "BTC"), prices_of([10, 20, 30], "ETH")])
    fills = pl.concat([fills_of([1.0, -1.0], "BTC"), fills_of([1.0, -1.0], "ETH")])
    figure = price_chart(both, fills)
    named = [trace.name for trace in figure.data if trace.showlegend]
    assert sorted(named) == ["BTC", "ETH", "buy", "sell"]


def test_several_symbols_share_a_scale_as_changes():
    both = pl.concat([prices_of([1, 2, 3], "BTC"), prices_of([10, 20, 40], "ETH")])
    lines = traces(price_chart(both))
    assert lines["BTC"].y.tolist() == [0.0, 1.0, 2.0]
    assert lines["ETH"].y.tolist() == [0.0, 1.0, 3.0]
    assert lines["ETH"].customdata.tolist() == [10.0, 20.0, 40.0]


def test_a_figure_of_many_symbols_and_fills_is_small():
    names = [f"S{number}" for number in range(4)]
    prices = pl.concat([prices_of(np.sin(np.arange(9_000)) + 2, name) for name in names])
    fills = pl.concat([fills_of([1.0, -1.0] * 2_000, name) for name in names])
    equity = equity_of(np.cos(np.arange(9_000)) + 5)
    assert len(result_chart(prices, fills, equity).to_json()) < 180_000


def test_text_from_outside_is_escaped():
    hostile = "<b>x</b> <a href='javascript:1'>y</a>"
    both = pl.concat([prices_of([1], hostile), prices_of([2], "ETH")])
    text = price_chart(both, title=hostile).to_json()
    assert "<b>" not in json.dumps(json.loads(text), ensure_ascii=False)
    assert "<a" not in text
    assert "&lt;b&gt;x" in price_chart(both, title=hostile).layout.title.text


def test_known_gaps_are_shaded():
    gaps = pl.DataFrame(
        {
            "from_time": [START, None],
            "to_time": [START + timedelta(seconds=2), START],
        },
        schema={"from_time": UTC_US, "to_time": UTC_US},
    )
    (shape,) = price_chart(prices_of([1, 2, 3]), gaps=gaps).layout.shapes
    assert (shape.x0, shape.x1) == (START.timestamp() * 1e3, START.timestamp() * 1e3 + 2_000)


def test_a_result_has_three_rows_on_one_time_axis():
    equity = equity_of([100.0, 120.0, 90.0])
    figure = result_chart(prices_of([1, 2, 3], "BTC"), fills_of([1.0]), equity, "run")
    assert [trace.yaxis for trace in figure.data] == ["y", "y", "y2", "y3"]
    assert {axis.matches for axis in (figure.layout.xaxis, figure.layout.xaxis2)} == {"x3"}
    drawdown = traces(figure)["drawdown"]
    assert drawdown.fill == "tozeroy"
    assert drawdown.y.tolist() == [0.0, 0.0, -0.25]


def test_an_equity_chart_stands_alone():
    lines = traces(equity_chart(equity_of([1.0, 2.0, 1.5]), "equity"))
    assert lines["equity"].y.tolist() == [1.0, 2.0, 1.5]
    assert lines["drawdown"].y.tolist() == [0.0, 0.0, -0.25]


def test_nothing_to_draw_is_still_a_figure():
    nothing = equity_of([])
    figure = result_chart(prices_of([], "BTC"), fills_of([]), nothing)
    assert len(figure.data) == 0
    assert notes(figure) == ["no ticks"]


def test_a_figure_of_a_million_ticks_is_small():
    rng = np.random.default_rng(7)
    frame = pl.DataFrame(
        {
            "timestamp": pl.datetime_range(
                START, START + timedelta(seconds=999_999), "1s", eager=True, time_zone="UTC"
            ),
            "price": 100 + rng.normal(size=1_000_000).cumsum(),
        }
    )
    assert len(price_chart(frame).to_json()) < 150_000
