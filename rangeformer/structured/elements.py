"""Discretised differential equations."""

import math

import torch

from rangeformer.shapes import Tensor
from rangeformer.structured.graphs import precision_or_covariance
from rangeformer.structured.sampling import log_uniform, uniform


def stencil(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = L + a I or its inverse: five-point -div(kappa grad) on a grid cut to n nodes.

    kappa jumps between two values (ratio to 1e3) on a random half-plane, times an anisotropy of up to 1e2 in y.
    """
    side = math.ceil(n**0.5)
    row, column = torch.meshgrid(*[torch.arange(side, device=generator.device)] * 2, indexing="ij")
    inside = (
        row * uniform(generator, -1, 1) + column * uniform(generator, -1, 1) > side * uniform(generator, -0.5, 0.5)
    ).reshape(-1)
    conductivity = torch.where(inside, log_uniform(generator, 1, 1e3), 1.0).to(dtype)
    number = torch.arange(side * side, device=generator.device).reshape(side, side)
    weights = torch.zeros(side * side, side * side, dtype=dtype, device=generator.device)
    anisotropy = log_uniform(generator, 1, 100)
    for first, second, factor in (
        (number[:-1].reshape(-1), number[1:].reshape(-1), anisotropy),
        (number[:, :-1].reshape(-1), number[:, 1:].reshape(-1), 1.0),
    ):
        # harmonic mean: the flux through the face between two cells
        edge = factor * 2 / (1 / conductivity[first] + 1 / conductivity[second])
        weights[first, second] = edge
        weights[second, first] = edge
    laplacian = (torch.diag(weights.sum(1)) - weights)[:n, :n]
    return precision_or_covariance(laplacian, generator)
