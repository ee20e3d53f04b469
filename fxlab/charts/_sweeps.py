"""Charts of sweeps: heat map, parallel coordinates, walk-forward.

A lone bright cell in a dark field is luck; what one looks for is a plateau, and for it to be there
on data that had no part in the choice. A walk-forward shows what was chosen on the past, and what
became of it afterwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import chain, count
from typing import Final

import numpy as np
import plotly.graph_objects as go
import polars as pl

from fxlab._html import escape, heading, show
from fxlab.charts._alt_text import summarised
from fxlab.charts._style import (
    DIVERGING,
    GAIN,
    GRID,
    INK,
    LINES,
    LOSS,
    PERCENT,
    PERCENT_TICKS,
    SEQUENTIAL,
    Floats,
    house_figure,
    milliseconds,
    note,
    panel_figure,
)
from fxlab.errors import InvalidParameter, did_you_mean
from fxlab.schema import UTC_MICROS

STEPS: Final = 70
"""Values drawn an axis; of more, neighbours share a cell. 70 x 70 is under 5,000 cells."""

MOST_LINES: Final = 4_000
WRITTEN: Final = 150
"""Cells whose value is written into them, at most."""

NO_VALUE: Final = "rgba(128,134,145,0.16)"
"""The shade of a cell whose points have no value; where no point was tried there is none."""

FORMATS: Final = {"fraction": PERCENT, "probability": PERCENT, "money": ",.2~f", "count": ",.0f"}
"""How values of a unit of `METRICS` are shown; others get four significant digits."""

TICKS: Final = {"fraction": PERCENT_TICKS, "probability": PERCENT_TICKS}
"""How axes of a unit are labelled; others as plotly does, with as many digits as it takes."""


@summarised
def heatmap_chart(
    table: pl.DataFrame,
    x: str,
    y: str,
    metric: str,
    title: str = "",
    *,
    unit: str = "",
    lower_is_better: bool = False,
) -> go.Figure:
    """Draw a metric over two parameters; a star marks the best cell.

    Parameters
    ----------
    table
        One row a point of a sweep: parameter columns and metric columns. Where several points
        share a cell (other parameters vary) it shows their median, and the chart says so.
    x, y, metric
        Names of columns.
    title
        Plain text; it is escaped.
    unit
        Of the metric, as in `METRICS`: "fraction", "money", "ratio", ...
    lower_is_better
        Which end is the best one.

    Raises
    ------
    InvalidParameter
        If a column is not there, or `x` is `y`.
    """
    need_columns(table, x, y, metric)
    if x == y:
        raise InvalidParameter(f"x and y are both {x!r}; a heat map needs two parameters")
    across, up = _Axis.of(table[x]), _Axis.of(table[y])
    values, most = _cells(table, across, up, metric)
    figure = panel_figure([(heading(x), heading(y))], title, height=460)
    if not np.isfinite(values).any():
        note(figure, _nothing(table, metric))
        return figure
    shown = FORMATS.get(unit, ".4~g")
    written = values.size <= WRITTEN
    figure.add_heatmap(
        x=across.labels,
        y=up.labels,
        z=values,
        **_colours(values, "z"),
        xgap=int(written),
        ygap=int(written),
        hoverongaps=False,
        texttemplate=f"%{{z:{shown}}}" if written else None,
        colorbar={
            "title": {"text": escape(heading(metric)), "side": "right"},
            "tickformat": TICKS.get(unit),
            "thickness": 14,
        },
        hovertemplate=(
            f"{escape(heading(x))} %{{x}}, {escape(heading(y))} %{{y}}: "
            f"%{{z:{shown}}}<extra></extra>"
        ),
    )
    _add_empty_cells(figure, values, across, up, (x, y, metric))
    _mark_best(figure, values, across, up, lower_is_better=lower_is_better)
    for update, axis in ((figure.update_xaxes, across), (figure.update_yaxes, up)):
        whole = [-0.5, len(axis.labels) - 0.5]
        update(type="category", showgrid=False, nticks=16, range=whole)
    best = f"; {'frame' if written else 'star'}: the best"
    note(figure, _points_note(table, metric, most) + best)
    return figure


def rows_of_cell(table: pl.DataFrame, x: str, y: str, across: str, up: str) -> pl.DataFrame:
    """Return the rows of the points that share a cell of `heatmap_chart`, in their order.

    Parameters
    ----------
    table, x, y
        As the chart was drawn from.
    across, up
        The cell's labels on both axes, as a click on the figure tells them.

    Returns
    -------
    polars.DataFrame
        Rows of the table; none where no cell has these labels.

    Raises
    ------
    InvalidParameter
        If a column is not there.

    Examples
    --------
    >>> from fxlab.charts._sweeps import rows_of_cell
    >>> table = pl.DataFrame({"fast": [5, 5, 8], "slow": [20, 30, 20]})
    >>> rows_of_cell(table, "fast", "slow", "8", "20").rows()
    [(8, 20)]
    """
    need_columns(table, x, y)
    inside = np.ones(table.height, dtype=bool)
    for name, label in ((x, across), (y, up)):
        axis = _Axis.of(table[name])
        step = axis.labels.index(label) if label in axis.labels else -1
        inside &= axis.step == step
    return table.filter(pl.Series(inside, dtype=pl.Boolean))


@summarised
def parallel_chart(
    table: pl.DataFrame,
    parameters: list[str],
    metric: str,
    title: str = "",
    *,
    unit: str = "",
    lines: int = MOST_LINES,
) -> go.Figure:
    """Draw each point of a sweep as a line through its parameters, coloured by the metric.

    Parameters
    ----------
    table
        One row a point of a sweep: parameter columns and metric columns.
    parameters
        Columns in drawing order; numbers, text or yes/no. The metric is the first axis.
    metric
        Name of a column; points without it are left out, and the chart says how many.
    title
        Plain text; it is escaped.
    unit
        Of the metric, as in `METRICS`.
    lines
        Lines drawn at most: the best, the worst, and evenly between them by rank.

    Raises
    ------
    InvalidParameter
        If a column is not there, or no parameter is given.
    """
    need_columns(table, *parameters, metric)
    if not parameters:
        raise InvalidParameter("parameters=[] names no column; give those that the sweep varied")
    scored = table.filter(pl.col(metric).cast(pl.Float64).is_finite()).sort(metric)
    rows = np.unique(np.linspace(0, scored.height - 1, min(lines, scored.height)).astype(int))
    drawn = scored[rows]
    figure = panel_figure([("", "")], title, height=460)
    if drawn.is_empty():
        note(figure, _nothing(table, metric))
        return figure
    figure.update_xaxes(visible=False)
    figure.update_yaxes(visible=False)
    values = drawn[metric].cast(pl.Float64).to_numpy()
    dimensions = [_dimension(drawn[name]) for name in parameters]
    # The metric comes first: no line crosses the numbers of the first axis.
    scored_by = {"label": escape(heading(metric)), "values": values}
    figure.add_parcoords(
        dimensions=[scored_by | {"tickformat": TICKS.get(unit)}, *dimensions],
        line={"color": values, **_colours(values, "c"), "showscale": False},
        labelfont={"size": 12, "color": INK},
        # A halo in the colour of the page would need to know the page: it is white on black.
        tickfont={"size": 12, "color": INK, "shadow": "none"},
        rangefont={"size": 1, "color": "rgba(0,0,0,0)"},
        unselected={"line": {"color": INK, "opacity": 0.06}},
    )
    margin = figure.layout.margin.t + 12  # the names stand above the axes
    figure.update_layout(margin={"l": 70, "r": 70, "t": margin, "b": 44})
    text = _points_note(table, metric, 1)
    if drawn.height < scored.height:
        text += f"; {drawn.height:,} drawn"
    note(figure, text)
    figure.layout.annotations[-1].update(y=0, yanchor="top", yshift=-14)  # clear of the names
    return figure


@dataclass(frozen=True, slots=True)
class _Axis:
    """The steps of one parameter: a label each, and the step that every row of a table is in."""

    labels: list[str]
    step: np.ndarray

    @classmethod
    def of(cls, values: pl.Series) -> _Axis:
        """Return the sorted values of a column; above `STEPS`, neighbours share a step.

        Plotly draws steps of the same label as one, so values that look alike are numbered.
        """
        unique = values.unique().sort()
        length = -(-len(unique) // STEPS) or 1
        ranks = values.rank("dense").cast(pl.Int64).to_numpy() - 1
        labels: dict[str, None] = {}
        for start in range(0, len(unique), length):
            part = unique[start : start + length]
            ends = [escape(show(value)) for value in ([part[0]] if length == 1 else part[[0, -1]])]
            text = " … ".join(dict.fromkeys(ends))
            alike = (f"{text} ({number})" for number in count(2))
            labels[next(label for label in chain([text], alike) if label not in labels)] = None
        return cls(list(labels), ranks // length)


def _cells(table: pl.DataFrame, across: _Axis, up: _Axis, metric: str) -> tuple[Floats, int]:
    """Return the median of each cell, a row each step of `up`, and the most points of a cell."""
    cells = (
        pl.DataFrame({"x": across.step, "y": up.step, "z": table[metric].cast(pl.Float64)})
        .filter(pl.col("z").is_finite())
        .group_by("x", "y")
        .agg(pl.col("z").median(), pl.len())
    )
    values = np.full((len(up.labels), len(across.labels)), np.nan)
    values[cells["y"].to_numpy(), cells["x"].to_numpy()] = cells["z"].to_numpy()
    most = cells["len"].max()
    return values, most if isinstance(most, int) else 0


def _colours(values: Floats, axis: str) -> dict[str, object]:
    """Return a scale that turns at zero where there are gains and losses."""
    known = values[np.isfinite(values)]
    if len(known) and known.min() < 0 < known.max():
        reach = float(np.abs(known).max())
        return {"colorscale": DIVERGING, f"{axis}min": -reach, f"{axis}max": reach}
    return {"colorscale": SEQUENTIAL}


def _add_empty_cells(
    figure: go.Figure, values: Floats, across: _Axis, up: _Axis, names: tuple[str, str, str]
) -> None:
    """Shade the cells whose points have no value: a gap of the heat map hears no click."""
    tried = np.zeros(values.shape, dtype=bool)
    tried[up.step, across.step] = True
    empty = tried & ~np.isfinite(values)
    if not empty.any():
        return
    x, y, metric = (escape(heading(name)) for name in names)
    figure.add_heatmap(
        x=across.labels,
        y=up.labels,
        z=np.where(empty, 0.0, np.nan),
        name="without a value",
        colorscale=[[0, NO_VALUE], [1, NO_VALUE]],
        showscale=False,
        hoverongaps=False,
        hovertemplate=f"{x} %{{x}}, {y} %{{y}}: no {metric}<extra></extra>",
    )


def _mark_best(
    figure: go.Figure, values: Floats, across: _Axis, up: _Axis, *, lower_is_better: bool
) -> None:
    place = np.nanargmin(values) if lower_is_better else np.nanargmax(values)
    row, column = np.unravel_index(place, values.shape)
    if values.size <= WRITTEN:  # a frame, so that the value stays readable
        corners = {"x0": column - 0.5, "x1": column + 0.5, "y0": row - 0.5, "y1": row + 0.5}
        figure.add_shape(type="rect", **corners, line={"width": 5, "color": "#ffffff"})
        figure.add_shape(type="rect", **corners, line={"width": 2, "color": "#1c2026"})
        return
    figure.add_scatter(
        x=[across.labels[column]],
        y=[up.labels[row]],
        mode="markers",
        name="best",
        marker={
            "symbol": "star",
            "size": 13,
            "color": "#ffffff",
            "line": {"width": 1, "color": "#1c2026"},
        },
        hoverinfo="skip",
        showlegend=False,
    )


def _dimension(values: pl.Series) -> dict[str, object]:
    """Return an axis of a parallel chart; what is no number stands in order of its text."""
    found: dict[str, object] = {"label": escape(heading(values.name))}
    if not values.dtype.is_numeric():
        texts = values.cast(pl.String).fill_null("none")
        names = texts.unique().sort()
        codes = texts.rank("dense").cast(pl.Float64).to_numpy() - 1
        ticks = {"tickvals": list(range(len(names))), "ticktext": [escape(n) for n in names]}
        return found | ticks | {"values": codes}
    unique = values.drop_nulls().unique().sort()
    if len(unique) <= 12:
        found |= {"tickvals": unique.to_list(), "ticktext": [show(value) for value in unique]}
    return found | {"values": values.cast(pl.Float64).to_numpy()}


def _nothing(table: pl.DataFrame, metric: str) -> str:
    """Return why no point can be drawn."""
    if table.is_empty():
        return "no points: the sweep has none"
    text = f"no {heading(metric)} of {_points(table.height)}"
    if "state" not in table.columns:
        return escape(text)
    counts = table["state"].value_counts(sort=True).rows()
    text += f": {', '.join(f'{count:,} {state}' for state, count in counts)}"
    done = any(state == "done" for state, _ in counts)
    return escape(text + "; metrics.notes of a backtest of one say why" if done else text)


def _points(count: int) -> str:
    return f"{count:,} point{'s' * (count != 1)}"


def _points_note(table: pl.DataFrame, metric: str, most: int) -> str:
    parts = [_points(table.height)]
    missing = int((~table[metric].cast(pl.Float64).is_finite().fill_null(value=False)).sum())
    if missing:
        parts.append(f"{missing:,} without {escape(heading(metric))}")
    if most > 1:
        parts.append(f"a cell is the median of up to {most:,}")
    return "; ".join(parts)


def need_columns(table: pl.DataFrame, *names: str) -> None:
    """Raise `InvalidParameter` unless the table has all of these columns."""
    for name in names:
        if name not in table.columns:
            near = did_you_mean(name, table.columns)
            raise InvalidParameter(
                f"the table has no column {name!r:.60}, which the chart needs; "
                f"it has {', '.join(table.columns)}. {near}".strip()
            )


TIMES: Final = ("train_start", "train_end", "test_start", "test_end")


@summarised
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
        meta="choices",
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
