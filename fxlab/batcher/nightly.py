"""Nightly sweeps: the same sweeps every night, over new sessions and points only, and compared.

What was tried is not tried twice, and a sweep that fails costs its own row. The table has one row
a sweep, with what its best point is worth. What was tried in earlier nights counts there: a best
point that is looked for every night is found sooner or later, and the deflated Sharpe ratio knows
how often.

Each night leaves a record of its figures beside its page. The comparison with the night before is
made of these records alone, so it needs no server, and it says so where the night before died, or
was asked for something else.
"""

from __future__ import annotations

import hashlib
import io
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, time
from functools import cache, partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NoReturn

import polars as pl

from fxlab import _html
from fxlab._progress import Advance, Progress, part, shown
from fxlab._times import Duration
from fxlab.backtester.metrics._performance import METRICS
from fxlab.backtester.report._summary import history_picture, show_metric, show_seconds
from fxlab.backtester.report._tearsheet import Section, embed, plotly_source
from fxlab.batcher._jobs import (
    SCHEMA,
    BatchJob,
    NightlySweep,
    checked_sweeps,
    load_jobs,
    read_plan,
)
from fxlab.batcher.batch import Batch, batch, connected, only_one, resolved
from fxlab.batcher.runner import night_options, split_command, tell
from fxlab.config import path_of, write_whole
from fxlab.errors import Cancelled, FxlabError, SweepCancelled
from fxlab.sweeper._cross_validation import verdict
from fxlab.sweeper._results import (
    CHANGES,
    COMPARISON,
    FIGURES,
    INDEX,
    PAGE_ERROR,
    RECORD,
    REPORTS,
    REPORTS_ERROR,
    ROWS_ERROR,
    Night,
    NightRecord,
    clear_nights,
    compare_nights,
    figure_history,
    finite,
    frames_of,
    night_figures,
    read_nights,
)
from fxlab.sweeper._store import RANKED, night_rows, save_night
from fxlab.sweeper._threads import check_workers
from fxlab.sweeper.walk_forward import walk_table

if TYPE_CHECKING:
    from markupsafe import Markup

    from fxlab.lab import Lab
    from fxlab.sessions.session import Session
    from fxlab.sweeper.sweep import Sweep
    from fxlab.sweeper.walk_forward import WalkForward


