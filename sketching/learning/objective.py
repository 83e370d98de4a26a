"""What a sketch is for: the error of the low-rank approximation that it leads to, over the best one."""

from dataclasses import dataclass

import torch

from rangeformer.operators import as_operator
from rangeformer.shapes import Float, Tensor
from sketching.learning.leading_space import leading_space
from sketching.sketches.base import Sketch
from sketching.sketches.holdout import joined
from sketching.sketches.random_features import RandomFeatures
from sketching.sketches.reading import stratified_rows

_RIDGE = 1e-12  # of the image's Gram matrix, over its mean diagonal
_FLOOR = 1e-3  # squared excess below which more is not worth learning
_NO_ERROR = 1e-10  # share of |A|^2 below which the best approximation is exact


@dataclass(frozen=True)
class Target:
    """A matrix to be approximated.

    Attributes:
        matrix: A, `(m, n)`, float64.
        rank: r.
        total: |A|_F^2.
        best: Squared error of the best approximation of rank r, and at least rounding.
    """

    matrix: Float[Tensor, "m n"]
    rank: int
    total: float
    best: float

    @classmethod
    def of(cls, matrix: Float[Tensor, "m n"], rank: int) -> "Target":
        """Measure A.

        Args:
            matrix: A.
            rank: r.
        """
        A = matrix.to(torch.float64)
        energies = torch.linalg.eigvalsh(A @ A.mT if A.shape[0] <= A.shape[1] else A.mT @ A).flip(-1).clamp_min(0)
        total = float(energies.sum())
        return cls(A, rank, total, max(float(energies[rank:].sum()), _NO_ERROR * total))


def squared_excess(target: Target, omega: Float[Tensor, "n l"]) -> Float[Tensor, ""]:
    """(|A - B|^2 - best) / best, B of rank r from the range of A Omega.

    At least zero, differentiable in the space of Omega.

    Args:
        target: A.
        omega: Sketch of at least r columns, float64.
    """
    image = target.matrix @ omega
    gram = image.mT @ image
    size = gram.shape[-1]
    ridge = _RIDGE * gram.diagonal().mean().detach() + torch.finfo(gram.dtype).tiny
    factor = torch.linalg.cholesky(gram + ridge * torch.eye(size, dtype=gram.dtype, device=gram.device))
    coordinates = torch.linalg.solve_triangular(factor, image.mT @ target.matrix, upper=False)
    captured = torch.linalg.eigvalsh(coordinates @ coordinates.mT)[-target.rank :].sum()
    return ((target.total - captured) / target.best - 1).clamp_min(0)


def lift_loss(
    random_features: RandomFeatures,
    target: Target,
    num_rows: int,
    num_columns: int,
    share: float,
    generator: torch.Generator,
) -> Float[Tensor, ""]:
    """Log excess of the blend of a few rows and their random features.

    The distribution of the sketch without its decisions and its noise.

    Args:
        random_features: The network.
        target: A.
        num_rows: c, rows read.
        num_columns: l.
        share: Of the random features.
        generator: Source of the rows and of the random features' frequencies.
    """
    rows = stratified_rows(as_operator(target.matrix), num_rows, generator).rows
    lifted = random_features(rows, generator=generator)
    table = joined(rows, (share * lifted.log_share.exp()) ** 0.5 * lifted.features)
    count = min(num_columns, *table.shape)
    return (squared_excess(target, leading_space(table, count)) + _FLOOR).log()


@torch.no_grad()
def excess_of(
    target: Target, distribution: Sketch, num_columns: int, num_rows: int, generator: torch.Generator
) -> float:
    """Relative excess of the Frobenius error, |A - B| / |A - A_r| - 1, after one pass with a sketch.

    Args:
        target: A.
        distribution: The sketch.
        num_columns: l.
        num_rows: Rows that it may read.
        generator: Source of all randomness.
    """
    omega = distribution.draw(as_operator(target.matrix), num_columns, max_rows=num_rows, generator=generator)
    return float((1 + squared_excess(target, omega)).sqrt()) - 1
