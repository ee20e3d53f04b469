"""Runs side by side: what differs comes first, and the best is really the best."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest
from markets import random_walk

import fxlab
from fxlab.backtester.compare import BEST, compare_runs
from fxlab.backtester.metrics._performance import METRICS
from fxlab.errors import InvalidParameter

HOSTILE = "<img src=x onerror=alert(1)>"


@pytest.fixture(scope="module")
def runs():
    ticks = random_walk(5_000)
    terms = fxlab.Execution(taker_bps=1.0)
    return [
        fxlab.backtest(ticks, "sma_cross", {"fast": 5, "slow": 20}),
        fxlab.backtest(ticks, "sma_cross", {"fast": 5, "slow": 40}),
        fxlab.backtest(ticks, "sma_cross", {"fast": 5, "slow": 20}, execution=terms),
    ]


def row_of(result, **changes):
    """Return a saved row as the database gives it back: objects as JSON text, nan as null."""
    plain = {k: v if math.isfinite(v) else None for k, v in result.metrics.items()}
    row = {
        "run_id": result.run_id,
        "data_session_id": result.data_session_id,
        "strategy": result.strategy,
        "symbols": list(result.symbols),
        "parameters": json.dumps(result.parameters),
        "execution": json.dumps(result.execution.as_dict()),
        "options": json.dumps(result.run.options()),
        "metrics": json.dumps(plain),
        "capital": result.capital,
        "rows_read": result.ticks,
    }
    return row | changes


def test_the_figures_stand_beside_each_other(runs):
    found = compare_runs(runs)
    assert found.table["metric"].to_list() == list(METRICS)
    for name, run in zip(found.names, runs, strict=True):
        values = found.table[name].to_list()
        assert values == pytest.approx(list(run.metrics.values()), nan_ok=True)


def test_runs_are_called_by_what_sets_them_apart(runs):
    names = compare_runs(runs).names
    assert names == [
        "slow=20, taker_bps=5",
        "slow=40, taker_bps=5",
        "slow=20, taker_bps=1",
    ]
    assert compare_runs({"a": runs[0], "b": runs[1]}).names == ["a", "b"]


def test_only_what_differs_is_listed(runs):
    found = compare_runs(runs).differences
    assert found.select("kind", "name").rows() == [
        ("parameter", "slow"),
        ("execution", "taker_bps"),
    ]
    assert found.row(0)[2:] == ("20", "40", "20")


def test_the_best_run_of_a_figure_is_marked(runs):
    table = compare_runs({"a": runs[0], "b": runs[1], "c": runs[2]}).table
    best = dict(table.select("metric", "best").rows())
    values = {row["metric"]: [row[name] for name in "abc"] for row in table.to_dicts()}
    assert best["final_equity"] == "abc"[int(np.argmax(values["final_equity"]))]
    assert best["fees"] == "abc"[int(np.argmin(values["fees"]))]
    assert best["max_drawdown"] == "abc"[int(np.argmax(values["max_drawdown"]))]  # nearest to zero
    assert best["trades_count"] is None  # more trades are not better
    assert best["sharpe"] is None  # no run has one
    assert best["funding"] is None  # all are equal


def test_a_result_and_its_saved_row_do_not_differ(runs):
    found = compare_runs([runs[0], row_of(runs[0])])
    assert found.differences.is_empty()
    assert found.names == ["sma_cross #1", "sma_cross #2"]
    first, second = (found.table[name].to_list() for name in found.names)
    assert first == pytest.approx(second, nan_ok=True)
    assert found.table["best"].null_count() == len(METRICS)
    assert list(found.equities) == ["sma_cross #1"]


def test_a_row_of_the_first_version_is_read_as_it_was_meant(runs):
    old = {
        "fill": "next_trade",
        "taker_bps": 5.0,
        "slippage_bps": 0.0,
        "latency_us": 0,
        "max_leverage": 1.0,
    }
    found = compare_runs([runs[0], row_of(runs[0], execution=json.dumps(old))])
    assert found.differences.is_empty()


def test_a_frame_of_saved_runs_is_compared_as_it_is(runs):
    frame = pl.DataFrame([row_of(runs[0]), row_of(runs[1], data_session_id="other")])
    found = compare_runs(frame)
    assert ("data", "data_session_id") in found.differences.select("kind", "name").rows()


def test_equities_start_at_one(runs):
    found = compare_runs(runs)
    figure = found.plot()
    assert [trace.name for trace in figure.data] == found.names
    assert {trace.y[0] for trace in figure.data} == {1.0}
    assert len({trace.line.dash for trace in figure.data}) == 3
    for trace, run in zip(figure.data, runs, strict=True):
        assert trace.y[-1] == pytest.approx(1 + run.metrics["total_return"])


def test_saved_runs_have_no_picture_and_say_what_to_do(runs):
    with pytest.raises(InvalidParameter, match="reproduce"):
        compare_runs([row_of(runs[0]), row_of(runs[1])]).plot()


def test_the_notebooks_view_marks_the_best_and_escapes(runs):
    view = compare_runs({HOSTILE: runs[0], "b": runs[1]})._repr_html_()
    assert "<img" not in view
    assert view.count(BEST) > 5
    assert ">slow<" in view
    assert ">sharpe<" not in view  # no run has one
    same = compare_runs([runs[0], runs[0]])._repr_html_()
    assert "Nothing that made these runs differs" in same


def test_the_text_view_shows_the_main_figures(runs):
    assert "final_equity" in repr(compare_runs(runs))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ([], "two or more"),
        ([7, 8], "neither a result nor a saved run"),
        ([{"run_id": "x"}, {"run_id": "y"}], "cannot be compared"),
    ],
)
def test_what_cannot_be_compared_is_refused(given, said):
    with pytest.raises(InvalidParameter, match=said):
        compare_runs(given)


def test_one_run_and_names_that_are_columns_are_refused(runs):
    with pytest.raises(InvalidParameter, match="got 1"):
        compare_runs(runs[0])
    with pytest.raises(InvalidParameter, match="'best' cannot name a run"):
        compare_runs({"best": runs[0], "b": runs[1]})
