"""Trial store in the database: written as trials finish, looked up when the same is asked again.

A study's key says what was tried, the parameters say which point of it; a point is looked up by
both, so a larger grid over the same study repeats nothing. Beside the points stands one row for
each time a sweep was asked for, with its grid. `TrialTracker` takes the results of a running sweep:
stored, counted, and reported as progress.
"""

from __future__ import annotations

import base64
import json
import math
import time
import zlib
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
import xxhash

from fxlab import _html
from fxlab._progress import Advance
from fxlab._questdb import sql
from fxlab.backtester.metrics._performance import METRICS
from fxlab.errors import FxlabError, SweepNotFound
from fxlab.schema import NIGHT_RANKS, SWEEP_RUNS
from fxlab.sweeper._results import finite
from fxlab.sweeper._space import Point
from fxlab.sweeper._study import SweepStudy, time_left
from fxlab.sweeper._trial import STATES, TrialResult

if TYPE_CHECKING:
    from fxlab._questdb.client import QuestDB
    from fxlab.lab import Lab
    from fxlab.sweeper.sweep import Sweep

REQUEST: Final = "asked"
"""State of a row that says what was asked for, where others say what became of a point."""

MARKS: Final = {"deleted": -2, "undeleted": -3}
"""States of the rows that hide a sweep and bring it back, and what stands for their point."""

_KEPT: Final = ("parameters", "state", "metrics", "returns", "error", "fingerprint")
_LISTED: Final = ("sweep_id", "data_session_id", "strategy")


class TrialStore:
    """Where points are kept, and found again; this one, of sweeps without a lab, keeps nothing."""

    keeps = False

    def known(self, study: SweepStudy) -> dict[str, TrialResult]:  # noqa: ARG002
        """Return all that is kept of a study's points, by their canonical parameters."""
        return {}

    def announce(self, study: SweepStudy, asked: Mapping[str, Any]) -> None:
        """Write down what was asked for, before the first point is."""

    def keep(self, study: SweepStudy, done: Sequence[tuple[Point, TrialResult]]) -> None:
        """Store points; when this returns, they survive whatever happens to this process."""

    def trials(self, strategy: str, study: SweepStudy) -> int:  # noqa: ARG002
        """Return how many runs of a strategy on a study's session are kept, of all sweeps."""
        return 0

    def close(self) -> None:
        """Close the connections, when all that was written can be read."""


class SweepRunStore(TrialStore):
    """The table `sweep_runs` of one server."""

    keeps = True

    def __init__(self, db: QuestDB) -> None:
        self._db = db

    def known(self, study: SweepStudy) -> dict[str, TrialResult]:
        """Return all that is kept of a study's points, by their canonical parameters."""
        self._db.wait_visible(SWEEP_RUNS)
        rows = self._db.export(sql.sweep_points(_KEPT, sweep_id=study.key))
        points = rows.filter(pl.col("state").is_in(STATES)).iter_rows(named=True)
        return {row["parameters"]: _outcome(row) for row in points}

    def announce(self, study: SweepStudy, asked: Mapping[str, Any]) -> None:
        """Write down what was asked for, before the first point is."""
        self._write([_row(study, -1, REQUEST, plan=json.dumps(asked, default=str))])

    def keep(self, study: SweepStudy, done: Sequence[tuple[Point, TrialResult]]) -> None:
        """Store points; when this returns, they survive whatever happens to this process."""
        self._write([_point_row(study, point, outcome) for point, outcome in done])

    def trials(self, strategy: str, study: SweepStudy) -> int:
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


def store_of(lab: Lab | None) -> TrialStore:
    """Return where a sweep keeps its points: the database of a lab, or nowhere."""
    if lab is None:
        return TrialStore()
    from fxlab._questdb.client import QuestDB  # a sweep over frames needs no database

    return SweepRunStore(QuestDB(lab.endpoint))


def delete(db: QuestDB, sweep_id: str) -> None:
    """Hide a sweep; nothing of it is lost: `undelete` brings it back, and so does a run of it.

    Raises
    ------
    SweepNotFound
        If no sweep has this id, or it is deleted already.
    """
    _mark(db, find(db, sweep_id), "deleted")


