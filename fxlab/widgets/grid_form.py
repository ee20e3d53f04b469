"""A form for a grid of parameters: for each one from where to where, and by what step.

Like the form of one run it is built from the strategy's signature, so a new parameter needs no
widget of its own.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, Final

import ipywidgets as w
import traitlets as t

from fxlab.backtester import strategy
from fxlab.backtester.parameters import Bounds
from fxlab.backtester.ranges import count_between, values_between
from fxlab.backtester.strategy import Parameter, Value
from fxlab.errors import FxlabError, InvalidParameter
from fxlab.html import escape, show
from fxlab.widgets.field import Field, read_number
from fxlab.widgets.key_guard import KeyGuard
from fxlab.widgets.style import beside, label_above, style_sheet

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
        """Return how many values there are; 0 if the range is none."""
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


class GridForm(w.VBox):
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
        self.choice = w.Dropdown(
            options=strategy.names(), value=strategy.get(name).name, description="Strategy"
        )
        label_above(self.choice, "what runs at every point", 17)
        self.about = w.HTML()
        self._fields = w.VBox()
        super().__init__([style_sheet(), self.choice, self.about, self._fields, KeyGuard()])
        self.add_class("fxlab-panel")
        self.choice.observe(lambda _: self._rebuild(), "value")
        self._rebuild()

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
        chosen = strategy.get(self.choice.value)
        numbers = [p.name for p in chosen.parameters.values() if p.kind in (int, float)]
        self.about.value = f'<span class="fxlab-soft">{escape(chosen.title)}</span>'
        self.rows = {
            name: Row(parameter, self._on_change, varies=name in numbers[:VARIED])
            for name, parameter in chosen.parameters.items()
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
        part: label_above(Field(parameter.kind(value), read, description=f"{name} {part}"), tip, 8)
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
