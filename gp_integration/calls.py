"""The calls to `rangeformer`, each recorded, checked, and repeated by Cholesky if it failed.

A call fails if a solve or a log-determinant did not reach its tolerance, if anything is not finite,
or if the matrix showed itself indefinite. Then GPyTorch's own `psd_safe_cholesky` answers instead,
with the jitter and the errors that its users know. It is called directly, without GPyTorch's
settings, which all threads share.
"""

import math
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any, TypeVar

import torch
from linear_operator.operators import LinearOperator
from linear_operator.utils.cholesky import psd_safe_cholesky
from torch import Tensor

import rangeformer as rf
from gp_integration import structure_cache as structures
from gp_integration.derivatives import FirstDerivative, SolveDerivative
from gp_integration.folding import Fold
from gp_integration.report import Call
from gp_integration.request import Task

Answer = TypeVar("Answer")

# The probe solves decide the gradient's variance, not the value: they may be this loose.
_PROBE_RTOL = 5e-2
# A tolerance may be missed by this factor if the backward error is at most so many units of rounding.
_MISS = 100
_ROUNDING = 4


def solve(
    task: Task,
    matrix: LinearOperator,  # shape: (*batch, n, n)
    rhs: Tensor,  # shape: (*any, n, k)
) -> Tensor:  # shape: (*broadcast, n, k)
    """A^-1 rhs, differentiable in both; batch dimensions that only rhs has become columns.

    The backward pass is one more checked solve with the same preconditioner, needs no block, and is
    recorded with the block that made the call.
    """
    fold = Fold.of(matrix.shape[:-2], rhs)
    columns = fold.fold(rhs)
    with torch.no_grad():
        solution, task = _solve(task, matrix, columns.detach())
    parts = matrix.representation()
    if torch.is_grad_enabled() and any(tensor.requires_grad for tensor in (columns, *parts)):

        def adjoint(gradient: Tensor) -> Tensor:
            return _solve(replace(task, purpose=f"{task.purpose} (backward)"), matrix, gradient)[0]

        solution = SolveDerivative.apply(solution, matrix.representation_tree(), adjoint, columns, *parts)
    return fold.unfold(solution)


def _solve(task: Task, matrix: LinearOperator, columns: Tensor) -> tuple[Tensor, Task]:
    """The solution, without a graph, and the task with the preconditioner that was used."""

    def ours() -> tuple[tuple[Tensor, Task], str | None]:
        operator = rf.as_operator(matrix)
        prepared = task.prepared(operator, columns.shape[-1])
        solution = rf.linear_solve(operator, columns, **prepared.keywords())
        _record(prepared, matrix, solution)
        return (solution.value, prepared), _failed_solve(prepared, matrix, columns, solution)

    def by_cholesky() -> tuple[Tensor, Task]:
        return torch.cholesky_solve(columns, psd_safe_cholesky(matrix.to_dense())), task

    return _attempt(task, matrix, ours, by_cholesky)


def inv_quad_logdet(
    task: Task,
    matrix: LinearOperator,  # shape: (*batch, n, n)
    rhs: Tensor,  # shape: (*any, n, k)
) -> tuple[Tensor, Tensor]:  # shapes: (*broadcast, k), (*batch)
    """rhs^T A^-1 rhs for every column, and log det A, from one call; both differentiable."""
    fold = Fold.of(matrix.shape[:-2], rhs)
    columns = fold.fold(rhs)

    def ours() -> tuple[tuple[Tensor, Tensor], str | None]:
        operator = rf.as_operator(matrix)
        prepared = task.prepared(operator, columns.shape[-1] + task.num_probes())
        result = rf.inv_quad_logdet(
            operator,
            columns,
            num_probes=task.block.options.num_probes,
            probe_rtol=min(_PROBE_RTOL, 50 * task.tolerance),
            generator=task.block.options.generator(matrix.device, stream=1),
            **prepared.keywords(),
        )
        _record(prepared, matrix, result.solution, result.log_determinant)
        if not _structure_serves(prepared, operator, result):
            return ours()
        if columns.shape[-1] == 1:
            inv_quad = result.inv_quad.unsqueeze(-1)
        else:
            inv_quad = inv_quad_from(matrix, columns, result.solution.value)
        reason = _failed_solve(prepared, matrix, columns.detach(), result.solution)
        return (inv_quad, result.logdet), reason or _failure(result.log_determinant)

    def by_cholesky() -> tuple[Tensor, Tensor]:
        factor = psd_safe_cholesky(matrix.to_dense())
        whitened = torch.linalg.solve_triangular(factor, columns, upper=False)
        return whitened.square().sum(-2), _logdet_of(factor)

    inv_quad, logdet = _attempt(task, matrix, ours, by_cholesky)
    inv_quad = fold.unfold(inv_quad.unsqueeze(-2)).squeeze(-2)
    return FirstDerivative.apply(inv_quad), FirstDerivative.apply(logdet)


