"""Parameter space: axes of values, and search by grid, random sample or optuna.

All is checked before anything runs. A grid is never written out: a point is computed from its
number, so that ten million points cost nothing until they are tried.
"""

from __future__ import annotations

import json
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from fxlab._times import integer, number, required
from fxlab.backtester.strategy.strategy import Strategy, Value
from fxlab.errors import InvalidParameter, StrategyFailed, check_choice

if TYPE_CHECKING:
    import optuna


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

    @property
    def words(self) -> str:
        """Return the values in words: ``fast=3, slow=20``."""
        return ", ".join(f"{name}={value!r:.80}" for name, value in self.values.items())


@dataclass(frozen=True)
class Space:
    """All combinations of the axes of one strategy; the last axis turns fastest.

    Attributes
    ----------
    axes
        The parameters that vary, in the order in which they were given, with the values to try; a
        range stays a range.
    fixed
        All others: given as one value, or left at their default.
    """

    strategy: Strategy
    axes: dict[str, Sequence[Any]]
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
                usual = strategy.parameters[name].default if name in strategy.parameters else 1
                raise InvalidParameter(
                    f"{name}={parameters[name]!r:.80} has no values; give at least one, such as "
                    f"{name}={[usual]!r}"
                )
            _check(strategy, name, values)
        axes = {name: values for name, values in given.items() if len(values) > 1}
        single = {name: values[0] for name, values in given.items() if len(values) == 1}
        fixed = {n: v for n, v in strategy.check(single).items() if n not in axes}
        return cls(strategy, axes, fixed)

    @property
    def words(self) -> str:
        """Return the axes in words: ``10 fast x 3 slow``; nothing if none varies."""
        return " x ".join(f"{len(values):,} {name}" for name, values in self.axes.items())

    @property
    def count(self) -> int:
        """Return the number of combinations, feasible or not."""
        return math.prod(self.sizes)

    @property
    def sizes(self) -> tuple[int, ...]:
        """Return the number of values on each axis."""
        return tuple(map(len, self.axes.values()))

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
            name: self.strategy.parameters[name].check(values[place])
            for (name, values), place in zip(self.axes.items(), places, strict=True)
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
        for place in numbers:
            values = self.values(place)
            with suppress(InvalidParameter, StrategyFailed):
                self.strategy.signals(values)
                return Point(place, values)
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

    def find(self, points: Mapping[int, Point], given: object) -> tuple[Point, object]:
        """Return the point that is meant, and the session that a row of a table names.

        Parameters
        ----------
        points
            All points by number.
        given
            A number, a row of a table by column, or parameters by name; what does not vary may be
            left out.

        Raises
        ------
        InvalidParameter
            Unless it is exactly one point.
        """
        if not isinstance(given, Mapping):
            return points[_number(points, given)], None
        if "point" not in given or given.keys() <= self.strategy.parameters.keys():
            return self._with(points, given), None
        return points[_number(points, given["point"])], given.get("session")

    def _with(self, points: Mapping[int, Point], given: Mapping[str, object]) -> Point:
        """Return the one point that has these parameters."""
        checked = self.strategy.check(given)
        wanted = {name: checked[name] for name in given}
        found = [one for one in points.values() if wanted.items() <= one.values.items()]
        if len(found) == 1:
            return found[0]
        words = Point(0, wanted).words or "no parameter"
        if found:
            missing = ", ".join(name for name in self.axes if name not in wanted)
            raise InvalidParameter(f"{words} is {len(found):,} points; give {missing} as well")
        raise InvalidParameter(
            f"{words} is no point of this sweep; its points are in .parameters, and fxlab.backtest "
            "takes any parameters"
        )

    def as_dict(self) -> dict[str, Any]:
        """Return the grid as plain values, as it is kept beside the results."""
        axes = {name: _shown(values) for name, values in self.axes.items()}
        return {"axes": axes, "fixed": dict(self.fixed)}


def _number(points: Mapping[int, Point], given: object) -> int:
    found = integer(given)
    if found is None or found not in points:
        known = f"0 to {max(points):,}" if points else "none"
        raise InvalidParameter(
            f"point={given!r:.80} is no number of a point of this sweep ({known}); see the column "
            "point of .table, or give parameters by name"
        )
    return found


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


SEARCHES: Final = ("grid", "random", "optuna")
PROPOSED_AT_ONCE: Final = 16
"""Points that optuna proposes before it hears of their scores: fixed, so that the number of
workers changes nothing."""

NUMBERED: Final = 1 << 20  # combinations that can all be shuffled
ASKED_PER_POINT: Final = 20  # until optuna seems to know nothing new
DRAWS_PER_POINT: Final = 100  # of a larger space, until it seems that none is feasible


class Search:
    """Points that are proposed batch by batch: here all at once, whatever their scores are."""

    def __init__(self, points: Iterable[Point], total: int) -> None:
        self._points = points
        self.total = total  # how many will be proposed, at most

    def batches(self) -> Iterator[list[Point]]:
        """Yield the points; before the next batch `tell` has been called for the last."""
        yield list(self._points)

    def tell(self, scores: Mapping[int, float]) -> None:
        """Hear the score of each point of the batch by number: more is better, nan is none."""


