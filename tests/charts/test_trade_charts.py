"""Charts of trades, returns and the calendar draw what is there and say what they left out."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest

from fxlab.charts import distribution_chart, monthly_chart, profile_chart, trades_chart
from fxlab.charts._trades import SHORTEST

START = datetime(2024, 8, 8, tzinfo=UTC)
MONTHS = ["jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec"]


def trades_of(*rows):
    """Build trades from (direction, seconds or None, return, mae, pnl)."""
    names = ("direction", "duration_seconds", "return", "mae", "pnl")
    kinds = (pl.String, pl.Float64, pl.Float64, pl.Float64, pl.Float64)
    frame = pl.DataFrame(rows, schema=dict(zip(names, kinds, strict=True)), orient="row")
    open_ones = pl.col("duration_seconds").is_null()
    return frame.with_columns(
        exited_at=pl.when(open_ones).then(None).otherwise(pl.lit(START)).cast(pl.Datetime("us"))
    )


def notes(figure):
    return [one.text for one in figure.layout.annotations if one.name != "summary"]


def test_each_trade_stands_in_both_panels_by_shape_and_colour():
    rows = [("long", 5.0, 0.01, -0.002, 3.0), ("short", 9.0, -0.02, -0.03, -6.0)]
    figure = trades_chart(trades_of(*rows))
    named = {(trace.name, trace.xaxis): trace for trace in figure.data}
    assert sorted(named) == [
        *(("long, won", axis) for axis in ("x", "x2")),
        *(("short, lost", axis) for axis in ("x", "x2")),
    ]
    won, lost = named["long, won", "x"], named["short, lost", "x2"]
    assert (won.x.tolist(), won.y.tolist()) == ([5.0], [0.01])
    assert (lost.x.tolist(), lost.y.tolist()) == ([-0.03], [-6.0])
    assert won.marker.symbol != lost.marker.symbol
    assert won.marker.color != lost.marker.color
    assert notes(figure) == ["2 closed trades"]


def test_a_trade_of_no_time_has_a_place_on_the_log_axis_and_its_own_time_in_the_hover():
    figure = trades_chart(trades_of(("long", 0.0, 0.01, 0.0, 1.0)))
    assert figure.layout.xaxis.type == "log"
    assert figure.data[0].x.tolist() == [SHORTEST]
    assert figure.data[0].customdata.tolist() == [0.0]


def test_open_trades_are_counted_not_drawn():
    figure = trades_chart(trades_of(("long", 1.0, 0.1, 0.0, 1.0), ("long", None, 0.2, 0.0, 2.0)))
    assert notes(figure) == ["1 closed trade, 1 still open, not drawn"]
    assert notes(trades_chart(trades_of())) == ["no trades were made"]
    still_open = trades_of(("long", None, 0.2, 0.0, 2.0))
    assert notes(trades_chart(still_open)) == ["no closed trades: 1 still open"]


def test_many_trades_are_thinned_and_the_extremes_stay():
    rng = np.random.default_rng(2)
    earned = rng.normal(size=20_000)
    rows = [("long", 1.0, float(r), -0.1, float(r)) for r in earned]
    figure = trades_chart(trades_of(*rows))
    drawn = np.concatenate([trace.y for trace in figure.data if trace.xaxis == "x"])
    assert len(drawn) <= 4_000
    assert (drawn.min(), drawn.max()) == (earned.min(), earned.max())
    assert len(figure.to_json()) < 400_000
    assert "20,000 closed trades" in notes(figure)[0]


def histogram_of(*rows):
    kinds = {"low": pl.Float64, "high": pl.Float64, "count": pl.Int64}
    return pl.DataFrame(rows, schema=kinds, orient="row")


def test_losses_and_gains_have_two_colours():
    figure = distribution_chart(histogram_of((-0.02, -0.01, 3), (0.0, 0.01, 7)))
    (bars,) = figure.data
    assert bars.y.tolist() == [3, 7]
    assert bars.x.tolist() == pytest.approx([-0.015, 0.005])
    assert bars.marker.color[0] != bars.marker.color[1]
    assert notes(figure) == ["10 returns"]


def test_marks_are_named_and_those_that_are_none_are_left_out():
    figure = distribution_chart(
        histogram_of((0.0, 0.01, 7)),
        marks={"mean": 0.004, "<b>": 0.001, "95th": float("nan")},
        text="<i>",
    )
    assert notes(figure) == ["&lt;b&gt; 0.1%", "mean 0.4%", "&lt;i&gt;"]
    assert len(figure.layout.shapes) == 2


def test_no_returns_are_said():
    said = ["no returns: equity did not move in any interval"]
    assert notes(distribution_chart(histogram_of())) == said


def months_of(*years):
    rows = [{"year": year, **dict.fromkeys(MONTHS), **known} for year, known in years]
    kinds = {"year": pl.Int32, **dict.fromkeys([*MONTHS, "total"], pl.Float64)}
    return pl.DataFrame(rows, schema=kinds)


def test_months_are_a_heat_map_around_zero():
    figure = monthly_chart(
        months_of((2023, {"dec": -0.3, "total": -0.3}), (2024, {"jan": 0.1, "total": 0.1}))
    )
    (cells,) = figure.data
    assert cells.y == ("2023", "2024")
    assert cells.x == (*(name.capitalize() for name in MONTHS), "Total")
    assert (cells.zmin, cells.zmax) == (-0.3, 0.3)
    assert np.isnan(cells.z[0][0])  # not zero
    assert figure.layout.yaxis.autorange == "reversed"


def test_no_months_are_said():
    said = ["no returns: the run has no time in any month"]
    assert notes(monthly_chart(months_of())) == said


def test_hours_and_days_are_bars_with_their_trades():
    hours = pl.DataFrame(
        {
            "hour": [3, 4, 5],
            "mean_return": [0.01, -0.02, None],
            "periods": [2, 3, 1],
            "trades": [4, 0, 0],
            "win_rate": [0.5, None, None],
        }
    )
    (bars,) = profile_chart(hours).data
    assert list(bars.x) == [3, 4]
    assert list(bars.customdata) == ["2 in the run; 4 trades, 50% won", "3 in the run"]
    days = pl.DataFrame({"weekday": [7], "mean_return": [0.01], "periods": [2]})
    assert list(profile_chart(days).data[0].x) == ["Sun"]
    said = ["no returns: the run has no time in any day"]
    assert notes(profile_chart(days.head(0))) == said


def test_no_title_is_markup():
    hostile = "<b>x</b>"
    figures = [
        trades_chart(trades_of(), hostile),
        distribution_chart(histogram_of(), hostile, label=hostile),
        monthly_chart(months_of(), hostile),
        profile_chart(pl.DataFrame(schema={"hour": pl.Int8, "mean_return": pl.Float64}), hostile),
    ]
    for figure in figures:
        assert "<b>" not in json.dumps(json.loads(figure.to_json()), ensure_ascii=False)


def test_a_light_and_a_dark_page_may_lie_under_every_chart():
    figure = trades_chart(trades_of(("long", 1.0, 0.1, 0.0, 1.0)))
    assert figure.layout.template.layout.paper_bgcolor == "rgba(0,0,0,0)"
    assert figure.layout.template.layout.plot_bgcolor == "rgba(0,0,0,0)"


def test_durations_read_as_people_say_them():
    figure = trades_chart(trades_of(("long", timedelta(hours=1).total_seconds(), 0.1, 0.0, 1.0)))
    ticks = dict(zip(figure.layout.xaxis.tickvals, figure.layout.xaxis.ticktext, strict=True))
    assert (ticks[60], ticks[3_600], ticks[86_400]) == ("1 min", "1 h", "1 d")
