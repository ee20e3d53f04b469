"""Charts of sweeps and walk forwards: each cell is its points; what is left out is said."""

from __future__ import annotations

import json
import math
from itertools import product

import numpy as np
import polars as pl
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from fxlab.charts import heatmap_chart, parallel_chart, walk_forward_chart
from fxlab.charts._sweeps import STEPS, rows_of_cell
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
    cells, holes = heatmap_chart(SMALL, "fast", "slow", "sharpe").data
    assert (cells.x, cells.y) == (("5", "10", "20"), ("100", "200"))
    assert np.array_equal(
        np.array(cells.z, dtype=float),
        [[math.nan, 1.0, 4.0], [math.nan, -2.0, math.nan]],
        equal_nan=True,
    )
    assert np.array_equal(
        np.array(holes.z, dtype=float),
        [[math.nan] * 3, [0.0, math.nan, 0.0]],  # tried without a value; the other gap was not
        equal_nan=True,
    )
    assert "slow %{y}: no sharpe" in holes.hovertemplate


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
    both, _ = heatmap_chart(SMALL, "fast", "slow", "sharpe").data
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


NUMBERS = st.integers(-3, 3) | st.sampled_from([0.3, 0.1 + 0.2, 1e-9, 1e20])
WORDS = st.text("a<&… ()2", max_size=6)


@settings(max_examples=40)
@given(st.data())
def test_each_point_is_in_exactly_the_cell_that_is_drawn_for_it(data):
    """With few values, with more than there are steps, and with some that look alike."""
    kinds = [st.integers(-400, 400), NUMBERS.map(float), WORDS, st.booleans()]
    values = st.one_of(st.none(), st.just(math.nan), st.floats(-9, 9))
    height = data.draw(st.sampled_from([1, 2, 9, 20]))
    steps = data.draw(st.sampled_from([3, STEPS]))

    def column(kind):
        return data.draw(st.lists(kind, min_size=height, max_size=height))

    table = pl.DataFrame(
        {
            "x": column(data.draw(st.sampled_from(kinds))),
            "y": column(data.draw(st.sampled_from(kinds))),
            "z": pl.Series(column(values), dtype=pl.Float64, strict=False),
        }
    ).with_row_index()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("fxlab.charts._sweeps.STEPS", steps)
        drawn = heatmap_chart(table, "x", "y", "z").data
        assert bool(drawn) == bool(table["z"].is_finite().any())
        assume(drawn)
        cells, seen = drawn[0], []
        for (row, up), (place, across) in product(enumerate(cells.y), enumerate(cells.x)):
            rows = rows_of_cell(table, "x", "y", across, up)
            known = rows["z"].filter(rows["z"].is_finite().fill_null(value=False))
            shown = float(cells.z[row][place])
            assert known.median() == (None if math.isnan(shown) else shown)
            shaded = [np.isfinite(one.z[row][place]) for one in drawn[1:] if one.type == "heatmap"]
            assert any(shaded) == (rows.height > 0 and known.is_empty())
            seen += rows["index"].to_list()
    assert sorted(seen) == table["index"].to_list()


def test_values_that_look_alike_have_cells_of_their_own():
    near = pl.DataFrame({"x": [0.3, 0.1 + 0.2], "y": ["<b>", "c"], "z": [1.0, 2.0]})
    assert heatmap_chart(near, "x", "y", "z").data[0].x == ("0.3", "0.3 (2)")
    assert rows_of_cell(near, "x", "y", "0.3 (2)", "c")["z"].to_list() == [2.0]
    assert rows_of_cell(near, "x", "y", "0.3", "&lt;b&gt;")["z"].to_list() == [1.0]


@pytest.mark.parametrize("label", ["", "7", "<b>", None, 5])
def test_a_cell_that_is_not_there_holds_nothing(label):
    assert rows_of_cell(SMALL, "fast", "slow", label, "100").is_empty()
    assert rows_of_cell(SMALL.head(0), "fast", "slow", label, "100").is_empty()
    with pytest.raises(InvalidParameter, match="did you mean 'fast'"):
        rows_of_cell(SMALL, "fst", "slow", label, "100")


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
