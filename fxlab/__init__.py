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
    from fxlab._log import enable_logging
    from fxlab.backtester import indicators
    from fxlab.backtester.compare import compare_runs
    from fxlab.backtester.engine import backtest
    from fxlab.backtester.execution import Execution
    from fxlab.backtester.frame_source import FrameSource
    from fxlab.backtester.funding import swap_rates
    from fxlab.backtester.ladder import cost_ladder
    from fxlab.backtester.latency import Latency
    from fxlab.backtester.lookahead import check_lookahead
    from fxlab.backtester.parameters import Bounds
    from fxlab.backtester.pips import pip_size, with_pips
    from fxlab.backtester.result import Result
    from fxlab.backtester.signals import Signals
    from fxlab.backtester.strategy import listing as strategies
    from fxlab.backtester.strategy import strategy
    from fxlab.batcher.batching import batch
    from fxlab.batcher.nights import nightly
    from fxlab.collect.collector import Collector
    from fxlab.collect.feed import Feed
    from fxlab.config import Settings
    from fxlab.connecting import connect, down, status, up
    from fxlab.errors import FxlabError
    from fxlab.lab import Lab
    from fxlab.mending import mend
    from fxlab.replayer import replay
    from fxlab.sessions import Session
    from fxlab.sweeper.sweep import Sweep
    from fxlab.sweeper.sweeping import sweep
    from fxlab.sweeper.walking import walk_forward

_HOMES: Final = {
    "Bounds": "fxlab.backtester.parameters:Bounds",
    "Collector": "fxlab.collect.collector:Collector",
    "Execution": "fxlab.backtester.execution:Execution",
    "Feed": "fxlab.collect.feed:Feed",
    "FrameSource": "fxlab.backtester.frame_source:FrameSource",
    "FxlabError": "fxlab.errors:FxlabError",
    "Lab": "fxlab.lab:Lab",
    "Latency": "fxlab.backtester.latency:Latency",
    "Result": "fxlab.backtester.result:Result",
    "Session": "fxlab.sessions:Session",
    "Settings": "fxlab.config:Settings",
    "Signals": "fxlab.backtester.signals:Signals",
    "Sweep": "fxlab.sweeper.sweep:Sweep",
    "backtest": "fxlab.backtester.engine:backtest",
    "batch": "fxlab.batcher.batching:batch",
    "check_lookahead": "fxlab.backtester.lookahead:check_lookahead",
    "compare_runs": "fxlab.backtester.compare:compare_runs",
    "connect": "fxlab.connecting:connect",
    "cost_ladder": "fxlab.backtester.ladder:cost_ladder",
    "down": "fxlab.connecting:down",
    "enable_logging": "fxlab._log:enable_logging",
    "indicators": "fxlab.backtester.indicators",
    "mend": "fxlab.mending:mend",
    "nightly": "fxlab.batcher.nights:nightly",
    "pip_size": "fxlab.backtester.pips:pip_size",
    "replay": "fxlab.replayer:replay",
    "status": "fxlab.connecting:status",
    "strategies": "fxlab.backtester.strategy:listing",
    "strategy": "fxlab.backtester.strategy:strategy",
    "swap_rates": "fxlab.backtester.funding:swap_rates",
    "sweep": "fxlab.sweeper.sweeping:sweep",
    "up": "fxlab.connecting:up",
    "walk_forward": "fxlab.sweeper.walking:walk_forward",
    "with_pips": "fxlab.backtester.pips:with_pips",
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
