"""Trial: one point's replay over the ticks, with the trades and period returns that it keeps.

A `Trial` is all that a sweep keeps of a point between two chunks, so it keeps little: of every fill
and trade the few numbers that metrics are made of. The kernel's records are ten times as large; a
sweep of hundreds of points could not keep them. A strategy that raises fails its own trial only.

Overfitting is judged by comparing points period by period, so returns are kept over the same
periods for all. A month has 43,200 minutes, and a sweep may have 100,000 points; so neighbours on
the time grid are compounded until few are left.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final, Literal, Self

import numpy as np
import polars as pl

from fxlab.backtester import result
from fxlab.backtester._feeds import SymbolChunk
from fxlab.backtester._kernel.records import MarketArrays
from fxlab.backtester._market_arrays import decisions_on
from fxlab.backtester._state import KernelState, Records
from fxlab.backtester.metrics._performance import (
    Executed,
    RoundTrips,
    columns_of,
    compute,
)
from fxlab.backtester.result import Run, facts_of
from fxlab.backtester.strategy.signals import Signals
from fxlab.backtester.strategy.strategy import Value
from fxlab.errors import InvalidParameter, did_you_mean, some
from fxlab.sweeper._space import Point

KEPT: Final = 256


@dataclass(frozen=True, slots=True)
class Periods:
    """Equal periods of time that begin at a multiple of the grid.

    Attributes
    ----------
    start : int
        Where the first begins, UTC µs.
    grid : int
        Spacing of a run's returns, µs.
    steps : int
        How many of them lie in the time range.
    """

    start: int
    grid: int
    steps: int

    @classmethod
    def of(cls, bounds: tuple[int, int], grid: int) -> Self:
        """Return the periods of the time from the first to the last tick."""
        first, last = (moment // grid for moment in bounds)
        return cls(first * grid, grid, last - first + 1)

    @property
    def together(self) -> int:
        """Return how many steps of the grid make one period."""
        return -(-self.steps // KEPT)

    @property
    def edges(self) -> np.ndarray:
        """Return where the periods begin, and where the last one ends (int64 µs)."""
        begins = np.arange(0, self.steps, self.together, dtype=np.int64)
        return self.start + np.append(begins, self.steps) * self.grid

    def coarse(self, returns: np.ndarray, first: int) -> np.ndarray:
        """Return one return a period, of those on the grid from the time `first` on.

        A ruined account has -1 in the period of the ruin, and 0 after it.
        """
        whole = np.zeros(self.steps)
        offset = first // self.grid - self.start // self.grid
        whole[offset : offset + len(returns)] = returns
        if self.together == 1:
            return whole
        begins = np.arange(0, self.steps, self.together)
        compounded: np.ndarray = np.multiply.reduceat(1.0 + whole, begins) - 1.0
        return compounded


@dataclass(slots=True)
class TradeAccumulator:
    """Takes the kernel's records as they come; metrics are those of all of them at once."""

    fills: list[Executed] = field(default_factory=list)
    trades: list[RoundTrips] = field(default_factory=list)
    unfilled: int = 0
    size: int = 0
    """Bytes kept."""

    def take(self, orders: np.ndarray, fills: np.ndarray, trades: np.ndarray) -> None:
        """Take `ORDER`, `FILL` and `TRADE` records."""
        executed, closed, unfilled = columns_of(orders, fills, trades)
        self.fills.append(executed)
        self.trades.append(closed)
        self.unfilled += unfilled
        self.size += sum(array.nbytes for array in (*executed, *closed))

    @property
    def columns(self) -> tuple[Executed, RoundTrips, int]:
        """Return those of all records, as `columns_of` does."""
        executed = Executed(*map(np.concatenate, zip(*self.fills, strict=True)))
        closed = RoundTrips(*map(np.concatenate, zip(*self.trades, strict=True)))
        return executed, closed, self.unfilled


State = Literal["done", "failed", "skipped"]
STATES: Final = ("done", "failed", "skipped")
MESSAGE_LENGTH: Final = 500
Seal = Callable[[Mapping[str, Value]], str]
"""Makes the fingerprint of a run from its parameters."""


def _nothing() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True, slots=True)
class TrialResult:
    """What became of one point on one session.

    Attributes
    ----------
    metrics, returns
        Float64: the metrics in their order, and returns on a common grid of all points; both
        empty unless the point is done.
    error
        Why it failed, or why the strategy refuses the combination.
    fingerprint
        That of `fxlab.backtest` with these parameters; empty unless the point is done.
    scenarios
        The metrics under the other assumptions of its study, in their order.
    """

    number: int
    state: State
    metrics: np.ndarray = field(default_factory=_nothing)
    returns: np.ndarray = field(default_factory=_nothing)
    error: str = ""
    fingerprint: str = ""
    scenarios: tuple[np.ndarray, ...] = ()

    @classmethod
    def skipped(cls, number: int, why: object) -> TrialResult:
        """Return the outcome of a combination that the strategy refuses."""
        return cls(number, "skipped", error=str(why)[:MESSAGE_LENGTH])

    @classmethod
    def failed(cls, number: int, error: BaseException) -> TrialResult:
        """Return the outcome of a point whose strategy raised."""
        words = " ".join(f"{type(error).__name__}: {error}".split())
        words = words.replace("the traceback above shows where", "backtest it alone to see where")
        return cls(number, "failed", error=words[:MESSAGE_LENGTH])


