"""Comparison of runs: metrics side by side after what differs in their inputs, and the cost ladder.

A comparison of two metrics means little before one knows what else differs: other fees, another
session, another hour. So the differences come first.

A cost ladder is one strategy replayed under scenarios of rising costs and latencies. It is decided
once and replayed under several assumptions side by side: the ticks are read and the signals
evaluated once for all scenarios that meet the same market. Each is the very run that `backtest`
would give, bit by bit.
"""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, Final, Unpack
from zlib import crc32

import polars as pl

from fxlab._html import heading, paragraphs, plain, show, table
from fxlab._progress import Advance, Progress, part, shown
from fxlab.backtester._feeds import Needs, needs_of
from fxlab.backtester._market_arrays import decisions_on
from fxlab.backtester._source import as_source, choose_symbols, with_instruments
from fxlab.backtester.engine import Job, prepare, with_execution
from fxlab.backtester.execution import DELAYS, Execution
from fxlab.backtester.metrics._performance import LESS_IS_BETTER, METRICS, NEITHER
from fxlab.backtester.options import Options, RunOptions, takes_run_options
from fxlab.backtester.report._summary import HEADLINE, show_metric
from fxlab.backtester.result import Result
from fxlab.backtester.strategy.strategy import Strategy, StrategyFunction, short
from fxlab.errors import InvalidParameter

if TYPE_CHECKING:
    import plotly.graph_objects as go

Saved = Mapping[str, Any]
"""A row of saved runs, as `listing` and `find` of `fxlab.sessions.runs` return it."""

BEST: Final = "★"
LABEL: Final = 48
"""Characters of a name that is made of what differs, at most."""

_NEEDED: Final = ("strategy", "parameters", "execution", "metrics", "data_session_id", "symbols")
_FIXED: Final = ("metric", "unit", "best", "kind", "name")


@dataclass(frozen=True, slots=True)
class Comparison:
    """Several runs side by side.

    Attributes
    ----------
    table : polars.DataFrame
        One row a metric: ``metric``, ``unit``, one column a run (nan where it has none), and
        ``best``, the name of the best run (null where all are equal, or none is better).
    differences : polars.DataFrame
        What differs in what made the runs: ``kind`` (strategy, parameter, execution, data),
        ``name``, and one column of text a run. Empty if they are the same run.
    equities : dict
        Equity by run, of those that carry one: saved rows do not.

    Examples
    --------
    >>> runs = [
    ...     fxlab.backtest(ticks, "sma_cross", {"fast": fast, "slow": 20}) for fast in (3, 5)
    ... ]
    >>> fxlab.compare_runs(runs).names
    ['fast=3', 'fast=5']
    """

    table: pl.DataFrame
    differences: pl.DataFrame
    equities: dict[str, pl.DataFrame] = field(repr=False)

    @property
    def names(self) -> list[str]:
        """Return the names of the runs, in their order."""
        return [name for name in self.table.columns if name not in _FIXED]

    def plot(self) -> go.Figure:
        """Return the figure of the equities, each rebased to one.

        Raises
        ------
        InvalidParameter
            If no run carries its equity.
        """
        from fxlab.charts import comparison_chart

        if not self.equities:
            raise InvalidParameter(
                "saved runs keep metrics and fills, but no equity; run them again, e.g. "
                "fxlab.compare_runs([lab.reproduce(run_id).result, ...])"
            )
        return comparison_chart(self.equities, "Equity, each run from one")

    def __repr__(self) -> str:
        """Show the main metrics and what differs."""
        main = self.table.filter(pl.col("metric").is_in(HEADLINE))
        same = "Nothing that made these runs differs."
        differ = same if self.differences.is_empty() else plain(self.differences, self.names)
        return f"{plain(main, self.names)}\n{differ}"

    def _repr_html_(self) -> str:
        shown = table(
            _marked(self),
            caption=f"{BEST} is the best run by a metric",
            right=self.names,
            literal=self.names,
        )
        if self.differences.is_empty():
            return f"<p>Nothing that made these runs differs.</p>{shown}"
        return table(self.differences, caption="What differs", literal=self.names) + shown


@dataclass(frozen=True, slots=True)
class _Side:
    """One run, whether it is a result or a saved row."""

    made_of: dict[tuple[str, str], str]
    metrics: Mapping[str, float | None]
    equity: pl.DataFrame | None


