"""Plateaus before peaks: neighbourhoods against a plain twin and by hand."""

from __future__ import annotations

import math
from datetime import date, timedelta
from statistics import fmean, stdev

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from fxlab.backtester.metrics import _validation
from fxlab.backtester.metrics._validation import ADDED, ALONE, NO_VALUE, neighbourhood_stability
from fxlab.errors import InvalidInput, InvalidParameter


def grid(values):
    """Return the points of a table of values: a down, b across."""
    rows = [
        {"a": a, "b": b, "profit": value}
        for a, line in enumerate(values)
        for b, value in enumerate(line)
        if value is not None
    ]
    return pl.DataFrame(rows)


def at(frame, **parameters):
    found = frame.filter(**parameters)
    assert found.height == 1
    return found.row(0, named=True)


def test_a_corner_an_edge_and_the_middle_by_hand():
    found = neighbourhood_stability(grid([[1, 2, 3], [4, 5, 6], [7, 8, -9]]), ["a", "b"], "profit")
    assert found.columns == ["a", "b", "profit", *ADDED]
    corner = at(found, a=0, b=0)
    assert (corner["neighbours"], corner["missing"]) == (3, 0)
    assert corner["neighbourhood_mean"] == 3.0
    assert corner["neighbourhood_min"] == 1.0
    assert corner["neighbourhood_std"] == pytest.approx(math.sqrt(10 / 3))
    assert corner["neighbourhood_profitable"] == 1.0
    assert corner["score"] == pytest.approx(3 - math.sqrt(10 / 3))
    assert at(found, a=0, b=1)["neighbours"] == 5
    middle = at(found, a=1, b=1)
    assert (middle["neighbours"], middle["neighbourhood_min"]) == (8, -9)
    assert middle["neighbourhood_mean"] == pytest.approx(27 / 9)
    assert middle["neighbourhood_profitable"] == pytest.approx(8 / 9)


def test_a_plateau_comes_before_a_higher_peak():
    values = np.full((9, 9), -1.0)
    values[1:5, 1:5] = 2.0
    values[7, 7] = 10.0
    found = neighbourhood_stability(grid(values.tolist()), ["a", "b"], "profit")
    first = found.filter(pl.col("rank") == 1)
    inside = {(a, b) for a in (2, 3) for b in (2, 3)}
    assert set(first.select("a", "b").iter_rows()) == inside
    assert first["score"].to_list() == [2.0] * 4  # a flat top loses nothing, exactly
    assert at(found, a=7, b=7)["rank"] > found.filter(pl.col("profit") == 2.0)["rank"].max()
    assert at(found, a=7, b=7)["score"] < 0


def test_steps_follow_the_values_that_are_there_not_their_distance():
    points = pl.DataFrame({"fast": [10, 20, 50, 1_000], "profit": [1.0, 2.0, 3.0, 4.0]})
    found = neighbourhood_stability(points, ["fast"], "profit")
    assert found["neighbours"].to_list() == [1, 2, 2, 1]
    assert found["neighbourhood_mean"].to_list() == [1.5, 2.0, 3.0, 3.5]
    assert found["rank"].to_list() == [4, 3, 2, 1]
    backwards = neighbourhood_stability(points.reverse(), ["fast"], "profit")
    assert backwards.reverse().equals(found)


def test_missing_and_failed_points_are_counted_not_guessed():
    found = neighbourhood_stability(
        grid([[1, 2, None], [4, math.nan, 6], [7, 8, math.inf]]), ["a", "b"], "profit"
    )
    corner = at(found, a=0, b=0)
    assert (corner["neighbours"], corner["missing"]) == (2, 1)
    assert corner["neighbourhood_mean"] == pytest.approx(7 / 3)
    failed = at(found, a=1, b=1)
    assert (failed["neighbours"], failed["missing"]) == (6, 3)
    assert failed["neighbourhood_mean"] == pytest.approx(28 / 6)
    assert math.isnan(failed["score"])
    assert (failed["rank"], failed["reason"]) == (None, NO_VALUE)
    assert at(found, a=2, b=2)["reason"] == NO_VALUE
    assert found["rank"].drop_nulls().sort().to_list() == [1, 2, 3, 4, 5, 6]


