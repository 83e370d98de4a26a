"""Gram matrices of independent entries."""

import torch

from rangeformer.distributions.sampling import integer, laplace, normal, rand, uniform
from rangeformer.shapes import Tensor


def wishart(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = X X^T, X n x m of independent entries.

    Drawn: m ~ U[n / 4, 2 n], entries Gaussian, Laplace or uniform.
    """
    columns = max(1, int(n * uniform(generator, 0.25, 2.0)))
    kind = integer(generator, 0, 2)
    entries = normal(n, columns, generator=generator, dtype=dtype)
    if kind == 1:
        entries = -laplace(n, columns, generator=generator, dtype=dtype)
    elif kind == 2:
        entries = rand(n, columns, generator=generator, dtype=dtype) - 0.5
    return entries @ entries.mT


def gram_gaussian(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = X X^T, X n x n.

    Drawn: X_ij ~ N(0, 1).
    """
    entries = normal(n, n, generator=generator, dtype=dtype)
    return entries @ entries.mT


def gram_laplace(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = X X^T, X n x n.

    Drawn: X_ij of density exp(-|x|) / 2.
    """
    entries = laplace(n, n, generator=generator, dtype=dtype)
    return entries @ entries.mT


def gram_uniform(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = X X^T, X n x n.

    Drawn: X_ij ~ U[-1, 1].
    """
    entries = 2 * rand(n, n, generator=generator, dtype=dtype) - 1
    return entries @ entries.mT
