"""vectorbt on a naive index (an aware one makes it a hundred times slower), signals moved on a row.

A sweep can be written in several ways, and they differ more than the engines do: the way of its
guide (one call a pair), averages computed once and shared, the same on two threads, and crosses
made in numpy so that only the simulation is vectorbt's. All columns at once needs 15 GB here.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pandas as pd
import vectorbt as vbt
from market import CAPITAL, FAST, PAIRS, SLOW, STOP_LOSS, TAKE_PROFIT, Market, Outcome


class _Vectorbt:
    """One engine on one series."""

    engine = ""

    def __init__(self, market: Market) -> None:
        self.market = market
        self.rows = market.rows
        index = pd.DatetimeIndex(market.time.astype("datetime64[us]"))
        self.close = pd.Series(market.price, index=index)

    def one_run(self) -> Outcome:
        """Return trades and final equity."""
        return self._outcome(self._cross())

    def full(self) -> Outcome:
        """Return the same from `stats()`: equity, drawdown, ratios and trades of every kind."""
        stats = self._cross().stats()
        return Outcome(int(stats["Total Closed Trades"]), float(stats["End Value"]))

    def exits(self) -> Outcome:
        """Return the run with exits, filled at the print that touches a level."""
        averages = self._averages([FAST, SLOW])
        golden = averages[FAST].ma_crossed_above(averages[SLOW])
        return self._outcome(
            self._simulate(
                golden.vbt.signals.fshift(1),
                None,
                sl_stop=STOP_LOSS,
                tp_stop=TAKE_PROFIT,
                stop_entry_price="fillprice",
                stop_exit_price="close",
            )
        )

    def sweep_loop(self) -> Outcome:
        """Return all pairs, one whole run each."""
        equities = [self._cross(*pair).final_value() for pair in PAIRS]
        return Outcome.of_pairs(np.array(equities, float))

    def sweep_shared(self) -> Outcome:
        """Return all pairs, each average computed once."""
        averages = self._averages(_windows())
        return self._of_equities(self._equity(averages, pair) for pair in PAIRS)

    def sweep_threads(self) -> Outcome:
        """Return the same with as many threads as cores."""
        averages = self._averages(_windows())
        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return self._of_equities(pool.map(lambda pair: self._equity(averages, pair), PAIRS))

    def sweep_numpy_crosses(self) -> Outcome:
        """Return the same on threads, the crosses made by hand: vectorbt simulates, no more."""
        averages = {k: v.ma.to_numpy() for k, v in self._averages(_windows()).items()}

        def equity(pair: tuple[int, int]) -> float:
            fast, slow = (averages[window] for window in pair)
            above, below = fast > slow, fast < slow
            entries, leaves = np.zeros(self.rows, bool), np.zeros(self.rows, bool)
            first = pair[1]  # both averages known at this row and at the one before it
            entries[first + 1 :] = above[first:-1] & ~above[first - 1 : -2]
            leaves[first + 1 :] = below[first:-1] & ~below[first - 1 : -2]
            return float(self._simulate(entries, leaves).final_value())

        with ThreadPoolExecutor(os.cpu_count()) as pool:
            return self._of_equities(pool.map(equity, PAIRS))

    def sweep_stats(self) -> Outcome:
        """Return all pairs with all figures of each, as a table of fxlab's sweep has them."""
        averages = self._averages(_windows())
        every = (self._simulate(*_signals(averages, pair)).stats() for pair in PAIRS)
        return self._of_equities(stats["End Value"] for stats in every)

    def crosses(self) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows of golden and of death crosses, by its own averages."""
        averages = self._averages([FAST, SLOW])
        golden = averages[FAST].ma_crossed_above(averages[SLOW])
        death = averages[FAST].ma_crossed_below(averages[SLOW])
        return np.flatnonzero(golden.to_numpy()), np.flatnonzero(death.to_numpy())

    def _averages(self, windows: Iterable[int]) -> dict[int, vbt.MA]:
        vbt.settings["engine"] = self.engine
        return {window: vbt.MA.run(self.close, window) for window in windows}

    def _cross(self, fast: int = FAST, slow: int = SLOW) -> vbt.Portfolio:
        return self._simulate(*_signals(self._averages([fast, slow]), (fast, slow)))

    def _equity(self, averages: dict[int, vbt.MA], pair: tuple[int, int]) -> float:
        return float(self._simulate(*_signals(averages, pair)).final_value())

    def _simulate(self, entries: object, leaves: object, **options: object) -> vbt.Portfolio:
        return vbt.Portfolio.from_signals(
            self.close,
            entries,
            leaves,
            fees=self.market.fee,
            init_cash=CAPITAL,
            freq="1s",
            **options,
        )

    @staticmethod
    def _outcome(portfolio: vbt.Portfolio) -> Outcome:
        return Outcome(int(portfolio.trades.closed.count()), float(portfolio.final_value()))

    @staticmethod
    def _of_equities(equities: Iterable[float]) -> Outcome:
        return Outcome.of_pairs(np.array(list(equities)))


class Rust(_Vectorbt):
    """Its compiled engine, which it takes by itself when it is installed."""

    engine = "auto"


class Numba(_Vectorbt):
    """Its numba engine, which it takes otherwise."""

    engine = "numba"


def _signals(averages: dict[int, vbt.MA], pair: tuple[int, int]) -> tuple[pd.Series, pd.Series]:
    fast, slow = (averages[window] for window in pair)
    golden, death = fast.ma_crossed_above(slow), fast.ma_crossed_below(slow)
    return golden.vbt.signals.fshift(1), death.vbt.signals.fshift(1)


def _windows() -> list[int]:
    return sorted({window for pair in PAIRS for window in pair})
