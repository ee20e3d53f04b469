"""Seeded and hypothesis-made markets, shared by the tests of the backtester."""

from __future__ import annotations

import numpy as np
import polars as pl
from hypothesis import strategies as st

START = 1_735_689_600_000_000  # 2025-01-01T00:00:00Z

SMALL = {
    "sma_cross": {"fast": 3, "slow": 8},
    "mean_reversion": {"window": 6, "entry_bps": 8.0},
    "breakout": {"entry": 9, "leave": 4},
    "buy_and_hold": {},
    "ema_cross": {"fast": 3, "slow": 8},
    "momentum": {"window": 7, "threshold_bps": 6.0},
}
"""Parameters with which every shipped strategy trades on a short random walk."""


def random_walk(rows: int, seed: int = 7, *, symbol: str | None = None) -> pl.DataFrame:
    """Return ticks on a 0.01 grid; about a third share their timestamp with the one before."""
    rng = np.random.default_rng(seed)
    steps = rng.integers(0, 3, rows) * rng.integers(0, 400_000, rows)
    prices = np.maximum(100, 10_000 + np.cumsum(rng.integers(-6, 7, rows)))
    frame = pl.DataFrame(
        {
            "timestamp": pl.Series(START + np.cumsum(steps)).cast(pl.Datetime("us", "UTC")),
            "seq": np.arange(rows, dtype=np.int64),
            "price": prices / 100,
            "volume": rng.integers(1, 1000, rows) / 1000,
        }
    )
    return frame if symbol is None else frame.with_columns(symbol=pl.lit(symbol))


@st.composite
def markets(draw: st.DrawFn, *, max_rows: int = 60, symbols: int = 1) -> pl.DataFrame:
    """Draw ticks with gaps and equal timestamps, each with a wanted target (null keeps)."""
    frames = []
    for number in range(symbols):
        rows = draw(st.integers(1, max_rows))
        gaps = draw(
            st.lists(st.sampled_from([0, 0, 1, 1_000, 90_000_000]), min_size=rows, max_size=rows)
        )
        prices = draw(st.lists(st.integers(50, 200), min_size=rows, max_size=rows))
        targets = draw(
            st.lists(
                st.sampled_from([None, None, -1.0, -0.5, 0.0, 0.25, 1.0]),
                min_size=rows,
                max_size=rows,
            )
        )
        frames.append(
            pl.DataFrame(
                {
                    "timestamp": pl.Series(START + np.cumsum(gaps)).cast(pl.Datetime("us", "UTC")),
                    "seq": np.arange(rows, dtype=np.int64),
                    "symbol": [f"S{number}"] * rows,
                    "price": np.array(prices) / 10,
                    "wanted": pl.Series(targets, dtype=pl.Float64),
                }
            )
        )
    return pl.concat(frames)


def walk_with_targets(rows: int, seed: int) -> pl.DataFrame:
    """Return a random walk whose rows carry a random wanted target, mostly null."""
    rng = np.random.default_rng(seed)
    wanted = rng.choice([np.nan, np.nan, np.nan, -1.0, -0.3, 0.0, 0.5, 1.0], rows)
    return random_walk(rows, seed).with_columns(wanted=pl.Series(wanted).fill_nan(None))
