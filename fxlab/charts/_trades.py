"""Charts of trades and returns: round trips as points, distribution, monthly heat map, hourly bars.

They show what an equity curve hides.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

import numpy as np
import plotly.graph_objects as go
import polars as pl

from fxlab._html import escape
from fxlab.charts._alt_text import summarised
from fxlab.charts._style import (
    DIVERGING,
    GAIN,
    GRID,
    INK,
    LOSS,
    NOTE_LINE,
    PERCENT,
    PERCENT_TICKS,
    gain_or_loss,
    min_max_rows,
    note,
    panel_figure,
    percent,
)

MOST_TRADES: Final = 1_000
SHORTEST: Final = 1e-3
"""Seconds; a log axis has no zero, and what was shorter is drawn here."""

_TIMES: Final = {
    0.001: "1 ms",
    0.01: "10 ms",
    0.1: "0.1 s",
    1: "1 s",
    10: "10 s",
    60: "1 min",
    600: "10 min",
    3_600: "1 h",
    36_000: "10 h",
    86_400: "1 d",
    864_000: "10 d",
    8_640_000: "100 d",
}
_GROUPS: Final = (
    ("long, won", "long", 1, GAIN, "triangle-up"),
    ("long, lost", "long", -1, LOSS, "triangle-up-open"),
    ("short, won", "short", 1, GAIN, "triangle-down"),
    ("short, lost", "short", -1, LOSS, "triangle-down-open"),
)


@summarised
def trades_chart(trades: pl.DataFrame, title: str = "", *, points: int = MOST_TRADES) -> go.Figure:
    """Draw each closed trade twice: return over duration, and pnl over how far it was under water.

    Parameters
    ----------
    trades
        direction (long, short), duration_seconds, return and mae (fractions), pnl (money), and
        exited_at (null: still open, not drawn), as in `Result.trades`.
    title
        Plain text; it is escaped.
    points
        Trades drawn at most; the best and the worst of every stretch stay.
    """
    labels = [
        ("time held", "return, net"),
        ("worst excursion (MAE) from the entry price", "pnl, quote, net"),
    ]
    figure = panel_figure(labels, title, height=600)
    closed = trades.filter(pl.col("exited_at").is_not_null() & pl.col("return").is_finite())
    shown = closed[min_max_rows(closed["return"].to_numpy(), points)]
    for name, direction, sign, colour, shape in _GROUPS:
        won = pl.col("pnl") > 0 if sign > 0 else pl.col("pnl") <= 0
        group = shown.filter((pl.col("direction") == direction) & won)
        if group.height:
            marker = {"symbol": shape, "color": colour, "size": 7, "opacity": 0.75}
            _add_trades(figure, group, name, marker)
    figure.update_xaxes(type="log", tickvals=list(_TIMES), ticktext=list(_TIMES.values()), row=1)
    figure.update_xaxes(tickformat=PERCENT_TICKS, row=2)
    figure.update_yaxes(zeroline=True, zerolinecolor=GRID)
    figure.update_yaxes(tickformat=PERCENT_TICKS, row=1)
    note(figure, _trades_note(trades.height, closed.height, shown.height))
    return figure


def _add_trades(
    figure: go.Figure, group: pl.DataFrame, name: str, marker: Mapping[str, object]
) -> None:
    seconds, earned, worst, pnl = (
        group[column].to_numpy() for column in ("duration_seconds", "return", "mae", "pnl")
    )
    look = {
        "mode": "markers",
        "meta": "trades",
        "name": name,
        "legendgroup": name,
        "marker": marker,
    }
    figure.add_scatter(
        **look,
        x=np.maximum(seconds, SHORTEST),
        y=earned,
        customdata=seconds,
        hovertemplate=f"{name}: %{{y:{PERCENT}}} in %{{customdata:,.6~g}} s<extra></extra>",
        row=1,
        col=1,
    )
    figure.add_scatter(
        **look,
        x=worst,
        y=pnl,
        showlegend=False,
        hovertemplate=f"{name}: %{{y:,.2f}}, at worst %{{x:{PERCENT}}}<extra></extra>",
        row=2,
        col=1,
    )


def _trades_note(every: int, closed: int, drawn: int) -> str:
    if not closed:
        return f"no closed trades: {every:,} still open" if every else "no trades were made"
    parts = [f"{closed:,} closed trade{'s' * (closed != 1)}"]
    if drawn < closed:
        parts.append(f"{drawn:,} drawn")
    if closed < every:
        parts.append(f"{every - closed:,} still open, not drawn")
    return ", ".join(parts)


@summarised
def distribution_chart(
    histogram: pl.DataFrame,
    title: str = "",
    *,
    label: str = "return",
    marks: Mapping[str, float] | None = None,
    text: str = "",
) -> go.Figure:
    """Draw how often returns of each size came: losses and gains in two colours.

    Parameters
    ----------
    histogram
        low, high (edges, fractions), count, as `analysis.returns_histogram` gives them.
    title, label
        Plain text: above, and under the x axis. They are escaped.
    marks
        Vertical lines by name, e.g. ``{"mean": 0.0001}``; those that are nan are left out.
    text
        What the bars stand for and what was left out; the number counted unless given.
    """
    figure = panel_figure([(label, "count")], title, height=320)
    low, high, counts = (histogram[name].to_numpy() for name in ("low", "high", "count"))
    counted = int(counts.sum())
    if not counted:
        note(figure, text or "no returns: equity did not move in any interval")
        return figure
    figure.add_bar(
        x=(low + high) / 2,
        y=counts,
        width=high - low,
        marker=gain_or_loss(low),
        customdata=np.column_stack((low, high)),
        hovertemplate=(
            f"%{{customdata[0]:{PERCENT}}} to %{{customdata[1]:{PERCENT}}}: %{{y:,}}<extra></extra>"
        ),
        showlegend=False,
    )
    figure.update_xaxes(tickformat=PERCENT_TICKS)
    figure.update_layout(bargap=0)
    highest = max(counts.max(initial=0), 1)
    whole = 1 if highest < 6 else None  # there is no half of a return
    figure.update_yaxes(range=[0, 1.26 * highest], dtick=whole)  # with room for the names
    known = {name: value for name, value in (marks or {}).items() if np.isfinite(value)}
    _mark(figure, known)
    note(figure, escape(text) if text else f"{counted:,} returns")
    return figure


def _mark(figure: go.Figure, marks: Mapping[str, float]) -> None:
    """Draw named vertical lines; the outer names point inwards, where there is room."""
    ordered = sorted(marks.items(), key=lambda item: item[1])
    for place, (name, value) in enumerate(ordered):
        figure.add_vline(x=value, line={"width": 1.2, "dash": "dot", "color": INK})
        side = "left" if place == 0 else "right" if place == len(ordered) - 1 else "center"
        figure.add_annotation(
            text=f"{escape(name)} {percent(value)}",
            x=value,
            y=1,
            yref="paper",
            showarrow=False,
            xanchor=side,
            xshift={"right": -4, "left": 4, "center": 0}[side],
            yanchor="top",
            yshift=-NOTE_LINE * place,  # a row each: in a narrow figure they would collide
            font={"size": 11},
        )


WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


@summarised
def monthly_chart(months: pl.DataFrame, title: str = "") -> go.Figure:
    """Draw returns of months as a heat map, a row a year, the total of the year beside them.

    Parameters
    ----------
    months
        year, jan to dec, total (fractions, null where the run was not), as
        `analysis.monthly_returns` gives them.
    title
        Plain text; it is escaped.
    """
    figure = panel_figure([("", "")], title, height=110 + 34 * max(months.height, 1))
    names = [name for name in months.columns if name != "year"]
    values = months.select(names).cast(pl.Float64).to_numpy()
    known = np.abs(values[np.isfinite(values)])
    reach = float(known.max(initial=0.0))
    if not known.any():
        why = "equity did not move" if len(known) else "the run has no time"
        note(figure, f"no returns: {why} in any month")
        return figure
    figure.add_heatmap(
        x=[name.capitalize() for name in names],
        y=[str(year) for year in months["year"]],
        z=values,
        zmin=-reach,
        zmax=reach,
        colorscale=DIVERGING,
        xgap=2,
        ygap=2,
        texttemplate="%{z:.3~p}",
        colorbar={"title": {"text": "return"}, "tickformat": PERCENT_TICKS, "thickness": 12},
        showscale=False,
        hoverongaps=False,
        hovertemplate=f"%{{x}} %{{y}}: %{{z:{PERCENT}}}<extra></extra>",
    )
    figure.update_yaxes(type="category", autorange="reversed", showgrid=False)
    figure.update_xaxes(side="top", showline=False)
    return figure


@summarised
def profile_chart(profile: pl.DataFrame, title: str = "") -> go.Figure:
    """Draw the mean return of each hour of the day, or day of the week, as bars.

    Parameters
    ----------
    profile
        hour or weekday (1 is Monday), mean_return (fraction), periods, and with trades: trades,
        win_rate, as `analysis.hourly_returns` and `analysis.weekday_returns` give them.
    title
        Plain text; it is escaped.
    """
    hourly = "hour" in profile.columns
    label = "hour of the day, UTC" if hourly else "day of the week, UTC"
    period = "hour" if hourly else "day"
    figure = panel_figure(
        [(label, f"mean return of {'an' if hourly else 'a'} {period}")], title, 280
    )
    drawn = profile.filter(pl.col("mean_return").is_finite())
    if not (drawn["mean_return"] != 0.0).any():
        why = "equity did not move" if drawn.height else "the run has no time"
        note(figure, f"no returns: {why} in any {period}")
        return figure
    key, mean = drawn["hour" if hourly else "weekday"], drawn["mean_return"].to_numpy()
    figure.add_bar(
        x=key.to_list() if hourly else [WEEKDAYS[day - 1] for day in key],
        y=mean,
        width=0.8,
        marker=gain_or_loss(mean),
        customdata=_details(drawn),
        hovertemplate=f"%{{x}}: %{{y:{PERCENT}}}<br>%{{customdata}}<extra></extra>",
        showlegend=False,
    )
    if hourly:
        figure.update_xaxes(range=[-0.6, 23.6], dtick=2)
    else:
        figure.update_xaxes(type="category", categoryarray=WEEKDAYS, range=[-0.6, 6.6])
    figure.update_yaxes(tickformat=PERCENT_TICKS, zeroline=True, zerolinecolor=GRID)
    return figure


def _details(profile: pl.DataFrame) -> list[str]:
    """Return what the hover says under each bar."""
    texts = []
    for row in profile.iter_rows(named=True):
        text = f"{row['periods']:,} in the run"
        if row.get("trades"):
            text += f"; {row['trades']:,} trades, {row['win_rate']:.0%} won"
        texts.append(text)
    return texts
