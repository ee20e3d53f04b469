"""Recorder of live ticks: journal, sender, gap ledger, recovery."""
