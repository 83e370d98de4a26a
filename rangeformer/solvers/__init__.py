"""Solvers as values that the drivers call."""
