"""Figures in panels: shown and replaced from any thread, clicked, zoomed, and growing for hours.

A chart costs a saved notebook little: a plain figure is data only; a live `FigureWidget` would put
its script of 5 MB into each notebook. `FigureEvents` hears clicks and zooms of such a figure, and
gives it other data in place. A series that grows for hours stays small enough to be sent several
times a second.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import anywidget
import ipywidgets as w
import numpy as np

from fxlab.charts._style import CONFIG, PLOTLY, Floats, rows_to_draw

if TYPE_CHECKING:
    import plotly.graph_objects as go


_FIGURE_SCRIPT = """
const range = (axis) => [0, 1].map((end) => axis.r2l(axis.range[end]));

function listen(graph, model) {
  const tell = (content) => model.send(content);
  graph.on("plotly_click", ({ points: [{ x, y, z, curveNumber, data }] }) =>
    tell({ event: "click", x, y, z: z ?? null, curve: curveNumber, name: data.name ?? "" }));
  let waiting;
  graph.on("plotly_relayout", (change) => {
    if (!Object.keys(change).some((key) => key.startsWith("xaxis"))) return;
    clearTimeout(waiting);
    const { xaxis } = graph._fullLayout;
    const [low, high] = xaxis.autorange ? [null, null] : range(xaxis);
    waiting = setTimeout(() => tell({ event: "zoom", low, high }), 150);
  });
}

// What the reader did stays: the ranges of the axes, and the curves hidden by the legend.
function redraw(graph, { data, annotations, shapes }) {
  const hidden = new Map(graph.data.map(({ name, visible }) => [name, visible]));
  const kept = data.map((trace) => (
    hidden.get(trace.name) === undefined ? trace : { ...trace, visible: hidden.get(trace.name) }));
  return window.Plotly.react(graph, kept, { ...graph.layout, annotations, shapes });
}

function render({ model, el }) {
  el.style.display = "none";
  const seen = new WeakSet();
  let watch, waiting;
  const graphs = () => [...(el.previousElementSibling?.querySelectorAll(".js-plotly-plot") ?? [])];
  const start = () => {
    if (!el.isConnected || !el.previousElementSibling) {
      waiting = requestAnimationFrame(start);
      return;
    }
    const mark = () => graphs().filter((graph) => graph.on && !seen.has(graph)).forEach((graph) => {
      seen.add(graph);
      listen(graph, model);
    });
    mark();
    watch = new MutationObserver(mark);
    watch.observe(el.previousElementSibling, { childList: true, subtree: true });
  };
  start();
  const patch = (content) => graphs().forEach((graph) => redraw(graph, content));
  model.on("msg:custom", patch);
  return () => {
    cancelAnimationFrame(waiting);
    watch?.disconnect();
    model.off("msg:custom", patch);
  };
}

export default { render };
"""


class FigureEvents(anywidget.AnyWidget):
    """Clicks and zooms of the figure whose `FigureOutput` stands right before it; invisible.

    Parameters
    ----------
    on_click
        Gets what was clicked: x, y, z (of a heat map, else None), curve (its number), name.
    on_zoom
        Gets the ends of the time axis in ms since 1970, or twice None for the whole.
    """

    _esm = _FIGURE_SCRIPT

    def __init__(
        self,
        on_click: Callable[[dict[str, Any]], object] | None = None,
        on_zoom: Callable[[float | None, float | None], object] | None = None,
    ) -> None:
        self._on_click, self._on_zoom = on_click, on_zoom
        super().__init__()
        self.on_msg(lambda _widget, content, _buffers: self.handle(content))

    def handle(self, content: dict[str, Any]) -> None:
        """Hand on what the browser told."""
        if content.get("event") == "click" and self._on_click is not None:
            self._on_click(content)
        elif content.get("event") == "zoom" and self._on_zoom is not None:
            self._on_zoom(content["low"], content["high"])

    def redraw(self, figure: go.Figure) -> None:
        """Draw other data in the figure that is shown; its axes and its legend stay as they are."""
        drawn = json.loads(figure.to_json())
        layout = drawn["layout"]
        also = {name: layout.get(name, []) for name in ("annotations", "shapes")}
        self.send({"data": drawn["data"], **also})


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
    # Not responsive: plotly then takes the height of what is around it, which has none of its own.
    spec = {**json.loads(figure.to_json()), "config": CONFIG}
    data = {PLOTLY: spec, "text/plain": text}
    return {"output_type": "display_data", "data": data, "metadata": {}}


class RollingSeries:
    """Points in the order of time, at most twice `limit` of them; spikes and gaps are kept.

    Parameters
    ----------
    limit
        Points that are left each time the line is thinned, eight or more.
    """

    def __init__(self, limit: int) -> None:
        self._limit = limit
        self.clear()

    def clear(self) -> None:
        """Begin an empty line."""
        self.x: Floats = np.empty(0)
        self.y: Floats = np.empty(0)

    def add(self, x: Floats, y: Floats) -> None:
        """Append finite points that come after all others."""
        self.x, self.y = np.concatenate((self.x, x)), np.concatenate((self.y, y))
        if len(self.x) > 2 * self._limit:
            rows = rows_to_draw(self.x, self.y, self._limit)
            self.x, self.y = self.x[rows], self.y[rows]
