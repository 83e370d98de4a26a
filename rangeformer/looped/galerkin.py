"""The Galerkin member: a looped search space with exact small projections, and what is learned in it.

Read top to bottom: configuration, then one method an operation. Untrained it is a classical algorithm: a block Krylov space of
D columns, started at the right-hand sides and Gaussian directions, of S A S with S = diag(A)^(-1/2) (solves and
log-determinants of a positive diagonal), of A itself otherwise, of A^T A for rectangular A. The answer is the best that
the space holds: minimal residual, Rayleigh-Ritz, Gauss quadrature. The minimal residual is that of A x = rhs itself, over a space
that holds the iterates of Jacobi-preconditioned CG: at equal passes CG cannot have a smaller one.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import torch

from rangeformer.looped.member import LoopedModel
from rangeformer.looped.space import GalerkinSpace
from rangeformer.looped.spectrum import Density, density, eigenvalues, spectral_sum
from rangeformer.operators import MatrixOperator
from rangeformer.randomness import PROBES, generator_or_default
from rangeformer.shapes import Float, Tensor

# Steps of refinement of a complete space in less than float64, as long as they help.
_REFINEMENTS = 2
# Eigenvalues within this multiple of sqrt(n) x rounding of zero, relative to the largest, cannot be told from zero.
_ZERO = 4.0


@dataclass(frozen=True)
class GalerkinConfig:
    """Sizes of a Galerkin member; none is tied to the matrix."""

    channels: int = 64
    """D, directions added by one loop (more if there are more right-hand sides)."""
    num_loops: int = 16
    """Default number of loops; each is one pass over A (two if A is rectangular)."""

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "GalerkinConfig":
        """Build from plain JSON values."""
        return cls(**fields)


class GalerkinRangeFormer(LoopedModel):
    """Exact projections on a growing space: what the direct heads use by default.

    Args:
        config: Sizes.
        generator: Source of the initial weights; the answers do not depend on them until the model is trained.
    """

    def __init__(self, config: GalerkinConfig | None = None, *, generator: torch.Generator | None = None):
        super().__init__()
        self.config = GalerkinConfig() if config is None else config

    @classmethod
    def untrained(cls, config: GalerkinConfig | None = None) -> "GalerkinRangeFormer":
        """The model at the start of training: exactly the classical algorithm."""
        with torch.random.fork_rng(devices=[]):
            return cls(config).requires_grad_(False).eval()

    def solve(
        self,
        operator: MatrixOperator,
        rhs: Float[Tensor, "*batch n k"],
        *,
        num_loops: int | None = None,
        generator: torch.Generator | None = None,
    ) -> Float[Tensor, "*batch n k"]:
        """The smallest residual in the space, for any square A; see `LoopedModel.solve`."""
        generator = generator_or_default(generator, PROBES)
        space = GalerkinSpace(operator, scale=jacobi_scale(operator), generator=generator)
        self._grow(space, torch.cat([space.scaled(rhs), self._block(rhs, generator)], -1), num_loops)
        value = space.combine(space.minimal_residual(rhs))
        if space.is_complete and operator.dtype != torch.float64:
            value = _refined(space, rhs.to(torch.float64), value)
        return value.to(rhs.dtype)

    def eigenvalues(
        self, operator: MatrixOperator, *, num_loops: int | None = None, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "*batch n"], Float[Tensor, "*batch n"]]:
        """Ritz values, and quantiles of the spectral density where there are fewer; see `LoopedModel.eigenvalues`."""
        values, errors = eigenvalues(
            density_of(*self.spectral_space(operator, num_loops=num_loops, generator=generator))
        )
        return values.to(operator.dtype), errors.to(operator.dtype)

    def logdet(
        self, operator: MatrixOperator, *, num_loops: int | None = None, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Log det S A S - 2 sum log s, so that diagonal matrices are exact; see `LoopedModel.logdet`."""
        scale = jacobi_scale(operator)
        space, probes = self.spectral_space(operator, scale=scale, num_loops=num_loops, generator=generator)
        trace = None if scale is None else scale.new_full(scale.shape[:-1], operator.num_rows, dtype=torch.float64)
        value, error, zero = _sum_over(space, probes, torch.log, lambda v: 1 / v, trace=trace, positive=True)
        value = torch.where(zero, torch.full_like(value, -torch.inf), value)
        return value if scale is None else value - 2 * scale.to(torch.float64).log().sum(-1), error

    def inverse_trace(
        self, operator: MatrixOperator, *, num_loops: int | None = None, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Tr A^-1 of a symmetric A, infinite where A shows itself singular, and an estimate of its error."""
        space, probes = self.spectral_space(operator, num_loops=num_loops, generator=generator)
        value, error, zero = _sum_over(space, probes, torch.reciprocal, lambda v: v**-2)
        return torch.where(zero, torch.full_like(value, torch.inf), value), error

    def trace(
        self, operator: MatrixOperator, *, num_loops: int | None = None, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Tr A of a symmetric A from products alone, and an estimate of its error."""
        space, probes = self.spectral_space(operator, num_loops=num_loops, generator=generator)
        return _sum_over(space, probes, torch.clone, torch.ones_like)[:2]

    def least_squares_space(
        self,
        operator: MatrixOperator,
        rhs: Float[Tensor, "*batch m k"],
        *,
        num_loops: int | None = None,
        generator: torch.Generator | None = None,
    ) -> GalerkinSpace:
        """The block Krylov space of A^T A started at A^T [rhs, Gaussian], within A's row space.

        Args:
            operator: A, `(*batch, m, n)`.
            rhs: `(*batch, m, k)`.
            num_loops: Default: the configuration's.
            generator: Source of randomness; a fixed one if None.
        """
        generator = generator_or_default(generator, PROBES)
        space = GalerkinSpace(operator, gram=True, generator=generator)
        self._grow(space, operator.rmatmul(torch.cat([rhs, self._block(rhs, generator)], -1)), num_loops)
        if space.is_complete and operator.dtype != torch.float64:
            space.refine()
        return space

    def spectral_space(
        self,
        operator: MatrixOperator,
        *,
        scale: Float[Tensor, "*batch n"] | None = None,
        gram: bool = False,
        num_loops: int | None = None,
        generator: torch.Generator | None = None,
    ) -> tuple[GalerkinSpace, Float[Tensor, "*batch n d"]]:
        """A space started at Gaussian probes, and the probes.

        Args:
            operator: A, `(*batch, m, n)`.
            scale: S, `(*batch, n)`.
            gram: Grow by A^T A, for singular values.
            num_loops: Default: the configuration's.
            generator: Source of randomness; a fixed one if None.
        """
        generator = generator_or_default(generator, PROBES)
        space = GalerkinSpace(operator, scale=scale, gram=gram, generator=generator)
        nothing = torch.empty(*operator.batch_shape, operator.num_columns, 0, dtype=operator.dtype).to(operator.device)
        probes = self._block(nothing, generator)
        self._grow(space, probes, num_loops)
        if space.is_complete and operator.dtype != torch.float64:
            space.refine()
        return space, probes

    def completes(self, size: int, num_loops: int, *, num_rhs: int = 0) -> bool:
        """Whether that many loops make a complete space of `size` directions, which makes every answer exact."""
        return num_loops * max(self.config.channels, num_rhs) >= size

    def _block(self, rhs: Tensor, generator: torch.Generator) -> Tensor:
        """Gaussian directions that make a block of D columns of rhs's; the same for every member of the batch."""
        m, k = rhs.shape[-2:]
        width = max(min(self.config.channels, m) - k, 0)
        drawn = torch.randn(m, width, generator=generator, dtype=torch.float64, device=generator.device)
        return drawn.to(rhs).expand(*rhs.shape[:-2], -1, -1)

    def _grow(self, space: GalerkinSpace, start: Tensor, num_loops: int | None) -> None:
        """Add `num_loops` blocks, or as many as there is room for."""
        space.expand(start)
        for _ in range((self.config.num_loops if num_loops is None else num_loops) - 1):
            if space.is_complete:
                return
            space.expand(space.reached())


def jacobi_scale(operator: MatrixOperator) -> Float[Tensor, "*batch n"] | None:
    """1 / sqrt(A_ii) where the diagonal is positive, ones for other members of the batch; None if it cannot be read."""
    if not operator.has_entries:
        return None
    diagonal = operator.diagonal()
    positive = (diagonal > 0).all(-1, keepdim=True)
    return torch.where(positive, diagonal, torch.ones_like(diagonal)).rsqrt()


def density_of(space: GalerkinSpace, probes: Float[Tensor, "*batch n d"], *, dimension: int | None = None) -> Density:
    """The spectral density of symmetric S A S.

    Args:
        space: Started at the probes.
        probes: Isotropic, in the space.
        dimension: Use the space's first directions only.
    """
    ritz = space.ritz(dimension)
    basis = space.basis[..., :dimension].to(torch.float64)
    return density(ritz, ritz.coefficients.mT @ (basis.mT @ probes.to(torch.float64)), space.operator.num_columns)


def _sum_over(
    space: GalerkinSpace,
    probes: Tensor,
    function: Callable[[Tensor], Tensor],
    slope: Callable[[Tensor], Tensor],
    *,
    trace: Tensor | None = None,
    positive: bool = False,
) -> tuple[Tensor, Tensor, Tensor]:
    """Sum of f over the spectrum, its error, and where an eigenvalue cannot be told from zero.

    Args:
        space: Started at the probes.
        probes: Isotropic.
        function: f.
        slope: |f'|, which carries rounding of the eigenvalues into the sum.
        trace: The sum of the eigenvalues where it is known.
        positive: NaN where an eigenvalue is negative.
    """

    def total(dimension: int | None) -> tuple[Tensor, Tensor, Tensor]:
        found = density_of(space, probes, dimension=dimension)
        values = found.ritz.values
        rounding = _ZERO * found.size**0.5 * torch.finfo(values.dtype).eps * values.abs().amax(-1, keepdim=True)
        zero = values.abs() <= rounding
        negative = (values < 0) & ~zero if positive else torch.zeros_like(zero)
        safe = torch.where(zero | negative, torch.ones_like(values), values)
        value, error = spectral_sum(replace(found, ritz=replace(found.ritz, values=safe)), function, trace=trace)
        error = error + (found.counts * rounding * slope(safe)).sum(-1)
        return torch.where(negative.any(-1), torch.full_like(value, torch.nan), value), error, zero.any(-1)

    value, error, zero = total(None)
    before = space.dimension - probes.shape[-1]
    if not space.is_complete and before > 0:
        # What the last loop changed is the only sign of what further ones would.
        error = error + (value - total(before)[0]).abs()
    return value, error, zero


def _refined(space: GalerkinSpace, rhs: Tensor, value: Tensor) -> Tensor:
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
