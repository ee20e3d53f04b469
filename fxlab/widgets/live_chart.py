"""The picture of a running replay: prices with fills, and the money below them.

Ticks are gathered as they come; the browser gets the lines a few times a second, never more than
a screen can show.
"""

from __future__ import annotations

from typing import Final

import numpy as np
import plotly.graph_objects as go
import polars as pl

from fxlab.batches import Batch
from fxlab.chart_style import BUY, CONFIG, LINES, SELL, house_figure, milliseconds
from fxlab.html import escape
from fxlab.sampling import Floats
from fxlab.widgets.trail import Trail

POINTS: Final = 1_000
"""Points that each line is thinned to; up to twice as many are drawn."""

MARKERS: Final = 400
"""Fills of each side that are drawn, the newest."""

_SIDES: Final = (("buy", BUY, "triangle-up", 1), ("sell", SELL, "triangle-down", -1))


class LiveChart:
    """A `FigureWidget` that follows a replay.

    Parameters
    ----------
    symbols
        One line each. Several are drawn as their change since the first tick, to share a scale.
    trading
        Whether there is equity to draw.
    title
        Plain text; it is escaped.

    Attributes
    ----------
    figure : plotly.graph_objects.FigureWidget
        What to show.
    """

    def __init__(self, symbols: tuple[str, ...], *, trading: bool, title: str = "") -> None:
        self._trading = trading
        self._lines = {symbol: Trail(POINTS) for symbol in symbols}
        self._bases: dict[str, float] = {}
        self._fills: dict[str, list[tuple[float, float]]] = {name: [] for name, *_ in _SIDES}
        self._equity = Trail(POINTS)
        self.figure = self._empty_figure(title)

    def add(self, batch: Batch) -> None:
        """Take a batch in; nothing is sent yet."""
        if batch.sought:
            self._clear()
            self._bases = dict(batch.prices)
        for key, ticks in batch.frame.group_by("symbol", maintain_order=True):
            symbol, prices = str(key[0]), ticks["price"].to_numpy()
            self._bases.setdefault(symbol, float(prices[0]))
            self._lines[symbol].add(milliseconds(ticks["timestamp"]), self._scaled(symbol, prices))
        if batch.equity is not None:
            now = milliseconds(pl.Series([batch.timestamp]))
            self._equity.add(now, np.array([batch.equity]))
        if batch.fills is not None and not batch.sought:
            self._add_fills(batch.fills)

    def show(self) -> None:
        """Send the lines to the browser, all at once."""
        with self.figure.batch_update():
            for symbol, line in self._lines.items():
                self._put(symbol, line.x, line.y)
            if self._trading:
                self._put("equity", self._equity.x, self._equity.y)
                for name, points in self._fills.items():
                    x, y = np.array(points).reshape(-1, 2).T
                    self._put(name, x, y)

    def _put(self, name: str, x: np.ndarray, y: np.ndarray) -> None:
        put_line(self._traces[name], x, y)

    def _clear(self) -> None:
        for line in (*self._lines.values(), self._equity):
            line.clear()
        for points in self._fills.values():
            points.clear()

    def _scaled(self, symbol: str, prices: np.ndarray) -> np.ndarray:
        return prices if len(self._lines) == 1 else prices / self._bases[symbol] - 1

    def _add_fills(self, fills: pl.DataFrame) -> None:
        for name, _, _, sign in _SIDES:
            points = self._fills[name]
            side = fills.filter(pl.col("qty") * sign > 0)
            times = milliseconds(side["timestamp"]).tolist()
            for symbol, time, price in zip(side["symbol"], times, side["price"], strict=True):
                points.append((time, float(self._scaled(symbol, np.array([price]))[0])))
            del points[:-MARKERS]

    def _empty_figure(self, title: str) -> go.FigureWidget:
        heights, labels = (
            ([0.62, 0.38], ["price", "equity"]) if self._trading else ([1.0], ["price"])
        )
        figure = house_figure(heights, labels, title, height=460 if self._trading else 340)
        several = len(self._lines) > 1
        names = []
        for number, symbol in enumerate(self._lines):
            names.append(symbol)
            figure.add_trace(empty_line(symbol, LINES[number % len(LINES)], legend=several), 1, 1)
        if several:
            figure.update_yaxes(title_text="price, change", tickformat="+.2~%", row=1, col=1)
        if self._trading:
            names += [name for name, *_ in _SIDES] + ["equity"]
            for side in _SIDES:
                figure.add_trace(_markers(*side[:3]), 1, 1)
            figure.add_trace(empty_line("equity", LINES[0], legend=False), 2, 1)
        live = live_figure(figure)
        self._traces = dict(zip(names, live.data, strict=True))
        return live


def live_figure(figure: go.Figure) -> go.FigureWidget:
    """Return a figure that can be changed while it is looked at."""
    live = go.FigureWidget(figure.update_layout(autosize=True))
    live._config = CONFIG  # noqa: SLF001 - its only way in
    return live


def put_line(trace: go.Scatter, x: Floats, y: Floats) -> None:
    """Give a line its points; `x` in epoch milliseconds."""
    # Words, not milliseconds: when data change, the browser guesses the axis anew from them.
    trace.x = np.datetime_as_string(x.astype(np.int64).astype("datetime64[ms]"))
    trace.y = y


def empty_line(name: str, colour: str, *, legend: bool) -> go.Scatter:
    """Return a line to be, its name escaped."""
    return go.Scatter(
        x=[], y=[], name=escape(name), mode="lines", showlegend=legend,
        line={"width": 1.4, "color": colour},
    )  # fmt: skip


def _markers(name: str, colour: str, shape: str) -> go.Scatter:
    marker = {"symbol": shape, "color": colour, "size": 9, "line": {"width": 0.7, "color": "#fff"}}
    return go.Scatter(x=[], y=[], name=name, mode="markers", marker=marker, legendrank=1_001)
