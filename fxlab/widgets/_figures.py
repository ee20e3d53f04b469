"""Figures in panels: shown and replaced from any thread, clicked, zoomed, and growing for hours.

A chart costs a saved notebook little: a plain figure is data only; plotly's `FigureWidget` would
put its script of 5 MB into each notebook, and stands still on a page that was busy while it was
made. `FigureEvents` hears clicks and zooms of a plain figure, and gives it other data in place;
`ZoomSampler` answers each zoom with what is seen of the ticks then; `LiveFigure` is drawn again as
its data grow. A series that grows for hours stays small enough to be sent several times a second.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING, Any, Final

import anywidget
import ipywidgets as w
import numpy as np
import traitlets as t

from fxlab._times import from_micros
from fxlab.charts._alt_text import describe, take_words, words_below
from fxlab.charts._style import CONFIG, PLOTLY, SUMMARY, Floats, rows_to_draw
from fxlab.errors import InvalidParameter
from fxlab.widgets._base import KeyGuard, Message, run_aside, style_sheet

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab.backtester.result import Result
    from fxlab.sessions.session import Session


Range = tuple[float, float]

_FIGURE_SCRIPT = """
const seen = new WeakMap();
// Models to which messages of the kernel get through: where a page was busy for two seconds while
// a model was made, anywidget gives up and drops all of them. Clicks and zooms are told even then.
const heard = new WeakSet();
const redraws = (model) => Boolean(window.Plotly) && heard.has(model);

// Of a figure that shows all its time: nothing. The axes of all its panels agree.
function shown(graph) {
  const axis = graph._fullLayout?.xaxis;
  if (!axis?.range || axis.autorange) return [null, null];
  return [0, 1].map((end) => axis.r2l(axis.range[end]));
}

const same = ([a, b], [c, d]) => a === c && b === d;

// Words in a figure's data are escaped, as all of plotly's texts are.
const plain = (html) => new DOMParser().parseFromString(html, "text/html").body.textContent;

function listen(graph, model) {
  const { data, layout: { annotations = [], shapes = [], meta } } = graph;
  const words = plain(meta?.below ?? "");
  const whole = { data, annotations, shapes, words };
  const state = { whole, visible: new Map(), told: shown(graph) };
  seen.set(graph, state);
  const tell = (content) => model.send(content);
  if (redraws(model)) tell({ event: "redraws" });
  graph.on("plotly_click", ({ points: [{ x, y, z, curveNumber, data }] }) =>
    tell({ event: "click", x, y, z: z ?? null, curve: curveNumber, name: data.name ?? "" }));
  if (!model.get("zooms")) return;
  let waiting;
  const look = () => {
    const [low, high] = shown(graph);
    if (same([low, high], state.told)) return;
    state.told = [low, high];
    if (low === null && window.Plotly) redraw(graph, state.whole);  // also where the kernel is busy
    tell({ event: "zoom", low, high, redraws: redraws(model) });
  };
  graph.on("plotly_relayout", (change) => {
    if (!Object.keys(change).some((key) => key.startsWith("xaxis"))) return;
    clearTimeout(waiting);
    waiting = setTimeout(look, shown(graph)[0] === null ? 0 : 150);
  });
}

// What the reader did stays: the ranges of the axes, and the curves hidden by the legend, which
// may be gone from one part of the time and back in the next.
function redraw(graph, { data, annotations, shapes, words }) {
  const below = graph.closest(".jp-OutputArea")?.querySelector(".fxlab-words");
  if (below) below.textContent = words;
  const { visible } = seen.get(graph);
  graph.data.forEach((trace) => visible.set(trace.name, trace.visible ?? true));
  const kept = data.map((trace) => (
    visible.has(trace.name) ? { ...trace, visible: visible.get(trace.name) } : trace));
  return window.Plotly.react(graph, kept, { ...graph.layout, annotations, shapes });
}