def _structure_serves(task: Task, operator: rf.MatrixOperator, result: rf.InvQuadLogdet) -> bool:
    assert task.preconditioner is not None
    structure = task.preconditioner.structure
    if task.kernel is None or structure is None:
        return True
    num_iterations = result.log_determinant.num_iterations + result.solution.num_iterations
    cost = structures.Cost(num_iterations, float(result.standard_error.max()))
    return structures.serves(task.kernel, task.key(operator), structure, cost)


def logdet(
    task: Task,
    matrix: LinearOperator,  # shape: (*batch, n, n)
) -> Tensor:  # shape: (*batch)
    """Log det A, differentiable."""

    def ours() -> tuple[Tensor, str | None]:
        operator = rf.as_operator(matrix)
        prepared = task.prepared(operator, task.num_probes())
        result = rf.logdet(
            operator,
            num_probes=task.block.options.num_probes,
            generator=task.block.options.generator(matrix.device, stream=1),
            **prepared.keywords() | {"rtol": min(_PROBE_RTOL, 50 * task.tolerance)},
        )
        _record(prepared, matrix, result)
        return result.value, _failure(result)

    def by_cholesky() -> Tensor:
        return _logdet_of(psd_safe_cholesky(matrix.to_dense()))

    return FirstDerivative.apply(_attempt(task, matrix, ours, by_cholesky))


def inv_quad(
    task: Task,
    matrix: LinearOperator,  # shape: (*batch, n, n)
    rhs: Tensor,  # shape: (*any, n, k)
) -> Tensor:  # shape: (*broadcast, k)
    """rhs^T A^-1 rhs for every column: one solve without a graph, no solve in the backward pass."""
    fold = Fold.of(matrix.shape[:-2], rhs)
    columns = fold.fold(rhs)
    with torch.no_grad():
        solution = solve(task, matrix, columns)
    values = inv_quad_from(matrix, columns, solution)
    return fold.unfold(values.unsqueeze(-2)).squeeze(-2)


def sample(
    task: Task,
    matrix: LinearOperator,  # shape: (*batch, n, n)
    num_samples: int,
) -> Tensor:  # shape: (num_samples, *batch, n)
    """Samples of N(0, A) without a factorisation of A, not differentiable; drawn from the global generator."""

    def ours() -> tuple[Tensor, str | None]:
        options = task.block.options
        operator = rf.as_operator(matrix)
        built = task.prepared(operator, num_samples).preconditioner
        samples = rf.sample_gaussian(
            operator,
            num_samples,
            rtol=task.tolerance,
            preconditioner=built,
            max_iterations=options.max_iterations,
        )
        task.block.recorder.call(
            Call(
                task.purpose,
                matrix.shape[-1],
                "krylov",
                num_columns=num_samples,
                num_matvecs=operator.reads.matvecs,
                tolerance=task.tolerance,
                preconditioner=(built.num_columns, built.num_neighbors),
            )
        )
        return samples, None if bool(torch.isfinite(samples).all()) else "not finite."

    def by_cholesky() -> Tensor:
        factor = psd_safe_cholesky(matrix.to_dense())
        base = torch.randn(*matrix.shape[:-1], num_samples, dtype=matrix.dtype, device=matrix.device)
        return (factor @ base).movedim(-1, 0)

    return _attempt(task, matrix, ours, by_cholesky)


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
    return FirstDerivative.apply(values)


