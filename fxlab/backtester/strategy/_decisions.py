"""Decisions of a strategy: the rows where its target changes, checked; and the bars it decides on.

A market has millions of ticks and a strategy thousands of decisions, so everything behind this
module handles decisions only. Nothing is decided at a row without a target.

Bars hold what is known when an interval has ended. `Session.ohlcv` makes candles for people, chunk
by chunk; these are for decisions: their prices are also there as whole ticks, they know the rows
they were made of, and their sums run in the order of the rows, so that no number of threads can
change a bit.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any, Final, NamedTuple, cast

import numpy as np
import polars as pl

from fxlab._ticks import advice
from fxlab._times import from_micros
from fxlab.backtester._kernel.records import DECISION
from fxlab.backtester.strategy.signals import COLUMNS, EXITS, Events, Shared, Signals, exit_rule
from fxlab.errors import FxlabError, InvalidParameter, StrategyFailed
from fxlab.schema import UTC_MICROS

SHOWN: Final = 12  # names of columns in an error message
_LARGEST: Final = float(np.finfo(np.float64).max)


def decide(
    signals: Signals,
    symbol: str,
    frame: pl.DataFrame,
    *,
    first: int = 0,
    seen: int = 0,
    max_leverage: float = np.inf,
    shared: Shared | None = None,
) -> np.ndarray:
    """Return a strategy's decisions on one symbol's ticks.

    Parameters
    ----------
    signals
        What the strategy wants.
    symbol
        For error messages.
    frame
        Ticks in (timestamp, seq) order with the columns that the strategy reads.
    first
        Decisions at rows from here on are returned; the rows before it are what it looks back on.
    seen
        Rows of this symbol in the whole run before row `first`, for the warm-up.
    max_leverage
        Largest absolute target allowed.
    shared
        What decisions of other parameters on the same ticks have left for these, and these leave.

    Returns
    -------
    numpy.ndarray
        `DECISION` of the kernel's records, one a row with a target; ``row`` counts from `first`.
        A target that repeats the one before it is left out where it can be no news: with
        ``reentry="change"`` and without a cooldown. The first one always stands.

    Raises
    ------
    InvalidParameter
        For a target that is not a number or beyond `max_leverage`, an exit or a limit that is
        not above zero, a column that is not there.
    StrategyFailed
        If the strategy's own code raises.
    """
    if not frame.height:
        return np.empty(0, DECISION)
    shared = {} if shared is None else shared
    bars = _bars(frame, signals.every_us, shared)
    table = frame if bars is None else bars.table(signals.roots)
    place = _Place(signals, symbol, frame, table, seen - first)
    with _named_errors(place):
        columns = _evaluate(place)
        if events := _events(signals):
            wanted = _Wanted(*_found(events, frame, first, shared))
        else:
            wanted = _wanted(place, columns["target"])
    low = max(0, signals.warmup - (seen - first))
    if bars is None:
        wanted = wanted.from_row(max(first, low))
        ticks = wanted.rows
    else:
        wanted = wanted.from_row(low).before(bars.height - 1)  # the last bar has not ended
        ticks = bars.first_rows[wanted.rows + 1]
        begin = int(np.searchsorted(ticks, first))
        wanted, ticks = wanted.part(begin), ticks[begin:]
    chosen, decisions = _news(place, ticks, first, wanted.targets, max_leverage)
    for name in COLUMNS[1:]:
        if name in columns:
            decisions[name] = _at(place, name, columns[name], wanted.rows[chosen], ticks[chosen])
    return decisions


class _Place(NamedTuple):
    """What error messages need to know about where the values stand."""

    signals: Signals
    symbol: str
    frame: pl.DataFrame
    table: pl.DataFrame  # what the strategy sees: the frame itself, or bars of it
    before: int  # rows of the run in front of the frame

    def row(self, tick: int) -> str:
        """Return a row's number in the run and its time."""
        time = self.frame["timestamp"].to_physical()[int(tick)]
        return f"row {self.before + int(tick):,} ({from_micros(time):%Y-%m-%d %H:%M:%S.%f} UTC)"


class _Wanted(NamedTuple):
    """Rows with a target, in order, and the targets."""

    rows: np.ndarray
    targets: np.ndarray

    def from_row(self, row: int) -> _Wanted:
        return self.part(int(np.searchsorted(self.rows, row))) if row > 0 else self

    def before(self, row: int) -> _Wanted:
        cut = int(np.searchsorted(self.rows, row))
        return _Wanted(self.rows[:cut], self.targets[:cut])

    def part(self, begin: int) -> _Wanted:
        return _Wanted(self.rows[begin:], self.targets[begin:])


