"""Nightly sweeps: the same sweeps every night, over new sessions and points only; and their table.

A sweep says which sessions, which points, under which assumptions. What was tried is not tried
twice, and a sweep that fails costs its own row. The table has one row a sweep, with what its best
point is worth. What was tried in earlier nights counts there: a best point that is looked for every
night is found sooner or later, and the deflated Sharpe ratio knows how often.
"""

from __future__ import annotations

import math
import traceback
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, date, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self

import polars as pl

from fxlab import _html
from fxlab._progress import Advance, Progress, part, shown
from fxlab._times import integer
from fxlab.backtester.metrics._performance import METRICS
from fxlab.backtester.options import RunOptions
from fxlab.backtester.report._summary import show_metric, show_seconds
from fxlab.backtester.report._tearsheet import Section, embed, plotly_source, write_whole
from fxlab.backtester.strategy.strategy import Strategy, get, values_between
from fxlab.batcher._jobs import each_checked, load_jobs, named_fields, slug
from fxlab.batcher.batch import connected, only_one
from fxlab.errors import Cancelled, EmptySession, FxlabError, InvalidParameter, SweepCancelled
from fxlab.sweeper import _results
from fxlab.sweeper._cross_validation import verdict
from fxlab.sweeper._space import Space
from fxlab.sweeper._threads import check_workers
from fxlab.sweeper.sweep import sweep

if TYPE_CHECKING:
    from fxlab.lab import Lab
    from fxlab.sessions.session import Session
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


def _ended(one: NightlySweep, found: Sweep, began: datetime) -> dict[str, Any]:
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
    varied = list(found.space.axes or values)
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


_MANY = 100_000  # sessions looked through
_RANGE = {"from", "to", "step"}


@dataclass(frozen=True, kw_only=True)
class NightlySweep(RunOptions):
    """A sweep over the sessions that a rule finds; what it does not name, `fxlab.sweep` decides.

    Attributes
    ----------
    strategy
        Its name, or ``module:function``.
    parameters
        Name to one value, a list, or ``{from, to, step}``, both ends inside.
    name
        What it is called; the strategy's name unless given.
    sessions
        Ids of sessions.
    tag
        All completed sessions with this tag; with `newest` only so many of them.
    newest
        So many of the newest completed sessions; with `symbol`, of those that have it.
    symbol
        See `newest`; then only this symbol is traded, unless `symbols` says otherwise.
    """

    strategy: str
    parameters: Mapping[str, Any]
    name: str = ""
    sessions: Sequence[str] = ()
    tag: str = ""
    newest: int = 0
    symbol: str = ""
    search: str = "grid"
    points: int | None = None
    seed: int = 0
    metric: str = "sharpe_per_period"

    @classmethod
    def of(cls, given: Self | Mapping[str, Any]) -> Self:
        """Return a sweep as people write it, checked as far as that goes without a session.

        Raises
        ------
        InvalidParameter, StrategyNotFound
            For an unknown name, a value out of range, or a sweep without sessions.
        """
        if isinstance(given, cls):
            return given
        values = named_fields(cls, given, "sweep", ("strategy", "parameters"))
        chosen = get(values["strategy"])
        values["name"] = values.get("name") or chosen.name
        values["parameters"] = _grid(chosen, values["parameters"])
        made = cls(**values)
        Space.of(chosen, made.parameters)
        _results.check_objective(made.metric)
        made.check_rule()
        return made

    @property
    def slug(self) -> str:
        """Return the name as it can stand in names of files."""
        return slug(self.name, "sweep")

    def check_rule(self) -> None:
        """Raise `InvalidParameter` unless exactly one rule says which sessions."""
        if integer(self.newest, 0) is None:
            raise InvalidParameter(f"newest={self.newest!r:.80} is not a number of sessions")
        if bool(self.sessions) == bool(self.tag or self.newest):
            raise InvalidParameter(
                "say once which sessions: sessions = [ids], tag = 'btc', or newest = 3 with "
                "symbol = 'BTC_USDT'"
            )

    def find(self, lab: Lab) -> list[Session]:
        """Return the sessions, those of a rule the newest first.

        Raises
        ------
        SessionNotFound, EmptySession
            If an id does not exist, or the rule finds none.
        """
        ids = [self.sessions] if isinstance(self.sessions, str) else list(self.sessions)
        if not ids:
            rows = lab.sessions(symbol=self.symbol or None, status="completed", limit=_MANY)
            kept = [
                row
                for row in rows.iter_rows(named=True)
                if not self.tag or self.tag in (row["tags"] or ())
            ]
            ids = [row["session_id"] for row in kept[: self.newest or None]]
        if not ids:
            rule = f"the tag {self.tag!r}" if self.tag else "a tick"
            also = f" and the symbol {self.symbol!r}" if self.symbol else ""
            raise EmptySession(
                f"no completed session has {rule}{also}; list them with: fxlab sessions list"
            )
        return [lab.session(name) for name in ids]

    def run(self, lab: Lab, workers: int, progress: Advance) -> Sweep:
        """Run the sweep, every point kept in the lab's database."""
        options = self.keywords()
        if self.symbol and self.symbols == "ALL":
            options["symbols"] = [self.symbol]
        return sweep(
            self.find(lab),
            self.strategy,
            self.parameters,
            search=self.search,
            points=self.points,
            seed=self.seed,
            metric=self.metric,
            workers=workers,
            lab=lab,
            progress=progress,
            **options,
        )


