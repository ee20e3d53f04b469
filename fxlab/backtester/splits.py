"""Where to fit and where to test: a strategy judged on the time it was chosen on is not judged.

Walk-forward windows go through time as a trader does; purged folds use all of it, and keep a
distance between training and test, because a position held across the border belongs to both.
All windows are half open in microseconds, as everywhere: start <= t < end.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from typing import Final, Literal

from fxlab.errors import InvalidParameter, InvalidTimeRange, did_you_mean
from fxlab.numbers import integer
from fxlab.times import Duration, from_micros, parse_duration

MODES: Final = ("rolling", "anchored")
MOST_FOLDS: Final = 10_000


@dataclass(frozen=True, slots=True)
class Window:
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
) -> list[Window]:
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
        Window(start_us if anchored else first - gap - fitted, first - gap, first, last)
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
    count = integer(folds, 1, MOST_FOLDS)
    if count is None:
        raise InvalidParameter(f"folds={folds!r} must be a whole number, 1 to {MOST_FOLDS:,}")
    return count


def _positive(value: Duration, name: str) -> int:
    micros = parse_duration(value, name)
    if not micros:
        raise InvalidParameter(f"{name}={value!r} is no time at all; give a length such as '1d'")
    return micros


def _equal_parts(start: int, end: int, count: int) -> list[int]:
    """Return exact borders of equal parts: integers, so they meet and end at `end`."""
    return [start + (end - start) * part // count for part in range(count + 1)]
