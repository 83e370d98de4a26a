"""Laplacians of graphs."""

import torch

from rangeformer.distributions.sampling import integer, log_uniform, normal, rand, uniform
from rangeformer.shapes import Tensor


def graph_laplacian(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = (L + a I)^-1, or L + a I, L the Laplacian of a k-nearest-neighbour graph of points in the unit cube.

    Drawn: dimension 1..3, k in 3..8, weights exp(0.5 e), a / mean(diag L) ~ U_log[1e-3, 1e-1]; inverse in 2 of 3.
    """
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


def power_network(n: int, generator: torch.Generator, dtype: torch.dtype) -> Tensor:
    """B = C^T diag(w) C + diag(g), C the incidence of a random tree with a few loops: nodal admittances of a network.

    Node i > 0 hangs on one of the m nodes before it; few nodes are grounded, so that B is regular but only just.

    Drawn: m ~ U_log[2, n], a share of n in U[0.1, 0.5] of loops, w = exp(s e), s ~ U[1, 2]; g = exp(e) at 1 + n / 50
    nodes, else 0.
    """
    device = generator.device
    reach = max(1, int(log_uniform(generator, 2, max(3, n))))
    num_loops = int(n * uniform(generator, 0.1, 0.5))
    node = torch.arange(1, n, device=device)
    loop = torch.randint(1, n, (num_loops,), generator=generator, device=device)
    child = torch.cat([node, loop])
    back = (rand(len(child), generator=generator, dtype=torch.float64) * child.clamp_max(reach)).long()
    line = torch.arange(len(child), device=device)
    root = (uniform(generator, 1, 2) / 2 * normal(len(child), generator=generator, dtype=dtype)).exp()
    incidence = torch.zeros(len(child), n, dtype=dtype, device=device)
    incidence[line, child] = root
    incidence[line, child - 1 - back] = -root
    admittance = incidence.mT @ incidence
    grounded = torch.randperm(n, generator=generator, device=device)[: 1 + n // 50]
    shunts = torch.zeros(n, dtype=dtype, device=device)
    shunts[grounded] = normal(len(grounded), generator=generator, dtype=dtype).exp()
    admittance.diagonal().add_(shunts)
    return admittance
