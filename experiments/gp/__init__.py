"""Gaussian-process training steps and preconditioners."""