def nightly(
    sweeps: str | Path | Sequence[Mapping[str, Any]],
    *,
    out: str | Path,
    lab: Lab | None = None,
    workers: int | None = None,
    night: date | None = None,
    top: int | None = None,
    keep: int | Literal["all"] | None = None,
    timeout: Duration | None = None,
    on_failure: str | None = None,
    dry_run: bool = False,
    progress: Progress = None,
) -> Night:
    """Run sweeps one after the other, keep every point, and write a page of what they gave.

    Run it twice in one night, or again after it was killed: no point is replayed twice.

    Parameters
    ----------
    sweeps
        Mappings with the fields of `fxlab.batcher._jobs.NightlySweep`, or a TOML file
        with a table ``[defaults]`` and a table ``[[sweep]]`` for each; its table ``[night]`` may
        hold ``top``, ``keep``, ``timeout`` and ``on_failure``, used unless given here; top=0,
        keep="all", timeout="none" and on_failure="" switch off what it says.
    out
        The folder of all nights; each has a folder in it, named by its date, with ``index.html``,
        the whole table of every sweep as Parquet, and ``night.json``, the record with which later
        nights are compared. ``index.html`` above leads to all nights.
    lab
        Where the sessions are and points are kept; connected to unless given.
    workers
        Threads; as many as there are cores unless given.
    night
        The date; that of now, in UTC, unless given.
    top
        So many of the best points, of different sweeps by their deflated Sharpe ratio, are
        backtested in a notebook and get a report, as `fxlab.batch` does it, each on the first of
        its sweep's sessions.
    keep
        So many of the newest nights stay whole, this one among them. Once it has ended without a
        failure, older ones lose their page, tables and reports; their records and what anybody
        else put beside them stay, so later nights are compared and charted as before, and so do
        their rows in the database (`fxlab.Lab.nights`). All stay unless given.
    timeout
        The longest time for the notebook of one report, such as "30m", as `fxlab.batch` takes it.
    on_failure
        A command that is run, without a shell, after a night with failures and after one that did
        not end; it reads what failed. It may take a minute, and fails nothing but itself.
    dry_run
        Only check the plan, and tell on which sessions, how many points and which splits would be
        tried; nothing is run or written.
    progress
        As `fxlab.backtest` takes it; it hears of the sweep and the time left.

    Raises
    ------
    InvalidInput
        Before anything runs: every sweep that is not possible, and why.
    Cancelled
        If it was interrupted; every point that was done is kept.

    Examples
    --------
    >>> plan = {"sessions": [session.id], "strategy": "sma_cross", "parameters": {"fast": [3, 5]}}
    >>> night = fxlab.nightly([plan], out=folder, lab=lab)
    >>> night.table.select("sweep", "state", "points").row(0)
    ('sma_cross', 'done', 2)
    """
    threads, day = check_workers(workers), night or datetime.now(UTC).date()
    hook = split_command(on_failure)
    try:
        held = read_plan(sweeps, "sweep")
        options = night_options(held, top=top, keep=keep, timeout=timeout, on_failure=on_failure)
        hook = [] if dry_run else split_command(options["on_failure"])
        plan = checked_sweeps(load_jobs(held, "sweep"))
        root = path_of(out).resolve()
        if dry_run:
            with connected(lab) as store:
                rows = [one.preview(store, day) for one in plan]
            return Night(pl.DataFrame(rows, schema=SCHEMA), {}, root / day.isoformat() / INDEX)
        with connected(lab) as store, only_one(root), shown(progress, "nightly") as advance:
            log = _Log(root, day, plan, store, "" if held is sweeps else Path(str(sweeps)).name)
            made = _run(log, plan, threads, options, advance)
    except BaseException as error:  # whoever sleeps has to hear of it, whatever ended the night
        lost = tell(hook, f"the night did not end: {type(error).__name__}: {error}")
        if lost:
            error.add_note(lost)
        raise
    failures = [str(made), *made.failures] if made.failures else []
    lost = tell(hook if failures else [], "\n".join(failures))
    return replace(made, other_errors=(*made.other_errors, lost)) if lost else made


def _run(
    log: _Log,
    plan: Sequence[NightlySweep],
    workers: int,
    options: Mapping[str, Any],
    progress: Advance,
) -> Night:
    """Run all sweeps of a night and what follows them; what ends it early is in its record."""
    wanted, newest = options["top"] or 0, options["keep"]
    steps = len(plan) + bool(wanted)
    try:
        log.show()  # a night that is killed in its first sweep has rows that wait, and a record
        for number, one in enumerate(plan):
            share = part(progress, number / steps, (number + 1) / steps)
            log.add(one, workers, _named(share, one.name))
        if wanted:
            share = part(progress, len(plan) / steps, 1.0)
            log.report(wanted, options["timeout"], _named(share, "reports"))
        progress(1.0, f"{len(plan):,} sweeps")
        made = log.show("done")
    except Exception as error:
        if not isinstance(error, Cancelled):
            log.fail(error)
        raise
    return made if newest is None else replace(made, retention=log.clear_older(made, newest))


