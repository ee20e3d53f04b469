"""The sections of a report that take a run apart: each a picture, a table, or a sentence.

A run without trades, or of one tick, has these sections too: where there is nothing to show, a
sentence says so, because an empty table looks like a fault.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import polars as pl

from fxlab.backtester import analysis, figures
from fxlab.backtester import report_page as parts
from fxlab.backtester.summary import show_figure, show_seconds
from fxlab.html import NOTHING, escape, show, table

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab.backtester.result import Result

ROWS: Final = 200
"""Rows of a long table, the first ones."""

WEEKDAYS: Final = ("Monday", "Tuesday", "Wednesday", "Thursday", "Friday", "Saturday", "Sunday")
_PLURAL: Final = {"win": "wins", "loss": "losses"}
_GAIN, _LOSS = "47,134,201", "213,94,0"


def sections(result: Result) -> list[str]:
    """Return the sections in reading order; one about blind time only where there are gaps."""
    made: list[tuple[str, Callable[[Result], str]]] = [
        ("Drawdowns", _drawdowns),
        ("Returns", _returns),
        ("Returns by month", _months),
        ("Hours and days", _hours),
        ("Trades against time and risk", _trades),
        ("Exposure", _exposure),
        ("Orders that did not fill", _unfilled),
        ("Blind time", _blind),
    ]
    bodies = [(title, build(result)) for title, build in made]
    return [parts.section(title, body) for title, body in bodies if body]


def _figure(figure: go.Figure, name: str, words: str) -> str:
    """Return a figure without its title, which the section's heading says."""
    return parts.embed(parts.fitted(figure), name, _sentence(words))


def _sentence(text: str) -> str:
    return f'<p class="text">{escape(text)}</p>'


def _drawdowns(result: Result) -> str:
    from fxlab.charts import equity_chart

    found = result.drawdowns
    if found.is_empty():
        return _sentence("No drawdown: the sampled equity never lay below an earlier peak.")
    deepest, equity = found.row(0, named=True), result.equity
    words = f"The deepest drawdown was {deepest['depth']:.2%}."
    chart = _figure(equity_chart(equity, drawdowns=found), "drawdowns", words)
    shown = found.select(
        pl.int_range(1, pl.len() + 1).cast(pl.String).alias("number"),
        pl.format("{}%", (pl.col("depth") * 100).round(2)).alias("depth"),
        pl.col("peak_at", "trough_at", "recovered_at").dt.truncate("1s"),
        *(
            pl.col(f"{name}_seconds").map_elements(_length, pl.String, skip_nulls=False).alias(name)
            for name in ("fall", "recovery", "duration")
        ),
    )
    caption = (
        "The deepest drawdowns, on sampled equity; peak and trough of the first are exact. "
        "A dash: not recovered, and the duration runs to the last tick."
    )
    right = ("depth", "fall", "recovery", "duration")
    return chart + table(shown, caption=caption, right=right)


def _length(seconds: float | None) -> str:
    return NOTHING if seconds is None else show_seconds(seconds)


def _returns(result: Result) -> str:
    moved, count = figures.grid_returns(result)
    if not len(moved):
        return _sentence(f"No returns: equity did not move in any of {count:,} intervals.")
    words = f"{len(moved):,} of {count:,} returns are not zero."
    return _figure(figures.returns_figure(result), "returns", words)


def _months(result: Result) -> str:
    months = result.monthly_returns
    if months.is_empty():
        return _sentence("No returns: the run has no time in any month.")
    names = months.columns[1:]
    values = months.select(names).rows()
    reach = max((abs(v) for row in values for v in row if v is not None), default=0.0)
    head = "".join(f'<th scope="col" class="n">{name.capitalize()}</th>' for name in names)
    body = "".join(
        f'<tr><th scope="row">{year}</th>{"".join(_cell(value, reach) for value in row)}</tr>'
        for year, row in zip(months["year"], values, strict=True)
    )
    return (
        f'<table class="heat"><thead><tr><th scope="col">Year</th>{head}</tr></thead>'
        f"<tbody>{body}</tbody></table>"
    )


def _cell(value: float | None, reach: float) -> str:
    """Return a cell whose ground is as strong as its value is large."""
    if value is None or math.isnan(value):
        return f'<td class="n">{NOTHING}</td>'
    strength = 0.55 * abs(value) / reach if reach else 0.0
    colour = f"rgba({_GAIN if value >= 0 else _LOSS},{strength:.2f})"
    return f'<td class="n" style="background:{colour}">{value:.2%}</td>'


