"""The sweep panel in a real JupyterLab in a real browser: ranges, Run, heat map, a cell clicked."""

from __future__ import annotations

import re

import pytest
from lab_browser import WAIT, browser_page, open_and_run, reload_page, write_notebook
from markets import recorded_walk

from fxlab._html import show

pytestmark = pytest.mark.browser

NOTEBOOK = """
import fxlab
from fxlab import widgets

panel = widgets.SweepPanel(fxlab.connect(), session_id="{session}")
panel.grid.set_range("fast", 2, 8, 2)
panel.grid.set_range("slow", 10, 40, 10)
panel
""".strip()

# Where what is chosen in the list is heard.
HEARD = """
import threading
import ipywidgets

heard = ipywidgets.Label("nothing yet")

def hear(_):
    heard.value = f"heard in {threading.current_thread().name}"

panel.sheet.choice.observe(hear, "value")
heard
""".strip()


@pytest.fixture(scope="module")
def session(lab, unique):
    made = unique("swept")
    lab.import_frames({"prices": recorded_walk(20_000, symbol="BTC")}, session_id=made)
    return made


def opened(page, url, path, session):
    """Open the sweep panel of a session; return the output of its cell, and the panel."""
    write_notebook(path, NOTEBOOK.format(session=session), HEARD)
    seen = open_and_run(page, url, path.name).locator(".jp-OutputArea")
    return seen, seen.locator(".fxlab-panel").first


def test_a_grid_is_set_up_run_and_looked_at(jupyter, session, shots):
    from playwright.sync_api import expect

    url, root = jupyter
    with browser_page(height=2_200) as page:
        seen, panel = opened(page, url, root / "sweep.ipynb", session)

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


def cell_centre(page, graph, across, up):
    """Return where on the page the cell with these labels is drawn."""
    graph.scroll_into_view_if_needed()
    box = graph.locator(".nsewdrag").first.bounding_box()
    x, y = graph.evaluate(
        """(graph, [across, up]) => {
          const { xaxis, yaxis } = graph._fullLayout;
          return [xaxis.c2p(xaxis._categories.indexOf(across)),
            yaxis.c2p(yaxis._categories.indexOf(up))];
        }""",
        [across, up],
    )
    return box["x"] + x, box["y"] + y


def chosen(choice):
    """Return the text of what is chosen in a list, whose spaces do not break."""
    return choice.locator("option:checked").inner_text().replace("\xa0", " ")


def test_a_click_on_a_cell_opens_its_tear_sheet(jupyter, session, shots):
    from playwright.sync_api import expect

    url, root = jupyter
    with browser_page(height=2_800) as page:
        seen, panel = opened(page, url, root / "cell.ipynb", session)
        run = panel.get_by_role("button", name="Run")
        run.click()
        graph = panel.locator(".js-plotly-plot").first
        expect(graph.locator(".gtitle")).to_contain_text("over 4 fast", timeout=WAIT)
        expect(panel.get_by_text("A click on a cell of the heat map opens")).to_be_visible()

        # The real mouse on a cell: the sheet has the cell's parameters and its value.
        drag = graph.locator(".nsewdrag").first
        expect(drag).to_have_css("cursor", "pointer")
        page.mouse.move(*cell_centre(page, graph, "4", "20"))
        page.mouse.click(*cell_centre(page, graph, "4", "20"))
        head = panel.get_by_role("heading", name="Tear sheet:")
        expect(head).to_have_text("Tear sheet: fast 4, slow 20, allow_short no", timeout=WAIT)
        value = graph.evaluate(
            """({ calcdata: [[{ z }]], _fullLayout: { xaxis, yaxis } }) =>
              z[yaxis._categories.indexOf("20")][xaxis._categories.indexOf("4")]"""
        )
        told = panel.get_by_role("status").filter(has_text="point_result")
        expect(told).to_contain_text(f"sharpe per period {show(value)};")
        choice = panel.get_by_label("Point", exact=True)
        assert chosen(choice).startswith("fast 4, slow 20: sharpe")
        sheet = panel.locator(".js-plotly-plot").nth(1)
        expect(sheet.locator(".gtitle")).to_contain_text("sma_cross(fast=4, slow=20")
        metrics = panel.get_by_text("All figures")
        expect(metrics).to_be_visible()
        page.screenshot(path=shots / "9-sweep-cell.png")

        # Keys choose a point and open it.
        choice.focus()
        page.keyboard.press("Home")
        page.keyboard.press("Tab")
        expect(panel.get_by_role("button", name="Tear sheet")).to_be_focused()
        best = chosen(choice)
        # Two threads of one kernel would hear the list and the button in any order.
        expect(seen.get_by_text("heard in MainThread")).to_be_visible()
        page.keyboard.press("Enter")
        expect(told).to_contain_text(best.partition(": ")[2], timeout=WAIT)
        expect(head).to_contain_text(best.partition(":")[0])

        # Another sweep clears the sheet, and its own cells are heard.
        panel.get_by_label("slow from", exact=True).fill("8")
        panel.get_by_label("slow step", exact=True).fill("8")
        panel.get_by_label("slow step", exact=True).press("Tab")
        run.click()
        expect(head).to_have_count(0, timeout=WAIT)
        expect(graph.locator(".gtitle")).to_contain_text("over 4 fast x 5 slow", timeout=WAIT)
        page.mouse.click(*cell_centre(page, graph, "8", "8"))
        alert = panel.get_by_role("alert")
        expect(alert).to_contain_text("was skipped, so it has no result", timeout=WAIT)
        page.set_viewport_size({"width": 800, "height": 2_800})
        page.wait_for_function(
            "(graph) => graph._fullLayout.width < 700", arg=graph.element_handle()
        )
        page.mouse.click(*cell_centre(page, graph, "6", "16"))
        expect(head).to_have_text("Tear sheet: fast 6, slow 16, allow_short no", timeout=WAIT)
        expect(alert).to_have_count(0)
        page.screenshot(path=shots / "10-sweep-cell-narrow.png")
        assert page.evaluate(
            "(root) => root.scrollWidth <= root.clientWidth + 1", panel.element_handle()
        )

        # A reloaded page shows the sheet again, and its cells are heard.
        reload_page(page)
        expect(head).to_have_text("Tear sheet: fast 6, slow 16, allow_short no", timeout=WAIT)
        expect(graph.locator(".nsewdrag").first).to_be_visible(timeout=WAIT)
        page.mouse.click(*cell_centre(page, graph, "4", "32"))
        expect(head).to_have_text("Tear sheet: fast 4, slow 32, allow_short no", timeout=WAIT)
        expect(seen.locator('[data-mime-type="application/vnd.jupyter.error"]')).to_have_count(0)
