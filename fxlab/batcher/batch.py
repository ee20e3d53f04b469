"""Batch of notebooks: check all jobs, run a notebook for each, keep what is done, resume.

The folder of a job holds its own record of how it ended, so a batch that was killed knows by the
folders alone how far it came; its table and its page are made from them.
"""

from __future__ import annotations

import json
import platform
import subprocess
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import asdict, dataclass, field, replace
from datetime import UTC, date, datetime, timedelta
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl
from filelock import FileLock, Timeout

from fxlab import _html
from fxlab._html import NOTHING, slug
from fxlab._progress import Advance, Progress, shown
from fxlab._times import Duration, Time
from fxlab.backtester.engine import prepare
from fxlab.backtester.execution import Execution
from fxlab.backtester.metrics._performance import METRICS
from fxlab.backtester.report._summary import show_metric, show_seconds
from fxlab.backtester.result import Run, fingerprint_inputs, fingerprint_of, versions
from fxlab.backtester.strategy.strategy import Value
from fxlab.batcher._jobs import BatchJob, each_checked, load_jobs
from fxlab.batcher.runner import (
    NOTEBOOK,
    OUTPUTS,
    NotebookOutcome,
    NotebookTask,
    check_parameters,
    environment_for,
    find,
    run_all,
    time_limit,
)
from fxlab.config import path_of, write_whole
from fxlab.errors import Cancelled, InvalidInput, InvalidParameter, RunNotFound
from fxlab.sweeper._results import INDEX
from fxlab.sweeper._study import duration_words, time_left
from fxlab.sweeper._threads import check_workers

if TYPE_CHECKING:
    from fxlab.lab import Lab
    from fxlab.sessions.session import Session


RECORD: Final = "job.json"
STATES: Final = ("done", "failed", "died", "timeout", "waiting")
SHOWN: Final = (
    "total_return",
    "max_drawdown",
    "sharpe_per_period",
    "trades_count",
    "fees",
)
"""Metrics of the table."""

GIT_TIMEOUT: Final = 10  # seconds
_IDENTITY: Final = ("id", "created_at", "updated_at", "prices_count", "orderbook_count")
_KEY_SHOWN: Final = 10


@dataclass(frozen=True)
class ResolvedJob:
    """A job that can run.

    Attributes
    ----------
    name
        Its own, or strategy and parameters.
    key
        Hash of all that decides its outcome; the ticks of a completed session by its row in the
        catalogue, which changes when they do.
    is_final
        Whether the session is completed: only then the same key means the same run.
    folder
        Name of the folder for what it leaves.
    run
        The checked inputs.
    job
        As it was given.
    data
        The session's row in the catalogue, as far as it tells one state of its ticks from another.
    """

    name: str
    key: str
    is_final: bool
    folder: str
    run: Run
    job: BatchJob
    data: Mapping[str, str]

    def notebook_parameters(self, *, check_lookahead: bool, out: str) -> dict[str, Any]:
        """Return what the notebook is given: plain values that papermill can write down."""
        run, job = self.run, self.job
        usual = Execution().as_dict()
        terms = {n: v for n, v in run.execution.as_dict().items() if v != usual[n]}
        return {
            "session_id": run.source.id,
            "strategy": job.strategy,
            "parameters": dict(run.parameters),
            "symbols": list(run.symbols),
            "start": _time_text(job.start),
            "end": _time_text(job.end),
            "execution": terms,
            "capital": run.capital,
            "return_interval": (
                job.return_interval if isinstance(job.return_interval, str) else f"{run.grid_us}us"
            ),
            "days_per_year": run.days_per_year,
            "check_lookahead": check_lookahead,
            "out": out,
        }


def checked(
    given: Sequence[BatchJob | Mapping[str, Any]],
    lab: Lab,
    parameters: Mapping[str, Value] | None = None,
) -> list[ResolvedJob]:
    """Return the jobs, ready to run, each with these parameters instead of its own ones.

    Raises
    ------
    InvalidInput
        With what is wrong, job by job, if one is not possible or is there twice.
    """
    sessions: dict[str, Session] = {}
    if not isinstance(parameters, Mapping | None):
        raise InvalidParameter(
            f"parameters={parameters!r:.80} are not named; give a dict, such as {{'fast': 50}}"
        )

    def ready(one: BatchJob | Mapping[str, Any], others: Sequence[ResolvedJob]) -> ResolvedJob:
        job = BatchJob.of(one)
        if parameters and isinstance(job.parameters, Mapping):  # else it is refused below
            job = replace(job, parameters={**job.parameters, **parameters})
        made = resolved(job, lab, sessions)
        for number, other in enumerate(others, 1):
            if other.key == made.key:
                raise InvalidParameter(
                    f"it is the same as job {number}, {other.name}; leave one out"
                )
        return made

    return each_checked(given, "job", ready)


