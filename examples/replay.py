"""Replay a session in its own time, faster if wanted, with a strategy that trades on it."""

import fxlab

session = fxlab.connect().session("demo_synthetic_book")
start = session.started
player = fxlab.replay(
    session, speed=100, strategy="sma_cross", start=start, end=start + (session.ended - start) / 20
)
for batch in player:
    print(f"{batch.progress:6.1%}: {batch.frame.height:4} ticks, equity {batch.equity:,.2f}")
