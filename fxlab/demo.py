"""Demo from end to end: real ticks imported into a session, a backtest, a report to look at.

The trades are real: 1,114 BTC-USD trades of July 2024 that the QuestDB server ships in its import
folder. Beside them stands a generated session with trades and an order book, made from a seed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fxlab._progress import Advance, Progress, part, shown, silent
from fxlab.config import Settings
from fxlab.errors import ServerStartFailed, SessionNotFound

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


def generated_session(lab: Lab) -> Session:
    """Return the generated session with trades and order books, made if it is not there."""
    from fxlab.collect._files.synthetic import generate

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
