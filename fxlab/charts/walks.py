"""A walk forward as a picture: what was chosen on the past, and what became of it afterwards."""

from __future__ import annotations

from typing import Final

import numpy as np
import plotly.graph_objects as go
import polars as pl

from fxlab.chart_style import GAIN, GRID, LINES, LOSS, house_figure, milliseconds, note
from fxlab.charts.sweeps import FORMATS, TICKS, need_columns
from fxlab.html import escape, heading, show
from fxlab.schema import UTC_MICROS

TIMES: Final = ("train_start", "train_end", "test_start", "test_end")


def walk_forward_chart(
    table: pl.DataFrame, metric: str = "total_return", title: str = "", *, unit: str = ""
) -> go.Figure:
    """Draw a metric in and out of sample, fold by fold, over the windows it was measured on.

    Parameters
    ----------
    table
        One row a fold: `TIMES` (datetimes, or µs since 1970), ``train_<metric>`` and
        ``test_<metric>``; all other columns that are no metrics (the parameters chosen) stand in
        the hover text.
    metric
        The part of the names after ``train_`` and ``test_``.
    title
        Plain text; it is escaped.
    unit
        Of the metric, as in `METRICS`.

    Raises
    ------
    InvalidParameter
        If a column is not there.
    """
    need_columns(table, *TIMES, f"train_{metric}", f"test_{metric}")
    label = escape(heading(metric))
    figure = house_figure([0.68, 0.32], [label, "fold"], title, height=440)
    if table.is_empty():
        note(figure, "no folds: the data are shorter than one training and one test")
        return figure
    when = {name: milliseconds(table[name].cast(UTC_MICROS)) for name in TIMES}
    shown = FORMATS.get(unit, ".4~g")
    tested = table[f"test_{metric}"].cast(pl.Float64).fill_null(np.nan).to_numpy()
    middle = (when["test_start"] + when["test_end"]) / 2
    width = (when["test_end"] - when["test_start"]) * 0.92
    chosen = np.array(_chosen(table), dtype=object)
    for name, colour, rows in (("gain", GAIN, tested >= 0), ("loss", LOSS, tested < 0)):
        figure.add_bar(
            x=middle[rows],
            y=tested[rows],
            width=width[rows],
            name=f"test, out of sample: {name}",
            marker={"color": colour, "line_width": 0},
            customdata=chosen[rows],
            hovertemplate=f"test %{{y:{shown}}}<br>%{{customdata}}<extra></extra>",
            row=1,
            col=1,
        )
    figure.add_scatter(
        x=middle,
        y=table[f"train_{metric}"].cast(pl.Float64).fill_null(np.nan).to_numpy(),
        name="training, in sample",
        mode="markers",
        marker={"symbol": "diamond-open", "size": 9, "color": LINES[1], "line_width": 2},
        hovertemplate=f"training %{{y:{shown}}}<extra></extra>",
        row=1,
        col=1,
    )
    for name, colour in (("train", "rgba(128,134,145,0.45)"), ("test", GAIN)):
        _windows(figure, when[f"{name}_start"], when[f"{name}_end"], colour)
    figure.update_yaxes(tickformat=TICKS.get(unit), zeroline=True, zerolinecolor=GRID, row=1, col=1)
    figure.update_yaxes(autorange="reversed", dtick=max(1, table.height // 6), row=2, col=1)
    figure.update_layout(showlegend=True, hovermode="closest", barmode="overlay")
    note(figure, _kept(table, metric))
    return figure


def _windows(figure: go.Figure, starts: np.ndarray, ends: np.ndarray, colour: str) -> None:
    """Draw each fold's window as a bar on its own line."""
    figure.add_bar(
        x=ends - starts,
        base=starts,
        y=np.arange(1, len(starts) + 1),
        orientation="h",
        marker={"color": colour, "line_width": 0},
        showlegend=False,
        hoverinfo="skip",
        row=2,
        col=1,
    )


def _chosen(table: pl.DataFrame) -> list[str]:
    """Return, for each fold, the parameters that were chosen on its training."""
    names = [name for name in table.columns if not name.startswith(("train_", "test_"))]
    return [
        ", ".join(f"{escape(name)} = {escape(show(row[name]))}" for name in names)
        for row in table.iter_rows(named=True)
    ]


def _kept(table: pl.DataFrame, metric: str) -> str:
    """Return how many folds there are and how many tests were above zero."""
    tested = table[f"test_{metric}"].cast(pl.Float64)
    return f"{len(tested):,} folds, {int((tested > 0).sum()):,} tests above zero"
