"""Strategies: plain functions whose signature is their form.

A strategy takes typed keyword parameters and returns `Signals`: Polars expressions over the tick
columns of one symbol. Widgets, the command line and sweeps are built from the signature, so a
parameter is declared once: its type, default, range and one line of documentation.
"""

from __future__ import annotations

import importlib
import inspect
import re
import tokenize
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints, overload

import polars as pl

from fxlab.errors import InvalidParameter, StrategyNotFound, did_you_mean

Value = bool | int | float | str
KINDS: Final = (bool, int, float, str)
MAX_LENGTH: Final = 200


@dataclass(frozen=True, slots=True)
class Signals:
    """What a strategy wants, row by row.

    Parameters
    ----------
    target
        Wanted exposure as a fraction of equity: 1 long, 0 flat, -1 short, null keep.
    lookback
        How many rows before a row its target may depend on. Known: the engine may stream the
        ticks in chunks and still give identical bits. None: all rows before it.
    """

    target: pl.Expr
    lookback: int | None = None


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
        if self.kind is float and isinstance(value, int) and not isinstance(value, bool):
            value = float(value)
        if type(value) is not self.kind:
            raise InvalidParameter(
                f"{self.name}={_short(value)} is not {_article(self.kind.__name__)}; {self.hint}"
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
                f"{self.name}={_short(text)} is not {_article(self.kind.__name__)}; {self.hint}"
            ) from None

    @property
    def hint(self) -> str:
        """Return one phrase that says which values the parameter takes."""
        limits = f" from {self.bounds.minimum:g} to {self.bounds.maximum:g}" if self.bounds else ""
        return f"{self.name} takes {_article(self.kind.__name__)}{limits} ({self.doc})"


@dataclass(frozen=True, slots=True)
class Strategy:
    """A registered strategy: the function, and what its signature says."""

    name: str
    function: Callable[..., Signals]
    parameters: Mapping[str, Parameter] = field(default_factory=dict)

    @property
    def doc(self) -> str:
        """Return the whole docstring."""
        return inspect.getdoc(self.function) or ""

    @property
    def title(self) -> str:
        """Return the docstring's first line."""
        return self.doc.partition("\n")[0]

    @property
    def source(self) -> str:
        """Return the function's source text, part of a run's fingerprint.

        A function typed at a bare prompt has no source; its bytecode stands in.
        """
        try:
            return inspect.getsource(self.function)
        except (OSError, TypeError, SyntaxError, tokenize.TokenError):
            code = self.function.__code__
            return f"{code.co_code.hex()} {code.co_consts!r} {code.co_names!r}"

    def check(self, given: Mapping[str, object] | None = None) -> dict[str, Value]:
        """Return all parameters, typed and in range, with defaults filled in.

        Raises
        ------
        InvalidParameter
            For an unknown name ("did you mean"), a wrong type or a value out of range.
        """
        given = dict(given or {})
        for name in given:
            if name not in self.parameters:
                raise InvalidParameter(self._unknown(name))
        return {
            name: parameter.check(given.get(name, parameter.default))
            for name, parameter in self.parameters.items()
        }

    def parse(self, texts: Mapping[str, str]) -> dict[str, Value]:
        """Return parameters typed from texts, as a command line gives them."""
        for name in texts:
            if name not in self.parameters:
                raise InvalidParameter(self._unknown(name))
        return {name: self.parameters[name].parse(text) for name, text in texts.items()}

    def signals(self, given: Mapping[str, object] | None = None) -> Signals:
        """Return the strategy's signals for checked parameters."""
        signals = self.function(**self.check(given))
        if not isinstance(signals, Signals):
            raise InvalidParameter(
                f"strategy {self.name!r} returned {type(signals).__name__}; "
                "a strategy returns fxlab.Signals(target=...)"
            )
        return signals

    def _unknown(self, name: str) -> str:
        near = did_you_mean(name, self.parameters)
        known = ", ".join(self.parameters) or "none"
        parts = [f"{self.name} has no parameter {_short(name)}", near, f"it has: {known}"]
        return "; ".join(part for part in parts if part)


_REGISTRY: Final[dict[str, Strategy]] = {}
"""Strategies by name; written only by the decorator."""


@overload
def strategy(function: Callable[..., Signals]) -> Callable[..., Signals]: ...
@overload
def strategy(*, name: str) -> Callable[[Callable[..., Signals]], Callable[..., Signals]]: ...
def strategy(function: Callable[..., Signals] | None = None, *, name: str | None = None) -> Any:
    """Register a function as a strategy.

    Parameters
    ----------
    function
        Takes keyword-only parameters of type int, float, str or bool, each with a default
        (``Annotated[int, Bounds(1, 1000)]`` gives a range), and returns `Signals`.
    name
        The strategy's name; the function's own name unless given. Registering a name again
        replaces it, so that a notebook cell can be run twice.

    Raises
    ------
    InvalidParameter
        If the signature cannot be turned into a form.
    """

    def register(plain: Callable[..., Signals]) -> Callable[..., Signals]:
        chosen = name or str(getattr(plain, "__name__", "strategy"))
        _REGISTRY[chosen] = Strategy(chosen, plain, _parameters(plain, chosen))
        return plain

    return register if function is None else register(function)


def get(which: str | Strategy | Callable[..., Signals]) -> Strategy:
    """Return a strategy by name, by ``module:function``, or from the function itself.

    Raises
    ------
    StrategyNotFound
        If there is none, with the nearest names.
    """
    if isinstance(which, Strategy):
        return which
    if callable(which):
        own = str(getattr(which, "__name__", "strategy"))
        return Strategy(own, which, _parameters(which, own))
    _load_shipped()
    if isinstance(which, str) and ":" in which and which not in _REGISTRY:
        return _imported(which)
    if which not in _REGISTRY:
        raise StrategyNotFound.named(str(which), _REGISTRY)
    return _REGISTRY[which]


def names() -> list[str]:
    """Return the names of all registered strategies, sorted."""
    _load_shipped()
    return sorted(_REGISTRY)


def listing() -> pl.DataFrame:
    """Return one row a strategy: name, what it does, its parameters with defaults."""
    rows = [get(name) for name in names()]
    return pl.DataFrame(
        {
            "strategy": [row.name for row in rows],
            "summary": [row.title for row in rows],
            "parameters": [
                ", ".join(f"{p.name}={p.default}" for p in row.parameters.values()) for row in rows
            ],
        },
        schema={"strategy": pl.String, "summary": pl.String, "parameters": pl.String},
    )


def require(holds: bool, rule: str) -> None:  # noqa: FBT001 - reads as a sentence at the call
    """Raise `InvalidParameter` with the rule unless it holds."""
    if not holds:
        raise InvalidParameter(rule)


def _load_shipped() -> None:
    importlib.import_module("fxlab.backtester.strategies")


def _imported(path: str) -> Strategy:
    module_name, _, function_name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise StrategyNotFound(
            f"no strategy at {_short(path)} ({error}); give module:function of an importable module"
        ) from error
    return Strategy(path, function, _parameters(function, path))


def _parameters(function: Callable[..., Any], name: str) -> dict[str, Parameter]:
    hints = get_type_hints(function, include_extras=True)
    docs = _parameter_docs(inspect.getdoc(function) or "")
    found = inspect.signature(function).parameters.values()
    return {p.name: _parameter(p, hints.get(p.name), docs.get(p.name, ""), name) for p in found}


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


def _short(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
