"""One sweep of a night: which sessions, which points, under which assumptions."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING, Any, Self

from fxlab.backtester.assumptions import check_names, execution_of
from fxlab.backtester.ranges import values_between
from fxlab.backtester.run_options import RunOptions, renamed
from fxlab.backtester.strategy import Strategy, get
from fxlab.batcher.plans import refuse_mistakes
from fxlab.errors import EmptySession, FxlabError, InvalidParameter
from fxlab.numbers import integer
from fxlab.progress import Advance
from fxlab.sweeper import scores
from fxlab.sweeper.space import Space
from fxlab.sweeper.sweeping import sweep

if TYPE_CHECKING:
    from fxlab.lab import Lab
    from fxlab.sessions import Session
    from fxlab.sweeper.sweep import Sweep

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
            For a name that is none, a value out of range, or a sweep without sessions.
        """
        if isinstance(given, cls):
            return given
        if not isinstance(given, Mapping):
            raise InvalidParameter(f"{given!r:.80} is not a sweep; give a mapping of its fields")
        given = renamed(given)
        check_names(given, [spec.name for spec in fields(cls)], "a sweep")
        for name in ("strategy", "parameters"):
            if name not in given:
                raise InvalidParameter(f"the sweep has no {name}; give it, or set it in [defaults]")
        chosen = get(given["strategy"])
        values = {**given, "strategy": given["strategy"], "name": given.get("name") or chosen.name}
        values["parameters"] = _grid(chosen, given["parameters"])
        if isinstance(given.get("execution"), Mapping):
            values["execution"] = execution_of(given["execution"])
        made = cls(**values)
        Space.of(chosen, made.parameters)
        scores.check_goal(made.metric)
        made.check_rule()
        return made

    @property
    def slug(self) -> str:
        """Return the name as it can stand in names of files."""
        return re.sub(r"[^A-Za-z0-9_.]+", "-", self.name).strip("-.")[:60] or "sweep"

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
            kept = [row for row in rows.iter_rows(named=True) if self._fits(row["tags"])]
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

    def _fits(self, tags: Sequence[str] | None) -> bool:
        return not self.tag or self.tag in (tags or ())


def checked(given: Sequence[NightlySweep | Mapping[str, Any]]) -> list[NightlySweep]:
    """Return the sweeps of a night, each under a name of its own.

    Raises
    ------
    InvalidInput
        With what is wrong, sweep by sweep.
    """
    mistakes: list[tuple[str, FxlabError]] = []
    found: list[NightlySweep] = []
    for number, one in enumerate(given, 1):
        try:
            made = NightlySweep.of(one)
            if made.slug in {other.slug for other in found}:
                raise InvalidParameter(
                    f"another sweep is called {made.name!r} too; give each a name"
                )
            found.append(made)
        except FxlabError as error:
            mistakes.append((f"sweep {number}", error))
    refuse_mistakes(mistakes, "sweep")
    return found


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
