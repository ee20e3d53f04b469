"""What a notebook shows, charts and reports, survives ``jupyter nbconvert --to html``."""

from __future__ import annotations

import os
import re
import subprocess
import sys
import tomllib

import nbformat
import plotly.io as pio
import pytest
from chart_examples import examples
from lab_browser import PROJECT, browser_page, need_chromium
from markets import random_walk

import fxlab
from fxlab.backtester.report._tearsheet import WIDGET, draw_charts
from fxlab.charts._style import PLOTLY


@pytest.fixture(scope="module")
def figures():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pio.renderers, "default", "plotly_mimetype")
        return [one._repr_mimebundle_() for one in list(examples().values())[:3]]


def exported(bundles, folder):
    """Convert a notebook whose cells showed these, as a user does; return the page."""
    shown = [nbformat.v4.new_output("display_data", data=one) for one in bundles]
    cells = [nbformat.v4.new_code_cell("show()", outputs=[one]) for one in shown]
    nbformat.write(nbformat.v4.new_notebook(cells=cells), folder / "shown.ipynb")
    # The folder that an install puts into etc/jupyter, where every Jupyter program looks.
    there = os.environ | {"JUPYTER_CONFIG_PATH": str(PROJECT / "jupyter")}
    command = [sys.executable, "-m", "nbconvert", "--to", "html", "shown.ipynb"]
    subprocess.run(command, cwd=folder, env=there, check=True, capture_output=True, timeout=300)
    return folder / "shown.html"


def test_an_install_tells_nbconvert():
    project = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
    shared = project["tool"]["hatch"]["build"]["targets"]["wheel"]["shared-data"]
    assert shared == {"jupyter": "etc/jupyter"}
    assert (PROJECT / "jupyter" / "jupyter_nbconvert_config.json").is_file()


def test_all_charts_are_in_one_file_with_the_script_once(figures, tmp_path):
    other = [{"text/plain": "no chart"}, {PLOTLY: figures[0][PLOTLY], "text/html": "<p>own</p>"}]
    page = exported([*figures, *other], tmp_path)
    text = page.read_text(encoding="utf-8")
    assert text.count("* plotly.js v") == 1
    assert re.findall(r'Plotly\.newPlot\("([\w-]+)"', text) == [
        f"fxlab-chart-{n}" for n in (0, 1, 2)
    ]
    assert "<p>own</p>" in text
    assert page.stat().st_size < 6_000_000
    saved = nbformat.read(tmp_path / "shown.ipynb", as_version=4)
    assert all("text/html" not in cell.outputs[0].data for cell in saved.cells[:3])


@pytest.mark.parametrize("stored", [True, False])
def test_a_panel_whose_state_was_not_stored_is_shown_as_its_text(stored):
    bundle = {WIDGET: {"model_id": "1"}, "text/plain": "<SessionPicker of 3>"}
    shown = nbformat.v4.new_output("display_data", data=bundle)
    notebook = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell("x", outputs=[shown])])
    if stored:
        notebook.metadata["widgets"] = {"application/vnd.jupyter.widget-state+json": {}}
    exported, _ = draw_charts(notebook, {})
    assert (WIDGET in exported.cells[0].outputs[0].data) is stored


@pytest.mark.browser
@pytest.mark.parametrize("kind", ["charts", "report"])
def test_they_are_drawn_without_a_network(kind, figures, tmp_path, shots):
    need_chromium()
    if kind == "report":
        report = fxlab.backtest(random_walk(5_000), "sma_cross", {"fast": 5, "slow": 40})
        text = report.report(tmp_path).read_text(encoding="utf-8")
        page = exported([{"text/html": text}], tmp_path)  # IPython.display.HTML(filename=...)
    else:
        page = exported(figures, tmp_path)
    with browser_page(height=1_400) as opened:
        opened.context.set_offline(True)
        opened.goto(page.as_uri(), wait_until="domcontentloaded")
        drawn = opened.locator(".js-plotly-plot .main-svg:first-child")
        opened.wait_for_function("document.querySelectorAll('.js-plotly-plot .main-svg').length")
        assert drawn.count() == (3 if kind == "charts" else 6)
        heights = drawn.evaluate_all("all => all.map(one => one.getBoundingClientRect().height)")
        assert min(heights) > 200
        opened.screenshot(path=shots / f"exported-{kind}.png")