@contextmanager
def _named_errors(place: _Place) -> Iterator[None]:
    """Give what the strategy's code raises the words for strategy, parameters and symbol."""
    try:
        yield
    except FxlabError:
        raise
    except Exception as error:
        if isinstance(error, pl.exceptions.ColumnNotFoundError) and _missing(place):
            raise InvalidParameter(_missing_column(place)) from error
        raise StrategyFailed.of(f"{place.symbol}: {place.signals.owner}", error) from error


def _evaluate(place: _Place) -> dict[str, pl.Series | float]:
    """Return the columns that the strategy gives: a series each, or a constant."""
    found = _given(place) if place.signals.frame is None else _computed(place)
    for name in EXITS:
        value = getattr(place.signals, name)
        if value is not None and name not in found:
            found[name] = float(value)
    return found


def _given(place: _Place) -> dict[str, pl.Series | float]:
    """Return the columns of a strategy of expressions."""
    return {
        name: place.table.select(value.alias(name)).to_series()
        for name, value in place.signals.expressions.items()
        if name != "target" or not _events(place.signals)
    }


def _computed(place: _Place) -> dict[str, pl.Series | float]:
    """Return the columns of what a frame strategy returns, checked."""
    found: object = place.signals.frame(place.table) if place.signals.frame else None
    what = f"{place.symbol}: {place.signals.owner} returned"
    if not isinstance(found, pl.DataFrame):
        raise InvalidParameter(
            f"{what} {type(found).__name__}, not a frame; a strategy that takes ticks returns a "
            "pl.DataFrame with a column target, one row a tick"
        )
    if found.height != place.table.height:
        raise InvalidParameter(
            f"{what} {found.height:,} rows for {place.table.height:,} rows; return one row for "
            "each, in their order, with target null where the position is kept"
        )
    if "target" not in found.columns:
        raise InvalidParameter(
            f"{what} no column 'target'; it has: {', '.join(found.columns) or 'none'}"
        )
    return {name: found[name] for name in COLUMNS if name in found.columns}


def _wanted(place: _Place, target: pl.Series | float) -> _Wanted:
    """Return the rows with a target, and the targets as floats."""
    height = place.table.height
    if isinstance(target, float):
        target = pl.Series([target])
    target = _numbers(place, "target", target)
    if len(target) == 1 and height > 1:
        value = target[0]
        rows = np.arange(0 if value is None else height, dtype=np.int64)
        return _Wanted(rows, np.broadcast_to(np.float64(value or 0.0), len(rows)))
    if not target.null_count():
        return _Wanted(np.arange(height, dtype=np.int64), target.to_numpy())
    rows = target.is_not_null().arg_true().to_numpy()
    return _Wanted(rows, target.drop_nulls().to_numpy())


def _numbers(place: _Place, name: str, column: pl.Series) -> pl.Series:
    """Return a column as floats, of one row or of all."""
    if not (column.dtype.is_numeric() or column.dtype in (pl.Boolean, pl.Null)):
        raise InvalidParameter(
            f"{place.symbol}: column {name!r} of {place.signals.owner} is {column.dtype}, "
            "not a number"
        )
    height = place.table.height
    if len(column) not in (1, height):
        raise InvalidParameter(
            f"{place.symbol}: column {name!r} of {place.signals.owner} has {len(column):,} values "
            f"for {height:,} rows; filter() and the like change the height: use "
            "pl.when(...).then(...) instead"
        )
    return column.cast(pl.Float64)


def _news(
    place: _Place, ticks: np.ndarray, first: int, targets: np.ndarray, max_leverage: float
) -> tuple[np.ndarray, np.ndarray]:
    """Return which targets are decisions, and these; refuse those that cannot be held."""
    from fxlab.backtester._kernel.columns import changed_targets

    chosen, decisions = np.empty(len(targets), np.int64), np.empty(len(targets), DECISION)
    # A refused decision (cooldown) is news again when it is repeated later.
    changes_only = place.signals.reentry == "change" and not place.signals.cooldown_us
    largest = min(max_leverage, _LARGEST)
    rows = np.ascontiguousarray(ticks, np.int64)  # one kind: the compiler makes one function
    count, bad = changed_targets(rows, first, targets, largest, changes_only, chosen, decisions)
    if bad >= 0:
        raise InvalidParameter(_bad_target(place, ticks[bad], float(targets[bad]), max_leverage))
    decisions.resize(count, refcheck=False)  # most targets may be no news
    return chosen[:count], decisions