def checked(given: Sequence[NightlySweep | Mapping[str, Any]]) -> list[NightlySweep]:
    """Return the sweeps of a night, each under a name of its own.

    Raises
    ------
    InvalidInput
        With what is wrong, sweep by sweep.
    """

    def ready(
        one: NightlySweep | Mapping[str, Any], others: Sequence[NightlySweep]
    ) -> NightlySweep:
        made = NightlySweep.of(one)
        if made.slug in {other.slug for other in others}:
            raise InvalidParameter(f"another sweep is called {made.name!r} too; give each a name")
        return made

    return each_checked(given, "sweep", ready)


def _grid(strategy: Strategy, given: Any) -> Any:  # noqa: ANN401 - checked by `Space.of`
    if not isinstance(given, Mapping):
        return given
    return {
        name: _between(strategy, name, values) if isinstance(values, Mapping) else values
        for name, values in given.items()
    }


def _between(strategy: Strategy, name: str, given: Mapping[str, Any]) -> Any:  # noqa: ANN401
    if given.keys() != _RANGE or name not in strategy.parameters:
        if name not in strategy.parameters:
            strategy.check({name: 0})  # raises, with the names that are near
        raise InvalidParameter(
            f"{name}={dict(given)!r:.80} is not a range; write "
            f"{name} = {{ from = 10, to = 100, step = 10 }}"
        )
    return values_between(strategy.parameters[name], given["from"], given["to"], given["step"])


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
        nights), ``seconds``, ``error``. Null where there is none.
    sweeps : dict of Sweep
        By name, those that did not fail.
    index : Path
        The page that shows them.

    Examples
    --------
    >>> table = pl.DataFrame({"state": ["done"], "points": [4], "from_before": [1]})
    >>> print(fxlab.Night(table, {}, Path("index.html")))
    1 sweeps, 0 failed; 4 points, 1 of them from before; see index.html
    """

    table: pl.DataFrame = field(repr=False)
    sweeps: dict[str, Sweep] = field(repr=False)
    index: Path

    @property
    def failed(self) -> pl.DataFrame:
        """Return the rows of sweeps that failed."""
        return self.table.filter(pl.col("state") == "failed")

    def __str__(self) -> str:
        """Say it in one line."""
        points, known = (int(self.table[name].sum()) for name in ("points", "from_before"))
        return (
            f"{self.table.height:,} sweeps, {self.failed.height:,} failed; {points:,} points, "
            f"{known:,} of them from before; see {self.index}"
        )

    def _repr_html_(self) -> str:
        return _html.table(self.table.drop("seconds"), caption=str(self))


def nightly(
    sweeps: str | Path | Sequence[Mapping[str, Any]],
    *,
    out: str | Path,
    lab: Lab | None = None,
    workers: int | None = None,
    night: date | None = None,
    progress: Progress = None,
) -> Night:
    """Run sweeps one after the other, keep every point, and write a page of what they gave.

    Run it twice in one night, or again after it was killed: no point is replayed twice.

    Parameters
    ----------
    sweeps
        Mappings with the fields of `fxlab.batcher.nightly.NightlySweep`, or a TOML file
        with a table ``[defaults]`` and a table ``[[sweep]]`` for each.
    out
        The folder of all nights; each has a folder in it, named by its date, with ``index.html``
        and the whole table of every sweep as Parquet. ``index.html`` above leads to all nights.
    lab
        Where the sessions are and points are kept; connected to unless given.
    workers
        Threads; as many as there are cores unless given.
    night
        The date; that of now, in UTC, unless given.
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
    plan = checked(load_jobs(sweeps, "sweep"))
    root = Path(out).resolve()
    with connected(lab) as store, only_one(root), shown(progress, "nightly") as advance:
        log = _Log(root, day)
        for number, one in enumerate(plan):
            share = part(advance, number / len(plan), (number + 1) / len(plan))
            log.add(one, store, threads, _named(share, one.name))
        advance(1.0, f"{len(plan):,} sweeps")
        return log.show()


