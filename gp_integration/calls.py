"""The calls to `rangeformer`: each is recorded, checked, and repeated by Cholesky if it failed."""

from dataclasses import replace
from typing import Any

import torch
from linear_operator.operators import LinearOperator
from torch import Tensor

import rangeformer as rf
from gp_integration import structure_cache
from gp_integration.batch_folding import BatchFold
from gp_integration.fallback import answer_or_cholesky, failure, solve_failure, warn_of_gradient
from gp_integration.gradient_error import more_probes, relative_gradient_error
from gp_integration.report import Call
from gp_integration.request import SolveRequest
from gp_integration.solve_derivative import SolveDerivative, once_differentiable

# The probe solves decide the gradient's variance, not the value: they may be this loose.
_PROBE_RTOL = 5e-2


def solve(
    request: SolveRequest,
    matrix: LinearOperator,  # shape: (*batch, n, n)
    rhs: Tensor,  # shape: (*any, n, k)
) -> Tensor:  # shape: (*broadcast, n, k)
    """A^-1 rhs, differentiable in both; batch dimensions that only rhs has become columns.

    The backward pass is one more checked solve with the same preconditioner, needs no block, and is
    recorded with the block that made the call; differentiated again, it is a solve of the same kind.
    """
    rhs = rhs.to(matrix.dtype)
    fold = BatchFold.of(matrix.shape[:-2], rhs)
    columns = fold.fold(rhs)
    with torch.no_grad():
        solution, request, error = _solve(request, matrix, columns.detach())
    parts = matrix.representation()
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (columns, *parts)):

        def adjoint(system: LinearOperator, gradient: Tensor) -> Tensor:
            backward = replace(request, purpose=f"{request.purpose} (backward)")
            if torch.is_grad_enabled():
                return solve(backward, system, gradient)
            found, _, backward_error = _solve(backward, system, gradient)
            warn_of_gradient(request.purpose, error + backward_error)
            return found

        solution = SolveDerivative.apply(solution, matrix.representation_tree(), adjoint, columns, *parts)
    return fold.unfold(solution)


def _solve(request: SolveRequest, matrix: LinearOperator, columns: Tensor) -> tuple[Tensor, SolveRequest, float]:
    """The solution, without a graph, the request with the preconditioner that was used, and a bound of the error."""

    def iterate() -> tuple[tuple[Tensor, SolveRequest, float], str | None]:
        operator = rf.as_operator(matrix)
        prepared = request.prepared(operator, columns.shape[-1])
        solution = rf.linear_solve(operator, columns, error_rtol=request.error_rtol, **prepared.keywords())
        _record(prepared, matrix, solution)
        error = 0.0 if request.error_rtol is None else _error_bound(solution) or 0.0
        return (solution.value, prepared, error), solve_failure(matrix, columns, solution, prepared.rtol)

    def by_cholesky(factor: Tensor) -> tuple[Tensor, SolveRequest, float]:
        return torch.cholesky_solve(columns.to(factor.dtype), factor).to(columns.dtype), request, 0.0

    return answer_or_cholesky(request, matrix, iterate, by_cholesky)


def inv_quad_logdet(
    request: SolveRequest,
    matrix: LinearOperator,  # shape: (*batch, n, n)
    rhs: Tensor,  # shape: (*any, n, k)
) -> tuple[Tensor, Tensor]:  # shapes: (*broadcast, k), (*batch)
    """rhs^T A^-1 rhs for every column, and log det A, from one call; both differentiable."""
    rhs = rhs.to(matrix.dtype)
    fold = BatchFold.of(matrix.shape[:-2], rhs)
    columns = fold.fold(rhs)

    def iterate(num_probes: int | None = request.block.options.num_probes) -> tuple[tuple[Tensor, Tensor], str | None]:
        operator = rf.as_operator(matrix)
        prepared = request.prepared(operator, columns.shape[-1] + request.num_probes())
        result = rf.inv_quad_logdet(
            operator,
            columns,
            num_probes=num_probes,
            probe_rtol=_probe_rtol(request),
            error_rtol=request.error_rtol,
            generator=request.block.options.generator(matrix.device, stream=1),
            **prepared.keywords(),
        )
        gradient_error = relative_gradient_error(request, result)
        _record(prepared, matrix, result.solution, result.log_determinant, gradient_error=gradient_error)
        if (more := more_probes(request, result, gradient_error)) is not None:
            return iterate(more)
        if not _structure_serves(prepared, operator, result):
            return iterate(num_probes)
        if columns.shape[-1] == 1:
            inv_quad = result.inv_quad.unsqueeze(-1)
        else:
            inv_quad = inv_quad_from(matrix, columns, result.solution.value)
        reason = solve_failure(matrix, columns.detach(), result.solution, request.rtol)
        return (inv_quad, result.logdet), reason or failure(result.log_determinant)

    def by_cholesky(factor: Tensor) -> tuple[Tensor, Tensor]:
        whitened = torch.linalg.solve_triangular(factor, columns.to(factor.dtype), upper=False)
        return whitened.square().sum(-2).to(columns.dtype), _logdet_of(factor).to(columns.dtype)

    inv_quad, logdet = answer_or_cholesky(request, matrix, iterate, by_cholesky)
    inv_quad = fold.unfold(inv_quad.unsqueeze(-2)).squeeze(-2)
    return once_differentiable(inv_quad), once_differentiable(logdet)


