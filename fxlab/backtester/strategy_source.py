"""The text that stands for a strategy in a run's fingerprint.

Two runs with the same fingerprint must give the same bits, so the text has to hold whatever the
function's author can change in a notebook: the function, the functions of the same module that it
calls, the plain constants that it reads.
"""

from __future__ import annotations

import inspect
import tokenize
from collections.abc import Callable, Iterator
from types import CodeType, FunctionType
from typing import Any, Final

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
