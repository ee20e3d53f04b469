"""Sweep panel: session, strategy, ranges, run time; heat map, best points, overfitting guards.

How long a grid takes is measured on the first ticks of the chosen session, and said before Run is
pressed. That, and judging a sweep, which takes a second, happen beside the kernel's own thread:
clicks must be heard meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import ipywidgets as w
import polars as pl
import traitlets as t

from fxlab import _html
from fxlab.backtester.metrics._performance import METRICS, NEITHER
from fxlab.backtester.options import RunOptions
from fxlab.backtester.strategy.strategy import get
from fxlab.errors import FxlabError, SweepCancelled
from fxlab.sweeper._cross_validation import verdict
from fxlab.sweeper._space import Space
from fxlab.sweeper._study import SweepConfig, SweepStudy, duration_words, seconds_a_point
from fxlab.sweeper._threads import check_workers
from fxlab.sweeper.sweep import sweep
from fxlab.widgets._backtest_panel import LaunchPanel
from fxlab.widgets._base import heading, label_above, run_aside
from fxlab.widgets._forms import ExecutionForm, GridForm

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab._progress import Advance
    from fxlab.lab import Lab
    from fxlab.sessions.session import Session
    from fxlab.sweeper.sweep import Sweep


RANKED: Final = 10
_STEADY: Final = ("neighbourhood_mean", "neighbourhood_min", "neighbours", "rank")


def _figure(found: Sweep) -> go.Figure | None:
    if found.ranking().is_empty():
        return None
    return found.heatmap() if len(found.varied) > 1 else found.parallel()


def _page(found: Sweep) -> str:
    """Return the best points, the steadiest ones, and how much of it is chance."""
    errors = "".join(f"<p>{_html.escape(text)}</p>" for text in found.failed["error"].head(3))
    best = found.ranking().head(RANKED)
    if best.is_empty():
        return f"<p>{_html.escape(found.counts)}</p>{errors}"
    digits = dict.fromkeys((found.metric, *_STEADY[:2]), 4)
    whole = best.drop("sessions", "worst", "best")
    caption = f"The best points by {_html.heading(found.metric)}"
    ranked = _html.table(whole, caption=caption, decimals=digits)
    judged = f"<p>{_html.escape(verdict(found))}</p>"
    return f"{judged}{ranked}{_steady(found, digits)}{errors}"


def _steady(found: Sweep, digits: dict[str, int]) -> str:
    if not found.varied:
        return ""
    names = [*found.varied, found.metric, *_STEADY]
    steady = found.stability().filter(pl.col("rank").is_not_null()).head(RANKED).select(names)
    shown = _html.table(
        steady, caption="A point beside its neighbours on the grid", decimals=digits
    )
    return f"<details><summary>The steadiest points</summary>{shown}</details>"


GOALS: Final = tuple(name for name in METRICS if name not in NEITHER)


@dataclass(frozen=True)
class _Asked:
    """What is chosen now."""

    session: Session
    strategy: str
    parameters: dict[str, Any]
    options: RunOptions

    @property
    def rate_key(self) -> tuple[object, ...]:
        """Return what the time of a point depends on, beside its parameters."""
        execution, symbols = self.options.execution, tuple(self.options.symbols)
        return self.session.id, symbols, self.strategy, execution.fill, execution.queue

    def measure(self) -> float:
        """Return about how many seconds a point takes on one core."""
        chosen = get(self.strategy)
        example = Space.of(chosen, self.parameters).samples()[0]
        config = SweepConfig(chosen, self.options, chosen.source)
        return seconds_a_point(SweepStudy(self.session, config, example))


class SweepPanel(LaunchPanel):
    """Session, strategy and ranges on top; Run; heat map, best points and guards below.

    Parameters
    ----------
    lab
        Where the sessions are and points are kept.
    session_id, strategy
        What is chosen at first: the newest session and ``"sma_cross"`` unless given.

    Attributes
    ----------
    sweep : Sweep or None
        The last one that ended; observable. A cancelled one holds the points that were done.
    """

    sweep = t.Any(None, allow_none=True)

    def __init__(
        self, lab: Lab, *, session_id: str | None = None, strategy: str = "sma_cross"
    ) -> None:
        super().__init__(lab, session_id)
        self._lab = lab
        self._rates: dict[tuple[object, ...], float] = {}
        self._measuring: tuple[object, ...] | None = None
        self.grid, self.execution = GridForm(strategy), ExecutionForm(self.picker)
        self.metric = w.Dropdown(
            options=[(_html.heading(name), name) for name in GOALS],
            value="sharpe_per_period",
            description="Compare by",
        )
        self.keep = w.Checkbox(
            description="Keep every point in the database", value=True, indent=False
        )
        self.estimate = self.note
        label_above(self.metric, "the figure that makes a point the best", 17)
        how = w.HBox([self.metric, self.keep], layout={"align_items": "flex-end"})
        costs = (heading("Costs and capital"), self.execution)
        rows = [heading("Grid"), self.grid, *costs, how, *self._below]
        self._lay_out(rows, *self.execution.controls)
        self.grid.observe(lambda _: self._tell(), "changes")
        self._tell()

    def __repr__(self) -> str:
        """Show what is chosen and the last sweep."""
        return f"<SweepPanel>\n{self.picker!r}\n{self.grid!r}\n{self.sweep!r}"

    # ---- before Run ----------------------------------------------------------------------

    def _tell(self) -> None:
        """Say how many points there are, and about how long they take."""
        count = self.grid.count
        words = f"{count:,} point{'s' * (count != 1)}"
        try:
            asked = self._asked()
        except FxlabError as error:
            self.estimate.fail(error)
            return
        rate = self._rates.get(asked.rate_key)
        if rate is not None:
            workers = check_workers(None)
            words += f", about {duration_words(rate * count / workers)} on {workers} cores"
        self.estimate.say("; ".join(filter(None, (words, self.picker.hidden))))
        if rate is None and not self.run.disabled:
            self._measure(asked)

    def _measure(self, asked: _Asked) -> None:
        """Find out how long a point takes; only what was asked for last is shown."""
        if self._measuring == asked.rate_key:
            return
        self._measuring = asked.rate_key

        def done(outcome: Callable[[], float]) -> None:
            try:
                self._rates[asked.rate_key] = outcome()
            except FxlabError as error:  # Run would say the same
                self.estimate.fail(error)
                return
            finally:
                if self._measuring == asked.rate_key:
                    self._measuring = None
            self._tell()

        run_aside(asked.measure, done)

    def _asked(self) -> _Asked:
        session, symbols = self.picker.chosen
        strategy, parameters = self.grid.strategy, self.grid.parameters
        options = RunOptions(
            symbols=symbols, execution=self.execution.value, capital=self.execution.capital
        )
        return _Asked(session, strategy, parameters, options)

    # ---- Run -----------------------------------------------------------------------------

    def _work(self) -> Callable[[Advance], tuple[Any, ...]]:
        asked, metric = self._asked(), self.metric.value
        lab = self._lab if self.keep.value else None

        def work(progress: Advance) -> tuple[Any, ...]:
            began, stopped = time.perf_counter(), ""
            try:
                found: Any = sweep(
                    asked.session,
                    asked.strategy,
                    asked.parameters,
                    metric=metric,
                    lab=lab,
                    progress=progress,
                    **asked.options.keywords(),
                )
            except SweepCancelled as stop:
                found, stopped = stop.sweep, str(stop)
            took = duration_words(time.perf_counter() - began)
            return found, stopped, took, _figure(found), _page(found)

        return work

    def _show(self, outcome: tuple[Any, ...]) -> None:
        found, stopped, took, figure, page = outcome
        self.progress.finish(f"{found.counts} in {took}", failed=bool(stopped))
        self.message.say(stopped)
        self.plot.show(figure, found.title)
        self.figures.value = page
        self.sweep = found
