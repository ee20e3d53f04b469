"""Every panel as Voila shows it: a page without code, drawn and heard by a kernel of its own."""

from __future__ import annotations

import re

import pytest
from lab_browser import (
    ACTS,
    FAULTS,
    PANELS,
    WAIT,
    browser_page,
    need_chromium,
    voila,
    write_panels,
)
from markets import recorded_walk

import fxlab

pytestmark = pytest.mark.browser


def test_every_panel_appears_in_voila_and_hears_clicks(lab, unique, free_ports, tmp_path, shots):
    from playwright.sync_api import expect

    need_chromium()
    expect.set_options(timeout=WAIT)
    session = unique("voila")
    lab.import_frames({"prices": recorded_walk(20_000, 1, symbol="BTC_USDT")}, session_id=session)
    fxlab.backtest(lab.session(session), "sma_cross").save(lab)
    notebook = tmp_path / "panels.ipynb"
    write_panels(notebook, session)
    with (
        voila(notebook, tmp_path / "home", free_ports(1)[0]) as url,
        browser_page(height=6_000) as page,
    ):
        page.goto(url, wait_until="commit", timeout=2 * WAIT)  # the kernel starts meanwhile
        panels = page.locator(".fxlab-panel:not(.fxlab-panel .fxlab-panel)")
        expect(panels).to_have_count(len(PANELS), timeout=3 * WAIT)
        for name, panel in zip(PANELS, panels.all(), strict=True):
            expect(panel.get_by_role("button").first).to_be_visible()
            unnamed = panel.evaluate(FAULTS)["unnamed"]
            assert unnamed == [], name
        expect(page.get_by_text(re.compile("Error displaying widget|Traceback"))).to_have_count(0)
        page.screenshot(path=shots / "23-voila.png")

        # Each is heard and answers, and charts are drawn.
        for name, panel in zip(PANELS, panels.all(), strict=True):
            label, _, then = ACTS[name]
            panel.get_by_role("button", name=re.compile(rf"{label}$")).first.click()
            expect(panel.get_by_text(then).first).to_be_visible(timeout=2 * WAIT)
        for name in ("workbench", "sweep", "quality"):
            plot = panels.nth(list(PANELS).index(name)).locator(".js-plotly-plot .infolayer").first
            expect(plot).to_be_attached()
        panels.nth(0).get_by_label("Filter").fill("nothing is called so")
        told = panels.nth(0).get_by_text("no session has all these words")
        expect(told).to_be_visible()
        page.screenshot(path=shots / "24-voila-run.png")
