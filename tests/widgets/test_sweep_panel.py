"""The grid form and the sweep panel without a browser: what is chosen is what is swept."""

from __future__ import annotations

import asyncio
import threading
from typing import Annotated

import ipywidgets as w
import polars as pl
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from markets import recorded_walk

import fxlab
from fxlab._html import show
from fxlab.backtester.strategy import strategy
from fxlab.charts._style import PLOTLY
from fxlab.errors import InvalidParameter
from fxlab.widgets import GridForm, KeyGuard, SweepPanel
from fxlab.widgets._forms import WRONG, Row, TextField, suggested


def every_kind(
    *,
    count: Annotated[int, fxlab.Bounds(1, 9)] = 3,
    share: Annotated[float, fxlab.Bounds(0.0, 1.0)] = 0.25,
    free: float = 0.0,
    short: bool = True,
    word: str = "a",
) -> fxlab.Signals:
    """Show <every> kind of row.

    Parameters
    ----------
    count
        how <many>
    """
    return fxlab.Signals(target=pl.lit(share), lookback=0)


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Register the strategy for these tests only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(strategy._REGISTRY, "every_kind", strategy.get(every_kind))
        yield


# ---- the form --------------------------------------------------------------------------------


def test_each_kind_has_its_row():
    rows = GridForm("every_kind").rows
    kinds = {name: [type(c) for c in row.controls.values()] for name, row in rows.items()}
    assert kinds == {
        "count": [TextField] * 3,
        "share": [TextField] * 3,
        "free": [TextField] * 3,
        "short": [w.Dropdown],
        "word": [w.Text],
    }
    ends = rows["count"].controls["from"]
    assert ends.description == "count from"
    assert ends.tooltip == "how <many>"


def test_two_numbers_vary_at_first_inside_their_bounds():
    form = GridForm("every_kind")
    assert form.parameters == {
        "count": [1, 3, 5, 7],
        "share": [0.125, 0.25, 0.375, 0.5],
        "free": [0.0],
        "short": [True],
        "word": ["a"],
    }
    assert form.count == 16
    for name in strategy.names():
        GridForm(name)
        for parameter in strategy.get(name).parameters.values():
            if parameter.kind in (int, float):
                first, last, step = suggested(parameter)
                assert parameter.check(parameter.kind(first)) <= parameter.default <= last
                assert parameter.check(parameter.kind(last))
                assert step > 0


def test_what_the_browser_sends_becomes_the_grid():
    form = GridForm("every_kind")
    seen = []
    form.observe(seen.append, "changes")
    form.rows["count"].controls["to"].set_state({"value": "9"})
    form.rows["count"].controls["step"].set_state({"value": 4})
    form.rows["share"].controls["from"].set_state({"value": 0.1})
    form.rows["share"].controls["to"].set_state({"value": 0.3})
    form.rows["share"].controls["step"].set_state({"value": 0.1})
    form.rows["short"].controls["values"].set_state({"index": 2})
    form.rows["word"].controls["values"].set_state({"value": "a, b,b"})
    assert len(seen) == 7
    assert form.parameters == {
        "count": [1, 5, 9],
        "share": [0.1, 0.2, 0.3],
        "free": [0.0],
        "short": [False, True],
        "word": ["a", "b"],
    }
    assert form.count == 36
    assert "3 values: 0.1, 0.2, 0.3" in form.rows["share"].line.value


@pytest.mark.parametrize(
    ("part", "text", "words"),
    [
        ("from", "1e0", "count from=&#x27;1e0&#x27; is not an int; count from takes an int from 1"),
        ("from", "-5", "count from=-5 is out of range"),
        ("to", "50", "count to=50 is out of range"),
        ("step", "1.5", "count step=1.5 is not a whole number above 0"),
        ("step", "0", "count step=0 is not a whole number above 0"),
        ("step", "", "count step=&#x27;&#x27; is not a number"),
    ],
)
def test_a_range_is_what_it_shows_or_the_field_is_red(part, text, words):
    form = GridForm("every_kind")
    field = form.rows["count"].controls[part]
    field.set_state({"value": text})
    assert field.value == text
    assert WRONG in field._dom_classes
    assert words in form.rows["count"].line.value
    assert form.count == 0
    with pytest.raises(InvalidParameter):
        _ = form.parameters
    field.set_state({"value": "1"})
    assert WRONG not in field._dom_classes


