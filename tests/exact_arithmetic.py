"""Residuals and determinants of stored numbers, exactly: floating-point numbers are integers times powers of two."""

import functools
import math
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import torch
from torch import Tensor

MOST_EXACT_ROWS = 40
"""Beyond, integers grow too long, and elimination goes on in the widest floating-point type instead."""


def integers(values: Tensor) -> tuple[np.ndarray, int]:
    """Python integers I and an exponent e with values = I 2^e."""
    mantissas, exponents = np.frexp(values.detach().to(torch.float64).numpy())
    whole = (mantissas * 2.0**53).astype(np.int64).astype(object)
    exponents = exponents.astype(np.int64) - 53
    low = int(exponents[mantissas != 0].min()) if (mantissas != 0).any() else 0
    shifts = np.where(mantissas != 0, exponents - low, 0).astype(object)
    return whole * 2**shifts, low


def root_of_ratio(numerator: int, denominator: int, exponent: int = 0) -> float:
    """sqrt(numerator / denominator) 2^exponent, infinite beyond the range of float."""
    if not numerator:
        return 0.0
    try:
        return math.sqrt(Fraction(numerator, denominator) * Fraction(4) ** exponent)
    except (OverflowError, ZeroDivisionError):
        return math.inf


@dataclass(frozen=True)
class Residual:
    """rhs - A x as integers times 2^exponent."""

    vector: np.ndarray
    exponent: int

    def relative(self, rhs: Tensor) -> float:
        """Its norm over that of rhs."""
        whole, exponent = integers(rhs)
        return root_of_ratio((self.vector**2).sum(), (whole**2).sum(), self.exponent - exponent)

    def gradient(self, A: Tensor) -> float:
        """||A^T r|| / (||A|| ||r||), with the Frobenius norm; zero without a residual."""
        whole, _ = integers(A)
        product = whole.T @ self.vector
        # the exponents of A and of r cancel
        return root_of_ratio((product**2).sum(), (whole**2).sum() * (self.vector**2).sum())


def residual(A: Tensor, x: Tensor, rhs: Tensor) -> Residual:
    """rhs - A x of finite numbers."""
    (A_whole, A_exponent), (x_whole, x_exponent), (b_whole, b_exponent) = integers(A), integers(x), integers(rhs)
    exponent = min(A_exponent + x_exponent, b_exponent)
    image = (A_whole @ x_whole) * 2 ** (A_exponent + x_exponent - exponent)
    return Residual(b_whole * 2 ** (b_exponent - exponent) - image, exponent)


@dataclass(frozen=True)
class Definite:
    """Log det A and rhs^T A^-1 rhs (infinite beyond the range of float) of a positive definite A."""

    logdet: float
    inv_quad: float


def definite(A: Tensor, rhs: Tensor) -> Definite | None:
    """What is known of A where it is positive definite, else None: by Sylvester's criterion on leading minors."""
    return _definite(*(values.detach().to(torch.float64).numpy().tobytes() for values in (A, rhs)))


@functools.lru_cache(maxsize=8)
def _definite(A_bytes: bytes, rhs_bytes: bytes) -> Definite | None:
    """The same of the bytes, by which answers are kept: several calls are judged by one."""
    rhs = torch.frombuffer(bytearray(rhs_bytes), dtype=torch.float64)
    A = torch.frombuffer(bytearray(A_bytes), dtype=torch.float64).view(len(rhs), -1)
    if len(A) > MOST_EXACT_ROWS:
        return _definite_in_long_double(A, rhs)
    (A_whole, A_exponent), (b_whole, b_exponent) = integers(A), integers(rhs)
    n, before = len(A), 1
    bordered = np.block([[A_whole, b_whole[:, None]], [b_whole[None], np.zeros((1, 1), dtype=object)]])
    # Bareiss's elimination: divisions without remainder, and every pivot is a leading minor.
    for k in range(n):
        pivot = bordered[k, k]
        if pivot <= 0:
            return None
        rest = bordered[k + 1 :, k + 1 :] * pivot - np.outer(bordered[k + 1 :, k], bordered[k, k + 1 :])
        bordered[k + 1 :, k + 1 :] = rest // before
        before = pivot
    # The bordered determinant is -det(A) rhs^T A^-1 rhs.
    form = Fraction(-int(bordered[n, n]), int(before)) * Fraction(2) ** (2 * b_exponent - A_exponent)
    try:
        inv_quad = float(form)
    except OverflowError:
        inv_quad = math.inf
    return Definite(math.log(before) + n * A_exponent * math.log(2), inv_quad)


def _definite_in_long_double(A: Tensor, rhs: Tensor) -> Definite | None:
    """Elimination without pivoting in 64 bits of mantissa, where zero is further away than that."""
    rest, b, logdet, inv_quad = A.numpy().astype(np.longdouble), rhs.numpy().astype(np.longdouble), 0.0, 0.0
    noise = len(A) * np.finfo(np.longdouble).eps * np.abs(rest).max()
    for _ in range(len(A)):
        pivot, column = rest[0, 0], rest[1:, 0] / rest[0, 0]
        if pivot <= noise:
            return None
        logdet, inv_quad = logdet + np.log(pivot), inv_quad + b[0] ** 2 / pivot
        b = b[1:] - column * b[0]
        rest = rest[1:, 1:] - np.outer(column, rest[0, 1:])
    return Definite(float(logdet), float(inv_quad))
