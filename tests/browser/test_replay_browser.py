"""The replay panel in a real JupyterLab in a real browser: press Play, watch, jump, stop."""

from __future__ import annotations

import re

import polars as pl
import pytest
from lab_browser import (
    GROWS,
    SCREENSHOTS,
    WAIT,
    browser_page,
    open_and_run,
    reload_page,
    write_notebook,
)
from markets import random_walk

pytestmark = pytest.mark.browser

NOTEBOOK = """
import fxlab
from fxlab import widgets

lab = fxlab.connect()
panel = widgets.ReplayPanel(lab, session_id="{session}")
panel.strategy.set_parameters({{"fast": 20, "slow": 60}})
panel
""".strip()


DRAWN = "(panel) => panel.querySelector('.js-plotly-plot')?.calcdata?.[0]?.length > 10"


@pytest.fixture(scope="module")
def session(lab, unique):
    made = unique("watched")
    walks = [random_walk(20_000, seed, symbol=name) for seed, name in enumerate(("BTC", "ETH"))]
    ticks = pl.concat(walks).select("timestamp", "symbol", "seq", "price", "volume")
    lab.import_frames({"prices": ticks}, session_id=made)
    return made


def test_a_replay_is_watched_and_steered(jupyter, session, shots):
    from playwright.sync_api import expect

    expect.set_options(timeout=WAIT)
    url, root = jupyter
    write_notebook(root / "replay.ipynb", NOTEBOOK.format(session=session))
    with browser_page(height=1_700) as page:
        seen = open_and_run(page, url, "replay.ipynb").locator(".jp-OutputArea")
        panel = seen.locator(".fxlab-panel").first
        panel.get_by_role("button", name="Play").click(timeout=2 * WAIT)

        # Lines grow, the slider and the bar move, the figures are there.
        line = panel.locator(".js-plotly-plot .scatterlayer path.js-line").first
        expect(line).to_have_attribute("d", re.compile(r"L.*L"))
        expect(panel.locator(".js-plotly-plot .x2tick text").first).to_have_text(
            re.compile(r"^\d\d:\d\d")
        )
        expect(panel.get_by_text(re.compile(r"UTC, [0-9.]+%"))).to_be_visible()
        expect(panel.get_by_text(re.compile(r"equity [\d,.]+, [1-9][\d,]* fills"))).to_be_visible()
        page.wait_for_function(GROWS, arg=panel.element_handle())
        page.wait_for_timeout(8_000 if SCREENSHOTS else 0)  # a picture with something on it
        page.screenshot(path=shots / "5-replay-runs.png")

        # Pause is heard at once, and a jump while it stands shows the new place.
        panel.get_by_role("button", name="Pause").click()
        expect(panel.get_by_role("button", name="Resume")).to_be_visible()
        # A page that is loaded again shows what was drawn, though nothing moves.
        page.wait_for_function(DRAWN, arg=panel.element_handle())
        reload_page(page)
        expect(panel.locator(".js-plotly-plot .scatterlayer").first).to_be_visible()
        page.wait_for_function(DRAWN, arg=panel.element_handle())

        place = panel.get_by_role("slider").nth(1)
        place.focus()
        for _ in range(5):  # 2.5 % each, and the notebook keeps its cell
            place.press("PageUp")
        place.press("ArrowLeft")
        expect(panel.get_by_text(re.compile(r"UTC, [1-9]\d\.\d%"))).to_be_visible()
        expect(place).to_be_focused()
        panel.get_by_role("button", name="Resume").click()
        expect(panel.get_by_role("button", name="Pause")).to_be_visible()

        # Stop ends it, and the figures up to there are shown.
        panel.get_by_role("button", name="Stop").click()
        expect(panel.get_by_role("status").filter(has_text="stopped at")).to_be_visible()
        figures = panel.locator("table.fxlab").filter(has_text="final equity")
        expect(figures.first).to_be_visible()
        expect(seen.locator('[data-mime-type="application/vnd.jupyter.error"]')).to_have_count(0)
        page.screenshot(path=shots / "6-replay-stopped.png")
