"""Backtest engine: the recipe of a run (read, decide, replay, measure)."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final, Unpack

import numpy as np

from fxlab._progress import Progress, shown
from fxlab.backtester._feeds import BookFeed, SymbolChunk, SymbolFeed, needs_of, open_feeds
from fxlab.backtester._kernel.records import MarketArrays
from fxlab.backtester._market_arrays import decisions_on, merge
from fxlab.backtester._source import (
    as_source,
    check_one_currency,
    choose_symbols,
    gap_bounds,
    gap_records,
    no_ticks,
    share_before,
    span,
    with_instruments,
    with_recorded_funding,
)
from fxlab.backtester._state import KernelState
from fxlab.backtester.execution import Execution
from fxlab.backtester.options import Options, RunOptions, takes_run_options
from fxlab.backtester.result import Result, Run, build_result
from fxlab.backtester.strategy.signals import Signals
from fxlab.backtester.strategy.strategy import Strategy, StrategyFunction, get

SAMPLES_WANTED: Final = 2_000
STEPS_US: Final = tuple(
    seconds * 1_000_000 for seconds in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
)


@dataclass
class Job:
    """A backtest that is ready to run: rows to come, a kernel state to feed them to.

    `backtest` feeds it as fast as it can; a paced replay in its own time. In whatever slices the
    rows are fed, the result is the same bit by bit.
    """

    run: Run
    signals: Signals
    bounds: tuple[int, int]
    state: KernelState
    feeds: list[SymbolFeed]
    books: list[BookFeed]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the symbols in the order of their legs."""
        return self.run.symbols

    def market(self) -> Iterator[tuple[MarketArrays, list[SymbolChunk]]]:
        """Yield the rows of all symbols merged by time, in bounded memory, and their frames."""
        return merge(len(self.symbols), self.feeds, self.books)

    def decisions(self, chunks: list[SymbolChunk]) -> np.ndarray:
        """Return the strategy's decisions on the rows of some chunks."""
        return decisions_on(chunks, self.signals, self.run.execution.max_leverage)

    def share(self, now: int) -> float:
        """Return the share of the time range that lies before `now` (microseconds)."""
        return share_before(self.bounds, now)

    def finish(self) -> Result:
        """Return the result of the rows fed so far.

        Raises
        ------
        EmptySession
            If there was none.
        """
        if not self.state.rows:
            raise no_ticks(self.run.source, self.symbols)
        digests = {feed.symbol: feed.hexdigest() for feed in self.feeds}
        return build_result(self.run, self.state.close(), digests)


@takes_run_options
def backtest(
    source: Any,  # noqa: ANN401 - a Session or a frame; refused by name otherwise
    strategy: str | Strategy | StrategyFunction,
    parameters: Mapping[str, object] | None = None,
    *,
    progress: Progress = None,
    **options: Unpack[Options],
) -> Result:
    """Replay the ticks of a session through a strategy.

    Parameters
    ----------
    source
        A `Session`, or a Polars frame of ticks (see `FrameSource`).
    strategy, parameters
        A strategy's name, ``module:function`` or the function; its parameters by name.
    progress
        None shows a bar where somebody looks, False none; a function is called with the share
        done and a text, and may raise `Cancelled` to stop.
    symbols, start, end, execution, capital, return_interval, days_per_year, chunk_rows
        See `RunOptions`: which symbols and times, how orders fill, and what returns are made of.

    Returns
    -------
    Result
        Fills, trades, equity, metrics, and the fingerprint of what made them.

    Raises
    ------
    InvalidParameter, StrategyNotFound, SymbolNotFound, InvalidTimeRange, InvalidTicks
        Before any result is made, naming the value, the rule and the next step.
    EmptySession
        If there is no tick to replay.

    Examples
    --------
    >>> result = fxlab.backtest(
    ...     ticks,
    ...     "sma_cross",
    ...     {"fast": 5, "slow": 20},
    ...     execution=fxlab.Execution(taker_bps=5),
    ... )
    >>> result.strategy, result.ticks
    ('sma_cross', 1500)
    """
    with shown(progress, "backtest") as advance:
        job = prepare(source, strategy, parameters, RunOptions.of(options))
        for market, chunks in job.market():
            job.state.replay(market, job.decisions(chunks))
            advance(job.share(int(market.time[-1])), f"{job.state.rows:,} ticks")
        result = job.finish()
        advance(1.0, f"{job.state.rows:,} ticks")
        return result


def prepare(
    source: Any,  # noqa: ANN401 - a Session or a frame; refused by name otherwise
    strategy: str | Strategy | StrategyFunction,
    parameters: Mapping[str, object] | None,
    options: RunOptions,
    *,
    trading: bool = True,
) -> Job:
    """Check everything that was asked for and return the `Job`.

    Without `trading` the rows are only looked at, whatever their currencies.
    """
    data = as_source(source)
    chosen = get(strategy)
    values = chosen.check(parameters)
    signals = chosen.signals(values)
    names = choose_symbols(data, options.symbols)
    if trading:
        check_one_currency(names)
    bounds = span(data, options.start, options.end)
    execution, listed = with_instruments(options.execution, data, names)
    execution, recorded = with_recorded_funding(execution, data, names, bounds)
    run = Run(
        source=data,
        strategy=chosen,
        parameters=values,
        symbols=tuple(names),
        execution=execution,
        capital=options.capital,
        grid_us=options.return_interval_us,
        days_per_year=options.days_per_year,
        start=options.start,
        end=options.end,
        gaps=gap_bounds(data, names),
        recorded_funding=recorded,
        listed=listed,
    )
    feeds, books = open_feeds(
        data,
        run.symbols,
        needs_of([signals], run.execution),
        owner=signals.owner,
        **run.which(options.chunk_rows),
    )
    state = new_state(run, signals, bounds)
    return Job(run, signals, bounds, state, feeds, books)


def new_state(run: Run, signals: Signals, bounds: tuple[int, int]) -> KernelState:
    """Return the state of a run before its first row."""
    return KernelState.open(
        run.symbols,
        run.capital,
        run.execution,
        choose_interval(bounds, run.grid_us),
        signals=signals,
        gaps=gap_records(run.gaps, run.symbols),
    )


def with_execution(job: Job, asked: Execution, execution: Execution) -> Job:
    """Return a job with other assumptions than those it was prepared with, as they were asked."""
    execution, listed = with_instruments(execution, job.run.source, job.run.symbols)
    if execution.funding == asked.funding:  # what was recorded is read already
        charged = replace(execution, funding=job.run.execution.funding)
        recorded = job.run.recorded_funding
    else:
        charged, recorded = with_recorded_funding(
            execution, job.run.source, job.run.symbols, job.bounds
        )
    run = replace(job.run, execution=charged, recorded_funding=recorded, listed=listed)
    return replace(job, run=run, state=new_state(run, job.signals, job.bounds))


def choose_interval(bounds: tuple[int, int], grid_us: int) -> int:
    """Return the spacing of the equity samples: a divisor of the grid, fine enough to draw.

    Long runs are sampled on the grid itself; a run of minutes is sampled by the second.
    """
    elapsed = bounds[1] - bounds[0]
    for step in STEPS_US:
        if step < grid_us and grid_us % step == 0 and elapsed <= step * SAMPLES_WANTED:
            return step
    return grid_us
