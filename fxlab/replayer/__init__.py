"""Paced replay of a session."""
