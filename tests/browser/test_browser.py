"""A real JupyterLab in a real browser, used as a person would: type, click, press keys, look."""

from __future__ import annotations

import os
import re
import shutil
import signal

import polars as pl
import pytest
from lab_browser import (
    FAULTS,
    PROJECT,
    WAIT,
    browser_page,
    jupyter_lab,
    need_chromium,
    open_and_run,
    write_notebook,
)
from markets import random_walk, recorded_walk

import fxlab

pytestmark = pytest.mark.browser

SESSIONS = {"a": ["BTC_USDT"], "b": ["ETH_USDT"], "c": ["BTC_USDT", "SOL_USDT"]}
HOSTILE = "<img src=x onerror=\"document.title='broken into'\"> & <b>bold</b>"
TALL = 4_200

CANCEL_NOTEBOOK = """
from IPython.display import display
from fxlab.widgets._base import run_aside
from fxlab.widgets._base import Message
from fxlab.widgets._base import ProgressBar

progress, message = ProgressBar(), Message()

def work():
    step = 0
    while True:
        step += 1
        progress(step % 1_000 / 1_000, f"step {step:,}")

def done(outcome):
    with message.guard():
        outcome()

def begin():
    progress.start()
    run_aside(work, done)

display(progress, message)
""".strip()


PANELS_NOTEBOOK = """
import fxlab
from fxlab.widgets import LiveMonitor, ReplayPanel, SweepPanel, Workbench

lab = fxlab.connect()
""".strip()
PANELS = {
    "workbench": "Workbench(lab, session_id={!r}, strategy='bracket_breakout')",
    "sweep": "SweepPanel(lab, session_id={!r})",
    "replay": "ReplayPanel(lab, session_id={!r})",
    "monitor": "LiveMonitor(lab)",
}


@pytest.fixture(scope="module")
def jupyter(server, tmp_path_factory, free_port_for_lab):
    """Serve a copy of the notebooks and return (url, folder)."""
    need_chromium()
    root = tmp_path_factory.mktemp("notebooks")
    for path in (PROJECT / "notebooks").glob("*.ipynb"):
        shutil.copy(path, root)
    with jupyter_lab(root, tmp_path_factory.mktemp("jupyter"), free_port_for_lab) as url:
        yield url, root


@pytest.fixture(scope="module")
def free_port_for_lab():
    from conftest import pick_ports

    return pick_ports(1)[0]


@pytest.fixture(scope="module")
def word(lab, unique):
    """Store three sessions that share a word; the newest, "c", has two symbols."""
    chosen = unique("story")
    for hour, (letter, symbols) in enumerate(SESSIONS.items()):
        walks = [recorded_walk(20_000, seed, symbol=name) for seed, name in enumerate(symbols)]
        later = pl.col("timestamp") + pl.duration(hours=hour)
        lab.import_frames(
            {"prices": pl.concat(walks).with_columns(later)},
            session_id=f"{chosen}-{letter}",
            exchange="nowhere",
            notes=HOSTILE,
        )
    return chosen


def outputs(panel):
    """Return the outputs only: the source of a cell may hold the same words."""
    return panel.locator(".jp-OutputArea")


