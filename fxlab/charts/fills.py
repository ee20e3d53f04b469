"""Fills as markers: the side by direction and colour, the reason by shape, a maker as an outline.

Colour alone tells nothing to one man in twelve; every marker here can be read in grey.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import plotly.graph_objects as go
import polars as pl

from fxlab.chart_style import BUY, SELL, milliseconds
from fxlab.sampling import Floats

MARKERS: Final = 1_000
"""Fills drawn a chart, about: more than an eye can tell apart."""

RAREST: Final = 40
"""Fills of a kind that are drawn at least, so that no rare liquidation hides among signals."""

SHAPES: Final = {
    "stop_loss": "arrow-bar",
    "trailing_stop": "arrow",
    "take_profit": "star-triangle",
    "liquidation": "hexagram",
}
"""Marker of a reason that is not the strategy's own wish; those point up for a buy."""

PLAIN: Final = "triangle"
_UNDIRECTED: Final = ("hexagram",)


def scaled(prices: Floats, base: float | None) -> Floats:
    """Return prices as they are, or as their change since `base`."""
    return prices if base is None else prices / base - 1


def draw_fills(figure: go.Figure, fills: pl.DataFrame, base: float | None, limit: int) -> None:
    """Draw fills into the first row of a figure, each kind evenly thinned to its share of `limit`.

    Parameters
    ----------
    figure
        A house figure.
    fills
        timestamp, price, qty (signed); reason and liquidity (taker, maker) where they are known.
    base
        Price that changes are measured from, or None for prices as they are.
    limit
        About how many are drawn.
    """
    size = 10 if fills.height <= 100 else 7 if fills.height <= 400 else 5
    for name, shape, colour, kind in _kinds(fills):
        room = max(RAREST, limit * kind.height // fills.height)
        trace = _trace(kind.gather_every(-(-kind.height // room)), base, name)
        # A white rim parts markers that overlap; on many small ones it would be all one sees.
        rim = {"width": 0.7 if size > 5 else 0, "color": "#fff"}
        if shape.endswith("-open"):
            rim = {"width": 1.5}
        trace.marker.update(symbol=shape, color=colour, size=size, line=rim)
        trace.showlegend = not any(other.name == name for other in figure.data)
        figure.add_trace(trace, row=1, col=1)


def _kinds(fills: pl.DataFrame) -> Iterator[tuple[str, str, str, pl.DataFrame]]:
    """Yield (name, shape, colour, its fills) of every kind of fill there is, signals first."""
    said = {name: pl.col(name) for name in ("reason", "liquidity") if name in fills.columns}
    kinds = fills.filter(pl.col("qty") != 0).with_columns(
        pl.when(pl.col("qty") > 0).then(pl.lit("buy")).otherwise(pl.lit("sell")).alias("side"),
        said.get("reason", pl.lit("signal")).fill_null("signal").alias("reason"),
        said.get("liquidity", pl.lit("taker")).fill_null("taker").alias("liquidity"),
    )
    plain = pl.col("reason").is_in(SHAPES)
    kinds = kinds.sort(plain, "reason", "liquidity", "side", maintain_order=True).with_columns(
        pl.when(plain).then("reason").otherwise(pl.lit("")).alias("shown")
    )
    for key, frame in kinds.group_by("side", "shown", "liquidity", maintain_order=True):
        side, reason, liquidity = map(str, key)
        shape = SHAPES.get(reason, PLAIN)
        if shape not in _UNDIRECTED:
            shape += "-up" if side == "buy" else "-down"
        parts = (side, reason.replace("_", " "), "maker" if liquidity == "maker" else "")
        yield (
            ", ".join(part for part in parts if part),
            f"{shape}-open" if liquidity == "maker" else shape,
            BUY if side == "buy" else SELL,
            frame,
        )


def _trace(kind: pl.DataFrame, base: float | None, name: str) -> go.Scatter:
    prices = kind["price"].to_numpy()
    return go.Scatter(
        x=milliseconds(kind["timestamp"]),
        y=scaled(prices, base),
        customdata=np.column_stack((kind["qty"].to_numpy(), prices)),
        name=name,
        legendgroup=name,
        legendrank=1_001,  # behind the symbols, whose rank is 1,000
        mode="markers",
        marker={"opacity": 0.9},
        hovertemplate=name + " %{customdata[0]:.6~g} at %{customdata[1]}<extra></extra>",
    )
