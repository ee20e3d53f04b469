"""Proof by trial that a strategy does not see the future.

The ticks are cut at many rows. Whatever comes after a cut is taken away, then replaced by prices
twice as high, then half as high; the strategy's targets before the cut must not change. Cuts lie at
random rows and right behind decisions, where a peek at the next row would show.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Final

import numpy as np
import polars as pl

from fxlab.backtester.indicators import PRICE_TICKS
from fxlab.backtester.strategy import Signals, Strategy, get
from fxlab.backtester.stream import evaluate
from fxlab.backtester.ticks import TickSource, as_source, choose_symbols, with_price_ticks
from fxlab.errors import EmptySession, LookaheadFound
from fxlab.progress import Advance, silent
from fxlab.times import Time

DEFAULT_CUTS: Final = 20

Future = Callable[[pl.DataFrame], pl.DataFrame]

FUTURES: Final[dict[str, Future]] = {
    "taken away": lambda rows: rows.clear(),
    "twice as high": lambda rows: _scaled(rows, 2.0),
    "half as high": lambda rows: _scaled(rows, 0.5),
}
"""What is put behind a cut, by the words of the error."""


@dataclass(frozen=True, slots=True)
class LookaheadReport:
    """What was tried, without finding a look into the future."""

    strategy: str
    symbols: tuple[str, ...]
    rows: int
    cuts: int
    trials: int

    def __str__(self) -> str:
        """Say it in one sentence."""
        return (
            f"{self.strategy} saw no future in {self.trials} trials at {self.cuts} cuts over "
            f"{self.rows:,} ticks of {', '.join(self.symbols)}"
        )


def check_lookahead(
    source: Any,  # noqa: ANN401 - a Session or a frame, as `backtest` takes them
    strategy: str | Strategy | Callable[..., Signals],
    parameters: Mapping[str, object] | None = None,
    *,
    symbols: str | list[str] | tuple[str, ...] = "ALL",
    start: Time | None = None,
    end: Time | None = None,
    cuts: int = DEFAULT_CUTS,
    seed: int = 0,
    progress: Advance = silent,
) -> LookaheadReport:
    """Change the future at many cuts, and make sure that nothing before them changes.

    Parameters
    ----------
    source, strategy, parameters, symbols, start, end, progress
        As `backtest` takes them; the ticks of one symbol at a time are held in memory.
    cuts
        Cuts for each symbol, half of them behind decisions.
    seed
        Which rows are cut; the same seed tries the same rows.

    Raises
    ------
    LookaheadFound
        Naming strategy, symbol, column, and the first row that changed.
    """
    data = as_source(source)
    chosen = get(strategy)
    signals = chosen.signals(parameters)
    names = choose_symbols(data, symbols)
    rng = np.random.default_rng(seed)
    rows = tried = 0
    for number, name in enumerate(names):
        ticks = _ticks(data, name, start, end)
        target = evaluate(signals, name, ticks)
        places = _places(target, cuts, rng)
        for done, place in enumerate(places, 1):
            _try_futures(chosen, signals, name, ticks, target, place)
            progress((number + done / len(places)) / len(names), name)
        rows, tried = rows + ticks.height, tried + len(places)
    return LookaheadReport(chosen.name, tuple(names), rows, tried, tried * len(FUTURES))


def _ticks(data: TickSource, symbol: str, start: Time | None, end: Time | None) -> pl.DataFrame:
    chunks = list(data.scan_ticks(symbol, start=start, end=end))
    if not any(chunk.height for chunk in chunks):
        raise EmptySession(f"session {data.id!r} has no ticks of {symbol} in the range asked for")
    return with_price_ticks(pl.concat(chunks), data.price_decimals.get(symbol))


def _places(target: np.ndarray, cuts: int, rng: np.random.Generator) -> list[int]:
    """Return the rows before which the future begins: random ones, and ones behind decisions."""
    rows = len(target)
    if rows < 2:
        return []
    decided = np.flatnonzero(~np.isnan(target[:-1])) + 1
    behind = rng.choice(decided, min(len(decided), (cuts + 1) // 2), replace=False)
    anywhere = rng.integers(1, rows, max(0, cuts - len(behind)))
    return sorted({int(place) for place in (*behind, *anywhere)})


def _try_futures(  # noqa: PLR0917 - the pieces of one trial
    strategy: Strategy,
    signals: Signals,
    symbol: str,
    ticks: pl.DataFrame,
    target: np.ndarray,
    place: int,
) -> None:
    past, future = ticks.head(place), ticks.tail(ticks.height - place)
    for words, change in FUTURES.items():
        found = evaluate(signals, symbol, pl.concat([past, change(future)]))[:place]
        row = _first_difference(target[:place], found)
        if row is not None:
            when: datetime = ticks["timestamp"][row]
            raise LookaheadFound(
                f"strategy {strategy.name!r} sees the future: column 'target' of {symbol} in row "
                f"{row} ({when:%Y-%m-%d %H:%M:%S.%f} UTC) is {_shown(target[row])}, and "
                f"{_shown(found[row])} when the rows from {place} on are {words}; "
                f"it must depend on rows up to {row} only{_hint(signals)}"
            )


def _first_difference(one: np.ndarray, two: np.ndarray) -> int | None:
    same = (one == two) | (np.isnan(one) & np.isnan(two))
    return None if same.all() else int(np.argmin(same))


def _scaled(rows: pl.DataFrame, factor: float) -> pl.DataFrame:
    """Return other rows at the same times: prices on their grid, everything else backwards."""
    fixed = ("timestamp", "seq")
    whole = [name for name in (PRICE_TICKS,) if name in rows.columns]
    others = [name for name in rows.columns if name not in (*fixed, *whole, "price")]
    return rows.with_columns(
        pl.col("price") * factor,
        *((pl.col(name) * factor).cast(pl.Int64).clip(1) for name in whole),
        *(pl.col(name).reverse() for name in others),
    )


def _shown(value: float) -> str:
    return "null (keep)" if np.isnan(value) else f"{value:g}"


def _hint(signals: Signals) -> str:
    if "shift([dyn int: -" in str(signals.target):
        return "; shift with a negative number reads later rows"
    return "; look for shift(-1), centred windows, and whole-column values such as mean() or max()"
