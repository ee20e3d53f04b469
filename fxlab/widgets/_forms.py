"""Forms of panels: validated text fields; a strategy's parameters, execution, a sweep's grid.

A text field's value is what it shows, or it is marked as wrong. A browser's field for numbers reads
`1e9` as 1, rounds `50.5` and moves what is out of range to the bound, all without a word. Here the
text arrives as it was typed, and the library's own rule reads it.

The forms of a run and of a grid (from where to where, by what step) are built from the strategy's
signature: each parameter is declared once, in its function, and a new one needs no widget of its
own. Costs and latency of a backtest are one row of a form.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import TYPE_CHECKING, Any, Final

import ipywidgets as w
import traitlets as t

from fxlab._html import escape, show
from fxlab.backtester.execution import Execution
from fxlab.backtester.options import check_capital
from fxlab.backtester.strategy import strategy
from fxlab.backtester.strategy.strategy import (
    Bounds,
    Parameter,
    Strategy,
    Value,
    count_between,
    short,
    values_between,
)
from fxlab.errors import FxlabError, InvalidInput, InvalidParameter
from fxlab.widgets._base import (
    KeyGuard,
    Message,
    beside,
    label_above,
    label_width,
    soft,
    style_sheet,
    with_help,
)

if TYPE_CHECKING:
    from fxlab.widgets._session_picker import SessionPicker


WRONG: Final = "fxlab-wrong"
"""The class of a field whose text means nothing."""


class _Text(t.CUnicode[str, Any]):
    """Takes numbers, too, as the shortest text that means them."""

    def validate(self, obj: Any, value: Any) -> Any:  # noqa: ANN401 - traitlets has no types
        text = repr(value).removesuffix(".0") if isinstance(value, float) else value
        return super().validate(obj, text)


class TextField(w.Text):
    """A text with a rule.

    Parameters
    ----------
    value
        What it shows at first; a number becomes the shortest text that means it.
    read
        Returns what a text means, or raises `InvalidInput` with value and rule.
    **options
        As `ipywidgets.Text` takes them.
    """

    value = _Text().tag(sync=True)

    def __init__(self, value: object, read: Callable[[str], Any], **options: Any) -> None:  # noqa: ANN401
        self._read = read
        super().__init__(value=value, continuous_update=False, **options)
        self.observe(lambda _: self.mark(), "value")
        self.mark()

    @property
    def meaning(self) -> Any:  # noqa: ANN401 - as `read` returns it
        """Return what the text means; raises what `read` raises."""
        return self._read(self.value)

    def mark(self) -> None:
        """Mark the field red if its text means nothing."""
        try:
            self._read(self.value)
        except InvalidInput:
            self.add_class(WRONG)
        else:
            self.remove_class(WRONG)


def read_number(name: str, text: str) -> float:
    """Return the number that a text shows; raises `InvalidParameter` if it shows none."""
    try:
        return float(text)
    except ValueError:
        raise InvalidParameter(f"{name}={short(text)} is not a number; give one, as 2.5") from None


def read_whole(name: str, text: str, low: int, high: int) -> int:
    """Return the whole number from `low` to `high` that a text shows.

    Raises
    ------
    InvalidParameter
        If it shows none.
    """
    try:
        found = int(text)
    except ValueError:
        found = low - 1
    if not low <= found <= high:
        raise InvalidParameter(
            f"{name}={short(text)} is not a whole number from {low:,} to {high:,}; give one"
        )
    return found


def control_for(parameter: Parameter, style: dict[str, str]) -> Any:  # noqa: ANN401
    """Return the control of one parameter: its label, its default and its rule."""
    shared = {
        "description": parameter.name,
        "style": style,
        "layout": {"width": f"calc({style['description_width']} + 9rem)"},
    }
    if parameter.kind is bool:
        return w.Checkbox(value=parameter.default, **shared)
    return TextField(parameter.default, reader(parameter), **shared)


def reader(parameter: Parameter) -> Callable[[str], Value]:
    """Return the function that reads a parameter's text; a word is taken as it stands."""
    return parameter.check if parameter.kind is str else parameter.parse


