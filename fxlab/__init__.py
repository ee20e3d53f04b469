"""A Jupyter-first research workbench for tick data, on QuestDB.

>>> import fxlab
>>> lab = fxlab.connect()                                          # doctest: +SKIP
>>> session = lab.session("exec_20240808_235413_657c2dd6")         # doctest: +SKIP
>>> fxlab.backtest(session, "sma_cross", {"fast": 50}).report("out")  # doctest: +SKIP

Names load when they are first used: ``import fxlab`` stays cheap.
"""

from __future__ import annotations

import importlib
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fxlab.backtester import indicators
    from fxlab.backtester.engine import backtest
    from fxlab.backtester.execution import Execution
    from fxlab.backtester.frame_source import FrameSource
    from fxlab.backtester.lookahead import check_lookahead
    from fxlab.backtester.result import Result
    from fxlab.backtester.strategy import Bounds, Signals, strategy
    from fxlab.backtester.strategy import listing as strategies
    from fxlab.config import Settings
    from fxlab.errors import FxlabError
    from fxlab.lab import Lab, connect, down, status, up
    from fxlab.replayer import replay
    from fxlab.sessions import Session
    from fxlab.sweeper.sweep import Sweep
    from fxlab.sweeper.sweeping import sweep

_HOMES: Final = {
    "Bounds": "fxlab.backtester.strategy:Bounds",
    "Execution": "fxlab.backtester.execution:Execution",
    "FrameSource": "fxlab.backtester.frame_source:FrameSource",
    "FxlabError": "fxlab.errors:FxlabError",
    "Lab": "fxlab.lab:Lab",
    "Result": "fxlab.backtester.result:Result",
    "Session": "fxlab.sessions:Session",
    "Settings": "fxlab.config:Settings",
    "Signals": "fxlab.backtester.strategy:Signals",
    "Sweep": "fxlab.sweeper.sweep:Sweep",
    "backtest": "fxlab.backtester.engine:backtest",
    "check_lookahead": "fxlab.backtester.lookahead:check_lookahead",
    "connect": "fxlab.lab:connect",
    "down": "fxlab.lab:down",
    "indicators": "fxlab.backtester.indicators",
    "replay": "fxlab.replayer:replay",
    "status": "fxlab.lab:status",
    "strategies": "fxlab.backtester.strategy:listing",
    "strategy": "fxlab.backtester.strategy:strategy",
    "sweep": "fxlab.sweeper.sweeping:sweep",
    "up": "fxlab.lab:up",
}

__all__ = [
    "Bounds",
    "Execution",
    "FrameSource",
    "FxlabError",
    "Lab",
    "Result",
    "Session",
    "Settings",
    "Signals",
    "Sweep",
    "__version__",
    "backtest",
    "check_lookahead",
    "connect",
    "down",
    "indicators",
    "replay",
    "status",
    "strategies",
    "strategy",
    "sweep",
    "up",
]


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the names are typed above
    if name == "__version__":
        return metadata.version("fxlab")
    home = _HOMES.get(name)
    if home is None:
        raise AttributeError(f"module 'fxlab' has no attribute {name!r}")
    module_name, _, attribute = home.partition(":")
    module = importlib.import_module(module_name)
    value = getattr(module, attribute) if attribute else module
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
