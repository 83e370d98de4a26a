"""Symmetric positive definite approximations of A, and how they are chosen and built."""
