"""Iterative refinement around any solver, with the recomputed residual as the certificate.

The solver works in A's precision on the whole problem. Around it the residual is recomputed from the solution itself,
in float64 where A's storage allows, and what is left is solved for again. That is residual replacement taken to its
end: float32 solves reach the accuracy that float32 storage of A and of the solution permits.
"""

from dataclasses import dataclass

import torch

from rangeformer.dense_factorisation import may_solve_directly
from rangeformer.krylov.certificate import (
    ScaledColumns,
    certified_residuals,
    directly_where_better,
    needs_precision,
    relative_residuals,
)
from rangeformer.krylov.conjugate_gradients import Iterate
from rangeformer.operators import MatrixOperator
from rangeformer.preconditioners.base import Preconditioner
from rangeformer.results import Status, warn_unconverged
from rangeformer.shapes import Bool, Float, Tensor
from rangeformer.solvers.base import Solver, Stopping, System

# A shared space that is full before it gained this much would restart for ever; separate recurrences go on instead.
_RESTART_GAIN = 0.1


@dataclass(frozen=True)
class Refined:
    """A verified solution.

    Attributes:
        value: `(*batch, n, k)` in A's dtype.
        relative: `(*batch, k)` relative residual norms, recomputed, float64.
        converged: `(*batch, k)` whether `relative` is at most rtol, whoever produced the value.
        num_iterations: Passes of the iteration.
        status: How it ended.
        cause: How the iteration ended, before a fallback.
        fallback: Name of the dense factorisation that produced some of the values, or None.
        message: A sentence on how it ended.
        error_bounds: `(*batch, k)` bounds of the relative error of the value, None where there are none.
    """

    value: Float[Tensor, "*batch n k"]
    relative: Float[Tensor, "*batch k"]
    converged: Bool[Tensor, "*batch k"]
    num_iterations: int
    status: Status
    cause: Status
    fallback: str | None
    message: str
    error_bounds: Float[Tensor, "*batch k"] | None = None


def refine(
    operator: MatrixOperator,
    rhs: Float[Tensor, "*batch n k"],
    P: Preconditioner,
    solver: Solver,
    stopping: Stopping,
    *,
    start: Float[Tensor, "*batch n k"] | None = None,
) -> Refined:
    """Solve A X = rhs on checked arguments and without autograd, and verify the result.

    Args:
        operator: A.
        rhs: `(*batch, n, k)`.
        P: The preconditioner.
        solver: What solves for each residual.
        stopping: Tolerance, limit and fallback.
        start: An initial iterate to refine; zero if None.

    Warns:
        ConvergenceWarning: If a column misses the tolerance.
    """
    state = _Refinement(operator, rhs, stopping, start)
    num_iterations = 0
    while bool((unsolved := state.unsolved()).any()) and num_iterations < stopping.max_iterations:
        inner = solver.run(state.system(P, unsolved), stopping.max_iterations - num_iterations)
        num_iterations += inner.num_iterations
        stalled = state.correct(inner, unsolved)
        if inner.num_iterations == 0:
            break
        successor = solver.after_stagnation()
        state.given_up |= state.indefinite
        if successor is None:
            state.given_up |= stalled
        # One matrix of a batch that breaks down ends the shared space of all: separate recurrences finish the others.
        elif bool((stalled | inner.indefinite | (state.relative > _RESTART_GAIN)).any()):
            solver = successor
    return _verified(state, stopping, num_iterations)


