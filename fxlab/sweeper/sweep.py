"""Parameter sweep: check the grid, read once, replay all points, store what is done; its result."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any, Final, Unpack

import numpy as np
import polars as pl

from fxlab import _html
from fxlab._progress import Progress, shown
from fxlab._times import Duration
from fxlab.backtester.engine import backtest
from fxlab.backtester.execution import DELAYS, Execution
from fxlab.backtester.metrics._performance import METRICS
from fxlab.backtester.metrics._validation import neighbourhood_stability
from fxlab.backtester.options import Options, RunOptions, takes_run_options
from fxlab.backtester.strategy.strategy import Strategy, StrategyFunction, Value, get
from fxlab.errors import Cancelled, InvalidParameter, RunConflict, SweepCancelled
from fxlab.schema import unsaid_currencies
from fxlab.sweeper import _cross_validation, _results
from fxlab.sweeper._executors import TrialExecutor, executor_for
from fxlab.sweeper._results import (
    build,
    check_metric,
    check_objective,
    column_of,
    direction,
    rank,
)
from fxlab.sweeper._space import Point, Search, Space, choose
from fxlab.sweeper._store import TrialStore, TrialTracker, store_of
from fxlab.sweeper._study import (
    SweepConfig,
    SweepStudy,
    check_sampled_lookahead,
    refuse_if_too_many,
    studies_of,
)
from fxlab.sweeper._threads import check_workers
from fxlab.sweeper._trial import count_words, not_done, place_of

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab.backtester.result import Result
    from fxlab.lab import Lab
    from fxlab.sweeper._cross_validation import SweepOverfitting
    from fxlab.sweeper._trial import TrialResult
    from fxlab.sweeper.walk_forward import WalkForward


@dataclass(frozen=True, eq=False)
class Sweep:
    """What became of all points of a sweep, on all sessions.

    Attributes
    ----------
    metric : str
        The metric by which points are compared.
    total : int
        How many outcomes were asked for: points times sessions; fewer if it was cancelled.
    resumed : int
        How many of them were found in the store.
    sweep_ids : tuple of str
        Under which they are kept, one a session; empty without a lab.

    Examples
    --------
    >>> sweep = fxlab.sweep(ticks, "sma_cross", {"fast": [3, 5], "slow": [20, 30]})
    >>> sweep.table.height, sweep.metric
    (4, 'sharpe_per_period')
    """

    space: Space
    metric: str
    total: int
    resumed: int
    sweep_ids: tuple[str, ...]
    studies: Sequence[SweepStudy] = field(repr=False)
    points: dict[int, Point] = field(repr=False)
    outcomes: Sequence[dict[int, TrialResult]] = field(repr=False)
    asked: Mapping[str, Any] = field(default_factory=dict, repr=False)
    """How points were searched: `search`, `points` and `seed`, as `fxlab.sweep` takes them."""

    tried: int = 0
    """Different points of this strategy on these sessions that are kept, of all sweeps."""

    @property
    def strategy(self) -> str:
        """Return the strategy's name."""
        return self.space.strategy.name

    @property
    def sessions(self) -> tuple[str, ...]:
        """Return the ids of the sessions; a frame has one made of its content."""
        return tuple(study.session for study in self.studies)

    @cached_property
    def table(self) -> pl.DataFrame:
        """Return one row a point and session.

        ``point`` (its number), ``session``, the parameters, ``state`` (done, failed, skipped: a
        combination that the strategy refuses), every metric of a backtest
        (null where there is none), ``error``, ``fingerprint`` (that of `fxlab.backtest` with the
        same parameters).
        """
        return build(self.space.strategy, self.sessions, self.points, self.outcomes)

    @property
    def parameters(self) -> pl.DataFrame:
        """Return the parameters of each point, one row a point."""
        names = [column_of(name) for name in self.space.strategy.parameters]
        return self.table.select("point", *names).unique("point", maintain_order=True)

    @property
    def varied(self) -> list[str]:
        """Return the columns of the parameters that have more than one value."""
        return [*map(column_of, self.space.axes)]

    @property
    def failed(self) -> pl.DataFrame:
        """Return what failed: ``point``, ``session``, the parameters, ``error``."""
        names = [column_of(name) for name in self.space.strategy.parameters]
        rows = self.table.filter(pl.col("state") == "failed")
        return rows.select("point", "session", *names, "error")

    def ranking(self, metric: str | None = None) -> pl.DataFrame:
        """Return one row a point, the best first; see `fxlab.sweeper._results.rank`."""
        goal = check_objective(metric or self.metric)
        return rank(self.table, self.space.strategy, goal, direction(goal))

    @property
    def best(self) -> dict[str, Value]:
        """Return the parameters of the best point, as `fxlab.backtest` takes them.

        Raises
        ------
        InvalidParameter
            If no point has the metric.
        """
        found = self.ranking()
        if found.is_empty():
            raise InvalidParameter(f"{self._no_best}: {self.counts}; see .table and .failed")
        return dict(self.points[found["point"][0]].values)

    def result(
        self,
        point: int | Mapping[str, object],
        session: str | None = None,
        *,
        progress: Progress = None,
    ) -> Result:
        """Backtest one point again; the sweep itself keeps no fills, trades or equity.

        Parameters
        ----------
        point
            Its number, a row of `table` or of `ranking()` by column, or parameters by name, of
            which those that do not vary may be left out.
        session
            Which one, where the sweep has several and the row names none.
        progress
            As `fxlab.backtest` takes it.

        Returns
        -------
        Result
            With the metrics and the fingerprint of the point's row in `table`.

        Raises
        ------
        InvalidParameter
            If that is not one point of one session, or it is not done: then with its error.
        RunConflict
            If the ticks are no longer those of the sweep.

        Notes
        -----
        What `fxlab.Lab.sweep` finds has no ticks at hand: make the sweep's call again with the
        same ``lab=``; it repeats no point that is kept.

        Examples
        --------
        >>> sweep = fxlab.sweep(ticks, "sma_cross", {"fast": [3, 5], "slow": [20, 30]})
        >>> sweep.result({"fast": 5, "slow": 20}).parameters
        {'fast': 5, 'slow': 20, 'allow_short': False}
        """
        meant, named = self.space.find(self.points, point)
        place = place_of(self.sessions, session or named)
        study, outcome = self.studies[place], self.outcomes[place].get(meant.number)
        if outcome is None or outcome.state != "done":
            raise InvalidParameter(not_done(meant, outcome))
        found = backtest(
            study.source,
            study.run.strategy,
            meant.values,
            progress=progress,
            **study.terms.options.keywords(),
        )
        if found.fingerprint != outcome.fingerprint:
            raise RunConflict(
                f"the backtest of {meant.words} on {study.session} is not that of the sweep: its "
                "ticks have changed since; sweep them as they are now with sweep.again()"
            )
        return found

    def returns(self) -> tuple[list[int], np.ndarray]:
        """Return the points that are done on all sessions, and their returns (periods, points).

        Sessions stand one after the other; periods are those of `fxlab.sweeper._trial`.
        """
        done = [
            number
            for number in sorted(self.points)
            if all(number in found and found[number].state == "done" for found in self.outcomes)
        ]
        columns = [
            np.concatenate([found[number].returns for found in self.outcomes]) for number in done
        ]
        return done, np.column_stack(columns) if columns else np.empty((0, 0))

    def overfitting(self, blocks: int = 16) -> SweepOverfitting:
        """Return how much of the best point is chance; see `SweepOverfitting`.

        Parameters
        ----------
        blocks
            Parts that time is cut into, even: 16 give 12,870 ways to halve it.
        """
        if blocks not in self._judged:  # a night asks for its page, its rows and its table
            self._judged[blocks] = _cross_validation.assess_overfitting(self, blocks, self.tried)
        return self._judged[blocks]

    @cached_property
    def _judged(self) -> dict[int, SweepOverfitting]:
        return {}

    def stability(self, metric: str | None = None) -> pl.DataFrame:
        """Return each point beside its neighbours on the grid, the steadiest rank first.

        Several sessions count by their mean; of a metric that costs, less is better, and it is
        negative here. Columns as in `fxlab.backtester.metrics._validation.neighbourhood_stability`.
        """
        goal = check_objective(metric or self.metric)
        if not self.varied:
            raise InvalidParameter(
                "a sweep of one point has no neighbours to be steady among; give a parameter "
                "several values, e.g. {'fast': [40, 50, 60]}"
            )
        ranked = self.ranking(goal).select("point", goal, "ruined")
        found = self.parameters.join(ranked, "point", how="left", maintain_order="left")
        signed = found.with_columns(pl.col(goal) * direction(goal))
        ruined = found["ruined"].fill_null(0) > 0
        judged = neighbourhood_stability(signed, self.varied, goal, ruined=ruined)
        return judged.sort("rank", nulls_last=True, maintain_order=True)

    def cross_validate(
        self,
        count: int = 5,
        *,
        purge: Duration = 0,
        embargo: Duration = 0,
    ) -> pl.DataFrame:
        """Choose on most of the time and test on the rest, fold by fold; see `folds.validate`."""
        return _cross_validation.cross_validate(self, count, purge=purge, embargo=embargo)

    def walk_forward(
        self,
        *,
        train: Duration,
        session: str | None = None,
        **options: Any,  # noqa: ANN401
    ) -> WalkForward:
        """Sweep the same grid over each of many trainings, and trade the best on what follows.

        Parameters
        ----------
        train
            Length of a training.
        session
            Which one, where the sweep has several.
        **options
            `test`, `folds`, `mode`, `embargo` and all others of `fxlab.walk_forward`; what this
            sweep was asked for stands in for those that are not given.
        """
        from fxlab.sweeper.walk_forward import walk_forward

        study = self.studies[place_of(self.sessions, session)]
        return walk_forward(**self._settings(options), source=study.source, train=train)

    def again(self, **changes: Any) -> Sweep:  # noqa: ANN401
        """Sweep the same grid over the same sessions with some options of `fxlab.sweep` changed."""
        return sweep([study.source for study in self.studies], **self._settings(changes))

    def ladder(
        self, executions: Mapping[str, Execution] | None = None, metric: str | None = None
    ) -> pl.DataFrame:
        """Return each point's metric under other costs and latencies: where it breaks even.

        Parameters
        ----------
        executions
            Assumptions by name; unless given, those of `fxlab.cost_ladder`.
        metric
            The metric; the mean over the sessions that have it.

        Returns
        -------
        polars.DataFrame
            ``point``, the parameters, and a column for each name.
        """
        return _cross_validation.ladder(self, executions, metric)

    def break_even(self, delays: Sequence[Duration] = DELAYS) -> pl.DataFrame:
        """Return the fee and the latency at which each point earns nothing.

        Parameters
        ----------
        delays
            Fixed latencies, rising: each point is replayed under all of them in one pass.

        Returns
        -------
        polars.DataFrame
            ``point``, the parameters, ``break_even_bps`` (the metric), the total return at each
            latency, ``break_even_latency`` (seconds) and a ``note`` why there is none; values are
            the mean over the sessions. See `fxlab.sweeper._cross_validation.break_even_latency`.

        Examples
        --------
        >>> sweep = fxlab.sweep(ticks, "sma_cross", {"fast": [3, 5], "slow": [20, 30]})
        >>> sweep.break_even(["0s", "1s"])["note"].to_list()[0]
        'earns nothing at 0 s'
        """
        return _cross_validation.break_even(self, delays)

    def _settings(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was asked for, with changes, as `fxlab.sweep` takes it."""
        terms = self.studies[0].terms
        own = terms.options.keywords() | {"strategy": terms.strategy}
        del own["chunk_rows"]
        grid = self.space.axes | self.space.fixed
        return own | {"parameters": grid, "metric": self.metric, **self.asked, **changes}

    def heatmap(
        self, x: str | None = None, y: str | None = None, metric: str | None = None
    ) -> go.Figure:
        """Return a figure over two parameters; the first two that vary, unless named."""
        from fxlab.charts import heatmap_chart

        shown = check_metric(metric or self.metric)
        names = [column_of(name) for name in (x, y) if name]
        rest = [name for name in self.varied if name not in names]
        if len(names) + len(rest) < 2:
            raise InvalidParameter(
                f"a heat map needs two parameters that vary; here vary: "
                f"{', '.join(self.varied) or 'none'}; see .table or .parallel()"
            )
        across = column_of(x) if x else rest.pop(0)
        up = column_of(y) if y else next(name for name in rest if name != across)
        return heatmap_chart(
            self.table,
            across,
            up,
            shown,
            self.title,
            unit=METRICS[shown][0],
            lower_is_better=direction(shown) < 0,
        )

    def parallel(self, metric: str | None = None) -> go.Figure:
        """Return a figure with a line for each point through all parameters that vary."""
        from fxlab.charts import parallel_chart

        shown = check_metric(metric or self.metric)
        names = self.varied or [column_of(name) for name in self.space.strategy.parameters]
        return parallel_chart(self.table, names, shown, self.title, unit=METRICS[shown][0])

    @property
    def _no_best(self) -> str:
        if not any(one.state == "done" for found in self.outcomes for one in found.values()):
            return "no point is done; .failed says why"
        return (
            f"no point has a {self.metric} (fxlab.backtest of one says why, in .metrics.notes); "
            "another metric= may have values"
        )

    @property
    def title(self) -> str:
        """Return one line that names the sweep."""
        over = self.space.words or "one point"
        names = self.sessions
        where = names[0] if len(names) == 1 else f"{len(names)} sessions"
        return f"{self.strategy} over {over} ({self.asked['search']}) on {where}"

    @property
    def counts(self) -> str:
        """Return what became of the points, in words."""
        return count_words(self.table, self.total, self.resumed)

    @property
    def _unsaid(self) -> list[str]:
        said = (unsaid_currencies(study.run.symbols) for study in self.studies)
        return list(dict.fromkeys(filter(None, said)))

    def __repr__(self) -> str:
        """Show what was swept and the best point."""
        lines = [f"<Sweep {self.title}>", self.counts]
        top = self.ranking().head(1)
        for row in top.iter_rows(named=True):
            values = ", ".join(f"{n}={v}" for n, v in self.points[row["point"]].values.items())
            lines.append(f"best {self.metric}={row[self.metric]:,.6g} at {values}")
            if row["ruined"]:
                lines.append(
                    "no point was left with money on all sessions: this one was ruined too"
                )
        if top.is_empty():
            lines.append(self._no_best)
        lines += [*self._unsaid, *(f"first failure: {why}" for why in self.failed["error"].head(1))]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        caption = f"{self.title}: {self.counts}; best {_html.heading(self.metric)} first"
        ranked, texts = self.ranking(), [*self._unsaid, *self.failed["error"].head(3)]
        if ranked.is_empty():
            texts = [f"{self.title}: {self.counts}", self._no_best, *texts]
        shown = _html.table(ranked, caption=caption, limit=10) if ranked.height else ""
        return shown + _html.paragraphs(texts)


POINTS_LIMIT: Final = 100_000


@takes_run_options
def sweep(
    source: Any,  # noqa: ANN401 - sessions or frames; refused by name otherwise
    strategy: str | Strategy | StrategyFunction,
    parameters: Mapping[str, object],
    *,
    search: str = "grid",
    points: int | None = None,
    seed: int = 0,
    metric: str = "sharpe_per_period",
    workers: int | None = None,
    scheduler: Any = None,  # noqa: ANN401 - an address or a distributed.Client
    lab: Lab | None = None,
    points_limit: int = POINTS_LIMIT,
    check_lookahead: bool = True,
    progress: Progress = None,
    **options: Unpack[Options],
) -> Sweep:
    """Try many parameters of a strategy on the same ticks.

    Parameters
    ----------
    source
        A session or a frame of ticks, or several of them.
    strategy
        A strategy's name, ``module:function`` or the function.
    parameters
        The grid: name to a list, range or array of values, or to one value. What is not named
        has its default.
    search, points, seed
        ``"grid"`` tries every combination; ``"random"`` so many different ones that the strategy
        takes; ``"optuna"`` (extra ``fxlab[optuna]``) lets an estimator choose that many.
    metric
        The metric by which points are compared.
    workers
        Threads; as many as there are cores unless given. Neither these nor `chunk_rows` nor the
        executor change a bit of the table.
    scheduler
        Address of a Dask scheduler (extra ``fxlab[cluster]``), or a ``distributed.Client``.
    lab
        Keep every point in its database as it finishes, and repeat none that is there: the same
        call again goes on where a stopped or killed one ended.
    points_limit
        A larger grid is refused, with the time it would take.
    check_lookahead
        First make sure, at a sample of points, that the strategy does not see the future.
    progress
        As `fxlab.backtest` takes it; it hears of the points stored and the time left.
    symbols, start, end, execution, capital, return_interval, days_per_year, chunk_rows
        As `fxlab.backtest` takes them; `chunk_rows` are the rows of a symbol that all points work
        on before the next ones are read.

    Returns
    -------
    Sweep
        A table of all points, pictures, and guards against overfitting.

    Raises
    ------
    InvalidParameter, StrategyNotFound, SymbolNotFound, InvalidTimeRange
        Before anything is replayed, naming the value, the rule and the next step.
    LookaheadFound
        If the strategy depends on later ticks.
    Cancelled
        If it was interrupted; once the first point has begun it is a `SweepCancelled`, whose
        ``sweep`` is what was done until then.

    Examples
    --------
    >>> sweep = fxlab.sweep(
    ...     ticks,
    ...     "sma_cross",
    ...     {"fast": range(3, 9, 2), "slow": [20, 30]},
    ...     metric="total_return",
    ... )
    >>> sweep.ranking().height
    6
    """
    threads, goal = check_workers(workers), _results.check_objective(metric)
    space = Space.of(get(strategy), parameters)
    finder = choose(space, search, points, seed, points_limit=points_limit)
    terms = SweepConfig(space.strategy, RunOptions.of(options), space.strategy.source)
    samples = space.samples()
    studies = studies_of(source, terms, samples[0])
    if search == "grid":
        refuse_if_too_many(space, studies, threads, points_limit)
    with shown(progress, "sweep") as advance:
        if check_lookahead:
            words = f"0 of {finder.total * len(studies):,} points, checking for look-ahead"
            check_sampled_lookahead(studies[0], samples, lambda _share, _text: advance(0.0, words))
        asked = {"search": search, "points": points and int(points), "seed": int(seed)}
        plan = {**asked, "points": finder.total, "grid": space.as_dict(), "metric": goal}
        store = store_of(lab)
        executor = executor_for(studies, threads, finder.total, scheduler)
        with closing(executor), closing(store):
            for study in studies:
                store.announce(study, plan)
            tracker = TrialTracker(studies, store, finder.total * len(studies), advance)
            run = _Run(space, asked, goal, studies, store, tracker)
            run.go(finder, executor)
            return run.result()


@dataclass(frozen=True)
class _Run:
    """A sweep that has been checked and begins."""

    space: Space
    asked: dict[str, Any]
    metric: str
    studies: Sequence[SweepStudy]
    store: TrialStore
    tracker: TrialTracker

    def go(self, finder: Search, executor: TrialExecutor) -> None:
        """Replay what the search proposes; whatever stops it, what is done is kept."""
        tracker = self.tracker
        try:
            for batch in finder.batches():
                for number, outcomes in executor.run(tracker.open(batch), tracker.report):
                    tracker.take(number, outcomes)
                tracker.flush()
                finder.tell({point.number: self._score(point.number) for point in batch})
            tracker.finish()
        except (KeyboardInterrupt, Cancelled) as stop:
            tracker.flush()
            raise SweepCancelled(self._stopped(), self.result()) from stop
        finally:
            tracker.flush()

    def result(self) -> Sweep:
        """Return the sweep as far as it is done."""
        tracker = self.tracker
        name = self.space.strategy.name
        return Sweep(
            space=self.space,
            asked=self.asked,
            metric=self.metric,
            total=tracker.total,
            resumed=tracker.resumed,
            sweep_ids=tuple(study.key for study in self.studies) if self.store.keeps else (),
            studies=self.studies,
            points=tracker.points,
            outcomes=tracker.outcomes,
            tried=max(self.store.trials(name, study) for study in self.studies),
        )

    def _score(self, number: int) -> float:
        """Return a point's metric, the mean over the sessions, turned so that more is better.

        A point that was ruined in one of them has none.
        """
        place, ruin = (list(METRICS).index(name) for name in (self.metric, "ruined_after"))
        whole = [outcomes[number].metrics for outcomes in self.tracker.outcomes]
        if any(math.isfinite(value) for metrics in whole for value in metrics[ruin:][:1]):
            return math.nan
        found = [metrics[place:][:1] for metrics in whole]
        known = [float(value) for values in found for value in values if math.isfinite(value)]
        mean = math.fsum(known) / len(known) if known else math.nan
        return mean * _results.direction(self.metric)

    def _stopped(self) -> str:
        tracker = self.tracker
        how = (
            f"they are kept as {', '.join(study.key for study in self.studies)}, and the same "
            "call goes on from there"
            if self.store.keeps
            else "they are in this error's .sweep and nowhere else; with lab=... finished points "
            "are kept, and the same call goes on from there"
        )
        return f"the sweep was stopped after {tracker.done:,} of {tracker.total:,} points; {how}"
