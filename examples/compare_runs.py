"""Compare runs: in which figures, and by how much, do they differ."""

import fxlab

session = fxlab.connect().session("demo_synthetic_book")
runs = [
    fxlab.backtest(session, "sma_cross", {"fast": fast, "slow": 200}, capital=10_000)
    for fast in (20, 50, 100)
]
compared = fxlab.compare_runs(runs)
print(compared)
