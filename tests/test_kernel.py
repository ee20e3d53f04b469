"""The kernel against an independent twin, against itself uncompiled, and against identities."""

from __future__ import annotations

import importlib.util
import sys

import numpy as np
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import markets, walk_with_targets
from twin import drawdown, replay_leg

import fxlab
from fxlab.backtester import compiled as decorator
from fxlab.backtester import kernel
from fxlab.backtester.engine import backtest

CAPITAL = 1_000.0
executions = st.builds(
    fxlab.Execution,
    taker_bps=st.sampled_from([0.0, 5.0, 100.0, -2.0]),
    slippage_bps=st.sampled_from([0.0, 3.0]),
    latency=st.sampled_from(["0s", "1us", "1ms", "2m"]),
)


def wanted() -> fxlab.Signals:
    """Follow the targets that the frame carries."""
    return fxlab.Signals(target=pl.col("wanted"), lookback=0)


def twin_legs(frame: pl.DataFrame, execution: fxlab.Execution, capital: float):
    symbols = frame["symbol"].unique(maintain_order=True).to_list()
    for symbol in symbols:
        rows = frame.filter(pl.col("symbol") == symbol)
        yield replay_leg(
            rows["timestamp"].to_physical().to_list(),
            rows["price"].to_list(),
            rows["wanted"].to_list(),
            capital=capital / len(symbols),
            fee=execution.taker_bps / 10_000,
            slippage=execution.slippage_bps / 10_000,
            latency=execution.latency_us,
        )


@settings(max_examples=300, deadline=None)
@given(frame=markets(), execution=executions)
def test_one_symbol_agrees_with_the_plain_twin(frame, execution):
    result = backtest(frame, wanted, execution=execution, capital=CAPITAL)
    (leg,) = twin_legs(frame, execution, CAPITAL)
    assert result.fills["timestamp"].to_physical().to_list() == [f.time for f in leg.fills]
    assert result.fills["decided_at"].to_physical().to_list() == [f.decided_at for f in leg.fills]
    assert result.fills["qty"].to_list() == pytest.approx([f.qty for f in leg.fills], rel=1e-9)
    assert result.fills["price"].to_list() == pytest.approx([f.price for f in leg.fills])
    assert result.fills["fee"].to_list() == pytest.approx([f.fee for f in leg.fills], abs=1e-9)
    assert result.metrics["final_equity"] == pytest.approx(leg.path[-1][1], abs=1e-9 * CAPITAL)
    start = [(0, CAPITAL)]
    assert result.metrics["max_drawdown"] == pytest.approx(drawdown(start + leg.path), abs=1e-9)


@settings(max_examples=100, deadline=None)
@given(frame=markets(max_rows=25, symbols=3), execution=executions)
def test_several_symbols_are_legs_of_equal_capital(frame, execution):
    result = backtest(frame, wanted, execution=execution, capital=CAPITAL)
    legs = list(twin_legs(frame, execution, CAPITAL))
    assert result.fills.height == sum(len(leg.fills) for leg in legs)
    final = sum(leg.path[-1][1] for leg in legs)
    assert result.metrics["final_equity"] == pytest.approx(final, abs=1e-9 * CAPITAL)


@settings(max_examples=100, deadline=None)
@given(
    frame=markets(symbols=2, max_rows=30),
    execution=executions,
    chunk_rows=st.sampled_from([1, 2, 7]),
)
def test_chunking_changes_no_bit(frame, execution, chunk_rows):
    whole = backtest(frame, wanted, execution=execution, capital=CAPITAL)
    parts = backtest(frame, wanted, execution=execution, capital=CAPITAL, chunk_rows=chunk_rows)
    assert parts.orders.equals(whole.orders)
    assert parts.trades.equals(whole.trades)
    assert parts.equity.equals(whole.equity)
    assert dict(parts.metrics) == pytest.approx(dict(whole.metrics), nan_ok=True, rel=0, abs=0)
    assert parts.fingerprint == whole.fingerprint


@settings(max_examples=100, deadline=None)
@given(frame=markets(), execution=executions)
def test_accounting_identities(frame, execution):
    result = backtest(frame, wanted, execution=execution, capital=CAPITAL)
    fills = result.fills
    cash = CAPITAL - (fills["qty"] * fills["price"] + fills["fee"]).sum()
    final = cash + fills["qty"].sum() * frame["price"][-1]
    assert result.metrics["final_equity"] == pytest.approx(final, abs=1e-7)
    # Every money made or lost stands in a round trip, the open one included.
    assert result.trades["pnl"].sum() == pytest.approx(final - CAPITAL, abs=1e-7)
    assert (fills["timestamp"] >= fills["decided_at"]).all()
    waited = (fills["timestamp"] - fills["decided_at"]).dt.total_microseconds()
    assert (waited >= execution.latency_us).all()


@settings(max_examples=60, deadline=None)
@given(frame=markets(), execution=executions)
def test_cash_never_goes_below_zero_without_shorts(frame, execution):
    long_only = frame.with_columns(pl.col("wanted").clip(lower_bound=0.0))
    fills = backtest(long_only, wanted, execution=execution, capital=CAPITAL).fills
    cash = CAPITAL - (fills["qty"] * fills["price"] + fills["fee"]).cum_sum()
    assert (cash >= -1e-9 * CAPITAL).all()


