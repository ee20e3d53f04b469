"""Backtest panel (workbench): session, strategy, run, result; and the base of panels of runs."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import ipywidgets as w
import traitlets as t

from fxlab._html import escape
from fxlab.backtester.engine import backtest
from fxlab.backtester.report._summary import caveats_html, describe_data, main_metrics, metrics_html
from fxlab.widgets._base import (
    KeyGuard,
    Message,
    ProgressBar,
    heading,
    in_line,
    run_aside,
    style_sheet,
    unless_cancelled,
)
from fxlab.widgets._figures import FigureOutput, ZoomSampler
from fxlab.widgets._forms import ExecutionForm, StrategyForm
from fxlab.widgets._session_picker import SessionPicker

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab._progress import Advance
    from fxlab.backtester.result import Result
    from fxlab.lab import Lab


class SessionPanel(w.VBox):
    """Base of panels about a session: its picker on top, messages, and the metrics at the end.

    Parameters
    ----------
    lab
        Where the sessions are.
    session_id
        The session chosen at first; the newest unless given.
    """

    def __init__(self, lab: Lab, session_id: str | None) -> None:
        self.picker = SessionPicker(lab, session_id)
        self.message = Message()
        self.figures = w.HTML()
        self.figures.add_class("fxlab-scrolled")  # tables, in a window that may be narrow
        super().__init__()
        self.add_class("fxlab-panel")

    def _lay_out(self, rows: Iterable[Any], *forms: Any) -> None:  # noqa: ANN401 - ipywidgets
        """Put rows below the session, and say what a change of a form or of the session means."""
        top = (style_sheet(), heading("Session"), self.picker)
        self.children = (*top, *rows, self.figures, KeyGuard())
        self.picker.observe(lambda _: self._tell(), ["value", "symbols", "hidden"])
        for control in forms:
            control.observe(lambda _: self._tell(), "value")

    @abstractmethod
    def _tell(self) -> None:
        """Say why what is chosen cannot run, or what there is to know of it."""


class LaunchPanel(SessionPanel):
    """Base of panels with a Run button, whose work goes on beside the kernel's own thread."""

    def __init__(self, lab: Lab, session_id: str | None) -> None:
        self.run = w.Button(description="Run", icon="play", button_style="primary")
        self.note = Message()
        self.progress = ProgressBar()
        self.plot = FigureOutput()
        self.run.on_click(self._on_run)
        super().__init__(lab, session_id)

    @property
    def _below(self) -> list[Any]:
        """Return the rows from the button on."""
        return [in_line([self.run, self.note, self.progress]), self.message, self.plot]

    @abstractmethod
    def _work(self) -> Callable[[Advance], Any]:
        """Return the run as a function of its progress: what is chosen now is what runs."""

    @abstractmethod
    def _show(self, outcome: Any) -> None:  # noqa: ANN401 - as `_work` gives it
        """Show the outcome of the work."""

    def _on_run(self, _button: Any) -> None:  # noqa: ANN401 - ipywidgets has no types
        self.message.clear()
        with self.note.guard():
            work = self._work()
            self.run.disabled = True
            progress = self.progress.start()
            run_aside(lambda: work(progress), self._on_done)
            self._tell()

    def _on_done(self, outcome: Callable[[], Any]) -> None:
        self.run.disabled = False
        self.progress.give_up()  # replaced below, unless it failed
        with self.message.guard():
            self._show(outcome())
        self._tell()


def strategy_and_costs(strategy: StrategyForm, execution: ExecutionForm) -> w.HBox:
    """Return both forms under their headings, side by side where there is room."""
    columns = [
        w.VBox([heading("Strategy"), strategy]),
        w.VBox([heading("Costs and capital"), execution]),
    ]
    return w.HBox(columns, layout={"flex_flow": "row wrap", "grid_gap": "0.5rem 3rem"})


def result_facts(result: Result) -> str:
    """Return what ran and its metrics as HTML: the main ones, and all of them folded."""
    every = metrics_html(result.metrics.table())
    return (
        f'<div class="fxlab-soft">{escape(describe_data(result))}</div>{caveats_html(result)}'
        f"{metrics_html(main_metrics(result))}"
        f"<details><summary>All figures</summary>{every}</details>"
    )


def workbench(lab: Lab, **options: Any) -> Workbench:  # noqa: ANN401 - as the class takes them
    """Return a `Workbench`; show it by ending a cell with it."""
    return Workbench(lab, **options)


class Workbench(LaunchPanel):
    """Session, strategy and costs on top; Run; picture and metrics below.

    A zoom into the picture samples the ticks again that are seen then.

    Parameters
    ----------
    lab
        Where the sessions are.
    session_id, strategy
        What is chosen at first: the newest session and ``"sma_cross"`` unless given.

    Attributes
    ----------
    result : Result or None
        The last finished run; observable. A run that fails or is cancelled leaves it alone.
    """

    result = t.Any(None, allow_none=True)

    def __init__(
        self, lab: Lab, *, session_id: str | None = None, strategy: str = "sma_cross"
    ) -> None:
        super().__init__(lab, session_id)
        self.strategy, self.execution = StrategyForm(strategy), ExecutionForm(self.picker)
        self.zoom = ZoomSampler(self.plot, self.message)
        forms = strategy_and_costs(self.strategy, self.execution)
        self._lay_out([forms, *self._below, self.zoom], self.strategy, *self.execution.controls)
        self._tell()

    def __repr__(self) -> str:
        """Show what is chosen and the last result."""
        chosen = f"{self.picker!r}\n{self.strategy!r}"
        return f"<Workbench>\n{chosen}\n{self.result!r}"

    def _tell(self) -> None:
        """Say beside Run why it cannot run, or that what runs is not in the list."""
        self.note.tell(self._work, self.picker.hidden)

    def _work(self) -> Callable[[Advance], tuple[Result, go.Figure, float]]:
        session, symbols = self.picker.chosen
        name, parameters = self.strategy.checked
        execution, capital = self.execution.value, self.execution.capital

        def work(progress: Advance) -> tuple[Result, go.Figure, float]:
            began = time.perf_counter()
            result = backtest(
                session,
                name,
                parameters,
                symbols=symbols,
                execution=execution,
                capital=capital,
                progress=progress,
            )
            return result, result.plot(), time.perf_counter() - began

        return lambda progress: unless_cancelled(lambda: work(progress), self.progress.check)

    def _show(self, outcome: tuple[Result, go.Figure, float]) -> None:
        result, figure, seconds = outcome
        self.progress.finish(f"{result.ticks:,} ticks in {seconds:.2f} s")
        self.zoom.show(figure, result.title, result.plot)
        self.figures.value = result_facts(result)
        self.result = result
