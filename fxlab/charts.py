"""Every picture of the project: frame in, `plotly` figure out, nothing else.

A chart says what it drew ("1,250,000 ticks, 2,000 drawn"), keeps every spike, breaks its lines
where there was no data, and tells buys from sells by shape as well as by a colour-blind-safe
colour. Its background is transparent and its inks are mid-tones: it reads on white and on black.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

import numpy as np
import plotly.graph_objects as go
import polars as pl

from fxlab.chart_style import BUY, LINES, SELL, SELL_SOFT, house_figure, milliseconds, note, shade
from fxlab.html import escape
from fxlab.sampling import Floats, gap_starts, rows_to_draw

POINTS: Final = 2_000
"""Points drawn of prices, unless told: about two a pixel, and a figure stays under 180 KB."""

FEWEST: Final = 500
"""Points that each of many symbols gets at least."""

MARKERS: Final = 1_000
"""Fills drawn a chart, at most."""


def price_chart(
    prices: pl.DataFrame,
    fills: pl.DataFrame | None = None,
    gaps: pl.DataFrame | None = None,
    title: str = "",
    *,
    points: int = POINTS,
    ticks: int | None = None,
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
        from_time, to_time: shaded spans of the gap ledger.
    title
        Plain text; it is escaped.
    points
        Points drawn at most; several symbols share them, with at least `FEWEST` each.
    ticks
        How many ticks the prices stand for, when the frame is itself a sample.
    """
    figure = house_figure([1.0], ["price"], title, height=420)
    _draw_prices(figure, prices, fills, points, ticks)
    shade(figure, gaps)
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
    figure = house_figure([0.52, 0.28, 0.2], ["price", "equity", "drawdown"], title, height=640)
    _draw_prices(figure, prices, fills, points, ticks)
    _draw_equity(figure, equity, points, first_row=2)
    shade(figure, gaps)
    return figure


def equity_chart(equity: pl.DataFrame, title: str = "", *, points: int = POINTS) -> go.Figure:
    """Draw equity and, below it, the drawdown as a filled area.

    Parameters
    ----------
    equity
        timestamp, equity (quote units), drawdown (share of the highest equity so far).
    title
        Plain text; it is escaped.
    points
        Points drawn at most; the two lines share them.
    """
    figure = house_figure([0.66, 0.34], ["equity", "drawdown"], title, height=420)
    _draw_equity(figure, equity, points, first_row=1)
    return figure


def downsample(frame: pl.DataFrame, x: str, y: str, n_out: int) -> pl.DataFrame:
    """Return the rows of a frame that a line of at most `n_out` points needs.

    Rows without a finite `y` cannot be drawn and are left out. The first and the last row, and
    the lowest and highest row of every stretch, stay; so do the rows beside each silence.

    Parameters
    ----------
    frame
        Rows in the order of `x`.
    x, y
        Names of the columns to draw; `x` is a time or a number.
    n_out
        Rows returned at most, eight or more.
    """
    drawable = frame.filter(pl.col(x).is_not_null() & pl.col(y).cast(pl.Float64).is_finite())
    places = drawable[x].to_physical().cast(pl.Float64).to_numpy()
    values = drawable[y].cast(pl.Float64).to_numpy()
    return drawable[rows_to_draw(places, values, n_out)]


@dataclass(frozen=True, slots=True)
class _Line:
    """What is drawn of one series: NaN breaks the line, and does not count as drawn."""

    x: Floats
    y: Floats
    drawn: int


def _line(frame: pl.DataFrame, y: str, points: int) -> _Line:
    """Return a line that keeps every spike and breaks at gaps."""
    clean = frame.filter(pl.col(y).cast(pl.Float64).is_finite())
    times = milliseconds(clean["timestamp"])
    values = clean[y].cast(pl.Float64).to_numpy()
    rows = rows_to_draw(times, values, points)
    before = gap_starts(times)
    # A gap is drawn exactly: its last row before and its first row after are always there.
    rows = np.union1d(rows, np.concatenate((before, before + 1)))
    after = np.searchsorted(rows, before + 1)
    middle = (times[before] + times[before + 1]) / 2
    return _Line(
        x=np.insert(times[rows], after, middle),
        y=np.insert(values[rows], after, np.nan),
        drawn=len(rows),
    )


