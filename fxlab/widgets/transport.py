"""The buttons and sliders of a player: play, pause, stop, how fast, and where.

The place slider is moved by the replay and by a hand. What the replay wrote last is remembered,
so that any other value is a person's wish.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import ipywidgets as w

from fxlab.html import escape
from fxlab.widgets.message import Message
from fxlab.widgets.style import in_line, label_width

STEP: Final = 0.005
"""What an arrow key moves the place slider by, as a share of the session."""

SPEEDS: Final = (
    *(ten * part for ten in (1.0, 10.0) for part in (1, 1.2, 1.5, 2, 2.5, 3, 4, 5, 6, 8)),
    100.0,
)
"""Market seconds a second that can be chosen."""

_WIDE: Final = {"width": "34rem"}
_ACTIONS: Final = {"Play": "play", "Pause": "pause", "Resume": "play"}


class Transport(w.VBox):
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
        self.line.value = f'<span class="fxlab-soft">{escape(text)}</span>'
        if abs(place - self.place.value) >= STEP:
            self._shown = round(place / STEP) * STEP
            self.place.value = self._shown

    def _on_place(self, place: float, tell: Callable[[float], Any]) -> None:
        if place != self._shown:
            self._shown = place
            tell(place)
