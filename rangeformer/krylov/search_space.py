"""A growing search space V with the images A S V, and exact projections on it.

One loop of the learned Krylov model is one `expand`: a block of new directions is orthonormalised against all of V
(twice is enough; Giraud, Langou & Rozloznik 2005) and multiplied by A, one pass. With the blocks that `reached`
proposes, V spans the block Krylov space of S A S (square A, S = diag(scale)) or of A^T A (any A). Rank-deficient
directions, where a Krylov space is exhausted, are replaced by random ones, so that V is a complete basis after ceil(n /
block) loops whatever A is, and everything computed from it is then exact up to rounding.

V and its images keep A's precision; the small matrices are float64. All of it is differentiable.
"""

from collections.abc import Iterator
from dataclasses import dataclass

import torch

from rangeformer.krylov.certificate import column_norms
from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Float, Tensor

# What is left of a unit direction outside V, in units of rounding, below which it is rounding itself.
_DEAD = 100.0
# Pivots of the images below this multiple of rounding make their triangular factor unfit for substitution.
_RANK = 10.0


@dataclass(frozen=True)
class Ritz:
    """Ritz pairs of a symmetric matrix, ascending.

    Attributes:
        values: `(*batch, m)`.
        coefficients: `(*batch, m, m)`; V @ coefficients are the Ritz vectors.
        residual_norms: `(*batch, m)`; an eigenvalue lies this near to each value (Parlett 1998, Theorem 4.5.1).
    """

    values: Float[Tensor, "*batch m"]
    coefficients: Float[Tensor, "*batch m m"]
    residual_norms: Float[Tensor, "*batch m"]


