"""Progress in a notebook, with a way out: the notebook's face of `fxlab.progress.Advance`."""

from __future__ import annotations

import threading
import time
from typing import Any, Final

import ipywidgets as w

from fxlab.errors import Cancelled

_PAUSE: Final = 0.05
"""Seconds between two messages to the browser; a bar that moves 20 times a second is smooth."""


class ProgressBar(w.HBox):
    """A bar, a line of text and a Cancel button; call it with (share, text).

    Pass it as ``progress=`` to a function that runs in another thread: the kernel handles clicks
    only while its own thread is free. After a click on Cancel the next call raises `Cancelled`.
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

    def start(self) -> None:
        """Show an empty bar that can be cancelled."""
        self._cancelled.clear()
        self._shown_at = 0.0
        self.bar.bar_style = ""
        self.bar.value, self.text.value = 0.0, "starting"
        self.cancel.disabled = False
        self.layout.visibility = "visible"

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
        if self._cancelled.is_set():
            raise Cancelled("stopped before the end: nothing was kept; press Run to start again")
        now = time.monotonic()
        if share >= 1.0 or now - self._shown_at >= _PAUSE:
            self._shown_at = now
            self.bar.value = min(max(share, 0.0), 1.0)
            self.text.value = text

    def _on_cancel(self, _button: Any) -> None:  # noqa: ANN401 - ipywidgets has no types
        self._cancelled.set()
        self.cancel.disabled = True
        self.text.value = "stopping"
