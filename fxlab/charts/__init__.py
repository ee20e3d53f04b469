"""Every picture of the project: frame in, `plotly` figure out, nothing else.

A chart says what it drew ("1,250,000 ticks, 2,000 drawn"), keeps every spike, breaks its lines
where there was no data, and tells buys from sells by shape as well as by a colour-blind-safe
colour. Its background is transparent and its inks are mid-tones: it reads on white and on black.
"""

from fxlab.charts.calendar import monthly_chart, profile_chart
from fxlab.charts.comparison import comparison_chart
from fxlab.charts.fills import MARKERS
from fxlab.charts.lines import POINTS, downsample
from fxlab.charts.runs import equity_chart, exposure_chart, price_chart, result_chart
from fxlab.charts.sweeps import heatmap_chart, parallel_chart
from fxlab.charts.trades import distribution_chart, trades_chart
from fxlab.charts.walks import walk_forward_chart

__all__ = [
    "MARKERS",
    "POINTS",
    "comparison_chart",
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
    "trades_chart",
    "walk_forward_chart",
]
