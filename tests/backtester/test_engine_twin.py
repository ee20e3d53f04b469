"""The engine agrees with its twin on generated markets, and gives the same bits however it is fed.

The markets have everything: gaps, equal timestamps, one to three symbols, trades, books with
missing levels and sides, quotes, every kind of order and exit, every cost and rule.
"""

from __future__ import annotations

from dataclasses import replace
from itertools import pairwise, zip_longest

import polars as pl
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from markets import START, Recording, long_recording, queues, recordings
from twin_feed import replay_recording
from twin_market import Flag, Reason, Status

import fxlab
from fxlab._times import to_micros
from fxlab.backtester._frame_source import FrameSource
from fxlab.backtester._market_arrays import part
from fxlab.backtester.engine import prepare
from fxlab.backtester.execution import Latency
from fxlab.backtester.options import RunOptions
from fxlab.backtester.result import FLAG_NAMES, REASON_NAMES, STATUS_NAMES, Result

CAPITAL = 1_000.0
STATUS = {text: number for number, text in STATUS_NAMES.items()}
REASON = {text: number for number, text in REASON_NAMES.items()}
FLAG = {text: bit for bit, text in FLAG_NAMES.items()}
KINDS = ("trades", "books", "quotes", "quotes at the mid")

slow = settings(deadline=None, suppress_health_check=list(HealthCheck))


# ---- What is drawn ----


@st.composite
def fundings(draw):
    moments = draw(
        st.lists(
            st.sampled_from([0, 1, 500, 999_999, 1_000_000, 3_000_000, 90_000_000]), unique=True
        )
    )
    if not moments:
        return None
    rates = [draw(st.sampled_from([-0.01, 0.0003, 0.02])) for _ in moments]
    times = pl.Series("timestamp", [START + moment for moment in moments])
    frame = pl.DataFrame([times.cast(pl.Datetime("us", "UTC")), pl.Series("rate", rates)])
    if draw(st.booleans()):
        frame = frame.select(
            "timestamp", rate_long=pl.col("rate"), rate_short=pl.col("rate") * 2 + 0.001
        )
    if draw(st.booleans()):
        frame = frame.with_columns(symbol=pl.lit(draw(st.sampled_from(["S0", "S1"]))))
    return frame


latencies = st.sampled_from(
    [
        "0s",
        "0s",
        "1us",
        "1ms",
        "2m",
        Latency.samples(["0s", "1us", "2ms", "1s"], seed=3),
        Latency.lognormal("1ms", 2.0, seed=1),
        Latency.measured(),
    ]
)


@st.composite
def executions(draw, *, book=False, **fixed):
    """Draw costs and rules, mostly few at a time."""

    def some(*values):
        return draw(st.sampled_from((values[0], *values)))

    def either():
        return draw(st.booleans())

    drawn = {
        "fill": "book" if book else "next_trade",
        "taker_bps": some(5.0, 0.0, 130.0, -2.0),
        "maker_bps": some(None, 0.0, 30.0, -7.0),
        "slippage_bps": some(0.0, 3.0, 90.0),
        "impact_bps": some(0.0, 40.0),
        "impact_notional": 3_000.0,
        "latency": draw(latencies),
        "max_book_age": some("1ms", "5s", "41ms", None),
        "beyond_depth": draw(st.sampled_from(("cancel", "last_level"))),
        "touch": either(),
        "queue": book and either(),
        "lot_size": some(0.0, 0.37, {"S0": 7.0, "S1": 0.01}),
        "min_notional": some(0.0, 203.7),
        "fee_per_order": some(0.0, 1.7, {"S1": 90.0}),
        "fee_per_unit": some(0.0, 0.03, {"S0": 0.7}),
        "min_fee": some(0.0, 2.1, {"S0": 40.0}),
        "tick_size": some(0.0, 0.1, {"S0": 0.25, "S2": 0.5}),
        "max_leverage": some(1.0, 3.0, 2.0),
        "maintenance_margin": some(0.0, 0.1377, 0.4813),
        "liquidation_bps": some(0.0, 70.0),
        "funding": draw(fundings()),
        "rebalance": some(None, 0.0137, 0.1377),
        "across_gaps": either(),
        "close_at_end": either(),
        "shared_cash": either(),
    }
    return fxlab.Execution(**drawn | fixed)


constants_of_strategies = st.fixed_dictionaries(
    {
        "max_holding": st.sampled_from([None, None, "1us", "1s", "150s"]),
        "cooldown": st.sampled_from(["0s", "0s", "1us", "1s", "100s"]),
        "reentry": st.sampled_from(["change", "change", "signal"]),
    }
)


