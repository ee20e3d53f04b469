"""Result of a backtest: frames of orders, fills, trades and equity, metrics, charts, fingerprint.

The frames are made from the kernel's records by pure functions; the fingerprint says what made
them.
"""

from __future__ import annotations

import hashlib
import json
import platform
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import numpy as np
import polars as pl

from fxlab._times import Time, from_micros, parse_range, to_micros
from fxlab.backtester._frame_source import FrameSource
from fxlab.backtester._kernel.records import NEVER
from fxlab.backtester._source import TickSource, Which, scan_many
from fxlab.backtester._state import Records
from fxlab.backtester.execution import Execution
from fxlab.backtester.metrics import _analysis
from fxlab.backtester.metrics._analysis import gap_micros
from fxlab.backtester.metrics._performance import (
    Facts,
    Metrics,
    columns_of,
    compute,
)
from fxlab.backtester.strategy.strategy import Strategy, Value
from fxlab.schema import UTC_MICROS

if TYPE_CHECKING:
    import plotly.graph_objects as go


PLOT_POINTS: Final = 4_000
VERSIONED: Final = ("fxlab", "numba", "numpy", "polars")


def points_each(symbols: tuple[str, ...]) -> int:
    """Return how many points of each symbol's prices a chart is made from, at most."""
    return max(500, PLOT_POINTS // len(symbols))


class RunStore(Protocol):
    """Where runs are kept: a `Lab`."""

    def _save_run(self, result: Result) -> str:
        """Store a run and return its id."""


@dataclass(frozen=True, slots=True)
class Run:
    """What was asked for: the inputs of a backtest."""

    source: TickSource
    strategy: Strategy
    parameters: dict[str, Value]
    symbols: tuple[str, ...]
    execution: Execution
    capital: float
    grid_us: int
    days_per_year: float
    start: Time | None
    end: Time | None
    gaps: pl.DataFrame | None = None  # from_time, to_time, symbol; None: gaps were not recorded
    recorded_funding: int | None = None  # how many rates the recording gave; None: it did not
    listed: tuple[str, ...] = ()  # names of the execution's values that are those of the venue

    def which(self, chunk_rows: int | None) -> Which:
        """Return which rows are read, and how many at a time where that is given."""
        rows: Which = {"start": self.start, "end": self.end}
        return rows if chunk_rows is None else {**rows, "chunk_rows": chunk_rows}

    def options(self) -> dict[str, Any]:
        """Return the time range and the basis of the metrics, as plain values."""
        start_us, end_us = parse_range(self.start, self.end)
        return {
            "start_us": start_us,
            "end_us": end_us,
            "grid_us": self.grid_us,
            "days_per_year": self.days_per_year,
        }


@dataclass(frozen=True)
class Result:
    """A finished backtest.

    Attributes
    ----------
    run_id : str
        ``exec_YYYYMMDD_HHMMSS_<hex>_backtest``.
    metrics : Metrics
        Metrics by name; `Metrics.table` gives units and notes.
    orders : polars.DataFrame
        Every decision that wanted a change and every exit, and what became of it: symbol, status,
        reason, decided_at, ready_at, done_at, target, price (average), qty, fee, position, equity.
    fills : polars.DataFrame
        The executions, several an order where it filled in parts: symbol, timestamp, decided_at,
        reason, liquidity (taker or maker), flags, target, price, qty (signed, base units), fee
        (quote), position and leg equity after it.
    trades : polars.DataFrame
        Round trips: symbol, direction, entered_at, exited_at (null: still open, marked), qty,
        entry_price, exit_price, fees, funding, pnl (net of both), return (of entry notional), mae,
        mfe (fractions of the entry price), duration_seconds, exit_reason.
    equity : polars.DataFrame
        Sampled equity with the exact extremes: timestamp, equity, drawdown.
    fingerprint : str
        SHA-256 of the session's id (a frame has none), the rows read, strategy source,
        parameters, execution and versions.

    Examples
    --------
    >>> result = fxlab.backtest(ticks, "sma_cross", {"fast": 5, "slow": 20})
    >>> result.ticks, result.fills.height
    (1500, 89)
    """

    run: Run
    run_id: str
    created_at: datetime
    metrics: Metrics
    _records: Records = field(repr=False)
    fingerprint: str
    ticks: int
    first: datetime
    last: datetime

    # Made when they are first asked for: many runs are looked at by their metrics alone.

    @cached_property
    def orders(self) -> pl.DataFrame:
        """Return every decision that wanted a change and every exit, and what became of it."""
        return orders_table(self._records, self.symbols)

    @cached_property
    def fills(self) -> pl.DataFrame:
        """Return the executions, several an order where it filled in parts."""
        return fills_table(self._records.fills, self.symbols)

    @cached_property
    def trades(self) -> pl.DataFrame:
        """Return the round trips."""
        return trades_table(self._records, self.symbols)

    @cached_property
    def equity(self) -> pl.DataFrame:
        """Return sampled equity with the exact extremes."""
        return equity_table(self._records, self.capital)

    @property
    def strategy(self) -> str:
        """Return the strategy's name."""
        return self.run.strategy.name

    @property
    def parameters(self) -> dict[str, Value]:
        """Return all parameters, defaults included."""
        return dict(self.run.parameters)

    @property
    def execution(self) -> Execution:
        """Return the assumptions about orders."""
        return self.run.execution

    @property
    def capital(self) -> float:
        """Return the money at the start."""
        return self.run.capital

    @property
    def symbols(self) -> tuple[str, ...]:
        """Return the symbols that were replayed."""
        return self.run.symbols

    @property
    def data_session_id(self) -> str:
        """Return the id of the session whose ticks were replayed."""
        return self.run.source.id

    @cached_property
    def prices(self) -> pl.DataFrame:
        """Return a drawable sample of the prices: symbol, timestamp, price; spikes are kept.

        The ticks are read again, so that a run itself carries no copy of them.
        """
        from fxlab.charts._style import sample_range

        each, frames = points_each(self.symbols), []
        first, last = to_micros(self.first), to_micros(self.last)
        scans = scan_many(self.run.source, self.symbols, start=self.run.start, end=self.run.end)
        for symbol, scanned in scans.items():
            chunks = (chunk.select("timestamp", "price") for chunk in scanned)
            drawn, _ = sample_range(chunks, first, last + 1, each)
            frames.append(drawn.select(pl.lit(symbol).alias("symbol"), "timestamp", "price"))
        return pl.concat(frames)

    @cached_property
    def drawdowns(self) -> pl.DataFrame:
        """Return the ten deepest drawdowns; see `analysis.drawdowns`."""
        return _analysis.drawdowns(self.equity)

    @cached_property
    def monthly_returns(self) -> pl.DataFrame:
        """Return a row a year: year, jan to dec, total; see `analysis.monthly_returns`."""
        return _analysis.monthly_returns(self.equity)

    @cached_property
    def hourly_returns(self) -> pl.DataFrame:
        """Return the profile of the hours of the day; see `analysis.hourly_returns`."""
        return _analysis.hourly_returns(self.equity, self.trades)

    def figures(self) -> dict[str, go.Figure]:
        """Return every figure of the run by name; see `_tearsheet.result_figures`."""
        from fxlab.backtester.report._tearsheet import result_figures

        return result_figures(self)

    def plot(self, start: Time | None = None, end: Time | None = None) -> go.Figure:
        """Return the figure of the run: price with fills, equity, drawdown, known gaps.

        Parameters
        ----------
        start, end
            A part of its time (half open), drawn from all of its ticks: they are read again, and
            the note above the chart says how many there are.

        Examples
        --------
        >>> result = fxlab.backtest(ticks, "sma_cross", {"fast": 5, "slow": 20})
        >>> figure = result.plot(start="2025-01-01 00:01", end="2025-01-01 00:02")
        >>> figure.layout.annotations[-1].text
        '277 of 1,500 ticks in view'
        """
        from fxlab.backtester.report._tearsheet import run_figure

        return run_figure(self, start, end)

    def report(self, directory: str | Path) -> Path:
        """Write an offline HTML tear sheet into a directory and return its path."""
        from fxlab.backtester.report._tearsheet import write_report

        return write_report(self, Path(directory))

    def save(self, lab: RunStore) -> str:
        """Store the run and its fills in QuestDB and return the run's id.

        Raises
        ------
        RunConflict
            If a stored run has the same fingerprint and other metrics.
        """
        return lab._save_run(self)  # noqa: SLF001 - this is the one way to it

    @property
    def title(self) -> str:
        """Return one line that names the run."""
        values = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.strategy}({values}) on {self.data_session_id}"

    def __repr__(self) -> str:
        """Show the run and its main metrics."""
        from fxlab.backtester.report._summary import result_text

        return result_text(self)

    def _repr_html_(self) -> str:
        from fxlab.backtester.report._summary import result_html

        return result_html(self)


