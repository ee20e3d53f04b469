"""One point's way through the ticks: its ledger, and what is left of it in the end.

A lane is all that a sweep keeps of a point between two chunks, so it keeps little: of every fill
and trade the few numbers that figures are made of. A strategy that raises fails its own lane only.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Final, Literal

import numpy as np
import polars as pl

from fxlab.backtester import tables
from fxlab.backtester.ledger import Ledger
from fxlab.backtester.metrics import compute_columns
from fxlab.backtester.result import Run, facts_of
from fxlab.backtester.signals import Signals
from fxlab.backtester.strategy import Value
from fxlab.backtester.stream import Chunk
from fxlab.sweeper.periods import Periods
from fxlab.sweeper.space import Point
from fxlab.sweeper.tally import Tally

State = Literal["done", "failed", "skipped"]
STATES: Final = ("done", "failed", "skipped")
MESSAGE_LENGTH: Final = 500
Seal = Callable[[Mapping[str, Value]], str]
"""Makes the fingerprint of a run from its parameters."""


def _nothing() -> np.ndarray:
    return np.empty(0)


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one point on one session.

    Attributes
    ----------
    figures, returns
        Float64: the metrics in their order, and returns on a common grid of all points; both
        empty unless the point is done.
    error
        Why it failed, or why the strategy refuses the combination.
    fingerprint
        That of `fxlab.backtest` with these parameters; empty unless the point is done.
    """

    number: int
    state: State
    figures: np.ndarray = field(default_factory=_nothing)
    returns: np.ndarray = field(default_factory=_nothing)
    error: str = ""
    fingerprint: str = ""

    @classmethod
    def skipped(cls, number: int, why: object) -> Outcome:
        """Return the outcome of a combination that the strategy refuses."""
        return cls(number, "skipped", error=str(why)[:MESSAGE_LENGTH])

    @classmethod
    def failed(cls, number: int, error: BaseException) -> Outcome:
        """Return the outcome of a point whose strategy raised."""
        words = " ".join(f"{type(error).__name__}: {error}".split())
        words = words.replace("the traceback above shows where", "backtest it alone to see where")
        return cls(number, "failed", error=words[:MESSAGE_LENGTH])


class Lane:
    """A point under way.

    Parameters
    ----------
    point, signals
        The parameters, and what the strategy makes of them.
    run
        The point's run, as a backtest would have it.
    ledger
        Its account, just opened.
    periods
        Those that returns are kept of.
    """

    def __init__(
        self, point: Point, signals: Signals, run: Run, ledger: Ledger, periods: Periods
    ) -> None:
        self.point = point
        self.signals = signals
        self._run = run
        self._ledger = ledger
        self._periods = periods
        self._tally = Tally()
        self._outcome: Outcome | None = None  # early, if the point has failed

    @property
    def size(self) -> int:
        """Return how many bytes are kept between two chunks."""
        samples = self._ledger.written["samples"]
        return self._tally.size + sum(array.nbytes for array in samples)

    def advance(self, chunk: Chunk) -> None:
        """Replay a chunk, unless the point has failed."""
        if self._outcome is not None:
            return
        try:
            rows = chunk.rows(self.signals, self._run.execution.max_leverage)
            self._ledger.replay(rows)
        except (Exception, pl.exceptions.PanicException) as error:  # noqa: BLE001 - a strategy's
            self._outcome = Outcome.failed(self.point.number, error)
            return
        self._condense()

    def finish(self, seal: Seal) -> Outcome:
        """Return what became of the point after the last chunk."""
        if self._outcome is not None:
            return self._outcome
        records = self._ledger.close()
        self._condense()
        run, tally = self._run, self._tally
        returns = tables.grid_returns(records, run.capital, run.grid_us)
        figures = compute_columns(returns, facts_of(run, records), tally.executed, tally.closed)
        return Outcome(
            self.point.number,
            "done",
            figures=np.array(list(figures.values())),
            returns=self._periods.coarse(returns, records.first),
            fingerprint=seal(run.parameters),
        )

    def _condense(self) -> None:
        """Keep of the ledger's records what figures need, and let them go."""
        written = self._ledger.written
        self._tally.take(written)
        for name in ("orders", "fills", "trades"):
            written[name].clear()
