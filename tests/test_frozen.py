"""What version 0.3.0 gave its users stays: names, commands, figures to the last bit, saved runs.

The files in `frozen` were written by 0.3.0. Only what a release takes away on purpose, with a line
in the changelog, may leave them.
"""

from __future__ import annotations

import hashlib
import importlib
import json
from datetime import UTC, datetime
from pathlib import Path

import polars as pl
import pytest
import typer.main
from markets import recorded_walk

import fxlab
from fxlab._cli import app
from fxlab.schema import FILLS, RUNS

FROZEN = Path(__file__).parent / "frozen"
SURFACE = json.loads((FROZEN / "surface.json").read_text())
FIGURES = json.loads((FROZEN / "figures.json").read_text())
RUN = json.loads((FROZEN / "run.json").read_text())


def commands(command, name=""):
    """Yield each command and its options."""
    for part, inner in getattr(command, "commands", {}).items():
        yield from commands(inner, f"{name} {part}".strip())
    bare = getattr(command, "default", None)  # a group that runs one of its commands by itself
    if isinstance(bare, str) and hasattr(command, "commands"):
        command = command.commands[bare]
    if not hasattr(command, "commands"):
        yield name, {o for p in command.params for o in (*p.opts, *p.secondary_opts)}


def test_public_names_are_still_there():
    assert set(SURFACE["names"]) <= set(fxlab.__all__)


@pytest.mark.parametrize("place", SURFACE["imports"])
def test_what_notebooks_import_is_still_there(place):
    module, _, name = place.partition(":")
    found = importlib.import_module(module)
    assert hasattr(found, name) or importlib.import_module(f"{module}.{name}")


def test_commands_and_their_options_are_still_there():
    now = dict(commands(typer.main.get_command(app)))
    assert {name: sorted(set(options) - now.get(name, set()))
            for name, options in SURFACE["commands"].items()
            if not set(options) <= now.get(name, set()) or name not in now} == {}  # fmt: skip


@pytest.fixture(scope="module")
def recorded(shared_data):
    """Return ten minutes of a real market with its books, as one source."""
    folder = shared_data / "binance_spot_btcusdt_20240808"
    buyer_made = pl.col("buyer_is_maker")
    trades = pl.read_parquet(folder / "trades.parquet").select(
        "timestamp",
        "price",
        seq="trade_id",
        volume="qty",
        side=pl.when(buyer_made).then(pl.lit("SELL")).otherwise(pl.lit("BUY")),
    )
    books = pl.read_parquet(folder / "book10.parquet").rename({"last_update_id": "seq"})
    return fxlab.FrameSource(trades, books=books.drop("symbol", "recv_ns", "first_update_id"))


@pytest.mark.parametrize("name", sorted(FIGURES))
def test_shipped_strategies_have_the_same_figures_to_the_last_bit(recorded, name):
    before = FIGURES[name]
    result = fxlab.backtest(
        recorded,
        name,
        before["parameters"],
        capital=100_000.0,
        execution=fxlab.Execution(taker_bps=2.0),
        return_interval="1s",
    )
    source = result.run.strategy.source
    now = {
        "parameters": before["parameters"],
        "source": hashlib.sha256(source.encode()).hexdigest(),
        "fills": result.fills.height,
        "traded": float(result.fills["qty"].abs().sum()).hex(),
    }
    now |= {key: float(result.metrics[key]).hex() for key in before.keys() - now.keys()}
    assert now == before


@pytest.fixture(scope="module")
def saved(lab, unique, db):
    """Put a run into the database as 0.3.0 left it, on a session with its ticks."""
    ticks = [recorded_walk(400, seed=k, symbol=name) for k, name in ((1, "AAA"), (2, "BBB"))]
    session = unique("saved")
    frame = pl.concat(ticks).rename({"seq": "trade_id", "volume": "qty"})
    lab.import_frames({"prices": frame}, session_id=session)
    run = unique("run")
    row = RUN | {"run_id": run, "data_session_id": session, "timestamp": datetime.now(UTC)}
    fills = pl.read_csv(FROZEN / "fills.csv").with_columns(
        pl.col("timestamp", "decided_at").str.to_datetime("%FT%T%.6f", time_zone="UTC"),
        pl.col("flags").fill_null(""),
        run_id=pl.lit(run),
    )
    db.write(FILLS, fills.select(*FILLS.columns))
    db.write(RUNS, pl.DataFrame([row], schema=RUNS.frame))
    db.wait_visible(FILLS, RUNS)
    return run


def test_a_run_saved_by_the_version_before_is_reproduced_to_the_last_bit(lab, saved):
    again = lab.reproduce(saved)
    assert again.result.fills.height == RUN["fills_count"] == 52
    assert again.difference == ""
    assert not again.same_fingerprint  # since 0.4 a fingerprint holds the session's id
