"""Unattended work: notebooks run in a batch, sweeps repeated every night."""