class _StrategyChoice(w.VBox):
    """Base of forms: a dropdown of strategies, and what `_rebuild` shows of the chosen one."""

    def __init__(self, name: str, *below: Any) -> None:  # noqa: ANN401 - ipywidgets has no types
        self.choice = w.Dropdown(
            options=strategy.names(), value=strategy.get(name).name, description="Strategy"
        )
        self.about = w.HTML()
        self._fields = w.VBox()
        super().__init__([style_sheet(), self.choice, self.about, self._fields, *below, KeyGuard()])
        self.add_class("fxlab-panel")
        self.choice.observe(lambda _: self._rebuild(), "value")
        self._rebuild()

    @property
    def _chosen(self) -> Strategy:
        return strategy.get(self.choice.value)

    def _rebuild(self) -> None:
        """Build what belongs to the chosen strategy."""
        self.about.value = soft(self._chosen.title)


class StrategyForm(_StrategyChoice):
    """A dropdown of strategies and one control for each parameter of the chosen one.

    Parameters
    ----------
    name
        The strategy shown first.

    Attributes
    ----------
    value : tuple[str, dict]
        The strategy's name and its parameters; observable. A text that breaks a parameter's rule
        stands in it as it is, so that the run refuses it.
    controls : dict
        The controls by parameter name.
    """

    value = t.Tuple(t.Unicode(), t.Dict())

    def __init__(self, name: str = "sma_cross") -> None:
        self.controls: dict[str, Any] = {}
        self.message = Message()
        super().__init__(name, self.message)

    @property
    def checked(self) -> tuple[str, dict[str, Value]]:
        """Return `value`; raises `InvalidParameter`, naming it, if a field shows no value."""
        name, given = self.value
        return name, strategy.get(name).check(given)

    def set_parameters(self, values: dict[str, Value]) -> None:
        """Put parameters into the controls.

        Raises
        ------
        InvalidParameter
            For an unknown name, a wrong type or a value out of range.
        """
        for name, value in self._chosen.check({**self.value[1], **values}).items():
            self.controls[name].value = value

    def __repr__(self) -> str:
        """Show what is chosen."""
        name, parameters = self.value
        inner = ", ".join(f"{key}={value!r}" for key, value in parameters.items())
        return f"<StrategyForm {name}({inner})>"

    def _rebuild(self) -> None:
        super()._rebuild()
        parameters = self._chosen.parameters
        style = label_width(["Strategy", *parameters])
        self.choice.style.description_width = style["description_width"]
        longest = max(map(len, self.choice.options))
        self.choice.layout.width = f"calc({style['description_width']} + {longest + 6}ch)"
        self.controls = {name: control_for(p, style) for name, p in parameters.items()}
        for control in self.controls.values():
            control.observe(lambda _: self._update(), "value")
        self._fields.children = tuple(
            with_help(control, parameters[name].doc) for name, control in self.controls.items()
        )
        self._update()

    def _update(self) -> None:
        """Take over what the controls say, and show a rule that the values break together."""
        chosen = self._chosen
        given = {name: _shown(p, self.controls[name]) for name, p in chosen.parameters.items()}
        self.value = (self.choice.value, given)
        try:
            chosen.signals(given)
        except FxlabError as error:
            self.message.fail(error)
        else:
            self.message.clear()


def _shown(parameter: Parameter, control: Any) -> Value:  # noqa: ANN401 - a Field or a Checkbox
    """Return what a control shows, in the parameter's type where it is of that type at all."""
    try:
        return parameter.kind(control.value)
    except ValueError:
        return str(control.value)


FILLS: Final = (("next trade", "next_trade"), ("order book", "book"))
BOOKS: Final = "orderbook"
OLDEST: Final = "5s"
"""The usual age of a book at most, as `Execution` has it."""


