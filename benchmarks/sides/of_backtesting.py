"""backtesting.py: a tick is a bar whose four prices are one, units are whole satoshis."""

from __future__ import annotations

import logging
import warnings

import numpy as np
import pandas as pd
from backtesting import Strategy, backtesting
from backtesting.lib import FractionalBacktest
from market import CAPITAL, FAST, SLOW, STOP_LOSS, TAKE_PROFIT, Market, Outcome

SATOSHI = 1 / 100e6


class Cross(Strategy):
    """Enter on golden, leave on death."""

    def init(self) -> None:
        """Compute both averages over the whole series."""
        self.fast = self.I(_average, self.data.Close, FAST)
        self.slow = self.I(_average, self.data.Close, SLOW)

    def next(self) -> None:
        """Decide at one tick."""
        if self.fast[-2] <= self.slow[-2] and self.fast[-1] > self.slow[-1]:
            self.buy()
        elif self.fast[-2] >= self.slow[-2] and self.fast[-1] < self.slow[-1]:
            self.position.close()


class CrossWithExits(Cross):
    """Enter on golden, leave by take-profit or stop-loss."""

    def next(self) -> None:
        """Set the levels once the entry price is known; enter while flat."""
        if self.trades:
            trade = self.trades[0]
            if trade.sl is None:
                trade.sl = trade.entry_price * (1 - STOP_LOSS)
                trade.tp = trade.entry_price * (1 + TAKE_PROFIT)
        elif self.fast[-2] <= self.slow[-2] and self.fast[-1] > self.slow[-1]:
            self.buy()


class Bars:
    """A pandas frame of bars."""

    def __init__(self, market: Market) -> None:
        self.fee = market.fee
        index = pd.DatetimeIndex(market.time.astype("datetime64[us]"))
        price = dict.fromkeys(("Open", "High", "Low", "Close"), market.price)
        self.bars = pd.DataFrame({**price, "Volume": market.volume}, index=index)

    def one_run(self) -> Outcome:
        """Return trades and final equity of the crossover; its statistics always come along."""
        return self._run(Cross)

    def exits(self) -> Outcome:
        """Return the run with take-profit and stop-loss."""
        return self._run(CrossWithExits)

    def crosses(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of golden and of death crosses, by its own averages."""
        close = self.bars["Close"] * SATOSHI  # it averages prices of a satoshi
        ahead = _average(close, FAST) - _average(close, SLOW)
        now, before = ahead[1:], ahead[:-1]  # nan compares as False
        return (
            np.flatnonzero((now > 0) & (before <= 0)) + 1,
            np.flatnonzero((now < 0) & (before >= 0)) + 1,
        )

    def _run(self, strategy: type[Strategy]) -> Outcome:
        logging.getLogger("backtesting").setLevel(logging.ERROR)
        backtesting._tqdm = lambda rows, **_: rows  # noqa: SLF001 - a progress bar is no work
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # it warns of prices above the cash and open trades
            runner = FractionalBacktest(
                self.bars, strategy, cash=CAPITAL, commission=self.fee, fractional_unit=SATOSHI
            )
            stats = runner.run()
        return Outcome(int(stats["# Trades"]), float(stats["Equity Final [$]"]))


def _average(values: pd.Series, window: int) -> np.ndarray:
    return pd.Series(values).rolling(window).mean().to_numpy()
