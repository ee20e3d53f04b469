"""Bring ticks in: from files of the older system, from Parquet and CSV, from a seeded generator."""
