"""The live monitor: start a recording by a click, watch what comes in, stop it."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import ipywidgets as w
import polars as pl
import traitlets as t

from fxlab.collect import status_words as words
from fxlab.collect.collector import STOP_SECONDS
from fxlab.collect.status import OUTAGE, STOPPING, CollectorStatus
from fxlab.html import escape, table
from fxlab.widgets.audience import Audience
from fxlab.widgets.background import Pulse, run_aside
from fxlab.widgets.collect_form import CollectForm
from fxlab.widgets.figure_output import FigureOutput
from fxlab.widgets.key_guard import KeyGuard
from fxlab.widgets.message import Message
from fxlab.widgets.monitor_chart import MonitorChart
from fxlab.widgets.style import heading, style_sheet

if TYPE_CHECKING:
    from fxlab.collect.collector import Collector
    from fxlab.lab import Lab

REFRESH: Final = 0.5
"""Seconds between two looks."""


class LiveMonitor(w.VBox):
    """A form with Start and Stop; below them what the recording receives.

    It looks twice a second, in a thread of its own, and a recording has threads of its own too:
    neither waits for a busy kernel. Closing the panel ends the looking, not the recording.

    Parameters
    ----------
    lab
        Where to record to.
    collector
        A recording to watch, running or over.
    **form
        What the form shows at first: ``venue``, ``symbols``, ``book_depth``, ``duration``, ``url``,
        ``notes``.

    Attributes
    ----------
    collector : Collector or None
        The recording that is watched.
    session : Session or None
        The session of the last recording that ended; observable.
    """

    session = t.Any(None, allow_none=True)

    def __init__(
        self,
        lab: Lab,
        collector: Collector | None = None,
        **form: Any,  # noqa: ANN401 - those of CollectForm
    ) -> None:
        self.collector: Collector | None = None
        self._lab = lab
        self._pulse: Pulse | None = None
        self._chart: MonitorChart | None = None
        self._closed = self._formed = False
        self._turn = threading.Lock()
        self.form = CollectForm(**form)
        self.start = w.Button(
            description="Start", icon="circle", button_style="primary", tooltip="Begin to record"
        )
        self.stop = w.Button(
            description="Stop", icon="stop", tooltip="End the recording and close its session"
        )
        self.bar = w.FloatProgress(min=0.0, max=1.0, layout={"width": "10rem"})
        self.state, self.line, self.news = (w.HTML() for _ in range(3))
        self.message = Message()
        self.numbers = w.HTML()
        self.stage = w.VBox(layout={"width": "100%"})
        self.audience = Audience()
        self.start.on_click(lambda _: self._on_start())
        self.stop.on_click(lambda _: self._on_stop())
        super().__init__(self._rows())
        self.add_class("fxlab-panel")
        self._offer(running=False)
        if collector is not None:
            self.watch(collector)

    def _rows(self) -> list[Any]:
        self.numbers.add_class("fxlab-moving")
        self.bar.layout.display = "none"
        middle = {"align_items": "center", "grid_gap": "0 .6rem", "flex_flow": "row wrap"}
        buttons = w.HBox([self.start, self.stop, self.bar, self.state, self.line], layout=middle)
        told = [self.message, self.numbers, self.news, self.stage]
        return [
            style_sheet(),
            heading("Recording"),
            self.form,
            buttons,
            *told,
            self.audience,
            KeyGuard(),
        ]

    def __repr__(self) -> str:
        """Show what is watched."""
        return f"<LiveMonitor\n{self.collector!r}\n{self.session!r}>"

    def watch(self, collector: Collector) -> None:
        """Show a recording from now on; one that was watched before goes on unseen."""
        self._follow(collector, formed=False)

    def _follow(self, collector: Collector, *, formed: bool) -> None:
        self._rest()
        self._formed = formed
        status = collector.status()
        with self._turn:
            self.collector = collector
            self._chart = MonitorChart(tuple(one.symbol for one in status.symbols))
            self._offer(running=True)
        # The first picture takes a second or two: it comes later, by another thread.
        if not self._look(draw=False) and not self._closed:
            self._pulse = Pulse(self.refresh, REFRESH)

    def refresh(self) -> bool:
        """Show the recording as it is now; return whether it is over."""
        return self._look(draw=True)

    def _look(self, *, draw: bool) -> bool:
        with self._turn:
            collector, chart = self.collector, self._chart
            if collector is None or chart is None:
                return True
            status = collector.status()
            self._show(status)
            chart.add(time.time_ns() / 1e6, status)
            if status.is_over:
                self._end(collector, chart)
            elif draw:
                self._draw(chart)
            return status.is_over

    def close(self) -> None:
        """Take the panel away; a recording goes on."""
        self._closed = True
        self._rest()
        with self._turn:
            if self._chart is not None:
                self._chart.close()
        super().close()

    # ---- what a person does --------------------------------------------------------------

    def _on_start(self) -> None:
        with self.message.guard():
            chosen = self.form.value
            self._formed = True
            self._offer(running=True)
            self.stop.disabled = True  # there is nothing to stop yet
            self._say_state(f"asking {chosen['venue']}")
            run_aside(lambda: self._lab.collect(**chosen), self._on_started)

    def _on_started(self, outcome: Callable[[], Collector]) -> None:
        self._offer(running=False)
        self._say_state("")
        with self.message.guard():
            collector = outcome()
            if not self._closed:
                self._follow(collector, formed=True)

    def _on_stop(self) -> None:
        if self.collector is not None:
            self.stop.disabled = True
            self.collector.request_stop()

    # ---- what is shown -------------------------------------------------------------------

    def _offer(self, *, running: bool) -> None:
        """Let people press what makes sense; a form that says other things is not shown."""
        self.start.disabled, self.stop.disabled = running, not running
        self.form.enable(enabled=not running)
        self.form.layout.display = None if self._formed or not running else "none"

    def _show(self, status: CollectorStatus) -> None:
        share = words.share(status)
        self.bar.layout.display = "none" if share is None else None
        self.bar.value = share or 0.0
        self._say_state(words.state(status))
        told = f"{words.elapsed(status)}, {words.totals(status)}"
        waits = f"; {words.backlog(status)}" if status.state in (OUTAGE, STOPPING) else ""
        self.line.value = _soft(told + waits)
        frame = pl.DataFrame(words.rows(status), schema=list(words.COLUMNS), orient="row")
        caption = f"{status.exchange}, session {status.session_id}"
        self.numbers.value = table(frame, caption=caption, right=words.COLUMNS[1:])
        news = (status.message, words.newest(status.newest))
        self.news.value = "<br>".join(_soft(text) for text in news if text)

    def _say_state(self, text: str) -> None:
        # Its own element: a screen reader speaks when the state changes, not with each number.
        self.state.value = f'<span role="status" class="fxlab-state">{escape(text)}</span>'

    def _draw(self, chart: MonitorChart) -> None:
        if chart.figure is not None:
            chart.show()
        elif self.audience.looks and not self._closed:
            self.stage.children = (chart.live(),)

    def _end(self, collector: Collector, chart: MonitorChart) -> None:
        """Say what was stored, or why not; a plain picture takes the place of the live one."""
        self._offer(running=False)
        picture = FigureOutput()
        picture.show(chart.still(), repr(collector))
        self.stage.children = (picture,)
        self._chart = None
        chart.close()
        with self.message.guard():
            self.session = collector.wait(STOP_SECONDS)
            self.message.say(words.stored(self.session))

    def _rest(self) -> None:
        if self._pulse is not None:
            self._pulse.stop()
            self._pulse = None


def _soft(text: str) -> str:
    return f'<span class="fxlab-soft">{escape(text)}</span>'
