"""Ratios without a base, ruined accounts, and what a year is: against plain Python."""

from __future__ import annotations

import math
from datetime import UTC, datetime, timedelta
from itertools import pairwise

import polars as pl
import pytest

import fxlab
from fxlab._html import NOTHING
from fxlab.backtester.metrics._performance import METRICS, NEITHER
from fxlab.backtester.report._tearsheet import render


def frame_of(*seconds_and_prices):
    first = datetime(2024, 8, 8, tzinfo=UTC)
    return pl.DataFrame(
        {
            "timestamp": [first + timedelta(seconds=seconds) for seconds, _ in seconds_and_prices],
            "price": [float(price) for _, price in seconds_and_prices],
        },
        schema_overrides={"timestamp": pl.Datetime("us", "UTC")},
    )


EVEN = frame_of((0, 100), (1, 100), (59, 100.1), (119, 100.2001), (179, 100.3003001))
RUINS = [
    (100.0, 100.0, 250.0, 260.0, 300.0, 310.0),  # a debt that grows
    (100.0, 100.0, 201.0, 400.0, 400.0),  # 100, -1, -200
    (100.0, 100.0, 200.0, 250.0, 250.0),  # exactly nothing, then a debt
]
FREE = fxlab.Execution(taker_bps=0)


def test_equal_returns_crown_nobody():
    run = fxlab.backtest(EVEN, "buy_and_hold", execution=FREE)
    for name in ("sharpe_per_period", "sortino_per_period", "probabilistic_sharpe", "tail_ratio"):
        assert not abs(run.metrics[name]) > 1e3
    assert math.isnan(run.metrics["sharpe_per_period"])
    assert run.metrics.notes["sharpe_per_period"].startswith("the returns are equal")
    assert f"sharpe_per_period={NOTHING} (the returns are equal" in repr(run)
    swept = fxlab.sweep(EVEN, "buy_and_hold", {"exposure": [1.0, 0.5]}, execution=FREE)
    assert swept.table["sharpe_per_period"].to_list()[0] is None
    best = swept.ranking()
    assert 0 not in best["point"].to_list()
    assert "nan" not in f"{run!r}{run._repr_html_()}{swept!r}{swept._repr_html_()}"


@pytest.mark.parametrize("prices", RUINS)
def test_a_ruined_account_is_told_in_words_and_ranks_last(prices):
    frame = frame_of(*((60 * n, price) for n, price in enumerate(prices)))
    run = fxlab.backtest(frame, "buy_and_hold", {"exposure": -1.0}, execution=FREE)
    # By hand: short from the second tick at 100, so 10,000 of capital are 100 units.
    equities = [1e4, 1e4, *(1e4 - 100 * (price - 100) for price in prices[2:])]
    ruined = next(n for n, equity in enumerate(equities) if equity <= 0)
    assert run.metrics["ruined_after"] == 60 * ruined
    for name in ("sharpe_per_period", "sortino_per_period", "probabilistic_sharpe", "calmar"):
        assert math.isnan(run.metrics[name])
        assert run.metrics.notes[name].startswith("the account was ruined")
    words = f"The account was ruined at 2024-08-08 00:0{ruined}:00 UTC"
    for text in (repr(run), run._repr_html_(), render(run)):
        assert words in text
    exposures = [-1.0, -0.1, 0.0]
    swept = fxlab.sweep(frame, "buy_and_hold", {"exposure": exposures}, execution=FREE)
    numbers, returns = swept.returns()
    assert numbers == [0, 1, 2]
    assert returns[ruined, 0] == -1.0
    assert not returns[ruined + 1 :, 0].any()
    assert (returns[:, 0] <= 0).all()
    assert swept.table["ruined_after"].to_list() == [60 * ruined, None, None]
    assert "1 of them ruined" in repr(swept)
    for metric in (name for name in METRICS if name not in NEITHER):
        ranked = swept.ranking(metric)["point"].to_list()
        assert 0 not in ranked[:-1]
    assert swept.stability("total_return").row(2, named=True)["reason"] == "the account was ruined"
    assert run.monthly_returns["aug"].to_list() == [-1.0]
    assert swept.cross_validate(2)["point"][0] != 0  # its training saw the ruin


def test_a_ruined_run_is_better_in_nothing():
    frame = frame_of(*((60 * n, price) for n, price in enumerate(RUINS[0])))
    runs = {
        f"{exposure}": fxlab.backtest(frame, "buy_and_hold", {"exposure": exposure}, execution=FREE)
        for exposure in (-1.0, -0.1, -0.05)
    }
    best = fxlab.compare_runs(runs).table["best"].drop_nulls().to_list()
    assert best
    assert "-1.0" not in best


@pytest.mark.parametrize("days_per_year", [365.25, 260.0])
def test_over_a_calendar_year_the_annual_return_is_the_total_return(days_per_year):
    # A market that closes at weekends, hourly: +10 % in a year.
    first = datetime(2023, 1, 2, tzinfo=UTC)
    times = [first + timedelta(hours=n) for n in range(8_767)]
    times = [time for time in times if time.weekday() < 5]
    prices = [round(100 * 1.1 ** ((time - times[0]) / (times[-1] - times[0])), 6) for time in times]
    prices[3::7] = [round(price * 1.001, 6) for price in prices[3::7]]
    prices[-1] = 110.0
    frame = pl.DataFrame(
        {"timestamp": [times[0] - timedelta(minutes=1), *times], "price": [prices[0], *prices]},
        schema_overrides={"timestamp": pl.Datetime("us", "UTC")},
    )
    run = fxlab.backtest(
        frame, "buy_and_hold", execution=FREE, return_interval="1h", days_per_year=days_per_year
    )
    got = run.metrics
    assert got["total_return"] == pytest.approx(0.1, abs=1e-6)
    assert got["annual_return"] == pytest.approx(got["total_return"], rel=1e-4)
    assert got["calmar"] == pytest.approx(got["annual_return"] / -got["max_drawdown"])
    if days_per_year == 365.25:
        # The oracle: of the hours in which the market was open, and as many of them as a year has.
        returns = [after / before - 1 for before, after in pairwise(prices)]
        mean = math.fsum(returns) / len(returns)
        variance = math.fsum((r - mean) ** 2 for r in returns) / (len(returns) - 1)
        assert got["sharpe"] == pytest.approx(mean / variance**0.5 * len(returns) ** 0.5, rel=2e-3)
        assert got["volatility"] == pytest.approx((variance * len(returns)) ** 0.5, rel=2e-3)
