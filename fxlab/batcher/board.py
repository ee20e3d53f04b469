"""What is known of the jobs of a batch: which are done, how they ended, the table and the page.

The folder of a job holds its own record, so a batch that was killed knows by the folders alone how
far it came.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import polars as pl

from fxlab import html
from fxlab.backtester.metric_table import METRICS
from fxlab.backtester.report import write_whole
from fxlab.batcher import batch_page
from fxlab.batcher.hand_in import FIGURES
from fxlab.batcher.workers import NOTEBOOK, Ended
from fxlab.errors import RunNotFound

if TYPE_CHECKING:
    from fxlab.batcher.jobs import Ready
    from fxlab.lab import Lab

INDEX: Final = "index.html"
RECORD: Final = "job.json"
STATES: Final = ("done", "failed", "died", "waiting")
SHOWN: Final = (
    "total_return",
    "max_drawdown",
    "sharpe_per_period",
    "trades_count",
    "fees",
)
"""Figures of the table."""

_HANDED_IN: Final = ("run_id", "fingerprint", "report", "ticks", "metrics", "sparkline")


@dataclass(frozen=True)
class Batch:
    """What became of the jobs of a batch.

    Attributes
    ----------
    table : polars.DataFrame
        One row a job, in their order: ``job``, ``state`` (done; failed: a cell raised; died: its
        kernel was lost; waiting: not run), ``from_before`` (it was there already), ``session``,
        ``run_id``, the figures of `SHOWN`, ``seconds``, ``error``, ``notebook`` and ``report``
        (paths; null where there is none).
    index : Path
        The page that shows it.
    """

    table: pl.DataFrame = field(repr=False)
    index: Path

    @property
    def failed(self) -> pl.DataFrame:
        """Return the rows of jobs that failed or died."""
        return self.table.filter(pl.col("state").is_in(["failed", "died"]))

    @property
    def counts(self) -> str:
        """Return what became of the jobs, in words."""
        return counted(self.table["state"], int(self.table["from_before"].sum()))

    def __str__(self) -> str:
        """Say it in one line."""
        return f"{self.table.height:,} jobs: {self.counts}; see {self.index}"

    def _repr_html_(self) -> str:
        shown = self.table.drop("notebook", "report", "session")
        return html.table(shown, caption=str(self), decimals={"seconds": 1})


class Board:
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

    def __init__(self, folder: Path, ready: Sequence[Ready], lab: Lab, *, again: bool) -> None:
        self._folder = folder
        self._ready = ready
        self._records = [{} if again else self._found(one, lab) for one in ready]
        self.before = sum(map(bool, self._records))

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

    def note(self, place: int, ended: Ended) -> None:
        """Keep how a job ended."""
        one = self._ready[place]
        folder = self._folder / one.folder
        record: dict[str, Any] = {
            "name": one.name,
            "key": one.key,
            "state": ended.state,
            "error": ended.error,
            "seconds": ended.seconds,
        }
        figures = folder / FIGURES
        if ended.state == "done" and figures.is_file():
            record |= json.loads(figures.read_text(encoding="utf-8"))
        write_whole(folder / RECORD, json.dumps(record))
        self._records[place] = record

    def show(self) -> Batch:
        """Write the page, and return the table."""
        path = self._folder / INDEX
        rows = [self._row(*pair) for pair in zip(self._ready, self._records, strict=True)]
        write_whole(path, batch_page.render(rows, self.words))
        return Batch(_table(rows, self._folder), path)

    def _found(self, one: Ready, lab: Lab) -> dict[str, Any]:
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

    def _row(self, one: Ready, record: dict[str, Any]) -> dict[str, Any]:
        """Return a job and its record as the table and the page show them."""
        figures = record.get("metrics") or {}
        notebook = f"{one.folder}/{NOTEBOOK}"
        has_notebook = bool(record) and (self._folder / notebook).is_file()
        return {
            "job": one.name,
            "state": record.get("state", "waiting"),
            "from_before": bool(record.get("from_before")),
            "session": one.run.source.id,
            "run_id": record.get("run_id"),
            **{name: figures.get(name) for name in SHOWN},
            "seconds": record.get("seconds"),
            "error": record.get("error") or None,
            "notebook": notebook if has_notebook else None,
            "report": record.get("report"),
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
    texts = ("job", "state", "session", "run_id", "error", "notebook", "report")
    schema: dict[str, Any] = {
        **dict.fromkeys(texts[:2], pl.String),
        "from_before": pl.Boolean,
        **dict.fromkeys(texts[2:4], pl.String),
        **{name: pl.Float64 for name in SHOWN if name in METRICS},
        "seconds": pl.Float64,
        **dict.fromkeys(texts[4:], pl.String),
    }
    table = pl.DataFrame([{name: row[name] for name in schema} for row in rows], schema=schema)
    paths = [(f"{folder}/" + pl.col(name)).alias(name) for name in ("notebook", "report")]
    return table.with_columns(paths)
