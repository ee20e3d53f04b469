"""The grid of a sweep: named axes of values, checked before anything runs.

A grid is never written out: a point is computed from its number, so that ten million points cost
nothing until somebody asks for them.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from typing import Any, Final

import numpy as np
import polars as pl

from fxlab.backtester.strategy import Strategy, Value
from fxlab.errors import InvalidParameter, StrategyFailed

SAMPLED: Final = 10_000


@dataclass(frozen=True, slots=True)
class Point:
    """One combination of parameters: its number in the sweep, and all values, defaults too."""

    number: int
    values: dict[str, Value]

    @property
    def key(self) -> str:
        """Return the identity of the combination: canonical JSON of its values."""
        return json.dumps(self.values, sort_keys=True, separators=(",", ":"))


@dataclass(frozen=True, slots=True)
class Axis:
    """One parameter with the values to try, in the order given; a range stays a range."""

    name: str
    values: Sequence[Any]

    def __len__(self) -> int:
        return len(self.values)


@dataclass(frozen=True)
class Space:
    """All combinations of the axes of one strategy; the last axis turns fastest.

    Attributes
    ----------
    axes
        The parameters that vary, in the order in which they were given.
    fixed
        All others: given as one value, or left at their default.
    """

    strategy: Strategy
    axes: tuple[Axis, ...]
    fixed: dict[str, Value]

    @classmethod
    def of(cls, strategy: Strategy, parameters: Mapping[str, object]) -> Space:
        """Check a grid as people write it.

        Parameters
        ----------
        strategy
            Whose parameters they are.
        parameters
            Name to values: a list, tuple, range or array is an axis, one value is fixed.

        Raises
        ------
        InvalidParameter
            For an unknown name, an empty axis, or a value of a wrong type or out of range.
        """
        if not isinstance(parameters, Mapping) or not parameters:
            raise InvalidParameter(_no_grid(strategy, parameters))
        given = {name: _values(name, found) for name, found in parameters.items()}
        for name, values in given.items():
            if not len(values):
                raise InvalidParameter(
                    f"{name}={parameters[name]!r:.80} has no values; give at least one, such as "
                    f"{name}={[_default(strategy, name)]!r}"
                )
            _check(strategy, name, values)
        axes = tuple(Axis(name, values) for name, values in given.items() if len(values) > 1)
        single = {name: values[0] for name, values in given.items() if len(values) == 1}
        varied = {axis.name for axis in axes}
        fixed = {n: v for n, v in strategy.check(single).items() if n not in varied}
        return cls(strategy, axes, fixed)

    @property
    def count(self) -> int:
        """Return the number of combinations, feasible or not."""
        return math.prod(len(axis) for axis in self.axes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the number of values on each axis."""
        return tuple(len(axis) for axis in self.axes)

    def values(self, number: int) -> dict[str, Value]:
        """Return the parameters of the combination with this number, from 0 to count - 1."""
        places = []
        for size in reversed(self.sizes):
            number, place = divmod(number, size)
            places.append(place)
        return self.at(places[::-1])

    def at(self, places: Sequence[int]) -> dict[str, Value]:
        """Return the parameters that stand at one place on each axis, in the strategy's order."""
        chosen = {
            axis.name: self.strategy.parameters[axis.name].check(axis.values[place])
            for axis, place in zip(self.axes, places, strict=True)
        }
        return {name: chosen.get(name, self.fixed.get(name)) for name in self.strategy.parameters}  # type: ignore[misc]

    def samples(self) -> list[Point]:
        """Return a point or two that the strategy takes: near the first and near the last one.

        Raises
        ------
        InvalidParameter, StrategyFailed
            If none of many is taken, with what the strategy says of the first.
        """
        tried = min(self.count, SAMPLED)
        front = self._taken(range(tried))
        if front is None:
            self.strategy.signals(self.values(0))  # raises
        back = self._taken(range(self.count - 1, self.count - 1 - tried, -1))
        found = [point for point in (front, back) if point is not None]
        return found[:1] if front == back else found

    def _taken(self, numbers: range) -> Point | None:
        for number in numbers:
            values = self.values(number)
            with suppress(InvalidParameter, StrategyFailed):
                self.strategy.signals(values)
                return Point(number, values)
        return None

    def takes(self, values: Mapping[str, Value]) -> bool:
        """Return whether the strategy takes a combination; one that raises fails later."""
        try:
            self.strategy.signals(values)
        except InvalidParameter:
            return False
        except StrategyFailed:
            return True
        return True

    def as_dict(self) -> dict[str, Any]:
        """Return the grid as plain values, as it is kept beside the results."""
        axes = {axis.name: _shown(axis.values) for axis in self.axes}
        return {"axes": axes, "fixed": dict(self.fixed)}


def _values(name: str, found: object) -> Sequence[Any]:
    """Return the values of one entry of a grid, each once; a single value as an axis of one."""
    if isinstance(found, range):
        return found
    if isinstance(found, np.ndarray | pl.Series):
        found = found.tolist() if isinstance(found, np.ndarray) else found.to_list()
    if isinstance(found, bool | int | float | str | np.generic):
        found = [found]
    if not isinstance(found, list | tuple):
        raise InvalidParameter(
            f"{name}={found!r:.80} is neither a value nor values; give a list, a range or an "
            f"array, such as {name}=[10, 20, 50]"
        )
    plain = [value.item() if isinstance(value, np.generic) else value for value in found]
    # True and 1 are equal, and not the same value.
    seen = {(type(value), repr(value)): value for value in plain}
    return tuple(seen.values())


def _check(strategy: Strategy, name: str, values: Sequence[Any]) -> None:
    """Raise at the first value that the parameter does not take; a range is as good as its ends."""
    ends = {0, len(values) - 1} if isinstance(values, range) else range(len(values))
    if name not in strategy.parameters:
        strategy.check({name: values[0]})  # raises, with the names that are near
    for place in ends:
        strategy.parameters[name].check(values[place])


def _default(strategy: Strategy, name: str) -> object:
    found = strategy.parameters.get(name)
    return found.default if found else 1


def _no_grid(strategy: Strategy, parameters: object) -> str:
    known = ", ".join(f"{p.name}={p.default}" for p in strategy.parameters.values()) or "none"
    return (
        f"parameters={parameters!r:.80} is not a grid; give values to try by name, such as "
        f"{{'fast': range(10, 110, 10), 'slow': [100, 200]}}; {strategy.name} has: {known}"
    )


def _shown(values: Sequence[Any]) -> object:
    if isinstance(values, range):
        return {"from": values.start, "below": values.stop, "step": values.step}
    return list(values)
