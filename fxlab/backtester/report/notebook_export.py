"""Charts in exported notebooks: plotly's script, once, for ``jupyter nbconvert --to html``.

A saved notebook holds its charts as data, without plotly's 4.8 MB, and a plain export leaves them
out. With the script inside, the page draws them without a network. ``jupyter/`` tells nbconvert of
it.
"""

from __future__ import annotations

from typing import Any, Final

import plotly.graph_objects as go
from nbconvert.preprocessors import Preprocessor

from fxlab._html import part
from fxlab.backtester.report._tearsheet import embed, plotly_source

PLOTLY: Final = "application/vnd.plotly.v1+json"


class DrawnCharts(Preprocessor):
    """Gives each chart of a notebook, which is data, the HTML that draws it."""

    def preprocess(self, nb: Any, resources: Any) -> tuple[Any, Any]:  # noqa: ANN401 - nbconvert's
        """Return the notebook with its charts drawn."""
        number = 0
        for cell in nb.cells:
            for output in cell.get("outputs", []):
                data = output.get("data", {})
                if PLOTLY in data and "text/html" not in data:
                    spec = {part: data[PLOTLY].get(part) for part in ("data", "layout")}
                    drawn = embed(go.Figure(spec, skip_invalid=True), f"fxlab-chart-{number}", "")
                    data["text/html"] = drawn if number else part("script", plotly_source()) + drawn
                    number += 1
        return nb, resources
