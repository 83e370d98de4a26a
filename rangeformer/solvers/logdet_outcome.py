"""What an estimate of a log-determinant and a solve amount to: the values, how they ended, and what to do about it."""

import torch

from rangeformer.dense_factorisation import sign_of_determinant
from rangeformer.krylov.certificate import powers_of_two
from rangeformer.operators import MatrixOperator, Reads
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.results import LogDeterminant, Status, costs, warn_unconverged
from rangeformer.shapes import Float, Tensor
from rangeformer.solvers.logdet_estimate import LogdetEstimate

_ROUNDING_SHARE = 0.01  # of rtol nats a row: what rounding may leave
_SIGN_UP_TO = 2048  # rows up to which all eigenvalues are worth a sign


def quadratic_form(operator: MatrixOperator, rhs: Tensor, solution: Tensor) -> Float[Tensor, "*batch"]:
    """2 rhs^T x - x^T A x, whose error is of the residual's square.

    A rounded product is enough here: its error enters beside the residual's square, not beside the residual.
    """
    # Divided by a power of two, columns of any size have squares within the range of floating point.
    size = powers_of_two(rhs)
    wide, x = rhs.to(torch.float64) / size, solution.to(torch.float64) / size
    image = operator.matmul(x.to(solution.dtype)).to(torch.float64)
    value = ((2 * wide * x - x * image).sum(-2) * size.squeeze(-2).square()).sum(-1).to(rhs.dtype)
    finite = value.isfinite()
    if not bool(finite.all()):
        warn_unconverged(
            f"`inv_quad` is beyond the range of {rhs.dtype} and returned as infinity. Divide `rhs` by its size and "
            "multiply the result by the square of that, or pass A and rhs in float64."
        )
    # A positive form that overflows is infinite, also where infinity minus infinity made it NaN.
    return torch.where(finite, value, torch.full_like(value, torch.inf))


def outcome(
    value: Tensor,
    estimate: LogdetEstimate,
    P: Preconditioner,
    used: str | None,
    operator: MatrixOperator,
    before: Reads,
    rtol: float,
) -> LogDeterminant:
    """The result, with a warning where it is not what was asked for."""
    cause, sign = estimate.status, torch.where(value.isfinite(), 1.0, torch.nan).to(value.dtype)
    allowed = estimate.standard_error.clamp_min(_ROUNDING_SHARE * rtol * operator.num_rows)
    precise = estimate.rounding <= allowed
    if cause is Status.CONVERGED and not bool(precise.all()):
        cause = Status.ILL_CONDITIONED
    message = cause.value
    if cause is not Status.CONVERGED:
        message = _explain(cause, estimate, operator)
        if used is not None:
            missing = ", NaN where that failed as well" if bool(estimate.logdet.isnan().any()) else ""
            message += f" The value comes from a dense float64 {used} factorisation instead{missing}."
            if bool(value.isnan().any()) and operator.num_rows <= _SIGN_UP_TO:
                sign, logabsdet = (part.to(value.dtype) for part in sign_of_determinant(operator))
                message += f" The determinant has sign {sign.tolist()} and log |det A| = {logabsdet.tolist()}."
        warn_unconverged(message)
    met = (cause in (Status.CONVERGED, Status.ILL_CONDITIONED)) or used is not None
    return LogDeterminant(
        value=value,
        standard_error=estimate.standard_error.to(operator.dtype),
        rounding_error=estimate.rounding.to(operator.dtype),
        sign=sign,
        converged=value.isfinite() & precise if met else torch.zeros_like(precise),
        num_probes=estimate.num_probes,
        num_iterations=estimate.num_iterations,
        preconditioner=P.name,
        status=cause if used is None else Status.FALLBACK_USED,
        cause=cause,
        fallback=used,
        message=message,
        method="krylov",
        **costs(operator.reads.since(before)),
    )


def _explain(cause: Status, estimate: LogdetEstimate, operator: MatrixOperator) -> str:
    if cause is Status.INDEFINITE:
        return (
            f"`A` is not positive definite in {operator.dtype}: its log-determinant is not defined. Add a larger "
            "multiple of the identity."
        )
    if cause is Status.ILL_CONDITIONED:
        return (
            f"`A` is so ill-conditioned that rounding may change its log-determinant by "
            f"{float(estimate.rounding.max()):.1e}. Add a larger multiple of the identity"
            f"{'' if operator.dtype == torch.float64 else ', or pass A in float64'}."
        )
    return "The log-determinant's probe solves did not converge: allow more iterations or a larger preconditioner."
