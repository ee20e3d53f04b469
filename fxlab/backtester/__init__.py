"""Backtester: pure functions of frames, without database, widgets or clock."""
