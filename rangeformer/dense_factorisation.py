"""The last resort: dense factorisation in float64."""

import math
from dataclasses import dataclass

import torch

from rangeformer.operators import MatrixOperator
from rangeformer.shapes import Float, Tensor

MAX_ROWS = 10_000
_CAUTION = 4  # 95 % of errors are below this many times the estimate (matrices of condition 1e10 to 1e16, n < 230)


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
    """Solve by Cholesky, matrices of a batch that are not positive definite by QR; zero for those that are singular.

    QR and not LU: in torch 2.13 LU of a batch goes wrong once a number of threads above one has been set.
    """
    matrix = dense(operator)
    cholesky, info = torch.linalg.cholesky_ex(matrix)
    definite = info == 0
    value = torch.cholesky_solve(rhs, cholesky)
    if bool(definite.all()):
        return DirectSolution(value, "Cholesky")
    Q, R = torch.linalg.qr(matrix)
    pivots = R.diagonal(dim1=-2, dim2=-1).abs()
    usable = (pivots.amin(-1) > torch.finfo(matrix.dtype).tiny).unsqueeze(-1).unsqueeze(-1)
    eye = torch.eye(operator.num_rows, dtype=R.dtype, device=R.device)
    general = torch.linalg.solve_triangular(torch.where(usable, R, eye), Q.mT @ rhs, upper=True)
    general = torch.where(usable & general.isfinite(), general, torch.zeros_like(general))
    return DirectSolution(torch.where(definite.unsqueeze(-1).unsqueeze(-1), value, general), "QR")


@dataclass(frozen=True)
class DirectLogdet:
    """Log-determinants by Cholesky; NaN for matrices of a batch that are not positive definite.

    Attributes:
        value: `(*batch)` log det A.
        rounding: `(*batch)` estimated error that rounding leaves in it.
        inverse: `(*batch, n, n)` A^-1 if it was asked for.
    """

    value: Float[Tensor, "*batch"]
    rounding: Float[Tensor, "*batch"]
    inverse: Float[Tensor, "*batch n n"] | None


def direct_logdet(operator: MatrixOperator, *, with_inverse: bool = False) -> DirectLogdet:
    """Log det by Cholesky and, if asked for, A^-1.

    The factor is that of D A D with D a power of two near each a_ii^(-1/2): badly scaled rows cost no digits, and huge
    and tiny entries leave the range of no intermediate number. Each pivot l_jj^2 is then a difference of numbers of
    size one, rounded at eps, so that log det is off by about eps sum_j 1 / l_jj^2.
    """
    matrix = dense(operator)
    diagonal = matrix.diagonal(dim1=-2, dim2=-1)
    exponents = torch.where(diagonal > 0, torch.frexp(diagonal).exponent, 0) // 2
    units = torch.ldexp(torch.ones_like(diagonal), exponents)
    scaled = matrix / units.unsqueeze(-1) / units.unsqueeze(-2)
    cholesky, info = torch.linalg.cholesky_ex(scaled)
    definite = info == 0
    pivots = cholesky.diagonal(dim1=-2, dim2=-1)
    value = 2 * (pivots.log() + exponents.to(torch.float64) * math.log(2)).sum(-1)
    value = torch.where(definite, value, torch.full_like(value, torch.nan))
    terms = scaled.diagonal(dim1=-2, dim2=-1) / pivots.square()
    rounding = _CAUTION * torch.finfo(matrix.dtype).eps * terms.sum(-1)
    rounding = torch.where(definite, rounding, torch.full_like(rounding, torch.nan))
    if not with_inverse:
        return DirectLogdet(value, rounding, None)
    usable = definite.unsqueeze(-1).unsqueeze(-1)
    # One singular factor would end the inversion of the whole batch.
    eye = torch.eye(operator.num_rows, dtype=cholesky.dtype, device=cholesky.device)
    inverse = torch.cholesky_inverse(torch.where(usable, cholesky, eye))
    inverse = inverse / units.unsqueeze(-1) / units.unsqueeze(-2)
    return DirectLogdet(value, rounding, torch.where(usable, inverse, torch.full_like(inverse, torch.nan)))


def sign_of_determinant(operator: MatrixOperator) -> tuple[Float[Tensor, "*batch"], Float[Tensor, "*batch"]]:
    """Sign of det A and log |det A| of a symmetric A, from its eigenvalues: 0 and -inf where A is exactly singular."""
    eigenvalues = torch.linalg.eigvalsh(dense(operator))
    return eigenvalues.sign().prod(-1), eigenvalues.abs().log().sum(-1)
