"""Indicators: exact rolling sums and extremes, moving-average crosses, bars, other symbols' prices.

Floating rolling means drift, and then the *trades* differ with the chunk or the library. Here sums
run on 64-bit integers, so every comparison is exact and no chunk, thread or machine can change a
trade. `price_ticks` is the price times 10 to the symbol's number of decimals. Crosses of two moving
averages are fast enough for thousands of pairs of windows.

Those that are Python inside (all but other symbols' prices) are computed each time an expression
names them; `once` names a value that is used several times.

Examples
--------
>>> ticks.select(fxlab.indicators.rolling_max(3, "seq").alias("largest"))["largest"].to_list()[:4]
[None, None, 2, 3]
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

import numpy as np
import polars as pl

from fxlab._ticks import PRICE_TICKS
from fxlab._times import parse_duration
from fxlab.backtester.strategy import _decisions
from fxlab.errors import InvalidParameter

__all__ = [
    "PRICE_OF",
    "PRICE_TICKS",
    "ChannelBreak",
    "Deviation",
    "ExponentialCross",
    "MeanCross",
    "anchored_vwap",
    "ema",
    "mean_cross",
    "on_bars",
    "once",
    "price_of",
    "rolling_max",
    "rolling_mean_ticks",
    "rolling_min",
    "rolling_sum",
]

PRICE_OF: Final = "price:"
_VWAP: Final = ("timestamp", "price", "volume")


def rolling_sum(window: int, column: str = PRICE_TICKS) -> pl.Expr:
    """Return the exact sum of the last `window` rows; null before there are as many.

    Parameters
    ----------
    window
        Rows, this one included.
    column
        An integer column.

    Raises
    ------
    InvalidParameter
        When it is evaluated, if `window` times the largest value does not fit 64-bit integers.
    """

    def fitting(series: pl.Series) -> pl.Series:
        if series.dtype.is_integer():
            check_fits(series.drop_nulls().to_numpy(), window, f"a window of {window:,}")
        return series

    return pl.col(column).map_batches(fitting, return_dtype=pl.self_dtype()).rolling_sum(window)


def rolling_mean_ticks(window: int) -> pl.Expr:
    """Return the mean of the last `window` prices in ticks: one division of an exact sum."""
    return rolling_sum(window) / window


def rolling_max(window: int, column: str = PRICE_TICKS) -> pl.Expr:
    """Return the largest of the last `window` rows (Int64); null before there are as many."""
    return _after(window, column, lambda values: _extremes(values, window))


def rolling_min(window: int, column: str = PRICE_TICKS) -> pl.Expr:
    """Return the smallest of the last `window` rows (Int64); null before there are as many."""
    return _after(window, column, lambda values: ~_extremes(~values, window))


def once(target: pl.Expr, **values: pl.Expr) -> pl.Expr:
    """Return `target`, in which ``pl.field(name)`` is a value that is computed once.

    Examples
    --------
    >>> import polars as pl
    >>> from fxlab import indicators
    >>> above = pl.field("fast") > pl.field("slow")
    >>> turned = above != above.shift(1)
    >>> target = indicators.once(
    ...     pl.when(turned & above).then(1.0).when(turned).then(0.0),
    ...     fast=indicators.ema(20),
    ...     slow=indicators.ema(50),
    ... )
    """
    named = [value.alias(name) for name, value in values.items()]
    return pl.struct(named).struct.with_fields(target.alias("once")).struct.field("once")


def ema(span: int, column: str = "price") -> pl.Expr:
    """Return the exponential moving average: ``y = y + 2 / (span + 1) * (x - y)``, y0 = x0.

    It remembers every row, so a strategy that uses it leaves `Signals.lookback` at None. The rows
    are taken one after the other: the same bits everywhere.

    Parameters
    ----------
    span
        At least 1; the weight of a row falls by 2 / (span + 1) with each one after it.
    column
        A numeric column without nulls.
    """
    return pl.col(column).map_batches(lambda series: _ema(series, span), return_dtype=pl.Float64)


def anchored_vwap(every: str) -> pl.Expr:
    """Return the volume-weighted average price since the start of the day, hour, ...

    ``sum(price * volume) / sum(volume)`` over the interval's ticks so far, this one included;
    null until one has a volume. All ticks since the anchor count, so a strategy that uses it
    leaves `Signals.lookback` at None.

    Parameters
    ----------
    every
        Length of the interval: ``"1d"``, ``"1h"``. It starts at its multiples, UTC.
    """
    length = _length(every)

    def since_anchor(fields: pl.Series) -> pl.Series:
        from fxlab.backtester._kernel.columns import anchored_means

        time, price, volume = (fields.struct.field(name) for name in _VWAP)
        means = np.empty(len(fields))
        arrays = [series.cast(pl.Float64).to_numpy() for series in (price, volume)]
        anchored_means(time.to_physical().to_numpy(), *arrays, length, means)
        return pl.Series(means).fill_nan(None)

    return pl.struct(*_VWAP).map_batches(since_anchor, return_dtype=pl.Float64)


def price_of(symbol: str) -> pl.Expr:
    """Return another symbol's last price strictly before the tick; null before it has any."""
    return pl.col(f"{PRICE_OF}{symbol}")


