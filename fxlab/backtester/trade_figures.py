"""Figures of fills and round trips, over plain columns: frames and kernel records give the same.

A sweep has thousands of points and needs no frame of any of them, a result has its frames at hand;
both are turned into the same few arrays here, so that they cannot give different figures.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Final, Self

import numpy as np
import polars as pl

from fxlab.backtester.ratios import ROUNDING, quantiles, ratio
from fxlab.backtester.records import STILL_OPEN

TRADE_FIGURES: Final = (
    "win_rate",
    "profit_factor",
    "expectancy",
    "expectancy_bps",
    "average_win",
    "average_loss",
    "median_trade_duration",
    "longest_trade_duration",
)


@dataclass(frozen=True, slots=True)
class Executed:
    """What was executed, one value a fill.

    Attributes
    ----------
    notional, fees : numpy.ndarray
        Float64, quote currency.
    maker : numpy.ndarray or None
        Whether the order had rested; None where the fills do not tell.
    unfilled : int or None
        Orders that ended with nothing executed; None where the orders were not kept.
    """

    notional: np.ndarray
    fees: np.ndarray
    maker: np.ndarray | None
    unfilled: int | None

    @classmethod
    def of_frames(cls, fills: pl.DataFrame, orders: pl.DataFrame | None) -> Self:
        """Read the frames of a result."""
        return cls(
            np.abs(fills["qty"].to_numpy()) * fills["price"].to_numpy(),
            fills["fee"].to_numpy(),
            (fills["liquidity"] == "maker").to_numpy() if "liquidity" in fills.columns else None,
            None if orders is None else int((orders["qty"] == 0.0).sum()),
        )

    @classmethod
    def of_records(cls, fills: np.ndarray, orders: np.ndarray) -> Self:
        """Read the kernel's `FILL` and `ORDER` records."""
        return cls(
            np.abs(fills["qty"]) * fills["price"],
            # A whole column: a sum over a stride may add in another order.
            np.ascontiguousarray(fills["fee"]),
            fills["maker"] != 0,
            int(np.count_nonzero(orders["qty"] == 0.0)),
        )


@dataclass(frozen=True, slots=True)
class Closed:
    """The closed round trips, one value a trade: pnl and entry notional (quote), seconds held."""

    pnl: np.ndarray
    notional: np.ndarray
    seconds: np.ndarray

    @classmethod
    def of_frame(cls, trades: pl.DataFrame) -> Self:
        """Read the trades of a result."""
        closed = trades.filter(pl.col("exited_at").is_not_null())
        entered, exited = (
            closed[name].to_physical().to_numpy() for name in ("entered_at", "exited_at")
        )
        return cls(
            closed["pnl"].to_numpy(),
            closed["qty"].to_numpy() * closed["entry_price"].to_numpy(),
            # Not `duration_seconds`: Polars divides by a constant with another last bit.
            (exited - entered) / 1e6,
        )

    @classmethod
    def of_records(cls, trades: np.ndarray) -> Self:
        """Read the kernel's `TRADE` records."""
        exited = trades["exited_at"]
        closed = exited != STILL_OPEN  # a mask a column: whole records are slow to copy
        return cls(
            trades["pnl"][closed],
            (trades["qty"] * trades["entry_price"])[closed],
            (exited - trades["entered_at"])[closed] / 1e6,
        )


def trade_figures(closed: Closed, notes: dict[str, str]) -> dict[str, float]:
    """Return the figures of the closed trades; `notes` gets the reason of each nan."""
    pnl = closed.pnl
    if not len(pnl):
        notes.update(dict.fromkeys(TRADE_FIGURES, "no closed trades"))
        return {"trades_count": 0.0, **dict.fromkeys(TRADE_FIGURES, math.nan)}
    # A trade that came out even may miss zero by a rounding of the money that it moved.
    rounding = ROUNDING * np.abs(closed.notional)
    wins, losses = pnl[pnl > rounding], pnl[pnl < -rounding]
    if not len(losses):
        notes.update(dict.fromkeys(("profit_factor", "average_loss"), "no losing trades"))
    if not len(wins):
        notes["average_win"] = "no winning trades"
    total, won, lost = float(pnl.sum()), float(wins.sum()), float(losses.sum())
    return {
        "trades_count": float(len(pnl)),
        "win_rate": len(wins) / len(pnl),
        "profit_factor": ratio(won, -lost),
        "expectancy": total / len(pnl),
        "expectancy_bps": ratio(total, float(closed.notional.sum())) * 10_000,
        "average_win": ratio(won, len(wins)),
        "average_loss": ratio(lost, len(losses)),
        "median_trade_duration": quantiles(closed.seconds, (0.5,))[0],
        "longest_trade_duration": float(closed.seconds.max()),
    }


def cost_figures(executed: Executed, capital: float, notes: dict[str, str]) -> dict[str, float]:
    """Return the figures of the fills and of what did not fill."""
    count, makers = len(executed.fees), math.nan
    if executed.maker is None:
        notes["maker_share"] = "these fills do not tell makers from takers"
    elif not count:
        notes["maker_share"] = "no fills"
    else:
        makers = np.count_nonzero(executed.maker) / count
    if executed.unfilled is None:
        notes["orders_unfilled"] = "the orders were not kept"
    return {
        "fees": float(executed.fees.sum()),
        "fills_count": float(count),
        "turnover": float(executed.notional.sum()) / capital,
        "maker_share": makers,
        "orders_unfilled": math.nan if executed.unfilled is None else float(executed.unfilled),
    }
