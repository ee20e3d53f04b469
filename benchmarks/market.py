"""The one series that every benchmark runs on, and the work to do on it, written once.

A side of a comparison takes the arrays in whatever form it likes; making that form is not timed.
The contract of the works, so that each side can be held to it:

- averages of the last `fast` and `slow` prices are known from row ``slow - 1``; a golden cross at
  row i is ``fast <= slow`` at i - 1 and ``fast > slow`` at i, both rows known; death mirrors it;
- an order decided at row i fills at the price of row i + 1 and pays `fee` of its notional; an
  entry spends all cash, ``units = cash / (price * (1 + fee))``; what is open at the end is marked;
- one run: enter on golden, leave on death, long only. A sweep: one run for each of `PAIRS`;
- exits: enter on golden while flat, leave by take-profit or stop-loss alone. Fill rules differ
  between the sides there; `exact` has each of them.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

if TYPE_CHECKING:
    import polars as pl

CAPITAL = 1_000_000.0
FAST, SLOW = 50, 200
TAKE_PROFIT = STOP_LOSS = 0.001
FASTS = (10, 20, 30, 40, 50, 60, 70, 80, 90, 100)
SLOWS = (120, 150, 200, 250, 300, 350, 400, 450, 500, 600)
PAIRS = tuple((fast, slow) for fast in FASTS for slow in SLOWS)
TICKS_A_UNIT = 100  # prices lie on a grid of 0.01
DAY_US = 86_400_000_000
MIDNIGHT_US = 1_735_689_600_000_000  # 2025-01-01T00:00:00Z
MANY = 5_000_000


@dataclass(frozen=True)
class Market:
    """One day of trades of one symbol.

    Attributes
    ----------
    time
        int64, UTC microseconds, strictly rising.
    whole
        int64, prices in units of 0.01.
    price, volume
        float64; the price is the double nearest to the decimal.
    taker
        int8, +1 buy, -1 sell.
    """

    time: np.ndarray
    whole: np.ndarray
    price: np.ndarray
    volume: np.ndarray
    taker: np.ndarray

    @property
    def rows(self) -> int:
        """Return the number of trades."""
        return len(self.time)

    @property
    def fee(self) -> float:
        """Return the fee: ten times lower where so many trades would eat the whole capital.

        vectorbt stops trading where equity falls below its absolute tolerance, so at 5 bps it
        would not finish 10 M ticks.
        """
        return 0.0005 if self.rows < MANY else 0.00005

    def frame(self) -> pl.DataFrame:
        """Return the trades as a frame of ticks, as a session gives them."""
        import polars as pl  # a peer that is timed from its first import does not pay for it

        stamps = pl.Series(self.time).cast(pl.Datetime("us", "UTC"))
        return pl.DataFrame(
            {
                "timestamp": stamps,
                "seq": np.arange(self.rows, dtype=np.int64),
                "price": self.price,
                "volume": self.volume,
                "quote_volume": self.price * self.volume,
                "side": np.where(self.taker > 0, "buy", "sell"),
            }
        )

    def save(self, folder: Path) -> None:
        """Write one file an array, for processes that are measured from their start."""
        for name in ("time", "whole", "price", "volume", "taker"):
            np.save(folder / f"{name}.npy", getattr(self, name))

    @classmethod
    def load(cls, folder: Path) -> Market:
        """Read what `save` wrote."""
        names = ("time", "whole", "price", "volume", "taker")
        return cls(*(np.load(folder / f"{name}.npy") for name in names))


def generate(rows: int, seed: int = 7) -> Market:
    """Return a geometric random walk with 3 % volatility a day, on a grid of 0.01."""
    rng = np.random.default_rng(seed)
    time = np.sort(rng.integers(0, DAY_US - rows, rows)) + np.arange(rows) + MIDNIGHT_US
    steps = rng.standard_normal(rows) * (0.03 / np.sqrt(rows))
    whole = np.rint(60_000 * np.exp(np.cumsum(steps)) * TICKS_A_UNIT).astype(np.int64)
    volume = np.round(rng.exponential(0.05, rows) + 0.001, 6)
    taker = (rng.integers(0, 2, rows) * 2 - 1).astype(np.int8)
    return Market(time, whole, whole / TICKS_A_UNIT, volume, taker)


@dataclass(frozen=True)
class Outcome:
    """What a side found: closed trades (None where it does not count them), final equity.

    A sweep gives the final equities of all pairs in the order of `PAIRS`, and of the best one
    its equity.
    """

    trades: int | None
    equity: float
    equities: np.ndarray | None = None

    @classmethod
    def of_pairs(cls, equities: np.ndarray, trades: int | None = None) -> Outcome:
        """Return the outcome of a sweep; `trades` are those of all pairs together."""
        return cls(trades, float(equities.max()), np.asarray(equities, float))
