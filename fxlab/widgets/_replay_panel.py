"""Replay panel: playback controls (play, pause, stop, speed, seek) and a live chart of the run.

The position slider is moved by the replay and by a hand. What the replay wrote last is remembered,
so that any other value is a person's wish.

The chart shows prices with fills, and the money below them. Ticks are gathered as they come; the
browser gets the lines a few times a second, never more than a screen can show.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go
import polars as pl
import traitlets as t

from fxlab._html import escape, show, table
from fxlab._times import from_micros, to_micros
from fxlab.charts._style import BUY, LINES, SELL, house_figure, milliseconds
from fxlab.replayer._cursor import ReplayBatch, TimeSource, WallClock
from fxlab.replayer.replay import Replay, replay
from fxlab.widgets._backtest_panel import SessionPanel, result_facts, strategy_and_costs
from fxlab.widgets._base import Message, in_line, label_width, run_aside, soft
from fxlab.widgets._figures import LiveFigure, RollingSeries
from fxlab.widgets._forms import ExecutionForm, StrategyForm

if TYPE_CHECKING:
    from fxlab.backtester.result import Result
    from fxlab.lab import Lab


STEP: Final = 0.005
"""What an arrow key moves the place slider by, as a share of the session."""

SPEEDS: Final = (
    *(ten * part for ten in (1.0, 10.0) for part in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)),
    100.0,
)
"""Market seconds a second that can be chosen."""

_WIDE: Final = {"width": "34rem"}
_ACTIONS: Final = {"Play": "play", "Pause": "pause", "Resume": "play"}


class PlaybackControls(w.VBox):
    """Controls without a replay: they call what they are given.

    Parameters
    ----------
    on_play
        Called with "Play", "Pause" or "Resume", as the button says.
    on_stop
        Called without anything.
    on_speed
        Called with the new speed.
    on_place
        Called with a share of the session, 0 to 1, when a person moved the slider.
    """

    def __init__(
        self,
        on_play: Callable[[str], object],
        on_stop: Callable[[], object],
        on_speed: Callable[[float], object],
        on_place: Callable[[float], object],
    ) -> None:
        style = label_width(["Speed", "Place"])
        self.play = w.Button(button_style="primary", tooltip="Start, pause or go on")
        self.stop = w.Button(description="Stop", icon="stop", tooltip="End the replay here")
        # A choice, not a range: what it shows is what runs, and there is nothing to type.
        self.speed = w.SelectionSlider(
            options=[(f"{speed:g}", speed) for speed in SPEEDS], value=10.0, description="Speed",
            style=style, continuous_update=False, tooltip="Market seconds a second", layout=_WIDE,
        )  # fmt: skip
        self.place = w.FloatSlider(
            0.0, min=0.0, max=1.0, step=STEP, description="Place", style=style, readout=False,
            continuous_update=False, tooltip="Where in the session", layout=_WIDE,
        )  # fmt: skip
        self.bar = w.FloatProgress(min=0.0, max=1.0, description="Ticks", layout={"width": "15rem"})
        self.line, self.note = w.HTML(), Message()
        self._shown = 0.0
        self.offer("Play")
        self.play.on_click(lambda _: on_play(self.play.description))
        self.stop.on_click(lambda _: on_stop())
        self.speed.observe(lambda change: on_speed(change["new"]), "value")
        self.place.observe(lambda change: self._on_place(change["new"], on_place), "value")
        buttons = in_line([self.play, self.stop, self.note, self.bar, self.line])
        super().__init__([buttons, self.speed, self.place])

    def offer(self, action: str) -> None:
        """Let the first button do this; only what has begun can be stopped."""
        self.play.description, self.play.icon = action, _ACTIONS[action]
        self.stop.disabled = action == "Play"

    def show(self, progress: float, place: float, text: str) -> None:
        """Show how far it is: a share of the ticks, one of the time, and words."""
        self.bar.value = progress
        self.line.value = soft(text)
        if abs(place - self.place.value) >= STEP:
            self._shown = round(place / STEP) * STEP
            self.place.value = self._shown

    def _on_place(self, place: float, tell: Callable[[float], Any]) -> None:
        if place != self._shown:
            self._shown = place
            tell(place)


POINTS: Final = 1_000
"""Points that each line is thinned to; up to twice as many are drawn."""

MARKERS: Final = 400
"""Fills of each side that are drawn, the newest."""

_SIDES: Final = (("buy", BUY, "triangle-up", 1), ("sell", SELL, "triangle-down", -1))


class LiveChart:
    """A figure that follows a replay.

    Parameters
    ----------
    symbols
        One line each. Several are drawn as their change since the first tick, to share a scale.
    trading
        Whether there is equity to draw.
    title
        Plain text; it is escaped.

    Attributes
    ----------
    live : LiveFigure
        What to show.
    """

    def __init__(self, symbols: tuple[str, ...], *, trading: bool, title: str = "") -> None:
        self._trading = trading
        self._lines = {symbol: RollingSeries(POINTS) for symbol in symbols}
        self._bases: dict[str, float] = {}
        self._fills: dict[str, list[tuple[float, float]]] = {name: [] for name, *_ in _SIDES}
        self._equity = RollingSeries(POINTS)
        self.live = LiveFigure(self._empty_figure(title))

    def add(self, batch: ReplayBatch) -> None:
        """Take a batch in; nothing is sent yet."""
        if batch.sought:
            self._clear()
            self._bases = dict(batch.prices)
        for key, ticks in batch.frame.group_by("symbol", maintain_order=True):
            symbol, prices = str(key[0]), ticks["price"].to_numpy()
            self._bases.setdefault(symbol, float(prices[0]))
            self._lines[symbol].add(milliseconds(ticks["timestamp"]), self._scaled(symbol, prices))
        if batch.equity is not None:
            now = milliseconds(pl.Series([batch.timestamp]))
            self._equity.add(now, np.array([batch.equity]))
        if batch.fills is not None and not batch.sought:
            self._add_fills(batch.fills)

    def show(self) -> None:
        """Send the lines to the browser, all at once."""
        self._fill()
        self.live.show()

    def keep(self) -> None:
        """Leave the lines as they are now in the notebook."""
        self._fill()
        self.live.keep()

    def _fill(self) -> None:
        lines = {name: (line.x, line.y) for name, line in self._lines.items()}
        if self._trading:
            lines["equity"] = self._equity.x, self._equity.y
            for name, points in self._fills.items():
                x, y = np.array(points).reshape(-1, 2).T
                lines[name] = x, y
        for name, (x, y) in lines.items():
            trace = self._traces[name]
            trace.x, trace.y = x, y

    def _clear(self) -> None:
        for line in (*self._lines.values(), self._equity):
            line.clear()
        for points in self._fills.values():
            points.clear()

    def _scaled(self, symbol: str, prices: np.ndarray) -> np.ndarray:
        return prices if len(self._lines) == 1 else prices / self._bases[symbol] - 1

    def _add_fills(self, fills: pl.DataFrame) -> None:
        for name, _, _, sign in _SIDES:
            points = self._fills[name]
            side = fills.filter(pl.col("qty") * sign > 0)
            times = milliseconds(side["timestamp"]).tolist()
            for symbol, time, price in zip(side["symbol"], times, side["price"], strict=True):
                points.append((time, float(self._scaled(symbol, np.array([price]))[0])))
            del points[:-MARKERS]

    def _empty_figure(self, title: str) -> go.Figure:
        heights, labels = (
            ([0.62, 0.38], ["price", "equity"]) if self._trading else ([1.0], ["price"])
        )
        figure = house_figure(heights, labels, title, height=460 if self._trading else 340)
        several = len(self._lines) > 1
        names = []
        for number, symbol in enumerate(self._lines):
            names.append(symbol)
            figure.add_trace(empty_line(symbol, LINES[number % len(LINES)], legend=several), 1, 1)
        if several:
            figure.update_yaxes(title_text="price, change", tickformat="+.2~%", row=1, col=1)
        if self._trading:
            names += [name for name, *_ in _SIDES] + ["equity"]
            for side in _SIDES:
                figure.add_trace(_markers(*side[:3]), 1, 1)
            figure.add_trace(empty_line("equity", LINES[0], legend=False), 2, 1)
        self._traces = dict(zip(names, figure.data, strict=True))
        return figure


def empty_line(name: str, colour: str, *, legend: bool) -> go.Scatter:
    """Return a line to be, its name escaped."""
    return go.Scatter(
        x=[], y=[], name=escape(name), mode="lines", showlegend=legend,
        line={"width": 1.4, "color": colour},
    )  # fmt: skip


def _markers(name: str, colour: str, shape: str) -> go.Scatter:
    marker = {"symbol": shape, "color": colour, "size": 9, "line": {"width": 0.7, "color": "#fff"}}
    look = {"mode": "markers", "marker": marker, "legendrank": 1_001}
    return go.Scatter(x=[], y=[], name=name, meta="fills", **look)


REDRAW: Final = 0.2
"""Wall seconds between two pictures: five a second look alive and leave the browser time."""

BATCH_SIZE: Final = 100_000  # a picture is drawn when it is time, not when a batch is full


class ReplayPanel(SessionPanel):
    """Session and strategy on top, the player below them, then a live picture and metrics.

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
        clock: TimeSource | None = None,
    ) -> None:
        super().__init__(lab, session_id)
        self.replay: Replay | None = None
        self._clock = clock or WallClock()
        self._drawn_at = 0.0  # wall time of the last picture
        self.trade = w.Checkbox(
            description="Run a strategy on it", value=strategy is not None, indent=False
        )
        self.strategy = StrategyForm(strategy or "sma_cross")
        self.execution = ExecutionForm(self.picker)
        self.transport = PlaybackControls(
            self._on_play, self._on_stop, self._on_speed, self._on_place
        )
        self.stage = w.VBox(layout={"width": "100%"})
        self._forms = strategy_and_costs(self.strategy, self.execution)
        rows = [self.trade, self._forms, self.transport, self.message, self.stage]
        self._lay_out(rows, self.strategy, *self.execution.controls)
        self.trade.observe(lambda _: self._show_forms(), "value")
        self._show_forms()

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
        self.stage.children = (chart.live,)
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
            try:
                for batch in running:
                    chart.add(batch)
                    if batch.sought or batch.progress == 1.0 or self._is_time():
                        chart.show()
                        self._show_state(running, batch)
            finally:
                chart.keep()
            return running.result if running.strategy else None

        return work

    def _is_time(self) -> bool:
        now = self._clock.now()
        if now - self._drawn_at < REDRAW:
            return False
        self._drawn_at = now
        return True

    def _show_state(self, running: Replay, batch: ReplayBatch) -> None:
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
                self.figures.value += result_facts(result)
                self.result = result


def standing(batch: ReplayBatch) -> str:
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
