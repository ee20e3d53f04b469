"""Progress in a notebook, with a way out: the notebook's face of `fxlab.progress.Advance`."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import ipywidgets as w

from fxlab.errors import Cancelled
from fxlab.progress import Advance

_PAUSE: Final = 0.05
"""Seconds between two messages to the browser; a bar that moves 20 times a second is smooth."""


class ProgressBar(w.HBox):
    """A bar, a line of text and a Cancel button; call it with (share, text).

    Pass what `start` returns as ``progress=`` to a function that runs in another thread: the kernel
    handles clicks only while its own thread is free. After a click on Cancel the next call raises
    `Cancelled`.
    """

    def __init__(self) -> None:
        self.bar = w.FloatProgress(min=0.0, max=1.0, description="Progress")
        self.text = w.Label()
        self.cancel = w.Button(description="Cancel", icon="stop", disabled=True)
        self.cancel.on_click(self._on_cancel)
        self._cancelled = threading.Event()
        self._shown_at = 0.0
        super().__init__([self.bar, self.cancel, self.text])
        self.layout.visibility = "hidden"

    def start(self) -> Advance:
        """Show an empty bar that can be cancelled; return the progress of this one run."""
        self._cancelled = cancelled = threading.Event()
        self._shown_at = 0.0
        self.bar.bar_style = ""
        self.bar.value, self.text.value = 0.0, "starting"
        self.cancel.disabled = False
        self.layout.visibility = "visible"
        return lambda share, text: self._advance(cancelled, share, text)

    @property
    def is_cancelled(self) -> bool:
        """Return whether Cancel was clicked since the last start."""
        return self._cancelled.is_set()

    def finish(self, text: str, *, failed: bool = False) -> None:
        """Show how the work ended."""
        self.cancel.disabled = True
        self.bar.bar_style = "danger" if failed else "success"
        self.text.value = text

    def __call__(self, share: float, text: str = "") -> None:
        """Show the share done (0 to 1) and a text.

        Raises
        ------
        Cancelled
            After a click on Cancel.
        """
        self._advance(self._cancelled, share, text)

    def check(self) -> None:
        """Raise `Cancelled` after a click on Cancel."""
        _check(self._cancelled)

    def _advance(self, cancelled: threading.Event, share: float, text: str) -> None:
        _check(cancelled)
        now = time.monotonic()
        if share >= 1.0 or now - self._shown_at >= _PAUSE:
            self._shown_at = now
            self.bar.value = min(max(share, 0.0), 1.0)
            self.text.value = text

    def _on_cancel(self, _button: Any) -> None:  # noqa: ANN401 - ipywidgets has no types
        self._cancelled.set()
        self.cancel.disabled = True
        self.text.value = "stopping"


def _check(cancelled: threading.Event) -> None:
    if cancelled.is_set():
        raise Cancelled(
            "cancelled: stopped before the end, and nothing of this run is kept; what ended "
            "before stays as it was; press Run to start again"
        )