class _Refinement:
    """The solution so far in float64, with columns scaled by powers of two, and its residual.

    Without the scaling, squares of tiny and huge columns would leave the range of floating point.
    """

    def __init__(self, operator: MatrixOperator, rhs: Tensor, stopping: Stopping, start: Tensor | None):
        self.operator, self.rtol, self.error_rtol = operator, stopping.rtol, stopping.error_rtol
        self.least_eigenvalue = _least_eigenvalue(operator)
        scaled = ScaledColumns.of(rhs)
        self.size, self.rhs, self.scale = scaled.size, scaled.vectors, scaled.norms
        self.value = torch.zeros_like(self.rhs) if start is None else start.to(torch.float64) / self.size
        self.relative, self.residual = self.residual_of(self.value)
        if start is not None:
            useful = (self.relative < 1).unsqueeze(-2)
            self.value = torch.where(useful, self.value, torch.zeros_like(self.value))
            self.residual = torch.where(useful, self.residual, self.rhs)
            self.relative = self.relative.clamp_max(1.0)
        self.indefinite = torch.zeros_like(self.relative, dtype=torch.bool)
        self.given_up = torch.zeros_like(self.indefinite)

    def residual_of(self, value: Tensor) -> tuple[Tensor, Tensor]:
        """Relative norms and vectors of the residual of `value`, from A."""
        return relative_residuals(self.operator, self.rhs, value, self.scale, float(self.targets(value).min()))

    def targets(self, value: Tensor) -> Tensor:
        """Relative residuals to reach: rtol, or less where that is what a small error of `value` takes.

        ||x - A^-1 b|| <= ||b - A x|| / lambda_min, and lambda_min is at least the noise.
        """
        targets = torch.full_like(self.scale, self.rtol)
        if self.error_rtol is None or self.least_eigenvalue is None:
            return targets
        size = torch.linalg.vector_norm(value, dim=-2)
        wanted = self.error_rtol * self.least_eigenvalue.unsqueeze(-1) * size / self.scale
        reach = torch.finfo(self.operator.dtype).eps
        return torch.where(size > 0, torch.minimum(targets, wanted.clamp_min(reach)), targets)

    def unsolved(self) -> Tensor:
        """Columns above their targets that can still gain."""
        return (self.relative > self.targets(self.value)) & ~self.given_up

    def error_bounds(self, value: Tensor, relative: Tensor) -> Tensor | None:
        """Bounds of the relative error of a value in A's dtype, or None where no eigenvalue is bounded from below."""
        if self.least_eigenvalue is None:
            return None
        size = torch.linalg.vector_norm(value.to(torch.float64) / self.size, dim=-2)
        error = relative * self.scale / self.least_eigenvalue.unsqueeze(-1)
        # No larger than the error of an answer that is zero, in units of the solution itself.
        return torch.where(size > error, error / (size - error), torch.full_like(error, torch.inf))

    def system(self, P: Preconditioner, unsolved: Tensor) -> System:
        """What is left to solve, in unit columns of A's precision.

        One refinement cannot gain more than the working precision holds, and float32 images of a kernel's large
        eigenvalues hold little: several short refinements reach further than a long one.
        """
        eps = torch.finfo(self.operator.dtype).eps
        reach = 50 * eps if self.operator.dtype == torch.float64 else eps**0.5
        targets = 0.5 * self.targets(self.value) / self.relative.clamp_min(1e-300)
        targets = torch.maximum(targets, torch.full_like(self.relative, reach))
        targets = torch.where(unsolved, targets, torch.full_like(targets, torch.inf))
        unit = self.residual / (self.relative * self.scale).clamp_min(1e-300).unsqueeze(-2)
        return System(self.operator, unit.to(self.operator.dtype), P, targets)

    def correct(self, inner: Iterate, unsolved: Tensor) -> Tensor:
        """Add the correction where it helps; returns the columns that gained less than a factor of two."""
        self.indefinite = self.indefinite | inner.indefinite
        correction = inner.value.to(torch.float64) * (self.relative * self.scale).unsqueeze(-2)
        trial = self.value + correction
        relative, residual = self.residual_of(trial)
        better = relative < self.relative
        self.value = torch.where(better.unsqueeze(-2), trial, self.value)
        self.residual = torch.where(better.unsqueeze(-2), residual, self.residual)
        stalled = (relative > 0.5 * self.relative) & unsolved
        self.relative = torch.where(better, relative, self.relative)
        return stalled

    def rounded(self) -> tuple[Tensor, Tensor]:
        """The value in A's dtype and its relative residuals."""
        dtype = self.operator.dtype
        rounded = (self.value * self.size).to(dtype)
        back = rounded.to(torch.float64) / self.size
        # Beyond rounding, the value may leave the range of its type altogether.
        out_of_range = bool(((back - self.value).abs() > torch.finfo(dtype).eps * self.value.abs()).any())
        relative = self.relative
        if out_of_range or (dtype != torch.float64 and needs_precision(self.operator, back, self.scale, self.rtol)):
            relative, _ = self.residual_of(back)
        return rounded, relative

    def certified(self, value: Tensor, relative: Tensor) -> Tensor:
        """Relative residuals of a value in A's dtype, recomputed in twice the precision where rounding decides."""
        back = value.to(torch.float64) / self.size
        return certified_residuals(self.operator, self.rhs, back, self.scale, relative, self.rtol)