def test_a_point_without_neighbours_is_not_called_stable():
    points = pl.DataFrame({"a": [1, 2, 3], "b": ["x", "y", "z"], "profit": [9.0, 1.0, 1.0]})
    found = neighbourhood_stability(points, ["a", "b"], "profit")
    assert found["neighbours"].to_list() == [0, 0, 0]
    assert found["reason"].to_list() == [ALONE] * 3
    assert found["rank"].to_list() == [None] * 3
    assert found["score"].is_nan().all()
    assert found["neighbourhood_std"].is_nan().all()
    assert found["neighbourhood_mean"].to_list() == [9.0, 1.0, 1.0]


def test_only_equal_text_booleans_and_nulls_are_neighbours():
    rows = [
        {"mode": mode, "short": short, "stop": stop, "profit": 1.0}
        for mode in ("a", "b")
        for short in (False, True)
        for stop in (None, 0.1, 0.2)
    ]
    found = neighbourhood_stability(pl.DataFrame(rows), ["mode", "short", "stop"], "profit")
    assert found["neighbours"].to_list() == [0, 1, 1] * 4
    assert found["missing"].to_list() == [0] * 12


def test_a_parameter_that_is_nan_is_not_set():
    points = pl.DataFrame({"stop": [math.nan, 0.1, 0.2], "profit": [1.0, 2.0, 3.0]})
    found = neighbourhood_stability(points, ["stop"], "profit")
    assert found["neighbours"].to_list() == [0, 1, 1]


def test_times_and_lengths_have_an_order():
    days = [date(2024, 1, 1) + timedelta(step) for step in (0, 1, 5)]
    points = pl.DataFrame(
        {"day": days, "hold": [timedelta(hours=step) for step in (1, 2, 3)], "profit": [1, 2, 3]}
    )
    for name in ("day", "hold"):
        found = neighbourhood_stability(points, [name], "profit")
        assert found["neighbours"].to_list() == [1, 2, 1]


def test_break_even_is_where_the_metric_says_so():
    points = pl.DataFrame({"a": [1, 2, 3], "profit_factor": [0.9, 1.0, 1.1]})
    found = neighbourhood_stability(points, ["a"], "profit_factor", break_even=1.0)
    assert found["neighbourhood_profitable"].to_list() == pytest.approx([0, 1 / 3, 1 / 2])


# The plain twin: every point against every other.


def twin(points, levels, metric):
    def near(left, right, name):
        if left[name] == right[name]:
            return True
        known = levels[name]
        if left[name] not in known or right[name] not in known:
            return False
        return abs(known.index(left[name]) - known.index(right[name])) == 1

    found = []
    for here in points:
        values = [
            there[metric]
            for there in points
            if all(near(here, there, name) for name in levels) and math.isfinite(there[metric])
        ]
        found.append(
            (
                len(values) - math.isfinite(here[metric]),
                fmean(values) if values else math.nan,
                min(values, default=math.nan),
                stdev(values) if len(values) > 1 else math.nan,
                fmean(value > 0 for value in values) if values else math.nan,
            )
        )
    return found


@st.composite
def tables(draw):
    """Parts of grids of one to four axes, one of them without an order, some points failed."""
    axes = {f"p{axis}": draw(st.integers(1, 5)) for axis in range(draw(st.integers(1, 3)))}
    names = [*axes, "mode"]
    shape = [*axes.values(), 2]
    cells = math.prod(shape)
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    chosen = np.flatnonzero(rng.random(cells) < draw(st.sampled_from([0.3, 0.9, 1.1])))
    rows = []
    for cell in rng.permutation(chosen):
        places = np.unravel_index(cell, shape)
        row = {name: float(place) ** 2 for name, place in zip(names, places, strict=True)}
        row["mode"] = "ab"[places[-1]]
        row["profit"] = math.nan if rng.random() < 0.1 else float(rng.normal(100, 1))
        rows.append(row)
    return names, rows


