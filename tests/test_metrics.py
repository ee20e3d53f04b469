"""Figures against hand-made and published values, and the reasons for those that do not exist."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from fxlab.backtester import metrics
from fxlab.backtester.metrics import DAY_US, METRICS, Facts, compute, probabilistic_sharpe

FILLS = pl.DataFrame({"qty": [1.0, -1.0], "price": [100.0, 110.0], "fee": [0.5, 0.55]})


def facts(**changes):
    values = {
        "capital": 1_000.0,
        "final_equity": 1_100.0,
        "max_drawdown": -0.05,
        "max_drawdown_us": 3_000_000,
        "elapsed_us": 60 * DAY_US,
        "exposed_us": 15 * DAY_US,
        "grid_us": DAY_US,
        "days_per_year": 365.25,
    }
    return Facts(**(values | changes))


def trades(*rows):
    """Build round trips from (pnl, qty, entry_price, is_closed)."""
    return pl.DataFrame(
        {
            "pnl": [r[0] for r in rows],
            "qty": [r[1] for r in rows],
            "entry_price": [r[2] for r in rows],
            "exited_at": [1 if r[3] else None for r in rows],
        },
        schema={
            "pnl": pl.Float64,
            "qty": pl.Float64,
            "entry_price": pl.Float64,
            "exited_at": pl.Int64,
        },
    )


def test_ratios_by_hand():
    returns = np.array([0.01, -0.02, 0.03, 0.0])
    got = compute(returns, facts(), FILLS, trades())
    mean, spread = 0.005, math.sqrt((0.005**2 + 0.025**2 + 0.025**2 + 0.005**2) / 3)
    downside = math.sqrt(0.02**2 / 4)
    root = math.sqrt(365.25)
    assert got["sharpe_per_period"] == pytest.approx(mean / spread)
    assert got["sharpe"] == pytest.approx(mean / spread * root)
    assert got["sortino_per_period"] == pytest.approx(mean / downside)
    assert got["sortino"] == pytest.approx(mean / downside * root)
    assert got["volatility"] == pytest.approx(spread * root)
    assert got["total_return"] == pytest.approx(0.1)
    assert got["annual_return"] == pytest.approx(1.1 ** (365.25 / 60) - 1)
    assert got["calmar"] == pytest.approx((1.1 ** (365.25 / 60) - 1) / 0.05)
    assert got["exposure"] == pytest.approx(0.25)
    assert got["turnover"] == pytest.approx(0.21)
    assert got["fees"] == pytest.approx(1.05)
    assert got["max_drawdown_duration"] == 3.0
    assert got.notes["sharpe"] == "grid 86400 s, A = 365, n = 4"


def test_skew_and_tail_ratio_by_hand():
    returns = np.array([0.0, 0.0, 0.0, 0.04])
    got = compute(returns, facts(), FILLS, trades())
    assert got["skew"] == pytest.approx(2 / math.sqrt(3))  # population skew of one in four
    symmetric = compute(np.linspace(-0.02, 0.02, 41), facts(), FILLS, trades())
    assert symmetric["tail_ratio"] == pytest.approx(1.0)
    assert symmetric["skew"] == pytest.approx(0.0, abs=1e-12)


def test_probabilistic_sharpe_is_the_published_example():
    # Bailey and Lopez de Prado (2012), section 4: a track record of 24 months with a monthly
    # Sharpe ratio of 0.458, skewness -2.448 and kurtosis 10.164: 0.982 if the returns were
    # normal, 0.913 as they are.
    assert probabilistic_sharpe(0.458, 24, 0.0, 3.0) == pytest.approx(0.982, abs=5e-4)
    assert probabilistic_sharpe(0.458, 24, -2.448, 10.164) == pytest.approx(0.913, abs=5e-4)


def test_trade_figures_count_closed_trades_only_in_money():
    got = compute(
        np.array([0.01, 0.02]),
        facts(),
        FILLS,
        trades(
            (30.0, 1.0, 100.0, True),
            (-10.0, 2.0, 100.0, True),
            (-2.0, 1.0, 100.0, True),
            (500.0, 1.0, 100.0, False),
        ),
    )
    assert got["trades_count"] == 3
    assert got["win_rate"] == pytest.approx(1 / 3)
    assert got["profit_factor"] == pytest.approx(30 / 12)
    assert got["expectancy"] == pytest.approx(6.0)
    assert got["expectancy_bps"] == pytest.approx(18 / 400 * 10_000)
    assert got["average_win"] == pytest.approx(30.0)
    assert got["average_loss"] == pytest.approx(-6.0)


def test_short_runs_are_not_annualised_but_keep_the_plain_ratio():
    got = compute(np.array([0.01, -0.02]), facts(elapsed_us=DAY_US), FILLS, trades())
    for name in ("annual_return", "volatility", "sharpe", "sortino", "calmar"):
        assert math.isnan(got[name])
        assert got.notes[name].startswith("too short to annualise: 1 days of 30")
    assert not math.isnan(got["sharpe_per_period"])


@pytest.mark.parametrize(
    ("returns", "reason"),
    [
        ([], "fewer than two returns"),
        ([0.01], "fewer than two returns"),
        ([0.0, 0.0, 0.0], "equity never moved"),
    ],
)
def test_ratios_that_do_not_exist_are_nan_with_the_reason(returns, reason):
    got = compute(np.array(returns), facts(), FILLS, trades())
    assert math.isnan(got["sharpe_per_period"])
    assert got.notes["sharpe_per_period"].startswith(reason)
    assert math.isnan(got["win_rate"])
    assert got.notes["win_rate"] == "no closed trades"


def test_all_losses_and_all_wins_have_their_reasons():
    wins = compute(np.array([0.1, 0.2]), facts(), FILLS, trades((1.0, 1.0, 1.0, True)))
    assert math.isnan(wins["profit_factor"])
    assert wins.notes["profit_factor"] == "no losing trades"
    losses = compute(np.array([-0.1, -0.2]), facts(), FILLS, trades((-1.0, 1.0, 1.0, True)))
    assert losses["profit_factor"] == 0.0
    assert losses.notes["average_win"] == "no winning trades"


def test_a_lost_account_has_figures_without_crashing():
    got = compute(np.array([-0.5, -1.5]), facts(final_equity=-10.0), FILLS, trades())
    assert math.isnan(got["annual_return"])
    assert got["total_return"] == pytest.approx(-1.01)


def test_table_has_every_figure_with_unit_and_note():
    table = compute(np.array([0.01, -0.02]), facts(), FILLS, trades()).table()
    assert table["metric"].to_list() == list(METRICS)
    assert table["note"].str.len_chars().min() > 0
    assert (table.filter(pl.col("value").is_nan())["note"].str.len_chars() > 5).all()


def test_basis_says_grid_periods_and_count():
    text = metrics.describe_basis(facts(grid_us=60_000_000), 1_440)
    assert text == "grid 60 s, A = 525,960, n = 1,440"
