"""Values from a first to a last one, a step apart, exact in decimals: 0.1, 0.2, 0.3.

People and files say "from 10 to 100 by 10" and mean both ends; adding floats would miss the last.
"""

from __future__ import annotations

from decimal import Decimal, InvalidOperation
from typing import Final

from fxlab.backtester.parameters import Parameter, Value
from fxlab.errors import InvalidParameter

MOST_VALUES: Final = 1_000_000


def count_between(first: float, last: float, step: float) -> int:
    """Return how many values `values_between` gives; 0 if there are none."""
    try:
        low, high, by = (Decimal(str(number)) for number in (first, last, step))
        if low == high:
            return 1
        return int((high - low) / by) + 1 if low < high and by > 0 else 0
    except (InvalidOperation, ZeroDivisionError, OverflowError):
        return 0


def values_between(parameter: Parameter, first: float, last: float, step: float) -> list[Value]:
    """Return the values of a parameter from `first` to `last`, both inside, `step` apart.

    Raises
    ------
    InvalidParameter
        If `last` is not in reach, there are too many, or the parameter does not take one.
    """
    count = count_between(first, last, step)
    if not 1 <= count <= MOST_VALUES:
        raise InvalidParameter(
            f"{parameter.name} from {first:g} to {last:g} by {step:g} has no values, or too many; "
            f"write for example from 10 to 100 by 10 ({parameter.hint})"
        )
    low, by = Decimal(str(first)), Decimal(str(step))
    exact = (low + by * number for number in range(count))
    return [parameter.parse(format(value.normalize(), "f")) for value in exact]
