"""Residuals as if computed in twice the precision, from float64 products that are exact.

A and x are cut into slices of so few bits that every product of two slices is exact in float64, the sum over n terms
included; the products are then added with their rounding errors (Ozaki, Ogita, Oishi & Rump, "Error-free
transformations of matrix multiplication by using fast routines of matrix multiplication and its applications", 2012).
Ten products in place of one, on any device, for the few residuals that rounding would otherwise decide.
"""

import math

import torch

from rangeformer.shapes import Float, Tensor

_SLICES = 4
_MANTISSA = 53


def compensated_residual(
    matrix: Float[Tensor, "*batch m n"], rhs: Float[Tensor, "*batch m k"], value: Float[Tensor, "*batch n k"]
) -> Float[Tensor, "*batch m k"]:
    """The residual rhs - matrix @ value, all float64, with an error of about eps^2 |matrix| |value|.

    Args:
        matrix: `(*batch, m, n)`; rows whose entries span more than twenty decades lose the smallest.
        rhs: `(*batch, m, k)`.
        value: `(*batch, n, k)`.

    Returns:
        The residual, rounded once.

    Example:
        >>> import torch
        >>> A, x = torch.tensor([[1e16, 1.0, -1e16]], dtype=torch.float64), torch.ones(3, 1, dtype=torch.float64)
        >>> compensated_residual(A, torch.zeros(1, 1, dtype=torch.float64), x).item(), (-A @ x).item()
        (-1.0, 0.0)
    """
    # Rounding to nearest carries one bit more than the slice's width.
    bits = (_MANTISSA - math.ceil(math.log2(max(2, matrix.shape[-1])))) // 2 - 1
    left, right = _slices(matrix, bits, dim=-1), _slices(value, bits, dim=-2)
    high, low = rhs, torch.zeros_like(rhs)
    for i in range(_SLICES):
        for j in range(_SLICES - i):
            high, error = _two_sum(high, -(left[i] @ right[j]))
            low = low + error
    return high + low


def _slices(values: Tensor, bits: int, dim: int) -> list[Tensor]:
    """Parts of `bits` bits each, relative to the largest of each row or column, that add up to the values."""
    rest, parts = values, []
    for _ in range(_SLICES):
        exponent = torch.frexp(rest.abs().amax(dim, keepdim=True)).exponent
        # Adding and subtracting a number this much larger rounds to `bits` bits.
        shift = torch.ldexp(torch.full_like(exponent, 0.75, dtype=values.dtype), exponent + (_MANTISSA - bits + 1))
        part = (rest + shift) - shift
        parts.append(part)
        rest = rest - part
    return parts


def _two_sum(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    """A + b rounded, and the rounding error (Knuth)."""
    total = a + b
    other = total - a
    return total, (a - (total - other)) + (b - other)
