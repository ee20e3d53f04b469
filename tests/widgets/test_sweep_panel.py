"""The grid form and the sweep panel without a browser: what is chosen is what is swept."""

from __future__ import annotations

import asyncio
import threading
from typing import Annotated

import ipywidgets as w
import polars as pl
import pytest
from markets import recorded_walk

import fxlab
from fxlab.backtester.strategy import strategy
from fxlab.errors import InvalidParameter
from fxlab.widgets import GridForm, KeyGuard, SweepPanel
from fxlab.charts._style import PLOTLY
from fxlab.widgets._forms import WRONG, TextField, suggested


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
    (shown,) = panel.plot.outputs
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

    silent = {"HTML", "Label", "Message", "HBox", "VBox", "Output", "FigureOutput", "Row"}
    for widget in walk(panel):
        if hasattr(widget, "description") and type(widget).__name__ not in silent:
            assert widget.description, widget
    for part in (panel, panel.grid, panel.picker):
        assert isinstance(part.children[-1], KeyGuard)


def test_a_panel_reads_as_text(panel):
    assert repr(panel).splitlines()[0] == "<SweepPanel>"
    assert "<GridForm sma_cross: 2 fast x 4 slow x 1 allow_short>" in repr(panel)
