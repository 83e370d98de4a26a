"""Randomised Nystrom approximation with a Gaussian sketch, for matrices known by their products.

`sketching.nystrom` approximates A to a rank and reports an error; here the same sketch becomes an invertible P with a
shift, so that the two share no more than the formula.
"""

from dataclasses import dataclass

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.preconditioners.local import diagonal_factor
from rangeformer.preconditioners.options import CLASSICAL_RANK, BuildContext, NoPreconditioner, RankedOptions
from rangeformer.randomness import draw_normal


@dataclass(frozen=True)
class NystromPreconditioner(RankedOptions):
    """Randomised Nystrom with a Gaussian sketch (Frangella, Tropp & Udell 2023, Algorithms 2.1 and 5.1).

    Attributes:
        rank: Sketch size: that many matvecs in one pass.
    """

    rank: int = CLASSICAL_RANK

    @property
    def name(self) -> str:
        """As results call it."""
        return "nystrom"

    def build(self, operator: MatrixOperator, context: BuildContext) -> Preconditioner:
        """One pass over A."""
        return from_products(operator, self.rank, context.generator)


def from_products(
    operator: MatrixOperator, rank: int, generator: torch.Generator | None, *, name: str = "nystrom"
) -> Preconditioner:
    """U Lambda U^T + mu (I - U U^T) with mu the smallest captured eigenvalue, from one pass.

    Args:
        operator: A, known by its products.
        rank: Columns of the sketch.
        generator: Source of the sketch.
        name: How results call it.
    """
    n = operator.num_rows
    rank = min(rank, n)
    if rank == 0:
        return NoPreconditioner().build(operator, BuildContext())
    shape = (*operator.batch_shape, n, rank)
    omega = torch.linalg.qr(draw_normal(shape, generator, dtype=operator.dtype, device=operator.device)).Q
    image = operator.matmul(omega).to(torch.float64)
    wide = omega.to(torch.float64)
    shift = torch.finfo(operator.dtype).eps * torch.linalg.matrix_norm(image).unsqueeze(-1).unsqueeze(-1)
    image = image + shift * wide
    core = wide.mT @ image
    cholesky, info = torch.linalg.cholesky_ex((core + core.mT) / 2)
    factor = torch.linalg.solve_triangular(cholesky.mT, image, upper=True, left=False)
    sound = (info == 0).view(*info.shape, 1, 1) & factor.isfinite().all(-1, keepdim=True).all(-2, keepdim=True)
    factor = torch.where(sound, factor, torch.zeros_like(factor))
    U, singular, _ = torch.linalg.svd(factor, full_matrices=False)
    eigenvalues = (singular.square() - shift.squeeze(-1)).clamp_min(0)
    tail = eigenvalues[..., -1:]
    smallest = torch.finfo(operator.dtype).eps * eigenvalues.amax(-1, keepdim=True)
    tail = torch.maximum(tail, smallest)
    tail = torch.where(tail > 0, tail, torch.ones_like(tail))
    factor = (U * (eigenvalues - tail).clamp_min(0).sqrt().unsqueeze(-2)).to(operator.dtype)
    variances = tail.to(operator.dtype).expand(operator.shape[:-1])
    return Preconditioner(factor, diagonal_factor(variances), name=name)
