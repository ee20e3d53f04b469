"""Demo from end to end (real ticks, a backtest, a report), and its synthetic market.

The trades are real: 1,114 BTC-USD trades of July 2024 that the QuestDB server ships in its import
folder. Beside them stands a generated session with trades and an order book, made from a seed. The
synthetic market has what makes real ticks difficult: trades that share their millisecond, a spread,
books that move with the order flow, quiet and busy times. It has no other likeness to a real one;
nothing should be concluded from a backtest on it.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import numpy as np
import polars as pl
from numpy.typing import NDArray

from fxlab._progress import Advance, Progress, part, shown, silent
from fxlab._times import integer, to_micros
from fxlab.config import Settings
from fxlab.errors import InvalidParameter, ServerStartFailed, SessionNotFound
from fxlab.schema import BOOK_DEPTH, UTC_MICROS, check_symbol

if TYPE_CHECKING:
    from fxlab.backtester.result import Result
    from fxlab.lab import Lab
    from fxlab.sessions.session import Session

REAL_SESSION: Final = "demo_btc_usd_202407"
SYNTHETIC_SESSION: Final = "demo_synthetic_book"
SYNTHETIC_SECONDS: Final = 3_600
SYNTHETIC_SEED: Final = 7
RUNS: Final[tuple[tuple[str, str, dict[str, Any]], ...]] = (
    (REAL_SESSION, "sma_cross", {"fast": 10, "slow": 40}),
    (SYNTHETIC_SESSION, "mean_reversion", {"window": 3_000, "entry_bps": 20.0}),
)


@dataclass(frozen=True, slots=True)
class Demo:
    """What the demo made: sessions, a result for each, and the results' reports."""

    sessions: list[Session]
    results: list[Result]
    reports: list[Path]


def run(out: str | Path, settings: Settings | None = None, progress: Progress = None) -> Demo:
    """Start the embedded server, import, backtest, save and write the reports.

    Parameters
    ----------
    out
        Folder for the reports, made if it is not there.
    settings
        Where the server lives; `Settings.load()` unless given.
    progress
        As `fxlab.backtest` takes it.
    """
    import fxlab
    from fxlab.lab import connect, up

    chosen = settings or Settings.load()
    with shown(progress, "demo") as advance:
        up(chosen, progress=part(advance, 0.0, 0.4))
        results, reports = [], []
        with connect(chosen) as lab:
            sessions = prepare(lab, part(advance, 0.4, 0.8))
            for number, (session, (_, strategy, parameters)) in enumerate(
                zip(sessions, RUNS, strict=True)
            ):
                advance(0.8 + number / 10, f"backtest {strategy} on {session.id}")
                result = fxlab.backtest(session, strategy, parameters)
                result.save(lab)
                reports.append(result.report(Path(out) / session.id))
                results.append(result)
        advance(1.0, "done")
    return Demo(sessions, results, reports)


def prepare(lab: Lab, progress: Advance = silent) -> list[Session]:
    """Import the real trades and the generated session; a second call changes nothing.

    Raises
    ------
    ServerStartFailed
        If the server does not ship the trades: they lie beside an embedded server only.
    """
    progress(0.0, "real BTC-USD trades")
    lab.import_files(
        shipped_trades(lab),
        session_id=REAL_SESSION,
        exchange="coinbase",
        notes="1,114 real BTC-USD trades of July 2024, shipped with the QuestDB server",
        tags=("demo", "real"),
    )
    progress(0.5, "a generated order-book session")
    generated = generated_session(lab)
    progress(1.0, "two sessions")
    return [lab.session(REAL_SESSION), generated]


def prepare_if_empty(lab: Lab, progress: Progress = None) -> list[Session]:
    """Import the demo sessions into a database that has no session, not even a deleted one."""
    if not (lab.sessions(limit=1).is_empty() and lab.deleted().is_empty()):
        return []
    with shown(progress, "demo sessions") as advance:
        return prepare(lab, advance)


def generated_session(lab: Lab) -> Session:
    """Return the generated session with trades and order books, made if it is not there."""
    if not _is_complete(lab, SYNTHETIC_SESSION):
        trades, books = generate(seed=SYNTHETIC_SEED, seconds=SYNTHETIC_SECONDS)
        lab.import_frames(
            {"prices": trades, "orderbook": books},
            session_id=SYNTHETIC_SESSION,
            exchange="synthetic",
            notes=f"generated from seed {SYNTHETIC_SEED}: not a market",
            tags=("demo", "synthetic"),
        )
    return lab.session(SYNTHETIC_SESSION)


def _is_complete(lab: Lab, session_id: str) -> bool:
    """Return whether the session is there; a newer generator may make other ticks of the seed."""
    try:
        return lab.session(session_id).status == "completed"
    except SessionNotFound:
        return False


def shipped_trades(lab: Lab) -> Path:
    """Return the path of the trades that the embedded server ships."""
    path = lab.settings.home / "questdb" / "import" / "trades.parquet"
    if not path.is_file():
        raise ServerStartFailed(
            f"the demo's trades are not at {path}: they come with the embedded server; unset "
            "FXLAB_QUESTDB_HOST and run: fxlab up"
        )
    return path


START: Final = datetime(2025, 1, 6, 9, 0, tzinfo=UTC)
SYMBOLS: Final = ("BTC_USDT", "ETH_USDT")

_STEP_US: Final = 100_000  # a book every 100 ms, as venues send them
_STEPS_A_SECOND: Final = 10
_CENTS: Final = 100.0  # prices stand on a grid of 0.01
_TRADES_A_STEP: Final = 1.5
_MOVE: Final = 1e-5  # of the price, a step and a unit of push: a volatility of about 40 % a year
_SAME_MS: Final = 0.8  # chance that a trade falls in the millisecond of the one before it
_LOWEST: Final = 1_000  # cents; far below all starting prices