def choose(
    space: Space, search: str, points: int | None, seed: int, *, points_limit: int
) -> Search:
    """Return the search that was asked for.

    Raises
    ------
    InvalidParameter
        For an unknown search, or a number of points that does not go with it.
    """
    check_choice("search", search, SEARCHES, "search")
    if search == "grid":
        if points is not None:
            raise InvalidParameter(
                f"points={points!r:.80} goes with search='random' or 'optuna'; a grid search "
                f"tries all {space.count:,} combinations"
            )
        every = (Point(number, space.values(number)) for number in range(space.count))
        return Search(every, space.count)
    count = required(
        integer(points, 1, points_limit),
        f"points={points!r:.80} is not a number of points to try; search={search!r} takes "
        f"1 to {points_limit:,}, such as points=200",
    )
    if search == "optuna":
        return Optuna(space, count, seed)
    different = drawn(space, count, seed)
    return Search(different, len(different))


def drawn(space: Space, points: int, seed: int) -> list[Point]:
    """Return different combinations that the strategy takes, each equally likely.

    The same seed draws the same points; more points with the same seed are those and others. They
    are fewer than asked for if there are no more.
    """
    rng = np.random.default_rng(seed)
    candidates = (
        (space.values(int(place)) for place in rng.permutation(space.count))
        if space.count <= NUMBERED
        else _endless(space, points, rng)
    )
    taken = islice(filter(space.takes, candidates), points)
    return [Point(number, values) for number, values in enumerate(taken)]


def _endless(space: Space, points: int, rng: np.random.Generator) -> Iterator[dict[str, Value]]:
    """Yield different combinations out of too many to shuffle."""
    seen = set[tuple[int, ...]]()
    for _ in range(points * DRAWS_PER_POINT):
        places = tuple(int(rng.integers(size)) for size in space.sizes)
        if places not in seen:
            seen.add(places)
            yield space.at(places)


class Optuna(Search):
    """Points that optuna's tree-structured Parzen estimator proposes, each once.

    Bergstra, Bardenet, Bengio and Kegl (2011), "Algorithms for Hyper-Parameter Optimization",
    NeurIPS 24. An axis of numbers is searched in their order, any other as categories.
    """

    def __init__(self, space: Space, points: int, seed: int) -> None:
        super().__init__((), min(points, space.count))
        self._space = space
        self._study = _study(seed)
        self._asked: dict[int, optuna.Trial] = {}
        self._scores: dict[str, float] = {}
        self._seen: dict[str, int] = {}

    def batches(self) -> Iterator[list[Point]]:
        """Yield a few points at a time, until there are enough or nothing new is proposed."""
        while len(self._seen) < self.total:
            self._asked = {}
            wanted = min(PROPOSED_AT_ONCE, self.total - len(self._seen))
            batch = []
            for _ in range(wanted * ASKED_PER_POINT):
                point = self._new_point()
                if point is not None:
                    batch.append(point)
                if len(batch) == wanted:
                    break
            if not batch:
                return
            yield batch

    def tell(self, scores: Mapping[int, float]) -> None:
        """Pass the scores on."""
        numbers = {at: key for key, at in self._seen.items()}
        for asked, trial in self._asked.items():
            self._scores[numbers[asked]] = scores[asked]
            self._tell(trial, scores[asked])

    def _new_point(self) -> Point | None:
        """Return what is proposed, unless the strategy refuses it or it was there before."""
        trial = self._study.ask()
        values = self._proposed(trial)
        point = Point(len(self._seen), values)
        if not self._space.takes(values):
            self._tell(trial, math.nan)
        elif point.key in self._seen:
            self._tell(trial, self._scores.get(point.key, math.nan))
        else:
            self._seen[point.key] = point.number
            self._asked[point.number] = trial
            return point
        return None

    def _tell(self, trial: optuna.Trial, score: float) -> None:
        """Let the estimator learn from a score; a trial without one counts as a bad one."""
        from optuna.trial import TrialState

        if math.isfinite(score):
            self._study.tell(trial, score)
        else:
            self._study.tell(trial, state=TrialState.PRUNED)

    def _proposed(self, trial: optuna.Trial) -> dict[str, Value]:
        places = []
        for name, values in self._space.axes.items():
            last = len(values) - 1
            if _is_ordered(values):
                places.append(trial.suggest_int(name, 0, last))
            else:
                places.append(trial.suggest_categorical(name, range(last + 1)))
        return self._space.at(places)


def _is_ordered(values: Sequence[object]) -> bool:
    if isinstance(values, range):
        return True
    numbers = [found for found in map(number, values) if found is not None]
    return len(numbers) == len(values) and numbers in (sorted(numbers), sorted(numbers)[::-1])


def _study(seed: int) -> optuna.Study:
    try:
        import optuna
    except ImportError as error:
        raise InvalidParameter(
            "search='optuna' needs the package optuna; install it with: pip install "
            "'fxlab[optuna]', or use search='random'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    sampler = optuna.samplers.TPESampler(seed=seed, constant_liar=True)
    return optuna.create_study(sampler=sampler, direction="maximize")
