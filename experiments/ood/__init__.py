"""Looped models on matrices and sizes outside the training distribution."""
