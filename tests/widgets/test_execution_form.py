"""Costs and fill rules as a form: one row, and books only where there are some."""

from __future__ import annotations

from types import SimpleNamespace

import ipywidgets as w
import pytest
import traitlets as t

import fxlab
from fxlab.errors import InvalidParameter
from fxlab.widgets import ExecutionForm
from fxlab.widgets._forms import WRONG

TRADES = SimpleNamespace(id="trades <only>", data_types=("prices",))
BOTH = SimpleNamespace(id="both", data_types=("prices", "orderbook"))


class Picker(t.HasTraits):
    """A picker of nothing but a session."""

    value = t.Any(None, allow_none=True)


@pytest.fixture
def form():
    return ExecutionForm()


def browser(control, value):
    """Send what the browser sends."""
    if isinstance(control, w.Dropdown):
        control.set_state({"index": [option for _, option in control.options].index(value)})
    else:
        control.set_state({"value": value})


def test_it_starts_with_the_usual_assumptions(form):
    assert form.value == fxlab.Execution()
    assert form.capital == 10_000.0


def test_what_is_typed_becomes_an_execution(form):
    browser(form.taker_bps, 2.5)
    browser(form.maker_bps, "-0.5")
    browser(form.fee_per_order, "1.5")
    browser(form.fee_per_unit, "0.005")
    browser(form.min_fee, "2")
    browser(form.slippage_bps, 1.0)
    browser(form.latency, "lognormal:20ms,0.5")
    browser(form.capital_text, 500.0)
    assert form.value == fxlab.Execution(
        taker_bps=2.5,
        maker_bps=-0.5,
        fee_per_order=1.5,
        fee_per_unit=0.005,
        min_fee=2.0,
        slippage_bps=1.0,
        latency=fxlab.Latency.lognormal("20ms", 0.5),
    )
    assert form.capital == 500.0
    browser(form.latency, "measured")
    assert form.value.delays.is_measured


def test_the_age_of_a_book_counts_only_where_orders_meet_books(form):
    browser(form.max_book_age, "250ms")
    assert form.max_book_age.disabled
    assert form.value == fxlab.Execution()
    browser(form.fill, "book")
    assert not form.max_book_age.disabled
    assert form.value == fxlab.Execution(fill="book", max_book_age="250ms")
    browser(form.max_book_age, "none")
    assert form.value == fxlab.Execution(fill="book", max_book_age=None)
    browser(form.fill, "next_trade")
    assert form.max_book_age.disabled


def test_a_session_without_books_takes_the_choice_away_and_says_so(form):
    picker = Picker(value=BOTH)
    form.follow(picker)
    assert not form.fill.disabled
    assert form.no_books.layout.display == "none"
    browser(form.fill, "book")
    picker.value = TRADES
    assert form.fill.disabled
    assert form.value.fill == "next_trade"
    assert "trades &lt;only&gt; has no order books: orders fill at trades" in form.no_books.value
    assert form.no_books.layout.display is None
    picker.value = BOTH
    assert not form.fill.disabled
    assert form.no_books.value == ""
    picker.value = None
    assert not form.fill.disabled


def test_all_controls_stand_in_two_rows_with_a_label_above(form):
    row, fixed = form.children[:2]
    assert isinstance(row, w.HBox)
    names = ["Fill at", "Fee, bps", "Maker fee, bps", "Slippage, bps", "Latency", "Oldest book",
             "Capital"]  # fmt: skip
    assert [control.description for control in row.children] == names
    assert [each.description for each in fixed.children] == [
        "Fee per order", "Fee per unit", "Min fee",
    ]  # fmt: skip
    assert [*row.children, *fixed.children] == form.controls
    assert all("fxlab-above" in control._dom_classes for control in form.controls)
    assert all(control.tooltip for control in form.controls)
    assert sum(float(control.layout.width.removesuffix("rem")) for control in row.children) < 55


@pytest.mark.parametrize(
    ("name", "text", "words"),
    [
        ("latency", "soon", "'soon' is not a duration"),
        ("latency", "lognorm:1ms,1", "did you mean 'lognormal'"),
        ("maker_bps", "free", "maker_bps='free' is not a number"),
        ("maker_bps", "5000", "from -100 to 1000"),
        ("max_book_age", "old", "max_book_age='old' is not a duration"),
        ("taker_bps", "1e9", "taker_bps=1000000000.0 is not a number from -100 to 1000"),
        ("taker_bps", "two", "taker_bps='two' is not a number"),
        ("taker_bps", "", "taker_bps='' is not a number"),
        ("fee_per_order", "-1", "fee_per_order=-1.0"),
        ("min_fee", "much", "min_fee='much' is not a number"),
        ("slippage_bps", "-1", "slippage_bps=-1.0 is not a number from 0 to 1000"),
        ("capital_text", "0", "capital=0.0 must be above zero"),
        ("capital_text", "10,000", "capital='10,000' is not a number"),
    ],
)
def test_nonsense_is_refused_when_asked_for(form, name, text, words):
    form.fill.value = "book"
    browser(getattr(form, name), text)
    assert getattr(form, name).value == text
    assert WRONG in getattr(form, name)._dom_classes
    with pytest.raises(InvalidParameter, match=words):
        _ = form.value, form.capital
