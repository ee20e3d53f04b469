"""Strategy registry: plain functions by name, their parameters with bounds, their source text.

A strategy takes typed keyword parameters and returns `Signals`: Polars expressions over the ticks
of one symbol. Or its first parameter is a frame named ``ticks``, and it returns a frame with the
column ``target``: any Python will do then.

Its signature is its form. Widgets, the command line and sweeps are built from it, so a parameter is
declared once: its type, default, range and one line of documentation. Ranges are exact in decimals
(0.1, 0.2, 0.3): people and files say "from 10 to 100 by 10" and mean both ends; adding floats would
miss the last.

Its source text stands for it in a run's fingerprint. Two runs with the same fingerprint must give
the same bits, so the text holds whatever the function's author can change in a notebook: the
function, the functions of the same module that it calls, the plain constants that it reads.
"""

from __future__ import annotations

import importlib
import inspect
import math
import re
import tokenize
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from decimal import Decimal, InvalidOperation
from functools import partial
from types import CodeType, FunctionType
from typing import Annotated, Any, Final, get_args, get_origin, get_type_hints, overload

import polars as pl

from fxlab._times import integer, number
from fxlab.backtester.strategy.signals import Events, Signals
from fxlab.errors import (
    FxlabError,
    InvalidParameter,
    StrategyFailed,
    StrategyNotFound,
    did_you_mean,
)

MOST_VALUES: Final = 1_000_000


def count_between(first: float, last: float, step: float) -> int:
    """Return how many values `values_between` gives; 0 if there are none, or too many."""
    try:
        low, high, by = (Decimal(str(number)) for number in (first, last, step))
        if low == high:
            return 1
        count = int((high - low) / by) + 1 if low < high and by > 0 else 0
    except (InvalidOperation, ZeroDivisionError, OverflowError):
        return 0
    return count if count <= MOST_VALUES else 0


def values_between(parameter: Parameter, first: float, last: float, step: float) -> list[Value]:
    """Return the values of a parameter from `first` to `last`, both inside, `step` apart.

    Raises
    ------
    InvalidParameter
        If `last` is not in reach, there are too many, or the parameter does not take one.
    """
    for end in (first, last, step):
        if number(end) is None and not isinstance(end, float):  # nan is counted below
            raise InvalidParameter(
                f"{parameter.name}: {short(end)} is not a number; write numbers, without quotes, "
                f"for example from 10 to 100 by 10 ({parameter.hint})"
            )
    count = count_between(first, last, step)
    if not count:
        raise InvalidParameter(
            f"{parameter.name} from {first:g} to {last:g} by {step:g} has no values, or too many; "
            f"write for example from 10 to 100 by 10 ({parameter.hint})"
        )
    low, by = Decimal(str(first)), Decimal(str(step))
    exact = (low + by * place for place in range(count))
    return [parameter.parse(format(value.normalize(), "f")) for value in exact]


Value = bool | int | float | str
KINDS: Final = (bool, int, float, str)
MAX_LENGTH: Final = 200
FRAME: Final = "ticks"  # the first parameter of a strategy that takes a frame


@dataclass(frozen=True, slots=True)
class Bounds:
    """The range of a numeric parameter, both ends inside.

    Examples
    --------
    >>> @fxlab.strategy
    ... def follow(*, window: Annotated[int, fxlab.Bounds(2, 100)] = 5) -> fxlab.Signals:
    ...     '''Long above the mean.'''
    ...     return fxlab.Signals(
    ...         target=(pl.col("price") > pl.col("price").rolling_mean(window)).cast(float)
    ...     )
    >>> fxlab.backtest(ticks, follow, {"window": 5}).ticks
    1500
    """

    minimum: float
    maximum: float


@dataclass(frozen=True, slots=True)
class Parameter:
    """One typed parameter of a strategy.

    Examples
    --------
    >>> fxlab.Parameter("size", float, 1.0, None, "Size.").check(2)
    2.0
    """

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
        if isinstance(value, float) and not math.isfinite(value):  # JSON could not keep it
            large = "" if self.bounds else "; for no limit give a large one, such as 1e9"
            raise InvalidParameter(
                f"{self.name}={value} is not a finite number; {self.hint}{large}"
            )
        if self.bounds and isinstance(value, int | float):
            inside = self.bounds.minimum <= value <= self.bounds.maximum
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
        bounds = self.bounds
        limits = f" from {bounds.minimum:,.10g} to {bounds.maximum:,.10g}" if bounds else ""
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


_PLAIN: Final = (bool, int, float, str, tuple, frozenset, type(None))


