"""Every panel by keyboard alone, in the dark theme and a narrow window."""

from __future__ import annotations

import re

import pytest
from lab_browser import (
    ACTS,
    FAULTS,
    PANELS,
    SCREENSHOTS,
    WAIT,
    browser_page,
    jupyter_lab,
    need_chromium,
    open_and_run,
    write_panels,
)
from markets import recorded_walk

import fxlab

pytestmark = pytest.mark.browser

STOPS = """
(panel) => [...panel.querySelectorAll("input, select, textarea, button, summary, [role=slider]")]
  .filter((e) => !e.disabled && e.offsetParent && getComputedStyle(e).visibility === "visible")
  .map((e, place) => { e.dataset.place = place; return e.outerHTML.slice(0, 160); })
"""
"""Marks what a person can operate, in the order in which it is read."""
AT = """
(panel) => {
  const at = document.activeElement;
  return panel.contains(at) ? Number(at.dataset.place ?? -1) : "";
}
"""
"""Where the focus is in a panel; -1 in what only scrolls, which browsers give a stop of its own."""

ICON = re.compile("[\ue000-\uf8ff] *")


def walked(page, panel):
    """Press Tab from the panel's first control until it is left; return places, roles, names."""
    panel.locator("[data-place='0']").focus()
    found = []
    for _ in range(100):
        place = panel.evaluate(AT)
        if place == "":
            break
        if place != -1:
            focused = page.locator(":focus")
            role, label = re.match(r'- (\w+)(?: "(.*?)")?', focused.aria_snapshot()).groups()
            found.append((int(place), role, ICON.sub("", label or "")))
        page.keyboard.press("Tab")
    return found


def test_every_panel_is_used_by_keyboard_alone(lab, unique, free_ports, tmp_path, shots):
    from playwright.sync_api import expect

    need_chromium()
    expect.set_options(timeout=WAIT)
    session, root = unique("keys"), tmp_path / "root"
    root.mkdir()
    lab.import_frames({"prices": recorded_walk(20_000, 1, symbol="BTC_USDT")}, session_id=session)
    fxlab.backtest(lab.session(session), "sma_cross").save(lab)
    write_panels(root / "panels.ipynb", session)
    with (
        jupyter_lab(root, tmp_path / "home", free_ports(1)[0], "Dark") as url,
        browser_page(height=9_000, scheme="dark") as page,
    ):
        page.set_viewport_size({"width": 800, "height": 9_000})
        cells = open_and_run(page, url, "panels.ipynb").locator(".jp-CodeCell")
        panels = {
            name: cells.nth(number).locator(".fxlab-panel").first
            for number, name in enumerate(PANELS, start=1)
        }
        faults, table = {}, []
        for name, panel in panels.items():
            expect(panel.get_by_role("button").first).to_be_visible()
            stops = panel.evaluate(STOPS)
            found = walked(page, panel)
            reached = {place for place, *_ in found}
            faults[name, "not reached"] = [e for n, e in enumerate(stops) if n not in reached]
            read = panel.inner_text()
            faults[name, "no visible name"] = [
                (role, label) for _, role, label in found if not label or label not in read
            ]
            table += [f"{name:<15} {place:>3}  {role:<9} {label}" for place, role, label in found]
        (shots / "keys.txt").write_text("\n".join(table), encoding="utf-8")

        for name, panel in panels.items():
            label, key, then = ACTS[name]
            button = panel.get_by_role("button", name=re.compile(rf"{label}$"))
            button.first.press(key)  # at once: a panel above may be playing, and take the focus
            expect(panel.get_by_text(then).first).to_be_visible(timeout=2 * WAIT)  # compiles
            if SCREENSHOTS:
                panel.screenshot(path=shots / f"30-dark-{name}.png")
            looked = panel.evaluate(FAULTS)
            assert looked.pop("written") > 10
            faults |= {(name, kind): found for kind, found in looked.items()}
    found = {key: (len(each), each[:2]) for key, each in faults.items() if each}
    assert found == {}, "\n".join(map(repr, found.items()))