def resolved(job: BatchJob, lab: Lab, sessions: dict[str, Session]) -> ResolvedJob:
    """Return a job, ready to run; `sessions` holds those that were looked up."""
    if job.session not in sessions:
        sessions[job.session] = lab.session(job.session)
    session = sessions[job.session]
    run = prepare(session, job.strategy, job.parameters, job).run
    data = {name: str(getattr(session, name)) for name in _IDENTITY}
    asked = {"symbols": ",".join(run.symbols)} | {k: str(v) for k, v in run.options().items()}
    key = fingerprint_of(fingerprint_inputs(run, data | asked), run.parameters)
    values = ", ".join(f"{name}={value}" for name, value in run.parameters.items())
    name = job.name or f"{run.strategy.name}({values})"
    return ResolvedJob(
        name=name,
        key=key,
        is_final=session.status == "completed",
        folder=f"{slug(job.name or job.strategy, 'job')}-{key[:_KEY_SHOWN]}",
        run=run,
        job=job,
        data=data,
    )


def _time_text(value: Time | None) -> str:
    if value is None:
        return ""
    return value.isoformat() if isinstance(value, date) else value


@dataclass(frozen=True)
class Batch:
    """What became of the jobs of a batch.

    Attributes
    ----------
    table : polars.DataFrame
        One row a job, in their order: ``job``, ``state`` (done; failed: a cell raised; died: its
        kernel was lost; timeout: it was ended; waiting: not run), ``from_before`` (it was there
        already), ``session``, ``run_id``, the metrics of `SHOWN`, ``seconds``, ``error``,
        ``notebook`` and ``report`` (paths; null where there is none), ``folder`` (for what it
        leaves; ``job.json`` in it is the record of how it ended).
    index : Path
        The page that shows it.

    Examples
    --------
    >>> table = pl.DataFrame(
    ...     {"job": ["a", "b"], "state": ["done", "failed"], "from_before": [True, False]}
    ... )
    >>> done = fxlab.Batch(table, Path("index.html"))
    >>> done.failed["job"].to_list()
    ['b']
    """

    table: pl.DataFrame = field(repr=False)
    index: Path

    @property
    def failed(self) -> pl.DataFrame:
        """Return the rows of jobs that failed, died or took too long."""
        return self.table.filter(pl.col("state").is_in(["failed", "died", "timeout"]))

    @property
    def counts(self) -> str:
        """Return what became of the jobs, in words."""
        return counted(self.table["state"], int(self.table["from_before"].sum()))

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.table.height:,} jobs: {self.counts}; see {self.index}"

    def _repr_html_(self) -> str:
        shown = self.table.drop("notebook", "report", "session", "folder")
        return _html.table(shown, caption=str(self), decimals={"seconds": 1})