class _Log:
    """The sweeps of a night so far, its page, and its rows in the database."""

    def __init__(
        self, root: Path, day: date, plan: Sequence[NightlySweep], lab: Lab, name: str
    ) -> None:
        self._root, self._day, self._plan, self._lab, self._name = root, day, plan, lab, name
        self._began = datetime.now(UTC)
        self._folder = root / day.isoformat()
        self._folder.mkdir(exist_ok=True)
        self._earlier = read_nights(root, but=day)  # nobody writes them while this night runs
        self._rows: list[dict[str, Any]] = []
        self._sweeps: dict[str, Sweep] = {}
        self._walks: dict[str, dict[str, WalkForward]] = {}
        self._reports: Batch | None = None
        self._report_errors: list[str] = []
        self._report_words = ""
        self._errors: list[str] = []

    def add(self, one: NightlySweep, workers: int, progress: Advance) -> None:
        """Run a sweep and note how it ended; only an interruption goes on to the caller."""
        began = datetime.now(UTC)
        share = part(progress, 0.0, 0.5 if one.splits else 1.0)
        try:
            found = one.run(self._lab, self._day, workers, share)
        except (KeyboardInterrupt, Cancelled) as stop:
            if isinstance(stop, SweepCancelled):
                self._keep(one, stop.sweep, began)  # type: ignore[arg-type]  # errors know no sweep
            self._stop(one, stop)
        except Exception as error:  # noqa: BLE001 - a night goes on, whatever one sweep meets
            self._fail(one, error, began)
        else:
            self._keep(one, found, began)
            if one.splits and one.name in self._sweeps:
                self._walk(one, found, workers, part(progress, 0.5, 1.0))
        self.show()

    def _walk(self, one: NightlySweep, found: Sweep, workers: int, progress: Advance) -> None:
        """Walk forward over each session of a sweep; where that fails, its points stand.

        Its trainings are not kept: as points of the sweep they would count as trials.
        """
        walks = self._walks[one.name] = {}
        for number, name in enumerate(found.sessions):
            share = part(progress, number / len(found.sessions), (number + 1) / len(found.sessions))
            try:
                walks[name] = found.walk_forward(
                    session=name, workers=workers, check_lookahead=False, progress=share,
                    **one.splits,
                )  # fmt: skip
            except (KeyboardInterrupt, Cancelled) as stop:
                self._stop(one, stop)
            except Exception as error:  # noqa: BLE001 - as in `add`
                told = self._told(error, f"{one.slug}.error.txt")
                self._errors.append(f"walk-forward of {one.name} on {name}: {told}")
        if walks:
            means = pl.concat([walk.pairs for walk in walks.values()]).mean().row(0, named=True)
            traded = sum(len(walk.results) for walk in walks.values())
            self._rows[-1] |= {"windows": traded, **{k: finite(v) for k, v in means.items()}}

    def report(self, most: int, timeout: Duration | None, progress: Advance) -> None:
        """Run a notebook for the best points; what fails there fails no sweep, but the night."""
        odds = {row["sweep"]: row["deflated_sharpe"] or 0.0 for row in self._rows
                if row["best"] is not None}  # fmt: skip
        ranked = sorted(
            (one for one in self._plan if one.name in odds), key=lambda one: -odds[one.name]
        )
        refused: list[str] = []
        words = "none: no best point"
        try:
            found = [(one, self._sweeps[one.name]) for one in ranked]
            jobs, refused = _best_jobs(found, most, self._lab)
            if jobs:
                self._reports = batch(
                    jobs, out=self._folder / REPORTS, lab=self._lab, check_lookahead=False,
                    timeout=timeout, progress=progress,
                )  # fmt: skip
                words = "; ".join([self._reports.counts, *self._first_only(jobs)])
            elif refused:
                words = "none"
        except (KeyboardInterrupt, Cancelled):
            self.show("stopped")
            raise
        except Exception as error:  # noqa: BLE001 - the sweeps are done, whatever reports meet
            told = self._told(error, REPORTS_ERROR)
            words = f"none: {told}"
            self._report_errors.append(f"reports: {told}")
        self._report_errors += refused
        self._report_words = "; ".join([words, *refused])

    def _first_only(self, jobs: Sequence[BatchJob]) -> list[str]:
        """Say of which sweeps the report shows one session of several."""
        counts = [(job, len(self._sweeps[job.name].sessions)) for job in jobs]
        return [
            f"{job.name}: on {job.session} alone, the first of its {count:,} sessions"
            for job, count in counts
            if count > 1
        ]

    def show(self, state: str = "running") -> Night:
        """Write the record of the night, its page and that of all nights."""
        ended = {row["sweep"]: row for row in self._rows}
        rows = [
            (ended.get(one.name) or one.row(self._began, state="waiting")) | {"terms": one.terms}
            for one in self._plan
        ]
        figures, points = night_figures(self._day, rows, self._sweeps)
        nights = self._earlier | {self._day: NightRecord(state, figures)}
        made = nights[self._day]
        made.comparison = compare_nights(*frames_of(nights), points, self._day)
        self._store(rows, made.comparison, state)
        page, drawn = self._folder / INDEX, cache(partial(_pictures, nights, self._day))
        lost = self._write(
            page,
            lambda: render_night(
                self._day,
                self._rows,
                self._sweeps,
                made.comparison,
                drawn(),
                reports=self._report_words,
                errors=self._errors,
                walks=self._walks,
            ),
        )
        if lost and state == "done":
            made.state, made.error = "failed", lost
        is_newest = self._day == max(nights)
        index = self._root / INDEX
        lost_index = self._write(
            index, lambda: render_all(self._root, nights, drawn() if is_newest else None)
        )
        lost = lost or lost_index
        if lost and state == "done":
            made.state, made.error = "failed", lost
        write_whole(self._folder / RECORD, made.to_json(self._rows))
        table = pl.DataFrame(self._rows, schema=SCHEMA)
        others = (*self._errors, lost) if lost else tuple(self._errors)
        return Night(
            table, self._sweeps, page, made.comparison, self._reports,
            report_errors=tuple(self._report_errors), other_errors=others, walks=self._walks,
        )  # fmt: skip

    def _write(self, page: Path, render: Callable[[], str]) -> str:
        """Write a page; return why it is not there, nothing if it is: what was found counts."""
        try:
            write_whole(page, render())
        except Exception as error:  # noqa: BLE001 - as in `add`
            return f"page {page}: {self._told(error, PAGE_ERROR)}"
        return ""

    def fail(self, error: Exception) -> None:
        """Write into the record what ended the night; that no record could be written is noted."""
        record = NightRecord("failed", pl.DataFrame(schema=FIGURES))
        record.error = f"{type(error).__name__}: {error}"
        try:
            write_whole(self._folder / RECORD, record.to_json(self._rows))
        except OSError as other:
            error.add_note(f"the record of the night could not be written: {other}")

    def _store(
        self, rows: Sequence[Mapping[str, Any]], comparison: pl.DataFrame, state: str
    ) -> None:
        """Write the night's rows into the database; where that fails, the pages are there.

        A night that runs does so after each sweep: one that is killed has what it had found.
        """
        compared = comparison.filter(pl.col("session").is_null())
        changes = dict(compared.select("sweep", "change").iter_rows())
        lost = compared.filter(change="gone").select("sweep", "strategy", "metric")
        gone = [row | {"state": "gone", "sessions": None} for row in lost.rows(named=True)]
        place = hashlib.sha256(str(self._root).encode()).hexdigest()[:8]
        night = {
            "night_id": f"{self._day.isoformat()}-{place}",
            "plan": self._name or None,
            "page": str(self._folder / INDEX),
            "started": self._began,
            "timestamp": datetime.combine(self._day, time(), UTC),
        }
        try:
            reports = pl.DataFrame() if self._reports is None else self._reports.table
            runs = dict(reports.select("job", "run_id").iter_rows()) if reports.height else {}
            made = []
            for row in [*rows, *gone]:
                name = row["sweep"]
                own = {"change": changes.get(name), "run_id": runs.get(name)}
                made += night_rows(self._sweeps.get(name), {**row, **night, **own})
            save_night(self._lab, made)
        except Exception as error:  # noqa: BLE001 - what was found is on the pages
            if state != "running":  # else it is tried again after the next sweep
                self._errors.append(f"rows in the database: {self._told(error, ROWS_ERROR)}")

    def clear_older(self, made: Night, keep: int) -> str:
        """Clear the nights that are not among the newest ones; say what became of them."""
        if made.failures:
            return "older nights are kept, for this one has failures"
        words = clear_nights(self._root, keep)
        index = self._root / INDEX
        lost = self._write(index, lambda: render_all(self._root, read_nights(self._root)))
        return "; ".join(filter(None, [words, lost]))

    def _keep(self, one: NightlySweep, found: Sweep, began: datetime) -> None:
        """Note how a sweep ended; one whose table cannot be written has failed."""
        try:
            row, table = one.row_of(found, began), io.BytesIO()
            found.table.write_parquet(table)
            write_whole(self._folder / f"{one.slug}.parquet", table.getvalue())
        except Exception as error:  # noqa: BLE001 - as in `add`
            self._fail(one, error, began)
        else:
            self._sweeps[one.name] = found
            self._rows.append(row)

    def _fail(self, one: NightlySweep, error: Exception, began: datetime) -> None:
        words = self._told(error, f"{one.slug}.error.txt")
        self._rows.append(one.row(began, state="failed", error=words))

    def _told(self, error: Exception, name: str) -> str:
        """Return an error in words; of a surprise the traceback goes into a file of that name."""
        if isinstance(error, FxlabError):
            return str(error)
        write_whole(self._folder / name, "".join(traceback.format_exception(error)))
        return f"{type(error).__name__}: {error}; the traceback is in {name}"

    def _stop(self, one: NightlySweep, stop: BaseException) -> NoReturn:
        page = self.show("stopped").index
        raise Cancelled(
            f"the night was stopped in its sweep {one.name!r}; every point that was done is kept, "
            f"{page} shows them, and the same call goes on from there"
        ) from stop