def compare_runs(
    runs: Iterable[Result | Saved] | Mapping[str, Result | Saved] | pl.DataFrame,
) -> Comparison:
    """Return several runs side by side.

    Parameters
    ----------
    runs
        Two or more: results of `fxlab.backtest`, rows of saved runs, or a frame of such rows
        (``lab.runs()``), in any mix. A mapping gives them names; otherwise each is called by what
        sets it apart.

    Returns
    -------
    Comparison
        Metrics with the best one marked, differences of what made the runs, and their equities.

    Raises
    ------
    InvalidParameter
        If there are fewer than two runs, or one is neither a result nor a saved row.

    Examples
    --------
    >>> runs = {
    ...     str(fast): fxlab.backtest(ticks, "sma_cross", {"fast": fast, "slow": 20})
    ...     for fast in (3, 5)
    ... }
    >>> fxlab.compare_runs(runs).differences["name"].to_list()
    ['fast']
    """
    given: Mapping[str, Result | Saved] | None = None
    if isinstance(runs, pl.DataFrame):
        sides = [_side(row) for row in runs.rows(named=True)]
    elif isinstance(runs, Mapping):
        given = runs
        sides = [_side(run) for run in runs.values()]
    else:
        sides = [_side(run) for run in ([runs] if isinstance(runs, Result) else runs)]
    if len(sides) < 2:
        raise InvalidParameter(
            f"compare_runs needs two or more runs, and got {len(sides)}; "
            "give results, or rows of lab.runs()"
        )
    differing = _differing(sides)
    names = _given_names(given) if given is not None else _made_names(sides, differing)
    equities = {name: side.equity for name, side in zip(names, sides, strict=True)}
    return Comparison(
        table=_metrics(names, sides),
        differences=_differences(names, sides, differing),
        equities={name: equity for name, equity in equities.items() if equity is not None},
    )


def _side(run: Result | Saved) -> _Side:
    if isinstance(run, Result):
        whole = {
            "strategy": run.strategy,
            "parameters": run.parameters,
            "execution": run.execution.as_dict(),
            "metrics": dict(run.metrics),
            "data_session_id": run.data_session_id,
            "symbols": list(run.symbols),
            "rows_read": run.ticks,
            "capital": run.capital,
            "options": run.run.options(),
        }
        return _side_of(whole, run.equity)
    if not isinstance(run, Mapping):
        raise InvalidParameter(
            f"{run!r:.80} is neither a result nor a saved run; give results of fxlab.backtest, "
            "or rows of lab.runs()"
        )
    missing = [name for name in _NEEDED if name not in run]
    if missing:
        raise InvalidParameter(
            f"a saved run without {', '.join(missing)} cannot be compared; "
            "give whole rows of lab.runs()"
        )
    return _side_of({name: _plain(value) for name, value in run.items()}, None)


def _plain(value: object) -> Any:  # noqa: ANN401 - whatever JSON holds
    """Return the value of a saved column, whose objects may still be JSON text."""
    if isinstance(value, str) and value[:1] in {"{", "["}:
        return json.loads(value)
    return value


def _side_of(whole: Mapping[str, Any], equity: pl.DataFrame | None) -> _Side:
    # Rows of another version spell their assumptions as it did; read and written, all are alike.
    terms = Execution.from_dict(whole["execution"]).as_dict()
    data = ("data_session_id", "symbols", "rows_read", "capital", "fxlab_version")
    made_of = {("strategy", "strategy"): _text(whole["strategy"])}
    for kind, values in (
        ("parameter", whole["parameters"]),
        ("execution", terms),
        ("data", {name: whole[name] for name in data if whole.get(name) is not None}),
        ("data", whole.get("options") or {}),
    ):
        made_of |= {(kind, name): _text(value) for name, value in values.items()}
    return _Side(made_of, whole["metrics"], equity)


def _text(value: object) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{name} {_text(item)}" for name, item in value.items())
    if isinstance(value, list | tuple) and len(value) > 6:
        return f"{len(value):,} values, checksum {crc32(json.dumps(value).encode()):08x}"
    return show(value)


def _differing(sides: list[_Side]) -> list[tuple[str, str]]:
    """Return (kind, name) of everything that is not the same in all runs; one may lack it."""
    every = dict.fromkeys(key for side in sides for key in side.made_of)
    found = [key for key in every if len({side.made_of.get(key) for side in sides}) > 1]
    version = ("data", "fxlab_version")  # a result of today does not carry one
    return [key for key in found if key != version or all(key in side.made_of for side in sides)]


def _given_names(given: Mapping[str, object]) -> list[str]:
    for name in given:
        if not isinstance(name, str) or name in _FIXED or not name:
            raise InvalidParameter(
                f"{name!r} cannot name a run; give text other than {', '.join(_FIXED)}"
            )
    return list(given)


def _made_names(sides: list[_Side], differing: list[tuple[str, str]]) -> list[str]:
    """Return a name a run, made of what sets it apart; equal ones are numbered."""
    names = []
    for side in sides:
        parts = [
            side.made_of.get(key, "") if key[0] == "strategy" else f"{key[1]}={side.made_of[key]}"
            for key in differing
            if key in side.made_of
        ]
        name = ", ".join(parts) or side.made_of["strategy", "strategy"]
        names.append(name if len(name) <= LABEL else f"{name[: LABEL - 1]}…")
    count = Counter(names)
    return [
        f"{name} #{number}" if count[name] > 1 or name in _FIXED else name
        for number, name in enumerate(names, start=1)
    ]


