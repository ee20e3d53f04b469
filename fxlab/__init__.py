"""A Jupyter-first research workbench for tick data, on QuestDB.

>>> import fxlab
>>> lab = fxlab.connect()                                          # doctest: +SKIP
>>> session = lab.session("exec_20240808_235413_657c2dd6")         # doctest: +SKIP
>>> fxlab.backtest(session, "sma_cross", {"fast": 50}).report("out")  # doctest: +SKIP

Names load when they are first used: ``import fxlab`` stays cheap.
"""

from __future__ import annotations

import logging
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from fxlab._doctor import mend as mend
    from fxlab._log import enable_logging as enable_logging
    from fxlab._questdb.cache import FrameCache as FrameCache
    from fxlab._questdb.endpoint import Endpoint as Endpoint
    from fxlab._questdb.server import ServerStatus as ServerStatus
    from fxlab.backtester._frame_source import FrameSource as FrameSource
    from fxlab.backtester.compare import Comparison as Comparison, compare_runs as compare_runs
    from fxlab.backtester.compare import CostLadder as CostLadder, cost_ladder as cost_ladder
    from fxlab.backtester.engine import backtest as backtest
    from fxlab.backtester.execution import (
        Execution as Execution,
        Latency as Latency,
    )
    from fxlab.backtester.lookahead import (
        LookaheadReport as LookaheadReport,
        check_lookahead as check_lookahead,
    )
    from fxlab.backtester.metrics._overfitting import Overfitting as Overfitting
    from fxlab.backtester.metrics._performance import Metrics as Metrics
    from fxlab.backtester.options import (
        RunOptions as RunOptions,
        pip_size as pip_size,
        swap_rates as swap_rates,
        with_pips as with_pips,
    )
    from fxlab.backtester.result import Result as Result
    from fxlab.backtester.strategy import indicators as indicators
    from fxlab.backtester.strategy.signals import Events as Events, Signals as Signals
    from fxlab.backtester.strategy.strategy import (
        Bounds as Bounds,
        Parameter as Parameter,
        Strategy as Strategy,
        strategies as strategies,
        strategy as strategy,
    )
    from fxlab.batcher._jobs import BatchJob as BatchJob
    from fxlab.batcher.batch import Batch as Batch, batch as batch
    from fxlab.batcher.nightly import nightly as nightly
    from fxlab.collect._files.importer import ImportReport as ImportReport
    from fxlab.collect._config import Rollover as Rollover
    from fxlab.collect.collector import Collector as Collector, Listener as Listener
    from fxlab.collect.feed import (
        BookDelta as BookDelta,
        BookSnapshot as BookSnapshot,
        ChannelRow as ChannelRow,
        Event as Event,
        Feed as Feed,
        Gap as Gap,
        Instrument as Instrument,
        Quote as Quote,
        Refusal as Refusal,
        Subscription as Subscription,
        Trade as Trade,
    )
    from fxlab.collect.receipt import Receipt as Receipt
    from fxlab.collect.status import (
        CollectorStatus as CollectorStatus,
        SymbolStatus as SymbolStatus,
    )
    from fxlab.config import Settings as Settings
    from fxlab.errors import FxlabError as FxlabError
    from fxlab.lab import Lab as Lab, connect as connect, down as down, status as status, up as up
    from fxlab.replayer._cursor import ReplayBatch as ReplayBatch, TimeSource as TimeSource
    from fxlab.replayer.replay import Replay as Replay, replay as replay
    from fxlab.sessions._archive import backup as backup, restore as restore
    from fxlab.sessions._catalog import SessionPage as SessionPage
    from fxlab.sessions.runs import Reproduction as Reproduction, SavedRun as SavedRun
    from fxlab.sessions._statistics import Analysis as Analysis
    from fxlab.sessions._statistics import Quality as Quality
    from fxlab.sessions.session import Session as Session
    from fxlab.sweeper._cross_validation import SweepOverfitting as SweepOverfitting
    from fxlab.sweeper._results import Night as Night
    from fxlab.sweeper._store import SavedSweep as SavedSweep
    from fxlab.sweeper.sweep import Sweep as Sweep, sweep as sweep
    from fxlab.sweeper.walk_forward import WalkForward as WalkForward
    from fxlab.sweeper.walk_forward import walk_forward as walk_forward

_HOMES: Final = {
    name: module
    for module, names in {
        "fxlab._doctor": "mend",
        "fxlab._log": "enable_logging",
        "fxlab._questdb.cache": "FrameCache",
        "fxlab._questdb.endpoint": "Endpoint",
        "fxlab._questdb.server": "ServerStatus",
        "fxlab.backtester._frame_source": "FrameSource",
        "fxlab.backtester.compare": "Comparison CostLadder compare_runs cost_ladder",
        "fxlab.backtester.engine": "backtest",
        "fxlab.backtester.execution": "Execution Latency",
        "fxlab.backtester.lookahead": "LookaheadReport check_lookahead",
        "fxlab.backtester.metrics._overfitting": "Overfitting",
        "fxlab.backtester.metrics._performance": "Metrics",
        "fxlab.backtester.options": "RunOptions pip_size swap_rates with_pips",
        "fxlab.backtester.result": "Result",
        "fxlab.backtester.strategy": "indicators",
        "fxlab.backtester.strategy.signals": "Events Signals",
        "fxlab.backtester.strategy.strategy": "Bounds Parameter Strategy strategies strategy",
        "fxlab.batcher._jobs": "BatchJob",
        "fxlab.batcher.batch": "Batch batch",
        "fxlab.batcher.nightly": "nightly",
        "fxlab.collect._files.importer": "ImportReport",
        "fxlab.collect._config": "Rollover",
        "fxlab.collect.collector": "Collector Listener",
        "fxlab.collect.feed": (
            "BookDelta BookSnapshot ChannelRow Event Feed Gap Instrument Quote Refusal "
            "Subscription Trade"
        ),
        "fxlab.collect.receipt": "Receipt",
        "fxlab.collect.status": "CollectorStatus SymbolStatus",
        "fxlab.config": "Settings",
        "fxlab.errors": "FxlabError",
        "fxlab.lab": "Lab connect down status up",
        "fxlab.replayer._cursor": "ReplayBatch TimeSource",
        "fxlab.replayer.replay": "Replay replay",
        "fxlab.sessions._archive": "backup restore",
        "fxlab.sessions._catalog": "SessionPage",
        "fxlab.sessions.runs": "Reproduction SavedRun",
        "fxlab.sessions._statistics": "Analysis Quality",
        "fxlab.sessions.session": "Session",
        "fxlab.sweeper._cross_validation": "SweepOverfitting",
        "fxlab.sweeper._results": "Night",
        "fxlab.sweeper._store": "SavedSweep",
        "fxlab.sweeper.sweep": "Sweep sweep",
        "fxlab.sweeper.walk_forward": "WalkForward walk_forward",
    }.items()
    for name in names.split()
}

__all__ = sorted(["__version__", *_HOMES])  # noqa: PLE0605 - said once, above

logging.getLogger("fxlab").addHandler(logging.NullHandler())


def __getattr__(name: str) -> Any:  # noqa: ANN401 - the names are typed above
    if name == "__version__":
        return metadata.version("fxlab")
    if name not in _HOMES:
        raise AttributeError(f"module 'fxlab' has no attribute {name!r}")
    # As `from home import name` does, for a module in a package too.
    value = globals()[name] = getattr(__import__(_HOMES[name], fromlist=[name]), name)
    return value


def __dir__() -> list[str]:
    return __all__
