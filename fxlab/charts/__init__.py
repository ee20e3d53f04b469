"""Charts: frame in, `plotly` figure out, nothing else.

A chart says what it drew ("1,250,000 ticks, 2,000 drawn"), keeps every spike, breaks its lines
where there was no data, and tells buys from sells by shape as well as by a colour-blind-safe
colour. Its background is transparent and its inks are mid-tones: it reads on white and on black.
What is seen of it stands below it in words.
"""

from fxlab.charts._alt_text import summary
from fxlab.charts._runs import (
    MARKERS,
    POINTS,
    comparison_chart,
    equity_chart,
    exposure_chart,
    price_chart,
    result_chart,
)
from fxlab.charts._session import (
    CANDLES,
    candles_chart,
    candles_text,
    depth_chart,
    session_chart,
)
from fxlab.charts._style import downsample, save
from fxlab.charts._sweeps import heatmap_chart, parallel_chart, walk_forward_chart
from fxlab.charts._trades import distribution_chart, monthly_chart, profile_chart, trades_chart

__all__ = [
    "CANDLES",
    "MARKERS",
    "POINTS",
    "candles_chart",
    "candles_text",
    "comparison_chart",
    "depth_chart",
    "distribution_chart",
    "downsample",
    "equity_chart",
    "exposure_chart",
    "heatmap_chart",
    "monthly_chart",
    "parallel_chart",
    "price_chart",
    "profile_chart",
    "result_chart",
    "save",
    "session_chart",
    "summary",
    "trades_chart",
    "walk_forward_chart",
]
