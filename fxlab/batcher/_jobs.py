"""Jobs of a batch, sweeps of a night: job files read, each one checked before anything runs.

A kernel takes seconds to start, and a typing error would cost a whole night. So a sweep is checked
here as far as that goes without a session; a job, by `batch.checked`, as far as the engine goes
without reading a tick.

A job file says shared values once, then a table for each piece of work: ``[defaults]`` holds what
the pieces have in common, such as session and execution; each ``[[job]]`` or ``[[sweep]]`` below it
adds its own values, or replaces shared ones. A night's file may say in ``[night]`` what its command
takes as options.
"""

from __future__ import annotations

import hashlib
import json
import tomllib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, fields
from datetime import UTC, date, datetime, timedelta
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Self, TypeVar

import polars as pl

from fxlab._html import slug
from fxlab._times import integer, parse_json, parse_range, required
from fxlab.backtester.execution import Execution
from fxlab.backtester.options import RunOptions, execution_of, renamed
from fxlab.backtester.strategy.strategy import Strategy, Value, get, values_between
from fxlab.batcher.runner import NIGHT
from fxlab.errors import EmptySession, FxlabError, InvalidInput, InvalidParameter, check_names
from fxlab.sweeper._results import check_objective, worth
from fxlab.sweeper._space import Space, choose
from fxlab.sweeper.sweep import POINTS_LIMIT, sweep
from fxlab.sweeper.walk_forward import check_splits

if TYPE_CHECKING:
    from fxlab._progress import Advance
    from fxlab.lab import Lab
    from fxlab.sessions.session import Session
    from fxlab.sweeper.sweep import Sweep


_SHIPPED: Final = "fxlab.backtester.strategy._builtin"

Given = TypeVar("Given")
Made = TypeVar("Made")


@dataclass(frozen=True, kw_only=True)
class BatchJob(RunOptions):
    """One backtest of a batch; the fields are what `fxlab.backtest` takes.

    Attributes
    ----------
    session
        The session's id.
    strategy
        A shipped strategy's name, or ``module:function``: the notebook has to import it.
    name
        What the job is called in tables; made of strategy and parameters unless given.

    Examples
    --------
    >>> job = fxlab.BatchJob(
    ...     session="demo", strategy="sma_cross", parameters={"fast": 5}, capital=1_000.0
    ... )
    >>> job.capital, job.symbols
    (1000.0, 'ALL')
    """

    session: str
    strategy: str
    parameters: Mapping[str, Value] = field(default_factory=dict)
    name: str = ""

    @classmethod
    def of(cls, given: Self | Mapping[str, Any]) -> Self:
        """Return a job as people write it: fields by name, a session or a strategy as itself.

        Raises
        ------
        InvalidParameter
            For an unknown name ("did you mean"), or a field that is missing.
        """
        if isinstance(given, cls):
            return given
        values = named_fields(cls, given, "job", ("session", "strategy"))
        values["session"] = getattr(values["session"], "id", values["session"])
        values["strategy"] = importable(values["strategy"])
        _check_kinds(values)
        return cls(**values)


def importable(strategy: str | Strategy | Callable[..., Any]) -> str:
    """Return the name under which another process finds a strategy.

    Raises
    ------
    StrategyNotFound, InvalidParameter
        If there is no such strategy, or it lives in this process only.
    """
    found = get(strategy)
    module = str(getattr(found.function, "__module__", ""))
    if module == _SHIPPED or (":" in found.name and found.name == strategy):
        return found.name
    path = f"{module}:{getattr(found.function, '__qualname__', '')}"
    if module == "__main__" or "<" in path:
        raise InvalidParameter(
            f"strategy {found.name!r} lives in this notebook or script only, and each job has a "
            "kernel of its own; put it into a file beside and name it as 'module:function'"
        )
    return get(path).name


_MANY: Final = 100_000  # sessions that a rule finds, at most
_MOST_DAYS: Final = 36_500
_RANGE: Final = {"from", "to", "step"}


