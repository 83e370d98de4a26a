"""Block Krylov spaces of a preconditioned matrix: how one is started, expanded, and solved in."""

from collections.abc import Callable

import torch

from rangeformer.krylov.block_lanczos import BlockKrylov
from rangeformer.operators import MatrixOperator
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.shapes import Bool, Float, Tensor

MAX_BLOCK = 64
"""Columns that share one Krylov space at most: a block has to stay thin beside the matrix."""
_BASIS_BYTES = 1 << 30
# Beyond this many basis vectors re-orthogonalising costs more than the passes a shared space saves.
_MAX_BASIS = 1024
# Checks of the true residual that may fail to halve it before the working precision is taken to be exhausted.
_PATIENCE = 4


def krylov_space(operator: MatrixOperator, P: Preconditioner, start: Float[Tensor, "*batch n s"]) -> BlockKrylov:
    """The block Krylov space of M A M^T started at `start`, with all the memory that is set aside for one."""

    def product(vectors: Tensor) -> tuple[Tensor, Tensor]:
        image = operator.matmul(P.whiten_transpose(vectors))
        return image, P.whiten(image)

    vector_bytes = 2 * operator.shape[:-1].numel() * torch.finfo(operator.dtype).bits // 8
    capacity = min(_MAX_BASIS, max(4 * MAX_BLOCK, _BASIS_BYTES // vector_bytes))
    return BlockKrylov(product, start, capacity=capacity)


def expand_until(krylov: BlockKrylov, finished: Callable[[bool], bool], max_iterations: int) -> bool:
    """Expand a space until it holds what is wanted.

    Args:
        krylov: The space.
        finished: Called with whether the space can grow no further; says whether it holds what is wanted.
        max_iterations: Blocks at most, each one pass over A.

    Returns:
        What `finished` said last; False for a space without a solution.
    """
    exhausted = False
    while krylov.has_solution:
        last = exhausted or krylov.num_blocks >= max_iterations
        done = finished(last)
        if done or last:
            return done
        exhausted = not krylov.expand()
    return False


class GalerkinSolution:
    """Solutions of A X = rhs within a block Krylov space, and whether their own residuals meet their targets.

    Args:
        krylov: Started at [M rhs, anything else].
        P: The preconditioner behind it.
        rhs: `(*batch, n, k)` in the original space.
        targets: `(*batch, k)` absolute residual norms in the original space.
    """

    def __init__(
        self,
        krylov: BlockKrylov,
        P: Preconditioner,
        rhs: Float[Tensor, "*batch n k"],
        targets: Float[Tensor, "*batch k"],
    ):
        self._krylov, self._P, self._rhs, self._targets = krylov, P, rhs, targets
        self._num_columns = rhs.shape[-1]
        self._live = targets.isfinite()
        # The whitened residual is free and tells when it is worth forming the true one.
        norms = torch.linalg.vector_norm(rhs, dim=-2).clamp_min(1e-300)
        self._whitened_scale = krylov.start_norms()[..., : self._num_columns] / norms
        self._best, self._checks_without_gain = torch.inf, 0
        self._coefficients: Tensor | None = None

    @property
    def indefinite(self) -> Bool[Tensor, "*batch k"]:
        """Columns whose matrix has shown negative curvature."""
        return self._krylov.indefinite.unsqueeze(-1).expand_as(self._targets)

    def finished(self, last: bool) -> bool:
        """Whether the worst column meets its target, or rounding keeps it from doing so.

        Args:
            last: The space can grow no further: the solution is formed in any case.
        """
        whitened = self._krylov.residual_norms()[..., : self._num_columns]
        plausible = (whitened <= 4 * self._targets * self._whitened_scale) | ~self._live
        if not (last or bool(plausible.all())):
            return False
        self._coefficients = self._krylov.coefficients()[..., : self._num_columns]
        residual = self._rhs - self._krylov.combine_images(self._coefficients)
        worst = float((torch.linalg.vector_norm(residual, dim=-2) / self._targets).max())
        # Rounding of the images keeps the true residual up once the whitened one has passed it by.
        self._checks_without_gain = 0 if worst < 0.5 * self._best else self._checks_without_gain + 1
        self._best = min(self._best, worst)
        return worst <= 1 or self._checks_without_gain == _PATIENCE

    def value(self) -> Float[Tensor, "*batch n k"]:
        """The solution that `finished` saw last; zero for a space without one."""
        if self._coefficients is None:
            return torch.zeros_like(self._rhs)
        return self._P.whiten_transpose(self._krylov.combine(self._coefficients))