NUMBERS = ["0", "1", "3", "9", "10", "-1", "0.1", "0.25", "1e-3", "1e300", "inf", "nan", "x", ""]


@settings(max_examples=100)
@given(
    name=st.sampled_from(["count", "share", "free"]),
    texts=st.permutations(["from", "to", "step"]).flatmap(
        lambda parts: st.fixed_dictionaries(dict.fromkeys(parts, st.sampled_from(NUMBERS)))
    ),
)
def test_a_row_counts_the_values_that_it_gives_whatever_is_typed(name, texts):
    """In any order; a red field has no values, and so has a range that cannot be."""
    told = []
    row = Row(
        strategy.get(every_kind).parameters[name], lambda: told.append(row.count), varies=True
    )
    for part, text in texts.items():
        row.controls[part].set_state({"value": text})
    try:
        values = row.values
    except InvalidParameter:
        values = []
    assert row.count == len(values)
    assert told == [] or told[-1] == len(values)
    if any(WRONG in field._dom_classes for field in row.controls.values()):
        assert values == []
    assert values == sorted(set(values))
    if values:
        assert values[0] == float(row.controls["from"].value)
        assert values[-1] <= float(row.controls["to"].value)


def test_a_range_of_too_many_values_says_so_and_counts_nothing():
    form = GridForm("every_kind")
    form.set_range("free", 0, 1e300, 1)
    assert form.count == 0
    assert "has no values, or too many" in form.rows["free"].line.value


def test_a_range_that_is_none_says_so_and_counts_nothing():
    form = GridForm("every_kind")
    form.set_range("count", 9, 3, 1)
    assert form.count == 0
    assert "count from 9 to 3 by 1 has no values" in form.rows["count"].line.value
    with pytest.raises(InvalidParameter, match="has no values"):
        _ = form.parameters


def test_a_million_values_are_counted_not_made():
    form = GridForm("sma_cross")
    form.set_range("fast", 1, 1_000_000, 1)
    form.set_range("slow", 1, 1_000_000, 1)
    assert form.count == 10**12
    assert "1,000,000 values" in form.rows["fast"].line.value


def test_another_strategy_brings_its_own_rows():
    form = GridForm("sma_cross")
    form.choice.set_state({"index": form.choice.options.index("buy_and_hold")})
    assert (form.strategy, list(form.rows)) == ("buy_and_hold", ["exposure"])
    assert repr(form) == "<GridForm buy_and_hold: 2 exposure>"


# ---- the panel -------------------------------------------------------------------------------


@pytest.fixture(scope="module")
def session_id(lab, unique):
    made = unique("sweeping")
    walks = [recorded_walk(4_000, seed, symbol=name) for seed, name in enumerate(("BTC", "ETH"))]
    lab.import_frames({"prices": pl.concat(walks)}, session_id=made)
    return made


@pytest.fixture
def panel(lab, session_id):
    made = SweepPanel(lab, session_id=session_id)
    made.grid.set_range("fast", 2, 4, 2)
    made.grid.set_range("slow", 3, 12, 3)
    return made


def test_points_and_time_are_told_before_run(panel):
    assert 'role="status"' in panel.estimate.value
    assert "8 points, about " in panel.estimate.value
    panel.grid.set_range("slow", 3, 3, 3)
    assert "2 points, about " in panel.estimate.value
    panel.grid.set_range("slow", 5, 3, 3)
    assert panel.estimate.failed
    assert "slow from 5 to 3 by 3 has no values" in panel.estimate.value
    panel.picker.symbol_list.set_state({"index": []})
    panel.grid.set_range("slow", 3, 12, 3)
    assert "no symbol is chosen" in panel.estimate.value


