"""The learned Krylov model: a looped search space with exact small projections, and what is learned in it.

Untrained it is a classical algorithm: a block Krylov space of D columns, started at the right-hand sides and Gaussian
directions, of S A S with S = diag(A)^(-1/2) (solves and log-determinants of a positive diagonal), of A itself
otherwise, of A^T A for least squares and singular values. The answer is the best that the space holds: minimal
residual, Rayleigh-Ritz, Gauss quadrature. After ceil(n / D) loops the space is complete and the answer exact.

The minimal residual is that of A x = rhs itself, over a space that holds the iterates of Jacobi-preconditioned CG: at
equal passes CG cannot have a smaller one, whatever the model proposes.

What is learned is half of the Gaussian start directions of a solve: features of the rows' tokens, which linear
attention mixes, are added to them, starting at zero. Directions that come later cost more than they bring, as they
interrupt the Krylov sequence; and a learned correction of S did harm where noise is even, since it spreads the
eigenvalues that Jacobi keeps together.
"""

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import nn

from rangeformer.krylov.projections import density_of, jacobi_scale, refined_solution, sum_over_spectrum
from rangeformer.krylov.ritz import eigenvalues
from rangeformer.krylov.search_space import SearchSpace
from rangeformer.models.block import Block, uniform_weights
from rangeformer.models.looped_model import LoopedModel
from rangeformer.models.scaled_operator import ScaledOperator
from rangeformer.models.tokens import NUM_FEATURES, read_tokens
from rangeformer.operators import MatrixOperator
from rangeformer.randomness import PROBES, generator_or_default
from rangeformer.shapes import Float, Tensor

# Relative residual of a complete space's solution that needs no refinement.
_SMALL_RESIDUAL = 1e-12
# The model changes one of so many Gaussian directions: a block that all lies in the span of a few features is poor.
_SHARE = 2


@dataclass(frozen=True)
class LearnedKrylovConfig:
    """Sizes of a learned Krylov model; none is tied to the matrix."""

    channels: int = 64
    """D, directions added by one loop (more if there are more right-hand sides)."""
    num_loops: int = 16
    """Default number of loops; each is one pass over A (two for least squares and singular values)."""
    token_channels: int = 32
    """Width of a row's token."""
    token_loops: int = 2
    """Passes of the tokens through their block of linear attention."""
    num_heads: int = 4
    """Heads of it."""
    attention: str = "galerkin"
    """One of `rangeformer.models.attention.ATTENTIONS`."""
    token_columns: int = 24
    """Columns of A that the tokens are read from."""
    token_features: int = 8
    """Singular vectors of these columns in a token."""
    num_directions: int = 16
    """Start directions that the model changes."""

    @classmethod
    def from_fields(cls, fields: dict[str, Any]) -> "LearnedKrylovConfig":
        """Build from plain JSON values."""
        return cls(**fields)