SCHEMA: Final[dict[str, Any]] = {
    **dict.fromkeys(("sweep", "state", "strategy"), pl.String),
    "sessions": pl.List(pl.String),
    **dict.fromkeys(("points", "from_before", "failed"), pl.Int64),
    "metric": pl.String,
    "best": pl.Float64,
    "parameters": pl.String,
    **dict.fromkeys(("deflated_sharpe", "pbo"), pl.Float64),
    "tried": pl.Int64,
    "splits": pl.String,
    "windows": pl.Int64,
    **dict.fromkeys(("in_sample", "out_of_sample", "seconds"), pl.Float64),
    "error": pl.String,
}


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
        All completed sessions with this tag.
    days
        All completed sessions that have ticks on one of so many days before the night's date, or on
        that date itself; days are UTC.
    newest
        So many of the newest completed sessions; `tag`, `days` and `newest` may stand together,
        and a session has to match all of them.
    symbol
        Of those that `tag`, `days` or `newest` finds only the ones with this symbol; then only it
        is traded, unless `symbols` says otherwise.
    splits
        Windows of a walk-forward over the same grid, after the sweep, on each of its sessions:
        ``train`` with ``test`` or ``folds``, ``mode`` and ``embargo``, as `fxlab.walk_forward`
        takes them. No walk-forward unless given.
    """

    strategy: str
    parameters: Mapping[str, Any]
    name: str = ""
    sessions: Sequence[str] = ()
    tag: str = ""
    days: int = 0
    newest: int = 0
    symbol: str = ""
    search: str = "grid"
    points: int | None = None
    seed: int = 0
    metric: str = "sharpe_per_period"
    splits: Mapping[str, Any] = field(default_factory=dict)

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
        _check_kinds(values)
        chosen = get(values["strategy"])
        values["name"] = values.get("name") or chosen.name
        values["parameters"] = _grid(chosen, values["parameters"])
        values["splits"] = check_splits(values.get("splits", {}))
        made = cls(**values)
        made.chosen_points()
        check_objective(made.metric)
        made.check_rule()
        return made

    def chosen_points(self) -> int:
        """Return how many points are tried on each session, at most."""
        space = Space.of(get(self.strategy), self.parameters)
        points = choose(space, self.search, self.points, self.seed, points_limit=POINTS_LIMIT)
        return points.total

    @property
    def slug(self) -> str:
        """Return the name as it can stand in names of files."""
        return slug(self.name, "sweep")

    @property
    def terms(self) -> dict[str, str]:
        """Return what decides its figures beside the ticks, as texts by name.

        Figures of two nights can be compared if all of these are the same. The strategy's code is
        a hash here; which sessions the rule finds is no term: they change from night to night. Nor
        are splits, which decide no point.
        """
        left_out = {"name", "chunk_rows", "sessions", "tag", "days", "newest", "splits"}
        values = {s.name: getattr(self, s.name) for s in fields(self) if s.name not in left_out}
        values["execution"] = self.execution.as_dict()
        texts = {name: json.dumps(value, default=_plain) for name, value in values.items()}
        return texts | {"code": hashlib.sha256(get(self.strategy).source.encode()).hexdigest()[:16]}

    def run_keywords(self) -> dict[str, Any]:
        """Return the options of its runs as keywords."""
        options = self.keywords()
        if self.symbol and self.symbols == "ALL":
            options["symbols"] = [self.symbol]
        return options

    def check_rule(self) -> None:
        """Raise `InvalidParameter` unless exactly one rule says which sessions."""
        required(
            integer(self.newest, 0, _MANY),
            f"newest={self.newest!r:.80} is not a number of sessions; give 1 to {_MANY:,}",
        )
        required(
            integer(self.days, 0, _MOST_DAYS),
            f"days={self.days!r:.80} is not a number of days; give 1 to {_MOST_DAYS:,}, such as "
            "days = 7",
        )
        if bool(self.sessions) == bool(self.tag or self.newest or self.days):
            raise InvalidParameter(
                "say once which sessions: sessions = [ids], or one or more of tag = 'btc', "
                "days = 7 and newest = 3; with these, symbol = 'BTC_USDT' takes those that have it"
            )

    def find(self, lab: Lab, night: date | None = None) -> list[Session]:
        """Return the sessions, those of a rule the newest first.

        Parameters
        ----------
        lab
            Where they are.
        night
            The date that `days` are counted back from; today unless given.

        Raises
        ------
        SessionNotFound, EmptySession
            If an id does not exist, or the rule finds none.
        """
        day = night or datetime.now(UTC).date()
        ids = [self.sessions] if isinstance(self.sessions, str) else list(self.sessions)
        if not ids:
            first, end = self._range(day)
            ids = lab.sessions(
                symbol=self.symbol or None, tag=self.tag or None, start=first, end=end,
                status="completed", limit=self.newest or _MANY,
            )["session_id"].to_list()  # fmt: skip
        if not ids:
            raise EmptySession(
                f"no completed session has {self.rule_words(day)}; list them with: "
                "fxlab sessions list"
            )
        return [lab.session(name) for name in ids]

    def _range(self, night: date) -> tuple[date | None, date | None]:
        """Return the half-open range of time in which a session has to have ticks."""
        if not self.days:
            return None, None
        return night - timedelta(days=self.days), night + timedelta(days=1)

    def rule_words(self, night: date) -> str:
        """Return what sessions have to have, in words."""
        words = [f"the tag {self.tag!r}"] if self.tag else []
        if self.symbol:
            words.append(f"the symbol {self.symbol!r}")
        first, _ = self._range(night)
        if first is not None or not self.tag:
            words.append("a tick" if first is None else f"ticks from {first} to {night}")
        return " and ".join(words)

    def run(self, lab: Lab, night: date, workers: int, progress: Advance) -> Sweep:
        """Run the sweep, every point kept in the lab's database."""
        return sweep(
            self.find(lab, night),
            self.strategy,
            self.parameters,
            search=self.search,
            points=self.points,
            seed=self.seed,
            metric=self.metric,
            workers=workers,
            lab=lab,
            progress=progress,
            **self.run_keywords(),
        )

    def best_job(self, found: Sweep) -> BatchJob:
        """Return the backtest of the best point, on the first of the sweep's sessions."""
        return BatchJob(
            session=found.sessions[0],
            strategy=self.strategy,
            parameters=found.best,
            name=self.name,
            **self.run_keywords(),
        )

    def row(self, began: datetime, **values: Any) -> dict[str, Any]:  # noqa: ANN401 - of `SCHEMA`
        """Return what became of it, a row of `SCHEMA`; null is what is not given."""
        return {
            **dict.fromkeys(SCHEMA),
            "sweep": self.name,
            "strategy": self.strategy,
            "metric": self.metric,
            "splits": ", ".join(f"{name} {value}" for name, value in self.splits.items()) or None,
            "seconds": (datetime.now(UTC) - began).total_seconds(),
            **values,
        }

    def preview(self, lab: Lab, night: date) -> dict[str, Any]:
        """Return the row of a sweep that waits: what it would run on, or why it cannot."""
        now = datetime.now(UTC)
        try:
            ids = [session.id for session in self.find(lab, night)]
        except FxlabError as error:
            return self.row(now, state="failed", error=str(error))
        points = self.chosen_points() * len(ids)
        return self.row(now, state="waiting", sessions=ids, points=points)

    def row_of(self, found: Sweep, began: datetime) -> dict[str, Any]:
        """Return the row of a sweep that ran; with no point done it has failed as well."""
        states = dict(found.table["state"].value_counts().iter_rows())
        stopped = found.table.height < found.total
        row = self.row(
            began,
            state="stopped" if stopped else "done",
            sessions=list(found.sessions),
            points=found.table.height,
            from_before=found.resumed,
            failed=states.get("failed", 0),
        )
        if states.get("done"):
            return row | worth(found)
        errors = found.table["error"].drop_nulls().to_list()
        return row if stopped else row | {"state": "failed", "error": (errors or ["no point"])[0]}


