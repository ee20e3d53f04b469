"""Panels for JupyterLab (ipywidgets), by keyboard too, with text where there is no browser.

Only this package imports ipywidgets, and only when a panel is asked for.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fxlab.widgets._backtest_panel import Workbench as Workbench, workbench as workbench
    from fxlab.widgets._base import KeyGuard as KeyGuard, ProgressBar as ProgressBar
    from fxlab.widgets._collect_panel import LiveMonitor as LiveMonitor
    from fxlab.widgets._figures import ZoomableChart as ZoomableChart
    from fxlab.widgets._forms import (
        ExecutionForm as ExecutionForm,
        GridForm as GridForm,
        StrategyForm as StrategyForm,
    )
    from fxlab.widgets._quality_panel import QualityPanel as QualityPanel
    from fxlab.widgets._replay_panel import ReplayPanel as ReplayPanel
    from fxlab.widgets._runs_browser import RunsBrowser as RunsBrowser
    from fxlab.widgets._session_picker import SessionPicker as SessionPicker
    from fxlab.widgets._list_state import PickerState as PickerState
    from fxlab.widgets._sweep_panel import SweepPanel as SweepPanel

_HOMES: Final = {
    name: module
    for module, names in {
        "_backtest_panel": ["Workbench", "workbench"],
        "_base": ["KeyGuard", "ProgressBar"],
        "_collect_panel": ["LiveMonitor"],
        "_figures": ["ZoomableChart"],
        "_forms": ["ExecutionForm", "GridForm", "StrategyForm"],
        "_quality_panel": ["QualityPanel"],
        "_replay_panel": ["ReplayPanel"],
        "_runs_browser": ["RunsBrowser"],
        "_session_picker": ["SessionPicker"],
        "_list_state": ["PickerState"],
        "_sweep_panel": ["SweepPanel"],
    }.items()
    for name in names
}

__all__ = sorted(_HOMES)  # noqa: PLE0605 - said once, above


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the names are typed above
    if name not in _HOMES:
        raise AttributeError(f"module 'fxlab.widgets' has no attribute {name!r}")
    return getattr(importlib.import_module(f"fxlab.widgets.{_HOMES[name]}"), name)


def __dir__() -> list[str]:
    return __all__
