"""The replay panel: choose a session, press Play, watch prices and equity come in."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import ipywidgets as w
import polars as pl
import traitlets as t

from fxlab.backtester.summary import describe_data, main_figures, metrics_html, ruin_html
from fxlab.batches import Batch
from fxlab.html import escape, show, table
from fxlab.pacing import Clock, WallClock
from fxlab.replayer import Replay, replay
from fxlab.times import from_micros, to_micros
from fxlab.widgets.background import run_aside
from fxlab.widgets.execution_form import ExecutionForm
from fxlab.widgets.key_guard import KeyGuard
from fxlab.widgets.live_chart import LiveChart
from fxlab.widgets.message import Message
from fxlab.widgets.picker import SessionPicker
from fxlab.widgets.strategy_form import StrategyForm
from fxlab.widgets.style import heading, style_sheet
from fxlab.widgets.transport import Transport

if TYPE_CHECKING:
    from fxlab.backtester.result import Result
    from fxlab.lab import Lab

REDRAW: Final = 0.2
"""Wall seconds between two pictures: five a second look alive and leave the browser time."""

BATCH_SIZE: Final = 100_000  # a picture is drawn when it is time, not when a batch is full


class ReplayPanel(w.VBox):
    """Session and strategy on top, the player below them, then a live picture and figures.

    Parameters
    ----------
    lab
        Where the sessions are.
    session_id, strategy
        What is chosen at first: the newest session and ``"sma_cross"`` unless given;
        ``strategy=None`` replays ticks only.
    clock
        Where wall time comes from; the machine's clock unless given.

    Attributes
    ----------
    replay : Replay or None
        The replay that runs, or ran last.
    result : Result or None
        The last finished run; observable.
    """

    result = t.Any(None, allow_none=True)

    def __init__(
        self,
        lab: Lab,
        *,
        session_id: str | None = None,
        strategy: str | None = "sma_cross",
        clock: Clock | None = None,
    ) -> None:
        self.replay: Replay | None = None
        self._clock = clock or WallClock()
        self._drawn_at = 0.0  # wall time of the last picture
        self.picker = SessionPicker(lab, session_id)
        self.trade = w.Checkbox(
            description="Run a strategy on it", value=strategy is not None, indent=False
        )
        self.strategy = StrategyForm(strategy or "sma_cross")
        self.execution = ExecutionForm()
        self.execution.follow(self.picker)
        self.transport = Transport(self._on_play, self._on_stop, self._on_speed, self._on_place)
        self.message = Message()
        self.figures = w.HTML()
        self.stage = w.VBox(layout={"width": "100%"})
        super().__init__(self._rows())
        self.add_class("fxlab-panel")
        self.trade.observe(lambda _: self._show_forms(), "value")
        self.picker.observe(lambda _: self._tell(), ["value", "symbols", "hidden"])
        for control in (self.strategy, *self.execution.controls):
            control.observe(lambda _: self._tell(), "value")
        self._show_forms()

    def _rows(self) -> list[Any]:
        self._forms = w.HBox(
            [
                w.VBox([heading("Strategy"), self.strategy]),
                w.VBox([heading("Costs and capital"), self.execution]),
            ],
            layout={"flex_flow": "row wrap", "grid_gap": "0.5rem 3rem"},
        )
        top = [style_sheet(), heading("Session"), self.picker, self.trade, self._forms]
        return [*top, self.transport, self.message, self.stage, self.figures, KeyGuard()]

    def __repr__(self) -> str:
        """Show what is chosen and what runs."""
        return f"<ReplayPanel>\n{self.picker!r}\n{self.replay!r}\n{self.result!r}"

    def _show_forms(self) -> None:
        self._forms.layout.display = None if self.trade.value else "none"
        self._tell()

    def _tell(self) -> None:
        """Say beside Play why it cannot run, or that what runs is not in the list."""
        self.transport.note.tell(self._asked, self.picker.hidden)

    # ---- what a person does --------------------------------------------------------------

    def _on_play(self, action: str) -> None:
        self._tell()
        with self.message.guard():
            if action == "Play" or self.replay is None:
                if not self.transport.note.failed:
                    self._start()
            elif action == "Pause":
                self.replay.pause()
                self.transport.offer("Resume")
            else:
                self.replay.resume()
                self.transport.offer("Pause")

    def _on_stop(self) -> None:
        if self.replay is not None:
            self.replay.stop()

    def _on_speed(self, speed: float) -> None:
        if self.replay is not None:
            self.replay.speed = speed

    def _on_place(self, place: float) -> None:
        if self.replay is not None and self.replay.state in ("running", "paused"):
            self.replay.seek(self._moment(place))

    def _moment(self, place: float) -> Any:  # noqa: ANN401 - a datetime
        """Return the market time of a share of the session."""
        first, last = (to_micros(end) for end in self.replay.bounds)  # type: ignore[union-attr]
        return from_micros(first + round(place * (last - first)))

    # ---- a run ---------------------------------------------------------------------------

    def _start(self) -> None:
        started = self._made()
        self.replay = started
        place = self.transport.place.value
        if 0 < place < 1:
            started.seek(self._moment(place))
        chart = LiveChart(
            started.symbols, trading=started.strategy is not None, title=started.title
        )
        self.stage.children = (chart.figure,)
        self.figures.value, self._drawn_at = "", self._clock.now() - REDRAW
        self.transport.offer("Pause")
        run_aside(self._work(started, chart), self._on_done)

    def _asked(self) -> dict[str, Any]:
        """Return what is chosen now, as `replay` takes it."""
        session, symbols = self.picker.chosen
        run: dict[str, Any] = {"source": session, "symbols": symbols}
        if self.trade.value:
            name, parameters = self.strategy.checked
            run |= {"strategy": name, "parameters": parameters, "execution": self.execution.value}
            run["capital"] = self.execution.capital
        return run

    def _made(self) -> Replay:
        """Return the replay of what is chosen now."""
        return replay(
            speed=self.transport.speed.value,
            batch_size=BATCH_SIZE,
            interval=REDRAW / 2,
            clock=self._clock,
            **self._asked(),
        )

    def _work(self, running: Replay, chart: LiveChart) -> Callable[[], Result | None]:
        """Return the work of the other thread; it touches the picture and the line of state."""

        def work() -> Result | None:
            for batch in running:
                chart.add(batch)
                if batch.sought or batch.progress == 1.0 or self._is_time():
                    chart.show()
                    self._show_state(running, batch)
            return running.result if running.strategy else None

        return work

    def _is_time(self) -> bool:
        now = self._clock.now()
        if now - self._drawn_at < REDRAW:
            return False
        self._drawn_at = now
        return True

    def _show_state(self, running: Replay, batch: Batch) -> None:
        words = [f"{show(batch.timestamp.replace(microsecond=0))} UTC", f"{batch.progress:.1%}"]
        if batch.lag > REDRAW:
            words.append(f"{batch.lag:.1f} s behind")
        words += [f"{symbol} has ended" for symbol in running.ended if batch.progress < 1.0]
        self.transport.show(batch.progress, batch.time_progress, ", ".join(words))
        self.figures.value = standing(batch)

    def _on_done(self, outcome: Callable[[], Result | None]) -> None:
        self.transport.offer("Play")
        with self.message.guard():
            result = outcome()
            running = self.replay
            if running is None:
                return
            words = "all of it was replayed" if running.state == "finished" else "stopped"
            self.message.say(f"{words} at {show(running.position)} UTC")
            if result is not None:
                every = metrics_html(result.metrics.table())
                self.figures.value += (
                    f'<div class="fxlab-soft">{escape(describe_data(result))}</div>'
                    f"{ruin_html(result)}"
                    f"{metrics_html(main_figures(result))}"
                    f"<details><summary>All figures</summary>{every}</details>"
                )
                self.result = result


def standing(batch: Batch) -> str:
    """Return prices, positions and money of a moment as HTML."""
    symbols = list(batch.prices)
    columns: dict[str, list[Any]] = {"symbol": symbols, "price": list(batch.prices.values())}
    held = batch.positions
    if held is not None:
        columns["position"] = [held[symbol] for symbol in symbols]
    money = (
        "" if batch.equity is None else f"equity {batch.equity:,.2f}, {batch.fills_count:,} fills"
    )
    frame = pl.DataFrame(columns, schema_overrides={"symbol": pl.String})
    return f"{table(frame)}<div>{escape(money)}</div>"
