"""Charts draw what is there, say what they drew, and let no text become markup."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab.charts import (
    MARKERS,
    comparison_chart,
    downsample,
    equity_chart,
    exposure_chart,
    price_chart,
    result_chart,
)

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
    return [one.text for one in figure.layout.annotations if one.name != "summary"]


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
    assert notes(price_chart(prices_of([]))) == ["no ticks: the frame of prices has no rows"]


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
    assert "5,000 fills, about 600 drawn" in notes(figure)[0]


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
    assert len(result_chart(prices, fills, equity).to_json()) < 135_000


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


def spans(*rows):
    """Return a ledger of (symbol, event, count, what, from, to), times in seconds."""
    at = [[START + timedelta(seconds=second) for second in row[4:]] for row in rows]
    return pl.DataFrame(
        {
            "symbol": [row[0] for row in rows],
            "event": [row[1] for row in rows],
            "count": pl.Series([row[2] for row in rows], dtype=pl.Int64),
            "detail": [json.dumps({"what": row[3]}) for row in rows],
            "from_time": pl.Series([times[0] for times in at], dtype=UTC_US),
            "to_time": pl.Series([times[1] for times in at], dtype=UTC_US),
        }
    )


LEDGER = spans(
    ("BTC", "gap", 4, "prices", 10, 20),
    ("BTC", "gap", 0, "prices", 30, 40),  # filled
    ("BTC", "gap", 2, "orderbook", 50, 60),
    ("ETH", "gap", 7, "prices", 55, 65),
    ("BTC", "reconnect", None, "prices", 70, 75),
    ("", "gap", None, "prices", 80, 85),  # of all symbols
)


def seen(*symbols, but=((11, 20), (81, 85))):
    """Return a tick a second of each symbol, none in the half-open spans of `but`."""
    kept = [n for n in range(100) if not any(low <= n < high for low, high in but)]
    return pl.concat(prices_of(range(1, 101), name)[kept] for name in symbols)


def shaded(figure):
    begin = START.timestamp() * 1e3
    found = [((one.x0 - begin) / 1e3, (one.x1 - begin) / 1e3) for one in figure.layout.shapes]
    return sorted(found)


def broken(trace):
    return (trace.x[np.isnan(trace.y)] / 1e3 - START.timestamp()).tolist()


@pytest.mark.parametrize("symbol", ["BTC", ""])
def test_only_unfilled_gaps_of_the_symbol_and_the_data_are_shown(symbol):
    ticks = seen("BTC")
    for frame, only in ((ticks, ""), (ticks.drop("symbol"), symbol)):
        figure = price_chart(frame, gaps=LEDGER, symbol=only)
        assert shaded(figure) == [(10, 20), (80, 85)]
        assert broken(figure.data[0]) == [15.0, 82.5]


def test_gaps_that_name_no_symbol_are_of_all():
    ticks = seen("BTC", but=((11, 20), (31, 40)))
    times = LEDGER.filter(pl.col("symbol") == "BTC")[:2].select("from_time", "to_time")
    figure = price_chart(ticks, gaps=times)
    assert shaded(figure) == [(10, 20), (30, 40)]
    assert broken(figure.data[0]) == [15.0, 35.0]


def test_each_line_breaks_in_its_own_gaps():
    figure = price_chart(seen("BTC", "ETH"), gaps=LEDGER)
    assert shaded(figure) == [(10, 20), (55, 65), (80, 85)]
    lines = traces(figure)
    assert broken(lines["BTC"]) == [15.0, 82.5]
    assert broken(lines["ETH"]) == [55.5, 82.5]  # it has rows in it: filled in part


def test_quotes_have_the_gaps_of_the_book():
    quotes = seen("BTC", but=[(51, 60)]).with_columns(bid_price_1=pl.col("price"))
    figure = price_chart(quotes, gaps=LEDGER.filter(pl.col("symbol") == "BTC"))
    assert shaded(figure) == [(50, 60)]
    assert broken(figure.data[0]) == [55.0]


def test_equity_and_drawdown_break_where_the_prices_do():
    ticks = seen("BTC")
    money = equity_of(range(100, 200)).join(ticks.select("timestamp"), on="timestamp")
    figure = result_chart(ticks, fills_of([]), money, gaps=LEDGER)
    assert [broken(trace) for trace in figure.data] == [[15.0, 82.5]] * 3


def test_gaps_before_after_and_of_no_length_break_nothing():
    odd = spans(
        ("BTC", "gap", 1, "prices", -50, -10),
        ("BTC", "gap", 1, "prices", 7, 7),
        ("BTC", "gap", 1, "prices", 99, 300),
    )
    assert broken(price_chart(seen("BTC", but=()), gaps=odd).data[0]) == []
    assert price_chart(prices_of([], "BTC"), gaps=odd).data == ()


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
    assert notes(figure) == ["no ticks: the frame of prices has no rows"]


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


def reasons_of(*rows):
    """Build fills from (qty, reason, liquidity)."""
    extra = {"reason": [row[1] for row in rows], "liquidity": [row[2] for row in rows]}
    return fills_of([row[0] for row in rows]).with_columns(
        pl.Series(name, values, dtype=pl.String) for name, values in extra.items()
    )


def test_reasons_and_makers_have_shapes_of_their_own():
    fills = reasons_of(
        (1.0, "signal", "taker"),
        (1.0, "take_profit", "maker"),
        (-1.0, "stop_loss", "taker"),
        (-1.0, "liquidation", "taker"),
        (-1.0, "rebalance", "taker"),
        (-1.0, None, None),
    )
    drawn = traces(price_chart(prices_of([1, 2], "BTC"), fills))
    shapes = {name: trace.marker.symbol for name, trace in drawn.items() if trace.marker.symbol}
    assert shapes == {
        "buy": "triangle-up",
        "sell": "triangle-down",
        "buy, take profit, maker": "star-triangle-up-open",
        "sell, stop loss": "arrow-bar-down",
        "sell, liquidation": "hexagram",
    }
    assert len(drawn["sell"].x) == 2  # what is the strategy's own wish is one kind


def test_a_rare_liquidation_is_not_thinned_away():
    many = [(1.0, "signal", "taker")] * 9_000
    many[4_321] = (-1.0, "liquidation", "taker")
    drawn = traces(price_chart(prices_of([1, 2], "BTC"), reasons_of(*many)))
    assert len(drawn["sell, liquidation"].x) == 1
    assert len(drawn["buy"].x) <= MARKERS


def test_a_crowded_legend_stands_beside_the_chart():
    kinds = [
        (qty, reason, liquidity)
        for qty in (1.0, -1.0)
        for reason in ("signal", "stop_loss", "take_profit")
        for liquidity in ("maker", "taker")
    ]
    assert (
        price_chart(prices_of([1, 2], "BTC"), reasons_of(*kinds)).layout.legend.orientation == "v"
    )
    few = price_chart(prices_of([1, 2], "BTC"), fills_of([1.0, -1.0]))
    assert few.layout.legend.orientation is None  # the template's


def test_one_tick_is_a_point_and_one_tick_in_words():
    figure = result_chart(prices_of([5.0], "BTC"), fills_of([]), equity_of([100.0]))
    assert {trace.mode for trace in figure.data} == {"markers"}
    assert notes(figure) == ["1 tick"]


def test_a_run_that_never_fell_has_its_drawdown_axis_below_zero():
    figure = equity_chart(equity_of([1.0, 2.0, 3.0]))
    assert tuple(figure.layout.yaxis2.range) == (-0.01, 0)


def test_the_deepest_drawdowns_are_shaded_and_numbered():
    equity = equity_of([100.0, 90.0, 100.0, *[101.0] * 200, 80.0])
    drawdowns = pl.DataFrame(
        {
            "peak_at": [equity["timestamp"][202], equity["timestamp"][0]],
            "recovered_at": [None, equity["timestamp"][2]],
            "depth": [-0.2, -0.1],
        }
    )
    first, second = equity_chart(equity, drawdowns=drawdowns).layout.shapes
    end = equity["timestamp"][-1].timestamp() * 1e3
    assert (first.x1, second.x0) == (end, START.timestamp() * 1e3)
    assert first.label.text == ""  # no room for a word in one second of two hundred
    wide = equity_chart(
        equity_of([2.0, 1.0, 1.5]), drawdowns=drawdowns[1:].with_columns(recovered_at=None)
    )
    assert wide.layout.shapes[0].label.text == "1: -10%"


def exposure_of(long, short):
    return pl.DataFrame({"timestamp": times(len(long)), "long": long, "short": short})


def test_shorts_hang_below_zero():
    lines = traces(exposure_chart(exposure_of([0.5, 0.0, 1.0], [0.0, 1.0, 0.0])))
    assert lines["long"].y.tolist() == [0.5, 0.0, 1.0]
    assert lines["short"].y.tolist() == [0.0, -1.0, 0.0]


def test_many_intervals_of_exposure_are_averaged():
    shares = np.linspace(0, 1, 10_000)
    (line,) = exposure_chart(exposure_of(shares, np.zeros(10_000)), points=100).data
    assert len(line.x) == 100
    assert np.mean(line.y) == pytest.approx(0.5)


def test_no_exposure_is_said():
    figure = exposure_chart(exposure_of([0.0], [0.0]))
    assert (len(figure.data), notes(figure)) == (0, ["no position was held at any time"])


def test_compared_curves_start_at_one_and_differ_by_dash():
    curves = {"<b>a": equity_of([50.0, 100.0]), "b": equity_of([10.0, 5.0]), "c": equity_of([])}
    figure = comparison_chart(curves)
    assert [trace.y.tolist() for trace in figure.data] == [[1.0, 2.0], [1.0, 0.5]]
    assert figure.data[0].line.dash != figure.data[1].line.dash
    assert figure.data[0].name == "&lt;b&gt;a"
    assert notes(comparison_chart({})) == ["no equity: none of the curves has a row"]


def test_a_ladder_of_36_curves_repeats_none():
    figure = comparison_chart({str(n): equity_of([1.0, 2.0]) for n in range(36)})
    looks = {(trace.line.color, trace.line.dash) for trace in figure.data}
    assert len(looks) == 36
    many = pl.concat(prices_of([1, 2], f"S{n}") for n in range(36))
    looks = {(trace.line.color, trace.line.dash) for trace in price_chart(many).data}
    assert len(looks) == 36


def test_compared_curves_stay_few_points_each():
    curves = {str(n): equity_of(np.sin(np.arange(20_000) / 9) + 2) for n in range(9)}
    assert max(len(trace.x) for trace in comparison_chart(curves).data) < 5_000
