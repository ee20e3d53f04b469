"""Lets arrow keys work in lists and sliders, and tells screen readers what controls are.

JupyterLab would move between cells instead; sliders have a label beside them that is not theirs.

JupyterLab's command-mode shortcuts take arrow keys and letters from every focused element that is
no editor, lists, sliders and radio buttons among them. An attribute on the control itself keeps
the keys there; on an element around it, it has no effect, because the shortcut's selector is
matched first on the control.
"""

from __future__ import annotations

import anywidget

_SCRIPT = """
const CONTROLS = "select, input[type=radio], [role=slider]";

const NAMED = "select, input, textarea, [role=slider], [contenteditable=true]";

function name(control) {
  const box = control.closest(".widget-inline-hbox");
  const label = box?.querySelector(".widget-label")?.textContent.trim();
  if (label && !control.labels?.length && !control.hasAttribute("aria-label")) {
    control.setAttribute("aria-label", label);
  }
  const wrong = String(Boolean(control.closest(".fxlab-wrong")));
  if (control.tagName === "INPUT" && control.getAttribute("aria-invalid") !== wrong) {
    control.setAttribute("aria-invalid", wrong);
  }
}

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
    const mark = () => {
      panel.querySelectorAll(CONTROLS)
        .forEach((control) => control.setAttribute("data-lm-suppress-shortcuts", "true"));
      panel.querySelectorAll(NAMED).forEach(name);
    };
    mark();
    watch = new MutationObserver(mark);
    watch.observe(panel, {
      childList: true, subtree: true, attributes: true, attributeFilter: ["class"],
    });
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
