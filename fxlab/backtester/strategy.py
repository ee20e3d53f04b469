"""Strategies: plain functions whose signature is their form, kept by name.

A strategy takes typed keyword parameters and returns `Signals`: Polars expressions over the ticks
of one symbol. Or its first parameter is a frame named ``ticks``, and it returns a frame with the
column ``target``: any Python will do then.
"""

from __future__ import annotations

import importlib
import inspect
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from typing import Any, Final, overload

import polars as pl

from fxlab.backtester.parameters import (
    Bounds,
    Parameter,
    Value,
    parameters_of,
    short,
    takes_frame,
)
from fxlab.backtester.signals import Signals
from fxlab.backtester.strategy_source import source_of
from fxlab.errors import (
    FxlabError,
    InvalidParameter,
    StrategyFailed,
    StrategyNotFound,
    did_you_mean,
)

__all__ = [
    "Bounds",
    "Parameter",
    "Signals",
    "Strategy",
    "StrategyFunction",
    "Value",
    "get",
    "listing",
    "names",
    "require",
    "strategy",
]

StrategyFunction = Callable[..., Signals] | Callable[..., pl.DataFrame]


@dataclass(frozen=True, slots=True)
class Strategy:
    """A registered strategy: the function, and what its signature says."""

    name: str
    function: StrategyFunction
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
        """Return the source text, part of a run's fingerprint; see `strategy_source`."""
        return source_of(self.function)

    def check(self, given: Mapping[str, object] | None = None) -> dict[str, Value]:
        """Return all parameters, typed and in range, with defaults filled in.

        Raises
        ------
        InvalidParameter
            For an unknown name ("did you mean"), a wrong type or a value out of range.
        """
        if not isinstance(given, Mapping | None):
            raise InvalidParameter(
                f"parameters={given!r:.80} are not named; give a dict, such as {self._example}"
            )
        given = given or {}
        for name in given:
            if name not in self.parameters:
                raise InvalidParameter(self._unknown(name))
        return {
            name: parameter.check(given.get(name, parameter.default))
            for name, parameter in self.parameters.items()
        }

    @property
    def _example(self) -> str:
        return str({name: one.default for name, one in [*self.parameters.items()][:2]} or "{}")

    def parse(self, texts: Mapping[str, str]) -> dict[str, Value]:
        """Return parameters typed from texts, as a command line gives them."""
        for name in texts:
            if name not in self.parameters:
                raise InvalidParameter(self._unknown(name))
        return {name: self.parameters[name].parse(text) for name, text in texts.items()}

    def signals(self, given: Mapping[str, object] | None = None) -> Signals:
        """Return the strategy's signals for checked parameters.

        Raises
        ------
        InvalidParameter
            For a parameter, or if the function returns something else than `Signals`.
        StrategyFailed
            If the function raises; the cause is kept.
        """
        values = self.check(given)
        owner = self.describe(values)
        if takes_frame(self.function):
            compute: Any = partial(self.function, **values)
            found: object = Signals.from_frame(compute)
        else:
            found = self._called(values, owner)
        if not isinstance(found, Signals):
            raise InvalidParameter(
                f"strategy {self.name!r} returned {type(found).__name__}; "
                "a strategy returns fxlab.Signals(target=...)"
            )
        return replace(found, owner=owner)

    def describe(self, values: Mapping[str, object]) -> str:
        """Return name and parameters, as they stand in error messages."""
        shown = ", ".join(f"{name}={short(value)}" for name, value in values.items())
        return f"strategy {self.name!r} ({shown})" if shown else f"strategy {self.name!r}"

    def _called(self, values: Mapping[str, object], owner: str) -> object:
        try:
            return self.function(**values)
        except FxlabError:
            raise
        except Exception as error:
            raise StrategyFailed.of(owner, error) from error

    def _unknown(self, name: str) -> str:
        near = did_you_mean(name, self.parameters)
        known = ", ".join(self.parameters) or "none"
        parts = [f"{self.name} has no parameter {short(name)}", near, f"it has: {known}"]
        return "; ".join(part for part in parts if part)


_REGISTRY: Final[dict[str, Strategy]] = {}
"""Strategies by name; written only by the decorator."""


@overload
def strategy(function: StrategyFunction) -> StrategyFunction: ...
@overload
def strategy(*, name: str) -> Callable[[StrategyFunction], StrategyFunction]: ...
def strategy(function: StrategyFunction | None = None, *, name: str | None = None) -> Any:
    """Register a function as a strategy.

    Parameters
    ----------
    function
        Takes keyword-only parameters of type int, float, str or bool, each with a default
        (``Annotated[int, Bounds(1, 1000)]`` gives a range), and returns `Signals`. Or takes a
        frame first, named ``ticks``, and returns a frame; see `Signals.from_frame`.
    name
        The strategy's name; the function's own name unless given. Registering a name again
        replaces it, so that a notebook cell can be run twice.

    Raises
    ------
    InvalidParameter
        If the signature cannot be turned into a form.
    """

    def register(plain: StrategyFunction) -> StrategyFunction:
        chosen = name or str(getattr(plain, "__name__", "strategy"))
        _REGISTRY[chosen] = Strategy(chosen, plain, parameters_of(plain, chosen))
        return plain

    return register if function is None else register(function)


def get(which: str | Strategy | StrategyFunction) -> Strategy:
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
        return Strategy(own, which, parameters_of(which, own))
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
            f"no strategy at {short(path)} ({error}); give module:function of an importable module"
        ) from error
    return Strategy(path, function, parameters_of(function, path))
