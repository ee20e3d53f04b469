"""From records to frames: names for numbers, null for none."""

from __future__ import annotations

from datetime import UTC, datetime

import numpy as np
import polars as pl
import pytest

from fxlab.backtester import result
from fxlab.backtester._kernel import records
from fxlab.backtester._state import Records

MINUTE = 60_000_000
START = 1_735_689_600_000_000  # 2025-01-01T00:00:00Z


def made(kind, *rows):
    """Return records of a kind; fields that are not named are zero."""
    found = np.zeros(len(rows), kind)
    for number, row in enumerate(rows):
        for name, value in row.items():
            found[number][name] = value
    return found


def kept(**arrays):
    """Return what a replay leaves behind, of these arrays."""
    kinds = {
        "orders": records.ORDER,
        "fills": records.FILL,
        "trades": records.TRADE,
        "samples": records.SAMPLE,
        "legs": records.LEG,
    }
    account = np.zeros(1, records.ACCOUNT)
    account["ruined_at"] = records.NEVER
    for name, value in arrays.pop("account", {}).items():
        account[name] = value
    times = {"first": START, "last": START + 3 * MINUTE, "rows": 9} | {
        name: arrays.pop(name) for name in ("first", "last") if name in arrays
    }
    found = {name: made(kind, *arrays.get(name, ())) for name, kind in kinds.items()}
    return Records(**times, **found, account=account[0])


def constants(*names):
    return {getattr(records, name) for name in names}


def test_every_number_of_the_kernel_has_a_name():
    statuses = "FILLED REPLACED UNCHANGED NO_EQUITY OPEN PARTLY_REPLACED FILLED_IN_PART STALE_BOOK"
    others = "NO_LIQUIDITY GAP TOO_SMALL NO_MARGIN COOLING_DOWN BAD_BOOK"
    assert set(result.STATUS_NAMES) == constants(*statuses.split(), *others.split())
    reasons = "SIGNAL STOP_LOSS TAKE_PROFIT TRAILING_STOP MAX_HOLDING LIQUIDATION REBALANCE END"
    assert set(result.REASON_NAMES) == {0} | constants(*reasons.split())
    flags = constants("PARTIAL", "BEYOND_DEPTH", "ACROSS_GAP", "CUT_BY_LEVERAGE")
    assert set(result.FLAG_NAMES) == flags


def test_orders_say_what_became_of_them():
    rows = [
        {"leg": number % 2, "status": number, "reason": 1 + number % 8, "price": np.nan}
        for number in result.STATUS_NAMES
    ]
    rows[0] |= {"price": 2.5, "qty": -3.0, "decided_at": START, "done_at": START + 1}
    frame = result.orders_table(kept(orders=rows), ("A", "B"))
    assert frame["status"].to_list() == list(result.STATUS_NAMES.values())
    assert frame["reason"].to_list() == [result.REASON_NAMES[row["reason"]] for row in rows]
    assert frame["symbol"].to_list() == ["AB"[row["leg"]] for row in rows]
    assert frame["price"].to_list() == [2.5] + [None] * 13
    assert frame["decided_at"][0] == datetime(2025, 1, 1, tzinfo=UTC)
    assert (frame["done_at"][0] - frame["decided_at"][0]).microseconds == 1


def test_fills_say_how_they_came_about():
    rows = [{"flags": bits, "maker": bits % 2, "reason": 2, "time": START} for bits in range(16)]
    frame = result.fills_table(made(records.FILL, *rows), ("A",))
    texts = frame["flags"].to_list()
    assert texts[:4] == ["", "partial", "beyond_depth", "partial, beyond_depth"]
    assert texts[15] == "partial, beyond_depth, across_gap, cut_by_leverage"
    assert frame["liquidity"].to_list() == ["taker", "maker"] * 8
    assert frame["reason"].unique().to_list() == ["stop_loss"]
    assert frame["timestamp"][0] == datetime(2025, 1, 1, tzinfo=UTC)


