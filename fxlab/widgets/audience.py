"""Knows whether somebody looks at a panel.

A live figure puts its script of 5 MB into a saved notebook: too much for a batch run, where nobody
sees it move. Jupyter's server names its notebooks to their kernels, a batch run has no server; in
other front ends this part reports that it was drawn.
"""

from __future__ import annotations

import os
from typing import Final

import anywidget
import traitlets as t

_SESSION: Final = "JPY_SESSION_NAME"

_SCRIPT: Final = """
function render({ model, el }) {
  el.style.display = "none";
  model.set("looks", true);
  model.save_changes();
}

export default { render };
"""


class Audience(anywidget.AnyWidget):
    """An invisible part of a panel.

    Attributes
    ----------
    looks : bool
        Whether there is a browser; observable, and never taken back.
    """

    _esm = _SCRIPT
    looks = t.Bool().tag(sync=True)

    @t.default("looks")
    def _looks_from_the_start(self) -> bool:
        return _SESSION in os.environ
