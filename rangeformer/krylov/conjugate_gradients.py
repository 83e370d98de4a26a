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


@dataclass(frozen=True)
class Recurrence:
    """One step's vectors and scalars, for every column."""

    x: Float[Tensor, "*batch n k"]
    residual: Float[Tensor, "*batch n k"]
    direction: Float[Tensor, "*batch n k"]
    energy: Float[Tensor, "*batch k"]
    norms: Float[Tensor, "*batch k"]
    indefinite: Bool[Tensor, "*batch k"]
    num_iterations: int

    def active(self, target_norms: Float[Tensor, "*batch k"]) -> Bool[Tensor, "*batch k"]:
        """Columns that still have to move."""
        return (self.norms > target_norms) & ~self.indefinite


def begin(rhs: Float[Tensor, "*batch n k"], apply_preconditioner: Callable[[Tensor], Tensor]) -> Recurrence:
    """The recurrence at x = 0."""
    residual = rhs.clone()
    preconditioned = apply_preconditioner(residual)
    return Recurrence(
        x=torch.zeros_like(rhs),
        residual=residual,
        direction=preconditioned.clone(),
        energy=(residual * preconditioned).sum(-2),
        norms=torch.linalg.vector_norm(residual, dim=-2),
        indefinite=torch.zeros(rhs.shape[:-2] + rhs.shape[-1:], dtype=torch.bool, device=rhs.device),
        num_iterations=0,
    )


def advance(
    now: Recurrence,
    matmul: Callable[[Tensor], Tensor],
    apply_preconditioner: Callable[[Tensor], Tensor],
    active: Bool[Tensor, "*batch k"],
) -> Recurrence:
    """One step of the recurrence: one pass over A.

    Args:
        now: Where it stands.
        matmul: v -> A v.
        apply_preconditioner: v -> P^-1 v.
        active: Columns that move.
    """
    energy = now.energy
    image = matmul(now.direction)
    curvature = (now.direction * image).sum(-2)
    indefinite = now.indefinite | (active & ~((curvature > 0) & (energy > 0)))
    step = torch.where(active & ~indefinite, energy / curvature, torch.zeros_like(energy))
    residual = now.residual - step.unsqueeze(-2) * image
    preconditioned = apply_preconditioner(residual)
    fresh = (residual * preconditioned).sum(-2)
    overlap = (now.residual * preconditioned).sum(-2)
    moved = (step != 0) & (energy > 0)
    ratio = torch.where(moved, (fresh - overlap) / energy, torch.zeros_like(energy))
    return Recurrence(
        x=now.x + step.unsqueeze(-2) * now.direction,
        residual=residual,
        direction=preconditioned + ratio.clamp_min(0).unsqueeze(-2) * now.direction,
        energy=fresh,
        norms=torch.linalg.vector_norm(residual, dim=-2),
        indefinite=indefinite,
        num_iterations=now.num_iterations + 1,
    )


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
    now = begin(rhs, apply_preconditioner)
    while now.num_iterations < max_iterations:
        active = now.active(target_norms)
        if not bool(active.any()):
            break
        now = advance(now, matmul, apply_preconditioner, active)
    return Iterate(now.x, now.num_iterations, now.indefinite)
