"""From a strategy's signals to decisions: the rows at which it wants something, checked.

A market has millions of ticks and a strategy thousands of decisions, so everything behind this
module handles decisions only. Nothing is decided at a row without a target.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final, NamedTuple

import numpy as np
import polars as pl

from fxlab.backtester.decimals import advice
from fxlab.backtester.records import DECISION
from fxlab.backtester.signals import COLUMNS, EXITS, Events, Signals, exit_rule
from fxlab.backtester.tick_bars import Bars
from fxlab.errors import FxlabError, InvalidParameter, StrategyFailed
from fxlab.times import from_micros

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

    Returns
    -------
    numpy.ndarray
        `fxlab.backtester.records.DECISION`, one a row with a target; ``row`` counts from `first`.
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
    bars = None if signals.every_us is None else Bars(frame, signals.every_us)
    table = frame if bars is None else bars.table(signals.roots)
    place = _Place(signals, symbol, frame, table, seen - first)
    with _named_errors(place):
        columns = _evaluate(place)
        if events := _events(signals):
            wanted = _Wanted(*events.find(frame, first))
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
    chosen = _news(place, ticks, wanted.targets, max_leverage)
    decisions = np.empty(len(chosen), DECISION)
    decisions["row"] = ticks[chosen] - first
    decisions["target"] = wanted.targets[chosen]
    for name in COLUMNS[1:]:
        decisions[name] = _at(place, name, columns, wanted.rows[chosen], ticks[chosen])
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


def _news(place: _Place, ticks: np.ndarray, targets: np.ndarray, max_leverage: float) -> np.ndarray:
    """Return which targets are decisions; refuse those that cannot be held."""
    from fxlab.backtester.columns_kernel import news

    chosen = np.empty(len(targets), np.int64)
    # A refused decision (cooldown) is news again when it is repeated later.
    changes_only = place.signals.reentry == "change" and not place.signals.cooldown_us
    largest = min(max_leverage, _LARGEST)
    count, bad = news(targets, largest, changes_only, chosen)
    if bad >= 0:
        raise InvalidParameter(_bad_target(place, ticks[bad], float(targets[bad]), max_leverage))
    return chosen[:count]


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
    columns: dict[str, pl.Series | float],
    rows: np.ndarray,
    ticks: np.ndarray,
) -> np.ndarray | float:
    """Return the values of an exit or limit column at the decisions; nan where there is none."""
    values = columns.get(name, np.nan)
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