class BatchState:
    """The jobs, and a record of each that has ended.

    Parameters
    ----------
    folder
        Where each job has a folder.
    ready
        The jobs.
    lab
        Where runs are saved.
    again
        Forget what is done.
    """

    def __init__(
        self, folder: Path, ready: Sequence[ResolvedJob], lab: Lab, *, again: bool
    ) -> None:
        self._folder = folder
        self._ready = ready
        self._records = [{} if again else self._found(one, lab) for one in ready]
        self.before = sum(map(bool, self._records))

    @cached_property
    def _commit(self) -> str | None:
        """Return the commit of the working directory, where a user's strategies are."""
        words = ["git", "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
        try:
            found = subprocess.run(  # noqa: S603 - git of the PATH
                words, capture_output=True, encoding="utf-8", errors="replace", check=False,
                timeout=GIT_TIMEOUT,
            )  # fmt: skip
        except (OSError, subprocess.TimeoutExpired):  # no git, or none that answers: no commit
            return None
        return found.stdout.strip() or None

    @property
    def missing(self) -> list[int]:
        """Return the places of the jobs that have not ended."""
        return [place for place, record in enumerate(self._records) if not record]

    @property
    def words(self) -> str:
        """Return how many of the jobs have ended, and how."""
        done = len(self._records) - len(self.missing)
        states = [record["state"] for record in self._records if record]
        return f"{done:,} of {len(self._records):,} jobs: {counted(states, self.before)}"

    def note(self, place: int, ended: NotebookOutcome) -> None:
        """Keep how a job ended."""
        one = self._ready[place]
        folder = self._folder / one.folder
        now = datetime.now(UTC)
        record: dict[str, Any] = {
            "name": one.name,
            "key": one.key,
            **asdict(ended),
            "started": (now - timedelta(seconds=ended.seconds)).isoformat(),
            "ended": now.isoformat(),
            "session": one.run.source.id,
            "data": {
                "fingerprint": fingerprint_of(one.data, {}),
                "is_final": one.is_final,  # else rows may have come since
                **one.data,
            },
            "strategy": one.job.strategy,
            "parameters": dict(one.run.parameters),
            "commit": self._commit,
            "versions": {**versions(), "python": platform.python_version()},
        }
        outputs = folder / OUTPUTS
        if ended.state == "done" and outputs.is_file():
            record |= json.loads(outputs.read_text(encoding="utf-8"))
        write_whole(folder / RECORD, json.dumps(record))
        self._records[place] = record

    def show(self) -> Batch:
        """Write the page, and return the table."""
        rows = self._rows()
        write_whole(self._folder / INDEX, render_batch(rows, self.words))
        return self._batch(rows)

    def preview(self) -> Batch:
        """Return the table of what is done and what would be run, and write nothing."""
        return self._batch(self._rows())

    def _batch(self, rows: Sequence[dict[str, Any]]) -> Batch:
        return Batch(_table(rows, self._folder), self._folder / INDEX)

    def _rows(self) -> list[dict[str, Any]]:
        return [self._row(*pair) for pair in zip(self._ready, self._records, strict=True)]

    def _found(self, one: ResolvedJob, lab: Lab) -> dict[str, Any]:
        """Return the record of a job that is done and still what was asked for, or nothing."""
        folder = self._folder / one.folder
        try:
            record = json.loads((folder / RECORD).read_text(encoding="utf-8"))
            whole = record["state"] == "done" and record["key"] == one.key and one.is_final
            files = (folder / NOTEBOOK, self._folder / record["report"])
            if not (whole and all(file.is_file() for file in files)):
                return {}
            saved = lab.run(record["run_id"])
        except (OSError, ValueError, KeyError, RunNotFound):
            return {}
        same = saved["fingerprint"] == record["fingerprint"]
        return record | {"from_before": True} if same else {}

    def _row(self, one: ResolvedJob, record: dict[str, Any]) -> dict[str, Any]:
        """Return a job and its record as the table and the page show them."""
        metrics = record.get("metrics") or {}
        notebook = f"{one.folder}/{NOTEBOOK}"
        has_notebook = bool(record) and (self._folder / notebook).is_file()
        return {
            "job": one.name,
            "state": record.get("state", "waiting"),
            "from_before": bool(record.get("from_before")),
            "session": one.run.source.id,
            "run_id": record.get("run_id"),
            **{name: metrics.get(name) for name in SHOWN},
            "seconds": record.get("seconds"),
            "error": record.get("error") or None,
            "notebook": notebook if has_notebook else None,
            "report": record.get("report"),
            "folder": one.folder,
            "sparkline": record.get("sparkline", ""),
            "terms": f"{', '.join(one.run.symbols)}; {one.run.execution}",
        }


def counted(states: Iterable[str], before: int) -> str:
    """Return how many ended in which state, in words."""
    counts = Counter(states)
    parts = [f"{counts[state]:,} {state}" for state in STATES if counts[state]]
    if before:
        parts.append(f"{before:,} of them from before")
    return ", ".join(parts) or "none yet"


def _table(rows: Sequence[dict[str, Any]], folder: Path) -> pl.DataFrame:
    texts = ("job", "state", "session", "run_id", "error", "notebook", "report", "folder")
    schema: dict[str, Any] = {
        **dict.fromkeys(texts[:2], pl.String),
        "from_before": pl.Boolean,
        **dict.fromkeys(texts[2:4], pl.String),
        **{name: pl.Float64 for name in SHOWN if name in METRICS},
        "seconds": pl.Float64,
        **dict.fromkeys(texts[4:], pl.String),
    }
    table = pl.DataFrame([{name: row[name] for name in schema} for row in rows], schema=schema)
    paths = [(f"{folder}/" + pl.col(name)).alias(name) for name in texts[5:]]
    return table.with_columns(paths)


def batch(
    jobs: str | Path | Sequence[BatchJob | Mapping[str, Any]],
    *,
    out: str | Path,
    notebook: str | Path = "backtest",
    workers: int | None = 1,
    lab: Lab | None = None,
    parameters: Mapping[str, Value] | None = None,
    check_lookahead: bool = True,
    again: bool = False,
    timeout: Duration | None = None,
    dry_run: bool = False,
    progress: Progress = None,
) -> Batch:
    """Run a notebook for each of many backtests, and write an index of what they gave.

    Each job leaves an executed notebook, a report that opens offline, and a saved run, the same
    bit by bit as that of `fxlab.backtest`. One that fails leaves its notebook with the error, and
    the others go on.

    Parameters
    ----------
    jobs
        Mappings with the fields of `fxlab.batcher._jobs.BatchJob`, or a TOML file with a table
        ``[defaults]`` and a table ``[[job]]`` for each.
    out
        The folder for all of it, made if it is not there; its ``index.html`` is rewritten after
        each job.
    notebook
        The path of a notebook with the parameters of the shipped one, ``"backtest"``.
    workers
        How many run at the same time, each in a kernel of its own; None is one a core.
    lab
        Where the sessions are and runs are saved; connected to unless given.
    parameters
        Of every job's strategy, instead of what the job says of them.
    check_lookahead
        First make sure, on a sample, that the strategy does not see the future.
    again
        Run also what is done. Otherwise a job is left alone whose notebook, report and saved run
        are there, made of the same data, strategy, parameters, assumptions and versions.
    timeout
        The longest time for one notebook, such as "30m"; one that takes longer is ended, and the
        others go on.
    dry_run
        Only check the jobs, and tell which are done, which would be run, and in which folders;
        nothing is run or written.
    progress
        As `fxlab.backtest` takes it; it hears of the jobs done and the time left.

    Raises
    ------
    InvalidInput
        Before anything runs: every job that is not possible, and why.
    Cancelled
        If it was interrupted; what is done is kept, and the same call goes on from there.
    """
    count, path, folder = check_workers(workers), find(notebook), path_of(out).resolve()
    found, limit = load_jobs(jobs, "job"), time_limit(timeout)
    with connected(lab) as store:
        ready = checked(found, store, parameters)
        given = [
            one.notebook_parameters(check_lookahead=check_lookahead, out=str(folder / one.folder))
            for one in ready
        ]
        check_parameters(path, given[0])
        if dry_run:
            return BatchState(folder, ready, store, again=again).preview()
        tasks = [
            NotebookTask(path, values, folder / one.folder)
            for values, one in zip(given, ready, strict=True)
        ]
        with only_one(folder), shown(progress, "batch") as advance:
            state = BatchState(folder, ready, store, again=again)
            environment = environment_for(store.settings.environment())
            _run(state, tasks, count, environment, advance, limit=limit)
            return state.show()


def connected(lab: Lab | None) -> AbstractContextManager[Lab]:
    """Lend the lab that is given, or one of our own."""
    if lab is not None:
        return nullcontext(lab)
    from fxlab.lab import connect

    return connect()


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """Make a folder, and let one process at a time write into it.

    Raises
    ------
    InvalidInput
        If another one does.
    """
    folder.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(folder / ".lock", timeout=0):
            yield
    except Timeout:
        raise InvalidInput(
            f"another run writes into {folder} at this moment; wait for it, or give another folder"
        ) from None


def _run(
    state: BatchState,
    tasks: Sequence[NotebookTask],
    workers: int,
    environment: Mapping[str, str],
    progress: Advance,
    *,
    limit: float | None,
) -> None:
    """Run the notebooks that are missing; whatever stops it, the page tells how far it came."""
    places, began = state.missing, time.monotonic()
    left = len(places)

    def tick(running: int) -> None:
        spent = f", {duration_words(time.monotonic() - began)} so far"
        when = time_left(began, len(places) - left, left) or spent
        progress(1.0 - left / len(tasks), f"{state.words}, {running} running{when}")

    try:
        missing = [tasks[at] for at in places]
        for number, ended in run_all(missing, workers, environment, tick, limit):
            state.note(places[number], ended)
            left -= 1
            state.show()
        progress(1.0, state.words)
    except (KeyboardInterrupt, Cancelled) as stop:
        page = state.show().index
        raise Cancelled(
            f"the batch was stopped after {state.words}; what is done is in {page}, and the same "
            "call goes on from there"
        ) from stop


def render_batch(rows: Sequence[Mapping[str, Any]], words: str) -> str:
    """Return the page of a batch.

    Parameters
    ----------
    rows
        Of each job: ``job``, ``state``, ``run_id``, those of `METRICS`, ``seconds``, ``error``,
        ``terms``, ``sparkline`` (SVG), ``notebook`` and ``report`` (links, seen from the page).
    words
        How far the batch is.
    """
    metrics = [name for name in rows[0] if name in METRICS]
    shown = [
        {
            **row,
            "state": f"{row['state']} (before)" if row["from_before"] else row["state"],
            "numbers": [
                *(show_metric(row[name], METRICS[name][0]) for name in metrics),
                NOTHING if row["seconds"] is None else show_seconds(row["seconds"]),
            ],
        }
        for row in rows
    ]
    now = datetime.now(UTC).replace(microsecond=0)
    return _html.page(
        "batch",
        title="Batch",
        words=words,
        now=now,
        rows=shown,
        metrics=metrics,
        plotly="",
    )
