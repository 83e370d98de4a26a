"""`logdet` and `inv_quad_logdet`: what a Gaussian log-likelihood needs.

The estimate is in `rangeformer.solvers.logdet_estimate`, its gradient in `rangeformer.solvers.logdet_gradient`.
"""

from dataclasses import replace
from typing import Any

import torch

from rangeformer.arrays import numpy_in_numpy_out
from rangeformer.autograd import ValueWithGradient
from rangeformer.dense_factorisation import may_solve_directly
from rangeformer.models.looped_model import LoopedModel
from rangeformer.operators import MatrixOperator, as_operator
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.preconditioners.build import build_preconditioner, check_preconditioner
from rangeformer.preconditioners.options import PreconditionerOptions
from rangeformer.randomness import PROBES, generator_or_default
from rangeformer.results import InvQuadLogdet, LogDeterminant, Solution, Status, costs, drop_column
from rangeformer.shapes import Float, Tensor
from rangeformer.solvers.base import Stopping
from rangeformer.solvers.choice import canonical_fallback, canonical_method, learned_solver
from rangeformer.solvers.iterative import BlockLanczos, automatic
from rangeformer.solvers.logdet_estimate import (
    DEFAULT_NUM_PROBES,
    LogdetEstimate,
    draw_probes,
    estimate_by_cholesky,
    estimate_logdet,
    estimate_logdet_and_solve,
)
from rangeformer.solvers.logdet_gradient import logdet_surrogate
from rangeformer.solvers.logdet_outcome import outcome, quadratic_form
from rangeformer.solvers.refinement import refine
from rangeformer.validation import check_count, check_rhs, check_square, check_symmetric, check_tolerance, like

_METHODS = ("krylov", "learned-krylov")


@numpy_in_numpy_out
def logdet(
    A: Any,
    *,
    preconditioner: str | PreconditionerOptions | Preconditioner | None = "rangeformer",
    num_probes: int | None = None,
    rtol: float = 1e-3,
    max_iterations: int = 200,
    fallback: str | None = "dense",
    generator: torch.Generator | None = None,
    method: str = "krylov",
    model: LoopedModel | None = None,
    num_loops: int | None = None,
) -> LogDeterminant:
    """Log det A of a symmetric positive definite A, with its standard error.

    Args:
        A: `(*batch, n, n)`, anything `as_operator` accepts.
        preconditioner: See `build_preconditioner`; the closer P is to A, the smaller the standard error.
        num_probes: Random probes; default 15, and unit vectors (an exact result) for n <= 256.
        rtol: Relative residual of the probe solves, which decides the gradient; the value converges twice as fast.
        max_iterations: Passes at most.
        fallback: "dense" (Cholesky in float64 when the iteration fails and A is of moderate size) or None.
        generator: Source of randomness; a fixed one if None, so that the same call gives the same estimate.
        method: "krylov" (preconditioner and probes), or "learned-krylov": a looped model answers, without gradient, and
            `rtol` bounds the estimated error relative to max(1, |log det A|).
        model: For "learned-krylov": the model. Default: the shipped one, exact once num_loops x 64 >= n.
        num_loops: For "learned-krylov": passes of the model. Default: the model's own, 16.

    Returns:
        The log-determinant with its evidence. Gradients flow through `value` to whatever A is built from ("krylov").

    Raises:
        TypeError: Wrong type or dtype of an argument.
        ValueError: Wrong shape or value of an argument; A not symmetric or not finite.

    Warns:
        ConvergenceWarning: If the probe solves miss `rtol` or A is not positive definite (then `value` is NaN).

    Example:
        >>> import torch, rangeformer as rf
        >>> A = torch.diag(torch.arange(1.0, 101.0, dtype=torch.float64))
        >>> result = rf.logdet(A)
        >>> round(float(result.value), 3), float(result.standard_error)
        (363.739, 0.0)
    """
    operator = as_operator(A)
    name = canonical_method(method)
    if name not in _METHODS:
        raise ValueError(f"`method` must be one of {_METHODS}. Got {method!r}.")
    learned = learned_solver(model, num_loops, is_chosen=name == "learned-krylov")
    check_square(operator)
    if name == "learned-krylov":
        check_tolerance("rtol", rtol)
        return learned.logdet(operator, rtol, generator)
    stopping = Stopping(rtol, max_iterations, canonical_fallback(fallback))
    check_count("num_probes", num_probes, least=1, optional=True)
    check_preconditioner(preconditioner)
    before = operator.reads.snapshot()
    check_symmetric(operator)
    with torch.no_grad():
        P, probes = _preconditioner_and_probes(operator, preconditioner, 0, num_probes, generator)
        estimate = estimate_logdet(operator, P, probes, probe_rtol=rtol, max_iterations=max_iterations)
    differentiable = torch.is_grad_enabled() and operator.requires_grad
    estimate, used = _or_cholesky(operator, estimate, stopping, differentiable=differentiable)
    value, probe_terms = estimate.logdet.to(operator.dtype), None
    if differentiable:
        surrogates = logdet_surrogate(operator, P, estimate)
        value, probe_terms = ValueWithGradient.apply(value, surrogates.logdet), surrogates.probe_terms
    return replace(outcome(value, estimate, P, used, operator, before, rtol), probe_terms=probe_terms)