class ExecutionForm(w.VBox):
    """Fill rule, fees, slippage, latency and capital; `value` is the `Execution` they make.

    Parameters
    ----------
    picker
        Whose chosen session it follows.

    Attributes
    ----------
    fill
        Cannot be changed while the session that is followed has no order books.
    max_book_age
        Can be changed only while orders fill from books.
    controls
        All of them.
    """

    def __init__(self, picker: SessionPicker | None = None) -> None:
        usual = Execution()
        self.fill = w.Dropdown(options=FILLS, value=usual.fill, description="Fill at")
        self.taker_bps = _field("taker_bps", usual.taker_bps, read_number, "Fee, bps")
        self.maker_bps = _field("maker_bps", "", _read_fee, "Maker fee, bps", "the same")
        self.slippage_bps = _field("slippage_bps", usual.slippage_bps, read_number, "Slippage, bps")
        self.latency = _field("latency", "0ms", _read_word, "Latency")
        self.fee_per_order, self.fee_per_unit, self.min_fee = (
            _field(name, "", _read_cost, label, "none")
            for name, label in (
                ("fee_per_order", "Fee per order"),
                ("fee_per_unit", "Fee per unit"),
                ("min_fee", "Min fee"),
            )
        )
        self.max_book_age = _field("max_book_age", OLDEST, _read_age, "Oldest book")
        self.capital_text = TextField(
            10_000.0,
            lambda text: check_capital(read_number("capital", text)),
            description="Capital",
        )
        self.no_books = w.HTML()
        self.controls = [
            label_above(control, text, width)
            for control, width, text in (
                (self.fill, 8, "a later trade's price, or the order book of that moment"),
                (self.taker_bps, 6, "of market orders, of notional; below 0 a rebate"),
                (self.maker_bps, 7.5, "of limit orders that rested; empty: the same fee"),
                (self.slippage_bps, 7, "how far fills are worse than the print or the book"),
                (self.latency, 9, "decision to market: 50ms, measured, lognormal:20ms,0.5"),
                (self.max_book_age, 6.5, "an older book is not traded against: 5s, none"),
                (self.capital_text, 7.5, "money at the start"),
                (self.fee_per_order, 7.5, "of each order that fills, in quote currency"),
                (self.fee_per_unit, 7.5, "of each unit of base that fills, in quote currency"),
                (self.min_fee, 7.5, "the least fee of an order, in quote currency"),
            )
        ]
        self.fill.observe(lambda _: self._show_books(), "value")
        rows = (beside(self.controls[:-3]), beside(self.controls[-3:]))
        super().__init__([*rows, self.no_books])
        self._show_books()
        if picker is not None:
            self.follow(picker)

    def follow(self, picker: SessionPicker) -> None:
        """Offer order books only while the session chosen in a picker has some."""
        picker.observe(lambda change: self.look_at(change["new"]), "value")
        self.look_at(picker.value)

    def look_at(self, session: Any) -> None:  # noqa: ANN401 - a Session, or None
        """Offer order books if the session has some; say so if it has none."""
        has_books = session is None or BOOKS in session.data_types
        words = "" if has_books else f"{session.id} has no order books: orders fill at trades"
        self.no_books.value = words and soft(words)
        self.no_books.layout.display = None if words else "none"
        if not has_books:
            self.fill.value = "next_trade"
        self.fill.disabled = not has_books

    @property
    def value(self) -> Execution:
        """Return the assumptions.

        Raises
        ------
        InvalidParameter
            For the first field whose text is no such value.
        """
        books = self.fill.value == "book"
        return Execution(
            fill=self.fill.value,
            taker_bps=self.taker_bps.meaning,
            maker_bps=self.maker_bps.meaning,
            fee_per_order=self.fee_per_order.meaning,
            fee_per_unit=self.fee_per_unit.meaning,
            min_fee=self.min_fee.meaning,
            slippage_bps=self.slippage_bps.meaning,
            latency=self.latency.meaning,
            max_book_age=self.max_book_age.meaning if books else Execution().max_book_age,
        )

    @property
    def capital(self) -> float:
        """Return the money at the start; raises `InvalidParameter` for other text."""
        return float(self.capital_text.meaning)

    def _show_books(self) -> None:
        self.max_book_age.disabled = self.fill.value != "book"