def test_the_quickstart_is_used_as_a_person_would(jupyter, word, shots):
    from playwright.sync_api import expect

    url, root = jupyter
    quickstart = root / "01_quickstart.ipynb"
    source = quickstart.read_text()
    assert 'session_id: str = \\"\\"' in source
    quickstart.write_text(source.replace('str = \\"\\"', f'str = \\"{word}-c\\"', 1))
    with browser_page(height=TALL) as page:
        panel = open_and_run(page, url, "01_quickstart.ipynb")
        last = panel.locator(".jp-CodeCell .jp-InputPrompt").last
        expect(last).to_have_text(re.compile(r"\[\d+\]:"), timeout=2 * WAIT)
        seen = outputs(panel)
        expect(seen.locator('[data-mime-type="application/vnd.jupyter.error"]')).to_have_count(0)
        expect(seen.locator(".js-plotly-plot")).to_have_count(2)
        page.screenshot(path=shots / "1-quickstart.png")

        # The filter narrows the list; the choice stays.
        chosen = seen.locator(".fxlab-panel table.facts").first
        expect(chosen).to_contain_text(f"{word}-c")
        seen.get_by_label("Filter").press_sequentially(word, delay=10)
        expect(seen.get_by_role("status").first).to_have_text(re.compile(r"^3 sessions match$"))
        listing = seen.get_by_label("Session", exact=True)
        expect(listing.locator("option")).to_have_count(3)
        expect(chosen).to_contain_text(f"{word}-c")

        # A session by click, the next one by an arrow key; the notebook does not move.
        listing.locator("option").nth(1).click()
        expect(chosen).to_contain_text(f"{word}-b")
        active = panel.locator(".jp-Cell.jp-mod-active .jp-InputPrompt").inner_text()
        page.keyboard.press("ArrowDown")
        expect(chosen).to_contain_text(f"{word}-a")
        page.keyboard.press("ArrowUp")
        page.keyboard.press("ArrowUp")
        expect(chosen).to_contain_text(f"{word}-c")
        assert panel.locator(".jp-Cell.jp-mod-active .jp-InputPrompt").inner_text() == active
        symbols = seen.get_by_label("Symbols")
        expect(symbols.locator("option")).to_have_text(["BTC_USDT", "SOL_USDT"])

        # What somebody wrote into the notes is text.
        expect(chosen).to_contain_text(HOSTILE)
        assert page.locator("img[src=x]").count() == 0
        assert "broken into" not in page.title()

        # Another strategy brings its own form; a dropdown works by keyboard, too.
        strategies = seen.get_by_label("Strategy", exact=True)
        strategies.select_option("breakout")
        expect(seen.get_by_label("entry", exact=True)).to_have_value("500")
        strategies.focus()
        page.keyboard.press("ArrowDown")
        expect(seen.get_by_label("entry", exact=True)).to_have_count(0)
        strategies.select_option("sma_cross")

        # A rule that two values break together is said at once, and Run says it as well.
        fast = seen.get_by_label("fast", exact=True)
        fast.fill("900")
        fast.press("Tab")
        rule = seen.get_by_role("alert").filter(has_text="fast=900 must be below slow=200")
        expect(rule).to_have_count(1)
        seen.get_by_role("button", name="Run").click()
        expect(rule).to_have_count(2)
        fast.fill("20")
        fast.press("Tab")
        expect(rule).to_have_count(1)

        # Run: picture and figures.
        seen.get_by_role("button", name="Run").click()
        bench = seen.locator(".fxlab-panel").first
        expect(bench.locator(".js-plotly-plot .gtitle")).to_contain_text("sma_cross(fast=20")
        expect(bench.locator(".js-plotly-plot .gtitle")).to_contain_text(f"{word}-c")
        expect(bench.locator("table.fxlab").filter(has_text="final equity").first).to_be_visible()
        expect(bench.get_by_text("40,000 ticks in")).to_be_visible()
        expect(rule).to_have_count(0)
        page.screenshot(path=shots / "2-after-run.png")


def test_cancel_stops_work_that_goes_on(jupyter, shots):
    from playwright.sync_api import expect

    url, root = jupyter
    write_notebook(root / "cancel.ipynb", CANCEL_NOTEBOOK, "begin()")
    with browser_page(height=900) as page:
        seen = outputs(open_and_run(page, url, "cancel.ipynb"))
        expect(seen.get_by_text(re.compile(r"^step [\d,]+$"))).to_be_visible()
        seen.get_by_role("button", name="Cancel").click()
        expect(seen.get_by_role("status")).to_contain_text("stopped before the end")
        page.screenshot(path=shots / "3-cancelled.png")


HEIGHTS = "all => all.map(one => one.getBoundingClientRect().height)"
ZOOM = "one => Plotly.relayout(one, {'yaxis.range': [99, 101]})"


def test_every_panel_fits_800_pixels_names_its_inputs_and_can_be_read(jupyter, word, shots):
    from playwright.sync_api import expect

    url, root = jupyter
    for name, made in PANELS.items():
        write_notebook(root / f"{name}.ipynb", PANELS_NOTEBOOK, made.format(f"{word}-c"))
        with browser_page(height=2_400) as page:
            page.set_viewport_size({"width": 800, "height": 2_400})
            panel = open_and_run(page, url, f"{name}.ipynb").locator(".fxlab-panel").first
            expect(panel.get_by_role("button").last).to_be_visible(timeout=WAIT)
            if name != "monitor":
                expect(panel.get_by_label("Session", exact=True)).to_be_visible(timeout=WAIT)
                heads = panel.locator(".fxlab-heads pre")
                expect(heads).to_contain_text("Session")
                expect(heads).to_contain_text("Status")
                label = panel.get_by_label("Session", exact=True).locator("option").first
                expect(label).to_contain_text("completed")
            if name == "replay":
                expect(panel.get_by_role("slider", name="Speed")).to_be_visible()
                expect(panel.get_by_role("slider", name="Place")).to_be_visible()
            found = panel.evaluate(FAULTS)
            page.screenshot(path=shots / f"5-{name}-800.png")
            assert found.pop("written") > 10
            assert found == {"wide": [], "cut": [], "unnamed": [], "pale": []}, name


