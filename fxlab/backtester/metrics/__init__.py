"""Metrics of backtests: performance, exposure, overfitting, validation."""
