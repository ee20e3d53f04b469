"""An account between chunks: how it opens, what it remembers, what it leaves behind."""

from __future__ import annotations

import numpy as np
import polars as pl
import pytest

from fxlab import Execution, Latency, Signals
from fxlab.backtester._kernel import records
from fxlab.backtester._market_arrays import market_arrays
from fxlab.backtester._state import KernelState

START = 1_735_689_600_000_000  # 2025-01-01T00:00:00Z
SECOND = 1_000_000
FREE = Execution(taker_bps=0.0)


def decided(targets):
    none = (np.nan,) * 4
    return np.array([(row, target, *none) for row, target in targets.items()], records.DECISION)


def rows(prices, targets=None, first=0, **columns):
    """Return rows of one leg, a second apart."""
    prices = np.array(prices, float)
    time = START + SECOND * (first + np.arange(len(prices), dtype=np.int64))
    market = market_arrays(1, time, np.zeros(len(prices), np.int64), prices, **columns)
    return market, decided(targets or {})


def opened(execution=FREE, symbols=("A",), capital=1_000.0, interval=60 * SECOND, **more):
    return KernelState.open(symbols, capital, execution, interval, **more)


def test_legs_share_the_capital_evenly():
    ledger = opened(symbols=("A", "B", "C"))
    assert ledger.legs["cash"].tolist() == [1_000 / 3] * 3
    assert ledger.equity == sum(ledger.legs["equity"].tolist())
    assert ledger.account["peak"] == ledger.equity
    assert ledger.legs["number"].tolist() == [0, 1, 2]
    assert ledger.positions.tolist() == [0.0, 0.0, 0.0]


def test_or_they_trade_one_account():
    ledger = opened(Execution(shared_cash=True), symbols=("A", "B"))
    assert ledger.account["base"] == ledger.equity == 1_000.0
    assert not ledger.legs["cash"].any()


def test_steps_and_delays_are_those_of_each_symbol():
    execution = Execution(
        lot_size={"B": 0.5}, tick_size=0.01, latency=Latency.samples(["1ms", "2ms"], seed=1)
    )
    ledger = opened(execution, symbols=("A", "B"))
    assert ledger.legs["lot_size"].tolist() == [0.0, 0.5]
    assert ledger.legs["tick_size"].tolist() == [0.01, 0.01]
    assert ledger.delays.tobytes() == execution.delays.table(("A", "B")).tobytes()
    assert ledger.terms["draws"] == ledger.delays.shape[1]


def test_constants_of_the_strategy_reach_the_kernel():
    assert opened().terms[0]["max_holding"] == -1
    signals = Signals(pl.lit(1.0), max_holding="3s", cooldown="2s", reentry="signal")
    (terms,) = opened(signals=signals).terms
    assert [terms[name] for name in ("max_holding", "cooldown", "reenter")] == [
        3 * SECOND,
        2 * SECOND,
        1,
    ]
    (plain,) = opened(signals=Signals(pl.lit(1.0))).terms
    assert [plain[name] for name in ("max_holding", "cooldown", "reenter")] == [-1, 0, 0]


def test_a_buy_by_hand():
    # 1,000 at 100, fee 1 %: 1,000 / (100 * 1.01) units; they are worth 110 each at the end.
    ledger = opened(Execution(taker_bps=100.0))
    ledger.replay(*rows([99.0, 100.0, 110.0], {0: 1.0}))
    qty = 1_000 / 101
    assert ledger.rows == 3
    assert ledger.positions.tolist() == [pytest.approx(qty)]
    assert ledger.equity == pytest.approx(110 * qty)
    found = ledger.close()
    assert (found.first, found.last, found.rows) == (START, START + 2 * SECOND, 3)
    (fill,) = found.fills
    assert (fill["time"], fill["price"], fill["fee"]) == (START + SECOND, 100, pytest.approx(qty))
    (trade,) = found.trades
    assert trade["exited_at"] == records.STILL_OPEN
    assert trade["pnl"] == pytest.approx(110 * qty - 1_000)
    (sample,) = found.samples
    assert (sample["time"], sample["equity"]) == (START + 60 * SECOND, ledger.equity)


def test_an_order_meets_the_book_of_an_earlier_chunk():
    book = np.zeros(1, records.BOOK)
    book["time"] = START
    for name in ("bid_price", "bid_qty", "ask_price", "ask_qty"):
        book[name] = np.nan
    book["bid_price"][0, 0], book["bid_qty"][0, 0] = 99.0, 1e6
    book["ask_price"][0, 0], book["ask_qty"][0, 0] = 101.0, 1e6
    ledger = opened(Execution(fill="book", taker_bps=0.0, max_book_age="2s"))
    no_books = {"book": np.full(1, -1)}
    ledger.replay(*rows([np.nan], book=np.zeros(1, np.int64), books=book))
    book["ask_price"][:] = 0.5  # its memory may be used again
    ledger.replay(*rows([100.0], {0: 1.0}, first=1))
    ledger.replay(*rows([100.0], {0: 0.0}, first=2, **no_books))
    ledger.replay(*rows([100.0], first=3))
    found = ledger.close()
    assert found.fills["price"].tolist() == [101.0, 99.0]
    stale = opened(Execution(fill="book", max_book_age="500ms"))
    stale.replay(*rows([100.0, 100.0], {0: 1.0}, first=1))
    assert stale.close().orders["status"].tolist() == [records.STALE_BOOK]


def test_new_fills_are_told_once_and_kept():
    ledger = opened()
    assert not len(ledger.new_fills())
    ledger.replay(*rows([100.0] * 4, {0: 1.0, 2: 0.0}))
    assert ledger.new_fills()["position"].tolist() == [10.0, 0.0]
    assert not len(ledger.new_fills())
    ledger.replay(*rows([100.0] * 2, {0: 0.5}, first=4))
    assert ledger.new_fills()["position"].tolist() == [5.0]
    assert len(ledger.close().fills) == 3


def test_no_rows_change_nothing():
    ledger = opened()
    ledger.replay(*rows([]))
    assert (ledger.first, ledger.rows) == (None, 0)
    ledger.replay(*rows([100.0], {0: 1.0}))
    ledger.replay(*rows([], first=1))
    assert (ledger.first, ledger.rows) == (START, 1)


def test_one_sample_an_interval_with_ticks_in_it():
    ledger = opened(interval=10 * SECOND)
    for first, price in ((0, 100.0), (5, 100.0), (12, 120.0), (95, 130.0), (96, 140.0)):
        ledger.replay(*rows([price], {0: 1.0} if first == 0 else None, first=first))
    found = ledger.close()
    assert ((found.samples["time"] - START) // SECOND).tolist() == [10, 20, 100]
    assert found.samples["equity"].tolist() == [1_000.0, 1_200.0, 1_400.0]


def test_small_chunks_hold_no_large_arrays():
    ledger = opened()
    for second in range(50):
        ledger.replay(*rows([100.0], {0: float(second % 2)}, first=second))
    for parts in ledger.written.values():
        assert (
            sum(part.base.nbytes if part.base is not None else part.nbytes for part in parts)
            < 20_000
        )


def test_copies_of_positions_are_the_callers():
    ledger = opened()
    ledger.positions[0] = 5.0
    assert ledger.positions.tolist() == [0.0]
