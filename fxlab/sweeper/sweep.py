"""The result of a sweep: a table, and what can be asked of it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from fxlab import html
from fxlab.backtester.execution import Execution
from fxlab.backtester.ladder import default_rungs
from fxlab.backtester.metric_table import METRICS
from fxlab.backtester.stability import neighbourhood_stability
from fxlab.backtester.strategy import Value
from fxlab.errors import InvalidParameter
from fxlab.sweeper import folds, overfit
from fxlab.sweeper.scores import check_goal, check_metric, sign
from fxlab.sweeper.table import build, column_of, count_words, rank
from fxlab.times import Duration

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab.sweeper.lane import Outcome
    from fxlab.sweeper.overfit import SweepOverfitting
    from fxlab.sweeper.space import Point, Space
    from fxlab.sweeper.studies import Study
    from fxlab.sweeper.walk import WalkForward


@dataclass(frozen=True, eq=False)
class Sweep:
    """What became of all points of a sweep, on all sessions.

    Attributes
    ----------
    metric : str
        The figure by which points are compared.
    total : int
        How many outcomes were asked for: points times sessions; fewer if it was cancelled.
    resumed : int
        How many of them were found in the store.
    sweep_ids : tuple of str
        Under which they are kept, one a session; empty without a lab.
    """

    space: Space
    metric: str
    total: int
    resumed: int
    sweep_ids: tuple[str, ...]
    studies: Sequence[Study] = field(repr=False)
    points: dict[int, Point] = field(repr=False)
    outcomes: Sequence[dict[int, Outcome]] = field(repr=False)
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
        combination that the strategy refuses), every figure of `fxlab.backtester.metrics.METRICS`
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
        return [column_of(axis.name) for axis in self.space.axes]

    @property
    def failed(self) -> pl.DataFrame:
        """Return what failed: ``point``, ``session``, the parameters, ``error``."""
        names = [column_of(name) for name in self.space.strategy.parameters]
        rows = self.table.filter(pl.col("state") == "failed")
        return rows.select("point", "session", *names, "error")

    def ranking(self, metric: str | None = None) -> pl.DataFrame:
        """Return one row a point, the best first; see `fxlab.sweeper.table.rank`."""
        goal = check_goal(metric or self.metric)
        return rank(self.table, self.space.strategy, goal, sign(goal))

    @property
    def best(self) -> dict[str, Value]:
        """Return the parameters of the best point, as `fxlab.backtest` takes them.

        Raises
        ------
        InvalidParameter
            If no point has the figure.
        """
        found = self.ranking()
        if found.is_empty():
            raise InvalidParameter(f"{self._no_best}: {self.counts}; see .table and .failed")
        return dict(self.points[found["point"][0]].values)

    def returns(self) -> tuple[list[int], np.ndarray]:
        """Return the points that are done on all sessions, and their returns (periods, points).

        Sessions stand one after the other; periods are those of `fxlab.sweeper.periods`.
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
        return overfit.judge(self, blocks, self.tried)

    def stability(self, metric: str | None = None) -> pl.DataFrame:
        """Return each point beside its neighbours on the grid, the steadiest rank first.

        Several sessions count by their mean; of a figure that costs, less is better, and it is
        negative here. Columns as in `fxlab.backtester.stability.neighbourhood_stability`.
        """
        goal = check_goal(metric or self.metric)
        if not self.varied:
            raise InvalidParameter(
                "a sweep of one point has no neighbours to be steady among; give a parameter "
                "several values, e.g. {'fast': [40, 50, 60]}"
            )
        ranked = self.ranking(goal).select("point", goal, "ruined")
        found = self.parameters.join(ranked, "point", how="left", maintain_order="left")
        signed = found.with_columns(pl.col(goal) * sign(goal))
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
        return folds.validate(self, count, purge=purge, embargo=embargo)

    def walk_forward(self, *, train: Duration, **options: Any) -> WalkForward:  # noqa: ANN401
        """Sweep the same grid over each of many trainings, and trade the best on what follows.

        Parameters
        ----------
        train
            Length of a training.
        **options
            `test`, `folds`, `mode`, `embargo` and all others of `fxlab.walk_forward`; what this
            sweep was asked for stands in for those that are not given.
        """
        from fxlab.sweeper.walking import walk_forward

        if len(self.studies) > 1:
            raise InvalidParameter(
                f"this sweep has {len(self.studies)} sessions; call fxlab.walk_forward for each"
            )
        return walk_forward(**self._settings(options), source=self.studies[0].source, train=train)

    def again(self, **changes: Any) -> Sweep:  # noqa: ANN401
        """Sweep the same grid over the same sessions with some options of `fxlab.sweep` changed."""
        from fxlab.sweeper.sweeping import sweep

        return sweep([study.source for study in self.studies], **self._settings(changes))

    def ladder(
        self, executions: Mapping[str, Execution] | None = None, metric: str | None = None
    ) -> pl.DataFrame:
        """Return each point's figure under other costs and latencies: where it breaks even.

        Parameters
        ----------
        executions
            Assumptions by name; unless given, those of `fxlab.backtester.ladder.default_rungs`.
        metric
            The figure; the mean over the sessions that have it.

        Returns
        -------
        polars.DataFrame
            ``point``, the parameters, and a column for each name.
        """
        goal = check_goal(metric or self.metric)
        rungs = default_rungs(self.studies[0].run.execution) if executions is None else executions
        found = self.parameters
        for name, execution in rungs.items():
            rung = self.again(execution=execution, check_lookahead=False).ranking(goal)
            column = rung.select("point", pl.col(goal).alias(name))
            found = found.join(column, on="point", how="left", maintain_order="left")
        return found

    def _settings(self, changes: Mapping[str, Any]) -> dict[str, Any]:
        """Return what was asked for, with changes, as `fxlab.sweep` takes it."""
        terms = self.studies[0].terms
        own = terms.options.keywords() | {"strategy": terms.strategy}
        del own["chunk_rows"]
        grid = {axis.name: axis.values for axis in self.space.axes} | self.space.fixed
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
            lower_is_better=sign(shown) < 0,
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
        over = " x ".join(f"{len(axis):,} {axis.name}" for axis in self.space.axes) or "one point"
        names = self.sessions
        where = names[0] if len(names) == 1 else f"{len(names)} sessions"
        return f"{self.strategy} over {over} ({self.asked['search']}) on {where}"

    @property
    def counts(self) -> str:
        """Return what became of the points, in words."""
        return count_words(self.table, self.total, self.resumed)

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
        lines += [f"first failure: {error}" for error in self.failed["error"].head(1)]
        return "\n".join(lines)

    def _repr_html_(self) -> str:
        caption = f"{self.title}: {self.counts}; best {html.heading(self.metric)} first"
        ranked, texts = self.ranking(), self.failed["error"].head(3).to_list()
        if ranked.is_empty():
            texts = [f"{self.title}: {self.counts}", self._no_best, *texts]
        errors = "".join(f"<p>{html.escape(text)}</p>" for text in texts)
        return (html.table(ranked, caption=caption, limit=10) if ranked.height else "") + errors
