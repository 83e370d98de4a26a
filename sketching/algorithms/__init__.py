"""Randomised low-rank approximation, trace and diagonal estimation."""
