"""Looped models that answer directly: the Galerkin member, which solves small problems inside, and the pure one."""