def undelete(db: QuestDB, sweep_id: str) -> SavedSweep:
    """Bring a deleted sweep back, and return it.

    Raises
    ------
    SweepNotFound
        If no deleted sweep has this id, naming near ids.
    """
    _mark(db, find(db, sweep_id, deleted=True), "undeleted")
    return find(db, sweep_id)


def _mark(db: QuestDB, found: SavedSweep, state: str) -> None:
    row = dict.fromkeys(SWEEP_RUNS.columns) | {name: getattr(found, name) for name in _LISTED}
    row |= {"state": state, "point": MARKS[state], "timestamp": datetime.now(UTC)}
    db.write(SWEEP_RUNS, pl.DataFrame([row], schema=SWEEP_RUNS.frame))
    db.wait_visible(SWEEP_RUNS)


_WORDS: Final = ("sweep_id", "data_session_id", "strategy", "plan")


def listing(
    db: QuestDB,
    limit: int = 50,
    *,
    text: str = "",
    deleted: bool = False,
    sort: str = "finished",
    descending: bool = True,
    after: str | None = None,
    **equal: str,
) -> pl.DataFrame:
    """Return sweeps, one row for each study, the newest unless sorted otherwise.

    Parameters
    ----------
    db, limit
        Where they are, and how many at most.
    text
        Words that must each occur, in any case, in id, session, strategy, the newest request or the
        time of the last row.
    deleted
        Whether those that were deleted are listed, instead of the others.
    sort, descending, after
        A column of those below and its order, and the id of the sweep before the first one, as in
        `fxlab.sessions.runs.listing`.
    **equal
        Columns of `sweep_runs` and their values, such as ``sweep_id``.

    Returns
    -------
    polars.DataFrame
        ``sweep_id``, ``data_session_id``, ``strategy``; how many points are ``done``, ``failed``,
        ``skipped``; ``asked`` (points of the newest request), its ``search``; ``started`` and
        ``finished`` (times of the first and last row), ``plan`` (JSON: the newest request).
    """
    states = db.export(sql.sweeps(**equal))
    plans = db.export(sql.sweep_points(["sweep_id", "plan", "timestamp"], **equal, state=REQUEST))
    newest = plans.group_by("sweep_id", maintain_order=True).last()
    newest = newest.with_columns(
        pl.col("plan").str.json_path_match("$.points").cast(pl.Int64).alias("asked"),
        pl.col("plan").str.json_path_match("$.search").alias("search"),
    )
    rows = ~pl.col("state").is_in(list(MARKS))
    last = pl.col("state").sort_by("last_time").last()
    found = states.group_by(_LISTED).agg(
        *(pl.col("points").filter(state=state).sum().alias(state) for state in STATES),
        pl.col("first_time").filter(rows).min().alias("started"),
        pl.col("last_time").filter(rows).max().alias("finished"),
        (last == "deleted").alias("deleted"),
    )
    found = found.filter(pl.col("deleted") == deleted)
    sql.choice(sort, [*_LISTED, *STATES, "asked", "search", "started", "finished"], "column")
    ordered = found.join(newest, on="sweep_id", how="left").sort(
        sort, "sweep_id", descending=[descending, False], nulls_last=True
    )
    whole = pl.concat_str(
        *_WORDS, pl.col("finished").dt.to_string("%Y-%m-%d %H:%M:%S"),
        separator=" ", ignore_nulls=True,
    ).str.to_lowercase()  # fmt: skip
    matching = [whole.str.contains(word, literal=True) for word in text.lower().split()]
    if after is not None:
        place = ordered["sweep_id"].index_of(after)
        if place is None:
            raise SweepNotFound.named(after, ordered["sweep_id"].to_list())
        matching.append(pl.int_range(pl.len()) > place)
    return (
        ordered.filter(pl.lit(value=True), *matching)
        .select(*_LISTED, *STATES, "asked", "search", "started", "finished", "plan")
        .head(limit)
    )


