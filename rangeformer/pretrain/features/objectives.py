"""Losses to train with, and the figures of merit to keep or discard by."""

import torch

from rangeformer.preconditioners.neighbors import nearest_earlier
from rangeformer.pretrain.features.problems import Problem
from rangeformer.shapes import Float, Int, Tensor

_SHARPNESS = 3.0
_NEAREST = 1e-4  # distances below this share of the boundary need not shrink further
_RANGE_RIDGE = 1e-4


def squared_distances(embedding: Float[Tensor, "b n p"]) -> Float[Tensor, "b n n"]:
    """|E_i - E_j|^2 by the Gram matrix; clamped at zero."""
    squares = embedding.square().sum(-1)
    return (squares[:, :, None] + squares[:, None, :] - 2 * embedding @ embedding.mT).clamp_min(0)


def neighbor_loss(
    embedding: Float[Tensor, "b n p"],
    correlation: Float[Tensor, "b n n"],
    num_neighbors: int,
    num_candidates: int,
) -> Tensor:
    """A smooth count of strong residual neighbours that are not among the nearest candidates.

    With tau_i the mean squared distance of row i's m-th to 2m-th nearest rows (m = `num_candidates`) and N(i) its k
    strongest rows, sum_ij rho_ij^2 log(1 + (|E_i - E_j|^2 / tau_i)^beta) / sum_ij rho_ij^2 over j in N(i). It does not
    know the scale of E, weighs each neighbour by what missing it costs, and vanishes when all are well inside.
    The weight -log(1 - rho_ij^2), the cost in nats of missing a lone neighbour, was tried and did worse on the
    validation distributions: a few near-twins outweigh all other rows.
    """
    distance = squared_distances(embedding)
    n = distance.shape[-1]
    own = torch.eye(n, dtype=torch.bool, device=distance.device)
    ranked = distance.masked_fill(own, torch.inf).topk(2 * num_candidates, dim=-1, largest=False).values
    # where 2m rows coincide, rounding of the Gram matrix is all there is between them
    rounding = 1e-6 * embedding.square().sum(-1).mean(-1)[:, None, None]
    boundary = ranked[..., num_candidates:].mean(-1, keepdim=True).clamp_min(torch.finfo(distance.dtype).tiny)
    boundary = torch.maximum(boundary, rounding)
    weight, strongest = correlation.topk(num_neighbors, dim=-1)
    ratio = (distance.gather(-1, strongest) / boundary).clamp_min(_NEAREST)
    missed = torch.nn.functional.softplus(_SHARPNESS * ratio.log())
    # rows without correlations must not be blown up: 0.01 per row is the noise level
    return ((weight * missed).sum((-1, -2)) / (weight.sum((-1, -2)) + 0.01 * n)).mean()


def range_loss(
    features: Float[Tensor, "b n m"], kernel: Float[Tensor, "b n n"], rank: int, generator: torch.Generator
) -> Tensor:
    """Log share of |K|_F^2 outside a sketch of `rank` draws from N(0, Psi Psi^T)."""
    shape = (features.shape[0], features.shape[-1], rank)
    draws = torch.randn(shape, generator=generator, device=generator.device).to(features)
    return missed_energy(features @ draws, kernel).log().mean()


def missed_energy(sketch: Float[Tensor, "b n r"], kernel: Float[Tensor, "b n n"]) -> Float[Tensor, " b"]:
    """|K - P K|_F^2 / |K|_F^2, P (almost) the projection on the sketch's columns."""
    sketch = sketch / sketch.square().mean((-1, -2), keepdim=True).clamp_min(torch.finfo(sketch.dtype).tiny).sqrt()
    gram = sketch.mT @ sketch / sketch.shape[-2]
    ridge = _RANGE_RIDGE * torch.eye(gram.shape[-1], dtype=gram.dtype, device=gram.device)
    reached = kernel @ sketch
    inner = reached.mT @ reached / sketch.shape[-2]
    # Cholesky and not LU, which goes wrong for batches in torch 2.13 with several threads.
    captured = torch.cholesky_solve(inner, torch.linalg.cholesky(gram + ridge)).diagonal(dim1=-2, dim2=-1).sum(-1)
    return (1 - captured / kernel.square().sum((-1, -2))).clamp_min(1e-6)


def proposed_neighbors(
    problem: Problem, embedding: Float[Tensor, "b n p"], num_candidates: int, num_neighbors: int
) -> Int[Tensor, "b n k"]:
    """Of the nearest earlier rows, the strongest by exact residual correlation; a row that is not earlier is none."""
    position = torch.arange(embedding.shape[-2], device=embedding.device)
    candidates = nearest_earlier(embedding, position.expand(embedding.shape[:-1]), num_candidates)
    position = position[:, None]
    candidates = torch.where(candidates < 0, position, candidates)
    value = problem.correlation.gather(-1, candidates).masked_fill(candidates >= position, -1.0)
    return candidates.gather(-1, value.topk(num_neighbors, dim=-1).indices)


def strongest_earlier(problem: Problem, num_neighbors: int) -> Int[Tensor, "b n k"]:
    """The oracle: of all earlier rows, the strongest."""
    return problem.correlation.tril(-1).topk(num_neighbors, dim=-1).indices


def conditional_log_variance(problem: Problem, neighbors: Int[Tensor, "b n k"]) -> Float[Tensor, " b"]:
    """Mean over rows of log D_i, D_i = R_ii - R_iN R_NN^-1 R_Ni: twice the KL per point, up to what no choice changes.

    Neighbours that are not earlier than their row count as none.
    """
    residual = problem.residual
    b, n, k = neighbors.shape
    position = torch.arange(n, device=neighbors.device)[:, None]
    valid = neighbors < position
    batch = torch.arange(b, device=neighbors.device)[:, None, None]
    block = residual[batch[..., None], neighbors[..., :, None], neighbors[..., None, :]]
    identity = torch.eye(k, dtype=block.dtype, device=block.device)
    block = torch.where(valid[..., :, None] & valid[..., None, :], block, identity)
    row = torch.where(valid, residual[batch, position, neighbors], 0.0)
    own = residual.diagonal(dim1=-2, dim2=-1)
    whitened = torch.linalg.solve_triangular(torch.linalg.cholesky(block), row.unsqueeze(-1), upper=False)
    variance = own - whitened.square().sum((-1, -2))
    return variance.clamp_min(torch.finfo(own.dtype).eps * own).log().mean(-1)
