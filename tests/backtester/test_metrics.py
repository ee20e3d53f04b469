"""Figures against hand-made and published values, and the reasons for those that do not exist."""

from __future__ import annotations

import math

import numpy as np
import polars as pl
import pytest

from fxlab.backtester._kernel import records
from fxlab.backtester.metrics import _performance
from fxlab.backtester.metrics._performance import (
    DAY_US,
    LESS_IS_BETTER,
    METRICS,
    NEITHER,
    Executed,
    Facts,
    RoundTrips,
    columns_of,
)
from fxlab.backtester.metrics._ratios import probabilistic_sharpe

FILLS = pl.DataFrame({"qty": [1.0, -1.0], "price": [100.0, 110.0], "fee": [0.5, 0.55]})


def compute(returns, facts, fills, trades, orders=None):
    """Compute metrics from the tables of a result."""
    closed = trades.filter(pl.col("exited_at").is_not_null())
    entered, exited = (
        closed[name].to_physical().to_numpy() for name in ("entered_at", "exited_at")
    )
    makers = fills["liquidity"] == "maker" if "liquidity" in fills.columns else fills["fee"] < 0
    return _performance.compute(
        returns,
        facts,
        Executed(
            np.abs(fills["qty"].to_numpy()) * fills["price"].to_numpy(),
            fills["fee"].to_numpy(),
            makers.to_numpy(),
        ),
        RoundTrips(
            closed["pnl"].to_numpy(),
            closed["qty"].to_numpy() * closed["entry_price"].to_numpy(),
            # Not `duration_seconds`: Polars divides by a constant with another last bit.
            (exited - entered) / 1e6,
        ),
        0 if orders is None else int((orders["qty"] == 0.0).sum()),
    )


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
    """Build round trips from (pnl, qty, entry_price, is_closed), each an hour longer."""
    hour = 3_600_000_000
    return pl.DataFrame(
        {
            "pnl": [r[0] for r in rows],
            "qty": [r[1] for r in rows],
            "entry_price": [r[2] for r in rows],
            "entered_at": [0 for _ in rows],
            "exited_at": [hour * n if r[3] else None for n, r in enumerate(rows, 1)],
        },
        schema={
            "pnl": pl.Float64,
            "qty": pl.Float64,
            "entry_price": pl.Float64,
            "entered_at": pl.Int64,
            "exited_at": pl.Int64,
        },
    ).cast({"entered_at": pl.Datetime("us", "UTC"), "exited_at": pl.Datetime("us", "UTC")})


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
    assert got["omega"] == pytest.approx(0.04 / 0.02)
    assert got["volatility"] == pytest.approx(spread * root)
    assert got["total_return"] == pytest.approx(0.1)
    assert got["annual_return"] == pytest.approx(1.1 ** (365.25 / 60) - 1)
    assert got["calmar"] == pytest.approx((1.1 ** (365.25 / 60) - 1) / 0.05)
    assert got["exposure"] == pytest.approx(0.25)
    assert got["turnover"] == pytest.approx(0.21)
    assert got["fees"] == pytest.approx(1.05)
    profit = got["final_equity"] - got["final_equity"] / (1 + got["total_return"])
    assert got["break_even_bps"] == pytest.approx((profit + 1.05) / (0.21 * profit / 0.1) * 1e4)
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
    assert got["median_trade_duration"] == 7_200
    assert got["longest_trade_duration"] == 10_800


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
    text = _performance.describe_basis(facts(grid_us=60_000_000), 1_440)
    assert text == "grid 60 s, A = 525,960, n = 1,440"


WON, LOST = (2.0, 1.0, 100.0, True), (-1.0, 1.0, 100.0, True)


@pytest.mark.parametrize(
    ("rows", "win_rate", "profit_factor", "expectancy"),
    [
        ([], math.nan, math.nan, math.nan),
        ([WON], 1.0, math.nan, 2.0),
        ([LOST], 0.0, 0.0, -1.0),
        ([WON, WON, WON], 1.0, math.nan, 2.0),
        ([LOST, LOST, LOST], 0.0, 0.0, -1.0),
        ([WON, LOST, LOST, (0.0, 1.0, 100.0, True)], 0.25, 1.0, 0.0),
    ],
)
def test_trade_figures_follow_vectorbt(rows, win_rate, profit_factor, expectancy):
    """vectorbt: closed trades; winning / all; sum of wins / |sum of losses|; money a trade."""
    got = compute(np.array([0.0, 0.0]), facts(), FILLS, trades(*rows))
    assert got["win_rate"] == pytest.approx(win_rate, nan_ok=True)
    assert got["profit_factor"] == pytest.approx(profit_factor, nan_ok=True)
    assert got["expectancy"] == pytest.approx(expectancy, nan_ok=True)
    if rows:  # expectancy as vectorbt writes it
        lost = [row[0] for row in rows if row[0] < 0]
        won = [row[0] for row in rows if row[0] > 0]
        assert expectancy == pytest.approx((sum(won) - abs(sum(lost))) / len(rows))


@pytest.mark.parametrize("value", [0.001, -0.001])
def test_constant_returns_have_a_reason_not_a_huge_ratio(value):
    got = compute(np.full(1_000, value), facts(), FILLS, trades())
    assert math.isnan(got["sharpe"])
    assert got.notes["sharpe"].startswith("the returns are equal")
    assert got["volatility"] == 0.0
    assert math.isnan(got["skew"])
    assert math.isnan(got["probabilistic_sharpe"])


