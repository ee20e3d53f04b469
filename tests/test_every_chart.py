"""What holds of every chart, whichever function drew it."""

from __future__ import annotations

import json
import re

import plotly.graph_objects as go
import plotly.io as pio
import pytest
from chart_examples import chart_names, examples

from fxlab.backtester.report_page import embed
from fxlab.chart_style import CONFIG
from fxlab.widgets.figure_output import PLOTLY, FigureOutput
from fxlab.widgets.live_chart import live_figure

EXAMPLES = examples()


def test_every_public_chart_has_an_example():
    assert sorted(EXAMPLES) == sorted(chart_names())


def from_html(text):
    """Return the config that a call of plotly.js is given: the last object of the call."""
    found = re.findall(r'\{"displaylogo".*?\}', text)
    assert len(found) == 1
    return json.loads(found[0])


def shown_in_a_notebook(figure):
    shown = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(pio.renderers, "default", "plotly_mimetype")
        patch.setattr(
            "plotly.io._renderers.ipython_display.display", lambda data, **_: shown.append(data)
        )
        patch.setattr("plotly.io._renderers.display_jupyter_version_warnings", lambda: None)
        figure.show()
        figure._ipython_display_()
        shown.append(figure._repr_mimebundle_())
    first, *others = (data[PLOTLY]["config"] for data in shown)
    assert len(shown) == 3
    assert others == [first, first]
    return first


def written(figure, folder):
    figure.write_html(folder / "figure.html", include_plotlyjs=False)
    return from_html((folder / "figure.html").read_text())


def in_a_panel(figure):
    output = FigureOutput()
    output.show(figure)
    return output.outputs[0]["data"][PLOTLY]["config"]


@pytest.mark.parametrize("name", chart_names())
def test_no_figure_offers_to_send_data_anywhere(name, tmp_path):
    figure = EXAMPLES[name]
    ways = {
        "notebook": shown_in_a_notebook(figure),
        "to_html": from_html(figure.to_html(include_plotlyjs=False)),
        "_repr_html_": from_html(figure._repr_html_()),
        "write_html": written(figure, tmp_path),
        "report": from_html(embed(figure, "chart", "")),
        "panel": in_a_panel(figure),
        "live": live_figure(go.Figure(figure))._config,
        "config of one's own": from_html(
            figure.to_html({"scrollZoom": True}, include_plotlyjs=False)
        ),
    }
    for way, config in ways.items():
        assert config["showSendToCloud"] is False, way
        assert not config.get("plotlyServerURL"), way  # plotly takes it out of pages itself
        assert config["displaylogo"] is CONFIG["displaylogo"], way
    assert ways["config of one's own"]["scrollZoom"] is True
    # Whoever hands the figure to plotly without a config gets no such button either.
    assert "sendChartToCloud" in figure.layout.template.layout.modebar.remove
