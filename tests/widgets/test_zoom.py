"""Zooms into charts without a browser: what is sampled again, what is dropped, what is said."""

from __future__ import annotations

import asyncio
import base64
import doctest
import re
import threading
from datetime import timedelta

import nbformat
import numpy as np
import plotly.graph_objects as go
import polars as pl
import pytest
from markets import random_walk, recorded_walk

import fxlab
from fxlab.backtester.report._tearsheet import WIDGET, draw_charts
from fxlab.charts._style import PLOTLY
from fxlab.errors import InvalidParameter, SymbolNotFound
from fxlab.sessions._candles import SessionCharts
from fxlab.widgets import QualityPanel, RunsBrowser, SweepPanel, ZoomableChart, _figures, workbench
from fxlab.widgets._base import Message
from fxlab.widgets._figures import FigureEvents, FigureOutput, ZoomSampler

ROWS = 30_000


@pytest.fixture(scope="module")
def session(lab, unique):
    made = unique("zoomed")
    lab.import_frames({"prices": recorded_walk(ROWS, symbol="BTC")}, session_id=made)
    return lab.session(made)


@pytest.fixture(scope="module")
def ticks(session):
    return pl.concat(session.scan_ticks("BTC"))


def milliseconds(moment):
    return moment.timestamp() * 1_000


def sent_by(zoom, monkeypatch):
    """Return what is sent to the browser from now on."""
    sent = []
    monkeypatch.setattr(zoom, "send", sent.append)
    return sent


def zoomed(zoom, low, high, **more):
    zoom.handle({"event": "zoom", "low": low, "high": high, **more})


def note_of(content):
    return content["annotations"][-1]["text"].replace("<br>", " ")


def numbers(packed):
    """Return the numbers of a trace that was sent to the browser."""
    return np.frombuffer(base64.b64decode(packed["bdata"]), packed["dtype"])


# ---- one figure ----------------------------------------------------------------------------


class Sampler(ZoomSampler):
    """Keeps what it sends."""

    def __init__(self):
        super().__init__(FigureOutput(), Message())
        self.sent = []
        self.send = self.sent.append


def figure_of(text):
    return go.Figure(layout={"annotations": [{"text": text}]})


def test_the_browser_is_sent_the_part_it_asked_for():
    asked, sampler = [], Sampler()
    sampler.show(figure_of("whole"), "", lambda *edges: asked.append(edges) or figure_of("part"))
    zoomed(sampler, 1_000.0, 2_000.5)
    ((start, end),) = asked
    assert (start.timestamp(), end.timestamp()) == (1.0, 2.000501)  # the last one is in it, too
    (content,) = sampler.sent
    assert (content["low"], content["high"]) == (1_000.0, 2_000.5)
    assert note_of(content) == "part"


def test_the_whole_is_the_browsers_own():
    sampler = Sampler()
    sampler.show(figure_of("whole"), "", lambda *_: figure_of("part"))
    zoomed(sampler, None, None)
    assert sampler.sent == []


def test_a_figure_without_ticks_behind_it_is_left_alone():
    sampler = Sampler()
    sampler.show(figure_of("whole"))
    zoomed(sampler, 0.0, 1.0)
    assert sampler.sent == []


def test_times_beyond_all_years_are_the_first_and_the_last():
    asked, sampler = [], Sampler()
    sampler.show(figure_of(""), "", lambda *edges: asked.append(edges) or figure_of(""))
    zoomed(sampler, -1e300, 1e300)
    assert [edge.year for edge in asked[0]] == [1, 9999]


def test_a_range_of_no_length_has_a_microsecond():
    asked, sampler = [], Sampler()
    sampler.show(figure_of(""), "", lambda *edges: asked.append(edges) or figure_of(""))
    zoomed(sampler, 5.0, 5.0)
    assert asked[0][1] - asked[0][0] == timedelta(microseconds=1)


def test_a_browser_that_asks_whether_it_hears_the_kernel_is_answered():
    sampler = Sampler()
    sampler.handle({"event": "ready"})
    assert sampler.sent == [{"event": "ready"}]


def test_a_click_before_the_answer_does_not_change_how_it_is_drawn(monkeypatch):
    asides = []
    monkeypatch.setattr(_figures, "run_aside", lambda run, tell: asides.append((run, tell)))
    sampler = Sampler()
    sampler.show(figure_of("whole"), "", lambda *_: figure_of("part"))
    zoomed(sampler, 0.0, 1.0, redraws=False)
    sampler.handle({"event": "click"})
    ((run, tell),) = asides
    outcome = run()
    tell(lambda: outcome)
    assert sampler.sent == []


def test_where_plotly_cannot_redraw_the_figure_is_shown_again():
    sampler = Sampler()
    sampler.show(figure_of("whole"), "words", lambda *_: figure_of("part"))
    before = sampler._output.outputs
    zoomed(sampler, 0.0, 1.0, redraws=False)
    shown = sampler._output.outputs[0]["data"]
    assert shown[PLOTLY]["layout"]["annotations"][0]["text"] == "part"
    assert shown["text/plain"] == "words"
    zoomed(sampler, None, None, redraws=False)
    assert sampler._output.outputs == before
    assert sampler.sent == []


