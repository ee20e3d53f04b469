"""A Jupyter-first research workbench for tick data, on QuestDB.

>>> import fxlab
>>> lab = fxlab.connect()                                          # doctest: +SKIP
>>> session = lab.session("exec_20240808_235413_657c2dd6")         # doctest: +SKIP
>>> fxlab.backtest(session, "sma_cross", {"fast": 50}).report("out")  # doctest: +SKIP

Names load when they are first used: ``import fxlab`` stays cheap.
"""

from __future__ import annotations

import importlib
import logging
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fxlab._doctor import mend
    from fxlab._log import enable_logging
    from fxlab.backtester._source import FrameSource
    from fxlab.backtester.compare import compare_runs
    from fxlab.backtester.cost_ladder import cost_ladder
    from fxlab.backtester.engine import backtest
    from fxlab.backtester.execution import Execution, Latency, swap_rates
    from fxlab.backtester.lookahead import check_lookahead
    from fxlab.backtester.options import pip_size, with_pips
    from fxlab.backtester.result import Result
    from fxlab.backtester.strategy import indicators
    from fxlab.backtester.strategy.signals import Signals
    from fxlab.backtester.strategy.strategy import Bounds, strategy
    from fxlab.backtester.strategy.strategy import listing as strategies
    from fxlab.batcher.batch import batch
    from fxlab.batcher.nightly import nightly
    from fxlab.collect.collector import Collector
    from fxlab.collect.feed import Feed
    from fxlab.config import Settings
    from fxlab.errors import FxlabError
    from fxlab.lab import Lab, connect, down, status, up
    from fxlab.replayer.replay import replay
    from fxlab.sessions.session import Session
    from fxlab.sweeper.sweep import Sweep, sweep
    from fxlab.sweeper.walk_forward import walk_forward

_HOMES: Final = {
    "Bounds": "fxlab.backtester.strategy.strategy:Bounds",
    "Collector": "fxlab.collect.collector:Collector",
    "Execution": "fxlab.backtester.execution:Execution",
    "Feed": "fxlab.collect.feed:Feed",
    "FrameSource": "fxlab.backtester._source:FrameSource",
    "FxlabError": "fxlab.errors:FxlabError",
    "Lab": "fxlab.lab:Lab",
    "Latency": "fxlab.backtester.execution:Latency",
    "Result": "fxlab.backtester.result:Result",
    "Session": "fxlab.sessions.session:Session",
    "Settings": "fxlab.config:Settings",
    "Signals": "fxlab.backtester.strategy.signals:Signals",
    "Sweep": "fxlab.sweeper.sweep:Sweep",
    "backtest": "fxlab.backtester.engine:backtest",
    "batch": "fxlab.batcher.batch:batch",
    "check_lookahead": "fxlab.backtester.lookahead:check_lookahead",
    "compare_runs": "fxlab.backtester.compare:compare_runs",
    "connect": "fxlab.lab:connect",
    "cost_ladder": "fxlab.backtester.cost_ladder:cost_ladder",
    "down": "fxlab.lab:down",
    "enable_logging": "fxlab._log:enable_logging",
    "indicators": "fxlab.backtester.strategy.indicators",
    "mend": "fxlab._doctor:mend",
    "nightly": "fxlab.batcher.nightly:nightly",
    "pip_size": "fxlab.backtester.options:pip_size",
    "replay": "fxlab.replayer.replay:replay",
    "status": "fxlab.lab:status",
    "strategies": "fxlab.backtester.strategy.strategy:listing",
    "strategy": "fxlab.backtester.strategy.strategy:strategy",
    "swap_rates": "fxlab.backtester.execution:swap_rates",
    "sweep": "fxlab.sweeper.sweep:sweep",
    "up": "fxlab.lab:up",
    "walk_forward": "fxlab.sweeper.walk_forward:walk_forward",
    "with_pips": "fxlab.backtester.options:with_pips",
}

__all__ = [
    "Bounds",
    "Collector",
    "Execution",
    "Feed",
    "FrameSource",
    "FxlabError",
    "Lab",
    "Latency",
    "Result",
    "Session",
    "Settings",
    "Signals",
    "Sweep",
    "__version__",
    "backtest",
    "batch",
    "check_lookahead",
    "compare_runs",
    "connect",
    "cost_ladder",
    "down",
    "enable_logging",
    "indicators",
    "mend",
    "nightly",
    "pip_size",
    "replay",
    "status",
    "strategies",
    "strategy",
    "swap_rates",
    "sweep",
    "up",
    "walk_forward",
    "with_pips",
]

logging.getLogger("fxlab").addHandler(logging.NullHandler())


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
