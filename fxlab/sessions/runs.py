"""Saved backtest runs: saved once, listed, found, reproduced bit by bit, never quietly replaced."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, fields
from datetime import UTC, datetime, timedelta
from importlib import metadata
from typing import TYPE_CHECKING, Any, Final, TypedDict, Unpack

import polars as pl

from fxlab import _html
from fxlab._progress import Progress
from fxlab._questdb import sql
from fxlab._questdb.client import QuestDB
from fxlab._times import from_micros
from fxlab.backtester.engine import backtest
from fxlab.backtester.execution import Execution
from fxlab.backtester.metrics._performance import METRICS
from fxlab.backtester.report._summary import show_metric
from fxlab.errors import RunConflict, RunNotFound
from fxlab.schema import FILLS, RUNS, check_session_id
from fxlab.sessions import _catalog
from fxlab.sessions.session import Session

if TYPE_CHECKING:
    from fxlab.backtester.result import Result


_JSON: Final = ("symbols", "parameters", "execution", "options", "metrics")
_SHOWN: Final = ("final_equity", "total_return", "max_drawdown", "sharpe")


def save(db: QuestDB, result: Result) -> str:
    """Store a run with its fills and return its id.

    A run with the same fingerprint and the same metrics is the same run: nothing is written, and
    the id under which it was stored first is returned. If it was deleted, it is back.

    Raises
    ------
    RunConflict
        If the fingerprint is stored with other metrics: the run was not reproduced.
    """
    metrics = _plain(result.metrics)
    same = db.catalogue(sql.runs(fingerprint=result.fingerprint, limit=1, deleted=None))
    if not same.is_empty():
        stored = same.row(0, named=True)
        found = _metric_difference(json.loads(stored["metrics"]), metrics)
        if found:
            raise RunConflict(
                f"run {stored['run_id']} has the same fingerprint, and {found}: the run was not "
                "reproduced; do not trust either until you know why (other hardware, a damaged "
                "table, a strategy that uses chance or time?)"
            )
        if stored["deleted_at"] is not None:
            _mark(db, same, None)
        return str(stored["run_id"])
    row = {
        "run_id": check_session_id(result.run_id),
        "data_session_id": result.data_session_id,
        "strategy": result.strategy,
        "symbols": json.dumps(list(result.symbols)),
        "parameters": json.dumps(_plain(result.parameters)),
        "execution": json.dumps(_plain(result.execution.as_dict())),
        "options": json.dumps(result.run.options()),
        "capital": float(result.capital),
        "rows_read": result.ticks,
        "fills_count": result.fills.height,
        "metrics": json.dumps(metrics),
        "fingerprint": result.fingerprint,
        "fxlab_version": metadata.version("fxlab"),
        "timestamp": result.created_at,
        "deleted_at": None,
    }
    # Fills first: a run that is listed has all its fills.
    if result.fills.height:
        db.write(FILLS, _fills_frame(result))
    db.write(RUNS, pl.DataFrame([row], schema=RUNS.frame))
    db.wait_visible(FILLS, RUNS)
    return result.run_id


def delete(db: QuestDB, run_id: str) -> None:
    """Hide a run by one write; nothing of it is lost, and `undelete` brings it back.

    Raises
    ------
    RunNotFound
        If no run has this id, or it is deleted already.
    """
    _mark(db, _row(db, run_id), datetime.now(UTC))


def undelete(db: QuestDB, run_id: str) -> SavedRun:
    """Bring a deleted run back, and return it.

    Raises
    ------
    RunNotFound
        If no deleted run has this id, naming near ids.
    """
    _mark(db, _row(db, run_id, deleted=True), None)
    return find(db, run_id)


def _row(db: QuestDB, run_id: str, *, deleted: bool | None = False) -> pl.DataFrame:
    """Return a run's row as it is stored, or say which ids are near."""
    found = db.catalogue(sql.runs(run_id=run_id, limit=1, deleted=deleted))
    if found.is_empty():
        known = db.catalogue(sql.runs(limit=1_000, deleted=deleted))["run_id"].to_list()
        raise RunNotFound.named(run_id, known)
    return found


def _mark(db: QuestDB, row: pl.DataFrame, deleted_at: datetime | None) -> None:
    marked = row.with_columns(pl.lit(deleted_at, RUNS.frame["deleted_at"]).alias("deleted_at"))
    db.write(RUNS, marked.select(*RUNS.columns))
    db.wait_visible(RUNS)


class RunQuery(TypedDict, total=False):
    """What `fxlab.Lab.runs` and `fxlab.Lab.sweeps` take beside `limit`; `listing` tells of it."""

    text: str
    deleted: bool
    sort: str
    descending: bool
    after: str | None


