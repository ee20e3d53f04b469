"""Result tables of sweeps and nights, and the ranking of points by an objective.

A sweep's table has one row for each point and session. The objective is one metric, of which more
is better unless it is a cost. Nights that sweep the same again are compared: better, decayed, new
or gone.
"""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl

from fxlab import _html
from fxlab.backtester.metrics._performance import LESS_IS_BETTER, METRICS, NEITHER
from fxlab.backtester.strategy.strategy import Strategy
from fxlab.errors import FxlabError, InvalidParameter, did_you_mean, some
from fxlab.sweeper._space import Point
from fxlab.sweeper._trial import TrialResult

if TYPE_CHECKING:
    from fxlab.batcher.batch import Batch
    from fxlab.sweeper.sweep import Sweep
    from fxlab.sweeper.walk_forward import WalkForward


def check_metric(metric: str) -> str:
    """Return the name of a metric, or raise `InvalidParameter` with those that are near."""
    if metric not in METRICS:
        hint = did_you_mean(str(metric), METRICS) or f"known: {', '.join(METRICS)}"
        raise InvalidParameter(f"metric={metric!r:.80} is not a metric of a run; {hint}")
    return metric


def check_objective(metric: str) -> str:
    """Return the name of a metric that makes one run better than another."""
    if check_metric(metric) in NEITHER:
        raise InvalidParameter(
            f"metric={metric!r} describes a run; no value of it makes one better than another; "
            "choose for example sharpe_per_period, total_return or profit_factor"
        )
    return metric


def direction(metric: str) -> float:
    """Return 1 if more of a metric is better, else -1."""
    return -1.0 if metric in LESS_IS_BETTER else 1.0


KINDS: Final = {int: pl.Int64, float: pl.Float64, bool: pl.Boolean, str: pl.String}
TAKEN: Final = frozenset({"point", "session", "state", "error", "fingerprint", *METRICS})


def column_of(parameter: str) -> str:
    """Return the column of a parameter: its name, unless a metric has the same one."""
    return f"parameter_{parameter}" if parameter in TAKEN else parameter


