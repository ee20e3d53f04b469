"""From the kernel's records to the frames of a result: pure functions."""

from __future__ import annotations

from typing import Final

import numpy as np
import polars as pl

from fxlab.backtester.ledger import Records
from fxlab.backtester.records import NEVER
from fxlab.schema import UTC_MICROS

STATUS_NAMES: Final = {
    1: "filled",
    2: "replaced by a newer decision",
    3: "position already as wanted",
    4: "no equity left",
    5: "no tick left to fill at",
    6: "partly filled, then replaced by a newer decision",
    7: "partly filled: the book held no more",
    8: "no book young enough",
    9: "no liquidity on that side of the book",
    10: "a gap in the recording came first",
    11: "below the smallest order",
    12: "no buying power left",
    13: "too soon after an exit",
    14: "no usable book: crossed, out of order or empty",
}

REASON_NAMES: Final = {
    0: "",
    1: "signal",
    2: "stop_loss",
    3: "take_profit",
    4: "trailing_stop",
    5: "max_holding",
    6: "liquidation",
    7: "rebalance",
    8: "end",
}

FLAG_NAMES: Final = {1: "partial", 2: "beyond_depth", 4: "across_gap", 8: "cut_by_leverage"}

EXECUTED: Final = ("target", "price", "qty", "fee", "position", "equity")
"""What an order and a fill both tell."""


def grid_returns(records: Records, capital: float, grid_us: int) -> np.ndarray:
    """Return simple returns of equity on the grid; intervals without a tick return zero.

    A sample stands at the end of its interval; the last interval is closed by the last tick. The
    interval in which the account is ruined returns -1, those after it 0: all can be lost once,
    and there is no return on nothing, nor on a debt.
    """
    start = records.first // grid_us * grid_us
    numbers = -((start - records.samples["time"]) // grid_us)  # ceil: which grid interval it is in
    count = int(numbers[-1])
    equity = np.full(count + 1, np.nan)
    equity[0] = capital
    equity[numbers] = records.samples["equity"]  # the last sample inside an interval wins
    filled = np.maximum.accumulate(np.where(np.isnan(equity), 0, np.arange(count + 1)))
    values = equity[filled]
    gone = np.minimum.accumulate(values) <= 0.0
    ruined_at = int(records.account["ruined_at"])
    if ruined_at != NEVER:
        gone[(ruined_at - start) // grid_us + 1 :] = True
    returns: np.ndarray = values[1:] / np.where(gone[:-1], 1.0, values[:-1]) - 1.0
    returns[gone[1:]] = -1.0
    returns[gone[:-1]] = 0.0
    return returns


def _times(*names: str) -> list[pl.Expr]:
    return [pl.col(name).cast(UTC_MICROS) for name in names]


def _symbol(symbols: tuple[str, ...]) -> pl.Expr:
    names = pl.Series(list(symbols), dtype=pl.String)
    return pl.lit(names).gather(pl.col("leg")).alias("symbol")


def orders_table(records: Records, symbols: tuple[str, ...]) -> pl.DataFrame:
    """Return every order and what became of it."""
    return (
        pl.from_numpy(records.orders)
        .select(
            _symbol(symbols),
            _named("status", STATUS_NAMES),
            _named("reason", REASON_NAMES),
            *_times("decided_at", "ready_at", "done_at"),
            *EXECUTED,
        )
        .with_columns(pl.col("price").fill_nan(None))
    )


def fills_table(fills: np.ndarray, symbols: tuple[str, ...]) -> pl.DataFrame:
    """Return the executions (`FILL` records); an order may have several."""
    flags = {
        bits: ", ".join(name for bit, name in FLAG_NAMES.items() if bits & bit)
        for bits in range(2 * max(FLAG_NAMES))
    }
    return pl.from_numpy(fills).select(
        _symbol(symbols),
        pl.col("time").cast(UTC_MICROS).alias("timestamp"),
        *_times("decided_at"),
        _named("reason", REASON_NAMES),
        _named("maker", {0: "taker", 1: "maker"}).alias("liquidity"),
        _named("flags", flags),
        *EXECUTED,
    )


def _named(column: str, names: dict[int, str]) -> pl.Expr:
    words = pl.Series([names[number] for number in range(max(names) + 1) if number in names])
    first = min(names)
    return pl.lit(words).gather(pl.col(column) - first).alias(column)


def trades_table(records: Records, symbols: tuple[str, ...]) -> pl.DataFrame:
    """Return the round trips; an open one has a null exit time."""
    sign = pl.col("direction")
    low = (pl.col("low") / pl.col("entry_price") - 1) * sign
    high = (pl.col("high") / pl.col("entry_price") - 1) * sign
    still_open = pl.col("exited_at") < 0
    seconds = (pl.col("exited_at") - pl.col("entered_at")) / 1e6
    return pl.from_numpy(records.trades).select(
        _symbol(symbols),
        pl.when(sign > 0).then(pl.lit("long")).otherwise(pl.lit("short")).alias("direction"),
        *_times("entered_at"),
        pl.when(~still_open).then(pl.col("exited_at")).cast(UTC_MICROS).alias("exited_at"),
        "qty",
        "entry_price",
        "exit_price",
        "fees",
        "funding",
        "pnl",
        (pl.col("pnl") / (pl.col("qty") * pl.col("entry_price"))).alias("return"),
        pl.min_horizontal(low, high, 0.0).alias("mae"),
        pl.max_horizontal(low, high, 0.0).alias("mfe"),
        pl.when(~still_open).then(seconds).alias("duration_seconds"),
        _named("reason", REASON_NAMES).alias("exit_reason"),
    )


def equity_table(records: Records, capital: float) -> pl.DataFrame:
    """Return sampled equity, with the exact peak and trough of the deepest drawdown."""
    account = records.account
    times = [records.first, int(account["high_at"]), int(account["low_at"])]
    values = [capital, float(account["high"]), float(account["low"])]
    samples = pl.from_numpy(records.samples)
    exact = pl.DataFrame({"time": times, "equity": values}, schema=samples.schema)
    # A sample closes its interval: the last one would stand after the last tick.
    frame = pl.concat([exact, samples]).sort("time", maintain_order=True)
    equity = pl.col("equity")
    return frame.select(
        pl.col("time").clip(upper_bound=records.last).cast(UTC_MICROS).alias("timestamp"),
        equity,
        (equity / equity.cum_max() - 1).alias("drawdown"),
    )
