"""Run options: what a backtest is asked for beside its ticks and its strategy, spelled once.

`backtest`, `sweep`, `walk_forward`, `replay`, `cost_ladder`, the jobs of a batch, the sweeps of a
night and the command line take the same options with the same defaults: the fields of `RunOptions`.
"""

from __future__ import annotations

import inspect
import math
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, Self, TypedDict, TypeVar

from fxlab.backtester.execution import Execution
from fxlab.errors import InvalidParameter, did_you_mean
from fxlab.numbers import integer, number
from fxlab.times import Duration, Time, parse_duration

MOST_DAYS: Final = 366
SHORTEST_INTERVAL_US: Final = 1_000_000

_Function = TypeVar("_Function", bound=Callable[..., Any])


class Options(TypedDict, total=False):
    """The fields of `RunOptions` as keywords, for type checkers."""

    symbols: str | list[str] | tuple[str, ...]
    start: Time | None
    end: Time | None
    execution: Execution | None
    capital: float
    return_interval: Duration
    days_per_year: float
    chunk_rows: int | None


@dataclass(frozen=True, kw_only=True)
class RunOptions:
    """Options of a run.

    Attributes
    ----------
    symbols
        ``"ALL"``, one symbol or several. Several are legs of equal capital: each trades its own
        share, and the equity is their sum at every tick. Their prices are in one currency, as
        their names say (``BTC_USDT`` is in USDT); where no name says one, it is taken to be the
        same.
    start, end
        A half-open time range; naive times mean UTC.
    execution
        Fill rule, fees, slippage, latency; ``Execution()`` unless given.
    capital
        Money at the start, in quote currency.
    return_interval
        Spacing of the return series that ratios are computed on.
    days_per_year
        How many days' worth of return intervals the ratios and volatility take for a year. Leave
        it, for FX too: closed hours are intervals with a return of zero, so a year has 365.25 days
        of them in every market. The annual return does not depend on it: it compounds by calendar
        time, and over a year it is the total return.
    chunk_rows
        Rows held at a time, where the strategy's lookback is known; the source's own choice
        unless given. Never changes a result.
    """

    symbols: str | list[str] | tuple[str, ...] = "ALL"
    start: Time | None = None
    end: Time | None = None
    execution: Execution = field(default_factory=Execution)
    capital: float = 10_000.0
    return_interval: Duration = "1m"
    days_per_year: float = 365.25
    chunk_rows: int | None = None

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Return the options that keywords make; what is not named has its default.

        Raises
        ------
        TypeError
            For a keyword that is none, with those that are near.
        """
        named = {k: v for k, v in renamed(options).items() if k != "execution" or v is not None}
        known = [spec.name for spec in fields(cls)]
        for name in named:
            if name not in known:
                near = did_you_mean(name, known)
                raise TypeError(f"unexpected keyword argument {name!r}; {near or f'use {known}'}")
        return cls(**named)

    def keywords(self) -> dict[str, Any]:
        """Return the options as keywords, such as `fxlab.backtest` takes them."""
        return {spec.name: getattr(self, spec.name) for spec in fields(RunOptions)}

    @property
    def return_interval_us(self) -> int:
        """Return the spacing of the return series in microseconds.

        Raises
        ------
        InvalidParameter
            If it is no duration, or shorter than a second.
        """
        spacing = parse_duration(self.return_interval, "return_interval")
        if spacing < SHORTEST_INTERVAL_US:
            raise InvalidParameter(
                f"return_interval={self.return_interval!r} is too fine: returns need one of at "
                "least '1s'"
            )
        return spacing


def renamed(options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options by their names of today; until 0.3 `return_interval` was called ``grid``."""
    if "grid" not in options:
        return dict(options)
    warnings.warn(
        "grid= is called return_interval= since 0.4; the old name goes with 0.5",
        DeprecationWarning,
        stacklevel=4,
    )
    return {("return_interval" if k == "grid" else k): value for k, value in options.items()}


def takes_run_options(function: _Function) -> _Function:
    """Show the run options in a function's signature, where ``**options`` stands.

    Notebooks and `help` read the signature; the function gets what was given as a mapping.
    """
    signature = inspect.signature(function)
    own = [p for p in signature.parameters.values() if p.kind is not p.VAR_KEYWORD]
    shown = [
        inspect.Parameter(
            spec.name,
            inspect.Parameter.KEYWORD_ONLY,
            default=None if spec.name == "execution" else spec.default,
            annotation=Options.__annotations__[spec.name],
        )
        for spec in fields(RunOptions)
        if spec.name not in signature.parameters
    ]
    parameters = sorted([*own, *shown], key=lambda parameter: parameter.kind)
    function.__signature__ = signature.replace(parameters=parameters)  # type: ignore[attr-defined]
    return function


def check_capital(capital: float) -> float:
    """Return the capital as a float, or raise `InvalidParameter` unless it is above zero."""
    if number(capital) is None:
        raise InvalidParameter(f"capital={capital!r} is not a number; give money, e.g. 10_000")
    if not (math.isfinite(capital) and capital > 0):
        raise InvalidParameter(f"capital={capital} must be above zero; give money, e.g. 10_000")
    if not 1e-100 <= capital <= 1e100:
        raise InvalidParameter(f"capital={capital:g} is not from 1e-100 to 1e100; e.g. 10_000")
    return float(capital)


def check_days_per_year(days: float) -> float:
    """Return the days of a year as a float, or raise `InvalidParameter`."""
    found = number(days, 0, MOST_DAYS)
    if not found:
        raise InvalidParameter(
            f"days_per_year={days!r:.80} is not a number of days above 0 and up to {MOST_DAYS}; "
            "365.25 is right in every market, closed hours are intervals too"
        )
    return float(found)


def check_chunk_rows(rows: int | None) -> int | None:
    """Return the rows of a chunk, or raise `InvalidParameter` unless there is at least one."""
    if rows is None:
        return None
    count = integer(rows, 1)
    if count is None:
        raise InvalidParameter(
            f"chunk_rows={rows!r:.80} is not a number of rows; give 1 or more, or leave it out"
        )
    return count