def _structure_serves(request: SolveRequest, operator: rf.MatrixOperator, result: rf.InvQuadLogdet) -> bool:
    """Whether the structure of the preconditioner is worth keeping for the kernel's next call."""
    assert request.preconditioner is not None
    structure = request.preconditioner.structure
    if request.kernel is None or structure is None:
        return True
    num_iterations = result.log_determinant.num_iterations + result.solution.num_iterations
    cost = structure_cache.CallCost(num_iterations, float(result.standard_error.max()))
    return structure_cache.keep_if_serving(request.kernel, request.structure_key(operator), structure, cost)


def logdet(
    request: SolveRequest,
    matrix: LinearOperator,  # shape: (*batch, n, n)
) -> Tensor:  # shape: (*batch)
    """Log det A, differentiable."""

    def iterate() -> tuple[Tensor, str | None]:
        operator = rf.as_operator(matrix)
        prepared = request.prepared(operator, request.num_probes())
        result = rf.logdet(
            operator,
            num_probes=request.block.options.num_probes,
            generator=request.block.options.generator(matrix.device, stream=1),
            **prepared.keywords() | {"rtol": _probe_rtol(request)},
        )
        _record(prepared, matrix, result)
        return result.value, failure(result)

    def by_cholesky(factor: Tensor) -> Tensor:
        return _logdet_of(factor).to(matrix.dtype)

    return once_differentiable(answer_or_cholesky(request, matrix, iterate, by_cholesky))


def inv_quad(
    request: SolveRequest,
    matrix: LinearOperator,  # shape: (*batch, n, n)
    rhs: Tensor,  # shape: (*any, n, k)
) -> Tensor:  # shape: (*broadcast, k)
    """rhs^T A^-1 rhs for every column: one solve without a graph, no solve in the backward pass."""
    rhs = rhs.to(matrix.dtype)
    fold = BatchFold.of(matrix.shape[:-2], rhs)
    columns = fold.fold(rhs)
    with torch.no_grad():
        solution = solve(request, matrix, columns)
    values = inv_quad_from(matrix, columns, solution)
    return fold.unfold(values.unsqueeze(-2)).squeeze(-2)


def sample(
    request: SolveRequest,
    matrix: LinearOperator,  # shape: (*batch, n, n)
    num_samples: int,
) -> Tensor:  # shape: (num_samples, *batch, n)
    """Samples of N(0, A) without a factorisation of A, not differentiable; drawn from the global generator."""

    def iterate() -> tuple[Tensor, str | None]:
        operator = rf.as_operator(matrix)
        prepared = request.prepared(operator, num_samples)
        samples = rf.sample_gaussian(
            operator,
            num_samples,
            rtol=request.rtol,
            preconditioner=prepared.preconditioner,
            max_iterations=request.block.options.max_iterations,
        )
        _record_call(prepared, matrix, "krylov", num_columns=num_samples, num_matvecs=operator.reads.matvecs)
        return samples, None if bool(torch.isfinite(samples).all()) else "not finite."

    def by_cholesky(factor: Tensor) -> Tensor:
        base = torch.randn(*matrix.shape[:-1], num_samples, dtype=matrix.dtype, device=matrix.device)
        return (factor.to(base.dtype) @ base).movedim(-1, 0)

    return answer_or_cholesky(request, matrix, iterate, by_cholesky)


def inv_quad_from(
    matrix: LinearOperator,  # shape: (*batch, n, n)
    rhs: Tensor,  # shape: (*batch, n, k)
    solution: Tensor,  # shape: (*batch, n, k)
) -> Tensor:  # shape: (*batch, k)
    """diag(rhs^T A^-1 rhs) from an approximate solution x as 2 x^T rhs - x^T A x.

    With x held fixed this is below the true value by the squared A-norm of the error of x, so its
    error is quadratic in the residual, and its gradient, 2 x in rhs and -x x^T in A, is as accurate
    as x. Second derivatives would miss the dependence of x, so asking for them is an error.
    """
    solution = solution.detach()
    values = (solution * (2 * rhs - matrix @ solution)).sum(-2)
    return once_differentiable(values)


def _probe_rtol(request: SolveRequest) -> float:
    return min(_PROBE_RTOL, 50 * request.rtol)


def _logdet_of(factor: Tensor) -> Tensor:
    return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def _error_bound(result: Any) -> float | None:
    """The largest bound of a relative error, over columns that are not zero; None where nothing bounds it."""
    bounds = getattr(result, "error_bounds", None)
    return None if bounds is None else float(bounds.masked_fill(result.residual_norms == 0, 0).max())


def _record(request: SolveRequest, matrix: LinearOperator, *results: Any, gradient_error: float | None = None) -> None:
    """Record one call by the results it returned, the solution first."""
    residuals = [r.residual_norms for r in results if hasattr(r, "residual_norms")]
    errors = [float(r.standard_error.max()) for r in results if hasattr(r, "standard_error")]
    _record_call(
        request,
        matrix,
        getattr(results[0], "method", "lanczos"),
        num_columns=sum(r.shape[-1] for r in residuals),
        num_iterations=max(r.num_iterations for r in results),
        num_matvecs=max(r.num_matvecs for r in results),
        residual=max((float(r.max()) for r in residuals), default=None),
        standard_error=max(errors, default=None),
        error_bound=_error_bound(results[0]),
        gradient_error=gradient_error,
    )


def _record_call(request: SolveRequest, matrix: LinearOperator, method: str, **figures: Any) -> None:
    built = request.preconditioner
    assert built is not None
    request.block.recorder.call(
        Call(
            request.purpose,
            matrix.shape[-1],
            method,
            rtol=request.rtol,
            preconditioner=(built.num_columns, built.num_neighbors),
            **figures,
        )
    )
