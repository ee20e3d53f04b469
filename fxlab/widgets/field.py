"""A text field for one value: what it shows is what it means, or it is marked as wrong.

A browser's field for numbers reads `1e9` as 1, rounds `50.5` and moves what is out of range to the
bound, all without a word. Here the text arrives as it was typed, and the library's own rule reads
it.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import ipywidgets as w
import traitlets as t

from fxlab.backtester.parameters import short
from fxlab.errors import InvalidInput, InvalidParameter

WRONG: Final = "fxlab-wrong"
"""The class of a field whose text means nothing."""


class _Text(t.CUnicode[str, Any]):
    """Takes numbers, too, as the shortest text that means them."""

    def validate(self, obj: Any, value: Any) -> Any:  # noqa: ANN401 - traitlets has no types
        text = repr(value).removesuffix(".0") if isinstance(value, float) else value
        return super().validate(obj, text)


class Field(w.Text):
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
