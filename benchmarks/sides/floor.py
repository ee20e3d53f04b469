"""The bare kernels on the market's arrays: about as fast as one pass can be."""

from __future__ import annotations

import bare
import numba
import numpy as np
from market import CAPITAL, FAST, PAIRS, SLOW, STOP_LOSS, TAKE_PROFIT, Market, Outcome


class Floor:
    """Two arrays: whole prices for the averages, prices for the fills."""

    def __init__(self, market: Market) -> None:
        self.rows = market.rows
        self.arrays = (market.whole, market.price)
        self.fee = market.fee

    def one_run(self) -> Outcome:
        """Return trades and final equity of the crossover."""
        return Outcome(*bare.run_sma_cross(*self.arrays, FAST, SLOW, self.fee, CAPITAL))

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

    def _exits(self) -> tuple[object, ...]:
        return (*self.arrays, FAST, SLOW, self.fee, CAPITAL, TAKE_PROFIT, STOP_LOSS)

    def _sweep(self, threads: int) -> Outcome:
        fasts, slows = np.array(PAIRS).T.copy()
        trades, equities = np.zeros(len(PAIRS), np.int64), np.zeros(len(PAIRS))
        before = numba.get_num_threads()
        numba.set_num_threads(threads)
        try:
            bare.run_pairs(*self.arrays, fasts, slows, self.fee, CAPITAL, trades, equities)
        finally:
            numba.set_num_threads(before)
        return Outcome.of_pairs(equities, int(trades.sum()))
