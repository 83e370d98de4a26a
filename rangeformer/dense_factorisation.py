"""The last resort: dense factorisation in float64."""

from dataclasses import dataclass

import torch

from rangeformer.operators import MatrixOperator
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
    return operator.to_dense(torch.float64).detach()


def direct_solve(operator: MatrixOperator, rhs: Float[Tensor, "*batch n k"]) -> DirectSolution:
    """Solve by Cholesky, matrices of a batch that are not positive definite by LU; zero for those that are singular."""
    matrix = dense(operator)
    cholesky, info = torch.linalg.cholesky_ex(matrix)
    definite = info == 0
    value = torch.cholesky_solve(rhs, cholesky)
    if bool(definite.all()):
        return DirectSolution(value, "Cholesky")
    general, info = torch.linalg.solve_ex(matrix, rhs)
    usable = (info == 0).unsqueeze(-1).unsqueeze(-1) & general.isfinite()
    general = torch.where(usable, general, torch.zeros_like(general))
    return DirectSolution(torch.where(definite.unsqueeze(-1).unsqueeze(-1), value, general), "LU")


def direct_logdet(
    operator: MatrixOperator, *, with_inverse: bool = False
) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch n n"] | None]:
    """Log det by Cholesky and, if asked for, A^-1; NaN for matrices of a batch that are not positive definite."""
    cholesky, info = torch.linalg.cholesky_ex(dense(operator))
    definite = info == 0
    value = 2 * cholesky.diagonal(dim1=-2, dim2=-1).log().sum(-1)
    value = torch.where(definite, value, torch.full_like(value, torch.nan))
    if not with_inverse:
        return value, None
    usable = definite.unsqueeze(-1).unsqueeze(-1)
    # One singular factor would end the inversion of the whole batch.
    eye = torch.eye(operator.num_rows, dtype=cholesky.dtype, device=cholesky.device)
    inverse = torch.cholesky_inverse(torch.where(usable, cholesky, eye))
    return value, torch.where(usable, inverse, torch.full_like(inverse, torch.nan))
