"""The form is the signature: one control a parameter, typed, bounded, labelled."""

from __future__ import annotations

import re
from typing import Annotated

import ipywidgets as w
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import fxlab
from fxlab._html import escape
from fxlab.backtester.strategy import strategy
from fxlab.errors import InvalidParameter, StrategyNotFound
from fxlab.widgets import StrategyForm
from fxlab.widgets._forms import WRONG, TextField


def every_kind(
    *,
    count: Annotated[int, fxlab.Bounds(1, 9)] = 3,
    share: Annotated[float, fxlab.Bounds(-1.0, 1.0)] = 0.25,
    free: float = 1e-9,
    big: int = 5_000_000,
    short: bool = True,
    word: str = "<b>",
) -> fxlab.Signals:
    """Show every kind of control.

    Parameters
    ----------
    count
        how <many>
    """
    strategy.require(count != 7, "count=7 is refused; choose another count")
    return fxlab.Signals(target=pl.lit(share), lookback=0)


@pytest.fixture(scope="module", autouse=True)
def registered():
    """Register the strategy for these tests only."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(strategy._REGISTRY, "every_kind", strategy.get(every_kind))
        yield


def test_each_kind_has_its_control_with_default_and_range():
    controls = StrategyForm("every_kind").controls
    kinds = {name: type(control) for name, control in controls.items()}
    assert kinds == {
        "count": TextField,
        "share": TextField,
        "free": TextField,
        "big": TextField,
        "short": w.Checkbox,
        "word": TextField,
    }
    assert controls["big"].value == "5000000"
    assert controls["free"].value == "1e-09"
    assert (controls["big"].meaning, controls["free"].meaning) == (5_000_000, 1e-9)


def test_every_control_has_a_label_that_is_not_cut_off():
    form = StrategyForm("every_kind")
    for name, control in form.controls.items():
        assert control.description == name
    widths = {control.style.description_width for control in form.controls.values()}
    assert widths == {form.choice.style.description_width} == {"9ch"}


def test_the_help_is_tooltip_and_line_and_it_is_escaped():
    form = StrategyForm("every_kind")
    assert form.controls["count"].tooltip == "how <many>"
    lines = [row.children[1].value for row in form._fields.children]
    assert "how &lt;many&gt;" in lines[0]
    assert "Show every kind of control" in form.about.value


def test_what_the_browser_sends_arrives_in_value():
    form = StrategyForm("every_kind")
    seen = []
    form.observe(lambda change: seen.append(change["new"]), "value")
    form.controls["count"].set_state({"value": 5})
    form.controls["short"].set_state({"value": False})
    assert [value[1]["count"] for value in seen] == [5, 5]
    assert form.value == ("every_kind", seen[-1][1])
    assert form.value[1]["short"] is False


@pytest.mark.parametrize(
    ("name", "text", "shown", "words"),
    [
        ("count", "1e0", "1e0", "count='1e0' is not an int; count takes an int from 1 to 9"),
        ("count", "5.5", "5.5", "count='5.5' is not an int"),
        ("count", "-5", -5, "count=-5 is out of range; count takes an int from 1 to 9"),
        ("count", "2000", 2000, "count=2000 is out of range"),
        ("count", "", "", "count='' is not an int"),
        ("share", "1,5", "1,5", "share='1,5' is not a float; share takes a float from -1 to 1"),
        ("share", "nan", None, "share=nan is not a finite number"),
        ("word", "x" * 201, None, "word is longer than 200 characters"),
    ],
)
def test_what_is_shown_is_what_runs_or_the_field_is_red(name, text, shown, words):
    form = StrategyForm("every_kind")
    form.controls[name].set_state({"value": text})
    assert form.controls[name].value == text
    assert WRONG in form.controls[name]._dom_classes
    assert shown is None or form.value[1][name] == shown
    assert escape(words) in form.message.value
    with pytest.raises(InvalidParameter, match=re.escape(words)):
        _ = form.checked
    form.controls[name].set_state({"value": "1"})
    assert WRONG not in form.controls[name]._dom_classes
    assert form.checked == form.value


def test_a_word_is_taken_as_it_stands():
    form = StrategyForm("every_kind")
    form.controls["word"].set_state({"value": " v1.0"})
    assert form.checked[1]["word"] == " v1.0"


def test_choosing_another_strategy_rebuilds_the_form():
    form = StrategyForm("sma_cross")
    index = form.choice.options.index("breakout")
    form.choice.set_state({"index": index})
    assert form.value == ("breakout", strategy.get("breakout").check())
    assert list(form.controls) == ["entry", "leave"]


@given(st.sampled_from(strategy.names()))
def test_the_defaults_of_every_form_are_the_strategys(name):
    form = StrategyForm(name)
    assert form.value == (name, strategy.get(name).check())


def test_a_rule_that_values_break_together_is_said_and_taken_back():
    form = StrategyForm("every_kind")
    form.controls["count"].value = 7
    assert 'role="alert"' in form.message.value
    assert "choose another count" in form.message.value
    form.controls["count"].value = 6
    assert form.message.value == ""


def test_parameters_can_be_set_and_are_checked():
    form = StrategyForm("sma_cross")
    form.set_parameters({"fast": 7, "slow": 70})
    assert form.value == ("sma_cross", {"fast": 7, "slow": 70, "allow_short": False})
    with pytest.raises(InvalidParameter, match="did you mean 'fast'"):
        form.set_parameters({"fasst": 7})


def test_an_unknown_strategy_is_refused_with_a_near_name():
    with pytest.raises(StrategyNotFound, match="sma_cross"):
        StrategyForm("sma_crosss")


def test_the_form_reads_as_text():
    assert repr(StrategyForm("breakout")) == "<StrategyForm breakout(entry=500, leave=250)>"
