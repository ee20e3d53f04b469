"""A picture in a panel that can be replaced from any thread, and costs a saved notebook little.

A plain figure is data only; a live `FigureWidget` would put its script of 5 MB into each notebook.
"""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Any, Final

import ipywidgets as w

if TYPE_CHECKING:
    import plotly.graph_objects as go

PLOTLY: Final = "application/vnd.plotly.v1+json"


class FigureOutput(w.Output):
    """Shows one figure; the old one stays until the new one is here."""

    def show(self, figure: go.Figure | None, text: str = "") -> None:
        """Show a figure, or nothing.

        Parameters
        ----------
        figure
            What to draw.
        text
            Shown where plotly does not draw.
        """
        self.outputs = () if figure is None else (_output(figure, text),)


def _output(figure: go.Figure, text: str) -> dict[str, Any]:
    from fxlab.chart_style import CONFIG

    # Not responsive: plotly then takes the height of what is around it, which has none of its own.
    spec = {**json.loads(figure.to_json()), "config": CONFIG}
    data = {PLOTLY: spec, "text/plain": text}
    return {"output_type": "display_data", "data": data, "metadata": {}}
