"""Transformers over the rows of a matrix, and how their weights are stored."""
