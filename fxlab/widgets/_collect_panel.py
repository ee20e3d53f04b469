"""Collect panel: start a recording, watch it live in chart and table, stop it.

The form says where, what, how long. The chart shows last prices, and below them how many trades
come in a second.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, Final

import ipywidgets as w
import numpy as np
import plotly.graph_objects as go
import polars as pl
import traitlets as t

from fxlab._html import escape, table
from fxlab._times import parse_duration
from fxlab.charts._style import LINES, Floats, house_figure
from fxlab.collect import status as words
from fxlab.collect._config import STOP_SECONDS
from fxlab.collect.status import OUTAGE, STOPPING, CollectorStatus, SymbolStatus
from fxlab.collect.venues import BRIDGE, VENUES
from fxlab.errors import InvalidInput, VenueNotFound
from fxlab.schema import BOOK_DEPTH
from fxlab.widgets._base import (
    KeyGuard,
    Message,
    PeriodicTimer,
    heading,
    label_width,
    run_aside,
    soft,
    style_sheet,
    with_help,
)
from fxlab.widgets._figures import LiveFigure, RollingSeries
from fxlab.widgets._forms import TextField, read_whole
from fxlab.widgets._replay_panel import empty_line

if TYPE_CHECKING:
    from fxlab.collect.collector import Collector
    from fxlab.lab import Lab


POINTS: Final = 600
"""Points that each line is thinned to; twice a second, that is five minutes before it is thinned
for the first time."""

HEIGHT: Final = 380


class MonitorChart:
    """Lines that follow a recording.

    Parameters
    ----------
    symbols
        Two lines each. Several prices are drawn as their change since the first look, to share a
        scale.

    Attributes
    ----------
    live : LiveFigure
        What to show.
    """

    def __init__(self, symbols: tuple[str, ...]) -> None:
        self._prices = {symbol: RollingSeries(POINTS) for symbol in symbols}
        self._rates = {symbol: RollingSeries(POINTS) for symbol in symbols}
        self._bases: dict[str, float] = {}
        self.live = LiveFigure(self._empty_figure())

    def add(self, now: float, status: CollectorStatus) -> None:
        """Take a moment in, `now` in epoch milliseconds; nothing is sent yet."""
        for one in status.symbols:
            if one.symbol not in self._prices:
                continue
            price = _price(one)
            if price is not None:
                _append(self._prices[one.symbol], now, self._scaled(one.symbol, price))
            if one.trades_per_second is not None:
                _append(self._rates[one.symbol], now, one.trades_per_second)

    def show(self) -> None:
        """Send the lines to the browser, all at once."""
        self._fill()
        self.live.show()

    def keep(self, text: str) -> None:
        """Leave the lines as they are now in the notebook, and a text for where none are drawn."""
        self._fill()
        self.live.keep(text)

    def _fill(self) -> None:
        lines = (*self._prices.values(), *self._rates.values())
        for trace, line in zip(self.live.figure.data, lines, strict=True):
            trace.x, trace.y = line.x, line.y

    def _scaled(self, symbol: str, price: float) -> float:
        base = self._bases.setdefault(symbol, price)
        return price if len(self._prices) == 1 else price / base - 1

    def _empty_figure(self) -> go.Figure:
        several = len(self._prices) > 1
        label = "price, change" if several else "price"
        figure = house_figure([0.6, 0.4], [label, "trades/s"], "", HEIGHT)
        if several:
            figure.update_yaxes(tickformat="+.4~%", row=1, col=1)
        figure.update_yaxes(rangemode="tozero", row=2, col=1)
        for row in (1, 2):
            for number, symbol in enumerate(self._prices):
                colour = LINES[number % len(LINES)]
                line = empty_line(symbol, colour, legend=several and row == 1)
                figure.add_trace(line.update(legendgroup=symbol), row, 1)
        return figure


def _price(one: SymbolStatus) -> float | None:
    """Return the last price, or the middle of the book where no trades come."""
    if one.last_price is not None or one.bid is None or one.ask is None:
        return one.last_price
    return (one.bid + one.ask) / 2


def _append(trail: RollingSeries, x: float, y: float) -> None:
    points: tuple[Floats, Floats] = np.array([x]), np.array([y])
    trail.add(*points)


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
        self._pulse: PeriodicTimer | None = None
        self._chart: MonitorChart | None = None
        self._closed = self._formed = self._over = False
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
        shown = [self.message, self.numbers, self.news, self.stage]
        return [
            style_sheet(),
            heading("Recording"),
            self.form,
            buttons,
            *shown,
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
        with self._turn:
            self.collector, self._chart, self._over = collector, None, False
            self._offer(running=True)
        is_over, told = False, []
        try:
            is_over = self.refresh()
        except Exception as error:  # noqa: BLE001 - shown; the timer tries again
            self.message.fail(error)
            told = [repr(error)]
        if not is_over and not self._closed:
            self._pulse = PeriodicTimer(
                self.refresh, REFRESH, self.message.fail, self.message.clear, *told
            )

    def refresh(self) -> bool:
        """Show the recording as it is now; return whether it is over."""
        with self._turn:
            collector = self.collector
            if collector is None or self._over:
                return True
            status = collector.status()
            chart = self._chart
            if chart is None:
                chart = self._chart = MonitorChart(tuple(one.symbol for one in status.symbols))
                self.stage.children = (chart.live,)
            self._show(status)
            chart.add(time.time_ns() / 1e6, status)
            if status.is_over:
                self._end(collector, chart)
            else:
                chart.show()
            return status.is_over

    def close(self) -> None:
        """Take the panel away; a recording goes on."""
        self._closed = True
        self._rest()
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
        line = f"{words.elapsed(status)}, {words.totals(status)}"
        waits = f"; {words.backlog(status)}" if status.state in (OUTAGE, STOPPING) else ""
        self.line.value = soft(line + waits)
        frame = pl.DataFrame(words.rows(status), schema=list(words.COLUMNS), orient="row")
        caption = f"{status.exchange}, session {status.session_id}"
        self.numbers.value = table(frame, caption=caption, right=words.COLUMNS[1:])
        news = (status.message, words.newest(status.newest))
        self.news.value = "<br>".join(soft(text) for text in news if text)

    def _say_state(self, text: str) -> None:
        # Its own element: a screen reader speaks when the state changes, not with each number.
        self.state.value = f'<span role="status" class="fxlab-state">{escape(text)}</span>'

    def _end(self, collector: Collector, chart: MonitorChart) -> None:
        """Say what was stored, or why not; the picture stays as it is."""
        self._offer(running=False)
        self._over = True
        chart.keep(repr(collector))
        with self.message.guard():
            self.session = collector.wait(STOP_SECONDS)
            self.message.say(words.stored(self.session))

    def _rest(self) -> None:
        if self._pulse is not None:
            self._pulse.stop()
            self._pulse = None


_NARROW: Final = {"width": "17rem"}
_WIDE: Final = {"width": "28rem"}


class CollectForm(w.VBox):
    """Controls whose values are the arguments of `Lab.collect`.

    Parameters
    ----------
    venue, symbols, book_depth, duration, url, notes
        What they show at first, as `Lab.collect` takes them.

    Raises
    ------
    VenueNotFound
        With near names.
    """

    def __init__(
        self,
        *,
        venue: str = "binance",
        symbols: str | Iterable[str] = "BTC_USDT",
        book_depth: int = BOOK_DEPTH,
        duration: str | None = None,
        url: str | None = None,
        notes: str = "",
    ) -> None:
        names = ["Venue", "Exchange", "Symbols", "Book depth", "Duration", "Mock URL", "Notes"]
        self._style = label_width(names)
        bridged, _, exchange = venue.partition(":")
        if bridged not in (*VENUES, BRIDGE):
            raise VenueNotFound.named(venue, [*VENUES, BRIDGE])
        self.venue = w.Dropdown(
            options=[*VENUES, BRIDGE], value=bridged, description="Venue", style=self._style,
            layout=_NARROW,
        )  # fmt: skip
        self.exchange = self._text("Exchange", exchange, "bitget")
        joined = symbols if isinstance(symbols, str) else ", ".join(symbols)
        self.symbols = self._text("Symbols", joined, "BTC_USDT, ETH_USDT", _WIDE)
        self.depth = TextField(
            book_depth, lambda text: read_whole("book_depth", text, 0, BOOK_DEPTH),
            description="Book depth", style=self._style, layout=_NARROW,
        )  # fmt: skip
        self.duration = TextField(
            duration or "", _read_duration, placeholder="until Stop", description="Duration",
            style=self._style, layout=_NARROW,
        )  # fmt: skip
        self.url = self._text("Mock URL", url or "", "http://127.0.0.1:8765", _WIDE)
        self.notes = self._text("Notes", notes, "kept with the session", _WIDE)
        super().__init__(self._rows())
        self.venue.observe(lambda _: self._show_exchange(), "value")
        self._show_exchange()

    @property
    def value(self) -> dict[str, Any]:
        """Return the arguments of `Lab.collect`.

        Raises
        ------
        InvalidInput
            For what is missing; what is wrong is said by `Lab.collect`.
        """
        venue = self.venue.value
        if venue == BRIDGE:
            exchange = self.exchange.value.strip()
            if not exchange:
                raise InvalidInput("no exchange is named; give ccxt's name of one, such as bitget")
            venue = f"{BRIDGE}:{exchange}"
        return {
            "venue": venue,
            "symbols": [name for name in re.split(r"[\s,;]+", self.symbols.value) if name],
            "book_depth": self.depth.meaning,
            "duration": self.duration.meaning,
            "url": self.url.value.strip() or None,
            "notes": self.notes.value.strip(),
        }

    def enable(self, *, enabled: bool) -> None:
        """Let people change it, or not."""
        for control in self._controls:
            control.disabled = not enabled

    @property
    def _controls(self) -> tuple[Any, ...]:
        return (
            self.venue, self.exchange, self.symbols, self.depth, self.duration, self.url,
            self.notes,
        )  # fmt: skip

    def _rows(self) -> list[Any]:
        helps = (
            "public data; no key is needed",
            "as ccxt names it",
            "base_quote, with commas between",
            f"levels to store: 0 none, 1 best bid and ask, up to {BOOK_DEPTH}",
            "such as 10m or 8h",
            "of a mock venue or a proxy; empty: the venue itself",
            "",
        )
        rows = [with_help(*pair) for pair in zip(self._controls, helps, strict=True)]
        self._bridge_row = rows[1]
        return rows

    def _show_exchange(self) -> None:
        self._bridge_row.layout.display = None if self.venue.value == BRIDGE else "none"

    def _text(
        self, name: str, value: str, placeholder: str, layout: dict[str, str] | None = None
    ) -> w.Text:
        return w.Text(
            value, placeholder=placeholder, description=name, style=self._style,
            layout=layout or _NARROW, continuous_update=False,
        )  # fmt: skip


def _read_duration(text: str) -> str | None:
    """Return a duration as it was typed, or None for an empty text: until Stop."""
    if not text.strip():
        return None
    parse_duration(text.strip(), "duration")
    return text.strip()
