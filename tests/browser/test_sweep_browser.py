"""The sweep panel in a real JupyterLab in a real browser: ranges, count, Run, heat map, Cancel."""

from __future__ import annotations

import re

import pytest
from lab_browser import WAIT, browser_page, open_and_run, write_notebook
from markets import recorded_walk

pytestmark = pytest.mark.browser

NOTEBOOK = """
import fxlab
from fxlab import widgets

panel = widgets.SweepPanel(fxlab.connect(), session_id="{session}")
panel.grid.set_range("fast", 2, 8, 2)
panel.grid.set_range("slow", 10, 40, 10)
panel
""".strip()


@pytest.fixture(scope="module")
def session(lab, unique):
    made = unique("swept")
    lab.import_frames({"prices": recorded_walk(20_000, symbol="BTC")}, session_id=made)
    return made


def test_a_grid_is_set_up_run_and_looked_at(jupyter, session, shots):
    from playwright.sync_api import expect

    url, root = jupyter
    write_notebook(root / "sweep.ipynb", NOTEBOOK.format(session=session))
    with browser_page(height=2_200) as page:
        seen = open_and_run(page, url, "sweep.ipynb").locator(".jp-OutputArea")
        panel = seen.locator(".fxlab-panel").first

        # The number of points and their time are there before anything runs.
        told = panel.get_by_role("status").filter(has_text=re.compile("points?, about"))
        expect(told).to_have_text(
            # Then, perhaps, that the session is not among the newest of this server.
            re.compile(r"^16 points, about \d+ s on \d+ cores(; |$)"),
            timeout=WAIT,
        )
        step = panel.get_by_label("slow step", exact=True)
        step.fill("5")
        step.press("Tab")
        expect(told).to_have_text(re.compile(r"^28 points, about"))
        expect(panel.get_by_text("7 values: 10, 15, 20, …, 40")).to_be_visible()

        # A session of trades alone: books cannot be chosen, and the form says why.
        expect(panel.get_by_label("Fill at")).to_be_disabled()
        expect(panel.get_by_label("Oldest book")).to_be_disabled()
        expect(panel.get_by_text(f"{session} has no order books")).to_be_visible()

        # A list works by arrow keys: another strategy brings its rows.
        strategies = panel.get_by_label("Strategy", exact=True)
        strategies.select_option("momentum")
        expect(panel.get_by_label("window from", exact=True)).to_have_value("250")
        strategies.focus()
        page.keyboard.press("ArrowDown")
        expect(panel.get_by_label("fast step", exact=True)).to_have_value("25")
        page.screenshot(path=shots / "7-sweep-form.png")

        # Run: heat map, best points, the guards' sentence.
        panel.get_by_role("button", name="Run").click()
        expect(panel.locator(".js-plotly-plot .gtitle")).to_contain_text(
            "sma_cross over 4 fast x 4 slow", timeout=WAIT
        )
        expect(
            panel.locator("table.fxlab").filter(has_text="sharpe per period").first
        ).to_be_visible()
        expect(panel.get_by_text("Sharpe ratio is above chance")).to_be_visible()
        expect(panel.get_by_text(re.compile(r"^15 done, 1 skipped in "))).to_be_visible()
        expect(seen.locator('[data-mime-type="application/vnd.jupyter.error"]')).to_have_count(0)
        page.screenshot(path=shots / "8-sweep-done.png")
