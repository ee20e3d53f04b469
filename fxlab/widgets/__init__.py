"""Panels for JupyterLab (ipywidgets), by keyboard too, with text where there is no browser.

Only this package imports ipywidgets, and only when a panel is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fxlab.widgets._backtest_panel import Workbench, workbench
    from fxlab.widgets._base import KeyGuard, ProgressBar
    from fxlab.widgets._collect_panel import LiveMonitor
    from fxlab.widgets._forms import ExecutionForm, GridForm, StrategyForm
    from fxlab.widgets._picker_state import PickerState
    from fxlab.widgets._replay_panel import ReplayPanel
    from fxlab.widgets._session_picker import SessionPicker
    from fxlab.widgets._sweep_panel import SweepPanel

_HOMES: Final = {
    "ExecutionForm": "_forms",
    "GridForm": "_forms",
    "KeyGuard": "_base",
    "LiveMonitor": "_collect_panel",
    "PickerState": "_picker_state",
    "ProgressBar": "_base",
    "ReplayPanel": "_replay_panel",
    "SessionPicker": "_session_picker",
    "StrategyForm": "_forms",
    "SweepPanel": "_sweep_panel",
    "Workbench": "_backtest_panel",
    "workbench": "_backtest_panel",
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
