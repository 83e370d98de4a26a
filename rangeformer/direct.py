"""The last resort: dense factorisation in float64."""

from dataclasses import dataclass

import torch

from rangeformer.operators import DenseOperator, MatrixOperator
from rangeformer.shapes import Float, Tensor

MAX_ROWS = 10_000


@dataclass(frozen=True)
class DirectSolution:
    """What a dense factorisation gives, and which one it was."""

    value: Float[Tensor, "*batch n k"]
    method: str


def may_solve_directly(operator: MatrixOperator) -> bool:
    """Whether A is small enough to be held and factorised densely in float64."""
    return operator.has_entries and operator.num_rows <= MAX_ROWS


def dense(operator: MatrixOperator) -> Float[Tensor, "*batch n n"]:
    """A as one float64 tensor."""
    if isinstance(operator, DenseOperator):
        matrix = operator.matrix.detach().to(torch.float64)
        if operator.noise is not None:
            matrix = matrix + torch.diag_embed(operator.noise.detach().to(torch.float64))
        return matrix
    every = torch.arange(operator.num_columns, device=operator.device)
    return operator.columns(every.expand(*operator.batch_shape, -1)).to(torch.float64)


def direct_solve(
    operator: MatrixOperator, rhs: Float[Tensor, "*batch n k"]
) -> DirectSolution | None:
    """Solve by Cholesky, by LU if A is not positive definite; None if A is singular to working precision."""
    matrix = dense(operator)
    cholesky, info = torch.linalg.cholesky_ex(matrix)
    if not bool((info > 0).any()):
        return DirectSolution(torch.cholesky_solve(rhs, cholesky), "Cholesky")
    value, info = torch.linalg.solve_ex(matrix, rhs)
    if bool((info > 0).any()) or not bool(value.isfinite().all()):
        return None
    return DirectSolution(value, "LU")


def direct_logdet(operator: MatrixOperator) -> Float[Tensor, "*batch"]:
    """log det by Cholesky; NaN for members that are not positive definite."""
    cholesky, info = torch.linalg.cholesky_ex(dense(operator))
    value = 2 * cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    return torch.where(info == 0, value, torch.full_like(value, torch.nan))
