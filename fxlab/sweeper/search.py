"""Which points to try: all of a grid, a random sample of it, or those that optuna proposes."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final, Protocol

import numpy as np

from fxlab.backtester.strategy import Value
from fxlab.errors import InvalidParameter, did_you_mean
from fxlab.numbers import integer, number
from fxlab.sweeper.space import Point, Space

if TYPE_CHECKING:
    import optuna

SEARCHES: Final = ("grid", "random", "optuna")
PROPOSED_AT_ONCE: Final = 16
"""Points that optuna proposes before it hears of their scores: fixed, so that the number of
workers changes nothing."""

NUMBERED: Final = 1 << 20  # combinations that can all be shuffled
ASKED_PER_POINT: Final = 20  # until optuna seems to know nothing new
DRAWS_PER_POINT: Final = 100  # of a larger space, until it seems that none is feasible


class Search(Protocol):
    """Proposes points, batch by batch, and may learn from their scores."""

    @property
    def total(self) -> int:
        """Return how many points will be proposed."""

    def batches(self) -> Iterator[list[Point]]:
        """Yield the points; before the next batch `tell` has been called for the last."""

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
    if search not in SEARCHES:
        hint = did_you_mean(str(search), SEARCHES)
        known = ", ".join(SEARCHES)
        raise InvalidParameter(f"search={search!r:.80} is not a search; known: {known}. {hint}")
    if search == "grid":
        if points is not None:
            raise InvalidParameter(
                f"points={points!r:.80} goes with search='random' or 'optuna'; a grid search "
                f"tries all {space.count:,} combinations"
            )
        return GridSearch(space)
    count = integer(points, 1, points_limit)
    if count is None:
        raise InvalidParameter(
            f"points={points!r:.80} is not a number of points to try; search={search!r} takes "
            f"1 to {points_limit:,}, such as points=200"
        )
    return RandomSearch(space, count, seed) if search == "random" else Optuna(space, count, seed)


class GridSearch:
    """Every combination, the last axis turning fastest."""

    def __init__(self, space: Space) -> None:
        self._space = space

    @property
    def total(self) -> int:
        """Return the number of combinations."""
        return self._space.count

    def batches(self) -> Iterator[list[Point]]:
        """Yield all points at once."""
        yield [Point(number, self._space.values(number)) for number in range(self.total)]

    def tell(self, scores: Mapping[int, float]) -> None:
        """Learn nothing."""


class RandomSearch:
    """Different combinations that the strategy takes, each equally likely.

    The same seed draws the same points; more points with the same seed are those and others.
    """

    def __init__(self, space: Space, points: int, seed: int) -> None:
        self._points = list(_drawn(space, points, np.random.default_rng(seed)))

    @property
    def total(self) -> int:
        """Return how many were drawn: fewer than asked for, if there are no more."""
        return len(self._points)

    def batches(self) -> Iterator[list[Point]]:
        """Yield all points at once."""
        yield self._points

    def tell(self, scores: Mapping[int, float]) -> None:
        """Learn nothing."""


def _drawn(space: Space, points: int, rng: np.random.Generator) -> Iterator[Point]:
    """Yield feasible points, none twice."""
    shuffled = space.count <= NUMBERED
    candidates = _shuffled(space, rng) if shuffled else _endless(space, points, rng)
    number = 0
    for values in candidates:
        if space.takes(values):
            yield Point(number, values)
            number += 1
        if number == points:
            return


def _shuffled(space: Space, rng: np.random.Generator) -> Iterator[dict[str, Value]]:
    for place in rng.permutation(space.count):
        yield space.values(int(place))


def _endless(space: Space, points: int, rng: np.random.Generator) -> Iterator[dict[str, Value]]:
    """Yield different combinations out of too many to shuffle."""
    seen = set[tuple[int, ...]]()
    for _ in range(points * DRAWS_PER_POINT):
        places = tuple(int(rng.integers(size)) for size in space.sizes)
        if places not in seen:
            seen.add(places)
            yield space.at(places)


class Optuna:
    """Points that optuna's tree-structured Parzen estimator proposes, each once.

    Bergstra, Bardenet, Bengio and Kegl (2011), "Algorithms for Hyper-Parameter Optimization",
    NeurIPS 24. An axis of numbers is searched in their order, any other as categories.
    """

    def __init__(self, space: Space, points: int, seed: int) -> None:
        self._space = space
        self.total = min(points, space.count)
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
        for axis in self._space.axes:
            last = len(axis) - 1
            if _is_ordered(axis.values):
                places.append(trial.suggest_int(axis.name, 0, last))
            else:
                places.append(trial.suggest_categorical(axis.name, range(last + 1)))
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
