"""Payload checks: values and frames that are not as a venue documents them, refused with a cause.

A recorder must neither stop at a damaged frame nor store it. These functions raise one of
`NOT_AS_DOCUMENTED`, of which `cause_of` makes the words for `fxlab.collect.feed`.
"""

from __future__ import annotations

from typing import Any, Final

NOT_AS_DOCUMENTED: Final = (
    ArithmeticError,  # a number too large for a float, or no decimal number
    AttributeError,
    LookupError,
    RecursionError,
    TypeError,
    ValueError,
)
_INFINITE: Final = float("inf")


def cause_of(error: Exception) -> str:
    """Return what is wrong, in a few words."""
    if isinstance(error, RecursionError):
        return "nested too deeply"
    if isinstance(error, KeyError):
        return f"missing or unknown {error.args[0]!r:.60}"
    return (str(error) or type(error).__name__)[:120]


def frame_text(frame: str | bytes) -> str:
    """Return a frame as text; bytes must be UTF-8."""
    return frame if isinstance(frame, str) else frame.decode()


def listed(value: Any) -> list[Any]:  # noqa: ANN401 - any JSON
    """Return a list; a text or an object, which could be gone through too, is none."""
    if type(value) is not list:
        raise TypeError(f"{value!r:.40} is no list")
    return value


def positive(value: str | float, name: str) -> float:
    """Return a number above zero, and not infinite."""
    number = float(value)
    if not 0.0 < number < _INFINITE:
        raise ValueError(f"{name} {value!s:.40} is not a positive number")
    return number


def quantity_of(value: str | float, name: str) -> float:
    """Return a number that is zero or above, and not infinite."""
    number = float(value)
    if not 0.0 <= number < _INFINITE:
        raise ValueError(f"{name} {value!s:.40} is not a quantity")
    return number
