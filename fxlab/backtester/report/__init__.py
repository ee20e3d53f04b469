"""Reports of backtests: summary, charts, HTML tear sheet."""