def _field(
    name: str, value: object, read: Callable[[str, str], Any], label: str, placeholder: str = ""
) -> TextField:
    """Return the field of one assumption, which `Execution` itself judges."""

    def judged(text: str) -> Any:  # noqa: ANN401 - as `Execution` has it
        return getattr(Execution(**{name: read(name, text)}), name)

    return TextField(value, judged, description=label, placeholder=placeholder)


def _read_word(_name: str, text: str) -> str:
    return text


def _read_age(_name: str, text: str) -> str | None:
    return None if text.strip().lower() == "none" else text


def _read_fee(name: str, text: str) -> float | None:
    """Return a fee, or None for an empty text: the fee of market orders."""
    return read_number(name, text) if text.strip() else None


def _read_cost(name: str, text: str) -> float:
    """Return a cost; there is none where the text is empty."""
    return read_number(name, text) if text.strip() else 0.0


VARIED: Final = 2
"""Numbers that vary at first: as many as a heat map has sides."""

_BOTH: Final = {"no": (False,), "yes": (True,), "both": (False, True)}
_SHOWN: Final = 6


class Row(w.HBox):
    """The values of one parameter.

    Parameters
    ----------
    parameter
        Whose values they are.
    varies
        Whether it has several at first.
    changed
        Called when it has others.
    """

    def __init__(
        self, parameter: Parameter, changed: Callable[[], object], *, varies: bool
    ) -> None:
        self.parameter = parameter
        self.controls = _controls(parameter, varies=varies)
        self.line = w.HTML()
        for control in self.controls.values():
            control.observe(lambda _: self._on_change(changed), "value")
        super().__init__([beside(self.controls.values()), self.line])
        self.layout.align_items, self.layout.flex_flow = "flex-end", "row wrap"
        self.layout.grid_gap = "0 1rem"
        self._show()

    @property
    def count(self) -> int:
        """Return how many values there are; 0 for an impossible range."""
        try:
            return count_between(*self._range) if "from" in self.controls else len(self.values)
        except InvalidParameter:
            return 0

    @property
    def values(self) -> list[Value]:
        """Return the values.

        Raises
        ------
        InvalidParameter
            If there are none, or the parameter does not take one.
        """
        if "from" in self.controls:
            return values_between(self.parameter, *self._range)
        chosen = self.controls["values"].value
        if self.parameter.kind is bool:
            return list(_BOTH[chosen])
        words = [word.strip() for word in chosen.split(",")]
        return [self.parameter.check(word) for word in dict.fromkeys(words)]

    @property
    def _range(self) -> tuple[float, float, float]:
        first, last, step = (self.controls[name].meaning for name in ("from", "to", "step"))
        return first, last, step

    def _on_change(self, changed: Callable[[], object]) -> None:
        self._show()
        changed()

    def _show(self) -> None:
        if self.parameter.kind is bool:
            return  # the choice says it all
        try:
            few, look = self.count <= 1_000, "soft"
            words = _words(self.values) if few else f"{self.count:,} values"
        except FxlabError as error:
            words, look = str(error), "error"
        self.line.value = f'<span class="fxlab-{look}">{escape(words)}</span>'