def listing(db: QuestDB, limit: int = 50, **query: Unpack[RunQuery]) -> pl.DataFrame:
    """Return runs, the newest unless sorted otherwise.

    Parameters
    ----------
    db, limit
        Where they are, and how many at most.
    text
        Words that must each occur, in any case, in id, session, strategy, symbols, parameters or
        the time when it ran.
    deleted
        Whether those that were deleted are listed, instead of the others.
    sort, descending
        By what: ``timestamp``, ``run_id``, ``strategy``, ``data_session_id``, ``fills_count`` or
        one of the main metrics, to six decimals; the largest first unless told otherwise. Runs
        without a value stand last, equal ones by their id.
    after
        Id of the run before the first one: so the next page begins.

    Returns
    -------
    polars.DataFrame
        ``run_id``, ``data_session_id``, ``strategy``, ``symbols`` (list), the main metrics as
        columns, ``capital``, ``rows_read``, ``fills_count``, ``timestamp`` (when it ran),
        ``fxlab_version``, ``fingerprint``, and as JSON text ``parameters``, ``execution``,
        ``options`` and all ``metrics``.
    """
    after = query.get("after")
    asked = sql.runs(
        limit=limit,
        words=query.get("text", ""),
        deleted=query.get("deleted", False),
        sort=query.get("sort", "timestamp"),
        descending=query.get("descending", True),
        after=after,
    )
    found = db.catalogue(asked)
    if after is not None and found.is_empty():
        _row(db, after, deleted=None)  # or it is said that there is none
    figures = [
        pl.col("metrics").str.json_path_match(f"$.{name}").cast(pl.Float64).alias(name)
        for name in _SHOWN
    ]
    return found.select(
        "run_id",
        "data_session_id",
        "strategy",
        pl.col("symbols").str.json_decode(pl.List(pl.String)),
        *figures,
        "capital",
        "rows_read",
        "fills_count",
        "timestamp",
        "fxlab_version",
        "fingerprint",
        "parameters",
        "execution",
        "options",
        "metrics",
    )


@dataclass(frozen=True, slots=True, eq=False, repr=False)
class SavedRun(Mapping[str, Any]):
    """A saved backtest; made by `fxlab.Lab.run`.

    It is a mapping of its row's columns, too (``run["strategy"]``), as versions before 0.4 gave it.

    Attributes
    ----------
    run_id, data_session_id, strategy : str
        Its id, the session that it ran on, and the strategy's name.
    symbols : list of str
        Of the session, those that it traded.
    parameters, execution, options : dict
        What made it: the strategy's parameters, the fields of `fxlab.Execution`, and the range of
        time (``start_us``, ``end_us``: microseconds) with the basis of the metrics.
    capital : float
        Money at the start.
    rows_read, fills_count : int
        Ticks that it read, and fills that `fills` returns.
    metrics : dict
        Every metric by name; None for one that has no value.
    fingerprint, fxlab_version : str
        Of the ingredients, and the version that ran it.
    timestamp : datetime
        When it ran (UTC).

    Examples
    --------
    >>> run = lab.run(fxlab.backtest(session, "sma_cross", {"fast": 5, "slow": 20}).save(lab))
    >>> run.strategy, run.parameters["fast"], run.fills().height == run.fills_count
    ('sma_cross', 5, True)
    """

    run_id: str
    data_session_id: str
    strategy: str
    symbols: list[str]
    parameters: dict[str, Any]
    execution: dict[str, Any]
    options: dict[str, Any]
    capital: float
    rows_read: int
    fills_count: int
    metrics: dict[str, float | None]
    fingerprint: str
    fxlab_version: str
    timestamp: datetime
    _db: QuestDB = field(repr=False)

    def fills(self) -> pl.DataFrame:
        """Return the fills in their order, one row each, with the columns of `Result.fills`."""
        return _stored_fills(self._db, self.run_id)

    @property
    def session_deleted(self) -> str:
        """Return what became of its session, if that was deleted; else nothing."""
        return _catalog.fate(self._db, self.data_session_id)

    def reproduce(self, progress: Progress = None) -> Reproduction:
        """Run it again on its session and compare every bit.

        Raises
        ------
        SessionNotFound, StrategyNotFound
            If its session or its strategy is not there.
        """
        return reproduce(self._db, self.run_id, progress)

    def __getitem__(self, name: str) -> Any:  # noqa: ANN401 - as the column holds
        if name not in _COLUMNS:
            raise KeyError(name)
        return getattr(self, name)

    def __iter__(self) -> Iterator[str]:
        return iter(_COLUMNS)

    def __len__(self) -> int:
        return len(_COLUMNS)

    def __repr__(self) -> str:
        """Show id, strategy, session and the main metrics in one line."""
        figures = ", ".join(f"{name} {_html.show(self.metrics.get(name))}" for name in _SHOWN)
        values = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
        return (
            f"<SavedRun {self.run_id}: {self.strategy}({values}) on {self.data_session_id}, "
            f"{self.fills_count:,} fills, {figures}>"
        )

    def _repr_html_(self) -> str:
        named = [(_html.heading(name), self[name]) for name in _COLUMNS if name != "metrics"]
        figures = [
            (_html.heading(name), show_metric(value, METRICS.get(name, ("",))[0]))
            for name, value in self.metrics.items()
        ]
        gone = self.session_deleted
        return _html.facts(named) + _html.facts(figures) + _html.paragraphs([gone] if gone else [])


