"""The returns of many trials as one matrix: checked once, read in pieces that fit the cache.

A matrix of 100,000 periods and 1,000 trials is 800 MB; whoever works on it must not double it.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

import numpy as np
import numpy.typing as npt
import polars as pl

from fxlab.backtester.ratios import Moments, moments
from fxlab.errors import InvalidInput

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

LOST: Final = -1.0
"""The return of the period in which a trial is ruined; those after it are 0."""

CELLS: Final = 1 << 18
"""Numbers in one work array: 2 MB, so that a few of them stay in the cache."""

_COLUMNS: Final = 8  # of a row lie in one cache line, so they are copied together


def as_matrix(returns: npt.ArrayLike | pl.DataFrame) -> Floats:
    """Return checked returns as Float64 (T, N): one row a period, one column a trial.

    Raises
    ------
    InvalidInput
        Not numbers, not a matrix, or a value that is not finite.
    """
    values = returns.to_numpy() if isinstance(returns, pl.DataFrame) else returns
    try:
        matrix = np.asarray(values, dtype=np.float64)
    except (TypeError, ValueError) as error:
        raise InvalidInput(f"the returns are not numbers ({error}); give floats (T, N)") from error
    if matrix.ndim != 2:
        raise InvalidInput(
            f"the returns have the shape {matrix.shape}; give a matrix (T, N) with one row a "
            "period and one column a trial"
        )
    _check_finite(matrix)
    return matrix


def _check_finite(matrix: Floats) -> None:
    first = 0
    for chunk in row_chunks(matrix):
        bad = np.argwhere(~np.isfinite(chunk))
        if len(bad):
            row, trial = (int(place) for place in bad[0])
            raise InvalidInput(
                f"return {chunk[row, trial]} of trial {trial} in row {first + row} is not finite; "
                "leave out trials that failed, and put 0 where nothing was held"
            )
        first += len(chunk)


def row_chunks(matrix: Floats) -> Iterator[Floats]:
    """Yield the matrix in runs of whole rows of about `CELLS` numbers, each in C order."""
    step = max(1, CELLS // max(1, matrix.shape[1]))
    for first in range(0, len(matrix), step):
        yield np.ascontiguousarray(matrix[first : first + step])


def column_moments(matrix: Floats) -> list[Moments]:
    """Return the moments of each column: the same bits as of that trial's returns alone."""
    found = []
    for first in range(0, matrix.shape[1], _COLUMNS):
        found += [moments(trial) for trial in matrix[:, first : first + _COLUMNS].T.copy(order="C")]
    return found