def _hours(result: Result) -> str:
    from fxlab.charts import profile_chart

    hours = result.hourly_returns
    days = analysis.weekday_returns(result.equity, result.trades)
    if not (hours["mean_return"] != 0.0).any():
        return _sentence("No returns: equity did not move in any hour.")
    chart = _figure(profile_chart(hours), "hours", "The table below has the figures of each hour.")
    names = pl.col("weekday").replace_strict(range(1, 8), WEEKDAYS, return_dtype=pl.String)
    tables = _profile(hours, "hours of the day, UTC") + _profile(
        days.with_columns(names), "days of the week, UTC"
    )
    return f"{chart}<details><summary>The figures</summary>{tables}</details>"


def _profile(profile: pl.DataFrame, what: str) -> str:
    key = profile.columns[0]
    shown = profile.select(
        pl.col(key).cast(pl.String),
        "periods",
        *(
            (pl.col(name) * 100).alias(f"{name}_%")
            for name in ("mean_return", "sum_return", "win_rate")
        ),
        *("trades", "pnl"),
    )
    digits = {"mean_return_%": 4, "sum_return_%": 3, "win_rate_%": 1, "pnl": 2}
    caption = f"By {what}: returns of equity; trades by their entry"
    return table(shown, caption=caption, decimals=digits)


def _trades(result: Result) -> str:
    from fxlab.charts import trades_chart

    trades = result.trades
    if trades["exited_at"].drop_nulls().is_empty():
        return _sentence("No closed trades.")
    words = " ".join(
        f"The longest run of {_PLURAL[row['kind']]} was {row['trades']:,} trades with a pnl of "
        f"{show(row['pnl'], 2)}."
        for row in analysis.streaks(trades).rows(named=True)
    )
    return _figure(trades_chart(trades), "trades", words) + _sentence(words)


def _exposure(result: Result) -> str:
    from fxlab.charts import exposure_chart

    if result.trades.is_empty() or result.first == result.last:
        return _sentence("No position was held for any time.")
    share = show_figure(result.metrics["exposure"], "fraction")
    words = f"A position was held for {share} of the time."
    return _figure(exposure_chart(figures.exposure(result)), "exposure", words) + _sentence(words)


def _unfilled(result: Result) -> str:
    orders = result.orders
    missed = orders.filter(pl.col("qty") == 0)
    if orders.is_empty():
        return _sentence("No orders were made.")
    if missed.is_empty():
        return _sentence(f"All {orders.height:,} orders filled, whole or in part.")
    counted = (
        missed.group_by(pl.col("status").alias("reason"))
        .agg(pl.len().alias("orders"))
        .sort("orders", "reason", descending=[True, False])
        .with_columns((pl.col("orders") / orders.height * 100).alias("of_all_%"))
    )
    caption = f"{missed.height:,} of {orders.height:,} orders ended with nothing executed"
    return table(counted, caption=caption, decimals={"of_all_%": 1})


def _blind(result: Result) -> str:
    gaps = figures.known_gaps(result)
    if gaps.is_empty():
        return ""
    blind = figures.blind_time(result)
    holes = gaps.select("from_time", "to_time").unique().height  # one of all symbols is one
    words = (
        f"{holes:,} known {'holes' if holes > 1 else 'hole'} of the recording in the run: "
        f"{show_seconds(blind.seconds)}, {_percent(blind.share)} of its time. A position was held "
        f"for {show_seconds(blind.held_seconds)} of it, {_percent(blind.held_share)} of all time "
        f"with a position{f' ({blind.note})' if blind.note else ''}. What prices did meanwhile is "
        "not known; the figures of this run cannot contain it."
    )
    if blind.trades.is_empty():
        return _sentence(words) + _sentence("No trade was open in one of them.")
    caption = f"{blind.trades.height:,} trades were open in a hole"
    if blind.trades.height > ROWS:
        caption += f"; the first {ROWS:,} are shown"
    digits = {"pnl": 2, "blind_seconds": 3}
    return _sentence(words) + table(blind.trades.head(ROWS), caption=caption, decimals=digits)


def _percent(share: float) -> str:
    return show_figure(share, "fraction")
