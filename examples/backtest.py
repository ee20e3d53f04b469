"""Backtest a shipped strategy on a session, save the run, write its report."""

import fxlab

lab = fxlab.connect()
result = fxlab.backtest(
    lab.session("demo_synthetic_book"),
    "sma_cross",
    {"fast": 50, "slow": 200},
    execution=fxlab.Execution(taker_bps=5, latency="50ms"),
    capital=10_000,
)
print(result)
print(result.trades.head())
print("saved as", result.save(lab))
print("report:", result.report("reports"))