def on_bars(every: str, value: pl.Expr) -> pl.Expr:
    """Return, at each tick, a value of the last bar that had ended by then.

    A bar from t0 until before t0 + `every` is known from the first tick at or after t0 + `every`;
    null before the first bar has ended. Intervals without ticks have no bar. A strategy that uses
    it leaves `Signals.lookback` at None: bars need all rows of a symbol.

    Parameters
    ----------
    every
        Length of the bars: ``"1s"``, ``"5m"``, ``"1h"``. They start at its multiples, UTC.
    value
        An expression over the columns of bars: ``open``, ``high``, ``low``, ``close``, their
        ``_ticks``, ``volume``, ``quote_volume``, ``vwap``, ``trades``, ``timestamp`` (the start).

    Examples
    --------
    >>> import polars as pl
    >>> from fxlab import indicators
    >>> trend = indicators.on_bars("1m", pl.col("close") > pl.col("close").rolling_mean(20))
    """
    length = _length(every)
    roots = value.meta.root_names()
    sources = _decisions.sources_of(roots)
    kind = pl.LazyFrame(schema=_decisions.SCHEMA).select(value).collect_schema().dtypes()[0]

    def at_ticks(fields: pl.Series) -> pl.Series:
        bars = _decisions.Bars(fields.struct.unnest(), length)
        found = bars.table(roots).select(value).to_series()
        if found.len() == 1 != bars.height:
            found = found.new_from_index(0, bars.height)
        return found.shift(1).gather(bars.bar_of_rows)

    return pl.struct(sources).map_batches(at_ticks, return_dtype=kind)


def _length(every: str) -> int:
    length = parse_duration(every, "every")
    if not length:
        raise InvalidParameter(f"every={every!r} must be above zero, for example '1m'")
    return length


def _after(window: int, column: str, compute: Callable[[np.ndarray], np.ndarray]) -> pl.Expr:
    """Return an expression of whole numbers that is null in the first window - 1 rows."""
    if window < 1:
        raise InvalidParameter(f"window={window} is not a number of rows; give 1 or more")

    def whole(series: pl.Series) -> pl.Series:
        unknown = min(window - 1, len(series))
        known = pl.Series(compute(series.to_numpy())[unknown:], dtype=pl.Int64)
        nulls = pl.Series([None], dtype=pl.Int64).new_from_index(0, unknown)
        return pl.concat([nulls, known], rechunk=True)

    return pl.col(column).map_batches(whole, return_dtype=pl.Int64)


def _extremes(values: np.ndarray, window: int) -> np.ndarray:
    from fxlab.backtester._kernel.columns import rolling_largest

    found = np.empty(len(values), np.int64)
    rolling_largest(values, window, np.empty(len(values), np.int64), found)
    return found


def _ema(series: pl.Series, span: int) -> pl.Series:
    from fxlab.backtester._kernel.columns import exponential_means

    means = np.empty(len(series))
    exponential_means(series.cast(pl.Float64).to_numpy(), 2.0 / (span + 1.0), means)
    return pl.Series(means)


BLOCK_ROWS: Final = 4096