def test_all_wins_have_no_sortino_and_say_so():
    got = compute(np.array([0.01, 0.02, 0.03]), facts(max_drawdown=0.0), FILLS, trades())
    for name in ("sortino", "omega"):
        assert math.isnan(got[name])
        assert got.notes[name].startswith("no losing return")
    assert got.notes["calmar"].startswith("no drawdown")


@pytest.mark.parametrize("days", [1, 60])
def test_a_ruined_account_has_no_ratios_and_says_so(days):
    # Gains before the ruin would give a Sharpe ratio above zero.
    returns = np.array([2.0, 2.0, -1.0, 0.0])
    ruin = facts(final_equity=-10.0, elapsed_us=days * DAY_US, ruined_us=90_000_000)
    got = compute(returns, ruin, FILLS, trades())
    assert got["ruined_after"] == 90.0
    assert got.notes["final_equity"] == "the account was ruined 90 s after the first tick"
    for name in ("annual_return", "volatility", "sharpe", "sharpe_per_period", "sortino", "calmar"):
        assert math.isnan(got[name])
        assert got.notes[name].startswith("the account was ruined")
    names = ("probabilistic_sharpe", "skew", "kurtosis", "omega", "tail_ratio")
    for name in (*names, "sortino_per_period"):
        assert math.isnan(got[name])
    assert got["total_return"] == pytest.approx(-1.01)  # money that is owed is told as it is
    assert math.isnan(compute(returns[:2], facts(), FILLS, trades())["ruined_after"])


def test_a_tail_ratio_without_a_lower_tail_says_so():
    got = compute(np.array([0.0] * 50 + [0.01]), facts(), FILLS, trades())
    assert got.notes["tail_ratio"].startswith("the 5th percentile of the returns is zero")


def test_blind_time_is_a_share_or_unknown():
    unknown = compute(np.array([0.01, 0.02]), facts(), FILLS, trades())
    assert math.isnan(unknown["blind_time"])
    assert "event table" in unknown.notes["blind_share"]
    seen = compute(np.array([0.01, 0.02]), facts(gap_us=6 * DAY_US), FILLS, trades())
    assert seen["blind_time"] == 6 * 86_400
    assert seen["blind_share"] == pytest.approx(0.1)
    none = compute(np.array([0.01, 0.02]), facts(gap_us=0), FILLS, trades())
    assert none["blind_share"] == 0.0


def test_a_run_without_time_has_no_shares_of_it():
    got = compute(np.array([]), facts(elapsed_us=0, exposed_us=0, gap_us=0), FILLS, trades())
    assert math.isnan(got["exposure"])
    assert got.notes["exposure"] == got.notes["blind_share"] == "no time passed"


def test_makers_and_unfilled_orders_are_counted():
    fills = FILLS.with_columns(liquidity=pl.Series(["maker", "taker"]))
    orders = pl.DataFrame({"qty": [1.0, 0.0, -1.0, 0.0, 0.0]})
    got = compute(np.array([]), facts(funding=1.5), fills, trades(), orders)
    assert (got["maker_share"], got["orders_unfilled"], got["funding"]) == (0.5, 3, 1.5)
    none = compute(np.array([]), facts(), fills.head(0), trades())
    assert none.notes["maker_share"] == "no fills"


def kernel_records(count, seed):
    rng = np.random.default_rng(seed)
    done = np.zeros(count, records.TRADE)
    done["entered_at"] = rng.integers(0, 10**15, count)
    done["exited_at"] = done["entered_at"] + rng.integers(0, 10**10, count)
    done["exited_at"][rng.random(count) < 0.1] = records.STILL_OPEN
    for name in ("qty", "entry_price"):
        done[name] = rng.random(count) + 0.1
    done["pnl"] = rng.normal(size=count)
    fills = np.zeros(2 * count, records.FILL)
    for name in ("qty", "price", "fee"):
        fills[name] = rng.normal(size=2 * count)
    fills["maker"] = rng.integers(0, 2, 2 * count)
    orders = np.zeros(3 * count, records.ORDER)
    orders["qty"] = rng.integers(-1, 2, 3 * count)
    return fills, done, orders


def frames(fills, done, orders):
    """Return the columns of records that the figures need, as the tables of a result have them."""
    micros = pl.Datetime("us", "UTC")
    exited = pl.Series(done["exited_at"])
    return (
        pl.DataFrame(
            {name: fills[name] for name in ("qty", "price", "fee")}
            | {"liquidity": np.where(fills["maker"] == 1, "maker", "taker")}
        ),
        pl.DataFrame(
            {name: done[name] for name in ("pnl", "qty", "entry_price")}
            | {
                "entered_at": pl.Series(done["entered_at"]).cast(micros),
                "exited_at": pl.select(
                    pl.when(exited != records.STILL_OPEN).then(exited).cast(micros)
                ).to_series(),
            }
        ),
        pl.DataFrame({"qty": orders["qty"]}),
    )


@pytest.mark.parametrize("count", [0, 1, 2, 7, 1_000])
def test_records_and_frames_give_the_same_bits(count):
    returns = np.random.default_rng(count).normal(size=3 * count)
    written = kernel_records(count, seed=count)
    fills, done, orders = written
    fast = _performance.compute(returns, facts(), *columns_of(orders, fills, done))
    slow = compute(returns, facts(), *frames(*written))
    assert fast.table().equals(slow.table(), null_equal=True)


def test_what_is_better_is_said_of_figures_that_exist():
    assert set(METRICS) >= LESS_IS_BETTER | NEITHER