def test_a_zoom_or_a_click_on_the_legend_leaves_the_chart_its_height(jupyter, word, shots):
    from playwright.sync_api import expect

    url, root = jupyter
    write_notebook(root / "zoom.ipynb", PANELS_NOTEBOOK, f"Workbench(lab, session_id='{word}-a')")
    with browser_page(height=2_400) as page:
        panel = open_and_run(page, url, "zoom.ipynb").locator(".fxlab-panel").first
        field = panel.get_by_label("Fee, bps", exact=True)
        expect(field).to_be_visible(timeout=WAIT)
        field.fill("1e9")
        field.press("Tab")
        expect(field).to_have_attribute("aria-invalid", "true")
        expect(field).to_have_value("1e9")
        expect(panel.get_by_role("alert")).to_contain_text("taker_bps=1000000000.0 is not a number")
        field.fill("5")
        field.press("Tab")
        expect(panel.get_by_role("alert")).to_have_count(0)
        panel.get_by_role("button", name="Run").click()
        chart = panel.locator(".js-plotly-plot")
        expect(chart.locator(".legendtext").first).to_be_visible(timeout=WAIT)
        before = chart.bounding_box()
        assert before["height"] > 200
        plot = chart.locator(".nsewdrag").first.bounding_box()
        middle = plot["y"] + plot["height"] / 2
        page.mouse.move(plot["x"] + plot["width"] * 0.3, middle)
        page.mouse.down()
        page.mouse.move(plot["x"] + plot["width"] * 0.6, middle, steps=8)
        page.mouse.up()
        page.wait_for_function(
            "(e) => e._fullLayout.xaxis.autorange === false", arg=chart.element_handle()
        )
        assert chart.bounding_box()["height"] == before["height"]
        chart.locator(".legendtoggle").first.click()
        page.wait_for_function(
            "(e) => e._fullData.some((one) => one.visible === 'legendonly')",
            arg=chart.element_handle(),
        )
        page.screenshot(path=shots / "6-zoomed.png")
        drawn = chart.locator("svg.main-svg").first.bounding_box()
        assert drawn["height"] == chart.bounding_box()["height"] == before["height"]
        assert chart.locator(".nsewdrag").first.bounding_box()["height"] > 50


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_a_report_is_one_file_that_asks_for_nothing_and_keeps_its_shape(scheme, tmp_path, shots):
    from playwright.sync_api import expect

    need_chromium()
    values = {"fast": 5, "slow": 40, "allow_short": True}
    path = fxlab.backtest(random_walk(20_000), "sma_cross", values).report(tmp_path / "out")
    path = path.rename(tmp_path / "alone.html")
    asked, said = [], []
    with browser_page(height=1_400, scheme=scheme) as page:
        page.context.set_offline(True)
        page.on("request", lambda request: asked.append(request.url))
        page.on("console", lambda message: said.append(message.text))
        page.goto(path.as_uri())
        figures = page.locator(".figure svg.main-svg:first-child")
        expect(page.locator(".js-plotly-plot .legendtext").first).to_have_text("buy")
        assert page.locator(".js-plotly-plot").count() == 6
        assert page.locator("[data-title^=Share]").count() == 0
        before = figures.evaluate_all(HEIGHTS)
        assert min(before) > 200
        for one in page.locator(".js-plotly-plot").all():
            one.evaluate(ZOOM)
        page.locator(".legendtoggle").first.click()
        page.set_viewport_size({"width": 700, "height": 900})
        expect(page.locator(".js-plotly-plot .traces").first).to_have_css("opacity", "0.5")
        assert figures.evaluate_all(HEIGHTS) == before
        page.screenshot(path=shots / f"4-report-{scheme}.png", full_page=True)
    assert asked == [path.as_uri()]
    assert said == []


RESTARTED_NOTEBOOK = """
import os
from pathlib import Path

import fxlab
from fxlab.widgets import SessionPicker, Workbench

Path("kernel.pid").write_text(str(os.getpid()))
lab = fxlab.connect()
""".strip()


def test_a_panel_says_that_its_kernel_is_gone(jupyter, word, shots):
    """Whether it died and came back by itself, or somebody restarted it."""
    from playwright.sync_api import expect

    url, root = jupyter
    made = [f"{kind}(lab, session_id={f'{word}-a'!r})" for kind in ("SessionPicker", "Workbench")]
    write_notebook(root / "restarted.ipynb", RESTARTED_NOTEBOOK, *made)
    with browser_page(height=TALL) as page:
        cells = open_and_run(page, url, "restarted.ipynb").locator(".jp-CodeCell")
        lost = cells.get_by_role("alert").filter(has_text="run this cell again")
        details = cells.get_by_text("of 100", exact=False)
        expect(details).to_have_count(2, timeout=WAIT)
        expect(lost).to_have_count(0)

        os.kill(int((root / "kernel.pid").read_text()), signal.SIGKILL)
        page.get_by_role("button", name="Ok").click(timeout=WAIT)
        expect(lost).to_have_count(2, timeout=WAIT)  # one a panel, none for the picker within
        page.screenshot(path=shots / "40-kernel-gone.png")

        page.get_by_role("menuitem", name="Run", exact=True).click()
        page.locator('.lm-Menu-item[data-command="runmenu:run-all"]').click()
        expect(lost).to_have_count(0, timeout=WAIT)
        expect(details).to_have_count(2, timeout=WAIT)

        page.get_by_role("menuitem", name="Kernel", exact=True).click()
        page.locator('.lm-Menu-item[data-command="kernelmenu:restart"]').click()
        page.locator("dialog .jp-mod-accept").click()
        expect(lost).to_have_count(2, timeout=WAIT)
        first = cells.nth(1).locator(".fxlab-panel").first
        assert first.evaluate("(panel) => panel.firstElementChild.role") == "alert"
        found = first.evaluate(FAULTS)
        assert found.pop("written") > 10
        assert found == {"wide": [], "cut": [], "unnamed": [], "pale": []}