def build_result(run: Run, records: Records, rows_digest: Mapping[str, str]) -> Result:
    """Turn the kernel's records into a `Result`."""
    facts = facts_of(run, records)
    returns = interval_returns(records, run.capital, run.grid_us)
    columns = columns_of(records.orders, records.fills, records.trades)
    metrics = compute(returns, facts, *columns)
    now = datetime.now(UTC)
    return Result(
        run=run,
        run_id=f"exec_{now:%Y%m%d_%H%M%S}_{uuid.uuid4().hex[:8]}_backtest",
        created_at=now,
        metrics=metrics,
        _records=records,
        fingerprint=fingerprint(run, rows_digest),
        ticks=records.rows,
        first=from_micros(records.first),
        last=from_micros(records.last),
    )


def facts_of(run: Run, records: Records) -> Facts:
    """Return what metrics are computed from, beside returns, fills and trades."""
    account = records.account
    ruined_at = int(account["ruined_at"])
    return Facts(
        capital=run.capital,
        final_equity=float(account["equity"]),
        max_drawdown=float(account["max_drawdown"]),
        max_drawdown_us=int(account["under_water"]),
        elapsed_us=records.last - records.first,
        exposed_us=int(account["exposed"]),
        grid_us=run.grid_us,
        days_per_year=run.days_per_year,
        funding=float(account["funding"]),
        ruined_us=None if ruined_at == NEVER else ruined_at - records.first,
        gap_us=None
        if run.gaps is None
        else gap_micros(run.gaps, records.first, records.last, run.symbols),
    )


