"""The panels' looks and the small parts they share: one style sheet, labels, help lines."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any, Final

import ipywidgets as w

from fxlab.html import escape

SHEET: Final = """
.fxlab-panel { gap: 6px; }
.fxlab-panel .widget-hbox > *, .fxlab-panel .widget-vbox > * { min-width: 0;
  max-width: calc(100% - 2 * var(--jp-widgets-margin, 2px)); }
.fxlab-panel .widget-hbox > .widget-box, .fxlab-panel .widget-vbox > .widget-box {
  max-width: 100%; }
.fxlab-panel .jupyter-button.mod-primary { background: #1565c0; color: #fff; }
.fxlab-list select { overflow-x: auto; min-width: 0; }
.fxlab-heads { margin-bottom: 0; height: auto; }
.fxlab-heads .widget-html-content { min-width: 0; overflow: hidden; }
.fxlab-heads pre { margin: 0; padding: 0 3px !important; white-space: pre; overflow: hidden; }
.fxlab-list select, .fxlab-list option, .fxlab-heads pre {
  font-family: var(--jp-code-font-family, monospace);
  font-size: var(--jp-code-font-size, 13px); }
.fxlab-soft, .fxlab-soft .widget-html-content {
  color: var(--jp-ui-font-color2, #666); line-height: 1.45; }
.fxlab-error { color: var(--jp-error-color1, #c62828); font-weight: 600; }
.fxlab-heading { font-weight: 600; font-size: var(--jp-ui-font-size2, 15px); }
.fxlab-panel table.fxlab { border-collapse: collapse; line-height: 1.35; }
.fxlab-panel table.fxlab tbody tr { border-top: 1px solid var(--jp-border-color2, #ddd); }
.fxlab-panel table.facts tbody tr { border: 0; }
.fxlab-panel table.facts th, .fxlab-panel table.facts td { padding: .05em .9em !important; }
.fxlab-panel table.facts th { color: var(--jp-ui-font-color2, #666); font-weight: 400 !important; }
.fxlab-above.widget-inline-hbox { flex-direction: column; align-items: stretch; height: auto; }
.fxlab-above.widget-inline-hbox .widget-label { width: auto; max-width: none; text-align: left;
  color: var(--jp-ui-font-color2, #666); height: 1.6em; line-height: 1.6em; }
.fxlab-above.widget-inline-hbox input, .fxlab-above.widget-inline-hbox select { flex: none;
  height: var(--jp-widgets-inline-height, 28px); }
.fxlab-moving { overflow-x: auto; }
.fxlab-moving table.fxlab { font-variant-numeric: tabular-nums; }
.fxlab-moving table.fxlab th, .fxlab-moving table.fxlab td { padding: .25em .55em !important; }
.fxlab-wrong input { border-color: var(--jp-error-color1, #c62828) !important;
  box-shadow: 0 0 0 1px var(--jp-error-color1, #c62828); }
.fxlab-state { font-weight: 600; }
.fxlab-panel pre { overflow-x: auto; max-height: 24em; line-height: 1.35; }
.fxlab-panel summary { cursor: pointer; padding: .4em 0; }
"""


def style_sheet() -> w.HTML:
    """Return the style sheet as an invisible part of a panel."""
    return w.HTML(f"<style>{SHEET}</style>", layout={"display": "none"})


def heading(text: str) -> w.HTML:
    """Return a heading inside a panel."""
    return w.HTML(f'<div class="fxlab-heading" role="heading" aria-level="3">{escape(text)}</div>')


def label_width(labels: Iterable[str]) -> dict[str, str]:
    """Return the style that gives a column of controls labels of one width, none cut off."""
    longest = max((len(label) for label in labels), default=0)
    return {"description_width": f"{longest + 1}ch"}


def label_above(control: Any, text: str, width: float) -> Any:  # noqa: ANN401
    """Return a narrow control, `width` rem wide, with its label above it and a tooltip."""
    control.add_class("fxlab-above")
    control.layout.width = f"{width}rem"
    control.tooltip = text
    return control


def beside(controls: Iterable[Any]) -> w.HBox:
    """Return controls in one row, which wraps where the page is narrow."""
    return w.HBox(list(controls), layout={"flex_flow": "row wrap", "grid_gap": "0 .4rem"})


def in_line(parts: Iterable[Any]) -> w.HBox:
    """Return buttons and what is said beside them in one row, which wraps where it must."""
    layout = {"align_items": "center", "grid_gap": "0 .6rem", "flex_flow": "row wrap"}
    return w.HBox(list(parts), layout=layout)


def with_help(control: Any, text: str) -> w.HBox:  # noqa: ANN401 - any ipywidgets control
    """Return a control with a short help line on its right; the line is its tooltip too."""
    control.tooltip = text
    control.layout.flex = "none"  # the line wraps, not the control
    line = w.HTML(f'<span class="fxlab-soft">{escape(text)}</span>')
    return w.HBox([control, line], layout={"align_items": "center"})