def checked_sweeps(given: Sequence[NightlySweep | Mapping[str, Any]]) -> list[NightlySweep]:
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


def _plain(value: Any) -> Any:  # noqa: ANN401 - whatever a plan holds
    """Return what `json` cannot write in a form that it can."""
    if isinstance(value, Mapping):
        return dict(value)
    return list(value) if isinstance(value, range) else str(value)


DEFAULTS: Final = "defaults"
_SHOWN: Final = 5
"""Mistakes named at once, at most."""


def read_plan(plan: str | Path | Sequence[Any] | Mapping[str, Any], kind: str) -> Any:  # noqa: ANN401
    """Return what a TOML or JSON file of work holds; what is no path is returned as it is.

    Raises
    ------
    InvalidInput
        If the file cannot be read.
    """
    return _read(Path(plan), kind) if isinstance(plan, str | Path) else plan


def load_jobs(plan: str | Path | Sequence[Any] | Mapping[str, Any], kind: str) -> Sequence[Any]:
    """Return the pieces of work of a plan, what they have in common filled in.

    Parameters
    ----------
    plan
        A TOML or JSON file, its content as a mapping, or the pieces themselves.
    kind
        What the tables of the file are called: ``job`` or ``sweep``.

    Raises
    ------
    InvalidInput
        If the file cannot be read, has another table, or there is no work in it.
    """
    held = read_plan(plan, kind)
    found = _filled_in(held, kind) if isinstance(held, Mapping) else list(held)
    if not found:
        raise InvalidInput(f"there is nothing to run; write at least one [[{kind}]]")
    return found


def each_checked(
    given: Sequence[Given], kind: str, make: Callable[[Given, Sequence[Made]], Made]
) -> list[Made]:
    """Return what is made of each piece of work, in view of those before it.

    Raises
    ------
    InvalidInput
        With the first mistakes, piece by piece, if there are any.
    """
    mistakes: list[str] = []
    made: list[Made] = []
    for number, one in enumerate(given, 1):
        try:
            made.append(make(one, made))
        except FxlabError as error:
            mistakes.append(f"{kind} {number}: {error}")
    if not mistakes:
        return made
    more = f"; and {len(mistakes) - _SHOWN:,} more" if len(mistakes) > _SHOWN else ""
    count = f"{len(mistakes):,} {kind}s are" if len(mistakes) > 1 else f"a {kind} is"
    raise InvalidInput(
        f"nothing was run, because {count} not possible: {'; '.join(mistakes[:_SHOWN])}{more}"
    )


