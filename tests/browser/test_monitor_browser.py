"""The live monitor in a real JupyterLab in a real browser: start, watch numbers move, stop."""

from __future__ import annotations

import re

import pytest
from lab_browser import (
    GIVE_UP,
    GROWS,
    SCREENSHOTS,
    WAIT,
    browser_page,
    open_and_run,
    write_notebook,
)

from fxlab.mock import Faults, MockVenue, generated

pytestmark = pytest.mark.browser

NOTEBOOK = """
import fxlab
from fxlab import widgets

lab = fxlab.connect()
panel = widgets.LiveMonitor(lab)
panel
""".strip()

# Holds the kernel's own thread while there is a recording, until the test lets it go.
BUSY = """
import time
from pathlib import Path

while panel.collector and not Path("go").exists():
    time.sleep(0.05)
"the kernel is free"
""".strip()


@pytest.fixture
def venue():
    market = generated(["BTC_USDT", "ETH_USDT"], seed=7, rate=40)
    with MockVenue(market, faults=Faults(seed=1, drop=0.01)) as served:
        yield served


def number(text):
    return int(text.replace(",", ""))


def test_a_recording_is_started_watched_and_stopped(jupyter, venue, lab, shots):
    from playwright.sync_api import expect

    expect.set_options(timeout=WAIT)
    url, root = jupyter
    write_notebook(root / "monitor.ipynb", NOTEBOOK, BUSY)
    gave_up = []
    with browser_page(height=1_300) as page:
        page.add_init_script(GIVE_UP)
        page.on("pageerror", lambda error: gave_up.append(str(error)))
        seen = open_and_run(page, url, "monitor.ipynb").locator(".jp-OutputArea")
        panel = seen.locator(".fxlab-panel").first
        start, stop = (panel.get_by_role("button", name=name) for name in ("Start", "Stop"))
        expect(stop).to_be_disabled(timeout=2 * WAIT)

        # A list works by arrow keys; the exchange is asked for only where there is one to name.
        venues = panel.get_by_label("Venue", exact=True)
        expect(panel.get_by_label("Exchange", exact=True)).to_be_hidden()
        venues.select_option("okx_swap")
        venues.focus()
        page.keyboard.press("ArrowDown")
        expect(panel.get_by_label("Exchange", exact=True)).to_be_visible()
        venues.select_option("binance")

        # What stands in the way is said beside the button.
        panel.get_by_label("Mock URL").fill(venue.url)
        symbols = panel.get_by_label("Symbols", exact=True)
        symbols.fill("BTC_USDX")
        symbols.press("Tab")
        start.click()
        expect(panel.get_by_role("alert")).to_contain_text("did you mean 'BTC_USDT'")
        page.screenshot(path=shots / "9-monitor-form.png")

        # Start: rows come, numbers move, lines grow.
        symbols.fill("BTC_USDT, ETH_USDT")
        panel.get_by_label("Duration", exact=True).fill("10m")
        panel.get_by_label("Duration", exact=True).press("Tab")
        start.focus()
        page.keyboard.press("Enter")
        expect(
            panel.get_by_role("status").filter(has_text=re.compile("^collecting$"))
        ).to_be_visible()
        rows = panel.locator("table.fxlab tbody tr")
        expect(rows).to_have_count(2)
        trades = rows.first.locator("td").nth(1)
        expect(trades).to_have_text(re.compile(r"^[1-9][\d,]*$"))
        before = trades.inner_text()
        expect(trades).not_to_have_text(before)
        assert number(trades.inner_text()) > number(before)
        expect(
            panel.get_by_text(re.compile(r"0:00:\d\d of 0:10:00, [\d,]+ trades"))
        ).to_be_visible()
        line = panel.locator(".js-plotly-plot .scatterlayer path.js-line").first
        expect(line).to_have_attribute("d", re.compile(r"L.*L"))
        expect(panel.locator(".js-plotly-plot .x2tick text").first).to_have_text(
            re.compile(r"^\d\d:\d\d")
        )
        # A page that was too busy as the chart was made is asked again, and then draws in place.
        page.evaluate("() => { window.isCalm = true; }")
        page.wait_for_function(GROWS, arg=panel.element_handle())
        expect(symbols).to_be_disabled()
        venue.cut()

        # A cell that keeps the kernel busy keeps no number from moving.
        prompt = page.locator(".jp-CodeCell .jp-InputPrompt").nth(1)
        page.locator(".jp-CodeCell .cm-content").nth(1).click()
        page.keyboard.press("Control+Enter")
        expect(prompt).to_have_text("[*]:")
        before = trades.inner_text()
        expect(trades).not_to_have_text(before)
        expect(prompt).to_have_text("[*]:")
        (root / "go").touch()
        expect(prompt).not_to_have_text("[*]:")
        expect(panel.get_by_text(re.compile(r"^\d\d:\d\d:\d\d .*_USDT: \w+"))).to_be_visible()
        page.wait_for_timeout(15_000 if SCREENSHOTS else 0)  # a picture with something on it
        page.screenshot(path=shots / "10-monitor-collects.png")

        # Stop: the session is closed, and the panel says what is in it.
        stop.click()
        expect(
            panel.get_by_role("status").filter(has_text=re.compile("^completed$"))
        ).to_be_visible()
        told = panel.get_by_role("status").filter(has_text="are stored in session")
        expect(told).to_be_visible()
        expect(panel.locator(".js-plotly-plot path.js-line").first).to_be_visible()
        expect(start).to_be_enabled()
        expect(symbols).to_be_enabled()
        expect(seen.locator('[data-mime-type="application/vnd.jupyter.error"]')).to_have_count(0)
        page.wait_for_timeout(500 if SCREENSHOTS else 0)
        page.screenshot(path=shots / "11-monitor-stopped.png")
        said = told.inner_text()

    assert any("Failed to initialize model" in error for error in gave_up)
    session = lab.session(re.search(r"in session (\S+);", said)[1])
    assert session.status == "completed"
    assert f"{session.prices_count:,} trades and {session.orderbook_count:,} books" in said
    assert lab.verify(session.id).whole
