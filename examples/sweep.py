"""Try many parameters in one read of the session, and ask what the best of them is worth."""

from pathlib import Path

import fxlab

session = fxlab.connect().session("demo_synthetic_book")
sweep = fxlab.sweep(session, "sma_cross", {"fast": range(10, 60, 10), "slow": range(100, 400, 50)})
print(sweep)
print(sweep.table.head())
print(sweep.overfitting())

Path("reports").mkdir(exist_ok=True)
sweep.heatmap().write_html("reports/heatmap.html")
