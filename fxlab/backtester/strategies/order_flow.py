"""Strategies that read the order book."""

from __future__ import annotations

from typing import Annotated

import polars as pl

from fxlab.backtester.strategy import Bounds, Signals, strategy
from fxlab.schema import BOOK_DEPTH


@strategy
def book_imbalance(
    *,
    levels: Annotated[int, Bounds(1, BOOK_DEPTH)] = 3,
    threshold: Annotated[float, Bounds(0.0, 1.0)] = 0.5,
    allow_short: bool = True,
) -> Signals:
    """Lean where the book leans: long while much more is bid than offered.

    Imbalance is (bids - asks) / (bids + asks), the quantities of the first levels; a missing level
    counts as nothing. Beside trades it is the book before the tick, on quotes the quote itself.
    A position is closed when the imbalance changes its sign.

    Parameters
    ----------
    levels
        levels of each side to add up, the best first
    threshold
        imbalance that opens a position, from 0 to 1
    allow_short
        also sell while more is offered

    References
    ----------
    Cartea, Donnelly, Jaimungal (2018), "Enhancing trading strategies with order book signals",
    Applied Mathematical Finance 25(1).
    """
    bids, asks = (
        pl.sum_horizontal(f"{side}_qty_{level}" for level in range(1, levels + 1))
        for side in ("bid", "ask")
    )
    shown = bids + asks
    imbalance = pl.when(shown > 0).then((bids - asks) / shown)
    before = imbalance.shift(1)
    turned = ((imbalance <= 0) & (before > 0)) | ((imbalance >= 0) & (before < 0))
    return Signals(
        target=pl.when(imbalance > threshold)
        .then(1.0)
        .when(imbalance < -threshold)
        .then(-1.0 if allow_short else 0.0)
        .when(turned)
        .then(0.0),
        lookback=1,
    )
