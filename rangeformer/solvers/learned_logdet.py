"""`logdet(method="learned-krylov")`: the model's log-determinant with its error estimate."""

import torch

from rangeformer.models.looped_model import LoopedModel
from rangeformer.models.scaled_operator import ScaledOperator
from rangeformer.operators import MatrixOperator
from rangeformer.results import LogDeterminant, Status, costs, warn_unconverged
from rangeformer.solvers.learned_krylov import METHOD
from rangeformer.validation import check_symmetric


def logdet_by_model(
    operator: MatrixOperator,
    model: LoopedModel,
    *,
    num_loops: int,
    rtol: float,
    generator: torch.Generator | None,
) -> LogDeterminant:
    """Log det A of a symmetric positive definite A; not differentiable.

    Args:
        operator: A.
        model: The model.
        num_loops: Loops allowed.
        rtol: Estimated error accepted, relative to max(1, |log det A|).
        generator: Source of randomness; a fixed one if None.
    """
    before = operator.reads.snapshot()
    check_symmetric(ScaledOperator(operator))
    with torch.no_grad():
        value, error = model.logdet(operator, num_loops=num_loops, generator=generator)
    error = torch.where(value.isfinite(), error, torch.full_like(error, torch.nan))
    converged = error <= rtol * value.abs().clamp_min(1)
    status, message = Status.CONVERGED, Status.CONVERGED.value
    if not bool(converged.all()):
        status = _status(value)
        message = _explain(operator, value, error, num_loops, rtol)
        warn_unconverged(message)
    return LogDeterminant(
        value=value.to(operator.dtype),
        standard_error=error.to(operator.dtype),
        rounding_error=torch.zeros_like(error),  # the estimated error holds it
        sign=torch.where(value.isfinite(), 1.0, torch.nan).to(operator.dtype),
        converged=converged,
        num_probes=0,
        num_iterations=num_loops,
        preconditioner="none",
        status=status,
        cause=status,
        fallback=None,
        message=message,
        method=METHOD,
        **costs(operator.reads.since(before)),
    )


def _status(value: torch.Tensor) -> Status:
    """Why a log-determinant is not there, or not good enough."""
    if bool(value.isnan().any()):
        return Status.INDEFINITE
    return Status.SINGULAR if bool(value.isinf().any()) else Status.MAX_ITERATIONS


def _explain(operator: MatrixOperator, value: torch.Tensor, error: torch.Tensor, num_loops: int, rtol: float) -> str:
    if bool(value.isnan().any()):
        return (
            f"`A` is not positive definite in {operator.dtype}: its log-determinant is not defined and NaN is "
            "returned. Add a "
            "larger multiple of the identity."
        )
    if bool(value.isinf().any()):
        return f"`A` is singular in {operator.dtype}: its log-determinant is -inf. Add a multiple of the identity."
    return (
        f"Not converged: the log-determinant's estimated error is {float(error.max()):.1e}, more than rtol={rtol:.1e} "
        "of its size, "
        f"after {num_loops} loops. Allow more loops, or use method='krylov' with a preconditioner."
    )
