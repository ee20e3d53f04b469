"""Zooms by the mouse in a real JupyterLab: what no sample of the whole shows is seen then."""

from __future__ import annotations

import re

import numpy as np
import polars as pl
import pytest
from lab_browser import GIVE_UP, WAIT, browser_page, open_and_run, reload_page, write_notebook
from markets import START

pytestmark = pytest.mark.browser

ROWS = 300_000
SPIKE = 150_294
"""One tick that is off, in the middle of a wave: no sample of the whole needs it."""

SETUP = """
import fxlab
from fxlab.widgets import QualityPanel, Workbench, ZoomableChart

lab = fxlab.connect()
session = lab.session("{session}")
""".strip()
BENCH = "Workbench(lab, session_id=session.id)"
OWN = """
result = fxlab.backtest(session, "sma_cross", {"fast": 50, "slow": 2_000})
ZoomableChart(result)
""".strip()

NOTE = "(e) => e.layout.annotations.at(-1).text.replaceAll('<br>', ' ')"
RANGE = """
(e) => { const axis = e._fullLayout.xaxis;
  return axis.autorange ? null : axis.range.map((end) => axis.r2l(end)); }
"""
PRICES = "(e) => [...e.calcdata[0]].map(({ x, y }) => [x, y])"
HIDDEN = "(e) => e._fullData.filter(({ visible }) => visible === 'legendonly').map((t) => t.name)"


def walk():
    """Return ticks 100 ms apart that wave, with a dip of one tick on the way down."""
    rows = np.arange(ROWS)
    prices = np.round(100 + 10 * np.sin(rows / 20_000) + 2 * np.sin(rows / 40), 2)
    prices[SPIKE] = np.round(prices[SPIKE] + 0.37, 2)
    times = START + 100_000 * rows
    return pl.DataFrame(
        {
            "timestamp": pl.Series(times).cast(pl.Datetime("us", "UTC")),
            "seq": rows,
            "symbol": ["BTC"] * ROWS,
            "price": prices,
            "volume": np.ones(ROWS),
        }
    )


@pytest.fixture(scope="module")
def ticks():
    return walk()


@pytest.fixture(scope="module")
def session(lab, ticks, unique):
    made = unique("zoom")
    lab.import_frames({"prices": ticks}, session_id=made)
    return made


class Chart:
    """A chart on the page, and the mouse over its upper plot."""

    def __init__(self, page, place):
        self.page, self.place = page, place

    def ask(self, script):
        """Return what a function of the chart's element gives."""
        return self.place.evaluate(script)

    def wait_for(self, script):
        """Wait until a function of the chart's element is true."""
        self.page.wait_for_function(script, arg=self.place.element_handle())

    def wait(self, part):
        """Wait until the note above the chart has some words."""
        self.wait_for(f"(e) => ({NOTE})(e).includes({part!r})")

    def drag(self, start, end):
        """Drag from one share of the width to another."""
        plot = self.place.locator(".nsewdrag").first.bounding_box()
        middle = plot["y"] + plot["height"] / 2
        self.page.mouse.move(plot["x"] + plot["width"] * start, middle)
        self.page.mouse.down()
        self.page.mouse.move(plot["x"] + plot["width"] * end, middle, steps=6)
        self.page.mouse.up()

    def zoom_at(self, time, shares=0.05):
        """Drag around a time."""
        low, high = self.ask(
            "(e) => e._fullLayout.xaxis.range.map((x) => e._fullLayout.xaxis.r2l(x))"
        )
        at = (time - low) / (high - low)
        self.drag(max(at - shares, 0.001), min(at + shares, 0.999))

    def double_click(self):
        """Ask for the whole time."""
        plot = self.place.locator(".nsewdrag").first.bounding_box()
        self.page.mouse.dblclick(plot["x"] + plot["width"] / 2, plot["y"] + plot["height"] / 2)


