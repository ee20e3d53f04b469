"""Look-ahead check: a trial that a strategy's decisions do not depend on later rows.

The ticks are cut at many rows. Whatever comes after a cut is taken away, then replaced by other
prices, books and volumes; the strategy's decisions before the cut must not change. Cuts lie at
random rows and right behind decisions, where a peek at the next row would show.

A strategy that says how far it looks back is taken at its word by the engine, so that is tried too:
decisions must be the same with no more rows in front of them than it asked for.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from functools import partial
from typing import Any, Final

import numpy as np
import polars as pl

from fxlab._progress import Progress, shown
from fxlab._ticks import PRICE_TICKS
from fxlab._times import Time
from fxlab.backtester._kernel.records import DECISION
from fxlab.backtester._source import TickSource, Which, as_source, choose_symbols, joined_ticks
from fxlab.backtester.strategy._decisions import decide
from fxlab.backtester.strategy.indicators import PRICE_OF
from fxlab.backtester.strategy.signals import Signals
from fxlab.backtester.strategy.strategy import Strategy, StrategyFunction, get
from fxlab.errors import EmptySession, InvalidParameter, LookaheadFound, some

DEFAULT_CUTS: Final = 20
SAMPLE_ROWS: Final = 20_000
"""With `SAMPLE_CUTS` enough for a check that costs less than the run it stands in front of."""
SAMPLE_CUTS: Final = 4
_BEHIND: Final = 256  # rows behind a cut that a declared lookback is tried on
_FIXED: Final = ("timestamp", "seq", "received_at")

Future = Callable[[pl.DataFrame], pl.DataFrame]

FUTURES: Final[dict[str, Future]] = {
    "taken away": lambda rows: rows.clear(),
    "twice as high": lambda rows: _scaled(rows, 2.0),
    "half as high": lambda rows: _scaled(rows, 0.5),
}
"""What is put behind a cut, by the words of the error."""


@dataclass(frozen=True, slots=True)
class LookaheadReport:
    """What was tried, without finding a look into the future.

    Attributes
    ----------
    rows, cuts, trials
        Ticks looked at, places where they were cut, and changes made behind them.
    decisions
        Decisions on those ticks; with none the trials say little.

    Examples
    --------
    >>> report = fxlab.check_lookahead(ticks, "sma_cross", {"fast": 5, "slow": 20}, cuts=4)
    >>> report.rows, report.cuts
    (1500, 4)
    """

    strategy: str
    symbols: tuple[str, ...]
    rows: int
    cuts: int
    trials: int
    decisions: int

    def __str__(self) -> str:
        """Say it in one sentence."""
        if not self.trials:
            return (
                f"{self.strategy} was not tried: {self.rows:,} ticks of {some(self.symbols)} are "
                "too few to change a future of; give more ticks"
            )
        return (
            f"{self.strategy} saw no future in {self.trials} trials at {self.cuts} cuts over "
            f"{self.rows:,} ticks of {some(self.symbols)} with {self.decisions:,} decisions"
        )


def check_lookahead(
    source: Any,  # noqa: ANN401 - a Session or a frame, as `backtest` takes them
    strategy: str | Strategy | StrategyFunction,
    parameters: Mapping[str, object] | None = None,
    *,
    symbols: str | list[str] | tuple[str, ...] = "ALL",
    start: Time | None = None,
    end: Time | None = None,
    cuts: int = DEFAULT_CUTS,
    sample_rows: int | None = None,
    seed: int = 0,
    progress: Progress = None,
) -> LookaheadReport:
    """Change the future at many cuts, and make sure that nothing before them changes.

    Targets, exits and limit prices are compared at every decision. Behind a cut, prices, books,
    volumes and other symbols' prices change, and all columns that the ticks have besides.

    Parameters
    ----------
    source, strategy, parameters, symbols, start, end, progress
        As `backtest` takes them; the ticks of one symbol at a time are held in memory.
    cuts
        Cuts for each symbol, half of them behind decisions.
    sample_rows
        Look at so many first ticks of each symbol only; None is all. ``SAMPLE_ROWS`` with
        ``SAMPLE_CUTS`` cuts costs less than one backtest of a million ticks.
    seed
        Which rows are cut; the same seed tries the same rows.

    Raises
    ------
    LookaheadFound
        Naming strategy, symbol, column, and the first row that changed.
    InvalidParameter
        If a decision depends on more rows than the strategy's `lookback` says.

    Examples
    --------
    >>> print(fxlab.check_lookahead(ticks, "sma_cross", {"fast": 5, "slow": 20}, cuts=4))
    sma_cross saw no future in 12 trials at 4 cuts over 1,500 ticks of TICKS with 90 decisions
    """
    data = as_source(source)
    chosen = get(strategy)
    signals = chosen.signals(parameters)
    names = choose_symbols(data, symbols)
    rng = np.random.default_rng(seed)
    which: Which = {"start": start, "end": end}
    if sample_rows is not None:
        which["chunk_rows"] = sample_rows
    rows = tried = decisions = 0
    with shown(progress, "check_lookahead") as advance:
        for number, name in enumerate(names):
            report = partial(advance, number / len(names), name)
            ticks = _ticks(data, name, signals, which, report)
            trial = _Trial(signals, name, ticks)
            places = _places(trial.decisions, ticks.height, cuts, rng)
            for done, place in enumerate(places, 1):
                trial.change_the_future(place, report)
                trial.forget_the_past(place)
                advance((number + done / len(places)) / len(names), name)
            rows, tried = rows + ticks.height, tried + len(places)
            decisions += len(trial.decisions)
    trials = tried * len(FUTURES)
    return LookaheadReport(chosen.name, tuple(names), rows, tried, trials, decisions)


def _ticks(
    data: TickSource, symbol: str, signals: Signals, which: Which, report: Callable[[], None]
) -> pl.DataFrame:
    """Return the ticks with all that the strategy reads: one chunk at most, where it has a size."""
    most = which.get("chunk_rows")
    chunks = joined_ticks(
        data,
        symbol,
        signals.roots,
        decimals=data.price_decimals.get(symbol),
        owner=signals.owner,
        **which,
    )
    read = []
    for chunk in chunks:
        read.append(chunk)
        report()
        if most is not None and sum(part.height for part in read) >= most:
            break
    if not any(chunk.height for chunk in read):
        raise EmptySession(f"session {data.id!r} has no ticks of {symbol} in the range asked for")
    whole = pl.concat(read)
    return whole if most is None else whole.head(most)


def _places(decided: np.ndarray, rows: int, cuts: int, rng: np.random.Generator) -> list[int]:
    """Return the rows before which the future begins: random ones, and ones behind decisions."""
    if rows < 2:
        return []
    after = decided["row"][decided["row"] < rows - 1] + 1
    behind = rng.choice(after, min(len(after), (cuts + 1) // 2), replace=False)
    anywhere = rng.integers(1, rows, max(0, cuts - len(behind)))
    return sorted({int(place) for place in (*behind, *anywhere)})


class _Trial:
    """One symbol's ticks, what the strategy decides on them, and what it should decide again."""

    def __init__(self, signals: Signals, symbol: str, ticks: pl.DataFrame) -> None:
        # Every row with a target, also where nothing would be traded.
        self.signals = replace(signals, reentry="signal", warmup=0)
        self.symbol = symbol
        self.ticks = ticks
        self.decisions = self._decide(ticks)

    def change_the_future(self, place: int, report: Callable[[], None]) -> None:
        """Raise `LookaheadFound` if other rows from `place` on change a decision before it."""
        past, future = self.ticks.head(place), self.ticks.slice(place)
        before = self._between(self.decisions, 0, place)
        for words, change in FUTURES.items():
            report()
            found = self._decide(pl.concat([past, change(future)]))
            different = _first_difference(before, self._between(found, 0, place))
            if different is not None:
                row, column, values = different
                raise LookaheadFound(
                    f"{self.signals.owner} sees the future: {self._where(row, column)} is "
                    f"{_shown(values[0])}, and {_shown(values[1])} when the rows from {place} on "
                    f"are {words}; it must depend on rows up to {row} only{_hint(self.signals)}"
                )

    def forget_the_past(self, place: int) -> None:
        """Raise `InvalidParameter` if rows before the declared lookback change a decision."""
        lookback = self.signals.lookback
        if lookback is None or place <= lookback:
            return
        begin, end = place - lookback, min(place + _BEHIND, self.ticks.height)
        found = self._decide(self.ticks.slice(begin, end - begin), first=lookback)
        found["row"] += place
        different = _first_difference(self._between(self.decisions, place, end), found)
        if different is not None:
            row, column, values = different
            raise InvalidParameter(
                f"{self.signals.owner} says lookback={lookback}, but {self._where(row, column)} is "
                f"{_shown(values[0])}, and {_shown(values[1])} when it sees only the rows from "
                f"{begin} on; raise lookback, or leave it out"
            )

    def _decide(self, ticks: pl.DataFrame, first: int = 0) -> np.ndarray:
        return decide(self.signals, self.symbol, ticks, first=first)

    def _between(self, decisions: np.ndarray, first: int, end: int) -> np.ndarray:
        low, high = np.searchsorted(decisions["row"], (first, end))
        return decisions[low:high]

    def _where(self, row: int, column: str) -> str:
        when = self.ticks["timestamp"][row]
        return f"column {column!r} of {self.symbol} in row {row} ({when:%Y-%m-%d %H:%M:%S.%f} UTC)"


