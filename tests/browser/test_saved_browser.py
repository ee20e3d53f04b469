"""Saved runs, quality and deletion in a real JupyterLab: by keyboard, over a reload, and back."""

from __future__ import annotations

import re

import pytest
from lab_browser import FAULTS, WAIT, browser_page, open_and_run, reload_page, write_notebook
from markets import recorded_walk

import fxlab
from fxlab.errors import RunNotFound, SessionNotFound

pytestmark = pytest.mark.browser

RUNS = """
import fxlab
from fxlab import widgets

panel = widgets.RunsBrowser(fxlab.connect())
panel
""".strip()
QUALITY = """
import fxlab
from fxlab import widgets

panel = widgets.QualityPanel(fxlab.connect(), session_id="{session}")
panel
""".strip()
NARROWED = """
import time
from pathlib import Path

import fxlab
from fxlab import widgets

panel = widgets.SessionPicker(fxlab.connect(), session_id="{session}_other")
panel.filter.value, panel.order.value = "{session}", "id"
panel
""".strip()
MEANWHILE = """
while not Path("chosen").exists():
    time.sleep(0.05)
panel.filter.value = "{session}_other"
""".strip()
FASTS = (3, 5, 9)
TALL = 2_600


@pytest.fixture(scope="module")
def session(lab, unique):
    """Store a session whose id and symbols have underscores, and a second one to be left alone."""
    name = unique("shelf_one")
    for made, seed in ((name, 1), (f"{name}_other", 2)):
        prices = recorded_walk(20_000, seed, symbol="BTC_USDT")
        lab.import_frames({"prices": prices}, session_id=made)
    return name


@pytest.fixture(scope="module")
def runs(lab, session):
    found = lab.session(session)
    return [
        fxlab.backtest(found, "sma_cross", {"fast": fast, "slow": 20}).save(lab) for fast in FASTS
    ]


@pytest.fixture(scope="module")
def swept(lab, session):
    grid = {"fast": [3, 5, 9], "slow": [20, 30]}
    return fxlab.sweep(lab.session(session), "sma_cross", grid, lab=lab).sweep_ids[0]


def opened(page, url, name):
    seen = open_and_run(page, url, name).locator(".jp-OutputArea")
    return seen, seen.locator(".fxlab-panel").first


def no_faults(page, panel):
    """Look at a panel as it is now in a window of 800 pixels."""
    page.set_viewport_size({"width": 800, "height": TALL})
    page.wait_for_timeout(300)  # the page is laid out again
    inside = "all => all.every((one) => one.getBoundingClientRect().right <= innerWidth)"
    assert panel.locator(".fxlab-scrolled").evaluate_all(inside)  # what is in it can be scrolled to
    found = panel.evaluate(FAULTS)
    assert found.pop("written") > 10
    return found


NO_FAULTS = {"wide": [], "cut": [], "unnamed": [], "pale": []}
ERROR = '[data-mime-type="application/vnd.jupyter.error"]'