function render({ model, el }) {
  el.style.display = "none";
  let watch, waiting;
  const graphs = () => [...(el.previousElementSibling?.querySelectorAll(".js-plotly-plot") ?? [])];
  const start = () => {
    if (!el.isConnected || !el.previousElementSibling) {
      waiting = requestAnimationFrame(start);
      return;
    }
    const mark = () => graphs().filter((graph) => graph.on && !seen.has(graph))
      .forEach((graph) => listen(graph, model));
    mark();
    watch = new MutationObserver(mark);
    watch.observe(el.previousElementSibling, { childList: true, subtree: true });
  };
  start();
  // An answer to a zoom is for the range that was asked for: the reader may be elsewhere by now.
  const patch = ({ event, low, high, ...content }) => {
    heard.add(model);
    const mine = graphs().filter((graph) => seen.has(graph));
    if (event === "ready") {
      model.send({ event: "heard" });
      if (mine.length && redraws(model)) model.send({ event: "redraws" });
      return;
    }
    mine.filter((graph) => low === undefined || same([low, high], shown(graph)))
      .forEach((graph) => redraw(graph, content));
  };
  model.on("msg:custom", patch);
  model.send({ event: "ready" });
  return () => {
    cancelAnimationFrame(waiting);
    watch?.disconnect();
    model.off("msg:custom", patch);
  };
}

export default { render };
"""


_SERVED: Final = "JPY_SESSION_NAME"
"""What Jupyter's server names a notebook by, to its kernel."""


class FigureEvents(anywidget.AnyWidget):
    """Clicks and zooms of the figure whose `FigureOutput` stands right before it; invisible.

    Parameters
    ----------
    on_click
        Gets what was clicked: x, y, z (of a heat map, else None), curve (its number), name.
    on_zoom
        Gets the ends of the time axis in ms since 1970, or twice None for the whole, which the
        browser shows again by itself.
    on_shown
        Called when a page shows it, also one that was loaded again.

    Attributes
    ----------
    is_shown, is_heard, can_redraw : bool
        Whether a page shows it, whether one has told that it hears the kernel, and that it draws
        other data in place.
    """

    _esm = _FIGURE_SCRIPT
    zooms = t.Bool(default_value=False).tag(sync=True)

    def __init__(
        self,
        on_click: Callable[[dict[str, Any]], object] | None = None,
        on_zoom: Callable[[float | None, float | None], object] | None = None,
        on_shown: Callable[[], object] | None = None,
    ) -> None:
        self._on_click, self._on_zoom, self._on_shown = on_click, on_zoom, on_shown
        # A page of Jupyter's server is there before a busy kernel hears of it; a batch has none.
        self.is_shown = _SERVED in os.environ
        self.is_heard = self.can_redraw = False
        super().__init__(zooms=on_zoom is not None)
        self.on_msg(lambda _widget, content, _buffers: self.handle(content))

    def handle(self, content: dict[str, Any]) -> None:
        """Hand on what the browser told; answer the question whether it hears anything."""
        if content.get("event") == "ready":
            # Another page may not draw what the one before it drew.
            self.is_shown, self.is_heard, self.can_redraw = True, False, False
            self.send({"event": "ready"})
            if self._on_shown is not None:
                self._on_shown()
        elif content.get("event") == "heard":
            self.is_heard = True
        elif content.get("event") == "redraws":
            self.can_redraw = True
        elif content.get("event") == "click" and self._on_click is not None:
            self._on_click(content)
        elif content.get("event") == "zoom" and self._on_zoom is not None:
            self.can_redraw = bool(content.get("redraws", True))
            self._on_zoom(content["low"], content["high"])

    def redraw(self, figure: go.Figure, asked: Range | None = None) -> None:
        """Draw other data in the figure that is shown; its axes and its legend stay as they are.

        Parameters
        ----------
        figure
            Its data, notes and shapes are drawn.
        asked
            The ends of the time axis that it is of: nothing is drawn where others are shown.
        """
        drawn = json.loads(figure.to_json())
        layout = drawn["layout"]
        take_words(layout)
        also = {name: layout.get(name, []) for name in ("annotations", "shapes")}
        also["words"] = words_below(layout).get("text/plain", "")
        edges = {} if asked is None else dict(zip(("low", "high"), asked, strict=True))
        self.send({"data": drawn["data"], **also, **edges})