def fingerprint(run: Run, rows_digest: Mapping[str, str]) -> str:
    """Return the SHA-256 of all that decides a run's outcome."""
    return fingerprint_of(fingerprint_inputs(run, rows_digest), run.parameters)


def fingerprint_inputs(run: Run, rows_digest: Mapping[str, str]) -> dict[str, Any]:
    """Return all that decides a run's outcome but its parameters; what many runs can share."""
    return {
        "session": None if isinstance(run.source, FrameSource) else run.source.id,
        "rows": dict(rows_digest),
        "strategy": run.strategy.source,
        "execution": run.execution.as_dict(),
        "capital": run.capital,
        "grid_us": run.grid_us,
        "days_per_year": run.days_per_year,
        "versions": versions(),
        "python": platform.python_version_tuple()[:2],
    }


def fingerprint_of(made_of: Mapping[str, Any], parameters: Mapping[str, Value]) -> str:
    """Return the SHA-256 of ingredients and parameters."""
    return sealing(made_of)(parameters)


def sealing(made_of: Mapping[str, Any]) -> Callable[[Mapping[str, Value]], str]:
    """Return what makes `fingerprint_of` these ingredients and any parameters.

    It is hashed as one JSON object in the order of its names, whose values are written once.
    """
    given = "parameters"
    written = {name: _json({name: made_of[name]})[1:-1] for name in sorted(made_of)}
    before = "".join(f"{text}, " for name, text in written.items() if name < given)
    after = "".join(f", {text}" for name, text in written.items() if name > given)
    begun = hashlib.sha256(f'{{{before}"{given}": '.encode())

    def seal(parameters: Mapping[str, Value]) -> str:
        digest = begun.copy()
        digest.update(f"{_json(dict(parameters))}{after}}}".encode())
        return digest.hexdigest()

    return seal


def _json(value: object) -> str:
    return json.dumps(value, sort_keys=True)


@cache
def versions() -> dict[str, str]:
    """Return the versions of the packages that decide a run's outcome."""
    return {name: metadata.version(name) for name in VERSIONED}


STATUS_NAMES: Final = {
    1: "filled",
    2: "replaced by a newer decision",
    3: "position already as wanted",
    4: "no equity left",
    5: "no tick left to fill at",
    6: "partly filled, then replaced by a newer decision",
    7: "partly filled: the book held no more",
    8: "no book young enough",
    9: "no liquidity on that side of the book",
    10: "a gap in the recording came first",
    11: "below the smallest order",
    12: "no buying power left",
    13: "too soon after an exit",
    14: "no usable book: crossed, out of order or empty",
}

REASON_NAMES: Final = {
    0: "",
    1: "signal",
    2: "stop_loss",
    3: "take_profit",
    4: "trailing_stop",
    5: "max_holding",
    6: "liquidation",
    7: "rebalance",
    8: "end",
}

FLAG_NAMES: Final = {1: "partial", 2: "beyond_depth", 4: "across_gap", 8: "cut_by_leverage"}

EXECUTED: Final = ("target", "price", "qty", "fee", "position", "equity")
"""What an order and a fill both tell."""


