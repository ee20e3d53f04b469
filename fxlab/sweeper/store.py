"""Points of sweeps in the database: written as they finish, found again by whoever asks the same.

A study's key says what was tried, the parameters say which point of it; a point is looked up by
both, so a larger grid over the same study repeats nothing. Beside the points stands one row for
each time a sweep was asked for, with its grid.
"""

from __future__ import annotations

import base64
import json
import math
import zlib
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from typing import Any, Final, Protocol

import numpy as np
import polars as pl
import xxhash

from fxlab.backtester.metrics import METRICS
from fxlab.questdb import sql
from fxlab.questdb.client import QuestDB
from fxlab.schema import SWEEP_RUNS
from fxlab.sweeper.lane import STATES, Outcome
from fxlab.sweeper.space import Point
from fxlab.sweeper.studies import Study

REQUEST: Final = "asked"
"""State of a row that says what was asked for, where others say what became of a point."""

_KEPT: Final = ("parameters", "state", "metrics", "returns", "error", "fingerprint")
_LISTED: Final = ("sweep_id", "data_session_id", "strategy")


class Store(Protocol):
    """Where points are kept, and found again."""

    keeps: bool

    def known(self, study: Study) -> dict[str, Outcome]:
        """Return all that is kept of a study's points, by their canonical parameters."""

    def announce(self, study: Study, asked: Mapping[str, Any]) -> None:
        """Write down what was asked for, before the first point is."""

    def keep(self, study: Study, done: Sequence[tuple[Point, Outcome]]) -> None:
        """Store points; when this returns, they survive whatever happens to this process."""

    def trials(self, strategy: str, study: Study) -> int:
        """Return how many runs of a strategy on a study's session are kept, of all sweeps."""

    def close(self) -> None:
        """Let go of what is held."""


class NoStore:
    """For sweeps without a lab: nothing is kept."""

    keeps = False

    def known(self, study: Study) -> dict[str, Outcome]:  # noqa: ARG002 - as a store has it
        """Return nothing."""
        return {}

    def announce(self, study: Study, asked: Mapping[str, Any]) -> None:
        """Do nothing."""

    def keep(self, study: Study, done: Sequence[tuple[Point, Outcome]]) -> None:
        """Do nothing."""

    def trials(self, strategy: str, study: Study) -> int:  # noqa: ARG002 - as a store has it
        """Return 0: nothing is known of other sweeps."""
        return 0

    def close(self) -> None:
        """Do nothing."""


class SweepStore:
    """The table `sweep_runs` of one server."""

    keeps = True

    def __init__(self, db: QuestDB) -> None:
        self._db = db

    def known(self, study: Study) -> dict[str, Outcome]:
        """Return all that is kept of a study's points, by their canonical parameters."""
        self._db.wait_visible(SWEEP_RUNS)
        rows = self._db.export(sql.sweep_points(_KEPT, sweep_id=study.key))
        points = rows.filter(pl.col("state") != REQUEST).iter_rows(named=True)
        return {row["parameters"]: _outcome(row) for row in points}

    def announce(self, study: Study, asked: Mapping[str, Any]) -> None:
        """Write down what was asked for, before the first point is."""
        self._write([_row(study, -1, REQUEST, plan=json.dumps(asked, default=str))])

    def keep(self, study: Study, done: Sequence[tuple[Point, Outcome]]) -> None:
        """Store points; when this returns, they survive whatever happens to this process."""
        self._write([_point_row(study, point, outcome) for point, outcome in done])

    def trials(self, strategy: str, study: Study) -> int:
        """Return how many runs of a strategy on a study's session are kept, of all sweeps."""
        self._db.wait_visible(SWEEP_RUNS)
        which = {"strategy": strategy, "data_session_id": study.session, "state": "done"}
        return self._db.export(sql.sweep_points(["fingerprint"], **which))["fingerprint"].n_unique()

    def _write(self, rows: list[dict[str, Any]]) -> None:
        if rows:
            self._db.write(SWEEP_RUNS, pl.DataFrame(rows, schema=SWEEP_RUNS.frame))

    def close(self) -> None:
        """Close the connections, when all that was written can be read."""
        self._db.wait_visible(SWEEP_RUNS)
        self._db.close()


def listing(db: QuestDB, limit: int = 50) -> pl.DataFrame:
    """Return the newest sweeps, one row for each study.

    Returns
    -------
    polars.DataFrame
        ``sweep_id``, ``data_session_id``, ``strategy``; how many points are ``done``, ``failed``,
        ``skipped``; ``asked`` (points of the newest request), its ``search``; ``started`` and
        ``finished`` (times of the first and last row), ``plan`` (JSON: the newest request).
    """
    rows = db.export(sql.sweep_points([*_LISTED, "state", "point", "timestamp"]))
    plans = db.export(sql.sweep_points(["sweep_id", "plan", "timestamp"], state=REQUEST))
    points = rows.unique(["sweep_id", "point", "state"], keep="last", maintain_order=True)
    states = (pl.col("state").eq(state).sum().alias(state) for state in STATES)
    times = pl.col("timestamp").min().alias("started"), pl.col("timestamp").max().alias("finished")
    newest = (
        plans.group_by("sweep_id", maintain_order=True)
        .last()
        .select(
            "sweep_id",
            pl.col("plan").str.json_path_match("$.points").cast(pl.Int64).alias("asked"),
            pl.col("plan").str.json_path_match("$.search").alias("search"),
            "plan",
        )
    )
    found = points.group_by(_LISTED).agg(*states, *times).join(newest, on="sweep_id", how="left")
    ordered = found.sort("finished", "sweep_id", descending=[True, False])
    return ordered.select(*_LISTED, *STATES, "asked", "search", "started", "finished", "plan").head(
        limit
    )


def _point_row(study: Study, point: Point, outcome: Outcome) -> dict[str, Any]:
    # The number in the grid is not the point's identity: another grid numbers it otherwise.
    number = xxhash.xxh3_64_intdigest(point.key.encode()) >> 1
    figures = {
        name: value if math.isfinite(value) else None
        for name, value in zip(METRICS, outcome.figures.tolist(), strict=False)
    }
    return _row(
        study,
        number,
        outcome.state,
        parameters=point.key,
        metrics=json.dumps(figures) if figures else None,
        returns=_packed(outcome.returns) if len(outcome.returns) else None,
        error=outcome.error or None,
        fingerprint=outcome.fingerprint or None,
    )


def _row(study: Study, point: int, state: str, **others: str | None) -> dict[str, Any]:
    return {
        **dict.fromkeys(SWEEP_RUNS.columns),
        "sweep_id": study.key,
        "data_session_id": study.session,
        "strategy": study.run.strategy.name,
        "state": state,
        "point": point,
        "timestamp": datetime.now(UTC),
        **others,
    }


def _outcome(row: Mapping[str, Any]) -> Outcome:
    """Return a stored point; its number is that of whoever asks."""
    figures = json.loads(row["metrics"] or "{}")
    values = [math.nan if figures.get(name) is None else figures[name] for name in METRICS]
    return Outcome(
        number=0,
        state=row["state"],
        figures=np.array(values if figures else []),
        returns=_unpacked(row["returns"]),
        error=row["error"] or "",
        fingerprint=row["fingerprint"] or "",
    )


def _packed(returns: np.ndarray) -> str:
    return base64.b64encode(zlib.compress(returns.astype("<f8").tobytes(), 1)).decode()


def _unpacked(text: str | None) -> np.ndarray:
    if not text:
        return np.empty(0)
    return np.frombuffer(zlib.decompress(base64.b64decode(text)), "<f8").astype(np.float64)