def _attempt(
    task: Task,
    matrix: LinearOperator,
    ours: Callable[[], tuple[Answer, str | None]],
    by_cholesky: Callable[[], Answer],
) -> Answer:
    task.block.options.preconditioner()  # a bad checkpoint is the user's to mend, not ours to work around
    try:
        answer, reason = ours()
    except (ValueError, torch._C._LinAlgError) as error:
        answer, reason = None, f"{type(error).__name__}: {error}"
    if answer is not None and reason is None:
        return answer
    if task.kernel is not None:
        structures.forget(task.kernel, task.key(matrix))
    recorder, options = task.block.recorder, task.block.options
    recorder.fallback(task.purpose, reason)
    advice = "Raise `max_iterations`, loosen the tolerance, or use float64; if it persists, the noise is too small."
    if options.fallback == "raise":
        raise RuntimeError(f"use_rangeformer failed ({task.purpose}): {reason} {advice}")
    warnings.warn(
        f"use_rangeformer fell back to Cholesky ({task.purpose}): {reason} {advice}",
        rf.ConvergenceWarning,
        stacklevel=5,
    )
    recorder.call(Call(task.purpose, matrix.shape[-1], "cholesky (fallback)"))
    return by_cholesky()


def _failure(result: Any) -> str | None:
    """Why a result of `rangeformer` may not be used, or None if it may."""
    value = result.value
    if not bool(torch.isfinite(value.detach()).all()):
        return f"not finite. {result.message}"
    return None if bool(result.converged.all()) else result.message


def _failed_solve(task: Task, matrix: LinearOperator, rhs: Tensor, solution: rf.Solution) -> str | None:
    """`_failure`, but a solution as accurate as its type can hold has not failed.

    In float32 the tolerance may be out of reach for any method. A backward error of a few units of
    rounding means that the solution is exact for a matrix that rounds to this one: Cholesky in the same
    precision has nothing better to offer. It stays recorded with the residual it reached.
    """
    reason = _failure(solution)
    if reason is None or not bool(torch.isfinite(solution.value).all()) or solution.cause is rf.Status.INDEFINITE:
        return reason
    missed = solution.residual_norms[~solution.converged]
    if bool((missed > _MISS * task.tolerance).any()) or bool((missed <= task.tolerance).any()):
        return reason
    with torch.no_grad():
        vector = torch.ones_like(rhs[..., :1])
        for _ in range(3):
            vector = vector / torch.linalg.vector_norm(vector, dim=-2, keepdim=True)
            vector = matrix @ vector
        norm_of_matrix = torch.linalg.vector_norm(vector, dim=-2)
        norms = torch.linalg.vector_norm(rhs, dim=-2)
        scale = norm_of_matrix * torch.linalg.vector_norm(solution.value, dim=-2) + norms
        backward_error = solution.residual_norms * norms / scale.clamp_min(torch.finfo(rhs.dtype).tiny)
    limit = _ROUNDING * torch.finfo(rhs.dtype).eps
    return None if bool((backward_error <= limit).all()) else reason


def _record(task: Task, matrix: LinearOperator, *results: Any) -> None:
    residuals = [r.residual_norms for r in results if hasattr(r, "residual_norms")]
    built = task.preconditioner
    assert built is not None
    task.block.recorder.call(
        Call(
            purpose=task.purpose,
            size=matrix.shape[-1],
            method=getattr(results[0], "method", "lanczos"),
            num_columns=sum(r.shape[-1] for r in residuals),
            num_iterations=max(r.num_iterations for r in results),
            num_matvecs=max(r.num_matvecs for r in results),
            tolerance=task.tolerance,
            residual=max((float(r.max()) for r in residuals), default=None),
            standard_error=max(
                (float(r.standard_error.max()) for r in results if hasattr(r, "standard_error")), default=None
            ),
            preconditioner=(built.num_columns, built.num_neighbors),
        )
    )


def _logdet_of(factor: Tensor) -> Tensor:
    return 2 * factor.diagonal(dim1=-2, dim2=-1).log().sum(-1)


def gaussian_constant(size: int) -> float:
    """N log 2 pi."""
    return size * math.log(2 * math.pi)