class FigureOutput(w.Output):
    """Shows one figure and what is seen of it in words; the old one stays until the new is here."""

    def show(self, figure: go.Figure | None, text: str = "") -> None:
        """Show a figure, or nothing.

        Parameters
        ----------
        figure
            What to draw.
        text
            Shown where plotly does not draw.
        """
        self.outputs = () if figure is None else _outputs(figure, text)


def _outputs(figure: go.Figure, text: str) -> tuple[dict[str, Any], ...]:
    """Return a figure as an output of a cell, and the words below it, if there are any."""
    spec = _spec(figure)
    take_words(spec["layout"])
    data = ({PLOTLY: spec, "text/plain": text}, words_below(spec["layout"]))
    kind = {"output_type": "display_data", "metadata": {}}
    return tuple({**kind, "data": one} for one in data if one)


def _spec(figure: go.Figure) -> dict[str, Any]:
    """Return a figure as data of an output of a cell."""
    # Not responsive: plotly then takes the height of what is around it, which has none of its own.
    return {**json.loads(figure.to_json()), "config": CONFIG}


UNHEARD: Final = 20
"""So often a figure is made anew for a page that hears nothing before it is asked once more, by
another model; the next time, twice as often."""


class LiveFigure(w.VBox):
    """A figure whose data grow while it is looked at; from any thread.

    Parameters
    ----------
    figure
        What is shown at first.

    Attributes
    ----------
    figure : plotly.graph_objects.Figure
        What was shown last.
    """

    def __init__(self, figure: go.Figure) -> None:
        self.figure = figure
        self.output, self.events = FigureOutput(), FigureEvents(on_shown=self._on_shown)
        self._made_anew, self._patience = 0, UNHEARD
        super().__init__([self.output, self.events])
        self.keep()

    def show(self) -> None:
        """Show the figure as it is now, where somebody looks."""
        describe(self.figure)
        if self.events.can_redraw:
            self._is_kept = False
            self.events.redraw(self.figure)
        elif self.events.is_shown:
            self.keep()
            self._made_anew += 1
            if not self.events.is_heard and self._made_anew >= self._patience:
                self._listen_again()

    def _listen_again(self) -> None:
        """Make another model: a page that was busy as this one was made never hears by it."""
        self._made_anew, self._patience = 0, 2 * self._patience
        deaf, self.events = self.events, FigureEvents(on_shown=self._on_shown)
        self.children = [self.output, self.events]
        deaf.close()

    def keep(self, text: str = "") -> None:
        """Show the figure for good, with `text` where plotly does not draw."""
        self._is_kept = True
        describe(self.figure)
        self.output.show(self.figure, text)

    def _on_shown(self) -> None:
        if not self._is_kept:  # a page that was loaded again has not seen what was drawn in place
            self.keep()


Sample = Callable[[datetime, datetime], "go.Figure"]
"""Returns a figure of a part of its time, from the first moment until before the second."""


class ZoomSampler(FigureEvents):
    """Samples the ticks again that a zoom shows; stands right after the output of its figure.

    One zoom at a time is answered, beside the kernel's own thread. Of those that come meanwhile the
    last one counts; an answer to another one, or of a figure that was replaced, is dropped.

    Parameters
    ----------
    output
        Where the figure is.
    message
        Where it is said why a zoom could not be answered.
    """

    def __init__(self, output: FigureOutput, message: Message) -> None:
        self._output, self._message = output, message
        self._whole: tuple[go.Figure | None, str] = (None, "")
        self._sample: Sample | None = None
        self._asked: Range | None = None
        self._is_busy = self._has_failed = False
        super().__init__(on_zoom=self._on_zoomed)

    def show(self, figure: go.Figure | None, text: str = "", sample: Sample | None = None) -> None:
        """Show a figure, or nothing; without `sample` a zoom shows what is drawn already."""
        self._whole, self._sample, self._asked = (figure, text), sample, None
        self._output.show(figure, text)

    def _on_zoomed(self, low: float | None, high: float | None) -> None:
        self._asked = None
        if low is not None and high is not None:
            self._asked = (low, high)
        elif not self.can_redraw:
            self._output.show(*self._whole)
        if not self._is_busy:
            self._answer()

    def _answer(self) -> None:
        asked, sample = self._asked, self._sample
        if asked is None or sample is None:
            return
        self._is_busy = True
        run_aside(partial(_sampled, sample, asked), partial(self._on_answer, asked, sample))

    def _on_answer(self, asked: Range, sample: Sample, outcome: Callable[[], go.Figure]) -> None:
        self._is_busy = False
        if asked is not self._asked or sample is not self._sample:
            self._answer()
            return
        self._asked = None
        try:
            figure = outcome()
        except Exception:
            self._has_failed = True
            with self._message.guard():  # says it; what is no error of fxlab goes on to the log
                raise
        else:
            self._draw(figure, asked)

    def _draw(self, figure: go.Figure, asked: Range) -> None:
        if self._has_failed:
            self._message.clear()
            self._has_failed = False
        if self.can_redraw:
            self.redraw(figure, asked)
        else:
            self._output.show(figure, self._whole[1])


