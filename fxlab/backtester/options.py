"""Run options of all entry points; execution assumptions from files and words; FX pips and swap.

`backtest`, `sweep`, `walk_forward`, `replay`, `cost_ladder`, the jobs of a batch, the sweeps of a
night and the command line take the same options with the same defaults, spelled once: the fields of
`RunOptions`.

In a file, on a command line, in a form, assumptions about orders are texts and plain numbers. Here
they become an `Execution`, and an unknown name is refused with those that are near, before anything
runs.

A pip is the fourth decimal of a price, the second where the quote currency is worth about a
hundredth of the others (yen, forint). Brokers quote a tenth of it. `swap_rates` are what an FX
position costs a day.
"""

from __future__ import annotations

import inspect
import math
import re
import tomllib
import warnings
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from datetime import datetime, time, timedelta
from pathlib import Path
from typing import Any, Final, Self, TypedDict, TypeVar
from zoneinfo import ZoneInfo

import polars as pl

from fxlab._times import (
    Duration,
    Time,
    from_micros,
    integer,
    number,
    parse_duration,
    parse_range,
    required,
    to_micros,
)
from fxlab.backtester.execution import RECORDED_OR_NONE, Execution, parse_funding
from fxlab.errors import InvalidParameter, check_names, did_you_mean
from fxlab.schema import UTC_MICROS

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

    Examples
    --------
    >>> options = fxlab.RunOptions(capital=1_000.0, return_interval="1s")
    >>> fxlab.backtest(ticks, "buy_and_hold", **options.keywords()).capital
    1000.0
    """

    symbols: str | list[str] | tuple[str, ...] = "ALL"
    start: Time | None = None
    end: Time | None = None
    execution: Execution = field(default_factory=Execution)
    capital: float = 10_000.0
    return_interval: Duration = "1m"
    days_per_year: float = 365.25
    chunk_rows: int | None = None

    def __post_init__(self) -> None:
        for name, check in _CHECKS.items():
            object.__setattr__(self, name, check(getattr(self, name)))
        _ = self.return_interval_us  # raises

    @classmethod
    def of(cls, options: Mapping[str, Any]) -> Self:
        """Return the options that keywords make; what is not named has its default.

        Raises
        ------
        TypeError
            For an unknown keyword, with those that are near.
        InvalidParameter
            For a value that breaks its rule.
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
    return required(
        integer(rows, 1),
        f"chunk_rows={rows!r:.80} is not a number of rows; give 1 or more, or leave it out",
    )


_CHECKS: Final[dict[str, Callable[[Any], Any]]] = {
    "capital": check_capital,
    "days_per_year": check_days_per_year,
    "chunk_rows": check_chunk_rows,
}

NAMES: Final = tuple(spec.name for spec in fields(Execution))
_OR_NONE: Final = ("maker_bps", "max_book_age", "rebalance")
_LATENCY: Final = {"kind", "values_us", "seed"}  # as `Latency.as_dict` writes it
_READERS: Final[dict[str, Callable[[Path], pl.DataFrame]]] = {
    ".csv": pl.read_csv,
    ".parquet": pl.read_parquet,
}


def execution_of(values: Mapping[str, object]) -> Execution:
    """Return the assumptions that plain values stand for.

    Parameters
    ----------
    values
        Fields of `Execution` by name. Where None is allowed the text ``"none"`` is it, and
        ``funding`` may be the path of a CSV or Parquet file, "recorded" or "none".

    Raises
    ------
    InvalidParameter
        For an unknown name ("did you mean"), or a value that `Execution` refuses.
    """
    check_names(values, NAMES, "an execution")
    return Execution.from_dict({name: _plain(name, value) for name, value in values.items()})


def read_assumptions(path: str | Path) -> dict[str, Any]:
    """Return the fields in a TOML file: those of its table ``[execution]``, if it has one.

    Raises
    ------
    InvalidParameter
        If there is no such file, or it is not TOML.
    """
    try:
        found = tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise InvalidParameter(f"{path} cannot be read as a TOML file: {error}") from error
    inner = found.get("execution", found)
    if not isinstance(inner, dict):
        raise InvalidParameter(f"{path}: execution is not a table; write [execution] above it")
    return inner


def parse_assumption(word: str) -> tuple[str, object]:
    """Return the name and the value of ``name=value``; values are written as in TOML, or bare.

    Raises
    ------
    InvalidParameter
        If there is no ``=``.
    """
    name, equals, text = word.partition("=")
    if not equals:
        raise InvalidParameter(
            f"{word!r:.80} is neither a TOML file nor NAME=VALUE, such as max_leverage=2"
        )
    try:
        found = tomllib.loads(f"value = {text}")
    except tomllib.TOMLDecodeError:
        found = {}
    return name.strip(), found["value"] if found.keys() == {"value"} else text.strip()


def _plain(name: str, value: object) -> object:
    if name == "funding" and isinstance(value, str) and value.strip() in RECORDED_OR_NONE:
        return value.strip()
    if name in _OR_NONE and isinstance(value, str) and value.strip().lower() == "none":
        return None
    if name == "funding" and isinstance(value, str | Path):
        return _funding(Path(value))
    if name == "funding" and not isinstance(value, list | tuple):
        return parse_funding(value)  # refuses what is no frame
    if name == "latency" and isinstance(value, Mapping) and value.keys() != _LATENCY:
        raise InvalidParameter(
            f"latency={dict(value)!r:.80} is not a latency; write it as text: '50ms', 'measured', "
            "'lognormal:20ms,0.5'"
        )
    return value


