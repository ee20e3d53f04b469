"""Returns by month and by hour of the day, as a heat map and as bars."""

from __future__ import annotations

from typing import Final

import numpy as np
import plotly.graph_objects as go
import polars as pl

from fxlab.chart_style import (
    DIVERGING,
    GAIN,
    GRID,
    LOSS,
    PERCENT,
    PERCENT_TICKS,
    note,
    panel_figure,
)

WEEKDAYS: Final = ("Mon", "Tue", "Wed", "Thu", "Fri", "Sat", "Sun")


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
        marker={"color": np.where(mean < 0, LOSS, GAIN), "line_width": 0},
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
