"""The table of a sweep: one row for each point and session."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, Final

import numpy as np
import polars as pl

from fxlab.backtester.metrics import METRICS
from fxlab.backtester.strategy import Strategy
from fxlab.sweeper.lane import STATES, Outcome
from fxlab.sweeper.space import Point

KINDS: Final = {int: pl.Int64, float: pl.Float64, bool: pl.Boolean, str: pl.String}
TAKEN: Final = frozenset({"point", "session", "state", "error", "fingerprint", *METRICS})


def column_of(parameter: str) -> str:
    """Return the column of a parameter: its name, unless a figure has the same one."""
    return f"parameter_{parameter}" if parameter in TAKEN else parameter


def build(
    strategy: Strategy,
    sessions: Sequence[str],
    points: Mapping[int, Point],
    outcomes: Sequence[Mapping[int, Outcome]],
) -> pl.DataFrame:
    """Return the table, ordered by session as given, then by point; null where there is no value.

    Parameters
    ----------
    strategy
        Whose parameters the columns are.
    sessions, outcomes
        Ids, and for each what became of the points by number.
    points
        The points by number.
    """
    rows = [
        (session, points[number], found[number])
        for session, found in zip(sessions, outcomes, strict=True)
        for number in sorted(found)
    ]
    columns: dict[str, Any] = {
        "point": pl.Series([point.number for _, point, _ in rows], dtype=pl.Int64),
        "session": pl.Series([session for session, _, _ in rows], dtype=pl.String),
    }
    for name, parameter in strategy.parameters.items():
        values = [point.values[name] for _, point, _ in rows]
        columns[column_of(name)] = pl.Series(values, dtype=KINDS[parameter.kind])
    states = [outcome.state for _, _, outcome in rows]
    columns["state"] = pl.Series(states, dtype=pl.String)
    figures = np.full((len(rows), len(METRICS)), np.nan)
    for row, (_, _, outcome) in zip(figures, rows, strict=True):
        if len(outcome.figures):
            row[:] = outcome.figures
    for place, name in enumerate(METRICS):
        columns[name] = pl.Series(np.ascontiguousarray(figures[:, place])).fill_nan(None)
    for name in ("error", "fingerprint"):
        texts = [getattr(outcome, name) or None for _, _, outcome in rows]
        columns[name] = pl.Series(texts, dtype=pl.String)
    return pl.DataFrame(columns)


def count_words(table: pl.DataFrame, total: int, resumed: int) -> str:
    """Return what became of the points, in words."""
    counts = dict(table["state"].value_counts().iter_rows())
    parts = [f"{counts[state]:,} {state}" for state in STATES if counts.get(state)]
    ruined = table["ruined_after"].count()
    if ruined:
        parts.append(f"{ruined:,} of them ruined (see ruined_after in the table)")
    if total > table.height:
        parts.append(f"{total - table.height:,} not done")
    if resumed:
        parts.append(f"{resumed:,} of them from before")
    return ", ".join(parts) or "no points"


def rank(table: pl.DataFrame, strategy: Strategy, metric: str, sign: float) -> pl.DataFrame:
    """Return one row a point, the best first.

    Returns
    -------
    polars.DataFrame
        ``point``, the parameters, ``sessions`` (those in which the point has the figure), the
        figure's mean over them, ``worst`` and ``best`` of them, and ``ruined``, the sessions in
        which it lost everything. Points that were ruined nowhere come first, then those with the
        figure in more sessions; among equals the smaller number does.
    """
    parameters = [column_of(name) for name in strategy.parameters]
    ruins = table.group_by("point").agg(
        pl.col("ruined_after").is_not_null().sum().cast(pl.Int64).alias("ruined")
    )
    known = table.filter(pl.col(metric).is_not_null()).sort("point", maintain_order=True)
    value = pl.col(metric)
    worst, best = (value.min(), value.max()) if sign > 0 else (value.max(), value.min())
    found = known.group_by("point", maintain_order=True).agg(
        *(pl.col(name).first() for name in parameters),
        value.count().cast(pl.Int64).alias("sessions"),
        value.mean(),
        worst.alias("worst"),
        best.alias("best"),
    )
    return found.join(ruins, on="point", how="left", maintain_order="left").sort(
        "ruined",
        "sessions",
        pl.col(metric) * sign,
        "point",
        descending=[False, True, True, False],
    )
