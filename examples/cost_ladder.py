"""How much cost and delay does a strategy bear? The same signals under harsher assumptions."""

import fxlab

session = fxlab.connect().session("demo_synthetic_book")
ladder = fxlab.cost_ladder(session, "mean_reversion", {"window": 3_000, "entry_bps": 20.0})
print(ladder.table)
