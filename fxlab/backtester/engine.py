"""The backtest as a recipe: read, decide, replay, measure."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Final

from fxlab.backtester.execution import Execution, check_capital
from fxlab.backtester.ledger import Ledger
from fxlab.backtester.result import Result, Run, build_result
from fxlab.backtester.strategy import Signals, Strategy, get
from fxlab.backtester.stream import Digest, SymbolStream, merge
from fxlab.backtester.ticks import as_source, choose_symbols, span
from fxlab.errors import EmptySession, InvalidParameter
from fxlab.progress import Advance, silent
from fxlab.times import Duration, Time, parse_duration

SAMPLES_WANTED: Final = 2_000
STEPS_US: Final = tuple(
    seconds * 1_000_000 for seconds in (1, 2, 5, 10, 15, 30, 60, 120, 300, 600, 900, 1800, 3600)
)


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
        share, and the equity is their sum at every tick.
    start, end
        A half-open time range; naive times mean UTC.
    execution
        Fill rule, fees, slippage, latency; ``Execution()`` unless given.
    capital
        Money at the start, in quote currency.
    grid
        Spacing of the return series that ratios are computed on.
    days_per_year
        For annualisation: 365.25 for markets that never close, 260 for FX.
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
    data = as_source(source)
    chosen = get(strategy)
    values = chosen.check(parameters)
    signals = chosen.signals(values)
    terms = execution or Execution()
    money = check_capital(capital)
    names = choose_symbols(data, symbols)
    bounds = span(data, start, end)
    spacing = _grid(grid)
    digest = {name: Digest() for name in names}
    size = {} if chunk_rows is None else {"chunk_rows": chunk_rows}
    decimals = data.price_decimals
    streams = [
        SymbolStream(
            symbol=name,
            number=number,
            chunks=data.scan_ticks(name, start=start, end=end, **size),
            signals=signals,
            decimals=decimals.get(name),
            max_leverage=terms.max_leverage,
            digest=digest[name],
        )
        for number, name in enumerate(names)
    ]
    ledger = Ledger.open(len(names), money, terms, choose_interval(bounds, spacing))
    for rows in merge([iter(stream) for stream in streams]):
        ledger.replay(rows)
        progress(_share(int(rows.time[-1]), bounds), f"{ledger.rows:,} ticks")
    if not ledger.rows:
        raise EmptySession(
            f"session {data.id!r} has no ticks of {', '.join(names)} in the range asked for; "
            f"its ticks run from {data.started} to {data.ended}"
        )
    progress(1.0, f"{ledger.rows:,} ticks")
    run = Run(
        source=data,
        strategy=chosen,
        parameters=values,
        symbols=tuple(names),
        execution=terms,
        capital=money,
        grid_us=spacing,
        days_per_year=days_per_year,
        start=start,
        end=end,
    )
    return build_result(run, ledger.close(), {name: digest[name].hexdigest() for name in names})


def choose_interval(bounds: tuple[int, int], grid_us: int) -> int:
    """Return the spacing of the equity samples: a divisor of the grid, fine enough to draw.

    Long runs are sampled on the grid itself; a run of minutes is sampled by the second.
    """
    elapsed = bounds[1] - bounds[0]
    for step in STEPS_US:
        if step < grid_us and grid_us % step == 0 and elapsed <= step * SAMPLES_WANTED:
            return step
    return grid_us


def _grid(grid: Duration) -> int:
    spacing = parse_duration(grid, "grid")
    if spacing < 1_000_000:
        raise InvalidParameter(f"grid={grid!r} is too fine: returns need a grid of at least '1s'")
    return spacing


def _share(now: int, bounds: tuple[int, int]) -> float:
    return min(1.0, (now - bounds[0]) / max(1, bounds[1] - bounds[0]))