class SearchSpace:
    """V, orthonormal, and A S V.

    Args:
        operator: A, `(*batch, r, n)`.
        scale: `(*batch, n)` positive; ones if None.
        gram: Grow by A^T A instead of S A S: two passes a loop, any shape of A.
        generator: Source of the replacement directions.

    Attributes:
        basis: V, `(*batch, n, m)`.
        images: A S V, `(*batch, r, m)`.
    """

    def __init__(
        self,
        operator: MatrixOperator,
        *,
        scale: Float[Tensor, "*batch n"] | None = None,
        gram: bool = False,
        generator: torch.Generator,
    ):
        self.operator = operator
        self.scale = None if scale is None else scale.unsqueeze(-1)
        self._gram = gram
        self._normal: list[Tensor] = []  # A^T A v of every block
        self.capacity = min(operator.shape[-2:])
        empty = torch.empty(0, dtype=operator.dtype, device=operator.device)
        self.basis = empty.expand(*operator.batch_shape, operator.num_columns, 0)
        self.images = empty.expand(*operator.batch_shape, operator.num_rows, 0)
        # One draw seeds all: what replaces a direction in one loop must not depend on what died in another.
        self._seed = int(torch.randint(2**62, (), generator=generator, device=generator.device))
        self._num_blocks = 0
        self._last = slice(0, 0)
        self._factors: tuple[Tensor, Tensor] | None = None

    @property
    def dimension(self) -> int:
        """M, how many directions the space has."""
        return self.basis.shape[-1]

    @property
    def is_complete(self) -> bool:
        """Whether V holds as many directions as A has rank at most."""
        return self.dimension == self.capacity

    def expand(self, candidates: Float[Tensor, "*batch n d"]) -> None:
        """Add directions and multiply them by A: one pass, unless the space is complete.

        Args:
            candidates: `(*batch, n, d)` in scaled coordinates, any lengths; the first ones matter most.
        """
        count = min(candidates.shape[-1], self.capacity - self.dimension)
        if count == 0:
            return
        block = self._outside(_unit(candidates[..., :count]))
        Q, deficient = _orthonormal(block)
        replacements = self._replacements(count)
        # drawn, and read from A, only where something died
        while bool(deficient.any()) and (fresh := next(replacements, None)) is not None:
            block = torch.where(deficient.unsqueeze(-2), self._outside(_unit(fresh)), block)
            Q, deficient = _orthonormal(block)
        # Normalising what was small outside V amplifies what rounding left of V in it.
        for _ in range(2):
            Q = torch.linalg.qr(self._outside(Q)).Q
        self._last = slice(self.dimension, self.dimension + count)
        self.basis = torch.cat([self.basis, Q], -1)
        self.images = torch.cat([self.images, self.operator.matmul(self.scaled(Q))], -1)
        self._num_blocks += 1
        self._factors = None

    def reached(self) -> Float[Tensor, "*batch n d"]:
        """What A makes of the last block, as candidates for the next: S A S v, or A^T A v (one more pass)."""
        image = self.images[..., self._last]
        if not self._gram:
            return self.scaled(image)
        if len(self._normal) < self._num_blocks:
            self._normal.append(self.operator.rmatmul(image))
        return self._normal[-1]

    def scaled(self, vectors: Float[Tensor, "*batch n d"]) -> Float[Tensor, "*batch n d"]:
        """S @ vectors."""
        return vectors if self.scale is None else self.scale.to(vectors.dtype) * vectors

    def refine(self) -> None:
        """Orthonormalise V and multiply it by A in float64, as far as A's storage allows: one pass."""
        self.basis = torch.linalg.qr(self.basis.to(torch.float64)).Q
        self.images, self._factors = self.operator.matmul_precise(self.scaled(self.basis)), None

    def combine(self, coefficients: Float[Tensor, "*batch m k"]) -> Float[Tensor, "*batch n k"]:
        """S V @ coefficients, float64."""
        return self.scaled(self.basis.to(torch.float64) @ coefficients)

    def minimal_residual(
        self, rhs: Float[Tensor, "*batch r k"], *, rank_rtol: float | None = None
    ) -> Float[Tensor, "*batch m k"]:
        """Coefficients c of the smallest ||rhs - A S V c||, the shortest where it is not unique; float64.

        Args:
            rhs: `(*batch, r, k)`.
            rank_rtol: Singular values of the images up to this share of the largest count as zero; None: only those
                that spoil the triangular factor.
        """
        Q, R = self._factors if self._factors is not None else torch.linalg.qr(_finite(self.images.to(torch.float64)))
        self._factors = Q, R
        right = Q.mT @ rhs.to(torch.float64)
        if rank_rtol is not None:
            return torch.linalg.pinv(R, rtol=rank_rtol) @ right
        pivots = R.diagonal(dim1=-2, dim2=-1).abs()
        floor = _RANK * self.capacity * torch.finfo(torch.float64).eps
        deficient = (pivots.amin(-1) <= floor * pivots.amax(-1))[..., None, None]
        if not bool(deficient.any()):
            return torch.linalg.solve_triangular(R, right, upper=True)
        identity = torch.eye(self.dimension, dtype=R.dtype, device=R.device)
        regular = torch.linalg.solve_triangular(torch.where(deficient, identity, R), right, upper=True)
        return torch.where(deficient, torch.linalg.pinv(R, rtol=floor) @ right, regular)

    def residual_norms(self, rhs: Float[Tensor, "*batch r k"]) -> Float[Tensor, "*batch k"]:
        """Norms of the smallest ||rhs - A S V c||, without c; float64.

        Args:
            rhs: `(*batch, r, k)`.
        """
        Q = torch.linalg.qr(self.images.to(torch.float64)).Q
        rhs = rhs.to(torch.float64)
        return torch.linalg.vector_norm(rhs - Q @ (Q.mT @ rhs), dim=-2)

    def ritz(self, dimension: int | None = None) -> Ritz:
        """Rayleigh-Ritz for symmetric S A S.

        Args:
            dimension: Use the first directions only; all if None.
        """
        V = self.basis[..., :dimension].to(torch.float64)
        reached = self.scaled(self.images[..., :dimension].to(torch.float64))
        T = V.mT @ reached
        # One matrix of a batch that leaves the range must not end the others' decompositions.
        usable = _finite_members(T)
        values, U = torch.linalg.eigh(torch.where(usable, (T + T.mT) / 2, torch.zeros_like(T)))
        values = torch.where(usable.squeeze(-1), values, torch.full_like(values, torch.nan))
        residual = reached @ U - V @ (U * values.unsqueeze(-2))
        return Ritz(values, U, column_norms(residual))

    def singular(self) -> Ritz:
        """Singular values of A V, ascending, with right vectors.

        One more pass for the residuals of an incomplete space.

        With A v = sigma u exact, a singular value of A lies within ||A^T u - sigma v|| of sigma.
        """
        V, images = self.basis.to(torch.float64), _finite(self.images.to(torch.float64))
        _, R = torch.linalg.qr(images)
        _, values, Wh = torch.linalg.svd(R)
        values, W = values.flip(-1), Wh.mT.flip(-1)
        if self.is_complete:
            rounding = self.capacity**0.5 * torch.finfo(self.images.dtype).eps * values[..., -1:]
            return Ritz(values, W, rounding.expand_as(values))
        self.reached()
        normal = torch.cat(self._normal, -1).to(torch.float64) @ W
        safe = values.clamp_min(torch.finfo(values.dtype).tiny).unsqueeze(-2)
        residual = normal / safe - V @ (W * values.unsqueeze(-2))
        return Ritz(values, W, column_norms(residual))

    def _outside(self, vectors: Tensor) -> Tensor:
        """The part of vectors orthogonal to V, twice."""
        for _ in range(2):
            vectors = vectors - self.basis @ (self.basis.mT @ vectors)
        return vectors

    def _replacements(self, count: int) -> Iterator[Tensor]:
        """Random directions, first from A's row space where that is not all there is."""
        generator = torch.Generator().manual_seed(self._seed + self._num_blocks)
        operator = self.operator

        def draw(size: int) -> Tensor:
            # The same for every matrix: a batch equals the loop over it.
            drawn = torch.randn(size, count, generator=generator, dtype=torch.float64)
            return drawn.to(self.basis).expand(*operator.batch_shape, -1, -1)

        if operator.num_rows < operator.num_columns:
            yield operator.rmatmul(draw(operator.num_rows))
        yield draw(operator.num_columns)


def _finite_members(matrices: Tensor) -> Tensor:
    """Which matrices of a batch are finite, `(*batch, 1, 1)`."""
    return matrices.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)


def _finite(matrices: Tensor) -> Tensor:
    """Zeros in place of the matrices of a batch that are not finite: decompositions would raise for all of it."""
    return torch.where(_finite_members(matrices), matrices, torch.zeros_like(matrices))


def _orthonormal(block: Tensor) -> tuple[Tensor, Tensor]:
    """Q of the block, and which of its columns are rounding alone once the columns before them are taken out."""
    Q, R = torch.linalg.qr(block)
    return Q, R.diagonal(dim1=-2, dim2=-1).abs() <= _DEAD * torch.finfo(block.dtype).eps


def _unit(vectors: Tensor) -> Tensor:
    """Columns of length one; those of no finite length become zero."""
    peak = vectors.abs().amax(-2, keepdim=True)
    usable = (peak > 0) & peak.isfinite()
    vectors = torch.where(usable, vectors / torch.where(usable, peak, torch.ones_like(peak)), torch.zeros_like(vectors))
    norms = torch.linalg.vector_norm(vectors, dim=-2, keepdim=True)
    return vectors / torch.where(usable, norms, torch.ones_like(norms))