@numpy_in_numpy_out
def inv_quad_logdet(
    A: Any,
    rhs: Float[Tensor, "..."],
    *,
    preconditioner: str | PreconditionerOptions | Preconditioner | None = "rangeformer",
    num_probes: int | None = None,
    rtol: float = 1e-4,
    probe_rtol: float = 1e-2,
    max_iterations: int = 200,
    fallback: str | None = "dense",
    error_rtol: float | None = None,
    generator: torch.Generator | None = None,
) -> InvQuadLogdet:
    """rhs^T A^-1 rhs and log det A together, both differentiable: the two halves of a Gaussian log-likelihood.

    Args:
        A: `(*batch, n, n)` symmetric positive definite, anything `as_operator` accepts.
        rhs: `(n,)` or `(*batch, n, k)`.
        preconditioner: See `build_preconditioner`.
        num_probes: Random probes for the log-determinant; default 15 (n <= 256: exact).
        rtol: Relative residual of A x = rhs. `inv_quad` is 2 rhs^T x - x^T A x, whose error is of its square.
        probe_rtol: Relative residual of the probe solves.
        max_iterations: Passes at most.
        fallback: "dense" or None, as in `linear_solve`.
        error_rtol: As in `linear_solve`: relative error of x to aim at, which the gradient inherits.
        generator: Source of randomness; a fixed one if None, so that the same call gives the same estimate.

    Returns:
        Both values with their evidence.

    Raises:
        TypeError: Wrong type or dtype of an argument.
        ValueError: Wrong shape, device or value of an argument; A not symmetric or not finite.

    Warns:
        ConvergenceWarning: As `linear_solve` and `logdet`.

    Example:
        >>> import torch, rangeformer as rf
        >>> A = torch.diag(torch.arange(1.0, 101.0, dtype=torch.float64))
        >>> result = rf.inv_quad_logdet(A, torch.ones(100, dtype=torch.float64))
        >>> round(float(result.inv_quad), 3), round(float(result.logdet), 3)
        (5.187, 363.739)
    """
    operator = as_operator(A, **like(rhs))
    check_square(operator)
    columns = check_rhs(operator, rhs)
    stopping = Stopping(rtol, max_iterations, canonical_fallback(fallback), error_rtol)
    check_tolerance("probe_rtol", probe_rtol)
    check_count("num_probes", num_probes, least=1, optional=True)
    check_preconditioner(preconditioner)
    before = operator.reads.snapshot()
    check_symmetric(operator)
    with torch.no_grad():
        known = columns.detach()
        P, probes = _preconditioner_and_probes(operator, preconditioner, known.shape[-1], num_probes, generator)
        estimate, start = estimate_logdet_and_solve(
            operator, known, P, probes, rtol=rtol, probe_rtol=probe_rtol, max_iterations=max_iterations
        )
    differentiable = torch.is_grad_enabled() and (operator.requires_grad or columns.requires_grad)
    estimate, used = _or_cholesky(operator, estimate, stopping, differentiable=differentiable)
    with torch.no_grad():
        refined = refine(operator, known, P, automatic(known.shape[-1], is_exact=P.is_exact), stopping, start=start)
        inv_quad = quadratic_form(operator, known, refined.value)
    value, probe_terms = estimate.logdet.to(operator.dtype), None
    if differentiable:
        surrogates = logdet_surrogate(operator, P, estimate, solution=refined.value, rhs=columns)
        inv_quad = ValueWithGradient.apply(inv_quad, surrogates.quadratic)
        value, probe_terms = ValueWithGradient.apply(value, surrogates.logdet), surrogates.probe_terms
    log_determinant = outcome(value, estimate, P, used, operator, before, probe_rtol)
    log_determinant = replace(log_determinant, probe_terms=probe_terms)
    solution = Solution(
        value=refined.value,
        converged=refined.converged,
        residual_norms=refined.relative.to(rhs.dtype),
        # The shared space did most of the iterating; verifying its solution rarely adds any.
        num_iterations=estimate.num_iterations + refined.num_iterations,
        method=BlockLanczos.name,
        preconditioner=P.name,
        status=refined.status,
        cause=refined.cause,
        fallback=refined.fallback,
        message=refined.message,
        error_bounds=None if refined.error_bounds is None else refined.error_bounds.to(rhs.dtype),
        **costs(operator.reads.since(before)),
    )
    return InvQuadLogdet(
        inv_quad=inv_quad,
        logdet=value,
        standard_error=log_determinant.standard_error,
        solution=drop_column(solution) if rhs.dim() == 1 else solution,
        log_determinant=log_determinant,
    )


def _preconditioner_and_probes(
    operator: MatrixOperator,
    preconditioner: str | PreconditionerOptions | Preconditioner | None,
    num_columns: int,
    num_probes: int | None,
    generator: torch.Generator | None,
) -> tuple[Preconditioner, Float[Tensor, "*batch n m"]]:
    """P for all columns that will share a space, and then the probes, from one stream."""
    generator = generator_or_default(generator, PROBES)
    num_rhs = num_columns + (num_probes or DEFAULT_NUM_PROBES)
    P = build_preconditioner(operator, preconditioner, num_rhs=num_rhs, generator=generator)
    return P, draw_probes(operator, num_probes, generator)


def _or_cholesky(
    operator: MatrixOperator, estimate: LogdetEstimate, stopping: Stopping, *, differentiable: bool
) -> tuple[LogdetEstimate, str | None]:
    """The estimate, or a dense factorisation's where it failed and that is possible; and the factorisation's name."""
    if estimate.status is Status.CONVERGED or stopping.fallback != "dense" or not may_solve_directly(operator):
        return estimate, None
    with torch.no_grad():
        return estimate_by_cholesky(operator, estimate, differentiable=differentiable), "Cholesky"