def interval_returns(records: Records, capital: float, grid_us: int) -> np.ndarray:
    """Return simple returns of equity on the grid; intervals without a tick return zero.

    A sample stands at the end of its interval; the last interval is closed by the last tick. The
    interval in which the account is ruined returns -1, those after it 0: all can be lost once,
    and there is no return on nothing, nor on a debt.
    """
    start = records.first // grid_us * grid_us
    numbers = -((start - records.samples["time"]) // grid_us)  # ceil: which grid interval it is in
    count = int(numbers[-1])
    equity = np.full(count + 1, np.nan)
    equity[0] = capital
    equity[numbers] = records.samples["equity"]  # the last sample inside an interval wins
    filled = np.maximum.accumulate(np.where(np.isnan(equity), 0, np.arange(count + 1)))
    values = equity[filled]
    gone = np.minimum.accumulate(values) <= 0.0
    ruined_at = int(records.account["ruined_at"])
    if ruined_at != NEVER:
        gone[(ruined_at - start) // grid_us + 1 :] = True
    returns: np.ndarray = values[1:] / np.where(gone[:-1], 1.0, values[:-1]) - 1.0
    returns[gone[1:]] = -1.0
    returns[gone[:-1]] = 0.0
    return returns


def _times(*names: str) -> list[pl.Expr]:
    return [pl.col(name).cast(UTC_MICROS) for name in names]


def _symbol(symbols: tuple[str, ...]) -> pl.Expr:
    names = pl.Series(list(symbols), dtype=pl.String)
    return pl.lit(names).gather(pl.col("leg")).alias("symbol")


def orders_table(records: Records, symbols: tuple[str, ...]) -> pl.DataFrame:
    """Return every order and what became of it."""
    return (
        pl.from_numpy(records.orders)
        .select(
            _symbol(symbols),
            _named("status", STATUS_NAMES),
            _named("reason", REASON_NAMES),
            *_times("decided_at", "ready_at", "done_at"),
            *EXECUTED,
        )
        .with_columns(pl.col("price").fill_nan(None))
    )


def fills_table(fills: np.ndarray, symbols: tuple[str, ...]) -> pl.DataFrame:
    """Return the executions (`FILL` records); an order may have several."""
    flags = {
        bits: ", ".join(name for bit, name in FLAG_NAMES.items() if bits & bit)
        for bits in range(2 * max(FLAG_NAMES))
    }
    return pl.from_numpy(fills).select(
        _symbol(symbols),
        pl.col("time").cast(UTC_MICROS).alias("timestamp"),
        *_times("decided_at"),
        _named("reason", REASON_NAMES),
        _named("maker", {0: "taker", 1: "maker"}).alias("liquidity"),
        _named("flags", flags),
        *EXECUTED,
    )


def _named(column: str, names: dict[int, str]) -> pl.Expr:
    words = pl.Series([names[number] for number in range(max(names) + 1) if number in names])
    first = min(names)
    return pl.lit(words).gather(pl.col(column) - first).alias(column)


def trades_table(records: Records, symbols: tuple[str, ...]) -> pl.DataFrame:
    """Return the round trips; an open one has a null exit time."""
    sign = pl.col("direction")
    low = (pl.col("low") / pl.col("entry_price") - 1) * sign
    high = (pl.col("high") / pl.col("entry_price") - 1) * sign
    still_open = pl.col("exited_at") < 0
    seconds = (pl.col("exited_at") - pl.col("entered_at")) / 1e6
    return pl.from_numpy(records.trades).select(
        _symbol(symbols),
        pl.when(sign > 0).then(pl.lit("long")).otherwise(pl.lit("short")).alias("direction"),
        *_times("entered_at"),
        pl.when(~still_open).then(pl.col("exited_at")).cast(UTC_MICROS).alias("exited_at"),
        "qty",
        "entry_price",
        "exit_price",
        "fees",
        "funding",
        "pnl",
        (pl.col("pnl") / (pl.col("qty") * pl.col("entry_price"))).alias("return"),
        pl.min_horizontal(low, high, 0.0).alias("mae"),
        pl.max_horizontal(low, high, 0.0).alias("mfe"),
        pl.when(~still_open).then(seconds).alias("duration_seconds"),
        _named("reason", REASON_NAMES).alias("exit_reason"),
    )


def equity_table(records: Records, capital: float) -> pl.DataFrame:
    """Return sampled equity, with the exact peak and trough of the deepest drawdown."""
    account = records.account
    times = [records.first, int(account["high_at"]), int(account["low_at"])]
    values = [capital, float(account["high"]), float(account["low"])]
    samples = pl.from_numpy(records.samples)
    exact = pl.DataFrame({"time": times, "equity": values}, schema=samples.schema)
    # A sample closes its interval: the last one would stand after the last tick.
    frame = pl.concat([exact, samples]).sort("time", maintain_order=True)
    equity = pl.col("equity")
    return frame.select(
        pl.col("time").clip(upper_bound=records.last).cast(UTC_MICROS).alias("timestamp"),
        equity,
        (equity / equity.cum_max() - 1).alias("drawdown"),
    )
