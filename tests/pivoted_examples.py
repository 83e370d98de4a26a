"""Pivot columns of small kernel matrices, the input of the model's tests."""

import torch

from rangeformer.distributions import kernel_matrix
from rangeformer.operators import as_operator
from rangeformer.preconditioners.pivoted import pivoted_cholesky


def pivot_columns(
    n: int, c: int, *, batch: int = 1, seed: int = 0, dtype: torch.dtype = torch.float64, shape: str = "matern32"
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """F `(b, n, c)`, residual diagonal and diagonal `(b, n)`: kernels of skewed points, scaled rows."""
    generator = torch.Generator().manual_seed(seed)
    points = torch.randn(batch, n, 3, generator=generator, dtype=torch.float64).exp()
    scale = 1 + torch.rand(batch, n, generator=generator, dtype=torch.float64)
    matrix = scale[:, :, None] * torch.stack([kernel_matrix(x, shape) for x in points]) * scale[:, None, :]
    pivoted = pivoted_cholesky(as_operator(matrix), c, generator=generator)
    return tuple(x.to(dtype) for x in (pivoted.factor, pivoted.residual_diagonal, pivoted.diagonal))
