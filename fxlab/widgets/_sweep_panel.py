"""Sweep panel: session, strategy, ranges, run time; heat map, tear sheet of a point, guards.

How long a grid takes is measured on the first ticks of the chosen session, and said before Run is
pressed. That, judging a sweep, which takes a second, and the backtest of a point that was clicked
happen beside the kernel's own thread: clicks must be heard meanwhile.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import ipywidgets as w
import polars as pl
import traitlets as t

from fxlab import _html
from fxlab.backtester.metrics._performance import METRICS, NEITHER
from fxlab.backtester.options import RunOptions
from fxlab.backtester.strategy.strategy import get
from fxlab.charts._sweeps import rows_of_cell
from fxlab.errors import Cancelled, FxlabError, SweepCancelled
from fxlab.sweeper._cross_validation import verdict
from fxlab.sweeper._results import column_of
from fxlab.sweeper._space import Space
from fxlab.sweeper._study import SweepConfig, SweepStudy, duration_words, seconds_a_point
from fxlab.sweeper._threads import check_workers
from fxlab.sweeper.sweep import sweep
from fxlab.widgets._backtest_panel import LaunchPanel, result_facts
from fxlab.widgets._base import (
    Message,
    ProgressBar,
    heading,
    heading_html,
    in_line,
    label_above,
    run_aside,
    soft,
    unless_cancelled,
)
from fxlab.widgets._figures import FigureEvents, FigureOutput, ZoomSampler
from fxlab.widgets._forms import ExecutionForm, GridForm

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab._progress import Advance
    from fxlab.backtester.result import Result
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


LISTED: Final = 300
"""Points of a sweep that the list has at most; a saved notebook keeps them all."""


class PointSheet(w.VBox):
    """Point of a sweep, chosen in a list or by a click on the heat map, and its tear sheet.

    Attributes
    ----------
    result : Result or None
        The backtest whose tear sheet is shown; observable.
    """

    result = t.Any(None, allow_none=True)

    def __init__(self) -> None:
        self._sweep: Sweep | None = None
        self._order: list[int] = []
        self._listed: list[tuple[str, int]] = []
        self._asked = 0  # only the answer to what was asked last is shown
        self.help = w.HTML()
        self.choice = w.Dropdown(description="Point", layout={"width": "34rem"})
        self.backtest = w.Button(description="Tear sheet", tooltip="Backtest the point and show it")
        self.progress, self.message = ProgressBar(), Message()
        self.facts, self.plot, self.figures = w.HTML(), FigureOutput(), w.HTML()
        self.figures.add_class("fxlab-scrolled")
        self.zoom = ZoomSampler(self.plot, self.message)
        self.backtest.on_click(lambda _: self._open())
        chooser = in_line([self.choice, self.backtest, self.progress])
        shown = (self.message, self.facts, self.plot, self.zoom, self.figures)
        super().__init__([self.help, chooser, *shown])
        self.show(None)

    def show(self, sweep: Sweep | None) -> None:
        """List the points of another sweep; what was shown of the one before goes."""
        self._drop()
        self._clear()
        self._sweep, self._order = sweep, []
        if sweep is not None:
            ranked = sweep.ranking()["point"].to_list()
            self._order = _best_first(sweep, ranked)
            self._listed = _labelled(sweep, self._order[:LISTED])
            self.choice.options = self._listed
            self.choice.value = next(iter(self._order), None)  # another list chooses nothing
            clicked = len(sweep.varied) > 1 and bool(ranked)
            self.help.value = soft(_help(len(self._order), clicked=clicked))
        self.layout.display = None if self._order else "none"

    def click(self, where: dict[str, Any]) -> None:
        """Open the best point of the cell of the heat map with these labels, ``x`` and ``y``."""
        sweep = self._sweep
        if sweep is None or len(sweep.varied) < 2:
            return
        x, y = sweep.varied[:2]
        held = rows_of_cell(sweep.table, x, y, where["x"], where["y"])["point"].to_list()
        if not held:  # the figure is that of a sweep before
            self._drop()
            self.message.say("no point of this sweep is in that cell; choose one from the list")
            return
        best = next(number for number in self._order if number in held)
        beyond = [] if best in self._order[:LISTED] else _labelled(sweep, [best])
        self.choice.options = [*self._listed, *beyond]
        self.choice.value = best
        self._open(f"the best of {len(held):,} points in this cell" if len(held) > 1 else "")

    def _drop(self) -> None:
        """Let what is under way be shown no more."""
        self._asked += 1
        self.message.clear()
        if not self.progress.cancel.disabled:
            self.progress.cancel.click()
            self.progress.give_up()
        self.progress.put_away()

    def _clear(self) -> None:
        self.facts.value = self.figures.value = ""
        self.zoom.show(None)
        self.result = None

    def _open(self, note: str = "") -> None:
        """Backtest the chosen point in a thread; the sheet before stays until it is done."""
        sweep, number = self._sweep, self.choice.value
        if sweep is None or number is None:
            return
        self._drop()
        asked, progress = self._asked, self.progress.start()

        def check() -> None:
            if asked != self._asked:
                raise Cancelled
            self.progress.check()

        def work() -> tuple[Result, go.Figure]:
            result = sweep.result(number, progress=progress)
            return result, result.plot()

        def done(outcome: Callable[[], tuple[Result, go.Figure]]) -> None:
            if asked == self._asked:
                self._on_done(outcome, _point_facts(sweep, number, note))

        run_aside(lambda: unless_cancelled(work, check), done)

    def _on_done(self, outcome: Callable[[], tuple[Result, go.Figure]], facts: str) -> None:
        self.progress.give_up()  # replaced below, unless it failed
        with self.message.guard():
            try:
                result, figure = outcome()
            except Cancelled:
                self.message.say("cancelled; Tear sheet begins again")
                return
            except Exception:
                self.progress.put_away()
                self._clear()
                raise
            self.progress.finish(f"{result.ticks:,} ticks")
            self.facts.value = facts
            self.zoom.show(figure, result.title, result.plot)
            self.figures.value = result_facts(result)
            self.result = result


def _help(count: int, *, clicked: bool) -> str:
    button = "the button does for the point in the list"
    words = (
        f"A click on a cell of the heat map opens the tear sheet of its point, as {button}"
        if clicked
        else "The button opens the tear sheet of the point in the list"
    )
    left = f"; the list has the best {LISTED:,} of {count:,} points" if count > LISTED else ""
    return words + left


def _best_first(sweep: Sweep, ranked: list[int]) -> list[int]:
    """Return all points that were reached: as ranked, then those without the metric, by state."""
    rest = sweep.table.filter(~pl.col("point").is_in(ranked)).sort("state", "point")
    return [*ranked, *rest["point"].unique(maintain_order=True)]


def _rows(sweep: Sweep, numbers: Sequence[int]) -> list[dict[str, Any]]:
    """Return the rows of points, in the order of the numbers."""
    found = sweep.table.filter(pl.col("point").is_in(numbers))
    rows = {row["point"]: row for row in found.iter_rows(named=True)}
    return [rows[number] for number in numbers]


def _labelled(sweep: Sweep, numbers: Sequence[int]) -> list[tuple[str, int]]:
    """Return what a list calls points, and their numbers."""
    return [
        (f"{_values(sweep, row, sweep.varied)}: {_score(sweep, row)}", row["point"])
        for row in _rows(sweep, numbers)
    ]


def _values(sweep: Sweep, row: dict[str, Any], names: Sequence[str]) -> str:
    return ", ".join(f"{name} {_html.show(row[name])}" for name in names) or sweep.strategy


def _score(sweep: Sweep, row: dict[str, Any]) -> str:
    name, value = _html.heading(sweep.metric), row[sweep.metric]
    if row["state"] != "done":
        return str(row["state"])
    return f"no {name}" if value is None else f"{name} {_html.show(value)}"


def _point_facts(sweep: Sweep, number: int, note: str) -> str:
    """Return what stands above a tear sheet: all parameters, the metric, how to get at the run."""
    (row,) = _rows(sweep, [number])
    names = [column_of(name) for name in sweep.space.strategy.parameters]
    parts = [_score(sweep, row), note, "in Python it is the panel's point_result"]
    words = _html.escape("; ".join(filter(None, parts)))
    head = heading_html(f"Tear sheet: {_values(sweep, row, names)}")
    return f'{head}<div role="status" class="fxlab-soft">{words}</div>'


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
    point_result : Result or None
        The backtest whose tear sheet is shown; observable.
    """

    sweep = t.Any(None, allow_none=True)
    point_result = t.Any(None, allow_none=True)

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
        self.sheet = PointSheet()
        t.dlink((self.sheet, "result"), (self, "point_result"))
        self.events = FigureEvents(on_click=self.sheet.click)
        self.plot.add_class("fxlab-clicked")
        rows = [heading("Grid"), self.grid, *costs, how, *self._below, self.events, self.sheet]
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
        self.sheet.show(found)
        self.figures.value = page
        self.sweep = found