class LearnedKrylovModel(LoopedModel):
    """Exact projections on a growing space: what the direct heads use by default.

    Args:
        config: Sizes.
        generator: Source of the initial weights; the answers do not depend on them until the model is trained.
    """

    def __init__(self, config: LearnedKrylovConfig | None = None, *, generator: torch.Generator | None = None):
        super().__init__()
        config = LearnedKrylovConfig() if config is None else config
        self.config = config
        width = config.token_channels
        self.embed = nn.Linear(NUM_FEATURES + config.token_features, width)
        self.block = Block(width, config.num_heads, config.attention)
        self.directions = nn.Linear(width, config.num_directions)
        uniform_weights(self, torch.Generator().manual_seed(0) if generator is None else generator)
        nn.init.zeros_(self.directions.weight)

    @classmethod
    def untrained(cls, config: LearnedKrylovConfig | None = None) -> "LearnedKrylovModel":
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
        space = self.solution_space(operator, rhs, num_loops=num_loops, generator=generator)
        coefficients, wide = space.minimal_residual(rhs), rhs.to(torch.float64)
        value = space.combine(coefficients)
        if space.is_complete:
            # The images show what rounding left, but for float32, whose images are rounded themselves.
            left = torch.linalg.vector_norm(wide - space.images.to(torch.float64) @ coefficients, dim=-2)
            rough = left > _SMALL_RESIDUAL * torch.linalg.vector_norm(wide, dim=-2)
            if operator.dtype != torch.float64 or bool(rough.any()):
                value = refined_solution(space, wide, value)
        return value.to(rhs.dtype)

    def solution_space(
        self,
        operator: MatrixOperator,
        rhs: Float[Tensor, "*batch n k"],
        *,
        num_loops: int | None = None,
        channels: int | None = None,
        generator: torch.Generator | None = None,
    ) -> SearchSpace:
        """The space in which A x = rhs is solved, with what the model has learned about its start.

        Args:
            operator: A, square.
            rhs: `(*batch, n, k)`.
            num_loops: Default: the configuration's.
            channels: D. Default: the configuration's.
            generator: Source of randomness; a fixed one if None.
        """
        generator = generator_or_default(generator, PROBES)
        width: int = self.config.channels if channels is None else channels
        loops: int = self.config.num_loops if num_loops is None else num_loops
        scale = jacobi_scale(operator)
        start = self._block(rhs, generator, width)
        # A complete space is exact whatever it started from.
        if scale is not None and self._has_learned() and loops * width < operator.num_rows:
            directions = self._propose(operator, rhs, scale, generator)
            count = min(start.shape[-1] // _SHARE, directions.shape[-1])
            start = torch.cat([start[..., :count] + directions[..., :count].to(start.dtype), start[..., count:]], -1)
        space = SearchSpace(operator, scale=scale, generator=generator)
        self._grow(space, torch.cat([space.scaled(rhs), start], -1), loops)
        return space

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
        scaled = ScaledOperator(operator)
        space, probes = self.spectral_space(scaled, scale=scale, num_loops=num_loops, generator=generator)
        exponent = scaled.exponent.squeeze(-1).squeeze(-1)
        trace = None if scale is None else operator.num_rows * torch.exp2(-exponent)
        value, error, zero = sum_over_spectrum(space, probes, torch.log, lambda v, d: d / v, trace=trace, positive=True)
        value = torch.where(
            zero, torch.full_like(value, -torch.inf), value + operator.num_rows * exponent * math.log(2)
        )
        return value if scale is None else value - 2 * scale.to(torch.float64).log().sum(-1), error

    def inverse_trace(
        self, operator: MatrixOperator, *, num_loops: int | None = None, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Tr A^-1 of a symmetric A, infinite where A shows itself singular, and an estimate of its error."""
        space, probes = self.spectral_space(operator, num_loops=num_loops, generator=generator)
        value, error, zero = sum_over_spectrum(space, probes, torch.reciprocal, lambda v, d: d / v.abs() / v.abs())
        return torch.where(zero, torch.full_like(value, torch.inf), value), error

    def trace(
        self, operator: MatrixOperator, *, num_loops: int | None = None, generator: torch.Generator | None = None
    ) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
        """Tr A of a symmetric A from products alone, and an estimate of its error."""
        space, probes = self.spectral_space(operator, num_loops=num_loops, generator=generator)
        return sum_over_spectrum(space, probes, torch.clone, lambda v, d: d, pole=False)[:2]

    def least_squares_space(
        self,
        operator: MatrixOperator,
        rhs: Float[Tensor, "*batch m k"],
        *,
        num_loops: int | None = None,
        generator: torch.Generator | None = None,
    ) -> SearchSpace:
        """The block Krylov space of A^T A started at A^T [rhs, Gaussian], within A's row space.

        Args:
            operator: A, `(*batch, m, n)`.
            rhs: `(*batch, m, k)`.
            num_loops: Default: the configuration's.
            generator: Source of randomness; a fixed one if None.
        """
        generator = generator_or_default(generator, PROBES)
        space = SearchSpace(operator, gram=True, generator=generator)
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
    ) -> tuple[SearchSpace, Float[Tensor, "*batch n d"]]:
        """A space started at Gaussian probes, and the probes.

        Args:
            operator: A, `(*batch, m, n)`.
            scale: S, `(*batch, n)`.
            gram: Grow by A^T A, for singular values.
            num_loops: Default: the configuration's.
            generator: Source of randomness; a fixed one if None.
        """
        generator = generator_or_default(generator, PROBES)
        space = SearchSpace(operator, scale=scale, gram=gram, generator=generator)
        nothing = torch.empty(*operator.batch_shape, operator.num_columns, 0, dtype=operator.dtype).to(operator.device)
        probes = self._block(nothing, generator)
        self._grow(space, probes, num_loops)
        if space.is_complete and operator.dtype != torch.float64:
            space.refine()
        return space, probes

    def completes(self, size: int, num_loops: int, *, num_rhs: int = 0) -> bool:
        """Whether that many loops make a complete space of `size` directions, which makes every answer exact."""
        return num_loops * max(self.config.channels, num_rhs) >= size

    def _has_learned(self) -> bool:
        """Whether the model can say anything but zero; untrained, nothing need be read for it."""
        training = torch.is_grad_enabled() and self.directions.weight.requires_grad
        return training or any(bool(p.any()) for p in self.directions.parameters())

    def _propose(
        self, operator: MatrixOperator, rhs: Tensor, scale: Tensor, generator: torch.Generator
    ) -> Float[Tensor, "*batch n q"]:
        """What is added to the first Gaussian directions, from the tokens of the rows; zero untrained."""
        config = self.config
        tokens = read_tokens(
            operator,
            rhs,
            scale,
            num_columns=min(config.token_columns, operator.num_rows),
            num_channels=config.token_features,
            generator=generator,
        )
        seen = torch.cat([tokens.features, tokens.channels], -1).to(self.directions.weight.dtype)
        seen = self.embed(seen.reshape(-1, *seen.shape[-2:]))
        state = torch.zeros_like(seen)
        for _ in range(config.token_loops):
            state = self.block(state, seen)
        return self.directions(state).reshape(*scale.shape, -1)

    def _block(self, rhs: Tensor, generator: torch.Generator, width: int | None = None) -> Tensor:
        """Gaussian directions that make a block of D columns of rhs's; the same for every matrix of a batch."""
        m, k = rhs.shape[-2:]
        wanted: int = self.config.channels if width is None else width
        count = max(min(wanted, m) - k, 0)
        drawn = torch.randn(m, count, generator=generator, dtype=torch.float64, device=generator.device)
        return drawn.to(rhs).expand(*rhs.shape[:-2], -1, -1)

    def _grow(self, space: SearchSpace, start: Tensor, num_loops: int | None) -> None:
        """Add `num_loops` blocks, or as many as there is room for."""
        space.expand(start)
        for _ in range((self.config.num_loops if num_loops is None else num_loops) - 1):
            if space.is_complete:
                return
            space.expand(space.reached())