def test_what_a_point_takes_is_measured_once_for_each_session_and_strategy(panel, monkeypatch):
    measured = []
    monkeypatch.setattr(
        "fxlab.widgets._sweep_panel.seconds_a_point", lambda study: measured.append(study) or 60.0
    )
    panel.grid.choice.value = "breakout"
    panel.grid.set_range("entry", 1_000, 1_030, 1)
    assert len(measured) == 1
    assert " min on " in panel.estimate.value
    panel.picker.symbol_list.set_state({"index": [0]})
    panel.grid.choice.value = "sma_cross"
    assert len(measured) == 3


def test_a_point_that_cannot_be_measured_says_why(panel):
    panel.grid.choice.value = "book_imbalance"
    assert "books" in panel.estimate.value
    panel.run.click()
    assert "books" in panel.message.value


def test_run_gives_the_sweep_the_library_gives(panel, lab, session_id):
    panel.run.click()
    same = fxlab.sweep(
        lab.session(session_id), "sma_cross", {"fast": [2, 4], "slow": [3, 6, 9, 12]}
    )
    assert panel.message.value == ""
    assert panel.sweep.table.equals(same.table)
    assert panel.sweep.sweep_ids
    assert not panel.run.disabled


def test_run_shows_picture_points_and_guards(panel):
    panel.run.click()
    shown, _words = panel.plot.outputs
    assert shown["data"][PLOTLY]["data"][0]["type"] == "heatmap"
    for words in ("The best points by sharpe per period", "The steadiest points",
                  "14 returns are fewer", "Sharpe ratio is above chance"):  # fmt: skip
        assert words in panel.figures.value
    assert panel.progress.bar.bar_style == "success"
    assert "7 done, 1 skipped" in panel.progress.text.value
    panel.metric.value = "total_return"
    panel.run.click()
    assert "The best points by total return" in panel.figures.value


def test_one_parameter_is_drawn_without_a_heat_map(panel):
    panel.grid.set_range("slow", 12, 12, 1)
    panel.run.click()
    assert panel.plot.outputs[0]["data"][PLOTLY]["data"][0]["type"] == "parcoords"


def test_points_are_kept_only_if_wanted(panel, lab, session_id):
    panel.grid.choice.value = "buy_and_hold"
    panel.keep.value = False
    panel.run.click()
    assert panel.sweep.sweep_ids == ()
    assert lab.sweeps(1_000).filter(
        (pl.col("data_session_id") == session_id) & (pl.col("strategy") == "buy_and_hold")
    ).is_empty()  # fmt: skip


def test_a_grid_that_is_refused_says_why_and_keeps_the_old_picture(panel):
    panel.run.click()
    before = panel.plot.outputs, panel.sweep
    panel.grid.set_range("fast", 1, 1_000, 1)
    panel.grid.set_range("slow", 1_001, 3_000, 1)
    panel.run.click()
    assert 'role="alert"' in panel.message.value
    assert "the grid has 2,000,000 points" in panel.message.value
    assert (panel.plot.outputs, panel.sweep) == before
    assert panel.progress.bar.bar_style == "danger"


def test_a_point_that_fails_is_named(panel, monkeypatch):
    def moody(*, level: int = 2) -> fxlab.Signals:
        """Fail at some <levels>."""
        if level == 3:
            raise ArithmeticError("no <luck>")
        return fxlab.Signals(target=pl.lit(1.0 / level), lookback=0)

    monkeypatch.setitem(strategy._REGISTRY, "moody", strategy.get(moody))
    panel.grid.choice.options = strategy.names()
    panel.grid.choice.value = "moody"
    panel.run.click()
    assert "1 failed" in panel.progress.text.value
    assert "no &lt;luck&gt;" in panel.figures.value


