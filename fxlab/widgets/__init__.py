"""Panels for JupyterLab; each works by keyboard and falls back to text where there is no browser.

Only this package imports ipywidgets, and only when a panel is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fxlab.widgets.execution_form import ExecutionForm
    from fxlab.widgets.grid_form import GridForm
    from fxlab.widgets.key_guard import KeyGuard
    from fxlab.widgets.live_monitor import LiveMonitor
    from fxlab.widgets.panel import Workbench, workbench
    from fxlab.widgets.picker import SessionPicker
    from fxlab.widgets.picker_state import PickerState
    from fxlab.widgets.progress_bar import ProgressBar
    from fxlab.widgets.replay_panel import ReplayPanel
    from fxlab.widgets.strategy_form import StrategyForm
    from fxlab.widgets.sweep_panel import SweepPanel

_HOMES: Final = {
    "ExecutionForm": "execution_form",
    "GridForm": "grid_form",
    "KeyGuard": "key_guard",
    "LiveMonitor": "live_monitor",
    "PickerState": "picker_state",
    "ProgressBar": "progress_bar",
    "ReplayPanel": "replay_panel",
    "SessionPicker": "picker",
    "StrategyForm": "strategy_form",
    "SweepPanel": "sweep_panel",
    "Workbench": "panel",
    "workbench": "panel",
}

__all__ = [
    "ExecutionForm",
    "GridForm",
    "KeyGuard",
    "LiveMonitor",
    "PickerState",
    "ProgressBar",
    "ReplayPanel",
    "SessionPicker",
    "StrategyForm",
    "SweepPanel",
    "Workbench",
    "workbench",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the names are typed above
    if name not in _HOMES:
        raise AttributeError(f"module 'fxlab.widgets' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fxlab.widgets.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return sorted(__all__)