def test_an_error_is_said_and_the_next_zoom_is_answered():
    def sample(start, _end):
        if start.timestamp() == 0:
            raise InvalidParameter("no such <range>; ask for another")
        return figure_of("part")

    sampler = Sampler()
    sampler.show(figure_of("whole"), "", sample)
    zoomed(sampler, 0.0, 1.0)
    assert sampler._message.failed
    assert "no such &lt;range&gt;" in sampler._message.value
    zoomed(sampler, 1_000.0, 2_000.0)
    assert sampler._message.value == ""
    assert len(sampler.sent) == 1


def test_a_zoom_leaves_what_the_panel_said():
    sampler = Sampler()
    sampler._message.say("something else")
    sampler.show(figure_of("whole"), "", lambda *_: figure_of("part"))
    zoomed(sampler, 0.0, 1.0)
    assert "something else" in sampler._message.value


async def until(true):
    """Let the loop run until something is true."""
    for _ in range(12_000):
        if true():
            return
        await asyncio.sleep(0.005)
    raise AssertionError


class Slow:
    """Answers when it is allowed to, and notes what it was asked."""

    def __init__(self, name):
        self.name, self.asked, self.may_end = name, [], threading.Event()

    def sample(self, start, _end):
        """Return a figure that says what it is of."""
        self.asked.append(start.timestamp())
        self.may_end.wait(60)
        return figure_of(f"{self.name} from {start.timestamp():g}")


def test_of_many_zooms_the_last_one_is_answered():
    async def story():
        sampler, slow = Sampler(), Slow("run")
        sampler.show(figure_of(""), "", slow.sample)
        for second in range(1, 21):
            zoomed(sampler, second * 1_000.0, second * 1_000.0 + 500)
        await until(lambda: slow.asked)
        slow.may_end.set()
        await until(lambda: sampler.sent)
        await until(lambda: not sampler._is_busy)
        assert slow.asked == [1, 20]
        assert [note_of(content) for content in sampler.sent] == ["run from 20"]

    asyncio.run(story())


def test_going_back_to_the_whole_drops_the_answer_under_way():
    async def story():
        sampler, slow = Sampler(), Slow("run")
        sampler.show(figure_of(""), "", slow.sample)
        zoomed(sampler, 1_000.0, 2_000.0)
        await until(lambda: slow.asked)
        zoomed(sampler, None, None)
        slow.may_end.set()
        await until(lambda: not sampler._is_busy)
        assert sampler.sent == []

    asyncio.run(story())


def test_another_figure_drops_the_answers_of_the_one_before():
    async def story():
        sampler, old, new = Sampler(), Slow("old"), Slow("new")
        sampler.show(figure_of(""), "", old.sample)
        zoomed(sampler, 1_000.0, 2_000.0)
        await until(lambda: old.asked)
        sampler.show(figure_of(""), "", new.sample)
        new.may_end.set()
        zoomed(sampler, 3_000.0, 4_000.0)
        old.may_end.set()
        await until(lambda: sampler.sent)
        assert [note_of(content) for content in sampler.sent] == ["new from 3"]
        assert old.asked == [1]

    asyncio.run(story())


def test_clicks_and_zooms_are_told_apart():
    clicked = []
    events = FigureEvents(on_click=clicked.append)
    events.handle({"event": "zoom", "low": 0.0, "high": 1.0})
    events.handle({"event": "click", "x": 1})
    events.handle({"event": "else"})
    assert clicked == [{"event": "click", "x": 1}]
    assert not events.zooms
    assert Sampler().zooms


# ---- panels --------------------------------------------------------------------------------


def test_the_workbench_samples_what_is_seen(lab, session, ticks, monkeypatch):
    bench = workbench(lab, session_id=session.id)
    bench.run.click()
    below = list(bench.children)
    assert below.index(bench.zoom) == below.index(bench.plot) + 1
    sent = sent_by(bench.zoom, monkeypatch)
    low, high = ticks["timestamp"][10_000], ticks["timestamp"][10_399]
    zoomed(bench.zoom, milliseconds(low), milliseconds(high))
    (content,) = sent
    inside = ticks.filter(pl.col("timestamp").is_between(low, high))
    assert note_of(content) == f"{inside.height:,} of {ROWS:,} ticks in view"
    prices = numbers(content["data"][0]["y"])
    assert set(inside["price"]) <= set(prices)
    # One tick on either side, so that the line reaches the edges.
    assert len(prices) == inside.height + 2
    assert bench.message.value == ""


def test_a_range_without_ticks_says_so(lab, session, ticks, monkeypatch):
    bench = workbench(lab, session_id=session.id)
    bench.run.click()
    sent = sent_by(bench.zoom, monkeypatch)
    after = milliseconds(ticks["timestamp"][-1] + timedelta(hours=1))
    zoomed(bench.zoom, after, after + 1_000)
    assert note_of(sent[0]) == f"no ticks in view, of {ROWS:,}"
    assert bench.message.value == ""


