"""The backtest as a recipe: read, decide, replay, measure."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from fxlab.backtester.execution import Execution, check_capital
from fxlab.backtester.feeds import gap_records, holes, needs_of, open_feeds
from fxlab.backtester.ledger import Ledger
from fxlab.backtester.market import Rows
from fxlab.backtester.result import Result, Run, build_result
from fxlab.backtester.strategy import Signals, Strategy, get
from fxlab.backtester.stream import BookFeed, Chunk, SymbolFeed, merge
from fxlab.backtester.ticks import (
    as_source,
    check_one_currency,
    choose_symbols,
    no_ticks,
    share_before,
    span,
)
from fxlab.errors import InvalidParameter
from fxlab.numbers import integer, number
from fxlab.progress import Advance, silent
from fxlab.times import Duration, Time, parse_duration

MOST_DAYS: Final = 366
SAMPLES_WANTED: Final = 2_000
STEPS_US: Final = tuple(
    seconds * 1_000_000 for seconds in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
)


@dataclass
class Job:
    """A backtest that is ready to run: rows to come, a ledger to feed them to.

    `backtest` feeds it as fast as it can; a paced replay in its own time. Whoever feeds the rows,
    in whatever slices, the result is the same bit by bit.
    """

    run: Run
    signals: Signals
    bounds: tuple[int, int]
    ledger: Ledger
    feeds: list[SymbolFeed]
    books: list[BookFeed]

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the symbols in the order of their legs."""
        return self.run.symbols

    def rows(self) -> Iterator[Rows]:
        """Yield the rows of all symbols, merged by time, in bounded memory."""
        most = self.run.execution.max_leverage
        for chunk in self.chunks():
            yield chunk.rows(self.signals, most)

    def chunks(self) -> Iterator[Chunk]:
        """Yield the stretches of the market that `rows` are made of, with their frames."""
        return merge(len(self.symbols), self.feeds, self.books)

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
        if not self.ledger.rows:
            raise no_ticks(self.run.source, self.symbols)
        digests = {feed.symbol: feed.hexdigest() for feed in self.feeds}
        return build_result(self.run, self.ledger.close(), digests)


def backtest(
    source: Any,  # noqa: ANN401 - a Session or a frame; refused by name otherwise
    strategy: str | Strategy | Callable[..., Signals],
    parameters: Mapping[str, object] | None = None,
    *,
    symbols: str | list[str] | tuple[str, ...] = "ALL",
    start: Time | None = None,
    end: Time | None = None,
    execution: Execution | None = None,
    capital: float = 10_000.0,
    grid: Duration = "1m",
    days_per_year: float = 365.25,
    chunk_rows: int | None = None,
    progress: Advance = silent,
) -> Result:
    """Replay the ticks of a session through a strategy.

    Parameters
    ----------
    source
        A `Session`, or a Polars frame of ticks (see `FrameSource`).
    strategy, parameters
        A strategy's name, ``module:function`` or the function; its parameters by name.
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
    grid
        Spacing of the return series that ratios are computed on.
    days_per_year
        How many days' worth of `grid` intervals the ratios and volatility take for a year. Leave
        it, for FX too: closed hours are intervals of the grid with a return of zero, so a year
        has 365.25 days of them in every market. The annual return does not depend on it: it
        compounds by calendar time, and over a year it is the total return.
    chunk_rows
        Rows held at a time, where the strategy's lookback is known; the source's own choice
        unless given. Never changes a result.
    progress
        Called with the share done; raise `Cancelled` in it to stop.

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
    """
    job = prepare(
        source,
        strategy,
        parameters,
        symbols=symbols,
        start=start,
        end=end,
        execution=execution,
        capital=capital,
        grid=grid,
        days_per_year=days_per_year,
        chunk_rows=chunk_rows,
    )
    for rows in job.rows():
        job.ledger.replay(rows)
        progress(job.share(int(rows.time[-1])), f"{job.ledger.rows:,} ticks")
    result = job.finish()
    progress(1.0, f"{job.ledger.rows:,} ticks")
    return result


def prepare(
    source: Any,  # noqa: ANN401 - a Session or a frame; refused by name otherwise
    strategy: str | Strategy | Callable[..., Signals],
    parameters: Mapping[str, object] | None = None,
    *,
    symbols: str | list[str] | tuple[str, ...] = "ALL",
    start: Time | None = None,
    end: Time | None = None,
    execution: Execution | None = None,
    capital: float = 10_000.0,
    grid: Duration = "1m",
    days_per_year: float = 365.25,
    chunk_rows: int | None = None,
    trading: bool = True,
) -> Job:
    """Check everything that was asked for and return the `Job`; parameters as in `backtest`.

    Without `trading` the rows are only looked at, whatever their currencies.
    """
    data = as_source(source)
    chosen = get(strategy)
    values = chosen.check(parameters)
    signals = chosen.signals(values)
    terms = execution or Execution()
    names = choose_symbols(data, symbols)
    if trading:
        check_one_currency(names)
    bounds = span(data, start, end)
    run = Run(
        source=data,
        strategy=chosen,
        parameters=values,
        symbols=tuple(names),
        execution=terms,
        capital=check_capital(capital),
        grid_us=_grid(grid),
        days_per_year=_days(days_per_year),
        start=start,
        end=end,
        holes=holes(data, names),
    )
    needs = needs_of([signals], terms)
    feeds, books = open_feeds(
        data,
        run.symbols,
        needs,
        start=start,
        end=end,
        size=_chunk_rows(chunk_rows),
        owner=signals.owner,
    )
    ledger = open_ledger(run, signals, bounds)
    return Job(run, signals, bounds, ledger, feeds, books)


def open_ledger(run: Run, signals: Signals, bounds: tuple[int, int]) -> Ledger:
    """Return the empty ledger of a run."""
    return Ledger.open(
        run.symbols,
        run.capital,
        run.execution,
        choose_interval(bounds, run.grid_us),
        signals=signals,
        gaps=gap_records(run.holes, run.symbols),
    )


def choose_interval(bounds: tuple[int, int], grid_us: int) -> int:
    """Return the spacing of the equity samples: a divisor of the grid, fine enough to draw.

    Long runs are sampled on the grid itself; a run of minutes is sampled by the second.
    """
    elapsed = bounds[1] - bounds[0]
    for step in STEPS_US:
        if step < grid_us and grid_us % step == 0 and elapsed <= step * SAMPLES_WANTED:
            return step
    return grid_us


def _days(days: float) -> float:
    found = number(days, 0, MOST_DAYS)
    if not found:
        raise InvalidParameter(
            f"days_per_year={days!r:.80} is not a number of days above 0 and up to {MOST_DAYS}; "
            "365.25 is right in every market, closed hours are intervals of the grid too"
        )
    return float(found)


def _chunk_rows(rows: int | None) -> int | None:
    if rows is None:
        return None
    count = integer(rows, 1)
    if count is None:
        raise InvalidParameter(
            f"chunk_rows={rows!r:.80} is not a number of rows; give 1 or more, or leave it out"
        )
    return count


def _grid(grid: Duration) -> int:
    spacing = parse_duration(grid, "grid")
    if spacing < 1_000_000:
        raise InvalidParameter(f"grid={grid!r} is too fine: returns need a grid of at least '1s'")
    return spacing
