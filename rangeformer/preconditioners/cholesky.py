"""The largest budget: every row conditions on all earlier rows, which is the Cholesky factorisation.

S = L^-1 is the local factor with all neighbours and no global part. Where so many right-hand sides are waiting that
n^3 / 3 is little beside their products with A, this is the cheapest preconditioner there is; refinement still
certifies every column.
"""

from dataclasses import dataclass

import torch

from rangeformer.dense_factorisation import MAX_ROWS
from rangeformer.operators import DenseOperator, MatrixOperator
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.preconditioners.options import CLASSICAL_RANK, BuildContext, PreconditionerOptions
from rangeformer.shapes import Float, Tensor

# A solve by blocks costs some dozen passes: 2 n^2 each for every column, against n^3 / 3 once. The factor 64 leaves
# room for the set-up of either; below one full block of columns the shared Krylov space has not reached its best speed.
_ROWS_PER_COLUMN = 64
_LEAST_COLUMNS = 64


@dataclass(frozen=True)
class CholeskyPreconditioner(PreconditionerOptions):
    """A itself, by dense Cholesky in A's precision: the budget for very many right-hand sides."""

    @property
    def name(self) -> str:
        """As results call it."""
        return "cholesky"

    @property
    def sketch_rank(self) -> int:
        """A factor needs entries; a sketch does not."""
        return CLASSICAL_RANK

    def build(self, operator: MatrixOperator, context: BuildContext) -> Preconditioner:
        """The factor.

        Raises:
            ValueError: A is not dense, or not positive definite in its precision.
        """
        if not isinstance(operator, DenseOperator):
            raise ValueError(
                f"`preconditioner` 'cholesky' needs a dense `A`. Got {type(operator).__name__}; choose 'rangeformer' "
                "or pass a tensor."
            )
        exact = cholesky_preconditioner(operator)
        if exact is None:
            raise ValueError(
                f"`A` must be positive definite in {operator.dtype} for `preconditioner` 'cholesky'. Add a multiple of "
                "the identity, or pass A in float64."
            )
        return exact


def is_cheaper(operator: MatrixOperator, num_rhs: int) -> bool:
    """Whether this many right-hand sides make a dense Cholesky factor the cheapest preconditioner.

    Args:
        operator: A; only matrices that are dense already, of at most 10,000 rows, are factorised.
        num_rhs: Columns that will be solved for.
    """
    n = operator.num_rows
    if not isinstance(operator, DenseOperator) or n > MAX_ROWS:
        return False
    return num_rhs >= max(_LEAST_COLUMNS, n // _ROWS_PER_COLUMN)


def cholesky_preconditioner(operator: MatrixOperator) -> Preconditioner | None:
    """P = A by Cholesky in A's own precision; None if A is not positive definite in it.

    Args:
        operator: A dense matrix.
    """
    assert isinstance(operator, DenseOperator)
    triangle, info = torch.linalg.cholesky_ex(operator.to_dense().detach())
    if bool((info > 0).any()) or not bool(triangle.diagonal(dim1=-2, dim2=-1).isfinite().all()):
        return None
    empty = triangle[..., :0]
    return Preconditioner(empty, _TriangularFactor(triangle), name="cholesky", is_exact=True)


class _TriangularFactor:
    """S = L^-1, with the interface of `LocalFactor`."""

    def __init__(self, triangle: Float[Tensor, "*batch n n"]):
        self._triangle = triangle
        self.neighbors = torch.empty(*triangle.shape[:-1], 0, dtype=torch.long, device=triangle.device)
        self.logdet_inverse = 2 * triangle.diagonal(dim1=-2, dim2=-1).to(torch.float64).log().sum(-1)

    def apply(self, vectors: Float[Tensor, "*batch n s"]) -> Float[Tensor, "*batch n s"]:
        """S @ vectors."""
        return torch.linalg.solve_triangular(self._triangle, vectors, upper=False)

    def apply_transpose(self, vectors: Float[Tensor, "*batch n s"]) -> Float[Tensor, "*batch n s"]:
        """S.mT @ vectors."""
        return torch.linalg.solve_triangular(self._triangle.mT, vectors, upper=True)