def _bad_target(place: _Place, tick: int, value: float, max_leverage: float) -> str:
    where = f"{place.symbol}: the target of {place.signals.owner} in {place.row(tick)}"
    if not np.isfinite(value):
        shown = "NaN" if np.isnan(value) else "infinite"
        return f"{where} is {shown}; use null to keep the position"
    return (
        f"{where} is {value:g}, which is beyond max_leverage={max_leverage:g}; scale the target "
        "or raise Execution(max_leverage=...)"
    )


def _at(
    place: _Place,
    name: str,
    values: pl.Series | float,
    rows: np.ndarray,
    ticks: np.ndarray,
) -> np.ndarray | float:
    """Return the values of an exit or limit column at the decisions; nan where there is none."""
    if isinstance(values, float):
        return values
    whole = _numbers(place, name, values)
    found = whole.new_from_index(0, len(rows)) if whole.len() == 1 else whole.gather(rows)
    bad = (found.is_nan() | (found <= 0) | found.is_infinite()).fill_null(value=False)
    if name in ("stop_loss", "trailing_stop"):
        bad |= (found >= 1).fill_null(value=False)
    if bad.any():
        at = int(bad.arg_max() or 0)
        rule = exit_rule(name) if name in EXITS else "prices are above zero; null is a market order"
        raise InvalidParameter(
            f"{place.symbol}: {name} of {place.signals.owner} in {place.row(ticks[at])} is "
            f"{found[at]:g}; {rule}"
        )
    return found.fill_null(np.nan).to_numpy()


def _found(
    events: Events, frame: pl.DataFrame, first: int, shared: Shared
) -> tuple[np.ndarray, np.ndarray]:
    """Return the rows with a target and the targets; what any parameters need is made once."""
    finding: Any = events  # those of users know nothing of sharing
    if not hasattr(finding, "share"):
        return events.find(frame, first)
    key = type(events), events.roots
    if key not in shared:  # two threads may both make it, the same
        shared[key] = finding.share(frame)
    found: tuple[np.ndarray, np.ndarray] = finding.find(frame, first, shared[key])
    return found


def _bars(frame: pl.DataFrame, every: int | None, shared: Shared) -> Bars | None:
    """Return the bars that a strategy sees, made once for any parameters; None sees ticks."""
    if every is None:
        return None
    return cast("Bars", shared.setdefault((Bars, every), Bars(frame, every)))


def _events(signals: Signals) -> Events | None:
    return signals.events if signals.every is None else None


def _missing(place: _Place) -> list[str]:
    return sorted((place.signals.roots or frozenset()) - set(place.table.columns))


def _missing_column(place: _Place) -> str:
    missing = _missing(place)
    if any(name.endswith("_ticks") for name in missing):
        return (
            f"{place.symbol}: its prices are on no decimal grid, so there is no {missing[0]}; "
            f"{advice(place.frame['price'])}"
        )
    kind, there = "ticks", place.frame.columns
    if place.signals.every_us is not None:
        kind, there = f"bars of {place.signals.every}", Bars(place.frame, 1).names
    return (
        f"{place.symbol}: {place.signals.owner} asks for {', '.join(map(repr, missing))}, which "
        f"the {kind} do not have; they have: {', '.join(there[:SHOWN])}"
        + (f" and {len(there) - SHOWN} more" if len(there) > SHOWN else "")
    )


PRICES: Final = ("open", "high", "low", "close")
SUMS: Final = ("volume", "quote_volume", "vwap")
SCHEMA: Final[dict[str, pl.DataType]] = {
    "timestamp": UTC_MICROS,
    **dict.fromkeys(PRICES, pl.Float64()),
    **dict.fromkeys((f"{name}_ticks" for name in PRICES), pl.Int64()),
    **dict.fromkeys(SUMS, pl.Float64()),
    "trades": pl.Int64(),
}
"""Columns of bars; the ticks' other columns have their last value in the bar."""