async def until_over(panel):
    """Wait until the sweep has ended and Run can be pressed again."""
    over = asyncio.Event()
    panel.run.observe(lambda _: over.set(), "disabled")
    if panel.run.disabled:
        await over.wait()


def test_cancel_keeps_what_is_done(panel, monkeypatch):
    """Points wait in their thread, after the first chunk, until the click on Cancel was handled."""
    reached, may_go_on = threading.Event(), threading.Event()

    def patient(ticks: pl.DataFrame, *, level: int = 2) -> pl.DataFrame:
        """Wait where there is nobody else to wait for."""
        if level > 1 and story_runs:
            reached.set()
            may_go_on.wait(120)
        return ticks.select(target=pl.lit(1.0 / level))

    story_runs = []
    monkeypatch.setitem(strategy._REGISTRY, "patient", strategy.get(patient))
    monkeypatch.setattr("fxlab.sweeper.sweep.check_workers", lambda _: 1)
    monkeypatch.setattr("fxlab.sweeper._study.check_sampled_lookahead", lambda *_: None)
    panel.grid.choice.options = strategy.names()
    panel.grid.choice.value = "patient"
    panel.grid.set_range("level", 1, 40, 1)
    story_runs.append(True)

    async def story():
        panel.run.click()
        assert panel.run.disabled
        await asyncio.to_thread(reached.wait, 120)
        panel.progress.cancel.click()
        may_go_on.set()
        await until_over(panel)

    asyncio.run(asyncio.wait_for(story(), 120))
    assert "the sweep was stopped after" in panel.message.value
    assert panel.sweep.table.height < 40
    assert panel.progress.bar.bar_style == "danger"
    assert "not done" in panel.progress.text.value


def test_every_control_has_a_label_and_lists_a_guard(panel):
    def walk(widget):
        yield widget
        for child in getattr(widget, "children", ()):
            yield from walk(child)

    silent = {
        "HTML",
        "Label",
        "Message",
        "SessionOverview",
        "HBox",
        "VBox",
        "Output",
        "FigureOutput",
        "Row",
    }
    for widget in walk(panel):
        if hasattr(widget, "description") and type(widget).__name__ not in silent:
            assert widget.description, widget
    for part in (panel, panel.grid, panel.picker):
        assert isinstance(part.children[-1], KeyGuard)


def test_a_panel_reads_as_text(panel):
    assert repr(panel).splitlines()[0] == "<SweepPanel>"
    assert "<GridForm sma_cross: 2 fast x 4 slow x 1 allow_short>" in repr(panel)


# ---- the tear sheet of a point ---------------------------------------------------------------


def click(panel, x, y):
    """Send what the browser sends after a click on the cell at these labels."""
    panel.events.handle({"event": "click", "x": x, "y": y, "z": 0.1, "curve": 0, "name": ""})


def row_of(panel, **values):
    """Return the row of the sweep's table with these parameters."""
    return panel.sweep.table.row(
        by_predicate=pl.all_horizontal(pl.col(name) == value for name, value in values.items()),
        named=True,
    )


def test_a_click_on_a_cell_opens_the_tear_sheet_of_its_point(panel):
    assert panel.sheet.layout.display == "none"
    click(panel, "4", "9")  # of a figure that is not there yet
    assert panel.point_result is None
    panel.run.click()
    assert "A click on a cell of the heat map opens" in panel.sheet.help.value
    cell = panel.plot.outputs[0]["data"][PLOTLY]["data"][0]
    assert ("4" in cell["x"], "9" in cell["y"]) == (True, True)
    click(panel, "4", "9")
    row = row_of(panel, fast=4, slow=9)
    assert panel.sheet.choice.value == row["point"]
    assert panel.point_result.fingerprint == row["fingerprint"]
    assert "Tear sheet: fast 4, slow 9, allow_short no" in panel.sheet.facts.value
    told = f"sharpe per period {show(row['sharpe_per_period'])}; in Python"
    assert told in panel.sheet.facts.value
    assert "All figures" in panel.sheet.figures.value
    assert panel.sheet.plot.outputs[0]["data"]["text/plain"] == panel.point_result.title
    assert panel.sheet.message.value == ""
    assert panel.sheet.progress.bar.bar_style == "success"


