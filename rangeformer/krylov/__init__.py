"""Krylov subspace algorithms on any operator: block Lanczos, conjugate gradients, a growing search space."""
