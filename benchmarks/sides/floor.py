"""The bare kernels on the market's arrays: about as fast as this machine can be."""

from __future__ import annotations

import bare
import numba
import numpy as np
from market import CAPITAL, FAST, PAIRS, SLOW, STOP_LOSS, TAKE_PROFIT, Market, Outcome

MINUTE_US = 60_000_000


def prefix_sums(whole: np.ndarray) -> np.ndarray:
    """Return the float64 sums of whole prices before each row, counted from the first price."""
    return np.concatenate([[0], np.cumsum(whole - whole[0])]).astype(np.float64)


def rows_of_minutes(time: np.ndarray) -> np.ndarray:
    """Return the last row of each minute, at which equity is sampled."""
    return np.searchsorted(time, np.arange(time[0], time[-1], MINUTE_US), side="right") - 1


class Floor:
    """Whole prices and their sums for the averages, prices for the fills, rows to sample at."""

    def __init__(self, market: Market) -> None:
        self.rows = market.rows
        self.arrays = (market.whole, market.price)
        self.sums, self.samples = prefix_sums(market.whole), rows_of_minutes(market.time)
        self.fee = market.fee

    def one_run(self) -> Outcome:
        """Return trades and final equity of the crossover; drawdown and Sharpe ratio are made."""
        found = bare.run_sma_cross(*self._crossed(FAST, SLOW), self.samples)
        return Outcome(*found[:2])

    def exits(self) -> Outcome:
        """Return the run with exits under fxlab's rule."""
        trades, _, equity = bare.run_exits(*self._exits())
        return Outcome(trades, equity)

    def exits_at_print(self) -> Outcome:
        """Return the run with exits under vectorbt's rule."""
        trades, _, equity = bare.run_exits_at_print(*self._exits())
        return Outcome(trades, equity)

    def sweep(self) -> Outcome:
        """Return all pairs, on all cores."""
        return self._sweep(numba.config.NUMBA_NUM_THREADS)

    def sweep_one_worker(self) -> Outcome:
        """Return all pairs, on one core."""
        return self._sweep(1)

    def _crossed(self, fast: object, slow: object) -> tuple[object, ...]:
        return self.sums, self.arrays[1], fast, slow, self.fee, CAPITAL

    def _exits(self) -> tuple[object, ...]:
        return (*self.arrays, FAST, SLOW, self.fee, CAPITAL, TAKE_PROFIT, STOP_LOSS)

    def _sweep(self, threads: int) -> Outcome:
        fasts, slows = np.array(PAIRS).T.copy()
        trades, equities = np.zeros(len(PAIRS), np.int64), np.zeros(len(PAIRS))
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            bare.run_pairs(*self._crossed(fasts, slows), self.samples, trades, equities)
        finally:
            numba.set_num_threads(before)
        return Outcome.of_pairs(equities, int(trades.sum()))
