"""A run taken apart: by hand, against plain loops, and where there is nothing to take apart."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from markets import random_walk

import fxlab
from fxlab.backtester.metrics import _analysis
from fxlab.backtester.metrics._analysis import MONTHS, exposure_over_time, gap_exposure
from fxlab.backtester.report._tearsheet import interval_returns
from fxlab.errors import InvalidParameter

START = datetime(2024, 12, 30, tzinfo=UTC)
UTC_US = pl.Datetime("us", "UTC")
HOUR = timedelta(hours=1)


def equity_of(values, step=HOUR, start=START):
    times = [start + step * n for n in range(len(values))]
    return pl.DataFrame(
        {"timestamp": pl.Series(times, dtype=UTC_US), "equity": pl.Series(values, dtype=pl.Float64)}
    )


def at(hours):
    return None if hours is None else START + HOUR * hours


def trades_of(*rows):
    """Build trades from (entered hour, exited hour or None, pnl, direction, symbol)."""
    names = ("entered_at", "exited_at", "pnl", "direction", "symbol")
    whole = [(*row, *("long", "BTC")[len(row) - 3 :]) for row in rows]
    return pl.DataFrame(
        [(at(a), at(b), *rest) for a, b, *rest in whole],
        schema=dict(zip(names, (UTC_US, UTC_US, pl.Float64, pl.String, pl.String), strict=True)),
        orient="row",
    )


# Drawdowns.


def test_drawdowns_by_hand():
    found = _analysis.drawdowns(equity_of([100, 120, 90, 96, 120, 130, 117, 125]))
    deep, open_one = found.rows(named=True)
    assert deep["depth"] == pytest.approx(-0.25)
    assert (deep["peak_equity"], deep["trough_equity"]) == (120, 90)
    assert [deep[f"{name}_at"] for name in ("peak", "trough", "recovered")] == [at(1), at(2), at(4)]
    assert [deep[f"{name}_seconds"] for name in ("fall", "recovery", "duration")] == [
        3_600,
        7_200,
        10_800,
    ]
    assert open_one["depth"] == pytest.approx(-0.1)
    assert open_one["recovered_at"] is None
    assert open_one["recovery_seconds"] is None
    assert open_one["duration_seconds"] == 7_200  # to the last row
    assert found["flat_seconds"].to_list() == [0, 0]


def test_standing_still_at_the_peak_counts_and_is_told():
    found = _analysis.drawdowns(equity_of([100, 120, 120, 120, 90, 120, 120]))
    assert found["peak_at"].to_list() == [at(1)]
    assert found["duration_seconds"].to_list() == [4 * 3_600]
    assert found["flat_seconds"].to_list() == [2 * 3_600]


@given(st.lists(st.integers(1, 12), min_size=1, max_size=40))
def test_drawdowns_are_those_of_a_plain_loop(values):
    expected, peak_row = [], 0
    for row, value in enumerate(values):
        inside = values[peak_row + 1 : row]
        fell = bool(inside) and min(inside) < values[peak_row]
        if value >= values[peak_row] and fell:
            expected.append((min(inside) / values[peak_row] - 1, peak_row, row))
        if value > values[peak_row] or (value == values[peak_row] and fell):
            peak_row = row  # of equity that stands still at its peak, the first row
    if min(values[peak_row:]) < values[peak_row]:
        expected.append((min(values[peak_row:]) / values[peak_row] - 1, peak_row, None))
    found = _analysis.drawdowns(equity_of(values), top=100)
    got = set(found.select("depth", "peak_at", "recovered_at").rows())
    assert got == {(depth, at(peak), at(end)) for depth, peak, end in expected}
    assert found["depth"].is_sorted()


@pytest.mark.parametrize("values", [[], [100.0], [1.0, 1.0, 1.0], [1.0, 2.0, 3.0]])
def test_what_never_fell_has_no_drawdowns(values):
    found = _analysis.drawdowns(equity_of(values))
    assert found.is_empty()
    assert found.schema["recovered_at"] == UTC_US


def test_a_lost_account_falls_by_more_than_all():
    assert _analysis.drawdowns(equity_of([100, -20]))["depth"].to_list() == [pytest.approx(-1.2)]


def test_only_so_many_drawdowns_as_asked_for():
    values = [10, 9, 10, 8, 10, 7, 10]
    assert _analysis.drawdowns(equity_of(values), top=2)["trough_equity"].to_list() == [7, 8]
    with pytest.raises(InvalidParameter, match="top=0"):
        _analysis.drawdowns(equity_of(values), top=0)


def test_the_deepest_drawdown_of_a_run_is_the_exact_one():
    result = fxlab.backtest(random_walk(20_000), "sma_cross", {"fast": 5, "slow": 20})
    assert result.drawdowns["depth"][0] == result.metrics["max_drawdown"]  # one source, all bits


def test_drawdowns_last_about_as_long_as_the_metric_says():
    """The metric ends at the last tick below the peak, the table at the first sample back at it."""
    result = fxlab.backtest(random_walk(20_000, 3), "sma_cross", {"fast": 20, "slow": 400})
    longest = _analysis.drawdowns(result.equity, top=10_000)["duration_seconds"].max()
    assert longest == pytest.approx(result.metrics["max_drawdown_duration"], abs=10)


# Calendar.


def test_months_by_hand():
    days = [datetime(2024, 11, 29, 12, tzinfo=UTC), datetime(2024, 12, 1, tzinfo=UTC)]
    days += [datetime(2024, 12, 31, 23, tzinfo=UTC), datetime(2025, 2, 3, tzinfo=UTC)]
    equity = pl.DataFrame(
        {"timestamp": pl.Series(days, dtype=UTC_US), "equity": [100.0, 110.0, 99.0, 198.0]}
    )
    first, second = _analysis.monthly_returns(equity).rows(named=True)
    assert (first["year"], second["year"]) == (2024, 2025)
    assert first["nov"] == pytest.approx(0.1)  # the row at midnight closes November
    assert first["dec"] == pytest.approx(-0.1)
    assert first["total"] == pytest.approx(-0.01)
    assert second["jan"] is None  # no row: not zero
    assert second["feb"] == second["total"] == pytest.approx(1.0)
    assert first["jan"] is None


@given(st.lists(st.floats(50, 200), min_size=2, max_size=120), st.integers(1, 400))
def test_months_and_years_compound_to_the_whole(values, step):
    equity = equity_of(values, step=timedelta(hours=step * 3))
    months = _analysis.monthly_returns(equity)
    growth = np.prod([1 + v for v in months.select(MONTHS).to_numpy().ravel() if v == v])  # noqa: PLR0124 - nan
    assert growth == pytest.approx(values[-1] / values[0])
    assert np.prod(1 + months["total"].to_numpy()) == pytest.approx(values[-1] / values[0])


def test_nothing_is_earned_on_nothing():
    equity = equity_of([100, 150, -5, 10, 30, 20])
    returns = _analysis.period_returns(equity, "1h")["return"].to_list()
    assert returns == [0.5, -1.0, None, None, None]  # all is lost once; no gain from 10 to 30
    months = _analysis.monthly_returns(equity_of([100, -50, -100]))
    assert months["total"].to_list() == [-1.0]


@pytest.mark.parametrize("values", [[], [100.0]])
def test_no_time_no_months_no_hours(values):
    equity = equity_of(values)
    assert _analysis.monthly_returns(equity).columns == ["year", *MONTHS, "total"]
    assert _analysis.monthly_returns(equity).is_empty()
    assert _analysis.hourly_returns(equity).is_empty()


def test_hours_by_hand():
    trades = trades_of((1, 2, 5.0), (25, 26, -3.0), (2, 5, 1.0), (25, None, 9.0))
    equity = equity_of([100.0 + n for n in range(30)])
    hours = {row["hour"]: row for row in _analysis.hourly_returns(equity, trades).to_dicts()}
    assert sorted(hours) == list(range(24))
    assert [hours[h]["periods"] for h in (0, 4, 5, 23)] == [2, 2, 1, 1]
    assert hours[0]["sum_return"] == pytest.approx(1 / 100 + 1 / 124)
    assert hours[0]["mean_return"] == pytest.approx((1 / 100 + 1 / 124) / 2)
    assert (hours[1]["trades"], hours[1]["win_rate"], hours[1]["pnl"]) == (2, 0.5, 2.0)
    assert (hours[2]["trades"], hours[2]["win_rate"]) == (1, 1.0)
    assert (hours[7]["trades"], hours[7]["win_rate"], hours[7]["pnl"]) == (0, None, None)


def test_hours_that_the_run_did_not_see_are_not_there():
    assert _analysis.hourly_returns(equity_of([100, 101, 102]))["hour"].to_list() == [0, 1]
    assert "trades" not in _analysis.hourly_returns(equity_of([100, 101])).columns


def test_weekdays_begin_on_monday():
    days = _analysis.weekday_returns(equity_of([100.0, 110.0, 121.0], step=timedelta(days=1)))
    assert days["weekday"].to_list() == [1, 2]  # 2024-12-30 is a Monday
    assert days["mean_return"].to_list() == pytest.approx([0.1, 0.1])


def test_grid_returns_of_the_figures_are_those_of_the_metrics():
    result = fxlab.backtest(random_walk(30_000), "sma_cross", {"fast": 5, "slow": 20})
    moved, count = interval_returns(result)
    assert f"n = {count:,}" in result.metrics.notes["skew"]
    filled = np.concatenate((moved, np.zeros(count - len(moved))))
    assert filled.mean() / filled.std(ddof=1) == pytest.approx(result.metrics["sharpe_per_period"])


# Distribution and streaks.


@given(
    st.lists(st.one_of(st.floats(-0.3, 0.3), st.just(0.0), st.just(math.nan)), max_size=200),
    st.one_of(st.none(), st.integers(1, 50)),
)
def test_a_histogram_counts_every_return_that_moved_once(values, bins):
    moved = [v for v in values if math.isfinite(v) and v != 0]
    if moved and max(map(abs, moved)) < 1e-290:
        return  # bins narrower than numbers are apart
    found = _analysis.returns_histogram(np.array(values), bins)
    assert found["count"].sum() == len(moved)
    if moved:
        assert found["share"].sum() == pytest.approx(1.0)
        assert (found["high"] > found["low"]).all()
        assert found["low"][0] <= min(moved)
        assert max(moved) <= found["high"][-1]
        assert not ((found["low"] < 0) & (found["high"] > 0)).any()
        assert found.height <= (bins or _analysis.MOST_BINS) + 2


def test_a_histogram_of_nothing_is_an_empty_frame():
    assert _analysis.returns_histogram(np.zeros(5)).columns == ["low", "high", "count", "share"]
    with pytest.raises(InvalidParameter, match="bins=0"):
        _analysis.returns_histogram(np.ones(5), bins=0)


def test_streaks_by_hand():
    pnl = [1.0, 2.0, -1.0, 0.0, -1.0, -2.0, 4.0, 3.0]
    trades = trades_of(*[(n, n + 1, value) for n, value in enumerate(pnl)], (9, None, 50.0))
    win, loss = _analysis.streaks(trades).rows(named=True)
    assert (win["kind"], win["trades"], win["pnl"]) == ("win", 2, 3.0)
    assert (win["entered_at"], win["exited_at"]) == (at(0), at(2))
    assert (loss["kind"], loss["trades"], loss["pnl"]) == ("loss", 2, -3.0)
    assert (loss["entered_at"], loss["exited_at"]) == (at(4), at(6))


@pytest.mark.parametrize(
    ("rows", "kinds"),
    [([], []), ([(0, None, 1.0)], []), ([(0, 1, 0.0)], []), ([(0, 1, -1.0)], ["loss"])],
)
def test_a_kind_of_streak_that_never_came_has_no_row(rows, kinds):
    assert _analysis.streaks(trades_of(*rows))["kind"].to_list() == kinds


# Exposure and blind time.


def test_exposure_by_hand():
    trades = trades_of((0, 1, 1.0), (1, 3, 1.0, "short"), (2, 5, 1.0, "long", "ETH"))
    found = exposure_over_time(trades, "2h", at(0), at(7))
    assert found["timestamp"].to_list() == [at(0), at(2), at(4), at(6)]
    assert found["long"].to_list() == [0.5, 1.0, 0.5, 0.0]
    assert found["short"].to_list() == [0.5, 0.5, 0.0, 0.0]
    assert found["exposed"].to_list() == [1.0, 1.0, 0.5, 0.0]


def test_the_first_and_last_interval_are_as_long_as_the_run_is_in_them():
    trades = trades_of((1, None, 1.0))
    found = exposure_over_time(trades, "2h", START + HOUR / 2, at(3))
    assert found["exposed"].to_list() == pytest.approx([1 / 1.5, 1.0])


def test_exposure_over_time_averages_to_the_figure():
    result = fxlab.backtest(random_walk(20_000), "sma_cross", {"fast": 5, "slow": 20})
    second = exposure_over_time(result.trades, 1.0, result.first, result.last)
    assert second["exposed"][1:-1].mean() == pytest.approx(result.metrics["exposure"], rel=0.01)
    whole = exposure_over_time(result.trades, "30d", result.first, result.last)
    assert whole["exposed"].to_list() == pytest.approx([result.metrics["exposure"]])


def test_exposure_that_cannot_be_says_why():
    with pytest.raises(InvalidParameter, match="last="):
        exposure_over_time(trades_of((0, None, 1.0)), "1h")
    with pytest.raises(InvalidParameter, match="longer one"):
        exposure_over_time(trades_of((0, 1_000, 1.0)), "1ms")
    with pytest.raises(InvalidParameter, match="grid="):
        exposure_over_time(trades_of((0, 2, 1.0)), 0)
    assert exposure_over_time(trades_of(), "1h").is_empty()


def gaps_of(*rows):
    return pl.DataFrame(
        [(at(a), at(b), symbol) for a, b, symbol in rows],
        schema={"from_time": UTC_US, "to_time": UTC_US, "symbol": pl.String},
        orient="row",
    )


def test_blind_time_by_hand():
    trades = trades_of((1, 4, 7.0), (6, None, 1.0), (0, 10, 2.0, "short", "ETH"))
    gaps = gaps_of((-5, 1, "BTC"), (3, 5, "BTC"), (4, 7, None), (8, 9, "ETH"), (8, 9, "DOGE"))
    blind = gap_exposure(trades, gaps, at(0), at(10), symbols=("BTC", "ETH"))
    assert blind.seconds == 3_600 * 6  # 0-1, 3-7, 8-9
    assert blind.share == pytest.approx(0.6)
    assert blind.held_seconds == 3_600 * 5  # BTC 3-4 and 6-7; ETH 4-7 and 8-9
    assert blind.held_share == pytest.approx(0.5)  # ETH was held for all ten hours
    assert blind.trades["blind_seconds"].to_list() == [3_600, 3_600, 3_600 * 4]
    assert blind.trades["pnl"].to_list() == [7.0, 1.0, 2.0]
    assert blind.note == ""


def test_no_ledger_is_not_an_empty_ledger():
    trades = trades_of((1, 4, 7.0))
    unknown = gap_exposure(trades, None, at(0), at(10))
    assert all(math.isnan(x) for x in (unknown.seconds, unknown.share, unknown.held_share))
    assert "event table" in unknown.note
    empty = gap_exposure(trades, gaps_of(), at(0), at(10))
    assert (empty.seconds, empty.share, empty.held_seconds, empty.note) == (0, 0, 0, "")
    assert empty.trades.is_empty()


def test_shares_of_nothing_are_nan_with_the_reason():
    still = gap_exposure(trades_of(), gaps_of((1, 2, None)), at(0), at(4))
    assert (still.share, still.held_seconds) == (0.25, 0)
    assert math.isnan(still.held_share)
    assert still.note == "no position was held"
    instant = gap_exposure(trades_of(), gaps_of((1, 2, None)), at(0), at(0))
    assert math.isnan(instant.share)
    assert instant.note == "no time passed"


@given(
    st.lists(
        st.tuples(st.integers(0, 30), st.integers(0, 30), st.sampled_from(["A", "B", None])),
        max_size=6,
    ),
    st.lists(st.tuples(st.integers(0, 9), st.integers(1, 3), st.sampled_from("AB")), max_size=6),
)
def test_blind_time_is_that_of_a_plain_count_of_hours(gaps, steps):
    clock, rows, held = {"A": 0, "B": 0}, [], {"A": set(), "B": set()}
    for pause, length, symbol in steps:  # trades of one symbol do not overlap
        begin = clock[symbol] + pause
        clock[symbol] = begin + length
        rows.append((begin, clock[symbol], 1.0, "long", symbol))
        held[symbol] |= set(range(begin, clock[symbol]))
    last = max([20, *clock.values()])
    unseen = {
        symbol: {t for a, b, own in gaps if own in (symbol, None) for t in range(a, min(b, last))}
        for symbol in "AB"
    }
    blind = gap_exposure(trades_of(*rows), gaps_of(*gaps), at(0), at(last), symbols=("A", "B"))
    assert blind.seconds == 3_600 * len(unseen["A"] | unseen["B"])
    both = (held["A"] & unseen["A"]) | (held["B"] & unseen["B"])
    assert blind.held_seconds == 3_600 * len(both)
