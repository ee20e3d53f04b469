"""Charts of sweeps and walk forwards: each cell is its points; what is left out is said."""

from __future__ import annotations

import json
import math

import numpy as np
import polars as pl
import pytest

from fxlab.charts import heatmap_chart, parallel_chart, walk_forward_chart
from fxlab.charts._sweeps import STEPS
from fxlab.errors import InvalidParameter

HOSTILE = "<b>x</b>"


def points(*rows):
    names = {"fast": pl.Int64, "slow": pl.Int64, "kind": pl.String, "sharpe": pl.Float64}
    return pl.DataFrame(rows, schema=names, orient="row")


def note(figure):
    return figure.layout.annotations[-1].text


SMALL = points(
    (10, 100, "a", 1.0),
    (10, 200, "a", -2.0),
    (20, 100, "a", 3.0),
    (20, 100, "b", 5.0),
    (20, 200, "a", math.nan),
    (5, 200, "a", None),
)


def test_a_cell_is_the_median_of_its_points():
    (cells,) = heatmap_chart(SMALL, "fast", "slow", "sharpe").data
    assert (cells.x, cells.y) == (("5", "10", "20"), ("100", "200"))
    assert np.array_equal(
        np.array(cells.z, dtype=float),
        [[math.nan, 1.0, 4.0], [math.nan, -2.0, math.nan]],
        equal_nan=True,
    )


def test_what_a_cell_stands_for_and_what_is_missing_is_said():
    said = note(heatmap_chart(SMALL, "fast", "slow", "sharpe"))
    assert said.replace("<br>", " ") == (
        "6 points; 2 without sharpe; a cell is the median of up to 2; frame: the best"
    )


@pytest.mark.parametrize(("lower", "place"), [(False, (2, 0)), (True, (1, 1))])
def test_a_frame_stands_around_the_best_cell(lower, place):
    figure = heatmap_chart(SMALL, "fast", "slow", "sharpe", lower_is_better=lower)
    for shape in figure.layout.shapes:
        assert ((shape.x0 + shape.x1) / 2, (shape.y0 + shape.y1) / 2) == place


def test_colours_turn_at_zero_only_where_there_are_gains_and_losses():
    (both,) = heatmap_chart(SMALL, "fast", "slow", "sharpe").data
    assert (both.zmin, both.zmax) == (-4.0, 4.0)
    gains = SMALL.with_columns(pl.col("sharpe").abs())
    assert heatmap_chart(gains, "fast", "slow", "sharpe").data[0].zmin is None


def test_a_large_grid_is_drawn_in_fewer_cells_and_says_so():
    grid = points(*((a, b, "a", float(a == 299 and b == 5)) for a in range(300) for b in range(90)))
    figure = heatmap_chart(grid, "fast", "slow", "sharpe")
    cells, star = figure.data
    assert np.shape(cells.z) == (45, 60)
    assert np.size(cells.z) < 5_000
    assert max(np.shape(cells.z)) <= STEPS
    assert cells.x[0] == "0 … 4"
    assert star.marker.symbol == "star"
    assert "median of up to 10" in note(figure)
    assert cells.texttemplate is None


def test_a_sweep_without_a_single_figure_is_still_a_figure():
    empty = SMALL.filter(pl.col("sharpe").is_null())
    for table, said in (
        (empty, "no sharpe of 1 point"),
        (
            empty.with_columns(state=pl.lit("failed")),
            "no sharpe of 1 point: 1 failed",
        ),
        (SMALL.head(0), "no points: the sweep has none"),
    ):
        assert note(heatmap_chart(table, "fast", "slow", "sharpe")) == said
        assert note(parallel_chart(table, ["fast"], "sharpe")) == said


