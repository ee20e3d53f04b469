"""Several equity curves on one scale: each starts at one."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import plotly.graph_objects as go
import polars as pl

from fxlab.chart_style import INK, curve_look, house_figure, note
from fxlab.charts.lines import line
from fxlab.html import escape

POINTS_ALL: Final = 8_000
"""Points of all curves together; each has at most a quarter of them."""


def comparison_chart(curves: Mapping[str, pl.DataFrame], title: str = "") -> go.Figure:
    """Draw equities rebased to one; curves differ by dash as well as by colour.

    Parameters
    ----------
    curves
        Equity by name: timestamp, equity (money; the first above zero), as in `Result.equity`.
    title
        Plain text; it is escaped.
    """
    figure = house_figure([1.0], ["equity / capital"], title, height=420)
    each = min(POINTS_ALL // 4, max(200, POINTS_ALL // max(len(curves), 1)))
    for number, (name, equity) in enumerate(curves.items()):
        if equity.is_empty():
            continue
        rebased = equity.with_columns(equity=pl.col("equity") / pl.col("equity").first())
        drawn = line(rebased, "equity", each)
        figure.add_scatter(
            x=drawn.x,
            y=drawn.y,
            name=escape(name),
            mode="lines",
            line={"width": 1.6, **curve_look(number)},
            hovertemplate="%{y:.4f}",
        )
    figure.update_layout(showlegend=True)
    figure.add_hline(y=1.0, line={"width": 1, "dash": "dot", "color": INK})
    note(figure, "" if figure.data else "no equity: none of the curves has a row")
    return figure