@dataclass(frozen=True, slots=True)
class SavedSweep:
    """A kept sweep of one session: what was tried and what became of it; see `fxlab.Lab.sweep`.

    Attributes
    ----------
    sweep_id, data_session_id, strategy : str
        Its id, the session, and the strategy's name.
    done, failed, skipped : int
        Points by their state.
    asked : int or None
        Points of the newest request, ``plan``; its ``search`` is "grid", "random" or "optuna".
    started, finished : datetime
        Times (UTC) of the first and the last row.
    plan : dict
        The newest request.

    Examples
    --------
    >>> sweep = fxlab.sweep(session, "sma_cross", {"fast": [3, 5], "slow": [20]}, lab=lab)
    >>> lab.sweep(sweep.sweep_ids[0]).points()["fast"].to_list()
    [3, 5]
    """

    sweep_id: str
    data_session_id: str
    strategy: str
    done: int
    failed: int
    skipped: int
    asked: int | None
    search: str | None
    started: datetime
    finished: datetime
    plan: dict[str, Any]
    _db: QuestDB = field(repr=False)

    def points(self) -> pl.DataFrame:
        """Return all points: one row each, by their parameters.

        Returns
        -------
        polars.DataFrame
            The parameters, one column each; ``state`` (done, failed, skipped), the metrics (null
            where there is none), ``error``, ``fingerprint``.
        """
        rows = self._db.export(
            sql.sweep_points([*_KEPT, "point", "timestamp"], sweep_id=self.sweep_id)
        )
        found = rows.filter(pl.col("state").is_in(STATES)).unique("parameters", keep="last")
        made = [
            {
                **json.loads(row["parameters"]),
                "state": row["state"],
                **dict.fromkeys(METRICS),
                **json.loads(row["metrics"] or "{}"),
                "error": row["error"],
                "fingerprint": row["fingerprint"],
            }
            for row in found.sort("parameters").iter_rows(named=True)
        ]
        return pl.DataFrame(made, infer_schema_length=None)

    @property
    def session_deleted(self) -> str:
        """Return what became of its session, if that was deleted; else nothing."""
        from fxlab.sessions import _catalog

        return _catalog.fate(self._db, self.data_session_id)

    def _repr_html_(self) -> str:
        names = [one.name for one in fields(self) if one.name not in ("_db", "plan")]
        shown = _html.facts((_html.heading(name), getattr(self, name)) for name in names)
        gone = self.session_deleted
        return shown + _html.paragraphs([gone] if gone else [])


def find(db: QuestDB, sweep_id: str, *, deleted: bool = False) -> SavedSweep:
    """Return a kept sweep, or one that was deleted.

    Raises
    ------
    SweepNotFound
        If no sweep has this id, naming near ids.
    """
    found = listing(db, 1, deleted=deleted, sweep_id=sweep_id)
    if found.is_empty():
        known = listing(db, 1_000, deleted=deleted)["sweep_id"].to_list()
        raise SweepNotFound.named(sweep_id, sorted(known))
    row = found.row(0, named=True)
    return SavedSweep(**row | {"plan": json.loads(row["plan"] or "{}")}, _db=db)


RANKED: Final = 10
"""Points of a sweep that a night ranks."""