def _best_jobs(
    found: Sequence[tuple[NightlySweep, Sweep]], most: int, lab: Lab
) -> tuple[list[BatchJob], list[str]]:
    """Return backtests of the best points of sweeps, and those that are refused, with the reason.

    Each is on the first of the sweep's sessions. Of two that are the same backtest only the first
    is there; at most `most` of them.
    """
    jobs: dict[str, BatchJob] = {}
    sessions: dict[str, Session] = {}
    refused: list[str] = []
    for one, made in found:
        if len(jobs) < most:
            try:
                job = one.best_job(made)
                jobs.setdefault(resolved(job, lab, sessions).key, job)
            except FxlabError as error:
                refused.append(f"report of {one.name}: {error}")
    return list(jobs.values()), refused


def _named(progress: Advance, name: str) -> Advance:
    return lambda share, words: progress(share, f"{name}: {words}")


_SAMPLES = ("in_sample", "out_of_sample")


def render_night(
    day: date,
    rows: Sequence[Mapping[str, Any]],
    sweeps: Mapping[str, Sweep],
    comparison: pl.DataFrame | None = None,
    pictures: Mapping[str, Markup | str] | None = None,
    *,
    reports: str = "",
    errors: Sequence[str] = (),
    walks: Mapping[str, Mapping[str, WalkForward]] | None = None,
) -> str:
    """Return the page of one night.

    Parameters
    ----------
    day
        Its date.
    rows
        Of `SCHEMA`, one a sweep.
    sweeps
        Those that have points, by name.
    comparison
        Of `COMPARISON`.
    pictures
        Charts of the history of sweeps, by name.
    reports
        What became of the reports of the best points, in words; empty if none were asked for.
    errors
        What else did not go well.
    walks
        Walk-forwards by name of the sweep and session.
    """
    shown = [
        {
            **row,
            "notebook": None,
            "figure": show_metric(row["best"], METRICS[row["metric"]][0]),
            "samples": [show_metric(row[n], METRICS[row["metric"]][0]) for n in _SAMPLES],
            "odds": [show_metric(row[name], "probability") for name in ("deflated_sharpe", "pbo")],
            "took": show_seconds(row["seconds"]),
        }
        for row in rows
    ]
    now = datetime.now(UTC).replace(microsecond=0)
    compared = pl.DataFrame(schema=COMPARISON) if comparison is None else comparison
    return _html.page(
        "night",
        title=f"Sweeps of {day.isoformat()}",
        now=now,
        rows=shown,
        reports=reports,
        errors=errors,
        reports_page="" if reports.startswith("none") else f"{REPORTS}/{INDEX}",
        changes=_change_rows(compared, pictures or {}),
        by_session=_by_session_table(compared),
        sections=[
            _section(number, name, found, (walks or {}).get(name) or {})
            for number, (name, found) in enumerate(sweeps.items())
        ],
        plotly=plotly_source() if sweeps else "",
    )