@st.composite
def cases(draw, kinds=KINDS):
    """Draw a market, costs and rules, and a strategy's constants."""
    kind = draw(st.sampled_from(kinds))
    execution = draw(executions(book=kind in {"books", "quotes"}))
    recording = draw(recordings(kind=kind.split()[0], max_leverage=execution.max_leverage))
    return recording, execution, draw(constants_of_strategies)


# ---- Both run ----


def source_of(recording: Recording) -> FrameSource:
    return FrameSource(recording.ticks, books=recording.books, gaps=recording.gaps)


def strategy_of(constants):
    def wanted() -> fxlab.Signals:
        """Follow the columns that the frame carries."""
        return fxlab.Signals(
            target=pl.col("wanted"),
            stop_loss=pl.col("stop"),
            take_profit=pl.col("take"),
            trailing_stop=pl.col("trail"),
            limit=pl.col("limit"),
            lookback=0,
            **constants,
        )

    return wanted


def run_engine(recording, execution, constants, *, capital=CAPITAL, chunk_rows=None):
    return fxlab.backtest(
        source_of(recording),
        strategy_of(constants),
        symbols=recording.symbols,
        execution=execution,
        capital=capital,
        chunk_rows=chunk_rows,
    )


def prepared(recording, execution, constants):
    return prepare(
        source_of(recording),
        strategy_of(constants),
        None,
        RunOptions(symbols=recording.symbols, execution=execution, capital=CAPITAL),
    )


def run_both(recording, execution, constants):
    job = prepared(recording, execution, constants)
    for market, chunks in job.market():
        job.state.replay(market, job.decisions(chunks))
    interval = int(job.state.terms[0]["interval"])
    twin = replay_recording(recording, execution, constants, capital=CAPITAL, interval=interval)
    return job.finish(), twin


# ---- And are compared ----


def close(value):
    return pytest.approx(value, rel=1e-9, abs=1e-9, nan_ok=True)


def in_micros(frame):
    times = pl.col(pl.Datetime("us", "UTC"))
    return frame.with_columns(times.cast(pl.Int64)).rows(named=True)


def or_nan(price):
    return float("nan") if price is None else price


def orders_of_engine(result: Result):
    return [
        (
            (row["done_at"], row["symbol"], row["decided_at"], row["ready_at"]),
            (STATUS[row["status"]], REASON[row["reason"]]),
            (row["target"], or_nan(row["price"]), row["qty"], row["fee"], row["position"]),
        )
        for row in in_micros(result.orders)
    ]


def orders_of_twin(twin):
    return [
        (
            (order.done_at, order.leg, order.decided_at, order.ready_at),
            (int(order.status), int(order.reason)),
            (
                order.target,
                or_nan(order.price),
                order.qty,
                order.fee,
                order.position,
            ),
        )
        for order in twin.orders
    ]


def fills_of_engine(result: Result):
    return [
        (
            (row["timestamp"], row["symbol"], row["decided_at"]),
            (REASON[row["reason"]], row["liquidity"] == "maker"),
            sum(FLAG[name] for name in row["flags"].split(", ") if name),
            (row["target"], row["price"], row["qty"], row["fee"], row["position"]),
        )
        for row in in_micros(result.fills)
    ]


def fills_of_twin(twin):
    return [
        (
            (fill.time, fill.leg, fill.decided_at),
            (int(fill.reason), fill.maker),
            int(fill.flags),
            (fill.target, fill.price, fill.qty, fill.fee, fill.position),
        )
        for fill in twin.fills
    ]


def trades_of_engine(result: Result):
    return [
        (
            (row["symbol"], row["direction"], row["entered_at"], row["exited_at"]),
            REASON[row["exit_reason"]],
            tuple(row[name] for name in ("qty", "entry_price", "exit_price")),
            tuple(row[name] for name in ("fees", "funding", "pnl", "mae", "mfe")),
        )
        for row in in_micros(result.trades)
    ]


def trades_of_twin(twin):
    return [
        (
            (
                trade.leg,
                "long" if trade.direction > 0 else "short",
                trade.entered_at,
                trade.exited_at,
            ),
            int(trade.reason or 0),
            (trade.qty, trade.entry_price, trade.exit_price),
            (trade.fees, trade.funding, trade.pnl, *excursions(trade)),
        )
        for trade in twin.trades
    ]


def excursions(trade):
    ways = [(price / trade.entry_price - 1) * trade.direction for price in (trade.low, trade.high)]
    return min(*ways, 0.0), max(*ways, 0.0)


def by_time(entry):
    """Return time and symbol: legs that act at one row may be written down in any order."""
    return entry[0][:2]


def assert_same(mine, theirs):
    """Compare lists of tuples of exact things and of tuples of numbers, one by one."""
    for one, other in zip_longest(mine, theirs):
        assert exact(one) == exact(other)
        assert numbers(one) == close(numbers(other)), (one, other)


