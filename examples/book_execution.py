"""Fill orders against the recorded book: cross the spread, walk the levels, after a latency."""

import fxlab

session = fxlab.connect().session("demo_synthetic_book")
for name, execution in {
    "next print": fxlab.Execution(taker_bps=5),
    "book": fxlab.Execution(taker_bps=5, fill="book"),
    "book, late": fxlab.Execution(
        taker_bps=5, fill="book", latency=fxlab.Latency.lognormal("80ms", sigma=0.5, seed=1)
    ),
}.items():
    result = fxlab.backtest(session, "sma_cross", execution=execution, capital=10_000)
    print(f"{name:>12}: {result.metrics['final_equity']:,.2f}, fees {result.metrics['fees']:,.2f}")