def _first_difference(
    one: np.ndarray, two: np.ndarray
) -> tuple[int, str, tuple[float, float]] | None:
    """Return row, column and both values where two arrays of decisions differ first, or None."""
    both = min(len(one), len(two))
    a, b = one[:both], two[:both]
    same = a["row"] == b["row"]
    for name in DECISION.names[1:]:  # type: ignore[index]
        same &= (a[name] == b[name]) | (np.isnan(a[name]) & np.isnan(b[name]))
    at = both if same.all() else int(np.argmin(same))
    if at == len(one) == len(two):
        return None
    rows = [int(array["row"][at]) if at < len(array) else 2**62 for array in (one, two)]
    if rows[0] != rows[1]:  # only one of them decides here
        values = [float(array["target"][at]) if row == min(rows) else np.nan
                  for row, array in zip(rows, (one, two), strict=True)]  # fmt: skip
        return min(rows), "target", (values[0], values[1])
    for name in DECISION.names[1:]:  # type: ignore[index]
        x, y = float(one[name][at]), float(two[name][at])
        if x != y and not (np.isnan(x) and np.isnan(y)):
            return rows[0], name, (x, y)
    return None


def _scaled(rows: pl.DataFrame, factor: float) -> pl.DataFrame:
    """Return other rows at the same times: prices on their grid, everything else backwards too."""
    changed = []
    for name, kind in rows.schema.items():
        column = pl.col(name)
        if name in _FIXED:
            continue
        if name == PRICE_TICKS:
            changed.append((column * factor).cast(pl.Int64).clip(1))
        elif name == "price" or name.startswith(PRICE_OF):
            changed.append(column * factor)
        elif kind.is_float():
            changed.append(column.reverse() * factor)
        else:
            changed.append(column.reverse())
    return rows.with_columns(changed)


def _shown(value: float) -> str:
    return "null (keep)" if np.isnan(value) else f"{value:g}"


def _hint(signals: Signals) -> str:
    if any("shift([dyn int: -" in str(value) for value in signals.expressions.values()):
        return "; shift with a negative number reads later rows"
    return "; look for shift(-1), centred windows, and whole-column values such as mean() or max()"