class _Log:
    """The sweeps of a night so far, and its page."""

    def __init__(self, root: Path, day: date) -> None:
        self._root, self._day = root, day
        self._folder = root / day.isoformat()
        self._folder.mkdir(exist_ok=True)
        self._rows: list[dict[str, Any]] = []
        self._sweeps: dict[str, Sweep] = {}

    def add(self, one: NightlySweep, lab: Lab, workers: int, progress: Advance) -> None:
        """Run a sweep and note how it ended; only an interruption goes on to the caller."""
        began = datetime.now(UTC)
        try:
            found = one.run(lab, workers, progress)
        except (KeyboardInterrupt, Cancelled) as stop:
            self._stopped(one, stop, began)
        except FxlabError as error:
            self._rows.append(_row(one, began, state="failed", error=str(error)))
        except Exception as error:  # noqa: BLE001 - a night goes on, whatever one sweep meets
            path = self._folder / f"{one.slug}.error.txt"
            write_whole(path, traceback.format_exc())
            words = f"{type(error).__name__}: {error}; the traceback is in {path.name}"
            self._rows.append(_row(one, began, state="failed", error=words))
        else:
            self._keep(one, found, began)
        self.show()

    def show(self) -> Night:
        """Write the page of the night and that of all nights."""
        page = self._folder / "index.html"
        write_whole(page, render_night(self._day, self._rows, self._sweeps))
        write_whole(self._root / "index.html", render_all(self._root))
        return Night(pl.DataFrame(self._rows, schema=SCHEMA), self._sweeps, page)

    def _keep(self, one: NightlySweep, found: Sweep, began: datetime) -> None:
        found.table.write_parquet(self._folder / f"{one.slug}.parquet")
        self._sweeps[one.name] = found
        self._rows.append(_ended(one, found, began))

    def _stopped(self, one: NightlySweep, stop: BaseException, began: datetime) -> None:
        if isinstance(stop, SweepCancelled):
            self._keep(one, stop.sweep, began)  # type: ignore[arg-type]  # errors know no sweep
        page = self.show().index
        raise Cancelled(
            f"the night was stopped in its sweep {one.name!r}; every point that was done is kept, "
            f"{page} shows them, and the same call goes on from there"
        ) from stop


def _named(progress: Advance, name: str) -> Advance:
    return lambda share, words: progress(share, f"{name}: {words}")


RANKED: Final = 10


def render_night(day: date, rows: Sequence[Mapping[str, Any]], sweeps: Mapping[str, Sweep]) -> str:
    """Return the page of one night.

    Parameters
    ----------
    day
        Its date.
    rows
        Of `SCHEMA`, one a sweep.
    sweeps
        Those that have points, by name.
    """
    shown = [
        {
            **row,
            "notebook": None,
            "figure": show_metric(row["best"], METRICS[row["metric"]][0]),
            "odds": [show_metric(row[name], "probability") for name in ("deflated_sharpe", "pbo")],
            "took": show_seconds(row["seconds"]),
        }
        for row in rows
    ]
    now = datetime.now(UTC).replace(microsecond=0)
    return _html.page(
        "night",
        title=f"Sweeps of {day.isoformat()}",
        now=now,
        rows=shown,
        sections=[_section(number, *found) for number, found in enumerate(sweeps.items())],
        plotly=plotly_source() if sweeps else "",
    )


def render_all(root: Path) -> str:
    """Return the page that leads to all nights in a folder, the newest first."""
    nights = sorted((path.parent.name for path in root.glob("*/index.html")), reverse=True)
    return _html.page("nights", title="Nights", nights=nights, plotly="")


def _section(number: int, name: str, found: Sweep) -> Section:
    """Return the picture of a sweep and its best points."""
    words = [] if found.table.is_empty() else [verdict(found)]
    best = found.ranking().head(RANKED)
    if best.is_empty():
        return name, [*words, str(found)]
    if len(found.sessions) == 1:
        best = best.drop("sessions", "worst", "best")
    digits = dict.fromkeys((found.metric, "worst", "best"), 4)
    ranked = _html.table(best, caption="The best points", decimals=digits, inline=False)
    figure = found.heatmap() if len(found.varied) > 1 else found.parallel()
    return name, [*words, embed(figure, f"sweep-{number}", ""), ranked]