def test_saved_runs_are_opened_compared_deleted_and_brought_back(
    jupyter, lab, session, runs, swept, shots
):
    from playwright.sync_api import expect

    expect.set_options(timeout=WAIT)
    url, root = jupyter
    write_notebook(root / "runs.ipynb", RUNS)
    with browser_page(height=TALL) as page:
        seen, panel = opened(page, url, "runs.ipynb")
        listing = panel.get_by_label("Chosen", exact=True)
        words = panel.get_by_label("Filter", exact=True)
        words.press_sequentially(session, delay=5)
        count = panel.get_by_role("status").first
        expect(count).to_have_text("3 runs match")
        rows = listing.locator("option")
        expect(rows).to_have_count(3)

        # By keyboard: the first, then the next one with it; the notebook does not move.
        listing.focus()
        page.keyboard.press("Home")
        table = panel.locator("table.fxlab")
        expect(table.first).to_contain_text("sma_cross")
        expect(panel.get_by_role("button", name="Reproduce")).to_be_enabled()
        page.screenshot(path=shots / "12-runs-opened.png")
        page.keyboard.press("Shift+ArrowDown")
        expect(table.filter(has_text="What differs")).to_be_visible()
        expect(panel.get_by_role("button", name="Reproduce")).to_be_disabled()
        expect(listing).to_be_focused()

        # The heads of the comparison are the ids, letter by letter, for they are what is typed.
        pair = sorted(lab.runs(text=session)["run_id"].to_list(), reverse=True)
        heads = table.filter(has_text="What differs").locator("thead th").all_inner_texts()
        assert len(heads) == 4
        assert set(heads[2:]) < set(pair)
        page.screenshot(path=shots / "13-runs-compared.png")

        # Reload: what was chosen is there again, and so is what it showed.
        reload_page(page)
        expect(listing.locator("option:checked")).to_have_count(2)
        expect(table.filter(has_text="What differs")).to_be_visible()
        expect(words).to_have_value(session)

        # Delete and Undo, each by its key.
        gone = listing.locator("option:checked").evaluate_all("all => all.map(o => o.text)")
        button = panel.get_by_role("button", name="Delete")
        button.focus()
        page.keyboard.press("Enter")
        expect(rows).to_have_count(1)
        expect(panel.get_by_role("status").filter(has_text="deleted; Undo brings")).to_be_visible()
        expect(table).to_have_count(0)
        expect(button).to_be_disabled()
        page.screenshot(path=shots / "14-runs-deleted.png")
        ids = [text.split()[0] for text in gone]
        for one in ids:
            with pytest.raises(RunNotFound):
                lab.run(one)
        panel.get_by_role("button", name="Undo").focus()
        page.keyboard.press("Enter")
        expect(rows).to_have_count(3)
        expect(listing.locator("option:checked")).to_have_count(2)
        expect(panel.get_by_role("button", name="Undo")).to_be_hidden()
        assert [lab.run(one).run_id for one in ids] == ids

        # Several by the browser's own way, one of them run again.
        listing.select_option(index=[0, 1, 2])
        expect(table.filter(has_text="What differs").locator("thead th")).to_have_count(5)
        listing.select_option(index=[1])
        panel.get_by_role("button", name="Reproduce").click()
        expect(panel.get_by_text("bit by bit")).to_be_visible()
        expect(panel.locator(".js-plotly-plot .gtitle")).to_contain_text("sma_cross")
        page.screenshot(path=shots / "15-runs-reproduced.png")

        # Sweeps are the other list.
        panel.get_by_role("button", name="sweeps").click()
        expect(rows).to_have_count(1)
        listing.select_option(index=[0])
        expect(table.filter(has_text="The best of 6 points")).to_be_visible()
        expect(panel.locator(".js-plotly-plot .heatmaplayer")).to_be_visible()
        page.screenshot(path=shots / "16-runs-sweep.png")
        panel.get_by_role("button", name="runs").click()
        expect(rows).to_have_count(3)
        listing.select_option(index=[0, 1, 2])
        expect(table.filter(has_text="What differs")).to_be_visible()
        assert no_faults(page, panel) == NO_FAULTS
        page.screenshot(path=shots / "17-runs-800.png")
        expect(seen.locator(ERROR)).to_have_count(0)


