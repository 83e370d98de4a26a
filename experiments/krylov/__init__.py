"""The comparison against CG and Lanczos: its matrices, its rivals, its tables and its pictures."""