@dataclass(frozen=True)
class Bars:
    """The intervals of a frame of ticks that have any tick.

    Parameters
    ----------
    frame
        Ticks with ``timestamp`` (UTC µs) and ``price``, ordered by (timestamp, seq).
    every
        Length of an interval in microseconds; intervals start at its whole multiples since 1970.
    """

    frame: pl.DataFrame
    every: int
    _made: dict[str, pl.Series] = field(default_factory=dict)

    @cached_property
    def first_rows(self) -> np.ndarray:
        """Return the row of each bar's first tick."""
        from fxlab.backtester._kernel.columns import bar_starts

        time = self._values("timestamp")
        starts = np.empty(len(time), np.int64)
        return starts[: bar_starts(time, self.every, starts)]

    @property
    def height(self) -> int:
        """Return the number of bars, the unfinished last one included."""
        return len(self.first_rows)

    @property
    def sizes(self) -> np.ndarray:
        """Return the number of ticks in each bar."""
        return np.diff(self.first_rows, append=self.frame.height)[: self.height]

    @property
    def last_rows(self) -> np.ndarray:
        """Return the row of each bar's last tick."""
        rows: np.ndarray = self.first_rows + self.sizes - 1
        return rows

    @property
    def bar_of_rows(self) -> np.ndarray:
        """Return for each tick the number of its bar."""
        return np.repeat(np.arange(self.height), self.sizes)

    @property
    def names(self) -> list[str]:
        """Return the columns that there are."""
        there = self.frame.columns
        found = [name for name in SCHEMA if _SOURCES.get(name, "timestamp") in there]
        return [*found, *(name for name in there if name not in {*SCHEMA, *_TICK_ONLY})]

    def table(self, names: Collection[str] | None = None) -> pl.DataFrame:
        """Return one row a bar, with the columns asked for that there are; None is all.

        ``timestamp`` is the interval's start. ``volume``, ``quote_volume`` and ``vwap`` are null
        where no tick has a volume; there is no ``open_ticks`` .. ``close_ticks`` where prices lie
        on no decimal grid.
        """
        wanted = [name for name in self.names if names is None or name in names]
        return pl.DataFrame(
            {name: self._known(name) for name in dict.fromkeys(("timestamp", *wanted))}
        )

    def _known(self, name: str) -> pl.Series:
        if name not in self._made:
            self._made[name] = self._column(name)
        return self._made[name]

    def _column(self, name: str) -> pl.Series:
        if name == "timestamp":
            time = self._values(name)[self.first_rows]
            return pl.Series(name, time // self.every * self.every).cast(SCHEMA[name])
        if name == "trades":
            return pl.Series(name, self.sizes)
        if name in SUMS:
            return pl.Series(name, self._sums(name)).fill_nan(None)
        source = _SOURCES.get(name)
        if source is None:
            return self.frame[name].gather(self.last_rows)
        return pl.Series(name, self._price(name.removesuffix("_ticks"), self._values(source)))

    def _price(self, name: str, values: np.ndarray) -> np.ndarray:
        found: np.ndarray
        if name in ("open", "close"):
            found = values[self.first_rows if name == "open" else self.last_rows]
        else:
            extreme = np.maximum if name == "high" else np.minimum
            found = extreme.reduceat(values, self.first_rows)
        return found

    def _sums(self, name: str) -> np.ndarray:
        if name != "vwap":
            return self._total(name, None)
        volume = self._total("volume", None)
        average = np.full(self.height, np.nan)
        np.divide(self._total("volume", "price"), volume, out=average, where=volume > 0)
        return average

    def _total(self, name: str, weights: str | None) -> np.ndarray:
        from fxlab.backtester._kernel.columns import sums

        values = self._values(name)
        factors = np.ones(1) if weights is None else self._values(weights)
        totals = np.empty(self.height)
        sums(values, np.broadcast_to(factors, len(values)), self.first_rows, totals)
        return totals

    def _values(self, name: str) -> np.ndarray:
        column = self.frame[name]
        return (column.cast(pl.Float64) if name in SUMS else column.to_physical()).to_numpy()


_SOURCES: Final = {
    **dict.fromkeys(PRICES, "price"),
    **dict.fromkeys((f"{name}_ticks" for name in PRICES), "price_ticks"),
    "volume": "volume",
    "quote_volume": "quote_volume",
    "vwap": "volume",
}
"""The column of the ticks that a bar's column is made of."""

_TICK_ONLY: Final = ("price", "price_ticks")


def sources_of(names: Collection[str]) -> list[str]:
    """Return the columns of ticks that columns of bars are made of, to make a struct of."""
    own = {_SOURCES.get(name, name) for name in names} - {"trades"}
    price = {"price"} if {"vwap"} & set(names) else set()
    return sorted({"timestamp"} | own | price)