def test_a_zoom_by_the_mouse_brings_the_tick_that_no_sample_had(jupyter, session, ticks, shots):
    from playwright.sync_api import expect

    url, root = jupyter
    write_notebook(root / "zoom.ipynb", SETUP.format(session=session), BENCH)
    at = START / 1_000 + 100 * SPIKE
    price = ticks["price"][SPIKE]
    with browser_page(height=2_400) as page:
        panel = open_and_run(page, url, "zoom.ipynb").locator(".fxlab-panel").first
        panel.get_by_role("button", name="Run").click(timeout=WAIT)
        place = panel.locator(".js-plotly-plot")
        expect(place.locator(".legendtext").first).to_be_visible(timeout=WAIT)
        chart = Chart(page, place)
        whole = chart.ask(NOTE)
        assert "300,000 ticks, " in whole
        assert [at, price] not in chart.ask(PRICES)
        drawn = chart.ask(PRICES)

        # The legend: what is hidden stays hidden, whatever is drawn.
        place.locator(".legendtoggle").first.click()
        chart.wait_for(f"(e) => ({HIDDEN})(e).length === 1")
        hidden = chart.ask(HIDDEN)

        chart.zoom_at(at)
        chart.wait("of 300,000 ticks in view")
        page.screenshot(path=shots / "zoom-1.png")
        for _ in range(2):  # 3,000 ticks, then 300: all of them are drawn
            last = chart.ask(NOTE)
            chart.zoom_at(at)
            chart.wait_for(f"(e) => ({NOTE})(e) !== {last!r}")
        assert re.fullmatch(r"\d+ of 300,000 ticks in view", chart.ask(NOTE))
        assert [at, price] in chart.ask(PRICES)
        low, high = chart.ask(RANGE)
        assert low < at < high
        assert chart.ask(HIDDEN) == hidden
        page.screenshot(path=shots / "zoom-2.png")

        # A zoom of the y axis alone asks for nothing, and legend clicks go on working.
        chart.ask("(e) => { e.redrawn = 0; e.on('plotly_react', () => { e.redrawn += 1; }); }")
        place.evaluate("(e) => window.Plotly.relayout(e, {'yaxis.range': [90, 100]})")
        place.locator(".legendtoggle").first.click()
        chart.wait_for(f"(e) => ({HIDDEN})(e).length === 0")
        page.wait_for_timeout(400)  # longer than the script waits for another zoom
        assert chart.ask("(e) => e.redrawn") == 0

        chart.double_click()
        chart.wait(whole)
        assert chart.ask(RANGE) is None
        assert chart.ask(PRICES) == drawn
        assert chart.ask(HIDDEN) == []
        page.screenshot(path=shots / "zoom-3-whole.png")

        # The page is loaded again: the kernel goes on, and so does its panel.
        page.set_viewport_size({"width": 800, "height": 2_400})
        reload_page(page)
        place = page.locator(".jp-NotebookPanel .fxlab-panel .js-plotly-plot").first
        expect(place.locator(".legendtext").first).to_be_visible(timeout=WAIT)
        chart = Chart(page, place)
        chart.zoom_at(at)
        chart.wait("of 300,000 ticks in view")
        page.screenshot(path=shots / "zoom-4-reloaded-800.png")


