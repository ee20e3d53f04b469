"""Strategies: what is wanted of the market, as data."""
