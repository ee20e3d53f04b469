"""Validation splits: walk-forward windows, purged k-fold, and the stability of a grid's points.

A strategy judged on the time it was chosen on is not judged. Walk-forward windows go through time
as a trader does; purged folds use all of it, and keep a distance between training and test, because
a position held across the border belongs to both. All windows are half open in microseconds, as
everywhere: start <= t < end.

A sweep's highest point is the first thing that people pick, and the first thing that fails: a good
point among bad neighbours is luck. A parameter that works for a reason works a step further too, so
points are ranked by what they and all their neighbours reach, less how much these differ.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise, product
from typing import Any, Final, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from fxlab._times import Duration, from_micros, integer, parse_duration, required
from fxlab.errors import InvalidInput, InvalidParameter, InvalidTimeRange, did_you_mean

MODES: Final = ("rolling", "anchored")
MOST_FOLDS: Final = 10_000


@dataclass(frozen=True, slots=True)
class SplitWindow:
    """One step of a walk forward; half-open ranges in UTC microseconds."""

    train_start: int
    train_end: int
    test_start: int
    test_end: int


@dataclass(frozen=True, slots=True)
class Fold:
    """One fold: a test range and the ranges to train on, before and after; UTC microseconds."""

    test_start: int
    test_end: int
    train: tuple[tuple[int, int], ...]


def walk_forward(
    start_us: int,
    end_us: int,
    *,
    train: Duration,
    folds: int | None = None,
    test: Duration | None = None,
    mode: Literal["rolling", "anchored"] = "rolling",
    embargo: Duration = 0,
) -> list[SplitWindow]:
    """Return windows that train on the past and test on what follows, up to `end_us`.

    The tests touch each other and end at `end_us`: the newest data are always tested. With
    `folds` alone they share what the first training leaves; with `test` alone there are as many
    as fit; with both, the rest at the start is only trained on, or left out.

    Parameters
    ----------
    start_us, end_us
        UTC microseconds, end excluded.
    train
        Length of each training ("rolling"), or of the shortest one ("anchored").
    folds, test
        How many tests, and how long each is; at least one of the two.
    mode
        "rolling" moves the training along; "anchored" always trains from the start.
    embargo
        Time between training and test that belongs to neither, for what is still held at the
        end of the training.

    Raises
    ------
    InvalidTimeRange
        `start_us` is not before `end_us`.
    InvalidParameter
        Anything else that cannot be: unknown mode, nothing to train or test on, too little time.
    """
    _check_span(start_us, end_us)
    if mode not in MODES:
        near = did_you_mean(str(mode), MODES) or "give 'rolling' or 'anchored'"
        raise InvalidParameter(f"mode={mode!r} is not known; {near}")
    fitted = _positive(train, "train")
    gap = parse_duration(embargo, "embargo")
    edges = _test_edges(start_us + fitted + gap, end_us, folds, test)
    if edges is None:
        asked = {"train": train, "embargo": embargo or None, "folds": folds, "test": test}
        given = ", ".join(f"{name}={it!r}" for name, it in asked.items() if it is not None)
        raise InvalidParameter(
            f"{given} do not fit into the {_span(start_us, end_us)} from "
            f"{from_micros(start_us)} on; train or test on less"
        )
    anchored = mode == "anchored"
    return [
        SplitWindow(start_us if anchored else first - gap - fitted, first - gap, first, last)
        for first, last in pairwise(edges)
    ]


def _test_edges(
    earliest: int, end: int, folds: int | None, test: Duration | None
) -> list[int] | None:
    """Return the borders of the tests, the last at `end`; None where there is too little time."""
    if folds is None and test is None:
        raise InvalidParameter(
            "neither folds nor test is given: say how many tests by folds=5, or how long by "
            "test='1h'"
        )
    room = end - earliest
    if test is None:
        count = _count(folds)
        return _equal_parts(earliest, end, count) if room >= count else None
    length = _positive(test, "test")
    count = max(room, 0) // length if folds is None else _count(folds)
    if count > MOST_FOLDS:
        raise InvalidParameter(f"test={test!r} gives {count:,} tests; the most is {MOST_FOLDS:,}")
    if count < 1 or count * length > room:
        return None
    return [end - step * length for step in range(count, -1, -1)]


def purged_kfold(
    start_us: int,
    end_us: int,
    *,
    folds: int,
    embargo: Duration = 0,
    purge: Duration = 0,
) -> list[Fold]:
    """Return equal test ranges that cover all time, each with what may be trained on.

    A decision at t has its outcome by t + `purge`. Before a test, training ends `purge` early, so
    that no outcome reaches into it. After a test, training begins `purge` + `embargo` late: the
    test's outcomes are over by then, and what lingers (moving averages, volatility) has faded.
    Lopez de Prado (2018), Advances in Financial Machine Learning, chapter 7.4.

    Parameters
    ----------
    start_us, end_us
        UTC microseconds, end excluded.
    folds
        Two or more; the tests differ in length by a microsecond at most.
    embargo
        Extra time after each test.
    purge
        Longest holding time.

    Raises
    ------
    InvalidTimeRange
        `start_us` is not before `end_us`.
    InvalidParameter
        Fewer than two folds, or a fold with nothing left to train on.
    """
    _check_span(start_us, end_us)
    count = _count(folds)
    if count < 2:
        raise InvalidParameter(f"folds={folds!r} leaves nothing to train on; give two or more")
    before = parse_duration(purge, "purge")
    after = before + parse_duration(embargo, "embargo")
    edges = _equal_parts(start_us, end_us, count)
    found = []
    for first, last in pairwise(edges):
        sides = ((start_us, first - before), (last + after, end_us))
        kept = tuple(side for side in sides if side[0] < side[1])
        if first == last or not kept:
            raise InvalidParameter(
                f"folds={folds!r}, purge={purge!r}, embargo={embargo!r} leave nothing to train on "
                f"in {_span(start_us, end_us)}; give a longer range, or a shorter purge"
            )
        found.append(Fold(first, last, kept))
    return found


def _check_span(start_us: int, end_us: int) -> None:
    if not start_us < end_us:
        raise InvalidTimeRange(
            f"start_us={start_us!r} is not before end_us={end_us!r}: there is nothing to split; "
            "ranges are half open, start <= t < end"
        )


def _span(start_us: int, end_us: int) -> timedelta:
    return from_micros(end_us) - from_micros(start_us)


def _count(folds: int | None) -> int:
    rule = f"folds={folds!r} must be a whole number, 1 to {MOST_FOLDS:,}"
    return required(integer(folds, 1, MOST_FOLDS), rule)


def _positive(value: Duration, name: str) -> int:
    micros = parse_duration(value, name)
    if not micros:
        raise InvalidParameter(f"{name}={value!r} is no time at all; give a length such as '1d'")
    return micros


def _equal_parts(start: int, end: int, count: int) -> list[int]:
    """Return exact borders of equal parts: integers, so they meet and end at `end`."""
    return [start + (end - start) * part // count for part in range(count + 1)]


Floats = npt.NDArray[np.float64]
Indices = npt.NDArray[np.int64]
Mask = npt.NDArray[np.bool_]
Pairs = tuple[Indices, Indices]

ADDED: Final = (
    "neighbours",
    "missing",
    "neighbourhood_mean",
    "neighbourhood_min",
    "neighbourhood_std",
    "neighbourhood_profitable",
    "score",
    "rank",
    "reason",
)
NO_VALUE: Final = "the metric has no value here"
ALONE: Final = "no neighbour has a value"
RUINED: Final = "the account was ruined"

APART: Final = 2  # steps between places that cannot be neighbours
_CELLS: Final = 1 << 20  # comparisons at once: 8 MB of differences
_KEYS: Final = 1 << 62  # places that can be numbered in 64 bits


def neighbourhood_stability(
    points: pl.DataFrame,
    parameters: Sequence[str],
    metric: str,
    *,
    break_even: float = 0.0,
    ruined: pl.Series | None = None,
) -> pl.DataFrame:
    """Return each point's metric beside that of its neighbourhood, and a rank by stability.

    A neighbourhood is the point itself and all points at most one grid step away in every
    parameter, diagonals included. A step leads to the next value of that parameter anywhere in
    the table. Text, booleans and nulls have no order: only equal values are neighbours.

    Parameters
    ----------
    points
        One row a point: the parameter columns and the metric, larger is better. Null, nan and
        infinite are points without a value; points may be missing, none may be there twice.
    parameters, metric
        Column names.
    break_even
        Above it the metric counts as profitable: 0 for returns and ratios, 1 for profit factors.
    ruined
        Whether a point lost everything (boolean, one a row): it counts as a neighbour, and is
        not ranked.

    Returns
    -------
    pl.DataFrame
        The rows of `points` in their order: parameters, metric, then
        `neighbours` (others with a value), `missing` (places of the grid around it without one),
        `neighbourhood_mean`, `neighbourhood_min`, `neighbourhood_std` (ddof 1) and
        `neighbourhood_profitable` (share) over the neighbourhood with the point itself,
        `score` (mean - std: a plateau keeps its height, a peak loses it), `rank` (1 is best, by
        score; equal scores share the lower number; null without a score) and `reason` (why there
        is no score; empty otherwise).

    Raises
    ------
    InvalidParameter
        A column that is not there or not a number, or a parameter named like a result.
    InvalidInput
        A point that stands twice in the table.
    """
    _check_columns(points, parameters, metric)
    chosen = points.select(*parameters, pl.col(metric).cast(pl.Float64).fill_null(math.nan))
    _check_unique(chosen, parameters)
    places, around = _places(chosen, parameters)
    values = chosen[metric].to_numpy()
    numbers = _numbers(places, values, break_even)
    missing = around - numbers["neighbours"] - np.isfinite(values)
    frame = chosen.with_columns(
        *[pl.Series(name, numbers[name]) for name in ADDED if name in numbers],
        pl.Series("missing", missing, dtype=pl.Int64),
    ).select(*parameters, metric, *(name for name in ADDED[:6]))
    return _rank(frame, metric, pl.lit(value=False) if ruined is None else ruined)


def _check_columns(points: pl.DataFrame, parameters: Sequence[str], metric: str) -> None:
    if not parameters:
        raise InvalidParameter("no parameters are given; name the columns that span the grid")
    for name in (*parameters, metric):
        if name not in points.columns:
            near = did_you_mean(name, points.columns) or f"there are: {', '.join(points.columns)}"
            raise InvalidParameter(f"the points have no column {name!r}; {near}")
        if name in ADDED:
            raise InvalidParameter(
                f"the column {name!r} would be overwritten by the result; rename it"
            )
    if metric in parameters or len(set(parameters)) < len(parameters):
        raise InvalidParameter(
            f"parameters={list(parameters)} and metric={metric!r} name a column twice"
        )
    if not points[metric].dtype.is_numeric():
        raise InvalidParameter(
            f"the metric {metric!r} is {points[metric].dtype}, not a number; choose another column"
        )


def _check_unique(points: pl.DataFrame, parameters: Sequence[str]) -> None:
    twice = points.filter(pl.struct(parameters).is_duplicated())
    if twice.height:
        shown = ", ".join(f"{name}={twice[name][0]!r}" for name in parameters)
        raise InvalidInput(
            f"the point {shown} stands more than once in the table; average it first, or take "
            "one session and symbol"
        )


def _places(points: pl.DataFrame, parameters: Sequence[str]) -> tuple[Indices, Indices]:
    """Return each point's place on every axis, and how many places of the grid lie around it.

    Places of neighbours differ by at most one on every axis; a null is far from all numbers.
    """
    places = np.empty((points.height, len(parameters)), dtype=np.int64)
    around = np.ones(points.height, dtype=np.int64)
    for axis, name in enumerate(parameters):
        column = points[name]
        if column.dtype.is_numeric() or column.dtype.is_temporal():
            level = _levels(column.fill_nan(None) if column.dtype.is_float() else column)
            around *= 1 + (level > 1) + ((level > 0) & (level < level.max(initial=0)))
        else:
            level = _levels(column.cast(pl.String)) * APART
        places[:, axis] = level
    return places, around


def _levels(column: pl.Series) -> Indices:
    """Return the values numbered from 1 in rising order; nulls get a number far below."""
    ranks = column.rank("dense").cast(pl.Int64).fill_null(-APART)
    return ranks.to_numpy().astype(np.int64)


def _numbers(places: Indices, values: Floats, break_even: float) -> dict[str, npt.NDArray[Any]]:
    """Sum up every neighbourhood, as differences from its own point: equal values give exact 0."""
    size = len(values)
    known = np.isfinite(values)
    base = np.where(known, values, values[known].mean() if known.any() else 0.0)
    count, total, square, good = np.zeros((4, size))
    lowest = np.full(size, math.inf)
    for here, there in _pairs(places, known):
        off = values[there] - base[here]
        count += np.bincount(here, minlength=size)
        total += np.bincount(here, off, size)
        square += np.bincount(here, off**2, size)
        good += np.bincount(here, values[there] > break_even, size)
        np.minimum.at(lowest, here, values[there])
    filled, several = np.maximum(count, 1), np.maximum(count - 1, 1)
    spread = np.sqrt(np.maximum(square - total**2 / filled, 0.0) / several)
    empty = count == 0
    return {
        "neighbours": (count - known).astype(np.int64),
        "neighbourhood_mean": np.where(empty, math.nan, base + total / filled),
        "neighbourhood_min": np.where(empty, math.nan, lowest),
        "neighbourhood_std": np.where(count < 2, math.nan, spread),
        "neighbourhood_profitable": np.where(empty, math.nan, good / filled),
    }


def _pairs(places: Indices, known: Mask) -> Iterator[Pairs]:
    """Yield (point, neighbour with a value) as index arrays; a point neighbours itself."""
    steps = [bool(np.any(np.diff(np.unique(axis)) == 1)) for axis in places.T]
    sizes = [int(np.ptp(axis)) + 3 if len(axis) else 1 for axis in places.T]
    if math.prod(sizes) < _KEYS and 3 ** sum(steps) < len(places):
        yield from _pairs_by_lookup(places, known, sizes, steps)
    else:
        yield from _pairs_by_comparison(places, known)


def _pairs_by_lookup(
    places: Indices, known: Mask, sizes: list[int], steps: list[bool]
) -> Iterator[Pairs]:
    """Look up what stands at each offset: good for many points on few axes."""
    weights = np.cumprod([1, *sizes[:-1]])
    keys = (places - places.min(axis=0)) @ weights
    targets = np.flatnonzero(known)
    targets = targets[np.argsort(keys[targets])]
    ordered = keys[targets]
    for offset in product(*((-1, 0, 1) if step else (0,) for step in steps)):
        wanted = keys + int(np.dot(offset, weights))
        found = np.minimum(np.searchsorted(ordered, wanted), len(ordered) - 1)
        here = np.flatnonzero(ordered[found] == wanted) if len(ordered) else found[:0]
        yield here, targets[found[here]]


def _pairs_by_comparison(places: Indices, known: Mask) -> Iterator[Pairs]:
    """Compare all with all, some rows at a time: good for many axes, whatever lies on them."""
    targets = np.flatnonzero(known)
    step = max(1, _CELLS // max(1, len(targets)))
    for first in range(0, len(places), step):
        near = np.ones((len(places[first : first + step]), len(targets)), dtype=np.bool_)
        for axis in places.T:
            near &= np.abs(axis[first : first + step, None] - axis[targets]) <= 1
        here, there = np.nonzero(near)
        yield here + first, targets[there]


def _rank(frame: pl.DataFrame, metric: str, ruined: pl.Expr | pl.Series) -> pl.DataFrame:
    gone = pl.lit(ruined) if isinstance(ruined, pl.Series) else ruined
    valued = pl.col(metric).is_finite() & ~gone
    score = pl.col("neighbourhood_mean") - pl.col("neighbourhood_std")
    scored = frame.with_columns(pl.when(valued).then(score).otherwise(math.nan).alias("score"))
    return scored.with_columns(
        pl.col("score").fill_nan(None).rank("min", descending=True).cast(pl.Int64).alias("rank"),
        pl.when(gone)
        .then(pl.lit(RUINED))
        .when(~valued)
        .then(pl.lit(NO_VALUE))
        .when(pl.col("neighbours") == 0)
        .then(pl.lit(ALONE))
        .otherwise(pl.lit(""))
        .alias("reason"),
    )