def test_the_list_has_all_points_best_first_and_opens_them_by_its_button(panel):
    panel.run.click()
    labels = [label for label, _ in panel.sheet.choice.options]
    numbers = [number for _, number in panel.sheet.choice.options]
    ranked = panel.sweep.ranking()["point"].to_list()
    assert numbers[: len(ranked)] == ranked
    assert labels[-1] == "fast 4, slow 3: skipped"
    assert panel.sheet.choice.value == numbers[0]
    panel.sheet.choice.value = numbers[1]
    assert panel.point_result is None
    panel.sheet.backtest.click()
    assert panel.point_result.parameters == panel.sweep.points[numbers[1]].values


def test_a_hole_says_why_it_is_one_and_shows_nothing_else(panel):
    panel.run.click()
    click(panel, "4", "9")
    click(panel, "4", "3")
    assert panel.sheet.message.failed
    assert "(fast=4, slow=3, allow_short=False) was skipped" in panel.sheet.message.value
    assert panel.point_result is None
    assert (panel.sheet.facts.value, panel.sheet.plot.outputs) == ("", ())
    assert panel.sheet.progress.layout.visibility == "hidden"
    click(panel, "2", "3")
    assert not panel.sheet.message.failed
    assert panel.point_result.parameters["fast"] == 2


def test_a_point_that_failed_shows_its_error(panel, monkeypatch):
    def moody(*, level: int = 2, other: int = 1) -> fxlab.Signals:
        """Fail at some <levels>."""
        if level == 3:
            raise ArithmeticError("no <luck>")
        return fxlab.Signals(target=pl.lit(other / level / 9), lookback=0)

    monkeypatch.setitem(strategy._REGISTRY, "moody", strategy.get(moody))
    panel.grid.choice.options = strategy.names()
    panel.grid.choice.value = "moody"
    panel.grid.set_range("level", 2, 3, 1)
    panel.grid.set_range("other", 1, 2, 1)
    panel.run.click()
    click(panel, "3", "1")
    assert "no &lt;luck&gt;" in panel.sheet.message.value
    assert "other=1) failed" in panel.sheet.message.value


@pytest.mark.parametrize("label", [None, 7, "<b>", "999"])
def test_a_cell_of_another_sweep_opens_nothing(panel, label):
    panel.run.click()
    click(panel, label, "9")
    assert "no point of this sweep is in that cell" in panel.sheet.message.value
    assert panel.point_result is None


def test_of_several_points_in_a_cell_the_best_is_opened(panel):
    panel.grid.rows["allow_short"].controls["values"].index = 2
    panel.metric.value = "total_return"
    panel.run.click()
    click(panel, "2", "9")
    both = panel.sweep.table.filter((pl.col("fast") == 2) & (pl.col("slow") == 9))
    assert both.height == 2
    assert panel.point_result.metrics["total_return"] == both["total_return"].max()
    assert "the best of 2 points in this cell" in panel.sheet.facts.value
    assert panel.sheet.choice.label.startswith("fast 2, slow 9, allow_short ")


