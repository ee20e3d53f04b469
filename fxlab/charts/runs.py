"""A run over time: prices with fills, equity, drawdown, exposure, on one time axis."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import plotly.graph_objects as go
import polars as pl

from fxlab.chart_style import (
    GAIN,
    LINES,
    LOSS,
    PERCENT,
    PERCENT_TICKS,
    SELL,
    SELL_SOFT,
    curve_look,
    house_figure,
    milliseconds,
    note,
    percent,
    shade,
)
from fxlab.charts.fills import MARKERS, draw_fills, scaled
from fxlab.charts.lines import NO_GAPS, POINTS, Line, gaps_of, line, unfilled
from fxlab.html import escape

SHADED_DRAWDOWNS: Final = 5
FEWEST: Final = 500
"""Points that each of many symbols gets at least."""


def price_chart(
    prices: pl.DataFrame,
    fills: pl.DataFrame | None = None,
    gaps: pl.DataFrame | None = None,
    title: str = "",
    *,
    points: int = POINTS,
    ticks: int | None = None,
    symbol: str = "",
) -> go.Figure:
    """Draw prices over time, with fills and known gaps.

    Parameters
    ----------
    prices
        timestamp, price, and symbol where there are several. Several symbols are drawn as their
        change since the first tick, so that they share a scale.
    fills
        symbol, timestamp, price, qty (signed base units): triangles, up for a buy.
    gaps
        from_time, to_time, or the whole ledger of a session (`Session.events`): what is missing of
        the symbols and the data drawn is shaded, and no line crosses it.
    title
        Plain text; it is escaped.
    points
        Points drawn at most; several symbols share them, with at least `FEWEST` each.
    ticks
        How many ticks the prices stand for, when the frame is itself a sample.
    symbol
        Whose prices they are, where the frame does not say it.
    """
    figure = house_figure([1.0], ["price"], title, height=420)
    _draw_prices(
        figure, prices, fills, _known(gaps, prices), points=points, ticks=ticks, only=symbol
    )
    return figure


def result_chart(
    prices: pl.DataFrame,
    fills: pl.DataFrame,
    equity: pl.DataFrame,
    title: str = "",
    *,
    gaps: pl.DataFrame | None = None,
    ticks: int | None = None,
    points: int = POINTS,
) -> go.Figure:
    """Draw a backtest: prices with fills, equity, drawdown, on one time axis.

    Parameters
    ----------
    prices, fills, gaps, title, ticks, points
        As `price_chart` takes them.
    equity
        timestamp, equity (quote units), drawdown (share of the highest equity so far).
    """
    figure = house_figure(
        [0.52, 0.28, 0.2], ["price", "equity, quote", "drawdown"], title, height=640
    )
    known = _known(gaps, prices)
    shown = _draw_prices(figure, prices, fills, known, points=points, ticks=ticks)
    # Money of several symbols moves on while one of them is not seen.
    one = "symbol" not in prices.columns or prices["symbol"].n_unique() < 2
    _draw_equity(figure, equity, points, 2, shown if one else NO_GAPS)
    return figure


def equity_chart(
    equity: pl.DataFrame,
    title: str = "",
    *,
    drawdowns: pl.DataFrame | None = None,
    points: int = POINTS,
) -> go.Figure:
    """Draw equity and, below it, the drawdown as a filled area.

    Parameters
    ----------
    equity
        timestamp, equity (quote units), drawdown (share of the highest equity so far).
    title
        Plain text; it is escaped.
    drawdowns
        peak_at, recovered_at (null: to the end), depth, deepest first, as `analysis.drawdowns`
        gives them: their spans are shaded and numbered, the first `SHADED_DRAWDOWNS` of them.
    points
        Points drawn at most; the two lines share them.
    """
    figure = house_figure([0.66, 0.34], ["equity, quote", "drawdown"], title, height=420)
    _draw_equity(figure, equity, points, 1)
    if drawdowns is not None and equity.height:
        _shade_drawdowns(figure, drawdowns, equity["timestamp"])
    if equity.is_empty():
        note(figure, "no equity: the run has no ticks")
    return figure


def exposure_chart(exposure: pl.DataFrame, title: str = "", *, points: int = POINTS) -> go.Figure:
    """Draw the share of time with a long (above zero) and a short position (below).

    Parameters
    ----------
    exposure
        timestamp (start of each interval), long, short (shares of it), as
        `analysis.exposure_over_time` gives them.
    title
        Plain text; it is escaped.
    points
        Intervals drawn at most; of more, neighbours are averaged.
    """
    figure = house_figure([1.0], ["share of time held"], title, height=260)
    length = -(-exposure.height // points) or 1
    number = pl.int_range(pl.len()) // length
    drawn = exposure.group_by(number.alias("run"), maintain_order=True).agg(
        pl.col("timestamp").first(), pl.col("long", "short").mean()
    )
    for name, colour, sign in (("long", GAIN, 1), ("short", LOSS, -1)):
        if not drawn[name].sum():
            continue
        figure.add_scatter(
            x=milliseconds(drawn["timestamp"]),
            y=drawn[name].to_numpy() * sign,
            name=name,
            mode="lines",
            fill="tozeroy",
            line={"width": 1, "color": colour, "shape": "hv"},
            hovertemplate=f"{name} %{{y:{PERCENT}}}<extra></extra>",
        )
    figure.update_yaxes(tickformat=PERCENT_TICKS)
    held = f"{exposure.height:,} intervals"
    note(figure, held if figure.data else "no position was held at any time")
    return figure


def _known(gaps: pl.DataFrame | None, prices: pl.DataFrame) -> pl.DataFrame:
    """Return the gaps of the data that are drawn: quotes come from the book."""
    return unfilled(gaps, "orderbook" if "bid_price_1" in prices.columns else "prices")


def _draw_prices(
    figure: go.Figure,
    prices: pl.DataFrame,
    fills: pl.DataFrame | None,
    known: pl.DataFrame,
    *,
    points: int,
    ticks: int | None,
    only: str = "",
) -> pl.DataFrame:
    """Draw prices and fills, and return the gaps that were shaded."""
    drawn = 0
    series = list(_series(prices))
    each = points if len(series) < 2 else max(FEWEST, points // len(series))
    shown = NO_GAPS
    for number, (symbol, frame) in enumerate(series):
        base = frame["price"][0] if len(series) > 1 else None
        own_gaps = gaps_of(known, symbol or only, frame)
        shown = shown.vstack(own_gaps)
        drawable = line(frame, "price", each, own_gaps)
        figure.add_trace(_price_trace(drawable, base, symbol, number), row=1, col=1)
        drawn += drawable.drawn
        if fills is not None:
            own = fills.filter(pl.col("symbol") == symbol) if "symbol" in prices.columns else fills
            draw_fills(figure, own, base, MARKERS // len(series))
    if len(series) > 1:
        figure.update_yaxes(title_text="price, change", tickformat=PERCENT_TICKS, row=1, col=1)
        figure.update_yaxes(hoverformat=f"+{PERCENT}", row=1, col=1)
    spans = shown.unique(["start", "end"], maintain_order=True)
    shade(figure, spans["start"].to_numpy(), spans["end"].to_numpy())
    note(figure, _drawn_note(prices.height if ticks is None else ticks, drawn, fills))
    return shown


def _series(prices: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield (symbol, its rows) in order of appearance; symbols without prices are left out."""
    usable = prices.filter(pl.col("price").is_not_null())
    if "symbol" not in prices.columns:
        if usable.height:
            yield "", usable
        return
    for key, frame in usable.group_by("symbol", maintain_order=True):
        yield str(key[0]), frame