def _verified(state: _Refinement, stopping: Stopping, num_iterations: int) -> Refined:
    solved = bool((state.relative <= stopping.rtol).all())
    value, relative = state.rounded()
    relative = state.certified(value, relative)
    converged = relative <= stopping.rtol
    if bool((converged & ~state.indefinite).all()):
        done = Status.CONVERGED
        bounds = state.error_bounds(value, relative)
        return Refined(value, relative, converged, num_iterations, done, done, None, done.value, bounds)
    if bool(state.indefinite.any()):
        cause = Status.INDEFINITE
    elif solved:
        cause = Status.PRECISION_LIMITED
    else:
        cause = Status.MAX_ITERATIONS if num_iterations >= stopping.max_iterations else Status.STAGNATED
    status, used = cause, None
    message = explain(cause, float(relative.max()), stopping, num_iterations, state.operator.dtype)
    if not solved and stopping.fallback == "dense" and may_solve_directly(state.operator):
        value, relative, used = directly_where_better(
            state.operator,
            state.rhs,
            value,
            relative,
            ~converged,
            size=state.size,
            scale=state.scale,
            rtol=stopping.rtol,
        )
        relative = state.certified(value, relative)
        converged = relative <= stopping.rtol
        if used is not None:
            status = Status.FALLBACK_USED
            message += f" The values come from a dense {used} factorisation instead."
    warn_unconverged(message)
    bounds = state.error_bounds(value, relative)
    return Refined(value, relative, converged, num_iterations, status, cause, used, message, bounds)


def _least_eigenvalue(operator: MatrixOperator) -> Float[Tensor, "*batch"] | None:
    """A lower bound of A's eigenvalues: the smallest noise, or None where none is known."""
    noise = operator.noise
    if noise is None:
        return None
    least = noise.detach().to(torch.float64).amin(-1)
    return least if bool((least > 0).all()) else None


def explain(status: Status, worst: float, stopping: Stopping, num_iterations: int, dtype: torch.dtype) -> str:
    """The status as a sentence with its figures and what to do.

    Args:
        status: Not `CONVERGED`.
        worst: Largest relative residual.
        stopping: What was asked for.
        num_iterations: Passes made.
        dtype: The matrix's.
    """
    rtol = stopping.rtol
    if status is Status.INDEFINITE:
        return (
            f"`A` is not positive definite: negative curvature after {num_iterations} iterations (worst relative "
            f"residual {worst:.1e}). Add a larger multiple of the identity, or solve A.mT @ A with A.mT @ rhs."
        )
    if status is Status.PRECISION_LIMITED:
        return (
            f"The solution meets rtol={rtol:.1e} in float64, but rounded to {dtype} its relative residual is "
            f"{worst:.1e}: ask for a looser rtol, or pass A and rhs in float64."
        )
    if status is Status.MAX_ITERATIONS:
        return (
            f"The solve stopped at max_iterations={stopping.max_iterations} with relative residual {worst:.1e} > "
            f"rtol={rtol:.1e}. Allow more iterations, or give the preconditioner more columns and neighbours."
        )
    return (
        f"The solve stalled at relative residual {worst:.1e} > rtol={rtol:.1e} after {num_iterations} iterations: the "
        f"limit of {dtype} for this matrix. Ask for a looser rtol, or pass A in float64."
    )
