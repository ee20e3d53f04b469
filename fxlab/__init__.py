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
    from fxlab._questdb.endpoint import Endpoint
    from fxlab._questdb.server import ServerStatus
    from fxlab.backtester._frame_source import FrameSource
    from fxlab.backtester.compare import Comparison, compare_runs
    from fxlab.backtester.cost_ladder import CostLadder, cost_ladder
    from fxlab.backtester.engine import backtest
    from fxlab.backtester.execution import Execution, Latency, swap_rates
    from fxlab.backtester.lookahead import LookaheadReport, check_lookahead
    from fxlab.backtester.metrics._overfitting import Overfitting
    from fxlab.backtester.metrics._performance import Metrics
    from fxlab.backtester.options import RunOptions, pip_size, with_pips
    from fxlab.backtester.result import Result
    from fxlab.backtester.strategy import indicators
    from fxlab.backtester.strategy.signals import Events, Signals
    from fxlab.backtester.strategy.strategy import (
        Bounds,
        Parameter,
        Strategy,
        strategy,
    )
    from fxlab.backtester.strategy.strategy import (
        listing as strategies,
    )
    from fxlab.batcher._jobs import BatchJob
    from fxlab.batcher.batch import Batch, batch
    from fxlab.batcher.nightly import Night, nightly
    from fxlab.collect._files.importer import ImportReport
    from fxlab.collect.collector import Collector, Listener
    from fxlab.collect.feed import (
        BookDelta,
        BookSnapshot,
        Event,
        Feed,
        Gap,
        Instrument,
        Quote,
        Subscription,
        Trade,
    )
    from fxlab.collect.receipt import Receipt
    from fxlab.collect.status import CollectorStatus, SymbolStatus
    from fxlab.config import Settings
    from fxlab.errors import FxlabError
    from fxlab.lab import Lab, connect, down, status, up
    from fxlab.replayer._clock import TimeSource
    from fxlab.replayer._player import ReplayBatch
    from fxlab.replayer.replay import Replay, replay
    from fxlab.sessions._catalog import SessionPage
    from fxlab.sessions.runs import Reproduction, SavedRun
    from fxlab.sessions.session import Session
    from fxlab.sweeper._cross_validation import SweepOverfitting
    from fxlab.sweeper._results import WalkForward
    from fxlab.sweeper._store import SavedSweep
    from fxlab.sweeper.sweep import Sweep, sweep
    from fxlab.sweeper.walk_forward import walk_forward

_HOMES: Final = {
    "Batch": "fxlab.batcher.batch:Batch",
    "BatchJob": "fxlab.batcher._jobs:BatchJob",
    "BookDelta": "fxlab.collect.feed:BookDelta",
    "BookSnapshot": "fxlab.collect.feed:BookSnapshot",
    "Bounds": "fxlab.backtester.strategy.strategy:Bounds",
    "Collector": "fxlab.collect.collector:Collector",
    "CollectorStatus": "fxlab.collect.status:CollectorStatus",
    "Comparison": "fxlab.backtester.compare:Comparison",
    "CostLadder": "fxlab.backtester.cost_ladder:CostLadder",
    "Endpoint": "fxlab._questdb.endpoint:Endpoint",
    "Event": "fxlab.collect.feed:Event",
    "Events": "fxlab.backtester.strategy.signals:Events",
    "Execution": "fxlab.backtester.execution:Execution",
    "Feed": "fxlab.collect.feed:Feed",
    "FrameSource": "fxlab.backtester._frame_source:FrameSource",
    "FxlabError": "fxlab.errors:FxlabError",
    "Gap": "fxlab.collect.feed:Gap",
    "ImportReport": "fxlab.collect._files.importer:ImportReport",
    "Instrument": "fxlab.collect.feed:Instrument",
    "Lab": "fxlab.lab:Lab",
    "Latency": "fxlab.backtester.execution:Latency",
    "Listener": "fxlab.collect.collector:Listener",
    "LookaheadReport": "fxlab.backtester.lookahead:LookaheadReport",
    "Metrics": "fxlab.backtester.metrics._performance:Metrics",
    "Night": "fxlab.batcher.nightly:Night",
    "Overfitting": "fxlab.backtester.metrics._overfitting:Overfitting",
    "Parameter": "fxlab.backtester.strategy.strategy:Parameter",
    "Quote": "fxlab.collect.feed:Quote",
    "Receipt": "fxlab.collect.receipt:Receipt",
    "Replay": "fxlab.replayer.replay:Replay",
    "ReplayBatch": "fxlab.replayer._player:ReplayBatch",
    "Reproduction": "fxlab.sessions.runs:Reproduction",
    "Result": "fxlab.backtester.result:Result",
    "RunOptions": "fxlab.backtester.options:RunOptions",
    "SavedRun": "fxlab.sessions.runs:SavedRun",
    "SavedSweep": "fxlab.sweeper._store:SavedSweep",
    "ServerStatus": "fxlab._questdb.server:ServerStatus",
    "Session": "fxlab.sessions.session:Session",
    "SessionPage": "fxlab.sessions._catalog:SessionPage",
    "Settings": "fxlab.config:Settings",
    "Signals": "fxlab.backtester.strategy.signals:Signals",
    "Strategy": "fxlab.backtester.strategy.strategy:Strategy",
    "Subscription": "fxlab.collect.feed:Subscription",
    "Sweep": "fxlab.sweeper.sweep:Sweep",
    "SweepOverfitting": "fxlab.sweeper._cross_validation:SweepOverfitting",
    "SymbolStatus": "fxlab.collect.status:SymbolStatus",
    "TimeSource": "fxlab.replayer._clock:TimeSource",
    "Trade": "fxlab.collect.feed:Trade",
    "WalkForward": "fxlab.sweeper._results:WalkForward",
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
    "Batch",
    "BatchJob",
    "BookDelta",
    "BookSnapshot",
    "Bounds",
    "Collector",
    "CollectorStatus",
    "Comparison",
    "CostLadder",
    "Endpoint",
    "Event",
    "Events",
    "Execution",
    "Feed",
    "FrameSource",
    "FxlabError",
    "Gap",
    "ImportReport",
    "Instrument",
    "Lab",
    "Latency",
    "Listener",
    "LookaheadReport",
    "Metrics",
    "Night",
    "Overfitting",
    "Parameter",
    "Quote",
    "Receipt",
    "Replay",
    "ReplayBatch",
    "Reproduction",
    "Result",
    "RunOptions",
    "SavedRun",
    "SavedSweep",
    "ServerStatus",
    "Session",
    "SessionPage",
    "Settings",
    "Signals",
    "Strategy",
    "Subscription",
    "Sweep",
    "SweepOverfitting",
    "SymbolStatus",
    "TimeSource",
    "Trade",
    "WalkForward",
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
