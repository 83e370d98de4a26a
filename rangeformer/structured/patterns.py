"""Patterns of equal and zero entries."""

import torch

from rangeformer.shapes import Tensor
from rangeformer.structured.sampling import integer, log_uniform, uniform


def toeplitz(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B_ij = sum_m w_m rho_m^|i-j| cos(omega_m (i-j)): autocovariance of a mixture of damped oscillations."""
    lag = torch.arange(n, dtype=dtype, device=generator.device)
    column = torch.zeros(n, dtype=dtype, device=generator.device)
    for _ in range(integer(generator, 1, 4)):
        decay, frequency = log_uniform(generator, 2 / n, 0.5), uniform(generator, 0, 1.0)
        column = column + uniform(generator, 0.1, 1) * (-decay * lag).exp() * (frequency * lag).cos()
    index = torch.arange(n, device=generator.device)
    return column[(index[:, None] - index).abs()]