def exact(entry):
    return entry and [part for part in entry if not is_numbers(part)]


def numbers(entry):
    return [value for part in entry if is_numbers(part) for value in part]


def is_numbers(part):
    return isinstance(part, tuple) and all(isinstance(value, float) for value in part)


def assert_samples(result: Result, twin):
    points = [(row["timestamp"], row["equity"]) for row in in_micros(result.equity)]
    assert len(points) == len(twin.samples) + 3  # the first row; the ends of the deepest drawdown
    last = int(result.last.timestamp() * 1_000_000 + 0.5)
    for time, equity in twin.samples:
        found = [value for at, value in points if at == min(time, last)]
        assert any(value == close(equity) for value in found), (time, equity, found)


def check(recording, execution, constants):
    result, twin = run_both(recording, execution, constants)
    assert_same(
        sorted(fills_of_engine(result), key=by_time), sorted(fills_of_twin(twin), key=by_time)
    )
    assert_same(
        sorted(orders_of_engine(result), key=by_time), sorted(orders_of_twin(twin), key=by_time)
    )
    assert_same(trades_of_engine(result), trades_of_twin(twin))
    assert_samples(result, twin)
    assert result.metrics["final_equity"] == close(twin.equity)
    assert result.metrics["max_drawdown"] == close(twin.max_drawdown)
    assert result.metrics["ruined_after"] == close(seconds_until(twin.ruined_at, result))
    return twin


def seconds_until(moment, result):
    if moment is None:
        return float("nan")
    return (moment - to_micros(result.first)) / 1e6


def seen_in(twin):
    """Return the names of the statuses, reasons and flags that a run had."""
    kinds = [flag for fill in twin.fills for flag in fill.flags]
    for order in twin.orders:
        kinds += [order.status, order.reason]
    return {repr(kind) for kind in kinds}


def test_engine_and_twin_agree_on_markets_with_everything():
    seen = set()

    @settings(slow, max_examples=500)
    @given(case=cases())
    def agree(case):
        seen.update(seen_in(check(*case)))

    everything = {*map(repr, (*Status, *Reason, *Flag))}
    rare = {repr(Status.NO_EQUITY)}  # after a ruin only: has tests of its own
    for _ in range(4):  # 500 markets may lack what is nearly as rare
        agree()
        if seen | rare == everything:
            break
    assert seen | rare == everything  # nothing was left out of the comparison


def test_engine_and_twin_agree_on_queues():
    parts = []

    @settings(slow, max_examples=150)
    @given(recording=queues(), maker=st.sampled_from([None, -1.0, 30.0]))
    def agree(recording, maker):
        execution = fxlab.Execution(fill="book", queue=True, maker_bps=maker)
        twin = check(recording, execution, {})
        parts.append(sum(fill.maker for fill in twin.fills))

    agree()
    assert {0, 1, 2} <= set(parts)  # orders that wait, fill at once, fill in parts


@st.composite
def long_cases(draw):
    kind = draw(st.sampled_from(KINDS))
    execution = draw(executions(book=kind in {"books", "quotes"}))
    recording = long_recording(
        draw(st.integers(0, 10**9)),
        kind=kind.split()[0],
        legs=draw(st.integers(1, 3)),
        rows=draw(st.sampled_from([70, 300, 900])),
        max_leverage=execution.max_leverage,
    )
    return recording, execution, draw(constants_of_strategies)


@settings(slow, max_examples=50)
@given(case=long_cases())
def test_engine_and_twin_agree_on_long_quiet_markets(case):
    check(*case)


# ---- However it is fed ----


def assert_same_bits(one: Result, other: Result):
    for name in ("orders", "fills", "trades", "equity"):
        assert getattr(one, name).equals(getattr(other, name)), name
    assert one.fingerprint == other.fingerprint
    assert repr(dict(one.metrics)) == repr(dict(other.metrics))


def run_in_parts(recording, execution, constants, *, cuts=(), leap=True):
    """Replay with the rows cut anywhere, and with or without leaps over quiet rows."""
    job = prepared(recording, execution, constants)
    job.state.terms["leap"] = leap
    for market, chunks in job.market():
        decisions, count = job.decisions(chunks), len(market.time)
        edges = [0, *sorted({cut % count for cut in cuts} - {0}), count]
        for first, last in pairwise(edges):
            job.state.replay(*part(market, decisions, first, last))
    return job.finish()


@settings(slow, max_examples=40)
@given(case=cases(), chunk_rows=st.sampled_from([1, 2, 7]))
def test_chunks_change_no_bit(case, chunk_rows):
    assert_same_bits(run_engine(*case), run_engine(*case, chunk_rows=chunk_rows))