Ints = NDArray[np.int64]
Floats = NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class _Path:
    """One symbol's market, step by step, in cents."""

    bid: Ints
    ask: Ints
    buy_share: Floats
    busy: Floats


def generate(
    seed: int = 1,
    seconds: int = 600,
    *,
    symbols: Sequence[str] = SYMBOLS,
    start: datetime = START,
) -> tuple[pl.DataFrame, pl.DataFrame]:
    """Return the trades and the order books of a made-up session.

    Parameters
    ----------
    seed, seconds
        The same two give the same frames, bit for bit.
    symbols
        Their names; each has a market of its own.
    start
        Time of the first book.

    Returns
    -------
    (polars.DataFrame, polars.DataFrame)
        Trades: timestamp, symbol, trade_id, side, price, qty, received_at; about 15 rows a second
        and symbol. Books: timestamp, symbol, first_update_id, last_update_id, bid_price_1,
        bid_qty_1, ... ask_qty_10; 10 rows a second and symbol. `Lab.import_frames` takes them as
        "prices" and "orderbook".
    """
    if integer(seconds, 1) is None:
        raise InvalidParameter(f"seconds={seconds!r} is not a length; give 1 or more")
    trades, books = [], []
    for number, symbol in enumerate(symbols):
        rng = np.random.default_rng([seed, seconds, number])
        path = _walk(rng, seconds * _STEPS_A_SECOND)
        named = pl.lit(check_symbol(symbol)).alias("symbol")
        trades.append(_trades(rng, path, to_micros(start)).with_columns(named))
        books.append(_books(rng, path, to_micros(start)).with_columns(named))
    return pl.concat(trades), pl.concat(books)


def _walk(rng: np.random.Generator, steps: int) -> _Path:
    """Return a market in which buyers push the price up, and activity comes in waves."""
    waves = _smooth(rng.normal(size=steps), 300)
    busy = _TRADES_A_STEP * np.exp(waves - waves.var() / 2)
    mood = _smooth(rng.normal(size=steps), 50)
    buy_share = 1 / (1 + np.exp(-mood))
    push = (buy_share - 0.5) * busy * 2 + rng.normal(scale=1 + busy, size=steps)
    level = int(rng.integers(100_000, 7_000_000))
    moves = np.rint(push * level * _MOVE).astype(np.int64)
    middle = np.maximum(level + np.cumsum(moves), _LOWEST)
    spread = 1 + rng.poisson(0.6, size=steps)
    return _Path(middle - spread // 2, middle - spread // 2 + spread, buy_share, busy)


def _smooth(noise: Floats, memory: int) -> Floats:
    """Return noise with a memory of so many steps and a variance of about one."""
    weights = np.exp(-np.arange(5 * memory) / memory)
    smooth: Floats = np.convolve(noise, weights / np.sqrt((weights**2).sum()))[: len(noise)]
    return smooth


def _trades(rng: np.random.Generator, path: _Path, start: int) -> pl.DataFrame:
    step = np.repeat(np.arange(len(path.bid)), rng.poisson(path.busy))
    count = len(step)
    millisecond = np.sort(step * (_STEP_US // 1_000) + rng.integers(0, 100, size=count))
    # A trade in the millisecond of the one before it, unless that lies in another step.
    repeats = (rng.random(count) < _SAME_MS) & (np.diff(step, prepend=-1) == 0)
    leader = np.maximum.accumulate(np.where(repeats, 0, np.arange(count)))
    time = start + millisecond[leader] * 1_000
    buys = rng.random(count) < path.buy_share[step]
    cents = np.where(buys, path.ask[step], path.bid[step])
    frame = pl.DataFrame(
        {
            "timestamp": time,
            "trade_id": np.arange(1_000_001, 1_000_001 + count),
            "price": cents / _CENTS,
            "qty": np.round(rng.exponential(0.2, size=count) + 0.00001, 5),
            "received_at": time + rng.integers(3_000, 40_000, size=count),
        }
    )
    side = pl.when(pl.Series(buys)).then(pl.lit("buy")).otherwise(pl.lit("sell"))
    return frame.with_columns(
        pl.col("timestamp", "received_at").cast(UTC_MICROS), side.alias("side")
    )


def _books(rng: np.random.Generator, path: _Path, start: int) -> pl.DataFrame:
    steps = len(path.bid)
    last = 5_000_000 + np.cumsum(rng.integers(1, 30, size=steps))
    columns: dict[str, Ints | Floats] = {
        "timestamp": start + np.arange(steps) * _STEP_US,
        "first_update_id": np.concatenate([[5_000_001], last[:-1] + 1]),
        "last_update_id": last,
    }
    for side, best, sign in (("bid", path.bid, -1), ("ask", path.ask, 1)):
        apart = np.cumsum(rng.integers(1, 4, size=(steps, BOOK_DEPTH)), axis=1)
        cents = best[:, None] + sign * (apart - apart[:, :1])
        sizes = np.round(rng.exponential(1.0, size=(steps, BOOK_DEPTH)) + 0.00001, 5)
        for level in range(BOOK_DEPTH):
            columns[f"{side}_price_{level + 1}"] = cents[:, level] / _CENTS
            columns[f"{side}_qty_{level + 1}"] = sizes[:, level]
    return pl.DataFrame(columns).with_columns(pl.col("timestamp").cast(UTC_MICROS))
