"""The kernel's state between chunks, and all that it has written down."""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np

from fxlab.backtester import records
from fxlab.backtester.execution import Execution
from fxlab.backtester.stream import Rows


@dataclass(frozen=True, slots=True)
class Records:
    """What a finished replay leaves behind; arrays of the kernel's record types."""

    first: int
    last: int
    rows: int
    orders: np.ndarray
    trades: np.ndarray
    samples: np.ndarray
    legs: np.ndarray
    account: np.void


@dataclass
class Ledger:
    """Feeds chunks to the kernel; `close` says what became of everything."""

    legs: np.ndarray
    account: np.ndarray
    costs: np.ndarray
    first: int | None = None
    orders: list[np.ndarray] = field(default_factory=list)
    trades: list[np.ndarray] = field(default_factory=list)
    samples: list[np.ndarray] = field(default_factory=list)

    @classmethod
    def open(cls, legs: int, capital: float, execution: Execution, interval: int) -> Ledger:
        """Start with equal cash in every leg; equity is sampled every `interval` µs."""
        state = np.zeros(legs, records.LEG)
        state["cash"] = state["equity"] = capital / legs
        account = np.zeros(1, records.ACCOUNT)
        account["equity"] = account["peak"] = state["equity"].sum()
        costs = np.zeros(1, records.COSTS)
        costs["fee"] = execution.taker_bps / 10_000
        costs["slippage"] = execution.slippage_bps / 10_000
        costs["latency"] = execution.latency_us
        costs["interval"] = interval
        return cls(state, account, costs)

    @property
    def rows(self) -> int:
        """Return how many rows were replayed."""
        return int(self.account[0]["rows"])

    def replay(self, rows: Rows) -> None:
        """Replay one chunk; the state carries over to the next."""
        from fxlab.backtester import kernel

        if self.first is None:
            self._begin(int(rows.time[0]))
        interval, edge = int(self.costs[0]["interval"]), int(self.account[0]["edge"])
        room = kernel.count_decisions(rows.target, rows.leg, len(self.legs)) + len(self.legs)
        edges = (int(rows.time[-1]) - edge) // interval + 1
        orders = np.zeros(room, records.ORDER)
        trades = np.zeros(room, records.TRADE)
        samples = np.zeros(max(0, min(len(rows.time), edges)), records.SAMPLE)
        used = np.zeros(3, np.int64)
        kernel.replay(
            rows.time,
            rows.leg,
            rows.price,
            rows.target,
            self.costs[0],
            self.legs,
            self.account[0],
            orders,
            trades,
            samples,
            used,
        )
        self.orders.append(orders[: used[0]])
        self.trades.append(trades[: used[1]])
        self.samples.append(samples[: used[2]])

    def close(self) -> Records:
        """Write down pending orders, open positions and the last equity; nothing is sold."""
        from fxlab.backtester import kernel

        orders = np.zeros(len(self.legs), records.ORDER)
        trades = np.zeros(len(self.legs), records.TRADE)
        sample = np.zeros(1, records.SAMPLE)
        used = np.zeros(3, np.int64)
        account = self.account[0]
        kernel.close(self.legs, account, orders, trades, used)
        sample["time"], sample["equity"] = account["edge"], account["equity"]
        return Records(
            first=self.first or 0,
            last=int(account["now"]),
            rows=self.rows,
            orders=np.concatenate([*self.orders, orders[: used[0]]]),
            trades=np.concatenate([*self.trades, trades[: used[1]]]),
            samples=np.concatenate([*self.samples, sample]),
            legs=self.legs,
            account=account,
        )

    def _begin(self, first: int) -> None:
        self.first = first
        account = self.account[0]
        interval = int(self.costs[0]["interval"])
        account["now"] = account["peak_at"] = account["high_at"] = account["low_at"] = first
        account["high"] = account["low"] = account["peak"]
        account["edge"] = (first // interval + 1) * interval
