"""The house style of the charts: mid-tone inks on a transparent ground.

One template, so that a chart in the notebook, in a panel and in a report look alike, and read on
white and on black.
"""

from __future__ import annotations

from typing import Any, Final

import numpy as np
import plotly.graph_objects as go
import polars as pl
from plotly.subplots import make_subplots

from fxlab.html import escape
from fxlab.sampling import Floats

INK: Final = "#757b85"
GRID: Final = "rgba(128,134,145,0.22)"
LINES: Final = ("#2f86c9", "#e69f00", "#cc79a7", "#56b4e9", "#8f7ee0", "#a6761d")
BUY: Final = "#009e73"
SELL: Final = "#d55e00"
SELL_SOFT: Final = "rgba(213,94,0,0.22)"
GAIN: Final = LINES[0]
LOSS: Final = SELL
DIVERGING: Final = (
    (0.0, "#b34700"),
    (0.25, "#e0894d"),
    (0.5, "#c5cad2"),
    (0.75, "#5f9fd3"),
    (1.0, "#14629f"),
)
"""Losses to gains around zero: orange and blue, which all eyes tell apart."""

SEQUENTIAL: Final = "Cividis"
DASHES: Final = ("solid", "dash", "dot", "dashdot", "longdash", "longdashdot")

_AXIS: Final = {
    "gridcolor": GRID,
    "zeroline": False,
    "linecolor": GRID,
    "exponentformat": "none",
    "separatethousands": True,
    "automargin": True,
    "title": {"font": {"size": 12}, "standoff": 8},
}

TEMPLATE: Final = go.layout.Template(
    layout={
        "font": {"family": "system-ui, 'Segoe UI', sans-serif", "size": 12, "color": INK},
        "paper_bgcolor": "rgba(0,0,0,0)",
        "plot_bgcolor": "rgba(0,0,0,0)",
        "colorway": LINES,
        "title": {"x": 0, "xref": "paper", "xanchor": "left", "y": 0.98, "yanchor": "top"},
        "title_font": {"size": 16},
        "margin": {"l": 64, "r": 16, "t": 64, "b": 40},
        "xaxis": {**_AXIS, "showgrid": False},
        "yaxis": _AXIS,
        "hovermode": "x",
        "hoverlabel": {"bgcolor": "#2b2f36", "bordercolor": "#2b2f36", "font": {"color": "#fff"}},
        "legend": {"orientation": "h", "x": 0, "y": 1.0, "yanchor": "bottom", "itemwidth": 30},
        "modebar": {
            "bgcolor": "rgba(0,0,0,0)",
            "color": INK,
            "activecolor": LINES[0],
            "remove": ["sendChartToCloud"],  # also where plotly is handed the figure alone
        },
        "dragmode": "zoom",
    }
)

CONFIG: Final = {"displaylogo": False, "showSendToCloud": False, "plotlyServerURL": ""}
"""How the browser's side is set wherever a figure is shown: no button that sends data away."""

SHADED: Final = 300
"""Gaps shaded a chart, the longest first."""


class Chart(go.Figure):
    """A figure that is shown with `CONFIG` by every way that it knows."""

    def show(self, *args: Any, **kwargs: Any) -> None:  # noqa: ANN401 - plotly's own
        """Show it as plotly does; `config` comes on top of the house's."""
        super().show(*args, **_configured(kwargs))

    def to_html(self, config: dict[str, Any] | None = None, **kwargs: Any) -> str:  # noqa: ANN401
        """Return it as HTML as plotly does; `config` comes on top of the house's."""
        return str(super().to_html(**_configured(kwargs | {"config": config})))

    def write_html(self, file: Any, config: dict[str, Any] | None = None, **kwargs: Any) -> None:  # noqa: ANN401
        """Write it as HTML as plotly does; `config` comes on top of the house's."""
        super().write_html(file, **_configured(kwargs | {"config": config}))

    def _repr_mimebundle_(self, *args: Any, **kwargs: Any) -> dict[str, Any]:  # noqa: ANN401
        return dict(super()._repr_mimebundle_(*args, **_configured(kwargs)))

    def _ipython_display_(self) -> None:
        self.show()


def _configured(options: dict[str, Any]) -> dict[str, Any]:
    return options | {"config": CONFIG | (options.get("config") or {})}


def house_figure(heights: list[float], labels: list[str], title: str, height: int) -> Chart:
    """Return an empty figure of rows that share one time axis."""
    figure = Chart()
    make_subplots(
        rows=len(heights),
        cols=1,
        shared_xaxes=True,
        vertical_spacing=0.05,
        row_heights=heights,
        figure=figure,
    )
    figure.update_layout(template=TEMPLATE, height=height, title_text=escape(title))
    if not title:
        figure.update_layout(margin_t=40)
    figure.update_xaxes(type="date", hoverformat="%Y-%m-%d %H:%M:%S.%L UTC")
    last = {"title_text": "UTC", "ticks": "outside", "tickcolor": GRID, "ticklen": 4}
    figure.update_xaxes(**last, row=len(heights), col=1)
    for row, label in enumerate(labels, start=1):
        figure.update_yaxes(title_text=label, row=row, col=1)
    return figure


def panel_figure(labels: list[tuple[str, str]], title: str, height: int) -> Chart:
    """Return an empty figure of panels side by side; each has the label of its x and its y axis."""
    figure = Chart()
    make_subplots(rows=1, cols=len(labels), horizontal_spacing=0.11, figure=figure)
    figure.update_layout(
        template=TEMPLATE, height=height, title_text=escape(title), hovermode="closest"
    )
    if not title:
        figure.update_layout(margin_t=40)
    for column, (x, y) in enumerate(labels, start=1):
        figure.update_xaxes(title_text=escape(x), row=1, col=column)
        figure.update_yaxes(title_text=escape(y), row=1, col=column)
    return figure


def milliseconds(times: pl.Series) -> Floats:
    """Return epoch milliseconds: figures with numbers build 40 times faster than with dates."""
    micros = times.cast(pl.Datetime("us")).dt.epoch("us")
    return np.asarray(micros.to_numpy(), dtype=np.float64) / 1_000.0


def shade(figure: go.Figure, gaps: pl.DataFrame | None) -> None:
    """Shade the spans of the gap ledger (from_time, to_time) over all rows of a figure."""
    if gaps is None or gaps.is_empty():
        return
    spans = gaps.select("from_time", "to_time").drop_nulls()
    longest = spans.sort(pl.col("to_time") - pl.col("from_time"), descending=True).head(SHADED)
    starts, ends = milliseconds(longest["from_time"]), milliseconds(longest["to_time"])
    shape = {"type": "rect", "xref": "x", "yref": "paper", "y0": 0, "y1": 1, "layer": "below"}
    look = {"fillcolor": INK, "opacity": 0.16, "line_width": 0}
    figure.update_layout(
        shapes=[
            {**shape, **look, "x0": start, "x1": end}
            for start, end in zip(starts, ends, strict=True)
        ]
    )


def note(figure: go.Figure, text: str) -> None:
    """Write a small line above the figure, on the right: what was drawn of what."""
    if not text:
        return
    figure.add_annotation(
        text=text,
        xref="paper",
        yref="paper",
        x=1,
        y=1,
        xanchor="right",
        yanchor="bottom",
        yshift=4,
        showarrow=False,
        font={"size": 11},
    )