def night_rows(found: Sweep | None, row: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return the best points of a sweep of a night as rows of `NIGHT_RANKS`; else the sweep alone.

    `row` is the sweep's row of `fxlab.Night.table`, with what is the same for all of the night.
    """
    own = {name: row.get(name) for name in NIGHT_RANKS.columns}
    own["sessions"] = json.dumps(row["sessions"] or [])
    bare = own | {"rank": 0, "parameters": None, "deflated_sharpe": None}
    best = [] if found is None else found.ranking().head(RANKED).rows(named=True)
    if found is None or not best:
        return [bare]
    try:
        judged = found.overfitting().table.select("point", "deflated_sharpe")
        odds = dict(judged.iter_rows())
    except FxlabError:  # too few points or periods to judge
        odds = {}
    prints = found.table.select("point", "fingerprint").drop_nulls()
    return [
        bare
        | {
            "rank": rank,
            "parameters": json.dumps(found.points[one["point"]].values),
            "figure": finite(one[found.metric]),
            "deflated_sharpe": finite(odds.get(one["point"])),
            "fingerprints": json.dumps(prints.filter(point=one["point"])["fingerprint"].to_list()),
            "sweep_ids": json.dumps(found.sweep_ids),
        }
        | ({} if rank == 1 else {"change": None, "run_id": None})
        for rank, one in enumerate(best, 1)
    ]


def save_night(lab: Lab, rows: Sequence[Mapping[str, Any]]) -> None:
    """Store the rows of a night; those that it wrote before are read no more."""
    from fxlab._questdb.client import QuestDB

    db = QuestDB(lab.endpoint)
    try:
        now = datetime.now(UTC)
        made = [{**row, "updated_at": now} for row in rows]
        db.write(NIGHT_RANKS, pl.DataFrame(made, schema=NIGHT_RANKS.frame))
        db.wait_visible(NIGHT_RANKS)
    finally:
        db.close()


def nights(db: QuestDB, limit: int = 50, *, top: int | None = None, text: str = "") -> pl.DataFrame:
    """Return the best points of nightly sweeps, the newest night first; of a date's, the last run.

    A night is there as far as it came last: run again, on its date and in its folder, its rows are
    written anew. They are written after each sweep, so one that was killed later than in its first
    sweep has what it had found; the sweeps that it did not come to are waiting. The rows stay when
    the folder of a night is cleared (`keep`); ``page`` is gone then.

    Parameters
    ----------
    db, limit
        Where they are, and how many rows at most.
    top
        Only so many of the best points of each sweep; 10 are kept.
    text
        Words that must each occur, in any case, in plan, sweep, strategy, state, change, sessions,
        parameters or the night's date.

    Returns
    -------
    polars.DataFrame
        ``night`` (its date), ``night_id``, ``plan`` (name of its file), ``sweep``, ``rank`` (1 is
        the best point), ``state`` of the sweep (done, stopped, failed, waiting; gone: the night
        before had it, and this one has not), ``change`` of the best point against the night before
        (better, decayed, same, new, gone, not compared), ``strategy``,
        ``sessions`` (list), ``parameters`` (JSON text), ``metric``, its ``figure`` (the mean over
        the sessions), ``in_sample`` and ``out_of_sample`` of the sweep (as `fxlab.Night` has
        them), ``deflated_sharpe`` (probability that the point is above chance), ``pbo``
        (probability of backtest overfitting of the sweep), ``tried`` (points of all nights),
        ``run_id`` of its report, ``fingerprints`` and ``sweep_ids`` (lists: one a session),
        ``error``, ``page`` (path), ``started``, ``updated_at``. Null where there is none: a sweep
        that failed, waits or is gone has one row, without a rank.
    """
    found = db.catalogue(
        sql.night_ranks(limit=limit, top=RANKED if top is None else top, words=text)
    )
    lists = [
        pl.col(name).str.json_decode(pl.List(pl.String))
        for name in ("sessions", "fingerprints", "sweep_ids")
    ]
    rank = pl.col("rank").replace(0, None)  # a part of the row's identity, so never null there
    night = pl.col("timestamp").dt.date().alias("night")
    return found.with_columns(*lists, rank, night).select(
        "night", "night_id", "plan", "sweep", "rank", "state", "change", "strategy", "sessions",
        "parameters", "metric", "figure", "in_sample", "out_of_sample", "deflated_sharpe", "pbo",
        "tried", "run_id",
        "fingerprints", "sweep_ids", "error", "page", "started", "updated_at",
    )  # fmt: skip


def _point_row(study: SweepStudy, point: Point, outcome: TrialResult) -> dict[str, Any]:
    # The number in the grid is not the point's identity: another grid numbers it otherwise.
    number = xxhash.xxh3_64_intdigest(point.key.encode()) >> 1
    metrics = {
        name: value if math.isfinite(value) else None
        for name, value in zip(METRICS, outcome.metrics.tolist(), strict=False)
    }
    return _row(
        study,
        number,
        outcome.state,
        parameters=point.key,
        metrics=json.dumps(metrics) if metrics else None,
        returns=_packed(outcome.returns) if len(outcome.returns) else None,
        error=outcome.error or None,
        fingerprint=outcome.fingerprint or None,
    )


def _row(study: SweepStudy, point: int, state: str, **others: str | None) -> dict[str, Any]:
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


def _outcome(row: Mapping[str, Any]) -> TrialResult:
    """Return a stored point; its number is the caller's."""
    metrics = json.loads(row["metrics"] or "{}")
    values = [math.nan if metrics.get(name) is None else metrics[name] for name in METRICS]
    return TrialResult(
        number=0,
        state=row["state"],
        metrics=np.array(values if metrics else []),
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


STORE_SECONDS: Final = 1.0
"""How long finished points may wait for others to be stored with them."""


class TrialTracker:
    """Takes outcomes as they come; a point counts as done when it is stored.

    Parameters
    ----------
    studies
        One a session.
    store
        Where points are kept.
    total
        How many outcomes are coming: points times sessions.
    progress
        Told the share done and the time left; it may raise `Cancelled`.

    Attributes
    ----------
    points : dict
        Number to point.
    outcomes : list of dict
        For each study, number to outcome.
    resumed : int
        How many outcomes were found in the store.
    """

    def __init__(
        self, studies: Sequence[SweepStudy], store: TrialStore, total: int, progress: Advance
    ) -> None:
        self.points: dict[int, Point] = {}
        self.outcomes: list[dict[int, TrialResult]] = [{} for _ in studies]
        self.resumed = 0
        self.total = max(1, total)
        self._studies = studies
        self._store = store
        self._progress = progress
        self._known = [store.known(study) for study in studies]
        self._waiting: list[tuple[int, TrialResult]] = []
        self._began = self._stored_at = time.monotonic()

    def open(self, batch: Sequence[Point]) -> list[list[Point]]:
        """Note the points; return for each study those that are not in the store."""
        self.points.update((point.number, point) for point in batch)
        missing = [self._missing(number, batch) for number in range(len(self._studies))]
        self.report()
        return missing

    def _missing(self, number: int, batch: Sequence[Point]) -> list[Point]:
        known = self._known[number]
        found = {
            point.number: replace(known[point.key], number=point.number)
            for point in batch
            if known and point.key in known
        }
        self.outcomes[number] |= found
        self.resumed += len(found)
        return [point for point in batch if point.number not in found]

    def take(self, number: int, outcomes: Sequence[TrialResult]) -> None:
        """Take outcomes of a study, and store them now or with those that come next."""
        self._waiting.extend((number, outcome) for outcome in outcomes)
        if not self._store.keeps or time.monotonic() - self._stored_at >= STORE_SECONDS:
            self.flush()
        self.report()

    def flush(self) -> None:
        """Store what waits."""
        groups = defaultdict(list)
        for number, outcome in self._waiting:
            groups[number].append(outcome)
        for number, outcomes in groups.items():
            pairs = [(self.points[outcome.number], outcome) for outcome in outcomes]
            self._store.keep(self._studies[number], pairs)
            self.outcomes[number].update((outcome.number, outcome) for outcome in outcomes)
        self._waiting.clear()
        self._stored_at = time.monotonic()

    def finish(self) -> None:
        """Tell that all there was is done: a search may have found fewer points than it could."""
        self.total = max(1, self.done)
        self.report()

    @property
    def done(self) -> int:
        """Return how many outcomes there are, the stored ones of earlier sweeps included."""
        return sum(map(len, self.outcomes))

    def report(self, under_way: float = 0.0) -> None:
        """Tell how far it is; `under_way` counts the work on unfinished points, in points."""
        worked = self.done - self.resumed + len(self._waiting) + under_way
        left = max(0.0, self.total - self.resumed - worked)
        words = f"{self.done:,} of {self.total:,} points"
        if self.resumed:
            words += f", {self.resumed:,} of them from before"
        words += time_left(self._began, worked, left)
        self._progress(1.0 - left / self.total, words)
