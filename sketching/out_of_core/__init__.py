"""Matrices on disk or on a cluster, read by blocks of rows."""