def test_a_session_is_judged_deleted_and_brought_back(jupyter, lab, session, shots):
    from playwright.sync_api import expect

    expect.set_options(timeout=WAIT)
    url, root = jupyter
    write_notebook(root / "quality.ipynb", QUALITY.format(session=session))
    with browser_page(height=TALL) as page:
        seen, panel = opened(page, url, "quality.ipynb")
        panel.get_by_role("button", name="Run").click()
        chart = panel.locator(".js-plotly-plot")
        expect(chart.locator(".gtitle")).to_contain_text(session)
        expect(panel.get_by_text(re.compile(r"^20,000 ticks in "))).to_be_visible()
        expect(panel.get_by_text("No gaps are known.")).to_be_visible()
        page.screenshot(path=shots / "18-quality.png")

        # Another chart, by an arrow key; the statistics' head is the symbol as it is written.
        kinds = panel.get_by_label("Chart", exact=True)
        kinds.focus()
        page.keyboard.press("ArrowDown")
        expect(chart.locator(".boxlayer, .ohlclayer, .boxes").first).to_be_attached()
        panel.get_by_text("Statistics", exact=True).first.click()
        heads = panel.locator("table.fxlab").filter(has_text="Statistics").locator("thead th")
        expect(heads).to_have_text(["statistic", "BTC_USDT"])
        page.screenshot(path=shots / "19-quality-candles.png")

        # Delete asks for the id, and shows what would be freed.
        expect(panel.get_by_label("Its id")).to_be_hidden()
        panel.get_by_role("button", name="Delete…").click()
        preview = panel.locator("table.facts").filter(has_text="partitions")
        expect(preview).to_contain_text(re.compile(r"rows\s*20,00\d"))  # ticks and the session's
        confirm = panel.get_by_role("button", name="Delete it")
        expect(confirm).to_be_disabled()
        typed = panel.get_by_label("Its id")
        typed.press_sequentially(session[:-1])
        expect(confirm).to_be_disabled()
        typed.press_sequentially(session[-1])
        expect(confirm).to_be_enabled()
        page.screenshot(path=shots / "20-delete-asked.png")

        # A reload in the middle of the question: what was asked is still there.
        reload_page(page)
        expect(confirm).to_be_enabled()
        expect(chart.locator(".gtitle")).to_contain_text(session)
        typed.focus()
        page.keyboard.press("Tab")
        expect(confirm).to_be_focused()
        page.keyboard.press("Enter")
        told = panel.get_by_role("status").filter(has_text=f"{session} is deleted; Undo brings")
        expect(told).to_be_visible()
        expect(typed).to_be_hidden()
        page.screenshot(path=shots / "21-deleted.png")
        with pytest.raises(SessionNotFound):
            lab.session(session)
        assert lab.session(f"{session}_other").prices_count == 20_000

        undo = panel.get_by_role("button", name="Undo")
        undo.focus()
        page.keyboard.press("Enter")
        expect(panel.get_by_role("status").filter(has_text=f"{session} is back")).to_be_visible()
        expect(undo).to_be_hidden()
        expect(panel.locator("table.facts").first).to_contain_text(session)
        assert lab.session(session).prices_count == 20_000
        assert no_faults(page, panel) == NO_FAULTS
        page.screenshot(path=shots / "22-quality-800.png")
        expect(seen.locator(ERROR)).to_have_count(0)


def test_a_row_chosen_while_the_list_is_replaced_is_the_row_that_was_seen(jupyter, session):
    """The place that it had is another session's, when the kernel hears of the choice."""
    from playwright.sync_api import expect

    expect.set_options(timeout=WAIT)
    url, root = jupyter
    cells = (one.format(session=session) for one in (NARROWED, MEANWHILE))
    write_notebook(root / "narrowed.ipynb", *cells)
    with browser_page(height=TALL) as page:
        _, panel = opened(page, url, "narrowed.ipynb")
        rows = panel.get_by_label("Session", exact=True)
        expect(rows.locator("option")).to_have_count(2)
        facts = panel.locator("table.facts").first
        expect(facts).to_contain_text(re.compile(rf"id\s*{session}_other\s*status"))
        rows.select_option(index=0)
        (root / "chosen").touch()
        expect(facts).to_contain_text(re.compile(rf"id\s*{session}\s*status"))
        expect(rows.locator("option")).to_have_count(1)
        expect(rows.locator("option:checked")).to_have_count(0)