class GridForm(_StrategyChoice):
    """A dropdown of strategies, and one row for each parameter of the chosen one.

    Parameters
    ----------
    name
        The strategy shown first.

    Attributes
    ----------
    changes : int
        Rises whenever something is changed; observable.
    rows : dict of Row
        By parameter.
    """

    changes = t.Int(0)

    def __init__(self, name: str = "sma_cross") -> None:
        self.rows: dict[str, Row] = {}
        super().__init__(name)
        label_above(self.choice, "what runs at every point", 17)

    @property
    def strategy(self) -> str:
        """Return the strategy's name."""
        return str(self.choice.value)

    @property
    def count(self) -> int:
        """Return how many points there are."""
        return math.prod(row.count for row in self.rows.values())

    @property
    def parameters(self) -> dict[str, list[Value]]:
        """Return the grid as `fxlab.sweep` takes it; raises what `Row.values` raises."""
        return {name: row.values for name, row in self.rows.items()}

    def set_range(self, name: str, first: float, last: float, step: float) -> None:
        """Let a numeric parameter go from `first` to `last`, both inside, by `step`."""
        controls = self.rows[name].controls
        controls["to"].value, controls["from"].value = last, first
        controls["step"].value = step

    def __repr__(self) -> str:
        """Show the grid."""
        sizes = " x ".join(f"{row.count} {name}" for name, row in self.rows.items())
        return f"<GridForm {self.strategy}: {sizes or 'one point'}>"

    def _rebuild(self) -> None:
        super()._rebuild()
        parameters = self._chosen.parameters
        numbers = [p.name for p in parameters.values() if p.kind in (int, float)]
        self.rows = {
            name: Row(parameter, self._on_change, varies=name in numbers[:VARIED])
            for name, parameter in parameters.items()
        }
        self._fields.children = tuple(self.rows.values())
        self._on_change()

    def _on_change(self) -> None:
        self.changes += 1


def suggested(parameter: Parameter) -> tuple[float, float, float]:
    """Return a range around a numeric parameter's default, inside its bounds: from, to, step."""
    default = float(parameter.default)
    bounds = parameter.bounds or Bounds(-math.inf, math.inf)
    half = abs(default) / 2 or 1.0
    step: float = max(1, round(half)) if parameter.kind is int else half
    first = max(bounds.minimum, default - step)
    last = min(bounds.maximum, default + 2 * step)
    return first, last, step


def _controls(parameter: Parameter, *, varies: bool) -> dict[str, Any]:
    name, tip = parameter.name, parameter.doc
    if parameter.kind is bool:
        value = "yes" if parameter.default else "no"
        control = w.Dropdown(options=list(_BOTH), value=value, description=name)
        return {"values": label_above(control, tip, 8)}
    if parameter.kind is str:
        control = w.Text(str(parameter.default), description=f"{name} (commas between)")
        return {"values": label_above(control, tip, 14)}
    first, last, step = suggested(parameter)
    if not varies:
        first = last = parameter.default  # type: ignore[assignment]  # a number
    return {
        part: label_above(
            TextField(parameter.kind(value), read, description=f"{name} {part}"), tip, 8
        )
        for part, value, read in (
            ("from", first, replace(parameter, name=f"{name} from").parse),
            ("to", last, replace(parameter, name=f"{name} to").parse),
            ("step", step, lambda text: _read_step(parameter, text)),
        )
    }


def _read_step(parameter: Parameter, text: str) -> float:
    step = read_number(f"{parameter.name} step", text)
    if not 0 < step < math.inf or (parameter.kind is int and step % 1):
        rule = "a whole number above 0" if parameter.kind is int else "a number above 0"
        raise InvalidParameter(f"{parameter.name} step={text} is not {rule}; give one")
    return int(step) if parameter.kind is int else step


def _words(values: list[Value]) -> str:
    """Return the values as people read them: all of few, the ends of many."""
    shown = [show(value) for value in values]
    if len(shown) > _SHOWN:
        shown = [*shown[:3], "\u2026", shown[-1]]
    noun = "value" if len(values) == 1 else "values"
    return f"{len(values):,} {noun}: {', '.join(shown)}"