def _draw_prices(
    figure: go.Figure,
    prices: pl.DataFrame,
    fills: pl.DataFrame | None,
    points: int,
    ticks: int | None,
) -> None:
    drawn = 0
    series = list(_series(prices))
    each = points if len(series) < 2 else max(FEWEST, points // len(series))
    for number, (symbol, frame) in enumerate(series):
        base = frame["price"][0] if len(series) > 1 else None
        line = _line(frame, "price", each)
        figure.add_trace(_price_trace(line, base, symbol, number), row=1, col=1)
        drawn += line.drawn
        if fills is not None:
            own = fills.filter(pl.col("symbol") == symbol) if "symbol" in prices.columns else fills
            _draw_fills(figure, own, base, MARKERS // len(series))
    if len(series) > 1:
        figure.update_yaxes(title_text="price, change", tickformat="+.2~%", row=1, col=1)
    note(figure, _drawn_note(prices.height if ticks is None else ticks, drawn, fills))


def _scaled(prices: Floats, base: float | None) -> Floats:
    """Return prices as they are, or as their change since `base`."""
    return prices if base is None else prices / base - 1


def _series(prices: pl.DataFrame) -> Iterator[tuple[str, pl.DataFrame]]:
    """Yield (symbol, its rows) in order of appearance; symbols without prices are left out."""
    usable = prices.filter(pl.col("price").is_not_null())
    if "symbol" not in prices.columns:
        if usable.height:
            yield "", usable
        return
    for key, frame in usable.group_by("symbol", maintain_order=True):
        yield str(key[0]), frame


def _price_trace(line: _Line, base: float | None, symbol: str, number: int) -> go.Scatter:
    plain = base is None
    return go.Scatter(
        x=line.x,
        y=_scaled(line.y, base),
        customdata=None if plain else line.y,
        name=escape(symbol) or "price",
        mode="lines",
        showlegend=not plain,
        line={"width": 1.3, "color": LINES[number % len(LINES)]},
        hovertemplate="%{y}<extra></extra>" if plain else "%{customdata} (%{y})",
    )


def _draw_fills(figure: go.Figure, fills: pl.DataFrame, base: float | None, limit: int) -> None:
    """Draw buys as triangles up and sells as triangles down, evenly thinned to `limit`."""
    shown = fills.gather_every(-(-fills.height // limit)) if fills.height > limit else fills
    shapes = (("buy", BUY, "triangle-up", 1), ("sell", SELL, "triangle-down", -1))
    for name, colour, shape, sign in shapes:
        side = shown.filter(pl.col("qty") * sign > 0)
        if side.is_empty():
            continue
        trace = _fill_trace(side, base, name)
        size = 10 if fills.height <= 100 else 7 if fills.height <= 400 else 5
        trace.marker.update(symbol=shape, color=colour, size=size)
        trace.showlegend = not any(other.name == name for other in figure.data)
        figure.add_trace(trace, row=1, col=1)


def _fill_trace(side: pl.DataFrame, base: float | None, name: str) -> go.Scatter:
    prices = side["price"].to_numpy()
    return go.Scatter(
        x=milliseconds(side["timestamp"]),
        y=_scaled(prices, base),
        customdata=np.column_stack((side["qty"].to_numpy(), prices)),
        name=name,
        legendgroup=name,
        legendrank=1_001,  # behind the symbols, whose rank is 1,000
        mode="markers",
        marker={"opacity": 0.9, "line": {"width": 0.7, "color": "#fff"}},
        hovertemplate=name + " %{customdata[0]:.6~g} at %{customdata[1]}<extra></extra>",
    )


def _draw_equity(figure: go.Figure, equity: pl.DataFrame, points: int, first_row: int) -> None:
    if equity.is_empty():
        return
    depth = equity.with_columns(drawdown=-pl.col("drawdown").abs())
    half = max(points // 2, 8)  # two lines share the points
    money, loss = _line(equity, "equity", half), _line(depth, "drawdown", half)
    line = {"mode": "lines", "showlegend": False}
    figure.add_scatter(
        **line,
        x=money.x,
        y=money.y,
        name="equity",
        line={"width": 1.6, "color": LINES[0]},
        hovertemplate="equity %{y:,.2f}<extra></extra>",
        row=first_row,
        col=1,
    )
    figure.add_scatter(
        **line,
        x=loss.x,
        y=loss.y,
        name="drawdown",
        fill="tozeroy",
        line={"width": 1, "color": SELL},
        fillcolor=SELL_SOFT,
        hovertemplate="drawdown %{y:.2%}<extra></extra>",
        row=first_row + 1,
        col=1,
    )
    figure.update_yaxes(tickformat=".2~%", rangemode="tozero", row=first_row + 1, col=1)


def _drawn_note(ticks: int, drawn: int, fills: pl.DataFrame | None) -> str:
    """Return what the chart stands for and what of it was drawn."""
    if not ticks:
        return "no ticks"
    parts = [f"{ticks:,} ticks, {drawn:,} drawn" if drawn < ticks else f"{ticks:,} ticks"]
    if fills is not None and fills.height > MARKERS:
        parts.append(f"{fills.height:,} fills, about {MARKERS:,} drawn")
    return "; ".join(parts)
