"""The picture of a recording: last prices, and below them how many trades come in a second."""

from __future__ import annotations

from typing import Final

import numpy as np
import plotly.graph_objects as go

from fxlab.chart_style import LINES, house_figure
from fxlab.collect.status import CollectorStatus, SymbolStatus
from fxlab.sampling import Floats
from fxlab.widgets.live_chart import empty_line, live_figure, put_line
from fxlab.widgets.trail import Trail

POINTS: Final = 600
"""Points that each line is thinned to; twice a second, that is five minutes before it is thinned
for the first time."""

HEIGHT: Final = 380


class MonitorChart:
    """Lines that follow a recording, as a live figure or as a plain one.

    Parameters
    ----------
    symbols
        Two lines each. Several prices are drawn as their change since the first look, to share a
        scale.

    Attributes
    ----------
    figure : plotly.graph_objects.FigureWidget or None
        The live figure, once `live` was called.
    """

    def __init__(self, symbols: tuple[str, ...]) -> None:
        self._prices = {symbol: Trail(POINTS) for symbol in symbols}
        self._rates = {symbol: Trail(POINTS) for symbol in symbols}
        self._bases: dict[str, float] = {}
        self.figure: go.FigureWidget | None = None

    def add(self, now: float, status: CollectorStatus) -> None:
        """Take a moment in, `now` in epoch milliseconds; nothing is sent yet."""
        for one in status.symbols:
            if one.symbol not in self._prices:
                continue
            price = _price(one)
            if price is not None:
                _append(self._prices[one.symbol], now, self._scaled(one.symbol, price))
            if one.trades_per_second is not None:
                _append(self._rates[one.symbol], now, one.trades_per_second)

    def live(self) -> go.FigureWidget:
        """Return the live figure; it is made when it is asked for first."""
        if self.figure is None:
            self.figure = live_figure(self.still())
        return self.figure

    def show(self) -> None:
        """Send the lines to the browser, all at once, if there is a live figure."""
        if self.figure is not None:
            with self.figure.batch_update():
                self._fill(self.figure)

    def still(self) -> go.Figure:
        """Return the picture as it is, as plain data that costs a saved notebook little."""
        figure = self._empty_figure()
        self._fill(figure)
        return figure

    def close(self) -> None:
        """Take the live figure away."""
        if self.figure is not None:
            self.figure.close()
            self.figure = None

    def _fill(self, figure: go.Figure) -> None:
        trails = (*self._prices.values(), *self._rates.values())
        for trace, trail in zip(figure.data, trails, strict=True):
            put_line(trace, trail.x, trail.y)

    def _scaled(self, symbol: str, price: float) -> float:
        base = self._bases.setdefault(symbol, price)
        return price if len(self._prices) == 1 else price / base - 1

    def _empty_figure(self) -> go.Figure:
        several = len(self._prices) > 1
        label = "price, change" if several else "price"
        figure = house_figure([0.6, 0.4], [label, "trades/s"], "", HEIGHT)
        if several:
            figure.update_yaxes(tickformat="+.4~%", row=1, col=1)
        figure.update_yaxes(rangemode="tozero", row=2, col=1)
        for row in (1, 2):
            for number, symbol in enumerate(self._prices):
                colour = LINES[number % len(LINES)]
                line = empty_line(symbol, colour, legend=several and row == 1)
                figure.add_trace(line.update(legendgroup=symbol), row, 1)
        return figure


def _price(one: SymbolStatus) -> float | None:
    """Return the last price, or the middle of the book where no trades come."""
    if one.last_price is not None or one.bid is None or one.ask is None:
        return one.last_price
    return (one.bid + one.ask) / 2


def _append(trail: Trail, x: float, y: float) -> None:
    points: tuple[Floats, Floats] = np.array([x]), np.array([y])
    trail.add(*points)
