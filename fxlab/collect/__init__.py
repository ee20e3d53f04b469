"""Collect ticks: importer of files and frames, recorder of live venues, seeded generator."""