def render_all(
    root: Path,
    nights: Mapping[date, NightRecord] | None = None,
    pictures: Mapping[str, Markup | str] | None = None,
) -> str:
    """Return the page that leads to all nights in a folder, the newest first.

    It begins with what changed in the newest one of `nights`, the records by date; `pictures` are
    the charts of its sweeps' histories, drawn unless given.
    """
    records = nights or {}
    newest = max(records, default=None)
    changes = []
    if newest is not None:
        drawn = _pictures(records, newest) if pictures is None else pictures
        changes = _change_rows(records[newest].comparison, drawn)
    pages = {path.parent.name for path in root.glob(f"*/{INDEX}")}
    known = {day.isoformat(): record for day, record in records.items()}
    return _html.page(
        "nights",
        title="Nights",
        newest=newest and newest.isoformat(),
        changes=changes,
        nights=[
            (name, f"{name}/{INDEX}" if name in pages else "", *_counts(known.get(name)))
            for name in sorted(pages | known.keys(), reverse=True)
        ],
        kinds=CHANGES,
        plotly="",
    )


def _counts(record: NightRecord | None) -> tuple[str | None, list[int | None]]:
    """Return how a night ended, and how many of its sweeps changed in which way."""
    if record is None:
        return None, [None] * len(CHANGES)
    state = f"{record.state}: {record.error}" if record.error else record.state
    if record.comparison.is_empty():
        return state, [None] * len(CHANGES)
    changes = record.comparison.filter(pl.col("session").is_null())["change"].to_list()
    return state, [changes.count(change) for change in CHANGES]


