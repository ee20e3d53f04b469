"""A form built from a strategy's signature: each parameter is declared once, in its function."""

from __future__ import annotations

from typing import Any, Final

import ipywidgets as w
import traitlets as t

from fxlab.backtester import strategy
from fxlab.backtester.strategy import Parameter, Value
from fxlab.errors import FxlabError
from fxlab.html import escape
from fxlab.widgets.key_guard import KeyGuard
from fxlab.widgets.message import Message
from fxlab.widgets.style import label_width, style_sheet, with_help

LARGEST: Final = 2**53 - 1
"""The largest whole number that a browser counts exactly."""


def control_for(parameter: Parameter, style: dict[str, str]) -> Any:  # noqa: ANN401
    """Return the control of one parameter: its label, default, range and tooltip."""
    shared = {
        "description": parameter.name,
        "value": parameter.default,
        "style": style,
        "layout": {"width": "17rem"},
    }
    low, high = -LARGEST, LARGEST
    if parameter.bounds:
        low, high = parameter.bounds.minimum, parameter.bounds.maximum  # type: ignore[assignment]
    if parameter.kind is bool:
        return w.Checkbox(**shared)
    if parameter.kind is int:
        return w.BoundedIntText(min=int(low), max=int(high), **shared)
    if parameter.kind is float:
        return w.BoundedFloatText(min=float(low), max=float(high), step=None, **shared)
    return w.Text(**shared)


class StrategyForm(w.VBox):
    """A dropdown of strategies and one control for each parameter of the chosen one.

    Parameters
    ----------
    name
        The strategy shown first.

    Attributes
    ----------
    value : tuple[str, dict]
        The strategy's name and its parameters; observable.
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
            layout={"width": "17rem"},
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

    def set_parameters(self, values: dict[str, Value]) -> None:
        """Put parameters into the controls.

        Raises
        ------
        InvalidParameter
            For an unknown name, a wrong type or a value out of range.
        """
        checked = strategy.get(self.choice.value).check({**self.value[1], **values})
        for name, control in self.controls.items():
            control.value = checked[name]

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
        given = {name: control.value for name, control in self.controls.items()}
        self.value = (self.choice.value, given)
        try:
            strategy.get(self.choice.value).signals(given)
        except FxlabError as error:
            self.message.fail(error)
        else:
            self.message.clear()