def _metrics(names: list[str], sides: list[_Side]) -> pl.DataFrame:
    values = {
        name: [_number(side.metrics.get(metric)) for metric in METRICS]
        for name, side in zip(names, sides, strict=True)
    }
    ruined = {
        name: math.isfinite(_number(side.metrics.get("ruined_after")))
        for name, side in zip(names, sides, strict=True)
    }
    best = [  # a ruined run is not better than one that still has money
        _best(metric, {name: column[row] for name, column in values.items() if not ruined[name]})
        for row, metric in enumerate(METRICS)
    ]
    return pl.DataFrame(
        {
            "metric": list(METRICS),
            "unit": [unit for unit, _ in METRICS.values()],
            **values,
            "best": pl.Series(best, dtype=pl.String),
        }
    )


def _number(value: float | None) -> float:
    return math.nan if value is None else float(value)


def _best(metric: str, values: Mapping[str, float]) -> str | None:
    """Return the name of the best run; None if there is no best, or several are."""
    known = {name: value for name, value in values.items() if not math.isnan(value)}
    if metric in NEITHER or len(known) < 2:
        return None
    ends = (min if metric in LESS_IS_BETTER else max)(known.values())
    winners = [name for name, value in known.items() if value == ends]
    return winners[0] if len(winners) == 1 else None


def _differences(
    names: list[str], sides: list[_Side], differing: list[tuple[str, str]]
) -> pl.DataFrame:
    whole: dict[str, list[str | None]] = {
        "kind": [kind for kind, _ in differing],
        "name": [name for _, name in differing],
    }
    for name, side in zip(names, sides, strict=True):
        whole[name] = [side.made_of.get(key) for key in differing]
    return pl.DataFrame(whole, schema=dict.fromkeys(whole, pl.String))


def _marked(comparison: Comparison) -> pl.DataFrame:
    """Return the metrics that some run has as text, the best one of each with a star."""
    shown = [
        {"metric": heading(row["metric"])}
        | {
            name: f"{BEST} " * (row["best"] == name) + show_metric(row[name], row["unit"])
            for name in comparison.names
        }
        for row in comparison.table.rows(named=True)
        if any(not math.isnan(row[name]) for name in comparison.names)
    ]
    return pl.DataFrame(shown, schema=dict.fromkeys(("metric", *comparison.names), pl.String))


SHOWN: Final = (
    *("total_return", "max_drawdown", "sharpe_per_period", "trades_count", "fees", "ruined_after"),
)


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
    data = as_source(source)
    names_of = choose_symbols(data, asked.symbols)
    scenarios = scenarios_of(executions, with_instruments(asked.execution, data, names_of)[0])
    results: dict[str, Result] = {}
    markets: dict[Needs, list[str]] = {}  # scenarios that read the same share one pass
    for name, execution in scenarios.items():
        markets.setdefault(needs_of([], execution), []).append(name)
    with shown(progress, "cost_ladder") as advance:
        for number, names in enumerate(markets.values()):
            first = scenarios[names[0]]
            job = prepare(data, strategy, parameters, replace(asked, execution=first))
            jobs = {name: with_execution(job, first, scenarios[name]) for name in names}
            _run(job, jobs, part(advance, number / len(markets), (number + 1) / len(markets)))
            results |= {name: each.finish() for name, each in jobs.items()}
    ordered = {name: results[name] for name in scenarios}
    return CostLadder(ordered, _table(ordered))


def scenarios_of(
    executions: Mapping[str, Execution] | None, execution: Execution
) -> dict[str, Execution]:
    """Return the scenarios that were asked for, or the default ones of an execution."""
    if executions is None:
        return default_scenarios(execution)
    one = "scenario, e.g. {'free': fxlab.Execution(taker_bps=0)}"
    if not isinstance(executions, Mapping):
        raise InvalidParameter(f"executions={short(executions)} has no names; give a {one}")
    if not executions:
        raise InvalidParameter(f"executions is empty; give at least one {one}")
    for name, given in executions.items():
        if not isinstance(given, Execution):
            raise InvalidParameter(
                f"executions: {short(name)} is {short(given)}, no Execution; give a {one}"
            )
    return dict(executions)


def default_scenarios(execution: Execution) -> dict[str, Execution]:
    """Return no, half, all and double costs, then longer and longer delays."""
    factors = {"no costs": 0.0, "half": 0.5, "as given": 1.0, "double": 2.0}
    scenarios = {words: execution.scaled(factor) for words, factor in factors.items()}
    return scenarios | {f"latency {delay}": replace(execution, latency=delay) for delay in DELAYS}


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