def mean_cross(
    fast: int, slow: int, *, golden: float = 1.0, death: float = -1.0, column: str = PRICE_TICKS
) -> pl.Expr:
    """Return `golden` and `death` where two simple moving averages cross, null elsewhere.

    Golden at row i: ``mean_fast[i-1] <= mean_slow[i-1]`` and ``mean_fast[i] > mean_slow[i]``, both
    means known on both rows; death is its mirror. Means are compared as
    ``sum_fast * slow`` with ``sum_slow * fast``: exact, no division.

    Parameters
    ----------
    fast, slow
        Rows in each mean, this one included.
    golden, death
        The values to return (Float64), for instance the targets of a strategy.
    column
        An integer column.
    """
    crosses = MeanCross(fast, slow, golden, death, column)

    def dense(series: pl.Series) -> pl.Series:
        rows, found = crosses.find(series.alias(column).to_frame(), 0)
        values = np.full(len(series), np.nan)
        values[rows] = found
        return pl.Series(series.name, values).fill_nan(None)

    return pl.col(column).map_batches(dense, return_dtype=pl.Float64)


@dataclass(frozen=True, slots=True)
class MeanCross:
    """The crosses of `mean_cross` as `Signals.events`: no row is touched that has none."""

    fast: int
    slow: int
    golden: float = 1.0
    death: float = -1.0
    column: str = PRICE_TICKS

    @property
    def roots(self) -> frozenset[str]:
        """Return the column that it reads."""
        return frozenset({self.column})

    def share(self, frame: pl.DataFrame) -> tuple[np.ndarray, int, int]:
        """Return what crosses of any windows need: running sums, lowest and highest value."""
        return _sums(frame[self.column])

    def find(
        self,
        frame: pl.DataFrame,
        first: int,
        shared: tuple[np.ndarray, int, int] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows from `first` on where the means cross, and the values there."""
        from fxlab.backtester._kernel.columns import mean_crosses

        sums, low, high = shared or self.share(frame)
        # Two products are compared by their difference: half of what there is for each.
        what = f"windows of {self.fast} and {self.slow}"
        check_fits(np.array([low, high]), 2 * self.fast * self.slow, what)
        count, (rows, up) = 0, _room(frame, np.bool_)
        if max(self.fast, self.slow) <= frame.height:
            room = np.empty(BLOCK_ROWS + 1, np.int8), np.empty(BLOCK_ROWS, np.int8)
            count = mean_crosses(sums, self.fast, self.slow, first, *room, rows, up)
        return rows[:count], np.where(up[:count], self.golden, self.death)


@dataclass(frozen=True, slots=True)
class ChannelBreak:
    """The breaks of a channel of prices as `Signals.events`: no row is touched that has none.

    Whether a row lies above all of any number of rows before it, is told by how many rows before
    it are lower, one after the other: that is found once for channels of all lengths.

    Parameters
    ----------
    entry, leave
        Rows before a row that all have to be lower, and higher; `leave` None looks for no such.
    above, below
        The targets of such rows.
    """

    entry: int
    leave: int | None
    above: float = 1.0
    below: float = 0.0

    @property
    def roots(self) -> frozenset[str]:
        """Return the column that it reads."""
        return frozenset({PRICE_TICKS})

    def share(self, frame: pl.DataFrame) -> tuple[np.ndarray, ...]:
        """Return what channels of any lengths need: `ways_back`, and the most of each block."""
        from fxlab.backtester._kernel.columns import BREAK_ROWS, ways_back

        ticks = frame[PRICE_TICKS].to_numpy()
        above, below = np.empty((2, len(ticks)), np.int32)
        ways_back(ticks, above, below)
        starts = np.arange(0, len(ticks), BREAK_ROWS)
        return above, below, *(np.maximum.reduceat(each, starts) for each in (above, below))

    def find(
        self, frame: pl.DataFrame, first: int, shared: tuple[np.ndarray, ...] | None = None
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows from `first` on that leave the channel, and the targets there."""
        from fxlab.backtester._kernel.columns import channel_breaks

        rows, up = _room(frame, np.bool_)
        never = np.iinfo(np.int32).max
        lengths = self.entry, never if self.leave is None else self.leave
        count = channel_breaks(*(shared or self.share(frame)), *lengths, first, rows, up)
        return rows[:count], np.where(up[:count], self.above, self.below)


@dataclass(frozen=True, slots=True)
class Deviation:
    """Where prices deviate from a reference, and where they are back, as `Signals.events`.

    Parameters
    ----------
    window, of_mean
        The reference is the mean of so many rows, this one included, or the price so many before.
    margin
        The share of the reference that a price has to differ by.
    below, above
        The targets of rows below the reference and above it; 0 is that of rows that are back.
    """

    window: int
    margin: float
    below: float
    above: float
    of_mean: bool = False

    @property
    def roots(self) -> frozenset[str]:
        """Return the column that it reads."""
        return frozenset({PRICE_TICKS})

    def share(self, frame: pl.DataFrame) -> tuple[np.ndarray, int, int] | None:
        """Return what means over any windows need."""
        return _sums(frame[PRICE_TICKS]) if self.of_mean else None

    def find(
        self,
        frame: pl.DataFrame,
        first: int,
        shared: tuple[np.ndarray, int, int] | None = None,
    ) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows from `first` on that deviate or are back, and the targets there."""
        from fxlab.backtester._kernel.columns import deviations

        ticks, sums = frame[PRICE_TICKS].to_numpy(), np.empty(0, np.int64)
        if self.of_mean:
            sums, *ends = shared or _sums(frame[PRICE_TICKS])
            check_fits(np.array(ends), self.window, f"a window of {self.window:,}")
        rows, kinds = _room(frame, np.int8)
        margins = 1 - self.margin, 1 + self.margin
        count = deviations(ticks, sums, self.window, *margins, first, rows, kinds)
        return rows[:count], np.array([self.below, self.above, 0.0])[kinds[:count]]


@dataclass(frozen=True, slots=True)
class ExponentialCross:
    """Where an `ema` of the price passes another one, as `Signals.events`.

    Parameters
    ----------
    fast, slow
        Spans.
    above, below
        The targets where the fast one comes above, and below.
    """

    fast: int
    slow: int
    above: float = 1.0
    below: float = 0.0

    @property
    def roots(self) -> frozenset[str]:
        """Return the column that it reads."""
        return frozenset({"price"})

    def find(self, frame: pl.DataFrame, first: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the rows from `first` on where one passes the other, and the targets there."""
        from fxlab.backtester._kernel.columns import exponential_crosses

        rows, up = _room(frame, np.bool_)
        prices = frame["price"].cast(pl.Float64).to_numpy()
        weights = (2.0 / (span + 1.0) for span in (self.fast, self.slow))
        count = exponential_crosses(prices, *weights, first, rows, up)
        return rows[:count], np.where(up[:count], self.above, self.below)


def _sums(column: pl.Series) -> tuple[np.ndarray, int, int]:
    """Return what means over any windows need: running sums, lowest and highest value."""
    from fxlab.backtester._kernel.columns import running_sums

    values = column.to_numpy()
    check_fits(values, 1, "a value")
    sums = np.empty(len(values) + 1, np.int64)
    running_sums(values.astype(np.int64, copy=False), sums)
    return sums, int(values.min(initial=0)), int(values.max(initial=0))


def _room(frame: pl.DataFrame, kind: type[np.generic]) -> tuple[np.ndarray, np.ndarray]:
    """Return room for an event at each row, and its kind; it is free where never written."""
    return np.empty(frame.height, np.int64), np.empty(frame.height, kind)


def check_fits(values: np.ndarray, factor: int, what: str) -> None:
    """Refuse whole numbers whose multiples do not fit 64-bit integers: they would wrap around.

    Parameters
    ----------
    values
        Integers.
    factor
        How many times the largest of them has to fit.
    what
        What they are multiplied by, for the error message.
    """
    largest = max(int(values.max(initial=0)), -int(values.min(initial=0)))
    if largest * factor > np.iinfo(values.dtype).max:
        raise InvalidParameter(
            f"{what} over values of up to {largest:,} (prices in units of their last decimal) do "
            f"not fit {8 * values.itemsize}-bit integers, so the result would not be exact; choose "
            "a smaller window, or round the prices to fewer decimals"
        )