def named_fields(
    made: type[RunOptions], given: object, kind: str, needed: Sequence[str]
) -> dict[str, Any]:
    """Return a piece of work as people write it, by the names of its fields.

    Raises
    ------
    InvalidParameter
        For an unknown name ("did you mean"), or a field that is missing.
    """
    if not isinstance(given, Mapping):
        raise InvalidParameter(
            f"{given!r:.80} is not a {kind}; give a mapping of its fields, such as "
            "{'strategy': 'sma_cross', 'parameters': {'fast': 10}}"
        )
    values = {name: value for name, value in renamed(given).items() if value is not None}
    check_names(values, [spec.name for spec in fields(made)], f"a {kind}")
    for name in needed:
        if values.get(name, "") in (None, ""):
            raise InvalidParameter(f"the {kind} has no {name}; give it, or set it in [{DEFAULTS}]")
    execution = values.get("execution")
    if isinstance(execution, Mapping):
        values["execution"] = execution_of(execution)
    elif not isinstance(execution, Execution | None):
        raise InvalidParameter(
            f"execution={execution!r:.80} names no assumption; write execution = "
            "{ taker_bps = 1, latency = '50ms' }"
        )
    return values


_TEXTS: Final = ("session", "name", "tag", "symbol", "search", "metric")
_LISTS: Final = ("symbols", "sessions")


def _check_kinds(values: Mapping[str, Any]) -> None:
    """Refuse what a file can hold and no run can take, before a night: 5 is no name, True no seed.

    Raises
    ------
    InvalidParameter, InvalidTimeRange
        Naming the field.
    """
    for name in _TEXTS:
        if not isinstance(values.get(name, ""), str):
            raise InvalidParameter(
                f'{name}={values[name]!r:.80} is not a text; put it in quotes: {name} = "..."'
            )
        if not values.get(name, "").isprintable():  # no page and no table could show it
            raise InvalidParameter(
                f"{name}={values[name]!r:.80} has characters that cannot be printed; leave them out"
            )
    for name in _LISTS:
        given = values.get(name, "")
        texts = given if isinstance(given, list | tuple) else [given]
        if not all(isinstance(one, str) for one in texts):
            raise InvalidParameter(
                f'{name}={given!r:.80} is not a list of texts; write {name} = ["..."]'
            )
    required(
        integer(values.get("seed", 0), 0),
        f"seed={values.get('seed')!r:.80} is not a whole number from 0 on; such as seed = 1",
    )
    parse_range(values.get("start"), values.get("end"))


def _read(path: Path, kind: str) -> Any:  # noqa: ANN401 - JSON may hold a list
    as_json = path.suffix.lower() == ".json"
    form = "JSON" if as_json else "TOML"
    try:
        text = path.read_text(encoding="utf-8")
        found = parse_json(text) if as_json else tomllib.loads(text)
    except OSError as error:
        raise InvalidInput(
            f"{path} cannot be read ({error.strerror}); give a TOML file with [[{kind}]] tables"
        ) from error
    except (ValueError, RecursionError) as error:
        raise InvalidInput(f"{path} is not a {form} file: {error}") from error
    if not isinstance(found, dict | list):
        raise InvalidInput(f'{path} holds no {kind}; write {{"{kind}": [{{...}}]}}')
    return found


def _filled_in(plan: Mapping[str, Any], kind: str) -> list[dict[str, Any]]:
    check_names(plan, (DEFAULTS, kind, *([NIGHT] if kind == "sweep" else [])), "the plan")
    shared, own = plan.get(DEFAULTS, {}), plan.get(kind, [])
    tables = [shared, *own] if isinstance(own, list) else [own]
    if not (isinstance(own, list) and all(isinstance(table, Mapping) for table in tables)):
        raise InvalidInput(f"write [{DEFAULTS}] once, and [[{kind}]] above each {kind}")
    return [_merged(shared, table) for table in own]


def _merged(shared: Mapping[str, Any], own: Mapping[str, Any]) -> dict[str, Any]:
    """Return both; of assumptions about orders each one by itself."""
    whole = {**shared, **own}
    both = [table.get("execution") for table in (shared, own)]
    if all(isinstance(each, Mapping) for each in both):
        whole["execution"] = {**both[0], **both[1]}  # type: ignore[dict-item]
    return whole
