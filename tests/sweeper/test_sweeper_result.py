"""What can be asked of a finished sweep."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import polars as pl
import pytest
from markets import random_walk
from sweep_strategies import moody

import fxlab
from fxlab import errors
from fxlab.backtester.compare import default_scenarios
from fxlab.backtester.metrics._overfitting import deflate, probability_of_overfitting
from fxlab.backtester.metrics._performance import METRICS
from fxlab.sweeper._cross_validation import break_even_latency
from fxlab.sweeper._trial import Periods

GRID = {"fast": [3, 5, 8], "slow": [13, 21, 34]}


@pytest.fixture(scope="module")
def frames():
    return [random_walk(3_000, seed) for seed in (1, 2)]


@pytest.fixture(scope="module")
def swept(frames):
    return fxlab.sweep(frames, "sma_cross", GRID, metric="total_return")


def test_sessions_stand_one_below_the_other(frames, swept):
    assert swept.table.height == 18
    assert swept.table["session"].to_list() == [s for s in swept.sessions for _ in range(9)]
    alone = fxlab.sweep(frames[1], "sma_cross", GRID)
    second = swept.table.filter(pl.col("session") == swept.sessions[1])
    assert second.equals(alone.table)


def test_the_best_point_is_best_over_all_sessions(swept):
    ranking = swept.ranking()
    means = swept.table.group_by("point").agg(pl.col("total_return").mean())
    assert ranking["total_return"].to_list() == sorted(means["total_return"], reverse=True)
    assert ranking["sessions"].to_list() == [2] * 9
    row = ranking.row(0, named=True)
    assert swept.best == {"fast": row["fast"], "slow": row["slow"], "allow_short": False}
    assert row["worst"] <= row["total_return"] <= row["best"]


def test_of_a_figure_that_costs_less_is_better(swept):
    fees = swept.ranking("fees")["fees"]
    assert fees.to_list() == sorted(fees)
    with pytest.raises(errors.InvalidParameter, match="describes a run"):
        swept.ranking("fills_count")


def test_a_point_with_the_figure_in_more_sessions_comes_first(frames):
    quiet = frames[0].with_columns(price=pl.lit(100.0))
    found = fxlab.sweep([frames[0], quiet], "sma_cross", GRID)
    assert found.ranking()["sessions"].to_list() == [1] * 9


def test_without_a_single_figure_there_is_no_best(frames):
    found = fxlab.sweep(frames[0], moody, {"mood": ["late", "late "]}, check_lookahead=False)
    with pytest.raises(errors.InvalidParameter, match="no point has a sharpe_per_period"):
        fxlab.sweep(frames[0].with_columns(price=pl.lit(100.0)), "sma_cross", GRID).best  # noqa: B018 - a property that raises
    assert found.table.height == 2


def test_kept_returns_are_those_of_the_backtest(frames):
    found = fxlab.sweep(frames[0], "sma_cross", GRID, return_interval="10s")
    numbers, returns = found.returns()
    assert numbers == list(range(9))
    for number in numbers:
        alone = fxlab.backtest(
            frames[0], "sma_cross", found.points[number].values, return_interval="10s"
        )
        total = np.prod(1.0 + returns[:, number]) - 1.0
        assert total == pytest.approx(alone.metrics["total_return"], rel=1e-12)


def test_many_returns_are_compounded_into_few():
    periods = Periods.of((5_000_000, 1_004_999_999), 1_000_000)
    assert (periods.steps, periods.together) == (1_000, 4)
    returns = np.full(990, 0.01)
    kept = periods.coarse(returns, 15_000_000)
    assert len(kept) == len(periods.edges) - 1 == 250
    assert np.prod(1 + kept) == pytest.approx(1.01**990)
    assert kept[:2].tolist() == [0.0, 0.0]
    assert kept[2] == pytest.approx(1.01**2 - 1)
    assert periods.edges[-1] == 1_005_000_000


def test_overfitting_is_judged_from_the_sweeps_own_returns(swept):
    numbers, returns = swept.returns()
    found = swept.overfitting(blocks=6)
    assert found.pbo == probability_of_overfitting(returns, 6).pbo
    deflated = deflate(returns, found.trials)[1]["deflated_sharpe"]
    ordered = found.table.sort("point")
    assert ordered["point"].to_list() == numbers
    assert ordered["deflated_sharpe"].to_list() == pytest.approx(deflated.to_list())
    assert found.tried == 9
    assert "9 points tried" in str(found)
    assert "<table" in found._repr_html_()


def test_a_sweep_of_one_point_says_why_it_cannot_be_judged(frames):
    found = fxlab.sweep(frames[0], "sma_cross", {"fast": 3, "slow": 9}).overfitting()
    assert math.isnan(found.pbo)
    assert "nothing was chosen" in found.notes["pbo"]


def test_stability_speaks_of_neighbours(swept):
    found = swept.stability()
    assert found["rank"].to_list() == sorted(found["rank"])
    assert found.filter((pl.col("fast") == 5) & (pl.col("slow") == 21))["neighbours"][0] == 8


def test_cross_validation_chooses_outside_of_each_test(frames):
    found = fxlab.sweep(frames[0], "sma_cross", GRID, return_interval="5s")
    folds = found.cross_validate(4, purge="5s", embargo="10s")
    numbers, returns = found.returns()
    edges = found.studies[0].periods.edges
    assert folds["fold"].to_list() == [1, 2, 3, 4]
    assert folds["test_start"][1:].to_list() == folds["test_end"][:-1].to_list()
    for row in folds.iter_rows(named=True):
        first, last = (int(row[name].timestamp() * 1e6) for name in ("test_start", "test_end"))
        kept = (edges[1:] <= first - 5_000_000) | (edges[:-1] >= last + 15_000_000)
        train = returns[kept]
        sharpe = train.mean(axis=0) / train.std(axis=0, ddof=1)
        assert row["point"] == numbers[int(sharpe.argmax())]
        assert row["train_sharpe"] == pytest.approx(sharpe.max())
        assert row["fast"] == found.points[row["point"]].values["fast"]
    with pytest.raises(errors.InvalidParameter, match="a fold has"):
        found.cross_validate(len(edges) - 2)


def test_the_same_grid_under_other_assumptions(frames, swept):
    free = swept.again(execution=fxlab.Execution(taker_bps=0.0))
    alone = fxlab.sweep(
        frames, "sma_cross", GRID, metric="total_return", execution=fxlab.Execution(taker_bps=0.0)
    )
    assert free.table.equals(alone.table, null_equal=True)
    rungs = {"free": fxlab.Execution(taker_bps=0.0), "dear": fxlab.Execution(taker_bps=20.0)}
    ladder = swept.ladder(rungs)
    assert ladder["point"].to_list() == list(range(9))
    assert (ladder["free"] > ladder["dear"]).all()
    means = alone.table.group_by("point", maintain_order=True).agg(pl.col("total_return").mean())
    assert ladder["free"].to_list() == means["total_return"].to_list()


def test_assumptions_of_a_ladder_share_a_pass_and_change_no_bit(swept):
    names = ["no costs", "half", "as given", "double"]
    names += [f"latency {delay}" for delay in ("0s", "50ms", "250ms", "1s")]
    ladder = swept.ladder(metric="fees")
    assert ladder.columns == ["point", "fast", "slow", "allow_short", *names]
    asked = swept.studies[0].terms.options.execution
    for name, execution in default_scenarios(asked).items():
        alone = swept.again(execution=execution, metric="fees").ranking().sort("point")
        assert ladder[name].to_list() == alone["fees"].to_list()
    books = {"loose": fxlab.Execution(touch=True), "measured": fxlab.Execution(latency="measured")}
    with pytest.raises(errors.InvalidParameter, match="received_at"):
        swept.ladder(books)


def test_a_ladder_replays_the_points_that_were_drawn(frames):
    drawn = fxlab.sweep(
        frames[0], "sma_cross", {"fast": range(2, 9), "slow": range(10, 40)}, search="random",
        points=4, seed=3, metric="fees",
    )  # fmt: skip
    ladder = drawn.ladder({"dear": fxlab.Execution(taker_bps=20.0)})
    for row in ladder.iter_rows(named=True):
        values = {name: row[name] for name in ("fast", "slow")}
        dear = fxlab.Execution(taker_bps=20.0)
        assert (
            row["dear"]
            == fxlab.backtest(frames[0], "sma_cross", values, execution=dear).metrics["fees"]
        )


def test_each_point_breaks_even_at_a_fee_and_a_latency(frames, swept):
    free = swept.again(execution=fxlab.Execution(taker_bps=0.0))
    delays = ["0s", "100ms", "5s", "60s"]
    found = free.break_even(delays)
    assert found["point"].to_list() == list(range(9))
    ladder = free.ladder(
        {f"latency {one}": fxlab.Execution(taker_bps=0.0, latency=one) for one in delays},
        "total_return",
    )
    names = [f"latency {one}" for one in delays]
    assert found.select(names).equals(ladder.select(names))
    means = free.table.group_by("point", maintain_order=True).agg(pl.col("break_even_bps").mean())
    assert found["break_even_bps"].to_list() == means["break_even_bps"].to_list()
    for row in found.iter_rows(named=True):
        assert (row["break_even_latency"] is None) == bool(row["note"])
    for wrong in (["1s"], ["1s", "1s"], ["1s", "50ms"]):
        with pytest.raises(errors.InvalidParameter, match="rising latencies"):
            free.break_even(wrong)


def test_a_break_even_lies_on_the_line_between_two_latencies():
    returns = np.array([
        [0.3, 0.1, -0.3, 0.2], [0.3, 0.2, 0.1, 0.05], [0.0, 0.2, 0.1, 0.1],
        [0.3, 0.0, 0.1, 0.1], [0.1, np.nan, -0.1, -0.2],
    ])  # fmt: skip
    latency, notes = break_even_latency([0.0, 1.0, 3.0, 4.0], returns)
    assert latency.tolist()[:1] == pytest.approx([1.5])
    assert latency.tolist()[3] == 1.0
    assert np.isnan(latency[[1, 2, 4]]).all()
    assert notes == ["", "still earns at 4 s", "earns nothing at 0 s", "", "has no total return"]


def test_pictures_are_drawn(swept):
    figure = swept.heatmap()
    assert figure.data[0].z.shape == (3, 3)
    assert swept.heatmap("slow", "fast", "fees").data[0].z.shape == (3, 3)
    assert len(swept.parallel().data) == 1
    with pytest.raises(errors.InvalidParameter, match="did you mean 'fees'"):
        swept.heatmap(metric="feess")


def test_a_heat_map_needs_two_parameters(frames):
    found = fxlab.sweep(frames[0], "sma_cross", {"fast": [3, 4]})
    with pytest.raises(errors.InvalidParameter, match="here vary: fast"):
        found.heatmap()


def test_html_is_escaped(frames):
    found = fxlab.sweep(frames[0], moody, {"mood": ["calm", "<b>"]})
    assert "<b>" not in found._repr_html_()


# ---- one point again -------------------------------------------------------------------------


@pytest.fixture(scope="module")
def tried(frames):
    """Return a sweep in which points are done, fail and are refused."""
    execution = fxlab.Execution(taker_bps=2.0, slippage_bps=0.5, latency="30ms")
    options = {"execution": execution, "capital": 5_000.0, "return_interval": "30s"}
    return fxlab.sweep(frames[0], "sma_cross", {"fast": [3, 8], "slow": [5, 13, 21]}, **options)


def test_the_result_of_a_point_is_the_run_of_its_row_bit_by_bit(tried):
    done = tried.table.filter(pl.col("state") == "done")
    assert done.height == 5
    for row in done.iter_rows(named=True):
        result = tried.result(row)
        assert result.fingerprint == row["fingerprint"]
        assert result.parameters == tried.points[row["point"]].values
        for name in METRICS:
            value = result.metrics[name]
            assert row[name] == (None if math.isnan(value) else value)
        assert result.fills.height == row["fills_count"]


def test_a_point_is_meant_by_number_row_or_parameters(tried):
    best = tried.ranking().row(0, named=True)
    prints = {
        tried.result(meant).fingerprint
        for meant in (
            best,
            best["point"],
            np.int64(best["point"]),
            tried.best,
            {"fast": best["fast"], "slow": best["slow"]},
        )
    }
    assert len(prints) == 1


@pytest.mark.parametrize(
    ("meant", "words"),
    [
        (99, r"point=99 is no number of a point of this sweep \(0 to 5\)"),
        (True, "point=True is no number"),
        ("<b>", "point='<b>' is no number"),
        ({"point": None}, "point=None is no number"),
        ({"fast": 3}, "fast=3 is 3 points; give slow as well"),
        ({}, "no parameter is 6 points; give fast, slow as well"),
        ({"fast": 4, "slow": 13}, "fast=4, slow=13 is no point of this sweep; .*fxlab.backtest"),
        ({"fst": 3}, "did you mean 'fast'"),
        ({1: 3}, "has no parameter '?1"),
        ({"fast": "x"}, "fast='x' is not an int"),
        ({"fast": 8, "slow": 5}, r"point 3 \(fast=8, slow=5, .*\) was skipped, .*: .*slow"),
    ],
)
def test_what_is_not_one_point_that_is_done_is_refused(tried, meant, words):
    with pytest.raises(errors.InvalidParameter, match=words):
        tried.result(meant)


def test_a_point_that_failed_says_why_and_one_that_was_not_reached_what_to_do(frames):
    found = fxlab.sweep(frames[0], moody, {"mood": ["calm", "late"]}, check_lookahead=False)
    with pytest.raises(errors.InvalidParameter, match=r"mood='late'\) failed, .*is NaN"):
        found.result({"mood": "late"})
    stopped = replace(found, outcomes=[{}])
    with pytest.raises(errors.InvalidParameter, match=r"was not reached .*; sweep\.again\(\)"):
        stopped.result(0)


def test_of_several_sessions_one_is_named(frames, swept):
    with pytest.raises(errors.InvalidParameter, match=f"give one of {', '.join(swept.sessions)}"):
        swept.result(0)
    with pytest.raises(errors.InvalidParameter, match="did you mean"):
        swept.result(0, swept.sessions[0][:-1])
    row = swept.table.row(-1, named=True)
    assert row["session"] == swept.sessions[1]
    second = swept.result(row)
    assert second.fingerprint == row["fingerprint"]
    assert swept.result(row["point"], swept.sessions[1]).fingerprint == second.fingerprint
    assert swept.result(row, swept.sessions[0]).fingerprint != second.fingerprint


def test_ticks_that_are_others_than_those_of_the_sweep_are_refused(frames, tried):
    other = fxlab.sweep(frames[1], "sma_cross", {"fast": [3, 8], "slow": [5, 13, 21]})
    with pytest.raises(errors.RunConflict, match=r"have changed since; .*sweep\.again\(\)"):
        replace(tried, studies=other.studies).result(0)


def test_a_parameter_called_point_is_a_parameter(frames):
    def pointed(*, point: int = 1) -> fxlab.Signals:
        """Buy."""
        return fxlab.Signals(target=pl.lit(1.0 / point), lookback=0)

    found = fxlab.sweep(frames[0], pointed, {"point": [4, 2]})
    assert found.result({"point": 2}).parameters == {"point": 2}
    assert found.result(found.table.row(0, named=True)).parameters == {"point": 4}


def test_progress_is_told_and_may_stop_it(tried):
    told = []
    tried.result(0, progress=lambda share, _text: told.append(share))
    assert told[-1] == 1.0

    def stop(share, text):
        raise errors.Cancelled("enough")

    with pytest.raises(errors.Cancelled, match="enough"):
        tried.result(0, progress=stop)