def _sampled(sample: Sample, asked: Range) -> go.Figure:
    """Return the figure of a range in ms; beyond the years that a datetime has there is nothing."""
    low, high = (round(min(max(edge, _FIRST), _LAST) * 1_000) for edge in asked)
    return sample(from_micros(low), from_micros(max(high, low) + 1))


_FIRST: Final = -62_135_596_800_000.0
_LAST: Final = 253_402_300_799_000.0
"""The years 1 and 9999, ms."""


class ZoomableChart(w.VBox):
    """A chart that samples its ticks again where it is zoomed into: every spike can be reached.

    Parameters
    ----------
    source
        A result of a backtest, or a session.
    symbol
        One of the session's; of a session with one it need not be said.
    chart
        Of a session: "session" (price, volume, spread, clock skew), "candles" or "depth".

    Attributes
    ----------
    figure : plotly.graph_objects.Figure
        The whole, as it is shown where no kernel answers: in exported notebooks, in a batch.

    Notes
    -----
    Drag to zoom, double-click to see all again. The note above the chart says how many ticks are in
    view, and how many of them are drawn.

    Examples
    --------
    >>> chart = fxlab.widgets.ZoomableChart(session, chart="candles")
    >>> chart
    <ZoomableChart BTC_USDT, ...: 312 candles, 1,500 ticks; ...>
    """

    def __init__(
        self, source: Result | Session, symbol: str | None = None, *, chart: str = "session"
    ) -> None:
        self.message = Message()
        self.plot = FigureOutput()
        self.zoom = ZoomSampler(self.plot, self.message)
        self.figure, title, sample = _chart_of(source, symbol, chart)
        super().__init__([style_sheet(), self.message, self.plot, self.zoom, KeyGuard()])
        self.add_class("fxlab-panel")
        self._title = title
        self.zoom.show(self.figure, repr(self), sample)

    def __repr__(self) -> str:
        """Show what it is of, and what of it is drawn."""
        notes = (one for one in self.figure.layout.annotations if one.name != SUMMARY)
        said = [one.text for one in notes if not one.hovertext]
        return f"<ZoomableChart {self._title}: {' '.join(said).replace('<br>', ' ')}>"

    def _repr_mimebundle_(self, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401 - ipywidgets
        bundle: dict[str, Any] = super()._repr_mimebundle_(**kwargs)
        # The figure is seen where the widget is not: in an exported notebook.
        return {**bundle, PLOTLY: _spec(self.figure), "text/plain": repr(self)}


def _chart_of(
    source: Result | Session, symbol: str | None, chart: str
) -> tuple[go.Figure, str, Sample]:
    """Return a figure, what it is of, and the function that samples a part of it."""
    from fxlab.backtester.result import Result
    from fxlab.sessions._candles import SessionCharts
    from fxlab.sessions.session import Session

    if isinstance(source, Result):
        return source.plot(), source.title, source.plot
    if not isinstance(source, Session):
        raise InvalidParameter(
            f"source={source!r:.80} is neither a result nor a session; give what fxlab.backtest or "
            "lab.session returned"
        )
    drawn = SessionCharts(source, source.only(symbol))
    if chart not in drawn.whole:
        raise InvalidParameter(
            f"chart={chart!r:.80} is not there; {source.id} has: {', '.join(drawn.whole)}"
        )
    return drawn.whole[chart], f"{drawn.symbol}, {source.id}", partial(drawn.view, chart)


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