@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: heatmap_chart(SMALL, "fst", "slow", "sharpe"), "did you mean 'fast'"),
        (lambda: heatmap_chart(SMALL, "fast", "fast", "sharpe"), "two parameters"),
        (lambda: parallel_chart(SMALL, ["fast"], "sharp"), "did you mean 'sharpe'"),
        (lambda: parallel_chart(SMALL, [], "sharpe"), "names no column"),
        (lambda: walk_forward_chart(SMALL, "sharpe"), "no column 'train_start'"),
    ],
)
def test_wrong_columns_are_named(call, said):
    with pytest.raises(InvalidParameter, match=said):
        call()


def test_a_line_a_point_through_numbers_and_words():
    figure = parallel_chart(SMALL, ["fast", "kind"], "sharpe", unit="fraction")
    (drawn,) = figure.data
    metric, fast, kind = drawn.dimensions
    assert (metric.label, fast.label, kind.label) == ("sharpe", "fast", "kind")
    assert list(metric["values"]) == [-2.0, 1.0, 3.0, 5.0]  # worst first: the best lies on top
    assert list(fast["values"]) == [10, 10, 20, 20]
    assert list(kind["values"]) == [0, 0, 0, 1]
    assert kind.ticktext == ("a", "b")
    assert metric.tickformat == ",.9~%"
    assert note(figure) == "6 points; 2 without sharpe"


def test_of_many_lines_the_best_and_the_worst_are_drawn():
    many = points(*((n, 1, "a", float(n)) for n in range(9_000)))
    figure = parallel_chart(many, ["fast", "slow"], "sharpe", lines=100)
    drawn = figure.data[0].dimensions[0]["values"]
    assert (len(drawn), drawn[0], drawn[-1]) == (100, 0.0, 8_999.0)
    assert note(figure).endswith("100 drawn")


DAY = 86_400_000_000


def folds(tests, **more):
    count = len(tests)
    starts = np.arange(count, dtype=np.int64) * DAY
    frame = pl.DataFrame(
        {
            "train_start": starts,
            "train_end": starts + 3 * DAY,
            "test_start": starts + 3 * DAY,
            "test_end": starts + 4 * DAY,
            "train_sharpe": pl.Series([0.5] * count, dtype=pl.Float64),
            "test_sharpe": pl.Series(tests, dtype=pl.Float64),
        }
    )
    return frame.with_columns(pl.Series(name, values) for name, values in more.items())


def test_a_walk_forward_shows_test_beside_training_over_its_windows():
    figure = walk_forward_chart(folds([1.0, -1.0, None], fast=[5, 6, 7]), "sharpe")
    gain, loss, training, trained, tested = figure.data
    assert (gain.y.tolist(), loss.y.tolist()) == ([1.0], [-1.0])
    assert list(gain.customdata) == ["fast = 5"]
    assert gain.x.tolist() == [3.5 * DAY / 1_000]
    assert training.y.tolist() == [0.5] * 3
    assert tested.base.tolist() == [(n + 3) * DAY / 1_000 for n in range(3)]
    assert trained.x.tolist() == [3 * DAY / 1_000] * 3
    assert note(figure) == "3 folds, 1 tests above zero"


def test_times_of_a_walk_forward_may_be_datetimes():
    frame = folds([1.0])
    times = [name for name, kind in frame.schema.items() if kind == pl.Int64]
    dated = frame.with_columns(pl.col(times).cast(pl.Datetime("us", "UTC")))
    first, second = (walk_forward_chart(table, "sharpe") for table in (frame, dated))
    assert first.data[0].x.tolist() == second.data[0].x.tolist()


def test_no_folds_are_said():
    assert note(walk_forward_chart(folds([]), "sharpe")).startswith("no folds: the data are")


def test_nothing_from_outside_is_markup():
    table = points((1, 2, HOSTILE, 1.0)).rename({"slow": HOSTILE})
    figures = [
        heatmap_chart(table, "kind", HOSTILE, "sharpe", HOSTILE),
        parallel_chart(table, ["kind", HOSTILE], "sharpe", HOSTILE),
        walk_forward_chart(folds([1.0], word=[HOSTILE]), "sharpe", HOSTILE),
    ]
    for figure in figures:
        assert "<b>" not in json.dumps(json.loads(figure.to_json()), ensure_ascii=False)
