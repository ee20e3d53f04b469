"""The quality panel without a browser: score, reasons, charts, statistics, gaps."""

from __future__ import annotations

from datetime import timedelta

import polars as pl
import pytest
from markets import recorded_walk

from fxlab.charts._style import PLOTLY
from fxlab.widgets import QualityPanel
from fxlab.widgets._quality_panel import CHARTS


@pytest.fixture(scope="module")
def damaged(lab, unique):
    """Store ticks with a silence of ten minutes, and with one trade twice."""
    ticks = recorded_walk(3_000, 1, symbol="BTC")
    late = (
        pl.when(pl.col("seq") > ticks["seq"][1_500])
        .then(timedelta(minutes=10))
        .otherwise(timedelta())
    )
    ticks = ticks.with_columns(pl.col("timestamp") + late)
    other = recorded_walk(500, 2, symbol="ETH")
    name = unique("damaged")
    lab.import_frames({"prices": pl.concat([ticks, other])}, session_id=name)
    return name


@pytest.fixture
def panel(lab, damaged):
    return QualityPanel(lab, session_id=damaged)


def test_run_shows_score_reasons_charts_and_statistics(panel, lab, damaged):
    panel.run.click()
    assert not panel.message.failed, panel.message.value
    expected = lab.session(damaged).quality()
    assert panel.analysis.quality.score == expected.score < 100
    assert str(expected.score) in panel.score.value
    assert "silence" in panel.score.value
    assert "Statistics" in panel.figures.value
    assert "3,000" in panel.figures.value
    assert panel.chart.options == tuple((CHARTS[key], key) for key in ("session", "candles"))
    assert "3,500 ticks in" in panel.progress.text.value
    assert panel.progress.bar.value == 1.0


def test_another_chart_is_drawn_when_it_is_chosen(panel):
    panel.run.click()
    first = panel.plot.outputs[0]["data"][PLOTLY]
    panel.chart.value = "candles"
    assert panel.plot.outputs[0]["data"][PLOTLY] != first
    panel.run.click()
    assert panel.chart.value == "candles"  # a new run keeps it


def test_a_run_draws_once(panel, monkeypatch):
    panel.run.click()
    panel.chart.value = "candles"
    drawn, show = [], panel.plot.show
    monkeypatch.setattr(panel.plot, "show", lambda *given: drawn.append(given) or show(*given))
    panel.run.click()
    assert [text for _, text in drawn] == ["candles: drawn where plotly is"]


def test_several_symbols_say_whose_charts_are_drawn(panel):
    assert "those of BTC, the first chosen" in panel.note.value
    panel.picker.symbol_list.value = ("ETH",)
    assert "the first chosen" not in panel.note.value
    panel.run.click()
    assert set(panel.analysis.statistics["symbol"]) == {"BTC", "ETH"}


def test_no_symbol_is_said_beside_run(panel):
    panel.picker.symbol_list.value = ()
    assert panel.note.failed
    panel.run.click()
    assert panel.analysis is None


def test_it_is_text_in_plain_python(panel):
    assert "not analysed yet" in repr(panel)
    panel.run.click()
    assert "quality of" in repr(panel)