def _change_rows(
    comparison: pl.DataFrame, pictures: Mapping[str, Markup | str]
) -> list[dict[str, Any]]:
    """Return what changed of whole sweeps, as pages show it."""
    figures = ("figure", "figure_before", "before_tonight")
    return [
        {
            **row,
            **{name: show_metric(row[name], METRICS[row["metric"]][0]) for name in figures},
            "picture": pictures.get(row["sweep"], ""),
            "since": row["since"] and row["since"].isoformat(),
        }
        for row in comparison.filter(pl.col("session").is_null()).iter_rows(named=True)
    ]


def _by_session_table(comparison: pl.DataFrame) -> Markup | str:
    names = ("sweep", "session", "change", "metric", "figure", "figure_before", "since")
    rows = comparison.filter(pl.col("session").is_not_null()).select(names)
    digits = dict.fromkeys(("figure", "figure_before"), 4)
    return "" if rows.is_empty() else _html.table(rows, decimals=digits, inline=False)


def _pictures(nights: Mapping[date, NightRecord], day: date) -> dict[str, Markup | str]:
    """Return the history of each sweep that a night compares, up to that night, as inline SVG."""
    figures, states = frames_of({when: one for when, one in nights.items() if when <= day})
    return {
        row["sweep"]: history_picture(figure_history(figures, states, row["sweep"]), row["metric"])
        for row in nights[day].comparison.filter(pl.col("session").is_null()).iter_rows(named=True)
    }


def _section(number: int, name: str, found: Sweep, walks: Mapping[str, WalkForward]) -> Section:
    """Return the picture of a sweep, its best points, and what walking forward gave."""
    words = [] if found.table.is_empty() else [verdict(found)]
    best = found.ranking().head(RANKED)
    if best.is_empty():
        return name, [*words, str(found)]
    if len(found.sessions) == 1:
        best = best.drop("sessions", "worst", "best")
    digits = dict.fromkeys((found.metric, "worst", "best"), 4)
    ranked = _html.table(best, caption="The best points", decimals=digits, inline=False)
    figure = found.heatmap() if len(found.varied) > 1 else found.parallel()
    walked = []
    if walks:
        first, walk = next(iter(walks.items()))
        caption = f"Walk-forward: {found.metric} in training (in sample) and test; chart: {first}"
        digits = dict.fromkeys((*_SAMPLES, "total_return", "max_drawdown"), 4)
        told = _html.table(walk_table(walks), caption=caption, decimals=digits, inline=False)
        walked = [told, embed(walk.plot(), f"walk-{number}", "")]
    return name, [*words, embed(figure, f"sweep-{number}", ""), ranked, *walked]