@dataclass(slots=True)
class Account:
    """A point under some assumptions: its run, its money, and what is kept of its trades."""

    run: Run
    state: KernelState
    kept: TradeAccumulator = field(default_factory=TradeAccumulator)

    @property
    def size(self) -> int:
        """Return how many bytes are kept between two chunks."""
        return self.kept.size + sum(array.nbytes for array in self.state.written["samples"])

    def replay(self, market: MarketArrays, decisions: np.ndarray) -> None:
        """Replay a stretch; of the kernel's records, keep what metrics need."""
        self.state.replay(market, decisions)
        self.kept.take(*self.state.take_records())

    def close(self) -> tuple[np.ndarray, Records, np.ndarray]:
        """Return the metrics, the records that they are of, and the returns on the grid."""
        records = self.state.close()
        self.kept.take(*self.state.take_records())
        returns = result.interval_returns(records, self.run.capital, self.run.grid_us)
        metrics = compute(returns, facts_of(self.run, records), *self.kept.columns)
        return np.array(list(metrics.values())), records, returns


class Trial:
    """A point under way.

    Parameters
    ----------
    point, signals
        The parameters, and what the strategy makes of them.
    accounts
        The point under the study's assumptions, and under others: they share its decisions.
    periods
        Those that returns are kept of.
    """

    def __init__(
        self, point: Point, signals: Signals, accounts: Sequence[Account], periods: Periods
    ) -> None:
        self.point = point
        self.signals = signals
        self._accounts = accounts
        self._periods = periods
        self._most = min(account.run.execution.max_leverage for account in accounts)
        self._outcome: TrialResult | None = None  # early, if the point has failed

    @property
    def size(self) -> int:
        """Return how many bytes are kept between two chunks."""
        return sum(account.size for account in self._accounts)

    def advance(self, market: MarketArrays, chunks: Sequence[SymbolChunk]) -> None:
        """Replay a stretch of the market, unless the point has failed."""
        if self._outcome is not None:
            return
        try:
            decisions = decisions_on(chunks, self.signals, self._most)
            for account in self._accounts:
                account.replay(market, decisions)
        except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 - a strategy's
            self._outcome = TrialResult.failed(self.point.number, error)

    def finish(self, seal: Seal) -> TrialResult:
        """Return what became of the point after the last chunk."""
        if self._outcome is not None:
            return self._outcome
        (metrics, records, returns), *others = [account.close() for account in self._accounts]
        return TrialResult(
            self.point.number,
            "done",
            metrics=metrics,
            returns=self._periods.coarse(returns, records.first),
            fingerprint=seal(self._accounts[0].run.parameters),
            scenarios=tuple(found for found, _, _ in others),
        )


def place_of(sessions: Sequence[str], session: object) -> int:
    """Return which of a sweep's sessions is meant; of a single one it need not be said."""
    if session in sessions:
        return sessions.index(session)
    if session is None and len(sessions) == 1:
        return 0
    near = did_you_mean(str(session), sessions)
    raise InvalidParameter(
        f"session={session!r:.80} is none of this sweep's sessions; give one of {some(sessions)}. "
        f"{near}".strip()
    )


def not_done(point: Point, outcome: TrialResult | None) -> str:
    """Return why a point has no result."""
    words = f"point {point.number} ({point.words})"
    if outcome is None:
        return f"{words} was not reached before the sweep was stopped; sweep.again() reaches it"
    became = "was skipped" if outcome.state == "skipped" else outcome.state
    return f"{words} {became}, so it has no result: {outcome.error}"


def count_words(table: pl.DataFrame, total: int, resumed: int) -> str:
    """Return what became of the points, in words."""
    counts = dict(table["state"].value_counts().iter_rows())
    parts = [f"{counts[state]:,} {state}" for state in STATES if counts.get(state)]
    ruined = table["ruined_after"].count()
    if ruined:
        parts.append(f"{ruined:,} of them ruined (see ruined_after in the table)")
    if total > table.height:
        parts.append(f"{total - table.height:,} not done")
    if resumed:
        parts.append(f"{resumed:,} of them from before")
    return ", ".join(parts) or "no points"
