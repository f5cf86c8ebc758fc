"""Simulations behind what the analysis claims of its intervals and verdicts: `python -m analysis.simulations`."""
