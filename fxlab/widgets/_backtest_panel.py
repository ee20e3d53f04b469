"""Backtest panel (workbench): choose a session, choose a strategy, run, see the result."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import ipywidgets as w
import traitlets as t

from fxlab._html import escape
from fxlab.backtester.engine import backtest
from fxlab.backtester.report._summary import describe_data, main_metrics, metrics_html, ruin_html
from fxlab.widgets._base import (
    FigureOutput,
    KeyGuard,
    Message,
    ProgressBar,
    heading,
    in_line,
    run_aside,
    style_sheet,
    unless_cancelled,
)
from fxlab.widgets._forms import ExecutionForm, StrategyForm
from fxlab.widgets._session_picker import SessionPicker

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab._progress import Advance
    from fxlab.backtester.result import Result
    from fxlab.lab import Lab


def workbench(lab: Lab, **options: Any) -> Workbench:  # noqa: ANN401 - as the class takes them
    """Return a `Workbench`; show it by ending a cell with it."""
    return Workbench(lab, **options)


class Workbench(w.VBox):
    """Session, strategy and costs on top; Run; picture and figures below.

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
        self.picker = SessionPicker(lab, session_id)
        self.strategy = StrategyForm(strategy)
        self.execution = ExecutionForm()
        self.execution.follow(self.picker)
        self.run = w.Button(description="Run", icon="play", button_style="primary")
        self.progress = ProgressBar()
        self.note, self.message = Message(), Message()
        self.plot = FigureOutput()
        self.figures = w.HTML()
        super().__init__(self._rows())
        self.add_class("fxlab-panel")
        self.run.on_click(self._on_run)
        self.picker.observe(lambda _: self._tell(), ["value", "symbols", "hidden"])
        for control in (self.strategy, *self.execution.controls):
            control.observe(lambda _: self._tell(), "value")
        self._tell()

    def _rows(self) -> list[Any]:
        forms = w.HBox(
            [
                w.VBox([heading("Strategy"), self.strategy]),
                w.VBox([heading("Costs and capital"), self.execution]),
            ],
            layout={"flex_flow": "row wrap", "grid_gap": "0.5rem 3rem"},
        )
        run = in_line([self.run, self.note, self.progress])
        top = [style_sheet(), heading("Session"), self.picker, forms]
        return [*top, run, self.message, self.plot, self.figures, KeyGuard()]

    def __repr__(self) -> str:
        """Show what is chosen and the last result."""
        chosen = f"{self.picker!r}\n{self.strategy!r}"
        return f"<Workbench>\n{chosen}\n{self.result!r}"

    def _tell(self) -> None:
        """Say beside Run why it cannot run, or that what runs is not in the list."""
        self.note.tell(self._work, self.picker.hidden)

    def _on_run(self, _button: Any) -> None:  # noqa: ANN401 - ipywidgets has no types
        self.message.clear()
        with self.note.guard():
            work = self._work()
            self.run.disabled = True
            progress = self.progress.start()
            run_aside(
                lambda: unless_cancelled(lambda: work(progress), self.progress.check),
                self._on_done,
            )
            self._tell()

    def _work(self) -> Callable[[Advance], tuple[Result, go.Figure, float]]:
        """Return the run as a function of its progress: what is chosen now is what runs."""
        session, symbols = self.picker.chosen
        name, parameters = self.strategy.checked
        terms, capital = self.execution.value, self.execution.capital

        def work(progress: Advance) -> tuple[Result, go.Figure, float]:
            began = time.perf_counter()
            result = backtest(
                session,
                name,
                parameters,
                symbols=symbols,
                execution=terms,
                capital=capital,
                progress=progress,
            )
            return result, result.plot(), time.perf_counter() - began

        return work

    def _on_done(self, outcome: Callable[[], tuple[Result, go.Figure, float]]) -> None:
        self.run.disabled = False
        ended = "cancelled" if self.progress.is_cancelled else "not finished"
        self.progress.finish(ended, failed=True)  # replaced below, unless it failed
        with self.message.guard():
            result, figure, seconds = outcome()
            self.progress.finish(f"{result.ticks:,} ticks in {seconds:.2f} s")
            self._show(result, figure)

    def _show(self, result: Result, figure: go.Figure) -> None:
        self.plot.show(figure, result.title)
        every = metrics_html(result.metrics.table())
        self.figures.value = (
            f'<div class="fxlab-soft">{escape(describe_data(result))}</div>{ruin_html(result)}'
            f"{metrics_html(main_metrics(result))}"
            f"<details><summary>All figures</summary>{every}</details>"
        )
        self.result = result
