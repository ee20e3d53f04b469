"""What counts as a number in an argument: Python's and numpy's, but no True and no text.

Each argument that takes a number is read here, so that `np.int64(5)` is five everywhere, and what
is kept of it (in SQL, JSON, a fingerprint) is Python's own.
"""

from __future__ import annotations

from numbers import Real
from operator import index
from typing import SupportsIndex


def integer(value: object, least: float = float("-inf"), most: float = float("inf")) -> int | None:
    """Return the integer that a value is, or None: for fractions, truth, text, and out of range."""
    if isinstance(value, bool) or not isinstance(value, SupportsIndex):
        return None
    try:
        found = index(value)
    except TypeError:  # an array of several, numpy's True
        return None
    return found if least <= found <= most else None


def number(
    value: object, least: float = float("-inf"), most: float = float("inf")
) -> int | float | None:
    """Return the real number that a value is, or None: also for nan, and out of range."""
    found = integer(value)
    if found is None:
        if isinstance(value, bool) or not isinstance(value, Real):
            return None
        return float(value) if least <= float(value) <= most else None
    return found if least <= found <= most else None
