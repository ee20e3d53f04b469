"""The table of a night: one row a sweep, with what its best point is worth."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from fxlab.errors import FxlabError

if TYPE_CHECKING:
    from fxlab.batcher.nightly_sweeps import NightlySweep
    from fxlab.sweeper.sweep import Sweep

SCHEMA: Final[dict[str, Any]] = {
    "sweep": pl.String,
    "state": pl.String,
    "strategy": pl.String,
    "sessions": pl.List(pl.String),
    "points": pl.Int64,
    "from_before": pl.Int64,
    "failed": pl.Int64,
    "metric": pl.String,
    "best": pl.Float64,
    "parameters": pl.String,
    "deflated_sharpe": pl.Float64,
    "pbo": pl.Float64,
    "tried": pl.Int64,
    "seconds": pl.Float64,
    "error": pl.String,
}


def table(rows: Sequence[Mapping[str, Any]]) -> pl.DataFrame:
    """Return the rows as a frame.

    Returns
    -------
    polars.DataFrame
        ``sweep`` (its name), ``state`` (done, stopped, failed), ``strategy``, ``sessions``,
        ``points`` (outcomes, of all sessions), ``from_before`` (those that were kept already),
        ``failed`` (points), ``metric``, ``best`` (its value at the best point), ``parameters`` (of
        that point, those that vary), ``deflated_sharpe`` (probability that it is above chance),
        ``pbo`` (probability of backtest overfitting), ``tried`` (points of all nights),
        ``seconds``, ``error``. Null where there is none.
    """
    return pl.DataFrame(list(rows), schema=SCHEMA)


def failed(one: NightlySweep, error: str, began: datetime) -> dict[str, Any]:
    """Return the row of a sweep that failed."""
    return _row(one, began, state="failed", error=error)


def ended(one: NightlySweep, found: Sweep, began: datetime) -> dict[str, Any]:
    """Return the row of a sweep that ran; with no point done it has failed as well."""
    states = dict(found.table["state"].value_counts().iter_rows())
    stopped = found.table.height < found.total
    row = _row(
        one,
        began,
        state="stopped" if stopped else "done",
        sessions=list(found.sessions),
        points=found.table.height,
        from_before=found.resumed,
        failed=states.get("failed", 0),
    )
    if not states.get("done"):
        errors = found.table["error"].drop_nulls().to_list()
        return row if stopped else row | {"state": "failed", "error": (errors or ["no point"])[0]}
    return row | _worth(found)


def _worth(found: Sweep) -> dict[str, Any]:
    """Return the best point, and how much of it is chance."""
    top = found.ranking().head(1)
    if top.is_empty():
        return {}
    row = top.row(0, named=True)
    values = found.points[row["point"]].values
    varied = [axis.name for axis in found.space.axes] or list(values)
    best = {
        "best": row[found.metric],
        "parameters": ", ".join(f"{name}={values[name]}" for name in varied),
    }
    try:
        judged = found.overfitting()
    except FxlabError:  # too few points or periods to judge
        return best
    deflated = judged.table.filter(pl.col("point") == row["point"])["deflated_sharpe"]
    return best | {
        "deflated_sharpe": _known(deflated[0]) if len(deflated) else None,
        "pbo": _known(judged.pbo),
        "tried": judged.tried,
    }


def _row(one: NightlySweep, began: datetime, **values: Any) -> dict[str, Any]:  # noqa: ANN401
    return {
        **dict.fromkeys(SCHEMA),
        "sweep": one.name,
        "strategy": one.strategy,
        "metric": one.metric,
        "seconds": (datetime.now(UTC) - began).total_seconds(),
        **values,
    }


def _known(value: float | None) -> float | None:
    return None if value is None or math.isnan(value) else value
