"""Compiled kernel of the backtester: arrays and records only."""