def test_points_beyond_the_list_are_told_and_open_by_a_click(panel, monkeypatch):
    monkeypatch.setattr("fxlab.widgets._sweep_panel.LISTED", 3)
    panel.run.click()
    assert len(panel.sheet.choice.options) == 3
    assert "the list has the best 3 of 8 points" in panel.sheet.help.value
    last = panel.sweep.ranking().row(-1, named=True)
    click(panel, str(last["fast"]), str(last["slow"]))
    assert panel.sheet.choice.value == last["point"]
    assert panel.point_result.parameters["slow"] == last["slow"]
    best = panel.sweep.ranking().row(0, named=True)
    click(panel, str(best["fast"]), str(best["slow"]))
    assert len(panel.sheet.choice.options) == 3


def test_one_parameter_has_the_list_alone(panel):
    panel.grid.set_range("slow", 12, 12, 1)
    panel.run.click()
    assert "The button opens" in panel.sheet.help.value
    assert "click" not in panel.sheet.help.value
    click(panel, "2", "12")
    assert panel.point_result is None
    panel.sheet.backtest.click()
    assert panel.sheet.message.value == ""
    assert panel.point_result.parameters == panel.sweep.best


def test_another_sweep_clears_the_sheet_of_the_one_before(panel):
    panel.run.click()
    click(panel, "4", "9")
    panel.grid.set_range("fast", 2, 3, 1)
    assert panel.point_result is not None
    panel.run.click()
    assert panel.point_result is None
    assert (panel.sheet.facts.value, panel.sheet.plot.outputs) == ("", ())
    click(panel, "3", "9")
    assert panel.point_result.parameters["fast"] == 3


def test_a_backtest_that_breaks_leaves_no_spinner(panel, monkeypatch):
    panel.run.click()
    click(panel, "4", "9")

    def broken(*_args, **_options):
        raise OSError("the server <went> away")

    monkeypatch.setattr("fxlab.sweeper.sweep.backtest", broken)
    with pytest.raises(OSError, match="away"):
        click(panel, "2", "9")
    assert "the server &lt;went&gt; away" in panel.sheet.message.value
    assert panel.sheet.progress.layout.visibility == "hidden"
    assert panel.point_result is None
    monkeypatch.undo()
    click(panel, "2", "9")
    assert panel.point_result.parameters["fast"] == 2


async def until(condition):
    """Wait until something is so; the test's own time limit ends it otherwise."""
    while not condition():  # noqa: ASYNC110 - what it waits for is done by threads
        await asyncio.sleep(0.01)


def test_of_two_clicks_the_last_is_shown_and_cancel_is_heard(panel, monkeypatch):
    """The first backtest waits in its thread until the second one has been shown."""
    panel.run.click()
    may_go_on, begun, ended = threading.Event(), [], []
    backtest = fxlab.backtest

    def patient(source, chosen, values, **options):
        begun.append(values["fast"])
        if values["fast"] == 4:
            may_go_on.wait(120)
        try:
            return backtest(source, chosen, values, **options)
        finally:
            ended.append(values["fast"])

    monkeypatch.setattr("fxlab.sweeper.sweep.backtest", patient)
    seen = []
    panel.observe(lambda change: seen.append(change["new"].parameters["fast"]), "point_result")

    async def story():
        click(panel, "4", "9")
        await until(lambda: 4 in begun)
        click(panel, "2", "9")
        await until(lambda: panel.point_result)
        may_go_on.set()
        await until(lambda: 4 in ended)
        await asyncio.sleep(0.1)
        assert seen == [2]
        assert "fast 2, slow 9" in panel.sheet.facts.value
        assert panel.sheet.progress.bar.bar_style == "success"
        assert panel.sheet.message.value == ""
        may_go_on.clear()
        click(panel, "4", "9")
        await until(lambda: begun.count(4) == 2)
        panel.sheet.progress.cancel.click()
        await until(lambda: panel.sheet.message.value)
        assert "cancelled; Tear sheet begins again" in panel.sheet.message.value
        assert panel.point_result.parameters["fast"] == 2
        may_go_on.set()
        await until(lambda: ended.count(4) == 2)

    asyncio.run(asyncio.wait_for(story(), 120))
    assert seen == [2]
