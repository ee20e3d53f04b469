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
from fxlab.sweeper._space import Space
from fxlab.sweeper._study import SweepConfig, SweepStudy, duration_words, seconds_a_point
from fxlab.sweeper._threads import check_workers
from fxlab.sweeper.sweep import sweep
from fxlab.widgets._base import (
    FigureOutput,
    KeyGuard,
    Message,
    ProgressBar,
    heading,
    in_line,
    label_above,
    run_aside,
    style_sheet,
)
from fxlab.widgets._forms import ExecutionForm, GridForm
from fxlab.widgets._session_picker import SessionPicker

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab.backtester.execution import Execution
    from fxlab.lab import Lab
    from fxlab.sessions.session import Session
    from fxlab.sweeper.sweep import Sweep


RANKED: Final = 10
_STEADY: Final = ("neighbourhood_mean", "neighbourhood_min", "neighbours", "rank")


@dataclass(frozen=True)
class Seen:
    """A sweep and all that is shown of it.

    Attributes
    ----------
    found
        The sweep.
    figure
        Its heat map; None if no point has the figure.
    page
        HTML below it.
    line
        How many points ended how, and how long it took.
    stopped
        Why there are fewer points than asked for; empty if there are not.
    """

    found: Sweep
    figure: go.Figure | None
    page: str
    line: str
    stopped: str = ""


def see(found: Sweep, began: float, stopped: str = "") -> Seen:
    """Return what to show of a sweep that began at `began`, as `time.perf_counter` counts."""
    seconds = time.perf_counter() - began
    return Seen(
        found=found,
        figure=_figure(found),
        page=_page(found),
        line=f"{found.counts} in {duration_words(seconds)}",
        stopped=stopped,
    )


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
    return f"{_judged(found)}{ranked}{_steady(found, digits)}{errors}"


def _judged(found: Sweep) -> str:
    try:
        return f"<p>{_html.escape(found.overfitting())}</p>"
    except FxlabError as error:
        return f"<p>{_html.escape(error)}</p>"


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
    symbols: list[str]
    strategy: str
    parameters: dict[str, Any]
    execution: Execution
    capital: float

    @property
    def rate_key(self) -> tuple[object, ...]:
        """Return what the time of a point depends on, beside its parameters."""
        terms = self.execution
        return self.session.id, tuple(self.symbols), self.strategy, terms.fill, terms.queue

    def measure(self) -> float:
        """Return about how many seconds a point takes on one core."""
        chosen = get(self.strategy)
        example = Space.of(chosen, self.parameters).samples()[0]
        options = RunOptions(symbols=self.symbols, execution=self.execution, capital=self.capital)
        return seconds_a_point(SweepStudy(self.session, SweepConfig(chosen, options), example))


class SweepPanel(w.VBox):
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
        self._lab = lab
        self._rates: dict[tuple[object, ...], float] = {}
        self._measuring: tuple[object, ...] | None = None
        self.picker = SessionPicker(lab, session_id)
        self.grid = GridForm(strategy)
        self.execution = ExecutionForm()
        self.execution.follow(self.picker)
        self.metric = w.Dropdown(
            options=[(_html.heading(name), name) for name in GOALS],
            value="sharpe_per_period",
            description="Compare by",
        )
        self.keep = w.Checkbox(
            description="Keep every point in the database", value=True, indent=False
        )
        self.run = w.Button(description="Run", icon="play", button_style="primary")
        self.estimate = Message()
        self.progress = ProgressBar()
        self.message = Message()
        self.plot = FigureOutput()
        self.figures = w.HTML()
        super().__init__(self._rows())
        self.add_class("fxlab-panel")
        self._listen()
        self._tell()

    def _rows(self) -> list[Any]:
        forms = [
            *(heading("Grid"), self.grid),
            *(heading("Costs and capital"), self.execution),
        ]
        run = in_line([self.run, self.estimate, self.progress])
        top = [style_sheet(), heading("Session"), self.picker]
        below = [self.message, self.plot, self.figures, KeyGuard()]
        label_above(self.metric, "the figure that makes a point the best", 17)
        how = w.HBox([self.metric, self.keep], layout={"align_items": "flex-end"})
        return [*top, *forms, how, run, *below]

    def _listen(self) -> None:
        self.run.on_click(self._on_run)
        self.grid.observe(lambda _: self._tell(), "changes")
        self.picker.observe(lambda _: self._tell(), ["value", "symbols", "hidden"])
        for control in self.execution.controls:
            control.observe(lambda _: self._tell(), "value")

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
        """Find out how long a point takes; only what was asked for last is told."""
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
        return _Asked(
            session=session,
            symbols=symbols,
            strategy=self.grid.strategy,
            parameters=self.grid.parameters,
            execution=self.execution.value,
            capital=self.execution.capital,
        )

    # ---- Run -----------------------------------------------------------------------------

    def _on_run(self, _button: Any) -> None:  # noqa: ANN401 - ipywidgets has no types
        self.message.clear()
        try:
            work = self._work(self._asked())
        except FxlabError as error:
            self.estimate.fail(error)
            return
        self.run.disabled = True
        self.progress.start()
        run_aside(work, self._on_done)

    def _work(self, asked: _Asked) -> Callable[[], Seen]:
        """Return the sweep as a function of nothing: what is chosen now is what runs."""
        metric, lab = self.metric.value, self._lab if self.keep.value else None

        def work() -> Seen:
            began = time.perf_counter()
            try:
                found = sweep(
                    asked.session,
                    asked.strategy,
                    asked.parameters,
                    metric=metric,
                    symbols=asked.symbols,
                    execution=asked.execution,
                    capital=asked.capital,
                    lab=lab,
                    progress=self.progress,
                )
            except SweepCancelled as stop:
                return see(stop.sweep, began, str(stop))  # type: ignore[arg-type]
            return see(found, began)

        return work

    def _on_done(self, outcome: Callable[[], Seen]) -> None:
        self.run.disabled = False
        ended = "cancelled" if self.progress.is_cancelled else "not finished"
        self.progress.finish(ended, failed=True)  # replaced below, unless it failed
        with self.message.guard():
            seen = outcome()
            self.progress.finish(seen.line, failed=bool(seen.stopped))
            if seen.stopped:
                self.message.say(seen.stopped)
            self.plot.show(seen.figure, seen.found.title)
            self.figures.value = seen.page
            self.sweep = seen.found
        self._tell()
