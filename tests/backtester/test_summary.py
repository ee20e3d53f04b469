"""The notebook's view of a result is small, safe, and says what the metrics say."""

from __future__ import annotations

import math
import re
from dataclasses import replace
from xml.etree import ElementTree as ET

import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markets import random_walk

import fxlab
from fxlab._html import NOTHING
from fxlab.backtester.report._summary import (
    HEADLINE,
    headline,
    metrics_html,
    result_html,
    show_metric,
    show_seconds,
    sparkline,
)
from fxlab.backtester.strategy import strategy

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def result():
    return fxlab.backtest(random_walk(5_000), "sma_cross", {"fast": 10, "slow": 40})


def points(svg):
    (line,) = ET.fromstring(svg).iter("polyline")  # noqa: S314 - our own text
    return [tuple(map(float, pair.split(","))) for pair in line.attrib["points"].split()]


@given(st.lists(st.one_of(st.none(), st.floats()), max_size=400))
def test_a_sparkline_is_small_whole_and_inside_its_box(values):
    finite = [value for value in values if value is not None and math.isfinite(value)]
    svg = sparkline(values)
    assert len(svg) <= 2_048
    if len(finite) < 2:
        assert svg == ""
        return
    drawn = points(svg)
    assert all(0 <= x <= 260 and 0 <= y <= 54 for x, y in drawn)
    assert [x for x, _ in drawn] == sorted(x for x, _ in drawn)


def test_a_sparkline_goes_up_when_the_values_do():
    (_, first), (_, last) = points(sparkline([1.0, 2.0]))
    assert first > last  # the y axis of a picture points down


def test_a_flat_line_is_in_the_middle():
    assert {y for _, y in points(sparkline([5.0, 5.0, 5.0]))} == {27.0}


def test_a_sparkline_speaks():
    label = re.search(r'aria-label="([^"]+)"', sparkline([100.0, 90.0, 120.0, 110.0]))[1]
    assert label == "from 100 to 110, lowest 90, highest 120"


@pytest.mark.parametrize(
    ("value", "unit", "shown"),
    [
        (-0.0227, "fraction", "-2.27%"),
        (0.5, "probability", "50.00%"),
        (9772.258, "money", "9,772.26"),
        (-8.866, "bps", "-8.87"),
        (1234.0, "count", "1,234"),
        (1.23456, "ratio", "1.235"),
        (601.671, "seconds", "10m 2s"),
        (math.nan, "ratio", NOTHING),
        (math.inf, "ratio", "\u221e"),
        (None, "ratio", NOTHING),
    ],
)
def test_figures_read_in_their_unit(value, unit, shown):
    assert show_metric(value, unit) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"),
    [
        (0.25, "0.25s"),
        (59.4, "59.4s"),
        (60, "1m 0s"),
        (3_661, "1h 1m"),
        (90_000, "1d 1h"),
        (31_557_600, "365d 6h"),
    ],
)
def test_a_length_of_time_has_two_units(seconds, shown):
    assert show_seconds(seconds) == shown


def test_the_view_shows_what_the_metrics_say(result):
    view = result_html(result)
    for name, value, _ in headline(result.metrics, HEADLINE):
        assert f">{name}<" in view
        assert f">{value}<" in view
    assert "<svg" in view
    assert f"{result.ticks:,} ticks of TICKS" in view
    assert len(view) < 20_000


def test_the_view_has_no_script_and_fixes_no_colour_of_text(result):
    view = result_html(result)
    assert "<script" not in view
    assert all("--jp" in rule for rule in re.findall(r"[\"; ]color:[^;\"]+", view))


def test_a_nan_is_a_dash_with_its_reason(result):
    view = result_html(result)
    assert math.isnan(result.metrics["sharpe"])
    assert "too short to annualise" in view


def test_nothing_hostile_survives():
    def hold(*, word: str = HOSTILE) -> fxlab.Signals:
        return fxlab.Signals(target=pl.lit(1.0), lookback=0)

    hostile = replace(strategy.get(hold), name=HOSTILE)
    ran = fxlab.backtest(random_walk(50, symbol=HOSTILE), hostile)
    assert "<img" not in result_html(ran)
    assert "&lt;img" in result_html(ran)


def test_a_table_of_figures_escapes_its_notes():
    figures = pl.DataFrame({"metric": ["a"], "value": [1.0], "unit": ["ratio"], "note": [HOSTILE]})
    assert "<img" not in metrics_html(figures)