def source_of(function: Callable[..., Any]) -> str:
    """Return the source of a function and, after it, of what it uses from its own module.

    Functions of other modules are not in it: the versions of packages are a part of the
    fingerprint of their own. A function typed at a bare prompt has no source; its bytecode
    stands in.
    """
    parts = [_text(function)]
    if isinstance(function, FunctionType):
        helpers, constants = _uses(function)
        parts += [_text(helpers[name]) for name in sorted(helpers)]
        parts += [f"{name} = {constants[name]!r}" for name in sorted(constants)]
    return "\n".join(parts)


def _uses(function: FunctionType) -> tuple[dict[str, FunctionType], dict[str, object]]:
    """Return the module's own functions and plain constants that are reached by name."""
    helpers: dict[str, FunctionType] = {}
    constants: dict[str, object] = {}
    to_read = [function]
    while to_read:
        reading = to_read.pop()
        for name, value in _named_values(reading):
            own = isinstance(value, FunctionType) and value.__module__ == function.__module__
            if own and name not in helpers and value is not function:
                helpers[name] = value
                to_read.append(value)
            elif isinstance(value, _PLAIN):
                constants[name] = value
    return helpers, constants


def _named_values(function: FunctionType) -> Iterator[tuple[str, Any]]:
    for code in _codes(function.__code__):
        for name in code.co_names:
            if name in function.__globals__:
                yield name, function.__globals__[name]
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        if name != function.__name__:
            yield name, _content(cell)


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


def _content(cell: Any) -> object:  # noqa: ANN401 - Python names the type of cells nowhere
    try:
        return cell.cell_contents
    except ValueError:  # not filled yet
        return None


def _text(function: Callable[..., Any]) -> str:
    try:
        return inspect.getsource(function)
    except (OSError, TypeError, SyntaxError, tokenize.TokenError):
        code = function.__code__
        return f"{code.co_code.hex()} {code.co_consts!r} {code.co_names!r}"


StrategyFunction = Callable[..., Signals] | Callable[..., pl.DataFrame]
EventsFunction = Callable[..., Events]


@dataclass(frozen=True, slots=True)
class Strategy:
    """A registered strategy: the function, and what its signature says.

    Examples
    --------
    >>> strategy = fxlab.backtest(ticks, "sma_cross", {"fast": 5, "slow": 20}).run.strategy
    >>> strategy.parameters["fast"].bounds
    Bounds(minimum=1, maximum=1000000)
    """

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
                raise InvalidParameter(self._unknown(str(name)))
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
        faster = getattr(self.function, SHORTCUT, None)
        return replace(found, owner=owner, events=faster(**values) if faster else found.events)

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


SHORTCUT: Final = "_fxlab_events"


def shortcut(function: StrategyFunction) -> Callable[[EventsFunction], EventsFunction]:
    """Give a strategy that is known a faster way to the same targets, as `Signals.events`.

    Its own source stays as it is, and with it the fingerprints of its runs, which come out the
    same by either way.
    """

    def attach(events: EventsFunction) -> EventsFunction:
        setattr(function, SHORTCUT, events)
        return events

    return attach


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

    Examples
    --------
    >>> @fxlab.strategy
    ... def dip(*, bps: float = 20.0) -> fxlab.Signals:
    ...     '''Buy below the mean of 50 ticks, hold until it is reached.'''
    ...     mean = pl.col("price").rolling_mean(50)
    ...     below = pl.col("price") < mean * (1 - bps / 1e4)
    ...     return fxlab.Signals(
    ...         target=pl.when(below).then(1.0).when(pl.col("price") > mean).then(0.0)
    ...     )
    >>> fxlab.backtest(ticks, dip, {"bps": 5.0}).ticks
    1500
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
    if not isinstance(which, str):
        raise StrategyNotFound(
            f"a {type(which).__name__} is no strategy; give the data first and then a name, "
            'module:function, or the function: fxlab.backtest(session, "sma_cross")'
        )
    if ":" in which and which not in _REGISTRY:
        return _imported(which)
    if which not in _REGISTRY:
        raise StrategyNotFound.named(which, _REGISTRY)
    return _REGISTRY[which]


def names() -> list[str]:
    """Return the names of all registered strategies, sorted."""
    _load_shipped()
    return sorted(_REGISTRY)


def strategies() -> pl.DataFrame:
    """Return one row a strategy: name, what it does, its parameters with defaults.

    Examples
    --------
    >>> fxlab.strategies().columns
    ['strategy', 'summary', 'parameters']
    """
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
    importlib.import_module("fxlab.backtester.strategy._builtin")


def _imported(path: str) -> Strategy:
    module_name, _, function_name = path.partition(":")
    try:
        function = getattr(importlib.import_module(module_name), function_name)
    except (ImportError, AttributeError, ValueError) as error:
        raise StrategyNotFound(
            f"no strategy at {short(path)} ({error}); give module:function of an importable module"
        ) from error
    return Strategy(path, function, parameters_of(function, path))