@settings(slow, max_examples=25)
@given(case=long_cases(), cuts=st.lists(st.integers(0, 10**6), max_size=9))
def test_neither_cuts_nor_leaps_change_a_bit(case, cuts):
    whole = run_engine(*case)
    assert_same_bits(whole, run_in_parts(*case, cuts=cuts))
    assert_same_bits(whole, run_in_parts(*case, leap=False))
    assert_same_bits(whole, run_in_parts(*case, cuts=cuts, leap=False))


# ---- Accounting ----


@settings(slow, max_examples=50)
@given(case=cases())
def test_every_money_made_or_lost_stands_in_a_round_trip(case):
    recording, execution, constants = case
    result = run_engine(recording, execution, constants)
    final = result.metrics["final_equity"]
    trades, fills = result.trades, result.fills
    assert final == close(CAPITAL + trades["pnl"].sum())
    assert trades["fees"].sum() == close(fills["fee"].sum())
    # And the other way round: cash by the fills, positions at their last prices.
    cash = CAPITAL - (fills["qty"] * fills["price"] + fills["fee"]).sum() - trades["funding"].sum()
    held = fills.group_by("symbol").agg(pl.col("qty").sum())
    last = last_prices(recording)
    assert final == close(cash + sum(qty * last[symbol] for symbol, qty in held.rows()))
    waited = result.orders["ready_at"] - result.orders["decided_at"]
    assert (waited.dt.total_microseconds() >= 0).all()
    assert (fills["timestamp"] >= fills["decided_at"]).all()


def last_prices(recording):
    ticks = recording.ticks
    price = pl.col("price")
    if "price" not in ticks.columns:
        ticks = ticks.filter(pl.col("bid_price_1") <= pl.col("ask_price_1"))
        price = ((pl.col("bid_price_1") + pl.col("ask_price_1")) / 2).alias("price")
    return dict(ticks.group_by("symbol", maintain_order=True).agg(price.last()).rows())


@settings(slow, max_examples=40)
@given(case=cases(), factor=st.sampled_from([2.0, 64.0, 0.5]))
def test_scaling_prices_scales_money_to_the_bit(case, factor):
    recording, execution, constants = case
    scaled = replace(
        recording,
        ticks=scale_prices(recording.ticks, factor),
        books=None if recording.books is None else scale_prices(recording.books, factor),
    )
    dearer = replace(
        execution,
        tick_size=scale(execution.tick_size, factor),
        min_notional=scale(execution.min_notional, factor),
        fee_per_order=scale(execution.fee_per_order, factor),
        fee_per_unit=scale(execution.fee_per_unit, factor),
        min_fee=scale(execution.min_fee, factor),
        impact_notional=execution.impact_notional * factor,
    )
    one = run_engine(recording, execution, constants)
    other = run_engine(scaled, dearer, constants, capital=CAPITAL * factor)
    exact = ("symbol", "status", "reason", "decided_at", "ready_at", "done_at", "target", "qty")
    assert other.orders.select(exact).equals(one.orders.select(exact))
    money = pl.col("price", "fee", "equity") * factor
    assert other.fills.equals(one.fills.with_columns(money))
    amounts = pl.col("entry_price", "exit_price", "fees", "funding", "pnl") * factor
    assert other.trades.equals(one.trades.with_columns(amounts))
    assert other.metrics["final_equity"] == one.metrics["final_equity"] * factor


def scale(value, factor):
    if isinstance(value, dict):
        return {symbol: step * factor for symbol, step in value.items()}
    return value * factor


def scale_prices(frame, factor):
    names = [name for name in frame.columns if name in {"price", "limit"} or "_price_" in name]
    return frame.with_columns(pl.col(names) * factor)


@settings(slow, max_examples=60)
@given(
    recording=recordings(kind="trades", legs=1),
    taker=st.sampled_from([0.0, 5.0, 130.0]),
    more=st.sampled_from([1.0, 50.0, 300.0]),
)
def test_fees_only_lower_equity_where_they_change_no_decision(recording, taker, more):
    """Long and flat, without exits that prices trigger: the same fills, each with less money."""
    ticks = recording.ticks.with_columns(
        pl.col("wanted").clip(0.0, 1.0).round(), limit=None, stop=None, take=None, trail=None
    ).cast(dict.fromkeys(("limit", "stop", "take", "trail"), pl.Float64))
    plain = replace(recording, ticks=ticks)
    one, other = (
        run_engine(plain, fxlab.Execution(taker_bps=bps), {}) for bps in (taker, taker + more)
    )
    assert other.fills["timestamp"].equals(one.fills["timestamp"])
    assert other.metrics["final_equity"] <= one.metrics["final_equity"] * (1 + 1e-12)
    if one.fills.height:
        assert other.metrics["final_equity"] < one.metrics["final_equity"]
