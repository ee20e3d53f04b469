"""The sweep as a recipe: check the grid, read once, replay all points, keep what is done."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final, Unpack

from fxlab.backtester.metric_table import METRICS
from fxlab.backtester.run_options import Options, RunOptions, takes_run_options
from fxlab.backtester.signals import Signals
from fxlab.backtester.strategy import Strategy, get
from fxlab.backtester.ticks import as_source
from fxlab.errors import Cancelled, InvalidParameter, SweepCancelled
from fxlab.progress import Advance, silent
from fxlab.questdb.client import QuestDB
from fxlab.sweeper import cluster, estimate, guard, processes, scores
from fxlab.sweeper.desk import Desk
from fxlab.sweeper.local import Executor, Threads, check_workers
from fxlab.sweeper.search import Search, choose
from fxlab.sweeper.space import Point, Space
from fxlab.sweeper.store import NoStore, Store, SweepStore
from fxlab.sweeper.studies import Study, Terms
from fxlab.sweeper.sweep import Sweep

if TYPE_CHECKING:
    from fxlab.lab import Lab

POINTS_LIMIT: Final = 100_000


@takes_run_options
def sweep(
    source: Any,  # noqa: ANN401 - sessions or frames; refused by name otherwise
    strategy: str | Strategy | Callable[..., Signals],
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
    progress: Advance = silent,
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
        The figure by which points are compared.
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
        Told the share done, the points stored and the time left; raise `Cancelled` in it to stop.
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
    """
    threads, goal = check_workers(workers), scores.check_goal(metric)
    space = Space.of(get(strategy), parameters)
    finder = choose(space, search, points, seed, points_limit=points_limit)
    terms = Terms(space.strategy, RunOptions.of(options))
    samples = space.samples()
    studies = _studies(source, terms, samples[0])
    if search == "grid":
        estimate.refuse_if_too_many(space, studies, threads, points_limit)
    if check_lookahead:
        words = f"0 of {finder.total * len(studies):,} points, checking for look-ahead"
        guard.check(studies[0], samples, lambda _share, _text: progress(0.0, words))
    asked = {"search": search, "points": points and int(points), "seed": int(seed)}
    plan = {**asked, "points": finder.total, "grid": space.as_dict(), "metric": goal}
    store = SweepStore(QuestDB(lab.endpoint)) if lab else NoStore()
    with closing(_executor(studies, threads, finder.total, scheduler)) as executor, closing(store):
        for study in studies:
            store.announce(study, plan)
        desk = Desk(studies, store, finder.total * len(studies), progress)
        run = _Run(space, asked, goal, studies, store, desk)
        run.go(finder, executor)
        return run.result()


@dataclass(frozen=True)
class _Run:
    """A sweep that has been checked and begins."""

    space: Space
    asked: dict[str, Any]
    metric: str
    studies: Sequence[Study]
    store: Store
    desk: Desk

    def go(self, finder: Search, executor: Executor) -> None:
        """Replay what the search proposes; whatever stops it, what is done is kept."""
        desk = self.desk
        try:
            for batch in finder.batches():
                for number, outcomes in executor.run(desk.open(batch), desk.report):
                    desk.take(number, outcomes)
                desk.flush()
                finder.tell({point.number: self._score(point.number) for point in batch})
            desk.finish()
        except (KeyboardInterrupt, Cancelled) as stop:
            desk.flush()
            raise SweepCancelled(self._stopped(), self.result()) from stop
        finally:
            desk.flush()

    def result(self) -> Sweep:
        """Return the sweep as far as it is done."""
        desk = self.desk
        name = self.space.strategy.name
        return Sweep(
            space=self.space,
            asked=self.asked,
            metric=self.metric,
            total=desk.total,
            resumed=desk.resumed,
            sweep_ids=tuple(study.key for study in self.studies) if self.store.keeps else (),
            studies=self.studies,
            points=desk.points,
            outcomes=desk.outcomes,
            tried=max(self.store.trials(name, study) for study in self.studies),
        )

    def _score(self, number: int) -> float:
        """Return a point's figure, the mean over the sessions, turned so that more is better.

        A point that was ruined in one of them has none.
        """
        place, ruin = (list(METRICS).index(name) for name in (self.metric, "ruined_after"))
        whole = [outcomes[number].figures for outcomes in self.desk.outcomes]
        if any(math.isfinite(value) for figures in whole for value in figures[ruin:][:1]):
            return math.nan
        found = [figures[place:][:1] for figures in whole]
        known = [float(value) for values in found for value in values if math.isfinite(value)]
        mean = math.fsum(known) / len(known) if known else math.nan
        return mean * scores.sign(self.metric)

    def _stopped(self) -> str:
        desk = self.desk
        how = (
            f"they are kept as {', '.join(study.key for study in self.studies)}, and the same "
            "call goes on from there"
            if self.store.keeps
            else "they are in this error's .sweep and nowhere else; with lab=... finished points "
            "are kept, and the same call goes on from there"
        )
        return f"the sweep was stopped after {desk.done:,} of {desk.total:,} points; {how}"


def _studies(source: object, terms: Terms, example: Point) -> list[Study]:
    """Return a study of each source, each session once."""
    sources = list(source) if isinstance(source, list | tuple) else [source]
    if not sources:
        raise InvalidParameter(
            "there is no session to sweep over; list sessions with lab.sessions() and pass "
            "[lab.session(session_id), ...]"
        )
    studies = [Study(as_source(one), terms, example) for one in sources]
    names = [study.session for study in studies] if len(studies) > 1 else []
    for name in names:
        if names.count(name) > 1:
            raise InvalidParameter(
                f"session {name!r} is given {names.count(name)} times; once is enough"
            )
    return studies


def _executor(studies: Sequence[Study], workers: int, points: int, scheduler: Any) -> Executor:  # noqa: ANN401
    if scheduler is not None:
        return cluster.Cluster(studies, scheduler)
    parcels = processes.worth(studies, points, workers)
    if parcels is None:
        return Threads(studies, workers)
    return processes.Processes(studies, parcels, workers)
