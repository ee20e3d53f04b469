"""Lets arrow keys work in lists and sliders: JupyterLab would move between cells instead.

JupyterLab's command-mode shortcuts take arrow keys and letters from every focused element that is
no editor, lists, sliders and radio buttons among them. An attribute on the control itself keeps
the keys there; on an element around it, it has no effect, because the shortcut's selector is
matched first on the control.
"""

from __future__ import annotations

import anywidget

_SCRIPT = """
const CONTROLS = "select, input[type=radio], [role=slider]";

function render({ el }) {
  el.style.display = "none";
  let watch;
  let waiting;
  const start = () => {
    const panel = el.isConnected && (el.closest(".widget-vbox") ?? el.parentElement);
    if (!panel) {
      waiting = requestAnimationFrame(start);
      return;
    }
    const mark = () => panel.querySelectorAll(CONTROLS)
      .forEach((control) => control.setAttribute("data-lm-suppress-shortcuts", "true"));
    mark();
    watch = new MutationObserver(mark);
    watch.observe(panel, { childList: true, subtree: true });
  };
  start();
  return () => {
    cancelAnimationFrame(waiting);
    watch?.disconnect();
  };
}

export default { render };
"""


class KeyGuard(anywidget.AnyWidget):
    """An invisible neighbour: put it last into a VBox, and the lists in that box keep their keys.

    Controls that join the box later are guarded too.
    """

    _esm = _SCRIPT