def test_the_quality_panel_draws_shorter_candles(lab, session, ticks, monkeypatch):
    panel = QualityPanel(lab, session_id=session.id)
    panel.run.click()
    sent = sent_by(panel.zoom, monkeypatch)
    low, high = (milliseconds(ticks["timestamp"][row]) for row in (2_000, 2_400))
    zoomed(panel.zoom, low, high)
    assert note_of(sent[0]).endswith(f"of {ROWS:,} ticks in view")
    panel.chart.value = "candles"
    zoomed(panel.zoom, low, high)
    assert re.match(rf"\d+ candles in view, \d+ of {ROWS:,} ticks; open", note_of(sent[1]))
    whole = SessionCharts(session, "BTC").whole["candles"]
    steps = [np.diff(times).min() for times in (whole.data[0].x, numbers(sent[1]["data"][0]["x"]))]
    assert steps[1] < steps[0]
    assert panel.message.value == ""


def test_the_runs_browser_samples_a_run_made_again(lab, session, ticks, monkeypatch):
    run_id = fxlab.backtest(session, "sma_cross", {"fast": 5, "slow": 20}).save(lab)
    browser = RunsBrowser(lab)
    browser.filter.value = run_id
    browser.listing.value = (run_id,)
    browser.reproduce.click()
    said = browser.message.value
    assert run_id in said
    sent = sent_by(browser.zoom, monkeypatch)
    edges = [milliseconds(ticks["timestamp"][row]) for row in (100, 200)]
    zoomed(browser.zoom, *edges)
    assert "ticks in view" in note_of(sent[0])
    assert browser.message.value == said
    browser.listing.value = ()
    zoomed(browser.zoom, *edges)
    assert len(sent) == 1


# ---- a chart of its own --------------------------------------------------------------------


def test_a_chart_of_a_result_is_its_figure_and_zooms(monkeypatch):
    result = fxlab.backtest(random_walk(20_000), "sma_cross", {"fast": 5, "slow": 20})
    chart = ZoomableChart(result)
    assert chart.figure == result.plot()
    plot, zoom, _guard = chart.children[-3:]
    assert plot is chart.plot
    assert zoom is chart.zoom  # it looks for the figure beside it
    assert PLOTLY in chart._repr_mimebundle_()
    assert repr(chart).startswith("<ZoomableChart sma_cross(fast=5, slow=20")
    assert "20,000 ticks" in repr(chart)
    sent = sent_by(chart.zoom, monkeypatch)
    first = milliseconds(result.first)
    zoomed(chart.zoom, first, first + 60_000)
    assert "of 20,000 ticks in view" in note_of(sent[0])


def test_an_exported_notebook_draws_the_figure_and_asks_no_kernel():
    chart = ZoomableChart(fxlab.backtest(random_walk(500), "buy_and_hold"))
    bundle = chart._repr_mimebundle_()
    assert WIDGET in bundle
    shown = nbformat.v4.new_output("display_data", data=bundle)
    cells = [nbformat.v4.new_code_cell("chart", outputs=[shown])]
    exported, _ = draw_charts(nbformat.v4.new_notebook(cells=cells), {})
    data = exported.cells[0].outputs[0].data
    assert WIDGET not in data
    assert "Plotly.newPlot" in data["text/html"]


@pytest.mark.parametrize(
    ("given", "error", "words"),
    [
        ({"symbol": "ETH"}, SymbolNotFound, "ETH"),
        ({"chart": "depth"}, InvalidParameter, "'depth' is not there.* has: session, candles"),
    ],
)
def test_a_chart_that_is_not_there_is_named(session, given, error, words):
    with pytest.raises(error, match=words):
        ZoomableChart(session, **given)


def test_a_chart_of_something_else_is_refused():
    with pytest.raises(InvalidParameter, match="neither a result nor a session"):
        ZoomableChart("prices")


def test_the_example_in_its_docstring_runs(lab, unique):
    name = unique("example")
    lab.import_frame(recorded_walk(1_500, symbol="BTC_USDT"), "prices", session_id=name)
    names = {"fxlab": fxlab, "session": lab.session(name)}
    test = doctest.DocTestFinder().find(_figures.ZoomableChart, globs=names)[0]
    assert test.examples
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    assert runner.run(test).failed == 0


def test_the_tear_sheet_of_a_point_of_a_sweep_is_zoomed_into(lab, session, monkeypatch):
    panel = SweepPanel(lab, session_id=session.id)
    panel.grid.set_range("fast", 5, 10, 5)
    panel.grid.set_range("slow", 20, 30, 10)
    panel.run.click()
    panel.sheet.backtest.click()
    sent = sent_by(panel.sheet.zoom, monkeypatch)
    first = milliseconds(panel.point_result.first)
    zoomed(panel.sheet.zoom, first, first + 60_000)
    (content,) = sent
    assert re.match(rf"\d+ of {ROWS:,} ticks in view", note_of(content))
    panel.run.click()  # another sweep: the sheet before is gone, and so are its zooms
    zoomed(panel.sheet.zoom, first, first + 30_000)
    assert len(sent) == 1
