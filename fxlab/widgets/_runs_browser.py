"""Runs browser: saved runs and sweeps: filter, sort, open, compare, reproduce, delete, undo."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Final

import ipywidgets as w
import polars as pl

from fxlab import _html
from fxlab.backtester.compare import compare_runs
from fxlab.backtester.metrics._performance import METRICS
from fxlab.charts import heatmap_chart
from fxlab.errors import InvalidInput, RunNotFound, SweepNotFound
from fxlab.sweeper._results import direction
from fxlab.widgets._base import (
    IdLists,
    KeyGuard,
    Message,
    ProgressBar,
    QuietBox,
    heading,
    in_line,
    label_width,
    run_aside,
    style_sheet,
)
from fxlab.widgets._figures import FigureOutput, ZoomSampler
from fxlab.widgets._list_state import IDS, PAGE, RUN_ORDERS, RUNS, SWEEPS, RunsState

if TYPE_CHECKING:
    import plotly.graph_objects as go

    from fxlab.lab import Lab
    from fxlab.sessions.runs import Reproduction, RunQuery
    from fxlab.sweeper._store import SavedSweep

POINTS: Final = 20
"""Points of a sweep that its table shows."""


class RunsBrowser(QuietBox):
    """A list of saved runs or sweeps, and below it what is chosen: one opened, several compared.

    Parameters
    ----------
    lab
        Where they are kept.

    Attributes
    ----------
    state : RunsState
        What is listed and chosen.
    reproduced : Reproduction or None
        The last run that was reproduced, with its result.
    """

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self._deleted: tuple[str, ...] = ()
        self._reproducing = False
        self.reproduced: Reproduction | None = None
        self._build()
        self.state = RunsState(RUNS, lab.runs(limit=0))
        with self.message.guard():
            self._read()

    def _build(self) -> None:
        style = label_width(["Saved"])
        wide = {"width": "72rem"}
        self.kind = w.ToggleButtons(options=[RUNS, SWEEPS], description="Saved", style=style)
        self.kind.style.button_width = "5rem"
        self.filter = w.Text(
            description="Filter", placeholder="words, e.g. sma btc", style=label_width(["Filter"])
        )
        self.order = w.Dropdown(
            description="Sort by", options=list(RUN_ORDERS[RUNS]), style=label_width(["Sort by"]),
            layout={"width": "18rem"},
        )  # fmt: skip
        self.refresh = w.Button(
            description="Refresh", icon="refresh", tooltip="Read the list again"
        )
        self.count = w.HTML()
        self.more = w.Button(description="More", tooltip="List the next ones too")
        self.heads = w.HTML(description=" ", style=style, layout=wide)
        self.heads.add_class("fxlab-heads")
        self.listing = IdLists(
            description="Chosen", rows=9, style=style, layout=wide, on_ids=self._choose
        )
        self.listing.add_class("fxlab-list")
        self.reproduce = w.Button(
            description="Reproduce", icon="play", tooltip="Run it again and compare every bit"
        )
        self.delete = w.Button(
            description="Delete", tooltip="Hide what is chosen; Undo brings it back"
        )
        self.undo = w.Button(description="Undo", icon="undo")
        self.message, self.progress = Message(), ProgressBar()
        self.plot, self.details = FigureOutput(), w.HTML()
        self.zoom = ZoomSampler(self.plot, self.message)
        self.details.add_class("fxlab-scrolled")  # a column an id: several are wider than a page
        super().__init__(
            [
                style_sheet(),
                heading("Saved runs and sweeps"),
                in_line([self.kind, self.filter, self.order, self.refresh, self.count, self.more]),
                w.VBox([self.heads, self.listing]),
                in_line([self.reproduce, self.delete, self.undo, self.progress]),
                self.message,
                self.plot,
                self.zoom,
                self.details,
                KeyGuard(self.listing),
            ]
        )
        self.add_class("fxlab-panel")
        self.kind.observe(lambda _: self._on_kind(), "value")
        self.filter.observe(lambda _: self._on_filter(), "value")
        self.order.observe(lambda _: self._on_filter(), "value")
        self.listing.observe(lambda _: self._on_choice(), "value")
        for button, work in (
            (self.refresh, self._read), (self.reproduce, self._reproduce),
            (self.delete, self._delete), (self.undo, self._undelete), (self.more, self._read_more),
        ):  # fmt: skip
            button.on_click(lambda _, work=work: self._guarded(work))

    def __repr__(self) -> str:
        """Show what is chosen."""
        return f"<RunsBrowser {', '.join(self.state.chosen) or 'nothing'}; {self.state.count}>"

    def _guarded(self, work: Callable[[], object]) -> None:
        with self.message.guard():
            work()

    # ---- the list --------------------------------------------------------------------------

    def _on_kind(self) -> None:
        if self._showing:
            return
        with self.message.guard():
            kind = self.kind.value
            try:
                state = self._found(RunsState(kind, pl.DataFrame(), self.filter.value))
            except Exception:
                self._set_kind(self.state.kind)  # which is what is listed below it
                raise
            self._set_kind(kind)
            self._deleted = ()
            self._show(state)
            self._open()

    def _set_kind(self, kind: str) -> None:
        with self._quietly():
            self.kind.value = kind
            if tuple(self.order.options) != tuple(RUN_ORDERS[kind]):
                self.order.options = list(RUN_ORDERS[kind])

    def _on_filter(self) -> None:
        if self._showing:
            return
        with self.message.guard():
            order = self.order.value or "newest first"
            self._show(self._found(replace(self.state, text=self.filter.value, order=order)))

    def _on_choice(self) -> None:
        if not self._showing:
            self._choose(tuple(self.listing.value))

    def _choose(self, ids: tuple[str, ...]) -> None:
        """Choose what is there, listed or not; say so where some of it is no more."""
        with self.message.guard():
            there = self._there(self.state, ids)
            # The list stays: to build it again would cost a thousand lines a click, and its place.
            self.state = self.state.choose(there)
            with self._quietly():
                self.listing.value = self.state.listed
            self._tell()
            self._open()
            if gone := [one for one in ids if one not in there]:
                self.message.say(f"{', '.join(gone)}: no more among the {self.state.kind}")

    def _read(self, chosen: tuple[str, ...] | None = None) -> None:
        """Ask for the first ones, and show them; what is no more is chosen no longer."""
        state = self._found(self.state)
        kept = self._there(state, state.chosen if chosen is None else chosen)
        self._show(replace(state, chosen=kept))
        self._open()

    def _read_more(self) -> None:
        self._show(self.state.with_more(self._asked(self.state.kind, self.state.next_query)))

    def _found(self, state: RunsState) -> RunsState:
        """Return a state with the first ones of its filter and order."""
        return state.with_page(self._asked(state.kind, state.query))

    def _asked(self, kind: str, query: RunQuery) -> pl.DataFrame:
        """Return a page, and one row more, to know whether there are others after it."""
        asked = self._lab.runs if kind == RUNS else self._lab.sweeps
        return asked(PAGE + 1, **query)

    def _there(self, state: RunsState, ids: tuple[str, ...]) -> tuple[str, ...]:
        """Return those that are listed, or that the filter hides."""
        listed = set(state.rows[IDS[state.kind]])
        return tuple(one for one in ids if one in listed or self._is_there(one))

    def _is_there(self, one: str) -> bool:
        """Return whether there is a run or sweep that the filter hides."""
        try:
            (self._lab.run if self.state.kind == RUNS else self._lab.sweep)(one)
        except (RunNotFound, SweepNotFound):
            return False
        return True

    def _show(self, state: RunsState) -> None:
        """Make the list a picture of the state."""
        self.state = state
        with self._quietly(), self.listing.hold_sync():  # a list and its places are one message
            self.listing.options = state.options
            self.listing.value = state.listed
        self.heads.value = f"<pre>{_html.escape(state.heads)}</pre>"
        self._tell()
        if self.listing.value != state.listed:  # chosen meanwhile, where handlers have two threads
            self._on_choice()

    def _tell(self) -> None:
        """Say how many there are, and offer what can be done with what is chosen."""
        state = self.state
        self.count.value = (
            f'<span role="status" class="fxlab-soft">{_html.escape(state.count)}</span>'
        )
        self.more.layout.display = None if state.is_more else "none"
        one_run = state.kind == RUNS and len(state.chosen) == 1
        self.reproduce.disabled = self._reproducing or not one_run
        self.delete.disabled = not state.chosen
        self.undo.layout.display = None if self._deleted else "none"
        self.undo.tooltip = f"Bring {', '.join(self._deleted)} back"

    # ---- what is chosen --------------------------------------------------------------------

    def _open(self) -> None:
        """Show one run or sweep, or several runs side by side."""
        chosen, lab = self.state.chosen, self._lab
        self.zoom.show(None)
        self.details.value = ""  # what fails below leaves nothing of another one
        self.progress.put_away()
        if not chosen:
            return
        if self.state.kind == SWEEPS:
            sweep = lab.sweep(chosen[0])
            points = sweep.points()
            self.details.value = sweep_html(sweep, points)
            self.zoom.show(sweep_chart(sweep, points), sweep.sweep_id)
        elif len(chosen) == 1:
            self.details.value = lab.run(chosen[0])._repr_html_()
        else:
            runs = {run_id: lab.run(run_id) for run_id in chosen}
            self.details.value = compare_runs(runs)._repr_html_()

    def _reproduce(self) -> None:
        if len(self.state.chosen) != 1:
            raise InvalidInput(
                f"{len(self.state.chosen)} runs are chosen; choose one in the list above"
            )
        run = self._lab.run(self.state.chosen[0])
        progress = self.progress.start()
        self._reproducing = True
        self._tell()
        run_aside(lambda: run.reproduce(progress), self._on_reproduced)

    def _on_reproduced(self, outcome: Callable[[], Reproduction]) -> None:
        self._reproducing = False
        self._tell()
        self.progress.give_up()  # replaced below, unless it failed
        with self.message.guard():
            found = self.reproduced = outcome()
            self.progress.finish(f"{found.result.ticks:,} ticks", failed=bool(found.difference))
            if self.state.chosen == (found.run_id,):  # else another one is looked at by now
                again = found.result
                self.zoom.show(again.plot(), again.title, again.plot)
            self.message.say(str(found))

    def _delete(self) -> None:
        work = self._lab.delete_run if self.state.kind == RUNS else self._lab.delete_sweep
        gone = self.state.chosen
        self._deleted = ()
        try:
            for one in gone:
                work(one)
                self._deleted += (one,)  # where the next one fails, Undo knows which are gone
        finally:
            self._read()
        them = "it" if len(gone) == 1 else "them"
        self.message.say(f"{', '.join(gone)}: deleted; Undo brings {them} back")

    def _undelete(self) -> None:
        work = self._lab.undelete_run if self.state.kind == RUNS else self._lab.undelete_sweep
        back = self._deleted
        try:
            for one in back:
                work(one)
                self._deleted = self._deleted[1:]
        finally:
            self._read(back)
        self.message.say(f"{', '.join(back)}: back")


def sweep_html(sweep: SavedSweep, points: pl.DataFrame) -> str:
    """Return what a kept sweep was, and its best points by the metric that it was asked for."""
    metric = sweep.plan.get("metric", "sharpe_per_period")
    names = [name for name in points.columns if name not in METRICS and name != "fingerprint"]
    if metric not in points.columns:
        return sweep._repr_html_()
    best = points.sort(metric, descending=direction(metric) >= 0, nulls_last=True)
    caption = f"The best of {points.height:,} points by {_html.heading(metric)}"
    shown = _html.table(best.select(*names, metric).head(POINTS), caption=caption)
    return f"{shown}{sweep._repr_html_()}"


def sweep_chart(sweep: SavedSweep, points: pl.DataFrame) -> go.Figure | None:
    """Return the heat map of a kept sweep's metric over the first two parameters that vary."""
    metric = sweep.plan.get("metric")
    done = points.filter(pl.col("state") == "done") if points.height else points
    varied = [
        name for name in sweep.plan.get("grid", {}).get("axes", ())
        if name in done.columns and done[name].n_unique() > 1
    ]  # fmt: skip
    if metric not in done.columns or len(varied) < 2:
        return None
    title, unit = f"{sweep.strategy} on {sweep.data_session_id}", METRICS[metric][0]
    less = direction(metric) < 0
    return heatmap_chart(done, varied[0], varied[1], metric, title, unit=unit, lower_is_better=less)
