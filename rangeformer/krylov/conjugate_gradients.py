"""Preconditioned conjugate gradients with one Krylov space per column.

Departures from the textbook recurrence, and why: the direction update is Polak-Ribiere's, which tolerates a
preconditioner blurred by rounding ("flexible" CG, Notay 2000); the worst column decides when to stop; a
column that shows p^T A p <= 0 is frozen, because then A (or P) is not positive definite and further steps are
meaningless.
"""

from collections.abc import Callable
from dataclasses import dataclass

import torch

from rangeformer.shapes import Bool, Float, Tensor


@dataclass(frozen=True)
class Iterate:
    """Where an inner solver stopped: the correction, its passes, and columns that met negative curvature."""

    value: Float[Tensor, "*batch n k"]
    num_iterations: int
    indefinite: Bool[Tensor, "*batch k"]


def conjugate_gradients(
    matmul: Callable[[Tensor], Tensor],
    rhs: Float[Tensor, "*batch n k"],
    apply_preconditioner: Callable[[Tensor], Tensor],
    *,
    target_norms: Float[Tensor, "*batch k"],
    max_iterations: int,
) -> Iterate:
    """Solve A x = rhs until every column's recursive residual norm is at most its target.

    Args:
        matmul: v -> A v.
        rhs: `(*batch, n, k)`.
        apply_preconditioner: v -> P^-1 v.
        target_norms: `(*batch, k)` absolute.
        max_iterations: Passes at most.
    """
    x = torch.zeros_like(rhs)
    residual = rhs.clone()
    preconditioned = apply_preconditioner(residual)
    direction = preconditioned.clone()
    energy = (residual * preconditioned).sum(-2)
    indefinite = torch.zeros_like(target_norms, dtype=torch.bool)
    num_iterations = 0
    norms = torch.linalg.vector_norm(residual, dim=-2)
    while num_iterations < max_iterations:
        active = (norms > target_norms) & ~indefinite
        if not bool(active.any()):
            break
        image = matmul(direction)
        num_iterations += 1
        curvature = (direction * image).sum(-2)
        indefinite = indefinite | (active & ~((curvature > 0) & (energy > 0)))
        step = torch.where(active & ~indefinite, energy / curvature, torch.zeros_like(energy))
        x = x + step.unsqueeze(-2) * direction
        previous = residual
        residual = residual - step.unsqueeze(-2) * image
        norms = torch.linalg.vector_norm(residual, dim=-2)
        preconditioned = apply_preconditioner(residual)
        fresh = (residual * preconditioned).sum(-2)
        overlap = (previous * preconditioned).sum(-2)
        moved = (step != 0) & (energy > 0)
        ratio = torch.where(moved, (fresh - overlap) / energy, torch.zeros_like(energy))
        direction = preconditioned + ratio.clamp_min(0).unsqueeze(-2) * direction
        energy = fresh
    return Iterate(x, num_iterations, indefinite)