def test_charts_of_sessions_and_of_a_notebook_zoom_in_a_narrow_window(
    jupyter, session, ticks, shots
):
    from playwright.sync_api import expect

    url, root = jupyter
    made = "QualityPanel(lab, session_id=session.id)"
    write_notebook(root / "zoom.ipynb", SETUP.format(session=session), OWN, made)
    at = START / 1_000 + 100 * SPIKE
    with browser_page(height=3_000) as page:
        page.set_viewport_size({"width": 800, "height": 3_000})
        panels = open_and_run(page, url, "zoom.ipynb").locator(".fxlab-panel")
        own, quality = panels.nth(0), panels.nth(1)
        quality.get_by_role("button", name="Run").click(timeout=WAIT)
        for panel in (own, quality):
            expect(panel.locator(".js-plotly-plot .infolayer").first).to_be_visible(timeout=WAIT)
            chart = Chart(page, panel.locator(".js-plotly-plot"))
            whole = chart.ask(NOTE)
            # Many zooms, one after the other: what is seen at last is what is drawn.
            for low in (0.1, 0.3, 0.2, 0.4):
                chart.drag(low, low + 0.3)
            seen = chart.ask(RANGE)
            times = ticks["timestamp"].dt.timestamp("us")
            inside = times.is_between(*(round(edge * 1_000) for edge in seen)).sum()
            chart.wait(f"{inside:,} of 300,000 ticks in view")
            assert chart.ask(RANGE) == seen
            page.screenshot(path=shots / "zoom-5-800.png")
            chart.double_click()
            chart.wait(whole)

        quality.get_by_label("Chart", exact=True).select_option("candles")
        expect(quality.locator(".js-plotly-plot .boxlayer").first).to_be_visible()
        chart = Chart(page, quality.locator(".js-plotly-plot"))
        longer = chart.ask("(e) => e.calcdata[0][1].x - e.calcdata[0][0].x")
        chart.zoom_at(at)
        chart.wait("of 300,000 ticks; open")
        assert chart.ask("(e) => e.calcdata[0][1].x - e.calcdata[0][0].x") < longer
        page.screenshot(path=shots / "zoom-6-800.png")

        # A page whose plotly is out of reach is shown the figure again, over what was asked for.
        page.evaluate("() => { window.Plotly = undefined; }")
        said = own.locator(".js-plotly-plot .annotation-text").last  # below it stands a summary
        Chart(page, own.locator(".js-plotly-plot")).drag(0.4, 0.6)
        expect(said).to_contain_text("of 300,000 ticks in view")
        Chart(page, own.locator(".js-plotly-plot")).double_click()
        expect(said).to_contain_text("300,000 ticks, ")


def test_a_zoom_is_answered_where_the_page_was_too_busy_to_hear_the_kernel(jupyter, session):
    from playwright.sync_api import expect

    url, root = jupyter
    write_notebook(root / "zoom.ipynb", SETUP.format(session=session), OWN)
    gave_up = []
    with browser_page(height=1_600) as page:
        page.add_init_script(GIVE_UP)
        page.on("pageerror", lambda error: gave_up.append(str(error)))
        panel = open_and_run(page, url, "zoom.ipynb").locator(".fxlab-panel").first
        said = panel.locator(".js-plotly-plot .annotation-text").last
        expect(said).to_contain_text("300,000 ticks, ", timeout=WAIT)
        Chart(page, panel.locator(".js-plotly-plot")).drag(0.4, 0.6)
        expect(said).to_contain_text("of 300,000 ticks in view")
        Chart(page, panel.locator(".js-plotly-plot")).double_click()
        expect(said).to_contain_text("300,000 ticks, ")
    assert any("Failed to initialize model" in error for error in gave_up)


def test_a_chart_without_its_kernel_says_that_it_hears_no_zoom(jupyter, session, shots):
    """At once where the kernel is shut down, and on a page that is loaded from what was saved."""
    from playwright.sync_api import expect

    url, root = jupyter
    saving = root.parent / "home" / "settings" / "@jupyter-widgets" / "jupyterlab-manager"
    saving.mkdir(parents=True)
    (saving / "plugin.jupyterlab-settings").write_text('{"saveState": true}')
    slow = "fxlab._progress.DELAY = 0.0  # a bar, however fast it is read"
    setup = f"{SETUP.format(session=session)}\n{slow}"
    write_notebook(root / "saved.ipynb", setup, "ZoomableChart(session)")
    with browser_page(height=1_600) as page:
        panel = open_and_run(page, url, "saved.ipynb").locator(".jp-OutputArea .fxlab-panel")
        chart = panel.locator(".js-plotly-plot .infolayer").first
        lost = panel.get_by_role("alert").filter(has_text="hears no click and no zoom")
        expect(chart).to_be_visible(timeout=WAIT)
        expect(lost).to_have_count(0)
        page.get_by_role("menuitem", name="Kernel", exact=True).click()
        page.locator('.lm-Menu-item[data-command="kernelmenu:shutdown"]').click()
        expect(lost).to_have_count(1, timeout=WAIT)
        page.screenshot(path=shots / "zoom-7-shut-down.png")

        reload_page(page)
        expect(chart).to_be_visible(timeout=WAIT)
        expect(lost).to_have_count(1, timeout=WAIT)
        # Nothing is left of the bar that told how the session was read.
        expect(page.get_by_text("Error displaying widget")).to_have_count(0)
        page.screenshot(path=shots / "zoom-8-saved.png")