def test_round_trips_long_and_short():
    long = {
        "leg": 0,
        "direction": 1,
        "reason": 3,
        "entered_at": START,
        "exited_at": START + 1_500_000,
        "qty": 2.0,
        "entry_price": 100.0,
        "exit_price": 110.0,
        "pnl": 20.0,
        "low": 95.0,
        "high": 112.0,
    }
    short = long | {"leg": 1, "direction": -1, "exited_at": -1, "reason": 0, "pnl": -20.0}
    frame = result.trades_table(kept(trades=[long, short]), ("A", "B"))
    assert frame["symbol"].to_list() == ["A", "B"]
    assert frame["direction"].to_list() == ["long", "short"]
    assert frame["exit_reason"].to_list() == ["take_profit", ""]
    assert frame["duration_seconds"].to_list() == [1.5, None]
    assert frame["exited_at"].null_count() == 1
    assert frame["return"].to_list() == pytest.approx([0.1, -0.1])
    assert frame["mae"].to_list() == pytest.approx([-0.05, -0.12])
    assert frame["mfe"].to_list() == pytest.approx([0.12, 0.05])


def test_nothing_is_a_frame_without_rows_but_with_types():
    nothing = kept()
    for frame in (
        result.orders_table(nothing, ("A",)),
        result.fills_table(nothing.fills, ("A",)),
        result.trades_table(nothing, ("A",)),
    ):
        assert frame.is_empty()
        assert frame.schema["symbol"] == pl.String
        assert frame.schema["qty"] == pl.Float64


def samples(*pairs):
    return [{"time": START + int(minutes * MINUTE), "equity": value} for minutes, value in pairs]


def test_returns_stand_on_a_grid_and_empty_intervals_return_zero():
    # Samples close their intervals; minute 2 to 3 had no tick.
    found = kept(samples=samples((0.5, 101.0), (1, 110.0), (2, 99.0), (4, 198.0)))
    returns = result.interval_returns(found, 100.0, MINUTE)
    assert returns.tolist() == pytest.approx([0.1, -0.1, 0.0, 1.0])


def test_the_grid_is_that_of_the_clock_not_of_the_first_tick():
    found = kept(samples=samples((1, 110.0), (2, 121.0)), first=START + MINUTE // 2)
    assert result.interval_returns(found, 100.0, MINUTE).tolist() == pytest.approx([0.1, 0.1])


@pytest.mark.parametrize(
    ("equities", "ruined_minute", "expected"),
    [
        ((0.0, 0.0, 5.0), 0.5, [-1, 0, 0]),
        ((150.0, -50.0, -100.0), 1.5, [0.5, -1, 0]),
        ((150.0, 20.0, 30.0), 1.5, [0.5, -1, 0]),  # ruined between two samples
        ((150.0, -50.0, 75.0), 1.0, [0.5, -1, 0]),  # at the very edge: in the interval it begins
        ((-50.0, 0.0, -100.0), 0.0, [-1, 0, 0]),
    ],
)
def test_a_ruined_account_loses_all_once_and_returns_nothing_after(
    equities, ruined_minute, expected
):
    found = kept(
        samples=samples(*enumerate(equities, start=1)),
        account={"ruined_at": START + int(ruined_minute * MINUTE)},
    )
    assert result.interval_returns(found, 100.0, MINUTE).tolist() == pytest.approx(expected)


def test_equity_has_the_exact_extremes_and_ends_with_the_last_tick():
    found = kept(
        samples=samples((1, 104.0), (2, 97.0), (4, 99.0)),
        account={
            "high": 105.0,
            "high_at": START + MINUTE // 2,
            "low": 84.0,
            "low_at": START + MINUTE + 5,
        },
    )
    frame = result.equity_table(found, 100.0)
    assert frame["equity"].to_list() == [100.0, 105.0, 104.0, 84.0, 97.0, 99.0]
    assert frame["timestamp"].is_sorted()
    assert frame["timestamp"][-1] == datetime(2025, 1, 1, 0, 3, tzinfo=UTC)
    assert frame["drawdown"].min() == 84.0 / 105.0 - 1
    assert frame["drawdown"][0] == 0.0