@settings(max_examples=60, deadline=None)
@given(frame=markets())
def test_a_flip_to_the_long_side_is_paid_from_what_closing_leaves(frame):
    execution = fxlab.Execution(taker_bps=50.0, slippage_bps=10.0)
    flips = frame.with_columns(pl.col("wanted").sign().replace(0.0, 1.0))
    result = backtest(flips, wanted, execution=execution, capital=CAPITAL)
    fills = result.fills.filter(pl.col("target") > 0, pl.col("equity") > 0)
    held = fills["position"] * fills["price"]
    assert (held <= fills["equity"] * (1 + 10.0 / 10_000) + 1e-6).all()


@settings(max_examples=60, deadline=None)
@given(frame=markets(), factor=st.sampled_from([2.0, 8.0, 0.5]))
def test_scaling_prices_and_capital_scales_money(frame, factor):
    one = backtest(frame, wanted, capital=CAPITAL)
    scaled = frame.with_columns(pl.col("price") * factor)
    other = backtest(scaled, wanted, capital=CAPITAL * factor)
    assert other.metrics["final_equity"] == pytest.approx(factor * one.metrics["final_equity"])
    assert other.fills["qty"].to_list() == pytest.approx(one.fills["qty"].to_list())


@settings(max_examples=60, deadline=None)
@given(frame=markets())
def test_fees_only_lower_equity_of_one_round_trip(frame):
    once = frame.with_columns(
        wanted=pl.when(pl.col("seq") == 0).then(1.0).when(pl.col("seq") == 5).then(0.0)
    )
    free = backtest(once, wanted, execution=fxlab.Execution(taker_bps=0.0), capital=CAPITAL)
    paid = backtest(once, wanted, execution=fxlab.Execution(taker_bps=20.0), capital=CAPITAL)
    assert paid.metrics["final_equity"] <= free.metrics["final_equity"] + 1e-9


def uncompiled_kernel():
    """Load the kernel's source again with the compiling decorator switched off."""
    spec = importlib.util.spec_from_file_location("plain_kernel", kernel.__file__)
    module = importlib.util.module_from_spec(spec)
    original = decorator.compiled
    decorator.compiled = lambda function: function
    try:
        spec.loader.exec_module(module)
    finally:
        decorator.compiled = original
        sys.modules.pop("plain_kernel", None)
    return module


@pytest.mark.parametrize("seed", [1, 2, 3])
def test_the_compiled_kernel_and_its_source_give_the_same_bits(seed, monkeypatch):
    frame = walk_with_targets(1_500, seed)
    execution = fxlab.Execution(taker_bps=3.0, slippage_bps=1.0, latency="20ms")
    compiled = backtest(frame, wanted, execution=execution)
    plain = uncompiled_kernel()
    for name in ("replay", "close"):
        monkeypatch.setattr(kernel, name, getattr(plain, name))
    twin = backtest(frame, wanted, execution=execution)
    assert compiled.fills.height > 300
    assert twin.orders.equals(compiled.orders)
    assert twin.trades.equals(compiled.trades)
    assert twin.equity.equals(compiled.equity)


def test_every_decision_is_accounted_for():
    frame = walk_with_targets(2_000, 11)
    result = backtest(frame, wanted, execution=fxlab.Execution(latency="300ms"))
    changes = frame["wanted"].drop_nulls()
    decisions = int((changes != changes.shift(1, fill_value=0.0)).sum())
    assert result.orders.height == decisions
    assert result.orders["status"].n_unique() >= 2
    assert result.fills.height == (result.orders["status"] == "filled").sum()


def test_an_order_on_the_last_tick_is_reported_unfilled():
    frame = walk_with_targets(10, 1).with_columns(wanted=pl.when(pl.col("seq") == 9).then(1.0))
    result = backtest(frame, wanted)
    assert result.orders["status"].to_list() == ["no tick left to fill at"]
    assert result.fills.is_empty()


def test_a_lost_account_trades_no_more_and_says_why():
    prices = [100.0, 100.0, 300.0, 300.0, 300.0, 300.0]
    frame = pl.DataFrame(
        {
            "timestamp": pl.Series(range(6)).cast(pl.Datetime("us", "UTC")),
            "price": prices,
            "wanted": [-1.0, None, 1.0, None, None, None],
        }
    )
    result = backtest(frame, wanted)
    assert result.metrics["final_equity"] < 0
    assert result.orders["status"].to_list() == ["filled", "no equity left"]


def test_first_bad_row_finds_each_kind_of_bad_row():
    time, seq = np.array([1, 1, 2]), np.array([1, 2, 1])
    good = np.array([1.0, 2.0, 3.0])
    assert kernel.first_bad_row(time, seq, good, 0, 0) == -1
    assert kernel.first_bad_row(time, np.array([1, 1, 1]), good, 0, 0) == 1
    assert kernel.first_bad_row(np.array([1, 2, 1]), seq, good, 0, 0) == 2
    for bad in (np.nan, np.inf, -1.0, 0.0):
        assert kernel.first_bad_row(time, seq, np.array([1.0, bad, 1.0]), 0, 0) == 1
    assert kernel.first_bad_row(time, seq, good, 5, 0) == 0
