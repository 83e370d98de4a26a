"""Randomised low-rank approximation beside its rivals."""
