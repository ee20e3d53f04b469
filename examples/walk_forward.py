"""Choose parameters on the past, trade them on what follows, again and again."""

import fxlab

session = fxlab.connect().session("demo_synthetic_book")
walk = fxlab.walk_forward(
    session,
    "sma_cross",
    {"fast": [20, 50], "slow": [100, 200]},
    train="20m",
    test="10m",
)
print(walk)
print(walk.table)
