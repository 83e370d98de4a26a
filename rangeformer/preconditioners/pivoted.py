"""Partial Cholesky factors from a few columns: randomly pivoted, or greedy.

A - diag(noise) ~ F F^T from `num_columns` columns. The random rule draws each pivot with probability
proportional to the residual diagonal (Chen, Epperly, Tropp & Webber, "Randomly pivoted Cholesky",
Comm. Pure Appl. Math. 2025, arXiv:2207.06503, Algorithm 1); the greedy rule takes its maximum (GPyTorch's
default preconditioner, Harbrecht, Peters & Schneider 2012).
"""

from dataclasses import dataclass

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.randomness import draw_uniform
from rangeformer.shapes import Float, Int, Tensor

RULES = ("random", "greedy")


@dataclass(frozen=True)
class PivotedFactor:
    """A partial Cholesky factor and what it leaves.

    Attributes:
        factor: F, `(*batch, n, c)`; columns past the numerical rank are zero.
        pivots: `(*batch, c)` row indices, in the order they were chosen.
        residual_diagonal: `(*batch, n)` diagonal of A - diag(noise) - F F^T, never negative.
        diagonal: `(*batch, n)` diagonal of A - diag(noise).
    """

    factor: Float[Tensor, "*batch n c"]
    pivots: Int[Tensor, "*batch c"]
    residual_diagonal: Float[Tensor, "*batch n"]
    diagonal: Float[Tensor, "*batch n"]


def pivoted_cholesky(
    operator: MatrixOperator,
    num_columns: int,
    *,
    noise: Float[Tensor, "*batch n"] | None = None,
    rule: str = "random",
    pivots: Int[Tensor, "*batch c"] | None = None,
    generator: torch.Generator | None = None,
) -> PivotedFactor:
    """Read `num_columns` columns of a PSD matrix into a partial Cholesky factor.

    Args:
        operator: A, PSD with entry access, `(*batch, n, n)`.
        num_columns: c, columns to read; capped at n.
        noise: `(*batch, n)` part of the diagonal to leave out of the factor.
        rule: "random" (probability proportional to the residual diagonal) or "greedy" (its maximum).
        pivots: `(*batch, c)` to reuse, for example of the same kernel at earlier hyperparameters.
        generator: Source of the random pivots.

    Returns:
        The factor, in A's dtype and on its device.
    """
    n, batch_shape = operator.num_rows, operator.batch_shape
    diagonal = operator.diagonal()
    if noise is None:
        noise = torch.zeros_like(diagonal)
    diagonal = (diagonal - noise).clamp_min(0)
    num_columns = min(num_columns, n)
    factor = diagonal.new_zeros(*batch_shape, n, num_columns)
    chosen = torch.zeros(*batch_shape, num_columns, dtype=torch.long, device=operator.device)
    residual = diagonal.clone()
    # A pivot below rounding level of its own diagonal adds noise, not information: its column is zeroed.
    floor = 10 * torch.finfo(diagonal.dtype).eps * diagonal
    draws = _uniforms(num_columns if pivots is None and rule == "random" else 0, residual, generator)
    for j in range(num_columns):
        if pivots is not None:
            pivot = pivots[..., j : j + 1]
        elif rule == "greedy":
            pivot = residual.argmax(-1, keepdim=True)
        else:
            pivot = _draw(residual, draws[j])
        chosen[..., j : j + 1] = pivot
        column = operator.columns(pivot)
        noise_at = torch.take_along_dim(noise, pivot, -1).unsqueeze(-2)
        column = column.scatter_add(-2, pivot.unsqueeze(-2), -noise_at)
        done = factor[..., :j]
        row = torch.take_along_dim(done, pivot.unsqueeze(-1), dim=-2)
        column = (column - done @ row.mT).squeeze(-1)
        at_pivot = torch.take_along_dim(column, pivot, -1)
        usable = at_pivot > torch.take_along_dim(floor, pivot, -1)
        scale = torch.where(usable, at_pivot, torch.ones_like(at_pivot)).rsqrt()
        column = torch.where(usable, column * scale, torch.zeros_like(column))
        factor[..., j] = column
        residual = (residual - column.square()).clamp_min(0).scatter(-1, pivot, 0.0)
    return PivotedFactor(factor, chosen, residual, diagonal)


def _uniforms(count: int, like: Tensor, generator: torch.Generator | None) -> Float[Tensor, "count *batch 1"]:
    """What all pivots are drawn with, moved to the device once and not pivot by pivot; float64."""
    shape = (count, *like.shape[:-1], 1)
    return draw_uniform(shape, generator, dtype=torch.float64, device=like.device)


def _draw(weights: Tensor, u: Float[Tensor, "*batch 1"]) -> Tensor:
    """One index per batch element, with probability proportional to `weights`; uniform if all are zero."""
    cumulative = weights.to(torch.float64).cumsum(-1)
    total = cumulative[..., -1:]
    cumulative = torch.where(
        total > 0, cumulative, torch.arange(1, weights.shape[-1] + 1, device=weights.device).double()
    )
    target = u * cumulative[..., -1:]
    return torch.searchsorted(cumulative, target, right=True).clamp_max(weights.shape[-1] - 1)
