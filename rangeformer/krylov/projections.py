"""Answers that a search space gives: spectral densities and sums, and the refinement of a complete space's solution."""

from collections.abc import Callable
from dataclasses import replace

import torch

from rangeformer.krylov.ritz import Density, density, spectral_sum
from rangeformer.krylov.search_space import SearchSpace
from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Float, Tensor

# Steps of refinement of a complete space, as long as they help, where the relative residual is not small anyway.
_REFINEMENTS = 2
# Eigenvalues within this multiple of sqrt(n) x rounding of zero, relative to the largest, cannot be told from zero.
_ZERO = 4.0


def jacobi_scale(operator: MatrixOperator) -> Float[Tensor, "*batch n"] | None:
    """1 / sqrt(A_ii) where the diagonal is positive, ones for the others of a batch; None if it cannot be read."""
    if not operator.has_entries:
        return None
    diagonal = operator.diagonal()
    positive = (diagonal > 0).all(-1, keepdim=True)
    return torch.where(positive, diagonal, torch.ones_like(diagonal)).rsqrt()


def density_of(space: SearchSpace, probes: Float[Tensor, "*batch n d"], *, dimension: int | None = None) -> Density:
    """The spectral density of symmetric S A S.

    Args:
        space: Started at the probes.
        probes: Isotropic, in the space.
        dimension: Use the space's first directions only.
    """
    ritz = space.ritz(dimension)
    basis = space.basis[..., :dimension].to(torch.float64)
    return density(ritz, ritz.coefficients.mT @ (basis.mT @ probes.to(torch.float64)), space.operator.num_columns)


def sum_over_spectrum(
    space: SearchSpace,
    probes: Tensor,
    function: Callable[[Tensor], Tensor],
    change: Callable[[Tensor, Tensor], Tensor],
    *,
    trace: Tensor | None = None,
    positive: bool = False,
    pole: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of f over the spectrum, its error, and where an eigenvalue cannot be told from zero.

    Args:
        space: Started at the probes.
        probes: Isotropic.
        function: f.
        change: (v, d) -> |f'(v)| d, what an error of d in v makes of f; finite wherever f is.
        trace: The sum of the eigenvalues where it is known.
        positive: NaN where an eigenvalue is negative.
        pole: Whether f is infinite at zero: what cannot be told from zero is then left out of the sum.
    """

    def total(dimension: int | None) -> tuple[Tensor, Tensor, Tensor]:
        found = density_of(space, probes, dimension=dimension)
        values = found.ritz.values
        rounding = _ZERO * found.size**0.5 * torch.finfo(values.dtype).eps * values.abs().amax(-1, keepdim=True)
        zero = values.abs() <= rounding
        negative = (values < 0) & ~zero if positive else torch.zeros_like(zero)
        safe = torch.where(zero | negative, torch.ones_like(values), values) if pole else values
        value, error = spectral_sum(replace(found, ritz=replace(found.ritz, values=safe)), function, trace=trace)
        error = error + (found.counts * change(safe, rounding)).sum(-1)
        if space.operator.dtype != values.dtype and not space.operator.has_entries:
            # Products that cannot be made in float64 move every eigenvalue, at random.
            moved = torch.finfo(space.operator.dtype).eps * values.abs().amax(-1, keepdim=True)
            error = error + (found.counts * change(safe, moved).square()).sum(-1).sqrt()
        return torch.where(negative.any(-1), torch.full_like(value, torch.nan), value), error, zero.any(-1)

    value, error, zero = total(None)
    before = space.dimension - probes.shape[-1]
    if not space.is_complete and before > 0:
        # What the last loop changed is the only sign of what further ones would.
        error = error + (value - total(before)[0]).abs()
    return value, error, zero


def refined_solution(space: SearchSpace, rhs: Tensor, value: Tensor) -> Tensor:
    """Solve again for what is left, with the stored factors and the residual recomputed from the solution."""
    residual = rhs - space.operator.matmul_precise(value)
    norms = torch.linalg.vector_norm(residual, dim=-2, keepdim=True)
    for _ in range(_REFINEMENTS):
        trial = value + space.combine(space.minimal_residual(residual))
        trial_residual = rhs - space.operator.matmul_precise(trial)
        trial_norms = torch.linalg.vector_norm(trial_residual, dim=-2, keepdim=True)
        better = trial_norms < norms
        value, residual = torch.where(better, trial, value), torch.where(better, trial_residual, residual)
        if not bool((trial_norms < 0.5 * norms).any()):
            break
        norms = torch.minimum(norms, trial_norms)
    return value
