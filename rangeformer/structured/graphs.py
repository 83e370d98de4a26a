"""Laplacians of graphs."""

import torch

from rangeformer.shapes import Tensor
from rangeformer.structured.sampling import integer, log_uniform, normal, rand


def graph_laplacian(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = (L + a I)^-1 or L: L the Laplacian of a k-nearest-neighbour graph of random points, weights lognormal."""
    points = rand(n, integer(generator, 1, 3), generator=generator, dtype=dtype)
    distance = torch.cdist(points, points)
    k = min(n - 1, integer(generator, 3, 8))
    nearest = distance.fill_diagonal_(torch.inf).topk(k, largest=False).indices
    weights = torch.zeros(n, n, dtype=dtype, device=generator.device)
    weights.scatter_(1, nearest, (0.5 * normal(n, k, generator=generator, dtype=dtype)).exp())
    weights = torch.maximum(weights, weights.mT)
    laplacian = torch.diag(weights.sum(1)) - weights
    return precision_or_covariance(laplacian, generator)


def precision_or_covariance(laplacian: Tensor, generator: torch.Generator) -> Tensor:
    """L + a I or, two times in three, its inverse: the precision or the covariance; a relative to mean diag L."""
    shift = laplacian.diagonal().mean() * log_uniform(generator, 1e-3, 1e-1)
    shifted = laplacian + shift * torch.eye(len(laplacian), dtype=laplacian.dtype, device=laplacian.device)
    if integer(generator, 0, 2) == 0:
        return shifted
    return torch.cholesky_inverse(torch.linalg.cholesky(shifted))