@given(tables())
def test_both_ways_agree_with_the_plain_twin(case):
    names, rows = case
    schema = {**dict.fromkeys(names[:-1], pl.Float64), "mode": pl.String, "profit": pl.Float64}
    points = pl.DataFrame(rows, schema=schema)
    levels = {name: sorted({row[name] for row in rows}) for name in names[:-1]}
    expected = twin(rows, {**levels, "mode": []}, "profit")
    for keys in (0, 1 << 62):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(_validation, "_KEYS", keys)
            patch.setattr(_validation, "_CELLS", 1 << 20 if keys else 7)
            found = neighbourhood_stability(points, names, "profit")
        assert found.select(*names, "profit").equals(points)
        got = found.select(
            "neighbours", *[name for name in ADDED if name.startswith("neighbourhood_")]
        )
        for row, other in zip(got.iter_rows(), expected, strict=True):
            assert row == pytest.approx(other, rel=1e-9, abs=1e-9, nan_ok=True)
        scored = found.drop_nulls("rank").sort("rank")
        assert scored["score"].is_sorted(descending=True)
        assert (found["rank"].is_null() == found["score"].is_nan()).all()
        assert (found["rank"].is_null() == (found["reason"] != "")).all()
        assert (found["missing"] >= 0).all()


def test_a_large_grid_and_one_of_many_axes_stay_small_work():
    size = 30
    axes = np.indices((size,) * 3).reshape(3, -1)
    cube = pl.DataFrame({**dict(zip("abc", axes, strict=True)), "profit": axes.sum(axis=0)})
    found = neighbourhood_stability(cube, ["a", "b", "c"], "profit")
    assert found["neighbours"].max() == 26
    assert found.filter(pl.col("neighbours") == 26).height == (size - 2) ** 3
    rng = np.random.default_rng(1)
    wide = pl.DataFrame({f"p{axis}": rng.permutation(400) for axis in range(20)})
    wide = wide.with_columns(profit=pl.int_range(pl.len()))
    assert neighbourhood_stability(wide, wide.columns[:-1], "profit")["neighbours"].sum() == 0


def test_an_empty_table_and_one_point():
    schema = {"a": pl.Int64, "profit": pl.Float64}
    empty = neighbourhood_stability(pl.DataFrame(schema=schema), ["a"], "profit")
    assert empty.columns == ["a", "profit", *ADDED]
    assert empty.height == 0
    one = neighbourhood_stability(pl.DataFrame({"a": [1], "profit": [2.0]}), ["a"], "profit")
    assert one.row(0, named=True)["reason"] == ALONE
    failed = neighbourhood_stability(
        pl.DataFrame({"a": [1, 2], "profit": [None, None]}, schema=schema), ["a"], "profit"
    )
    assert failed["reason"].to_list() == [NO_VALUE] * 2
    assert failed["neighbourhood_min"].is_nan().all()


POINTS = pl.DataFrame({"fast": [1, 2], "slow": [3, 3], "rank": [1, 2], "sharpe": [0.1, 0.2]})


@pytest.mark.parametrize(
    ("parameters", "metric", "why"),
    [
        ([], "sharpe", "no parameters are given"),
        (["fsat"], "sharpe", "no column 'fsat'; did you mean 'fast'"),
        (["fast"], "zzz", "no column 'zzz'; there are: fast, slow, rank, sharpe"),
        (["rank"], "sharpe", "'rank' would be overwritten by the result; rename it"),
        (["fast", "fast"], "sharpe", "name a column twice"),
        (["fast"], "fast", "name a column twice"),
    ],
)
def test_wrong_columns_are_refused(parameters, metric, why):
    with pytest.raises(InvalidParameter, match=why):
        neighbourhood_stability(POINTS, parameters, metric)


def test_a_metric_that_is_no_number_is_refused():
    points = POINTS.with_columns(sharpe=pl.lit("high"))
    with pytest.raises(InvalidParameter, match="'sharpe' is String, not a number"):
        neighbourhood_stability(points, ["fast"], "sharpe")


def test_a_point_that_stands_twice_is_refused():
    with pytest.raises(InvalidInput, match="the point slow=3 stands more than once"):
        neighbourhood_stability(POINTS, ["slow"], "sharpe")