def build(
    strategy: Strategy,
    sessions: Sequence[str],
    points: Mapping[int, Point],
    outcomes: Sequence[Mapping[int, TrialResult]],
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
    metrics = np.full((len(rows), len(METRICS)), np.nan)
    for row, (_, _, outcome) in zip(metrics, rows, strict=True):
        if len(outcome.metrics):
            row[:] = outcome.metrics
    for place, name in enumerate(METRICS):
        columns[name] = pl.Series(np.ascontiguousarray(metrics[:, place])).fill_nan(None)
    for name in ("error", "fingerprint"):
        texts = [getattr(outcome, name) or None for _, _, outcome in rows]
        columns[name] = pl.Series(texts, dtype=pl.String)
    return pl.DataFrame(columns)


def rank(table: pl.DataFrame, strategy: Strategy, metric: str, sign: float) -> pl.DataFrame:
    """Return one row a point, the best first.

    Returns
    -------
    polars.DataFrame
        ``point``, the parameters, ``sessions`` (those in which the point has the metric), the
        metric's mean over them, ``worst`` and ``best`` of them, and ``ruined``, the sessions in
        which it lost everything. Points that were ruined nowhere come first, then those with the
        metric in more sessions; among equals the smaller number does.
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


NIGHTS: Final[dict[str, Any]] = {"night": pl.Date, "state": pl.String}
FIGURES: Final[dict[str, Any]] = {
    "night": pl.Date,
    **dict.fromkeys(("sweep", "session", "strategy", "metric", "state"), pl.String),
    "figure": pl.Float64,
    **dict.fromkeys(("parameters", "terms"), pl.String),
}
POINTS: Final[dict[str, Any]] = {
    **dict.fromkeys(("sweep", "parameters"), pl.String), "figure": pl.Float64,
}  # fmt: skip
COMPARISON: Final[dict[str, Any]] = {
    **dict.fromkeys(("sweep", "session", "strategy", "change", "metric"), pl.String),
    **dict.fromkeys(("figure", "figure_before"), pl.Float64),
    "since": pl.Date,
    **dict.fromkeys(("parameters", "parameters_before"), pl.String),
    "before_tonight": pl.Float64,
    "note": pl.String,
}
CHANGES: Final = ("better", "decayed", "same", "new", "gone", "not compared")
SAME: Final = 0.01
"""Share of the larger figure by which two may differ and still be called the same."""

HISTORY: Final = 60
"""Nights that a chart of history shows, at most."""


def change_of(before: float, now: float, metric: str) -> str:
    """Return better, decayed or same, as the metric goes.

    Examples
    --------
    >>> from fxlab.sweeper._results import change_of
    >>> change_of(1.0, 2.0, "total_return"), change_of(1.0, 2.0, "fees")
    ('better', 'decayed')
    """
    if abs(now - before) <= SAME * max(abs(now), abs(before)):
        return "same"
    return "better" if (now > before) == (direction(metric) > 0) else "decayed"


def compare_nights(
    figures: pl.DataFrame, nights: pl.DataFrame, points: pl.DataFrame, day: date
) -> pl.DataFrame:
    """Return what changed against the last night with which each sweep can be compared.

    Nights in which a sweep has no figure (they died before it, were stopped in it, or it failed)
    are passed over, and the note names them. Where the sweep was asked for otherwise it is not
    compared, neither with that night nor with those before it.

    Parameters
    ----------
    figures
        Of `FIGURES`, of all nights: a row a sweep, whose ``session`` is null, and one for each of
        its sessions, with the figure of the night's best point.
    nights
        Of `NIGHTS`; whoever is not ``done`` may lack sweeps that it would have had.
    points
        Of `POINTS`, those of the night: what the best point of the night before gives now.
    day
        The night.

    Returns
    -------
    polars.DataFrame
        Of `COMPARISON`, in the order of the figures; what is gone comes last.
    """
    known = {(row["night"], row["sweep"], row["session"]): row for row in figures.rows(named=True)}
    tonight = {key[1:]: row for key, row in known.items() if key[0] == day}
    earlier = sorted((row for row in nights.iter_rows() if row[0] < day), reverse=True)
    points_now = {(name, words): value for name, words, value in points.iter_rows()}
    rows = [_against(row, earlier, known) for row in tonight.values()]
    gone = _gone_sweeps({name for name, _ in tonight}, earlier, known)
    for row in [one for one in rows if one["session"] is None and one["since"]]:
        row["before_tonight"] = points_now.get((row["sweep"], row["parameters_before"]))
        then = {k[2] for k in known if k[:2] == (row["since"], row["sweep"]) and k[2]}
        now = {session for name, session in tonight if name == row["sweep"] and session}
        counts = ((len(now - then), "new"), (len(then - now), "gone"))
        words = ", ".join(f"{count} {word}" for count, word in counts if count)
        row["note"] = "; ".join(filter(None, [row["note"], words and f"sessions: {words}"]))
        lost = (known[row["since"], row["sweep"], session] for session in sorted(then - now))
        gone += [_was(one) | {"change": "gone", "note": ""} for one in lost]
    return pl.DataFrame(rows + gone, schema=COMPARISON)


def _against(
    now: Mapping[str, Any], earlier: Sequence[tuple[date, str]], known: Mapping[Any, Any]
) -> dict[str, Any]:
    """Return the row of a figure of tonight; nights come with the newest first."""
    row = dict.fromkeys(COMPARISON) | {name: now[name] for name in COMPARISON if name in now}
    if now["state"] != "done" or now["figure"] is None:
        return row | {"change": "not compared", "note": f"{_why_none(now)} tonight"}
    passed: list[str] = []
    change, had_any = "new", False
    for night, state in earlier:
        whole = known.get((night, now["sweep"], None))
        then = known.get((night, now["sweep"], now["session"]))
        if whole is None or whole["state"] == "waiting":
            if state == "done":
                break
            passed.append(f"{night} {state} before it")
        elif whole["terms"] != now["terms"]:
            change = "not compared"
            passed.append(f"other {_differing(whole['terms'], now['terms'])} on {night}")
            break
        elif whole["state"] == "done" and then is None:
            break
        elif then is not None and then["state"] == "done" and then["figure"] is not None:
            change = change_of(then["figure"], now["figure"], now["metric"])
            row |= {name: value for name, value in _was(then).items() if value is not None}
            passed += [] if state == "done" else [f"{night} {state} after it"]
            break
        else:
            had_any = True
            passed.append(f"{_why_none(then or whole)} on {night}")
    if change == "new" and had_any:
        change = "not compared"
    return row | {"change": change, "note": "; ".join(passed)}


def _was(then: Mapping[str, Any]) -> dict[str, Any]:
    """Return what a row tells of an earlier night."""
    same = {name: then[name] for name in ("sweep", "session", "strategy", "metric")}
    return {
        **dict.fromkeys(COMPARISON),
        **same,
        "since": then["night"],
        "figure_before": then["figure"],
        "parameters_before": then["parameters"],
    }


def _gone_sweeps(
    names: set[str], earlier: Sequence[tuple[date, str]], known: Mapping[Any, Any]
) -> list[dict[str, Any]]:
    """Return the sweeps that the last whole night had, or one that did not end after it."""
    found: dict[str, dict[str, Any]] = {}
    for night, state in earlier:
        for (when, name, session), then in known.items():
            if when == night and session is None and name not in names | found.keys():
                found[name] = _was(then) | {"change": "gone", "note": ""}
        if state == "done":
            break
    return list(found.values())


def _why_none(row: Mapping[str, Any]) -> str:
    return "no figure" if row["state"] == "done" else str(row["state"])


def _differing(before: str, now: str) -> str:
    old, new = json.loads(before), json.loads(now)
    return some(name for name in [*new, *old.keys() - new.keys()] if old.get(name) != new.get(name))


def _parsed_night(text: str, day: date) -> tuple[str, pl.DataFrame, pl.DataFrame, str]:
    """Return state, figures, comparison and error; raises one of `_NO_RECORD` where it is none."""
    found = json.loads(text)
    state = {"running": "died"} | {name: name for name in ("done", "stopped", "failed")}
    figures = pl.DataFrame([{**row, "night": day} for row in found["figures"]], schema=FIGURES)
    rows = [
        {**row, "since": date.fromisoformat(row["since"]) if row["since"] else None}
        for row in found["comparison"]
    ]
    comparison = pl.DataFrame(rows, schema=COMPARISON)
    for name in {*comparison["metric"], *figures["metric"]}:
        check_objective(name)
    for terms in figures["terms"]:
        json.loads(terms).keys()
    return state[found["state"]], figures, comparison, str(found.get("error", ""))


def night_figures(
    day: date, rows: Sequence[Mapping[str, Any]], sweeps: Mapping[str, Sweep]
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the figures of a night, a row a sweep and session, and those of all its points.

    `rows` are those of `Night.table`, each with the ``terms`` of its sweep.
    """
    figures: list[dict[str, Any]] = []
    points = []
    for row in rows:
        terms = json.dumps(row["terms"], sort_keys=True)
        whole = {"night": day, "figure": finite(row["best"]), "terms": terms}
        figures.append({name: row.get(name) for name in FIGURES} | whole)
        found = sweeps.get(row["sweep"])
        if found is None:
            continue
        ranking = found.ranking().select("point", found.metric).rows()
        points += [(row["sweep"], point_words(found, one), finite(it)) for one, it in ranking]
        if row["best"] is not None:
            best = found.table.filter(pl.col("point") == ranking[0][0])
            figures += [
                figures[-1] | {"session": session, "figure": finite(figure)}
                for session, figure in best.select("session", found.metric).rows()
            ]
    return pl.DataFrame(figures, schema=FIGURES), pl.DataFrame(points, schema=POINTS, orient="row")


def figure_history(figures: pl.DataFrame, nights: pl.DataFrame, name: str) -> pl.DataFrame:
    """Return ``night`` and ``figure`` of a sweep, null where a night has none.

    Only figures that can be compared with the newest one are there.
    """
    own = figures.filter(pl.col("sweep") == name, pl.col("session").is_null()).sort("night")
    terms = own["terms"].last() if own.height else None
    done = own.filter(pl.col("terms").eq_missing(terms), pl.col("state") == "done")
    return (
        nights.select("night")
        .sort("night")
        .join(done.select("night", "figure"), on="night", how="left", maintain_order="left")
        .tail(HISTORY)
    )


def worth(found: Sweep) -> dict[str, Any]:
    """Return the best point, and how much of it is chance."""
    top = found.ranking().head(1)
    if top.is_empty():
        return {}
    row = top.row(0, named=True)
    best = {"best": row[found.metric], "parameters": point_words(found, row["point"])}
    try:
        judged = found.overfitting()
    except FxlabError:  # too few points or periods to judge
        return best
    deflated = judged.table.filter(pl.col("point") == row["point"])["deflated_sharpe"]
    return best | {
        "deflated_sharpe": finite(deflated[0]) if len(deflated) else None,
        "pbo": finite(judged.pbo),
        "tried": judged.tried,
    }


def point_words(found: Sweep, number: int) -> str:
    """Return the parameters of a point, those that vary."""
    values = found.points[number].values
    return ", ".join(f"{name}={values[name]}" for name in found.space.axes or values)


def finite(value: float | None) -> float | None:
    """Return a figure that can be compared, and that JSON can hold."""
    return value if value is not None and math.isfinite(value) else None


INDEX: Final = "index.html"
RECORD: Final = "night.json"
REPORTS: Final = "reports"
REPORTS_ERROR: Final = "best points.error.txt"  # no sweep's slug has a blank
ROWS_ERROR: Final = "database rows.error.txt"
PAGE_ERROR: Final = "night page.error.txt"


_NO_RECORD: Final = (
    OSError, ValueError, LookupError, TypeError, AttributeError, pl.exceptions.PolarsError,
)  # fmt: skip


@dataclass
class NightRecord:
    """What is kept of a night: how it ended, its figures, and the comparison.

    Attributes
    ----------
    state
        running, done or stopped; failed, for the reason in `error`; died, of one that runs no more
        and has not ended; unreadable.
    """

    state: str
    figures: pl.DataFrame
    comparison: pl.DataFrame = field(default_factory=lambda: pl.DataFrame(schema=COMPARISON))
    error: str = ""

    def to_json(self, table: Sequence[Mapping[str, Any]]) -> str:
        """Return the record; `table` are the rows of `Night.table`."""
        rows = [{k: finite(v) if isinstance(v, float) else v for k, v in r.items()} for r in table]
        parts = {"figures": self.figures, "comparison": self.comparison}
        frames = {name: frame.rows(named=True) for name, frame in parts.items()}
        whole = {"state": self.state, "error": self.error, "table": rows, **frames}
        return json.dumps(whole, indent=1, default=str, allow_nan=False)

    @classmethod
    def read(cls, path: Path, day: date) -> NightRecord:
        """Return a record that an earlier process wrote, perhaps before it was killed."""
        try:
            return cls(*_parsed_night(path.read_text(encoding="utf-8"), day))
        except _NO_RECORD:
            return cls("unreadable", pl.DataFrame(schema=FIGURES))


@dataclass(frozen=True)
class Night:
    """What became of the sweeps of a night.

    Attributes
    ----------
    table : polars.DataFrame
        One row a sweep: ``sweep`` (its name), ``state`` (done, stopped, failed), ``strategy``,
        ``sessions``, ``points`` (outcomes, of all sessions), ``from_before`` (those that were kept
        already), ``failed`` (points), ``metric``, ``best`` (its value at the best point),
        ``parameters`` (of that point, those that vary), ``deflated_sharpe`` (probability that it
        is above chance), ``pbo`` (probability of backtest overfitting), ``tried`` (points of all
        nights), ``splits`` of its walk-forward in words, ``windows`` of it that were traded,
        ``in_sample`` and ``out_of_sample`` (means of the metric over these windows: in training,
        and in the test that follows), ``seconds``, ``error``. Null where there is none.
    sweeps : dict of Sweep
        By name, those that did not fail.
    index : Path
        The page that shows them.
    comparison : polars.DataFrame
        A row a sweep (``session`` is null) and one for each of its sessions: ``change`` against
        the night before (better, decayed, same, new, gone, not compared), ``figure`` of the best
        point and ``figure_before``, ``since`` (the night of that one), ``parameters`` and
        ``parameters_before``, ``before_tonight`` (what the parameters of the night before give on
        the sessions of this one), ``note``. A session's figure is that of the sweep's best point.
    reports : Batch or None
        The notebooks and reports of the best points, if they were asked for.
    retention : str
        What became of older nights, in words, if only so many were to be kept.
    report_errors : tuple of str
        Why reports were not made; failures of the night, as those that failed are.
    other_errors : tuple of str
        What else did not go well: pages, rows in the database, walk-forwards, the command of a
        failure. Failures, too; one whose page could not be written ends as failed.
    walks : dict of dict of WalkForward
        By name and session, those of sweeps with `splits`.

    Examples
    --------
    >>> table = pl.DataFrame({"state": ["done"], "points": [4], "from_before": [1]})
    >>> print(fxlab.Night(table, {}, Path("index.html")))
    1 sweeps, 0 failed; 4 points, 1 of them from before; see index.html
    """

    table: pl.DataFrame = field(repr=False)
    sweeps: dict[str, Sweep] = field(repr=False)
    index: Path
    comparison: pl.DataFrame = field(
        repr=False, default_factory=lambda: pl.DataFrame(schema=COMPARISON)
    )
    reports: Batch | None = None
    retention: str = ""
    report_errors: tuple[str, ...] = ()
    other_errors: tuple[str, ...] = ()
    walks: Mapping[str, Mapping[str, WalkForward]] = field(default_factory=dict, repr=False)

    @property
    def changes(self) -> pl.DataFrame:
        """Return the comparison of whole sweeps, without that of their sessions."""
        return self.comparison.filter(pl.col("session").is_null()).drop("session")

    @property
    def failed(self) -> pl.DataFrame:
        """Return the rows of sweeps that failed."""
        return self.table.filter(pl.col("state") == "failed")

    @property
    def failures(self) -> list[str]:
        """Return what failed in words: sweeps, reports, the rest; none of a night that is well."""
        lines = [f"{name}: {error}" for name, error in self.failed.select("sweep", "error").rows()]
        return [*lines, *self._report_failures, *self.other_errors]

    @property
    def _change_words(self) -> str:
        counts = dict(self.changes["change"].value_counts().iter_rows())
        words = [f"{counts[change]:,} {change}" for change in CHANGES if counts.get(change)]
        return f"; against the night before {', '.join(words)}" if words else ""

    @property
    def _report_failures(self) -> list[str]:
        failed = [] if self.reports is None else self.reports.failed.select("job", "error").rows()
        return [*(f"report of {name}: {error}" for name, error in failed), *self.report_errors]

    def __str__(self) -> str:
        """Say it in one line."""
        points, known = (int(self.table[name].sum()) for name in ("points", "from_before"))
        older = self.retention and f"; {self.retention}"
        lost = f"; {len(unmade):,} report errors" if (unmade := self._report_failures) else ""
        lost += f"; {len(self.other_errors):,} other errors" if self.other_errors else ""
        return (
            f"{self.table.height:,} sweeps, {self.failed.height:,} failed; {points:,} points, "
            f"{known:,} of them from before{self._change_words}{lost}{older}; see "
            f"{self.index}"
        )

    def _repr_html_(self) -> str:
        return _html.table(self.table.drop("seconds", *self.unused), caption=str(self))

    @property
    def unused(self) -> list[str]:
        """Return the columns of walk-forwards that no sweep has."""
        names = ("splits", "windows", "in_sample", "out_of_sample")
        return [name for name in names if self.table[name].null_count() == self.table.height]


def read_nights(root: Path, but: date | None = None) -> dict[date, NightRecord]:
    """Return the records of all nights in a folder, except of one that is to be written."""
    found = {}
    for folder in root.iterdir():
        with suppress(ValueError):  # not a night's folder
            day = date.fromisoformat(folder.name)
            if day != but and day.isoformat() == folder.name:
                found[day] = NightRecord.read(folder / RECORD, day)
    return found


def frames_of(nights: Mapping[date, NightRecord]) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the figures of all nights, and their states, as `compare_nights` takes them."""
    figures = pl.concat([pl.DataFrame(schema=FIGURES), *(one.figures for one in nights.values())])
    states = [(day, one.state) for day, one in sorted(nights.items())]
    return figures, pl.DataFrame(states, schema=NIGHTS, orient="row")


def clear_nights(root: Path, keep: int) -> str:
    """Remove what nights wrote, but for the newest ones and for all records; say what was done.

    A folder with a night's name and no record that can be read is somebody else's.
    """
    nights = {
        day: record
        for day, record in sorted(read_nights(root).items(), reverse=True)
        if record.state != "unreadable" and not (root / day.isoformat()).is_symlink()
    }
    cleared, errors = 0, []
    for day, record in list(nights.items())[keep:]:
        written = written_files(root / day.isoformat(), record)
        try:
            for path in written:
                shutil.rmtree(path) if path.is_dir() else path.unlink()
        except OSError as error:
            errors.append(f"; {day} could not be cleared, the next night tries again: {error}")
        else:
            cleared += bool(written)
    return f"{cleared:,} older nights cleared but for their records{''.join(errors[:1])}"


def written_files(folder: Path, record: NightRecord) -> list[Path]:
    """Return what a night wrote into its folder beside its record, as far as it is there."""
    names = [_html.slug(name, "sweep") for name in record.figures["sweep"].unique().drop_nulls()]
    files = [folder / name for name in (INDEX, REPORTS_ERROR, ROWS_ERROR, PAGE_ERROR)]
    files += [folder / f"{name}.{end}" for name in names for end in ("parquet", "error.txt")]
    found = [path for path in files if path.is_file() and not path.is_symlink()]
    reports = folder / REPORTS
    return [*found, reports] if reports.is_dir() and not reports.is_symlink() else found
