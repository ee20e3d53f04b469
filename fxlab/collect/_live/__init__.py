"""Recorder of live ticks: journal, sender, gap table, recovery."""
