"""The result of a backtest: frames, figures, pictures, and what made them."""

from __future__ import annotations

import hashlib
import json
import platform
import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cache, cached_property
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Protocol

import polars as pl

from fxlab.backtester import analysis, tables
from fxlab.backtester.execution import Execution
from fxlab.backtester.frame_source import FrameSource
from fxlab.backtester.ledger import Records
from fxlab.backtester.metrics import Facts, Metrics, compute_records
from fxlab.backtester.records import NEVER
from fxlab.backtester.strategy import Strategy, Value
from fxlab.backtester.ticks import TickSource
from fxlab.backtester.time_held import blind_micros
from fxlab.times import Time, from_micros, parse_range

if TYPE_CHECKING:
    import plotly.graph_objects as go

PLOT_POINTS: Final = 4_000
VERSIONED: Final = ("fxlab", "numba", "numpy", "polars")


class RunStore(Protocol):
    """Where runs are kept: a `Lab`."""

    def save_run(self, result: Result) -> str:
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
    holes: pl.DataFrame | None = None  # from_time, to_time, symbol; None: nobody kept a ledger

    def options(self) -> dict[str, Any]:
        """Return the time range and the basis of the figures, as plain values."""
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
        Figures by name; `Metrics.table` gives units and notes.
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
    """

    run: Run
    run_id: str
    created_at: datetime
    metrics: Metrics
    orders: pl.DataFrame
    fills: pl.DataFrame
    trades: pl.DataFrame
    equity: pl.DataFrame
    fingerprint: str
    ticks: int
    first: datetime
    last: datetime

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
        from fxlab.charts import downsample

        each = max(500, PLOT_POINTS // len(self.symbols))
        frames = []
        for symbol in self.symbols:
            scanned = self.run.source.scan_ticks(symbol, start=self.run.start, end=self.run.end)
            chunks = (chunk for chunk in scanned if chunk.height)
            sampled = [
                downsample(chunk.select("timestamp", "price"), "timestamp", "price", each)
                for chunk in chunks
            ]
            drawn = downsample(pl.concat(sampled), "timestamp", "price", each)
            frames.append(drawn.select(pl.lit(symbol).alias("symbol"), "timestamp", "price"))
        return pl.concat(frames)

    @cached_property
    def drawdowns(self) -> pl.DataFrame:
        """Return the ten deepest drawdowns; see `analysis.drawdowns`."""
        return analysis.drawdowns(self.equity)

    @cached_property
    def monthly_returns(self) -> pl.DataFrame:
        """Return a row a year: year, jan to dec, total; see `analysis.monthly_returns`."""
        return analysis.monthly_returns(self.equity)

    @cached_property
    def hourly_returns(self) -> pl.DataFrame:
        """Return the profile of the hours of the day; see `analysis.hourly_returns`."""
        return analysis.hourly_returns(self.equity, self.trades)

    def figures(self) -> dict[str, go.Figure]:
        """Return every figure of the run by name; see `figures.result_figures`."""
        from fxlab.backtester.figures import result_figures

        return result_figures(self)

    def plot(self) -> go.Figure:
        """Return the figure of the run: price with fills, equity, drawdown, known gaps."""
        from fxlab.backtester.figures import run_figure

        return run_figure(self)

    def report(self, directory: str | Path) -> Path:
        """Write an offline HTML tear sheet into a directory and return its path."""
        from fxlab.backtester.report import write_report

        return write_report(self, Path(directory))

    def save(self, lab: RunStore) -> str:
        """Store the run and its fills in QuestDB and return the run's id.

        Raises
        ------
        RunConflict
            If a stored run has the same fingerprint and other figures.
        """
        return lab.save_run(self)

    @property
    def title(self) -> str:
        """Return one line that names the run."""
        values = ", ".join(f"{name}={value}" for name, value in self.parameters.items())
        return f"{self.strategy}({values}) on {self.data_session_id}"

    def __repr__(self) -> str:
        """Show the run and its main figures."""
        from fxlab.backtester.summary import result_text

        return result_text(self)

    def _repr_html_(self) -> str:
        from fxlab.backtester.summary import result_html

        return result_html(self)


def build_result(run: Run, records: Records, rows_digest: Mapping[str, str]) -> Result:
    """Turn the kernel's records into a `Result`."""
    orders = tables.orders_table(records, run.symbols)
    fills = tables.fills_table(records.fills, run.symbols)
    trades = tables.trades_table(records, run.symbols)
    facts = facts_of(run, records)
    returns = tables.grid_returns(records, run.capital, run.grid_us)
    now = datetime.now(UTC)
    return Result(
        run=run,
        run_id=f"exec_{now:%Y%m%d_%H%M%S}_{uuid.uuid4().hex[:8]}_backtest",
        created_at=now,
        metrics=compute_records(returns, facts, records.fills, records.trades, records.orders),
        orders=orders,
        fills=fills,
        trades=trades,
        equity=tables.equity_table(records, run.capital),
        fingerprint=fingerprint(run, rows_digest),
        ticks=records.rows,
        first=from_micros(records.first),
        last=from_micros(records.last),
    )


def facts_of(run: Run, records: Records) -> Facts:
    """Return what figures are computed from, beside returns, fills and trades."""
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
        blind_us=None
        if run.holes is None
        else blind_micros(run.holes, records.first, records.last, run.symbols),
    )


def fingerprint(run: Run, rows_digest: Mapping[str, str]) -> str:
    """Return the SHA-256 of all that decides a run's outcome."""
    return seal(ingredients(run, rows_digest), run.parameters)


def ingredients(run: Run, rows_digest: Mapping[str, str]) -> dict[str, Any]:
    """Return all that decides a run's outcome but its parameters; what many runs can share."""
    return {
        "session": None if isinstance(run.source, FrameSource) else run.source.id,
        "rows": dict(rows_digest),
        "strategy": run.strategy.source,
        "execution": run.execution.as_dict(),
        "capital": run.capital,
        "grid_us": run.grid_us,
        "days_per_year": run.days_per_year,
        "versions": _versions(),
        "python": platform.python_version_tuple()[:2],
    }


def seal(made_of: Mapping[str, Any], parameters: Mapping[str, Value]) -> str:
    """Return the SHA-256 of ingredients and parameters."""
    whole = {**made_of, "parameters": dict(parameters)}
    return hashlib.sha256(json.dumps(whole, sort_keys=True).encode()).hexdigest()


@cache
def _versions() -> dict[str, str]:
    return {name: metadata.version(name) for name in VERSIONED}
