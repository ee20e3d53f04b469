"""Run a saved backtest again and compare every bit."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from fxlab import catalogue, runs
from fxlab.backtester.engine import backtest
from fxlab.backtester.execution import Execution
from fxlab.progress import Advance, silent
from fxlab.questdb.client import QuestDB
from fxlab.sessions import Session
from fxlab.times import from_micros

if TYPE_CHECKING:
    from fxlab.backtester.result import Result


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A saved run beside the same run of today.

    Attributes
    ----------
    difference
        How today's figures or fills differ from the stored ones; empty if every bit is the same.
    same_fingerprint
        Whether ticks, strategy source, parameters and package versions are those of the run.
    """

    run_id: str
    result: Result
    difference: str
    same_fingerprint: bool

    def __str__(self) -> str:
        """Say it in one sentence."""
        made = "from the same ingredients" if self.same_fingerprint else "from other ingredients: "
        if not self.same_fingerprint:
            made += "ticks, strategy source, Python or package versions have changed"
        found = self.difference or "every figure and every fill is the same, bit by bit"
        return f"run {self.run_id} again, {made}; {found}"


def reproduce(db: QuestDB, run_id: str, progress: Advance = silent) -> Reproduction:
    """Run a saved backtest again on its session.

    Raises
    ------
    RunNotFound, SessionNotFound, StrategyNotFound
        If the run, its session or its strategy is not there.
    """
    stored = runs.find(db, run_id)
    session = Session.from_row(db, catalogue.find(db, stored["data_session_id"]))
    options = stored["options"]
    result = backtest(
        session,
        stored["strategy"],
        stored["parameters"],
        symbols=stored["symbols"],
        start=_moment(options["start_us"]),
        end=_moment(options["end_us"]),
        execution=Execution.from_dict(stored["execution"]),
        capital=stored["capital"],
        return_interval=timedelta(microseconds=options["grid_us"]),
        days_per_year=options["days_per_year"],
        progress=progress,
    )
    return Reproduction(
        run_id=run_id,
        result=result,
        difference=runs.difference(db, stored, result),
        same_fingerprint=result.fingerprint == stored["fingerprint"],
    )


def _moment(micros: int | None) -> Any:  # noqa: ANN401 - a datetime or None
    return None if micros is None else from_micros(micros)
