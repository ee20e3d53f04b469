"""The parameters of a strategy, as its signature declares them: the form that people fill in.

Widgets, the command line and sweeps are built from these, so a parameter is declared once: its
type, default, range and one line of documentation.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints

from fxlab.errors import InvalidParameter
from fxlab.numbers import integer, number

Value = bool | int | float | str
KINDS: Final = (bool, int, float, str)
MAX_LENGTH: Final = 200
FRAME: Final = "ticks"  # the first parameter of a strategy that takes a frame


@dataclass(frozen=True, slots=True)
class Bounds:
    """The range of a numeric parameter, both ends inside."""

    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Parameter:
    """One typed parameter of a strategy."""

    name: str
    kind: type[Value]
    default: Value
    bounds: Bounds | None
    doc: str

    def check(self, value: object) -> Value:
        """Return the value in the parameter's type, or raise `InvalidParameter`."""
        if self.kind is float and (real := number(value)) is not None:
            value = float(real)
        elif self.kind is int and (whole := integer(value)) is not None:
            value = whole
        if type(value) is not self.kind:
            raise InvalidParameter(
                f"{self.name}={short(value)} is not {_article(self.kind.__name__)}; {self.hint}"
            )
        if self.bounds and isinstance(value, int | float):
            inside = self.bounds.minimum <= value <= self.bounds.maximum  # False for nan
            if not inside:
                raise InvalidParameter(f"{self.name}={value} is out of range; {self.hint}")
        if isinstance(value, str) and len(value) > MAX_LENGTH:
            raise InvalidParameter(f"{self.name} is longer than {MAX_LENGTH} characters")
        return value

    def parse(self, text: str) -> Value:
        """Return the value that a text from the command line stands for."""
        word = text.strip()
        if self.kind is bool and word.lower() in {"true", "yes", "on", "1"}:
            return True
        if self.kind is bool and word.lower() in {"false", "no", "off", "0"}:
            return False
        try:
            return self.check(word if self.kind in (str, bool) else self.kind(word))
        except ValueError as error:
            if isinstance(error, InvalidParameter):
                raise
            raise InvalidParameter(
                f"{self.name}={short(text)} is not {_article(self.kind.__name__)}; {self.hint}"
            ) from None

    @property
    def hint(self) -> str:
        """Return one phrase that says which values the parameter takes."""
        limits = f" from {self.bounds.minimum:g} to {self.bounds.maximum:g}" if self.bounds else ""
        return f"{self.name} takes {_article(self.kind.__name__)}{limits} ({self.doc})"


def parameters_of(function: Callable[..., Any], name: str) -> dict[str, Parameter]:
    """Return the parameters that a function's signature declares, by name.

    Raises
    ------
    InvalidParameter
        If one has no type, no default, or could be given by position.
    """
    hints = get_type_hints(function, include_extras=True)
    docs = _parameter_docs(inspect.getdoc(function) or "")
    found = list(inspect.signature(function).parameters.values())
    if takes_frame(function):
        found = found[1:]
    return {p.name: _parameter(p, hints.get(p.name), docs.get(p.name, ""), name) for p in found}


def takes_frame(function: Callable[..., Any]) -> bool:
    """Return whether the first parameter is a frame of ticks, by position and by name."""
    first = next(iter(inspect.signature(function).parameters.values()), None)
    by_position = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return first is not None and first.name == FRAME and first.kind in by_position


def _parameter(spec: inspect.Parameter, hint: Any, doc: str, owner: str) -> Parameter:  # noqa: ANN401
    kind, extras = (
        (get_args(hint)[0], get_args(hint)[1:]) if get_origin(hint) is Annotated else (hint, ())
    )
    if spec.kind is not inspect.Parameter.KEYWORD_ONLY or spec.default is inspect.Parameter.empty:
        raise InvalidParameter(
            f"{owner}: parameter {spec.name!r} must be keyword-only with a default, "
            f"as in: def {owner}(*, {spec.name}: int = 10)"
        )
    if kind not in KINDS:
        raise InvalidParameter(
            f"{owner}: parameter {spec.name!r} must be annotated as int, float, str or bool"
        )
    bounds = next((extra for extra in extras if isinstance(extra, Bounds)), None)
    return Parameter(spec.name, kind, kind(spec.default), bounds, doc or spec.name)


def _parameter_docs(doc: str) -> dict[str, str]:
    """Return the first line of each entry of a NumPy-style Parameters section."""
    section = re.search(r"Parameters\n-+\n(.*?)(?:\n\n\S|\Z)", doc, re.DOTALL)
    entries = re.findall(r"^(\w+).*\n\s+(.+)$", section[1], re.MULTILINE) if section else []
    return {name: text.strip().rstrip(".") for name, text in entries}


def _article(noun: str) -> str:
    return f"an {noun}" if noun[0] in "aeiou" else f"a {noun}"


def short(value: object) -> str:
    """Return a value as it fits into a sentence."""
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
