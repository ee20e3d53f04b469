"""The backtester: pure functions of frames. No database, no widgets, no clock."""
