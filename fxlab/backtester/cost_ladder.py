"""Cost ladder: one strategy replayed under scenarios of rising costs and latencies.

A strategy is decided once and replayed under several assumptions side by side: the ticks are read
and the signals evaluated once for all scenarios that meet the same market. Each is the very run
that `backtest` would give, bit by bit.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Final, Unpack

import polars as pl

from fxlab._html import heading, paragraphs, plain, table
from fxlab._progress import Advance, Progress, part, shown
from fxlab.backtester._feeds import Needs, needs_of
from fxlab.backtester._market_arrays import decisions_on
from fxlab.backtester.engine import Job, new_state, prepare
from fxlab.backtester.execution import Execution
from fxlab.backtester.options import Options, RunOptions, takes_run_options
from fxlab.backtester.result import Result
from fxlab.backtester.strategy.strategy import Strategy, StrategyFunction
from fxlab.errors import InvalidParameter

if TYPE_CHECKING:
    import plotly.graph_objects as go

SHOWN: Final = (
    *("total_return", "max_drawdown", "sharpe_per_period", "trades_count", "fees", "ruined_after"),
)
DELAYS: Final = ("0s", "50ms", "250ms", "1s")


@dataclass(frozen=True, slots=True, repr=False)
class CostLadder:
    """The same signals under several assumptions.

    Attributes
    ----------
    results : dict
        The run of each scenario, by its name.
    table : polars.DataFrame
        One row a scenario: ``rung``, ``execution`` (in words), and the metrics of `SHOWN`.

    Examples
    --------
    >>> ladder = fxlab.cost_ladder(ticks, "sma_cross", {"fast": 5, "slow": 20})
    >>> ladder.table.columns[:3]
    ['rung', 'execution', 'total_return']
    """

    results: dict[str, Result]
    table: pl.DataFrame

    def plot(self) -> go.Figure:
        """Return the equity of every scenario, rebased to one."""
        from fxlab.charts import comparison_chart

        curves = {name: result.equity for name, result in self.results.items()}
        return comparison_chart(curves, "The same signals under other costs")

    def __repr__(self) -> str:
        """Show the metrics of each scenario, and why some are missing."""
        return "\n".join((plain(self.table), *self._missing()))

    def _repr_html_(self) -> str:
        shown = table(self.table, caption="The same signals under other costs")
        return shown + paragraphs(self._missing())

    def _missing(self) -> list[str]:
        """Return, for each metric that a scenario lacks, why."""
        notes = {
            (name, run.metrics.notes[name])
            for run in self.results.values()
            for name in SHOWN
            if math.isnan(run.metrics[name]) and name in run.metrics.notes
        }
        return [f"{heading(name)}: {note}" for name, note in sorted(notes)]


@takes_run_options
def cost_ladder(
    source: Any,  # noqa: ANN401 - a Session or a frame, as `backtest` takes them
    strategy: str | Strategy | StrategyFunction,
    parameters: Mapping[str, object] | None = None,
    *,
    executions: Mapping[str, Execution] | None = None,
    progress: Progress = None,
    **options: Unpack[Options],
) -> CostLadder:
    """Replay a strategy under several assumptions about its orders.

    Parameters
    ----------
    source, strategy, parameters
        As `backtest` takes them.
    executions
        Assumptions by name of the scenario; `default_scenarios` of `execution` unless given.
    symbols, start, end, execution, capital, return_interval, days_per_year, chunk_rows
        See `RunOptions`; `execution` is what the default scenarios start from.
    progress
        As `backtest` takes it.

    Raises
    ------
    InvalidParameter
        If there is no scenario; and whatever `backtest` raises.

    Examples
    --------
    >>> fxlab.cost_ladder(
    ...     ticks,
    ...     "sma_cross",
    ...     {"fast": 5, "slow": 20},
    ...     execution=fxlab.Execution(taker_bps=2),
    ... ).table.height
    8
    """
    asked = RunOptions.of(options)
    scenarios = default_scenarios(asked.execution) if executions is None else dict(executions)
    if not scenarios:
        raise InvalidParameter(
            "executions is empty; give at least one scenario, e.g. {'free': ...}"
        )
    results: dict[str, Result] = {}
    markets: dict[Needs, list[str]] = {}  # scenarios that read the same share one pass
    for name, execution in scenarios.items():
        markets.setdefault(needs_of([], execution), []).append(name)
    with shown(progress, "cost_ladder") as advance:
        for number, names in enumerate(markets.values()):
            job = prepare(
                source, strategy, parameters, replace(asked, execution=scenarios[names[0]])
            )
            jobs = {name: _with_execution(job, scenarios[name]) for name in names}
            _run(job, jobs, part(advance, number / len(markets), (number + 1) / len(markets)))
            results |= {name: each.finish() for name, each in jobs.items()}
    ordered = {name: results[name] for name in scenarios}
    return CostLadder(ordered, _table(ordered))


def default_scenarios(execution: Execution) -> dict[str, Execution]:
    """Return no, half, all and double costs, then longer and longer delays."""
    costs = ("taker_bps", "maker_bps", "slippage_bps", "impact_bps")
    scenarios = {}
    for words, factor in (("no costs", 0.0), ("half", 0.5), ("as given", 1.0), ("double", 2.0)):
        scaled = {
            name: value * factor
            for name in costs
            if (value := getattr(execution, name)) is not None
        }
        scenarios[words] = replace(execution, **scaled)
    return scenarios | {f"latency {delay}": replace(execution, latency=delay) for delay in DELAYS}


def _with_execution(job: Job, execution: Execution) -> Job:
    run = replace(job.run, execution=execution)
    return replace(job, run=run, state=new_state(run, job.signals, job.bounds))


def _run(job: Job, jobs: Mapping[str, Job], progress: Advance) -> None:
    most = min(each.run.execution.max_leverage for each in jobs.values())
    for market, chunks in job.market():
        decisions = decisions_on(chunks, job.signals, most)
        share, done = job.share(int(market.time[0])), next(iter(jobs.values())).state.rows
        for each in jobs.values():
            progress(share, f"{done:,} ticks")
            each.state.replay(market, decisions)
        done = next(iter(jobs.values())).state.rows
        progress(job.share(int(market.time[-1])), f"{done:,} ticks")


def _table(results: Mapping[str, Result]) -> pl.DataFrame:
    runs = results.values()
    metrics = {name: [run.metrics[name] for run in runs] for name in SHOWN}
    names: dict[str, list[str]] = {
        "rung": list(results),
        "execution": [str(run.execution) for run in runs],
    }
    return pl.DataFrame(names).hstack(pl.DataFrame(metrics))
