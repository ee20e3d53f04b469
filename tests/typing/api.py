"""The public calls as users write them: checked by mypy, never run."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated, assert_type

import plotly.graph_objects as go
import polars as pl

import fxlab


@fxlab.strategy
def jump(*, window: Annotated[int, fxlab.Bounds(2, 10_000)] = 100) -> fxlab.Signals:
    """Follow a jump."""
    rise = pl.col("price") / pl.col("price").shift(window) - 1
    return fxlab.Signals(target=pl.when(rise > 0).then(1.0).otherwise(0.0), lookback=window)


def sessions() -> fxlab.Session:
    """Find and read a session."""
    assert_type(fxlab.up(), fxlab.ServerStatus)
    with fxlab.connect(progress=False) as lab:
        assert_type(lab, fxlab.Lab)
        assert_type(lab.sessions(symbol="BTC_USDT", limit=5), pl.DataFrame)
        assert_type(lab.import_files("data/", tags=["btc"]), fxlab.ImportReport)
        assert_type(lab.collect("binance", ["BTC_USDT"], duration="1h"), fxlab.Collector)
        assert_type(lab.verify("night"), fxlab.Receipt)
        assert_type(lab.run("exec_1"), fxlab.SavedRun)
        session = lab.session("exec_1")
        assert_type(
            session.prices("BTC_USDT", start=datetime(2025, 1, 1, tzinfo=UTC)), pl.DataFrame
        )
        assert_type(session.ohlcv("1m"), pl.DataFrame)
        return session


def runs(session: fxlab.Session, frame: pl.DataFrame) -> fxlab.Result:
    """Backtest, save, report, compare, replay."""
    execution = fxlab.Execution(taker_bps=5, latency=fxlab.Latency.lognormal("20ms", sigma=0.5))
    fxlab.backtest(frame, "sma_cross", {"fast": 5}, return_interval="1s", progress=None)
    result = fxlab.backtest(
        session, jump, {"window": 5}, symbols=["BTC_USDT"], execution=execution, capital=1_000
    )
    assert_type(result, fxlab.Result)
    assert_type(result.fills, pl.DataFrame)
    assert_type(fxlab.compare_runs([result, result]), fxlab.Comparison)
    assert_type(fxlab.cost_ladder(session, jump), fxlab.CostLadder)
    assert_type(fxlab.check_lookahead(session, jump), fxlab.LookaheadReport)
    for batch in fxlab.replay(session, speed=10, strategy="sma_cross"):
        assert_type(batch, fxlab.ReplayBatch)
    return result


def sweeps(session: fxlab.Session) -> go.Figure:
    """Sweep, judge and walk forward."""
    sweep = fxlab.sweep(session, "sma_cross", {"fast": [5, 10]}, start="2025-01-01", workers=2)
    assert_type(sweep, fxlab.Sweep)
    assert_type(sweep.table, pl.DataFrame)
    assert_type(sweep.result(0), fxlab.Result)
    assert_type(
        fxlab.walk_forward(session, "sma_cross", {"fast": [5]}, train="6h", test="1h"),
        fxlab.WalkForward,
    )
    return sweep.heatmap()


def mistakes(session: fxlab.Session) -> None:
    """Make the mistakes that type checkers find before anything runs."""
    fxlab.backtest(session, "sma_cross", capitol=1)  # type: ignore[call-arg]
    fxlab.backtest(session, "sma_cross", capital="much")  # type: ignore[arg-type]
    fxlab.sweep(session, "sma_cross")  # type: ignore[call-arg]