def _funding(path: Path) -> tuple[Any, ...]:
    """Return the rates in a file, as `Execution` keeps them."""
    reader = _READERS.get(path.suffix.lower())
    if reader is None or not path.is_file():
        raise InvalidParameter(
            f"funding={str(path)!r:.200} is not a CSV or Parquet file; it needs the columns "
            "timestamp and rate (or rate_long and rate_short), and symbol if they differ by it"
        )
    frame = reader(path)
    if frame.schema.get("timestamp") == pl.String:
        times = pl.col("timestamp").str.to_datetime(time_unit="us", time_zone="UTC", strict=False)
        frame = frame.with_columns(times.cast(UTC_MICROS))
    return parse_funding(frame)


COARSE: Final = frozenset({"JPY", "HUF", "KRW", "INR", "THB", "CLP"})
"""Quote currencies whose pip is 0.01."""

_PAIR: Final = re.compile(r"([A-Z]{3})[_/.:-]?([A-Z]{3})")


def pip_size(symbol: str) -> float:
    """Return the size of a pip of a currency pair, in quote currency.

    Parameters
    ----------
    symbol
        Six letters, with or without a separator: ``"EUR_USD"``, ``"USDJPY"``.

    Raises
    ------
    InvalidParameter
        If the symbol is no pair of currencies.

    Examples
    --------
    >>> fxlab.pip_size("EUR_USD"), fxlab.pip_size("USDJPY")
    (0.0001, 0.01)
    """
    found = _PAIR.fullmatch(symbol)
    if found is None:
        raise InvalidParameter(
            f"{symbol!r} is not a currency pair such as EUR_USD or USDJPY; give the pip yourself"
        )
    return 0.01 if found[2] in COARSE else 0.0001


def with_pips(trades: pl.DataFrame) -> pl.DataFrame:
    """Return round trips with a column ``pips``: price gained, before costs, in pips.

    Parameters
    ----------
    trades
        As in `Result.trades`; every symbol a currency pair.

    Examples
    --------
    >>> result = fxlab.backtest(
    ...     ticks.with_columns(symbol=pl.lit("EUR_USD")), "sma_cross", {"fast": 5, "slow": 20}
    ... )
    >>> "pips" in fxlab.with_pips(result.trades).columns
    True
    """
    sizes = {symbol: pip_size(symbol) for symbol in trades["symbol"].unique().to_list()}
    size = pl.col("symbol").replace_strict(sizes, return_dtype=pl.Float64, default=None)
    side = pl.when(pl.col("direction") == "long").then(1.0).otherwise(-1.0)
    gained = side * (pl.col("exit_price") - pl.col("entry_price")) / size
    return trades.with_columns(gained.round(6).alias("pips"))


NEW_YORK: Final = ZoneInfo("America/New_York")
ROLLOVER: Final = time(17)
WEDNESDAY: Final = 2
_SWAP: Final[dict[str, Any]] = {
    "timestamp": UTC_MICROS,
    "symbol": pl.String,
    "rate_long": pl.Float64,
    "rate_short": pl.Float64,
}


def swap_rates(
    symbol: str,
    start: Time,
    end: Time,
    *,
    long_annual: float,
    short_annual: float,
    days_per_year: float = 365.0,
) -> pl.DataFrame:
    """Return the swap of an FX position as `funding`: charged at 17:00 New York, Monday to Friday.

    Wednesday's rollover counts three days, because spot settles two days later and the weekend
    falls due then.

    Parameters
    ----------
    symbol
        The pair.
    start, end
        The time range to cover, half open.
    long_annual, short_annual
        What each side pays a year, as a fraction of notional; negative is received.

    Returns
    -------
    polars.DataFrame
        ``timestamp``, ``symbol``, ``rate_long``, ``rate_short``.

    Examples
    --------
    >>> week = fxlab.swap_rates(
    ...     "EUR_USD", "2024-01-08", "2024-01-13", long_annual=0.02, short_annual=-0.01
    ... )
    >>> week.height
    5
    """
    first, last = parse_range(start, end)
    if first is None or last is None:
        raise InvalidParameter("swap_rates needs a start and an end")
    if not days_per_year > 0:
        raise InvalidParameter(f"days_per_year={days_per_year!r} is not a number above zero")
    day = from_micros(first).astimezone(NEW_YORK).date()
    count = (from_micros(last).date() - day).days + 2
    days = (day + timedelta(days=number) for number in range(count))
    charged = [
        moment
        for moment in (datetime.combine(day, ROLLOVER, NEW_YORK) for day in days)
        if moment.weekday() < 5 and first <= to_micros(moment) < last
    ]
    shares = [(3 if one.weekday() == WEDNESDAY else 1) / days_per_year for one in charged]
    rows = [
        (from_micros(to_micros(one)), symbol, long_annual * share, short_annual * share)
        for one, share in zip(charged, shares, strict=True)
    ]
    return pl.DataFrame(rows, schema=_SWAP, orient="row")
