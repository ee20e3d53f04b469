"""Recorded sessions: catalogue, reader, saved runs."""
