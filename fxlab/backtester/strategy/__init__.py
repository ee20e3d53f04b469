"""Strategies: what they want of the market, as data."""
