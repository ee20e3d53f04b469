"""A form built from a strategy's signature: each parameter is declared once, in its function."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import ipywidgets as w
import traitlets as t

from fxlab.backtester import strategy
from fxlab.backtester.strategy import Parameter, Value
from fxlab.errors import FxlabError
from fxlab.html import escape
from fxlab.widgets.field import Field
from fxlab.widgets.key_guard import KeyGuard
from fxlab.widgets.message import Message
from fxlab.widgets.style import label_width, style_sheet, with_help


def control_for(parameter: Parameter, style: dict[str, str]) -> Any:  # noqa: ANN401
    """Return the control of one parameter: its label, its default and its rule."""
    shared = {
        "description": parameter.name,
        "style": style,
        "layout": {"width": f"calc({style['description_width']} + 9rem)"},
    }
    if parameter.kind is bool:
        return w.Checkbox(value=parameter.default, **shared)
    return Field(parameter.default, reader(parameter), **shared)


def reader(parameter: Parameter) -> Callable[[str], Value]:
    """Return the function that reads a parameter's text; a word is taken as it stands."""
    return parameter.check if parameter.kind is str else parameter.parse


class StrategyForm(w.VBox):
    """A dropdown of strategies and one control for each parameter of the chosen one.

    Parameters
    ----------
    name
        The strategy shown first.

    Attributes
    ----------
    value : tuple[str, dict]
        The strategy's name and its parameters; observable. A text that breaks a parameter's rule
        stands in it as it is, so that whoever runs it refuses it.
    controls : dict
        The controls by parameter name.
    """

    value = t.Tuple(t.Unicode(), t.Dict())

    def __init__(self, name: str = "sma_cross") -> None:
        chosen = strategy.get(name).name
        self.controls: dict[str, Any] = {}
        self.choice = w.Dropdown(
            options=strategy.names(),
            value=chosen,
            description="Strategy",
        )
        self.about = w.HTML()
        self.message = Message()
        self._fields = w.VBox()
        super().__init__(
            [style_sheet(), self.choice, self.about, self._fields, self.message, KeyGuard()]
        )
        self.add_class("fxlab-panel")
        self.choice.observe(lambda _: self._rebuild(), "value")
        self._rebuild()

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
        chosen = strategy.get(self.choice.value)
        for name, value in chosen.check({**self.value[1], **values}).items():
            self.controls[name].value = value

    def __repr__(self) -> str:
        """Show what is chosen."""
        name, parameters = self.value
        inner = ", ".join(f"{key}={value!r}" for key, value in parameters.items())
        return f"<StrategyForm {name}({inner})>"

    def _rebuild(self) -> None:
        """Build the controls of the chosen strategy."""
        chosen = strategy.get(self.choice.value)
        parameters = chosen.parameters
        style = label_width(["Strategy", *parameters])
        self.choice.style.description_width = style["description_width"]
        longest = max(map(len, self.choice.options))
        self.choice.layout.width = f"calc({style['description_width']} + {longest + 6}ch)"
        self.about.value = f'<span class="fxlab-soft">{escape(chosen.title)}</span>'
        self.controls = {name: control_for(p, style) for name, p in parameters.items()}
        for control in self.controls.values():
            control.observe(lambda _: self._update(), "value")
        self._fields.children = tuple(
            with_help(control, parameters[name].doc) for name, control in self.controls.items()
        )
        self._update()

    def _update(self) -> None:
        """Take over what the controls say, and show a rule that the values break together."""
        chosen = strategy.get(self.choice.value)
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
