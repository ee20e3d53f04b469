"""A result's frames, fingerprint and identity."""

from __future__ import annotations

import math
import re

import numpy as np
import polars as pl
import pytest
from markets import START, random_walk

import fxlab
from fxlab._times import from_micros
from fxlab.backtester.engine import backtest

PARAMETERS = {"fast": 5, "slow": 20}


@pytest.fixture(scope="module")
def result():
    return backtest(random_walk(3_000, seed=4), "sma_cross", PARAMETERS)


def test_the_run_says_what_it_ran(result):
    assert re.fullmatch(r"exec_\d{8}_\d{6}_[0-9a-f]{8}_backtest", result.run_id)
    assert result.parameters == {"fast": 5, "slow": 20, "allow_short": False}
    assert (result.strategy, result.data_session_id, result.ticks) == ("sma_cross", "frame", 3_000)
    assert "sma_cross(fast=5, slow=20" in repr(result)


def test_trades_are_the_fills_paired_up(result):
    fills, trades = result.fills, result.trades
    closed = trades.filter(pl.col("exited_at").is_not_null())
    entries = fills.filter(pl.col("qty") > 0).head(closed.height)
    exits = fills.filter(pl.col("qty") < 0)
    assert closed["entered_at"].to_list() == entries["timestamp"].to_list()
    assert closed["exited_at"].to_list() == exits["timestamp"].to_list()
    plain = -(exits["qty"] * exits["price"] + exits["fee"]) - (
        entries["qty"] * entries["price"] + entries["fee"]
    )
    assert closed["pnl"].to_list() == pytest.approx(plain.to_list())
    assert closed["fees"].to_list() == pytest.approx((entries["fee"] + exits["fee"]).to_list())
    assert set(trades["direction"]) == {"long"}


def test_excursions_are_the_extremes_while_the_trade_was_open(result):
    frame = random_walk(3_000, seed=4)
    for trade in result.trades.filter(pl.col("exited_at").is_not_null()).head(20).to_dicts():
        inside = frame.filter(
            pl.col("timestamp").is_between(trade["entered_at"], trade["exited_at"])
        )["price"]
        # Ticks that share the entry's or the exit's time may lie outside the trade.
        assert trade["mae"] >= inside.min() / trade["entry_price"] - 1 - 1e-12
        assert trade["mfe"] <= inside.max() / trade["entry_price"] - 1 + 1e-12
        assert trade["mae"] <= 0 <= trade["mfe"]


def test_equity_ends_at_the_metric_and_holds_the_exact_extremes(result):
    equity = result.equity
    assert equity["timestamp"].is_sorted()
    assert equity["timestamp"][-1] == result.last
    assert equity["equity"][-1] == result.metrics["final_equity"]
    assert equity["drawdown"].min() == pytest.approx(result.metrics["max_drawdown"], abs=1e-15)


def test_grid_returns_compound_to_the_total_return():
    frame = random_walk(3_000, seed=6)
    result = backtest(frame, "sma_cross", PARAMETERS, return_interval="1m", capital=500.0)
    twin_equity, returns = 500.0, []
    minute = frame["timestamp"].dt.truncate("1m")
    curve = backtest(frame, "sma_cross", PARAMETERS, return_interval="1s", capital=500.0).equity
    for edge in minute.unique(maintain_order=True):
        inside = curve.filter(
            pl.col("timestamp")
            <= edge.replace(second=0)
            + (frame["timestamp"][1] - frame["timestamp"][1])
            + pl.duration(minutes=1)
        )
        returns.append(inside["equity"][-1] / twin_equity - 1)
        twin_equity = inside["equity"][-1]
    assert np.prod(1 + np.array(returns)) * 500.0 == pytest.approx(result.metrics["final_equity"])
    mean, spread = np.mean(returns), np.std(returns, ddof=1)
    assert result.metrics["sharpe_per_period"] == pytest.approx(mean / spread, rel=1e-6)


def test_silent_intervals_return_zero():
    minute = 60_000_000
    frame = pl.DataFrame(
        {
            "timestamp": pl.Series([START, START + 1, START + 10 * minute]).cast(
                pl.Datetime("us", "UTC")
            ),
            "price": [100.0, 100.0, 110.0],
        }
    )
    free = fxlab.Execution(taker_bps=0.0)
    result = backtest(frame, "buy_and_hold", execution=free, capital=100.0)
    assert result.metrics.notes["sharpe_per_period"].endswith("n = 11")
    returns = np.array([0.0] * 10 + [0.1])
    assert result.metrics["sharpe_per_period"] == pytest.approx(
        returns.mean() / returns.std(ddof=1)
    )
    assert result.metrics["exposure"] == pytest.approx((10 * minute - 1) / (10 * minute))
    assert result.last == from_micros(START + 10 * minute)


def test_the_fingerprint_follows_what_decides_the_outcome():
    frame = random_walk(300)
    one = backtest(frame, "sma_cross", PARAMETERS).fingerprint
    assert backtest(frame, "sma_cross", PARAMETERS).fingerprint == one
    assert (
        backtest(frame.with_columns(volume=pl.lit(1.0)), "sma_cross", PARAMETERS).fingerprint == one
    )  # prices, times and seq were the same
    others = [
        backtest(frame, "sma_cross", {"fast": 6, "slow": 20}),
        backtest(frame.head(299), "sma_cross", PARAMETERS),
        backtest(frame, "sma_cross", PARAMETERS, capital=1.0),
        backtest(frame, "sma_cross", PARAMETERS, return_interval="2m"),
        backtest(frame, "sma_cross", PARAMETERS, execution=fxlab.Execution(latency="1us")),
        backtest(frame.with_columns(pl.col("price") + 0.01), "sma_cross", PARAMETERS),
        backtest(frame, "breakout"),
    ]
    fingerprints = {other.fingerprint for other in others}
    assert len(fingerprints) == len(others)
    assert one not in fingerprints


def test_prices_to_draw_keep_the_extremes(result):
    frame = random_walk(3_000, seed=4)
    drawn = result.prices
    assert drawn["price"].min() == frame["price"].min()
    assert drawn["price"].max() == frame["price"].max()
    assert drawn["timestamp"].is_sorted()


def test_a_run_without_a_trade_has_empty_frames_with_their_columns():
    frame = random_walk(30)
    result = backtest(frame, "sma_cross", {"fast": 100, "slow": 200})
    assert result.fills.is_empty()
    assert result.trades.is_empty()
    assert result.fills.columns[:2] == ["symbol", "timestamp"]
    assert result.metrics["final_equity"] == 10_000
    assert math.isnan(result.metrics["win_rate"])
    assert result.metrics["max_drawdown"] == 0.0


def test_a_single_tick_is_a_session_too():
    result = backtest(random_walk(1), "buy_and_hold")
    assert result.orders["status"].to_list() == ["no tick left to fill at"]
    assert math.isnan(result.metrics["exposure"])
    assert result.metrics.notes["exposure"] == "no time passed"
