"""Randomized low-rank approximation with learned sketches. Nothing is here yet; see the README's scope."""
