"""fxlab, through its public functions only."""

from __future__ import annotations

from market import CAPITAL, FAST, PAIRS, SLOW, STOP_LOSS, TAKE_PROFIT, Market, Outcome

import fxlab
from fxlab import indicators

TABLES = ("fills", "orders", "trades", "equity")


def golden_with_exits(*, fast: int = FAST, slow: int = SLOW) -> fxlab.Signals:
    """Buy on a golden cross, leave by take-profit or stop-loss alone."""
    return fxlab.Signals(
        target=indicators.mean_cross(fast, slow, death=float("nan")),
        take_profit=TAKE_PROFIT,
        stop_loss=STOP_LOSS,
        reentry="signal",
        lookback=slow,
    )


class Ours:
    """A frame of ticks, as `Session.prices` returns it."""

    def __init__(self, market: Market) -> None:
        self.rows = market.rows
        self.frame = market.frame()
        self.execution = fxlab.Execution(taker_bps=market.fee * 10_000)

    def one_run(self) -> Outcome:
        """Return trades and final equity of the crossover."""
        return self._outcome(self._cross())

    def full(self) -> Outcome:
        """Return the same after every table and every metric was made."""
        result = self._cross()
        for name in TABLES:
            getattr(result, name)
        return self._outcome(result)

    def exits(self) -> Outcome:
        """Return trades and final equity of the run with take-profit and stop-loss."""
        return self._outcome(
            fxlab.backtest(self.frame, golden_with_exits, capital=CAPITAL, execution=self.execution)
        )

    def sweep(self, **options: object) -> Outcome:
        """Return the final equities of all pairs; `options` go to `fxlab.sweep`."""
        return self._pairs(PAIRS, **options)

    def sweep_unchecked(self) -> Outcome:
        """Return the same without the sampled look-ahead check, which no peer has."""
        return self.sweep(check_lookahead=False)

    def sweep_one_worker(self) -> Outcome:
        """Return the same, computed by one worker."""
        return self.sweep(workers=1)

    def sweep_two_workers(self) -> Outcome:
        """Return the same, computed by two workers."""
        return self.sweep(workers=2)

    def sweep_of_25(self) -> Outcome:
        """Return the final equities of a quarter of the pairs: does memory follow the points."""
        return self._pairs([pair for pair in PAIRS if pair[0] <= 50 and pair[1] <= 300])

    def _pairs(self, pairs: object, **options: object) -> Outcome:
        grid = {
            "fast": sorted({fast for fast, _ in pairs}),
            "slow": sorted({slow for _, slow in pairs}),
        }
        done = fxlab.sweep(
            self.frame, "sma_cross", grid, capital=CAPITAL, execution=self.execution, **options
        )
        found = done.table.select("fast", "slow", "final_equity").sort("fast", "slow")
        return Outcome.of_pairs(found["final_equity"].to_numpy())

    def _cross(self) -> fxlab.Result:
        return fxlab.backtest(
            self.frame,
            "sma_cross",
            {"fast": FAST, "slow": SLOW},
            capital=CAPITAL,
            execution=self.execution,
        )

    @staticmethod
    def _outcome(result: fxlab.Result) -> Outcome:
        return Outcome(int(result.metrics["trades_count"]), result.metrics["final_equity"])