_COLUMNS: Final = tuple(one.name for one in fields(SavedRun) if one.name != "_db")


def find(db: QuestDB, run_id: str) -> SavedRun:
    """Return a saved run.

    Raises
    ------
    RunNotFound
        If no run has this id, naming near ids.
    """
    row = _row(db, run_id).row(0, named=True)
    row |= {name: json.loads(row[name]) for name in _JSON}
    return SavedRun(**{name: row[name] for name in _COLUMNS}, _db=db)


def difference(db: QuestDB, stored: Mapping[str, Any], result: Result) -> str:
    """Return how a result differs from a stored run, bit by bit; nothing if it does not.

    `stored` is the run's row as `find` returns it.
    """
    found = _metric_difference(stored["metrics"], _plain(result.metrics))
    if found:
        return found
    before, now = _stored_fills(db, stored["run_id"]), _fills_frame(result)
    told = [column.name for column in before if column.null_count() < before.height]
    before = before.select(told)  # an older version stored fewer columns
    if now.height != before.height or not now.select(told).equals(before):
        return f"the {now.height:,} fills are not the {before.height:,} that were stored"
    return ""


def _stored_fills(db: QuestDB, run_id: str) -> pl.DataFrame:
    return db.catalogue(sql.fills(run_id)).select(
        "timestamp", *(name for name in FILLS.columns if name not in ("run_id", "timestamp"))
    )


def _fills_frame(result: Result) -> pl.DataFrame:
    ordered = result.fills.sort("timestamp", maintain_order=True)
    return ordered.with_columns(
        pl.lit(result.run_id).alias("run_id"),
        pl.int_range(pl.len(), dtype=pl.Int64).alias("seq"),
        pl.col("timestamp", "decided_at").dt.cast_time_unit("us"),
    ).select(*FILLS.columns)


def _plain(values: Mapping[str, Any]) -> dict[str, Any]:
    """Return what JSON can hold: numbers that are none (nan) become null."""
    return {name: _value(value) for name, value in values.items()}


def _value(value: object) -> object:
    if isinstance(value, Mapping):
        return _plain(value)
    if isinstance(value, list | tuple):
        return [_value(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def _metric_difference(stored: Mapping[str, object], found: Mapping[str, object]) -> str:
    """Return the first metric that differs, with both values; nothing if none does.

    Those that the version of the saved run did not know are no difference.
    """
    for name in sorted(stored):
        if stored.get(name) != found.get(name):
            return f"{name} is {found.get(name)}, and was {stored.get(name)}"
    return ""


@dataclass(frozen=True, slots=True)
class Reproduction:
    """A saved run beside the same run of today.

    Attributes
    ----------
    difference
        How today's metrics or fills differ from the stored ones; empty if every bit is the same.
    same_fingerprint
        Whether ticks, strategy source, parameters and package versions are those of the run.

    Examples
    --------
    >>> run_id = fxlab.backtest(session, "sma_cross", {"fast": 5, "slow": 20}).save(lab)
    >>> lab.reproduce(run_id).difference
    ''
    """

    run_id: str
    result: Result
    difference: str
    same_fingerprint: bool

    def __str__(self) -> str:
        """Say it in one sentence."""
        made = "from the same ingredients" if self.same_fingerprint else "from other ingredients: "
        if not self.same_fingerprint:
            made += "ticks, strategy source, Python or package versions have changed"
        found = self.difference or "every metric and every fill is the same, bit by bit"
        return f"run {self.run_id} again, {made}; {found}"


def reproduce(db: QuestDB, run_id: str, progress: Progress = None) -> Reproduction:
    """Run a saved backtest again on its session.

    Raises
    ------
    RunNotFound, SessionNotFound, StrategyNotFound
        If the run, its session or its strategy is not there.
    """
    stored = find(db, run_id)
    session = Session.from_row(db, _catalog.find(db, stored["data_session_id"]))
    options = stored["options"]
    result = backtest(
        session,
        stored["strategy"],
        stored["parameters"],
        symbols=stored["symbols"],
        start=_moment(options["start_us"]),
        end=_moment(options["end_us"]),
        execution=Execution.from_dict(stored["execution"]),
        capital=stored["capital"],
        return_interval=timedelta(microseconds=options["grid_us"]),
        days_per_year=options["days_per_year"],
        progress=progress,
    )
    return Reproduction(
        run_id=run_id,
        result=result,
        difference=difference(db, stored, result),
        same_fingerprint=result.fingerprint == stored["fingerprint"],
    )


def _moment(micros: int | None) -> Any:  # noqa: ANN401 - a datetime or None
    return None if micros is None else from_micros(micros)