def _price_trace(drawn: Line, base: float | None, symbol: str, number: int) -> go.Scatter:
    plain = base is None
    look = curve_look(number) if number >= len(LINES) else {"color": LINES[number]}
    return go.Scatter(
        x=drawn.x,
        y=scaled(drawn.y, base),
        customdata=None if plain else drawn.y,
        name=escape(symbol) or "price",
        mode="lines" if drawn.drawn > 1 else "markers",
        showlegend=not plain,
        line={"width": 1.3, **look},
        hovertemplate="%{y}<extra></extra>" if plain else "%{customdata} (%{y})",
    )


def _draw_equity(
    figure: go.Figure,
    equity: pl.DataFrame,
    points: int,
    first_row: int,
    gaps: pl.DataFrame = NO_GAPS,
) -> None:
    if equity.is_empty():
        return
    depth = equity.with_columns(drawdown=-pl.col("drawdown").abs())
    half = max(points // 2, 8)  # two lines share the points
    money, loss = (
        line(frame, name, half, gaps) for frame, name in ((equity, "equity"), (depth, "drawdown"))
    )
    look = {"mode": "lines" if money.drawn > 1 else "markers", "showlegend": False}
    figure.add_scatter(
        **look,
        x=money.x,
        y=money.y,
        name="equity",
        line={"width": 1.6, "color": LINES[0]},
        hovertemplate="equity %{y:,.2f}<extra></extra>",
        row=first_row,
        col=1,
    )
    figure.add_scatter(
        **look,
        x=loss.x,
        y=loss.y,
        name="drawdown",
        fill="tozeroy",
        line={"width": 1, "color": SELL},
        fillcolor=SELL_SOFT,
        hovertemplate=f"drawdown %{{y:{PERCENT}}}<extra></extra>",
        row=first_row + 1,
        col=1,
    )
    never = not np.nansum(loss.y)  # a range found by plotly would lie above zero
    figure.update_yaxes(
        tickformat=PERCENT_TICKS,
        rangemode="tozero",
        range=[-0.01, 0] if never else None,
        row=first_row + 1,
        col=1,
    )


def _shade_drawdowns(figure: go.Figure, drawdowns: pl.DataFrame, times: pl.Series) -> None:
    """Shade the deepest drawdowns from peak to recovery, each with its number and depth."""
    end = pl.col("recovered_at").fill_null(times[-1])
    shown = drawdowns.head(SHADED_DRAWDOWNS).with_columns(end)
    starts, ends = milliseconds(shown["peak_at"]), milliseconds(shown["recovered_at"])
    whole = float(np.ptp(milliseconds(times[[0, -1]])))
    for number, (x0, x1, depth) in enumerate(zip(starts, ends, shown["depth"], strict=True), 1):
        figure.add_shape(
            type="rect",
            xref="x",
            yref="y domain",
            x0=x0,
            x1=x1,
            y0=0,
            y1=1,
            layer="below",
            fillcolor=SELL,
            opacity=0.12,
            line_width=0,
            label={
                "text": _room_for((x1 - x0) / whole, str(number), f"{number}: {percent(depth)}"),
                "textposition": "top left",
                "font": {"size": 11},
            },
        )


def _room_for(share: float, short: str, long: str) -> str:
    """Return what can be read in a box of this share of the width."""
    return long if share > 0.11 else short if share > 0.02 else ""


def _drawn_note(ticks: int, drawn: int, fills: pl.DataFrame | None) -> str:
    """Return what the chart stands for and what of it was drawn."""
    if not ticks:
        return "no ticks: the frame of prices has no rows"
    many = f"{ticks:,} tick{'s' * (ticks != 1)}"
    parts = [f"{many}, {drawn:,} drawn" if drawn < ticks else many]
    if fills is not None and fills.height > MARKERS:
        parts.append(f"{fills.height:,} fills, about {MARKERS:,} drawn")
    return "; ".join(parts)
